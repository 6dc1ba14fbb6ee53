//! Pictures of numbers: SVG that stands in a page, with a title and a description for who
//! cannot see it.
//!
//! Nothing but attributes, since the policy of the page allows no style of its own; colours
//! are those of the style sheet, by class. A number above zero can always be seen, however
//! large its neighbours are.

use chrono::TimeDelta;

use crate::store::{Period, Recipients, Time};

/// Height of a picture in its own units; what is not zero has [`LEAST`] of it.
const HEIGHT: f64 = 100.0;
const LEAST: f64 = 2.0;

/// Width that a column has, and that it fills.
const STEP: usize = 10;
const FILLED: usize = 8;

/// Mails by how long ago they were accepted: the bands of [`ages`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Band {
    /// Such as `1 h to 4 h`.
    pub label: &'static str,
    /// How many.
    pub mails: u64,
}

/// The bands with the hours that each begins at.
const BANDS: [(i64, &str); 8] = [
    (0, "under 1 h"),
    (1, "1 h to 4 h"),
    (4, "4 h to 12 h"),
    (12, "12 h to 1 d"),
    (24, "1 d to 2 d"),
    (48, "2 d to 4 d"),
    (96, "4 d to 7 d"),
    (168, "over 7 d"),
];

/// The last `number` periods of `hours` each, the one that is going last; those without any
/// outcome too.
pub fn timeline(history: &[Period], now: Time, hours: u32, number: u32) -> Vec<Period> {
    let (length, going) = (i64::from(hours), hour_of(now).div_euclid(i64::from(hours)));
    let first = going + 1 - i64::from(number);
    let mut periods: Vec<_> = (first..=going)
        .map(|place| Period { begins: time_of(place * length), hours, recipients: Recipients::default() })
        .collect();
    for period in history {
        let place = hour_of(period.begins).div_euclid(length) - first;
        let Some(sum) = usize::try_from(place).ok().and_then(|place| periods.get_mut(place)) else { continue };
        sum.recipients = added(sum.recipients, period.recipients);
    }
    periods
}

/// When the first of the last `number` periods of so many hours begins: since when the history
/// of a [`timeline`] is needed.
pub fn timeline_since(now: Time, hours: u32, number: u32) -> Time {
    now - TimeDelta::hours(i64::from(hours) * i64::from(number))
}

fn hour_of(time: Time) -> i64 {
    time.timestamp().div_euclid(3600)
}

fn time_of(hour: i64) -> Time {
    Time::from_timestamp(hour.saturating_mul(3600), 0).unwrap_or_default()
}

fn added(one: Recipients, other: Recipients) -> Recipients {
    Recipients {
        delivered: one.delivered.saturating_add(other.delivered),
        deferred: one.deferred.saturating_add(other.deferred),
        failed: one.failed.saturating_add(other.failed),
    }
}

/// All of some periods.
pub fn recipients_of(periods: &[Period]) -> Recipients {
    periods.iter().fold(Recipients::default(), |sum, period| added(sum, period.recipients))
}

/// A period as it is called: `28 Nov 14:00`, or `28 Nov` of a day.
pub fn period_name(period: &Period) -> String {
    period.begins.format(if period.hours < 24 { "%-d %b %H:%M" } else { "%-d %b" }).to_string()
}

/// What became of recipients, period by period: failures at the bottom, what was delivered on top.
pub fn outcome_bars(periods: &[Period], title: &str) -> String {
    let columns: Vec<_> = periods
        .iter()
        .map(|period| {
            let Recipients { delivered, deferred, failed } = period.recipients;
            let label = format!("{}: {}", period_name(period), outcome_words(period.recipients));
            Column { label, parts: vec![("bad", failed), ("wait", deferred), ("good", delivered)] }
        })
        .collect();
    let hours = periods.first().map_or("", |period| if period.hours < 24 { " in an hour" } else { " in a day" });
    let most = format!("At most {}{hours} (UTC). In all {}.", most(&columns), outcome_words(recipients_of(periods)));
    bars(&columns, title, &most)
}

fn outcome_words(recipients: Recipients) -> String {
    let Recipients { delivered, deferred, failed } = recipients;
    format!("{delivered} delivered, {deferred} deferred, {failed} failed")
}

