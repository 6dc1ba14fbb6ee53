//! A next hop's recipients while host after host is tried for them: who is still to be
//! asked, and what each will have got if no host does better.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::mail::{Address, Outcome, Recorded, Stage};

use super::outcome::{Contact, Finding};
use super::peers::Down;
use super::step::Step;
use super::transaction::Transacted;

/// A next hop's recipients while hosts are tried for them.
pub(super) struct Recipients {
    /// Not yet asked at this host.
    todo: VecDeque<Address>,
    /// For the next host.
    later: Vec<Address>,
    /// What each will have got if no host does better.
    pending: HashMap<Address, Recorded>,
}

/// When something became known, and how long the next hop has been tried then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    pub(super) time: DateTime<Utc>,
    pub(super) duration: Duration,
}

impl Stamp {
    fn record(self, contact: &Contact, recipient: &Address, finding: &Finding) -> Recorded {
        let mut recorded = contact.record(recipient, finding, self.time);
        recorded.duration = self.duration.as_secs_f64();
        recorded
    }
}

impl Recipients {
    /// All of them are for the first host.
    pub(super) fn new(recipients: &[Address]) -> Self {
        Self { todo: VecDeque::new(), later: recipients.to_vec(), pending: HashMap::new() }
    }

    /// Whether a host has said anything of one of those who are left.
    pub(super) fn are_known(&self) -> bool {
        !self.pending.is_empty()
    }

    /// All who are left.
    pub(super) fn all(&mut self) -> Vec<Address> {
        self.todo.drain(..).chain(self.later.drain(..)).collect()
    }

    /// Whether somebody is still to be asked at this host.
    pub(super) fn are_for_this_host(&self) -> bool {
        !self.todo.is_empty()
    }

    /// Whether somebody waits for the next.
    pub(super) fn are_for_another_host(&self) -> bool {
        !self.later.is_empty()
    }

    /// Those who are left are asked at another host.
    pub(super) fn next_host(&mut self) {
        self.todo.extend(self.later.drain(..));
    }

    /// The next to be asked, at most so many.
    pub(super) fn group(&mut self, size: usize) -> Vec<Address> {
        let size = size.min(self.todo.len());
        self.todo.drain(..size).collect()
    }

    /// Sorts a transaction's findings: final ones are returned, the others kept for what
    /// another host may do. A reply of the last host is final.
    pub(super) fn sort(&mut self, contact: &Contact, done: Transacted, last_host: bool, stamp: Stamp) -> Vec<Recorded> {
        let mut contact = contact.clone();
        contact.notes.extend(done.notes);
        for recipient in done.left.into_iter().rev() {
            self.todo.push_front(recipient);
        }
        // Whom another host took would have the mail without the others.
        let all_or_nobody = done.findings.iter().any(|(_, finding)| finding.is_for_another_s_sake());
        let mut outcomes = Vec::new();
        for (recipient, finding) in done.findings {
            let recorded = stamp.record(&contact, &recipient, &finding);
            let is_last = all_or_nobody || last_host && finding.reply().is_some();
            if finding.ruling().next_host && !is_last {
                self.keep(recorded);
                self.later.push(recipient);
            } else {
                self.pending.remove(&recipient);
                outcomes.push(recorded);
            }
        }
        outcomes
    }

    /// The host took nobody.
    pub(super) fn not_taken(&mut self, contact: &Contact, finding: &Finding, stamp: Stamp) {
        for recipient in std::mem::take(&mut self.todo) {
            self.keep(stamp.record(contact, &recipient, finding));
            self.later.push(recipient);
        }
    }

    /// The session ended before these could be asked.
    pub(super) fn unasked(&mut self, contact: &Contact, last: &Finding, stamp: Stamp) {
        // Nothing of theirs was sent: what is in doubt for others is not for them.
        let step = if last.step == Step::EndOfData { Step::Content } else { last.step };
        let finding = Finding { step, event: last.event.clone() };
        self.not_taken(contact, &finding, stamp);
    }

    /// An earlier mail found this address in trouble.
    pub(super) fn found_before(&mut self, down: &Down, because: &str, time: DateTime<Utc>) {
        for recipient in std::mem::take(&mut self.todo) {
            self.keep(down.defer(&recipient, because, time));
            self.later.push(recipient);
        }
    }

    /// Keeps the better of two outcomes that are not final: one that may pass rather than
    /// one for good, one with a reply rather than one without, the later of equals.
    fn keep(&mut self, recorded: Recorded) {
        let worth = |recorded: &Recorded| (recorded.outcome == Outcome::Deferred, recorded.reply.is_some());
        match self.pending.get_mut(&recorded.recipient) {
            Some(kept) if worth(kept) > worth(&recorded) => {}
            _ => {
                self.pending.insert(recorded.recipient.clone(), recorded);
            }
        }
    }

    /// What is left when there is no other host; those of whom nothing is known are deferred
    /// for this `cause`.
    pub(super) fn rest(&mut self, cause: &str, time: DateTime<Utc>) -> Vec<Recorded> {
        let mut rest = Vec::new();
        for recipient in self.todo.drain(..).chain(self.later.drain(..)) {
            let outcome = self.pending.remove(&recipient).unwrap_or_else(|| {
                Recorded::without_contact(recipient, Outcome::Deferred, Stage::Connect, cause.to_owned(), time)
            });
            rest.push(outcome);
        }
        rest
    }
}
