//! One service in a state directory: a second would answer for the first's spool and socket.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// The file whose lock the service holds.
const FILE: &str = "serve.lock";

/// The right to be the service of a state directory, until it is dropped. The kernel takes it
/// back when the process dies, however it dies.
pub(super) struct OnlyOne(#[expect(dead_code, reason = "it holds the lock")] File);

/// Why there is another.
pub(super) enum Refused {
    /// The process that is the service.
    Taken(i32),
    /// The lock cannot be had at all.
    Io(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl OnlyOne {
    /// Becomes the service of `state_directory`.
    pub(super) fn take(state_directory: &Path) -> Result<Self, Refused> {
        let path = state_directory.join(FILE);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(path)?;
        loop {
            match fcntl(file.as_fd(), FcntlArg::F_SETLK(&whole_file())) {
                Ok(_) => return Ok(Self(file)),
                Err(Errno::EAGAIN | Errno::EACCES) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
            let mut holder = whole_file();
            fcntl(file.as_fd(), FcntlArg::F_GETLK(&mut holder)).map_err(io::Error::from)?;
            // It may have ended in between.
            if i32::from(holder.l_type) != libc::F_UNLCK {
                return Err(Refused::Taken(holder.l_pid));
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "F_WRLCK and SEEK_SET are 1 and 0")]
fn whole_file() -> libc::flock {
    libc::flock { l_type: libc::F_WRLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}