/// Mails by age, of the hours in which they were accepted: exact to the hour.
pub fn ages(accepted: &[(Time, u64)], now: Time) -> Vec<Band> {
    let mut bands: Vec<_> = BANDS.iter().map(|(_, label)| Band { label, mails: 0 }).collect();
    for (hour, mails) in accepted {
        // A clock that was set back makes nothing older than now.
        let age = (hour_of(now) - hour_of(*hour)).max(0);
        let place = BANDS.iter().rposition(|(from, _)| *from <= age).unwrap_or(0);
        bands[place].mails = bands[place].mails.saturating_add(*mails);
    }
    bands
}

/// Mails by age.
pub fn age_bars(bands: &[Band], title: &str) -> String {
    let columns: Vec<_> = bands
        .iter()
        .map(|band| Column { label: format!("{}: {}", band.label, band.mails), parts: vec![("wait", band.mails)] })
        .collect();
    let filled = bands.iter().filter(|band| band.mails > 0);
    let told: Vec<_> = filled.map(|band| format!("{} {}", band.mails, band.label)).collect();
    let description = if told.is_empty() { "None.".to_owned() } else { format!("{}.", told.join(", ")) };
    bars(&columns, title, &description)
}

/// How many came on each of the last days, today last: small enough for a line of a table.
pub fn sparkline(days: &[u64], title: &str) -> String {
    let most = days.iter().copied().max().unwrap_or(0).into();
    let mut path = String::new();
    for (place, number) in days.iter().enumerate() {
        let height = height_of(*number, most) * 0.18;
        if *number > 0 {
            path.push_str(&format!("M{} 20v-{height:.1}h4v{height:.1}z", place * 5));
        }
    }
    let width = days.len() * 5;
    let numbers: Vec<_> = days.iter().map(u64::to_string).collect();
    format!(
        "<svg class=\"spark\" role=\"img\" viewBox=\"0 0 {width} 21\" width=\"{width}\" height=\"21\">\
         <title>{}</title><desc>{}</desc><path class=\"line\" d=\"M0 20.5h{width}\"/><path d=\"{path}\"/></svg>",
        escaped(title),
        numbers.join(" "),
    )
}

