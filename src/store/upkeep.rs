//! What keeps a store well: what is over goes, copies are made, and it is closed in order.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::Result;
use crate::mail::RepositoryPath;

/// Where a backup is written to, in the backend's own terms: of a database file, the path of
/// an empty file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination(pub OsString);

/// How long a process lets its writes wait for others, once what was under way is given up.
pub const LAST_WRITES: Duration = Duration::from_secs(5);

/// Housekeeping.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// Makes repositories known; nothing happens to those that are.
    async fn ensure_repositories(&self, paths: &[RepositoryPath]) -> Result<()>;

    /// Deletes attempt records of mails that have been gone for longer than `older_than`, and
    /// operations, runs and instances that have been over for longer, at most `batch` of each;
    /// how many, 0 where nothing is left.
    async fn purge_records(&self, older_than: Duration, batch: usize) -> Result<usize>;

    /// Folds outcomes by hour to days once they are older than two days, with the 50 next hops
    /// that had the most and the rest as one; takes the names of next hops away after
    /// `names_for`, and the sums after `sums_for`. One short step; whether it did anything.
    async fn fold_history(&self, names_for: Duration, sums_for: Duration) -> Result<bool>;

    /// Gives back room of what was deleted, in one short step; whether there is more to do. A
    /// backend that does so by itself has nothing to do.
    async fn tidy(&self) -> Result<bool>;

    /// Writes the store as it is now to `to`, while others go on. Dropping the future gives it
    /// up; what is there then is of no use.
    ///
    /// # Errors
    /// [`super::Error::Unsupported`] where a backend leaves that to tools of its own.
    async fn backup(&self, to: &Destination) -> Result<()>;

    /// Octets of the log of what was written and is not in its place yet; `None` where there is
    /// no such log.
    fn log_bytes(&self) -> Option<u64>;

    /// Writes something that nobody will miss, the way that everything is written: it
    /// fails as an accepted mail would.
    async fn ping(&self) -> Result<()>;

    /// The process is to end: nothing waits for others beyond `by`. A write that would have to
    /// fails; one that need not is still done.
    fn deadline(&self, by: Instant);

    /// Ends this instance in order. Later calls fail. What it still has in hand is freed as
    /// a dead process's is.
    async fn close(&self) -> Result<()>;
}
