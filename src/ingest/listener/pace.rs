//! Whether a message comes in fast enough to be waited for.

use std::time::Duration;

use tokio::time::Instant;

use super::Limits;

/// Counts message octets over stretches of time.
#[derive(Debug)]
pub(super) struct Pace {
    /// When everything must be there.
    end: Instant,
    stretch: Duration,
    /// Octets that a stretch must bring.
    least: u64,
    stretch_end: Instant,
    octets: u64,
}

impl Pace {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        let stretch = limits.data_stretch;
        let least = u64::try_from(u128::from(limits.data_rate) * stretch.as_millis() / 1000).unwrap_or(u64::MAX);
        Self { end: now + limits.data, stretch, least, stretch_end: now + stretch, octets: 0 }
    }

    /// When to ask [`Pace::goes_on`] next.
    pub(super) fn deadline(&self) -> Instant {
        self.stretch_end.min(self.end)
    }

    /// So many octets came.
    pub(super) fn count(&mut self, octets: usize) {
        self.octets += octets as u64;
    }

    /// Takes out time that was ours and not the client's.
    pub(super) fn exclude(&mut self, time: Duration) {
        self.end += time;
        self.stretch_end += time;
    }

    /// At the deadline: whether enough came to begin another stretch.
    pub(super) fn goes_on(&mut self, now: Instant) -> bool {
        let enough = self.octets >= self.least && now < self.end;
        self.octets = 0;
        self.stretch_end = now + self.stretch;
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(stretch: u64, rate: u64, data: u64) -> Limits {
        let seconds = Duration::from_secs;
        Limits { data_stretch: seconds(stretch), data_rate: rate, data: seconds(data), ..Limits::default() }
    }

    #[tokio::test]
    async fn each_stretch_must_bring_its_octets_and_all_of_them_end() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(&limits(10, 5, 25), start);
        assert_eq!(pace.deadline(), at(10));
        pace.count(50);
        assert!(pace.goes_on(at(10)));
        pace.count(49);
        assert!(!pace.goes_on(at(20)), "one octet too few");
        pace.count(1000);
        assert_eq!(pace.deadline(), at(25), "the end comes before the end of the stretch");
        assert!(!pace.goes_on(at(25)));
    }

    #[tokio::test]
    async fn what_our_own_disk_takes_is_not_the_clients_time() {
        let start = Instant::now();
        let mut pace = Pace::new(&limits(10, 1, 30), start);
        pace.exclude(Duration::from_mins(1));
        assert_eq!(pace.deadline(), start + Duration::from_secs(70));
    }
}
