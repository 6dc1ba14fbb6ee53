//! `redeliver serve`: the service, from its start to its end.
//!
//! [`run`] is the whole story in order: what is opened, what is refused, what runs, and
//! how it ends. Each thing that runs is a file of its own.

mod housekeeping;
mod only_one;
mod reload;
mod scheduler;
mod signals;
mod sockets;
mod spool_loop;
mod supervision;
mod systemd;
mod unit;
mod waker;

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::admin::{self, Admin};
use crate::clients::{FileError, WrongPasswords};
use crate::clock::Clock;
use crate::config::{Config, Source};
use crate::health::Health;
use crate::ingest::{Intake, Listener, ListenerContext, ListenerControl, ListenerError, SubmitContext, SubmitSocket};
use crate::live::Live;
use crate::logging::LostLines;
use crate::metrics::Metrics;
use crate::parts::{self, Parts, users};
use crate::schedule::Flights;
use crate::spool::{Exclusion, Handover};
use crate::stop::Stop;
use crate::store::{self, LAST_WRITES, Store};
use crate::tasks::Tasks;
use housekeeping::ClockWatch;
use only_one::{OnlyOne, Refused};
use scheduler::Unrecorded;
use signals::Signals;
use waker::Waker;

pub use unit::Unit;

/// The name of services among the instances of a store.
const KIND: &str = crate::store::SERVICE;

/// For what was given up at the end to be written down.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Descriptors that are enough for all connections that the listeners allow, deliveries and
/// the store.
const DESCRIPTORS: u64 = 4096;

/// For HTTP requests under way at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store, or what the configuration names.
    #[error(transparent)]
    Parts(#[from] parts::Error),
    /// There is one.
    #[error("another redeliver serve, process {pid}, has the store {} open", store.display())]
    SecondService {
        /// Its process id.
        pid: i32,
        /// The database.
        store: PathBuf,
    },
    /// `smtp.listen`, or a file that the listener needs.
    #[error(transparent)]
    Smtp(#[from] ListenerError),
    /// A file that the admin listener needs.
    #[error(transparent)]
    File(#[from] FileError),
    /// `admin.listen`.
    #[error("cannot listen on {0} (admin.listen): {1}")]
    Admin(SocketAddr, #[source] io::Error),
    /// Of the system, and nothing that a configuration could mend.
    #[error("{0}")]
    System(String),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Parts(error.into())
    }
}

/// What all that runs shares.
struct Service {
    source: Source,
    clock: Clock,
    store: Arc<dyn Store>,
    stop: Stop,
    health: Arc<Health>,
    /// Where suspects are kept apart.
    exclusion: Exclusion,
    /// How new mail comes to the loop of the spool.
    handover: Handover,
    /// Told once the mails of the spool that a death left as suspects have been taken: no
    /// job runs beside them.
    suspects_taken: CancellationToken,
    /// The jobs that run now.
    flights: Mutex<Flights>,
    /// Long work that was asked for.
    tasks: Arc<Tasks>,
    /// The configuration and parts in force.
    current: Live<Current>,
    /// The same as those see it who take mail in.
    intake: Live<Intake>,
    lost_lines: LostLines,
    metrics: Metrics,
    /// Of clients of the admin listener; they outlast a reload.
    wrong_passwords: Arc<WrongPasswords>,
    clock_watch: Mutex<ClockWatch>,
    /// Runs that the store was in no state to take note of.
    unrecorded: Mutex<Vec<Unrecorded>>,
}

/// What a reload replaces as a whole.
struct Current {
    config: Config,
    parts: Parts,
}

impl Service {
    fn new(
        source: Source,
        config: Config,
        clock: Clock,
        store: Arc<dyn Store>,
        lost_lines: LostLines,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let stop = Stop::default();
        let tasks = Tasks::new(Arc::clone(&store), clock.clone(), stop.clone());
        let parts = Parts::build(&config, &store, &clock, &stop, Some(config.down_for), &metrics)?;
        let exclusion = Exclusion::default();
        let handover = Handover::new(&exclusion);
        parts.spool.hand_over_to(&handover);
        let intake = Live::new(parts::intake(&config, &parts.spool)?);
        Ok(Self {
            source,
            store,
            stop,
            health: Arc::new(Health::new(clock.instant())),
            exclusion,
            handover,
            suspects_taken: CancellationToken::new(),
            flights: Mutex::default(),
            tasks,
            current: Live::new(Current { config, parts }),
            intake,
            clock_watch: Mutex::new(ClockWatch::new(clock.now(), clock.instant())),
            clock,
            lost_lines,
            metrics,
            wrong_passwords: Arc::default(),
            unrecorded: Mutex::default(),
        })
    }

    fn current(&self) -> Arc<Current> {
        self.current.now()
    }

    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.stop.gentle.is_cancelled()
    }
}

/// Reads what only a start would read, that certificate and key of the listener belong together
/// and its users, and returns all that is wrong with these files.
///
/// # Errors
/// Where the listener cannot be configured at all.
pub fn check(config: &Config) -> Result<Vec<ListenerError>, Error> {
    let smtp = Listener::check(&parts::listener_config(config)?);
    let admin = parts::check_admin_files(&config.admin).into_iter().map(ListenerError::File);
    Ok(smtp.into_iter().chain(admin).collect())
}

/// Serves until a SIGTERM or SIGINT, and returns when everything has ended in order.
///
/// # Errors
/// Where it cannot start; nothing was served then.
pub async fn run(source: Source, config: Config, clock: Clock, lost_lines: LostLines) -> Result<(), Error> {
    raise_descriptor_limit();
    let signals = Signals::listen().map_err(|error| Error::System(format!("cannot listen for signals: {error}")))?;
    let metrics = Metrics::new();
    let store = parts::open_store(&config, &clock, KIND, &metrics).await?;
    let served = serve(signals, source, config, clock.clone(), Arc::clone(&store), lost_lines, metrics).await;
    if let Err(error) = store.close().await {
        warn!(%error, "the store could not be closed in order");
    }
    served
}

/// All listeners together may hold more connections than the 1024 that are usual.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft >= DESCRIPTORS {
            return Ok(());
        }
        setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS.min(hard), hard)
    });
    if let Err(error) = raised {
        warn!(%error, "the limit of open files stays as it is");
    }
}

