//! `/ui/tasks`: long work, how far it is, and its end.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use serde_json::Value;

use super::super::error::Refusal;
use super::super::query::Query;
use super::super::tasks::{cancel_task, checked};
use super::super::{self as admin, Shared};
use super::door::{Form, Visitor, see};
use super::frame::{Frame, Section, page};
use super::html::{Html, grouped, link, mark, short, when, when_known};
use super::operations::short_id;
use super::url;
use crate::store::{Span, Task, Time};
use crate::tasks::{is_over, status};

/// Tasks of a page, and that are looked at.
const ROWS: usize = 50;
const MOST: usize = 10_000;

/// Seconds between two looks at what goes on.
const AGAIN: u32 = 2;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/ui/tasks", get(list))
        .route("/ui/tasks/{id}", get(one))
        .route("/ui/tasks/{id}/cancel", get(ask_first).post(cancel))
}

#[derive(Template)]
#[template(path = "tasks.html", config = "src/admin/page/askama.toml")]
struct List {
    frame: Frame,
    rows: Vec<Row>,
    next: Option<String>,
}

struct Row {
    id: Html,
    kind: String,
    status: Html,
    who: String,
    submitted: Html,
    ended: Html,
    progress: String,
    operation: Html,
}

async fn list(State(shared): admin::State, visitor: Visitor, query: Query) -> Result<Response, Refusal> {
    let offset = query.offset()?.min(MOST);
    let tasks = shared.context.tasks.list(&Span::of(offset.saturating_add(ROWS + 1))).await?.items;
    let shown: Vec<_> = tasks.iter().skip(offset).take(ROWS).collect();
    let more = tasks.len() > offset + ROWS;
    let next = more.then(|| url::with("/ui/tasks", &[("offset", &(offset + ROWS).to_string())]));
    let goes_on = shown.iter().any(|task| !is_over(task));
    let frame = visitor.frame("Tasks", Section::Tasks).refresh(goes_on.then_some(AGAIN));
    Ok(page(&List { frame, rows: shown.iter().map(|task| row(task, visitor.now)).collect(), next }))
}

fn row(task: &Task, now: Time) -> Row {
    Row {
        id: link(&url::task(&task.id), short_id(&task.id)),
        kind: short(&task.kind),
        status: status_mark(task),
        who: short(&task.who),
        submitted: when(task.submitted, now),
        ended: when_known(task.finished, now),
        progress: progress(task),
        operation: operation(task),
    }
}

fn status_mark(task: &Task) -> Html {
    match task.status.as_str() {
        status::COMPLETED => mark("good", "completed"),
        status::FAILED => mark("bad", "failed"),
        status::CANCELED => mark("plain", "cancelled"),
        status::CANCEL_REQUESTED => mark("wait", "about to be cancelled"),
        status::IN_PROGRESS => mark("wait", "under way"),
        status::WAITING => mark("wait", "waits for its turn"),
        other => mark("plain", short(other)),
    }
}

/// `120 of 1 000`.
fn progress(task: &Task) -> String {
    match task.expected {
        Some(expected) => format!("{} of {}", grouped(task.done), grouped(expected)),
        None if task.done == 0 => "-".to_owned(),
        None => grouped(task.done),
    }
}

fn operation(task: &Task) -> Html {
    task.operation.map_or_else(|| Html::text("-"), |id| link(&url::operation(id), id))
}

#[derive(Template)]
#[template(path = "task.html", config = "src/admin/page/askama.toml")]
struct One {
    frame: Frame,
    row: Row,
    started: Html,
    done: u64,
    expected: Option<u64>,
    goes_on: bool,
    /// What was asked for, and what there is to say of it.
    details: Vec<(String, String)>,
    error: Option<String>,
    cancel: Option<String>,
}

async fn one(State(shared): admin::State, visitor: Visitor, id: admin::Name) -> Result<Response, Refusal> {
    let task = find(&shared, id).await?;
    let goes_on = !is_over(&task);
    let (details, error) = details(&task);
    Ok(page(&One {
        frame: visitor
            .frame(format!("Task {}: {}", short_id(&task.id), task.kind), Section::Tasks)
            .refresh(goes_on.then_some(AGAIN)),
        row: row(&task, visitor.now),
        started: when_known(task.started, visitor.now),
        done: task.done,
        expected: task.expected.filter(|expected| *expected > 0),
        goes_on,
        details,
        error,
        cancel: (goes_on && task.status != status::CANCEL_REQUESTED && visitor.may_change())
            .then(|| format!("{}/cancel", url::task(&task.id))),
    }))
}

async fn find(shared: &Shared, id: admin::Name) -> Result<Task, Refusal> {
    let Path(id) = id?;
    let unknown = || Refusal::not_found(format!("There is no task {} on record", short(&id)));
    let id = checked(&id).map_err(|_| unknown())?;
    shared.context.tasks.find(&id).await?.ok_or_else(unknown)
}

/// The members of what is stored of a task, and the error by itself.
fn details(task: &Task) -> (Vec<(String, String)>, Option<String>) {
    let mut details = Vec::new();
    let mut error = None;
    for stored in [&task.parameters, &task.details] {
        let members = serde_json::from_str::<Value>(stored).ok();
        for (name, value) in members.as_ref().and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            match name.as_str() {
                "error" => error = Some(short(value)),
                _ if value != "null" => details.push((short(name), short(value))),
                _ => {}
            }
        }
    }
    (details, error)
}

#[derive(Template)]
#[template(path = "ask.html", config = "src/admin/page/askama.toml")]
struct Ask {
    frame: Frame,
    words: Vec<String>,
    action: String,
    token: String,
    button: &'static str,
    back: String,
}

async fn ask_first(State(shared): admin::State, visitor: Visitor, id: admin::Name) -> Result<Response, Refusal> {
    let task = find(&shared, id).await?;
    let action = format!("{}/cancel", url::task(&task.id));
    let words = vec![
        format!("{}, asked for by {}: {} done.", short(&task.kind), short(&task.who), progress(&task)),
        what_cancelling_does(&task.kind).to_owned(),
    ];
    Ok(page(&Ask {
        frame: visitor.frame("Cancel this task?", Section::Tasks),
        words,
        token: visitor.token(&action),
        action,
        button: "Cancel the task",
        back: url::task(&task.id),
    }))
}

fn what_cancelling_does(kind: &str) -> &'static str {
    match kind {
        "job" => {
            "It ends within a second. Attempts under way are broken off: deferred, and in doubt where the peer has the mail and has not said so."
        }
        _ => "It ends between two steps; what is done stays done.",
    }
}

async fn cancel(State(shared): admin::State, visitor: Visitor, id: admin::Name, _: Form) -> Result<Response, Refusal> {
    let task = find(&shared, id).await?;
    cancel_task(&shared, &visitor.actor, &task.id).await?;
    Ok(see(&url::task(&task.id)))
}
