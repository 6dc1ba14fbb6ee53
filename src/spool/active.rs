//! The active mails: claimed, and on their way through the pipeline.
//!
//! A waiting mail costs a few KiB and no connection. Many are taken so that those for a
//! dead peer do not stand before those for a living one.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use super::exclusion::SharedHold;
use super::{Passed, Spool};
use crate::stop::Cancellation;
use crate::store::Claimed;

/// Active mails at most. Many that wait for one next hop are parked before they are so many.
const MOST: usize = 5000;

/// Active mails at most before any attempt has begun: what keeps the first ones from
/// beginning, a name server that is silent for instance, would meet all others.
const UNPROVEN: usize = 64;

/// Active mails at most that do not just wait for a connection: those are being read, routed
/// and written down, which goes no faster where there are more of them.
const BUSY: usize = 1000;

/// The same of those that come back from the store, where their next hop is known by then: mostly
/// they are all written down at once, and more would only take memory.
const BUSY_AGAIN: usize = 256;

/// Mails taken in one transaction at most.
const BATCH: usize = 500;

/// How long others wait for one suspect: what kills a process does so sooner.
const EXAMINATION: Duration = Duration::from_secs(5);

/// Active mails.
pub(super) struct Active {
    passes: JoinSet<Passed>,
    /// Attempts that the spool had begun before.
    begun_before: u64,
    /// What they are part of.
    run: Cancellation,
}

impl Active {
    /// Nothing yet, of `spool`, in `run`.
    pub(super) fn new(spool: &Spool, run: Cancellation) -> Self {
        Self { passes: JoinSet::new(), begun_before: spool.begun(), run }
    }

    /// How many more may be taken in one step.
    pub(super) fn room(&self, spool: &Spool) -> usize {
        let (active, most) = (self.passes.len(), if self.is_proven(spool) { MOST } else { UNPROVEN });
        most.saturating_sub(active).min(BUSY.saturating_sub(self.busy(spool))).min(BATCH)
    }

    /// How many more that were parked.
    pub(super) fn room_for_parked(&self, spool: &Spool) -> usize {
        MOST.saturating_sub(self.passes.len()).min(BUSY_AGAIN.saturating_sub(self.busy(spool)))
    }

    fn busy(&self, spool: &Spool) -> usize {
        self.passes.len().saturating_sub(spool.waiting_for_connections())
    }

    /// Whether an attempt has begun since the first mail was taken.
    fn is_proven(&self, spool: &Spool) -> bool {
        spool.begun() != self.begun_before
    }

    /// How many are in hand.
    pub(super) fn len(&self) -> usize {
        self.passes.len()
    }

    /// Whether nothing is in hand.
    pub(super) fn is_empty(&self) -> bool {
        self.passes.is_empty()
    }

    /// Sets a claimed mail on its way, which may park it.
    pub(super) fn take(&mut self, spool: &Arc<Spool>, claimed: Claimed, parks: bool, shared: &SharedHold) {
        let (pass, shared) = (spool.process(claimed, parks, &self.run), Arc::clone(shared));
        self.passes.spawn(async move {
            let passed = pass.await;
            drop(shared);
            passed
        });
    }

    /// Sets a suspect on its way, and waits for its pass to end, not for ever: what takes
    /// longer is in hand like any other.
    pub(super) async fn examine(&mut self, spool: &Arc<Spool>, claimed: Claimed) -> Option<Passed> {
        let mut pass = tokio::spawn(spool.process(claimed, false, &self.run));
        let ended = timeout(EXAMINATION, &mut pass).await.ok();
        if ended.is_none() {
            self.passes.spawn(async move { passed(pass.await) });
        }
        ended.map(passed)
    }

    /// Waits for the next pass to end; `None` where nothing is in hand.
    pub(super) async fn next(&mut self) -> Option<Passed> {
        self.passes.join_next().await.map(passed)
    }

    /// A pass that has ended, without waiting.
    pub(super) fn try_next(&mut self) -> Option<Passed> {
        self.passes.try_join_next().map(passed)
    }
}

/// `Spool::process` catches panics of a pass; where it panics itself, it is told as trouble.
fn passed(ended: Result<Passed, JoinError>) -> Passed {
    ended.unwrap_or_else(|error| Passed { trouble: Some(error.to_string()), ..Passed::default() })
}
