//! SIGHUP: configuration, jobs and schedules anew, as a whole or not at all.

use std::sync::Arc;

use tracing::{error, info, warn};

use super::{Current, Error, Service};
use crate::admin;
use crate::config::{self, Config};
use crate::health::Status;
use crate::ingest::ListenerControl;
use crate::parts::{self, Parts};

/// What is told of new settings.
pub(super) struct Controls {
    pub(super) smtp: ListenerControl,
    pub(super) admin: admin::Control,
}

/// Puts what the files say now in force; only attempts that have begun go on as they began.
/// Where anything is wrong, each error is logged, and what was in force stays.
pub(super) async fn reload(service: &Arc<Service>, controls: &Controls) {
    let reloaded = match read(service).await {
        Some(config) => put_in_force(service, controls, config).await.map_err(|error| error!("{error}")),
        None => Err(()),
    };
    let health = &service.health.configuration;
    if reloaded.is_ok() {
        health.well();
        info!("the configuration is reloaded");
    } else {
        // The log may not be where the operator looks next.
        health.unwell(Status::Degraded, "the last reload was refused: an older configuration is in force, see the log");
        error!("the configuration is not reloaded: the old one stays in force");
    }
}

async fn read(service: &Service) -> Option<Config> {
    let source = service.source.clone();
    let read = tokio::task::spawn_blocking(move || config::load(&source)).await;
    match read {
        Ok(Ok(config)) => return Some(config),
        Ok(Err(diagnostics)) => diagnostics.0.iter().for_each(|diagnostic| error!("{diagnostic}")),
        Err(panic) => error!(%panic, "reading the configuration failed, a fault of redeliver"),
    }
    None
}

async fn put_in_force(service: &Arc<Service>, controls: &Controls, config: Config) -> Result<(), Error> {
    let old = service.current();
    let config = with_what_needs_a_restart(&old.config, config);
    parts::ensure_repositories(&config, &*service.store).await?;
    let Service { store, clock, stop, metrics, .. } = &**service;
    let parts = Parts::build(&config, store, clock, stop, Some(config.down_for), metrics)?;
    parts.spool.hand_over_to(&service.handover);
    let admin = parts::admin_settings(&config, &service.wrong_passwords)?;
    let intake = parts::intake(&config, &parts.spool)?;
    controls.smtp.reload(&parts::listener_config(&config)?)?;
    parts::warn_of_unnamed_repositories(&config, &*service.store).await;
    // From here nothing can fail.
    controls.admin.set(admin);
    service.current.replace(Current { config, parts });
    service.intake.replace(intake);
    // What only waits comes back, and goes by the new settings.
    old.parts.spool.retire();
    // Sessions that come idle later end by themselves.
    tokio::spawn(async move { old.parts.pipeline.close().await });
    Ok(())
}

/// Sockets, store and log are opened once.
fn with_what_needs_a_restart(old: &Config, mut new: Config) -> Config {
    for (changed, what) in [
        (old.smtp.listen != new.smtp.listen, "smtp.listen"),
        (old.admin.listen != new.admin.listen, "admin.listen, and with it the passwords,"),
        (old.store.path != new.store.path, "the store's path"),
        (old.state_directory != new.state_directory, "stateDirectory"),
        (old.log != new.log, "log"),
    ] {
        if changed {
            warn!("{what} has changed: that takes effect at the next start");
        }
    }
    new.smtp.listen.clone_from(&old.smtp.listen);
    new.smtp.handed_over.clone_from(&old.smtp.handed_over);
    // What was allowed to go without a password is another address than the one that is served.
    if old.admin.listen != new.admin.listen {
        new.admin = old.admin.clone();
    }
    new.store.path.clone_from(&old.store.path);
    new.state_directory.clone_from(&old.state_directory);
    new.log = old.log.clone();
    new
}
