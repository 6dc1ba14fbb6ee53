//! Many mails in hand at once, each on its way through the pipeline.
//!
//! A waiting mail costs a few KiB and no connection. Many are taken so that those for a
//! dead peer do not stand before those for a living one.

use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};

use crate::spool::{Passed, Spool};
use crate::store::Claimed;

/// Mails in hand at most.
const MOST: usize = 20_000;

/// Mails taken in one transaction at most.
const BATCH: usize = 500;

/// Mails in hand.
#[derive(Default)]
pub struct InHand {
    passes: JoinSet<Passed>,
}

impl InHand {
    /// How many more may be taken in one step.
    pub fn room(&self) -> usize {
        MOST.saturating_sub(self.passes.len()).min(BATCH)
    }

    /// Whether nothing is in hand.
    pub fn is_empty(&self) -> bool {
        self.passes.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.passes.len()
    }

    /// Sets a claimed mail on its way.
    pub fn take(&mut self, spool: &Arc<Spool>, claimed: Claimed) {
        let spool = Arc::clone(spool);
        self.passes.spawn(async move { spool.process(claimed).await });
    }

    /// Waits for the next pass to end; `None` where nothing is in hand.
    pub async fn next(&mut self) -> Option<Passed> {
        self.passes.join_next().await.map(passed)
    }

    /// A pass that has ended, without waiting.
    pub fn try_next(&mut self) -> Option<Passed> {
        self.passes.try_join_next().map(passed)
    }
}

/// `Spool::process` catches panics of a pass; where it panics itself, it is told as trouble.
fn passed(ended: Result<Passed, JoinError>) -> Passed {
    ended.unwrap_or_else(|error| Passed { tallies: Vec::new(), trouble: Some(error.to_string()) })
}
