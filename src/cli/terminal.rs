//! The terminal that output for people goes to.

use std::io::IsTerminal;

/// Columns of a terminal that does not say, and of an output that is none.
const DEFAULT_WIDTH: usize = 160;

/// The width of standard output.
pub(super) fn width() -> usize {
    if !std::io::stdout().is_terminal() {
        return DEFAULT_WIDTH;
    }
    terminal_size::terminal_size().map_or(DEFAULT_WIDTH, |(width, _)| usize::from(width.0))
}
