//! Starts jobs by their schedules.
//!
//! Woken every second, it asks the timetable what is due and the flights whether it may
//! start. Runs are tasks of their own; a panic in one is its failure and nobody else's.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::{Id, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::waker::Waker;
use super::{Current, Service, housekeeping};
use crate::admin::{JobRun, RunJobs};
use crate::health::Status;
use crate::jobs::{self, Order, Progress, Runner, Swept};
use crate::schedule::{Asked, Moment, Overlap, Pauses, Timetable};
use crate::stop::{Cancellation, Stop};
use crate::store::{self, Time};

/// How often it is noted that the schedules were seen to.
const NOTE_EVERY: Duration = Duration::from_mins(1);

/// Runs until a stop, and returns when no run goes on any more.
pub(super) async fn run(service: Arc<Service>, waker: Waker) {
    let mut scheduler = Scheduler::new(service);
    scheduler.owed_runs().await;
    scheduler.note();
    while !scheduler.service.is_stopping() {
        scheduler.round().await;
        let stop = scheduler.service.stop.gentle.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            Some(ended) = scheduler.runs.join_next_with_id() => scheduler.ended(ended),
            () = waker.next() => {}
        }
    }
    while let Some(ended) = scheduler.runs.join_next_with_id().await {
        scheduler.ended(ended);
    }
    scheduler.note_at_the_end().await;
}

struct Scheduler {
    service: Arc<Service>,
    /// The configuration that the timetable has.
    current: Arc<Current>,
    timetable: Timetable,
    runs: JoinSet<Option<String>>,
    /// The job of each run.
    jobs: BTreeMap<Id, String>,
    /// Why the last run of a job failed.
    failures: BTreeMap<String, String>,
    started: Instant,
    noted: Instant,
    noting: Option<JoinHandle<()>>,
    /// What the store said last of pauses, and the question that is under way.
    pauses: Pauses,
    asking: Option<JoinHandle<Option<Pauses>>>,
}

impl Scheduler {
    fn new(service: Arc<Service>) -> Self {
        let (current, now) = (service.current(), service.clock.instant());
        let mut scheduler = Self {
            service,
            timetable: Timetable::default(),
            runs: JoinSet::new(),
            jobs: BTreeMap::new(),
            failures: BTreeMap::new(),
            started: now,
            noted: now,
            noting: None,
            pauses: Pauses::default(),
            asking: None,
            current,
        };
        scheduler.timetable.set(&scheduler.current.config.schedules, scheduler.now());
        scheduler
    }

    fn now(&self) -> Moment {
        let clock = &self.service.clock;
        Moment { wall: clock.now(), elapsed: clock.instant().saturating_duration_since(self.started) }
    }

    /// One run of each job that a tick was missed of while nobody served.
    async fn owed_runs(&mut self) {
        self.pauses = look_up_pauses(&self.service).await.unwrap_or_default();
        let current = Arc::clone(&self.current);
        for (name, schedule) in &current.config.schedules {
            let now = self.service.clock.now();
            if self.pauses.of(name, now).is_some() {
                continue;
            }
            match self.service.store.schedule_seen(name).await {
                Ok(seen) if schedule.owes_a_run(seen, now) => {
                    self.service.metrics.missed(name, 1);
                    self.ask(name, &schedule.job, schedule.overlap, "start");
                }
                Ok(_) => {}
                Err(error) => warn!(schedule = name, %error, "it is not known whether a tick was missed"),
            }
        }
    }

    /// What every second brings.
    async fn round(&mut self) {
        self.take_over_reload();
        self.ask_for_pauses().await;
        let now = self.now();
        let due = self.timetable.due(now, &mut rand::random::<f64>);
        for start in &due {
            // Ticks of a paused schedule pass.
            if self.pauses.of(&start.schedule, now.wall).is_some() {
                continue;
            }
            let overlap = self.current.config.schedules.get(&start.schedule).map_or(Overlap::Skip, |s| s.overlap);
            self.ask(&start.schedule, &start.job, overlap, "schedule");
        }
        if !due.is_empty() || self.noted.elapsed() >= NOTE_EVERY {
            self.note();
        }
        self.service.health.schedules.beat(self.service.clock.instant());
    }

