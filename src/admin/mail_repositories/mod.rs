//! `/mailRepositories`: what rests, as James's webadmin shows and changes it.
//!
//! The repository in a path is a URL, a path or a last segment, percent-encoded; it is looked
//! up among those of the store, and never joined to a path of files. `look` shows, `change`
//! is what is done to mails, `acknowledge` what is only noted.

mod acknowledge;
mod change;
mod look;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::actor::Actor;
use super::body::NoBody;
use super::error::Refusal;
use super::query::Query;
use crate::mail::RepositoryPath;
use crate::store::{NewOperation, Place};
pub(super) use acknowledge::Note;
pub(super) use change::{Work, act_on, carry_out, respool};
pub(super) use look::{archive, message};

pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(size, create))
        .routes(routes!(look::keys, change::clear, change::all))
        .routes(routes!(look::mail, change::remove, change::one))
        .routes(routes!(acknowledge::acknowledge, acknowledge::unacknowledge))
        .routes(routes!(look::evidence))
}

/// The parts of a path: a repository and a key.
type Names = Result<Path<(String, String)>, axum::extract::rejection::PathRejection>;

/// A repository.
#[derive(Serialize, utoipa::ToSchema)]
struct Repository {
    /// Its path.
    #[serde(rename = "repository")]
    name: String,
    /// The same, percent-encoded for a URL.
    path: String,
    /// Mails, those in hand included.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
}

impl Repository {
    fn new(path: &RepositoryPath, size: Option<u64>) -> Self {
        let encoded = form_urlencoded::byte_serialize(path.as_str().as_bytes()).collect();
        Self { name: path.to_string(), path: encoded, size }
    }
}

/// The repositories, by path.
#[utoipa::path(get, path = "/mailRepositories", tag = "mail repositories", responses(
    (status = 200, description = "All of them", body = Vec<Repository>)
))]
async fn list(State(shared): super::State) -> Result<Json<Vec<Repository>>, Refusal> {
    let known = shared.context.store.repositories().await?;
    Ok(Json(known.iter().map(|path| Repository::new(path, None)).collect()))
}

/// How many mails a repository has.
#[utoipa::path(get, path = "/mailRepositories/{repository}", tag = "mail repositories",
    params(("repository" = String, Path, description = "URL, path or last segment", example = "temporary")),
    responses(
        (status = 200, description = "Its size", body = Repository),
        (status = 400, description = "The name is no text", body = Refusal),
        (status = 404, description = "No such repository", body = Refusal),
    )
)]
async fn size(State(shared): super::State, name: super::Name) -> Result<Json<Repository>, Refusal> {
    let Path(name) = name?;
    let path = shared.repository(&name).await?;
    let size = shared.context.store.size(&Place::Repository(path.clone())).await?;
    Ok(Json(Repository::new(&path, Some(size))))
}

/// Makes a repository known.
#[utoipa::path(put, path = "/mailRepositories/{repository}", tag = "mail repositories",
    params(
        ("repository" = String, Path, example = "var/mail/kept"),
        ("protocol" = String, Query, example = "sqlite"),
    ),
    responses(
        (status = 204, description = "It is there"),
        (status = 400, description = "No protocol, or an unknown one; or no path of a repository", body = Refusal),
    )
)]
async fn create(
    State(shared): super::State,
    actor: Actor,
    name: super::Name,
    query: Query,
    _: NoBody,
) -> Result<StatusCode, Refusal> {
    query.only(&["protocol"])?;
    let Path(name) = name?;
    let settings = shared.settings();
    let protocol = query.get("protocol").unwrap_or_default();
    if protocol.is_empty() {
        return Err(Refusal::invalid("'protocol' query parameter is compulsory".to_owned()));
    }
    if !settings.site.schemes.contains(protocol) {
        return Err(Refusal::invalid(format!("'{protocol}' is an unsupported protocol")));
    }
    let (_, path) = RepositoryPath::parse_url(&name).map_err(|error| Refusal::invalid(error.to_string()))?;
    if path.is_called_as_the_spool() {
        return Err(Refusal::invalid("'spool' is what the spool is called".to_owned()));
    }
    let operator = actor.operator();
    let operation = NewOperation {
        who: operator.who,
        client: operator.client,
        verb: "create".to_owned(),
        place: None,
        selection: format!("repository={path}"),
        ..NewOperation::default()
    };
    if !shared.context.store.repositories().await?.contains(&path) {
        shared.context.store.begin_operation(&operation).await?;
        shared.context.store.ensure_repositories(&[path]).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}
