//! One run over the due mails of a place: each once through its processor.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use super::in_hand::InHand;
use super::runner::Runner;
use crate::mail::{MailKey, attribute};
use crate::pipeline::Verdict;
use crate::spool::Passed;
use crate::store::{Claimed, Counts, Error, Place, RunId, Seq, Wanted};

/// Mails of a sweep's first step; each further one is of twice as many. Trouble of our own
/// that meets every mail is mostly known at once, and is to meet few.
const FIRST_STEP: usize = 8;

/// How long a step waits for a first pass to end: a dead peer is not to hold up the others.
const STEP: Duration = Duration::from_millis(50);

/// What a sweep takes, and where to.
#[derive(Debug, Clone)]
pub(super) struct Sweep {
    /// From where.
    pub(super) from: Place,
    /// The processor for mails taken out of a repository; those of the spool have theirs.
    pub(super) processor: Option<String>,
    /// Mails at most.
    pub(super) limit: Option<usize>,
    /// See [`Wanted::spacing`]; empty where every mail is due.
    pub(super) spacing: Vec<Duration>,
    /// See [`Wanted::only`].
    pub(super) only: Option<Arc<[MailKey]>>,
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
    /// Recipients known to be left where they were by a stop or a deadline; not all are counted.
    pub left: u64,
    /// The first trouble of our own, in a sentence.
    pub trouble: Option<String>,
    /// What the store could not do.
    pub failure: Option<Error>,
    /// Where a backup or an export wrote: a file or a folder.
    pub written: Option<PathBuf>,
}

impl Runner<'_> {
    /// Sweeps, as run `run`, what had come to rest by `upto`.
    ///
    /// # Errors
    /// Where the store cannot claim; what was in hand has been settled all the same.
    pub(super) async fn sweep(&self, sweep: &Sweep, run: RunId, upto: Seq, swept: &mut Swept) -> Result<(), Error> {
        let spacing = sweep.spacing.clone();
        let (from, only) = (sweep.from.clone(), sweep.only.clone());
        let wanted = Wanted { from, run: Some(run), upto, spacing, limit: 1, suspects: true, only };
        let in_hand = InHand::new(self.spool);
        let mut sweeping = Sweeping { runner: self, sweep, wanted, swept, step: FIRST_STEP, in_hand };
        let outcome = sweeping.take_all().await;
        while let Some(passed) = sweeping.in_hand.next().await {
            sweeping.ended(&passed);
        }
        outcome?;
        sweeping.left_untaken().await
    }
}

/// One sweep under way.
struct Sweeping<'a> {
    runner: &'a Runner<'a>,
    sweep: &'a Sweep,
    /// What is claimed next.
    wanted: Wanted,
    swept: &'a mut Swept,
    /// How many are claimed at once, as yet.
    step: usize,
    in_hand: InHand,
}

