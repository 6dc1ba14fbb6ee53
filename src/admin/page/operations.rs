//! `/ui/operations`: who did what, and to which mails.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;

use super::super::error::Refusal;
use super::super::query::Query;
use super::super::{self as admin, Shared};
use super::door::Visitor;
use super::frame::{Frame, Section, page};
use super::html::{Html, count, link, short, when};
use super::url;
use crate::mail::{MailKey, RepositoryPath};
use crate::store::{Operation, OperationId, Span, Time};

/// Operations of a page, and mails of one.
const ROWS: usize = 50;
const MAILS: usize = 200;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/ui/operations", get(list)).route("/ui/operations/{id}", get(one))
}

#[derive(Template)]
#[template(path = "operations.html", config = "src/admin/page/askama.toml")]
struct List {
    frame: Frame,
    rows: Vec<Row>,
    next: Option<String>,
}

/// An operation.
struct Row {
    id: Html,
    at: Html,
    who: String,
    verb: String,
    mails: Html,
    aside: String,
    place: Html,
    selection: String,
    detail: String,
    task: Html,
}

async fn list(State(shared): admin::State, visitor: Visitor, query: Query) -> Result<Response, Refusal> {
    let span = Span::of(ROWS).newest_first().after(query.cursor()?);
    let found = shared.context.store.operations(&span).await?;
    let next = found.next.map(|next| url::with("/ui/operations", &[("cursor", &next.to_string())]));
    let rows = found.items.iter().map(|operation| row(operation, visitor.now)).collect();
    Ok(page(&List { frame: visitor.frame("Operations", Section::Operations), rows, next }))
}

fn row(operation: &Operation, now: Time) -> Row {
    let own = url::operation(operation.id);
    let client = operation.client.as_ref().map_or(String::new(), |client| format!(" from {client}"));
    Row {
        id: link(&own, operation.id),
        at: when(operation.at, now),
        who: short(format!("{}{client}", operation.who)),
        verb: short(&operation.verb),
        mails: count(&own, operation.done),
        aside: aside(operation),
        place: place(operation),
        selection: short(&operation.selection),
        detail: short(operation.detail.as_deref().unwrap_or_default()),
        task: operation.task.as_ref().map_or_else(|| Html::text("-"), |task| link(&url::task(task), short_id(task))),
    }
}

/// What was left alone.
fn aside(operation: &Operation) -> String {
    let left = [(operation.in_hand, "in hand"), (operation.gone, "gone before")];
    let left: Vec<_> = left.iter().filter(|(number, _)| *number > 0).map(|(n, word)| format!("{n} {word}")).collect();
    left.join(", ")
}

fn place(operation: &Operation) -> Html {
    match operation.repository.as_deref() {
        None => Html::text("-"),
        Some("") => link(&url::mails(&crate::store::Place::Spool, &[]), "spool"),
        Some(path) => match RepositoryPath::parse(path) {
            Ok(path) => link(&url::repository(&path, &[]), path.last_segment()),
            Err(_) => Html::text(short(path)),
        },
    }
}

/// Enough of a task's id to know it again.
pub(super) fn short_id(task: &str) -> String {
    task.chars().take(8).collect()
}

#[derive(Template)]
#[template(path = "operation.html", config = "src/admin/page/askama.toml")]
struct One {
    frame: Frame,
    row: Row,
    place: String,
    /// The whole of what was said to it.
    detail: String,
    keys: Vec<Html>,
    next: Option<String>,
}

async fn one(
    State(shared): admin::State,
    visitor: Visitor,
    id: admin::Name,
    query: Query,
) -> Result<Response, Refusal> {
    let Path(id) = id?;
    let unknown = || Refusal::not_found(format!("There is no operation {} on record", short(&id)));
    let id: OperationId = id.parse().map_err(|_| unknown())?;
    let store = &*shared.context.store;
    let operation = store.operation(id).await?.ok_or_else(unknown)?;
    let after = query.read_as("after", |text| MailKey::parse(text).ok_or_else(|| format!("{text:?} is no key")))?;
    let mut keys = store.mails_of(id, after.as_ref(), MAILS + 1).await?;
    let next = (keys.len() > MAILS).then(|| {
        keys.truncate(MAILS);
        let last = keys.last().map(ToString::to_string).unwrap_or_default();
        url::with(&url::operation(id), &[("after", &last)])
    });
    Ok(page(&One {
        frame: visitor.frame(format!("Operation {id}: {}", operation.verb), Section::Operations),
        row: row(&operation, visitor.now),
        place: operation
            .repository
            .as_deref()
            .map_or("-", |path| if path.is_empty() { "spool" } else { path })
            .to_owned(),
        detail: crate::text::printable(operation.detail.as_deref().unwrap_or("-")),
        keys: keys.iter().map(|key| link(&url::mail(key), key)).collect(),
        next,
    }))
}
