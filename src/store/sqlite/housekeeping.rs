//! What is no longer needed goes, in short steps between which others may write.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::{Old, Result, Seq, Time};
use super::{filing, messages, rows};
use crate::mail::MessageId;

/// Free pages given back to the file system at once: 4 MiB.
const PAGES_AT_ONCE: i64 = 1024;

/// Free pages that are kept for the next mails.
const PAGES_KEPT: i64 = 2048;

/// The next old mails that nobody has in hand, with their places in the order.
pub(super) fn old_mails(connection: &Connection, old: &Old, batch: usize) -> Result<Vec<(i64, Seq)>> {
    let repository = rows::place_id(connection, &old.place)?;
    let mut statement = connection.prepare_cached(
        "SELECT id, seq FROM mail INDEXED BY mail_resting WHERE claimed = 0 AND repository = ?1 AND seq > ?2 \
         AND seq <= ?3 AND last_updated < ?4 ORDER BY seq LIMIT ?5",
    )?;
    let after = old.after.map_or(i64::MIN, |seq| seq.0);
    let batch = i64::try_from(batch).unwrap_or(i64::MAX);
    let values = params![repository, after, old.upto.0, old.before.timestamp_millis(), batch];
    let found = statement.query_map(values, |row| Ok((row.get(0)?, Seq(row.get(1)?))))?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

/// Removes those of `ids` that are still there, old and at rest; how many it was.
pub(super) fn purge(connection: &Connection, old: &Old, ids: &[i64], now: Time) -> Result<usize> {
    let repository = rows::place_id(connection, &old.place)?;
    let mut purged = 0;
    for &id in ids {
        let still = connection
            .prepare_cached(
                "SELECT key, recipients FROM mail WHERE id = ?1 AND claimed = 0 AND repository = ?2 AND last_updated < ?3",
            )?
            .query_row(params![id, repository, old.before.timestamp_millis()], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })
            .optional()?;
        if let Some((key, recipients)) = still {
            filing::take_out(connection, id, now)?;
            filing::note_action(connection, "purge", &old.place, &rows::key(&key)?, Some(&recipients), now)?;
            purged += 1;
        }
    }
    Ok(purged)
}

/// Tables whose rows came in the order of their times, and the column that says since when
/// a row is over.
const IN_ORDER: [(&str, &str); 3] = [("operation", "at"), ("run", "finished"), ("instance", "ended")];

/// Whether there is anything that [`purge_records`] would delete.
pub(super) fn any_expired(connection: &Connection, before: Time, batch: usize) -> Result<bool> {
    let before = before.timestamp_millis();
    if connection.prepare_cached("SELECT 1 FROM released WHERE at < ?1 LIMIT 1")?.exists([before])? {
        return Ok(true);
    }
    let batch = i64::try_from(batch).unwrap_or(i64::MAX);
    for (table, over) in IN_ORDER {
        let sql = format!("SELECT 1 FROM (SELECT {over} FROM {table} ORDER BY id LIMIT ?2) WHERE {over} < ?1");
        if connection.prepare_cached(&sql)?.exists([before, batch])? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Deletes the attempts of mails gone before `before`, and what else was over before it;
/// how many rows. Only the `batch` oldest rows are looked at, so that what goes on for
/// long holds up nothing and what is young is not read.
pub(super) fn purge_records(connection: &Connection, before: Time, batch: usize, now: Time) -> Result<usize> {
    let mut purged = purge_attempts(connection, before, batch, now)?;
    let batch = i64::try_from(batch).unwrap_or(i64::MAX);
    for (table, over) in IN_ORDER {
        let oldest = format!("SELECT id FROM {table} ORDER BY id LIMIT ?2");
        purged += connection
            .prepare_cached(&format!("DELETE FROM {table} WHERE {over} < ?1 AND id IN ({oldest})"))?
            .execute([before.timestamp_millis(), batch])?;
    }
    Ok(purged)
}

/// Where a mail split off from a gone one is still there, the attempts wait for it.
fn purge_attempts(connection: &Connection, before: Time, batch: usize, now: Time) -> Result<usize> {
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
        give_back_pages(connection)?;
        return Ok(true);
    }
    Ok(false)
}

/// The pragma gives back one page for each row that is asked of it.
fn give_back_pages(connection: &Connection) -> Result<()> {
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))?;
    let mut pages = statement.query([])?;
    while pages.next()?.is_some() {}
    Ok(())
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
