//! Runs of jobs, and the schedules that start them.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use super::super::{Counts, Horizon, Page, Pause, Result, Run, RunId, Runs, SERVICE, Span, Time};
use super::records::IN_ATTEMPT;
use super::transaction::Transaction;
use super::{SqliteStore, instance, pager, rows};

#[async_trait]
impl Runs for SqliteStore {
    async fn is_served(&self) -> Result<bool> {
        let liveness = self.liveness();
        self.read(move |connection| instance::is_any_alive(connection, &liveness, SERVICE)).await
    }

    async fn start_run(&self, job: &str, trigger: &str) -> Result<(RunId, Horizon)> {
        self.reap_dead().await?;
        let instance = self.instance().await?;
        let (job, trigger) = (job.to_owned(), trigger.to_owned());
        self.write(move |tx| start(tx, &job, &trigger, instance)).await
    }

    async fn finish_run(&self, run: RunId, counts: Counts, failure: Option<&str>) -> Result<()> {
        let failure = failure.map(str::to_owned);
        self.write(move |tx| finish(tx, run, counts, failure.as_deref())).await
    }

    async fn note_failed_run(&self, job: &str, trigger: &str, times: (Time, Time), failure: &str) -> Result<()> {
        let (job, trigger, failure) = (job.to_owned(), trigger.to_owned(), failure.to_owned());
        self.write(move |tx| note_failed(tx, &job, &trigger, times, &failure)).await
    }

    async fn runs(&self, job: Option<&str>, span: &Span) -> Result<Page<Run>> {
        let (job, span) = (job.map(str::to_owned), span.clone());
        self.read(move |connection| page(connection, job.as_deref(), &span)).await
    }

    async fn reported(&self, job: &str) -> Result<Option<Horizon>> {
        let job = job.to_owned();
        self.read(move |connection| reported(connection, &job)).await
    }

    async fn note_reported(&self, job: &str, upto: &Horizon) -> Result<()> {
        let (job, upto) = (job.to_owned(), rows::horizon(upto)?);
        self.write(move |tx| note_reported(tx, &job, upto)).await
    }

    async fn schedule_seen(&self, schedule: &str) -> Result<Option<Time>> {
        let schedule = schedule.to_owned();
        self.read(move |connection| schedule_seen(connection, &schedule)).await
    }

    async fn see_schedule(&self, schedule: &str, seen: Time) -> Result<()> {
        let schedule = schedule.to_owned();
        self.write(move |tx| see_schedule(tx, &schedule, seen)).await
    }

