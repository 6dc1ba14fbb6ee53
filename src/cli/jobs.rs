//! `redeliver job` and `redeliver schedule`: what runs, when, and how it went.

use std::io::Write;

use serde_json::json;

use super::app::App;
use super::args::{Format, JobCommand, ScheduleCommand};
use super::exit::{Exit, Failure};
use super::json_lines;
use super::terminal;
use crate::config::Config;
use crate::jobs::Config as Job;
use crate::schedule::{self, Missed, Overlap};
use crate::store::Run;
use crate::text::rfc3339;
use crate::text::{Table, rfc3339_seconds};

pub(super) async fn run(app: &App, command: JobCommand, out: &mut impl Write) -> Result<Exit, Failure> {
    match command {
        JobCommand::List { format } => list(&app.config, format, out),
        JobCommand::Runs { job, limit, format } => {
            if let Some(job) = &job {
                app.job(job)?;
            }
            runs(&app.store.runs(job.as_deref(), limit).await?, format, out)
        }
    }
}

fn list(config: &Config, format: Format, out: &mut impl Write) -> Result<Exit, Failure> {
    let mut table = Table::new(&["JOB", "KIND", "LIMIT", "PROCESSOR", "REPOSITORY"]).whole();
    for (name, job) in &config.jobs {
        let repository = job.repository().map(ToString::to_string);
        let (processor, limit) = match job {
            Job::Reprocess(sweep) => (Some(sweep.processor.clone()), sweep.limit),
            _ => (None, None),
        };
        match format {
            Format::Json => json_lines::write(
                out,
                &json!({"job": name, "kind": job.kind(), "repository": repository, "processor": processor, "limit": limit}),
            )?,
            Format::Text => table.row(&[
                name.clone(),
                job.kind().to_owned(),
                limit.map_or("-".to_owned(), |limit| limit.to_string()),
                processor.unwrap_or_else(|| "-".to_owned()),
                repository.unwrap_or_else(|| "-".to_owned()),
            ]),
        }
    }
    if format == Format::Text {
        write!(out, "{}", table.block(terminal::width()))?;
    }
    Ok(Exit::Ok)
}

fn runs(runs: &[Run], format: Format, out: &mut impl Write) -> Result<Exit, Failure> {
    let mut table = Table::new(&[
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
    ]);
    for run in runs {
        let counts = &run.counts;
        match format {
            Format::Json => json_lines::write(
                out,
                &json!({
                    "run": run.id, "job": run.job, "trigger": run.trigger, "started": rfc3339(run.started),
                    "finished": run.finished.map(rfc3339), "selected": counts.selected, "delivered": counts.delivered,
                    "deferred": counts.deferred, "failed": counts.failed, "promoted": counts.promoted,
                    "errors": counts.errors, "failure": run.failure,
                }),
            )?,
            Format::Text => table.row(&[
                rfc3339(run.started),
                run.finished.map_or("going".to_owned(), rfc3339),
                run.job.clone(),
                run.trigger.clone(),
                counts.selected.to_string(),
                counts.delivered.to_string(),
                counts.deferred.to_string(),
                counts.failed.to_string(),
                counts.promoted.to_string(),
                counts.errors.to_string(),
                run.failure.clone().unwrap_or_else(|| "-".to_owned()),
            ]),
        }
    }
    if format == Format::Text {
        let text = if runs.is_empty() { "no runs\n".to_owned() } else { table.block(terminal::width()) };
        write!(out, "{text}")?;
    }
    Ok(Exit::Ok)
}

/// The next times of every schedule.
pub(super) fn schedules(
    config: &Config,
    command: &ScheduleCommand,
    now: chrono::DateTime<chrono::Utc>,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let ScheduleCommand::List { format } = *command;
    let mut table = Table::new(&["SCHEDULE", "JOB", "ENABLED", "CRON", "TIME ZONE", "NEXT"]).whole();
    for (name, schedule) in &config.schedules {
        let next: Vec<String> = upcoming(schedule, now).take(5).map(|time| rfc3339_seconds(&time, false)).collect();
        let overlap = match schedule.overlap {
            Overlap::Skip => "skip",
            Overlap::Queue => "queue",
        };
        let missed = match schedule.missed {
            Missed::RunOnce => "runOnce",
            Missed::Skip => "skip",
        };
        match format {
            Format::Json => json_lines::write(
                out,
                &json!({
                    "schedule": name, "job": schedule.job, "cron": schedule.cron.as_str(), "timezone": schedule.timezone.name(),
                    "enabled": schedule.enabled, "overlap": overlap, "missed": missed,
                    "next": next,
                }),
            )?,
            Format::Text => table.row(&[
                name.clone(),
                schedule.job.clone(),
                if schedule.enabled { "yes" } else { "no" }.to_owned(),
                schedule.cron.as_str().to_owned(),
                schedule.timezone.name().to_owned(),
                next.first().cloned().unwrap_or_else(|| "-".to_owned()),
            ]),
        }
    }
    if format == Format::Text {
        write!(out, "{}", table.block(terminal::width()))?;
    }
    Ok(Exit::Ok)
}

/// The ticks after `now`, in the schedule's own time zone.
fn upcoming(
    schedule: &schedule::Config,
    now: chrono::DateTime<chrono::Utc>,
) -> impl Iterator<Item = chrono::DateTime<chrono_tz::Tz>> {
    std::iter::successors(schedule.next_after(now), |last| schedule.next_after(*last))
        .map(|time| time.with_timezone(&schedule.timezone))
}
