//! One run of a job, whatever its kind.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::info;

use super::config::{Config, Reprocess};
use super::sweep::{Progress, Sweep, Swept};
use super::{backup, export, purge, report};
use crate::clock::Clock;
use crate::mail::MailKey;
use crate::panics::caught;
use crate::spool::{Exclusion, Spool};
use crate::stop::{Cancellation, Stop};
use crate::store::{Error, Horizon, Place, RunId, Store};

/// What carries out jobs.
pub struct Runner<'a> {
    /// Where mail rests.
    pub store: &'a dyn Store,
    /// The loop.
    pub spool: &'a Arc<Spool>,
    /// The time.
    pub clock: &'a Clock,
    /// Where suspects are kept apart.
    pub exclusion: &'a Exclusion,
    /// Ends a run early.
    pub stop: &'a Stop,
    /// Breaks off what it has under way; `stop` is cancelled with it.
    pub cancellation: Cancellation,
    /// Is kept up to date.
    pub progress: &'a Progress,
}

/// How a run is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// The job's name.
    pub job: &'a str,
    /// As if every mail were due.
    pub all_due: bool,
    /// What asked: `command`, `schedule`, `start` or `http`.
    pub trigger: &'a str,
    /// Where it delivers: only these mails.
    pub only: Option<&'a Arc<[MailKey]>>,
}

impl Runner<'_> {
    /// Runs `config` once and records the run, also where it panics: a run that stayed open
    /// on record would keep its mails from every later run.
    ///
    /// What the store cannot carry out, or cannot note at the end, is told in
    /// [`Swept::failure`], beside what was done until then.
    ///
    /// # Errors
    /// Where the store cannot begin the run.
    pub async fn run(&self, order: Order<'_>, config: &Config) -> Result<Swept, Error> {
        let (run, within) = self.store.start_run(order.job, order.trigger).await?;
        let mut swept = Swept::default();
        let outcome = caught(pin!(self.work(order, config, run, within, &mut swept))).await;
        let outcome = outcome.unwrap_or_else(|panic| {
            swept.trouble = Some(format!("the run panicked, a fault of redeliver: {panic}"));
            Ok(())
        });
        let finished = self.finish(run, order.job, &outcome, &swept).await;
        swept.failure = outcome.and(finished).err();
        Ok(swept)
    }

    async fn work(
        &self,
        order: Order<'_>,
        config: &Config,
        run: RunId,
        within: Horizon,
        swept: &mut Swept,
    ) -> Result<(), Error> {
        swept.born = self.spool.end_digests().await?;
        self.work_of_kind(order, config, run, within, swept).await?;
        self.send_born(run, swept).await
    }

    async fn work_of_kind(
        &self,
        order: Order<'_>,
        config: &Config,
        run: RunId,
        within: Horizon,
        swept: &mut Swept,
    ) -> Result<(), Error> {
        match config {
            Config::Spool => self.sweep(&spool(order), run, within, swept).await,
            Config::Reprocess(reprocess) => self.sweep(&reprocessing(order, reprocess), run, within, swept).await,
            Config::Purge { repository, older_than, .. } => {
                purge::run(self, repository, order, *older_than, within, swept).await
            }
            Config::Export { repository, directory } => export::run(self, repository, directory, within, swept).await,
            Config::Backup { directory } => backup::run(self, directory, swept).await,
            Config::Report { repository, mailing } => {
                report::run(self, order, repository, mailing.as_ref(), within, swept).await
            }
        }
    }

    /// Ends the record of a run, and says in the log how it went.
    async fn finish(&self, run: RunId, job: &str, outcome: &Result<(), Error>, swept: &Swept) -> Result<(), Error> {
        let cancelled = || self.cancellation.by().map(|by| format!("cancelled by {by}"));
        let failure =
            outcome.as_ref().err().map(ToString::to_string).or_else(|| swept.trouble.clone()).or_else(cancelled);
        let counts = swept.counts;
        self.store.finish_run(run, counts, failure.as_deref()).await?;
        info!(
            job,
            run = %run,
            selected = counts.selected,
            delivered = counts.delivered,
            deferred = counts.deferred,
            failed = counts.failed,
            promoted = counts.promoted,
            errors = counts.errors,
            left = swept.left,
            failure,
            "run finished"
        );
        Ok(())
    }

    /// Whether the run is to end early.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.gentle.is_cancelled()
    }

    /// Counts mails that were handled.
    pub(super) fn handled(&self, mails: u64, swept: &mut Swept) {
        swept.counts.selected += mails;
        self.progress.selected.fetch_add(mails, Ordering::Relaxed);
        self.progress.done.fetch_add(mails, Ordering::Relaxed);
    }
}

fn spool(order: Order<'_>) -> Sweep {
    Sweep { from: Place::Spool, processor: None, limit: None, spacing: Vec::new(), only: order.only.cloned() }
}

fn reprocessing(order: Order<'_>, config: &Reprocess) -> Sweep {
    Sweep {
        from: Place::Repository(config.repository.clone()),
        processor: Some(config.processor.clone()),
        limit: config.limit.and_then(|limit| usize::try_from(limit).ok()),
        spacing: if order.all_due { Vec::new() } else { config.spacing.clone() },
        only: order.only.cloned(),
    }
}
