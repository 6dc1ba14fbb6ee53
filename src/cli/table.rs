//! Output for people: columns that line up, text that cannot harm a terminal.

use std::fmt::Write as _;
use std::io::IsTerminal;

use chrono::TimeDelta;

use crate::logging::steers;

/// Columns of a terminal that does not say, and of an output that is none.
const DEFAULT_WIDTH: usize = 160;

/// Rows under a heading; the last column takes what room is left, and is cut there.
///
/// A long listing is written block by block, so that it need not be held: a column is as
/// wide as its widest cell so far.
pub(super) struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    widths: Vec<usize>,
    begun: bool,
}

impl Table {
    /// A table with these columns.
    pub(super) fn new(heading: &[&'static str]) -> Self {
        let widths = heading.iter().map(|name| name.chars().count()).collect();
        Self { heading: heading.to_vec(), rows: Vec::new(), widths, begun: false }
    }

    /// Adds a row; control characters are made visible, line ends become ` / `.
    pub(super) fn row(&mut self, cells: &[String]) {
        let cells: Vec<_> = cells.iter().map(|cell| one_line(cell)).collect();
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = (*width).max(cell.chars().count());
        }
        self.rows.push(cells);
    }

    /// The rows since the last block for a terminal of `width` columns, with the heading
    /// above the first.
    pub(super) fn block(&mut self, width: usize) -> String {
        let mut text = String::new();
        if !std::mem::replace(&mut self.begun, true) {
            let heading: Vec<String> = self.heading.iter().map(ToString::to_string).collect();
            self.line(&heading, width, &mut text);
        }
        for row in std::mem::take(&mut self.rows) {
            self.line(&row, width, &mut text);
        }
        text
    }

    fn line(&self, row: &[String], width: usize, text: &mut String) {
        let last = self.heading.len().saturating_sub(1);
        let widths = &self.widths[..last];
        let used: usize = widths.iter().map(|width| width + 2).sum();
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell:<width$}  ");
        }
        line.push_str(&cut(row.get(last).map_or("", String::as_str), width.saturating_sub(used).max(20)));
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// The first characters, with an ellipsis where there were more.
pub(super) fn cut(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room.saturating_sub(1)).chain(['…']).collect()
}

/// A text on one line.
pub(super) fn one_line(text: &str) -> String {
    printable(&text.replace("\r\n", "\n").replace('\n', " / "))
}

/// A text without control characters: what a remote server says may not steer a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if steers(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

/// An age such as `45s`, `12m`, `3h`, `9d`.
pub(super) fn age(age: TimeDelta) -> String {
    let seconds = age.num_seconds().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The width of standard output.
pub(super) fn width() -> usize {
    if !std::io::stdout().is_terminal() {
        return DEFAULT_WIDTH;
    }
    terminal_size::terminal_size().map_or(DEFAULT_WIDTH, |(width, _)| usize::from(width.0))
}

/// `1 mail`, `2 mails`.
pub(super) fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_the_last_is_cut() {
        let mut table = Table::new(&["KEY", "AGE", "REPLY"]);
        table.row(&["K1".into(), "3m".into(), "550 5.1.1 no such user here, whoever that may be".into()]);
        table.row(&["K22222".into(), "12h".into(), "two\r\nlines\x1b[31m".into()]);
        let expected = "KEY     AGE  REPLY\nK1      3m   550 5.1.1 no such u…\nK22222  12h  two / lines\\u{1b}[3…\n";
        assert_eq!(table.block(33), expected);
        table.row(&["K333".into(), "1d".into(), "later".into()]);
        assert_eq!(table.block(33), "K333    1d   later\n");
    }

    #[test]
    fn ages_are_read_at_a_glance() {
        let texts: Vec<_> = [-5, 59, 60, 7199, 172_800].map(|s| age(TimeDelta::seconds(s))).to_vec();
        assert_eq!(texts, ["0s", "59s", "1m", "1h", "2d"]);
    }
}
