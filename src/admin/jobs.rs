//! `/jobs` and `/schedules`: what runs, when, and a run or a pause that is asked for.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::actor::Actor;
use super::answer::{created, whole_list};
use super::body::{JsonBody, NoBody, object};
use super::error::Refusal;
use super::query::Query;
use super::{Shared, Site};
use crate::audit::{result_json, run_json};
use crate::clients::Role;
use crate::jobs::{self, Swept};
use crate::operations::Moment;
use crate::schedule::Pauses;
use crate::store::{Error, Span, Time};
use crate::tasks::{Ended, Handle, NewTask, Together};

pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(one))
        .routes(routes!(run))
        .routes(routes!(schedules))
        .routes(routes!(pause))
        .routes(routes!(resume))
}

/// The jobs.
#[utoipa::path(get, path = "/jobs", tag = "jobs", responses(
    (status = 200, description = "items and next, as `job list`", body = Value)
))]
async fn list(State(shared): super::State) -> Json<Value> {
    whole_list(&shared.site().jobs.iter().map(|(name, job)| json!(job.view(name))).collect::<Vec<_>>())
}

fn known_job<'a>(site: &'a Site, name: &str) -> Result<&'a jobs::Config, Refusal> {
    let names = site.jobs.keys().map(String::as_str);
    site.jobs.get(name).ok_or_else(|| Refusal::not_among(format!("{name} can not be found"), names))
}

/// A job and its last run.
#[utoipa::path(get, path = "/jobs/{name}", tag = "jobs",
    params(("name" = String, Path, description = "The job", example = "spool")),
    responses(
        (status = 200, description = "As `job list`, and its last run", body = Value),
        (status = 404, description = "No such job", body = Refusal),
    )
)]
async fn one(State(shared): super::State, name: super::Name) -> Result<Json<Value>, Refusal> {
    let Path(name) = name?;
    let site = shared.site();
    let job = known_job(&site, &name)?;
    let mut view = json!(job.view(&name));
    let last = shared.context.store.runs(Some(&name), &Span::of(1).newest_first()).await?;
    view["lastRun"] = last.items.first().map_or(Value::Null, run_json);
    Ok(Json(view))
}

/// The body of a call that runs a job.
#[derive(Deserialize, Default, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Order {
    /// As if every mail were due.
    #[serde(default)]
    now: bool,
}

/// Runs a job: a task.
#[utoipa::path(post, path = "/jobs/{name}/run", tag = "jobs",
    params(("name" = String, Path, description = "The job", example = "spool")),
    request_body(content = Option<Order>, description = "How"),
    responses(
        (status = 201, description = "The task", body = Value),
        (status = 400, description = "No such body", body = Refusal),
        (status = 403, description = "It removes mail, and the role may not", body = Refusal),
        (status = 404, description = "No such job", body = Refusal),
        (status = 409, description = "A run of it is going", body = Refusal),
    )
)]
async fn run(
    State(shared): super::State,
    actor: Actor,
    name: super::Name,
    query: Query,
    octets: JsonBody,
) -> Result<Response, Refusal> {
    query.only(&[])?;
    let Path(name) = name?;
    let order: Order = object(&octets)?;
    Ok(created(&begin_run(&shared, &actor, &name, order.now).await?))
}

/// Whether somebody of this role may run a job: one that removes mail is for few.
pub(super) fn is_for_role(job: &jobs::Config, role: Role) -> bool {
    !matches!(job, jobs::Config::Purge { .. }) || role == Role::Full
}

/// Begins the task that runs a job, as if every mail were due where `all_due`; its id.
pub(super) async fn begin_run(
    shared: &Arc<Shared>,
    actor: &Actor,
    name: &str,
    all_due: bool,
) -> Result<String, Refusal> {
    let site = shared.site();
    let job = known_job(&site, name)?;
    if !is_for_role(job, actor.role) {
        return Err(Refusal::forbidden("This job removes mail, and your role may not"));
    }
    let new = NewTask {
        kind: "job",
        by: actor.operator(),
        parameters: json!({"job": name, "now": all_due}),
        expected: None,
        together: Together::Never(format!("a run of job {name}")),
    };
    let Some(run) = shared.context.jobs.begin(name, all_due) else {
        return Err(Refusal::conflict(format!("a run of job {name} is going on already")));
    };
    let started = shared.context.clock.now();
    let (of_task, name, task_of) = (Arc::clone(shared), name.to_owned(), name.to_owned());
    let work = move |handle: Handle| async move {
        let run = run(handle.stop().clone(), handle.cancellation().clone());
        ended(run.await, &handle, &name, started, &of_task)
    };
    let task = shared.context.tasks.begin(new, work).await?;
    shared.asked_by(actor).operations().note_run(&task_of, all_due, &task).await?;
    Ok(task)
}

