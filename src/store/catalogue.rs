//! Looking: what rests where, and the record of what became of it.

use async_trait::async_trait;
use bytes::Bytes;

use super::{Cursor, Horizon, OperationId, Page, Place, Result, Span, Time};
use crate::mail::{self, Attempt, CauseId, Mail, MailKey, MessageId, Outcome, Recorded, RepositoryPath, Stage};

/// That somebody has taken note of a mail's failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// Who.
    pub by: String,
    /// When.
    pub at: Time,
    /// What he said to it.
    pub note: String,
    /// By which operation.
    pub operation: OperationId,
}

/// A mail in a listing.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The mail.
    pub mail: Mail,
    /// When it was first accepted.
    pub accepted: Time,
    /// Somebody works on it now.
    pub in_hand: bool,
    /// Somebody has taken note of it.
    pub acknowledged: Option<Acknowledged>,
    /// Attempts that count for when it is due again, and when the last of them ended; `None`
    /// where it is due at once.
    pub attempted: Option<(u32, Time)>,
}

/// Which mails of a place are meant; what is `Some` must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailFilter {
    /// The reverse-path, without case; `<>` for null.
    pub sender: Option<String>,
    /// One recipient, without case, or `*@domain`.
    pub recipient: Option<String>,
    /// The domain of a recipient.
    pub domain: Option<String>,
    /// The address of the client that brought it, as it is written.
    pub client: Option<String>,
    /// The reply code of a recipient's last failure.
    pub code: Option<u16>,
    /// The next hop of a recipient's last failure.
    pub next_hop: Option<String>,
    /// Words of a last failure, or of what was decided here about the mail, without case.
    pub text: Option<String>,
    /// In this group.
    pub group: Option<CauseId>,
    /// Came to rest before.
    pub before: Option<Time>,
    /// Came to rest after.
    pub after: Option<Time>,
    /// Passes counted.
    pub passes: Option<u32>,
    /// Whether somebody has taken note of it.
    pub acknowledged: Option<bool>,
    /// Had come to rest by then.
    pub within: Option<Horizon>,
    /// Had not yet come to rest then.
    pub beyond: Option<Horizon>,
}

/// Which attempts are meant; what is `Some` must all hold.
#[derive(Debug, Clone, Default)]
pub struct AttemptFilter {
    /// Attempts for this recipient, without case, or `*@domain`.
    pub recipient: Option<String>,
    /// Attempts with at least one such outcome.
    pub outcome: Option<Outcome>,
    /// The reverse-path, without case; `<>` for null.
    pub sender: Option<String>,
    /// Attempts with at least one such reply code.
    pub code: Option<u16>,
    /// Attempts with at least one outcome at this next hop.
    pub next_hop: Option<String>,
    /// Attempts of this mail, and those of what it was split off from, until then and of the
    /// recipients that it then had.
    pub key: Option<MailKey>,
    /// Begun at or after this time.
    pub since: Option<Time>,
    /// Begun before this time.
    pub until: Option<Time>,
}

impl AttemptFilter {
    /// Whether it is for this recipient of an attempt that the attempt is meant.
    pub fn means(&self, recorded: &Recorded) -> bool {
        let recipient = recorded.recipient.to_string();
        self.recipient.as_ref().is_none_or(|wanted| mail::is_named_by(&recipient, &mail::folded(wanted)))
            && self.outcome.is_none_or(|wanted| wanted == recorded.outcome)
            && self.code.is_none_or(|wanted| recorded.code == Some(wanted))
            && self.next_hop.as_ref().is_none_or(|wanted| recorded.next_hop.as_ref() == Some(wanted))
    }
}

/// Where a mail comes from and what came of it, there or gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    /// What it was split off from.
    pub origin: Option<MailKey>,
    /// What was split off from it, at most [`Self::PARTS`].
    pub parts: Vec<MailKey>,
}

impl Lineage {
    /// How many parts are named.
    pub const PARTS: usize = 20;
}

/// What rests in a place, in hand or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    /// Mails.
    pub mails: u64,
    /// Octets of their messages, each mail's own.
    pub octets: u64,
    /// Mails that nobody has taken note of.
    pub unacknowledged: u64,
    /// Mails by the passes they have had, where there are any.
    pub by_passes: Vec<(u32, u64)>,
}

