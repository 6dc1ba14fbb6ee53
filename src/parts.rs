//! The parts of a relay, each built on those before it, as the configuration says: what a
//! one-shot command, a service and a reload of the service all need.

pub mod submission;
pub mod users;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Gid, Uid, User};
use tracing::warn;

use crate::admin;
use crate::clients::{self, Columns, FileError, Users, WrongPasswords};
use crate::clock::Clock;
use crate::config::{self, Config, Dialogue};
use crate::delivery::{Delivery, Network};
use crate::ingest::{Intake, ListenerConfig, TlsFiles};
use crate::mail::{Address, Domain, RepositoryPath};
use crate::metrics::Metrics;
use crate::pipeline::{Deliver, Notifications, Pipeline};
use crate::spool::{FreeSpace, Settings, Spool};
use crate::stop::Stop;
use crate::store::{self, Place, SqliteStore, Store};

/// How long a service keeps results that the store does not take.
const PATIENCE: Duration = Duration::from_mins(10);

/// Why the parts cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Root cannot become the user who owns the store.
    #[error("{0}")]
    Owner(String),
    /// The store cannot be opened, or not be written.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A file or a setting that the configuration names cannot be used.
    #[error("{0}")]
    Configuration(String),
}

/// What mail goes through.
pub struct Parts {
    /// The processors.
    pub pipeline: Arc<Pipeline>,
    /// The door and the loop.
    pub spool: Arc<Spool>,
}

impl Parts {
    /// Builds pipeline and spool. `down_for` says how long trouble with a peer is
    /// remembered; `None` is as long as the parts live.
    ///
    /// # Errors
    /// [`Error::Configuration`].
    pub fn build(
        config: &Config,
        store: &Arc<dyn Store>,
        clock: &Clock,
        stop: &Stop,
        down_for: Option<Duration>,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        // A reload retires these parts and no others.
        let stop = stop.child();
        let network = network(config, clock, &stop, down_for);
        let pipeline = Arc::new(pipeline(config, &network)?);
        let settings = Settings {
            processor: config.smtp.processor.clone(),
            max_message_size: config.smtp.max_message_size,
            keep_all_dialogues: config.audit.dialogue == Dialogue::All,
            max_dialogue: usize::try_from(config.audit.max_dialogue).unwrap_or(usize::MAX),
            metrics: metrics.clone(),
            free_space: FreeSpace::of(config.store.directory().to_owned()),
            // A command, that somebody may look on, ends as soon as it would when it is stopped.
            patience: if down_for.is_some() { PATIENCE } else { config.shutdown_timeout },
        };
        let spool = Spool::new(Arc::clone(store), Arc::clone(&pipeline), clock.clone(), settings, stop);
        Ok(Self { pipeline, spool })
    }
}

/// Becomes the store's owner, opens the store, and makes the repositories known. `kind`
/// names this process among the instances.
///
/// # Errors
/// [`Error::Owner`] and [`Error::Store`].
pub async fn open_store(
    config: &Config,
    clock: &Clock,
    kind: &str,
    metrics: &Metrics,
) -> Result<Arc<dyn Store>, Error> {
    become_owner(&config.store.path)?;
    let store = SqliteStore::open(&config.store.path, kind, clock)?;
    store.count_commits(metrics);
    let store: Arc<dyn Store> = Arc::new(store);
    ensure_repositories(config, &*store).await?;
    Ok(store)
}

/// Makes the repositories of the configuration known to the store.
///
/// # Errors
/// Where they cannot be written.
pub async fn ensure_repositories(config: &Config, store: &dyn Store) -> Result<(), store::Error> {
    let repositories: Vec<_> = config.repositories().into_iter().collect();
    store.ensure_repositories(&repositories).await
}

/// Says which mails rest where no rule and no job knows of them: those of a repository that was
/// renamed in the configuration wait there for ever.
pub async fn warn_of_unnamed_repositories(config: &Config, store: &dyn Store) {
    match unnamed_repositories(config, store).await {
        Ok(unnamed) => {
            for (repository, mails) in unnamed {
                warn!(
                    %repository, mails,
                    "no rule and no job names {repository}, where mails rest: \
                     redeliver repository move {repository} --all --to REPOSITORY, if it was renamed"
                );
            }
        }
        Err(error) => warn!(%error, "mails may rest in repositories that no rule and no job names"),
    }
}

async fn unnamed_repositories(config: &Config, store: &dyn Store) -> Result<Vec<(RepositoryPath, u64)>, store::Error> {
    let named = config.repositories();
    let mut found = Vec::new();
    for repository in store.repositories().await? {
        if named.contains(&repository) || [RepositoryPath::error(), RepositoryPath::dsn()].contains(&repository) {
            continue;
        }
        let mails = store.size(&Place::Repository(repository.clone())).await?;
        if mails > 0 {
            found.push((repository, mails));
        }
    }
    Ok(found)
}

/// The listener as the configuration has it.
///
/// # Errors
/// [`Error::Configuration`].
pub fn listener_config(config: &Config) -> Result<ListenerConfig, Error> {
    let hostname = Domain::parse(&config.hostname)
        .map_err(|error| Error::Configuration(format!("hostname {:?}: {error}", config.hostname)))?;
    let smtp = &config.smtp;
    let tls = smtp.tls.as_ref();
    Ok(ListenerConfig {
        listen: smtp.listen.clone(),
        networks: smtp.networks.clone(),
        max_recipients: smtp.max_recipients,
        tls: tls.map(|tls| TlsFiles { certificate: tls.certificate.clone(), key: tls.key.clone() }),
        users: smtp.users.clone(),
        normalize_lf: smtp.normalize_lf,
        smtputf8: smtp.smtputf8,
        dsn: config.silence.is_none(),
        ..ListenerConfig::new(hostname)
    })
}

