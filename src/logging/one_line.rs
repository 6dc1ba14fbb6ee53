//! One event is one line, and none steers the terminal that shows it.

use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

use crate::text::escaped;

/// A writer of events: what a peer or a client said may hold line ends and escapes.
pub(super) struct OneLine<W> {
    pub(super) writer: W,
    /// Escape characters are the formatter's own; it replaces those in values.
    pub(super) colour: bool,
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for OneLine<M> {
    type Writer = OneLine<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLine { writer: self.writer.make_writer(), colour: self.colour }
    }
}

impl<W: Write> Write for OneLine<W> {
    /// Takes an event whole, as the formatter hands it over.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let mut line = escaped(text.trim_end_matches('\n'), self.colour);
        line.push('\n');
        self.writer.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_that_steers_nothing() {
        for (event, line) in [
            ("plain ü\n", "plain ü\n"),
            ("550 no\r\n2026-01-01 INFO forged\n", "550 no\\r\\n2026-01-01 INFO forged\n"),
            ("a\0\x1b[2J\u{9b}1m\tb\n", "a\\u0000\\u001b[2J\\u009b1m\\tb\n"),
            ("a\u{200b}b\u{feff}\u{61c}\n", "a\\u200bb\\ufeff\\u061c\n"),
            ("moc\u{202e}.x\u{2066}y\u{2028}z\n", "moc\\u202e.x\\u2066y\\u2028z\n"),
        ] {
            let mut writer = OneLine { writer: Vec::new(), colour: false };
            writer.write_all(event.as_bytes()).expect("written");
            assert_eq!(String::from_utf8_lossy(&writer.writer), line);
        }
    }
}
