//! How a request is refused: James's error body.

use axum::Json;
use axum::extract::Request;
use axum::extract::rejection::PathRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

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

    /// The request did not come to its end.
    pub(super) fn too_slow() -> Self {
        let message = "The whole request did not come in time".to_owned();
        Self { status_code: 408, r#type: "InvalidArgument", message, details: None }
    }

    /// The request cannot be understood, or in more than one way.
    pub(super) fn bad_request(message: &str) -> Self {
        Self { status_code: 400, r#type: "InvalidArgument", message: message.to_owned(), details: None }
    }

    /// What was given is not what can be.
    pub(super) fn invalid(message: String) -> Self {
        Self { status_code: 400, r#type: "InvalidArgument", message, details: None }
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
        tracing::error!(%error, "a request failed");
        Self {
            status_code: 500,
            r#type: "ServerError",
            message: "WebAdmin encountered an unexpected internal error".to_owned(),
            details: Some("the store is in trouble: see the log and /healthcheck".to_owned()),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status_code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self)).into_response()
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
