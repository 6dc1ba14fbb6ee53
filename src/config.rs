//! The configuration: one YAML file, and a folder each of jobs and of schedules.
//!
//! Gathers each room's own settings and checks what no room can check alone. All errors of
//! all files are told at once, each with its file, line and column.

mod dsn;
mod dsn_offer;
mod files;
mod sections;
mod source;
mod vain;
mod warnings;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::delivery::{self, DnsConfig};
use crate::dkim::Signatory;
use crate::ingest::Sendmail;
use crate::mail::{Domain, RepositoryPath};
use crate::yaml::{Diagnostic, Diagnostics, Document, Fields, Node, Reading, Weight, positive_duration, text};
use crate::{jobs, logging, pipeline, schedule};
use files::{File, Folder};

pub use dsn::Dsn;
pub use sections::{Admin, Audit, Dialogue, Passwords, Smtp, Store, Tls};
pub use source::{NoConfiguration, Search, Source};
pub use warnings::Sweep;

/// The job that always exists: it takes what waits in the spool through its processor once.
pub const SPOOL_JOB: &str = "spool";

/// What ships, and what runs where there is no file.
const BUILT_IN: &str = include_str!("../redeliver.yaml");
const BUILT_IN_JOBS: [(&str, &str); 3] = [
    ("purge-dsn", include_str!("../jobs/purge-dsn.yaml")),
    ("report-permanent", include_str!("../jobs/report-permanent.yaml")),
    ("retry-temporary", include_str!("../jobs/retry-temporary.yaml")),
];
const BUILT_IN_SCHEDULES: [(&str, &str); 3] = [
    ("purge-dsn", include_str!("../schedules/purge-dsn.yaml")),
    ("report-permanent", include_str!("../schedules/report-permanent.yaml")),
    ("retry-temporary", include_str!("../schedules/retry-temporary.yaml")),
];

/// Everything that is configured.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it was read.
    pub source: Source,
    /// Our name in EHLO, in `Received:` and in loops.
    pub hostname: String,
    /// Where the store, locks and the submission socket are.
    pub state_directory: PathBuf,
    /// The store and the schemes that mean it.
    pub store: Store,
    /// The SMTP listener.
    pub smtp: Smtp,
    /// What is submitted on this machine, and its local names.
    pub sendmail: Sendmail,
    /// The HTTP listener.
    pub admin: Admin,
    /// How names are looked up.
    pub dns: DnsConfig,
    /// Where the log goes.
    pub log: logging::Config,
    /// What is kept of attempts.
    pub audit: Audit,
    /// How long sums of outcomes are kept.
    pub history_retention: Duration,
    /// How long sessions under way may take to end after SIGTERM.
    pub shutdown_timeout: Duration,
    /// How long a next hop found down answers for its other mails.
    pub down_for: Duration,
    /// The processors.
    pub processors: pipeline::Config,
    /// What senders are told, and how often.
    pub dsn: Dsn,
    /// The rule that leaves senders without word, so that DSN is not offered to those who bring
    /// mail, in words; `None` where there is none.
    pub silence: Option<String>,
    /// Limits of passes that no mail comes to, in words.
    pub vain_limits: Vec<String>,
    /// Who signs what redeliver writes itself.
    pub dkim: Option<Arc<Signatory>>,
    /// The folder of the jobs' files.
    pub jobs_directory: PathBuf,
    /// The folder of the schedules' files.
    pub schedules_directory: PathBuf,
    /// All jobs by name; [`SPOOL_JOB`] is among them.
    pub jobs: BTreeMap<String, jobs::Config>,
    /// All schedules by name.
    pub schedules: BTreeMap<String, schedule::Config>,
}

