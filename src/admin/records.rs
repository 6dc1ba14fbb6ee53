//! The record, searched: attempts, failure groups, runs and operations.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::actor::Actor;
use super::answer::{list, whole_list};
use super::body::{self, JsonBody};
use super::error::Refusal;
use super::mail_repositories::Note;
use super::query::Query;
use crate::audit::{attempt_json, group_json, operation_json, run_json};
use crate::mail::{CauseId, MailKey, Outcome, RepositoryPath};
use crate::operations::{Bounds, Conditions, Selection, Verb};
use crate::store::{AttemptFilter, GroupFilter, Place, Span, Time};

pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(attempts))
        .routes(routes!(groups))
        .routes(routes!(acknowledge_group))
        .routes(routes!(runs))
        .routes(routes!(operations))
        .routes(routes!(peers))
}

/// The record of all attempts, of mails that are gone too, the newest first.
#[utoipa::path(get, path = "/attempts", tag = "record",
    params(
        ("recipient" = Option<String>, Query),
        ("sender" = Option<String>, Query),
        ("outcome" = Option<String>, Query, example = "failed"),
        ("code" = Option<u16>, Query, example = 550),
        ("nextHop" = Option<String>, Query),
        ("key" = Option<String>, Query),
        ("since" = Option<String>, Query, example = "1h"),
        ("until" = Option<String>, Query),
        ("limit" = Option<u64>, Query),
        ("cursor" = Option<String>, Query),
    ),
    responses(
        (status = 200, description = "A page: items, next, and searchedTo where the search came no further", body = Value),
        (status = 400, description = "A parameter cannot be read", body = Refusal),
    )
)]
async fn attempts(State(shared): super::State, query: Query) -> Result<Json<Value>, Refusal> {
    let filter = attempt_filter(&query, shared.context.clock.now())?;
    Ok(list(shared.context.store.attempts(&filter, &query.span()?).await?, attempt_json))
}

/// Which attempts a query means.
pub(super) fn attempt_filter(query: &Query, now: Time) -> Result<AttemptFilter, Refusal> {
    Ok(AttemptFilter {
        recipient: query.get("recipient").map(str::to_owned),
        sender: query.get("sender").map(str::to_owned),
        outcome: query.read_as("outcome", outcome)?,
        code: query.read_as("code", |text| text.parse().map_err(|_| format!("{text:?} is no reply code")))?,
        next_hop: query.get("nextHop").map(str::to_owned),
        key: query
            .read_as("key", |text| MailKey::parse(text).ok_or_else(|| format!("{text:?} is no key of a mail")))?,
        since: query.time("since", now)?,
        until: query.time("until", now)?,
    })
}

fn outcome(text: &str) -> Result<Outcome, String> {
    let all = [Outcome::Delivered, Outcome::Deferred, Outcome::Failed];
    let found = all.into_iter().find(|outcome| outcome.to_string() == text);
    found.ok_or_else(|| format!("{text:?} is none of delivered, deferred, failed"))
}

/// Failures by cause, the largest group first.
#[utoipa::path(get, path = "/groups", tag = "record",
    params(
        ("repository" = Option<String>, Query, example = "permanent"),
        ("limit" = Option<u64>, Query),
        ("cursor" = Option<String>, Query),
    ),
    responses(
        (status = 200, description = "A page: items and next", body = Value),
        (status = 400, description = "A parameter cannot be read", body = Refusal),
        (status = 404, description = "No such repository", body = Refusal),
    )
)]
async fn groups(State(shared): super::State, query: Query) -> Result<Json<Value>, Refusal> {
    let repository = match query.get("repository") {
        Some(name) => Some(shared.repository(name).await?),
        None => None,
    };
    let filter = GroupFilter { repository, id: None };
    let span = Span::of(query.items()?).after(query.cursor()?);
    Ok(list(shared.context.store.groups(&filter, &span).await?, group_json))
}

