//! A part of a mail on its way through the processors.

use std::collections::HashSet;

use crate::mail::{Address, AttributeValue, Attributes, Mail, Outcome, Recorded, attribute};

/// Some recipients of the mail of a pass, with what happened to them in this pass.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// As a mail of its own; its key is still that of the whole. In a box, since a part is
    /// handed from one rule to the next, and each would keep room for all of it.
    pub(super) mail: Box<Mail>,
    /// What happened to its recipients in this pass.
    pub(super) trail: Trail,
}

/// What happened to a part in this pass; decides how its recipients count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "facts that do not exclude each other")]
pub(super) struct Trail {
    /// The outcome of its attempt.
    pub(super) outcome: Option<Outcome>,
    /// The attempt was made by a pass whose process died: only to be filed.
    pub(super) on_record: bool,
    /// It goes where it goes because the limit of passes is used up.
    pub(super) promoted: bool,
    /// It went through processor `error`.
    pub(super) erred: bool,
    /// It was set aside by `passThrough`; the original goes on.
    pub(super) copy: bool,
    /// It came to where its failure is told to the sender: nobody tries it any more.
    pub(super) given_up: bool,
}

impl Part {
    /// The whole mail at the start of a pass.
    pub(super) fn whole(mail: Mail) -> Self {
        Self { mail: Box::new(mail), trail: Trail::default() }
    }

    /// One answer per recipient.
    pub(super) fn each(&self, answer: impl Fn(&Address) -> bool) -> Vec<bool> {
        self.mail.envelope.recipients.iter().map(answer).collect()
    }

    /// Parts with and without the selected recipients; `None` for one that has nobody.
    pub(super) fn split(self, selected: &[bool]) -> (Option<Self>, Option<Self>) {
        let pick = |wanted: bool| {
            let recipients = self.mail.envelope.recipients.iter().zip(selected);
            recipients.filter(|(_, chosen)| **chosen == wanted).map(|(recipient, _)| recipient.clone()).collect()
        };
        let (with, without): (Vec<_>, Vec<_>) = (pick(true), pick(false));
        if without.is_empty() {
            return (Some(self), None);
        }
        if with.is_empty() {
            return (None, Some(self));
        }
        let rest = self.clone().only(without);
        (Some(self.only(with)), Some(rest))
    }

    /// Parts with the recipients of these outcomes, and without them.
    pub(super) fn of(self, outcomes: &[Recorded]) -> (Option<Self>, Option<Self>) {
        let those: HashSet<_> = outcomes.iter().map(|one| one.recipient.mailbox()).collect();
        let selected = self.each(|recipient| those.contains(&recipient.mailbox()));
        self.split(&selected)
    }

    /// The same part with these recipients.
    pub(super) fn only(mut self, recipients: Vec<Address>) -> Self {
        let envelope = &mut self.mail.envelope;
        envelope.recipients = recipients;
        envelope.dsn.keep(&envelope.recipients);
        self
    }

    /// Counts a pass and answers `below`, the answer of an AtMost that reads `counter`.
    ///
    /// Recipients whose failure is on record from an earlier pass were counted then,
    /// before contact: they pass whatever the counter says, to be filed.
    pub(super) fn count(&mut self, counter: &str, below: bool) -> bool {
        if self.trail.on_record {
            return true;
        }
        if below {
            self.mail.attributes.increment(counter);
        }
        below
    }

    /// Sets what an attempt leaves behind: of the recipients' outcomes, all of one kind,
    /// the first speaks for all.
    pub(super) fn attempted(&mut self, outcome: Outcome, recorded: &[Recorded]) {
        self.trail = Trail { outcome: Some(outcome), promoted: false, ..self.trail };
        let attributes = &mut self.mail.attributes;
        for stale in [attribute::DELIVERY_ERROR, attribute::DELIVERY_ERROR_CODE, attribute::ON_SUCCESS] {
            attributes.remove(stale);
        }
        attributes.set(attribute::IS_DELIVERY_PERMANENT_ERROR, AttributeValue::Boolean(outcome == Outcome::Failed));
        if let Some(first) = recorded.first() {
            describe(attributes, first);
        }
    }
}

/// The whole reply, or the cause in a sentence where there was none; the code only with a reply.
fn describe(attributes: &mut Attributes, recorded: &Recorded) {
    let words = recorded.reply.as_ref().or(recorded.cause.as_ref());
    if let Some(words) = words {
        attributes.set(attribute::DELIVERY_ERROR, AttributeValue::Text(words.clone()));
    }
    if let Some(code) = recorded.code {
        attributes.set(attribute::DELIVERY_ERROR_CODE, AttributeValue::Integer(code.into()));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::mail::{Envelope, MailKey, MessageFacts, MessageId, ReversePath};

    /// A mail that has just come in.
    pub(crate) fn mail(sender: &str, recipients: &[&str]) -> Mail {
        let recipients = recipients.iter().map(|text| Address::parse(text).expect(text)).collect();
        Mail {
            key: MailKey::parse("WHOLE").expect("a key"),
            name: "Mail1".into(),
            origin: None,
            envelope: Envelope::new(ReversePath::parse(sender).expect(sender), recipients),
            client: None,
            attributes: Attributes::default(),
            state: "relay".into(),
            error: None,
            accepted: DateTime::UNIX_EPOCH,
            last_updated: DateTime::UNIX_EPOCH,
            header_prefix: String::new(),
            message: MessageId(1),
            facts: MessageFacts::default(),
            recorded: Vec::new(),
        }
    }

    /// The same as a part.
    pub(in crate::pipeline) fn part(sender: &str, recipients: &[&str]) -> Part {
        Part::whole(mail(sender, recipients))
    }

    #[test]
    fn a_split_keeps_every_recipient_once_and_in_order() {
        let whole = part("<>", &["a@x.example", "b@x.example", "c@x.example"]);
        let names = |part: Option<Part>| {
            part.map(|part| part.mail.envelope.recipients.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let (with, without) = whole.clone().split(&[true, false, true]);
        assert_eq!(names(with), Some(vec!["a@x.example".into(), "c@x.example".into()]));
        assert_eq!(names(without), Some(vec!["b@x.example".into()]));
        assert!(whole.clone().split(&[true, true, true]).1.is_none());
        assert!(whole.split(&[false, false, false]).0.is_none());
    }
}
