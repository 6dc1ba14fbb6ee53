//! `/metrics`: for Prometheus.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::error::Refusal;
use crate::audit::stored_metrics;
use crate::metrics::CONTENT_TYPE;

pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// What is counted, in Prometheus's text format.
#[utoipa::path(get, path = "/metrics", tag = "about", responses(
    (status = 200, description = "Prometheus's text format, version 0.0.4", body = String, content_type = "text/plain")
))]
async fn metrics(State(shared): super::State) -> Result<Response, Refusal> {
    let (context, site) = (&shared.context, shared.site());
    let (jobs, schedules) = (site.jobs.keys(), site.schedules.keys());
    let mut stored = stored_metrics(&*context.store, jobs, schedules).await?;
    context.metrics.log_lines_dropped(context.lost_lines.count());
    let spool = &context.intake.now().spool;
    stored.free_bytes = spool.free_bytes();
    context.metrics.metrics_mailets(&spool.metrics_mailets());
    let peers = spool.live_peers();
    context.metrics.connections.set(peers.iter().map(|peer| peer.connections).sum());
    context.metrics.peers_down.set(peers.iter().filter(|peer| peer.down.is_some()).count());
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], context.metrics.text(&stored)).into_response())
}
