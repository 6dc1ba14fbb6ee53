//! Failures by cause.

use std::collections::{HashMap, HashSet};

use crate::mail::{Cause, Mail, MailKey, Recorded};
use crate::store::{Listed, Time};
use crate::text::count;

/// Causes told apart at most; what comes after is counted together.
const MAX_CAUSES: usize = 10_000;

/// Mails named for each cause.
const EXAMPLES: usize = 3;

/// Characters of a reply that are shown of an example.
const TEXT: usize = 200;

/// The failures of one cause.
#[derive(Debug, Clone)]
pub struct Group {
    /// How many failed so.
    pub recipients: u64,
    /// When the oldest of the mails was accepted.
    pub oldest: Time,
    /// Some of the mails.
    pub examples: Vec<Example>,
}

/// One mail of a group.
#[derive(Debug, Clone)]
pub struct Example {
    /// Which.
    pub key: MailKey,
    /// For whom it failed.
    pub recipient: String,
    /// As the peer said it.
    pub reply: String,
}

/// All failures of a report.
#[derive(Debug, Default)]
pub struct Digest {
    /// Mails added.
    pub mails: u64,
    /// Recipients of theirs.
    pub recipients: u64,
    /// Mails of the repository that nobody has taken note of, those reported before included.
    pub unacknowledged: u64,
    /// Recipients whose cause was one too many.
    pub others: u64,
    /// Recipients of whom no sender was told in the last 24 hours.
    pub held_back: u64,
    groups: HashMap<Cause, Group>,
}

/// That of so many recipients no sender was told.
pub fn held_back(recipients: u64) -> String {
    let recipients = count(recipients, "recipient");
    format!("told to no sender in the last 24 hours, beyond dsn.total: the failures of {recipients}")
}

impl Digest {
    /// Adds a mail with the last outcome of each of its recipients.
    pub fn add(&mut self, listed: &Listed, outcomes: &[Recorded]) {
        self.mails += 1;
        for recorded in outcomes {
            let said = super::said(recorded);
            if let Some(cause) = Cause::of(recorded) {
                self.count(cause, listed, &recorded.recipient.to_string(), &said);
            }
        }
        let known: HashSet<_> = outcomes.iter().map(|recorded| recorded.recipient.mailbox()).collect();
        for recipient in listed.mail.envelope.recipients.iter().filter(|one| !known.contains(&one.mailbox())) {
            let said = own_words(&listed.mail);
            self.count(Cause::of_error(said, recipient), listed, &recipient.to_string(), said);
        }
    }

    fn count(&mut self, cause: Cause, listed: &Listed, recipient: &str, said: &str) {
        self.recipients += 1;
        if self.groups.len() >= MAX_CAUSES && !self.groups.contains_key(&cause) {
            self.others += 1;
            return;
        }
        let empty = || Group { recipients: 0, oldest: listed.accepted, examples: Vec::new() };
        let group = self.groups.entry(cause).or_insert_with(empty);
        group.recipients += 1;
        group.oldest = group.oldest.min(listed.accepted);
        let key = &listed.mail.key;
        if group.examples.len() < EXAMPLES && !group.examples.iter().any(|example| example.key == *key) {
            let mut reply: String = said.chars().take(TEXT).collect();
            if reply.len() < said.len() {
                reply.push('…');
            }
            group.examples.push(Example { key: key.clone(), recipient: recipient.to_owned(), reply });
        }
    }

    /// The causes, the most frequent first.
    pub fn causes(&self) -> Vec<(&Cause, &Group)> {
        let mut causes: Vec<_> = self.groups.iter().collect();
        causes.sort_by(|(a, left), (b, right)| right.recipients.cmp(&left.recipients).then_with(|| a.cmp(b)));
        causes
    }
}

fn own_words(mail: &Mail) -> &str {
    mail.error.as_deref().unwrap_or("no attempt is on record")
}

#[cfg(test)]
pub(super) mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::mail::{Address, Attributes, Envelope, MessageFacts, MessageId, Outcome, ReversePath, Stage};

    /// A failed mail with one recipient who was refused in these words.
    pub(crate) fn failure(key: &str, recipient: &str, code: u16, reply: &str) -> (Listed, Recorded) {
        let recipient = Address::parse(recipient).expect("an address");
        let time = DateTime::from_timestamp(1_700_000_000, 0).expect("in range");
        let mail = Mail {
            key: MailKey::parse(key).expect("a key"),
            name: key.to_owned(),
            origin: None,
            envelope: Envelope::new(ReversePath::Null, vec![recipient.clone()]),
            client: None,
            attributes: Attributes::default(),
            state: "relay".to_owned(),
            error: None,
            accepted: time,
            last_updated: time,
            header_prefix: String::new(),
            message: MessageId(1),
            facts: MessageFacts::default(),
            recorded: Vec::new(),
        };
        let mut recorded = Recorded::without_contact(recipient, Outcome::Failed, Stage::Rcpt, String::new(), time);
        recorded.code = Some(code);
        recorded.reply = Some(reply.to_owned());
        recorded.next_hop = Some("x.example".to_owned());
        (Listed { mail, accepted: time, in_hand: false, acknowledged: None, attempted: None }, recorded)
    }

    #[test]
    fn failures_are_grouped_the_most_frequent_first() {
        let mut digest = Digest::default();
        for (key, recipient, code, reply) in [
            ("K1", "a@x.example", 552, "552 5.2.2 over quota"),
            ("K2", "b@x.example", 550, "550 5.1.1 <b@x.example> unknown"),
            ("K3", "c@x.example", 550, "550 5.1.1 <c@x.example> unknown"),
            ("K4", "d@x.example", 550, "550 5.1.1 <d@x.example> unknown"),
            ("K5", "e@x.example", 550, "550 5.1.1 <e@x.example> unknown"),
        ] {
            let (listed, recorded) = failure(key, recipient, code, reply);
            digest.add(&listed, &[recorded]);
        }
        let (mut listed, _) = failure("K6", "f@x.example", 0, "");
        listed.mail.error = Some("why".to_owned());
        digest.add(&listed, &[]);
        let causes = digest.causes();
        let told: Vec<_> = causes.iter().map(|(cause, group)| (cause.code, group.recipients)).collect();
        assert_eq!((digest.mails, digest.recipients), (6, 6));
        assert_eq!(told, [(Some(550), 4), (None, 1), (Some(552), 1)]);
        assert_eq!(causes[0].1.examples.len(), EXAMPLES);
        assert_eq!(causes[0].1.examples[0].reply, "550 5.1.1 <b@x.example> unknown");
        assert_eq!(causes[1].0.text, "why");
    }

    #[test]
    fn a_recipient_without_a_record_is_told_once_whoever_else_has_one() {
        let (mut listed, recorded) = failure("K1", "b@x.example", 550, "550 no");
        let first = Address::parse("a@x.example").expect("an address");
        listed.mail.envelope.recipients.insert(0, first);
        listed.mail.error = Some("why".to_owned());
        let mut digest = Digest::default();
        digest.add(&listed, &[recorded]);
        let told: Vec<_> =
            digest.causes().iter().map(|(cause, group)| (cause.code, group.examples[0].recipient.clone())).collect();
        assert_eq!(told, [(None, "a@x.example".to_owned()), (Some(550), "b@x.example".to_owned())]);
    }
}
