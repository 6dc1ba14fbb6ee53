//! A folder that a job writes files into, each of them whole or not there.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What a file is called until it is whole.
const PART: &str = ".redeliver.part";

/// A folder in which one run at a time writes; what others see of it are whole files.
///
/// Everything here blocks: see [`blocking`].
pub(super) struct Directory {
    path: PathBuf,
    /// Holds the lock.
    handle: File,
}

impl Directory {
    /// Makes the folder where it is not there (mode 0700), and locks it.
    ///
    /// # Errors
    /// Where it cannot be made, is no folder, or another run writes into it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => io::Error::new(io::ErrorKind::NotADirectory, "it is no directory"),
            _ => error,
        })?;
        let handle = File::open(path)?;
        match handle.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), handle }),
            Err(TryLockError::WouldBlock) => {
                Err(io::Error::new(io::ErrorKind::ResourceBusy, "another run writes into it"))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether a file of that name is there, whatever it is.
    pub(super) fn has(&self, name: &str) -> bool {
        self.path.join(name).symlink_metadata().is_ok()
    }

    /// The path of an empty file of mode 0600 to be written; [`Directory::keep`] names it.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub(super) fn part(&self) -> io::Result<PathBuf> {
        self.give_up()?;
        let part = self.path.join(PART);
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
        Ok(part)
    }

    /// Gives what was written its name, once it is on the disk.
    ///
    /// # Errors
    /// Where it cannot be written out or renamed.
    pub(super) fn keep(&self, name: &str) -> io::Result<()> {
        let part = self.path.join(PART);
        File::open(&part)?.sync_all()?;
        std::fs::rename(part, self.path.join(name))
    }

    /// Removes what was begun, by this run or by one that died.
    ///
    /// # Errors
    /// Where it is there and cannot be removed.
    pub(super) fn give_up(&self) -> io::Result<()> {
        match std::fs::remove_file(self.path.join(PART)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes the names durable.
    ///
    /// # Errors
    /// Where the folder cannot be written out.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

/// Does what blocks on a thread for such.
///
/// # Errors
/// What `work` says; a panic in it is an error too.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_there_once_it_is_whole_and_for_its_owner_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = Directory::open(&folder.path().join("a/b")).expect("made");
        let part = directory.part().expect("made");
        std::fs::write(&part, "half").expect("written");
        assert!(!directory.has("x.eml"));
        let part = directory.part().expect("begun anew, though one was left over");
        std::fs::write(&part, "whole").expect("written");
        directory.keep("x.eml").expect("kept");
        directory.sync().expect("durable");
        let kept = folder.path().join("a/b/x.eml");
        assert_eq!(std::fs::read_to_string(&kept).expect("there"), "whole");
        assert_eq!(kept.metadata().expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path().join("a/b")).expect("a folder").count(), 1);
    }

    #[test]
    fn a_second_run_is_told_of_the_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Directory::open(folder.path()).expect("free");
        let error = Directory::open(folder.path()).map(|_| ()).expect_err("taken");
        assert!(error.to_string().contains("another run"), "{error}");
        drop(first);
        assert!(Directory::open(folder.path()).is_ok());
    }
}
