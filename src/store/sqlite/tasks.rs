//! Tasks on record.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::{OperationId, Result, Task, Tasks};
use super::transaction::Transaction;
use super::{SqliteStore, rows};

#[async_trait]
impl Tasks for SqliteStore {
    async fn put_task(&self, task: &Task) -> Result<()> {
        let (task, instance) = (task.clone(), self.instance().await?);
        self.write(move |tx| put(tx, &task, instance)).await
    }

    async fn tasks(&self, limit: usize) -> Result<Vec<Task>> {
        self.read(move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM task ORDER BY submitted DESC, id DESC LIMIT ?1");
            let mut statement = connection.prepare_cached(&sql)?;
            let tasks = statement.query_map(params![limit], task)?;
            Ok(tasks.collect::<rusqlite::Result<_>>()?)
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

fn put(tx: &Transaction<'_>, task: &Task, instance: i64) -> Result<()> {
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
    Ok(tasks.collect::<rusqlite::Result<_>>()?)
}
