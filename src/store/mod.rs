//! Where mail rests: the spool and the repositories, and the record of every attempt.
//!
//! [`Store`] is the interface: a trait for each role, in a file with its types. `rules` is
//! what every backend must decide the same way; `sqlite` is the one backend there is, with
//! all SQL of the crate; `contract` holds the tests that every backend passes. What is above
//! this room knows nothing of databases, locks or transactions.
//!
//! Five rules hold for every backend. An answer means durable: `Ok` is given after the
//! commit. A mail rests in exactly one place: what moves it is one transaction. A claim can
//! be lost: [`Passes::begin_attempt`], [`Passes::record`] and [`Passes::settle`] refuse with
//! [`Error::ClaimLost`] what a reaped process still wants to say. Time is the store's: what
//! is due and what is over is judged by its clock alone. And order is the store's: callers
//! hold a [`Horizon`] or a [`Cursor`] and count nothing.

mod catalogue;
mod error;
mod groups;
mod intake;
mod notifications;
mod operations;
mod order;
mod pages;
mod passes;
mod rules;
mod runs;
mod sqlite;
mod tasks;
mod upkeep;

#[cfg(test)]
mod contract;

use chrono::{DateTime, Utc};

use crate::mail::RepositoryPath;

pub use catalogue::{
    Acknowledged, AttemptFilter, Catalogue, Lineage, Listed, MailFilter, OutcomeTotal, Period, Recipients, SeenHop,
    Sums,
};
pub use error::{Error, Trouble};
pub use groups::{DAYS, FailureGroup, GroupFilter, Groups};
pub use intake::{Arrivals, Intake};
pub use notifications::{Digest, DsnCounts, Fate, NAMED_IN_DIGEST, Notifications};
pub use operations::{Act, Acted, Batch, Gone, NewOperation, Old, Operation, OperationId, Operations, Purged, Respool};
pub use order::{Cursor, Horizon, NotOurs, Page, Span};
pub use pages::Pages;
pub use passes::{AttemptId, Claim, Claimed, Passes, Reaped, Resting, Settlement, Wanted};
pub use rules::{spacing_after, taken_for_reprocessing};
pub use runs::{Counts, Pause, Run, RunId, Runs, SERVICE};
pub use sqlite::{SqliteStore, oldest_sqlite};
pub use tasks::{Task, Tasks};
pub use upkeep::{Destination, LAST_WRITES, Upkeep};

/// What every call answers.
pub type Result<T> = std::result::Result<T, Error>;

/// The time, as everything here takes it.
pub type Time = DateTime<Utc>;

/// Where a mail rests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// Waiting for its first, or its next, way through the processors.
    Spool,
    /// Kept until somebody or some job takes it.
    Repository(RepositoryPath),
}

/// Where mail rests: all roles. See the module for what holds for every call.
pub trait Store: Intake + Passes + Notifications + Runs + Catalogue + Groups + Operations + Upkeep + Tasks {}

impl<T: Intake + Passes + Notifications + Runs + Catalogue + Groups + Operations + Upkeep + Tasks> Store for T {}
