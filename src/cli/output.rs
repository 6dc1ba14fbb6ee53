//! Standard output, where nobody reads it any more.

use std::io::{self, ErrorKind, Write};

/// What tells of something that was done, and that decides the exit code: the code stays though
/// nobody reads it. A listing just ends then, with 0.
pub(super) struct Report<'a, W>(pub(super) &'a mut W);

impl<W: Write> Write for Report<'_, W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self.0.write(octets) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(octets.len()),
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0.flush() {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            flushed => flushed,
        }
    }
}
