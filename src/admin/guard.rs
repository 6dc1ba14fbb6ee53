//! Who may ask: before any route is looked at.
//!
//! Without a password only this machine is served, and a web page that a browser on it
//! shows must not be able to ask either: hence the checks of `Host` (DNS rebinding) and of
//! `Origin` and `Sec-Fetch-Site` (forged requests).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::{Choice, ConstantTimeEq};
use tracing::warn;

use super::error::Refusal;
use super::{Settings, Shared};
use crate::clients::FORGOTTEN_AFTER;

/// Answers in place of the route, or lets it.
pub(super) async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let settings = shared.settings();
    let mut response = match check(&request, &settings, &shared) {
        Ok(()) => next.run(request).await,
        Err(refusal) => *refusal,
    };
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

fn check(request: &Request, settings: &Settings, shared: &Shared) -> Result<(), Box<Response>> {
    let refused = |response: Response| Err(Box::new(response));
    let (method, headers) = (request.method(), request.headers());
    if headers.get_all(header::HOST).iter().count() > 1 {
        // RFC 9112 section 3.2.
        return refused(Refusal::bad_request("The request has more than one Host").into_response());
    }
    let host = host_of(request);
    if !reads(method) && is_foreign(headers, host) {
        return refused(Refusal::forbidden("A request from another site changes nothing here").into_response());
    }
    if !settings.has_password() {
        return match host {
            Some(host) if is_own(host, shared.address.ip()) => Ok(()),
            _ => refused(Refusal::forbidden("The Host of the request is not this server's own").into_response()),
        };
    }
    if method == Method::OPTIONS || is_public(request.uri().path()) {
        return Ok(());
    }
    let Some(password) = password(headers) else {
        return refused((StatusCode::UNAUTHORIZED, "No Password in header.").into_response());
    };
    let (client, now) = (client_of(request), shared.context.clock.instant());
    if shared.wrong_passwords.are_too_many(client, now) {
        let wait = [(header::RETRY_AFTER, FORGOTTEN_AFTER.as_secs())];
        return refused((wait, Refusal::too_many_wrong_passwords()).into_response());
    }
    match rights(password, settings) {
        None => {
            shared.wrong_passwords.add(client, now);
            warn!(%client, "a wrong password for the admin listener");
            refused((StatusCode::UNAUTHORIZED, "Wrong password.").into_response())
        }
        Some(rights) if rights.allow(method) => Ok(()),
        Some(_) => refused((StatusCode::FORBIDDEN, "Insufficient permissions for this operation.").into_response()),
    }
}

/// Where the request came from.
fn client_of(request: &Request) -> IpAddr {
    let connection = request.extensions().get::<ConnectInfo<SocketAddr>>();
    connection.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |connection| connection.0.ip())
}

fn is_public(path: &str) -> bool {
    path == "/healthcheck" || path.starts_with("/healthcheck/")
}

fn reads(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS].contains(method)
}

/// From the request line where it is there, else from the header.
fn host_of(request: &Request) -> Option<&str> {
    let in_header = || request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    request.uri().authority().map(axum::http::uri::Authority::as_str).or_else(in_header)
}

/// Whether a browser says that another site's page is behind it.
fn is_foreign(headers: &HeaderMap, host: Option<&str>) -> bool {
    let cross_site = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    let foreign = |origin: &HeaderValue| {
        let site = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, site)| site);
        site.is_none() || site != host
    };
    cross_site || headers.get(header::ORIGIN).is_some_and(foreign)
}

/// Whether `host` means this machine, whatever the port: it may be forwarded.
fn is_own(host: &str, listens_on: IpAddr) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some(both) => both,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    is_port && is_own_name(name, listens_on)
}

fn is_own_name(name: &str, listens_on: IpAddr) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback() || address == listens_on)
}

fn password(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = || {
        let value = headers.get(header::AUTHORIZATION)?.as_bytes();
        let (scheme, token) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
    };
    headers.get("password").map(HeaderValue::as_bytes).or_else(bearer)
}

#[derive(Clone, Copy)]
enum Rights {
    Full,
    NoDelete,
    ReadOnly,
}

impl Rights {
    fn allow(self, method: &Method) -> bool {
        match self {
            Self::Full => true,
            Self::NoDelete => method != Method::DELETE,
            Self::ReadOnly => reads(method),
        }
    }
}

/// What a password gives. All are compared, each in constant time.
fn rights(given: &[u8], settings: &Settings) -> Option<Rights> {
    let among = |passwords: &[String]| {
        let equal = passwords.iter().map(|password| password.as_bytes().ct_eq(given));
        bool::from(equal.fold(Choice::from(0), |one, other| one | other))
    };
    let (full, no_delete, read_only) = (among(&settings.full), among(&settings.no_delete), among(&settings.read_only));
    match (full, no_delete, read_only) {
        (true, _, _) => Some(Rights::Full),
        (_, true, _) => Some(Rights::NoDelete),
        (_, _, true) => Some(Rights::ReadOnly),
        _ => None,
    }
}
