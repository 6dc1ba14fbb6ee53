//! What mail that comes in meets, by whatever way it comes.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::local::Here;
use crate::mail::RepositoryPath;
use crate::spool::Spool;

/// What every way in asks for anew with each mail, since a reload may replace it.
pub struct Intake {
    /// The spool that mail enters.
    pub spool: Arc<Spool>,
    /// The repositories whose mails wait for a next pass.
    pub kept: BTreeSet<RepositoryPath>,
    /// The machine's name and users.
    pub here: Here,
}
