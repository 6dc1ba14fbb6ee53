//! Read-only connections, each used for one short query at a time.
//!
//! A reader that stays open keeps the WAL from being reset, so nothing here lives longer
//! than one page or one row of a message.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rusqlite::Connection;

use super::super::Result;
use super::open::open_reader;

/// Connections kept for the next query at most.
const KEPT: usize = 4;

pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), idle: Mutex::new(Vec::new()) }
    }

    /// Runs `query` on a connection of its own. Blocks.
    pub(super) fn with<T>(&self, query: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let idle = self.idle.lock().ok().and_then(|mut idle| idle.pop());
        let connection = match idle {
            Some(connection) => connection,
            None => open_reader(&self.path)?,
        };
        let answer = query(&connection);
        if let Ok(mut idle) = self.idle.lock()
            && answer.is_ok()
            && idle.len() < KEPT
        {
            idle.push(connection);
        }
        answer
    }

    /// Closes what is idle.
    pub(super) fn clear(&self) {
        if let Ok(mut idle) = self.idle.lock() {
            idle.clear();
        }
    }
}
