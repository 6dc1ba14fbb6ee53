//! Mail comes in.

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use super::{Claimed, Result};
use crate::mail::{MessageId, NewMail};

/// The way in.
#[async_trait]
pub trait Intake: Send + Sync {
    /// Writes a row of a message that is still coming in, `number` from 0; the first
    /// call, with `None`, makes the message. It belongs to nobody until [`Intake::insert`]
    /// and is reaped if this process dies before that.
    async fn write_chunk(&self, message: Option<MessageId>, number: u32, octets: Bytes) -> Result<MessageId>;

    /// Gives up a message that was written ahead.
    async fn discard(&self, message: MessageId) -> Result<()>;

    /// Takes a mail into the spool. `Ok` means that it is ours to deliver.
    async fn insert(&self, mail: NewMail) -> Result<()>;

    /// The same, and the mail is in this process's hand from the start. `take` gets it after the
    /// commit, whether or not the caller still waits; it must not block. Where there is none,
    /// `take` is dropped.
    async fn insert_in_hand(&self, mail: NewMail, take: Box<dyn FnOnce(Claimed) + Send>) -> Result<()>;

    /// News of mail that comes to rest in the spool from now on.
    fn arrivals(&self) -> Arrivals;
}

/// News of mail in the spool. A backend tells what it learns of without being asked: of this
/// process always, of others perhaps, so that who waits looks by himself now and then.
#[derive(Debug, Clone)]
pub struct Arrivals(pub(super) watch::Receiver<u64>);

impl Arrivals {
    /// Waits until something arrived since the last call, or since this was made.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // The store is closed: nothing arrives any more.
            std::future::pending::<()>().await;
        }
    }
}
