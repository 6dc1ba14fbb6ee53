//! Opening a database: what it is, which version it has, how it is set up.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::super::{Error, Result, Trouble};
use super::instance::Liveness;
use super::listing;
use crate::files;

/// "redl": tells our databases from others (the SQLite header's application id).
const APPLICATION_ID: i32 = 0x7265_646c;

/// The first version that there is a way on from: those before were of programs that were
/// never released.
const FIRST_VERSION: i64 = 5;

/// Append-only: the first makes a database of [`FIRST_VERSION`], each further one brings it
/// one version on.
const MIGRATIONS: &[&str] = &[include_str!("migrations/0005_schema.sql")];

/// How long a writer waits for another process's commit.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The value of `PRAGMA auto_vacuum`.
const INCREMENTAL: i64 = 2;

/// The oldest SQLite that is used: 3.51.3 mends the WAL-reset bug, which can damage a
/// database that two processes write.
pub const fn oldest_sqlite() -> i32 {
    3_051_003
}

/// Opens for writing, and sets up; makes the database where there is none.
pub(super) fn open(path: &Path, liveness: &Liveness) -> Result<Connection> {
    if rusqlite::version_number() < oldest_sqlite() {
        return Err(cannot_open(path, format!("SQLite {} is too old: 3.51.3 is needed", rusqlite::version())));
    }
    refuse_no_file(path)?;
    if is_missing(path) {
        let _turn = liveness.turn().map_err(|error| no_lock(path, &error))?;
        // Somebody else may have had his turn.
        if is_missing(path) {
            refuse_orphaned_wal(path)?;
            make(path)?;
        }
    }
    refuse_mounted_file(path)?;
    refuse_second_name(path)?;
    open_in_place(path)
}

/// The log beside a file that is a mount of its own is not on that mount: a container that is made
/// anew has the file and not the log, and whoever has the file by its other name never sees it.
fn refuse_mounted_file(path: &Path) -> Result<()> {
    let (Ok(file), Ok(mounts)) = (path.canonicalize(), std::fs::read_to_string("/proc/self/mountinfo")) else {
        return Ok(());
    };
    if mounts.lines().filter_map(|mount| mount.split(' ').nth(4)).any(|point| Path::new(&unescaped(point)) == file) {
        return Err(cannot_open(
            path,
            "it is mounted by itself, without the log beside it: mount its directory".to_owned(),
        ));
    }
    Ok(())
}

/// SQLite has a log for each name of a file: whoever opens it by the other one does not see what is in
/// ours, and writes over it.
fn refuse_second_name(path: &Path) -> Result<()> {
    if path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.nlink() > 1) {
        let why = "it has a second name (a hard link), and mail is lost where both are used: remove that, or copy it";
        return Err(cannot_open(path, why.to_owned()));
    }
    Ok(())
}

/// Blanks and the like stand in the table of mounts as octal numbers (proc_pid_mountinfo(5)).
fn unescaped(point: &str) -> String {
    [(r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")]
        .into_iter()
        .fold(point.to_owned(), |text, (written, meant)| text.replace(written, meant))
}

/// Whether there is no database: nothing at all, or an empty file.
fn is_missing(path: &Path) -> bool {
    path.metadata().map_or_else(|error| error.kind() == std::io::ErrorKind::NotFound, |found| found.len() == 0)
}

/// Makes a database beside `path` and puts it there whole, so that nobody ever meets half of one.
fn make(path: &Path) -> Result<()> {
    // Of a link the file that it leads to is to be the database.
    if path.is_symlink() {
        return open_in_place(path).map(drop);
    }
    let failed = |error: std::io::Error| cannot_open(path, error.to_string());
    let new = beside(path, "-new");
    for left in ["", "-wal", "-shm", "-journal"] {
        match std::fs::remove_file(beside(&new, left)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(not_made(path, &error)),
            _ => {}
        }
    }
    // The last to close it writes all of it into the one file.
    open_in_place(&new).map(drop).map_err(|error| error_about(path, error))?;
    std::fs::rename(&new, path).map_err(failed)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Why a file beside the database at `path` cannot be had: mostly for what is wrong with that.
pub(super) fn no_lock(path: &Path, error: &std::io::Error) -> Error {
    cannot_open(path, not_writable(path).unwrap_or_else(|| format!("its lock file: {error}")))
}

fn not_made(path: &Path, error: &std::io::Error) -> Error {
    cannot_open(path, not_writable(path).unwrap_or_else(|| error.to_string()))
}

/// What went wrong with the new database, said of the one that it was to be.
fn error_about(path: &Path, error: Error) -> Error {
    match error {
        Error::CannotOpen { why, .. } => cannot_open(path, why),
        other => other,
    }
}

/// `path` with `end` behind it.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn open_in_place(path: &Path) -> Result<Connection> {
    let mut connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(|error| explain(path, &error))?;
    set_up(path, &mut connection).map_err(|error| match error {
        Failure::Sqlite(error) => explain(path, &error),
        Failure::Other(error) => error,
    })?;
    Ok(connection)
}

/// Refuses what is no file: in its place, empty as it looks, a database would be put, whoever
/// needs it.
pub(super) fn refuse_no_file(path: &Path) -> Result<()> {
    match files::not_a_file(path) {
        Some(what) if !path.is_dir() => Err(cannot_open(path, format!("it is {what}, and no file"))),
        _ => Ok(()),
    }
}

/// Makes the directory of the database at `path`.
pub(super) fn make_directory(path: &Path) -> Result<()> {
    let Some(directory) = path.parent().filter(|p| !p.as_os_str().is_empty()) else { return Ok(()) };
    if directory.is_dir() {
        return Ok(());
    }
    // Everybody may pass through, to `submit.sock`; the umask keeps the files from them.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(directory)
        .and_then(|()| std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o751)))
        .map_err(|error| cannot_open(path, format!("cannot make its directory: {error}")))
}

