//! What is no longer needed goes, in short steps between which others may write.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::TimeDelta;
use rusqlite::{Connection, OptionalExtension};

use super::super::{AttemptId, Destination, Result, Upkeep};
use super::transaction::Transaction;
use super::{SqliteStore, backup, filing, groups, history, instance, messages, records, tasks};
use crate::mail::{MessageId, RepositoryPath};

/// Free pages given back to the file system at once: 4 MiB.
const PAGES_AT_ONCE: i64 = 1024;

/// Free pages that are kept for the next mails.
const PAGES_KEPT: i64 = 2048;

#[async_trait]
impl Upkeep for SqliteStore {
    async fn ensure_repositories(&self, paths: &[RepositoryPath]) -> Result<()> {
        let paths = paths.to_vec();
        let missing = self.read(move |connection| filing::unknown(connection, &paths)).await?;
        if missing.is_empty() {
            return Ok(());
        }
        self.write(move |tx| missing.iter().try_for_each(|path| filing::ensure(tx, path).map(drop))).await
    }

    async fn purge_records(&self, older_than: Duration, batch: usize) -> Result<usize> {
        let age = TimeDelta::from_std(older_than).unwrap_or(TimeDelta::MAX);
        // Nothing can be older than the calendar.
        let now = self.now();
        let Some(before) = now.checked_sub_signed(age) else { return Ok(0) };
        let (now, before) = (now.timestamp_millis(), before.timestamp_millis());
        let batch = i64::try_from(batch).unwrap_or(i64::MAX);
        if !self.read(move |connection| any_expired(connection, now, before, batch)).await? {
            return Ok(0);
        }
        self.write_bulk(move |tx| purge_records(tx, before, batch)).await
    }

    async fn fold_history(&self, names_for: Duration, sums_for: Duration) -> Result<bool> {
        let now = self.now();
        let ago = |age: Duration| {
            let before = TimeDelta::from_std(age).ok().and_then(|age| now.checked_sub_signed(age));
            before.map_or(i64::MIN, |before| before.timestamp_millis())
        };
        let (now, names_before, before) = (now.timestamp_millis(), ago(names_for), ago(sums_for));
        let is_due = move |connection: &Connection| history::is_foldable(connection, now, names_before, before);
        if !self.read(is_due).await? {
            return Ok(false);
        }
        self.write_bulk(move |tx| history::fold(tx, names_before, before)).await?;
        Ok(true)
    }

    async fn tidy(&self) -> Result<bool> {
        if !self.read(untidy).await? {
            return Ok(false);
        }
        self.write_bulk(tidy).await
    }

    async fn backup(&self, to: &Destination) -> Result<()> {
        backup::write(self.path(), to).await
    }

    fn log_bytes(&self) -> Option<u64> {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        std::fs::metadata(log).ok().map(|log| log.len())
    }

    async fn ping(&self) -> Result<()> {
        self.liveness.check()?;
        // A row written as it is would be no change to SQLite, which then syncs nothing.
        self.write(|tx| tx.next_number().map(drop)).await
    }

    fn deadline(&self, by: Instant) {
        self.writer.deadline(by);
    }

    async fn close(&self) -> Result<()> {
        if let Some(own) = self.own_instance() {
            self.write(move |tx| instance::end_in_order(tx, own)).await?;
        }
        self.readers.clear();
        self.writer.stop().await;
        Ok(())
    }
}

/// Tables whose rows came in the order of their times, and the column that says since when
/// a row is over. Operations go once none of their mails is named any more.
const IN_ORDER: [(&str, &str); 3] = [("operation", "at"), ("run", "finished"), ("instance", "ended")];

