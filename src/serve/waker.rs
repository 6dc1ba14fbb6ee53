//! The second hand: tokio-cron-scheduler wakes the scheduler once a second, and nothing more.
//!
//! What is due is decided by our own timetable: the crate freezes the offset of a time
//! zone, lets runs of a job overlap, knows nothing of ticks missed while down, and drops
//! a job for good whose closure panics. Its closure here cannot, and has nothing to wait for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tracing::debug;

/// The crate waits by the wall clock. Where that is set back, nobody is to wait for it.
const AT_LATEST: Duration = Duration::from_secs(2);

/// Wakes whoever waits.
#[derive(Clone)]
pub(super) struct Waker {
    second: Arc<Notify>,
    /// Ends with the last clone.
    _scheduler: JobScheduler,
}

impl Waker {
    /// Begins to wake.
    ///
    /// # Errors
    /// A sentence where the scheduler cannot be started.
    pub(super) async fn start() -> Result<Self, String> {
        let second = Arc::new(Notify::new());
        let scheduler =
            every_second(Arc::clone(&second)).await.map_err(|error| format!("cannot start the scheduler: {error}"))?;
        Ok(Self { second, _scheduler: scheduler })
    }

    /// Waits for the next second.
    pub(super) async fn next(&self) {
        if tokio::time::timeout(AT_LATEST, self.second.notified()).await.is_err() {
            debug!("the scheduler did not wake: the clock was set, or the machine was busy");
        }
    }
}

async fn every_second(second: Arc<Notify>) -> Result<JobScheduler, JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    let job = Job::new_async("* * * * * *", move |_, _| {
        second.notify_one();
        Box::pin(std::future::ready(()))
    })?;
    scheduler.add(job).await?;
    scheduler.start().await?;
    Ok(scheduler)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_wakes_every_second() {
        let waker = Waker::start().await.expect("started");
        waker.second.notified().await;
        for _ in 0..2 {
            // Not by the time-out of `next`, which is twice as long.
            tokio::time::timeout(Duration::from_millis(1900), waker.second.notified()).await.expect("a second");
        }
    }
}
