//! Answers that several groups of routes give.

use std::sync::Arc;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::actor::Actor;
use super::error::Refusal;
use super::query::Query;
use super::{Shared, Site};
use crate::mail::RepositoryPath;
use crate::operations::{Bounds, Conditions, Operations, Operator, Selection, resolve};
use crate::store::Page;
use crate::tasks::NotBegun;

/// Who asks, as the guard found out.
impl<S: Send + Sync> FromRequestParts<S> for Actor {
    type Rejection = Refusal;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let actor = head.extensions.get::<Self>().cloned();
        actor.ok_or_else(|| Refusal::forbidden("Nobody knows who asks"))
    }
}

impl Actor {
    /// As the record of operations names him.
    pub(super) fn operator(&self) -> Operator {
        let role = self.role.name();
        let who = self.name.as_ref().map_or_else(|| role.to_owned(), |name| format!("{name} ({role})"));
        Operator { who, client: Some(self.address), task: None }
    }
}

/// A task was begun: James's answer.
pub(super) fn created(task: &str) -> Response {
    (StatusCode::CREATED, [(header::LOCATION, format!("/tasks/{task}"))], Json(json!({"taskId": task}))).into_response()
}

impl From<NotBegun> for Refusal {
    fn from(error: NotBegun) -> Self {
        match error {
            NotBegun::GoesOn(..) => Self::conflict(error.to_string()),
            NotBegun::Store(error) => error.into(),
        }
    }
}

/// A list of ours.
pub(super) fn list<T>(page: Page<T>, item: impl Fn(&T) -> Value) -> Json<Value> {
    let items: Vec<_> = page.items.iter().map(item).collect();
    let mut object = json!({"items": items, "next": page.next.map(|next| next.to_string())});
    if let Some(time) = page.searched_to {
        object["searchedTo"] = crate::text::rfc3339(time).into();
    }
    Json(object)
}

/// A list of ours that is short, and whole.
pub(super) fn whole_list(items: &[Value]) -> Json<Value> {
    Json(json!({"items": items, "next": null}))
}

/// The conditions on mails of a query. Parameters of other names are not looked at.
pub(super) fn conditions(query: &Query) -> Result<Conditions, Refusal> {
    Conditions::NAMES.iter().try_fold(Conditions::default(), |conditions, name| match query.get(name) {
        Some(value) => Ok(conditions.with(name, value)?),
        None => Ok(conditions),
    })
}

/// Which mails a bulk call means.
pub(super) fn selection(query: &Query, bounds: Bounds) -> Result<Selection, Refusal> {
    let until =
        query.read_as("until", |text| text.parse().map_err(|error: crate::store::NotOurs| error.to_string()))?;
    Ok(Selection::Matching { conditions: Box::new(conditions(query)?), until, bounds })
}

/// The names of parameters of a bulk call: those of conditions, and `own`.
pub(super) fn bulk_names<'a>(own: &[&'a str]) -> Vec<&'a str> {
    Conditions::NAMES.into_iter().chain(["dryRun", "until"]).chain(own.iter().copied()).collect()
}

impl Shared {
    /// The repository that a path's part means.
    pub(super) async fn repository(&self, text: &str) -> Result<RepositoryPath, Refusal> {
        let settings = self.settings();
        Ok(resolve(&*self.context.store, &settings.site.schemes, text).await?)
    }

    /// What somebody asks for, who waits for the answer.
    pub(super) fn asked_by(&self, actor: &Actor) -> Asked<'_> {
        self.asked(actor.operator(), self.site(), self.context.stop.gentle.clone())
    }

    /// What `by` asks for, as the configuration was then; it is to end with `stop`.
    pub(super) fn asked(&self, by: Operator, site: Arc<Site>, stop: CancellationToken) -> Asked<'_> {
        Asked { shared: self, by, site, stop }
    }
}

/// What is needed to do things to many mails.
pub(super) struct Asked<'a> {
    shared: &'a Shared,
    by: Operator,
    site: Arc<Site>,
    stop: CancellationToken,
}

impl Asked<'_> {
    pub(super) fn operations(&self) -> Operations<'_> {
        let Self { shared, by, site, stop } = self;
        let (store, now) = (&*shared.context.store, shared.context.clock.now());
        Operations { store, by, processors: &site.processors, now, stop }
    }
}
