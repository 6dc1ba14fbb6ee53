//! `redeliver peers` and `redeliver metrics`: what is known of next hops, and what is counted.

use std::io::Write;

use serde_json::json;

use super::app::App;
use super::args::Format;
use super::exit::{Exit, Failure};
use super::{json_lines, terminal};
use crate::audit::{PEER_COLUMNS, PeerView, stored_metrics};
use crate::ingest::{self, Invocation, Mode};
use crate::parts::submission;
use crate::text::Table;

pub(super) async fn run(app: &App, format: Format, out: &mut impl Write) -> Result<Exit, Failure> {
    let mut table = Table::new(&PEER_COLUMNS);
    let peers = peers(app).await?;
    for peer in &peers {
        match format {
            Format::Json => json_lines::write(out, &json!(peer))?,
            Format::Text => table.row(&peer.row()),
        }
    }
    if format == Format::Text {
        let text = if peers.is_empty() { "no next hops\n".to_owned() } else { table.block(terminal::width()) };
        write!(out, "{text}")?;
    }
    Ok(Exit::Ok)
}

/// What a running service knows; without one, what is on record.
async fn peers(app: &App) -> Result<Vec<PeerView>, Failure> {
    let question = Invocation { mode: Mode::Peers, ..Invocation::default() };
    match ingest::ask::<Vec<PeerView>>(&submission::socket(Some(&app.config)), &question).await {
        Ok(told) => Ok(told),
        // Nobody is there, or does not tell us.
        Err(_) => Ok(app.spool.peers().await?),
    }
}

/// Prometheus's text format.
pub(super) async fn metrics(app: &App, out: &mut impl Write) -> Result<Exit, Failure> {
    let (jobs, schedules) = (app.config.jobs.keys(), app.config.schedules.keys());
    let mut stored = stored_metrics(&*app.store, jobs, schedules).await?;
    stored.free_bytes = app.spool.free_bytes();
    write!(out, "{}", stored.text())?;
    Ok(Exit::Ok)
}
