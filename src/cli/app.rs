//! Everything that a command works with, built from the configuration.

use std::path::Path;
use std::sync::Arc;

use nix::unistd::{Uid, User};

use super::exit::{Exit, Failure};
use crate::clock::Clock;
use crate::config::{Config, Dialogue};
use crate::delivery::{Delivery, Network, Stop};
use crate::jobs::{self, Progress, Runner};
use crate::pipeline::{Deliver, Pipeline};
use crate::spool::{Settings, Spool};
use crate::store::{SqliteStore, Store};

/// The parts, each built on those before it.
pub(super) struct App {
    pub(super) config: Config,
    pub(super) clock: Clock,
    pub(super) stop: Stop,
    pub(super) store: Arc<dyn Store>,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) spool: Arc<Spool>,
}

impl App {
    /// Opens the store and builds the rest. `kind` names this process among the instances.
    pub(super) async fn open(config: Config, clock: Clock, kind: &str) -> Result<Self, Failure> {
        become_owner(&config.store.path)?;
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&config.store.path, kind)?);
        let repositories: Vec<_> = config.repositories().into_iter().collect();
        store.ensure_repositories(&repositories, clock.now()).await?;
        let stop = Stop::default();
        let network = network(&config, &clock, &stop)?;
        let pipeline = Arc::new(pipeline(&config, &network)?);
        let settings = Settings {
            processor: config.smtp.processor.clone(),
            max_message_size: config.smtp.max_message_size,
            keep_all_dialogues: config.audit.dialogue == Dialogue::All,
            max_dialogue: usize::try_from(config.audit.max_dialogue).unwrap_or(usize::MAX),
        };
        let spool = Spool::new(Arc::clone(&store), Arc::clone(&pipeline), clock.clone(), settings);
        Ok(Self { config, clock, stop, store, pipeline, spool })
    }

    /// Ends in order: nothing of this process is to be reaped.
    pub(super) async fn close(&self) {
        self.pipeline.close().await;
        if let Err(error) = self.store.close(self.clock.now()).await {
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

    /// What carries out jobs.
    pub(super) fn runner<'a>(&'a self, progress: &'a Progress) -> Runner<'a> {
        Runner { store: &*self.store, spool: &self.spool, clock: &self.clock, stop: &self.stop, progress }
    }
}

pub(super) fn network(config: &Config, clock: &Clock, stop: &Stop) -> Result<Arc<Network>, Failure> {
    let own = config.smtp.listen.clone();
    // One-shot: what is found down is remembered for the life of the process, one sweep.
    Network::new(clock.clone(), &config.dns, config.hostname.clone(), own, stop.clone(), None)
        .map_err(|message| Failure::new(Exit::Configuration, message))
}

fn pipeline(config: &Config, network: &Arc<Network>) -> Result<Pipeline, Failure> {
    Pipeline::new(config.processors.clone(), |delivery| {
        Delivery::new(delivery.clone(), Arc::clone(network)).map(|delivery| Arc::new(delivery) as Arc<dyn Deliver>)
    })
    .map_err(|message| Failure::new(Exit::Configuration, message))
}

/// Root becomes the user who owns the store, so that no file of root's keeps him out.
fn become_owner(database: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt;

    if !Uid::effective().is_root() {
        return Ok(());
    }
    let owner = [Some(database), database.parent()].into_iter().flatten().find_map(|path| path.metadata().ok());
    let Some(owner) = owner.map(|metadata| metadata.uid()).filter(|&uid| uid != 0) else { return Ok(()) };
    become_user(Uid::from_raw(owner)).map_err(|error| {
        Failure::new(
            Exit::CannotOpen,
            format!("cannot become the owner (user {owner}) of {}: {error}", database.display()),
        )
    })
}

fn become_user(uid: Uid) -> nix::Result<()> {
    let user = User::from_uid(uid)?.ok_or(nix::errno::Errno::ENOENT)?;
    let name = std::ffi::CString::new(user.name).map_err(|_| nix::errno::Errno::EINVAL)?;
    nix::unistd::initgroups(&name, user.gid)?;
    nix::unistd::setgid(user.gid)?;
    nix::unistd::setuid(uid)
}
