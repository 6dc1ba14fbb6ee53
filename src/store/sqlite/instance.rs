//! Who has the store open, and whether he is alive.
//!
//! An instance holds a kernel lock on one byte (its number) of a file beside the
//! database. The kernel lets go of it when the process dies, however it dies; a number
//! is never used twice, so there is no stale lock and no process id to be mistaken about.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rusqlite::{Connection, params};

use super::super::{Error, Result, Trouble};
use super::transaction::Transaction;

/// The byte for turns: no instance has this number.
const TURN: i64 = 0;

/// This process's registration; dropping it lets go of the lock.
pub(super) struct Instance {
    pub(super) id: i64,
    _lock: File,
}

/// The file of locks.
pub(super) struct Liveness {
    path: PathBuf,
    probe: File,
}

impl Liveness {
    /// Opens, or makes, the file of locks beside the database at `database`.
    pub(super) fn open(database: &Path) -> io::Result<Self> {
        let mut path = database.as_os_str().to_owned();
        path.push("-instances");
        let path = PathBuf::from(path);
        let probe = open_lock_file(&path)?;
        Ok(Self { path, probe })
    }

    /// Waits for a turn to do what one process at a time may do; the turn ends when it is dropped.
    pub(super) fn turn(&self) -> io::Result<File> {
        let turn = open_lock_file(&self.path)?;
        fcntl(turn.as_fd(), FcntlArg::F_OFD_SETLKW(&byte_lock(TURN)))?;
        Ok(turn)
    }

    /// Whether some process holds the lock of `instance`. Trouble counts as alive: nothing
    /// is taken from anybody on a guess.
    fn is_alive(&self, instance: i64) -> bool {
        let mut lock = byte_lock(instance);
        match fcntl(self.probe.as_fd(), FcntlArg::F_OFD_GETLK(&mut lock)) {
            Ok(_) => i32::from(lock.l_type) != libc::F_UNLCK,
            Err(_) => true,
        }
    }
}

fn open_lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(path)
}

#[expect(clippy::cast_possible_truncation, reason = "F_WRLCK and SEEK_SET are 1 and 0")]
fn byte_lock(instance: i64) -> libc::flock {
    libc::flock { l_type: libc::F_WRLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: instance, l_len: 1, l_pid: 0 }
}

/// Registers this process. The lock is taken before the row is committed, so that
/// nobody can see the one without the other.
pub(super) fn register(tx: &Transaction<'_>, liveness: &Liveness, kind: &str) -> Result<Instance> {
    tx.execute(
        "INSERT INTO instance (kind, pid, started) VALUES (?1, ?2, ?3)",
        params![kind, std::process::id(), tx.millis()],
    )?;
    let id = tx.last_insert_rowid();
    let lock = open_lock_file(&liveness.path).map_err(|error| Error::trouble(Trouble::Io, error))?;
    fcntl(lock.as_fd(), FcntlArg::F_OFD_SETLK(&byte_lock(id))).map_err(|error| Error::trouble(Trouble::Io, error))?;
    Ok(Instance { id, _lock: lock })
}

/// Ends this instance in order, where it has nothing any more: what it could not give back or
/// write down is found with the dead.
pub(super) fn end_in_order(tx: &Transaction<'_>, own: i64) -> Result<()> {
    tx.execute(
        "UPDATE instance SET ended = ?2 WHERE id = ?1 \
         AND NOT EXISTS (SELECT 1 FROM mail WHERE claimed = 1 AND instance = ?1) \
         AND NOT EXISTS (SELECT 1 FROM message WHERE mails = 0 AND writer = ?1) \
         AND NOT EXISTS (SELECT 1 FROM run WHERE finished IS NULL AND instance = ?1)",
        params![own, tx.millis()],
    )?;
    Ok(())
}

/// Ends an instance whose mails are free.
pub(super) fn end(tx: &Transaction<'_>, instance: i64) -> Result<()> {
    tx.execute("UPDATE instance SET ended = ?2 WHERE id = ?1", params![instance, tx.millis()])?;
    Ok(())
}

/// Instances that did not end in order and whose lock nobody holds.
pub(super) fn dead(connection: &Connection, liveness: &Liveness, own: Option<i64>) -> Result<Vec<i64>> {
    let mut statement = connection.prepare_cached("SELECT id FROM instance WHERE ended IS NULL")?;
    let going = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
    Ok(going.into_iter().filter(|&id| Some(id) != own && !liveness.is_alive(id)).collect())
}

/// Whether a process of this kind has the store open.
pub(super) fn is_any_alive(connection: &Connection, liveness: &Liveness, kind: &str) -> Result<bool> {
    let mut statement = connection.prepare_cached("SELECT id FROM instance WHERE ended IS NULL AND kind = ?1")?;
    let going = statement.query_map([kind], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
    Ok(going.into_iter().any(|id| liveness.is_alive(id)))
}

/// Whether an instance is one of these: looked at again once it can be ended.
pub(super) fn is_dead(connection: &Connection, liveness: &Liveness, instance: i64) -> Result<bool> {
    let going =
        connection.prepare_cached("SELECT 1 FROM instance WHERE id = ?1 AND ended IS NULL")?.exists([instance])?;
    Ok(going && !liveness.is_alive(instance))
}
