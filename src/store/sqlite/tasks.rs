//! Tasks on record.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::{Cursor, OperationId, Page, Result, Span, Task, Tasks};
use super::transaction::Transaction;
use super::{SqliteStore, rows};

#[async_trait]
impl Tasks for SqliteStore {
    async fn put_task(&self, task: &Task) -> Result<()> {
        let (task, instance) = (task.clone(), self.instance().await?);
        self.write(move |tx| put(tx, &task, instance)).await
    }

    async fn tasks(&self, span: &Span) -> Result<Page<Task>> {
        let span = span.clone();
        self.read(move |connection| page(connection, &span)).await
    }

    async fn task_sums(&self) -> Result<Vec<(String, u64)>> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT status, tasks FROM task_sum WHERE tasks > 0 ORDER BY status")?;
            let sums = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(sums.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    async fn task(&self, id: &str) -> Result<Option<Task>> {
        let id = id.to_owned();
        self.read(move |connection| one(connection, &id)).await
    }

    async fn cut_off_tasks(&self) -> Result<Vec<Task>> {
        self.reap_dead().await?;
        let instance = self.instance().await?;
        self.write(move |tx| cut_off(tx, instance)).await
    }
}

const COLUMNS: &str = "id, type, status, who, submitted, started, finished, operation, done, expected, parameters, \
     details";

/// Reads a row of [`COLUMNS`].
fn task(row: &Row<'_>) -> rusqlite::Result<Task> {
    Ok(Task {
        id: row.get(0)?,
        kind: row.get(1)?,
        status: row.get(2)?,
        who: row.get(3)?,
        submitted: rows::time(row.get(4)?),
        started: row.get::<_, Option<i64>>(5)?.map(rows::time),
        finished: row.get::<_, Option<i64>>(6)?.map(rows::time),
        operation: row.get::<_, Option<i64>>(7)?.map(OperationId),
        done: row.get(8)?,
        expected: row.get(9)?,
        parameters: row.get(10)?,
        details: row.get(11)?,
    })
}

const PAGE: &str = "FROM task WHERE (submitted, id) < (?1, ?2) ORDER BY submitted DESC, id DESC LIMIT ?3";

/// Cursors are the time and the id of a task.
fn page(connection: &Connection, span: &Span) -> Result<Page<Task>> {
    // Behind every time, and every id.
    let (time, id) = span.after.as_ref().map_or(Ok((i64::MAX, "")), |cursor| place_of(&cursor.0))?;
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} {PAGE}"))?;
    let limit = i64::try_from(span.limit.saturating_add(1)).unwrap_or(i64::MAX);
    let found = statement.query_map(params![time, id, limit], task)?;
    let mut items: Vec<Task> = found.collect::<rusqlite::Result<_>>()?;
    let there_are_more = items.len() > span.limit;
    items.truncate(span.limit);
    let last = items.last().filter(|_| there_are_more);
    let next = last.map(|task| Cursor(format!("{}-{}", task.submitted.timestamp_millis(), task.id)));
    Ok(Page { items, next, searched_to: None })
}

fn place_of(cursor: &str) -> Result<(i64, &str)> {
    let place = cursor.split_once('-').and_then(|(time, id)| Some((time.parse().ok()?, id)));
    place.ok_or_else(|| rows::not_ours(cursor))
}

/// Counts a task more, or less, of a status.
fn count(tx: &Transaction<'_>, status: &str, change: i64) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO task_sum (status, tasks) VALUES (?1, ?2) ON CONFLICT (status) DO UPDATE SET tasks = tasks + ?2",
    )?
    .execute(params![status, change])?;
    Ok(())
}

/// Deletes tasks that ended before `before`, of the `batch` oldest; how many.
pub(super) fn purge(tx: &Transaction<'_>, before: i64, batch: i64) -> Result<usize> {
    let sql = format!("DELETE FROM task WHERE id IN ({EXPIRED}) RETURNING status");
    let mut statement = tx.prepare_cached(&sql)?;
    let gone = statement.query_map([before, batch], |row| row.get::<_, String>(0))?;
    let gone = gone.collect::<rusqlite::Result<Vec<_>>>()?;
    gone.iter().try_for_each(|status| count(tx, status, -1))?;
    Ok(gone.len())
}

const EXPIRED: &str =
    "SELECT id FROM (SELECT id, finished FROM task ORDER BY submitted, id LIMIT ?2) WHERE finished < ?1";

/// Whether there is anything that [`purge`] would delete.
pub(super) fn any_expired(connection: &Connection, before: i64, batch: i64) -> Result<bool> {
    Ok(connection.prepare_cached(EXPIRED)?.exists([before, batch])?)
}

/// How SQLite answers the queries of a listing.
#[cfg(test)]
pub(super) fn plans(connection: &Connection) -> Result<Vec<(String, String)>> {
    let query = format!("SELECT {COLUMNS} {PAGE}");
    Ok(vec![(query.clone(), super::claim::plan(connection, &query)?)])
}

fn put(tx: &Transaction<'_>, task: &Task, instance: i64) -> Result<()> {
    let before: Option<String> = tx
        .prepare_cached("SELECT status FROM task WHERE id = ?1")?
        .query_row([&task.id], |row| row.get(0))
        .optional()?;
    if before.as_ref() != Some(&task.status) {
        before.map_or(Ok(()), |before| count(tx, &before, -1))?;
        count(tx, &task.status, 1)?;
    }
    tx.prepare_cached(
        "INSERT OR REPLACE INTO task (id, type, status, who, submitted, started, finished, operation, done, expected, \
         parameters, details, instance) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?
    .execute(params![
        task.id,
        task.kind,
        task.status,
        task.who,
        task.submitted.timestamp_millis(),
        task.started.map(|time| time.timestamp_millis()),
        task.finished.map(|time| time.timestamp_millis()),
        task.operation.map(|operation| operation.0),
        task.done,
        task.expected,
        task.parameters,
        task.details,
        instance,
    ])?;
    Ok(())
}

fn one(connection: &Connection, id: &str) -> Result<Option<Task>> {
    let sql = format!("SELECT {COLUMNS} FROM task WHERE id = ?1");
    Ok(connection.prepare_cached(&sql)?.query_row([id], task).optional()?)
}

/// Unfinished tasks of processes that are over; they are this one's from now on.
fn cut_off(tx: &Transaction<'_>, instance: i64) -> Result<Vec<Task>> {
    let sql = format!(
        "UPDATE task SET instance = ?1 WHERE finished IS NULL AND instance <> ?1 \
         AND instance NOT IN (SELECT id FROM instance WHERE ended IS NULL) RETURNING {COLUMNS}"
    );
    let mut statement = tx.prepare_cached(&sql)?;
    let tasks = statement.query_map([instance], task)?;
    let mut tasks = tasks.collect::<rusqlite::Result<Vec<_>>>()?;
    tasks.iter_mut().try_for_each(|task| count_done(tx, task))?;
    Ok(tasks)
}

/// A process tells of its tasks once a second: what was done since stands in the operations. Those
/// of a task that was cut off are among the latest.
fn count_done(tx: &Transaction<'_>, task: &mut Task) -> Result<()> {
    let (operation, done): (Option<i64>, Option<u64>) = tx
        .prepare_cached(
            "SELECT max(id), sum(done) FROM (SELECT id, done, task FROM operation ORDER BY id DESC LIMIT 10000) \
             WHERE task = ?1",
        )?
        .query_row([&task.id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    task.operation = operation.map(OperationId).or(task.operation);
    task.done = done.unwrap_or(task.done);
    Ok(())
}
