//! The one stylesheet, the one script and the icon, out of the program itself.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ring::digest::{SHA256, digest};

use super::super::Shared;
use super::super::error::Refusal;

/// A file of the page; its name changes with what is in it.
struct Asset {
    path: String,
    kind: &'static str,
    content: &'static str,
}

impl Asset {
    fn new(name: &str, ending: &str, kind: &'static str, content: &'static str) -> Self {
        let sum = digest(&SHA256, content.as_bytes());
        let version: String = sum.as_ref().iter().take(6).map(|octet| format!("{octet:02x}")).collect();
        Self { path: format!("/ui/static/{name}-{version}.{ending}"), kind, content }
    }
}

static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("style", "css", "text/css; charset=utf-8", include_str!("templates/style.css")));
static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("script", "js", "text/javascript; charset=utf-8", include_str!("templates/script.js")));
static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_str!("templates/icon.svg")));

/// Where the stylesheet is.
pub(super) fn style() -> &'static str {
    &STYLE.path
}

/// Where the script is.
pub(super) fn script() -> &'static str {
    &SCRIPT.path
}

/// Where the icon is.
pub(super) fn icon() -> &'static str {
    &ICON.path
}

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/ui/static/{file}", get(file))
}

async fn file(Path(file): Path<String>) -> Result<Response, Refusal> {
    let all = [&STYLE, &SCRIPT, &ICON];
    let found = all.into_iter().find(|asset| asset.path.strip_prefix("/ui/static/") == Some(&file));
    let asset = found.ok_or_else(|| Refusal::not_found("No such file".to_owned()))?;
    Ok(([(header::CONTENT_TYPE, asset.kind)], asset.content).into_response())
}
