//! What the process counts of itself, for Prometheus.
//!
//! [`Metrics`] is made once and handed to those who count; clones are handles to the same
//! numbers, which begin at 0 with the process. What the store keeps is read from it at each
//! scrape and told here as [`Stored`], so that it is right for all processes together and
//! over restarts. Names and labels are a contract (base units, bounded labels, no domain and
//! no address). The text is Prometheus's own format, version 0.0.4: promtool and the textfile
//! collector of node_exporter read that and not OpenMetrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeLabelSet, prometheus_text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The `Content-Type` of what [`Metrics::text`] gives.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// A label of one name.
macro_rules! label {
    ($type:ident, $name:ident, $value:ty) => {
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $type {
            $name: $value,
        }
    };
}

label!(Place, place, String);
label!(Job, job, String);
label!(Schedule, schedule, String);
label!(Status, status, String);
label!(Code, code, u16);
label!(Action, action, String);
label!(Metric, metric, String);
label!(Version, version, &'static str);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: String,
    stage: String,
    class: String,
}

/// What a running process counts.
#[derive(Clone)]
pub struct Metrics {
    /// Attempts that have begun and not ended.
    pub attempts_in_flight: Level,
    /// Connections to peers that are open.
    pub connections: Level,
    /// Next hops that are known to be down now.
    pub peers_down: Level,
    /// SMTP sessions of clients.
    pub smtp_sessions: Level,
    commit_seconds: Histogram,
    group_size: Histogram,
    log_lines_dropped: Counter,
    http_requests: Family<Code, Counter>,
    schedule_missed: Family<Schedule, Counter>,
    by_mailets: Family<Metric, Counter>,
    registry: Arc<Registry>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at 0.
    pub fn new() -> Self {
        // 0.1 ms to 3 s, and 1 to 512.
        let commit_seconds = Histogram::new(exponential_buckets(0.000_1, 2.0, 16));
        let group_size = Histogram::new(exponential_buckets(1.0, 2.0, 10));
        let levels: [Level; 4] = Default::default();
        let [attempts_in_flight, connections, peers_down, smtp_sessions] = levels;
        let mut metrics = Self {
            attempts_in_flight,
            connections,
            peers_down,
            smtp_sessions,
            commit_seconds,
            group_size,
            log_lines_dropped: Counter::default(),
            http_requests: Family::default(),
            schedule_missed: Family::default(),
            by_mailets: Family::default(),
            registry: Arc::default(),
        };
        metrics.registry = Arc::new(metrics.registered());
        metrics
    }

    fn registered(&self) -> Registry {
        let mut registry = Registry::with_prefix("redeliver");
        for (name, help, level) in [
            ("attempts_in_flight", "Attempts that have begun and not ended", &self.attempts_in_flight),
            ("connections", "Open connections to peers", &self.connections),
            ("peers_down", "Next hops that are known to be down now", &self.peers_down),
            ("smtp_sessions", "Open SMTP sessions of clients", &self.smtp_sessions),
        ] {
            registry.register(name, help, level.0.clone());
        }
        let build: Family<Version, Gauge> = Family::default();
        build.get_or_create(&Version { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "The version of redeliver", build);
        registry.register(
            "store_commit_seconds",
            "Time of a commit of the store, its sync included",
            self.commit_seconds.clone(),
        );
        registry.register(
            "store_group_size",
            "Operations that one commit of the store carries",
            self.group_size.clone(),
        );
        registry.register(
            "log_lines_dropped",
            "Lines that are missing in the log file: it could not keep up, or not be written",
            self.log_lines_dropped.clone(),
        );
        registry.register("http_requests", "Answers of the HTTP listener by status code", self.http_requests.clone());
        registry.register(
            "schedule_missed",
            "Ticks of a schedule that passed without a run since this process started",
            self.schedule_missed.clone(),
        );
        registry.register(
            "metrics_mailet",
            "Mails that came by a MetricsMailet since the rules were read",
            self.by_mailets.clone(),
        );
        registry
    }

    /// A commit took so many seconds and carried so many operations.
    pub fn committed(&self, seconds: f64, operations: usize) {
        self.commit_seconds.observe(seconds);
        self.group_size.observe(u32::try_from(operations).map_or(f64::MAX, f64::from));
    }

    /// So many lines are missing in the log, since the process started.
    pub fn log_lines_dropped(&self, all: usize) {
        let told = self.log_lines_dropped.get();
        self.log_lines_dropped.inc_by((all as u64).saturating_sub(told));
    }

    /// So many mails have come by the `MetricsMailet` of each name; a reload begins anew.
    pub fn metrics_mailets(&self, counts: &BTreeMap<&str, u64>) {
        for (name, count) in counts {
            let counter = self.by_mailets.get_or_create(&Metric { metric: (*name).to_owned() });
            counter.inner().store(*count, Ordering::Relaxed);
        }
    }

    /// A request was answered with this status code.
    pub fn http_request(&self, code: u16) {
        self.http_requests.get_or_create(&Code { code }).inc();
    }

    /// So many ticks of a schedule passed without a run.
    pub fn missed(&self, schedule: &str, ticks: u64) {
        self.schedule_missed.get_or_create(&Schedule { schedule: schedule.to_owned() }).inc_by(ticks);
    }

    /// All there is, in Prometheus's text format.
    pub fn text(&self, stored: &Stored) -> String {
        encoded(&self.registry) + &stored.text()
    }
}

/// A number that rises and falls.
#[derive(Debug, Clone, Default)]
pub struct Level(Gauge);

impl Level {
    /// One more, for as long as what is returned lives.
    #[must_use]
    pub fn hold(&self) -> Held {
        self.0.inc();
        Held(self.0.clone())
    }

