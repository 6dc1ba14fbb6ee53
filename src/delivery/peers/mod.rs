//! All that is known of next hops: whether they answer, have delivered, refuse, take no more
//! connections or are down, and what became of the mail for them.
//!
//! It holds for a sweep, in a service for `downFor`: a dead peer costs one time-out and not one
//! per mail. Who may connect next is [`super::pool`]'s to say.

mod judge;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::mail::{Address, Outcome, Recorded, Stage};
use crate::smtp::Reply;

use super::outcome::{Contact, Finding};
use super::routing::Target;
use judge::{Reach, judge};

pub(super) use judge::{Circumstances, Judgement};

/// Entries kept before those of no more use are looked for.
const PRUNE_ABOVE: usize = 10_000;

/// A next hop is told of for so long after it was last seen.
const SEEN_FOR: Duration = Duration::from_hours(24);

/// Between two tries at a peer that allows one connection and has not noticed yet that the
/// last one is closed. Refusals within half of that are one: they knocked together.
pub(super) const LIMIT_PAUSE: Duration = Duration::from_secs(1);

/// A peer that mails after the first are not to meet again.
#[derive(Debug, Clone)]
pub(super) struct Down {
    /// Whom those who are not tried would have been connected to.
    target: Target,
    /// At which stage.
    stage: Stage,
    /// In a sentence.
    pub(super) cause: String,
    found: Instant,
    since: DateTime<Utc>,
}

impl Down {
    /// The same for mail that would go to `target`, which is at the same address.
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

/// What is known of one next hop.
struct Standing {
    /// There was a session since it was last found in trouble.
    answers: bool,
    /// It has delivered mail of ours.
    delivered: bool,
    /// Rounds of refused connections since the last session, while there was none, and when the
    /// last began.
    refusals: u32,
    refused: Option<Instant>,
    /// Connections that it takes, and until when that holds.
    limit: Option<(usize, Option<Instant>)>,
    /// All its hosts were found in trouble when it was last looked at.
    down: Option<Down>,
    last_outcome: Option<Outcome>,
    outcomes: Outcomes,
    seen: Instant,
}

/// Recipients by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Those who have the mail.
    pub delivered: u64,
    /// Those for a next pass.
    pub deferred: u64,
    /// Those refused for good.
    pub failed: u64,
}

/// Why nobody connects to a next hop for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownSince {
    /// When it was found so.
    pub since: DateTime<Utc>,
    /// The first failure, in a sentence.
    pub cause: String,
}

/// What is known of a next hop, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The domain, the literal, or the gateways.
    pub next_hop: String,
    /// Connections open with it, idle ones included.
    pub connections: usize,
    /// Attempts that wait for one.
    pub waiting: usize,
    /// Where it is down.
    pub down: Option<DownSince>,
    /// What the last recipient's mail came to.
    pub last_outcome: Option<Outcome>,
    /// Since this process knows it.
    pub outcomes: Outcomes,
}

impl Standing {
    fn new(now: Instant) -> Self {
        Self {
            answers: false,
            delivered: false,
            refusals: 0,
            refused: None,
            limit: None,
            down: None,
            last_outcome: None,
            outcomes: Outcomes::default(),
            seen: now,
        }
    }

    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Delivered => self.outcomes.delivered += 1,
            Outcome::Deferred => self.outcomes.deferred += 1,
            Outcome::Failed => self.outcomes.failed += 1,
        }
        self.delivered |= outcome == Outcome::Delivered;
        self.last_outcome = Some(outcome);
    }

    /// It takes no more connections than these.
    fn limit_to(&mut self, connections: usize, keep_for: Option<Duration>) {
        self.limit = Some((connections, keep_for.map(|keep_for| Instant::now() + keep_for)));
    }

    /// One refusal more; several within a round are told the same.
    fn note_refusal(&mut self, now: Instant) {
        if self.refused.is_none_or(|began| now - began >= LIMIT_PAUSE / 2) {
            self.refused = Some(now);
            self.refusals = self.refusals.saturating_add(1);
        }
    }
}

