//! Before every page: who asks, whether a form is one of ours, and what all answers carry.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::super::Shared;
use super::super::actor::{Actor, reads};
use super::super::error::Refusal;
use super::super::guard;
use super::super::query::Query;
use super::frame::{Frame, Section};
use super::session::{Login, Tokens};
use super::{START, frame, url};
use crate::clients::Role;
use crate::operations::Verb;
use crate::store::Time;

/// The cookie of a session.
pub(super) const COOKIE: &str = "redeliver";

/// Where one logs in and out.
pub(super) const LOGIN: &str = "/ui/login";
pub(super) const LOGOUT: &str = "/ui/logout";

/// Octets of a form: a note of 10 kB, percent-encoded, is the longest.
const LONGEST_FORM: usize = 128 * 1024;

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Whether a path is that of a page, or of what pages need.
pub(in crate::admin) fn is_page(path: &str) -> bool {
    path == "/ui" || path.starts_with("/ui/")
}

/// What is served without a session: where one begins, and what is in every copy of the program.
fn is_open(path: &str) -> bool {
    path == LOGIN || path.starts_with("/ui/static/")
}

/// Who asks for a page.
#[derive(Clone)]
pub(in crate::admin) struct Visitor {
    /// As the record of operations names him.
    pub(in crate::admin) actor: Actor,
    /// Of his forms.
    pub(super) tokens: Tokens,
    /// Whether there is a session that he can end.
    pub(super) is_logged_in: bool,
    /// When he asked.
    pub(in crate::admin) now: Time,
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = Refusal;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let visitor = head.extensions.get::<Self>().cloned();
        visitor.ok_or_else(|| Refusal::forbidden("Nobody knows who asks"))
    }
}

impl Visitor {
    /// Somebody who may only look at what everybody may.
    pub(in crate::admin) fn stranger(client: IpAddr, shared: &Shared) -> Self {
        let (tokens, now) = (shared.sessions.tokens_of_nobody(), shared.context.clock.now());
        Self { actor: actor(None, Role::ReadOnly, client), tokens, is_logged_in: false, now }
    }

    /// What a page of his has around it.
    pub(super) fn frame(&self, title: impl Into<String>, section: Section) -> Frame {
        Frame::new(title.into(), section, self)
    }

    /// The token of the form that is sent to this path.
    pub(in crate::admin) fn token(&self, action: &str) -> String {
        self.tokens.of(action)
    }

    /// Whether his role may change anything.
    pub(in crate::admin) fn may_change(&self) -> bool {
        self.actor.role != Role::ReadOnly
    }

    /// Whether his role may do this to mails.
    pub(in crate::admin) fn may(&self, verb: &Verb) -> bool {
        match verb {
            Verb::Remove => self.actor.role == Role::Full,
            _ => self.may_change(),
        }
    }
}

/// What came with a form whose token fits: the guard has looked at it.
#[derive(Clone)]
pub(in crate::admin) struct Form(pub(in crate::admin) Query);

impl<S: Send + Sync> FromRequestParts<S> for Form {
    type Rejection = Refusal;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let form = head.extensions.get::<Self>().cloned();
        form.ok_or_else(|| Refusal::forbidden("The form is none of ours"))
    }
}

/// Lets a request for a page in, with its visitor and its form; else the answer in its place.
pub(in crate::admin) async fn enter(
    request: Request,
    client: IpAddr,
    shared: &Arc<Shared>,
) -> Result<Request, Box<Response>> {
    let (mut head, body) = request.into_parts();
    let visitor = visitor(&head, client, shared)?;
    let mut body = Some(body);
    if !reads(&head.method) {
        let form = form(&head, body.take().unwrap_or_default(), &visitor, shared).await;
        head.extensions.insert(form.map_err(|refusal| Box::new(dressed(refusal.into_response(), Some(&visitor))))?);
    }
    head.extensions.insert(visitor.actor.clone());
    head.extensions.insert(visitor);
    Ok(Request::from_parts(head, body.unwrap_or_default()))
}

