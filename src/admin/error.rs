//! How a request is refused: James's error body.

use std::sync::Arc;

use axum::Json;
use axum::extract::Request;
use axum::extract::rejection::PathRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::operations;
use crate::store;

/// A refusal, as James writes it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Refusal {
    status_code: u16,
    r#type: &'static str,
    message: String,
    details: Option<String>,
}

impl Refusal {
    /// What was asked for is not there.
    pub(super) fn not_found(message: String) -> Self {
        Self { status_code: 404, r#type: "notFound", message, details: None }
    }

    /// The same, where there are few: which.
    pub(super) fn not_among<'a>(message: String, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<_> = known.into_iter().collect();
        let all = if known.is_empty() { "there is none".to_owned() } else { format!("known are {}", known.join(", ")) };
        Self::not_found(message).with_details(all)
    }

    /// A body of a type, or in a coding, that the route does not read.
    pub(super) fn unsupported(message: String, wanted: &str) -> Self {
        Self { status_code: 415, r#type: "InvalidArgument", message, details: Some(wanted.to_owned()) }
    }

    /// James's answer to who waits for a task that there is not.
    pub(super) fn nothing_to_wait_for() -> Self {
        Self { r#type: "ServerError", ..Self::not_found("The taskId is not found".to_owned()) }
    }

    /// The request did not come to its end.
    pub(super) fn too_slow() -> Self {
        let message = "The whole request did not come in time".to_owned();
        Self { status_code: 408, r#type: "InvalidArgument", message, details: None }
    }

    /// The body is more than is read.
    pub(super) fn too_large() -> Self {
        let message = "The body of the request is too large".to_owned();
        Self { status_code: 413, r#type: "InvalidArgument", message, details: None }
    }

    /// The request cannot be understood, or in more than one way.
    pub(super) fn bad_request(message: &str) -> Self {
        Self { status_code: 400, r#type: "InvalidArgument", message: message.to_owned(), details: None }
    }

    /// What was given is not what can be.
    pub(super) fn invalid(message: String) -> Self {
        Self { status_code: 400, r#type: "InvalidArgument", message, details: None }
    }

    /// What is asked for cannot be done now.
    pub(super) fn conflict(message: String) -> Self {
        Self { status_code: 409, r#type: "WrongState", message, details: None }
    }

    /// Something of ours is in trouble; what it is stands in the log, not in the answer.
    fn internal(error: &store::Error) -> Self {
        tracing::error!(%error, "a request failed");
        Self {
            status_code: 500,
            r#type: "ServerError",
            message: "WebAdmin encountered an unexpected internal error".to_owned(),
            details: Some("the store is in trouble: see the log and /healthcheck".to_owned()),
        }
    }

    /// Its status code.
    pub(super) fn status(&self) -> u16 {
        self.status_code
    }

    /// What is wrong, in a sentence.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// What else there is to say.
    pub(super) fn details(&self) -> Option<&str> {
        self.details.as_deref()
    }

    /// The same with James's details.
    pub(super) fn with_details(self, details: impl Into<String>) -> Self {
        Self { details: Some(details.into()), ..self }
    }

    /// It cannot be done now, and may be later.
    pub(super) fn unavailable(message: String) -> Self {
        Self { status_code: 503, r#type: "ServerError", message, details: None }
    }

    /// What was waited for did not come in time.
    pub(super) fn timed_out(message: &str) -> Self {
        Self { status_code: 408, r#type: "InvalidArgument", message: message.to_owned(), details: None }
    }

    /// No password from there is looked at for now.
    pub(super) fn too_many_wrong_passwords() -> Self {
        let message = "Too many wrong passwords came from your address: try again later".to_owned();
        Self { status_code: 429, r#type: "WrongState", message, details: None }
    }

    /// The request came from where it must not.
    pub(super) fn forbidden(message: &str) -> Self {
        Self { status_code: 403, r#type: "InvalidArgument", message: message.to_owned(), details: None }
    }
}

impl From<PathRejection> for Refusal {
    fn from(rejection: PathRejection) -> Self {
        Self::bad_request(&rejection.body_text())
    }
}

impl From<store::Error> for Refusal {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::NoSuchRepository(path) => Self::not_found(format!("{path} does not exist")),
            store::Error::NoSuchMail(key) => Self::not_found(format!("Could not retrieve {key}")),
            store::Error::InHand(_) => Self::conflict(error.to_string()),
            // A cursor, or the end of a dry run, that only looked like one.
            store::Error::NotOurs(_) => Self::invalid(error.to_string()),
            error => Self::internal(&error),
        }
    }
}

impl From<operations::Error> for Refusal {
    fn from(error: operations::Error) -> Self {
        match error {
            operations::Error::Store(error) => error.into(),
            operations::Error::Wrong(wrong) => wrong.into(),
            operations::Error::UnknownRepository(path, known) => {
                Self::not_found(format!("{path} does not exist")).with_details(known)
            }
            operations::Error::NoSuchGroup(_) | operations::Error::NoSuchRepository(_) => {
                Self::not_found(error.to_string())
            }
            operations::Error::Refused(why) => Self::invalid(why),
        }
    }
}

impl From<operations::Wrong> for Refusal {
    fn from(wrong: operations::Wrong) -> Self {
        Self::invalid(format!("Invalid value supplied for query parameter '{}': {}", wrong.condition, wrong.why))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status_code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let refusal = Arc::new(self);
        let mut response = (status, Json(&*refusal)).into_response();
        // A page says the same in HTML.
        response.extensions_mut().insert(refusal);
        response
    }
}

/// A route that has other methods; the router says which in `Allow`.
pub(super) async fn method_not_allowed(request: Request) -> Refusal {
    let message = format!("{} {} is not possible: see Allow", request.method(), request.uri().path());
    Refusal { status_code: 405, r#type: "InvalidArgument", message, details: None }
}

/// No route.
pub(super) async fn no_such_route(request: Request) -> Refusal {
    Refusal::not_found(format!("{} {} can not be found", request.method(), request.uri().path()))
}
