//! One run at a time of each job, and what a schedule wants that comes meanwhile.

use std::collections::BTreeMap;

use super::Overlap;

/// The jobs that run now.
#[derive(Debug, Default)]
pub struct Flights {
    /// Each with the schedule for which one more run is to follow.
    going: BTreeMap<String, Option<String>>,
}

/// What becomes of a wish to run a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It is to be started; [`Flights::ended`] must follow.
    Start,
    /// It runs; one more run follows.
    Queued,
    /// It runs, and that is enough.
    Skipped,
}

impl Flights {
    /// Asks to run `job` for `schedule`.
    pub fn ask(&mut self, job: &str, schedule: &str, overlap: Overlap) -> Asked {
        match (self.going.get_mut(job), overlap) {
            (None, _) => {
                self.going.insert(job.to_owned(), None);
                Asked::Start
            }
            (Some(_), Overlap::Skip) => Asked::Skipped,
            (Some(queued), Overlap::Queue) => {
                queued.get_or_insert_with(|| schedule.to_owned());
                Asked::Queued
            }
        }
    }

    /// A run of `job` has ended; the schedule for which it is to be started again at once.
    pub fn ended(&mut self, job: &str) -> Option<String> {
        let again = self.going.remove(job).flatten();
        if again.is_some() {
            self.going.insert(job.to_owned(), None);
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_runs_once_at_a_time_and_one_wish_waits() {
        let mut flights = Flights::default();
        assert_eq!(flights.ask("a", "s", Overlap::Skip), Asked::Start);
        assert_eq!(flights.ask("a", "s", Overlap::Skip), Asked::Skipped);
        assert_eq!(flights.ask("b", "s", Overlap::Queue), Asked::Start);
        assert_eq!(flights.ask("a", "s", Overlap::Queue), Asked::Queued);
        assert_eq!(flights.ask("a", "t", Overlap::Queue), Asked::Queued);
        assert_eq!(flights.ended("a").as_deref(), Some("s"), "one more");
        assert_eq!(flights.ask("a", "t", Overlap::Skip), Asked::Skipped, "which runs");
        assert_eq!(flights.ended("a"), None);
        assert_eq!(flights.ask("a", "t", Overlap::Skip), Asked::Start);
    }
}
