//! What is no longer needed goes, in short steps between which others may write.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::{Result, Time};
use super::messages;
use crate::mail::MessageId;

/// Free pages given back to the file system at once: 4 MiB.
const PAGES_AT_ONCE: i64 = 1024;

/// Free pages that are kept for the next mails.
const PAGES_KEPT: i64 = 2048;

/// Whether any mail was gone before `before`.
pub(super) fn any_released(connection: &Connection, before: Time) -> Result<bool> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM released WHERE at < ?1 LIMIT 1")?
        .exists([before.timestamp_millis()])?)
}

/// Deletes the attempts of mails gone before `before`, at most `batch` mails. Where a mail
/// split off from one of them is still there, they wait for it.
pub(super) fn purge_attempts(connection: &Connection, before: Time, batch: usize, now: Time) -> Result<usize> {
    let mut statement = connection.prepare_cached("SELECT key FROM released WHERE at < ?1 ORDER BY at LIMIT ?2")?;
    let batch = i64::try_from(batch).unwrap_or(i64::MAX);
    let keys = statement.query_map(params![before.timestamp_millis(), batch], |row| row.get::<_, String>(0))?;
    let keys = keys.collect::<rusqlite::Result<Vec<_>>>()?;
    for key in &keys {
        let shared = connection.prepare_cached("SELECT 1 FROM lineage WHERE key = ?1")?.exists([key])?;
        if shared {
            connection
                .prepare_cached("UPDATE released SET at = ?2 WHERE key = ?1")?
                .execute(params![key, now.timestamp_millis()])?;
        } else {
            connection.prepare_cached("DELETE FROM attempt WHERE mail = ?1")?.execute([key])?;
            connection.prepare_cached("DELETE FROM released WHERE key = ?1")?.execute([key])?;
        }
    }
    Ok(keys.len())
}

/// Whether [`tidy`] has anything to do.
pub(super) fn untidy(connection: &Connection) -> Result<bool> {
    Ok(ownerless(connection)?.is_some() || free_pages(connection)? > PAGES_KEPT)
}

/// One step: rows of a message that belongs to nobody, or free pages given back.
pub(super) fn tidy(connection: &Connection) -> Result<bool> {
    if let Some(message) = ownerless(connection)? {
        messages::delete_some(connection, message)?;
        return Ok(true);
    }
    if free_pages(connection)? > PAGES_KEPT {
        connection.execute_batch(&format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))?;
        return Ok(true);
    }
    Ok(false)
}

/// A message that no mail has and nobody is writing.
fn ownerless(connection: &Connection) -> Result<Option<MessageId>> {
    Ok(connection
        .prepare_cached("SELECT id FROM message WHERE mails = 0 AND writer IS NULL LIMIT 1")?
        .query_row([], |row| row.get(0).map(MessageId))
        .optional()?)
}

fn free_pages(connection: &Connection) -> Result<i64> {
    Ok(connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?)
}
