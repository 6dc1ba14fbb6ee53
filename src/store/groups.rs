//! Failures by cause: which there are, and how many mails each has.

use async_trait::async_trait;

use super::{Page, Result, Span, Time};
use crate::mail::{Cause, CauseId, MailKey, RepositoryPath};

/// Groups that a mail is in at most: its recipients may have failed for more causes.
pub(super) const GROUPS_OF_A_MAIL: usize = 8;

/// Texts that are told apart of one next hop and reply code; what comes after is one cause.
pub(super) const TEXTS_OF_A_HOP: usize = 100;

/// Days whose arrivals a group counts.
pub const DAYS: usize = 14;

/// The mails of one repository that failed for one cause. Counts are of mails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureGroup {
    /// The cause's.
    pub id: CauseId,
    /// Where the mails rest.
    pub repository: RepositoryPath,
    /// Why they failed.
    pub cause: Cause,
    /// How many they are.
    pub mails: u64,
    /// How many of them nobody has taken note of.
    pub unacknowledged: u64,
    /// When the first of them came, those that are gone included, since there was none.
    pub oldest: Time,
    /// When the last one came.
    pub newest: Time,
    /// How many came on each of the last days (UTC), today last.
    pub days: [u64; DAYS],
    /// Some of the mails, the latest first.
    pub examples: Vec<MailKey>,
}

/// Which groups are meant; what is `Some` must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupFilter {
    /// Of this repository.
    pub repository: Option<RepositoryPath>,
    /// Of this cause, also where it has no mails any more.
    pub id: Option<CauseId>,
}

/// Failures by cause. A settlement, and whatever else moves, removes or changes a mail, keeps
/// them right in its own commit.
#[async_trait]
pub trait Groups: Send + Sync {
    /// A page of groups, the largest first.
    async fn groups(&self, filter: &GroupFilter, span: &Span) -> Result<Page<FailureGroup>>;

    /// How many mails of a group in a repository are in other groups too, up to 10 000.
    async fn in_other_groups(&self, group: &CauseId, repository: &RepositoryPath) -> Result<u64>;
}
