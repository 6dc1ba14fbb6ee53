//! Which schedules start their jobs now.
//!
//! A tick is met by the wall clock, since that is what a cron expression is about; from
//! then on time is counted that nobody can set. A clock that is set, or a machine that was
//! suspended, gives one start for all the ticks it jumped over, and repeats none.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{Config, Missed};

/// One moment by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The time of day; may jump in either direction.
    pub wall: DateTime<Utc>,
    /// Since some fixed moment; only ever grows.
    pub elapsed: Duration,
}

/// A job that is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The schedule.
    pub schedule: String,
    /// Its job.
    pub job: String,
    /// The tick that it is for; with several, the first of them.
    pub tick: DateTime<Utc>,
}

/// All schedules, and what each waits for.
#[derive(Debug, Default)]
pub struct Timetable {
    lines: BTreeMap<String, Line>,
    last: Option<DateTime<Utc>>,
}

#[derive(Debug)]
struct Line {
    config: Config,
    /// The tick that comes next by the wall clock.
    next: Option<DateTime<Utc>>,
    /// A tick that has come, and when its jitter is over.
    coming: Option<(DateTime<Utc>, Duration)>,
    /// Ticks up to here have come.
    met: DateTime<Utc>,
    /// When the last one did.
    met_at: Duration,
}

impl Timetable {
    /// Puts these schedules in force. Those that stay as they were go on waiting for what
    /// they waited for; one that changes keeps a tick that has come.
    pub fn set(&mut self, schedules: &BTreeMap<String, Config>, now: Moment) {
        // Ticks up to here have been looked at.
        let since = (*self.last.get_or_insert(now.wall)).min(now.wall);
        let mut before = std::mem::take(&mut self.lines);
        for (name, config) in schedules {
            let line = match before.remove(name) {
                Some(line) if line.config == *config => line,
                Some(line) => Line { next: config.next_after(since), config: config.clone(), ..line },
                None => Line::new(config.clone(), now),
            };
            self.lines.insert(name.clone(), line);
        }
    }

    /// What is to be started now. `draw` gives a number from 0 up to and without 1.
    pub fn due(&mut self, now: Moment, draw: &mut dyn FnMut() -> f64) -> Vec<Start> {
        let set_back = self.last.is_some_and(|last| now.wall < last);
        self.last = Some(now.wall);
        let due = |(name, line): (&String, &mut Line)| {
            if set_back {
                line.next = line.config.next_after(now.wall);
            }
            line.meet(now, draw);
            let tick = line.start(now)?;
            Some(Start { schedule: name.clone(), job: line.config.job.clone(), tick })
        };
        self.lines.iter_mut().filter(|(_, line)| line.config.enabled).filter_map(due).collect()
    }

    /// The names of all schedules, and up to when each has been seen to: a tick that still
    /// waits out its jitter is not among what was.
    pub fn seen(&self, now: DateTime<Utc>) -> impl Iterator<Item = (&str, DateTime<Utc>)> {
        self.lines.iter().map(move |(name, line)| {
            let before = |(tick, _): (DateTime<Utc>, _)| tick - TimeDelta::seconds(1);
            (name.as_str(), line.coming.map_or(now, before).min(now))
        })
    }
}

impl Line {
    fn new(config: Config, now: Moment) -> Self {
        Self { next: config.next_after(now.wall), config, coming: None, met: now.wall, met_at: now.elapsed }
    }

    /// Takes note of ticks that have come since the last time, as one.
    fn meet(&mut self, now: Moment, draw: &mut dyn FnMut() -> f64) {
        let Some(tick) = self.next.filter(|tick| *tick <= now.wall) else { return };
        self.next = self.config.next_after(now.wall);
        if self.is_repeated(tick, now) {
            return;
        }
        self.met = now.wall;
        self.met_at = now.elapsed;
        let jitter = self.config.jitter.min(self.half_gap(tick)).mul_f64(draw().clamp(0.0, 1.0));
        self.coming.get_or_insert((tick, now.elapsed + jitter));
    }

    /// Whether a clock that was set back only shows a tick again: it has come before, and
    /// not even half of the time to the next has really gone by since then.
    fn is_repeated(&self, tick: DateTime<Utc>, now: Moment) -> bool {
        tick <= self.met && now.elapsed.saturating_sub(self.met_at) < self.half_gap(tick)
    }

    fn half_gap(&self, tick: DateTime<Utc>) -> Duration {
        let next = self.config.next_after(tick);
        next.and_then(|next| (next - tick).to_std().ok()).map_or(Duration::MAX, |gap| gap / 2)
    }

    fn start(&mut self, now: Moment) -> Option<DateTime<Utc>> {
        let (tick, _) = self.coming.take_if(|(_, from)| *from <= now.elapsed)?;
        Some(tick)
    }
}

