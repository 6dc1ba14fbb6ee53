//! One run over the due mails of a place: each once through its processor.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::runner::Runner;
use crate::mail::MailKey;
use crate::pipeline::Verdict;
use crate::spool::{News, Passed, Spool, Taker, take_up};
use crate::stop::Cancellation;
use crate::store::{Claimed, Counts, Error, Horizon, Place, RunId, Wanted, taken_for_reprocessing};

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
    /// Mails that it bore: notifications, digests, its report.
    pub born: Vec<MailKey>,
    /// Where a backup or an export wrote: a file or a folder.
    pub written: Option<PathBuf>,
}

impl Runner<'_> {
    /// Sweeps, as run `run`, what had come to rest by `within`.
    ///
    /// # Errors
    /// Where the store cannot claim; what was in hand has been settled all the same.
    pub(super) async fn sweep(
        &self,
        sweep: &Sweep,
        run: RunId,
        within: Horizon,
        swept: &mut Swept,
    ) -> Result<(), Error> {
        self.take_all(sweep, run, Some(within), swept).await
    }

    /// Takes what the run bore through the spool once, where no service does it. Of its
    /// recipients those in error count, and no others: they are none of the run's mails.
    pub(super) async fn send_born(&self, run: RunId, swept: &mut Swept) -> Result<(), Error> {
        if swept.born.is_empty() || self.is_stopped() || self.store.is_served().await? {
            return Ok(());
        }
        let only = Some(std::mem::take(&mut swept.born).into());
        let sweep = Sweep { from: Place::Spool, processor: None, limit: None, spacing: Vec::new(), only };
        let mut sent = Swept::default();
        let taken = self.take_all(&sweep, run, None, &mut sent).await;
        swept.counts.errors += sent.counts.errors;
        swept.trouble = swept.trouble.take().or(sent.trouble);
        taken
    }

    async fn take_all(
        &self,
        sweep: &Sweep,
        run: RunId,
        within: Option<Horizon>,
        swept: &mut Swept,
    ) -> Result<(), Error> {
        let mut sweeping = Sweeping { runner: self, sweep, run, within, swept, failure: None };
        take_up(&mut sweeping, self.store, self.exclusion).await;
        if let Some(error) = sweeping.failure.take() {
            return Err(error);
        }
        sweeping.left_untaken().await
    }
}

/// One sweep under way.
struct Sweeping<'a> {
    runner: &'a Runner<'a>,
    sweep: &'a Sweep,
    run: RunId,
    within: Option<Horizon>,
    swept: &'a mut Swept,
    /// What the store could not do.
    failure: Option<Error>,
}

impl Sweeping<'_> {
    /// Whether a stop or a deadline left mails that were never taken: one is enough for
    /// the run not to look complete, so one is looked for and given back.
    async fn left_untaken(&mut self) -> Result<(), Error> {
        if !self.is_ended() || self.room() == 0 {
            return Ok(());
        }
        for suspects in [false, true] {
            let wanted = Wanted { suspects, ..self.wanted() };
            for claimed in self.runner.store.claim(&wanted).await? {
                self.swept.left += claimed.mail.envelope.recipients.len() as u64;
                self.runner.store.release(&claimed.claim).await?;
            }
        }
        Ok(())
    }

    /// Trouble of our own would meet the next mails too, so no more are taken then.
    fn goes_on(&self) -> bool {
        self.room() > 0 && self.swept.trouble.is_none() && !self.is_ended()
    }

    /// Whether an end was asked for: of the run, of what mails go through, or of the process.
    fn is_ended(&self) -> bool {
        self.runner.is_stopped() || self.runner.spool.is_retired()
    }

    /// Mails that the limit still allows.
    fn room(&self) -> usize {
        let taken = usize::try_from(self.swept.counts.selected).unwrap_or(usize::MAX);
        self.sweep.limit.unwrap_or(usize::MAX).saturating_sub(taken)
    }
}

impl Taker for Sweeping<'_> {
    fn spool(&self) -> Arc<Spool> {
        Arc::clone(self.runner.spool)
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            from: self.sweep.from.clone(),
            run: Some(self.run),
            within: self.within.clone(),
            spacing: self.sweep.spacing.clone(),
            limit: 1,
            suspects: false,
            only: self.sweep.only.clone(),
        }
    }

    fn run(&self) -> Cancellation {
        self.runner.cancellation.clone()
    }

    fn allowance(&self) -> usize {
        self.room()
    }

    fn is_over(&self, exhausted: bool) -> bool {
        exhausted || self.failure.is_some() || !self.goes_on()
    }

    fn has_given_up(&self) -> bool {
        self.failure.is_some() || self.swept.trouble.is_some() || self.is_ended()
    }

    /// A mail out of a repository enters the job's processor, and is counted as taken.
    fn prepared(&self, mut claimed: Claimed) -> Claimed {
        if let Some(processor) = &self.sweep.processor {
            claimed.mail.state.clone_from(processor);
            taken_for_reprocessing(&mut claimed.mail.attributes);
        }
        claimed
    }

    fn took(&mut self, mails: usize, _idle: bool) {
        self.swept.counts.selected += mails as u64;
        self.runner.progress.selected.fetch_add(mails as u64, Ordering::Relaxed);
    }

    fn ended(&mut self, passed: &Passed) -> bool {
        self.runner.progress.done.fetch_add(1, Ordering::Relaxed);
        let Swept { counts, left, trouble, born, .. } = &mut *self.swept;
        born.extend(passed.born.iter().cloned());
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
        if self.failure.is_none() {
            self.failure.clone_from(&passed.unwritten);
        }
        false
    }

    fn failed(&mut self, error: Error) {
        self.failure = Some(error);
    }

    /// A sweep takes what was there when it began, and waits for nothing but its end.
    async fn news(&mut self) -> News {
        self.runner.stop.gentle.cancelled().await;
        News::Stop
    }
}
