//! What is done every hour, and every minute.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use super::Service;
use super::scheduler::record_late;
use crate::jobs;
use crate::logging;
use crate::store::Time;

const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);

/// More than clocks are corrected by in small steps.
const JUMP: TimeDelta = TimeDelta::minutes(10);

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
            _ = minute.tick() => {
                service.lost_lines.tell();
                remove_old_logs(&service).await;
                record_late(&service).await;
                end_digests(&service).await;
            }
            _ = hour.tick() => keep_house(&service).await,
        }
    }
}

async fn end_digests(service: &Service) {
    if let Err(error) = service.current().parts.spool.end_digests().await {
        warn!(%error, "digests that are due wait for the next minute");
    }
}

async fn remove_old_logs(service: &Service) {
    let current = service.current();
    let work = tokio::task::spawn_blocking(move || logging::remove_old(&current.config.log));
    if let Ok(Err(error)) = work.await {
        warn!(%error, "old files of the log are still there");
    }
}

/// The wall clock beside one that nobody sets.
pub(super) struct ClockWatch {
    last: (Time, Instant),
    /// Nothing is believed to be old before.
    doubtful_until: Option<Instant>,
}

impl ClockWatch {
    pub(super) fn new(wall: Time, now: Instant) -> Self {
        Self { last: (wall, now), doubtful_until: None }
    }

    /// Whether the clock may be believed: it did not jump lately. Records that look expired
    /// because a clock was wrong for a minute would be gone for good.
    fn is_steady(&mut self, wall: Time, now: Instant) -> bool {
        let (wall_before, before) = std::mem::replace(&mut self.last, (wall, now));
        let passed = TimeDelta::from_std(now.saturating_duration_since(before)).unwrap_or(TimeDelta::MAX);
        let jumped = (wall - wall_before) - passed;
        if jumped.abs() > JUMP {
            warn!("the clock was set by {} s: no audit record is deleted for an hour", jumped.num_seconds());
            self.doubtful_until = now.checked_add(HOUR);
        }
        self.doubtful_until.is_none_or(|until| now >= until)
    }
}

/// Expired records and free pages; left half done by a stop, it goes on the next time.
pub(super) async fn keep_house(service: &Service) {
    let is_steady = {
        let mut watch = service.clock_watch.lock().unwrap_or_else(PoisonError::into_inner);
        watch.is_steady(service.clock.now(), service.clock.instant())
    };
    if !is_steady {
        return;
    }
    let current = service.current();
    let work = jobs::housekeep(&*service.store, current.config.audit.retention, current.config.history_retention);
    let done = tokio::select! {
        () = service.stop.gentle.cancelled() => return,
        done = work => done,
    };
    if let Err(error) = done {
        warn!(%error, "expired audit records are still there");
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn a_clock_that_was_set_is_not_believed_for_an_hour() {
        let (start, begun) = (DateTime::from_timestamp(1_700_000_000, 0).expect("in range"), Instant::now());
        let mut watch = ClockWatch::new(start, begun);
        let mut steady = |wall: i64, elapsed: u64| {
            watch.is_steady(start + TimeDelta::seconds(wall), begun + Duration::from_secs(elapsed))
        };
        assert!(steady(3600, 3600));
        assert!(steady(3700, 3605), "as it is corrected by NTP");
        assert!(!steady(40 * 86_400, 3610));
        assert!(!steady(3720, 3620), "back again");
        assert!(!steady(7200, 7100));
        assert!(steady(7400, 7300));
        assert!(!steady(0, 7310));
    }
}
