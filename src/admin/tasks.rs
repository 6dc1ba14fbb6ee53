//! `/tasks`: long work that was asked for, as James shows it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::actor::Actor;
use super::body::NoBody;
use super::error::Refusal;
use super::query::Query;
use crate::audit::task_json;
use crate::store::{Span, Task};
use crate::tasks::{Awaited, status};
use crate::text::parse_rfc3339;
use crate::yaml::parse_duration;

/// Tasks of an answer at most.
const MOST: usize = 10_000;

/// Tasks that are read at once.
const LOOKED_AT_ONCE: usize = 500;

/// How long a task is awaited where nothing is said, and at most.
const LONGEST: Duration = Duration::from_hours(365 * 24);

pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(one, cancel)).routes(routes!(wait))
}

/// The tasks, the latest first.
#[utoipa::path(get, path = "/tasks", tag = "tasks",
    params(
        ("status" = Option<String>, Query, example = "completed"),
        ("type" = Option<String>, Query, example = "reprocessing-all"),
        ("submittedBefore" = Option<String>, Query),
        ("offset" = Option<u64>, Query),
        ("limit" = Option<u64>, Query),
    ),
    responses(
        (status = 200, description = "Their details", body = Vec<Value>),
        (status = 400, description = "A parameter cannot be read", body = Refusal),
    )
)]
async fn list(State(shared): super::State, query: Query) -> Result<Json<Vec<Value>>, Refusal> {
    let wanted = Wanted::read(&query)?;
    let (mut found, mut passed, mut after) = (Vec::new(), 0, None);
    loop {
        let page = shared.context.tasks.list(&Span::of(LOOKED_AT_ONCE).after(after)).await?;
        for task in page.items.iter().filter(|task| wanted.means(task)) {
            if passed < wanted.offset {
                passed += 1;
            } else if found.len() < wanted.limit {
                found.push(task_json(task));
            }
        }
        after = page.next;
        if after.is_none() || found.len() >= wanted.limit {
            return Ok(Json(found));
        }
    }
}

/// Which tasks are meant.
struct Wanted {
    status: Option<String>,
    kind: Option<String>,
    /// The moment that is asked for, whether it is to be before, and the bound.
    times: Vec<(Moment, bool, DateTime<Utc>)>,
    offset: usize,
    limit: usize,
}

#[derive(Clone, Copy)]
enum Moment {
    Submitted,
    Started,
    Completed,
    Failed,
}

const MOMENTS: [(Moment, &str); 4] = [
    (Moment::Submitted, "submitted"),
    (Moment::Started, "started"),
    (Moment::Completed, "completed"),
    (Moment::Failed, "failed"),
];

impl Moment {
    fn of(self, task: &Task) -> Option<DateTime<Utc>> {
        let ended = |wanted: &str| task.finished.filter(|_| task.status == wanted);
        match self {
            Self::Submitted => Some(task.submitted),
            Self::Started => task.started,
            Self::Completed => ended(status::COMPLETED),
            Self::Failed => ended(status::FAILED),
        }
    }
}

impl Wanted {
    fn read(query: &Query) -> Result<Self, Refusal> {
        let wanted = query.get("status").map(str::to_owned);
        if wanted.as_ref().is_some_and(|wanted| !status::ALL.contains(&wanted.as_str())) {
            return Err(Refusal::invalid("Invalid status query parameter".to_owned()));
        }
        let mut times = Vec::new();
        for (moment, name) in MOMENTS {
            for (side, before) in [("Before", true), ("After", false)] {
                let time = |text: &str| {
                    let wrong = || format!("{text:?} is no time such as 2026-11-28T17:00:00Z");
                    parse_rfc3339(text).ok_or_else(wrong)
                };
                if let Some(time) = query.read_as(&format!("{name}{side}"), time)? {
                    times.push((moment, before, time));
                }
            }
        }
        let kind = query.get("type").map(str::to_owned);
        Ok(Self {
            status: wanted,
            kind,
            times,
            offset: query.offset()?,
            limit: query.limit()?.map_or(MOST, |limit| limit.min(MOST)),
        })
    }

