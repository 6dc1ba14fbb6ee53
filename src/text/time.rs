//! Times as they are shown: RFC 3339 in UTC, and ages.

use chrono::Utc;
use chrono::{DateTime, SecondsFormat, TimeDelta, TimeZone};

/// `2026-11-28T17:05:38.120Z` (RFC 3339): to the millisecond, as all JSON of ours has it.
pub fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Reads a time as RFC 3339 has it; the `+` before its zone may have come as a blank, which a URL
/// makes of it where nobody encoded it.
pub fn parse_rfc3339(text: &str) -> Option<DateTime<Utc>> {
    let with_sign = match text.rsplit_once(' ') {
        Some((time, zone)) if time.contains(':') => format!("{time}+{zone}"),
        _ => text.to_owned(),
    };
    DateTime::parse_from_rfc3339(&with_sign).ok().map(|time| time.to_utc())
}

/// `2026-11-28T18:05:38+01:00`, or with `Z` in UTC (RFC 3339): to the second, with the offset of its zone.
pub fn rfc3339_seconds<Z: TimeZone>(time: &DateTime<Z>, zulu: bool) -> String
where
    Z::Offset: std::fmt::Display,
{
    time.to_rfc3339_opts(SecondsFormat::Secs, zulu)
}

/// An age such as `45s`, `12m`, `3h`, `9d`.
pub fn age(age: TimeDelta) -> String {
    let seconds = age.num_seconds().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read_at_a_glance() {
        let texts: Vec<_> = [-5, 59, 60, 7199, 172_800].map(|s| age(TimeDelta::seconds(s))).to_vec();
        assert_eq!(texts, ["0s", "59s", "1m", "1h", "2d"]);
    }
}
