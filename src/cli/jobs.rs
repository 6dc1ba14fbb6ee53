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
use crate::store::{Run, Time};
use crate::text::Table;

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

/// The next times of every schedule.
pub(super) fn schedules(
    config: &Config,
    command: &ScheduleCommand,
    now: Time,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let ScheduleCommand::List { format } = *command;
    let mut table = Table::new(&SCHEDULE_COLUMNS).whole();
    for (name, schedule) in &config.schedules {
        let view = schedule.view(name, now);
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