    fn means(&self, task: &Task) -> bool {
        let in_time = |(moment, before, bound): &(Moment, bool, DateTime<Utc>)| {
            moment.of(task).is_some_and(|time| if *before { time < *bound } else { time > *bound })
        };
        self.status.as_ref().is_none_or(|wanted| *wanted == task.status)
            && self.kind.as_ref().is_none_or(|wanted| *wanted == task.kind)
            && self.times.iter().all(in_time)
    }
}

/// A task's id: a UUID.
pub(super) fn checked(id: &str) -> Result<String, Refusal> {
    let is_uuid = id.len() == 36
        && id.bytes().enumerate().all(|(at, octet)| match at {
            8 | 13 | 18 | 23 => octet == b'-',
            _ => octet.is_ascii_hexdigit(),
        });
    if is_uuid { Ok(id.to_ascii_lowercase()) } else { Err(Refusal::invalid("Invalid task id".to_owned())) }
}

/// One task.
#[utoipa::path(get, path = "/tasks/{id}", tag = "tasks",
    params(("id" = String, Path, description = "The task")),
    responses(
        (status = 200, description = "Its details", body = Value),
        (status = 400, description = "No id of a task", body = Refusal),
        (status = 404, description = "No such task", body = Refusal),
    )
)]
async fn one(State(shared): super::State, id: super::Name) -> Result<Json<Value>, Refusal> {
    let Path(id) = id?;
    let id = checked(&id)?;
    match shared.context.tasks.find(&id).await? {
        Some(task) => Ok(Json(task_json(&task))),
        None => Err(Refusal::not_found(format!("{id} can not be found"))),
    }
}

/// Waits for the end of a task.
#[utoipa::path(get, path = "/tasks/{id}/await", tag = "tasks",
    params(
        ("id" = String, Path),
        ("timeout" = Option<String>, Query, example = "10s"),
    ),
    responses(
        (status = 200, description = "Its details: it has ended, well or not", body = Value),
        (status = 400, description = "No id of a task, or no time", body = Refusal),
        (status = 404, description = "No such task", body = Refusal),
        (status = 408, description = "It still goes on", body = Refusal),
    )
)]
async fn wait(State(shared): super::State, id: super::Name, query: Query) -> Result<Json<Value>, Refusal> {
    let Path(id) = id?;
    let id = checked(&id)?;
    let patience = match query.get("timeout") {
        Some(text) => patience(text).ok_or_else(|| Refusal::invalid("Invalid timeout".to_owned()))?,
        None => LONGEST,
    };
    match shared.context.tasks.wait(&id, patience).await? {
        Awaited::Ended(task) => Ok(Json(task_json(&task))),
        Awaited::TimedOut => Err(Refusal::timed_out("The timeout has been reached")),
        Awaited::Unknown => Err(Refusal::nothing_to_wait_for()),
    }
}

/// A time to wait: a bare number is of seconds.
fn patience(text: &str) -> Option<Duration> {
    let seconds = || text.parse().ok().map(Duration::from_secs);
    seconds().or_else(|| parse_duration(text)).filter(|patience| *patience <= LONGEST && !patience.is_zero())
}

/// Asks a task to end; also one that has ended, or that nobody knows.
#[utoipa::path(delete, path = "/tasks/{id}", tag = "tasks",
    params(("id" = String, Path, description = "The task")),
    responses(
        (status = 204, description = "It is asked to end, where it goes on"),
        (status = 400, description = "No id of a task", body = Refusal),
    )
)]
async fn cancel(
    State(shared): super::State,
    actor: Actor,
    id: super::Name,
    query: Query,
    _: NoBody,
) -> Result<StatusCode, Refusal> {
    query.only(&[])?;
    let Path(id) = id?;
    cancel_task(&shared, &actor, &checked(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Asks a task to end, and puts that on record where it was going on.
pub(super) async fn cancel_task(shared: &Shared, actor: &Actor, id: &str) -> Result<(), Refusal> {
    if shared.context.tasks.cancel(id, &actor.to_string()) {
        shared.asked_by(actor).operations().note_cancelled(id).await?;
    }
    Ok(())
}
