//! Who has the store open, and whether he is alive.
//!
//! An instance holds a kernel lock on one byte (its number) of a file beside the
//! database. The kernel lets go of it when the process dies, however it dies; a number
//! is never used twice, so there is no stale lock and no process id to be mistaken about.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rusqlite::{Connection, params};

use super::super::{Error, Result, Trouble};
use super::open::Identity;
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
    database: PathBuf,
    path: PathBuf,
    probe: File,
    identity: Identity,
}

impl Liveness {
    /// Opens, or makes, the file of locks beside the database at `database`.
    pub(super) fn open(database: &Path) -> io::Result<Self> {
        let mut path = database.as_os_str().to_owned();
        path.push("-instances");
        let path = PathBuf::from(path);
        let probe = open_lock_file(&path)?;
        let identity = Identity::with(&path, &probe.metadata()?);
        Ok(Self { database: database.to_owned(), path, probe, identity })
    }

    /// Whether the file of locks is still the one that others look at.
    pub(super) fn check(&self) -> Result<()> {
        self.identity.check()
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

/// Refuses a store that another process has open unseen: each would take the other for dead, and
/// what that has in hand for its own.
fn refuse_unseen(tx: &Transaction<'_>, liveness: &Liveness) -> Result<()> {
    match Going::of(tx, liveness)?.unseen.first() {
        None => Ok(()),
        Some((_, pid)) => Err(Error::CannotOpen {
            store: liveness.database.display().to_string(),
            why: format!(
                "process {pid} has it open by another name of the file, or {} was removed meanwhile: end that process \
                 first, and let all use one name",
                liveness.path.display()
            ),
        }),
    }
}

/// Instances that did not end in order, by number and process.
struct Going {
    /// Nobody holds their locks.
    dead: Vec<(i64, u32)>,
    /// Nor theirs, and their processes have the database open all the same: they came by another
    /// name of it, or the file of locks was removed.
    unseen: Vec<(i64, u32)>,
}

impl Going {
    fn of(connection: &Connection, liveness: &Liveness) -> Result<Self> {
        let mut statement = connection.prepare_cached("SELECT id, pid FROM instance WHERE ended IS NULL")?;
        let going = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let going = going.collect::<rusqlite::Result<Vec<(i64, u32)>>>()?;
        let (alive, free): (Vec<_>, Vec<_>) = going.into_iter().partition(|&(id, _)| liveness.is_alive(id));
        // The number of one that is dead may be another's by now.
        let is_known = |pid: u32| pid == std::process::id() || alive.iter().any(|&(_, known)| known == pid);
        let (unseen, dead) =
            free.into_iter().partition(|&(_, pid)| !is_known(pid) && has_open(pid, &liveness.database));
        Ok(Self { dead, unseen })
    }
}

/// Whether the process has the file open, as far as this user may know.
fn has_open(pid: u32, file: &Path) -> bool {
    let Ok(wanted) = file.metadata() else { return false };
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|descriptor| {
        let open = descriptor.path().metadata();
        open.is_ok_and(|open| (open.dev(), open.ino()) == (wanted.dev(), wanted.ino()))
    })
}

/// Registers this process. The lock is taken before the row is committed, so that
/// nobody can see the one without the other.
pub(super) fn register(tx: &Transaction<'_>, liveness: &Liveness, kind: &str) -> Result<Instance> {
    refuse_unseen(tx, liveness)?;
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
    let dead = Going::of(connection, liveness)?.dead.into_iter().map(|(id, _)| id);
    Ok(dead.filter(|&id| Some(id) != own).collect())
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
