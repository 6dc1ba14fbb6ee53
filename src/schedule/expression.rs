//! Cron expressions: what crontab(5) allows and the parser does not know, and what is
//! allowed and does not mean what it seems.

use chrono::{DateTime, NaiveDateTime};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

/// A cron expression of five fields, or six with seconds first.
#[derive(Debug, Clone)]
pub struct Expression {
    written: String,
    pattern: Cron,
    /// The hour field begins with `*`.
    pub(super) every_hour: bool,
    /// What is worth a word.
    doubts: Vec<String>,
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

/// One of the fields.
struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    /// Names of values, from `least` on.
    names: &'static [&'static str],
    /// Whether the first value follows the last, so that a step that does not divide leaves
    /// a shorter gap there, which nobody means.
    comes_round: bool,
}

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

const FIELDS: [Field; 6] = [
    Field { name: "seconds", least: 0, most: 59, names: &[], comes_round: true },
    Field { name: "minutes", least: 0, most: 59, names: &[], comes_round: true },
    Field { name: "hours", least: 0, most: 23, names: &[], comes_round: true },
    Field { name: "days of the month", least: 1, most: 31, names: &[], comes_round: false },
    Field { name: "months", least: 1, most: 12, names: &MONTHS, comes_round: true },
    Field { name: "days of the week", least: 0, most: 6, names: &DAYS, comes_round: false },
];

impl Expression {
    /// Reads an expression; names of months and days, lists, ranges and steps as in
    /// crontab(5), and `L`, `W` and `#`. A range of months or days of the week may go over
    /// the end, as `FRI-MON`.
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
        if fields.first().is_some_and(|first| first.contains('=')) {
            return Err(wrong("a time zone stands in key 'timezone'"));
        }
        let [.., hour, day, _, weekday] = fields.as_slice() else { return Err(wrong("it has too few fields")) };
        if !(5..=6).contains(&fields.len()) {
            return Err(wrong(&format!("it has {} fields", fields.len())));
        }
        // cron(8): days of month and week are alternatives, unless one field begins with '*'.
        let both = [day, weekday].iter().any(|field| field.starts_with(['*', '?']));
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Optional).dom_and_dow(both).build();
        let kinds = &FIELDS[6 - fields.len()..];
        let plain: Result<Vec<_>, _> = kinds.iter().zip(&fields).map(|(kind, field)| kind.plain(field)).collect();
        let plain = plain.map_err(|why| wrong(&why))?.join(" ");
        let pattern = parser.parse(&plain).map_err(|error| wrong(error.to_string().trim_end_matches('.')))?;
        let doubts = kinds.iter().zip(&fields).flat_map(|(kind, field)| kind.doubts(field)).collect();
        let found = Self { written: written.to_owned(), pattern, every_hour: hour.starts_with('*'), doubts };
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

    /// Sentences about what does not mean what it seems.
    pub fn doubts(&self) -> &[String] {
        &self.doubts
    }

    /// The next matching wall-clock time.
    pub(super) fn next(&self, wall: NaiveDateTime) -> Option<NaiveDateTime> {
        self.pattern.find_next_occurrence(&wall.and_utc(), false).ok().map(|found| found.naive_utc())
    }

    #[cfg(test)]
    pub(super) fn matches(&self, wall: NaiveDateTime) -> bool {
        self.pattern.is_time_matching(&wall.and_utc()).expect("a time")
    }
}

impl Field {
    /// The field without what crontab(5) allows and the parser does not know.
    fn plain(&self, written: &str) -> Result<String, String> {
        let parts: Vec<_> = written.split(',').collect();
        let plain = |part: &&str| {
            let (range, step) = part.split_once('/').map_or((*part, None), |(range, step)| (range, Some(step)));
            if !range.is_empty() {
                self.check(range, step)?;
            }
            match range {
                "" => Err(format!("a part of its {} is empty", self.name)),
                "*" if parts.len() > 1 => Ok(self.with_step(step)),
                _ => Ok(self.over_the_end(range, step)?.unwrap_or_else(|| (*part).to_owned())),
            }
        };
        Ok(parts.iter().map(plain).collect::<Result<Vec<_>, _>>()?.join(","))
    }

    /// The words for what the parser refuses in its own.
    fn check(&self, range: &str, step: Option<&str>) -> Result<(), String> {
        if step.is_some_and(|step| !step.parse().is_ok_and(|step: u32| step > 0)) {
            return Err(format!("the step of {range} is no number above zero"));
        }
        // `15W`, `5L`, `1#2`, and `?` are for days.
        let of_days = self.name.starts_with("days") && range.contains(['L', 'W', '#', '?', 'l', 'w']);
        let is_known = |written: &str| {
            let digits = written.bytes().all(|octet| octet.is_ascii_digit());
            let within = |value: &u32| (self.least..=self.most + self.sunday()).contains(value);
            self.value(written).filter(within).is_some_and(|_| digits || !self.names.is_empty())
        };
        let fits = range == "*" || of_days || range.split('-').all(is_known) && range.matches('-').count() < 2;
        let names = match self.names {
            [first, .., last] => format!(", or {first} to {last}"),
            _ => String::new(),
        };
        let (name, least, most) = (self.name, self.least, self.most + self.sunday());
        if fits {
            Ok(())
        } else {
            Err(format!("its {name} are {least} to {most}{names}, and '{range}' is out of bounds"))
        }
    }

