//! What a store can answer instead.

use super::NotOurs;
use crate::mail::{MailKey, RepositoryPath};

/// Why a call did nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No repository of that name.
    #[error("repository {0} does not exist")]
    NoSuchRepository(RepositoryPath),
    /// No such mail there.
    #[error("there is no mail {0} in that repository")]
    NoSuchMail(MailKey),
    /// Somebody works on the mail now.
    #[error("mail {0} is in hand: an attempt is under way")]
    InHand(MailKey),
    /// The claim was reaped: another process may have the mail now.
    #[error("mail {0} is no longer held by this process")]
    ClaimLost(MailKey),
    /// It is there, and makes no sense to this version.
    #[error("mail {0} cannot be read: {1}")]
    Unreadable(MailKey, String),
    /// An import took it in already.
    #[error("it was imported before, as mail {0}")]
    ImportedBefore(MailKey),
    /// The store cannot be opened.
    #[error("cannot open the store {store}: {why}")]
    CannotOpen {
        /// Where it is: of a database file, its path.
        store: String,
        /// What is wrong, and where it is known what would be right.
        why: String,
    },
    /// A message, or a part of it, is not there any more.
    #[error("the message is no longer whole in the store")]
    NoContent,
    /// A cursor or a horizon that this store did not give out.
    #[error(transparent)]
    NotOurs(#[from] NotOurs),
    /// This kind of store leaves that to tools of its own.
    #[error("this store does not do that by itself: {0}")]
    Unsupported(String),
    /// The store can be opened and does not work.
    #[error("the store {kind}{detail}")]
    Trouble {
        /// What kind of trouble.
        kind: Trouble,
        /// The database's own words, with `: ` in front.
        detail: String,
    },
}

/// Kinds of trouble with an open store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Another process holds the write lock for too long.
    Busy,
    /// No room on the file system.
    Full,
    /// The file system or the file may not be written.
    ReadOnly,
    /// Reading or writing failed.
    Io,
    /// The database is damaged.
    Corrupt,
    /// A row that the database reads well, and that makes no sense.
    Unreadable,
    /// This process closed it.
    Closed,
    /// Anything else: a fault of ours.
    Internal,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Busy => "is locked by another process",
            Self::Full => "has no room left: make room on its file system",
            Self::ReadOnly => "is read-only",
            Self::Io => "cannot be read or written",
            Self::Corrupt => "is damaged: restore a backup",
            Self::Unreadable => "has a row that makes no sense to this version",
            Self::Closed => "is closed",
            Self::Internal => "answered with an error",
        })
    }
}

impl Error {
    pub(super) fn trouble(kind: Trouble, detail: impl std::fmt::Display) -> Self {
        Self::Trouble { kind, detail: format!(": {detail}") }
    }

    /// Whether one row makes no sense, and others may.
    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Unreadable(..) | Self::Trouble { kind: Trouble::Unreadable, .. })
    }

    /// Whether trying again may help without anybody doing anything.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Trouble { kind: Trouble::Busy | Trouble::Full | Trouble::Io, .. })
    }
}