/// Recipients by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recipients {
    /// Delivered.
    pub delivered: u64,
    /// Kept for a next pass.
    pub deferred: u64,
    /// Failed for good.
    pub failed: u64,
}

/// Outcomes of recipients of one kind since the store was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeTotal {
    /// What became of them.
    pub outcome: Outcome,
    /// Where it was decided.
    pub stage: Stage,
    /// The first digit of the reply code; 0 where there was no reply.
    pub class: u8,
    /// How many.
    pub recipients: u64,
}

/// What became of recipients in an hour or a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// When it began.
    pub begins: Time,
    /// How long it is: 1, or 24 where the hours are no longer told apart.
    pub hours: u32,
    /// How many.
    pub recipients: Recipients,
}

/// What became of the recipients at one next hop.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenHop {
    /// The domain, literal or gateway; empty where none was known.
    pub next_hop: String,
    /// How many.
    pub recipients: Recipients,
    /// The last one.
    pub last: Recorded,
}

/// The record, to be looked at.
#[async_trait]
pub trait Catalogue: Send + Sync {
    /// All repositories, by path.
    async fn repositories(&self) -> Result<Vec<RepositoryPath>>;

    /// Mails in a place, those in hand included. Costs the same however many they are.
    async fn size(&self, place: &Place) -> Result<u64>;

    /// What rests in the spool and in each repository, by path. Costs the same however much
    /// it is.
    async fn sums(&self) -> Result<Vec<(Place, Sums)>>;

    /// How many mails of a repository were accepted in which hour, the oldest first. Costs as
    /// much as there are such hours.
    async fn accepted(&self, repository: &RepositoryPath) -> Result<Vec<(Time, u64)>>;

    /// What has come to rest by now.
    async fn horizon(&self) -> Result<Horizon>;

    /// A page of a place's mails in the order in which they came to rest; of a failure group,
    /// in which they were accepted. One that cannot be read is told to the log and passed over.
    async fn list(&self, place: &Place, filter: &MailFilter, span: &Span) -> Result<Page<Listed>>;

    /// Where a list of all mails of a place goes on behind the first `mails` of them; `None` where
    /// there are fewer. It costs a step in an index for each of them, and reads none.
    async fn behind(&self, place: &Place, mails: usize) -> Result<Option<Cursor>>;

    /// One mail of a place.
    async fn find(&self, place: &Place, key: &MailKey) -> Result<Listed>;

    /// Row `number`, from 0, of a message: [`mail::CHUNK_BYTES`] octets, fewer in the last,
    /// none behind it.
    ///
    /// # Errors
    /// [`super::Error::NoContent`] where the message is not there any more, or not whole.
    async fn content(&self, message: MessageId, number: u32) -> Result<Bytes>;

    /// The first row of each of these messages; `None` of one that is not there.
    async fn first_rows(&self, messages: &[MessageId]) -> Result<Vec<Option<Bytes>>>;

    /// Attempts of a mail and of the mails it was split off from, oldest first, for the
    /// recipients it has.
    async fn attempts_of(&self, mail: &Mail) -> Result<Vec<Attempt>>;

    /// Where a mail comes from and what came of it, as long as that is on record.
    async fn lineage_of(&self, key: &MailKey) -> Result<Lineage>;

    /// For each mail the last outcome of each of its recipients, in their order; `None` for
    /// one without an outcome on record. Dialogues are not read.
    async fn last_outcomes(&self, mails: &[Mail]) -> Result<Vec<Vec<Option<Recorded>>>>;

    /// A page of all attempts, of mails that are gone too, in the order in which they began.
    async fn attempts(&self, filter: &AttemptFilter, span: &Span) -> Result<Page<Attempt>>;

    /// Outcomes of recipients since the store was made. They outlive what they were counted of.
    async fn outcome_totals(&self) -> Result<Vec<OutcomeTotal>>;

    /// Outcomes of recipients since a time, the oldest first: by hour for today and the two days
    /// before, else by day. A period without any is not told.
    async fn history(&self, since: Time) -> Result<Vec<Period>>;

    /// The next hops that somebody was sent to, or would have been, in the last `hours` and
    /// the one that is going.
    async fn hops(&self, hours: u32) -> Result<Vec<SeenHop>>;
}