impl Config {
    /// Whether a start at `now` owes one run for ticks since the schedule was last seen to.
    pub fn owes_a_run(&self, seen: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
        let missed = || seen.and_then(|seen| self.next_after(seen)).is_some_and(|tick| tick <= now);
        self.enabled && self.missed == Missed::RunOnce && missed()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Expression, Overlap, Zone};
    use super::*;

    fn schedule(cron: &str, jitter: u64) -> Config {
        Config {
            job: "sweep".into(),
            cron: Expression::parse(cron).expect(cron),
            timezone: Zone::utc(),
            overlap: Overlap::Skip,
            missed: Missed::RunOnce,
            jitter: Duration::from_secs(jitter),
            enabled: true,
        }
    }

    fn at(clock: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(&format!("2026-03-02T{clock}Z")).expect(clock).to_utc()
    }

    /// A timetable with one schedule, and its two clocks.
    struct Bench {
        timetable: Timetable,
        now: Moment,
        draw: f64,
    }

    impl Bench {
        fn new(config: Config, clock: &str) -> Self {
            let now = Moment { wall: at(clock), elapsed: Duration::from_secs(1000) };
            let mut timetable = Timetable::default();
            timetable.set(&BTreeMap::from([("s".to_owned(), config)]), now);
            Self { timetable, now, draw: 0.5 }
        }

        fn due(&mut self) -> usize {
            let draw = self.draw;
            self.timetable.due(self.now, &mut || draw).len()
        }

        /// Lets so many seconds go by; the times of day at which something started.
        fn run(&mut self, seconds: u64) -> Vec<String> {
            let mut started = Vec::new();
            for _ in 0..seconds {
                self.now.wall += TimeDelta::seconds(1);
                self.now.elapsed += Duration::from_secs(1);
                started.extend((0..self.due()).map(|_| self.now.wall.format("%H:%M:%S").to_string()));
            }
            started
        }

        /// Somebody sets the clock.
        fn set(&mut self, clock: &str) {
            self.now.wall = at(clock);
        }
    }

    #[test]
    fn a_schedule_that_changes_loses_no_tick_and_starts_none_twice() {
        let set =
            |bench: &mut Bench, config| bench.timetable.set(&BTreeMap::from([("s".to_owned(), config)]), bench.now);
        let longer = |expression| Config { job: "other".into(), ..schedule(expression, 0) };
        // Within the second in which its tick has come, and nobody has looked yet.
        let mut bench = Bench::new(schedule("*/5 * * * *", 0), "11:58:30");
        assert_eq!(bench.run(89).len(), 0);
        (bench.now.wall, bench.now.elapsed) = (at("12:00:00"), bench.now.elapsed + Duration::from_secs(1));
        set(&mut bench, longer("*/5 * * * *"));
        assert_eq!(bench.due(), 1);
        set(&mut bench, longer("*/10 * * * *"));
        assert_eq!(bench.run(700), ["12:10:00"]);
        // While it waits out its jitter.
        let mut bench = Bench::new(schedule("*/5 * * * *", 60), "11:59:59");
        assert_eq!(bench.run(10).len(), 0);
        set(&mut bench, longer("*/5 * * * *"));
        assert_eq!(bench.run(60), ["12:00:30"]);
    }

    #[test]
    fn each_tick_starts_once() {
        let mut bench = Bench::new(schedule("*/5 * * * *", 0), "11:58:30");
        assert_eq!(bench.run(910), ["12:00:00", "12:05:00", "12:10:00"]);
        let mut every_second = Bench::new(schedule("* * * * * *", 0), "11:58:30");
        assert_eq!(every_second.run(100).len(), 100);
    }

    #[test]
    fn jitter_is_late_never_early_and_at_most_half_the_gap() {
        for (jitter, draw, starts) in [
            (60, 0.0, ["12:00:00", "12:05:00"]),
            (60, 0.5, ["12:00:30", "12:05:30"]),
            (60, 1.0, ["12:01:00", "12:06:00"]),
            (7200, 1.0, ["12:02:30", "12:07:30"]),
        ] {
            let mut bench = Bench { draw, ..Bench::new(schedule("*/5 * * * *", jitter), "11:59:00") };
            assert_eq!(bench.run(600), starts, "{jitter} {draw}");
        }
    }

    #[test]
    fn a_clock_set_forward_or_a_suspended_machine_gives_one_start() {
        let mut bench = Bench::new(schedule("*/5 * * * *", 0), "12:01:00");
        bench.set("22:02:00");
        assert_eq!(bench.run(200), ["22:02:01", "22:05:00"]);
    }

    #[test]
    fn a_clock_set_back_neither_silences_nor_repeats() {
        for (set_to, starts) in [
            // A second back: the tick was there already.
            ("11:59:59", vec!["12:05:00", "12:10:00"]),
            ("11:58:59", vec!["12:05:00", "12:10:00"]),
            // An hour back: it goes on at its interval.
            ("11:00:30", vec!["11:05:00", "11:10:00"]),
        ] {
            let mut bench = Bench::new(schedule("*/5 * * * *", 0), "11:59:30");
            assert_eq!(bench.run(31), ["12:00:00"]);
            bench.set(set_to);
            assert_eq!(bench.run(700)[..2], starts, "{set_to}");
        }
    }

