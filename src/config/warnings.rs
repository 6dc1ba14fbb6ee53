//! What is allowed and yet worth a word.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::files::folders_within;
use super::{Config, Source};
use crate::delivery;
use crate::jobs::{self, Reprocess};
use crate::mail::RepositoryPath;
use crate::schedule;
use crate::yaml::format_duration;

/// A sender expects a relay to try longer (RFC 5321 section 4.5.4.1: at least 4 to 5 days).
const SHORT: Duration = Duration::from_hours(24);

/// Passes looked at one by one; more are reckoned from these.
const PASSES: u32 = 500;

/// How long a job goes on trying one mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweep {
    /// The job.
    pub job: String,
    /// Attempts of one mail, the first included; `None` without limit.
    pub attempts: Option<u32>,
    /// From the first attempt to the last.
    pub covers: Option<Duration>,
}

impl Config {
    /// Each reprocess job, and the time it covers by its spacing, schedules and limit.
    pub fn sweeps(&self) -> Vec<Sweep> {
        let jobs = self.jobs.iter().filter_map(|(name, job)| match job {
            jobs::Config::Reprocess(sweep) => Some((name, sweep)),
            _ => None,
        });
        jobs.map(|(name, sweep)| {
            let attempts = self.processors.attempts(&sweep.processor);
            let covers = attempts.map(|attempts| covered(attempts, sweep, &self.schedules_of(name)));
            Sweep { job: name.clone(), attempts, covers }
        })
        .collect()
    }

    /// How long a deferred mail is tried, the longest where jobs differ; `None` where no job
    /// does, or without end.
    pub fn tried_for(&self) -> Option<Duration> {
        let kept = self.processors.temporary_repositories();
        let sweeps = self.sweeps().into_iter();
        let of_kept = sweeps.filter(|sweep| self.jobs[&sweep.job].repository().is_some_and(|from| kept.contains(from)));
        of_kept.filter_map(|sweep| sweep.covers).max()
    }

    /// Sentences for the operator: each says what is so, and what to do about it.
    pub fn warnings(&self) -> Vec<String> {
        let mut found: Vec<_> = self.sweeps().iter().flat_map(|sweep| self.warnings_of(sweep)).collect();
        for (what, folder) in [("jobs", &self.jobs_directory), ("schedules", &self.schedules_directory)] {
            if self.source != Source::BuiltIn && !folder.exists() {
                found.push(format!("there is no folder {}: no {what} are configured", folder.display()));
            }
            let within = if self.source == Source::BuiltIn { Vec::new() } else { folders_within(folder) };
            found.extend(
                within
                    .iter()
                    .map(|folder| format!("{} is not read: {what} are files of the folder itself", folder.display())),
            );
        }
        for repository in self.processors.temporary_repositories().difference(&self.swept_by_schedule()) {
            found.push(format!(
                "what is deferred rests in {repository} until somebody takes it out, since no job with a schedule does: \
                 write a job of kind reprocess, and a schedule for it"
            ));
        }
        for counter in self.processors.changed_counters() {
            found.push(format!(
                "a mailet sets or removes {counter}, which limits the passes of a mail: that limit may never be reached"
            ));
        }
        found.extend(self.vain_limits.iter().cloned());
        for name in self.processors.stray_processors() {
            found.push(format!(
                "nothing leads to processor '{name}', and mail cannot be sent into it by hand since its end is open: \
                 let onSuccess lead to it, let its last rule be 'match: All', or take it out"
            ));
        }
        let stored_in = self.processors.repositories();
        for (name, job) in &self.jobs {
            if let Some(repository) = job.repository().filter(|repository| !stored_in.contains(repository)) {
                found.push(format!("job {name}: no rule stores anything in {repository}: is that its name?"));
            }
            if matches!(job, jobs::Config::Report { mailing: None, .. }) {
                found.push(format!("job {name}: the report is off: write an address into its list 'to'"));
            }
        }
        found.extend(self.admin.is_read_on_the_way().then(|| {
            let listen = self.admin.listen;
            format!("admin.listen {listen} is in clear: passwords and mail can be read on the way: set admin.tls, or listen on 127.0.0.1 behind a proxy")
        }));
        found.extend(self.warnings_of_names());
        found.extend(self.sendmail.warnings());
        found.extend(self.schedules.iter().filter_map(|(name, schedule)| warning_of_jitter(name, schedule)));
        for (name, schedule) in &self.schedules {
            found.extend(schedule.cron.doubts().iter().map(|doubt| format!("schedule {name}: {doubt}")));
        }
        if !self.processors.tells() {
            found.push(
                "senders are not told of failures, since no rule has mailet DSNBounce: read the permanent repository"
                    .to_owned(),
            );
        }
        found
    }

