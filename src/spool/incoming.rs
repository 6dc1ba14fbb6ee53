//! The door: a message comes in piece by piece and becomes a mail by one commit.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tracing::debug;

use super::{Handover, Spool};
use crate::mail::{
    Attributes, CHUNK_BYTES, Envelope, HeaderScan, MailKey, MessageId, MessageProblem, NewMail, NewMessage,
};
use crate::store::{Claimed, Error, Trouble};

/// Between two tries to discard what was written ahead.
const PAUSE: Duration = Duration::from_secs(5);

/// The largest message that is kept in memory until it is sent, in octets.
pub(super) const KEPT: usize = 16 * 1024;

/// What is asked for beside the message.
#[derive(Debug, Clone)]
pub struct Submission {
    /// From whom and for whom.
    pub envelope: Envelope,
    /// What else is known of it.
    pub attributes: Attributes,
    /// What an import calls it; a key otherwise.
    pub name: Option<String>,
    /// Identifies what an import read, so that it is taken once.
    pub import_digest: Option<String>,
    /// The address of the client that brought it over a network.
    pub client: Option<IpAddr>,
}

impl From<Envelope> for Submission {
    fn from(envelope: Envelope) -> Self {
        Self { envelope, attributes: Attributes::default(), name: None, import_digest: None, client: None }
    }
}

/// Why a mail was not taken. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Nobody to send it to.
    #[error("the mail has no recipient")]
    NoRecipient,
    /// Over the limit, in octets.
    #[error("the message is larger than {0} octets")]
    TooLarge(u64),
    /// For the time being: results of earlier attempts wait to be written.
    #[error("the store is in trouble, try again later")]
    Behind,
    /// For the time being: less than [`super::MIN_FREE`] would be left.
    #[error("little room left where the store is ({0}), try again later")]
    NoFreeSpace(String),
    /// What is in it.
    #[error(transparent)]
    Message(#[from] MessageProblem),
    /// The store.
    #[error(transparent)]
    Store(#[from] Error),
}

impl AcceptError {
    /// Whether it is for want of room on the disk.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::NoFreeSpace(_) | Self::Store(Error::Trouble { kind: Trouble::Full, .. }))
    }
}

/// A message that is coming in.
///
/// It ends with [`Incoming::accept`] or [`Incoming::abandon`]. Dropped before that, it is
/// forgotten too, but what it wrote ahead stays until this process ends.
pub struct Incoming {
    spool: Arc<Spool>,
    key: MailKey,
    scan: HeaderScan,
    /// What does not fill a row yet.
    tail: BytesMut,
    message: Option<MessageId>,
    rows: u32,
    size: u64,
    /// Octets that we put there ourselves.
    own: u64,
}

impl Incoming {
    pub(super) fn new(spool: Arc<Spool>) -> Self {
        let key = MailKey::new(spool.clock.now(), rand::random());
        Self { spool, key, scan: HeaderScan::default(), tail: BytesMut::new(), message: None, rows: 0, size: 0, own: 0 }
    }

    /// Puts the trace field of the way in, line ends included, in front of the message. It
    /// counts neither against the limit nor as a `Received:` field that the message came with.
    pub fn write_trace(&mut self, field: &str) {
        self.size += field.len() as u64;
        self.own += field.len() as u64;
        self.scan.push_trace(field.as_bytes());
        self.tail.extend_from_slice(field.as_bytes());
    }

    /// Takes the next octets. Past the limit they are counted and not kept.
    ///
    /// # Errors
    /// [`AcceptError::Store`] where a row cannot be written ahead.
    pub async fn write(&mut self, octets: &[u8]) -> Result<(), AcceptError> {
        self.size += octets.len() as u64;
        if self.is_too_large() {
            return Ok(());
        }
        self.scan.push(octets);
        self.tail.extend_from_slice(octets);
        // A message of one row waits for its mail: one commit instead of two.
        while self.tail.len() > CHUNK_BYTES {
            let row = self.tail.split_to(CHUNK_BYTES).freeze();
            self.write_row(row).await?;
        }
        Ok(())
    }

    async fn write_row(&mut self, row: Bytes) -> Result<(), AcceptError> {
        let message = self.spool.store.write_chunk(self.message, self.rows, row).await?;
        self.message = Some(message);
        self.rows += 1;
        Ok(())
    }

    /// The key that the mail will have.
    pub fn key(&self) -> &MailKey {
        &self.key
    }

    /// Octets taken so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Octets that are taken at most.
    pub fn limit(&self) -> u64 {
        self.spool.settings.max_message_size
    }

    /// Whether more came than is taken: whatever follows, it is refused.
    pub fn is_too_large(&self) -> bool {
        self.size - self.own > self.limit()
    }

    /// Whether the last octets were a line end, or nothing came at all.
    pub fn ends_with_line_end(&self) -> bool {
        self.scan.ends_with_line_end()
    }

    /// Makes it a mail in the spool. `Ok` means that it is committed and ours to deliver.
    ///
    /// # Errors
    /// [`AcceptError`]; nothing is kept then.
    pub async fn accept(mut self, submission: Submission) -> Result<MailKey, AcceptError> {
        match self.commit(submission).await {
            Ok(()) => Ok(self.key),
            Err(error) => {
                self.forget().await;
                Err(error)
            }
        }
    }

    async fn commit(&mut self, submission: Submission) -> Result<(), AcceptError> {
        if submission.envelope.recipients.is_empty() {
            return Err(AcceptError::NoRecipient);
        }
        if self.is_too_large() {
            return Err(AcceptError::TooLarge(self.limit()));
        }
        let facts = self.scan.finish()?;
        let tail = self.tail.split().freeze();
        let message = match self.message {
            None => NewMessage::Whole(tail),
            Some(message) => {
                self.write_row(tail).await?;
                NewMessage::Written(message)
            }
        };
        let mail = NewMail {
            name: submission.name.unwrap_or_else(|| self.key.to_string()),
            key: self.key.clone(),
            envelope: submission.envelope,
            client: submission.client,
            state: self.spool.settings.processor.clone(),
            attributes: submission.attributes,
            message,
            facts,
            import_digest: submission.import_digest,
        };
        Ok(self.insert(mail).await?)
    }

    /// Into the hand of the service's loop where that has room, else to rest in the spool.
    async fn insert(&self, mail: NewMail) -> Result<(), Error> {
        let store = &self.spool.store;
        let Some(seat) = self.spool.handover.get().and_then(Handover::seat) else {
            return store.insert(mail).await;
        };
        let content = match &mail.message {
            NewMessage::Whole(octets) if octets.len() <= KEPT => Some(octets.clone()),
            _ => None,
        };
        store.insert_in_hand(mail, Box::new(move |claimed| seat.take(Claimed { content, ..claimed }))).await
    }

    /// Forgets the message and what of it was written ahead.
    pub async fn abandon(self) {
        self.forget().await;
    }

    async fn forget(&self) {
        let Some(message) = self.message else { return };
        let store = Arc::clone(&self.spool.store);
        let Err(error) = store.discard(message).await else { return };
        debug!(%error, "what was written ahead is discarded later");
        // Where the disk is full it is to go as soon as that can be written, not only with
        // this process.
        tokio::spawn(async move {
            while store.discard(message).await.is_err_and(|error| error.is_passing()) {
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_room_is_told_apart_from_other_trouble() {
        for (kind, full) in [(Trouble::Full, true), (Trouble::Busy, false), (Trouble::Io, false)] {
            let error = AcceptError::Store(Error::Trouble { kind, detail: String::new() });
            assert_eq!(error.is_full(), full, "{error}");
        }
    }
}
