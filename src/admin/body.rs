//! What bodies are read: JSON, a message, or none at all.

use axum::body::{Bytes, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::Refusal;

/// The octets of a body of JSON; none where there is no body.
pub(super) struct JsonBody(pub(super) Bytes);

/// The octets of a body that is a message.
pub(super) struct MessageBody(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let fits = |essence: &str| essence == "application/json" || essence.ends_with("+json");
        let wanted = Wanted { content_type: "application/json", fits, most: MOST_JSON };
        Ok(Self(octets(request, state, &wanted).await?))
    }
}

impl<S: Send + Sync> FromRequest<S> for MessageBody {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let fits = |essence: &str| ["message/rfc822", "message/global", "application/octet-stream"].contains(&essence);
        let wanted = Wanted { content_type: "message/rfc822", fits, most: MOST_OCTETS };
        Ok(Self(octets(request, state, &wanted).await?))
    }
}

/// Nothing, or nothing but blanks or an empty object. Conditions that somebody writes into the body
/// of a call that removes mail would else be conditions that nobody reads.
pub(super) struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let octets = Bytes::from_request(request, state).await.map_err(IntoResponse::into_response)?;
        if [&b""[..], b"{}"].contains(&octets.trim_ascii()) {
            return Ok(Self);
        }
        let refusal = Refusal::bad_request("This call reads no body, and did nothing");
        Err(refusal.with_details("conditions are query parameters").into_response())
    }
}

/// What curl says of a body where nobody told it what it is.
const UNSAID: &str = "application/x-www-form-urlencoded";

/// Octets of a body of JSON at most: what axum reads where nobody tells it more.
const MOST_JSON: usize = 2 << 20;

/// Octets of a message that is taken at most: it is held in memory. Larger ones come by SMTP or
/// `sendmail`.
pub(super) const MOST_OCTETS: usize = 64 << 20;

/// What a route reads.
struct Wanted {
    content_type: &'static str,
    fits: fn(&str) -> bool,
    most: usize,
}

/// The octets of a body whose type fits, is not said, or is as good as not said.
async fn octets<S: Send + Sync>(request: Request, state: &S, wanted: &Wanted) -> Result<Bytes, Response> {
    let refusal = if request.body().is_end_stream() { None } else { wanted.refusal(request.headers()) };
    match refusal {
        Some(refusal) => Err(refusal),
        None => Bytes::from_request(request, state).await.map_err(IntoResponse::into_response),
    }
}

impl Wanted {
    /// What the header of a request says of its body is refused before any of that is read.
    fn refusal(&self, headers: &HeaderMap) -> Option<Response> {
        let said = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let Self { content_type, fits, most } = self;
        if let Some(coding) = said(header::CONTENT_ENCODING).filter(|coding| !coding.eq_ignore_ascii_case("identity")) {
            let refusal = Refusal::unsupported(format!("A body coded as {coding} is not read"), "send it as it is");
            return Some(([(header::ACCEPT_ENCODING, "identity")], refusal).into_response());
        }
        let essence = said(header::CONTENT_TYPE).map(|whole| essence(&whole));
        if let Some(essence) = essence.filter(|essence| essence != UNSAID && !fits(essence)) {
            let message = format!("A body of type {essence:?} is not read");
            let refusal = Refusal::unsupported(message, &format!("send {content_type}"));
            return Some(([(header::ACCEPT, *content_type)], refusal).into_response());
        }
        let length = said(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        length.filter(|length| *length > *most as u64).map(|_| Refusal::too_large().into_response())
    }
}

/// A media type without its parameters.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Reads a body that may be left out: an object, with the members that it may have.
pub(super) fn object<T: Default + DeserializeOwned>(JsonBody(octets): &JsonBody) -> Result<T, Refusal> {
    if octets.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    let wrong = |why: String| Refusal::invalid("JSON payload of the request is not valid".to_owned()).with_details(why);
    let value: Value = serde_json::from_slice(octets).map_err(|error| wrong(error.to_string()))?;
    if !value.is_object() {
        return Err(wrong("it is no object".to_owned()));
    }
    serde_json::from_value(value).map_err(|error| wrong(error.to_string()))
}
