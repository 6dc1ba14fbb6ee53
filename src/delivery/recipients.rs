//! A next hop's recipients while host after host is tried for them: who is still to be
//! asked, and what each will have got if no host does better.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use chrono::{DateTime, Utc};

use crate::mail::{Address, DialogueEntry, Outcome, Recorded, Stage};

use super::network;
use super::outcome::{Contact, Decision, Event, Finding};
use super::peers::Down;
use super::step::{Broken, Step};
use super::transaction::Transacted;
use super::wire::Wire;

/// A next hop's recipients while hosts are tried for them.
pub(super) struct Open<'h> {
    pub(super) hop: &'h str,
    pub(super) since: Instant,
    /// Not yet asked at this host.
    pub(super) todo: VecDeque<Address>,
    /// For the next host.
    pub(super) later: Vec<Address>,
    /// What each will have got if no host does better.
    pending: HashMap<Address, Recorded>,
    /// What was said and not yet recorded.
    pub(super) dialogue: Vec<DialogueEntry>,
    /// Why nobody could be contacted, where that is our own trouble.
    pub(super) own_trouble: Option<String>,
    /// A transaction was begun for any of them.
    pub(super) asked: bool,
    /// There is no other host behind the one that is being tried.
    pub(super) last_host: bool,
}

impl<'h> Open<'h> {
    pub(super) fn new(hop: &'h str, recipients: &[Address]) -> Self {
        Self {
            hop,
            since: Instant::now(),
            todo: VecDeque::new(),
            later: recipients.to_vec(),
            pending: HashMap::new(),
            dialogue: Vec::new(),
            own_trouble: None,
            asked: false,
            last_host: false,
        }
    }

    /// Those who are left are asked at another host.
    pub(super) fn next_host(&mut self) {
        self.todo.extend(self.later.drain(..));
    }

    pub(super) fn group(&mut self, size: usize) -> Vec<Address> {
        let size = size.min(self.todo.len());
        self.todo.drain(..size).collect()
    }

    /// Sorts a transaction's findings: final ones are returned, the others kept for what
    /// another host may do. A reply of the last host is final.
    pub(super) fn sort(&mut self, contact: &Contact, done: Transacted, time: DateTime<Utc>) -> Vec<Recorded> {
        let mut contact = contact.clone();
        contact.notes.extend(done.notes);
        for recipient in done.left.into_iter().rev() {
            self.todo.push_front(recipient);
        }
        // Whom another host took would have the mail without the others.
        let all_or_nobody = done.findings.iter().any(|(_, finding)| finding.is_for_another_s_sake());
        let mut outcomes = Vec::new();
        for (recipient, finding) in done.findings {
            let recorded = self.recorded(&contact, &recipient, &finding, time);
            let is_last = all_or_nobody || self.last_host && finding.reply().is_some();
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

    /// What was said so far, for the record with `outcomes`; kept where there are none.
    pub(super) fn dialogue_of(&mut self, outcomes: &[Recorded], wire: &Wire) -> Vec<DialogueEntry> {
        self.dialogue.extend(wire.take_dialogue());
        if outcomes.is_empty() { Vec::new() } else { std::mem::take(&mut self.dialogue) }
    }

    fn recorded(&self, contact: &Contact, recipient: &Address, finding: &Finding, time: DateTime<Utc>) -> Recorded {
        let mut recorded = contact.record(recipient, finding, time);
        recorded.duration = self.since.elapsed().as_secs_f64();
        recorded
    }

    /// The host took nobody.
    pub(super) fn not_taken(&mut self, contact: &Contact, finding: &Finding, time: DateTime<Utc>) {
        for recipient in std::mem::take(&mut self.todo) {
            let recorded = self.recorded(contact, &recipient, finding, time);
            self.keep(recorded);
            self.later.push(recipient);
        }
    }

    /// The session ended before these could be asked.
    pub(super) fn unasked(&mut self, contact: &Contact, last: &Finding, time: DateTime<Utc>) {
        // Nothing of theirs was sent: what is in doubt for others is not for them.
        let step = if last.step == Step::EndOfData { Step::Content } else { last.step };
        let finding = Finding { step, event: last.event.clone() };
        self.not_taken(contact, &finding, time);
    }

    /// An earlier mail found this address in trouble.
    pub(super) fn found_before(&mut self, down: &Down, because: &str, time: DateTime<Utc>) {
        for recipient in std::mem::take(&mut self.todo) {
            self.keep(down.defer(&recipient, because, time));
            self.later.push(recipient);
        }
    }

    /// Whether a refusal is our own trouble; a missing route is only where there is none
    /// to anywhere.
    pub(super) fn note_own_trouble(&mut self, finding: &Finding) -> bool {
        let cause = match &finding.event {
            Event::Decision(Decision::Own(cause)) => cause.clone(),
            Event::Broken(Broken::NoRoute) if !network::has_any_route() => {
                "there is no route to any network".to_owned()
            }
            _ => return false,
        };
        self.own_trouble.get_or_insert(cause);
        true
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

    /// What is left when there is no other host. Nobody is left without an outcome.
    pub(super) fn rest(&mut self, time: DateTime<Utc>) -> Vec<Recorded> {
        let mut rest = Vec::new();
        for recipient in self.todo.drain(..).chain(self.later.drain(..)) {
            let outcome = self.pending.remove(&recipient).unwrap_or_else(|| {
                let cause = format!("no host of {} was tried", self.hop);
                Recorded::without_contact(recipient, Outcome::Deferred, Stage::Connect, cause, time)
            });
            rest.push(outcome);
        }
        rest
    }
}
