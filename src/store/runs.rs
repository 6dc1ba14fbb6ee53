//! Runs of jobs, and the schedules that start them.

use async_trait::async_trait;
use serde::Serialize;

use super::{Horizon, Page, Result, Span, Time};

/// A run's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct RunId(pub(super) i64);

impl std::fmt::Display for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A run's result so far: recipients, except `selected` and `promoted` (mails).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Mails taken.
    pub selected: u64,
    /// Recipients delivered.
    pub delivered: u64,
    /// Recipients kept for a next pass.
    pub deferred: u64,
    /// Recipients failed for good.
    pub failed: u64,
    /// Mails that became permanent by the limit.
    pub promoted: u64,
    /// Recipients in an error repository, or left by trouble of our own.
    pub errors: u64,
}

/// A run of a job, going or ended.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its number.
    pub id: RunId,
    /// The job.
    pub job: String,
    /// What started it: `command`, `schedule`, `http`, `start`.
    pub trigger: String,
    /// When it began.
    pub started: Time,
    /// When it ended; `None` while it is going.
    pub finished: Option<Time>,
    /// What it did.
    pub counts: Counts,
    /// Why it failed, where it did.
    pub failure: Option<String>,
}

/// Why and how long a schedule's ticks pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Why, as it was given.
    pub reason: Option<String>,
    /// Until when; `None` until somebody resumes it.
    pub until: Option<Time>,
    /// Who paused it.
    pub by: String,
    /// Since when.
    pub at: Time,
}

/// The kind of process that is a service.
pub const SERVICE: &str = "serve";

/// Runs and schedules.
#[async_trait]
pub trait Runs: Send + Sync {
    /// Whether a service has the store open, which takes up what comes into the spool.
    async fn is_served(&self) -> Result<bool>;

    /// Begins a run; it takes only what had come to rest by the returned horizon.
    async fn start_run(&self, job: &str, trigger: &str) -> Result<(RunId, Horizon)>;

    /// Ends a run.
    async fn finish_run(&self, run: RunId, counts: Counts, failure: Option<&str>) -> Result<()>;

    /// Notes a run that is over and could not be begun on record, for this reason; its times
    /// are those of its beginning and end.
    async fn note_failed_run(&self, job: &str, trigger: &str, times: (Time, Time), failure: &str) -> Result<()>;

    /// A page of the runs of one job, or of all.
    async fn runs(&self, job: Option<&str>, span: &Span) -> Result<Page<Run>>;

    /// Up to where a job of kind report has told of failures.
    async fn reported(&self, job: &str) -> Result<Option<Horizon>>;

    /// Notes up to where a job of kind report has told of failures.
    async fn note_reported(&self, job: &str, upto: &Horizon) -> Result<()>;

    /// Up to when a service has seen to a schedule.
    async fn schedule_seen(&self, schedule: &str) -> Result<Option<Time>>;

    /// Notes that a service has seen to a schedule up to `seen`.
    async fn see_schedule(&self, schedule: &str, seen: Time) -> Result<()>;

    /// Lets a schedule's ticks pass; a pause that there is already is replaced.
    async fn pause(&self, schedule: &str, reason: Option<&str>, until: Option<Time>, by: &str) -> Result<()>;

    /// Ends a pause; whether there was one.
    async fn resume(&self, schedule: &str) -> Result<bool>;

    /// The schedules that are paused now, by name: one whose end has come is not.
    async fn paused(&self) -> Result<Vec<(String, Pause)>>;
}
