//! The SQLite backend: all SQL of the crate.
//!
//! One thread owns the only connection that writes and commits in groups
//! ([`writer`]); reading goes over short read-only connections ([`readers`]). Who is alive
//! is asked of the kernel ([`instance`]). WAL and `synchronous=FULL`, always: group
//! commit makes the sync nearly free, so there is no option to lose mail with.

mod backup;
mod claims;
mod filing;
mod housekeeping;
mod instance;
mod listing;
mod messages;
mod open;
mod readers;
mod records;
mod rows;
mod runs;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::Connection;
use tokio::sync::OnceCell;
use tracing::warn;

use super::{
    AttemptFilter, AttemptId, Claim, Claimed, Counts, Error, Listed, MailFilter, NewMail, Old, Place, Purged, Reaped,
    Respool, Result, Run, RunId, Seq, Settlement, Store, Time, Trouble, Wanted,
};
use crate::mail::{
    Attempt, Attributes, Content, DialogueEntry, Mail, MailKey, MessageId, Planned, Recorded, RepositoryPath,
};
use instance::{Instance, Liveness};
use readers::Readers;
use writer::Writer;

pub use open::oldest_sqlite;

/// The SQLite store: one database file, its WAL, and the file of instance locks beside it.
pub struct SqliteStore {
    path: PathBuf,
    kind: String,
    writer: Writer,
    readers: Arc<Readers>,
    liveness: Arc<Liveness>,
    instance: OnceCell<Instance>,
}

