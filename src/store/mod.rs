//! Where mail rests: the spool and the repositories, and the record of every attempt.
//!
//! [`Store`] is the interface; `sqlite` is the one backend there is, with all SQL of the
//! crate; `contract` holds the tests that every backend passes. What is above this room
//! knows nothing of databases, locks or transactions.
//!
//! Three rules hold for every backend. An answer means durable: `Ok` is given after the
//! commit. A mail rests in exactly one place: what moves it is one transaction. And a
//! claim can be lost: [`Store::begin_attempt`], [`Store::record`] and [`Store::settle`]
//! refuse with [`Error::ClaimLost`] what a reaped process still wants to say.

mod error;
mod pages;
mod sqlite;

#[cfg(test)]
mod contract;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::mail::{
    self, Attempt, Attributes, Content, DialogueEntry, Envelope, Mail, MailKey, MessageFacts, MessageId, Outcome,
    Planned, Recorded, RepositoryPath,
};

pub use error::{Error, Trouble};
pub use pages::Pages;
pub use sqlite::{SqliteStore, oldest_sqlite};

/// What every call answers.
pub type Result<T> = std::result::Result<T, Error>;

/// The time, as everything here takes it.
pub type Time = DateTime<Utc>;

/// A mail that comes in; its message was written ahead, or comes along.
#[derive(Debug, Clone)]
pub struct NewMail {
    /// The key it will have.
    pub key: MailKey,
    /// James's name.
    pub name: String,
    /// Who it is from and for.
    pub envelope: Envelope,
    /// The processor that will run it.
    pub state: String,
    /// First attributes.
    pub attributes: Attributes,
    /// The message.
    pub message: NewMessage,
    /// What is known of the message.
    pub facts: MessageFacts,
    /// Identifies what an import took in; a second insert with the same digest is refused.
    pub import_digest: Option<String>,
}

/// A message that comes in.
#[derive(Debug, Clone)]
pub enum NewMessage {
    /// All of it: at most [`crate::mail::CHUNK_BYTES`].
    Whole(Bytes),
    /// Written ahead by [`Store::write_chunk`].
    Written(MessageId),
}

/// Where a mail rests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Waiting for its first, or its next, way through the processors.
    Spool,
    /// Kept until somebody or some job takes it.
    Repository(RepositoryPath),
}

/// A run's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct RunId(pub i64);

/// An attempt record's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId(pub i64);

/// A place in the order in which mails came to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seq(pub i64);

/// Which mails a claim may take.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// From where.
    pub from: Place,
    /// For which run; mails that a run still going took before are left alone.
    pub run: Option<RunId>,
    /// Only what had come to rest by then.
    pub upto: Seq,
    /// The n-th counted attempt must lie this long back (the last value repeats); empty:
    /// every mail is due.
    pub spacing: Vec<Duration>,
    /// At most so many.
    pub limit: usize,
    /// Those that were in hand when a process died, or the others.
    pub suspects: bool,
    /// Of all these, only those with these keys.
    pub only: Option<Arc<[MailKey]>>,
}

/// The right to work on one mail, until it is settled, released or reaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub(crate) mail: i64,
    pub(crate) token: i64,
    /// The mail's key.
    pub key: MailKey,
}

/// A mail in hand.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The right to it.
    pub claim: Claim,
    /// The mail.
    pub mail: Mail,
    /// Deaths of a process, in a row, that had only this mail in hand.
    pub deaths_alone: u32,
}

/// Where a part of a settled mail is to rest. Parts that are not named are done.
#[derive(Debug, Clone)]
pub struct Resting {
    /// The part.
    pub mail: Mail,
    /// Where to; `None` is back where it was, in its old place of the order.
    pub place: Option<RepositoryPath>,
}

/// How a mail in hand ends its pass.
#[derive(Debug, Clone, Default)]
pub struct Settlement {
    /// What is left of it.
    pub parts: Vec<Resting>,
    /// The attempt that was begun, if one was.
    pub attempt: Option<AttemptId>,
    /// Whether the pass counts. `false` takes back what `begin_attempt` counted.
    pub counted: bool,
    /// Outcomes not yet recorded, for a pass that ended before an attempt was begun.
    pub outcomes: Vec<Recorded>,
}

/// What a reap found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Instances that had died.
    pub instances: usize,
    /// Mails they had in hand, now free again.
    pub mails: usize,
    /// Attempts that are in doubt now.
    pub in_doubt: usize,
}

/// A run's result so far: recipients, except `selected` and `promoted` (mails).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Mails taken.
    pub selected: u64,
    /// Recipients delivered.
    pub delivered: u64,
    /// Recipients kept for a next pass.
    pub deferred: u64,
    /// Recipients failed for good.
    pub failed: u64,
    /// Mails that became permanent by the limit.
    pub promoted: u64,
    /// Recipients in an error repository, or left by trouble of our own.
    pub errors: u64,
}

