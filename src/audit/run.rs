//! A run of a job, and of commands that take mail or look at the configuration.

use std::time::Duration;

use serde_json::{Value, json};

use super::or_nothing;
use crate::store::{Counts, Run, Time};
use crate::text::rfc3339;

/// Of a listing of runs.
pub const RUN_COLUMNS: [&str; 11] = [
    "STARTED",
    "FINISHED",
    "JOB",
    "TRIGGER",
    "MAILS",
    "DELIVERED",
    "DEFERRED",
    "FAILED",
    "PROMOTED",
    "ERRORS",
    "CAUSE",
];

/// A run on record.
pub fn run_json(run: &Run) -> Value {
    let counts = &run.counts;
    json!({
        "run": run.id, "job": run.job, "trigger": run.trigger, "started": rfc3339(run.started),
        "finished": run.finished.map(rfc3339), "selected": counts.selected, "delivered": counts.delivered,
        "deferred": counts.deferred, "failed": counts.failed, "promoted": counts.promoted,
        "errors": counts.errors, "failure": run.failure,
    })
}

/// A run in [`RUN_COLUMNS`].
pub fn run_row(run: &Run) -> Vec<String> {
    let Counts { selected, delivered, deferred, failed, promoted, errors } = run.counts;
    let counts = [selected, delivered, deferred, failed, promoted, errors];
    let mut row = vec![
        rfc3339(run.started),
        run.finished.map_or("going".to_owned(), rfc3339),
        run.job.clone(),
        run.trigger.clone(),
    ];
    row.extend(counts.iter().map(u64::to_string));
    row.push(or_nothing(run.failure.as_ref()));
    row
}

/// What a run has to say when it ends.
pub fn result_json(job: &str, started: Time, finished: Time, counts: &Counts) -> Value {
    json!({
        "job": job,
        "started": rfc3339(started),
        "finished": rfc3339(finished),
        "selected": counts.selected,
        "delivered": counts.delivered,
        "deferred": counts.deferred,
        "failed": counts.failed,
        "promoted": counts.promoted,
        "errors": counts.errors,
    })
}

/// What an import has to say when it ends, in numbers of messages.
pub fn import_json(taken: u64, before: u64, refused: u64) -> Value {
    json!({"taken": taken, "before": before, "refused": refused})
}

/// How often a job tries a deferred mail, and over how many seconds; null without limit.
pub fn sweep_json(job: &str, attempts: Option<u32>, covers: Option<Duration>) -> Value {
    json!({"job": job, "attempts": attempts, "covers": covers.map(|covers| covers.as_secs())})
}

/// What a check of the configuration has to say where nothing is wrong; `time_zones` are the
/// rules in force.
pub fn check_json(sweeps: &[Value], warnings: &[String], time_zones: &str, dsn: &str) -> Value {
    json!({"sweeps": sweeps, "warnings": warnings, "timeZones": time_zones, "dsn": dsn})
}