/// A write-ahead log beside no database: SQLite would empty it, and the mail in it.
fn refuse_orphaned_wal(path: &Path) -> Result<()> {
    let wal = beside(path, "-wal");
    if wal.metadata().map_or(0, |found| found.len()) == 0 {
        return Ok(());
    }
    let why = format!(
        "it is missing or empty, but {0} beside it still holds mail of it: put the database back; \
         only where it is lost for good, move {0} away, and begin anew",
        wal.display()
    );
    Err(cannot_open(path, why))
}

/// Which file a path led to when it was opened.
pub(super) struct Identity {
    path: PathBuf,
    file: (u64, u64),
}

impl Identity {
    /// Of the file at `path`.
    pub(super) fn of(path: &Path) -> Result<Self> {
        let metadata = path.metadata().map_err(|error| cannot_open(path, error.to_string()))?;
        Ok(Self::with(path, &metadata))
    }

    /// Of a file that was opened at `path`, by what it says of itself.
    pub(super) fn with(path: &Path, metadata: &std::fs::Metadata) -> Self {
        Self { path: path.to_owned(), file: (metadata.dev(), metadata.ino()) }
    }

    /// Whether the path still leads there. Where it does not, what is written now would be
    /// gone with the last process that has the old file open.
    pub(super) fn check(&self) -> Result<()> {
        match self.path.metadata() {
            Ok(metadata) if (metadata.dev(), metadata.ino()) == self.file => Ok(()),
            _ => Err(Error::trouble(
                Trouble::Io,
                format!("{} was removed or replaced while it was open: restart redeliver", self.path.display()),
            )),
        }
    }
}

/// A connection for reading only.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    prepare(&connection, 64)?;
    listing::add_functions(&connection)?;
    Ok(connection)
}

/// What holds for every connection.
fn prepare(connection: &Connection, statements: usize) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(statements);
    // Else a cached statement is prepared anew each time it is given other values.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