    /// Learns what the store says of pauses, in the background as well: it was asked a second
    /// ago, and is asked again.
    async fn ask_for_pauses(&mut self) {
        if self.asking.as_ref().is_some_and(|asking| !asking.is_finished()) {
            return;
        }
        if let Some(asking) = self.asking.take()
            && let Ok(Some(pauses)) = asking.await
        {
            self.pauses = pauses;
            self.say_how_it_is();
        }
        let service = Arc::clone(&self.service);
        self.asking = Some(tokio::spawn(async move { look_up_pauses(&service).await }));
    }

    fn take_over_reload(&mut self) {
        let current = self.service.current();
        if !Arc::ptr_eq(&current, &self.current) {
            self.timetable.set(&current.config.schedules, self.now());
            self.failures.retain(|job, _| current.config.jobs.contains_key(job));
            self.current = current;
            self.say_how_it_is();
        }
    }

    fn ask(&mut self, schedule: &str, job: &str, overlap: Overlap, trigger: &'static str) {
        let asked = self.service.flights().ask(job, schedule, overlap);
        match asked {
            Asked::Start => self.start(schedule, job, trigger),
            Asked::Queued => info!(schedule, job, "the job still runs: one more run follows"),
            Asked::Skipped => {
                self.service.metrics.missed(schedule, 1);
                info!(schedule, job, "the job still runs: this tick is skipped");
            }
        }
    }

    fn start(&mut self, schedule: &str, job: &str, trigger: &'static str) {
        info!(schedule, job, trigger, "the job starts");
        let (service, name) = (Arc::clone(&self.service), job.to_owned());
        let run = self.runs.spawn(async move { one_run(&service, &name, trigger).await });
        self.jobs.insert(run.id(), job.to_owned());
    }

    fn ended(&mut self, ended: Result<(Id, Option<String>), tokio::task::JoinError>) {
        let (id, failure) = match ended {
            Ok((id, failure)) => (id, failure),
            Err(panic) => (panic.id(), Some(format!("it panicked, a fault of redeliver: {panic}"))),
        };
        let Some(job) = self.jobs.remove(&id) else { return };
        self.judge(&job, failure);
        let again = self.service.flights().ended(&job);
        if let Some(schedule) = again {
            if self.service.is_stopping() {
                return;
            }
            self.start(&schedule, &job, "schedule");
        }
    }

    fn judge(&mut self, job: &str, failure: Option<String>) {
        let Some(failure) = failure else {
            self.failures.remove(job);
            return self.say_how_it_is();
        };
        // One that a reload took away would never be well again.
        if self.current.config.jobs.contains_key(job) {
            self.failures.insert(job.to_owned(), failure.clone());
        }
        // Who reads the log and then asks for health is to find it there.
        self.say_how_it_is();
        error!(job, failure, "the run failed");
    }

    fn say_how_it_is(&self) {
        let health = &self.service.health.schedules;
        let mut trouble: Vec<_> =
            self.failures.iter().map(|(job, failure)| format!("the last run of {job} failed: {failure}")).collect();
        let schedules = &self.current.config.schedules;
        trouble.extend(self.pauses.forgotten(|name| schedules.contains_key(name), self.service.clock.now()));
        if trouble.is_empty() {
            health.well();
        } else {
            health.unwell(Status::Degraded, trouble.join("; "));
        }
    }

    /// Has it noted, in the background, up to when the schedules were seen to. A store
    /// that answers slowly does not hold up the next tick.
    fn note(&mut self) {
        if self.noting.as_ref().is_some_and(|noting| !noting.is_finished()) {
            return;
        }
        self.noted = self.service.clock.instant();
        let (service, seen) = (Arc::clone(&self.service), self.seen());
        self.noting = Some(tokio::spawn(async move { write_down(&service, seen).await }));
    }

    async fn note_at_the_end(&mut self) {
        if let Some(noting) = self.noting.take() {
            // It logs its own trouble.
            let _ = noting.await;
        }
        write_down(&self.service, self.seen()).await;
    }

    fn seen(&self) -> Vec<(String, Time)> {
        let now = self.service.clock.now();
        self.timetable.seen(now).map(|(name, seen)| (name.to_owned(), seen)).collect()
    }
}

/// `None` where the store cannot say.
async fn look_up_pauses(service: &Service) -> Option<Pauses> {
    match service.store.paused().await {
        Ok(pauses) => Some(Pauses::new(pauses)),
        Err(error) => {
            debug!(%error, "it is not known which schedules are paused");
            None
        }
    }
}