impl SqliteStore {
    /// Opens the database at `path`, makes it where there is none, and brings its schema
    /// up to this program's version. `kind` names this process in the table of instances.
    ///
    /// # Errors
    /// [`Error::CannotOpen`]: no permission, not a database, damaged, of a newer version,
    /// or held by another process for longer than ten seconds.
    pub fn open(path: &Path, kind: &str) -> Result<Self> {
        let connection = open::open(path)?;
        let liveness =
            Liveness::open(path).map_err(|error| open::cannot_open(path, format!("its lock file: {error}")))?;
        Ok(Self {
            path: path.to_owned(),
            kind: kind.to_owned(),
            writer: Writer::start(connection, open::Identity::of(path)?),
            readers: Arc::new(Readers::new(path)),
            liveness: Arc::new(liveness),
            instance: OnceCell::new(),
        })
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `operation` in a transaction and answers after the commit. It may run more
    /// than once before that: see [`writer`].
    async fn write<T: Send + 'static>(
        &self,
        operation: impl Fn(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.writer.call(operation).await
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
    async fn instance(&self, now: Time) -> Result<i64> {
        let register = || async {
            let (liveness, kind) = (Arc::clone(&self.liveness), self.kind.clone());
            self.write(move |connection| instance::register(connection, &liveness, &kind, now)).await
        };
        self.instance.get_or_try_init(register).await.map(|instance| instance.id)
    }

    async fn reap_dead(&self, now: Time) -> Result<Reaped> {
        // Looking costs no write: nearly always nobody has died.
        let (liveness, own) = (Arc::clone(&self.liveness), self.instance.get().map(|i| i.id));
        let dead = self.read(move |connection| instance::dead(connection, &liveness, own)).await?;
        if dead.is_empty() {
            return Ok(Reaped::default());
        }
        let liveness = Arc::clone(&self.liveness);
        let reaped = self.write(move |connection| claims::reap(connection, &liveness, own, now)).await?;
        // Whoever comes first does it: a command, a run, or the service as it starts.
        if reaped.mails > 0 {
            let Reaped { mails, in_doubt, .. } = reaped;
            warn!(mails, in_doubt, "a process had ended with mails in hand: they are free again");
        }
        Ok(reaped)
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn write_chunk(
        &self,
        message: Option<MessageId>,
        number: u32,
        octets: Bytes,
        now: Time,
    ) -> Result<MessageId> {
        let writer = self.instance(now).await?;
        self.write(move |connection| messages::write_chunk(connection, message, number, &octets, writer)).await
    }

    async fn discard(&self, message: MessageId) -> Result<()> {
        self.write(move |connection| messages::disown(connection, message)).await
    }

    async fn insert(&self, mail: NewMail, now: Time) -> Result<()> {
        self.write(move |connection| filing::insert(connection, &mail, now)).await
    }

    async fn claim(&self, wanted: &Wanted, now: Time) -> Result<Vec<Claimed>> {
        self.reap_dead(now).await?;
        let instance = self.instance(now).await?;
        let wanted = wanted.clone();
        self.write(move |connection| claims::claim(connection, &wanted, instance, now)).await
    }

    async fn begin_attempt(
        &self,
        claim: &Claim,
        attributes: &Attributes,
        plan: &[Planned],
        now: Time,
    ) -> Result<AttemptId> {
        let (claim, attributes, plan) = (claim.clone(), attributes.clone(), plan.to_vec());
        self.write(move |connection| records::begin(connection, &claim, &attributes, &plan, now)).await
    }

    async fn record(
        &self,
        claim: &Claim,
        attempt: AttemptId,
        outcomes: &[Recorded],
        dialogue: &[DialogueEntry],
        dialogue_limit: usize,
    ) -> Result<()> {
        let (claim, outcomes, dialogue) = (claim.clone(), outcomes.to_vec(), dialogue.to_vec());
        self.write(move |connection| {
            claims::verify(connection, &claim)?;
            records::record(connection, attempt, &outcomes, &dialogue, dialogue_limit)
        })
        .await
    }

    async fn settle(&self, claim: &Claim, settlement: &Settlement, now: Time) -> Result<()> {
        let (claim, settlement) = (claim.clone(), settlement.clone());
        self.write(move |connection| claims::settle(connection, &claim, &settlement, now)).await
    }

    async fn extend_attempt(
        &self,
        claim: &Claim,
        attempt: AttemptId,
        attributes: &Attributes,
        plan: &[Planned],
    ) -> Result<()> {
        let (claim, attributes, plan) = (claim.clone(), attributes.clone(), plan.to_vec());
        self.write(move |connection| records::extend(connection, &claim, attempt, &attributes, &plan)).await
    }

    async fn abandon(&self, claim: &Claim, now: Time) -> Result<()> {
        let claim = claim.clone();
        self.write(move |connection| claims::abandon(connection, &claim, now)).await
    }

    async fn release(&self, claim: &Claim) -> Result<()> {
        let claim = claim.clone();
        self.write(move |connection| claims::release(connection, &claim)).await
    }

    async fn reap(&self, now: Time) -> Result<Reaped> {
        self.reap_dead(now).await
    }

    async fn start_run(&self, job: &str, trigger: &str, now: Time) -> Result<(RunId, Seq)> {
        self.reap_dead(now).await?;
        let instance = self.instance(now).await?;
        let (job, trigger) = (job.to_owned(), trigger.to_owned());
        self.write(move |connection| runs::start(connection, &job, &trigger, instance, now)).await
    }

    async fn finish_run(&self, run: RunId, counts: Counts, failure: Option<&str>, now: Time) -> Result<()> {
        let failure = failure.map(str::to_owned);
        self.write(move |connection| runs::finish(connection, run, counts, failure.as_deref(), now)).await
    }

    async fn note_failed_run(&self, job: &str, trigger: &str, times: (Time, Time), failure: &str) -> Result<()> {
        let (job, trigger, failure) = (job.to_owned(), trigger.to_owned(), failure.to_owned());
        self.write(move |connection| runs::note_failed(connection, &job, &trigger, times, &failure)).await
    }

    async fn runs(&self, job: Option<&str>, limit: usize) -> Result<Vec<Run>> {
        let job = job.map(str::to_owned);
        self.read(move |connection| runs::list(connection, job.as_deref(), limit)).await
    }

    async fn ensure_repositories(&self, paths: &[RepositoryPath], now: Time) -> Result<()> {
        let paths = paths.to_vec();
        let missing = self.read(move |connection| filing::unknown(connection, &paths)).await?;
        if missing.is_empty() {
            return Ok(());
        }
        self.write(move |connection| filing::ensure_all(connection, &missing, now)).await
    }

    async fn repositories(&self) -> Result<Vec<RepositoryPath>> {
        self.read(listing::repositories).await
    }

    async fn size(&self, place: &Place) -> Result<u64> {
        let place = place.clone();
        self.read(move |connection| listing::size(connection, &place)).await
    }

    async fn list(&self, place: &Place, filter: &MailFilter, after: Option<Seq>, limit: usize) -> Result<Vec<Listed>> {
        let (place, filter) = (place.clone(), filter.clone());
        self.read(move |connection| listing::list(connection, &place, &filter, after, limit)).await
    }

    async fn newest(&self) -> Result<Seq> {
        self.read(instance::last_number).await.map(Seq)
    }

    async fn find(&self, place: &Place, key: &MailKey) -> Result<Listed> {
        let (place, key) = (place.clone(), key.clone());
        self.read(move |connection| listing::find(connection, &place, &key)).await
    }

    fn content(&self, message: MessageId) -> Arc<dyn Content> {
        Arc::new(messages::StoredContent { readers: Arc::clone(&self.readers), message })
    }

    async fn attempts_of(&self, mail: &Mail) -> Result<Vec<Attempt>> {
        let mail = mail.clone();
        self.read(move |connection| records::of_mail(connection, &mail)).await
    }

    async fn last_outcomes(&self, mails: &[Mail]) -> Result<Vec<Vec<Recorded>>> {
        let mails = mails.to_vec();
        self.read(move |connection| mails.iter().map(|mail| records::last_outcomes(connection, mail)).collect()).await
    }

    async fn attempts(
        &self,
        filter: &AttemptFilter,
        after: Option<AttemptId>,
        limit: usize,
    ) -> Result<Vec<(AttemptId, Attempt)>> {
        let filter = filter.clone();
        self.read(move |connection| records::page(connection, &filter, after, limit)).await
    }

    async fn respool(&self, place: &Place, key: &MailKey, how: &Respool, now: Time) -> Result<()> {
        let (place, key, how) = (place.clone(), key.clone(), how.clone());
        self.reap_dead(now).await?;
        self.write(move |connection| filing::respool(connection, &place, &key, &how, now)).await
    }

    async fn move_to(&self, place: &Place, key: &MailKey, to: &RepositoryPath, now: Time) -> Result<()> {
        let (place, key, to) = (place.clone(), key.clone(), to.clone());
        self.reap_dead(now).await?;
        self.write(move |connection| filing::move_to(connection, &place, &key, &to, now)).await
    }

    async fn remove(&self, place: &Place, key: &MailKey, now: Time) -> Result<()> {
        let (place, key) = (place.clone(), key.clone());
        self.reap_dead(now).await?;
        self.write(move |connection| filing::remove(connection, &place, &key, now)).await
    }

    async fn purge(&self, old: &Old, batch: usize, now: Time) -> Result<Purged> {
        self.reap_dead(now).await?;
        let wanted = old.clone();
        let found = self.read(move |connection| housekeeping::old_mails(connection, &wanted, batch)).await?;
        let Some(&(_, last)) = found.last() else { return Ok(Purged::default()) };
        let more = found.len() == batch;
        let (old, ids) = (old.clone(), found.into_iter().map(|(id, _)| id).collect::<Vec<_>>());
        let mails = self.write(move |connection| housekeeping::purge(connection, &old, &ids, now)).await?;
        Ok(Purged { mails, last: more.then_some(last) })
    }

    async fn reported(&self, job: &str) -> Result<Option<Seq>> {
        let job = job.to_owned();
        self.read(move |connection| runs::reported(connection, &job)).await
    }

    async fn note_reported(&self, job: &str, upto: Seq) -> Result<()> {
        let job = job.to_owned();
        self.write(move |connection| runs::note_reported(connection, &job, upto)).await
    }

    async fn backup(&self, to: &Path) -> Result<()> {
        backup::write(&self.path, to).await
    }

    async fn schedule_seen(&self, schedule: &str) -> Result<Option<Time>> {
        let schedule = schedule.to_owned();
        self.read(move |connection| runs::schedule_seen(connection, &schedule)).await
    }

    async fn see_schedule(&self, schedule: &str, now: Time) -> Result<()> {
        let schedule = schedule.to_owned();
        self.write(move |connection| runs::see_schedule(connection, &schedule, now)).await
    }

    async fn purge_records(&self, before: Time, batch: usize, now: Time) -> Result<usize> {
        let due = self.read(move |connection| housekeeping::any_expired(connection, before, batch)).await?;
        if !due {
            return Ok(0);
        }
        self.write(move |connection| housekeeping::purge_records(connection, before, batch, now)).await
    }

    async fn tidy(&self) -> Result<bool> {
        let needed = self.read(housekeeping::untidy).await?;
        if !needed {
            return Ok(false);
        }
        self.write(housekeeping::tidy).await
    }

    async fn earlier_instance(&self, kind: &str, now: Time) -> Result<Option<u32>> {
        let own = self.instance(now).await?;
        let (liveness, kind) = (Arc::clone(&self.liveness), kind.to_owned());
        self.read(move |connection| instance::alive_before(connection, &liveness, &kind, own)).await
    }

    async fn ping(&self) -> Result<()> {
        // A row written as it is would be no change to SQLite, which then syncs nothing.
        self.write(|connection| instance::next_number(connection).map(drop)).await
    }

    fn hurry(&self) {
        self.writer.hurry();
    }

    async fn close(&self, now: Time) -> Result<()> {
        if let Some(instance) = self.instance.get().map(|i| i.id) {
            self.write(move |connection| instance::end_in_order(connection, instance, now)).await?;
        }
        self.readers.clear();
        self.writer.stop().await;
        Ok(())
    }
}
