//! Schedules: when a job is to run.
//!
//! [`Config::next_after`] is the whole decision and reads no clock. Daylight saving goes as
//! users of cron(8) expect: a schedule whose hour field begins with `*` fires at every
//! instant whose wall-clock time matches; any other fires once for each time, in a repeated
//! hour at the first, and for what lies in a gap once, at its end.
//!
//! [`Timetable`] says which schedules start their jobs now, and [`Flights`] what becomes of
//! that while a job still runs. Neither reads a clock: who asks brings the time.

mod expression;
mod flights;
mod pauses;
mod timetable;
mod zone;

use std::iter::successors;
use std::time::Duration;

use chrono::{DateTime, LocalResult, NaiveDateTime, SubsecRound, TimeDelta, Utc};

use crate::audit::{PauseView, ScheduleView};
use crate::store::Pause;
use crate::text::rfc3339_seconds;
use crate::yaml::{Fields, Node, Reading, boolean, choice, duration, nearest, text};

pub use expression::Expression;
pub use flights::{Asked, Flights};
pub use pauses::Pauses;
pub use timetable::{Moment, Start, Timetable};
pub use zone::{Zone, zone_data};

/// One file of the schedules' folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The job it starts.
    pub job: String,
    /// When, by the wall clock of the time zone.
    pub cron: Expression,
    /// An IANA zone.
    pub timezone: Zone,
    /// What a tick does while the job still runs.
    pub overlap: Overlap,
    /// What a start does about ticks missed while down.
    pub missed: Missed,
    /// Each tick starts up to so much late.
    pub jitter: Duration,
    /// Whether it ticks at all.
    pub enabled: bool,
}

/// What a tick does while the job still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// Nothing.
    Skip,
    /// One more run follows.
    Queue,
}

/// What a start does about ticks missed while down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// One run, however many there were.
    RunOnce,
    /// Nothing.
    Skip,
}

const OVERLAPS: [(&str, Overlap); 2] = [("skip", Overlap::Skip), ("queue", Overlap::Queue)];

const MISSED: [(&str, Missed); 2] = [("runOnce", Missed::RunOnce), ("skip", Missed::Skip)];

/// What stands for `value` in a file.
fn written<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> &'static str {
    words.iter().find(|(_, known)| known == value).map_or("", |(word, _)| word)
}

/// Further than any offset from UTC, and than any jump of a wall clock.
const DAY_AND_MORE: TimeDelta = TimeDelta::hours(50);

impl Config {
    /// Reads a schedule; `jobs` are the names that exist. Problems are noted in `reading`.
    pub fn read(node: &Node, jobs: &[&str], reading: &Reading) -> Option<Self> {
        let mut fields = Fields::of(node, "a schedule", reading)?;
        let job = fields.required("job", |node| known_job(&text(node)?, jobs));
        let cron = fields.required("cron", |node| Expression::parse(&text(node)?));
        let timezone = match fields.node("timezone") {
            Some(node) => reading.value(node, |node| zone(&text(node)?)),
            None => Some(Zone::utc()),
        };
        let overlap = fields.optional("overlap", choice(&OVERLAPS));
        let missed = fields.optional("missed", choice(&MISSED));
        let jitter = fields.optional("jitter", duration);
        let enabled = fields.optional("enabled", boolean);
        fields.finish();
        Some(Self {
            job: job?,
            cron: cron?,
            timezone: timezone?,
            overlap: overlap.unwrap_or(Overlap::Skip),
            missed: missed.unwrap_or(Missed::RunOnce),
            jitter: jitter.unwrap_or(Duration::ZERO),
            enabled: enabled.unwrap_or(true),
        })
    }

    /// As it is shown under its `name`, with its next five ticks after `now`; those of a paused
    /// one pass.
    pub fn view<'a>(&'a self, name: &'a str, now: DateTime<Utc>, pause: Option<&Pause>) -> ScheduleView<'a> {
        let ticks = successors(self.next_after(now), |last| self.next_after(*last));
        let in_zone = |time: DateTime<Utc>| time.with_timezone(&self.timezone.offset(time));
        ScheduleView {
            schedule: name,
            job: &self.job,
            cron: self.cron.as_str(),
            timezone: self.timezone.name(),
            enabled: self.enabled,
            overlap: written(&OVERLAPS, &self.overlap),
            missed: written(&MISSED, &self.missed),
            paused: pause.map(PauseView::from),
            next: ticks.take(5).map(|time| rfc3339_seconds(&in_zone(time), false)).collect(),
        }
    }