    /// Of our own name, of the gateways', and of the system's files about names.
    fn warnings_of_names(&self) -> Vec<String> {
        let deliveries = self.processors.deliveries();
        let mut names: Vec<(&str, &str)> = deliveries
            .iter()
            .map(|delivery| match &delivery.helo_name {
                Some(name) => (name.as_str(), "heloName of RemoteDelivery"),
                None => (self.hostname.as_str(), "hostname"),
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        let ours = names.into_iter().filter(|(name, _)| !delivery::is_full_name(name));
        let mut found: Vec<_> = ours
            .map(|(name, key)| {
                format!("the EHLO name {name:?} is no full name, and many peers refuse mail for that: set '{key}' to a name such as relay.example.org")
            })
            .collect();
        for delivery in deliveries {
            found.extend(delivery.gateways_that_are(&self.smtp.listen).map(|gateway| {
                format!("gateway {gateway:?} is this relay itself (smtp.listen): every mail waits; write the host that takes it")
            }));
            found.extend(delivery.gateways_without_full_name().map(|gateway| {
                format!("gateway {gateway:?}: its certificate must be for just this name under startTLS: verify: write its full name")
            }));
        }
        found.extend(delivery::resolver_warnings(&self.dns));
        found
    }

    fn warnings_of(&self, sweep: &Sweep) -> Vec<String> {
        let job = &sweep.job;
        let Some(jobs::Config::Reprocess(reprocess)) = self.jobs.get(job) else { return Vec::new() };
        let mut found = Vec::new();
        if self.processors.circles_without_limit(&reprocess.repository, &reprocess.processor) {
            found.push(format!(
                "job {job}: a mail comes back without an AtMost on its way and is tried for ever: match AtMost=N"
            ));
        }
        if self.schedules_of(job).is_empty() {
            found.push(format!("job {job}: no schedule starts it"));
        }
        if let Some(covers) = sweep.covers.filter(|covers| *covers < SHORT) {
            let shown = format_duration(Duration::from_secs(covers.as_secs() / 60 * 60));
            found.push(format!(
                "job {job}: a deferred mail is given up after {shown}; RFC 5321 asks for 4 to 5 days: raise AtMost or the spacing"
            ));
        }
        found
    }

    /// The repositories out of which a job delivers without anybody's doing.
    fn swept_by_schedule(&self) -> BTreeSet<RepositoryPath> {
        let sweeps = self.jobs.iter().filter(|(name, _)| !self.schedules_of(name).is_empty());
        let swept = sweeps.filter_map(|(_, job)| match job {
            jobs::Config::Reprocess(sweep) => Some(sweep.repository.clone()),
            _ => None,
        });
        swept.collect()
    }

    fn schedules_of(&self, job: &str) -> Vec<&schedule::Config> {
        self.schedules.values().filter(|schedule| schedule.enabled && schedule.job == job).collect()
    }
}

/// No tick starts later than half of the gap to the next.
fn warning_of_jitter(name: &str, schedule: &schedule::Config) -> Option<String> {
    if schedule.jitter.is_zero() {
        return None;
    }
    let bound = schedule.smallest_gap()? / 2;
    (schedule.jitter > bound).then(|| {
        let (written, bound) = (format_duration(schedule.jitter), format_duration(bound));
        format!("schedule {name}: of the jitter {written} only {bound} are used where ticks are close: no tick starts later than half the gap to the next")
    })
}

/// The time from the first of `attempts` to the last, each as soon as it is due and a
/// schedule ticks. Reckoned from a day without a change of clocks nearby.
fn covered(attempts: u32, sweep: &Reprocess, schedules: &[&schedule::Config]) -> Duration {
    let start = DateTime::<Utc>::UNIX_EPOCH;
    let looked_at = attempts.min(PASSES);
    let mut now = start;
    for attempt in 1..looked_at {
        let due = now + TimeDelta::from_std(sweep.due_after(attempt)).unwrap_or_default();
        let tick = |schedule: &&schedule::Config| schedule.next_after(due - TimeDelta::seconds(1));
        // Without a spacing a mail is due at once, but the tick that tried it is over.
        let tick = schedules.iter().filter_map(tick).filter(|tick| *tick > now).min();
        let next = || schedules.iter().filter_map(|schedule| schedule.next_after(now)).min();
        now = tick.or_else(next).unwrap_or(due);
    }
    let covers = (now - start).to_std().unwrap_or_default();
    if attempts > looked_at { covers / looked_at * attempts } else { covers }
}
