//! Who may ask: before any route is looked at.
//!
//! Without a password only this machine is served, and a web page that a browser on it
//! shows must not be able to ask either: hence the checks of `Host` (DNS rebinding) and of
//! `Origin` and `Sec-Fetch-Site` (forged requests).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::{Choice, ConstantTimeEq};
use tracing::warn;

use super::actor::{Actor, allows, reads};
use super::error::Refusal;
use super::{Settings, Shared, page};
use crate::clients::{FORGOTTEN_AFTER, Role, Verdict};

/// Answers in place of the route, or lets it, and tells it who asks.
pub(super) async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let mut response = if page::is_page(request.uri().path()) {
        of_page(&shared, request, next).await
    } else {
        of_route(&shared, request, next).await
    };
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    shared.context.metrics.http_request(response.status().as_u16());
    response
}

async fn of_route(shared: &Arc<Shared>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    match check(&head, &shared.settings(), shared).await {
        Ok(actor) => {
            head.extensions.insert(actor);
            let response = next.run(Request::from_parts(head, body)).await;
            // Who reads bodies says it in words of his own.
            let too_large = response.status() == StatusCode::PAYLOAD_TOO_LARGE;
            if too_large { Refusal::too_large().into_response() } else { response }
        }
        Err(refusal) => *refusal.0,
    }
}

/// Pages know who asks by sessions.
async fn of_page(shared: &Arc<Shared>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let (settings, client) = (shared.settings(), client_of(&head));
    let entered = match check_host(&head).and_then(|()| check_own(&head, &settings, shared)) {
        Ok(()) => page::enter(Request::from_parts(head, body), client, shared).await,
        Err(refused) => Err(refused.0),
    };
    match entered {
        Ok(request) => {
            let visitor = request.extensions().get::<page::Visitor>().cloned();
            page::dressed(next.run(request).await, visitor.as_ref())
        }
        Err(response) => page::dressed(*response, Some(&page::Visitor::stranger(client, shared))),
    }
}

/// A refusal, boxed since it is large.
struct Refused(Box<Response>);

fn refused(response: impl IntoResponse) -> Refused {
    Refused(Box::new(response.into_response()))
}

async fn check(request: &Parts, settings: &Settings, shared: &Shared) -> Result<Actor, Refused> {
    check_site(request, settings)?;
    let address = client_of(request);
    let anybody = Actor { name: None, role: Role::Full, address };
    check_own(request, settings, shared)?;
    if !settings.has_password() {
        return Ok(anybody);
    }
    if request.method == Method::OPTIONS || is_public(request.uri.path()) {
        return Ok(Actor { role: Role::ReadOnly, ..anybody });
    }
    let actor = challenged(request, address, settings, shared).await?;
    if allows(actor.role, &request.method, &request.uri) {
        return Ok(actor);
    }
    Err(refused((StatusCode::FORBIDDEN, "Insufficient permissions for this operation.")))
}

/// Without a password, whoever asks for another host than this one (DNS rebinding) is refused.
fn check_own(request: &Parts, settings: &Settings, shared: &Shared) -> Result<(), Refused> {
    let is_own = host_of(request).is_some_and(|host| is_own(host, settings, shared.address.ip()));
    if settings.has_password() || is_own {
        return Ok(());
    }
    Err(refused(Refusal::forbidden("The Host of the request is not this server's own")))
}

/// Refuses what has two hosts (RFC 9112 section 3.2).
fn check_host(request: &Parts) -> Result<(), Refused> {
    if request.headers.get_all(header::HOST).iter().count() > 1 {
        return Err(refused(Refusal::bad_request("The request has more than one Host")));
    }
    Ok(())
}

/// Refuses what another site's page sends, too.
fn check_site(request: &Parts, settings: &Settings) -> Result<(), Refused> {
    check_host(request)?;
    let headers = &request.headers;
    if !reads(&request.method) && is_foreign(headers, host_of(request), settings) {
        return Err(refused(Refusal::forbidden("A request from another site changes nothing here")));
    }
    Ok(())
}

/// Who gives the password that the header of a request has.
async fn challenged(request: &Parts, client: IpAddr, settings: &Settings, shared: &Shared) -> Result<Actor, Refused> {
    let Some(given) = given(&request.headers, settings.users.is_some()) else {
        if request.uri.path() == "/" && wants_a_page(&request.headers) {
            return Err(refused(page::login_from_start()));
        }
        return Err(refused((StatusCode::UNAUTHORIZED, challenge(settings), "No Password in header.")));
    };
    match identify(&given, client, settings, shared).await {
        Identified::As(name, role) => Ok(Actor { name, role, address: client }),
        Identified::Unheard => Err(too_many()),
        Identified::Wrong => Err(refused((StatusCode::UNAUTHORIZED, challenge(settings), "Wrong password."))),
    }
}

/// Whether it is a browser that asks.
fn wants_a_page(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|all| all.contains("text/html"))
}

/// What comes of a password.
pub(super) enum Identified {
    /// A user by name, or whoever knows a password, and what he may do.
    As(Option<String>, Role),
    /// It is nobody's.
    Wrong,
    /// It was not looked at: too many from there were wrong.
    Unheard,
}

