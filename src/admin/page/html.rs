//! Values as they stand in a page: escaped, cut, and with what steers the eye made visible.

use std::fmt::{self, Display, Write as _};

use askama::filters::HtmlSafe;

use crate::mail::Outcome;
use crate::store::Time;
use crate::text::{age, one_line};

/// Characters of a value that are shown where the whole is elsewhere.
const SHOWN: usize = 200;

/// A piece of HTML, made by the functions here alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Html(String);

impl Display for Html {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Templates write it as it is.
impl HtmlSafe for Html {}

impl Html {
    /// A text, escaped and no more.
    pub(super) fn text(text: impl Display) -> Self {
        Self(escaped(&text.to_string()))
    }

    /// A picture that is drawn as SVG; whoever draws it escapes what is written into it.
    pub(super) fn drawn(svg: String) -> Self {
        Self(svg)
    }

    /// This, a blank, and that.
    pub(super) fn and(self, other: &Self) -> Self {
        Self(format!("{} {}", self.0, other.0))
    }
}

/// A text for HTML, in an element or in an attribute between double quotes.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, c| {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
        escaped
    })
}

/// A value on one line, at most 200 columns of it; what steers is made visible.
pub(super) fn short(text: impl Display) -> String {
    cut(&text.to_string(), SHOWN)
}

/// The same with another number of columns.
pub(super) fn cut(text: &str, columns: usize) -> String {
    crate::text::cut(&one_line(text), columns)
}

/// Whether [`short`] leaves something out.
pub(super) fn is_cut(text: &str) -> bool {
    short(text) != one_line(text)
}

/// A link; `href` is one of `url`'s.
pub(super) fn link(href: &str, text: impl Display) -> Html {
    Html(format!("<a href=\"{}\">{}</a>", escaped(href), escaped(&short(text))))
}

/// A number that counts something, as a link to it; 0 is no link.
pub(super) fn count(href: &str, number: u64) -> Html {
    if number == 0 { Html::text(0) } else { link(href, grouped(number)) }
}

/// `1 234 567`, with blanks that do not break.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    digits.char_indices().fold(String::new(), |mut grouped, (at, digit)| {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
        grouped
    })
}

/// `12.3 MB`: octets for a person.
pub(super) fn size(octets: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if octets < 1000 {
        return format!("{octets} octets");
    }
    let (mut tenths, mut unit) = (octets / 100, 0);
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        (tenths, unit) = (tenths / 1000, unit + 1);
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A time in UTC with its age beside it.
pub(super) fn when(time: Time, now: Time) -> Html {
    let (written, distance) = (time.format("%Y-%m-%d %H:%M:%S"), now - time);
    let beside =
        if distance.num_seconds() < 0 { format!("in {}", age(-distance)) } else { format!("{} ago", age(distance)) };
    Html(format!(
        "<time datetime=\"{}\">{written}</time> <span class=\"age\">{beside}</span>",
        crate::text::rfc3339_seconds(&time, true)
    ))
}

/// The same where there may be none.
pub(super) fn when_known(time: Option<Time>, now: Time) -> Html {
    time.map_or_else(|| Html::text("-"), |time| when(time, now))
}

/// An outcome by word, mark and colour.
pub(super) fn outcome(outcome: Outcome) -> Html {
    mark(
        match outcome {
            Outcome::Delivered => "good",
            Outcome::Deferred => "wait",
            Outcome::Failed => "bad",
        },
        outcome,
    )
}

/// A word with a mark and a colour beside it: `good`, `wait`, `bad` or `plain`.
pub(super) fn mark(kind: &'static str, word: impl Display) -> Html {
    Html(format!("<span class=\"mark {kind}\">{}</span>", escaped(&word.to_string())))
}

/// Rows under each other in a cell.
pub(super) fn lines(rows: impl IntoIterator<Item = Html>) -> Html {
    let mut html = String::new();
    for (at, row) in rows.into_iter().enumerate() {
        // Nothing fails that is written into a text.
        let _ = write!(html, "{}{row}", if at == 0 { "" } else { "<br>" });
    }
    Html(html)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};

    use super::*;

    #[test]
    fn hostile_values_are_text() {
        let hostile = "<script>alert('x')</script>\"\u{202e}\u{0}\r\n&";
        let html = link("/ui/x?a=\"><script>", hostile).to_string();
        assert!(!html.contains("<script>") && !html.contains("'x'") && !html.contains('\u{202e}'), "{html}");
        assert!(html.starts_with("<a href=\"/ui/x?a=&quot;&gt;&lt;script&gt;\">&lt;script&gt;"), "{html}");
        assert!(html.contains("\\u{202e}\\u{0} / &amp;</a>"), "{html}");
        let long = "x".repeat(10_000);
        assert_eq!(short(&long).chars().count(), 200);
        assert!(is_cut(&long) && !is_cut("short"));
    }

    #[test]
    fn numbers_and_sizes_are_read_at_a_glance() {
        let written = [0, 999, 1000, 1_234_567].map(|number| grouped(number).replace('\u{202f}', " "));
        assert_eq!(written, ["0", "999", "1 000", "1 234 567"]);
        let sizes = [999, 1000, 51_200, 999_999, 1_000_000, 52_428_800, 3_000_000_000_000_000].map(size);
        assert_eq!(sizes, ["999 octets", "1.0 kB", "51.2 kB", "999.9 kB", "1.0 MB", "52.4 MB", "3000.0 TB"]);
    }

    #[test]
    fn a_time_has_its_age_beside_it_behind_us_or_ahead() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
        let before = when(now - TimeDelta::minutes(3), now).to_string();
        assert_eq!(
            before,
            "<time datetime=\"2027-01-15T07:57:00Z\">2027-01-15 07:57:00</time> <span class=\"age\">3m ago</span>"
        );
        assert!(when(now + TimeDelta::hours(2), now).to_string().ends_with(">in 2h</span>"));
    }
}
