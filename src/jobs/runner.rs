//! One run of a job, whatever its kind.

use std::sync::Arc;

use super::config::{Config, Reprocess};
use super::sweep::{Progress, Sweep, Sweeper, Swept};
use crate::clock::Clock;
use crate::delivery::Stop;
use crate::spool::Spool;
use crate::store::{Error, Place, Store};

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
        let sweep = match config {
            Config::Spool => spool(order),
            Config::Reprocess(reprocess) => reprocessing(order, reprocess),
            _ => return Ok(Swept::default()),
        };
        let Self { store, spool, clock, stop, progress } = *self;
        Sweeper { store, spool, clock, stop, progress }.sweep(&sweep, order.trigger).await
    }
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