/// Keys that people write at the top, and where they stand.
const ELSEWHERE: [(&str, &str); 14] = [
    ("listen", "in 'smtp', and in 'admin'"),
    ("networks", "in 'smtp'"),
    ("maxMessageSize", "in 'smtp'"),
    ("processor", "in 'smtp'"),
    ("relay", "in 'processors', as every processor"),
    ("users", "in 'smtp', and in 'admin'"),
    ("password", "in 'admin'"),
    ("servers", "in 'dns'"),
    ("retention", "in 'audit', and in 'history'"),
    ("gateway", "with a rule of RemoteDelivery, in 'processors'"),
    ("maxRetries", "with a rule of RemoteDelivery, in 'processors'"),
    ("jobs", "in files of their own, in jobsDirectory"),
    ("schedules", "in files of their own, in schedulesDirectory"),
    ("timezone", "in each schedule"),
];

/// Reads and checks everything that `source` leads to.
///
/// # Errors
/// Every mistake in every file.
pub fn load(source: &Source) -> Result<Config, Diagnostics> {
    match read_all(source) {
        Read { config: Some(config), main, folders } if main.is_empty() && folders.is_empty() => Ok(config),
        Read { main, folders, .. } => Err(Diagnostics(main.into_iter().chain(folders).collect())),
    }
}

/// The configuration for a message that is handed in.
pub enum ForSubmission {
    /// It is in order but for what is said of jobs and schedules, which a message does not need.
    Usable(Config, Diagnostics),
    /// It is not, or this user may not read all of it; a running service may know better.
    /// What is wrong has its default.
    Doubtful(Config, Doubt, Diagnostics),
}

/// Why a configuration is doubtful.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Something in it is wrong.
    Wrong,
    /// This user may not read some of the files that it names; what else is wrong may follow
    /// from that.
    Forbidden,
}

/// As [`load`], for a message that is handed in.
///
/// # Errors
/// All that is wrong, where nothing of the main file can be used.
pub fn load_for_submission(source: &Source) -> Result<ForSubmission, Diagnostics> {
    let Read { config, main, folders } = read_all(source);
    let (beside, main): (Vec<_>, Vec<_>) = main.into_iter().partition(|wrong| wrong.weight == Weight::Beside);
    let beside = beside.into_iter().chain(folders);
    match config {
        Some(config) if main.is_empty() => Ok(ForSubmission::Usable(config, Diagnostics(beside.collect()))),
        Some(config) => {
            let is_forbidden = main.iter().any(|wrong| wrong.weight == Weight::Forbidden);
            let doubt = if is_forbidden { Doubt::Forbidden } else { Doubt::Wrong };
            Ok(ForSubmission::Doubtful(config, doubt, Diagnostics(main)))
        }
        None => Err(Diagnostics(main.into_iter().chain(beside).collect())),
    }
}

/// The configuration, with all that is wrong with it.
struct Read {
    config: Option<Config>,
    /// In the main file.
    main: Vec<Diagnostic>,
    /// In the files of jobs and schedules.
    folders: Vec<Diagnostic>,
}

fn read_all(source: &Source) -> Read {
    let main = match source {
        Source::File(path) => File::read(path),
        Source::BuiltIn => File::built_in("redeliver.yaml", BUILT_IN),
    };
    let mut config = main.root().and_then(|root| Config::read(root, &main.reading));
    let directory =
        |named: Option<&PathBuf>, default: &str| named.cloned().unwrap_or_else(|| main.reading.path(default));
    let (job_files, schedule_files) = match source {
        Source::File(_) => (
            Folder::read(&directory(config.as_ref().map(|config| &config.jobs_directory), "jobs")),
            Folder::read(&directory(config.as_ref().map(|config| &config.schedules_directory), "schedules")),
        ),
        Source::BuiltIn => {
            (Folder::built_in("jobs", &BUILT_IN_JOBS), Folder::built_in("schedules", &BUILT_IN_SCHEDULES))
        }
    };
    let jobs = read_jobs(&job_files.files, config.as_ref());
    let schedules = read_schedules(&schedule_files.files, &job_files.files);
    if let Some(config) = &mut config {
        config.source = source.clone();
        config.jobs = jobs;
        config.schedules = schedules;
        config.silence = dsn_offer::silence(config, &main);
        config.vain_limits = vain::limits_in_vain(config, &main);
    }
    let folders = job_files.into_diagnostics().into_iter().chain(schedule_files.into_diagnostics()).collect();
    Read { config, main: main.into_diagnostics(), folders }
}

