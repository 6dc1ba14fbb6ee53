//! Everything that a command works with, built from the configuration.

use std::sync::Arc;

use super::exit::{Exit, Failure};
use crate::clock::Clock;
use crate::config::Config;
use crate::jobs::{self, Progress, Runner};
use crate::metrics::Metrics;
use crate::operations::{Operations, Operator};
use crate::parts::{self, Parts};
use crate::pipeline::Pipeline;
use crate::spool::{Exclusion, Spool};
use crate::stop::{Cancellation, Stop};
use crate::store::Store;

/// The parts, each built on those before it.
pub(super) struct App {
    pub(super) config: Config,
    pub(super) clock: Clock,
    /// Who gave the command, as the record of operations names him.
    pub(super) by: Operator,
    pub(super) stop: Stop,
    exclusion: Exclusion,
    pub(super) store: Arc<dyn Store>,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) spool: Arc<Spool>,
}

impl App {
    /// Opens the store and builds the rest. `kind` names this process among the instances.
    pub(super) async fn open(config: Config, clock: Clock, kind: &str) -> Result<Self, Failure> {
        // Before this process becomes the store's owner.
        let who = parts::users::named(nix::unistd::Uid::current().as_raw());
        let by = Operator { who, ..Operator::default() };
        let metrics = Metrics::new();
        let store = parts::open_store(&config, &clock, kind, &metrics).await?;
        let stop = Stop::default();
        // What is found down is remembered for the life of the process: one sweep.
        let Parts { pipeline, spool } = Parts::build(&config, &store, &clock, &stop, None, &metrics)?;
        Ok(Self { config, clock, by, stop, exclusion: Exclusion::default(), store, pipeline, spool })
    }

    /// Ends in order: nothing of this process is to be reaped.
    pub(super) async fn close(&self) {
        self.pipeline.close().await;
        if let Err(error) = self.store.close().await {
            tracing::warn!(%error, "the store could not be closed in order");
        }
    }

    /// The job of that name, or the line that names those there are.
    pub(super) fn job(&self, name: &str) -> Result<&jobs::Config, Failure> {
        self.config.jobs.get(name).ok_or_else(|| {
            let known: Vec<_> = self.config.jobs.keys().map(String::as_str).collect();
            Failure::new(Exit::Usage, format!("there is no job {name:?}; there are: {}", known.join(", ")))
        })
    }

    /// Refuses a processor that does not exist.
    pub(super) fn known_processor(&self, name: &str) -> Result<(), Failure> {
        self.config.processors.check_processor(name).map_err(|message| Failure::new(Exit::Usage, message))
    }

    /// What does things to many mails.
    pub(super) fn operations(&self) -> Operations<'_> {
        Operations {
            store: &*self.store,
            by: &self.by,
            processors: &self.config.processors,
            now: self.clock.now(),
            stop: &self.stop.gentle,
        }
    }

    /// What carries out jobs.
    pub(super) fn runner<'a>(&'a self, progress: &'a Progress) -> Runner<'a> {
        let Self { spool, clock, exclusion, stop, .. } = self;
        let cancellation = Cancellation::default();
        Runner { store: &*self.store, spool, clock, exclusion, stop, cancellation, progress }
    }
}
