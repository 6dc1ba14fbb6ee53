//! Runs of jobs, and when schedules were last seen.

use rusqlite::{Connection, OptionalExtension, ToSql, params};

use super::super::{Counts, Result, Run, RunId, Seq, Time};
use super::instance::next_number;
use super::rows;

/// Begins a run. Its number in the sequence parts what was there from what comes later. A
/// process runs a job once at a time: an earlier run of it that is still going could not be
/// ended on record, and would keep its mails from this one.
pub(super) fn start(
    connection: &Connection,
    job: &str,
    trigger: &str,
    instance: i64,
    now: Time,
) -> Result<(RunId, Seq)> {
    let of_job = "instance = ?1 AND job = ?3 AND finished IS NULL";
    end_unnoted(connection, of_job, params![instance, now.timestamp_millis(), job, "its end could not be noted"])?;
    connection
        .prepare_cached("INSERT INTO run (job, cause, instance, started) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![job, trigger, instance, now.timestamp_millis()])?;
    Ok((RunId(connection.last_insert_rowid()), Seq(next_number(connection)?)))
}

/// Ends a run.
pub(super) fn finish(
    connection: &Connection,
    run: RunId,
    counts: Counts,
    failure: Option<&str>,
    now: Time,
) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE run SET finished = ?2, selected = ?3, delivered = ?4, deferred = ?5, failed = ?6, promoted = ?7, \
             errors = ?8, failure = ?9 WHERE id = ?1",
        )?
        .execute(params![
            run.0,
            now.timestamp_millis(),
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
pub(super) fn note_failed(
    connection: &Connection,
    job: &str,
    trigger: &str,
    (started, finished): (Time, Time),
    failure: &str,
) -> Result<()> {
    connection
        .prepare_cached("INSERT INTO run (job, cause, started, finished, failure) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![job, trigger, started.timestamp_millis(), finished.timestamp_millis(), failure])?;
    Ok(())
}

/// Ends the runs of a dead process.
pub(super) fn end_of_dead(connection: &Connection, instance: i64, now: Time) -> Result<()> {
    let of_process = "instance = ?1 AND ?3 IS NULL AND finished IS NULL";
    let nothing: Option<&str> = None;
    end_unnoted(connection, of_process, params![instance, now.timestamp_millis(), nothing, "its process died"])
}

/// Ends runs with what their attempts on record say: mails that were attempted, and the
/// outcomes of their recipients. What was taken and not begun is not counted. The parameters
/// are the instance, the time, the job and what is said of it.
fn end_unnoted(connection: &Connection, condition: &str, parameters: &[&dyn ToSql]) -> Result<()> {
    // By the time of their beginning, which has an index.
    let of_run = "FROM attempt WHERE attempt.run = run.id AND attempt.started >= run.started";
    let with = |outcome: &str| {
        format!(
            "{outcome} = (SELECT count(*) FROM attempt_recipient WHERE outcome = '{outcome}' \
             AND attempt IN (SELECT attempt.id {of_run}))"
        )
    };
    let sql = format!(
        "UPDATE run SET finished = ?2, failure = ?4, selected = (SELECT count(*) {of_run}), \
         {}, {}, {} WHERE {condition}",
        with("delivered"),
        with("deferred"),
        with("failed"),
    );
    connection.prepare_cached(&sql)?.execute(parameters)?;
    Ok(())
}

/// Up to where a job has told of failures.
pub(super) fn reported(connection: &Connection, job: &str) -> Result<Option<Seq>> {
    Ok(connection
        .prepare_cached("SELECT upto FROM reported WHERE job = ?1")?
        .query_row([job], |row| row.get(0).map(Seq))
        .optional()?)
}

/// Notes up to where a job has told of failures.
pub(super) fn note_reported(connection: &Connection, job: &str, upto: Seq) -> Result<()> {
    connection
        .prepare_cached("INSERT INTO reported (job, upto) VALUES (?1, ?2) ON CONFLICT (job) DO UPDATE SET upto = ?2")?
        .execute(params![job, upto.0])?;
    Ok(())
}

/// The latest runs, newest first.
pub(super) fn list(connection: &Connection, job: Option<&str>, limit: usize) -> Result<Vec<Run>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, job, cause, started, finished, selected, delivered, deferred, failed, promoted, errors, failure \
         FROM run WHERE ?1 IS NULL OR job = ?1 ORDER BY id DESC LIMIT ?2",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let runs = statement.query_map(params![job, limit], |row| {
        Ok(Run {
            id: RunId(row.get(0)?),
            job: row.get(1)?,
            trigger: row.get(2)?,
            started: rows::time(row.get(3)?),
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
    })?;
    Ok(runs.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn schedule_seen(connection: &Connection, schedule: &str) -> Result<Option<Time>> {
    Ok(connection
        .prepare_cached("SELECT seen FROM schedule_seen WHERE schedule = ?1")?
        .query_row([schedule], |row| row.get(0))
        .optional()?
        .map(rows::time))
}

pub(super) fn see_schedule(connection: &Connection, schedule: &str, now: Time) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO schedule_seen (schedule, seen) VALUES (?1, ?2) ON CONFLICT (schedule) DO UPDATE SET seen = ?2",
        )?
        .execute(params![schedule, now.timestamp_millis()])?;
    Ok(())
}
