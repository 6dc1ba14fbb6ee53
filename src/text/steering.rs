//! Characters that steer the terminal or the reader's eye, and ways to take that from them.

use std::fmt::Write as _;

/// Whether a character steers the terminal that shows it, or how what stands around it is
/// read: control characters, other line ends, marks of direction, blanks without a width.
pub fn steers(c: char) -> bool {
    let marks_direction =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || marks_direction || matches!(c, '\u{200b}' | '\u{2060}' | '\u{feff}')
}

/// A text on one line that steers nothing. The escapes are JSON's (RFC 8259 section 7), so
/// that they may stand in text and in JSON; with `colour` escape characters stay.
pub fn escaped(text: &str, colour: bool) -> String {
    text.chars().fold(String::with_capacity(text.len() + 1), |mut line, c| {
        match c {
            '\x1b' if colour => line.push(c),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            // Nothing fails that is written into a text.
            c if steers(c) => drop(write!(line, "\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
        line
    })
}

/// A text on one line for a person: line ends become ` / `, what steers is made visible.
pub fn one_line(text: &str) -> String {
    printable(&text.replace("\r\n", "\n").replace('\n', " / "))
}

/// A text with what steers made visible: what a peer says may not steer a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if steers(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

/// A text on one line with a blank for what steers.
pub fn plain(text: &str) -> String {
    text.split(steers).filter(|piece| !piece.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_text_is_still_the_same_json() {
        let hostile: String = (0..0x2100).filter_map(char::from_u32).collect();
        let json = serde_json::to_string(&hostile).expect("JSON");
        let line = escaped(&json, false);
        assert!(!line.contains(steers));
        assert_eq!(serde_json::from_str::<String>(&line).expect("still JSON"), hostile);
    }

    #[test]
    fn what_a_peer_says_steers_nothing_in_any_form() {
        let said = "550 no\r\n\x1b[31mred\u{202e}x\u{200b}";
        assert_eq!(escaped(said, false), "550 no\\r\\n\\u001b[31mred\\u202ex\\u200b");
        assert_eq!(escaped("\x1b[32m INFO\x1b[0m a\u{9b}", true), "\x1b[32m INFO\x1b[0m a\\u009b");
        assert_eq!(one_line(said), "550 no / \\u{1b}[31mred\\u{202e}x\\u{200b}");
        assert_eq!(plain(said), "550 no [31mred x");
    }
}
