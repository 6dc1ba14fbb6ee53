//! What is done every hour, and every minute.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use super::Service;
use crate::jobs;

const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);

/// Deletes expired audit records, and tells of log lines that were lost.
pub(super) async fn run(service: Arc<Service>) {
    let (mut hour, mut minute) = (interval(HOUR), interval(MINUTE));
    for timer in [&mut hour, &mut minute] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    while !service.is_stopping() {
        tokio::select! {
            biased;
            () = service.stop.gentle.cancelled() => {}
            _ = minute.tick() => service.lost_lines.tell(),
            _ = hour.tick() => keep_house(&service).await,
        }
    }
}

/// Expired records and free pages; left half done by a stop, it goes on the next time.
pub(super) async fn keep_house(service: &Service) {
    let retention = service.current().config.audit.retention;
    let work = jobs::housekeep(&*service.store, &service.clock, retention);
    let done = tokio::select! {
        () = service.stop.gentle.cancelled() => return,
        done = work => done,
    };
    if let Err(error) = done {
        warn!(%error, "expired audit records are still there");
    }
}