/// What mail that comes in meets, as the configuration has it.
///
/// # Errors
/// [`Error::Configuration`].
pub fn intake(config: &Config, spool: &Arc<Spool>) -> Result<Intake, Error> {
    let here = users::here(config).map_err(Error::Configuration)?;
    Ok(Intake { spool: Arc::clone(spool), kept: config.kept_repositories(), here })
}

/// The HTTP listener as the configuration has it; `wrong` are the wrong passwords so far.
///
/// # Errors
/// The file that cannot be used.
pub fn admin_settings(config: &Config, wrong: &Arc<WrongPasswords>) -> Result<admin::Settings, FileError> {
    let admin = &config.admin;
    let users = |file: &PathBuf| Users::load(file, Columns::NameRoleHash, Arc::clone(wrong)).map(Arc::new);
    Ok(admin::Settings {
        full: admin.password.0.clone(),
        read_only: admin.password_readonly.0.clone(),
        no_delete: admin.password_nodelete.0.clone(),
        users: admin.users.as_ref().map(users).transpose()?,
        tls: admin.tls.as_ref().map(|tls| clients::acceptor(&tls.certificate, &tls.key)).transpose()?,
        url: admin.url.as_ref().and_then(|url| url.parse().ok()),
        site: Arc::new(admin::Site {
            processors: config.processors.clone(),
            schemes: config.store.schemes.clone(),
            processor: config.smtp.processor.clone(),
            jobs: config.jobs.clone(),
            schedules: config.schedules.clone(),
        }),
    })
}

/// All that is wrong with the files of the HTTP listener.
pub fn check_admin_files(admin: &config::Admin) -> Vec<FileError> {
    let users = admin.users.as_deref().and_then(|file| clients::read(file, Columns::NameRoleHash).err());
    let tls = admin.tls.as_ref().and_then(|tls| clients::acceptor(&tls.certificate, &tls.key).err());
    users.into_iter().flatten().chain(tls).collect()
}

/// What all deliveries share.
pub fn network(config: &Config, clock: &Clock, stop: &Stop, down_for: Option<Duration>) -> Arc<Network> {
    let own = [&config.smtp.listen[..], &config.smtp.handed_over].concat();
    Network::new(clock.clone(), &config.dns, config.hostname.clone(), own, stop.clone(), down_for)
}

/// The processors, with what delivers.
///
/// # Errors
/// [`Error::Configuration`].
pub fn pipeline(config: &Config, network: &Arc<Network>) -> Result<Pipeline, Error> {
    Pipeline::new(config.processors.clone(), |delivery| {
        Delivery::new(delivery.clone(), Arc::clone(network)).map(|delivery| Arc::new(delivery) as Arc<dyn Deliver>)
    })
    .map(|pipeline| pipeline.signing_own(config.dkim.clone()))
    .map_err(Error::Configuration)
    .and_then(|pipeline| Ok(pipeline.notifying(notifications(config)?)))
}

/// What senders are told, as the configuration has it.
///
/// # Errors
/// [`Error::Configuration`].
fn notifications(config: &Config) -> Result<Notifications, Error> {
    let from = match &config.dsn.from {
        Some(from) => from.clone(),
        None => Address::parse(&format!("MAILER-DAEMON@{}", config.hostname))
            .map_err(|error| Error::Configuration(format!("hostname {:?}: {error}", config.hostname)))?,
    };
    let here = users::here(config).map_err(Error::Configuration)?;
    Ok(Notifications {
        from,
        hostname: config.hostname.clone(),
        processor: config.smtp.processor.clone(),
        limits: config.dsn.limits,
        delay_warning: config.dsn.delay_warning,
        tried_for: config.tried_for(),
        addressees: Arc::new(move |sender| here.addressees(sender)),
    })
}

/// Root becomes the user who owns the store, so that no file of root's keeps him out.
///
/// # Errors
/// [`Error::Owner`].
pub fn become_owner(database: &Path) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt;

    if !Uid::effective().is_root() {
        return Ok(());
    }
    let owner = [Some(database), database.parent()].into_iter().flatten().find_map(|path| path.metadata().ok());
    let Some(metadata) = owner.filter(|metadata| metadata.uid() != 0) else { return Ok(()) };
    let (owner, group) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
    let cannot = |error: nix::errno::Errno| {
        Error::Owner(format!("cannot become the owner (user {owner}) of {}: {error}", database.display()))
    };
    // In a container, or of a restored volume, the owner may have no name.
    match User::from_uid(owner).map_err(cannot)? {
        Some(_) => become_user(owner, None),
        None => nix::unistd::setgroups(&[]).and_then(|()| become_member(owner, group)),
    }
    .map_err(cannot)
}

/// Becomes a user, with the groups he has, and with `group` in place of his own first one;
/// files that are made are his alone.
///
/// # Errors
/// Where there is no such user, or this one may not.
pub fn become_user(uid: Uid, group: Option<Gid>) -> nix::Result<()> {
    let user = User::from_uid(uid)?.ok_or(nix::errno::Errno::ENOENT)?;
    let name = std::ffi::CString::new(user.name).map_err(|_| nix::errno::Errno::EINVAL)?;
    let group = group.unwrap_or(user.gid);
    nix::unistd::initgroups(&name, group)?;
    become_member(uid, group)
}

fn become_member(uid: Uid, group: Gid) -> nix::Result<()> {
    nix::unistd::setgid(group)?;
    nix::unistd::setuid(uid)?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    Ok(())
}
