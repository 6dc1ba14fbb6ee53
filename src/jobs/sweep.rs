//! One run over the due mails of a place: each once through its processor.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::alone::Alone;
use super::in_hand::InHand;
use super::runner::Runner;
use crate::mail::attribute;
use crate::pipeline::Verdict;
use crate::spool::Passed;
use crate::store::{Claimed, Counts, Error, Place, RunId, Seq, Wanted};

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
}

impl Runner<'_> {
    /// Sweeps, as run `run`, what had come to rest by `upto`.
    ///
    /// # Errors
    /// Where the store cannot claim; what was in hand has been settled all the same.
    pub(super) async fn sweep(&self, sweep: &Sweep, run: RunId, upto: Seq, swept: &mut Swept) -> Result<(), Error> {
        let spacing = sweep.spacing.clone();
        let mut wanted = Wanted { from: sweep.from.clone(), run: Some(run), upto, spacing, limit: 1, suspects: true };
        let mut in_hand = InHand::default();
        let outcome = self.take_all(sweep, &mut wanted, swept, &mut in_hand).await;
        while let Some(passed) = in_hand.next().await {
            self.ended(&passed, swept);
        }
        outcome?;
        self.left_untaken(sweep, wanted, swept).await
    }

    /// First the suspects, as long as they may be alone; then the others, and the rest of them.
    async fn take_all(
        &self,
        sweep: &Sweep,
        wanted: &mut Wanted,
        swept: &mut Swept,
        in_hand: &mut InHand,
    ) -> Result<(), Error> {
        self.suspects(sweep, wanted, swept, in_hand).await?;
        for suspects in [false, true] {
            wanted.suspects = suspects;
            self.others(sweep, wanted, swept, in_hand).await?;
        }
        Ok(())
    }

    /// Whether a stop or a deadline left mails that were never taken: one is enough for
    /// the run not to look complete, so one is looked for and given back.
    async fn left_untaken(&self, sweep: &Sweep, mut wanted: Wanted, swept: &mut Swept) -> Result<(), Error> {
        if !self.spool.is_retired() || room(sweep, swept) == 0 {
            return Ok(());
        }
        wanted.limit = 1;
        for suspects in [false, true] {
            wanted.suspects = suspects;
            for claimed in self.store.claim(&wanted, self.clock.now()).await? {
                swept.left += claimed.mail.envelope.recipients.len() as u64;
                self.store.release(&claimed.claim).await?;
            }
        }
        Ok(())
    }

    /// Mails that were in hand when a process died go first, one at a time and, as long as
    /// that lasts, with nothing beside: the one that kills processes is to be found.
    async fn suspects(
        &self,
        sweep: &Sweep,
        wanted: &Wanted,
        swept: &mut Swept,
        in_hand: &mut InHand,
    ) -> Result<(), Error> {
        let mut alone = None;
        while self.goes_on(sweep, swept) && !alone.as_ref().is_some_and(Alone::is_over) {
            let Some(claimed) = self.store.claim(wanted, self.clock.now()).await?.pop() else { break };
            self.took(1, swept);
            if alone.is_none() {
                alone = Some(self.gate.alone().await);
            }
            if let Some(passed) = in_hand.examine(self.spool, taken(claimed, sweep)).await {
                self.ended(&passed, swept);
            }
        }
        Ok(())
    }

    async fn others(
        &self,
        sweep: &Sweep,
        wanted: &mut Wanted,
        swept: &mut Swept,
        in_hand: &mut InHand,
    ) -> Result<(), Error> {
        while self.goes_on(sweep, swept) {
            wanted.limit = room(sweep, swept).min(in_hand.room());
            if wanted.limit > 0 && !self.take(sweep, wanted, swept, in_hand).await? {
                break;
            }
            while let Some(passed) = in_hand.try_next() {
                self.ended(&passed, swept);
            }
            if in_hand.room() == 0
                && let Some(passed) = in_hand.next().await
            {
                self.ended(&passed, swept);
            }
        }
        Ok(())
    }

    /// Takes a batch and sets it to work; whether there may be more.
    async fn take(
        &self,
        sweep: &Sweep,
        wanted: &Wanted,
        swept: &mut Swept,
        in_hand: &mut InHand,
    ) -> Result<bool, Error> {
        let beside = self.gate.beside().await;
        let claimed = self.store.claim(wanted, self.clock.now()).await?;
        let more = claimed.len() == wanted.limit;
        self.took(claimed.len() as u64, swept);
        for claimed in claimed {
            in_hand.take(self.spool, taken(claimed, sweep), &beside);
        }
        Ok(more)
    }

    /// Trouble of our own would meet the next mails too, so no more are taken then.
    fn goes_on(&self, sweep: &Sweep, swept: &Swept) -> bool {
        room(sweep, swept) > 0 && swept.trouble.is_none() && !self.spool.is_retired()
    }

    fn took(&self, mails: u64, swept: &mut Swept) {
        swept.counts.selected += mails;
        self.progress.selected.fetch_add(mails, Ordering::Relaxed);
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
