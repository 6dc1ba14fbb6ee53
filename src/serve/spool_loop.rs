//! Takes up what waits in the spool, for as long as the service runs.
//!
//! The loop is [`take_up`]; here is what the service wants of it: to be woken by each mail
//! that comes in, and every two seconds for what other processes put there. Local trouble
//! pauses the taking: the next mail would meet it too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::{info, warn};

use super::Service;
use crate::health::Status;
use crate::pipeline::Verdict;
use crate::spool::{Handover, News, Passed, Spool, Taker, take_up};
use crate::store::{Arrivals, Error, Place, Wanted};

/// How often is looked without being told.
const POLL: Duration = Duration::from_secs(2);

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Runs until a stop, and returns when no mail of the spool is active any more.
pub(super) async fn run(service: Arc<Service>) {
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut taker = SpoolTaker {
        trouble: Trouble::default(),
        may_probe: true,
        poll,
        arrivals: service.store.arrivals(),
        service: Arc::clone(&service),
    };
    take_up(&mut taker, &*service.store, &service.exclusion).await;
}

struct SpoolTaker {
    service: Arc<Service>,
    trouble: Trouble,
    /// After trouble one mail is tried, not all: it has not been taken yet.
    may_probe: bool,
    poll: Interval,
    arrivals: Arrivals,
}

impl Taker for SpoolTaker {
    fn spool(&self) -> Arc<Spool> {
        Arc::clone(&self.service.current().parts.spool)
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            from: Place::Spool,
            run: None,
            within: None,
            spacing: Vec::new(),
            limit: 1,
            suspects: false,
            only: None,
        }
    }

    fn allowance(&self) -> usize {
        match self.trouble.is_probing() {
            _ if self.trouble.is_pausing(self.service.clock.instant()) => 0,
            true => self.may_probe.into(),
            false => usize::MAX,
        }
    }

    fn takes_suspects(&self) -> bool {
        !self.trouble.is_probing()
    }

    fn handover(&self) -> Option<Handover> {
        Some(self.service.handover.clone())
    }

    fn is_over(&self, _exhausted: bool) -> bool {
        self.service.is_stopping()
    }

    fn has_given_up(&self) -> bool {
        self.service.is_stopping()
    }

    fn took(&mut self, mails: usize, idle: bool) {
        self.may_probe = false;
        self.service.health.spool.beat(self.service.clock.instant());
        if mails == 0 && idle {
            self.is_well();
        }
    }

    /// A mail that was left where it was may be in the spool again.
    fn ended(&mut self, passed: &Passed) -> bool {
        self.may_probe = true;
        match &passed.trouble {
            Some(cause) => self.in_trouble(cause),
            None if passed.tallies.is_empty() || self.service.is_stopping() => {}
            None if self.is_well() => return true,
            None => {}
        }
        passed.trouble.is_some() || passed.tallies.iter().any(|tally| tally.verdict == Verdict::Left)
    }

    fn failed(&mut self, error: Error) {
        self.in_trouble(&error.to_string());
    }

    fn suspects_are_through(&mut self) {
        self.service.suspects_taken.cancel();
    }

    async fn news(&mut self) -> News {
        let Self { service, poll, arrivals, .. } = self;
        let news = tokio::select! {
            biased;
            () = service.stop.gentle.cancelled() => News::Stop,
            _ = poll.tick() => News::Time,
            () = arrivals.next() => News::Mail,
        };
        self.may_probe = true;
        news
    }

    /// Frees what dead processes held, and says how the spool is.
    async fn look_around(&mut self) {
        let (service, now) = (Arc::clone(&self.service), self.service.clock.instant());
        if let Err(error) = service.store.reap().await {
            self.in_trouble(&error.to_string());
        }
        if service.current().parts.spool.is_behind() {
            service.health.spool.unwell(Status::Unhealthy, "results of attempts cannot be written");
        } else if !self.trouble.is_probing() {
            service.health.spool.well();
        }
        service.health.spool.beat(now);
    }
}

impl SpoolTaker {
    fn in_trouble(&mut self, cause: &str) {
        if let Some(pause) = self.trouble.begins(self.service.clock.instant()) {
            warn!(cause, "local trouble: no mail is taken up for {} s", pause.as_secs());
        }
        self.service.health.spool.unwell(Status::Unhealthy, cause);
    }

    /// Something went well; whether trouble ends with that.
    fn is_well(&mut self) -> bool {
        let ends = self.trouble.ends(self.service.clock.instant());
        if ends {
            info!("mail is taken up again");
            self.service.health.spool.well();
        }
        ends
    }
}

/// Trouble of our own: a pause, then one mail at a time until one goes well.
#[derive(Debug, Default)]
struct Trouble {
    pause_until: Option<Instant>,
    last_pause: Option<Duration>,
}

impl Trouble {
    /// Begins a pause, longer than the last, and says how long it is; trouble during a
    /// pause is the same trouble.
    fn begins(&mut self, now: Instant) -> Option<Duration> {
        if self.is_pausing(now) {
            return None;
        }
        let pause = self.last_pause.map_or(FIRST_PAUSE, |last| (last * 2).min(LONGEST_PAUSE));
        (self.pause_until, self.last_pause) = (Some(now + pause), Some(pause));
        Some(pause)
    }

    /// Something went well. What was under way before says nothing about a pause.
    fn ends(&mut self, now: Instant) -> bool {
        let ends = self.is_probing() && !self.is_pausing(now);
        if ends {
            *self = Self::default();
        }
        ends
    }

    fn is_pausing(&self, now: Instant) -> bool {
        self.pause_until.is_some_and(|until| now < until)
    }

    /// Nothing went well since the trouble.
    fn is_probing(&self) -> bool {
        self.last_pause.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_trouble_lasts_and_end_with_it() {
        let start = Instant::now();
        let mut trouble = Trouble::default();
        let (mut now, mut pauses) = (start, Vec::new());
        for _ in 0..8 {
            let pause = trouble.begins(now).expect("a pause").as_secs();
            assert_eq!(trouble.begins(now), None, "twice in one pause is once");
            assert!(!trouble.ends(now), "what ends well in a pause was begun before");
            pauses.push(pause);
            now += Duration::from_secs(pause);
            assert!(trouble.is_probing() && !trouble.is_pausing(now));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert!(trouble.ends(now) && !trouble.is_probing());
        assert_eq!(trouble.begins(now), Some(FIRST_PAUSE));
    }
}
