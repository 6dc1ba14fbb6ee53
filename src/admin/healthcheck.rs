//! `/healthcheck`: open to all, and therefore brief.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::error::Refusal;
use super::query::Query;
use crate::audit::held_back;
use crate::health::Status;
use crate::mail::RepositoryPath;
use crate::store::Place;

/// A check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    EmptyErrorMailRepository,
    Store,
    Spool,
    Schedules,
    Configuration,
    Notifications,
}

/// What James calls the check that looks at the error repository.
pub(super) const ERROR_REPOSITORY: &str = "EmptyErrorMailRepository";

const CHECKS: [Check; 6] = [
    Check::EmptyErrorMailRepository,
    Check::Store,
    Check::Spool,
    Check::Schedules,
    Check::Configuration,
    Check::Notifications,
];

/// What a check found.
struct Found {
    check: Check,
    status: Status,
    cause: Option<String>,
}

pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(all)).routes(routes!(list)).routes(routes!(one))
}

/// What every check found.
#[derive(Serialize, utoipa::ToSchema)]
struct Health {
    /// The worst of the checks: `healthy`, `degraded` or `unhealthy`.
    status: &'static str,
    checks: Vec<Component>,
}

/// What a check found.
#[derive(Serialize, utoipa::ToSchema)]
struct Component {
    #[serde(rename = "componentName")]
    name: &'static str,
    #[serde(rename = "escapedComponentName")]
    escaped: &'static str,
    status: &'static str,
    cause: Option<String>,
}

/// A check.
#[derive(Serialize, utoipa::ToSchema)]
struct Listed {
    #[serde(rename = "componentName")]
    name: &'static str,
    #[serde(rename = "escapedComponentName")]
    escaped: &'static str,
}

/// How it is.
#[utoipa::path(get, path = "/healthcheck", tag = "health", security(()),
    params(
        ("check" = Option<Vec<String>>, Query),
        ("strict" = Option<String>, Query),
    ),
    responses(
        (status = 200, description = "Healthy, or degraded and not strict", body = Health),
        (status = 503, description = "Unhealthy", body = Health),
        (status = 404, description = "No such check", body = Refusal),
    )
)]
async fn all(State(shared): super::State, query: Query) -> Result<Response, Refusal> {
    let wanted = Wanted::read(&query)?;
    let mut found = Vec::new();
    for check in wanted.checks {
        found.push(check.run(&shared).await);
    }
    let status = found.iter().map(|found| found.status).max().unwrap_or(Status::Healthy);
    let checks = found.iter().map(Found::body).collect();
    let body = Json(Health { status: word(status), checks });
    Ok((code(status, wanted.strict), body).into_response())
}

/// Which checks there are.
#[utoipa::path(get, path = "/healthcheck/checks", tag = "health", security(()), responses(
    (status = 200, description = "The checks", body = Vec<Listed>)
))]
async fn list() -> Json<Vec<Listed>> {
    let listed = |check: &Check| Listed { name: check.name(), escaped: check.name() };
    Json(CHECKS.iter().map(listed).collect())
}

/// One check.
#[utoipa::path(get, path = "/healthcheck/checks/{name}", tag = "health", security(()),
    params(
        ("name" = String, Path, example = "Store"),
        ("strict" = Option<String>, Query),
    ),
    responses(
        (status = 200, description = "Healthy, or degraded and not strict", body = Component),
        (status = 503, description = "Unhealthy", body = Component),
        (status = 400, description = "The name is no text", body = Refusal),
        (status = 404, description = "No such check", body = Refusal),
    )
)]
async fn one(State(shared): super::State, name: super::Name, query: Query) -> Result<Response, Refusal> {
    let (Path(name), strict) = (name?, query.flag("strict"));
    let found = Check::named(&name)?.run(&shared).await;
    Ok((code(found.status, strict), Json(found.body())).into_response())
}

/// What is not well: the check's name, whether it works all the same, and why.
pub(super) async fn unwell(shared: &Shared) -> Vec<(&'static str, bool, String)> {
    let mut unwell = Vec::new();
    for check in CHECKS {
        let found = check.run(shared).await;
        if found.status != Status::Healthy {
            let cause = found.cause.unwrap_or_else(|| word(found.status).to_owned());
            unwell.push((check.name(), found.status == Status::Degraded, cause));
        }
    }
    unwell
}

/// What a query asks for.
struct Wanted {
    checks: Vec<Check>,
    strict: bool,
}

impl Wanted {
    /// `check=` may stand there more than once.
    fn read(query: &Query) -> Result<Self, Refusal> {
        let mut checks = query.all("check").map(Check::named).collect::<Result<Vec<_>, _>>()?;
        if checks.is_empty() {
            checks = CHECKS.to_vec();
        }
        Ok(Self { checks, strict: query.flag("strict") })
    }
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::EmptyErrorMailRepository => ERROR_REPOSITORY,
            Self::Store => "Store",
            Self::Spool => "Spool",
            Self::Schedules => "Schedules",
            Self::Configuration => "Configuration",
            Self::Notifications => "Notifications",
        }
    }

    fn named(name: &str) -> Result<Self, Refusal> {
        let found = CHECKS.into_iter().find(|check| check.name() == name);
        found.ok_or_else(|| Refusal::not_found(format!("Component(s) with name {name} cannot be found")))
    }

    async fn run(self, shared: &Shared) -> Found {
        let (health, now) = (&shared.context.health, shared.context.clock.instant());
        let (status, cause) = match self {
            Self::EmptyErrorMailRepository => error_repository(shared).await,
            Self::Store => health.store.look(now),
            Self::Spool => health.spool.look(now),
            Self::Schedules => health.schedules.look(now),
            Self::Configuration => health.configuration.look(now),
            Self::Notifications => notifications(shared).await,
        };
        Found { check: self, status, cause }
    }
}

async fn error_repository(shared: &Shared) -> (Status, Option<String>) {
    let path = RepositoryPath::error();
    match shared.context.store.size(&Place::Repository(path)).await {
        Ok(0) | Err(crate::store::Error::NoSuchRepository(_)) => (Status::Healthy, None),
        Ok(_) => (Status::Degraded, Some("MailRepository is not empty".to_owned())),
        Err(_) => (Status::Unhealthy, Some("the store cannot be read".to_owned())),
    }
}

/// Senders that were told nothing lately, since there was too much to tell.
async fn notifications(shared: &Shared) -> (Status, Option<String>) {
    match shared.context.store.dsn_counts().await {
        Ok(counts) if counts.held_lately == 0 => (Status::Healthy, None),
        Ok(counts) => (Status::Degraded, Some(held_back(counts.held_lately))),
        Err(_) => (Status::Unhealthy, Some("the store cannot be read".to_owned())),
    }
}

impl Found {
    fn body(&self) -> Component {
        let name = self.check.name();
        let (status, cause) = (word(self.status), self.cause.clone());
        Component { name, escaped: name, status, cause }
    }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Healthy => "healthy",
        Status::Degraded => "degraded",
        Status::Unhealthy => "unhealthy",
    }
}

fn code(status: Status, strict: bool) -> StatusCode {
    match (status, strict) {
        (Status::Healthy, _) | (Status::Degraded, false) => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}