/// A run of a job, going or ended.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its number.
    pub id: RunId,
    /// The job.
    pub job: String,
    /// What started it: `command`, `schedule`, `http`, `start`.
    pub trigger: String,
    /// When it began.
    pub started: Time,
    /// When it ended; `None` while it is going.
    pub finished: Option<Time>,
    /// What it did.
    pub counts: Counts,
    /// Why it failed, where it did.
    pub failure: Option<String>,
}

/// A mail in a listing.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The mail.
    pub mail: Mail,
    /// Its place in the order; the next page begins behind it.
    pub seq: Seq,
    /// When it was first accepted.
    pub accepted: Time,
    /// Somebody works on it now.
    pub in_hand: bool,
}

/// Which mails of a place are meant; what is `Some` must all hold.
#[derive(Debug, Clone, Default)]
pub struct MailFilter {
    /// The reverse-path, without case; `<>` for null.
    pub sender: Option<String>,
    /// One recipient, without case, or `*@domain`.
    pub recipient: Option<String>,
    /// The domain of a recipient.
    pub domain: Option<String>,
    /// The last attempt's reply code.
    pub code: Option<u16>,
    /// Came to rest before.
    pub before: Option<Time>,
    /// Came to rest after.
    pub after: Option<Time>,
    /// Passes counted.
    pub passes: Option<u32>,
}

/// Which attempts are meant; what is `Some` must all hold.
#[derive(Debug, Clone, Default)]
pub struct AttemptFilter {
    /// Attempts for this recipient, without case, or `*@domain`.
    pub recipient: Option<String>,
    /// Attempts with at least one such outcome.
    pub outcome: Option<Outcome>,
    /// Begun at or after this time.
    pub since: Option<Time>,
}

impl AttemptFilter {
    /// Whether it is for this recipient of an attempt that the attempt is meant.
    pub fn means(&self, recorded: &Recorded) -> bool {
        let recipient = recorded.recipient.to_string();
        self.recipient.as_ref().is_none_or(|wanted| mail::is_named_by(&recipient, &mail::folded(wanted)))
            && self.outcome.is_none_or(|wanted| wanted == recorded.outcome)
    }
}

/// Mails that have been at rest for long.
#[derive(Debug, Clone)]
pub struct Old {
    /// Where.
    pub place: Place,
    /// Came to rest before.
    pub before: Time,
    /// Only what had come to rest by then.
    pub upto: Seq,
    /// Only behind this one of the order: where the last step ended.
    pub after: Option<Seq>,
}

/// How a mail is put into the spool.
#[derive(Debug, Clone, Default)]
pub struct Respool {
    /// The processor that it enters.
    pub processor: String,
    /// The attributes that count its passes: they are forgotten, and so is how often it was
    /// attempted.
    pub reset: Vec<String>,
    /// Only where it had come to rest by then: else it was sent round meanwhile, and is no
    /// such mail.
    pub upto: Option<Seq>,
}

/// What one step of a purge did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// Mails that are gone.
    pub mails: usize,
    /// Where the next step begins; `None` after the last.
    pub last: Option<Seq>,
}

/// Where mail rests. See the module for what holds for every call.
#[async_trait]
pub trait Store: Send + Sync {
    /// Writes a row of a message that is still coming in, `number` from 0; the first
    /// call, with `None`, makes the message. It belongs to nobody until [`Store::insert`]
    /// and is reaped if this process dies before that.
    async fn write_chunk(&self, message: Option<MessageId>, number: u32, octets: Bytes, now: Time)
    -> Result<MessageId>;

    /// Gives up a message that was written ahead.
    async fn discard(&self, message: MessageId) -> Result<()>;

    /// Takes a mail into the spool. `Ok` means that it is ours to deliver.
    async fn insert(&self, mail: NewMail, now: Time) -> Result<()>;

    /// Takes mails in hand, oldest first; first frees what dead processes held. One that
    /// cannot be read is told to the log and set aside in `var/mail/error`, from where nobody
    /// takes it.
    async fn claim(&self, wanted: &Wanted, now: Time) -> Result<Vec<Claimed>>;

    /// Opens the attempt record and counts the pass, before the first packet. `plan` is whom
    /// it is going to be with: where this process dies, the record names them.
    async fn begin_attempt(
        &self,
        claim: &Claim,
        attributes: &Attributes,
        plan: &[Planned],
        now: Time,
    ) -> Result<AttemptId>;

    /// Adds what one transaction yielded. `dialogue_limit` is in octets per attempt.
    async fn record(
        &self,
        claim: &Claim,
        attempt: AttemptId,
        outcomes: &[Recorded],
        dialogue: &[DialogueEntry],
        dialogue_limit: usize,
    ) -> Result<()>;

    /// Ends the pass: the claimed mail out, what is left of it in.
    async fn settle(&self, claim: &Claim, settlement: &Settlement, now: Time) -> Result<()>;

    /// As [`Store::begin_attempt`], where the attempt is open already: a second part of the
    /// mail goes its own way.
    async fn extend_attempt(
        &self,
        claim: &Claim,
        attempt: AttemptId,
        attributes: &Attributes,
        plan: &[Planned],
    ) -> Result<()>;

    /// Gives up a mail as if this process had died with only this mail in hand: for work on
    /// it that panicked.
    async fn abandon(&self, claim: &Claim, now: Time) -> Result<()>;