async fn serve(
    mut signals: Signals,
    source: Source,
    mut config: Config,
    clock: Clock,
    store: Arc<dyn Store>,
    lost_lines: LostLines,
    metrics: Metrics,
) -> Result<(), Error> {
    let _only_one = only_one(&config)?;
    let handed_over = sockets::take().map_err(Error::System)?;
    config.smtp.handed_over = handed_over.addresses();
    let service = Arc::new(Service::new(source, config, clock, store, lost_lines, metrics)?);
    let config = &service.current().config;
    let smtp = Listener::bind(&parts::listener_config(config)?, listener_context(&service))?
        .beside(handed_over.smtp)
        .map_err(|error| Error::System(format!("the socket \"smtp\" cannot be used: {error}")))?;
    let admin = bind_admin(&service, config).await?;
    let submissions = submit_socket(config, handed_over.submit)?;
    let submit = submit_context(&service, smtp.control());
    let waker = Waker::start().await.map_err(Error::System)?;
    announce(config, &smtp.addresses(), admin.address());
    parts::warn_of_unnamed_repositories(config, &*service.store).await;

    tell_of_tasks_cut_off(&service).await;
    let controls = reload::Controls { smtp: smtp.control(), admin: admin.control() };
    let running = Running::start(&service, smtp, admin, &waker);
    running.tasks.spawn(submissions.serve(submit, service.stop.gentle.clone()));
    systemd::ready();
    while signals.reload_before_stop().await {
        systemd::reloading();
        reload::reload(&service, &controls).await;
        systemd::ready();
    }
    systemd::stopping();
    running.end(&service, &mut signals).await;
    service.current().parts.pipeline.close().await;
    info!("stopped");
    Ok(())
}

/// Tasks that ended with the process that worked on them have failed, and say so.
async fn tell_of_tasks_cut_off(service: &Service) {
    match service.tasks.bury_those_cut_off().await {
        Ok(0) => {}
        Ok(number) => warn!(number, "{number} tasks were cut off when redeliver ended: they are not begun again"),
        Err(error) => warn!(%error, "it is not known which tasks were cut off"),
    }
}

/// Each service has its state directory to itself.
/// Of the state directory, and of that of the store, where it is another.
fn only_one(config: &Config) -> Result<Vec<OnlyOne>, Error> {
    let same = |one: &Path, other: &Path| one.canonicalize().ok() == other.canonicalize().ok();
    let (state, store) = (config.state_directory.as_path(), config.store.directory());
    let directories = std::iter::once(state).chain((!same(state, store)).then_some(store));
    let take = |directory: &Path| {
        OnlyOne::take(directory).map_err(|refused| match refused {
            Refused::Taken(pid) => Error::SecondService { pid, store: config.store.path.clone() },
            Refused::Io(error) => Error::System(format!("cannot lock {}: {error}", directory.display())),
        })
    };
    directories.map(take).collect()
}

