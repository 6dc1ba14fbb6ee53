//! Mails in hand: claimed, attempted, settled; and freed where their process died.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Fate, Horizon, Place, Result, RunId};
use crate::mail::{Attributes, DialogueEntry, Mail, MailKey, NewDsn, Planned, Recorded, RepositoryPath};

/// An attempt record's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId(pub(super) i64);

/// Which mails a claim may take.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// From where.
    pub from: Place,
    /// For which run; mails that a run still going took before are left alone.
    pub run: Option<RunId>,
    /// Only what had come to rest by then.
    pub within: Option<Horizon>,
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
    pub(super) mail: i64,
    pub(super) token: i64,
    /// Of its message.
    pub(super) octets: u64,
    /// The mail's key.
    pub key: MailKey,
}

#[cfg(test)]
impl Claim {
    /// One that no store has given.
    pub(crate) fn of_test(key: &str) -> Self {
        Self { mail: 0, token: 0, octets: 0, key: MailKey::parse(key).expect("a key") }
    }
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
    /// The whole message, where it is at hand: one of a single row that came in just now.
    pub content: Option<Bytes>,
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
    /// Outcomes not yet recorded: the last ones of an attempt, or those of a pass that ended
    /// before one was begun.
    pub outcomes: Vec<Recorded>,
    /// What was said for them, and not yet recorded.
    pub dialogue: Vec<DialogueEntry>,
    /// See [`Passes::record`].
    pub dialogue_limit: usize,
    /// Notifications that the pass bears, into the spool: there with the settlement or not at
    /// all. Where there are too many, they are gathered or held back.
    pub born: Vec<NewDsn>,
    /// What ends because its sender is told in one of `born`, and where it is kept if the
    /// notification is held back: nothing goes of which nobody is told.
    pub unless_told: Vec<Resting>,
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

/// Work on mails in hand.
#[async_trait]
pub trait Passes: Send + Sync {
    /// Takes mails in hand, oldest first; first frees what dead processes held. One that
    /// cannot be read is told to the log and set aside in [`RepositoryPath::error`], from
    /// where nobody takes it.
    ///
    /// A last attempt that lies in the future, because a clock was set back, counts as having
    /// been at the moment when a claim first met it; the log says so.
    async fn claim(&self, wanted: &Wanted) -> Result<Vec<Claimed>>;

    /// The mails in hand with these claims, as they are stored. Those that were lost are left out.
    async fn in_hand(&self, claims: &[Claim]) -> Result<Vec<Claimed>>;

    /// Opens the attempt record and counts the pass, before the first packet. `plan` is whom
    /// it is going to be with: where this process dies, the record names them.
    async fn begin_attempt(&self, claim: &Claim, attributes: &Attributes, plan: &[Planned]) -> Result<AttemptId>;

    /// As [`Passes::begin_attempt`], where the first packet does not wait for it yet: it may take
    /// a little longer, to be committed with others.
    async fn begin_attempt_ahead(&self, claim: &Claim, attributes: &Attributes, plan: &[Planned]) -> Result<AttemptId> {
        self.begin_attempt(claim, attributes, plan).await
    }

    /// As [`Passes::begin_attempt`], where the attempt is open already: a second part of the
    /// mail goes its own way.
    async fn extend_attempt(
        &self,
        claim: &Claim,
        attempt: AttemptId,
        attributes: &Attributes,
        plan: &[Planned],
    ) -> Result<()>;

    /// Adds what one transaction yielded. `dialogue_limit` is in octets per attempt.
    async fn record(
        &self,
        claim: &Claim,
        attempt: AttemptId,
        outcomes: &[Recorded],
        dialogue: &[DialogueEntry],
        dialogue_limit: usize,
    ) -> Result<()>;

    /// Ends the pass: the claimed mail out, what is left of it and what it bears in. What became
    /// of each notification, in their order.
    async fn settle(&self, claim: &Claim, settlement: &Settlement) -> Result<Vec<Fate>>;

    /// Gives a mail back untouched.
    async fn release(&self, claim: &Claim) -> Result<()>;

    /// Gives back many untouched; passes over claims that were lost.
    async fn release_all(&self, claims: &[Claim]) -> Result<()>;

    /// Gives up a mail as if this process had died with only this mail in hand: for work on
    /// it that panicked.
    async fn abandon(&self, claim: &Claim) -> Result<()>;

    /// Frees what processes that died had in hand, and the messages they were writing; in
    /// steps, between which others write.
    async fn reap(&self) -> Result<Reaped>;
}