/// Who gives this password; a wrong one is counted.
pub(super) async fn identify(given: &Given, client: IpAddr, settings: &Settings, shared: &Shared) -> Identified {
    let now = shared.context.clock.instant();
    if shared.context.wrong_passwords.are_too_many(client, now) {
        return Identified::Unheard;
    }
    let found = match given {
        Given::Password(password) => role_of(password, settings).map(|role| (None, role)),
        Given::User(name, password) => match user(name, password, client, settings, shared).await {
            Verdict::Unheard => return Identified::Unheard,
            Verdict::Right(role) => Some((Some(name.clone()), role)),
            Verdict::Wrong => None,
        },
    };
    if let Some((name, role)) = found {
        return Identified::As(name, role);
    }
    if matches!(given, Given::Password(_)) {
        shared.context.wrong_passwords.add(client, now);
    }
    warn!(%client, "a wrong password for the admin listener");
    Identified::Wrong
}

/// What comes of the password of a user of `admin.users`; a wrong one is counted there.
async fn user(name: &str, password: &str, client: IpAddr, settings: &Settings, shared: &Shared) -> Verdict {
    match &settings.users {
        Some(users) => users.verify(name, password, client, &shared.context.clock).await,
        None => Verdict::Wrong,
    }
}

/// When one more password is looked at.
pub(super) const RETRY_AFTER: std::time::Duration = FORGOTTEN_AFTER;

fn too_many() -> Refused {
    let wait = [(header::RETRY_AFTER, RETRY_AFTER.as_secs())];
    refused((wait, Refusal::too_many_wrong_passwords()))
}

/// Where there are users, a browser is to ask for a name (RFC 7617).
fn challenge(settings: &Settings) -> HeaderMap {
    let challenge = HeaderValue::from_static("Basic realm=\"redeliver\", charset=\"UTF-8\"");
    settings.users.iter().map(|_| (header::WWW_AUTHENTICATE, challenge.clone())).collect()
}

/// Where the request came from.
fn client_of(request: &Parts) -> IpAddr {
    let connection = request.extensions.get::<ConnectInfo<SocketAddr>>();
    connection.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |connection| connection.0.ip().to_canonical())
}

fn is_public(path: &str) -> bool {
    path == "/healthcheck" || path.starts_with("/healthcheck/")
}

/// From the request line where it is there, else from the header.
fn host_of(request: &Parts) -> Option<&str> {
    let in_header = || request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    request.uri.authority().map(axum::http::uri::Authority::as_str).or_else(in_header)
}

/// Whether a browser says that another site's page is behind it.
fn is_foreign(headers: &HeaderMap, host: Option<&str>, settings: &Settings) -> bool {
    let own_site = |site: &HeaderValue| site == "same-origin" || site == "none";
    let foreign = |origin: &HeaderValue| {
        let origin = origin.to_str().ok();
        if let Some(url) = &settings.url {
            return origin != Some(origin_of(url).as_str());
        }
        let site = origin.and_then(|origin| origin.split_once("://")).map(|(_, site)| site);
        site.is_none() || site != host
    };
    headers.get_all("sec-fetch-site").iter().any(|site| !own_site(site))
        || headers.get_all(header::ORIGIN).iter().any(foreign)
}

/// Whether a browser says that a page of ours sent this: its origin is there and ours.
pub(super) fn is_of_our_page(request: &Parts, settings: &Settings) -> bool {
    let headers = &request.headers;
    headers.get_all(header::ORIGIN).iter().count() == 1
        && headers.get_all("sec-fetch-site").iter().all(|site| site == "same-origin")
        && !is_foreign(headers, host_of(request), settings)
}

/// `https://relay.example.org` of a URL, as a browser writes it (RFC 6454 section 7).
fn origin_of(url: &Uri) -> String {
    format!("{}://{}", url.scheme_str().unwrap_or("http"), url.authority().map_or("", |authority| authority.as_str()))
}

/// Whether `host` means this machine, whatever the port: it may be forwarded.
fn is_own(host: &str, settings: &Settings, listens_on: IpAddr) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some(both) => both,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    let by_url = settings.url.as_ref().and_then(Uri::host).is_some_and(|own| own.eq_ignore_ascii_case(name));
    is_port && (by_url || is_own_name(name, listens_on))
}

fn is_own_name(name: &str, listens_on: IpAddr) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback() || address == listens_on)
}

/// What a client proves itself with.
pub(super) enum Given {
    /// One of the passwords, by James's header or as a bearer token.
    Password(Vec<u8>),
    /// A user and his password (RFC 7617).
    User(String, String),
}

fn given(headers: &HeaderMap, has_users: bool) -> Option<Given> {
    if let Some(password) = headers.get("password") {
        return Some(Given::Password(password.as_bytes().to_vec()));
    }
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at(value.iter().position(|octet| *octet == b' ')?);
    let token = token.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(Given::Password(token.to_vec()));
    }
    if !has_users || !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(token).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some(Given::User(name.to_owned(), password.to_owned()))
}

/// What a password gives. All are compared, each in constant time.
fn role_of(given: &[u8], settings: &Settings) -> Option<Role> {
    let among = |passwords: &[String]| {
        let equal = passwords.iter().map(|password| password.as_bytes().ct_eq(given));
        bool::from(equal.fold(Choice::from(0), |one, other| one | other))
    };
    let (full, no_delete, read_only) = (among(&settings.full), among(&settings.no_delete), among(&settings.read_only));
    match (full, no_delete, read_only) {
        (true, _, _) => Some(Role::Full),
        (_, true, _) => Some(Role::NoDelete),
        (_, _, true) => Some(Role::ReadOnly),
        _ => None,
    }
}
