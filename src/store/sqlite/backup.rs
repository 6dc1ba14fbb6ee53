//! A copy of the database as it is at one moment, while others go on writing.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::InterruptHandle;

use super::super::{Destination, Error, Result, Trouble};
use super::open::open_reader;

/// Writes the database at `path` into the empty file `to`: one file, without WAL, compact.
///
/// `VACUUM INTO` reads one snapshot however long it takes; the backup interface of SQLite
/// would begin anew with every commit of another process.
pub(super) async fn write(path: &Path, to: &Destination) -> Result<()> {
    let odd = || Error::trouble(Trouble::Io, format!("{} is not UTF-8", to.0.display()));
    let target = to.0.to_str().ok_or_else(odd)?;
    let (path, target) = (path.to_owned(), target.to_owned());
    let given_up = GivenUp::default();
    let handle = Arc::clone(&given_up.0);
    let copied = tokio::task::spawn_blocking(move || {
        // A connection of its own: an interrupt would hit whatever it does next.
        let connection = open_reader(&path)?;
        *handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection.get_interrupt_handle());
        connection.execute("VACUUM INTO ?1", [target])?;
        Ok(())
    });
    copied.await.unwrap_or_else(|panic| Err(Error::trouble(Trouble::Internal, panic)))
}

/// Interrupts the copying when nobody waits for it any more.
#[derive(Default)]
struct GivenUp(Arc<Mutex<Option<InterruptHandle>>>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        if let Some(handle) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            handle.interrupt();
        }
    }
}