#[derive(Default)]
struct Book {
    down: HashMap<Key, Down>,
    /// Addresses whose TLS does not work but need not be used, each with the reason.
    in_clear: HashMap<SocketAddr, (String, Instant)>,
    standings: HashMap<String, Standing>,
}

/// What is known of all next hops.
pub(super) struct Peers {
    clock: Clock,
    keep_for: Option<Duration>,
    book: Mutex<Book>,
}

/// What is known while somebody looks at it.
pub(super) struct Known<'a>(MutexGuard<'a, Book>);

impl Known<'_> {
    /// Whether the hop may have more than one connection: it answers.
    pub(super) fn answers(&self, hop: &str) -> bool {
        self.0.standings.get(hop).is_some_and(|standing| standing.answers)
    }

    /// The connections that it takes, where it is known to take no more.
    pub(super) fn limit(&self, hop: &str) -> Option<usize> {
        let (limit, until) = self.0.standings.get(hop)?.limit?;
        until.is_none_or(|until| Instant::now() < until).then_some(limit)
    }
}

impl Book {
    fn standing(&mut self, hop: &str) -> &mut Standing {
        let now = Instant::now();
        if !self.standings.contains_key(hop) {
            self.make_room(now);
            self.standings.insert(hop.to_owned(), Standing::new(now));
        }
        let standing = self.standings.get_mut(hop).expect("it was put in");
        standing.seen = now;
        standing
    }

    /// Forgets what was not seen for a day, and where that is not enough the older half.
    fn make_room(&mut self, now: Instant) {
        if self.standings.len() < PRUNE_ABOVE {
            return;
        }
        self.standings.retain(|_, standing| now - standing.seen < SEEN_FOR);
        if self.standings.len() >= PRUNE_ABOVE {
            let mut seen: Vec<_> = self.standings.values().map(|standing| standing.seen).collect();
            let middle = seen.len() / 2;
            let newer = *seen.select_nth_unstable(middle).1;
            self.standings.retain(|_, standing| standing.seen >= newer);
        }
    }
}

impl Peers {
    /// What is known holds for so long; `None`: as long as this lives.
    pub(super) fn new(clock: Clock, keep_for: Option<Duration>) -> Arc<Self> {
        Arc::new(Self { clock, keep_for, book: Mutex::default() })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_fresh(&self, found: Instant) -> bool {
        self.keep_for.is_none_or(|keep_for| found.elapsed() < keep_for)
    }

    /// To look at several.
    pub(super) fn known(&self) -> Known<'_> {
        Known(self.book())
    }

    /// Judges a connection to `contact` that did not come to MAIL, and remembers what it says.
    /// What is known here is added to `seen`.
    pub(super) fn judge(&self, hop: &str, contact: &Contact, finding: &Finding, seen: Circumstances) -> Judgement {
        let mut book = self.book();
        let standing = book.standing(hop);
        let seen = Circumstances { delivered: standing.delivered, ..seen };
        if judge::is_refusal(finding, seen) {
            standing.note_refusal(Instant::now());
        }
        let judgement = judge(finding, Circumstances { refusals: standing.refusals, ..seen });
        match judgement {
            Judgement::Limit { .. } => standing.limit_to(seen.sessions.max(1), self.keep_for),
            Judgement::Nothing => {}
            Judgement::Trouble(reach) => {
                // That it answered once is no promise any more, in a service neither that it
                // delivered.
                standing.answers = false;
                standing.delivered &= self.keep_for.is_none();
                if let Some(reach) = reach {
                    self.note_down(&mut book, reach, hop, contact, finding);
                }
            }
        }
        judgement
    }

