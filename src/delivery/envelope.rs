//! What a peer's replies mean for the recipients of a transaction, up to DATA. It judges and
//! says what is next; saying it is [`super::transaction`]'s.

use std::collections::VecDeque;

use crate::mail::Address;
use crate::smtp::Reply;

use super::outcome::{Contact, Decision, Finding, is_too_many_recipients};
use super::step::{Broken, Step};

/// How far a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// MAIL is to be said.
    Mail,
    /// RCPT is, to the first who was not asked.
    Rcpt,
    /// DATA is: somebody was accepted.
    Data,
    /// The peer has said 354: the content is to be sent to those whom it accepted.
    Content,
    /// Nothing is to be sent.
    Over,
}

/// The recipients of one transaction.
pub(super) struct Envelope {
    phase: Phase,
    /// Those accepted are sent to though others were refused.
    send_partial: bool,
    /// All commands were said at once: each has its reply.
    said_ahead: bool,
    /// Not yet asked.
    asking: VecDeque<Address>,
    accepted: Vec<Address>,
    /// Somebody was accepted, whatever came then.
    has_accepted: bool,
    findings: Vec<(Address, Finding)>,
    /// For a further transaction.
    left: Vec<Address>,
}

impl Envelope {
    /// `excluded` are those whom the peer's limits exclude beforehand.
    pub(super) fn new(recipients: Vec<Address>, excluded: Vec<(Address, Finding)>, send_partial: bool) -> Self {
        Self {
            phase: if recipients.is_empty() { Phase::Over } else { Phase::Mail },
            send_partial,
            said_ahead: false,
            asking: recipients.into(),
            accepted: Vec::new(),
            has_accepted: false,
            findings: excluded,
            left: Vec::new(),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Those who were not asked yet.
    pub(super) fn asking(&self) -> impl Iterator<Item = &Address> {
        self.asking.iter()
    }

    /// Whether the peer has accepted anybody.
    pub(super) fn has_accepted(&self) -> bool {
        self.has_accepted
    }

    /// Whether those accepted are sent to though others were refused.
    pub(super) fn sends_partially(&self) -> bool {
        self.send_partial
    }

    /// What was found ends the session.
    pub(super) fn ends_session(&self) -> bool {
        self.findings.iter().any(|(_, finding)| finding.ends_session())
    }

    /// All commands are said at once.
    pub(super) fn say_ahead(&mut self) {
        self.said_ahead = true;
    }

    /// Takes the reply to the command that was next.
    pub(super) fn hear(&mut self, contact: &Contact, reply: Result<Reply, Broken>) {
        match self.phase {
            Phase::Mail => self.mail(contact, reply),
            Phase::Rcpt => self.rcpt(contact, reply),
            Phase::Data => self.data(reply),
            Phase::Content | Phase::Over => {}
        }
    }

    /// A refusal of the reverse-path is for all.
    fn mail(&mut self, contact: &Contact, reply: Result<Reply, Broken>) {
        match reply {
            Ok(reply) if reply.class() == 2 => self.phase = Phase::Rcpt,
            other => self.conclude_all(&contact.found(Step::Mail, other)),
        }
    }

    fn rcpt(&mut self, contact: &Contact, reply: Result<Reply, Broken>) {
        let Some(recipient) = self.asking.pop_front() else { return };
        match reply {
            Ok(reply) if reply.class() == 2 => {
                self.has_accepted = true;
                self.accepted.push(recipient);
            }
            Ok(reply) if !self.accepted.is_empty() && is_too_many_recipients(&reply) => {
                self.left.push(recipient);
                if !self.said_ahead {
                    self.left.extend(self.asking.drain(..));
                }
            }
            other => {
                let finding = contact.found(Step::Rcpt, other);
                if finding.ends_session() {
                    self.accepted.push(recipient);
                    return self.conclude_all(&finding);
                }
                self.findings.push((recipient, finding));
            }
        }
        if self.asking.is_empty() {
            self.end_of_rcpt();
        }
    }

    fn end_of_rcpt(&mut self) {
        if self.accepted.is_empty() {
            self.phase = Phase::Over;
        } else if !self.send_partial && !self.findings.is_empty() {
            self.conclude(&Finding::decided(Step::Rcpt, Decision::NotPartially));
        } else {
            self.phase = Phase::Data;
        }
    }

    fn data(&mut self, reply: Result<Reply, Broken>) {
        match reply {
            Ok(reply) if reply.class() == 3 => self.phase = Phase::Content,
            other => self.conclude(&Finding::at(Step::Data, other)),
        }
    }

    /// The same finding for all who were accepted: it is over.
    pub(super) fn conclude(&mut self, finding: &Finding) {
        self.phase = Phase::Over;
        self.findings.extend(self.accepted.drain(..).map(|recipient| (recipient, finding.clone())));
    }

    /// The same for all whose own is still open.
    pub(super) fn conclude_all(&mut self, finding: &Finding) {
        self.accepted.extend(self.asking.drain(..));
        self.accepted.append(&mut self.left);
        self.conclude(finding);
    }

    /// Nobody is asked in this session.
    pub(super) fn leave_all(&mut self) {
        self.phase = Phase::Over;
        self.left.extend(self.asking.drain(..));
    }

    /// The one who was asked is for a further transaction.
    pub(super) fn leave_next(&mut self) {
        self.left.extend(self.asking.pop_front());
        if self.asking.is_empty() {
            self.end_of_rcpt();
        }
    }

    /// What is known of those who are not sent to.
    pub(super) fn take_findings(&mut self) -> Vec<(Address, Finding)> {
        std::mem::take(&mut self.findings)
    }

    /// What was found, and who is left for a further transaction.
    pub(super) fn into_parts(self) -> (Vec<(Address, Finding)>, Vec<Address>) {
        (self.findings, self.left)
    }
}

#[cfg(test)]
mod tests {
    use crate::delivery::routing::Target;
    use crate::smtp::ReplyReader;

    use super::*;

    fn reply(line: &str) -> Result<Reply, Broken> {
        if line == "closed" {
            return Err(Broken::Closed);
        }
        Ok(ReplyReader::default().push(format!("{line}\r\n").as_bytes()).expect("SMTP").expect("whole"))
    }

    fn contact() -> Contact {
        Contact::to(&Target {
            next_hop: "x.example".into(),
            host: "mx.example".into(),
            address: ([192, 0, 2, 1], 25).into(),
            preference: None,
        })
    }

    /// Says as long as there is something to be said and a reply.
    fn judge(recipients: &str, replies: &[&str], send_partial: bool, ahead: bool) -> Envelope {
        let recipients =
            recipients.chars().map(|name| Address::parse(&format!("{name}@x.example")).expect("an address"));
        let mut envelope = Envelope::new(recipients.collect(), Vec::new(), send_partial);
        if ahead {
            envelope.say_ahead();
        }
        for line in replies {
            if matches!(envelope.phase(), Phase::Content | Phase::Over) {
                break;
            }
            envelope.hear(&contact(), reply(line));
        }
        envelope
    }

    /// Who was accepted, what others got and at which step, and who is left.
    fn told(envelope: &Envelope) -> String {
        let name = |address: &Address| address.local_part().to_string();
        let mut told: Vec<String> =
            envelope.accepted.iter().map(|address| format!("{} accepted", name(address))).collect();
        for (address, finding) in &envelope.findings {
            let got = match finding.reply() {
                Some(reply) => reply.code().to_string(),
                None if finding.is_for_another_s_sake() => "for another's sake".to_owned(),
                None => "closed".to_owned(),
            };
            told.push(format!("{} {:?} {got}", name(address), finding.step));
        }
        told.extend(envelope.left.iter().map(|address| format!("{} left", name(address))));
        format!("{:?}: {}", envelope.phase, told.join(", "))
    }

    #[test]
    fn replies_decide_for_one_for_some_or_for_all() {
        let (part, all) = (true, false);
        let many = "452 4.5.3 too many recipients";
        for (what, recipients, replies, send_partial, means) in [
            ("all", "ab", &["250 ok", "250 ok", "251 ok", "354 go"][..], part, "Content: a accepted, b accepted"),
            ("one", "ab", &["250 ok", "250 ok", "550 no", "354 go"], part, "Content: a accepted, b Rcpt 550"),
            ("none", "ab", &["250 ok", "550 no", "450 later"], part, "Over: a Rcpt 550, b Rcpt 450"),
            ("MAIL refused", "ab", &["451 later"], part, "Over: a Mail 451, b Mail 451"),
            ("cut at MAIL", "ab", &["closed"], part, "Over: a Mail closed, b Mail closed"),
            ("DATA refused", "ab", &["250 ok", "550 no", "250 ok", "451 later"], part, "Over: a Rcpt 550, b Data 451"),
            ("or for good", "a", &["250 ok", "250 ok", "554 no"], part, "Over: a Data 554"),
            (
                "all or nobody",
                "ab",
                &["250 ok", "250 ok", "550 no"],
                all,
                "Over: b Rcpt 550, a Rcpt for another's sake",
            ),
            ("which all are", "ab", &["250 ok", "250 ok", "250 ok", "354 go"], all, "Content: a accepted, b accepted"),
            (
                "421 in the middle",
                "abc",
                &["250 ok", "250 ok", "421 bye"],
                part,
                "Over: a Rcpt 421, b Rcpt 421, c Rcpt 421",
            ),
            (
                "after a refusal",
                "abc",
                &["250 ok", "550 no", "closed"],
                part,
                "Over: a Rcpt 550, b Rcpt closed, c Rcpt closed",
            ),
            ("too many at the first are one refused", "a", &["250 ok", many], part, "Over: a Rcpt 452"),
        ] {
            for ahead in [false, true] {
                let envelope = judge(recipients, replies, send_partial, ahead);
                assert_eq!(told(&envelope), means, "{what}, said ahead: {ahead}");
            }
        }
    }

    #[test]
    fn whoever_is_too_many_is_left_for_the_next_transaction() {
        let many = "452 4.5.3 too many recipients";
        let replies = ["250 ok", "250 ok", many, "250 ok", "354 go"];
        for (ahead, replies, means) in [
            (true, &replies[..], "Content: a accepted, c accepted, b left"),
            // One after the other nobody else is asked.
            (false, &["250 ok", "250 ok", many, "354 go"], "Content: a accepted, b left, c left"),
            (true, &["250 ok", "250 ok", many, "421 bye"], "Over: a Rcpt 421, c Rcpt 421, b Rcpt 421"),
        ] {
            assert_eq!(told(&judge("abc", replies, true, ahead)), means, "said ahead: {ahead}");
        }
    }

    #[test]
    fn nobody_has_a_finding_and_is_left_too() {
        let mut envelope = judge("ab", &[], true, false);
        envelope.leave_all();
        assert_eq!((told(&envelope), envelope.has_accepted()), ("Over: a left, b left".to_owned(), false));
        let mut envelope = judge("ab", &["250 ok", "250 ok"], true, true);
        envelope.conclude_all(&Finding::at(Step::Rcpt, reply("closed")));
        assert_eq!((told(&envelope), envelope.has_accepted()), ("Over: a Rcpt closed, b Rcpt closed".to_owned(), true));
        assert!(envelope.ends_session());
        assert_eq!(judge("", &[], true, false).phase(), Phase::Over, "nobody to be asked");
    }
}