impl Sweeping<'_> {
    /// First the suspects, as long as they may be alone; then the others, and the rest of them.
    async fn take_all(&mut self) -> Result<(), Error> {
        self.suspects().await?;
        for suspects in [false, true] {
            self.wanted.suspects = suspects;
            self.others().await?;
        }
        Ok(())
    }

    /// Whether a stop or a deadline left mails that were never taken: one is enough for
    /// the run not to look complete, so one is looked for and given back.
    async fn left_untaken(&mut self) -> Result<(), Error> {
        if !self.runner.spool.is_retired() || self.room() == 0 {
            return Ok(());
        }
        self.wanted.limit = 1;
        for suspects in [false, true] {
            self.wanted.suspects = suspects;
            for claimed in self.claim().await? {
                self.swept.left += claimed.mail.envelope.recipients.len() as u64;
                self.runner.store.release(&claimed.claim).await?;
            }
        }
        Ok(())
    }

    /// Mails that were in hand when a process died go first, one at a time and, as long as
    /// that lasts, with nothing beside: the one that kills processes is to be found.
    async fn suspects(&mut self) -> Result<(), Error> {
        let mut alone = self.runner.gate.alone();
        while self.goes_on() && !alone.is_over() {
            let Some(claimed) = self.claim().await?.pop() else { break };
            self.took(1);
            alone.begin().await;
            if let Some(passed) = self.in_hand.examine(self.runner.spool, self.sweep.taken(claimed)).await {
                self.ended(&passed);
            }
        }
        Ok(())
    }

    async fn others(&mut self) -> Result<(), Error> {
        while self.goes_on() {
            self.wanted.limit = self.room().min(self.in_hand.room(self.runner.spool)).min(self.step);
            if self.wanted.limit > 0 && !self.take().await? {
                break;
            }
            if self.step < self.in_hand.room(self.runner.spool) {
                self.step *= 2;
                if let Ok(Some(passed)) = timeout(STEP, self.in_hand.next()).await {
                    self.ended(&passed);
                }
            }
            while let Some(passed) = self.in_hand.try_next() {
                self.ended(&passed);
            }
            if self.in_hand.room(self.runner.spool) == 0
                && let Some(passed) = self.next_or_proof().await
            {
                self.ended(&passed);
            }
        }
        Ok(())
    }

    /// The next pass to end; `None` where there may be room before that.
    async fn next_or_proof(&mut self) -> Option<Passed> {
        if self.in_hand.is_full() {
            return self.in_hand.next().await;
        }
        timeout(STEP, self.in_hand.next()).await.ok().flatten()
    }

    /// Takes a batch and sets it to work; whether there may be more.
    async fn take(&mut self) -> Result<bool, Error> {
        let beside = self.runner.gate.beside().await;
        let claimed = self.claim().await?;
        let more = claimed.len() == self.wanted.limit;
        self.took(claimed.len() as u64);
        for claimed in claimed {
            self.in_hand.take(self.runner.spool, self.sweep.taken(claimed), &beside);
        }
        Ok(more)
    }

    async fn claim(&self) -> Result<Vec<Claimed>, Error> {
        self.runner.store.claim(&self.wanted, self.runner.clock.now()).await
    }

    /// Trouble of our own would meet the next mails too, so no more are taken then.
    fn goes_on(&self) -> bool {
        self.room() > 0 && self.swept.trouble.is_none() && !self.runner.spool.is_retired()
    }

    /// Mails that the limit still allows.
    fn room(&self) -> usize {
        let taken = usize::try_from(self.swept.counts.selected).unwrap_or(usize::MAX);
        self.sweep.limit.unwrap_or(usize::MAX).saturating_sub(taken)
    }

    fn took(&mut self, mails: u64) {
        self.swept.counts.selected += mails;
        self.runner.progress.selected.fetch_add(mails, Ordering::Relaxed);
    }

    fn ended(&mut self, passed: &Passed) {
        self.runner.progress.done.fetch_add(1, Ordering::Relaxed);
        let Swept { counts, left, trouble, .. } = &mut *self.swept;
        for tally in &passed.tallies {
            let counter = match tally.verdict {
                Verdict::Copy => continue,
                Verdict::Delivered => &mut counts.delivered,
                Verdict::Deferred => &mut counts.deferred,
                Verdict::Failed | Verdict::Promoted => &mut counts.failed,
                Verdict::Error => &mut counts.errors,
                Verdict::Left => &mut *left,
            };
            *counter += tally.recipients;
        }
        counts.promoted += passed.tallies.iter().filter(|tally| tally.verdict == Verdict::Promoted).count() as u64;
        if trouble.is_none() {
            trouble.clone_from(&passed.trouble);
        }
    }
}

impl Sweep {
    /// A mail out of a repository enters the job's processor, and is counted as taken.
    fn taken(&self, mut claimed: Claimed) -> Claimed {
        if let Some(processor) = &self.processor {
            claimed.mail.state.clone_from(processor);
            claimed.mail.attributes.increment(attribute::REPROCESSING);
        }
        claimed
    }
}
