//! Schedules: when a job is to run.
//!
//! [`Config::next_after`] is the whole decision and reads no clock. Daylight saving goes as
//! users of cron(8) expect: a schedule whose hour field begins with `*` fires at every
//! instant whose wall-clock time matches; any other fires once for each time, in a repeated
//! hour at the first, and for what lies in a gap once, at its end.
//!
//! [`Timetable`] says which schedules start their jobs now, and [`Flights`] what becomes of
//! that while a job still runs. Neither reads a clock: who asks brings the time.

mod flights;
mod timetable;

use std::iter::successors;
use std::time::Duration;

use chrono::{DateTime, LocalResult, NaiveDateTime, Offset, SubsecRound, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use crate::audit::ScheduleView;
use crate::text::rfc3339_seconds;
use crate::yaml::{Fields, Node, Reading, boolean, choice, duration, nearest, text};

pub use flights::{Asked, Flights};
pub use timetable::{Moment, Start, Timetable};

/// One file of the schedules' folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The job it starts.
    pub job: String,
    /// When, by the wall clock of the time zone.
    pub cron: Expression,
    /// An IANA zone.
    pub timezone: Tz,
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

/// A cron expression of five fields, or six with seconds first.
#[derive(Debug, Clone)]
pub struct Expression {
    written: String,
    pattern: Cron,
    /// The hour field begins with `*`.
    every_hour: bool,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Expression {}

/// The nicknames of crontab(5) that name a time.
const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

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
            None => Some(Tz::UTC),
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

    /// As it is shown under its `name`, with its next five ticks after `now`.
    pub fn view<'a>(&'a self, name: &'a str, now: DateTime<Utc>) -> ScheduleView<'a> {
        let ticks = successors(self.next_after(now), |last| self.next_after(*last));
        let in_zone = |time: DateTime<Utc>| time.with_timezone(&self.timezone);
        ScheduleView {
            schedule: name,
            job: &self.job,
            cron: self.cron.as_str(),
            timezone: self.timezone.name(),
            enabled: self.enabled,
            overlap: written(&OVERLAPS, &self.overlap),
            missed: written(&MISSED, &self.missed),
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
        let again = match self.timezone.from_local_datetime(&self.wall(now)) {
            LocalResult::Ambiguous(first, second) if first == now => {
                let start = self.second_pass(first.to_utc(), second.to_utc());
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
            let instants = match self.timezone.from_local_datetime(&wall) {
                LocalResult::Single(only) => [Some(only), None],
                LocalResult::Ambiguous(first, second) => [Some(first), Some(second)],
                LocalResult::None => {
                    wall = self.wall(self.gap_end(wall)) - TimeDelta::seconds(1);
                    continue;
                }
            };
            if let Some(found) = instants.into_iter().flatten().map(|one| one.to_utc()).find(|one| *one > now) {
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
            let instant = match self.timezone.from_local_datetime(&wall) {
                LocalResult::Single(only) => only.to_utc(),
                LocalResult::Ambiguous(first, _) => first.to_utc(),
                LocalResult::None => self.gap_end(wall),
            };
            if instant > now {
                return Some(instant);
            }
        }
    }

    fn wall(&self, instant: DateTime<Utc>) -> NaiveDateTime {
        instant.with_timezone(&self.timezone).naive_local()
    }

    /// The end of the gap in which `wall` lies.
    fn gap_end(&self, wall: NaiveDateTime) -> DateTime<Utc> {
        let about = wall.and_utc();
        first_instant(about - DAY_AND_MORE, about + DAY_AND_MORE, |instant| self.wall(instant) > wall)
    }

    /// When the wall clock was set back that shows one time both at `first` and at `second`.
    fn second_pass(&self, first: DateTime<Utc>, second: DateTime<Utc>) -> DateTime<Utc> {
        let offset = |instant: DateTime<Utc>| self.timezone.offset_from_utc_datetime(&instant.naive_utc()).fix();
        first_instant(first, second, |instant| offset(instant) == offset(second))
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

fn zone(name: &str) -> Result<Tz, String> {
    name.parse().map_err(|_| {
        let near = nearest(name, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()));
        let hint = near.map_or("write it as Europe/Paris or UTC".to_owned(), |near| format!("did you mean '{near}'?"));
        format!("there is no time zone '{name}': {hint}")
    })
}

impl Expression {
    /// Reads an expression; names of months and days, lists, ranges and steps as in
    /// crontab(5), and `L`, `W` and `#`.
    pub fn parse(written: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "'{written}' is not a cron expression: {why}; write five fields, such as '*/5 * * * *', or six with seconds first"
            )
        };
        let spelled = match written.trim() {
            name if name.starts_with('@') => {
                let found = NICKNAMES.iter().find(|(nickname, _)| *nickname == name);
                found.ok_or_else(|| wrong("the nicknames are @yearly, @monthly, @weekly, @daily and @hourly"))?.1
            }
            fields => fields,
        };
        let fields: Vec<_> = spelled.split_whitespace().collect();
        let [.., hour, day, _, weekday] = fields.as_slice() else { return Err(wrong("it has too few fields")) };
        if !(5..=6).contains(&fields.len()) {
            return Err(wrong(&format!("it has {} fields", fields.len())));
        }
        // cron(8): days of month and week are alternatives, unless one field begins with '*'.
        let both = [day, weekday].iter().any(|field| field.starts_with(['*', '?']));
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Optional).dom_and_dow(both).build();
        let pattern = parser.parse(spelled).map_err(|error| wrong(error.to_string().trim_end_matches('.')))?;
        let found = Self { written: written.to_owned(), pattern, every_hour: hour.starts_with('*') };
        // Without a year field, what does not fire after one leap day and the next never does.
        match found.next(DateTime::UNIX_EPOCH.naive_utc()) {
            Some(_) => Ok(found),
            None => Err(format!("'{written}' never fires: there is no such day")),
        }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// The next matching wall-clock time.
    fn next(&self, wall: NaiveDateTime) -> Option<NaiveDateTime> {
        self.pattern.find_next_occurrence(&wall.and_utc(), false).ok().map(|found| found.naive_utc())
    }
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

    /// By the definition, minute by minute, with nothing assumed of order.
    fn by_definition(schedule: &Config, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let minutes = |hours: i64| (-hours * 60..hours * 60).map(TimeDelta::minutes);
        let matches = |wall: NaiveDateTime| schedule.cron.pattern.is_time_matching(&wall.and_utc()).expect("a time");
        let start = now.trunc_subsecs(0) - TimeDelta::seconds(now.timestamp() % 60);
        if schedule.cron.every_hour {
            let instants = minutes(60).map(|minute| start + minute);
            return instants.filter(|one| *one > now && matches(schedule.wall(*one))).min();
        }
        let walls = minutes(60).map(|minute| start.naive_utc() + minute).filter(|wall| matches(*wall));
        let instant = |wall: NaiveDateTime| match schedule.timezone.from_local_datetime(&wall).earliest() {
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
