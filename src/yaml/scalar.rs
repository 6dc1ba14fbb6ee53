//! Scalars with a meaning: what is taken, and what a message says would be right.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Node, Value, nearest};

/// A text that is not empty and has no control character.
pub fn text(node: &Node) -> Result<String, String> {
    match &node.value {
        Value::Text(text) if text.is_empty() => Err("a text is expected here, this one is empty".to_owned()),
        Value::Text(text) => match text.chars().find(|c| c.is_control()) {
            Some(c) => Err(format!("the text has a control character (0x{:02x})", u32::from(c))),
            None => Ok(text.clone()),
        },
        Value::Boolean(_) | Value::Integer(_) | Value::Float(_) => {
            Err(format!("a text is expected here, not {}: put it in quotes", node.described()))
        }
        Value::Null => Err("a text is expected here, not nothing: the word null needs quotes to be a text".to_owned()),
        _ => Err(format!("a text is expected here, not {}", node.described())),
    }
}

/// A text that no message repeats.
pub fn secret_text(node: &Node) -> Result<String, String> {
    let found = text(node).ok().filter(|text| !text.trim().is_empty());
    found.ok_or_else(|| "a text in quotes, not blank and without control characters, is expected here".to_owned())
}

/// `true` or `false`.
pub fn boolean(node: &Node) -> Result<bool, String> {
    match node.value {
        Value::Boolean(value) => Ok(value),
        _ => Err(format!("true or false is expected here, not {}", node.described())),
    }
}

/// A reader of one word out of a few.
pub fn choice<T: Copy>(options: &[(&str, T)]) -> impl Fn(&Node) -> Result<T, String> {
    move |node| {
        let found = node.as_text().and_then(|text| options.iter().find(|(word, _)| *word == text));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<_> = options.iter().map(|(word, _)| *word).collect();
            let near = node.as_text().and_then(|text| nearest(text, words.iter().copied()));
            let hint = near.map(|near| format!(": did you mean '{near}'?")).unwrap_or_default();
            format!("{} is expected here, not {}{hint}", words.join(" or "), node.described())
        })
    }
}

/// A reader of whole numbers within `range`.
pub fn integer<T>(range: RangeInclusive<T>) -> impl Fn(&Node) -> Result<T, String>
where
    T: TryFrom<i128> + PartialOrd + std::fmt::Display,
{
    move |node| {
        let (low, high) = (range.start(), range.end());
        let found = match node.value {
            Value::Integer(value) => T::try_from(value).ok(),
            _ => None,
        };
        found
            .filter(|value| range.contains(value))
            .ok_or_else(|| format!("a whole number from {low} to {high} is expected here, not {}", node.described()))
    }
}

/// Units of durations, the longest last.
const DURATION_UNITS: [(&str, u64); 6] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];

/// A hundred years: beyond it sums of times could overflow.
const LONGEST: Duration = Duration::from_hours(100 * 366 * 24);

/// A duration such as `30s`, `10m`, `2h`, `7d`, `2w` or `500ms`; `0s` is one.
pub fn duration(node: &Node) -> Result<Duration, String> {
    let parsed = match &node.value {
        Value::Text(text) => parse_duration(text),
        _ => None,
    };
    parsed.ok_or_else(|| format!("a duration such as 30s, 10m, 2h or 7d is expected here, not {}", node.described()))
}

/// A duration that is not zero.
pub fn positive_duration(node: &Node) -> Result<Duration, String> {
    match duration(node)? {
        Duration::ZERO => Err("a duration longer than zero is expected here".to_owned()),
        longer => Ok(longer),
    }
}

/// A time-out: a bare number is milliseconds, as James reads it; a duration is taken too.
pub fn milliseconds(node: &Node) -> Result<Duration, String> {
    match &node.value {
        Value::Integer(number) => match u64::try_from(*number).map(Duration::from_millis) {
            Ok(found) if !found.is_zero() && found <= LONGEST => Ok(found),
            _ => Err(format!("milliseconds, at least 1, are expected here, not {number}")),
        },
        _ => positive_duration(node),
    }
}

/// Reads what [`duration`] takes.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let (_, factor) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
    let found = Duration::from_millis(number.checked_mul(*factor)?);
    (found <= LONGEST).then_some(found)
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// A duration as one writes it: the longest unit that says it exactly.
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let exact = DURATION_UNITS[..5].iter().rev().find(|(_, factor)| millis.is_multiple_of(u128::from(*factor)));
    match exact {
        Some((unit, factor)) if millis > 0 => format!("{}{unit}", millis / u128::from(*factor)),
        _ => "0s".to_owned(),
    }
}

/// A size in octets: `50MiB`, `64KiB`, `1GiB`, `500B` or a bare number.
pub fn size(node: &Node) -> Result<u64, String> {
    let parsed = match &node.value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::Text(text) => number_and_unit(text).and_then(|(number, unit)| {
            let factor = match unit {
                "B" => 1,
                "KiB" => 1 << 10,
                "MiB" => 1 << 20,
                "GiB" => 1 << 30,
                _ => return None,
            };
            number.checked_mul(factor)
        }),
        _ => None,
    };
    parsed
        .filter(|octets| (1..=i64::MAX.unsigned_abs()).contains(octets))
        .ok_or_else(|| format!("a size such as 50MiB or 64KiB is expected here, not {}", node.described()))
}

