//! Failures acknowledged: somebody has taken note, and nothing else changes.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::super::actor::Actor;
use super::super::body::{self, JsonBody, NoBody};
use super::super::error::Refusal;
use super::super::query::Query;
use super::super::{Shared, State as SharedState};
use super::Names;
use super::change::act_on;
use crate::mail::MailKey;
use crate::operations::Verb;
use crate::store::Place;

/// The body of a call that acknowledges.
#[derive(Deserialize, Default, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Note {
    /// What there is to say, 10 kB at most.
    #[serde(default)]
    pub(in crate::admin) note: String,
}

/// Somebody has taken note of a mail's failure.
#[utoipa::path(post, path = "/mailRepositories/{repository}/mails/{key}/acknowledge", tag = "mail repositories",
    params(
        ("repository" = String, Path, example = "permanent"),
        ("key" = String, Path),
    ),
    request_body(content = Option<Note>, description = "What there is to say"),
    responses(
        (status = 204, description = "It is acknowledged"),
        (status = 400, description = "No such body, or too long a note", body = Refusal),
        (status = 404, description = "No such repository or mail", body = Refusal),
        (status = 409, description = "An attempt is under way", body = Refusal),
    )
)]
pub(in crate::admin) async fn acknowledge(
    State(shared): SharedState,
    actor: Actor,
    names: Names,
    query: Query,
    body: JsonBody,
) -> Result<StatusCode, Refusal> {
    query.only(&[])?;
    let Note { note } = body::object(&body)?;
    note_on(&shared, &actor, names, &Verb::Acknowledge { note }).await
}

/// That note is taken back.
#[utoipa::path(delete, path = "/mailRepositories/{repository}/mails/{key}/acknowledge", tag = "mail repositories",
    params(
        ("repository" = String, Path, example = "permanent"),
        ("key" = String, Path),
    ),
    responses(
        (status = 204, description = "It is not acknowledged any more"),
        (status = 400, description = "A parameter or a body: it reads none", body = Refusal),
        (status = 404, description = "No such repository or mail", body = Refusal),
        (status = 409, description = "An attempt is under way", body = Refusal),
    )
)]
pub(in crate::admin) async fn unacknowledge(
    State(shared): SharedState,
    actor: Actor,
    names: Names,
    query: Query,
    _: NoBody,
) -> Result<StatusCode, Refusal> {
    query.only(&[])?;
    note_on(&shared, &actor, names, &Verb::Unacknowledge).await
}

async fn note_on(shared: &Shared, actor: &Actor, names: Names, verb: &Verb) -> Result<StatusCode, Refusal> {
    let Path((repository, key)) = names?;
    let path = shared.repository(&repository).await?;
    let unknown = || Refusal::not_found(format!("Could not retrieve {key}"));
    let parsed = MailKey::parse(&key).ok_or_else(unknown)?;
    act_on(shared, actor, &Place::Repository(path), parsed, verb).await?;
    Ok(StatusCode::NO_CONTENT)
}
