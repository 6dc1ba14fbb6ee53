//! `/openapi.json`: what the routes are, written down beside each of them; and `/`, which leads
//! a person to the pages.

use axum::Json;
use axum::response::Redirect;
use serde_json::Value;
use utoipa::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};

use super::parameters;

/// The document without the routes: those come from the router.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "redeliver",
        description = "The mail that failed, why, and what can be done about it. Routes of Apache James's webadmin \
                       have James's paths, bodies and messages."
    ),
    security(("password" = []), ("bearer" = []), ("basic" = []), ()),
    modifiers(&Security)
)]
pub(super) struct Document;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let key =
            ApiKey::Header(ApiKeyValue::with_description("Password", "One of the passwords of the configuration"));
        components.add_security_scheme("password", SecurityScheme::ApiKey(key));
        let http = |scheme| SecurityScheme::Http(HttpBuilder::new().scheme(scheme).build());
        components.add_security_scheme("bearer", http(HttpAuthScheme::Bearer));
        components.add_security_scheme("basic", http(HttpAuthScheme::Basic));
    }
}

/// The document, made once.
#[derive(Clone)]
pub(super) struct Documented(std::sync::Arc<Value>);

impl Documented {
    /// Out of what stands beside the routes.
    pub(super) fn new(routes: &utoipa::openapi::OpenApi) -> Self {
        let mut document = serde_json::to_value(routes).unwrap_or_default();
        parameters::name(&mut document);
        parameters::describe(&mut document);
        Self(std::sync::Arc::new(document))
    }
}

#[utoipa::path(get, path = "/openapi.json", tag = "about", responses(
    (status = 200, description = "This document", body = Value, content_type = "application/json")
))]
pub(super) async fn document(axum::Extension(document): axum::Extension<Documented>) -> Json<Value> {
    Json((*document.0).clone())
}

/// What a browser finds: the way to the pages.
#[utoipa::path(get, path = "/", tag = "about", responses(
    (status = 303, description = "To the pages for a browser, which are no part of this document")
))]
pub(super) async fn index() -> Redirect {
    Redirect::to(super::page::START)
}
