//! Files of the system and of operators, read whole.
//!
//! What is no file is refused in words, since a pipe without a writer would be waited for without
//! end and a device may have none; a file without end fills no memory.

use std::fs::{File, Metadata};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

/// Octets of a file, where its reader knows no smaller bound.
pub const MOST: u64 = 16 << 20;

/// Linux's number of /dev/null, which stands for an empty file.
const NULL: u64 = 1 << 8 | 3;

/// Pipes that the caller has made, such as a shell's `<(...)`: somebody writes.
const OURS: [&str; 3] = ["/dev/fd", "/proc/self/fd", "/dev/stdin"];

/// Opens a file to be read.
///
/// # Errors
/// Where it cannot be, or is none: `it is a folder`, of [`ErrorKind::IsADirectory`], and so on.
pub fn open(path: &Path) -> Result<File> {
    if OURS.iter().any(|ours| path.starts_with(ours)) {
        return File::open(path);
    }
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let facts = file.metadata()?;
    match what_else(&facts) {
        Some("a folder") => Err(Error::new(ErrorKind::IsADirectory, "it is a folder")),
        Some(what) if facts.rdev() != NULL => Err(Error::other(format!("it is {what}, and no file"))),
        _ => Ok(file),
    }
}

/// What there is at `path`, where it is no file: `a folder`, `a pipe`, `a device`, `a socket`.
pub fn not_a_file(path: &Path) -> Option<&'static str> {
    what_else(&path.metadata().ok()?)
}

fn what_else(facts: &Metadata) -> Option<&'static str> {
    let kind = facts.file_type();
    match () {
        () if kind.is_dir() => Some("a folder"),
        () if kind.is_fifo() => Some("a pipe"),
        () if kind.is_block_device() || kind.is_char_device() => Some("a device"),
        () if kind.is_socket() => Some("a socket"),
        () => None,
    }
}

/// The octets of a file of at most `most`.
///
/// # Errors
/// As [`open`], and where it is larger.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let mut octets = Vec::new();
    open(path)?.take(most + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > most {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("it is larger than {} KiB", most >> 10)));
    }
    Ok(octets)
}

/// The text of a file.
///
/// # Errors
/// As [`read`], and where it is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path, MOST)?).map_err(|_| Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn what_is_no_file_is_said_and_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        nix::unistd::mkfifo(&path("pipe"), Mode::S_IRWXU).expect("made");
        std::fs::create_dir(path("folder")).expect("made");
        std::fs::write(path("file"), "text").expect("written");
        File::create(path("huge")).and_then(|file| file.set_len(1 << 40)).expect("made");
        std::os::unix::fs::symlink("pipe", path("link")).expect("linked");
        std::os::unix::fs::symlink("away", path("dangling")).expect("linked");
        let _listener = std::os::unix::net::UnixListener::bind(path("socket")).expect("bound");
        for (name, told) in [
            ("pipe", "it is a pipe, and no file"),
            ("link", "it is a pipe, and no file"),
            ("folder", "it is a folder"),
            ("/dev/zero", "it is a device, and no file"),
            ("/dev/tty", ""),
            ("socket", ""),
            ("dangling", "No such file"),
            ("huge", "it is larger than 16384 KiB"),
        ] {
            let error = read(&path(name), MOST).expect_err(name).to_string();
            assert!(error.starts_with(told), "{name}: {error}");
        }
        assert_eq!(read(&path("file"), 4).expect("read"), b"text");
        assert!(read(&path("file"), 3).is_err());
        assert_eq!(read_text(Path::new("/dev/null")).expect("as an empty file"), "");
    }

    #[test]
    fn a_pipe_of_the_caller_is_read() {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        std::io::Write::write_all(&mut writer, b"text").expect("written");
        drop(writer);
        let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        assert_eq!(read_text(Path::new(&path)).expect("read"), "text");
    }
}