/// Who asks; else the answer that leads to the login.
fn visitor(head: &Parts, client: IpAddr, shared: &Shared) -> Result<Visitor, Box<Response>> {
    if !shared.settings().has_password() {
        return Ok(Visitor { actor: actor(None, Role::Full, client), ..Visitor::stranger(client, shared) });
    }
    let instant = shared.context.clock.instant();
    let found = cookie(&head.headers).and_then(|cookie| shared.sessions.find(cookie, instant));
    match found {
        Some((Login { name, role, .. }, tokens)) => {
            let now = shared.context.clock.now();
            Ok(Visitor { actor: actor(name, role, client), tokens, is_logged_in: true, now })
        }
        None if is_open(head.uri.path()) => Ok(Visitor::stranger(client, shared)),
        None => Err(Box::new(to_login(head))),
    }
}

fn actor(name: Option<String>, role: Role, address: IpAddr) -> Actor {
    Actor { name, role, address }
}

/// Where a browser that asks for nothing in particular logs in.
pub(in crate::admin) fn login_from_start() -> Response {
    see(&url::with(LOGIN, &[("next", START)]))
}

/// To the login, and from there to where he wanted to go.
fn to_login(head: &Parts) -> Response {
    let wanted = head.uri.path_and_query().map_or(START, axum::http::uri::PathAndQuery::as_str);
    let page = if reads(&head.method) { Some(wanted.to_owned()) } else { came_from(head) };
    let next = page.filter(|page| url::is_ours(page)).unwrap_or_else(|| START.to_owned());
    see(&url::with(LOGIN, &[("next", &next)]))
}

/// The page that a form stood on.
fn came_from(head: &Parts) -> Option<String> {
    let referer: axum::http::Uri = head.headers.get(header::REFERER)?.to_str().ok()?.parse().ok()?;
    Some(referer.path_and_query()?.as_str().to_owned())
}

/// What the session's cookie says.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
    let mut pairs = all.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

/// A form that changes something: sent by a page of ours, with the token of its action.
async fn form(head: &Parts, body: Body, visitor: &Visitor, shared: &Shared) -> Result<Form, Refusal> {
    if !guard::is_of_our_page(head, &shared.settings()) {
        return Err(Refusal::forbidden("The form was not sent by a page of this server"));
    }
    if head.method != Method::POST {
        return Ok(Form(Query::default()));
    }
    let too_long = |_| Refusal::invalid("The form is too long".to_owned());
    let octets = to_bytes(body, LONGEST_FORM).await.map_err(too_long)?;
    let form = Query::read(&String::from_utf8_lossy(&octets));
    let action = head.uri.path();
    if action == LOGIN {
        return Ok(Form(form));
    }
    if !visitor.tokens.fits(action, form.get("token").unwrap_or_default()) {
        return Err(Refusal::forbidden(
            "The form has no token of this session: go back, load its page anew, and try again",
        ));
    }
    if !visitor.may_change() && action != LOGOUT {
        return Err(Refusal::forbidden("Your role may look, and change nothing"));
    }
    Ok(Form(form))
}

/// What every answer of a page carries; a refusal becomes a page that says so.
pub(in crate::admin) fn dressed(response: Response, visitor: Option<&Visitor>) -> Response {
    let refusal = response.extensions().get::<Arc<Refusal>>().cloned();
    let mut response = match (refusal, visitor) {
        (Some(refusal), Some(visitor)) => in_html(&refusal, visitor, &response),
        _ => response,
    };
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "same-origin"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The refusal as a page, with the headers that the answer had beside its body.
fn in_html(refusal: &Refusal, visitor: &Visitor, answer: &Response) -> Response {
    let mut page = frame::problem(refusal, visitor);
    *page.status_mut() = answer.status();
    for (name, value) in answer.headers() {
        if ![header::CONTENT_TYPE, header::CONTENT_LENGTH].contains(name) {
            page.headers_mut().insert(name.clone(), value.clone());
        }
    }
    page
}

/// Said after something was done: to a page that shows it.
pub(in crate::admin) fn see(path: &str) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, path.to_owned())]).into_response()
}
