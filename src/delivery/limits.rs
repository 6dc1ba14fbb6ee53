//! How long is waited for what (RFC 5321 section 4.5.3.2), as deadlines for whole replies
//! and not for single reads.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::step::{Broken, Step};

/// QUIT is never waited for longer: the outcome is known.
const QUIT: Duration = Duration::from_secs(2);

/// What the reply to a final dot that was sent may still take once its run is cancelled: a peer
/// that has the mail is mostly about to say so, and who is cancelled is to end within a second.
const LAST_WORD: Duration = Duration::from_millis(500);

/// How long content is watched before its rate is judged.
const RATE_WINDOW: Duration = Duration::from_mins(1);

/// Octets that must have gone in that time: 1 KiB a second.
const RATE_OCTETS: u64 = 60 * 1024;

/// The limits of one connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For every step, instead of the step's own.
    pub(super) timeout: Option<Duration>,
    /// For a transaction up to the final dot.
    pub(super) transaction: Duration,
}

impl Limits {
    fn of(self, step: Step) -> Duration {
        let own = match step {
            Step::Data => Duration::from_mins(2),
            Step::Content => Duration::from_mins(3),
            Step::EndOfData => Duration::from_mins(10),
            Step::Quit => QUIT,
            _ => Duration::from_mins(5),
        };
        match self.timeout {
            Some(timeout) if step == Step::Quit => timeout.min(QUIT),
            Some(timeout) => timeout,
            None => own,
        }
    }
}

/// What is running out on a connection.
pub(super) struct Deadlines {
    limits: Limits,
    sleep: Pin<Box<Sleep>>,
    step: Instant,
    step_limit: Duration,
    transaction: Option<Instant>,
    rate: Option<Rate>,
    /// The run was cancelled while it waits for this reply: until when, and by whom.
    last_word: Option<(Instant, String)>,
}

/// Octets of content since a point in time.
struct Rate {
    since: Instant,
    octets: u64,
}

impl Rate {
    /// Judges the time since the last judgement, once that is long enough.
    fn is_too_slow(&mut self, now: Instant) -> bool {
        if now < self.since + RATE_WINDOW {
            return false;
        }
        let octets = std::mem::take(&mut self.octets);
        self.since = now;
        octets < RATE_OCTETS
    }
}

impl Deadlines {
    /// With the banner to wait for.
    pub(super) fn new(limits: Limits) -> Self {
        let now = Instant::now();
        let mut deadlines = Self {
            limits,
            sleep: Box::pin(tokio::time::sleep_until(now)),
            step: now,
            step_limit: Duration::ZERO,
            transaction: None,
            rate: None,
            last_word: None,
        };
        deadlines.start(Step::Banner);
        deadlines
    }

    /// Starts the time for `step`.
    pub(super) fn start(&mut self, step: Step) {
        // What follows the final dot is waited for however long the transaction took.
        if matches!(step, Step::EndOfData | Step::Quit | Step::Rset) {
            self.transaction = None;
        }
        self.last_word = None;
        self.rate = (step == Step::Content).then(|| Rate { since: Instant::now(), octets: 0 });
        self.step_limit = self.limits.of(step);
        self.step = Instant::now() + self.step_limit;
        self.set();
    }

    /// Starts the time for a transaction, which ends with its final dot.
    pub(super) fn start_transaction(&mut self) {
        self.transaction = Some(Instant::now() + self.limits.transaction);
    }

    /// The run was cancelled: what is waited for now is waited for a little longer, from the
    /// first time that this is said on.
    pub(super) fn await_last_word(&mut self, by: &str) {
        if self.last_word.is_none() {
            self.last_word = Some((Instant::now() + LAST_WORD, by.to_owned()));
            self.set();
        }
    }

    /// Octets of content have gone: the time without progress starts again.
    pub(super) fn progress(&mut self, octets: usize) {
        if let Some(rate) = &mut self.rate {
            rate.octets += octets as u64;
        }
        self.step = Instant::now() + self.step_limit;
        self.set();
    }

