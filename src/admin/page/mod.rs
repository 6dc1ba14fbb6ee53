//! The page of operators: what failed and why, and what can be done about it, in a browser.
//!
//! Routes under `/ui/` that ask what the JSON routes ask, and answer with HTML that is whole
//! without a script. `door` stands before each of them: who asks (`session`), and that a form
//! that changes something is one of ours (`token`). `frame` is what all pages have, `html`
//! what values become, `url` where what is; each group of pages is a file of its own that
//! offers a `routes()`, and its templates lie in `templates/`. What peers and senders say is
//! escaped by the templates, and by `html` where a value has marks of ours.

mod act;
mod assets;
mod attempts;
mod attempts_of_mail;
mod door;
mod field;
mod frame;
mod groups;
mod html;
mod jobs;
mod login;
mod mails;
mod operations;
mod overview;
mod peers;
mod repositories;
mod rows;
mod runs;
mod session;
mod tasks;
mod url;

use std::sync::Arc;

use axum::Router;
use axum::response::Redirect;
use axum::routing::get;

use super::Shared;
pub(super) use door::{Visitor, dressed, enter, is_page, login_from_start};
pub(super) use session::Sessions;

/// Where the pages begin.
pub(super) const START: &str = "/ui/";

/// All pages, and what they need.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/ui", get(async || Redirect::to(START)))
        .merge(assets::routes())
        .merge(login::routes())
        .merge(overview::routes())
        .merge(repositories::routes())
        .merge(mails::routes())
        .merge(attempts_of_mail::routes())
        .merge(act::routes())
        .merge(groups::routes())
        .merge(attempts::routes())
        .merge(jobs::routes())
        .merge(peers::routes())
        .merge(operations::routes())
        .merge(tasks::routes())
}

#[cfg(test)]
mod tests;
