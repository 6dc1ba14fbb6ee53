//! Messages: written ahead in rows, owned by the mails they belong to, read a row at a time.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use super::super::{Error, Result};
use super::transaction::Transaction;
use crate::mail::{CHUNK_BYTES, MessageFacts, MessageId};

/// A message's rows have numbers below this: see the table `chunk`.
const ROWS_PER_MESSAGE: i64 = 1 << 20;

/// Rows of a message that are deleted in one transaction at most.
pub(super) const ROWS_AT_ONCE: i64 = 16;

pub(super) fn chunk_id(message: MessageId, number: i64) -> i64 {
    message.0 * ROWS_PER_MESSAGE + number
}

/// Writes a row of a message; makes the message for the first.
pub(super) fn write_chunk(
    tx: &Transaction<'_>,
    message: Option<MessageId>,
    number: u32,
    octets: &[u8],
    writer: i64,
) -> Result<MessageId> {
    let message = if let Some(message) = message {
        message
    } else {
        let message = MessageId(tx.next_number()?);
        tx.prepare_cached("INSERT INTO message (id, writer) VALUES (?1, ?2)")?.execute([message.0, writer])?;
        message
    };
    tx.prepare_cached("INSERT INTO chunk (id, octets) VALUES (?1, ?2)")?
        .execute(params![chunk_id(message, i64::from(number)), octets])?;
    Ok(message)
}

/// Stores a message that came whole, as its first mail's.
pub(super) fn store_whole(tx: &Transaction<'_>, octets: &[u8], facts: &MessageFacts) -> Result<MessageId> {
    let message = MessageId(tx.next_number()?);
    tx.prepare_cached(
        "INSERT INTO message (id, size, eight_bit_header, eight_bit_body, received, mails) \
         VALUES (?1, ?2, ?3, ?4, ?5, 1)",
    )?
    .execute(params![message.0, facts.size, facts.eight_bit_header, facts.eight_bit_body, facts.received])?;
    tx.prepare_cached("INSERT INTO chunk (id, octets) VALUES (?1, ?2)")?
        .execute(params![chunk_id(message, 0), octets])?;
    Ok(message)
}

/// Makes a message that was written ahead its first mail's.
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
/// be tidied away in steps. How many octets it has.
pub(super) fn let_go(connection: &Connection, message: MessageId) -> Result<u64> {
    let (mails, octets): (i64, u64) = connection
        .prepare_cached("SELECT mails, size FROM message WHERE id = ?1")?
        .query_row([message.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if mails > 1 || delete_first_rows(connection, message)? == ROWS_AT_ONCE {
        connection.prepare_cached("UPDATE message SET mails = mails - 1 WHERE id = ?1")?.execute([message.0])?;
    } else {
        connection.prepare_cached("DELETE FROM message WHERE id = ?1")?.execute([message.0])?;
    }
    Ok(octets)
}

/// Deletes the first rows of a message; as many as at once where there may be more.
fn delete_first_rows(connection: &Connection, message: MessageId) -> Result<i64> {
    let rows = connection
        .prepare_cached("DELETE FROM chunk WHERE id >= ?1 AND id < ?2")?
        .execute([chunk_id(message, 0), chunk_id(message, ROWS_AT_ONCE)])?;
    Ok(i64::try_from(rows).unwrap_or(ROWS_AT_ONCE))
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

/// A row of a message, where it is there.
pub(super) fn stored_row(connection: &Connection, message: MessageId, number: u32) -> Result<Option<Bytes>> {
    let octets = connection
        .prepare_cached("SELECT octets FROM chunk WHERE id = ?1")?
        .query_row([chunk_id(message, i64::from(number))], |row| row.get::<_, Vec<u8>>(0))
        .optional()?;
    Ok(octets.map(Bytes::from))
}

/// A row of a message; none behind its last.
pub(super) fn row(connection: &Connection, message: MessageId, number: u32) -> Result<Bytes> {
    if let Some(octets) = stored_row(connection, message, number)? {
        return Ok(octets);
    }
    let size = connection
        .prepare_cached("SELECT size FROM message WHERE id = ?1")?
        .query_row([message.0], |row| row.get::<_, u64>(0))
        .optional()?;
    let before = u64::from(number) * CHUNK_BYTES as u64;
    if size.is_some_and(|size| size <= before) { Ok(Bytes::new()) } else { Err(Error::NoContent) }
}
