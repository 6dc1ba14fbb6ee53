//! What is well and what is not, as those who do the work say it.
//!
//! Written by the parts of a running service, read by health checks and the watchdog.
//! Silence counts too: a part that has not been heard of for long is not well.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The parts of a running service that can be unwell.
#[derive(Debug)]
pub struct Health {
    /// Writing to the store.
    pub store: Part,
    /// Taking up what waits in the spool.
    pub spool: Part,
    /// Starting jobs by their schedules.
    pub schedules: Part,
    /// That what the files say is in force.
    pub configuration: Part,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// All is well.
    Healthy,
    /// It works, and somebody should look.
    Degraded,
    /// It does not work.
    Unhealthy,
}

/// What is said of one part.
#[derive(Debug)]
pub struct Part {
    state: Mutex<State>,
    /// How long it may be silent.
    patience: Duration,
}

#[derive(Debug)]
struct State {
    heard: Instant,
    status: Status,
    cause: Option<String>,
}

impl Health {
    /// All well as of `now`.
    pub fn new(now: Instant) -> Self {
        let part = |seconds| Part::new(Duration::from_secs(seconds), now);
        // A locked database keeps a writer waiting for ten seconds at a time.
        let configuration = Part::new(Duration::MAX, now);
        Self { store: part(60), spool: part(90), schedules: part(30), configuration }
    }
}

impl Part {
    fn new(patience: Duration, now: Instant) -> Self {
        Self { state: Mutex::new(State { heard: now, status: Status::Healthy, cause: None }), patience }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It goes on.
    pub fn beat(&self, now: Instant) {
        self.state().heard = now;
    }

    /// It is well again.
    pub fn well(&self) {
        let mut state = self.state();
        (state.status, state.cause) = (Status::Healthy, None);
    }

    /// It is not, for this reason; whether it was well before.
    pub fn unwell(&self, status: Status, cause: impl Into<String>) -> bool {
        let mut state = self.state();
        let before = std::mem::replace(&mut state.status, status);
        state.cause = Some(cause.into());
        before == Status::Healthy
    }

    /// Whether it was heard of lately.
    pub fn goes_on(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.state().heard) <= self.patience
    }

    /// How it is, and why.
    pub fn look(&self, now: Instant) -> (Status, Option<String>) {
        let state = self.state();
        let silent = now.saturating_duration_since(state.heard);
        if silent > self.patience {
            return (Status::Unhealthy, Some(format!("nothing was heard of it for {} s", silent.as_secs())));
        }
        (state.status, state.cause.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_silent_for_long_is_not_well() {
        let start = Instant::now();
        let part = Part::new(Duration::from_secs(30), start);
        let after = |seconds| start + Duration::from_secs(seconds);
        part.unwell(Status::Degraded, "why");
        assert_eq!(part.look(after(30)), (Status::Degraded, Some("why".to_owned())));
        part.well();
        assert_eq!(part.look(after(30)), (Status::Healthy, None));
        assert_eq!(part.look(after(31)).0, Status::Unhealthy);
        assert!(!part.goes_on(after(31)));
        part.beat(after(31));
        assert!(part.goes_on(after(60)));
    }
}