    /// Gives a mail back untouched.
    async fn release(&self, claim: &Claim) -> Result<()>;

    /// Frees what processes that died had in hand, and the messages they were writing.
    async fn reap(&self, now: Time) -> Result<Reaped>;

    /// Begins a run; it takes only what had come to rest by the returned place.
    async fn start_run(&self, job: &str, trigger: &str, now: Time) -> Result<(RunId, Seq)>;

    /// Ends a run.
    async fn finish_run(&self, run: RunId, counts: Counts, failure: Option<&str>, now: Time) -> Result<()>;

    /// Notes a run that is over and could not be begun on record, for this reason.
    async fn note_failed_run(&self, job: &str, trigger: &str, times: (Time, Time), failure: &str) -> Result<()>;

    /// The latest runs, newest first, of one job or all.
    async fn runs(&self, job: Option<&str>, limit: usize) -> Result<Vec<Run>>;

    /// Makes repositories known; nothing happens to those that are.
    async fn ensure_repositories(&self, paths: &[RepositoryPath], now: Time) -> Result<()>;

    /// All repositories, by path. Their mails are not counted: that is [`Store::size`].
    async fn repositories(&self) -> Result<Vec<RepositoryPath>>;

    /// Mails in a place, those in hand included.
    async fn size(&self, place: &Place) -> Result<u64>;

    /// The end of the order: what comes to rest from now on stands behind it.
    async fn newest(&self) -> Result<Seq>;

    /// A page of a place's mails, oldest first, behind `after`. One that cannot be read is
    /// told to the log and passed over.
    async fn list(&self, place: &Place, filter: &MailFilter, after: Option<Seq>, limit: usize) -> Result<Vec<Listed>>;

    /// One mail of a place.
    async fn find(&self, place: &Place, key: &MailKey) -> Result<Listed>;

    /// A message, to be read in pieces.
    fn content(&self, message: MessageId) -> Arc<dyn Content>;

    /// Attempts of a mail and of the mails it was split off from, oldest first, for the
    /// recipients it has.
    async fn attempts_of(&self, mail: &Mail) -> Result<Vec<Attempt>>;

    /// For each mail the last outcome of each of its recipients, in their order, where one
    /// is on record; dialogues are not read.
    async fn last_outcomes(&self, mails: &[Mail]) -> Result<Vec<Vec<Recorded>>>;

    /// A page of all attempts, of mails that are gone too: oldest first, behind `after`.
    async fn attempts(
        &self,
        filter: &AttemptFilter,
        after: Option<AttemptId>,
        limit: usize,
    ) -> Result<Vec<(AttemptId, Attempt)>>;

    /// Puts a mail of a repository into the spool.
    async fn respool(&self, place: &Place, key: &MailKey, how: &Respool, now: Time) -> Result<()>;

    /// Moves a mail to another repository.
    async fn move_to(&self, place: &Place, key: &MailKey, to: &RepositoryPath, now: Time) -> Result<()>;

    /// Removes a mail; the action and the attempts stay on record.
    async fn remove(&self, place: &Place, key: &MailKey, now: Time) -> Result<()>;

    /// Removes at most `batch` old mails that nobody has in hand; each is an action on record.
    async fn purge(&self, old: &Old, batch: usize, now: Time) -> Result<Purged>;

    /// Up to where a job of kind report has told of failures.
    async fn reported(&self, job: &str) -> Result<Option<Seq>>;

    /// Notes up to where a job of kind report has told of failures.
    async fn note_reported(&self, job: &str, upto: Seq) -> Result<()>;

    /// Writes the store as it is now into the empty file `to`, while others go on. Dropping
    /// the future gives it up; what `to` holds then is of no use.
    async fn backup(&self, to: &Path) -> Result<()>;

    /// When a service last saw a schedule.
    async fn schedule_seen(&self, schedule: &str) -> Result<Option<Time>>;

    /// Notes that a service saw a schedule.
    async fn see_schedule(&self, schedule: &str, now: Time) -> Result<()>;

    /// Deletes attempt records of mails gone before `before`, and actions, runs and instances
    /// that were over before it, at most `batch` of each; how many, 0 where nothing is left.
    async fn purge_records(&self, before: Time, batch: usize, now: Time) -> Result<usize>;

    /// Gives back room of what was deleted, in one short step; whether there is more to do.
    async fn tidy(&self) -> Result<bool>;

    /// The process id of a living process that registered as `kind` before this one did;
    /// this one is registered with the call, so that of two only the later is told.
    async fn earlier_instance(&self, kind: &str, now: Time) -> Result<Option<u32>>;

    /// Writes something that nobody will miss, the way that everything is written: it
    /// fails as an accepted mail would.
    async fn ping(&self) -> Result<()>;

    /// The process is to end: a lock of another process is waited for 5 seconds more, for
    /// all writes together; a write that meets it after that fails at once.
    fn hurry(&self);

    /// Ends this instance in order. Later calls fail. What it still has in hand is freed as
    /// a dead process's is.
    async fn close(&self, now: Time) -> Result<()>;
}