    fn note_down(&self, book: &mut Book, reach: Reach, hop: &str, contact: &Contact, finding: &Finding) {
        let address = contact.target.address;
        let key = match reach {
            Reach::Address => Key::Address(address),
            Reach::Host => Key::Host(hop.to_owned(), address),
            Reach::Hop => Key::Hop(hop.to_owned()),
        };
        let cause = contact
            .cause(finding)
            .unwrap_or_else(|| format!("{}: {}", contact.target, finding.reply().map(Reply::text).unwrap_or_default()));
        let target = contact.target.clone();
        let down = Down { target, stage: finding.stage(), cause, found: Instant::now(), since: self.clock.now() };
        if book.down.len() > PRUNE_ABOVE {
            book.down.retain(|_, down| self.is_fresh(down.found));
        }
        book.down.insert(key, down);
    }

    /// What is remembered of one address for `hop`.
    pub(super) fn down_at(&self, hop: &str, target: &Target) -> Option<Down> {
        self.found(&self.book(), hop, target)
    }

    fn found(&self, book: &Book, hop: &str, target: &Target) -> Option<Down> {
        let keys = [Key::Hop(hop.to_owned()), Key::Address(target.address), Key::Host(hop.to_owned(), target.address)];
        let is_fresh = |(_, down): &(_, &Down)| self.is_fresh(down.found);
        let (key, found) = keys.iter().filter_map(|key| Some((key, book.down.get(key)?))).find(is_fresh)?;
        Some(if matches!(key, Key::Address(_)) { found.met_at(target) } else { found.clone() })
    }

    /// The first trouble, where there is some with every address of `hop`: it is down.
    pub(super) fn down(&self, hop: &str, targets: &[Target]) -> Option<Down> {
        let mut book = self.book();
        let all: Option<Vec<Down>> = targets.iter().map(|target| self.found(&book, hop, target)).collect();
        let first = all?.into_iter().min_by_key(|down| down.found);
        book.standing(hop).down.clone_from(&first);
        first
    }

    /// `hop` takes no more connections than these.
    #[cfg(test)]
    pub(super) fn limit(&self, hop: &str, connections: usize) {
        self.book().standing(hop).limit_to(connections, self.keep_for);
    }

    /// There is a session with `hop`.
    pub(super) fn note_session(&self, hop: &str) {
        let mut book = self.book();
        let standing = book.standing(hop);
        standing.answers = true;
        (standing.refusals, standing.refused, standing.down) = (0, None, None);
    }

    /// What became of recipients of `hop`.
    pub(super) fn note_outcomes(&self, hop: &str, outcomes: &[Recorded]) {
        if outcomes.is_empty() {
            return;
        }
        let mut book = self.book();
        let standing = book.standing(hop);
        for recorded in outcomes {
            standing.count(recorded.outcome);
        }
    }

    /// Remembers that TLS with this address does not work, for this reason.
    pub(super) fn note_clear_text(&self, address: SocketAddr, reason: &str) {
        let mut book = self.book();
        book.in_clear.retain(|_, (_, found)| self.is_fresh(*found));
        book.in_clear.insert(address, (reason.to_owned(), Instant::now()));
    }

    /// Why TLS is not to be tried with this address.
    pub(super) fn clear_text(&self, address: SocketAddr) -> Option<String> {
        let book = self.book();
        book.in_clear.get(&address).filter(|(_, found)| self.is_fresh(*found)).map(|(reason, _)| reason.clone())
    }

    /// The next hops that were seen lately, by name; without connections and who waits for them.
    pub(super) fn seen(&self) -> Vec<Peer> {
        let book = self.book();
        let mut seen: Vec<Peer> = book
            .standings
            .iter()
            .filter(|(_, standing)| standing.seen.elapsed() < SEEN_FOR)
            .map(|(hop, standing)| self.shown(hop, standing))
            .collect();
        seen.sort_by(|one, other| one.next_hop.cmp(&other.next_hop));
        seen
    }

    fn shown(&self, hop: &str, standing: &Standing) -> Peer {
        let down = standing.down.as_ref().filter(|down| self.is_fresh(down.found));
        Peer {
            next_hop: hop.to_owned(),
            connections: 0,
            waiting: 0,
            down: down.map(|down| DownSince { since: down.since, cause: down.cause.clone() }),
            last_outcome: standing.last_outcome,
            outcomes: standing.outcomes,
        }
    }
}

#[cfg(test)]
mod tests;