/// Whether there is anything that [`purge_records`] would delete.
fn any_expired(connection: &Connection, now: i64, before: i64, batch: i64) -> Result<bool> {
    if connection.prepare_cached("SELECT 1 FROM released WHERE held = 0 AND at < ?1 LIMIT 1")?.exists([before])? {
        return Ok(true);
    }
    if groups::any_expired(connection, now, before)? || tasks::any_expired(connection, before, batch)? {
        return Ok(true);
    }
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
fn purge_records(tx: &Transaction<'_>, before: i64, batch: i64) -> Result<usize> {
    let mut purged = purge_attempts(tx, before, batch)? + groups::purge(tx, before, batch)?;
    purged += tasks::purge(tx, before, batch)?;
    purged += tx
        .prepare_cached(
            "DELETE FROM operation_mail WHERE (key, operation) IN (SELECT key, operation FROM operation \
             JOIN operation_mail ON operation = id WHERE at < ?1 ORDER BY id LIMIT ?2)",
        )?
        .execute([before, batch])?;
    for (table, over) in IN_ORDER {
        let oldest = format!("SELECT id FROM {table} ORDER BY id LIMIT ?2");
        let named = "AND NOT EXISTS (SELECT 1 FROM operation_mail WHERE operation = id)";
        let unless = if table == "operation" { named } else { "" };
        purged += tx
            .prepare_cached(&format!("DELETE FROM {table} WHERE {over} < ?1 AND id IN ({oldest}) {unless}"))?
            .execute([before, batch])?;
    }
    Ok(purged)
}

/// Where the record of a mail split off from a gone one is still kept, the attempts wait for it.
fn purge_attempts(tx: &Transaction<'_>, before: i64, batch: i64) -> Result<usize> {
    let mut statement =
        tx.prepare_cached("SELECT key FROM released WHERE held = 0 AND at < ?1 ORDER BY at LIMIT ?2")?;
    let keys = statement.query_map([before, batch], |row| row.get::<_, String>(0))?;
    let keys = keys.collect::<rusqlite::Result<Vec<_>>>()?;
    for key in &keys {
        let shared = tx.prepare_cached("SELECT 1 FROM lineage WHERE origin = ?1")?.exists([key])?;
        if shared {
            tx.prepare_cached("UPDATE released SET held = 1 WHERE key = ?1")?.execute([key])?;
        } else {
            delete_attempts(tx, key)?;
            tx.prepare_cached("DELETE FROM released WHERE key = ?1")?.execute([key])?;
            let_go_of_origin(tx, key)?;
        }
    }
    if !keys.is_empty() {
        // One entry is before the first attempt that is left, or the first of its ten seconds.
        tx.prepare_cached(
            "DELETE FROM attempt_time WHERE tens IN (SELECT tens FROM attempt_time \
             WHERE tens < (SELECT started / 10000 FROM attempt ORDER BY id LIMIT 1) ORDER BY tens LIMIT ?1)",
        )?
        .execute([batch])?;
    }
    Ok(keys.len())
}

/// Of what a mail was split off from nothing is kept any more on its account.
fn let_go_of_origin(tx: &Transaction<'_>, key: &str) -> Result<()> {
    let origin: Option<String> = tx
        .prepare_cached("DELETE FROM lineage WHERE key = ?1 RETURNING origin")?
        .query_row([key], |row| row.get(0))
        .optional()?;
    if let Some(origin) = origin {
        tx.prepare_cached("UPDATE released SET held = 0 WHERE key = ?1 AND held = 1")?.execute([origin])?;
    }
    Ok(())
}

/// With their recipients, whose numbers are of theirs.
fn delete_attempts(tx: &Transaction<'_>, key: &str) -> Result<()> {
    let mut statement = tx.prepare_cached("DELETE FROM attempt WHERE mail = ?1 RETURNING id")?;
    let attempts = statement.query_map([key], |row| row.get(0).map(AttemptId))?;
    for attempt in attempts.collect::<rusqlite::Result<Vec<_>>>()? {
        let ids = records::recipients_of(attempt);
        tx.prepare_cached("DELETE FROM attempt_recipient WHERE id BETWEEN ?1 AND ?2")?
            .execute([ids.start(), ids.end()])?;
    }
    Ok(())
}

/// Whether [`tidy`] has anything to do.
fn untidy(connection: &Connection) -> Result<bool> {
    Ok(ownerless(connection)?.is_some() || free_pages(connection)? > PAGES_KEPT)
}

/// One step: rows of a message that belongs to nobody, or free pages given back.
fn tidy(tx: &Transaction<'_>) -> Result<bool> {
    if let Some(message) = ownerless(tx)? {
        messages::delete_some(tx, message)?;
        return Ok(true);
    }
    if free_pages(tx)? > PAGES_KEPT {
        give_back_pages(tx)?;
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
