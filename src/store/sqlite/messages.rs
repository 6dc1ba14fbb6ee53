//! Messages: written ahead in rows, owned by the mails they belong to, read a row at a time.

use std::io;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::super::Result;
use super::readers::Readers;
use crate::mail::{CHUNK_BYTES, Content, MessageFacts, MessageId};

/// A message's rows have numbers below this: see the table `chunk`.
const ROWS_PER_MESSAGE: i64 = 1 << 20;

/// Rows of a message that are deleted in one transaction at most.
pub(super) const ROWS_AT_ONCE: i64 = 16;

pub(super) fn chunk_id(message: MessageId, number: i64) -> i64 {
    message.0 * ROWS_PER_MESSAGE + number
}

/// Writes a row of a message; makes the message for the first.
pub(super) fn write_chunk(
    connection: &Connection,
    message: Option<MessageId>,
    number: u32,
    octets: &[u8],
    writer: i64,
) -> Result<MessageId> {
    let message = if let Some(message) = message {
        message
    } else {
        connection.prepare_cached("INSERT INTO message (writer) VALUES (?1)")?.execute([writer])?;
        MessageId(connection.last_insert_rowid())
    };
    connection
        .prepare_cached("INSERT INTO chunk (id, octets) VALUES (?1, ?2)")?
        .execute(params![chunk_id(message, i64::from(number)), octets])?;
    Ok(message)
}

/// Stores a message that came whole.
pub(super) fn store_whole(connection: &Connection, octets: &[u8]) -> Result<MessageId> {
    connection.prepare_cached("INSERT INTO message DEFAULT VALUES")?.execute([])?;
    let message = MessageId(connection.last_insert_rowid());
    connection
        .prepare_cached("INSERT INTO chunk (id, octets) VALUES (?1, ?2)")?
        .execute(params![chunk_id(message, 0), octets])?;
    Ok(message)
}

/// Makes a message its first mail's.
pub(super) fn own(connection: &Connection, message: MessageId, facts: &MessageFacts) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE message SET size = ?2, eight_bit_header = ?3, eight_bit_body = ?4, received = ?5, mails = 1, \
             writer = NULL WHERE id = ?1",
        )?
        .execute(params![message.0, facts.size, facts.eight_bit_header, facts.eight_bit_body, facts.received])?;
    Ok(())
}

/// One more mail has the message.
pub(super) fn share(connection: &Connection, message: MessageId) -> Result<()> {
    connection.prepare_cached("UPDATE message SET mails = mails + 1 WHERE id = ?1")?.execute([message.0])?;
    Ok(())
}

/// One mail less has it. A small message goes with its last mail; a large one is left to
/// be tidied away in steps.
pub(super) fn let_go(connection: &Connection, message: MessageId) -> Result<()> {
    let mails: i64 = connection
        .prepare_cached("UPDATE message SET mails = mails - 1 WHERE id = ?1 RETURNING mails")?
        .query_row([message.0], |row| row.get(0))?;
    if mails == 0 {
        delete_some(connection, message)?;
    }
    Ok(())
}

/// Gives up a message that was being written.
pub(super) fn disown(connection: &Connection, message: MessageId) -> Result<()> {
    connection.prepare_cached("UPDATE message SET writer = NULL WHERE id = ?1 AND mails = 0")?.execute([message.0])?;
    Ok(())
}

/// Deletes rows of an ownerless message, and the message with its last; how many rows.
pub(super) fn delete_some(connection: &Connection, message: MessageId) -> Result<usize> {
    let rows = connection
        .prepare_cached("DELETE FROM chunk WHERE id IN (SELECT id FROM chunk WHERE id >= ?1 AND id < ?2 LIMIT ?3)")?
        .execute(params![chunk_id(message, 0), chunk_id(message, ROWS_PER_MESSAGE), ROWS_AT_ONCE])?;
    if i64::try_from(rows).is_ok_and(|rows| rows < ROWS_AT_ONCE) {
        connection.prepare_cached("DELETE FROM message WHERE id = ?1")?.execute([message.0])?;
    }
    Ok(rows)
}

/// A stored message, read by one short query a row.
pub(super) struct StoredContent {
    pub(super) readers: Arc<Readers>,
    pub(super) message: MessageId,
}

impl StoredContent {
    /// Nothing, where the message ends at `offset`; else its octets are not there any more.
    fn end(&self, offset: u64) -> io::Result<Vec<u8>> {
        let message = self.message;
        let size = self.readers.with(|connection| {
            let mut statement = connection.prepare_cached("SELECT size FROM message WHERE id = ?1")?;
            Ok(statement.query_row([message.0], |row| row.get::<_, u64>(0)).optional()?)
        });
        match size.map_err(io::Error::other)? {
            Some(size) if size <= offset => Ok(Vec::new()),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "the message is no longer whole in the store")),
        }
    }
}

impl Content for StoredContent {
    fn read(&self, offset: u64) -> io::Result<Vec<u8>> {
        let row = offset / CHUNK_BYTES as u64;
        let id = chunk_id(self.message, i64::try_from(row).map_err(io::Error::other)?);
        let octets = self.readers.with(|connection| {
            let mut statement = connection.prepare_cached("SELECT octets FROM chunk WHERE id = ?1")?;
            Ok(statement.query_row([id], |row| row.get::<_, Vec<u8>>(0)).optional()?)
        });
        let Some(mut octets) = octets.map_err(io::Error::other)? else { return self.end(offset) };
        let within = usize::try_from(offset % CHUNK_BYTES as u64).map_err(io::Error::other)?;
        Ok(octets.split_off(within.min(octets.len())))
    }
}
