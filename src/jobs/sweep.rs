//! One run over the due mails of a place: each once through its processor.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::error;

use super::runner;
use crate::clock::Clock;
use crate::delivery::Stop;
use crate::mail::attribute;
use crate::pipeline::Verdict;
use crate::spool::{Passed, Spool};
use crate::store::{Claimed, Counts, Error, Place, RunId, Seq, Store, Wanted};

/// Mails in hand at most. A waiting mail costs a few KiB and no connection; many are taken
/// so that those for a dead peer do not stand before those for a living one.
const IN_HAND: usize = 20_000;

/// Mails taken in one transaction at most.
const BATCH: usize = 500;

/// What a sweep takes, and where to.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// The job's name, for the record.
    pub job: String,
    /// From where.
    pub from: Place,
    /// The processor for mails taken out of a repository; those of the spool have theirs.
    pub processor: Option<String>,
    /// Mails at most.
    pub limit: Option<usize>,
    /// See [`Wanted::spacing`]; empty where every mail is due.
    pub spacing: Vec<Duration>,
}

/// How far a run has come; shared with who shows it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Mails taken.
    pub selected: AtomicU64,
    /// Mails whose pass has ended.
    pub done: AtomicU64,
}

/// What a run came to.
#[derive(Debug, Clone, Default)]
pub struct Swept {
    /// As in the record of runs.
    pub counts: Counts,
    /// Recipients left where they were by a stop or a deadline.
    pub left: u64,
    /// The first trouble of our own, in a sentence.
    pub trouble: Option<String>,
}

/// What a sweep works with.
pub struct Sweeper<'a> {
    /// Where mail rests.
    pub store: &'a dyn Store,
    /// The loop.
    pub spool: &'a Arc<Spool>,
    /// The time.
    pub clock: &'a Clock,
    /// Ends the sweep early.
    pub stop: &'a Stop,
    /// Is kept up to date.
    pub progress: &'a Progress,
}

impl Sweeper<'_> {
    /// Sweeps, and records the run with its cause `trigger`.
    ///
    /// # Errors
    /// Where the store cannot begin, claim for, or end the run; what was in hand has been
    /// settled all the same.
    pub async fn sweep(&self, sweep: &Sweep, trigger: &str) -> Result<Swept, Error> {
        let (run, upto) = self.store.start_run(&sweep.job, trigger, self.clock.now()).await?;
        let mut swept = Swept::default();
        let outcome = self.work(sweep, run, upto, &mut swept).await;
        runner::finish(self.store, self.clock, run, &sweep.job, &outcome, &swept).await?;
        outcome?;
        Ok(swept)
    }

    async fn work(&self, sweep: &Sweep, run: RunId, upto: Seq, swept: &mut Swept) -> Result<(), Error> {
        let spacing = sweep.spacing.clone();
        let mut wanted = Wanted { from: sweep.from.clone(), run: Some(run), upto, spacing, limit: 1, suspects: true };
        self.suspects(sweep, &wanted, swept).await?;
        wanted.suspects = false;
        self.others(sweep, &mut wanted, swept).await
    }

    /// Mails that were in hand when a process died go first, one at a time and alone: the
    /// one that kills processes is to be found.
    async fn suspects(&self, sweep: &Sweep, wanted: &Wanted, swept: &mut Swept) -> Result<(), Error> {
        while self.goes_on(sweep, swept) {
            let Some(claimed) = self.store.claim(wanted, self.clock.now()).await?.pop() else { break };
            self.took(1, swept);
            let passed = self.spool.process(taken(claimed, sweep)).await;
            self.ended(&passed, swept);
        }
        Ok(())
    }

    async fn others(&self, sweep: &Sweep, wanted: &mut Wanted, swept: &mut Swept) -> Result<(), Error> {
        let mut in_hand: JoinSet<Passed> = JoinSet::new();
        let mut outcome = Ok(());
        let mut more = true;
        while more || !in_hand.is_empty() {
            while more && in_hand.len() < IN_HAND {
                wanted.limit = room(sweep, swept).min(IN_HAND - in_hand.len()).min(BATCH);
                more = match self.take(sweep, wanted, swept, &mut in_hand).await {
                    Ok(more) => more,
                    Err(error) => {
                        error!(job = sweep.job, %error, "no more mails can be taken");
                        outcome = Err(error);
                        false
                    }
                };
                while let Some(ended) = in_hand.try_join_next() {
                    self.joined(ended, swept);
                }
            }
            if let Some(ended) = in_hand.join_next().await {
                self.joined(ended, swept);
            }
        }
        outcome
    }

    /// Takes a batch and sets it to work; whether there may be more.
    async fn take(
        &self,
        sweep: &Sweep,
        wanted: &Wanted,
        swept: &mut Swept,
        in_hand: &mut JoinSet<Passed>,
    ) -> Result<bool, Error> {
        if !self.goes_on(sweep, swept) {
            return Ok(false);
        }
        let claimed = self.store.claim(wanted, self.clock.now()).await?;
        let more = claimed.len() == wanted.limit;
        self.took(claimed.len() as u64, swept);
        for claimed in claimed {
            let (spool, claimed) = (Arc::clone(self.spool), taken(claimed, sweep));
            in_hand.spawn(async move { spool.process(claimed).await });
        }
        Ok(more)
    }

    /// Trouble of our own would meet the next mails too, so no more are taken then.
    fn goes_on(&self, sweep: &Sweep, swept: &Swept) -> bool {
        room(sweep, swept) > 0 && swept.trouble.is_none() && !self.stop.gentle.is_cancelled()
    }

    fn took(&self, mails: u64, swept: &mut Swept) {
        swept.counts.selected += mails;
        self.progress.selected.fetch_add(mails, Ordering::Relaxed);
    }

    fn joined(&self, ended: Result<Passed, tokio::task::JoinError>, swept: &mut Swept) {
        match ended {
            Ok(passed) => self.ended(&passed, swept),
            // `Spool::process` catches panics of a pass; this is one of its own.
            Err(error) => swept.trouble = Some(error.to_string()),
        }
    }

    fn ended(&self, passed: &Passed, swept: &mut Swept) {
        self.progress.done.fetch_add(1, Ordering::Relaxed);
        for tally in &passed.tallies {
            let counts = &mut swept.counts;
            let counter = match tally.verdict {
                Verdict::Copy => continue,
                Verdict::Delivered => &mut counts.delivered,
                Verdict::Deferred => &mut counts.deferred,
                Verdict::Failed | Verdict::Promoted => &mut counts.failed,
                Verdict::Error => &mut counts.errors,
                Verdict::Left => &mut swept.left,
            };
            *counter += tally.recipients;
        }
        swept.counts.promoted +=
            passed.tallies.iter().filter(|tally| tally.verdict == Verdict::Promoted).count() as u64;
        if swept.trouble.is_none() {
            swept.trouble.clone_from(&passed.trouble);
        }
    }
}

/// Mails that the limit still allows.
fn room(sweep: &Sweep, swept: &Swept) -> usize {
    let taken = usize::try_from(swept.counts.selected).unwrap_or(usize::MAX);
    sweep.limit.unwrap_or(usize::MAX).saturating_sub(taken)
}

/// A mail out of a repository enters the job's processor, and is counted as taken.
fn taken(mut claimed: Claimed, sweep: &Sweep) -> Claimed {
    if let Some(processor) = &sweep.processor {
        claimed.mail.state.clone_from(processor);
        claimed.mail.attributes.increment(attribute::REPROCESSING);
    }
    claimed
}