    /// One more where Sunday may be 7.
    fn sunday(&self) -> u32 {
        u32::from(self.least == 0 && !self.names.is_empty())
    }

    fn with_step(&self, step: Option<&str>) -> String {
        let step = step.map(|step| format!("/{step}")).unwrap_or_default();
        format!("{}-{}{step}", self.least, self.most)
    }

    /// The values of a range that goes over the end; `None` of any other.
    fn over_the_end(&self, range: &str, step: Option<&str>) -> Result<Option<String>, String> {
        let Some((first, last)) = self.bounds(range).filter(|(first, last)| first > last) else { return Ok(None) };
        if self.names.is_empty() {
            let Self { name, least: zero, most, .. } = self;
            return Err(format!("the range {range} of its {name} runs backwards: write {first}-{most},{zero}-{last}"));
        }
        let values = (first..=self.most).chain(self.least..=last);
        let step = step.map_or(Some(1), |step| step.parse().ok().filter(|step| *step > 0));
        let step = step.ok_or_else(|| format!("the step of {range} is no number above zero"))?;
        Ok(Some(values.step_by(step).map(|value| value.to_string()).collect::<Vec<_>>().join(",")))
    }

    /// The first and the last value of a range; Sunday may be 7.
    fn bounds(&self, range: &str) -> Option<(u32, u32)> {
        let (first, last) = range.split_once('-')?;
        let most = self.most + self.sunday();
        let value = |written| self.value(written).filter(|value| (self.least..=most).contains(value));
        Some((value(first)?, value(last)?))
    }

