//! Schedules whose ticks pass.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::store::Pause;
use crate::text::{one_line, rfc3339_seconds};

/// A pause that goes on for longer than this was perhaps forgotten.
const LONG: TimeDelta = TimeDelta::hours(24);

/// The pauses that are known, by schedule.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Pauses(BTreeMap<String, Pause>);

impl Pauses {
    /// As the store has them.
    pub fn new(pauses: Vec<(String, Pause)>) -> Self {
        Self(pauses.into_iter().collect())
    }

    /// The pause of a schedule, where it has one at `now`.
    pub fn of(&self, schedule: &str, now: DateTime<Utc>) -> Option<&Pause> {
        self.0.get(schedule).filter(|pause| pause.until.is_none_or(|until| now < until))
    }

    /// What there is to say of those that may have been forgotten, of the schedules that there
    /// are.
    pub fn forgotten(&self, is_there: impl Fn(&str) -> bool, now: DateTime<Utc>) -> Vec<String> {
        let long = self.0.iter().filter(|(name, pause)| {
            is_there(name) && self.of(name, now).is_some() && now.signed_duration_since(pause.at) >= LONG
        });
        let words = |(name, pause): (&String, &Pause)| {
            let reason = pause.reason.as_ref().map_or(String::new(), |reason| format!(" ({})", one_line(reason)));
            format!(
                "schedule {name} has been paused since {} by {}{reason}",
                rfc3339_seconds(&pause.at, true),
                pause.by
            )
        };
        long.map(words).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + hours * 3600, 0).expect("in range")
    }

    fn pause(until: Option<DateTime<Utc>>) -> Pause {
        Pause { reason: Some("peer moves".to_owned()), until, by: "anna (1000)".to_owned(), at: at(0) }
    }

    #[test]
    fn a_pause_ends_at_its_end() {
        let pauses = Pauses::new(vec![("a".into(), pause(Some(at(2)))), ("b".into(), pause(None))]);
        let is_paused = |name, hours| pauses.of(name, at(hours)).is_some();
        assert_eq!(
            [is_paused("a", 1), is_paused("a", 2), is_paused("b", 1000), is_paused("c", 0)],
            [true, false, true, false]
        );
    }

    #[test]
    fn a_pause_of_a_day_may_have_been_forgotten() {
        let pauses = Pauses::new(vec![("a".into(), pause(Some(at(25)))), ("b".into(), pause(None))]);
        let named = |hours| pauses.forgotten(|name| name != "c", at(hours)).len();
        assert_eq!([named(23), named(24), named(25)], [0, 2, 1]);
        assert_eq!(
            pauses.forgotten(|name| name == "b", at(24)),
            ["schedule b has been paused since 2023-11-14T22:13:20Z by anna (1000) (peer moves)"]
        );
    }
}
