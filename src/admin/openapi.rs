//! `/openapi.json`: what the routes are, written down beside each of them; and `/`, which says
//! so to a person.

use axum::Json;
use axum::response::Html;
use utoipa::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};

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
pub(super) struct Documented(pub(super) std::sync::Arc<utoipa::openapi::OpenApi>);

#[utoipa::path(get, path = "/openapi.json", tag = "about", responses(
    (status = 200, description = "This document", body = serde_json::Value, content_type = "application/json")
))]
pub(super) async fn document(axum::Extension(document): axum::Extension<Documented>) -> Json<utoipa::openapi::OpenApi> {
    Json((*document.0).clone())
}

/// What a browser finds: a list of the routes that can be looked at.
#[utoipa::path(get, path = "/", tag = "about", responses(
    (status = 200, description = "The routes that can be looked at", body = String, content_type = "text/html")
))]
pub(super) async fn index(axum::Extension(document): axum::Extension<Documented>) -> Html<String> {
    let item = |path: &str| {
        let is_template = path.contains('{');
        if is_template { format!("<li>{path}</li>\n") } else { format!("<li><a href=\"{path}\">{path}</a></li>\n") }
    };
    let looked_at = document.0.paths.paths.iter().filter(|(_, item)| item.get.is_some());
    let items: String = looked_at.map(|(path, _)| item(path)).collect();
    Html(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>redeliver</title></head>\n<body>\n\
         <h1>redeliver {}</h1>\n<p>What can be looked at; <a href=\"/openapi.json\">/openapi.json</a> has all calls.</p>\n\
         <ul>\n{items}</ul>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    ))
}