impl Config {
    /// Every repository that a rule or a job names.
    pub fn repositories(&self) -> BTreeSet<RepositoryPath> {
        let of_jobs = self.jobs.values().filter_map(jobs::Config::repository).cloned();
        self.processors.repositories().into_iter().chain(of_jobs).collect()
    }

    /// The repositories out of which a job delivers.
    pub fn swept_repositories(&self) -> BTreeSet<RepositoryPath> {
        let swept = self.jobs.values().filter_map(|job| match job {
            jobs::Config::Reprocess(sweep) => Some(sweep.repository.clone()),
            _ => None,
        });
        swept.collect()
    }

    /// The repositories whose mails wait for a next pass: those that a job delivers out of,
    /// and those that a rule stores transient failures in, though no job may take them yet.
    pub fn kept_repositories(&self) -> BTreeSet<RepositoryPath> {
        self.swept_repositories().into_iter().chain(self.processors.temporary_repositories()).collect()
    }

    /// Reads the main file; jobs and schedules are still to come.
    fn read(root: &Node, reading: &Reading) -> Option<Self> {
        let mut fields = Fields::of(root, "the configuration", reading)?;
        let hostname = fields.optional("hostname", host_name);
        let state_directory = fields.path("stateDirectory").unwrap_or_else(|| reading.path("./var"));
        let store = Store::read(fields.node("stores"), &state_directory, reading);
        let smtp = Smtp::read(fields.section("smtp"));
        let sendmail = Sendmail::read(fields.section("sendmail"));
        let admin = Admin::read(fields.section("admin"));
        let dns = sections::read_dns(fields.section("dns"));
        let log = sections::read_log(fields.section("log"), &state_directory);
        let audit = Audit::read(fields.section("audit"));
        let history_retention = sections::read_history(fields.section("history"));
        let shutdown_timeout = fields.optional("shutdownTimeout", positive_duration);
        let down_for = fields.optional("downFor", positive_duration);
        let jobs_directory = fields.path("jobsDirectory").unwrap_or_else(|| reading.path("./jobs"));
        let schedules_directory = fields.path("schedulesDirectory").unwrap_or_else(|| reading.path("./schedules"));
        let dkim = fields.section("dkim").and_then(read_dkim);
        let dsn = Dsn::read(fields.section("dsn"));
        let mut processors = read_processors(fields.node("processors"), &store, &smtp.processor, reading);
        if dsn.delay_warning.is_some() {
            processors.tell_of_delays();
        }
        check_first_processor(&smtp.processor, &mut fields, &processors);
        check_listeners(&smtp, &admin, &mut fields);
        fields.finish_with(&ELSEWHERE);
        Some(Self {
            source: Source::BuiltIn,
            hostname: hostname.unwrap_or_else(|| delivery::machine_name(&dns)),
            state_directory,
            store,
            smtp,
            sendmail,
            admin,
            dns,
            log,
            audit,
            history_retention,
            shutdown_timeout: shutdown_timeout.unwrap_or(Duration::from_secs(30)),
            down_for: down_for.unwrap_or(Duration::from_mins(1)),
            processors,
            dsn,
            silence: None,
            vain_limits: Vec::new(),
            dkim,
            jobs_directory,
            schedules_directory,
            jobs: BTreeMap::new(),
            schedules: BTreeMap::new(),
        })
    }
}

fn read_dkim(mut fields: Fields<'_>) -> Option<Arc<Signatory>> {
    let found = Signatory::read(&mut fields);
    fields.finish();
    found.map(Arc::new)
}