enum Failure {
    Sqlite(rusqlite::Error),
    Other(Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn set_up(path: &Path, connection: &mut Connection) -> std::result::Result<(), Failure> {
    prepare(connection, 128)?;
    check_ours(path, connection, known_version(MIGRATIONS))?;
    // Must come before the first table; later it changes nothing, and takes the write lock for
    // that, so that nobody could look while another process has it.
    if connection.query_row("PRAGMA auto_vacuum", [], |row| row.get::<_, i64>(0))? != INCREMENTAL {
        connection.pragma_update(None, "auto_vacuum", INCREMENTAL)?;
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(Failure::Other(cannot_open(
            path,
            format!("its journal mode stays {mode:?}: WAL needs a local file system that may be written"),
        )));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
    // 8 MiB, so that what all mails touch is not read from the log again and again.
    connection.pragma_update(None, "cache_size", -8 * 1024)?;
    migrate(path, connection, MIGRATIONS)?;
    // For the journal of the savepoint around each operation. Migrations, which may sort whole
    // tables, have a temporary file.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(())
}

/// Refuses a database of another program or of a version newer than `known` before anything is
/// written.
fn check_ours(path: &Path, connection: &Connection, known: i64) -> std::result::Result<(), Failure> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let application: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let why = if version == 0 && tables == 0 {
        return Ok(());
    } else if application != APPLICATION_ID {
        "it is a database of another program".to_owned()
    } else if version > known {
        format!("it has schema version {version}, this program knows up to {known}: use the newer redeliver")
    } else if version < FIRST_VERSION {
        format!(
            "it has schema version {version}, of a redeliver before the first release, which this program does not \
             read: let that redeliver deliver or export its mail, then move the database away and begin anew"
        )
    } else {
        return Ok(());
    };
    Err(Failure::Other(cannot_open(path, why)))
}

fn known_version(steps: &[&str]) -> i64 {
    FIRST_VERSION - 1 + i64::try_from(steps.len()).unwrap_or_default()
}

/// Brings a database to the version that `steps` lead to, in one transaction.
fn migrate(path: &Path, connection: &mut Connection, steps: &[&str]) -> std::result::Result<(), Failure> {
    let known = known_version(steps);
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version == known {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    // Another process may have been first: look again, now with the lock.
    check_ours(path, &transaction, known)?;
    let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let done = usize::try_from(version - FIRST_VERSION + 1).unwrap_or(0);
    for step in &steps[done..] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(())
}

pub(super) fn cannot_open(path: &Path, why: String) -> Error {
    Error::CannotOpen { store: path.display().to_string(), why }
}

/// The operator's next step is in the text, where SQLite's own words do not name it.
fn explain(path: &Path, error: &rusqlite::Error) -> Error {
    let why = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "it is not a SQLite database".to_owned(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process has locked it for more than 10 s".to_owned()
        }
        Some(ErrorCode::ReadOnly) => "it may not be written by this user, or its file system is read-only".to_owned(),
        Some(ErrorCode::DiskFull) => NO_ROOM.to_owned(),
        // Of a log that it cannot write it says no more.
        Some(ErrorCode::SystemIoFailure) if is_full(path) => NO_ROOM.to_owned(),
        Some(ErrorCode::DatabaseCorrupt) => "it is damaged: restore a backup, or try sqlite3's .recover".to_owned(),
        Some(ErrorCode::CannotOpen) if path.is_dir() => "it is a directory".to_owned(),
        Some(ErrorCode::CannotOpen) if path.is_symlink() && !path.exists() => {
            "it is a link to a file that does not exist".to_owned()
        }
        Some(ErrorCode::CannotOpen) => not_writable(path).unwrap_or_else(|| error.to_string()),
        _ => error.to_string(),
    };
    cannot_open(path, why)
}

const NO_ROOM: &str = "there is no room left on its file system (see df)";

/// Whether the file system of the database has less than a page and its log would need.
fn is_full(path: &Path) -> bool {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let room = nix::sys::statvfs::statvfs(directory);
    room.is_ok_and(|room| room.blocks_available().saturating_mul(room.fragment_size()) < 64 * 1024)
}

/// SQLite does not tell a file system that may not be written from a file that is not there.
fn not_writable(path: &Path) -> Option<String> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let [file, directory] = [path, directory].map(|place| nix::unistd::access(place, nix::unistd::AccessFlags::W_OK));
    match (file, directory) {
        (Err(Errno::EROFS), _) | (_, Err(Errno::EROFS)) => Some("its file system is read-only".to_owned()),
        (Err(Errno::EACCES), _) | (_, Err(Errno::EACCES)) => {
            Some("it, or its directory, may not be written by this user".to_owned())
        }
        _ => None,
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        let kind = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Trouble::Busy,
            Some(ErrorCode::DiskFull) => Trouble::Full,
            Some(ErrorCode::ReadOnly) => Trouble::ReadOnly,
            // SQLite keeps the system's error to itself: EROFS is an I/O error too.
            Some(ErrorCode::SystemIoFailure) => {
                let next = "did its file system become read-only, or is a file size limit reached (ulimit -f)? The kernel's log (dmesg) tells";
                return Self::trouble(Trouble::Io, format!("{error}; {next}"));
            }
            Some(ErrorCode::CannotOpen | ErrorCode::OutOfMemory) => Trouble::Io,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Trouble::Corrupt,
            _ => Trouble::Internal,
        };
        Self::trouble(kind, error)
    }
}

#[cfg(test)]
mod upgrade;