async fn write_down(service: &Service, seen: Vec<(String, Time)>) {
    for (schedule, seen) in seen {
        if let Err(error) = service.store.see_schedule(&schedule, seen).await {
            warn!(schedule, %error, "it cannot be noted that the schedule was seen to");
            return;
        }
    }
}

/// A run of a job, and what belongs to the end of each.
async fn carry_out(
    service: &Service,
    current: &Current,
    order: Order<'_>,
    config: &jobs::Config,
    stop: &Stop,
    cancellation: Cancellation,
) -> Result<Swept, store::Error> {
    let progress = Progress::default();
    let runner = Runner {
        store: &*service.store,
        spool: &current.parts.spool,
        clock: &service.clock,
        exclusion: &service.exclusion,
        stop,
        cancellation: cancellation.clone(),
        progress: &progress,
    };
    let ran = runner.run(order, config).await;
    tokio::select! {
        biased;
        () = cancellation.asked() => {}
        () = housekeeping::keep_house(service) => {}
    }
    ran
}

/// Runs that are asked for over HTTP, beside those of schedules.
pub(super) struct Asks(pub(super) Arc<Service>);

impl RunJobs for Asks {
    fn begin(&self, job: &str, all_due: bool) -> Option<JobRun> {
        if self.0.flights().ask(job, "", Overlap::Skip) != Asked::Start {
            return None;
        }
        let flight = Flight { service: Arc::clone(&self.0), job: job.to_owned() };
        Some(Box::new(move |gentle, cancellation| Box::pin(asked(flight, all_due, gentle, cancellation))))
    }
}

/// A run that was asked for, from beginning to end.
async fn asked(
    flight: Flight,
    all_due: bool,
    gentle: CancellationToken,
    cancellation: Cancellation,
) -> Result<Swept, store::Error> {
    let current = flight.service.current();
    let Some(config) = current.config.jobs.get(&flight.job) else { return Ok(Swept::default()) };
    let order = Order { job: &flight.job, all_due, trigger: "http", only: None };
    let stop = Stop { gentle, hard: flight.service.stop.hard.clone() };
    carry_out(&flight.service, &current, order, config, &stop, cancellation).await
}

/// A run that goes on: dropped, the job may run again. A tick that came meanwhile waits for
/// the next one.
struct Flight {
    service: Arc<Service>,
    job: String,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut flights = self.service.flights();
        while flights.ended(&self.job).is_some() {}
    }
}

/// A run that could not be begun on record.
#[derive(Debug, Clone)]
pub(super) struct Unrecorded {
    job: String,
    trigger: String,
    started: Time,
    finished: Time,
    failure: String,
}

/// As many are remembered; a store that is in trouble for longer has told what it will.
const UNRECORDED: usize = 1000;

fn remember(service: &Service, run: Unrecorded) {
    let mut unrecorded = service.unrecorded.lock().unwrap_or_else(PoisonError::into_inner);
    if unrecorded.len() < UNRECORDED {
        unrecorded.push(run);
    }
}

/// Takes note of runs that failed while the store could not, as far as it can again.
pub(super) async fn record_late(service: &Service) {
    let runs = std::mem::take(&mut *service.unrecorded.lock().unwrap_or_else(PoisonError::into_inner));
    let mut runs = runs.into_iter();
    for run in runs.by_ref() {
        let times = (run.started, run.finished);
        if service.store.note_failed_run(&run.job, &run.trigger, times, &run.failure).await.is_err() {
            remember(service, run);
            break;
        }
    }
    runs.for_each(|run| remember(service, run));
}

/// One run from beginning to end; why it failed, where it did.
async fn one_run(service: &Service, job: &str, trigger: &str) -> Option<String> {
    tokio::select! {
        () = service.suspects_taken.cancelled() => {}
        () = service.stop.gentle.cancelled() => return None,
    }
    let current = service.current();
    let Some(config) = current.config.jobs.get(job) else {
        return Some("the job is not configured any more".to_owned());
    };
    let started = service.clock.now();
    let order = Order { job, all_due: false, trigger, only: None };
    match carry_out(service, &current, order, config, &service.stop, Cancellation::default()).await {
        Ok(swept) => {
            record_late(service).await;
            swept.failure.map(|error| error.to_string()).or(swept.trouble)
        }
        Err(error) => {
            let (job, trigger, failure) = (job.to_owned(), trigger.to_owned(), error.to_string());
            let finished = service.clock.now();
            remember(service, Unrecorded { job, trigger, started, finished, failure: failure.clone() });
            Some(failure)
        }
    }
}