/// One bar, with what it is made of from the bottom up.
struct Column {
    label: String,
    parts: Vec<(&'static str, u64)>,
}

impl Column {
    fn total(&self) -> u128 {
        self.parts.iter().map(|(_, number)| u128::from(*number)).sum()
    }
}

fn most(columns: &[Column]) -> u128 {
    columns.iter().map(Column::total).max().unwrap_or(0)
}

/// How high a number stands where `most` is the highest, with room for what is too small to
/// be seen.
#[expect(clippy::cast_precision_loss, reason = "nobody sees the difference")]
fn height_of(number: u64, most: u128) -> f64 {
    if number == 0 { 0.0 } else { (number as f64 / most.max(1) as f64 * (HEIGHT - 2.0 * LEAST)).max(LEAST) }
}

fn bars(columns: &[Column], title: &str, description: &str) -> String {
    let (most, width) = (most(columns), columns.len() * STEP);
    let mut svg = format!(
        "<svg class=\"bars\" role=\"img\" viewBox=\"0 0 {width} 101\" preserveAspectRatio=\"none\">\
         <title>{}</title><desc>{}</desc>",
        escaped(title),
        escaped(description),
    );
    for (place, column) in columns.iter().enumerate() {
        svg.push_str(&bar(column, place * STEP + 1, most));
    }
    svg + &format!("<path class=\"line\" d=\"M0 100.5h{width}\"/></svg>")
}

/// A bar, or nothing for nothing.
fn bar(column: &Column, left: usize, most: u128) -> String {
    if column.total() == 0 {
        return String::new();
    }
    let mut svg = format!("<g><title>{}</title>", escaped(&column.label));
    let mut top = HEIGHT;
    for (class, number) in column.parts.iter().filter(|(_, number)| *number > 0) {
        let height = height_of(*number, most);
        top -= height;
        svg.push_str(&format!(
            "<rect class=\"{class}\" x=\"{left}\" y=\"{top:.1}\" width=\"{FILLED}\" height=\"{height:.1}\"/>"
        ));
    }
    svg + "</g>"
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Time {
        time_of(480_000 + hours)
    }

    fn period(hours_ago: i64, hours: u32, delivered: u64, deferred: u64, failed: u64) -> Period {
        Period { begins: at(-hours_ago), hours, recipients: Recipients { delivered, deferred, failed } }
    }

    /// The values of an attribute, as numbers.
    fn numbers(svg: &str, attribute: &str) -> Vec<f64> {
        let marked = format!(" {attribute}=\"");
        let values = svg.split(&marked).skip(1).filter_map(|rest| rest.split('"').next()?.parse().ok());
        values.collect()
    }

    #[test]
    fn a_timeline_has_every_period_and_nothing_older() {
        // 480 000 hours after 1970 begins a day.
        let history =
            [period(400, 24, 9, 9, 9), period(24, 24, 5, 0, 1), period(0, 1, 2, 0, 0), period(-1, 1, 1, 1, 0)];
        let days = timeline(&history, at(1), 24, 7);
        assert_eq!(days.len(), 7);
        assert_eq!(days[6], period(0, 24, 3, 1, 0), "hours of a day are added up");
        assert_eq!(days[5], period(24, 24, 5, 0, 1));
        assert_eq!(recipients_of(&days), Recipients { delivered: 8, deferred: 1, failed: 1 });
        let hours = timeline(&history[2..], at(1), 1, 24);
        assert_eq!((hours.len(), hours[23], hours[22]), (24, period(-1, 1, 1, 1, 0), period(0, 1, 2, 0, 0)));
        assert_eq!(hours[0], period(22, 1, 0, 0, 0));
        assert!(timeline_since(at(1), 1, 24) <= hours[0].begins && timeline_since(at(1), 24, 7) <= days[0].begins);
    }

    #[test]
    fn what_is_not_zero_is_seen_and_nothing_leaves_the_picture() {
        for parts in [(0, 0, 0), (1, 0, 0), (0, 1, 1), (u64::MAX, 1, 1), (u64::MAX, u64::MAX, u64::MAX), (7, 100, 1)] {
            let svg = outcome_bars(&[period(0, 1, parts.0, parts.1, parts.2), period(-1, 1, 1, 0, 0)], "x");
            let (tops, heights) = (numbers(&svg, "y"), numbers(&svg, "height"));
            let expected = [parts.0, parts.1, parts.2].iter().filter(|number| **number > 0).count() + 1;
            assert_eq!(heights.len(), expected, "{parts:?}");
            assert!(heights.iter().all(|height| (LEAST..=HEIGHT).contains(height)), "{parts:?} {svg}");
            assert!(tops.iter().all(|top| (0.0..=HEIGHT).contains(top)), "{parts:?} {svg}");
        }
    }

    #[test]
    fn pictures_say_what_they_show_and_have_attributes_alone() {
        let history = [period(0, 1, 3, 2, 1)];
        let ages = ages(&[(at(-5), 4)], at(0));
        for (svg, told) in [
            (outcome_bars(&history, "a <b> & 'c'"), "In all 3 delivered, 2 deferred, 1 failed."),
            (outcome_bars(&[], "a <b> & 'c'"), "In all 0 delivered"),
            (age_bars(&ages, "a <b> & 'c'"), "4 4 h to 12 h."),
            (age_bars(&[], "a <b> & 'c'"), "None."),
            (sparkline(&[0, 3, 12], "a <b> & 'c'"), "<desc>0 3 12</desc>"),
            (sparkline(&[], "a <b> & 'c'"), "<desc></desc>"),
        ] {
            assert!(
                svg.contains("role=\"img\"") && svg.contains("<title>a &lt;b&gt; &amp; &#39;c&#39;</title>"),
                "{svg}"
            );
            assert!(svg.contains(told), "{svg}");
            assert!(!svg.contains("style") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn mails_are_told_by_age_to_the_hour() {
        let hours: Vec<_> =
            [0, 1, 3, 4, 11, 12, 23, 24, 47, 48, 95, 96, 167, 168, 9999, -3].map(|ago| (at(-ago), 1)).to_vec();
        let counted: Vec<_> = ages(&hours, at(0)).iter().map(|band| band.mails).collect();
        assert_eq!(counted, [2, 2, 2, 2, 2, 2, 2, 2]);
        let none: u64 = ages(&[], at(0)).iter().map(|band| band.mails).sum();
        assert_eq!(none, 0);
    }

    #[test]
    fn a_sparkline_stays_within_its_line() {
        for days in [vec![0; 14], vec![1; 14], vec![0, u64::MAX, 1], vec![5]] {
            let svg = sparkline(&days, "x");
            let drawn = svg.matches("h4v").count();
            assert_eq!(drawn, days.iter().filter(|number| **number > 0).count(), "{svg}");
            let heights = svg.split("h4v").skip(1).filter_map(|rest| rest.split('z').next()?.parse::<f64>().ok());
            assert!(heights.into_iter().all(|height| height > 0.0 && height <= 20.0), "{svg}");
        }
    }
}