    fn set(&mut self) {
        let window = self.rate.as_ref().map(|rate| rate.since + RATE_WINDOW);
        let last_word = self.last_word.as_ref().map(|(end, _)| *end);
        let others = [self.transaction, window, last_word];
        let first = others.into_iter().flatten().fold(self.step, Instant::min);
        self.sleep.as_mut().reset(first);
    }

    /// Ready with the reason once something has run out.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            if self.transaction.is_some_and(|end| end <= now) {
                return Poll::Ready(Broken::TransactionTooLong(self.limits.transaction));
            }
            if let Some((_, by)) = self.last_word.take_if(|(end, _)| *end <= now) {
                return Poll::Ready(Broken::Cancelled(by));
            }
            if self.step <= now {
                return Poll::Ready(Broken::TimedOut(self.step_limit));
            }
            if self.rate.as_mut().is_some_and(|rate| rate.is_too_slow(now)) {
                return Poll::Ready(Broken::TooSlow);
            }
            self.set();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn each_step_has_its_limit_and_a_timeout_replaces_all_but_that_of_quit() {
        let by_default = Limits { timeout: None, transaction: Duration::from_mins(30) };
        let set = Limits { timeout: Some(Duration::from_secs(20)), ..by_default };
        for (step, seconds, when_set) in [
            (Step::Banner, 300, 20),
            (Step::Rcpt, 300, 20),
            (Step::Data, 120, 20),
            (Step::Content, 180, 20),
            (Step::EndOfData, 600, 20),
            (Step::Quit, 2, 2),
        ] {
            let limits = (by_default.of(step).as_secs(), set.of(step).as_secs());
            assert_eq!(limits, (seconds, when_set), "{step:?}");
        }
    }

    #[test]
    fn content_is_too_slow_below_one_kibibyte_a_second_in_any_minute() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut rate = Rate { since: start, octets: 0 };
        assert!(!rate.is_too_slow(after(59)), "too early to say");
        rate.octets = RATE_OCTETS;
        assert!(!rate.is_too_slow(after(60)));
        rate.octets = RATE_OCTETS - 1;
        assert!(!rate.is_too_slow(after(119)));
        assert!(rate.is_too_slow(after(120)));
    }

    /// What runs out while `octets` go every seven seconds for a quarter of an hour.
    async fn sending(octets: usize) -> Option<Broken> {
        let mut deadlines = Deadlines::new(Limits { timeout: None, transaction: Duration::from_mins(30) });
        deadlines.start_transaction();
        deadlines.start(Step::Content);
        for _ in 0..130 {
            tokio::select! {
                broken = poll_fn(|cx| deadlines.poll(cx)) => return Some(broken),
                () = tokio::time::sleep(Duration::from_secs(7)) => deadlines.progress(octets),
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn content_that_crawls_is_given_up_within_minutes() {
        let started = Instant::now();
        assert_eq!(sending(8 * 1024).await, None, "more than 1 KiB a second");
        assert_eq!(started.elapsed(), Duration::from_secs(7 * 130));
        for octets in [6 * 1024, 1] {
            let started = Instant::now();
            assert_eq!(sending(octets).await, Some(Broken::TooSlow), "{octets} octets: never without progress");
            assert_eq!(started.elapsed(), RATE_WINDOW);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_transaction_ends_with_its_time_however_fast_it_goes() {
        let started = Instant::now();
        let mut deadlines = Deadlines::new(Limits { timeout: None, transaction: Duration::from_mins(3) });
        deadlines.start_transaction();
        deadlines.start(Step::Content);
        let broken = loop {
            tokio::select! {
                broken = poll_fn(|cx| deadlines.poll(cx)) => break broken,
                () = tokio::time::sleep(Duration::from_secs(1)) => deadlines.progress(1_000_000),
            }
        };
        assert_eq!((broken, started.elapsed().as_secs()), (Broken::TransactionTooLong(Duration::from_mins(3)), 180));
        // Behind the final dot only the reply's own time counts.
        deadlines.start(Step::EndOfData);
        let broken = poll_fn(|cx| deadlines.poll(cx)).await;
        assert_eq!((broken, started.elapsed().as_secs()), (Broken::TimedOut(Duration::from_mins(10)), 780));
    }
}
