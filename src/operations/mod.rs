//! What is done to many mails at rest: which are meant, what it would come to, and the doing.
//!
//! Command line, HTTP and jobs ask here, so that a filter means the same to all of them. Each
//! change is on record with who asked for it, and every mail that it takes away, moves or
//! changes names it. A mail that is in hand, or went away meanwhile, is passed over.

mod bulk;
mod pause;
mod preview;
mod purge;
mod repository;
mod selection;
mod verb;

pub use bulk::{Operations, Operator};
pub use preview::Preview;
pub use purge::purge;
pub use repository::resolve;
pub use selection::{Bounds, Conditions, Moment, Selection, Wrong};
pub use verb::{Done, MAX_NOTE, Verb};

use crate::mail::{CauseId, RepositoryPath};
use crate::store;

/// Why nothing was done, or not all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot do it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A condition makes no sense.
    #[error(transparent)]
    Wrong(#[from] Wrong),
    /// Nobody knows this failure group.
    #[error("there is no failure group {0}")]
    NoSuchGroup(CauseId),
    /// There is no such repository; which there are.
    #[error("repository {0} does not exist: {1}")]
    UnknownRepository(RepositoryPath, String),
    /// What is no name of a repository, or could be several.
    #[error("{0}")]
    NoSuchRepository(String),
    /// What is asked for makes no sense there.
    #[error("{0}")]
    Refused(String),
}

/// What calls of this room answer.
pub type Result<T> = std::result::Result<T, Error>;