/// An address with its port, such as `127.0.0.1:2525` or `[::1]:2525`.
pub fn socket_address(node: &Node) -> Result<SocketAddr, String> {
    let wrong = || {
        format!("an IP address with a port such as 127.0.0.1:25 or [::1]:25 is expected here, not {}", node.described())
    };
    match &node.value {
        Value::Text(text) => text.parse().map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

/// A name server: an address, with a port where it is not that of the DNS.
///
/// # Errors
/// What it is instead.
pub fn name_server(node: &Node) -> Result<SocketAddr, String> {
    let alone = node.as_text().and_then(|text| text.parse::<IpAddr>().ok());
    match alone {
        Some(address) => Ok((address, 53).into()),
        None => socket_address(node).map_err(|_| {
            format!(
                "an IP address such as 192.0.2.53 or [2001:db8::53]:5353 is expected here, not {}",
                node.described()
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Document;
    use super::*;

    fn node(text: &str) -> Node {
        Document::parse(Path::new("f"), text.as_bytes()).expect(text).root().clone()
    }

    #[test]
    fn durations_have_a_number_and_a_unit() {
        for (text, millis) in [
            ("30s", 30_000),
            ("10m", 600_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
            ("1w", 604_800_000),
            ("500ms", 500),
            ("0s", 0),
            ("15 m", 900_000),
        ] {
            assert_eq!(duration(&node(text)), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["30", "s", "1y", "1.5h", "-1s", "true", "[1s]", "99999999999999999999s", "9999999w", "1h30m", "''"]
        {
            assert!(duration(&node(text)).is_err(), "{text}");
        }
        for text in ["30s", "10m", "2h", "7d", "90m", "500ms", "25h"] {
            assert_eq!(format_duration(duration(&node(text)).expect(text)), text);
        }
    }

    #[test]
    fn a_time_out_without_unit_is_in_milliseconds() {
        assert_eq!(milliseconds(&node("2500")), Ok(Duration::from_millis(2500)));
        assert_eq!(milliseconds(&node("2s")), Ok(Duration::from_secs(2)));
        for text in ["0", "-1", "0s", "abc", "1e3"] {
            assert!(milliseconds(&node(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_in_powers_of_1024() {
        assert_eq!(size(&node("50MiB")), Ok(50 << 20));
        assert_eq!(size(&node("1024")), Ok(1024));
        for text in ["0", "50MB", "50M", "-1", "1.5MiB", "99999999999GiB"] {
            assert!(size(&node(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_secret_is_taken_as_it_is_written_or_refused() {
        for written in ["0123456", "yes", "on", "it's", "x#y", "a\\b", "~x", "a:b", "p%q", "1_000", "12:30:45", "-x"] {
            assert_eq!(secret_text(&node(written)), Ok(written.to_owned()), "{written}");
        }
        for written in ["12345678", "1e5", "0x1F", "0o17", "1.50", ".inf", "true", "''", "' '"] {
            assert!(secret_text(&node(written)).is_err_and(|told| told.contains("in quotes")), "{written}");
        }
        for written in
            ["a: b", "#x", "%x", "@x", "!x", "*x", "`x", "'x", "\"x", "{x", "[x", "&x", "|", "]x", "null", "~", ""]
        {
            let found = Document::parse(Path::new("f"), format!("gatewayPassword: {written}\n").as_bytes());
            let secret = found.as_ref().ok().and_then(|document| match &document.root().value {
                Value::Mapping(entries) => secret_text(&entries[0].value).ok(),
                _ => None,
            });
            assert_eq!(secret, None, "{written}");
        }
        for quoted in ["'abc #def'", "\"abc #def\""] {
            assert_eq!(secret_text(&node(quoted)), Ok("abc #def".to_owned()));
        }
    }

    #[test]
    fn a_name_server_has_the_port_of_the_dns_unless_another_is_written() {
        for (written, expected) in [
            ("192.0.2.53", "192.0.2.53:53"),
            ("'192.0.2.53'", "192.0.2.53:53"),
            ("192.0.2.53:5353", "192.0.2.53:5353"),
            ("'2001:db8::53'", "[2001:db8::53]:53"),
            ("'[2001:db8::53]:5353'", "[2001:db8::53]:5353"),
        ] {
            assert_eq!(name_server(&node(written)).map(|server| server.to_string()).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn a_value_of_another_kind_is_named_with_what_would_be_right() {
        let number = integer(1_u16..=65535);
        for (found, expected) in [
            (number(&node("70000")).err(), "from 1 to 65535 is expected here, not the number 70000"),
            (number(&node("08")).err(), "not the text \"08\""),
            (number(&node("1e3")).err(), "not the number 1000"),
            (number(&node("'5'")).err(), "not the text \"5\""),
            (number(&node("99999999999999999999999")).err(), "is expected here"),
            (boolean(&node("yes")).err(), "true or false is expected here, not the text \"yes\""),
            (boolean(&node("'true'")).err(), "true or false"),
            (text(&node("12")).err(), "put it in quotes"),
            (text(&node("[a]")).err(), "not a list"),
            (
                secret_text(&node("12")).err(),
                "a text in quotes, not blank and without control characters, is expected here",
            ),
            (text(&node("\"a\\r\\nb\"")).err(), "control character (0x0d)"),
            (socket_address(&node("localhost:25")).err(), "an IP address with a port"),
            (socket_address(&node("127.0.0.1:70000")).err(), "an IP address with a port"),
            (name_server(&node("ns.example")).err(), "an IP address such as 192.0.2.53"),
            (name_server(&node("192.0.2")).err(), "an IP address such as 192.0.2.53"),
        ] {
            let found = found.expect(expected);
            assert!(found.contains(expected), "{found}");
        }
    }
}
