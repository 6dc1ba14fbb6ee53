//! Tables for people: columns that line up, whatever stands in them.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::steering::one_line;

/// Columns of a cell between the first and the last: an address may have hundreds.
const MAX_CELL: usize = 40;

/// Rows under a heading; the last column takes what room is left, and is cut there.
///
/// A long listing is written block by block, so that it need not be held: a column is as
/// wide as its widest cell so far.
pub struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    widths: Vec<usize>,
    begun: bool,
    /// The last column is no free text, and of use only as a whole.
    whole: bool,
}

impl Table {
    /// A table with these columns.
    pub fn new(heading: &[&'static str]) -> Self {
        let widths = heading.iter().map(|name| name.chars().count()).collect();
        Self { heading: heading.to_vec(), rows: Vec::new(), widths, begun: false, whole: false }
    }

    /// Does not cut the last column, however narrow the terminal.
    #[must_use]
    pub fn whole(mut self) -> Self {
        self.whole = true;
        self
    }

    /// Adds a row; control characters are made visible, line ends become ` / `. The first
    /// cell is what the row is called by, and whole.
    pub fn row(&mut self, cells: &[String]) {
        let last = self.heading.len().saturating_sub(1);
        let bounded = |(at, cell): (usize, &String)| {
            if at == 0 || at == last { one_line(cell) } else { cut(&one_line(cell), MAX_CELL) }
        };
        let cells: Vec<_> = cells.iter().enumerate().map(bounded).collect();
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = (*width).max(cell.width());
        }
        self.rows.push(cells);
    }

    /// The rows since the last block for a terminal of `width` columns, with the heading
    /// above the first.
    pub fn block(&mut self, width: usize) -> String {
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
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width()) + 2));
        }
        let room = if self.whole { usize::MAX } else { width.saturating_sub(used).max(20) };
        line.push_str(&cut(row.get(last).map_or("", String::as_str), room));
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// What fits into so many columns, with an ellipsis where there was more.
pub fn cut(text: &str, room: usize) -> String {
    if text.width() <= room {
        return text.to_owned();
    }
    let mut used = 1;
    let mut fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used <= room
    };
    text.chars().take_while(|c| fits(c)).chain(['…']).collect()
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
    fn long_cells_and_wide_letters_leave_the_columns_in_line() {
        let mut table = Table::new(&["KEY", "SENDER", "REPLY"]);
        table.row(&["K1".into(), "x".repeat(300), "no".into()]);
        table.row(&["K2".into(), "\u{90f5}\u{4ef6}@x.example".into(), "\u{90f5}\u{4ef6}\u{90f5}\u{4ef6}".into()]);
        let text = table.block(60);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1], format!("K1   {}…  no", "x".repeat(39)));
        assert_eq!(
            lines[2],
            format!("K2   \u{90f5}\u{4ef6}@x.example{}\u{90f5}\u{4ef6}\u{90f5}\u{4ef6}", " ".repeat(28))
        );
        assert_eq!(cut("\u{90f5}\u{4ef6}", 3), "\u{90f5}…");
    }

    #[test]
    fn what_is_of_use_as_a_whole_is_not_cut() {
        let mut table = Table::new(&["JOB", "NEXT"]).whole();
        table.row(&["j".into(), "2026-11-29T07:00:00+00:00".into()]);
        assert_eq!(table.block(10), "JOB  NEXT\nj    2026-11-29T07:00:00+00:00\n");
    }
}
