//! James's `maxRetries` and `delayTime`: how often and when a mailet tries again.

use std::time::Duration;

/// Units as James knows them, in seconds; without a unit it is milliseconds.
const UNITS: [(&[&str], u64); 8] = [
    (&["s", "sec", "secs", "second", "seconds"], 1),
    (&["m", "min", "mins", "minute", "minutes"], 60),
    (&["h", "hour", "hours"], 3600),
    (&["d", "day", "days"], 86_400),
    (&["w", "week", "weeks"], 7 * 86_400),
    (&["month", "months"], 30 * 86_400),
    (&["y", "year", "years"], 365 * 86_400),
    (&["ms", "msec", "msecs"], 0),
];

/// The delay where none is said, or none is left.
const DEFAULT: Duration = Duration::from_hours(6);

/// The retries where none are said.
const DEFAULT_RETRIES: usize = 5;

/// More retries than anybody waits for.
const MOST: usize = 1000;

/// What cannot be read, and the delays that James would take instead.
#[derive(Debug, thiserror::Error)]
#[error("{why}: {} retries instead", instead.len())]
pub(super) struct Unreadable {
    why: String,
    pub(super) instead: Vec<Duration>,
}

/// The delays before each retry, as James reckons them: where the two disagree, the larger
/// number of retries holds, and the last delay is repeated.
///
/// `maxRetries: 0` without delays is no retry, as its documentation has it.
pub(super) fn retries(max_retries: Option<&str>, delay_time: Option<&str>) -> Result<Vec<Duration>, Unreadable> {
    let written = max_retries.filter(|text| !text.is_empty());
    // A number of Java's.
    let Some(most) = written.map_or(i32::try_from(DEFAULT_RETRIES).ok(), |text| text.parse().ok().filter(|n| *n >= 0))
    else {
        let why = format!("maxRetries {:?} is no number of retries", written.unwrap_or_default());
        return Err(Unreadable { why, instead: filled(Vec::new(), DEFAULT_RETRIES) });
    };
    let most = usize::try_from(most).unwrap_or(MOST);
    let elements = delay_time.unwrap_or_default().split(',').map(str::trim).filter(|element| !element.is_empty());
    let mut delays = Vec::new();
    for element in elements {
        let Some((times, delay)) = element_of(element) else {
            let why = format!("delayTime {element:?} cannot be read");
            return Err(Unreadable { why, instead: filled(delays, most.min(MOST)) });
        };
        delays.extend(std::iter::repeat_n(delay, times.min(MOST + 1)));
        if delays.len() > MOST {
            break;
        }
    }
    if delays.len() > MOST || most > MOST {
        delays.truncate(MOST);
        let why = format!("more than {MOST} retries are too many");
        return Err(Unreadable { why, instead: filled(delays, MOST) });
    }
    Ok(filled(delays, most))
}

/// The last delay is repeated up to so many retries.
fn filled(mut delays: Vec<Duration>, most: usize) -> Vec<Duration> {
    let last = delays.last().copied().unwrap_or(DEFAULT);
    delays.extend(std::iter::repeat_n(last, most.saturating_sub(delays.len())));
    delays
}

/// `N`, `N unit`, `A*N` or `A * N unit`.
fn element_of(text: &str) -> Option<(usize, Duration)> {
    let (times, delay) = match text.split_once('*') {
        Some((times, delay)) => (times.trim().parse().ok()?, delay.trim()),
        None => (1, text),
    };
    let digits = delay.find(|c: char| !c.is_ascii_digit()).unwrap_or(delay.len());
    let number: u64 = delay[..digits].parse().ok()?;
    let unit = delay[digits..].trim().to_ascii_lowercase();
    if unit.is_empty() {
        return Some((times, Duration::from_millis(number)));
    }
    let (_, seconds) = UNITS.iter().find(|(names, _)| names.contains(&unit.as_str()))?;
    let delay =
        if *seconds == 0 { Duration::from_millis(number) } else { Duration::from_secs(number.checked_mul(*seconds)?) };
    Some((times, delay))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_reckoned_as_james_does() {
        let told = |most, delays| {
            let delays = retries(most, delays)?;
            Ok::<_, Unreadable>(delays.iter().map(Duration::as_millis).collect::<Vec<_>>())
        };
        for (most, delays, expected) in [
            (Some("0"), None, vec![]),
            (Some("0"), Some(""), vec![]),
            (Some("0"), Some("0*1s"), vec![]),
            (Some("1"), Some("0"), vec![0]),
            (Some("3"), Some("5000, 100000, 500000"), vec![5000, 100_000, 500_000]),
            (Some("4"), Some("1s,2*2s"), vec![1000, 2000, 2000, 2000]),
            (Some("1"), Some("1s,2 * 2 SEC"), vec![1000, 2000, 2000]),
            (None, None, vec![6 * 3_600_000; 5]),
            (Some("2"), Some("1 week"), vec![7 * 86_400_000; 2]),
        ] {
            assert_eq!(told(most, delays).ok(), Some(expected), "{most:?} {delays:?}");
        }
        for (most, delays) in [("abc", ""), ("-1", ""), ("1", "36*"), ("1", "2*2*2"), ("1", "3 lightyears")] {
            assert!(told(Some(most), Some(delays)).is_err(), "{most} {delays}");
        }
        for (most, delays, instead) in [
            ("abc", "1s", 5),
            ("2", "1s, x", 2),
            ("0", "1s, 3*5 minutes, x, 1s", 4),
            // What James does thousands of times is not done five times.
            ("99999", "1s", 1000),
            ("99999999999", "1s", 5),
            ("0", "2000*1s", 1000),
            ("1", "600*1s, 4000000000*1s, 1s", 1000),
        ] {
            let told = retries(Some(most), Some(delays)).expect_err(delays);
            assert_eq!(told.instead.len(), instead, "{told}");
        }
    }
}