    /// The first tick after `now`, without jitter.
    pub fn next_after(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let now = now.trunc_subsecs(0);
        if self.cron.every_hour { self.next_match(now) } else { self.next_once(now) }
    }

    /// The smallest gap between ticks, as far as the first fifty of them tell; without a
    /// change of clocks nearby.
    pub fn smallest_gap(&self) -> Option<Duration> {
        let first = self.next_after(DateTime::UNIX_EPOCH)?;
        let ticks: Vec<_> = successors(Some(first), |tick| self.next_after(*tick)).take(50).collect();
        ticks.windows(2).filter_map(|pair| (pair[1] - pair[0]).to_std().ok()).min()
    }

    /// The next instant whose wall-clock time matches.
    fn next_match(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let ahead = self.first_instant_after(self.wall(now), now);
        // Before a repeated stretch is over, its beginning comes again.
        let again = match self.timezone.instants(self.wall(now)) {
            LocalResult::Ambiguous(first, second) if first == now => {
                let start = self.second_pass(first, second);
                self.first_instant_after(self.wall(start) - TimeDelta::seconds(1), start - TimeDelta::seconds(1))
            }
            _ => None,
        };
        ahead.into_iter().chain(again).min()
    }

    /// The first instant after `now` of a matching wall-clock time after `wall`.
    fn first_instant_after(&self, mut wall: NaiveDateTime, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        loop {
            wall = self.cron.next(wall)?;
            let instants = match self.timezone.instants(wall) {
                LocalResult::Single(only) => [Some(only), None],
                LocalResult::Ambiguous(first, second) => [Some(first), Some(second)],
                LocalResult::None => {
                    wall = self.wall(self.gap_end(wall)) - TimeDelta::seconds(1);
                    continue;
                }
            };
            if let Some(found) = instants.into_iter().flatten().find(|one| *one > now) {
                return Some(found);
            }
        }
    }

    /// The next of the instants that stand each for one matching wall-clock time; these
    /// never run against the wall clock.
    fn next_once(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut wall = self.wall(now);
        loop {
            wall = self.cron.next(wall)?;
            let instant = match self.timezone.instants(wall) {
                LocalResult::Single(instant) | LocalResult::Ambiguous(instant, _) => instant,
                LocalResult::None => self.gap_end(wall),
            };
            if instant > now {
                return Some(instant);
            }
        }
    }

    fn wall(&self, instant: DateTime<Utc>) -> NaiveDateTime {
        instant.with_timezone(&self.timezone.offset(instant)).naive_local()
    }

    /// The end of the gap in which `wall` lies.
    fn gap_end(&self, wall: NaiveDateTime) -> DateTime<Utc> {
        let about = wall.and_utc();
        first_instant(about - DAY_AND_MORE, about + DAY_AND_MORE, |instant| self.wall(instant) > wall)
    }

    /// When the wall clock was set back that shows one time both at `first` and at `second`.
    fn second_pass(&self, first: DateTime<Utc>, second: DateTime<Utc>) -> DateTime<Utc> {
        first_instant(first, second, |instant| self.timezone.offset(instant) == self.timezone.offset(second))
    }
}

/// The first whole second after `before` for which `holds`; it does not at `before`, does
/// at `after`, and changes once.
fn first_instant(
    mut before: DateTime<Utc>,
    mut after: DateTime<Utc>,
    holds: impl Fn(DateTime<Utc>) -> bool,
) -> DateTime<Utc> {
    while after - before > TimeDelta::seconds(1) {
        let middle = before + TimeDelta::seconds((after - before).num_seconds() / 2);
        if holds(middle) { after = middle } else { before = middle }
    }
    after
}

fn known_job(name: &str, jobs: &[&str]) -> Result<String, String> {
    if jobs.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(match nearest(name, jobs.iter().copied()) {
        Some(near) => format!("there is no job '{name}': did you mean '{near}'?"),
        None => format!("there is no job '{name}': known are {}", jobs.join(", ")),
    })
}