/// Somebody has taken note of all failures of a cause, in one repository or in all.
#[utoipa::path(post, path = "/groups/{id}/acknowledge", tag = "record",
    params(
        ("id" = String, Path, example = "0123456789ab"),
        ("repository" = Option<String>, Query),
        ("dryRun" = Option<bool>, Query),
        ("until" = Option<String>, Query),
    ),
    request_body(content = Option<Note>, description = "What there is to say"),
    responses(
        (status = 200, description = "What was done, by repository", body = Value),
        (status = 400, description = "An unknown parameter, or no such body", body = Refusal),
        (status = 404, description = "No such group or repository", body = Refusal),
    )
)]
async fn acknowledge_group(
    State(shared): super::State,
    actor: Actor,
    id: super::Name,
    query: Query,
    body: JsonBody,
) -> Result<Response, Refusal> {
    query.only(&["repository", "dryRun", "until"])?;
    let Path(id) = id?;
    let Note { note } = body::object(&body)?;
    let group = CauseId::parse(&id).ok_or_else(|| Refusal::not_found(format!("there is no failure group {id}")))?;
    let until =
        query.read_as("until", |text| text.parse().map_err(|error: crate::store::NotOurs| error.to_string()))?;
    let conditions = Box::new(Conditions::default().with("group", &id)?);
    let selection = Selection::Matching { conditions, until, bounds: Bounds::default() };
    let (verb, dry_run) = (Verb::Acknowledge { note }, query.boolean("dryRun", false)?);
    let asked = shared.asked_by(&actor);
    let operations = asked.operations();
    // Also where the group has no mail: what is wrong today is wrong tomorrow.
    operations.check(&Place::Repository(RepositoryPath::error()), &selection, &verb).await?;
    let repositories: Vec<RepositoryPath> = match query.get("repository") {
        Some(name) => vec![shared.repository(name).await?],
        None => operations.repositories_of(&group).await?,
    };
    let mut items = Vec::new();
    for repository in repositories {
        let place = Place::Repository(repository.clone());
        let mut item = if dry_run {
            operations.preview(&place, &selection, &verb).await?.json(&verb)
        } else {
            operations.carry_out(&place, &selection, &verb, &mut |_| {}).await?.json(&verb)
        };
        item["repository"] = json!(repository);
        items.push(item);
    }
    Ok(whole_list(&items).into_response())
}

/// Runs of jobs, the newest first.
#[utoipa::path(get, path = "/runs", tag = "jobs",
    params(
        ("job" = Option<String>, Query, example = "spool"),
        ("limit" = Option<u64>, Query),
        ("cursor" = Option<String>, Query),
    ),
    responses(
        (status = 200, description = "A page: items and next", body = Value),
        (status = 400, description = "A parameter cannot be read", body = Refusal),
    )
)]
async fn runs(State(shared): super::State, query: Query) -> Result<Json<Value>, Refusal> {
    Ok(list(shared.context.store.runs(query.get("job"), &query.span()?).await?, run_json))
}

/// What operators did, the newest first.
#[utoipa::path(get, path = "/operations", tag = "record",
    params(
        ("limit" = Option<u64>, Query),
        ("cursor" = Option<String>, Query),
    ),
    responses(
        (status = 200, description = "A page: items and next", body = Value),
        (status = 400, description = "A parameter cannot be read", body = Refusal),
    )
)]
async fn operations(State(shared): super::State, query: Query) -> Result<Json<Value>, Refusal> {
    Ok(list(shared.context.store.operations(&query.span()?).await?, operation_json))
}

/// The next hops of the last 24 hours: how busy, down or not and why, and what became of their mail.
#[utoipa::path(get, path = "/peers", tag = "record", responses(
    (status = 200, description = "items and next", body = Value)
))]
async fn peers(State(shared): super::State) -> Result<Json<Value>, Refusal> {
    let peers = shared.context.intake.now().spool.peers().await?;
    Ok(whole_list(&peers.iter().map(|peer| json!(peer)).collect::<Vec<_>>()))
}
