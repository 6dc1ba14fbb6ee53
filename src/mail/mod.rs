//! What a mail is: address, envelope, attributes, message, attempt, and why one failed.
//!
//! Pure data. Nothing here does I/O, reads a clock or awaits; everything else in
//! the crate is built on these words.

mod address;
mod address_list;
mod attempt;
mod attributes;
mod cause;
mod dsn;
mod dsn_request;
mod message;
mod mime;
mod new_mail;
mod repository;

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub use address::{Address, AddressError, Domain, ReversePath, folded, folded_domain, is_named_by};
pub use address_list::{AddressListError, Meaning, parse_address_list, parse_list};
pub use attempt::{
    Attempt, AttemptState, CANCELLED_BY, Dialogue, DialogueEntry, IN_DOUBT, Outcome, Planned, Recorded, Side, Stage,
    TlsFacts,
};
pub use attributes::{AttributeValue, Attributes, attribute};
pub use cause::{CAUSE_VERSION, Cause, CauseId, OTHER_TEXTS};
pub use dsn::{Action, Composed, DsnLimits, NewDsn, Notification, Returned, Told, is_status, may_be_returned_whole};
pub use dsn_request::{
    DsnRequest, Event, Malformed, Notice, Notify, RecipientRequest, Ret, orcpt_in_ascii, orcpt_of_field, parse_envid,
    parse_orcpt,
};
pub use message::{CHUNK_BYTES, HeaderScan, MessageFacts, MessageProblem};
pub use mime::{encoded_words, has_short_lines, is_seven_bit, quoted_printable};
pub use new_mail::{NewMail, NewMessage};
pub use repository::{RepositoryPath, RepositoryPathError};

/// The name under which a mail is found in the store: unique, stable over passes.
///
/// Printable ASCII without blanks, at most 64 octets; sorts by the time it was made.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MailKey(String);

/// Crockford's base 32: no I, L, O, U, so that a key can be read out over the telephone.
const KEY_ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl MailKey {
    /// Makes a key of the time `now` and 40 random bits: 10 + 8 characters.
    pub fn new(now: DateTime<Utc>, random: u64) -> Self {
        let millis = now.timestamp_millis().max(0).cast_unsigned();
        let digit = |bits: u64| char::from(KEY_ALPHABET[(bits & 31) as usize]);
        let time = (0..10).rev().map(|place| digit(millis >> (5 * place)));
        let tail = (0..8).rev().map(|place| digit(random >> (5 * place)));
        Self(time.chain(tail).collect())
    }

    /// Takes a key as an operator wrote it; `None` where it cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Self(text.to_owned()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for MailKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// Who a message is from and for, and how it was announced (RFC 5321 section 2.3.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The reverse-path of MAIL FROM; null for notifications.
    pub reverse_path: ReversePath,
    /// The recipients this mail still owes, in the order they were given, none twice.
    pub recipients: Vec<Address>,
    /// The submitter said SMTPUTF8 (RFC 6531): header octets outside ASCII are UTF-8 by declaration.
    #[serde(default)]
    pub smtputf8: bool,
    /// What is asked of notifications, and what was told.
    #[serde(default)]
    pub dsn: DsnRequest,
}

impl Envelope {
    /// An envelope without recipients that are the same mailbox twice: the domain is
    /// compared without case, the local part exactly; the first spelling stays.
    pub fn new(reverse_path: ReversePath, recipients: Vec<Address>) -> Self {
        let mut kept: Vec<Address> = Vec::with_capacity(recipients.len());
        let mut seen = std::collections::HashSet::new();
        for recipient in recipients {
            if seen.insert(recipient.mailbox()) {
                kept.push(recipient);
            }
        }
        Self { reverse_path, recipients: kept, smtputf8: false, dsn: DsnRequest::default() }
    }

    /// Keeps the recipients that `wanted` says, and what is asked for them.
    pub fn keep(&mut self, wanted: impl FnMut(&Address) -> bool) {
        self.recipients.retain(wanted);
        self.dsn.keep(&self.recipients);
    }

    /// Whom notifications go to: the reverse-path that the mail was accepted with. `None` is the
    /// null reverse-path, and nobody.
    pub fn return_path(&self) -> Option<&Address> {
        self.dsn.return_path.as_ref().or(self.reverse_path.address())
    }
}

/// A mail at rest or in hand: envelope, attributes and where its message is.
#[derive(Debug, Clone, PartialEq)]
pub struct Mail {
    /// Unique and stable.
    pub key: MailKey,
    /// James's name: what the mail was called when it came in; not unique.
    pub name: String,
    /// The key this one was split off from.
    pub origin: Option<MailKey>,
    /// Reverse-path and the recipients still owed.
    pub envelope: Envelope,
    /// The address of the client that brought it; `None` where it did not come over a network.
    pub client: Option<IpAddr>,
    /// James's mail attributes.
    pub attributes: Attributes,
    /// The processor that runs it or stored it.
    pub state: String,
    /// Why it is in processor `error`; James's `errorMessage`.
    pub error: Option<String>,
    /// When it was accepted, whole: a part that was split off keeps it.
    pub accepted: DateTime<Utc>,
    /// When the mail last came to rest.
    pub last_updated: DateTime<Utc>,
    /// Header fields that mailets put in front of the stored message, each with its CRLF.
    pub header_prefix: String,
    /// The stored message's identity within its store.
    pub message: MessageId,
    /// Size and content facts of the stored message.
    pub facts: MessageFacts,
    /// Outcomes recorded by a process that died before it could file them: final for
    /// these recipients, who are never contacted again for this mail.
    pub recorded: Vec<Recorded>,
}

/// A stored message's number within its store. One message may belong to several mails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub i64);

impl Mail {
    /// Passes counted so far: `AT_MOST_EXECUTIONS`, or 0.
    pub fn passes(&self) -> u32 {
        self.attributes.passes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_time_and_differ_by_chance() {
        let at = |s| DateTime::from_timestamp(s, 0).expect("in range");
        let (a, b, c) = (MailKey::new(at(1), 7), MailKey::new(at(2), 1), MailKey::new(at(2), 2));
        assert!(a < b && b < c, "{a} {b} {c}");
        assert_eq!(a.as_str().len(), 18);
        assert_eq!(MailKey::parse(a.as_str()), Some(a));
        assert_eq!(MailKey::parse("has blank"), None);
    }

    #[test]
    fn recipients_that_differ_in_the_case_of_the_domain_are_one() {
        let parse = |a: &str| Address::parse(a).expect("an address");
        let envelope =
            Envelope::new(ReversePath::Null, ["a@X.example", "a@x.example", "A@x.example"].map(parse).to_vec());
        let kept: Vec<_> = envelope.recipients.iter().map(ToString::to_string).collect();
        assert_eq!(kept, ["a@X.example", "A@x.example"]);
    }
}