    /// So many now.
    pub fn set(&self, number: usize) {
        self.0.set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// How many there are.
    pub fn get(&self) -> i64 {
        self.0.get()
    }
}

/// One of a [`Level`]; dropping it takes it away.
#[derive(Debug)]
pub struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What the store knows, read for one scrape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stored {
    /// The spool, and each repository by its path.
    pub places: Vec<StoredPlace>,
    /// Outcomes of recipients since the store was made: outcome, stage, first digit of the
    /// reply code or `none`, number.
    pub outcomes: Vec<(String, String, String, u64)>,
    /// Jobs that have run.
    pub jobs: Vec<StoredJob>,
    /// Each schedule, and whether it is paused.
    pub schedules: Vec<(String, bool)>,
    /// Tasks by status.
    pub tasks: Vec<(String, u64)>,
    /// Reports to senders by action.
    pub dsn: Vec<(String, u64)>,
    /// The size of the write-ahead log.
    pub wal_bytes: Option<u64>,
    /// What may still be written on the disk of the store.
    pub free_bytes: Option<u64>,
}

/// A place where mail rests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredPlace {
    /// `spool`, or the repository's path.
    pub place: String,
    /// Mails.
    pub mails: u64,
    /// Of these, not acknowledged.
    pub unacknowledged: u64,
    /// When the oldest came to rest there, in seconds since 1970.
    pub oldest: Option<i64>,
}

/// What is known of a job.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoredJob {
    /// Its name.
    pub job: String,
    /// When its last run that went well ended, in seconds since 1970.
    pub last_success: Option<i64>,
    /// How long its last run took.
    pub last_seconds: Option<f64>,
}

impl Stored {
    /// What `redeliver metrics` prints: for the textfile collector of node_exporter.
    pub fn text(&self) -> String {
        let mut registry = Registry::with_prefix("redeliver");
        self.register_places(&mut registry);
        self.register_jobs(&mut registry);
        let outcomes: Family<OutcomeLabels, Counter> = Family::default();
        for (outcome, stage, class, number) in &self.outcomes {
            let labels = OutcomeLabels { outcome: outcome.clone(), stage: stage.clone(), class: class.clone() };
            outcomes.get_or_create(&labels).inc_by(*number);
        }
        registry.register("outcomes", "Outcomes of recipients, of all processes", outcomes);
        let dsn: Family<Action, Counter> = Family::default();
        for (action, number) in &self.dsn {
            dsn.get_or_create(&Action { action: action.clone() }).inc_by(*number);
        }
        registry.register("dsn", "Reports to senders", dsn);
        let tasks: Family<Status, Gauge> = Family::default();
        for (status, number) in &self.tasks {
            tasks.get_or_create(&Status { status: status.clone() }).set(level(*number));
        }
        registry.register("tasks", "Tasks on record by status", tasks);
        self.register_disk(&mut registry);
        encoded(&registry)
    }

    fn register_disk(&self, registry: &mut Registry) {
        for (name, help, octets) in [
            ("wal_bytes", "Size of the write-ahead log of the store", self.wal_bytes),
            ("store_free_bytes", "What may still be written on the disk of the store", self.free_bytes),
        ] {
            let Some(octets) = octets else { continue };
            let gauge: Gauge = Gauge::default();
            gauge.set(level(octets));
            registry.register(name, help, gauge);
        }
    }

