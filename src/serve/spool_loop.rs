//! Takes up what waits in the spool, for as long as the service runs.
//!
//! Woken by each accepted mail, and every two seconds for what other processes put there.
//! Many mails are in hand at once, as in a sweep. Trouble of our own pauses the taking:
//! the next mail would meet it too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use super::Service;
use crate::health::Status;
use crate::jobs::InHand;
use crate::pipeline::Verdict;
use crate::spool::Passed;
use crate::store::{Claimed, Error, Place, Seq, Wanted};

/// How often is looked without being told.
const POLL: Duration = Duration::from_secs(2);

/// How often it is looked whether an attempt has begun, where that is waited for.
const PROOF: Duration = Duration::from_millis(50);

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Runs until a stop, and returns when nothing is in hand any more.
pub(super) async fn run(service: Arc<Service>) {
    let in_hand = InHand::new(&service.current().parts.spool);
    let mut spool = SpoolLoop { in_hand, trouble: Trouble::default(), more: true, suspects: true, service };
    spool.take_until_stop().await;
    while let Some(passed) = spool.in_hand.next().await {
        spool.ended(&passed);
    }
}

struct SpoolLoop {
    service: Arc<Service>,
    in_hand: InHand,
    trouble: Trouble,
    /// There may be mail to take.
    more: bool,
    /// There may be mails that were in hand when a process died.
    suspects: bool,
}

impl SpoolLoop {
    async fn take_until_stop(&mut self) {
        let service = Arc::clone(&self.service);
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !service.is_stopping() {
            self.take().await;
            tokio::select! {
                biased;
                () = service.stop.gentle.cancelled() => {}
                _ = poll.tick() => self.look_around().await,
                () = service.accepted.notified() => self.more = true,
                // At once, where a full batch was taken.
                () = std::future::ready(()), if self.may_go_on() => {}
                // Once an attempt has begun there is room for more.
                () = sleep(PROOF), if self.more && self.room() == 0 => {}
                Some(passed) = self.in_hand.next() => self.ended(&passed),
            }
            while let Some(passed) = self.in_hand.try_next() {
                self.ended(&passed);
            }
        }
    }

    fn may_go_on(&self) -> bool {
        self.more && self.room() > 0 && !self.trouble.is_probing()
    }

    fn room(&self) -> usize {
        self.in_hand.room(&self.service.current().parts.spool)
    }

    /// Frees what dead processes held, and has everything looked at anew.
    async fn look_around(&mut self) {
        let (service, now) = (Arc::clone(&self.service), self.service.clock.instant());
        if let Err(error) = service.store.reap(service.clock.now()).await {
            self.in_trouble(&error.to_string());
        }
        if service.current().parts.spool.is_behind() {
            service.health.spool.unwell(Status::Unhealthy, "results of attempts cannot be written");
        } else if !self.trouble.is_probing() {
            service.health.spool.well();
        }
        service.health.spool.beat(now);
        (self.more, self.suspects) = (true, true);
    }

    async fn take(&mut self) {
        let now = self.service.clock.instant();
        if !self.more || self.room() == 0 || self.trouble.is_pausing(now) {
            return;
        }
        if let Err(error) = self.take_all().await {
            self.in_trouble(&error.to_string());
        }
    }

    /// First the suspects, as long as they may be alone; then the others, and what is left
    /// of the suspects as any mail is.
    async fn take_all(&mut self) -> Result<(), Error> {
        self.examine_suspects().await?;
        self.take_others().await?;
        while self.may_take_suspects() {
            self.suspects = self.take_batch(true).await?;
        }
        self.service.suspects_taken.cancel();
        Ok(())
    }

    async fn take_others(&mut self) -> Result<(), Error> {
        self.more = self.take_batch(false).await?;
        if self.in_hand.is_empty() {
            self.is_well();
        }
        Ok(())
    }

    /// Whether there may be more.
    async fn take_batch(&mut self, suspects: bool) -> Result<bool, Error> {
        let beside = self.service.gate.beside().await;
        // After trouble one mail is tried, not all.
        let limit = if self.trouble.is_probing() { 1 } else { self.room() };
        let claimed = self.claim(limit, suspects).await?;
        let more = claimed.len() == limit;
        for claimed in claimed {
            self.in_hand.take(&self.service.current().parts.spool, claimed, &beside);
        }
        Ok(more)
    }

    fn may_take_suspects(&self) -> bool {
        self.suspects && self.room() > 0 && !self.service.is_stopping() && !self.trouble.is_probing()
    }

    /// One at a time and nothing beside, since the one that kills processes is to be found.
    async fn examine_suspects(&mut self) -> Result<(), Error> {
        let mut alone = self.service.gate.alone();
        while self.may_take_suspects() && !alone.is_over() {
            let Some(claimed) = self.claim(1, true).await?.pop() else {
                self.suspects = false;
                break;
            };
            alone.begin().await;
            let spool = Arc::clone(&self.service.current().parts.spool);
            if let Some(passed) = self.in_hand.examine(&spool, claimed).await {
                self.ended(&passed);
            }
            self.service.health.spool.beat(self.service.clock.instant());
        }
        Ok(())
    }

    async fn claim(&self, limit: usize, suspects: bool) -> Result<Vec<Claimed>, Error> {
        let wanted = Wanted {
            from: Place::Spool,
            run: None,
            upto: Seq(i64::MAX),
            spacing: Vec::new(),
            limit,
            suspects,
            only: None,
        };
        self.service.store.claim(&wanted, self.service.clock.now()).await
    }

    fn ended(&mut self, passed: &Passed) {
        match &passed.trouble {
            Some(cause) => self.in_trouble(cause),
            None if passed.tallies.is_empty() || self.service.is_stopping() => {}
            None => self.is_well(),
        }
        // It may be in the spool again.
        self.more |= passed.trouble.is_some() || passed.tallies.iter().any(|tally| tally.verdict == Verdict::Left);
    }

    fn in_trouble(&mut self, cause: &str) {
        if let Some(pause) = self.trouble.begins(self.service.clock.instant()) {
            warn!(cause, "trouble of our own: no mail is taken up for {} s", pause.as_secs());
        }
        self.service.health.spool.unwell(Status::Unhealthy, cause);
    }

    fn is_well(&mut self) {
        if self.trouble.ends(self.service.clock.instant()) {
            info!("mail is taken up again");
            self.service.health.spool.well();
            self.more = true;
        }
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
