//! What comes next for a mail that rests: by which job, and when.

use super::super::super::Shared;
use super::Known;
use crate::jobs::{Config, Reprocess};
use crate::store::{Place, Time};
use crate::text::age;

/// What is to come, a sentence for each job that takes it; empty where nobody does.
pub(super) fn outlook(shared: &Shared, known: &Known, now: Time) -> Vec<String> {
    let Some((Place::Repository(path), listed)) = &known.here else { return Vec::new() };
    let site = shared.site();
    let sweeps = site.jobs.iter().filter_map(|(name, job)| match job {
        Config::Reprocess(sweep) if sweep.repository == *path => Some((name, sweep)),
        _ => None,
    });
    let last = known.attempts.iter().rev().find(|attempt| attempt.counted).map(|attempt| attempt.started);
    let passes = listed.mail.passes();
    let sentences: Vec<_> = sweeps
        .map(|(name, sweep)| {
            let due = last.and_then(|last| due(sweep, last, passes));
            let next = next_tick(&site, name, due.unwrap_or(now).max(now));
            sentence(name, due, next, now)
        })
        .collect();
    if sentences.is_empty() {
        return vec!["No job takes it from here: it rests until somebody reprocesses, moves or removes it.".to_owned()];
    }
    sentences
}

fn due(sweep: &Reprocess, last: Time, passes: u32) -> Option<Time> {
    last.checked_add_signed(chrono::TimeDelta::from_std(sweep.due_after(passes)).ok()?)
}

/// When a schedule of that job ticks first, at or behind `from`.
fn next_tick(site: &super::super::super::Site, job: &str, from: Time) -> Option<Time> {
    let of_job = site.schedules.values().filter(|schedule| schedule.enabled && schedule.job == job);
    of_job.filter_map(|schedule| schedule.next_after(from)).min()
}

fn sentence(job: &str, due: Option<Time>, next: Option<Time>, now: Time) -> String {
    let at = |time: Time| format!("{} (in {})", time.format("%Y-%m-%d %H:%M:%S"), age(time - now));
    let due = match due {
        Some(due) if due > now => format!("It is due again at {}", at(due)),
        _ => "It is due now".to_owned(),
    };
    let taken = match next {
        Some(next) => format!("job {job} takes it at its next run, {}, unless somebody runs it before", at(next)),
        None => format!("job {job} takes it when somebody runs it: no schedule does"),
    };
    format!("{due}; {taken}.")
}