    async fn pause(&self, schedule: &str, reason: Option<&str>, until: Option<Time>, by: &str) -> Result<()> {
        let (schedule, reason, by) = (schedule.to_owned(), reason.map(str::to_owned), by.to_owned());
        let until = until.map(|until| until.timestamp_millis());
        self.write(move |tx| {
            tx.prepare_cached(
                "INSERT OR REPLACE INTO schedule_pause (schedule, reason, until, by, at) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![schedule, reason, until, by, tx.millis()])?;
            Ok(())
        })
        .await
    }

    async fn resume(&self, schedule: &str) -> Result<bool> {
        let schedule = schedule.to_owned();
        self.write(move |tx| {
            // One whose end has come is none.
            let ended = tx
                .prepare_cached("DELETE FROM schedule_pause WHERE schedule = ?1 RETURNING until IS NULL OR until > ?2")?
                .query_row(params![schedule, tx.millis()], |row| row.get(0))
                .optional()?;
            Ok(ended.unwrap_or(false))
        })
        .await
    }

    async fn paused(&self) -> Result<Vec<(String, Pause)>> {
        let now = self.now().timestamp_millis();
        self.read(move |connection| paused(connection, now)).await
    }
}

/// Begins a run. Its number in the sequence parts what was there from what comes later. A
/// process runs a job once at a time: an earlier run of it that is still going could not be
/// ended on record, and would keep its mails from this one.
fn start(tx: &Transaction<'_>, job: &str, trigger: &str, instance: i64) -> Result<(RunId, Horizon)> {
    let of_job = "instance = ?1 AND job = ?3 AND finished IS NULL";
    end_unnoted(tx, of_job, params![instance, tx.millis(), job, "its end could not be noted"])?;
    tx.prepare_cached("INSERT INTO run (job, cause, instance, started) VALUES (?1, ?2, ?3, ?4)")?.execute(params![
        job,
        trigger,
        instance,
        tx.millis()
    ])?;
    Ok((RunId(tx.last_insert_rowid()), rows::new_horizon(tx.next_number()?)))
}

/// Ends a run.
fn finish(tx: &Transaction<'_>, run: RunId, counts: Counts, failure: Option<&str>) -> Result<()> {
    tx.prepare_cached(
        "UPDATE run SET finished = ?2, selected = ?3, delivered = ?4, deferred = ?5, failed = ?6, promoted = ?7, \
         errors = ?8, failure = ?9 WHERE id = ?1",
    )?
    .execute(params![
        run.0,
        tx.millis(),
        counts.selected,
        counts.delivered,
        counts.deferred,
        counts.failed,
        counts.promoted,
        counts.errors,
        failure,
    ])?;
    Ok(())
}

/// Notes a run that is over; its times are those of its beginning and end.
fn note_failed(
    tx: &Transaction<'_>,
    job: &str,
    trigger: &str,
    (started, finished): (Time, Time),
    failure: &str,
) -> Result<()> {
    tx.prepare_cached("INSERT INTO run (job, cause, started, finished, failure) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![job, trigger, started.timestamp_millis(), finished.timestamp_millis(), failure])?;
    Ok(())
}

/// Ends the runs of a dead process.
pub(super) fn end_of_dead(tx: &Transaction<'_>, instance: i64) -> Result<()> {
    let of_process = "instance = ?1 AND ?3 IS NULL AND finished IS NULL";
    let nothing: Option<&str> = None;
    end_unnoted(tx, of_process, params![instance, tx.millis(), nothing, "its process died"])
}

/// Ends runs with what their attempts on record say: mails that were attempted, and the
/// outcomes of their recipients. What was taken and not begun is not counted. The parameters
/// are the instance, the time, the job and what is said of it.
fn end_unnoted(connection: &Connection, condition: &str, parameters: &[&dyn ToSql]) -> Result<()> {
    // Not those before the first of its time.
    let of_run = "attempt.run = run.id AND attempt.id >= \
         (SELECT min(first) FROM attempt_time WHERE tens >= run.started / 10000)";
    let with = |outcome: &str| {
        format!(
            "{outcome} = (SELECT count(attempt_recipient.id) FROM attempt CROSS JOIN attempt_recipient \
             ON {IN_ATTEMPT} AND outcome = '{outcome}' WHERE {of_run})"
        )
    };
    let sql = format!(
        "UPDATE run SET finished = ?2, failure = ?4, selected = (SELECT count(*) FROM attempt WHERE {of_run}), \
         {}, {}, {} WHERE {condition}",
        with("delivered"),
        with("deferred"),
        with("failed"),
    );
    connection.prepare_cached(&sql)?.execute(parameters)?;
    Ok(())
}

/// Up to where a job has told of failures.
fn reported(connection: &Connection, job: &str) -> Result<Option<Horizon>> {
    Ok(connection
        .prepare_cached("SELECT upto FROM reported WHERE job = ?1")?
        .query_row([job], |row| row.get(0).map(rows::new_horizon))
        .optional()?)
}

/// Notes up to where a job has told of failures.
fn note_reported(tx: &Transaction<'_>, job: &str, upto: i64) -> Result<()> {
    tx.prepare_cached("INSERT INTO reported (job, upto) VALUES (?1, ?2) ON CONFLICT (job) DO UPDATE SET upto = ?2")?
        .execute(params![job, upto])?;
    Ok(())
}

const COLUMNS: &str =
    "id, started, job, cause, finished, selected, delivered, deferred, failed, promoted, errors, failure";

pub(super) const OF_JOB: (&str, &str) = ("run INDEXED BY run_job", "job = ?2");

/// A page of the runs of one job, or of all.
fn page(connection: &Connection, job: Option<&str>, span: &Span) -> Result<Page<Run>> {
    // By the index of its job, so that one that ran long ago is not looked for among all.
    let (from, condition) = if job.is_some() { OF_JOB } else { ("run", "?2 IS NULL") };
    let select = format!("SELECT {COLUMNS} FROM {from}");
    pager::numbered(connection, (&select, condition), &job, span, run)
}

fn run(row: &Row<'_>) -> rusqlite::Result<Run> {
    Ok(Run {
        id: RunId(row.get(0)?),
        started: rows::time(row.get(1)?),
        job: row.get(2)?,
        trigger: row.get(3)?,
        finished: row.get::<_, Option<i64>>(4)?.map(rows::time),
        counts: Counts {
            selected: row.get(5)?,
            delivered: row.get(6)?,
            deferred: row.get(7)?,
            failed: row.get(8)?,
            promoted: row.get(9)?,
            errors: row.get(10)?,
        },
        failure: row.get(11)?,
    })
}

fn schedule_seen(connection: &Connection, schedule: &str) -> Result<Option<Time>> {
    Ok(connection
        .prepare_cached("SELECT seen FROM schedule_seen WHERE schedule = ?1")?
        .query_row([schedule], |row| row.get(0))
        .optional()?
        .map(rows::time))
}

fn see_schedule(tx: &Transaction<'_>, schedule: &str, seen: Time) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO schedule_seen (schedule, seen) VALUES (?1, ?2) ON CONFLICT (schedule) DO UPDATE SET seen = ?2",
    )?
    .execute(params![schedule, seen.timestamp_millis()])?;
    Ok(())
}

fn paused(connection: &Connection, now: i64) -> Result<Vec<(String, Pause)>> {
    let mut statement = connection.prepare_cached(
        "SELECT schedule, reason, until, by, at FROM schedule_pause WHERE until IS NULL OR until > ?1 ORDER BY schedule",
    )?;
    let paused = statement.query_map([now], |row| {
        let pause = Pause {
            reason: row.get(1)?,
            until: row.get::<_, Option<i64>>(2)?.map(rows::time),
            by: row.get(3)?,
            at: rows::time(row.get(4)?),
        };
        Ok((row.get(0)?, pause))
    })?;
    Ok(paused.collect::<rusqlite::Result<_>>()?)
}
