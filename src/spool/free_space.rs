//! Free space on the disk: new mail is put off before there is none left for what is ours already.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Octets that stay free where the store is: with fewer, new mail is put off.
pub const MIN_FREE: u64 = 64 * 1024 * 1024;

/// What tells how much there is.
#[derive(Clone)]
pub struct FreeSpace {
    directory: PathBuf,
    free: Arc<dyn Fn() -> io::Result<u64> + Send + Sync>,
}

impl FreeSpace {
    /// That of the file system of `directory`.
    pub fn of(directory: PathBuf) -> Self {
        let path = directory.clone();
        Self { directory, ..Self::told_by(move || free_space(&path)) }
    }

    /// As many octets as `free` says.
    pub fn told_by(free: impl Fn() -> io::Result<u64> + Send + Sync + 'static) -> Self {
        Self { directory: PathBuf::new(), free: Arc::new(free) }
    }

    /// How much there is, where it can be told.
    pub(super) fn octets(&self) -> Option<u64> {
        (self.free)().ok()
    }

    /// Where, and how much is left, in words.
    pub(super) fn told(&self) -> String {
        let mib = |octets: u64| octets / (1024 * 1024);
        let left = self.octets().map_or_else(|| "too few".to_owned(), |free| mib(free).to_string());
        format!("{} has {left} MiB, and {} MiB are to stay free", self.directory.display(), mib(MIN_FREE))
    }

    /// Whether [`MIN_FREE`] would be left after `octets` more. Where free space cannot be
    /// told, the store will say whether it has room.
    pub(super) fn takes(&self, octets: u64) -> bool {
        self.octets().is_none_or(|free| free >= MIN_FREE.saturating_add(octets))
    }
}

impl fmt::Debug for FreeSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreeSpace").finish_non_exhaustive()
    }
}

/// Octets that this user may still write on the file system of `path`.
///
/// # Errors
/// Those of statvfs(3).
pub fn free_space(path: &Path) -> io::Result<u64> {
    let system = nix::sys::statvfs::statvfs(path)?;
    Ok(system.blocks_available().saturating_mul(system.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_stay_free_is_counted_beside_what_comes() {
        for (free, octets, takes) in [
            (MIN_FREE, 0, true),
            (MIN_FREE - 1, 0, false),
            (MIN_FREE + 50, 50, true),
            (MIN_FREE + 50, 51, false),
            (u64::MAX, u64::MAX, true),
        ] {
            assert_eq!(FreeSpace::told_by(move || Ok(free)).takes(octets), takes, "{free} {octets}");
        }
        assert!(FreeSpace::told_by(|| Err(io::ErrorKind::NotFound.into())).takes(1));
    }
}