fn zone(name: &str) -> Result<Zone, String> {
    Zone::find(name).ok_or_else(|| {
        let near = || nearest(name, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()));
        // Of an abbreviation the nearest is another one, hours away.
        let near = || near().filter(|near| name.chars().count() > 4 || near.eq_ignore_ascii_case(name));
        let hint = offset_in_words(name).or_else(|| near().map(|near| format!("did you mean '{near}'?")));
        format!(
            "there is no time zone '{name}': {}",
            hint.unwrap_or_else(|| "write a place, such as Europe/Paris, or UTC".to_owned())
        )
    })
}

/// What to write in place of an offset such as `UTC+2`, `+02:00` or `GMT-5`: the signs of
/// `Etc/GMT-2` are the other way round. Of summer time none of them knows.
fn offset_in_words(name: &str) -> Option<String> {
    let offset = ["UTC", "GMT", "Z", ""].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name).trim();
    let sign = offset.chars().next().filter(|c| matches!(c, '+' | '-' | '\u{2212}'))?;
    let digits = offset.trim_start_matches(sign);
    let (hours, minutes) = digits.split_once(':').unwrap_or(match digits.len() {
        4 => digits.split_at_checked(2)?,
        _ => (digits, "0"),
    });
    let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let place = "write a place, such as Europe/Paris";
    let is_whole = minutes == 0 && hours <= if sign == '+' { 14 } else { 12 };
    Some(match (is_whole, sign) {
        (true, _) if hours == 0 => "write UTC".to_owned(),
        (true, '+') => format!("{place}, or 'Etc/GMT-{hours}', which is {hours} h ahead of UTC all the year"),
        (true, _) => format!("{place}, or 'Etc/GMT+{hours}', which is {hours} h behind UTC all the year"),
        (false, _) => place.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule(cron: &str, timezone: &str) -> Config {
        Config {
            job: "j".into(),
            cron: Expression::parse(cron).expect(cron),
            timezone: zone(timezone).expect(timezone),
            overlap: Overlap::Skip,
            missed: Missed::RunOnce,
            jitter: Duration::ZERO,
            enabled: true,
        }
    }

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(&format!("{text}:00Z")).expect(text).to_utc()
    }

    /// Each row: the expression, from when, and the next ticks.
    fn assert_ticks(zone: &str, rows: &[(&str, &str, &str)]) {
        for (cron, from, ticks) in rows {
            let schedule = schedule(cron, zone);
            let mut now = at(from);
            for tick in ticks.split(' ') {
                now = schedule.next_after(now).expect("it fires");
                assert_eq!(now, at(tick), "{cron} {zone}");
            }
        }
    }

    #[test]
    fn an_hour_is_left_out_or_comes_twice_in_paris() {
        // 2027-03-28: 02:00 becomes 03:00; 2026-10-25: 03:00 becomes 02:00; both at 01:00 UTC.
        assert_ticks(
            "Europe/Paris",
            &[
                ("30 2 * * *", "2027-03-27T12:00", "2027-03-28T01:00 2027-03-29T00:30 2027-03-30T00:30"),
                ("0,30 2 * * *", "2027-03-27T12:00", "2027-03-28T01:00 2027-03-29T00:00 2027-03-29T00:30"),
                ("30 * * * *", "2027-03-28T00:00", "2027-03-28T00:30 2027-03-28T01:30 2027-03-28T02:30"),
                ("30 2,3 * * *", "2027-03-27T12:00", "2027-03-28T01:00 2027-03-28T01:30 2027-03-29T00:30"),
                ("30 2 * * *", "2026-10-24T12:00", "2026-10-25T00:30 2026-10-26T01:30 2026-10-27T01:30"),
                ("*/15 * * * *", "2026-10-25T00:30", "2026-10-25T00:45 2026-10-25T01:00 2026-10-25T01:15"),
                ("30 * * * *", "2026-10-25T00:00", "2026-10-25T00:30 2026-10-25T01:30 2026-10-25T02:30"),
                ("10 */2 * * *", "2026-10-24T23:00", "2026-10-25T00:10 2026-10-25T01:10 2026-10-25T03:10"),
                ("0,40 1-3 * * *", "2026-10-25T00:30", "2026-10-25T00:40 2026-10-25T02:00 2026-10-25T02:40"),
            ],
        );
    }

    #[test]
    fn an_hour_is_left_out_or_comes_twice_in_new_york() {
        // 2026-03-08: 02:00 becomes 03:00 at 07:00 UTC; 2026-11-01: 02:00 becomes 01:00 at 06:00 UTC.
        assert_ticks(
            "America/New_York",
            &[
                ("15 2 * * *", "2026-03-07T12:00", "2026-03-08T07:00 2026-03-09T06:15 2026-03-10T06:15"),
                ("15 1 * * *", "2026-10-31T12:00", "2026-11-01T05:15 2026-11-02T06:15 2026-11-03T06:15"),
                ("15 * * * *", "2026-11-01T05:00", "2026-11-01T05:15 2026-11-01T06:15 2026-11-01T07:15"),
            ],
        );
    }

    #[test]
    fn half_an_hour_is_left_out_or_comes_twice_on_lord_howe() {
        // 2026-10-04: 02:00 becomes 02:30; 2026-04-05: 02:00 becomes 01:30.
        assert_ticks(
            "Australia/Lord_Howe",
            &[
                ("15 2 * * *", "2026-10-03T12:00", "2026-10-03T15:30 2026-10-04T15:15 2026-10-05T15:15"),
                ("45 1 * * *", "2026-04-04T12:00", "2026-04-04T14:45 2026-04-05T15:15 2026-04-06T15:15"),
                ("45 * * * *", "2026-04-04T14:00", "2026-04-04T14:45 2026-04-04T15:15 2026-04-04T16:15"),
            ],
        );
    }

    #[test]
    fn a_day_is_left_out_in_apia() {
        // There was no 2011-12-30: midnight after the 29th was the 31st, at 10:00 UTC.
        assert_ticks(
            "Pacific/Apia",
            &[
                ("0 12 * * *", "2011-12-29T12:00", "2011-12-29T22:00 2011-12-30T10:00 2011-12-30T22:00"),
                ("0 */6 30 * *", "2011-12-29T12:00", "2012-01-29T10:00 2012-01-29T16:00 2012-01-29T22:00"),
            ],
        );
    }

    #[test]
    fn days_of_month_and_week_are_alternatives_unless_one_begins_with_a_star() {
        // 2026-02-13 is a Friday.
        assert_ticks(
            "UTC",
            &[
                ("0 0 29 2 *", "2026-01-01T00:00", "2028-02-29T00:00 2032-02-29T00:00 2036-02-29T00:00"),
                ("0 0 13 * FRI", "2026-02-01T00:00", "2026-02-06T00:00 2026-02-13T00:00 2026-02-20T00:00"),
                ("0 0 */2 * FRI", "2026-02-01T00:00", "2026-02-13T00:00 2026-02-27T00:00 2026-03-13T00:00"),
            ],
        );
    }

    #[test]
    fn expressions_are_as_in_crontab() {
        for (written, from, tick) in [
            ("@hourly", "2026-01-01T00:10", "2026-01-01T01:00"),
            ("@weekly", "2026-01-01T00:10", "2026-01-04T00:00"),
            ("0 0 1 JAN *", "2026-01-01T00:10", "2027-01-01T00:00"),
            ("0 */5 * * * *", "2026-01-01T00:01", "2026-01-01T00:05"),
            ("0 0 * * 7", "2026-01-01T00:10", "2026-01-04T00:00"),
            ("0 0 L * *", "2026-02-01T00:00", "2026-02-28T00:00"),
        ] {
            assert_eq!(schedule(written, "UTC").next_after(at(from)), Some(at(tick)), "{written}");
        }
        for (written, why) in [
            ("", "too few fields"),
            ("* * * *", "it has 4 fields"),
            ("61 * * * *", "out of bounds; write five fields"),
            ("*/0 * * * *", "is not a cron expression"),
            ("* * * * * * *", "it has 7 fields"),
            ("0 0 30 2 *", "never fires"),
            ("0 0 31 4,6,9,11 *", "never fires"),
            ("@reboot", "the nicknames are"),
            ("every 5 minutes", "too few fields"),
            ("a b c d e", "is not a cron expression"),
        ] {
            let told = Expression::parse(written).expect_err(written);
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn a_zone_that_does_not_exist_is_told_with_the_nearest() {
        assert!(zone("Europe/Pariss").expect_err("no such").contains("did you mean 'Europe/Paris'?"));
    }

    #[test]
    fn an_offset_is_no_zone_and_what_to_write_is_said() {
        for (name, hint) in [
            ("UTC+2", "such as Europe/Paris, or 'Etc/GMT-2', which is 2 h ahead of UTC"),
            ("GMT-5", "'Etc/GMT+5', which is 5 h behind UTC"),
            ("UTC+02:00", "'Etc/GMT-2'"),
            ("+0200", "'Etc/GMT-2'"),
            ("-03", "'Etc/GMT+3'"),
            ("UTC+05:30", "write a place, such as Europe/Paris"),
            ("UTC+15", "write a place, such as Europe/Paris"),
            ("UTC-0", "write UTC"),
            ("europe/paris", "did you mean 'Europe/Paris'?"),
        ] {
            let told = zone(name).expect_err(name);
            assert!(told.contains(hint), "{told}");
        }
    }

    #[test]
    fn an_hour_that_is_left_out_at_midnight_or_in_the_evening_starts_no_loop() {
        assert_ticks(
            "America/Sao_Paulo",
            &[
                ("0 1 4 11 *", "2018-11-04T02:00", "2018-11-04T03:00 2019-11-04T04:00"),
                ("0 0 * * *", "2018-11-03T12:00", "2018-11-04T03:00 2018-11-05T02:00"),
            ],
        );
        assert_ticks(
            "America/Santiago",
            &[
                ("0 6 * * *", "2018-08-12T00:00", "2018-08-12T09:00 2018-08-13T09:00"),
                ("0 0 * * *", "2018-08-12T00:00", "2018-08-12T04:00 2018-08-13T03:00"),
                ("0 0 12 8 *", "2018-08-12T00:00", "2018-08-12T04:00 2019-08-12T04:00"),
                ("30 0 * * SUN", "2018-08-12T00:00", "2018-08-12T04:00 2018-08-19T03:30"),
            ],
        );
        assert_ticks(
            "Africa/Cairo",
            &[
                ("0 */2 * * *", "2025-04-24T19:10", "2025-04-24T20:00 2025-04-24T23:00 2025-04-25T01:00"),
                ("0 0 * * *", "2025-04-24T19:10", "2025-04-24T22:00 2025-04-25T21:00"),
            ],
        );
    }

    #[test]
    fn days_of_month_and_week_after_the_end_of_a_year() {
        assert_ticks(
            "UTC",
            &[
                ("0 0 */2 * 1", "2024-12-31T23:59", "2025-01-13T00:00"),
                ("0 0 15 * */3", "2024-12-31T23:59", "2025-01-15T00:00"),
                ("0 0 1,* * 1", "2024-12-31T23:59", "2025-01-01T00:00 2025-01-02T00:00"),
            ],
        );
    }

    /// By the definition, minute by minute, with nothing assumed of order.
    fn by_definition(schedule: &Config, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let minutes = |hours: i64| (-hours * 60..hours * 60).map(TimeDelta::minutes);
        let matches = |wall: NaiveDateTime| schedule.cron.matches(wall);
        let start = now.trunc_subsecs(0) - TimeDelta::seconds(now.timestamp() % 60);
        if schedule.cron.every_hour {
            let instants = minutes(60).map(|minute| start + minute);
            return instants.filter(|one| *one > now && matches(schedule.wall(*one))).min();
        }
        let walls = minutes(60).map(|minute| start.naive_utc() + minute).filter(|wall| matches(*wall));
        let instant = |wall: NaiveDateTime| match schedule.timezone.instants(wall).earliest() {
            Some(instant) => instant.to_utc(),
            None => schedule.gap_end(wall),
        };
        walls.map(instant).filter(|one| *one > now).min()
    }

    proptest! {
        #[test]
        fn the_next_tick_is_the_first_one_that_the_rule_has(
            zone in proptest::sample::select(vec!["Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"]),
            night in proptest::sample::select(vec!["2011-12-30T10:00", "2026-03-08T07:00", "2026-04-04T15:00", "2026-10-03T15:30", "2026-10-25T01:00", "2026-11-01T06:00", "2027-03-28T01:00"]),
            seconds in -100_000_i64..100_000,
            minute in proptest::sample::select(vec!["0", "30", "*/7", "15,45", "*"]),
            hour in proptest::sample::select(vec!["*", "*/3", "2", "1-2", "0-23"]),
        ) {
            let schedule = schedule(&format!("{minute} {hour} * * *"), zone);
            let now = at(night) + TimeDelta::seconds(seconds);
            let next = schedule.next_after(now);
            prop_assert!(next.is_some_and(|next| next > now));
            prop_assert_eq!(next, by_definition(&schedule, now));
        }
    }
}
