//! What needs attention now, what rests where, what became of mail lately, what runs next.

mod attention;
mod lately;
mod runs;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;

use super::super::Shared;
use super::super::error::Refusal;
use super::START;
use super::door::Visitor;
use super::frame::{Frame, Section, page};
use super::repositories::{PlaceRow, place_rows};
use super::runs::Ran;
use attention::{Cause, Matter};
use lately::{Ages, Stretch};
use runs::Next;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route(START, get(overview))
}

#[derive(Template)]
#[template(path = "overview.html", config = "src/admin/page/askama.toml")]
struct Page {
    frame: Frame,
    matters: Vec<Matter>,
    causes: Vec<Cause>,
    /// Causes that are not shown.
    more_causes: usize,
    places: Vec<PlaceRow>,
    stretches: Vec<Stretch>,
    ages: Vec<Ages>,
    next: Vec<Next>,
    ran: Vec<Ran>,
}

async fn overview(State(shared): super::super::State, visitor: Visitor) -> Result<Response, Refusal> {
    let now = visitor.now;
    let (causes, more_causes) = attention::causes(&shared, now).await?;
    Ok(page(&Page {
        frame: visitor.frame("Overview", Section::Overview),
        matters: attention::matters(&shared, now).await?,
        causes,
        more_causes,
        places: place_rows(&shared).await?,
        stretches: lately::stretches(&shared, now).await?,
        ages: lately::ages(&shared, now).await?,
        next: runs::next(&shared, now).await?,
        ran: runs::last(&shared, now).await?,
    }))
}
