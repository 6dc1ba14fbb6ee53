//! One delivery attempt for one mail.
//!
//! Groups recipients by next hop, opens a session per hop and returns one outcome per
//! recipient. Retrying, filing and bouncing belong to the caller; so does the record:
//! what a transaction yields is handed to the caller's [`Sink`] as soon as it is known.

use std::sync::Arc;

use async_trait::async_trait;

use crate::mail::{Address, Content, DialogueEntry, MailKey, MessageFacts, Recorded, ReversePath};

/// What an attempt needs to know of a mail.
pub struct Request {
    /// For logs only.
    pub key: MailKey,
    /// The argument of MAIL FROM.
    pub reverse_path: ReversePath,
    /// Whom to try, none twice.
    pub recipients: Vec<Address>,
    /// The submitter said SMTPUTF8.
    pub smtputf8: bool,
    /// Size and content facts of the stored message, without the prefix.
    pub facts: MessageFacts,
    /// Header fields to send in front of the stored message.
    pub header_prefix: String,
    /// The stored message.
    pub content: Arc<dyn Content>,
    /// Earlier passes of this mail that ended with "no such domain".
    pub dns_problems: u32,
}

/// The caller could not commit the open attempt, or is stopping: nobody may be contacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotBegun {
    /// The store said no, in words.
    Trouble(String),
    /// The caller is stopping, or the mail is no longer its own.
    Stopped,
}

/// Where an attempt's events go while it runs.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Commits the open attempt: called after routing and after a connection slot is
    /// held, before the first packet; once per attempt (further calls answer alike).
    async fn begin(&self) -> Result<(), NotBegun>;

    /// Takes the outcomes of one transaction, or of recipients decided without one,
    /// with the dialogue since the last call. Returns once they are on their way to
    /// disk; it never fails towards the attempt.
    async fn record(&self, outcomes: &[Recorded], dialogue: &[DialogueEntry]);
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Attempted {
    /// One outcome per recipient, in the order of the request. The pass counts.
    Done(Vec<Recorded>),
    /// It ended before a packet because of ourselves (no DNS server answered anything,
    /// no route at all, bind refused, out of descriptors, store trouble): the pass is
    /// not counted. One deferral per recipient, and the cause in a sentence.
    OwnTrouble(Vec<Recorded>, String),
    /// A stop was asked for before anything was begun.
    Stopped,
}
