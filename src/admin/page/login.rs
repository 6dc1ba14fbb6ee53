//! Logging in and out.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::super::guard::{self, Given, Identified};
use super::super::query::Query;
use super::super::{Settings, Shared};
use super::door::{COOKIE, Form, LOGIN, LOGOUT, Visitor, cookie, see};
use super::frame::{Frame, Section, page};
use super::session::Login;
use super::{START, url};

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route(LOGIN, get(ask).post(enter)).route(LOGOUT, post(leave))
}

#[derive(Template)]
#[template(path = "login.html", config = "src/admin/page/askama.toml")]
struct Page {
    frame: Frame,
    /// There are users, who have names.
    named: bool,
    /// A password without a name is possible too.
    nameless: bool,
    name: String,
    next: String,
    /// Why the form is there again.
    wrong: &'static str,
}

/// Where to go then: a path of ours only.
fn next(query: &Query) -> String {
    query.get("next").filter(|next| url::is_ours(next)).unwrap_or(START).to_owned()
}

fn form(visitor: &Visitor, settings: &Settings, given: &Query, wrong: &'static str) -> Response {
    let nameless = [&settings.full, &settings.no_delete, &settings.read_only].iter().any(|some| !some.is_empty());
    page(&Page {
        frame: visitor.frame("Log in", Section::None),
        named: settings.users.is_some(),
        nameless,
        name: given.get("name").unwrap_or_default().to_owned(),
        next: next(given),
        wrong,
    })
}

async fn ask(State(shared): super::super::State, visitor: Visitor, query: Query) -> Response {
    let settings = shared.settings();
    if visitor.is_logged_in || !settings.has_password() {
        return see(&next(&query));
    }
    form(&visitor, &settings, &query, "")
}

async fn enter(
    State(shared): super::super::State,
    visitor: Visitor,
    headers: HeaderMap,
    Form(given): Form,
) -> Response {
    let settings = shared.settings();
    if !settings.has_password() {
        return see(&next(&given));
    }
    let (name, password) = (given.get("name").unwrap_or_default(), given.get("password").unwrap_or_default());
    let shown = if name.is_empty() || settings.users.is_none() {
        Given::Password(password.as_bytes().to_vec())
    } else {
        Given::User(name.to_owned(), password.to_owned())
    };
    match guard::identify(&shown, visitor.actor.address, &settings, &shared).await {
        Identified::As(name, role) => {
            let known = name.as_ref().and_then(|name| settings.users.as_ref()?.credential(name));
            let proof = shared.sessions.proof(known.as_ref().map_or(password, |(_, hash)| hash));
            begin(&shared, &settings, &headers, Login { name, role, proof }, &next(&given))
        }
        Identified::Wrong => {
            let page = form(&visitor, &settings, &given, "That was not right.");
            (StatusCode::UNAUTHORIZED, page).into_response()
        }
        Identified::Unheard => {
            let wait = [(header::RETRY_AFTER, guard::RETRY_AFTER.as_secs().to_string())];
            let page =
                form(&visitor, &settings, &given, "Too many wrong passwords came from your address: wait a minute.");
            (StatusCode::TOO_MANY_REQUESTS, wait, page).into_response()
        }
    }
}

fn begin(shared: &Shared, settings: &Settings, headers: &HeaderMap, login: Login, next: &str) -> Response {
    if let Some(old) = cookie(headers) {
        shared.sessions.end(old);
    }
    let session = shared.sessions.begin(login, shared.context.clock.instant());
    with_cookie(see(next), settings, &session, "")
}

async fn leave(State(shared): super::super::State, headers: HeaderMap) -> Response {
    if let Some(session) = cookie(&headers) {
        shared.sessions.end(session);
    }
    with_cookie(see(LOGIN), &shared.settings(), "", "; Max-Age=0")
}

fn with_cookie(mut response: Response, settings: &Settings, value: &str, age: &str) -> Response {
    let is_https = settings.tls.is_some() || settings.url.as_ref().and_then(|url| url.scheme_str()) == Some("https");
    let secure = if is_https { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={value}; HttpOnly; SameSite=Lax; Path=/ui{secure}{age}");
    if let Ok(cookie) = cookie.parse() {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}
