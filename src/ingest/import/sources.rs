//! The files that an import was told to read, and the messages in them.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::mbox::{Dialect, Mbox, MboxError, begins_mbox, detect};

/// Octets read from a file at once.
const PIECE: usize = 64 * 1024;

/// Files still to be read, in order.
pub struct Sources {
    waiting: VecDeque<PathBuf>,
    dialect: Option<Dialect>,
}

/// What was found at a path.
pub enum Found {
    /// A file, open at its beginning.
    File(Box<Opened>),
    /// Something that is no message.
    Nothing(SourceError),
}

/// Why a file is passed over, or the rest of it. The text names the file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct SourceError {
    path: PathBuf,
    why: MboxError,
}

/// An open file: one message, or a mailbox of them.
pub struct Opened {
    path: PathBuf,
    inside: Inside,
    /// Messages begun.
    number: u64,
}

enum Inside {
    Message(BufReader<File>),
    Mailbox(Mbox<BufReader<File>>),
}

impl Sources {
    /// Reads `paths` in their order. A folder with `new` and `cur` is a maildir; of any other
    /// the `.eml` files are read. Without `dialect` that of each mailbox file is found out.
    pub fn new(paths: Vec<PathBuf>, dialect: Option<Dialect>) -> Self {
        Self { waiting: paths.into(), dialect }
    }

    /// Opens a file, or puts a folder's files in front of what waits.
    fn look(&mut self, path: &Path) -> Result<Option<Opened>, MboxError> {
        let facts = path.metadata()?;
        if facts.is_dir() {
            for file in files_of(path)?.into_iter().rev() {
                self.waiting.push_front(file);
            }
            return Ok(None);
        }
        if !facts.is_file() {
            return Err(io::Error::other("it is neither a file nor a folder").into());
        }
        let mut file = BufReader::with_capacity(PIECE, File::open(path)?);
        let is_mailbox = begins_mbox(file.fill_buf()?) || facts.len() == 0 && !named_eml(path);
        let inside = if is_mailbox {
            let dialect = self.dialect.map_or_else(|| detect(&mut file), Ok)?;
            Inside::Mailbox(Mbox::new(file, dialect))
        } else {
            Inside::Message(file)
        };
        Ok(Some(Opened { path: path.to_owned(), inside, number: 0 }))
    }
}

impl Iterator for Sources {
    type Item = Found;

    /// The next file.
    fn next(&mut self) -> Option<Found> {
        loop {
            let path = self.waiting.pop_front()?;
            match self.look(&path) {
                Ok(Some(opened)) => return Some(Found::File(Box::new(opened))),
                Ok(None) => {}
                Err(why) => return Some(Found::Nothing(SourceError { path, why })),
            }
        }
    }
}

/// The messages of a folder, in the order of their names: of a maildir the new ones first.
fn files_of(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let (new, cur) = (folder.join("new"), folder.join("cur"));
    if new.is_dir() && cur.is_dir() {
        return Ok([visible(&new)?, visible(&cur)?].concat());
    }
    let messages: Vec<_> = visible(folder)?.into_iter().filter(|path| named_eml(path)).collect();
    if messages.is_empty() {
        return Err(io::Error::other("the folder is no maildir and has no .eml files"));
    }
    Ok(messages)
}

fn visible(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn named_eml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("eml"))
}

impl Opened {
    /// Goes on to the next message; `false` behind the last.
    ///
    /// # Errors
    /// Where what follows cannot be read: nothing more of this file can be.
    pub fn advance(&mut self) -> Result<bool, SourceError> {
        let found = match &mut self.inside {
            Inside::Message(_) => Ok(self.number == 0),
            Inside::Mailbox(mailbox) => mailbox.advance(),
        };
        self.number += 1;
        found.map_err(|why| self.wrong(why))
    }

    /// Appends the next octets of the message; `false` at its end.
    ///
    /// # Errors
    /// As [`Opened::advance`].
    pub fn read(&mut self, message: &mut Vec<u8>) -> Result<bool, SourceError> {
        let read = match &mut self.inside {
            Inside::Message(file) => {
                file.take(PIECE as u64).read_to_end(message).map(|octets| octets > 0).map_err(MboxError::Io)
            }
            Inside::Mailbox(mailbox) => mailbox.read(message),
        };
        read.map_err(|why| self.wrong(why))
    }

    /// What to call the message: its file, and in a mailbox its number.
    pub fn name(&self) -> String {
        match self.inside {
            Inside::Message(_) => self.path.display().to_string(),
            Inside::Mailbox(_) => format!("{}: message {}", self.path.display(), self.number),
        }
    }

    fn wrong(&self, why: MboxError) -> SourceError {
        SourceError { path: PathBuf::from(self.name()), why }
    }
}