    fn value(&self, written: &str) -> Option<u32> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(written));
        let named = named.and_then(|at| u32::try_from(at).ok()).map(|at| at + self.least);
        named.or_else(|| written.parse().ok())
    }

    /// Sentences about steps that do not mean what they seem.
    fn doubts(&self, written: &str) -> Vec<String> {
        written.split(',').filter_map(|part| self.doubt(part)).collect()
    }

    fn doubt(&self, part: &str) -> Option<String> {
        let (range, step) = part.split_once('/')?;
        let step: u32 = step.parse().ok()?;
        let (first, last) = match range {
            "*" => (self.least, self.most),
            _ => self.bounds(range).or_else(|| Some((self.value(range)?, self.most)))?,
        };
        let Self { name, least, most, .. } = self;
        let last = if first > last { last + most + 1 - least } else { last };
        if range != "*" && !range.contains('-') {
            return Some(format!(
                "'{part}' in the {name} is read as {first}-{most}/{step}; cron(8) reads {first} alone: write which is meant"
            ));
        }
        if first.checked_add(step).is_none_or(|second| second > last) {
            return Some(format!("'{part}' in the {name} is {first} alone: the step is longer than the range"));
        }
        let values = last + 1 - least;
        let is_uneven = self.comes_round && range == "*" && !values.is_multiple_of(step);
        let shorter = values % step.max(1);
        is_uneven.then(|| {
            format!(
                "'{part}' in the {name} is not every {step}: it begins anew at {least}, {shorter} after the one before"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each expression fires at, from a Thursday on.
    fn ticks(written: &str, count: usize) -> String {
        let expression = Expression::parse(written).expect(written);
        let start = DateTime::parse_from_rfc3339("2026-01-01T00:00:30Z").expect("a time").naive_utc();
        let ticks = std::iter::successors(Some(start), |tick| expression.next(*tick)).skip(1).take(count);
        ticks.map(|tick| tick.format("%a %b %-d %H:%M").to_string()).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn forms_of_crontab_that_the_parser_does_not_know_are_read() {
        for (written, like) in [
            ("0 0 1,* * *", "0 0 1-31 * *"),
            ("5,*/20 * * * *", "5,0-59/20 * * * *"),
            ("0 0 * * FRI-MON", "0 0 * * 5,6,0,1"),
            ("0 0 * * fri-mon", "0 0 * * 5,6,0,1"),
            ("0 0 * * 5-1", "0 0 * * 5,6,0,1"),
            ("0 0 * * FRI-MON/2", "0 0 * * 5,0"),
            ("0 0 * * TUE-SUN", "0 0 * * 2,3,4,5,6,0"),
            ("0 0 * * SUN-TUE", "0 0 * * 0,1,2"),
            ("0 0 * * 7-2", "0 0 * * 0,1,2"),
            ("0 0 * * 6-0", "0 0 * * 6,0"),
            ("0 0 * * WED,SAT-SUN", "0 0 * * 3,6,7"),
            ("0 0 1 NOV-FEB *", "0 0 1 11,12,1,2 *"),
        ] {
            assert_eq!(ticks(written, 9), ticks(like, 9), "{written}");
        }
    }

    #[test]
    fn days_of_month_and_week_are_as_in_crontab() {
        for (written, expected) in [
            // A field that begins with a star restricts the other, one with a star within does not.
            ("0 0 */2 * 1", "Mon Jan 5 00:00, Mon Jan 19 00:00"),
            ("0 0 1,* * 1", "Fri Jan 2 00:00, Sat Jan 3 00:00"),
            ("0 0 15 * */3", "Sun Feb 15 00:00, Sun Mar 15 00:00"),
            ("0 0 13 * 1", "Mon Jan 5 00:00, Mon Jan 12 00:00, Tue Jan 13 00:00"),
        ] {
            assert_eq!(ticks(written, expected.split(", ").count()), expected, "{written}");
        }
    }

    #[test]
    fn what_is_no_form_of_crontab_is_said() {
        for (written, why) in [
            ("50-10 * * * *", "the range 50-10 of its minutes runs backwards: write 50-59,0-10"),
            ("0 22-3 * * *", "write 22-23,0-3"),
            ("0 0 25-5 * *", "write 25-31,1-5"),
            ("1,,2 * * * *", "a part of its minutes is empty"),
            (", * * * *", "a part of its minutes is empty"),
            ("/5 * * * *", "a part of its minutes is empty"),
            ("0 0 * * FRI-MON/0", "no number above zero"),
            ("0 0 * * 0-8", "is not a cron expression"),
            ("0 0 * * 9-1", "is not a cron expression"),
            ("0~59 * * * *", "its minutes are 0 to 59, and '0~59' is out of bounds"),
            ("60 * * * *", "its minutes are 0 to 59, and '60' is out of bounds"),
            ("+5 * * * *", "and '+5' is out of bounds"),
            ("-1 * * * *", "and '-1' is out of bounds"),
            ("1-2-3 * * * *", "and '1-2-3' is out of bounds"),
            ("* 24 * * *", "its hours are 0 to 23, and '24' is out of bounds"),
            ("0 0 0 * *", "its days of the month are 1 to 31, and '0' is out of bounds"),
            ("0 0 1 13 *", "its months are 1 to 12, or JAN to DEC, and '13' is out of bounds"),
            ("0 0 1 January *", "and 'January' is out of bounds"),
            ("0 0 * * Monday", "its days of the week are 0 to 7, or SUN to SAT, and 'Monday' is out of bounds"),
            ("60 0 0 * * *", "and '60' is out of bounds"),
            ("*/0 * * * *", "the step of * is no number above zero"),
            ("*/a * * * *", "the step of * is no number above zero"),
            ("1/2/3 * * * *", "the step of 1 is no number above zero"),
            ("H * * * *", "and 'H' is out of bounds"),
            ("? * * * *", "and '?' is out of bounds"),
            ("TZ=UTC 0 0 * * *", "a time zone stands in key 'timezone'"),
        ] {
            let told = Expression::parse(written).expect_err(written);
            assert!(told.contains(why), "{written}: {told}");
        }
    }

    #[test]
    fn steps_that_do_not_mean_what_they_seem_are_told_of() {
        for (written, doubts) in [
            ("*/5 * * * *", &[][..]),
            ("10-50/7 */6 */2 */3 */2", &[]),
            ("*/90 * * * *", &["'*/90' in the minutes is 0 alone"]),
            ("*/45 * * * *", &["'*/45' in the minutes is not every 45: it begins anew at 0, 15 after"]),
            ("0 */5 * * *", &["'*/5' in the hours is not every 5: it begins anew at 0, 4 after"]),
            ("0 0 1 */5 *", &["'*/5' in the months is not every 5: it begins anew at 1, 2 after"]),
            ("0 */24 * * *", &["'*/24' in the hours is 0 alone"]),
            ("0 0 */40 * *", &["'*/40' in the days of the month is 1 alone"]),
            ("0 0 * * */8", &["'*/8' in the days of the week is 0 alone"]),
            ("0/7 * * * *", &["'0/7' in the minutes is read as 0-59/7; cron(8) reads 0 alone"]),
            ("*/90 */30 * * * *", &["'*/90' in the seconds is 0 alone"]),
            ("41-59/24 5 * * *", &["'41-59/24' in the minutes is 41 alone"]),
        ] {
            let found = Expression::parse(written).expect(written).doubts;
            assert_eq!(found.len(), doubts.len(), "{written}: {found:?}");
            assert!(found.iter().zip(doubts).all(|(found, expected)| found.starts_with(expected)), "{found:?}");
        }
    }
}
