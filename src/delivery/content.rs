//! A message's octets, as an attempt reads them and as they go out.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

#[cfg(test)]
use crate::mail::CHUNK_BYTES;
use crate::mail::{Address, DsnRequest, MessageFacts, ReversePath};
use crate::smtp::Stuffer;

use super::signature::Signers;

/// A message that is read a row at a time, so that a large one costs little memory.
#[async_trait]
pub trait Content: Send + Sync {
    /// Row `number`, from 0: [`crate::mail::CHUNK_BYTES`] octets, fewer in the last, none behind it.
    ///
    /// # Errors
    /// Where the message cannot be read to its end.
    async fn row(&self, number: u32) -> io::Result<Bytes>;
}

/// What is sent, whoever gets it.
#[derive(Clone)]
pub(super) struct Message {
    pub(super) from: ReversePath,
    /// The submitter said SMTPUTF8.
    pub(super) smtputf8: bool,
    /// The submitter said REQUIRETLS.
    pub(super) require_tls: bool,
    /// It says so where the peer offers it.
    pub(super) prefer_require_tls: bool,
    /// What the sender asks of notifications.
    pub(super) dsn: Arc<DsnRequest>,
    pub(super) facts: MessageFacts,
    /// Header fields in front of the stored message.
    pub(super) prefix: Arc<str>,
    pub(super) content: Arc<dyn Content>,
    pub(super) signers: Signers,
    /// What is to be said of its signatures.
    pub(super) notes: Vec<String>,
}

impl Message {
    /// Row `number` of what is stored, which must be there.
    ///
    /// # Errors
    /// Why it cannot be read, in words.
    pub(super) async fn row(&self, number: u32) -> Result<Bytes, String> {
        let row = self.content.row(number).await.map_err(|error| error.to_string())?;
        // Cut short it would be another message.
        if row.is_empty() { Err("a part of it is missing in the store".to_owned()) } else { Ok(row) }
    }

    pub(super) fn size(&self) -> u64 {
        self.facts.size + self.prefix.len() as u64
    }

    pub(super) fn is_eight_bit(&self) -> bool {
        self.facts.eight_bit_header || self.facts.eight_bit_body || !self.prefix.is_ascii()
    }

    /// Whether every recipient's transaction needs SMTPUTF8 (RFC 6531 section 3.2).
    pub(super) fn needs_smtputf8(&self) -> bool {
        self.smtputf8 && self.facts.eight_bit_header || self.from.address().is_some_and(Address::needs_smtputf8)
    }
}

/// A message on its way out, a chunk at a time.
pub(super) struct Outgoing<'a> {
    message: &'a Message,
    stuffer: Stuffer,
    /// Of the stored message: what was read, in octets and in rows.
    pub(super) offset: u64,
    rows: u32,
    begun: bool,
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(message: &'a Message) -> Self {
        Self { message, stuffer: Stuffer::default(), offset: 0, rows: 0, begun: false }
    }

    /// Octets of the message, prefix included, that were made ready.
    pub(super) fn octets(&self) -> u64 {
        self.offset + self.message.prefix.len() as u64
    }

    /// The next octets for the wire, and whether the final dot is among them.
    ///
    /// # Errors
    /// Why the message cannot be sent to its end, in words.
    pub(super) async fn next(&mut self) -> Result<(Vec<u8>, bool), String> {
        let mut out = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            self.stuffer.push(self.message.prefix.as_bytes(), &mut out).map_err(|error| error.to_string())?;
        }
        if self.offset < self.message.facts.size {
            let chunk = self.read().await?;
            self.offset += chunk.len() as u64;
            self.rows += 1;
            self.stuffer.push(&chunk, &mut out).map_err(|error| error.to_string())?;
        }
        let last = self.offset >= self.message.facts.size;
        if last {
            std::mem::take(&mut self.stuffer).finish(&mut out).map_err(|error| error.to_string())?;
        }
        Ok((out, last))
    }

    async fn read(&self) -> Result<Bytes, String> {
        self.message.row(self.rows).await
    }
}

/// A message that is small enough to be held whole.
#[cfg(test)]
#[derive(Debug, Clone, Default)]
pub struct MemoryContent(pub Bytes);

#[cfg(test)]
#[async_trait]
impl Content for MemoryContent {
    async fn row(&self, number: u32) -> io::Result<Bytes> {
        let start = usize::try_from(number).map_or(usize::MAX, |number| number.saturating_mul(CHUNK_BYTES));
        let start = start.min(self.0.len());
        Ok(self.0.slice(start..start.saturating_add(CHUNK_BYTES).min(self.0.len())))
    }
}
