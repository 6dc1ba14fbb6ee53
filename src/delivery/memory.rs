//! What was found out about peers in this sweep, so that a dead one costs one time-out
//! and not one per mail.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::mail::{Address, Outcome, Recorded, Stage};
use crate::smtp::Reply;

use super::outcome::{Contact, Decision, Event, Finding};
use super::routing::Target;
use super::step::{Broken, Step};

/// Entries kept before expired ones are looked for.
const PRUNE_ABOVE: usize = 10_000;

/// What a finding says beyond the mail it was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The address does not answer, whoever asks.
    Address,
    /// The host does not take mail for this hop.
    Host,
    /// No host of the hop does.
    Hop,
}

/// Trouble with a peer that mails after the first are not to meet again.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    /// Whom those who are not tried would have been connected to.
    target: Target,
    /// At which stage.
    stage: Stage,
    /// In a sentence.
    pub(super) cause: String,
    found: Instant,
}

impl Trouble {
    /// The same trouble for mail that would go to `target`, which is at the same address.
    fn met_at(&self, target: &Target) -> Self {
        let mut met = Self { target: target.clone(), ..self.clone() };
        if target.host != self.target.host {
            met.cause = format!("{target} has the address of a host in trouble: {}", self.cause);
        }
        met
    }

    /// The deferral of a recipient who is not tried because of it.
    pub(super) fn defer(&self, recipient: &Address, because: &str, time: DateTime<Utc>) -> Recorded {
        let (target, cause) = (&self.target, format!("{because}: {}", self.cause));
        Recorded {
            enhanced: Some("4.4.1".to_owned()),
            next_hop: Some(target.next_hop.clone()),
            host: Some(target.host.clone()),
            address: Some(target.address.ip()),
            port: Some(target.address.port()),
            ..Recorded::without_contact(recipient.clone(), Outcome::Deferred, self.stage, cause, time)
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Address(SocketAddr),
    Host(String, SocketAddr),
    Hop(String),
}

/// What is remembered.
pub(super) struct Memory {
    keep_for: Option<Duration>,
    troubles: Mutex<HashMap<Key, Trouble>>,
    /// Addresses whose TLS does not work but need not be used, each with the reason.
    in_clear: Mutex<HashMap<SocketAddr, (String, Instant)>>,
}

impl Memory {
    /// Each entry for so long; `None`: as long as this lives.
    pub(super) fn new(keep_for: Option<Duration>) -> Self {
        Self { keep_for, troubles: Mutex::default(), in_clear: Mutex::default() }
    }

    fn troubles(&self) -> MutexGuard<'_, HashMap<Key, Trouble>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_fresh(&self, found: Instant) -> bool {
        self.keep_for.is_none_or(|keep_for| found.elapsed() < keep_for)
    }

    /// Remembers what `finding` says about its peer, if it says anything.
    pub(super) fn learn(&self, hop: &str, contact: &Contact, finding: &Finding) {
        if let Some(reach) = reach(finding) {
            self.note(reach, hop, contact, finding);
        }
    }

    /// Remembers that the host takes no mail for this hop, whatever `finding` says by itself.
    pub(super) fn give_up(&self, hop: &str, contact: &Contact, finding: &Finding) {
        self.note(Reach::Host, hop, contact, finding);
    }

    fn note(&self, reach: Reach, hop: &str, contact: &Contact, finding: &Finding) {
        let address = contact.target.address;
        let key = match reach {
            Reach::Address => Key::Address(address),
            Reach::Host => Key::Host(hop.to_owned(), address),
            Reach::Hop => Key::Hop(hop.to_owned()),
        };
        let cause = contact
            .cause(finding)
            .unwrap_or_else(|| format!("{}: {}", contact.target, finding.reply().map(Reply::text).unwrap_or_default()));
        let trouble = Trouble { target: contact.target.clone(), stage: finding.stage(), cause, found: Instant::now() };
        let mut troubles = self.troubles();
        if troubles.len() > PRUNE_ABOVE {
            troubles.retain(|_, trouble| self.is_fresh(trouble.found));
        }
        troubles.insert(key, trouble);
    }

    /// What is remembered of one address for `hop`.
    pub(super) fn trouble(&self, hop: &str, target: &Target) -> Option<Trouble> {
        let keys = [Key::Hop(hop.to_owned()), Key::Address(target.address), Key::Host(hop.to_owned(), target.address)];
        let troubles = self.troubles();
        let is_fresh = |(_, trouble): &(_, &Trouble)| self.is_fresh(trouble.found);
        let (key, found) = keys.iter().filter_map(|key| Some((key, troubles.get(key)?))).find(is_fresh)?;
        Some(if matches!(key, Key::Address(_)) { found.met_at(target) } else { found.clone() })
    }

    /// The first trouble, where there is some with every address of `hop`: it is down.
    pub(super) fn down(&self, hop: &str, targets: &[Target]) -> Option<Trouble> {
        let troubles: Option<Vec<Trouble>> = targets.iter().map(|target| self.trouble(hop, target)).collect();
        troubles?.into_iter().min_by_key(|trouble| trouble.found)
    }

    /// Remembers that TLS with this address does not work, for this reason.
    pub(super) fn learn_clear_text(&self, address: SocketAddr, reason: &str) {
        let mut in_clear = self.in_clear.lock().unwrap_or_else(PoisonError::into_inner);
        in_clear.retain(|_, (_, found)| self.is_fresh(*found));
        in_clear.insert(address, (reason.to_owned(), Instant::now()));
    }

    /// Why TLS is not to be tried with this address.
    pub(super) fn clear_text(&self, address: SocketAddr) -> Option<String> {
        let in_clear = self.in_clear.lock().unwrap_or_else(PoisonError::into_inner);
        in_clear.get(&address).filter(|(_, found)| self.is_fresh(*found)).map(|(reason, _)| reason.clone())
    }
}

fn reach(finding: &Finding) -> Option<Reach> {
    match (finding.step, &finding.event) {
        // Trouble of our own says nothing about the peer, and garbage not that it is dead.
        (
            _,
            Event::Broken(Broken::Stopped | Broken::NoRoute | Broken::NotSmtp(_)) | Event::Decision(Decision::Own(_)),
        ) => None,
        (Step::Connect | Step::Banner, Event::Broken(_)) => Some(Reach::Address),
        (Step::Banner, Event::Reply(reply)) if reply.class() == 5 => Some(Reach::Host),
        // Whatever it greets with, it takes nobody's mail. Where policy lets us go on without
        // TLS, that is not what ends a session.
        (_, Event::Broken(Broken::Handshake(_)) | Event::Decision(Decision::TlsPolicy(_)))
        | (Step::Ehlo | Step::Helo | Step::Starttls, _) => Some(Reach::Host),
        // Once is enough, in whatever way: no account is to be locked by a sweep.
        (Step::Auth, _) => Some(Reach::Hop),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(last: u8) -> Target {
        Target {
            next_hop: "x.example".into(),
            host: format!("mx{last}"),
            address: ([192, 0, 2, last], 25).into(),
            preference: None,
        }
    }

    fn broken(step: Step, broken: Broken) -> Finding {
        Finding::at(step, Err(broken))
    }

    #[test]
    fn a_hop_is_down_when_all_its_addresses_are() {
        let memory = Memory::new(None);
        let targets = [target(1), target(2)];
        memory.learn(
            "x.example",
            &Contact::to(&targets[1]),
            &broken(Step::Connect, Broken::Io("connection refused".into())),
        );
        assert!(memory.down("x.example", &targets).is_none());
        memory.learn("x.example", &Contact::to(&targets[0]), &broken(Step::Banner, Broken::Closed));
        let first = memory.down("x.example", &targets).expect("down");
        assert_eq!(first.cause, "connecting to mx2 (192.0.2.2:25): connection refused", "the first failure is named");
        let other = Target { next_hop: "other.example".into(), host: "mail".into(), ..target(1) };
        let shared = memory.down("other.example", &[other]).expect("an address is dead for all hops");
        assert_eq!((shared.target.next_hop.as_str(), shared.target.host.as_str()), ("other.example", "mail"));
        assert!(
            shared.cause.starts_with("mail (192.0.2.1:25) has the address of a host in trouble: "),
            "{}",
            shared.cause
        );
        let same = Target { next_hop: "other.example".into(), ..target(1) };
        let same = memory.down("other.example", &[same]).expect("down");
        assert_eq!(same.target.next_hop, "other.example");
        assert!(!same.cause.contains("has the address"), "{}", same.cause);
    }

    #[test]
    fn one_refused_auth_takes_the_hop_down_and_trouble_of_our_own_nothing() {
        let memory = Memory::new(None);
        let targets = [target(1), target(2)];
        for finding in [
            broken(Step::Connect, Broken::Stopped),
            broken(Step::Connect, Broken::NoRoute),
            Finding::decided(Step::Connect, Decision::Own("out of descriptors".into())),
            broken(Step::Rcpt, Broken::Closed),
            broken(Step::Ehlo, Broken::Stopped),
            Finding::at(Step::Banner, Err(Broken::NotSmtp(crate::smtp::NotSmtp::LongLine))),
        ] {
            memory.learn("x.example", &Contact::to(&targets[0]), &finding);
        }
        assert!(memory.trouble("x.example", &targets[0]).is_none());
        let refused = Finding::decided(Step::Auth, Decision::NoAuth("not offered".into()));
        memory.learn("x.example", &Contact::to(&targets[0]), &refused);
        assert!(memory.down("x.example", &targets).is_some());
        assert!(memory.down("y.example", &targets).is_none());
    }

    #[test]
    fn whoever_greets_and_goes_no_further_is_as_dead_as_another() {
        for (step, event) in [
            (Step::Ehlo, Broken::TimedOut(Duration::from_secs(1))),
            (Step::Ehlo, Broken::Closed),
            (Step::Helo, Broken::Closed),
            (Step::Starttls, Broken::Closed),
            (Step::Auth, Broken::Closed),
            (Step::Auth, Broken::TimedOut(Duration::from_secs(1))),
        ] {
            let (memory, target) = (Memory::new(None), target(1));
            memory.learn("x.example", &Contact::to(&target), &broken(step, event));
            assert!(memory.down("x.example", std::slice::from_ref(&target)).is_some(), "{step:?}");
        }
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let memory = Memory::new(Some(Duration::ZERO));
        let target = target(1);
        memory.learn("x.example", &Contact::to(&target), &broken(Step::Connect, Broken::Closed));
        memory.learn_clear_text(target.address, "it hangs");
        assert!(memory.trouble("x.example", &target).is_none());
        assert_eq!(memory.clear_text(target.address), None);
    }
}
