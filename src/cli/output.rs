//! Standard input and output as others leave them: read by nobody any more, or not blocking.

use std::io::{self, ErrorKind, Stdout, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Waits until `file` can be read or written. `O_NONBLOCK` belongs to the open file: who shares a
/// pipe with an event loop has it too.
pub(super) fn wait_for(file: BorrowedFd<'_>, what: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(file, what)], PollTimeout::NONE) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Standard output; where it does not block, it is waited for.
pub(super) struct StandardOutput(Stdout);

impl StandardOutput {
    pub(super) fn new() -> Self {
        Self(io::stdout())
    }

    fn waiting<T>(&mut self, mut write: impl FnMut(&mut Stdout) -> io::Result<T>) -> io::Result<T> {
        loop {
            match write(&mut self.0) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => wait_for(self.0.as_fd(), PollFlags::POLLOUT)?,
                written => return written,
            }
        }
    }
}

impl Write for StandardOutput {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.waiting(|out| out.write(octets))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.waiting(Write::flush)
    }
}

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
