//! Jobs, and when they run. What they are is known in the rooms above, which fill these in.

use serde::Serialize;

use super::{NOTHING, or_nothing};
use crate::store::Pause;
use crate::text::rfc3339;

/// Of a listing of jobs.
pub const JOB_COLUMNS: [&str; 5] = ["JOB", "KIND", "LIMIT", "PROCESSOR", "REPOSITORY"];

/// Of a listing of schedules.
pub const SCHEDULE_COLUMNS: [&str; 6] = ["SCHEDULE", "JOB", "ENABLED", "CRON", "TIME ZONE", "NEXT"];

/// A job; its JSON is that of `job list`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobView<'a> {
    /// Its name.
    pub job: &'a str,
    /// As it is written.
    pub kind: &'a str,
    /// The repository it works on.
    pub repository: Option<String>,
    /// The processor that mails enter.
    pub processor: Option<&'a str>,
    /// Mails of one run at most.
    pub limit: Option<u32>,
}

impl JobView<'_> {
    /// In [`JOB_COLUMNS`].
    pub fn row(&self) -> Vec<String> {
        vec![
            self.job.to_owned(),
            self.kind.to_owned(),
            or_nothing(self.limit),
            or_nothing(self.processor),
            or_nothing(self.repository.as_ref()),
        ]
    }
}

/// A schedule; its JSON is that of `schedule list`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScheduleView<'a> {
    /// Its name.
    pub schedule: &'a str,
    /// The job that it starts.
    pub job: &'a str,
    /// As it is written.
    pub cron: &'a str,
    /// An IANA name.
    pub timezone: &'a str,
    /// Whether it ticks at all.
    pub enabled: bool,
    /// As it is written.
    pub overlap: &'a str,
    /// As it is written.
    pub missed: &'a str,
    /// Why and how long its ticks pass.
    pub paused: Option<PauseView>,
    /// The next times, RFC 3339 with the offset of its time zone.
    pub next: Vec<String>,
}

/// A pause of a schedule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PauseView {
    /// Why, as it was given.
    pub reason: Option<String>,
    /// Until when; null until somebody resumes it.
    pub until: Option<String>,
    /// Who paused it.
    pub by: String,
    /// Since when.
    pub at: String,
}

impl From<&Pause> for PauseView {
    fn from(pause: &Pause) -> Self {
        let Pause { reason, until, by, at } = pause;
        Self { reason: reason.clone(), until: until.map(rfc3339), by: by.clone(), at: rfc3339(*at) }
    }
}

impl ScheduleView<'_> {
    /// In [`SCHEDULE_COLUMNS`].
    pub fn row(&self) -> Vec<String> {
        vec![
            self.schedule.to_owned(),
            self.job.to_owned(),
            match (&self.paused, self.enabled) {
                (_, false) => "no",
                (Some(_), true) => "paused",
                (None, true) => "yes",
            }
            .to_owned(),
            self.cron.to_owned(),
            self.timezone.to_owned(),
            self.next.first().cloned().unwrap_or_else(|| NOTHING.to_owned()),
        ]
    }
}
