//! `/healthcheck`: open to all, and therefore brief.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::Shared;
use super::error::Refusal;
use crate::health::Status;
use crate::mail::RepositoryPath;
use crate::store::Place;

/// The repository that is empty as long as nothing is wrong with us.
const ERROR_REPOSITORY: &str = "var/mail/error";

/// A check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    EmptyErrorMailRepository,
    Store,
    Spool,
    Schedules,
    Configuration,
}

const CHECKS: [Check; 5] =
    [Check::EmptyErrorMailRepository, Check::Store, Check::Spool, Check::Schedules, Check::Configuration];

/// What a check found.
struct Found {
    check: Check,
    status: Status,
    cause: Option<String>,
}

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/healthcheck", get(all))
        .route("/healthcheck/checks", get(list))
        .route("/healthcheck/checks/{name}", get(one))
}

async fn all(State(shared): super::State, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let query = query.unwrap_or_default();
    let wanted = Wanted::read(&query)?;
    let mut found = Vec::new();
    for check in wanted.checks {
        found.push(check.run(&shared).await);
    }
    let status = found.iter().map(|found| found.status).max().unwrap_or(Status::Healthy);
    let checks: Vec<_> = found.iter().map(Found::body).collect();
    let body = Json(json!({ "status": word(status), "checks": checks }));
    Ok((code(status, wanted.strict), body).into_response())
}

async fn list() -> Json<Value> {
    let names =
        CHECKS.iter().map(|check| json!({ "componentName": check.name(), "escapedComponentName": check.name() }));
    Json(names.collect())
}

async fn one(State(shared): super::State, name: super::Name, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let (Path(name), strict) = (name?, Wanted::read(&query.unwrap_or_default())?.strict);
    let found = Check::named(&name)?.run(&shared).await;
    Ok((code(found.status, strict), Json(found.body())).into_response())
}

/// What a query asks for.
struct Wanted {
    checks: Vec<Check>,
    strict: bool,
}

impl Wanted {
    /// `check=` may stand there more than once; names of checks need no escaping.
    fn read(query: &str) -> Result<Self, Refusal> {
        let parameters = || query.split('&').map(|one| one.split_once('=').unwrap_or((one, "")));
        let named = parameters().filter(|(name, _)| *name == "check").map(|(_, value)| Check::named(value));
        let mut checks = named.collect::<Result<Vec<_>, _>>()?;
        if checks.is_empty() {
            checks = CHECKS.to_vec();
        }
        Ok(Self { checks, strict: parameters().any(|(name, value)| name == "strict" && value != "false") })
    }
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::EmptyErrorMailRepository => "EmptyErrorMailRepository",
            Self::Store => "Store",
            Self::Spool => "Spool",
            Self::Schedules => "Schedules",
            Self::Configuration => "Configuration",
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
        };
        Found { check: self, status, cause }
    }
}

async fn error_repository(shared: &Shared) -> (Status, Option<String>) {
    let Some(path) = RepositoryPath::parse(ERROR_REPOSITORY).ok() else { return (Status::Healthy, None) };
    match shared.context.store.size(&Place::Repository(path)).await {
        Ok(0) | Err(crate::store::Error::NoSuchRepository(_)) => (Status::Healthy, None),
        Ok(_) => (Status::Degraded, Some("MailRepository is not empty".to_owned())),
        Err(_) => (Status::Unhealthy, Some("the store cannot be read".to_owned())),
    }
}

impl Found {
    fn body(&self) -> Value {
        let name = self.check.name();
        json!({
            "componentName": name,
            "escapedComponentName": name,
            "status": word(self.status),
            "cause": self.cause,
        })
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
