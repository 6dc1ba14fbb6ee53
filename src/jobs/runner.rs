//! One run of a job, whatever its kind.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::info;

use super::config::{Config, Reprocess};
use super::sweep::{Progress, Sweep, Sweeper, Swept};
use super::{backup, export, purge, report};
use crate::clock::Clock;
use crate::delivery::Stop;
use crate::spool::Spool;
use crate::store::{Error, Place, RunId, Seq, Store};

/// What carries out jobs.
pub struct Runner<'a> {
    /// Where mail rests.
    pub store: &'a dyn Store,
    /// The loop.
    pub spool: &'a Arc<Spool>,
    /// The time.
    pub clock: &'a Clock,
    /// Ends a run early.
    pub stop: &'a Stop,
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
}

impl Runner<'_> {
    /// Runs `config` once and records the run.
    ///
    /// # Errors
    /// Where the store fails the run.
    pub async fn run(&self, order: Order<'_>, config: &Config) -> Result<Swept, Error> {
        match config {
            Config::Spool => self.sweep(&spool(order), order).await,
            Config::Reprocess(reprocess) => self.sweep(&reprocessing(order, reprocess), order).await,
            other => self.work_recorded(order, other).await,
        }
    }

    async fn sweep(&self, sweep: &Sweep, order: Order<'_>) -> Result<Swept, Error> {
        let Self { store, spool, clock, stop, progress } = *self;
        Sweeper { store, spool, clock, stop, progress }.sweep(sweep, order.trigger).await
    }

    /// A run of a job that attempts nothing.
    async fn work_recorded(&self, order: Order<'_>, config: &Config) -> Result<Swept, Error> {
        let (run, upto) = self.store.start_run(order.job, order.trigger, self.clock.now()).await?;
        let mut swept = Swept::default();
        let outcome = self.work(order, config, upto, &mut swept).await;
        finish(self.store, self.clock, run, order.job, &outcome, &swept).await?;
        outcome?;
        Ok(swept)
    }

    async fn work(&self, order: Order<'_>, config: &Config, upto: Seq, swept: &mut Swept) -> Result<(), Error> {
        match config {
            Config::Purge { repository, older_than, .. } => {
                purge::run(self, repository, *older_than, upto, swept).await
            }
            Config::Export { repository, directory } => export::run(self, repository, directory, upto, swept).await,
            Config::Backup { directory } => backup::run(self, directory, swept).await,
            Config::Report { repository, mailing } => {
                report::run(self, order, repository, mailing.as_ref(), upto, swept).await
            }
            // These are sweeps.
            Config::Spool | Config::Reprocess(_) => Ok(()),
        }
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

/// Ends the record of a run, and says in the log how it went.
pub(super) async fn finish(
    store: &dyn Store,
    clock: &Clock,
    run: RunId,
    job: &str,
    outcome: &Result<(), Error>,
    swept: &Swept,
) -> Result<(), Error> {
    let failure = outcome.as_ref().err().map(ToString::to_string).or_else(|| swept.trouble.clone());
    let counts = swept.counts;
    store.finish_run(run, counts, failure.as_deref(), clock.now()).await?;
    info!(
        job,
        run = run.0,
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

fn spool(order: Order<'_>) -> Sweep {
    Sweep { job: order.job.to_owned(), from: Place::Spool, processor: None, limit: None, spacing: Vec::new() }
}

fn reprocessing(order: Order<'_>, config: &Reprocess) -> Sweep {
    Sweep {
        job: order.job.to_owned(),
        from: Place::Repository(config.repository.clone()),
        processor: Some(config.processor.clone()),
        limit: config.limit.and_then(|limit| usize::try_from(limit).ok()),
        spacing: if order.all_due { Vec::new() } else { config.spacing.clone() },
    }
}
