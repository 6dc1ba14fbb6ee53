//! How many notifications senders get: what is too much for one is gathered in a digest, what
//! is too much in all is held back, and both are counted.

use async_trait::async_trait;

use super::Result;
use crate::mail::{Address, MailKey, NewMail, Told};

/// Recipients that a digest names at most; the others are counted.
pub const NAMED_IN_DIGEST: u64 = 1000;

/// What becomes of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is a mail in the spool.
    Born,
    /// It is told in the sender's next digest.
    Gathered,
    /// It is told to nobody.
    HeldBack,
}

/// What is told to one sender together.
#[derive(Debug, Clone, PartialEq)]
pub struct Digest {
    /// The key that its mail is to have.
    pub key: MailKey,
    /// Whom it goes to.
    pub sender: Address,
    /// Of whom: the first [`NAMED_IN_DIGEST`].
    pub told: Vec<Told>,
    /// How many recipients more.
    pub more: u64,
}

/// How many notifications there were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DsnCounts {
    /// Since the store was made, by action; `digest`, and `held`: recipients of whom nobody was
    /// told.
    pub by_action: Vec<(String, u64)>,
    /// Recipients of whom nobody was told, in the last 24 hours.
    pub held_lately: u64,
}

/// Notifications, beyond those that a settlement bears.
#[async_trait]
pub trait Notifications: Send + Sync {
    /// The digest that has been due for longest, if one is.
    async fn due_digest(&self) -> Result<Option<Digest>>;

    /// Ends a digest with the mail that it is, or with none where nobody is to get it. False
    /// where somebody else has ended it.
    async fn end_digest(&self, digest: &Digest, mail: Option<NewMail>) -> Result<bool>;

    /// How many there were.
    async fn dsn_counts(&self) -> Result<DsnCounts>;
}
