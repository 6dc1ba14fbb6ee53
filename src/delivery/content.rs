//! A message's octets, as an attempt reads them.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;

#[cfg(test)]
use crate::mail::CHUNK_BYTES;

/// A message that is read a row at a time, so that a large one costs little memory.
#[async_trait]
pub trait Content: Send + Sync {
    /// Row `number`, from 0: [`crate::mail::CHUNK_BYTES`] octets, fewer in the last, none behind it.
    ///
    /// # Errors
    /// Where the message cannot be read to its end.
    async fn row(&self, number: u32) -> io::Result<Bytes>;
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
