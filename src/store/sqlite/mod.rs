//! The SQLite backend: all SQL of the crate.
//!
//! One thread owns the only connection that writes and commits in groups
//! ([`writer`]); reading goes over short read-only connections ([`readers`]). Who is alive
//! is asked of the kernel ([`instance`]). WAL and `synchronous=FULL`, always: group
//! commit makes the sync nearly free, so there is no option to lose mail with.

mod attempts;
mod backup;
mod claim;
mod filing;
mod groups;
mod history;
mod housekeeping;
mod instance;
mod intake;
mod listing;
mod log;
mod messages;
mod notifications;
mod open;
mod operate;
mod pager;
mod pass;
mod queue;
mod readers;
mod reap;
mod records;
mod rows;
mod runs;
mod tasks;
mod transaction;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use rusqlite::Connection;
use tokio::sync::{OnceCell, watch};

use super::{Error, Result, Time, Trouble};
use crate::clock::Clock;
use crate::metrics::Metrics;
use instance::{Instance, Liveness};
use log::Log;
use queue::Haste;
use readers::Readers;
use transaction::Transaction;
use writer::Writer;

pub use open::oldest_sqlite;

/// The SQLite store: one database file, its WAL, and the file of instance locks beside it.
pub struct SqliteStore {
    path: PathBuf,
    kind: String,
    clock: Clock,
    writer: Writer,
    counted: Arc<OnceLock<Metrics>>,
    readers: Arc<Readers>,
    liveness: Arc<Liveness>,
    instance: OnceCell<Instance>,
    /// The instance's number for the writer; 0 as long as there is none.
    number: Arc<AtomicI64>,
    /// Counts what arrived in the spool.
    arrived: watch::Sender<u64>,
}

impl SqliteStore {
    /// Opens the database at `path`, and makes it where there is none. `kind` names this
    /// process in the table of instances; `clock` is the store's time.
    ///
    /// # Errors
    /// [`Error::CannotOpen`]: no permission, not a database, damaged, of another version,
    /// or held by another process for longer than ten seconds.
    pub fn open(path: &Path, kind: &str, clock: &Clock) -> Result<Self> {
        open::make_directory(path)?;
        open::refuse_no_file(path)?;
        let liveness = Liveness::open(path).map_err(|error| open::no_lock(path, &error))?;
        let mut connection = open::open(path, &liveness)?;
        let log = Log::of(&mut connection, path)?;
        let number = Arc::<AtomicI64>::default();
        let counted = Arc::<OnceLock<Metrics>>::default();
        let identity = open::Identity::of(path)?;
        let writer = Writer::start(connection, log, identity, clock.clone(), Arc::clone(&number), Arc::clone(&counted));
        Ok(Self {
            path: path.to_owned(),
            kind: kind.to_owned(),
            clock: clock.clone(),
            writer: writer.map_err(|error| open::cannot_open(path, format!("no thread can be started: {error}")))?,
            counted,
            readers: Arc::new(Readers::new(path)),
            liveness: Arc::new(liveness),
            instance: OnceCell::new(),
            number,
            arrived: watch::Sender::new(0),
        })
    }

    /// Has commits counted there from now on; the first call holds.
    pub fn count_commits(&self, metrics: &Metrics) {
        // A second observer would count the same commits again.
        let _ = self.counted.set(metrics.clone());
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn now(&self) -> Time {
        self.clock.now()
    }

    fn liveness(&self) -> Arc<Liveness> {
        Arc::clone(&self.liveness)
    }

    /// Tells who waits for mail in the spool.
    fn tell_arrival(&self) {
        self.arrived.send_modify(|arrived| *arrived = arrived.wrapping_add(1));
    }

    /// Runs `operation` in a transaction and answers after the commit. It may run more
    /// than once before that: see [`writer`].
    async fn write<T: Send + 'static>(
        &self,
        operation: impl Fn(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.writer.call(operation, Haste::Urgent).await
    }

    /// As [`SqliteStore::write`], for what nobody waits for: it waits a little for a commit
    /// that is waited for, and shares it.
    async fn write_along<T: Send + 'static>(
        &self,
        operation: impl Fn(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.writer.call(operation, Haste::Along).await
    }

    /// As [`SqliteStore::write`], for a turn of what is done to many: it comes after all others.
    async fn write_bulk<T: Send + 'static>(
        &self,
        operation: impl Fn(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.writer.call(operation, Haste::Bulk).await
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let readers = Arc::clone(&self.readers);
        tokio::task::spawn_blocking(move || readers.with(query))
            .await
            .unwrap_or_else(|panic| Err(Error::trouble(Trouble::Internal, panic)))
    }

    /// This process's instance, registered when it first takes something in hand.
    async fn instance(&self) -> Result<i64> {
        let register = || async {
            let (liveness, kind) = (self.liveness(), self.kind.clone());
            let instance = self.write(move |tx| instance::register(tx, &liveness, &kind)).await?;
            self.number.store(instance.id, Ordering::Relaxed);
            Ok(instance)
        };
        self.instance.get_or_try_init(register).await.map(|instance| instance.id)
    }

    /// Its number, where it is registered.
    fn own_instance(&self) -> Option<i64> {
        self.instance.get().map(|instance| instance.id)
    }
}
