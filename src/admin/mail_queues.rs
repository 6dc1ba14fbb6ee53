//! `/mailQueues`: the spool, and under the names that James has for them, the outgoing
//! queues, which here are the same mails.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::error::Refusal;
use crate::store::Place;

const SPOOL: &str = "spool";

pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(one))
}

/// A queue.
#[derive(Serialize, utoipa::ToSchema)]
struct Queue {
    name: String,
    /// Mails waiting or in hand.
    size: u64,
}

fn names(shared: &Shared) -> BTreeSet<String> {
    let settings = shared.settings();
    let outgoing = settings.site.processors.deliveries().into_iter().map(|delivery| delivery.outgoing.clone());
    outgoing.chain([SPOOL.to_owned()]).collect()
}

/// The names of the queues.
#[utoipa::path(get, path = "/mailQueues", tag = "mail queues", responses(
    (status = 200, description = "The spool, and the outgoing queues of the configuration", body = Vec<String>)
))]
async fn list(State(shared): super::State) -> Json<BTreeSet<String>> {
    Json(names(&shared))
}

/// Waiting or in hand: 0 means that all are settled.
#[utoipa::path(get, path = "/mailQueues/{name}", tag = "mail queues",
    params(("name" = String, Path, description = "The queue", example = "spool")),
    responses(
        (status = 200, description = "Its size", body = Queue),
        (status = 400, description = "The name is no text", body = Refusal),
        (status = 404, description = "No such queue", body = Refusal),
    )
)]
async fn one(State(shared): super::State, name: super::Name) -> Result<Json<Queue>, Refusal> {
    let Path(name) = name?;
    if !names(&shared).contains(&name) {
        return Err(Refusal::not_found(format!("{name} can not be found")));
    }
    let size = shared.context.store.size(&Place::Spool).await?;
    Ok(Json(Queue { name, size }))
}
