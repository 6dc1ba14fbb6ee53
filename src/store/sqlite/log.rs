//! The log beside the database, moved into it off the way of the commits.
//!
//! Left to itself SQLite moves it within some commit, whose caller waits for that. Here a
//! thread with a connection of its own moves most of it, while others commit; the little that
//! came in meanwhile follows between two groups, and with the next commit the log begins at its
//! start again. A reader that stays open for long, a backup mostly, only delays that.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tracing::debug;

/// Pages that come into the log before it is moved: 32 MiB. A page that is written again and
/// again is moved once.
const STRETCH: usize = 8192;

/// Pages that are left in the log of a store where nothing happens.
const LITTLE: usize = 64;

/// How long nothing happens before what is in the log is moved.
pub(super) const QUIET: Duration = Duration::from_secs(1);

/// The log of the connection that writes.
pub(super) struct Log {
    database: PathBuf,
    /// Pages in it, as the last commit left it.
    pages: Arc<AtomicUsize>,
    /// Pages in it before the last commit.
    before: usize,
    /// With how many it is moved.
    due: usize,
    mover: Option<JoinHandle<()>>,
    /// Something was written since it was last moved.
    grown: bool,
}

impl Log {
    /// Takes over what `connection`, of the database at `path`, would do by itself.
    pub(super) fn of(connection: &mut Connection, path: &Path) -> rusqlite::Result<Self> {
        let pages = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&pages);
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
            counted.store(usize::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self { database: path.to_owned(), pages, before: 0, due: STRETCH, mover: None, grown: false })
    }

    /// Whether something is to be done once it is quiet.
    pub(super) fn is_to_be_moved(&self) -> bool {
        self.grown && self.before >= LITTLE
    }

    /// After a commit of `connection`.
    pub(super) fn committed(&mut self, connection: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.before {
            // It began at its start again.
            self.due = STRETCH;
        }
        (self.before, self.grown) = (pages, true);
        if self.mover.as_ref().is_some_and(JoinHandle::is_finished) {
            self.wait();
            // What came in meanwhile: few pages, and after it the log may begin anew.
            tell(move_log(connection));
            self.due = pages + STRETCH;
        } else if self.mover.is_none() && pages >= self.due {
            self.begin();
        }
    }

    /// Nothing happens.
    pub(super) fn quiet(&mut self) {
        self.wait();
        self.begin();
        self.grown = false;
    }

    fn begin(&mut self) {
        let path = self.database.clone();
        let mover = std::thread::Builder::new().name("store-log".to_owned());
        // Where no thread can be had, the next commit tries again.
        self.mover = mover.spawn(move || tell(move_by_itself(&path))).ok();
    }

    /// Waits for what is being moved.
    pub(super) fn wait(&mut self) {
        if let Some(mover) = self.mover.take() {
            // The result of a join is a panic that was reported already.
            drop(mover.join());
        }
    }
}

fn move_by_itself(path: &Path) -> rusqlite::Result<()> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    move_log(&connection)
}

/// As much as can be moved without waiting for anybody.
fn move_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

/// Nothing is lost with it: it stays in the log, and is moved the next time.
fn tell(moved: rusqlite::Result<()>) {
    if let Err(error) = moved {
        debug!(%error, "the log of the database cannot be moved into it now");
    }
}