fn listener_context(service: &Service) -> ListenerContext {
    ListenerContext { intake: service.intake.clone(), clock: service.clock.clone() }
}

/// The socket that was handed over, else one of our own.
fn submit_socket(config: &Config, handed_over: Option<UnixListener>) -> Result<SubmitSocket, Error> {
    if let Some(listener) = handed_over {
        return SubmitSocket::handed_over(listener)
            .map_err(|error| Error::System(format!("the socket \"submit\" cannot be used: {error}")));
    }
    let path = parts::submission::own_socket(config);
    SubmitSocket::bind(&path).map_err(|error| Error::System(format!("cannot listen on {}: {error}", path.display())))
}

/// What users who may not write the store submit through.
fn submit_context(service: &Service, smtp: ListenerControl) -> Arc<SubmitContext> {
    Arc::new(SubmitContext {
        intake: service.intake.clone(),
        clock: service.clock.clone(),
        smtp,
        stop: service.stop.clone(),
        caller: users::caller,
    })
}

async fn bind_admin(service: &Arc<Service>, config: &Config) -> Result<Admin, Error> {
    let context = admin::Context {
        store: Arc::clone(&service.store),
        health: Arc::clone(&service.health),
        clock: service.clock.clone(),
        metrics: service.metrics.clone(),
        wrong_passwords: Arc::clone(&service.wrong_passwords),
        tasks: Arc::clone(&service.tasks),
        intake: service.intake.clone(),
        jobs: Arc::new(scheduler::Asks(Arc::clone(service))),
        stop: service.stop.clone(),
        lost_lines: service.lost_lines.clone(),
    };
    let (listen, settings) = (config.admin.listen, parts::admin_settings(config, &service.wrong_passwords)?);
    Admin::bind(listen, settings, context).await.map_err(|error| Error::Admin(listen, error))
}

fn announce(config: &Config, smtp: &[SocketAddr], admin: SocketAddr) {
    for address in smtp {
        info!(%address, "listening for SMTP on {address}");
    }
    info!(address = %admin, "listening for HTTP on {admin}");
    for warning in config.warnings() {
        warn!("{warning}");
    }
}

/// All that runs.
struct Running {
    /// What must end before the store is closed.
    tasks: TaskTracker,
    admin: tokio::task::JoinHandle<()>,
    stop_admin: CancellationToken,
}

impl Running {
    fn start(service: &Arc<Service>, smtp: Listener, admin: Admin, waker: &Waker) -> Self {
        let tasks = TaskTracker::new();
        tasks.spawn(smtp.run(service.stop.clone()));
        let supervise = |name, work: fn(Arc<Service>, Waker) -> supervision::Work| {
            let (service, waker) = (Arc::clone(service), waker.clone());
            tasks.spawn(supervision::supervised(name, service.stop.clone(), move || {
                work(Arc::clone(&service), waker.clone())
            }));
        };
        supervise("spool", |service, _| Box::pin(spool_loop::run(service)));
        supervise("scheduler", |service, waker| Box::pin(scheduler::run(service, waker)));
        supervise("housekeeping", |service, _| Box::pin(housekeeping::run(service)));
        supervise("watchdog", |service, _| Box::pin(systemd::watch(service)));
        tasks.close();
        let stop_admin = CancellationToken::new();
        let admin = tokio::spawn(admin.serve(stop_admin.clone()));
        Self { tasks, admin, stop_admin }
    }

    /// Begins nothing new, gives what is under way its time, then gives it up.
    async fn end(self, service: &Service, signals: &mut Signals) {
        let patience = service.current().config.shutdown_timeout;
        info!("stopping: sessions under way may end within {} s", patience.as_secs());
        service.stop.gentle.cancel();
        tokio::select! {
            () = self.tasks.wait() => {}
            () = signals.stop() => warn!("stopping at once: sessions under way are given up"),
            () = tokio::time::sleep(patience) => warn!("sessions under way are given up"),
        }
        service.stop.hard.cancel();
        service.store.deadline(service.clock.instant() + LAST_WRITES);
        let all = async { tokio::join!(self.tasks.wait(), service.tasks.end()) };
        if tokio::time::timeout(LAST_WORDS, all).await.is_err() {
            error!("not everything could be written down: the next start finds out what is in doubt");
        }
        self.stop_admin.cancel();
        // A request that goes on is cut off with the process.
        let _ = tokio::time::timeout(LAST_ANSWERS, self.admin).await;
    }
}