    #[test]
    fn a_daily_job_is_not_repeated_by_an_hour_set_back_and_not_lost_by_a_day() {
        let mut bench = Bench::new(schedule("30 11 * * *", 0), "11:29:59");
        assert_eq!(bench.run(1800).len(), 1);
        bench.set("11:00:00");
        assert_eq!(bench.run(3600), Vec::<String>::new());
        bench.now.wall = DateTime::UNIX_EPOCH;
        assert_eq!(bench.run(86_400), ["11:30:00"]);
    }

    #[test]
    fn a_tick_that_waits_out_its_jitter_outlives_a_step_of_the_clock() {
        let mut bench = Bench { draw: 1.0, ..Bench::new(schedule("*/5 * * * *", 60), "11:59:58") };
        assert_eq!(bench.run(10), Vec::<String>::new());
        let seen: Vec<_> = bench.timetable.seen(bench.now.wall).map(|(_, seen)| seen).collect();
        assert_eq!(seen, [at("11:59:59")], "a stop now would leave the tick to the next start");
        bench.set("12:00:05");
        assert_eq!(bench.run(60), ["12:00:57"]);
    }

    #[test]
    fn any_time_of_day_is_survived() {
        let mut bench = Bench::new(schedule("*/5 * * * *", 30), "12:00:00");
        for year in ["1970-01-01", "2038-01-19", "2100-01-01", "0001-01-01", "2999-12-31"] {
            bench.now.wall = DateTime::parse_from_rfc3339(&format!("{year}T03:14:07Z")).expect("a time").to_utc();
            assert!(bench.run(700).len() >= 2, "{year}");
        }
    }

    #[test]
    fn a_schedule_that_a_reload_leaves_alone_goes_on_and_a_new_one_begins() {
        let mut bench = Bench { draw: 1.0, ..Bench::new(schedule("*/5 * * * *", 60), "11:59:58") };
        bench.run(10);
        let disabled = Config { enabled: false, ..schedule("* * * * *", 0) };
        let schedules = [("s", schedule("*/5 * * * *", 60)), ("t", schedule("* * * * *", 0)), ("off", disabled)];
        let now = bench.now;
        bench.timetable.set(&schedules.map(|(name, config)| (name.to_owned(), config)).into(), now);
        assert_eq!(bench.run(60), ["12:01:00", "12:01:00"], "s after its jitter, t at its first minute");
        bench.timetable.set(&BTreeMap::new(), bench.now);
        assert_eq!(bench.run(600), Vec::<String>::new());
    }

    #[test]
    fn ticks_missed_while_down_are_one_run_or_none() {
        let nightly = || schedule("30 2 * * *", 0);
        for (config, seen, now, owes) in [
            (nightly(), Some("02:00:00"), "09:00:00", true),
            (nightly(), Some("02:30:00"), "09:00:00", false),
            (nightly(), None, "09:00:00", false),
            // The clock was set back while down.
            (nightly(), Some("23:00:00"), "09:00:00", false),
            (Config { missed: Missed::Skip, ..nightly() }, Some("02:00:00"), "09:00:00", false),
            (Config { enabled: false, ..nightly() }, Some("02:00:00"), "09:00:00", false),
        ] {
            assert_eq!(config.owes_a_run(seen.map(at), at(now)), owes, "{seen:?} {now}");
        }
    }

    proptest! {
        /// Whatever is done to the wall clock, an hour of real time has no more starts of a
        /// five-minute schedule than ticks and settings of the clock, and no gap of silence
        /// longer than two intervals.
        #[test]
        fn no_setting_of_the_clock_floods_or_silences(
            steps in proptest::collection::vec((1_u64..900, -400_000_i64..400_000), 1..12),
            jitter in 0_u64..400,
            draw in 0.0..1.0_f64,
        ) {
            let mut bench = Bench { draw, ..Bench::new(schedule("*/5 * * * *", jitter), "12:00:00") };
            let (mut starts, mut since, mut longest, mut total) = (0, 0, 0, 0);
            for (wait, step) in &steps {
                for _ in 0..*wait {
                    let started = bench.run(1).len();
                    prop_assert!(started <= 1);
                    starts += started;
                    since = if started > 0 { 0 } else { since + 1 };
                    longest = longest.max(since);
                    total += 1;
                }
                bench.now.wall += TimeDelta::seconds(*step);
            }
            prop_assert!(starts <= total / 300 + 1 + steps.len(), "{} starts in {} s", starts, total);
            // A setting of the clock may come just before each tick: then there is none.
            prop_assert!(longest <= 450 + 600 * steps.len(), "silent for {} s", longest);
        }
    }
}
