//! What an operator, or a job in his place, does to mails at rest.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;

use super::{Cursor, Horizon, Page, Place, Result, Span, Time};
use crate::mail::{MailKey, RepositoryPath};

/// An operation's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct OperationId(pub(super) i64);

impl std::fmt::Display for OperationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for OperationId {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// An operation that begins.
#[derive(Debug, Clone, Default)]
pub struct NewOperation {
    /// Who asked: a name with its role, a user of this machine with his number, or a job.
    pub who: String,
    /// The client's address, where it was asked for over HTTP.
    pub client: Option<IpAddr>,
    /// `reprocess`, `move`, `remove`, `purge`, `acknowledge` and what else there is.
    pub verb: String,
    /// Where the mails rest; `None` for what is not about mails of one place.
    pub place: Option<Place>,
    /// Which mails are meant, as it was given.
    pub selection: String,
    /// What is to become of them: a processor, a repository, a note.
    pub detail: Option<String>,
    /// The task that does it.
    pub task: Option<String>,
}

/// An operation on record.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Its number.
    pub id: OperationId,
    /// When it began.
    pub at: Time,
    /// As it was begun; the place is a path, empty for the spool.
    pub who: String,
    /// As it was begun.
    pub client: Option<String>,
    /// As it was begun.
    pub verb: String,
    /// The path of the repository, empty for the spool.
    pub repository: Option<String>,
    /// As it was begun.
    pub selection: String,
    /// As it was begun.
    pub detail: Option<String>,
    /// As it was begun.
    pub task: Option<String>,
    /// Mails it was done to.
    pub done: u64,
    /// Mails that somebody had in hand.
    pub in_hand: u64,
    /// Mails that were gone, or had come to rest anew.
    pub gone: u64,
}

/// A mail that is not there any more.
#[derive(Debug, Clone)]
pub struct Gone {
    /// Since when.
    pub at: Time,
    /// What took it away; `None` where it was delivered, or its way through the processors
    /// ended it.
    pub operation: Option<Operation>,
}

/// How a mail is put into the spool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Respool {
    /// The processor that it enters.
    pub processor: String,
    /// Processors that it enters instead where its state names one of them.
    pub own: Vec<String>,
    /// The attributes that count its passes: they are forgotten, and so is how often it was
    /// attempted.
    pub reset: Vec<String>,
    /// The mail stays where it is, and one with a key of its own enters the spool: its origin
    /// is the mail that stays, whose attempts so far and whose word to its sender it shares.
    pub copy: bool,
}

impl Respool {
    /// The processor that a mail with this state enters.
    pub fn processor_of<'a>(&'a self, state: &'a str) -> &'a str {
        if self.own.iter().any(|own| own == state) { state } else { &self.processor }
    }
}

/// What is done to each mail of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Into the spool. A note that somebody took of it is forgotten, unless it stays.
    Respool(Respool),
    /// To another repository, which there must be.
    Move(RepositoryPath),
    /// Out; the operation and the attempts stay on record.
    Remove,
    /// Somebody takes note of its failure, by name and with these words.
    Acknowledge {
        /// Who.
        by: String,
        /// What he says to it.
        note: String,
    },
    /// That note is taken back.
    Unacknowledge,
}

/// Something that is done to many mails, in one commit or a few.
#[derive(Debug, Clone)]
pub struct Batch {
    /// On whose account.
    pub operation: OperationId,
    /// Where the mails rest.
    pub place: Place,
    /// What is done.
    pub act: Act,
    /// To whom; a few hundred at most, so that who asks hears of a stop.
    pub keys: Vec<MailKey>,
    /// Only where a mail had come to rest by then: else it was sent round meanwhile, and is
    /// no such mail.
    pub within: Option<Horizon>,
}

/// What became of one mail of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acted {
    /// It was done.
    Done,
    /// Somebody works on it now; it was left alone.
    InHand,
    /// There is no such mail there, or not any more.
    Gone,
    /// It makes no sense to this version, so that it was left where it can be seen.
    Unreadable(String),
}

/// Mails that have been at rest for long.
#[derive(Debug, Clone)]
pub struct Old {
    /// Where.
    pub place: Place,
    /// For longer than this.
    pub older_than: Duration,
    /// Only what had come to rest by then.
    pub within: Option<Horizon>,
    /// Only behind this one of the order: where the last step ended.
    pub after: Option<Cursor>,
}

/// What one step of a purge did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Purged {
    /// Mails that are gone.
    pub mails: usize,
    /// Where the next step begins; `None` after the last.
    pub next: Option<Cursor>,
}

/// Changes to mails at rest, each on account of an operation.
#[async_trait]
pub trait Operations: Send + Sync {
    /// Begins an operation. It has no end: its counts grow with what is done on its account.
    async fn begin_operation(&self, operation: &NewOperation) -> Result<OperationId>;

    /// Does something to many mails, each in one commit, after whatever others wait for; what
    /// became of each, in the order of the keys. Where it fails, it may be done to some.
    async fn act(&self, batch: &Batch) -> Result<Vec<Acted>>;

    /// Removes at most `batch` old mails that nobody has in hand, after whatever others wait for.
    async fn purge(&self, operation: OperationId, old: &Old, batch: usize) -> Result<Purged>;

    /// A page of all operations.
    async fn operations(&self, span: &Span) -> Result<Page<Operation>>;

    /// One operation; `None` where it is not, or no longer, on record.
    async fn operation(&self, id: OperationId) -> Result<Option<Operation>>;

    /// The mails that an operation names, by key, behind `after`: at most `limit`.
    async fn mails_of(&self, id: OperationId, after: Option<&MailKey>, limit: usize) -> Result<Vec<MailKey>>;

    /// What was done to a mail, there or gone, oldest first.
    async fn operations_of(&self, key: &MailKey) -> Result<Vec<Operation>>;

    /// Since when and why a mail is gone; `None` where it is there, or was never known.
    async fn gone(&self, key: &MailKey) -> Result<Option<Gone>>;
}