fn host_name(node: &Node) -> Result<String, String> {
    let name = text(node)?;
    match Domain::parse(&name) {
        Ok(_) => Ok(name),
        Err(error) => Err(format!("{error}: write a name such as relay.example.org")),
    }
}

/// Without `processors` the ones that ship are in force.
fn read_processors(node: Option<&Node>, store: &Store, first: &str, reading: &Reading) -> pipeline::Config {
    if let Some(node) = node {
        return pipeline::Config::read(node, &store.schemes, first, reading);
    }
    let shipped = Document::parse(Path::new("redeliver.yaml"), BUILT_IN.as_bytes()).expect("what ships parses");
    let own = Reading::new(Path::new("redeliver.yaml"));
    let node = Fields::of(shipped.root(), "the configuration", &own).and_then(|mut fields| fields.node("processors"));
    pipeline::Config::read(node.expect("what ships has processors"), &store.schemes, first, &own)
}

/// Mail must be able to enter `smtp.processor`, also where it is the default.
fn check_first_processor(name: &str, fields: &mut Fields<'_>, processors: &pipeline::Config) {
    let Err(message) = processors.check_processor(name) else { return };
    let named = fields.section("smtp").and_then(|mut smtp| smtp.node("processor").map(|node| node.place));
    let place = named.unwrap_or(fields.place());
    fields.reading().problem(place, format!("smtp.processor: {message}"));
}

/// One address serves one listener.
fn check_listeners(smtp: &Smtp, admin: &Admin, fields: &mut Fields<'_>) {
    if admin.listen.port() == 0 || !smtp.listen.contains(&admin.listen) {
        return;
    }
    let named = fields.section("admin").and_then(|mut admin| admin.node("listen").map(|node| node.place));
    let message = format!("{} is smtp.listen already: admin.listen needs an address of its own", admin.listen);
    fields.reading().problem(named.unwrap_or(fields.place()), message);
}

fn read_jobs(files: &[File], config: Option<&Config>) -> BTreeMap<String, jobs::Config> {
    let known = jobs::Known {
        pipeline: config.map(|config| &config.processors).filter(|processors| processors.processors().next().is_some()),
        schemes: config.map(|config| &config.store.schemes),
    };
    let mut found = BTreeMap::from([(SPOOL_JOB.to_owned(), jobs::Config::Spool)]);
    for file in files {
        let Some(root) = file.root() else { continue };
        let Some(job) = jobs::Config::read(root, known, &file.reading) else { continue };
        if file.name == SPOOL_JOB && job != jobs::Config::Spool {
            file.reading.problem(root.place, "the job 'spool' can only be of kind spool: name this file otherwise");
        }
        found.insert(file.name.clone(), job);
    }
    check_purges(files, &found);
    found
}

/// A purge of what a sweep still wants to deliver must be meant.
fn check_purges(files: &[File], jobs: &BTreeMap<String, jobs::Config>) {
    for file in files {
        let Some(jobs::Config::Purge { repository, force: false, .. }) = jobs.get(&file.name) else { continue };
        let sweeps =
            |job: &jobs::Config| matches!(job, jobs::Config::Reprocess(sweep) if sweep.repository == *repository);
        let Some((sweep, _)) = jobs.iter().find(|(_, job)| sweeps(job)) else { continue };
        let message = format!("job '{sweep}' still delivers out of {repository}: a purge of it needs 'force: true'");
        file.problem_at("repository", message);
    }
}

fn read_schedules(files: &[File], jobs: &[File]) -> BTreeMap<String, schedule::Config> {
    let names: Vec<_> = jobs.iter().map(|file| file.name.as_str()).chain([SPOOL_JOB]).collect();
    let read = |file: &File| {
        let schedule = schedule::Config::read(file.root()?, &names, &file.reading)?;
        Some((file.name.clone(), schedule))
    };
    files.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests;