    fn register_places(&self, registry: &mut Registry) {
        let [mails, unacknowledged, oldest]: [Family<Place, Gauge>; 3] = Default::default();
        for place in &self.places {
            let label = Place { place: place.place.clone() };
            mails.get_or_create(&label).set(level(place.mails));
            unacknowledged.get_or_create(&label).set(level(place.unacknowledged));
            if let Some(time) = place.oldest {
                oldest.get_or_create(&label).set(time);
            }
        }
        registry.register("mails", "Mails at rest or in hand", mails);
        registry.register("unacknowledged_mails", "Mails that nobody has acknowledged", unacknowledged);
        registry.register("oldest_mail_timestamp_seconds", "When the oldest mail came to rest there", oldest);
    }

    fn register_jobs(&self, registry: &mut Registry) {
        let success: Family<Job, Gauge> = Family::default();
        let duration: Family<Job, Gauge<f64, AtomicU64>> = Family::default();
        for job in &self.jobs {
            let label = Job { job: job.job.clone() };
            if let Some(time) = job.last_success {
                success.get_or_create(&label).set(time);
            }
            if let Some(seconds) = job.last_seconds {
                duration.get_or_create(&label).set(seconds);
            }
        }
        registry.register("job_last_success_timestamp_seconds", "End of the last run that went well", success);
        registry.register("job_duration_seconds", "How long the last run took", duration);
        let paused: Family<Schedule, Gauge> = Family::default();
        for (schedule, is_paused) in &self.schedules {
            paused.get_or_create(&Schedule { schedule: schedule.clone() }).set((*is_paused).into());
        }
        registry.register("schedule_paused", "1 while a schedule is paused", paused);
    }
}

fn level(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn encoded(registry: &Registry) -> String {
    let mut text = String::new();
    // Nothing fails that is written into a text.
    let _ = prometheus_text::encode(&mut text, registry);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> Stored {
        let place = |place: &str, mails| StoredPlace {
            place: place.to_owned(),
            mails,
            unacknowledged: 1,
            oldest: (mails > 0).then_some(1_790_000_000),
        };
        Stored {
            places: vec![place("spool", 0), place("var/mail/\"odd\"\\\n", 3)],
            outcomes: vec![("deferred".into(), "rcpt".into(), "4".into(), 7)],
            jobs: vec![StoredJob { job: "retry".into(), last_success: Some(1), last_seconds: Some(0.25) }],
            schedules: vec![("retry".into(), true)],
            tasks: vec![("completed".into(), 2)],
            dsn: vec![("failed".into(), 4)],
            wal_bytes: Some(4096),
            free_bytes: Some(1 << 30),
        }
    }

    #[test]
    fn each_number_has_its_name_and_labels() {
        let metrics = Metrics::new();
        let held = metrics.connections.hold();
        metrics.committed(0.003, 5);
        metrics.http_request(404);
        metrics.log_lines_dropped(3);
        metrics.log_lines_dropped(3);
        metrics.missed("retry", 2);
        let text = metrics.text(&stored());
        for line in [
            "redeliver_connections 1",
            "redeliver_store_group_size_sum 5.0",
            "redeliver_store_commit_seconds_count 1",
            "redeliver_http_requests_total{code=\"404\"} 1",
            "redeliver_log_lines_dropped_total 3",
            "redeliver_schedule_missed_total{schedule=\"retry\"} 2",
            "redeliver_mails{place=\"spool\"} 0",
            "redeliver_mails{place=\"var/mail/\\\"odd\\\"\\\\\\n\"} 3",
            "redeliver_outcomes_total{outcome=\"deferred\",stage=\"rcpt\",class=\"4\"} 7",
            "redeliver_job_last_success_timestamp_seconds{job=\"retry\"} 1",
            "redeliver_job_duration_seconds{job=\"retry\"} 0.25",
            "redeliver_schedule_paused{schedule=\"retry\"} 1",
            "redeliver_tasks{status=\"completed\"} 2",
            "redeliver_dsn_total{action=\"failed\"} 4",
            "redeliver_wal_bytes 4096",
            "redeliver_store_free_bytes 1073741824",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        drop(held);
        assert_eq!(metrics.connections.get(), 0);
        let names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let mut once = names.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(names.len(), once.len(), "a name stands once");
    }
}
