//! What comes next for a mail that rests: by which job, and when.

use super::super::super::error::Refusal;
use super::super::super::{Shared, Site};
use super::Known;
use crate::jobs::{Config, Reprocess};
use crate::schedule::Pauses;
use crate::store::{Place, Time};
use crate::text::age;

/// What is to come, a sentence for each job that takes it; empty where nobody does.
pub(super) async fn outlook(shared: &Shared, known: &Known, now: Time) -> Result<Vec<String>, Refusal> {
    let Some((Place::Repository(path), listed)) = &known.here else { return Ok(Vec::new()) };
    let site = shared.site();
    let sweeps = site.jobs.iter().filter_map(|(name, job)| match job {
        Config::Reprocess(sweep) if sweep.repository == *path => Some((name, sweep)),
        _ => None,
    });
    let pauses = Pauses::new(shared.context.store.paused().await?);
    let sentences: Vec<_> = sweeps
        .map(|(name, sweep)| {
            let due = listed.attempted.and_then(|(attempts, last)| due(sweep, last, attempts));
            let next = next_tick(&site, name, due.unwrap_or(now).max(now), (&pauses, now));
            sentence(name, due, &next, now)
        })
        .collect();
    if sentences.is_empty() {
        let nobody = "No job takes it from here: it rests until somebody reprocesses, moves or removes it.";
        return Ok(vec![nobody.to_owned()]);
    }
    Ok(sentences)
}

fn due(sweep: &Reprocess, last: Time, attempts: u32) -> Option<Time> {
    last.checked_add_signed(chrono::TimeDelta::from_std(sweep.due_after(attempts)).ok()?)
}

/// When a job runs next.
enum Next {
    At(Time),
    /// Once somebody resumes this schedule.
    Paused(String),
    Never,
}

/// When a schedule of that job ticks first, at or behind `from`.
fn next_tick(site: &Site, job: &str, from: Time, (pauses, now): (&Pauses, Time)) -> Next {
    let (mut first, mut held) = (None, None);
    for (name, schedule) in site.schedules.iter().filter(|(_, one)| one.enabled && one.job == job) {
        let from = match pauses.of(name, now).map(|pause| pause.until) {
            Some(None) => {
                held = Some(name);
                continue;
            }
            Some(Some(until)) => from.max(until),
            None => from,
        };
        let next = schedule.next_after(from);
        first = first.into_iter().chain(next).min();
    }
    match (first, held) {
        (Some(first), _) => Next::At(first),
        (None, Some(name)) => Next::Paused(name.clone()),
        (None, None) => Next::Never,
    }
}

fn sentence(job: &str, due: Option<Time>, next: &Next, now: Time) -> String {
    let at = |time: Time| format!("{} (in {})", time.format("%Y-%m-%d %H:%M:%S"), age(time - now));
    let due = match due {
        Some(due) if due > now => format!("It is due again at {}", at(due)),
        _ => "It is due now".to_owned(),
    };
    let taken = match next {
        Next::At(next) => format!("job {job} takes it at its next run, {}, unless somebody runs it before", at(*next)),
        Next::Paused(name) => format!("job {job} takes it when somebody runs it: schedule {name} is paused"),
        Next::Never => format!("job {job} takes it when somebody runs it: no schedule does"),
    };
    format!("{due}; {taken}.")
}
