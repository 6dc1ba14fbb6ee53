//! `/mailQueues`: the spool, and under the names that James has for them, the outgoing
//! queues, which here are the same mails.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::Shared;
use super::error::Refusal;
use crate::store::Place;

const SPOOL: &str = "spool";

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/mailQueues", get(list)).route("/mailQueues/{name}", get(one))
}

fn names(shared: &Shared) -> BTreeSet<String> {
    shared.settings().outgoing.iter().cloned().chain([SPOOL.to_owned()]).collect()
}

async fn list(State(shared): super::State) -> Json<BTreeSet<String>> {
    Json(names(&shared))
}

/// Waiting or in hand: 0 means that all are settled.
async fn one(State(shared): super::State, name: super::Name) -> Result<Json<Value>, Refusal> {
    let Path(name) = name?;
    if !names(&shared).contains(&name) {
        return Err(Refusal::not_found(format!("{name} can not be found")));
    }
    let size = shared.context.store.size(&Place::Spool).await?;
    Ok(Json(json!({ "name": name, "size": size })))
}