fn ended(run: Result<Swept, Error>, handle: &Handle, job: &str, started: Time, shared: &Shared) -> Ended {
    match run {
        Ok(swept) => {
            let mut details = result_json(job, started, shared.context.clock.now(), &swept.counts);
            details["left"] = swept.left.into();
            let failure = swept.failure.map(|_| "the store is in trouble: see the log".to_owned()).or(swept.trouble);
            match failure {
                Some(failure) => {
                    details["error"] = failure.into();
                    Ended::failed(details)
                }
                // Whether anything was left is not to be known of what it did not look at.
                None if handle.stop().is_cancelled() => Ended::failed(details),
                None => Ended::completed(details),
            }
        }
        Err(error) => {
            tracing::error!(%error, job, "a run that was asked for could not begin");
            Ended::failed(json!({"error": "the store is in trouble: see the log"}))
        }
    }
}

/// The schedules and their next times.
#[utoipa::path(get, path = "/schedules", tag = "jobs", responses(
    (status = 200, description = "items and next, as `schedule list`", body = Value)
))]
async fn schedules(State(shared): super::State) -> Result<Json<Value>, Refusal> {
    let (site, now) = (shared.site(), shared.context.clock.now());
    let pauses = Pauses::new(shared.context.store.paused().await?);
    let view =
        |(name, schedule): (&String, &crate::schedule::Config)| json!(schedule.view(name, now, pauses.of(name, now)));
    Ok(whole_list(&site.schedules.iter().map(view).collect::<Vec<_>>()))
}

/// The body of a call that pauses.
#[derive(Deserialize, Default, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Pausing {
    /// Why.
    reason: Option<String>,
    /// Until when: RFC 3339, or from now on (`2h`); until somebody resumes it where it is null.
    until: Option<String>,
}

fn known(shared: &Shared, name: &str) -> Result<(), Refusal> {
    let site = shared.site();
    if site.schedules.contains_key(name) {
        return Ok(());
    }
    Err(Refusal::not_among(format!("{name} can not be found"), site.schedules.keys().map(String::as_str)))
}

/// Lets a schedule's ticks pass.
#[utoipa::path(post, path = "/schedules/{name}/pause", tag = "jobs",
    params(("name" = String, Path, description = "The schedule", example = "retry-temporary")),
    request_body(content = Option<Pausing>, description = "Why, and until when"),
    responses(
        (status = 204, description = "It is paused"),
        (status = 400, description = "No such body, or a time that has passed", body = Refusal),
        (status = 404, description = "No such schedule", body = Refusal),
    )
)]
async fn pause(
    State(shared): super::State,
    actor: Actor,
    name: super::Name,
    query: Query,
    octets: JsonBody,
) -> Result<StatusCode, Refusal> {
    query.only(&[])?;
    let Path(name) = name?;
    known(&shared, &name)?;
    let Pausing { reason, until } = object(&octets)?;
    pause_schedule(&shared, &actor, &name, reason.as_deref(), until.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets a schedule's ticks pass; `until` as it was written.
pub(super) async fn pause_schedule(
    shared: &Shared,
    actor: &Actor,
    name: &str,
    reason: Option<&str>,
    until: Option<&str>,
) -> Result<(), Refusal> {
    known(shared, name)?;
    let now = shared.context.clock.now();
    let until = until.map(|text| end(text, now)).transpose()?;
    Ok(shared.asked_by(actor).operations().pause(name, reason, until).await?)
}

fn end(text: &str, now: Time) -> Result<Time, Refusal> {
    let end = Moment::parse(text).and_then(|moment| moment.ahead(now));
    end.ok_or_else(|| Refusal::invalid(format!("{text:?} is no time: write 2h or 2026-11-28T17:00:00Z")))
}

/// Ends a pause.
#[utoipa::path(post, path = "/schedules/{name}/resume", tag = "jobs",
    params(("name" = String, Path, description = "The schedule", example = "retry-temporary")),
    responses(
        (status = 204, description = "It goes on, or was not paused"),
        (status = 400, description = "A parameter or a body: it reads none", body = Refusal),
        (status = 404, description = "No such schedule", body = Refusal),
    )
)]
async fn resume(
    State(shared): super::State,
    actor: Actor,
    name: super::Name,
    query: Query,
    _: NoBody,
) -> Result<StatusCode, Refusal> {
    query.only(&[])?;
    let Path(name) = name?;
    resume_schedule(&shared, &actor, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends a pause, where there is one.
pub(super) async fn resume_schedule(shared: &Shared, actor: &Actor, name: &str) -> Result<(), Refusal> {
    known(shared, name)?;
    shared.asked_by(actor).operations().resume(name).await?;
    Ok(())
}
