//! What systemd is told (sd_notify(3)), and the watchdog.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::{error, warn};

use super::Service;
use crate::health::Status;
use crate::spool::{MIN_FREE, free_space};

/// How often the store is tried, at least.
const PULSE: Duration = Duration::from_secs(5);

/// A watchdog that is shorter than this may find a writer that only waits for a lock.
const SHORT: Duration = Duration::from_mins(1);

fn tell(states: &[NotifyState<'_>]) {
    let told = match std::env::var_os("NOTIFY_SOCKET") {
        Some(name) if name.as_bytes().starts_with(b"@") => tell_abstract(&name.as_bytes()[1..], states),
        _ => sd_notify::notify(states),
    };
    if let Err(error) = told {
        warn!(%error, "systemd cannot be told: see NOTIFY_SOCKET");
    }
}

/// To a socket without a file, which sd_notify(3) writes with an @; the crate takes that for
/// the name of a file.
fn tell_abstract(name: &[u8], states: &[NotifyState<'_>]) -> io::Result<()> {
    let text: String = states.iter().map(|state| format!("{state}\n")).collect();
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &SocketAddr::from_abstract_name(name)?).map(drop)
}

/// All listeners are open.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Until the next [`ready`].
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "systemd cannot be told of the reload"),
    }
}

/// The end has begun.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tries the store again and again, and feeds the watchdog with what moves: an answer of
/// the writing thread, whatever it says, and the rounds of scheduler and spool. A timer
/// alone would feed it for a process that does nothing any more; a store in trouble is no
/// reason to be killed, since a restart would not mend it.
pub(super) async fn watch(service: Arc<Service>) {
    let watchdog = sd_notify::watchdog_enabled();
    if let Some(limit) = watchdog.filter(|&limit| limit < SHORT) {
        let limit = limit.as_secs();
        warn!(
            "WatchdogSec is {limit} s: a store that is locked for a while would have the service killed, 2min is enough"
        );
    }
    let pulse = watchdog.map_or(PULSE, |limit| (limit / 3).min(PULSE));
    while !service.is_stopping() {
        try_store(&service).await;
        let (health, now) = (&service.health, service.clock.instant());
        let going = health.schedules.goes_on(now) && health.spool.goes_on(now);
        if watchdog.is_some() && going {
            tell(&[NotifyState::Watchdog]);
        } else if !going {
            error!("the scheduler or the spool stands still");
        }
        tokio::select! {
            () = service.stop.gentle.cancelled() => {}
            () = tokio::time::sleep(pulse) => {}
        }
    }
    // What is in hand at the end has its own limit, shutdownTimeout.
    if watchdog.is_some() {
        tell(&[NotifyState::Watchdog]);
    }
}

async fn try_store(service: &Service) {
    let health = &service.health.store;
    match service.store.ping().await {
        Ok(()) => match little_room(service) {
            None => health.well(),
            Some(why) => {
                if health.unwell(Status::Degraded, why.clone()) {
                    warn!("{why}");
                }
            }
        },
        Err(error) => {
            if health.unwell(Status::Unhealthy, error.to_string()) {
                error!(%error, "the store is in trouble");
            }
        }
    }
    health.beat(service.clock.instant());
}

/// Why the listener puts mail off, while the store itself still writes.
fn little_room(service: &Service) -> Option<String> {
    let current = service.current();
    let directory = current.config.store.directory();
    let free = free_space(directory).ok().filter(|&free| free < MIN_FREE)?;
    let mib = |octets: u64| octets / (1024 * 1024);
    let (free, needed) = (mib(free), mib(MIN_FREE));
    Some(format!("{} has {free} MiB left: new mail gets 452 until there are {needed} MiB", directory.display()))
}
