//! Next hops: what became of mail for them lately, and what a service knows of them now.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::NOTHING;
use crate::mail::Outcome;
use crate::store::{Result, Store};

/// Of a listing of next hops.
pub const PEER_COLUMNS: [&str; 8] =
    ["NEXT HOP", "CONNECTIONS", "WAITING", "LAST", "DELIVERED", "DEFERRED", "FAILED", "DOWN"];

/// Hours whose outcomes are counted.
const HOURS: u32 = 24;

/// A next hop; its JSON is that of `redeliver peers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerView {
    /// The domain, literal or gateway.
    pub next_hop: String,
    /// Connections open with it, idle ones included.
    pub connections: usize,
    /// Attempts that wait for one.
    pub waiting: usize,
    /// Where it is down.
    pub down: Option<DownView>,
    /// What became of the last recipient.
    pub last_outcome: Option<Outcome>,
    /// Recipients of the last 24 hours by what became of them, of all processes.
    pub outcomes: OutcomesView,
}

/// Why nobody connects to a next hop for now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownView {
    /// When it was found so, RFC 3339.
    pub since: String,
    /// The first failure, in a sentence.
    pub cause: String,
}

/// Recipients by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomesView {
    /// Delivered.
    pub delivered: u64,
    /// Kept for a next pass.
    pub deferred: u64,
    /// Failed for good.
    pub failed: u64,
}

impl PeerView {
    /// In [`PEER_COLUMNS`].
    pub fn row(&self) -> Vec<String> {
        let OutcomesView { delivered, deferred, failed } = self.outcomes;
        let down = self.down.as_ref().map(|down| format!("since {}: {}", down.since, down.cause));
        vec![
            self.next_hop.clone(),
            self.connections.to_string(),
            self.waiting.to_string(),
            self.last_outcome.map_or(NOTHING.to_owned(), |outcome| outcome.to_string()),
            delivered.to_string(),
            deferred.to_string(),
            failed.to_string(),
            down.unwrap_or_else(|| NOTHING.to_owned()),
        ]
    }
}

/// The next hops of the last 24 hours by name: their outcomes as the store has them, the rest
/// as this process knows it `now`.
///
/// # Errors
/// Where the store cannot be read.
pub async fn peers(store: &dyn Store, now: Vec<PeerView>) -> Result<Vec<PeerView>> {
    let mut known: BTreeMap<String, PeerView> = now.into_iter().map(|peer| (peer.next_hop.clone(), peer)).collect();
    // Of some failures no next hop was known.
    for seen in store.hops(HOURS).await?.into_iter().filter(|seen| !seen.next_hop.is_empty()) {
        let peer = known.entry(seen.next_hop.clone()).or_insert_with(|| PeerView {
            next_hop: seen.next_hop,
            connections: 0,
            waiting: 0,
            down: None,
            last_outcome: None,
            outcomes: OutcomesView::default(),
        });
        let recipients = seen.recipients;
        peer.last_outcome = Some(seen.last.outcome);
        peer.outcomes =
            OutcomesView { delivered: recipients.delivered, deferred: recipients.deferred, failed: recipients.failed };
    }
    Ok(known.into_values().collect())
}
