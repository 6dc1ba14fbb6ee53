//! `redeliver job` and `redeliver schedule`: what runs, when, and how it went.

use std::io::Write;

use serde_json::json;

use super::app::App;
use super::args::{Format, JobCommand, ScheduleCommand};
use super::exit::{Exit, Failure};
use super::json_lines;
use super::terminal;
use crate::audit::{JOB_COLUMNS, RUN_COLUMNS, SCHEDULE_COLUMNS, run_json, run_row};
use crate::config::Config;
use crate::operations::Moment;
use crate::schedule::Pauses;
use crate::store::{Run, Span, Time};
use crate::text::{Table, rfc3339};

pub(super) async fn run(app: &App, command: JobCommand, out: &mut impl Write) -> Result<Exit, Failure> {
    match command {
        JobCommand::List { format } => list(&app.config, format, out),
        JobCommand::Runs { job, limit, format } => {
            if let Some(job) = &job {
                app.job(job)?;
            }
            runs(&app.store.runs(job.as_deref(), &Span::of(limit).newest_first()).await?.items, format, out)
        }
    }
}

fn list(config: &Config, format: Format, out: &mut impl Write) -> Result<Exit, Failure> {
    let mut table = Table::new(&JOB_COLUMNS).whole();
    for (name, job) in &config.jobs {
        let view = job.view(name);
        match format {
            Format::Json => json_lines::write(out, &json!(view))?,
            Format::Text => table.row(&view.row()),
        }
    }
    if format == Format::Text {
        write!(out, "{}", table.block(terminal::width()))?;
    }
    Ok(Exit::Ok)
}

fn runs(runs: &[Run], format: Format, out: &mut impl Write) -> Result<Exit, Failure> {
    let mut table = Table::new(&RUN_COLUMNS);
    for run in runs {
        match format {
            Format::Json => json_lines::write(out, &run_json(run))?,
            Format::Text => table.row(&run_row(run)),
        }
    }
    if format == Format::Text {
        let text = if runs.is_empty() { "no runs\n".to_owned() } else { table.block(terminal::width()) };
        write!(out, "{text}")?;
    }
    Ok(Exit::Ok)
}

/// Schedules: listed, paused, resumed.
pub(super) async fn schedules(app: &App, command: ScheduleCommand, out: &mut impl Write) -> Result<Exit, Failure> {
    match command {
        ScheduleCommand::List { format } => {
            let pauses = Pauses::new(app.store.paused().await?);
            return list_schedules(app, &pauses, format, out);
        }
        ScheduleCommand::Pause { name, reason, until } => {
            known_schedule(app, &name)?;
            let until = until.as_deref().map(|until| end_of_pause(until, app.clock.now())).transpose()?;
            app.operations().pause(&name, reason.as_deref(), until).await?;
            let end = until.map_or("until it is resumed".to_owned(), |until| format!("until {}", rfc3339(until)));
            writeln!(out, "schedule {name} is paused {end}")?;
        }
        ScheduleCommand::Resume { name } => {
            known_schedule(app, &name)?;
            let was_paused = app.operations().resume(&name).await?;
            writeln!(out, "schedule {name} {}", if was_paused { "goes on" } else { "was not paused" })?;
        }
    }
    Ok(Exit::Ok)
}

fn known_schedule(app: &App, name: &str) -> Result<(), Failure> {
    if app.config.schedules.contains_key(name) {
        return Ok(());
    }
    let known: Vec<_> = app.config.schedules.keys().map(String::as_str).collect();
    Err(Failure::new(Exit::Usage, format!("there is no schedule {name:?}; there are: {}", known.join(", "))))
}

fn end_of_pause(text: &str, now: Time) -> Result<Time, Failure> {
    let end = Moment::parse(text).and_then(|moment| moment.ahead(now));
    let why = || format!("--until {text:?} is no time: write 30m, 2h, 7d or 2026-11-28T17:00:00Z");
    end.ok_or_else(|| Failure::new(Exit::Usage, why()))
}

/// The next times of every schedule.
fn list_schedules(app: &App, pauses: &Pauses, format: Format, out: &mut impl Write) -> Result<Exit, Failure> {
    let mut table = Table::new(&SCHEDULE_COLUMNS).whole();
    let now = app.clock.now();
    for (name, schedule) in &app.config.schedules {
        let view = schedule.view(name, now, pauses.of(name, now));
        match format {
            Format::Json => json_lines::write(out, &json!(view))?,
            Format::Text => table.row(&view.row()),
        }
    }
    if format == Format::Text {
        write!(out, "{}", table.block(terminal::width()))?;
    }
    Ok(Exit::Ok)
}
