//! What needs attention now.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::response::Response;
use axum::routing::get;

use super::super::Shared;
use super::START;
use super::door::Visitor;
use super::frame::{Frame, Section, page};

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route(START, get(overview))
}

#[derive(Template)]
#[template(path = "overview.html", config = "src/admin/page/askama.toml")]
struct Page {
    frame: Frame,
}

async fn overview(visitor: Visitor) -> Response {
    page(&Page { frame: visitor.frame("Overview", Section::Overview) })
}
