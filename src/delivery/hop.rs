//! One next hop of an attempt: waits for a connection, then tries host after host until
//! nobody is left to be tried for.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::mail::{Address, DialogueEntry, Recorded, Side};
use crate::stop::Cancellation;

use super::attempt::Attempt;
use super::network;
use super::outcome::{Contact, Decision, Event, Finding};
use super::peers::{Circumstances, Down, Judgement, LIMIT_PAUSE};
use super::pool::{Fits, Permit, Turn};
use super::recipients::{Recipients, Stamp};
use super::routing::{Route, Target};
use super::session::{Refused, Session};
use super::step::Broken;
use super::wire::Wire;
use super::{Delivery, NotBegun, Uncounted};

/// One next hop of an attempt, on its way. Many wait and few are at work: what only those
/// need room for is in boxes.
pub(super) struct HopAttempt<'a> {
    attempt: &'a Attempt<'a>,
    delivery: &'a Delivery,
    name: &'a str,
    route: &'a Route,
    recipients: Recipients,
    /// When there was a connection for it.
    since: Instant,
    /// What was said and not yet recorded.
    dialogue: Vec<DialogueEntry>,
    /// Why nobody could be contacted, where that is an error of our own.
    local_error: Option<String>,
    /// A transaction was begun for some of the recipients.
    asked: bool,
    /// There is no other host behind the one that is being tried.
    last_host: bool,
}

/// How one next hop's part of an attempt ended.
pub(super) enum HopEnd {
    /// Each of its recipients has an outcome.
    Decided,
    /// Nobody was contacted, because of ourselves: deferrals, not yet recorded, and why.
    LocalError(Vec<Recorded>, Uncounted),
    /// Nobody was contacted, because nothing may begin.
    NotBegun(NotBegun),
}

/// What came of trying the hosts.
enum Tried {
    /// There is nobody left, or no host.
    All,
    /// The peer takes no more connections now: wait for a session, or look again.
    AtLimit,
}

/// What came of a connection to a host.
enum Connected {
    /// A session in which MAIL may be said.
    Session(Box<Session>),
    /// It takes no mail of ours now.
    Refused {
        /// Another may.
        next_host: bool,
    },
    /// It takes no more connections now.
    AtLimit,
}

/// What came of a session.
enum Served {
    /// All were asked; it is still good for another transaction.
    Open(Box<Session>),
    /// It is over, and so is the turn of whoever was not asked.
    Over,
    /// It was given up without a word for those who were not asked: a fresh one is for them.
    Stale,
}

impl<'a> HopAttempt<'a> {
    pub(super) fn new(
        attempt: &'a Attempt<'a>,
        delivery: &'a Delivery,
        name: &'a str,
        recipients: &[Address],
        route: &'a Route,
    ) -> Self {
        Self {
            attempt,
            delivery,
            name,
            route,
            recipients: Recipients::new(recipients),
            since: Instant::now(),
            dialogue: Vec::new(),
            local_error: None,
            asked: false,
            last_host: false,
        }
    }

    /// Each recipient has an outcome at its end, unless nothing could begin.
    pub(super) async fn run(mut self) -> HopEnd {
        loop {
            if let Some(down) = self.delivery.peers.down(self.name, &self.route.targets) {
                return Box::pin(self.answer_for_down_hop(&down)).await;
            }
            let (permit, session) = match self.wait().await {
                Ok(Some(Turn::Permit(permit, session))) => (permit, session),
                Ok(Some(Turn::TurnedAway)) => continue,
                Ok(None) => return Box::pin(self.close()).await,
                Err(not_begun) => return HopEnd::NotBegun(not_begun),
            };
            if let Err(not_begun) = Box::pin(self.attempt.begin()).await {
                return HopEnd::NotBegun(not_begun);
            }
            match Box::pin(self.try_hosts(permit, session)).await {
                Tried::All => return Box::pin(self.close()).await,
                Tried::AtLimit => {}
            }
        }
    }

    /// A connection, or word that there is nothing to wait for; nothing where an end is asked for
    /// that waits for nobody; an error where an end is asked for before the attempt was begun for any
    /// next hop, or where it is to wait elsewhere.
    async fn wait(&self) -> Result<Option<Turn<Box<Session>>>, NotBegun> {
        if self.delivery.pool.is_crowded(self.name) && self.attempt.park(self.name) {
            return Err(NotBegun::Stopped);
        }
        let peers = &self.delivery.peers;
        let first = self.route.targets.iter().find(|target| peers.down_at(self.name, target).is_none()).cloned();
        let fits: Fits<Box<Session>> =
            Box::new(move |session| first.as_ref().is_some_and(|first| session.is_with(first)));
        let (near, soon) = oneshot::channel();
        let mut turn = pin!(self.delivery.pool.acquire_told(self.name, fits, near));
        tokio::select! {
            biased;
            () = self.attempt.closing(), if !self.attempt.has_begun() => self.attempt.stop().await?,
            () = self.attempt.ended() => return Ok(None),
            turn = &mut turn => return Ok(Some(turn)),
            Ok(()) = soon => Box::pin(self.attempt.begin_ahead()).await?,
        }
        tokio::select! {
            biased;
            () = self.attempt.ended() => Ok(None),
            turn = turn => Ok(Some(turn)),
        }
    }

    /// An earlier mail found the hop down: that answers for this one.
    async fn answer_for_down_hop(mut self, down: &Down) -> HopEnd {
        // Nobody closes it; without a permit the answer would be the same.
        let _one_of_few = tokio::select! {
            biased;
            () = self.attempt.closing(), if !self.attempt.has_begun() => match self.attempt.stop().await {
                Ok(()) => None,
                Err(not_begun) => return HopEnd::NotBegun(not_begun),
            },
            one = self.delivery.answers.acquire() => one.ok(),
        };
        if let Err(not_begun) = self.attempt.begin().await {
            return HopEnd::NotBegun(not_begun);
        }
        self.recipients.next_host();
        self.recipients.found_before(down, &format!("{} was found down", self.name), self.attempt.now());
        self.attempt.note_contact();
        self.close().await
    }

    /// Tries host after host.
    async fn try_hosts(&mut self, mut permit: Permit<Box<Session>>, idle: Option<Box<Session>>) -> Tried {
        self.since = Instant::now();
        let mut idle = idle.filter(|session| session.is_usable());
        if idle.is_none() {
            permit.end_serving();
        }
        let mut targets = in_order(self.route, idle.as_deref());
        while let Some(target) = targets.pop_front() {
            if self.attempt.has_ended().is_some() {
                break;
            }
            self.last_host = targets.is_empty();
            if !self.recipients.are_for_this_host() {
                self.recipients.next_host();
            }
            if !self.recipients.are_for_this_host() {
                break;
            }
            let connected = match idle.take() {
                Some(session) => Connected::again(session, &self.attempt.of_run),
                None => self.connect(&target).await,
            };
            let session = match connected {
                Connected::Session(session) => session,
                Connected::Refused { next_host: true } => continue,
                Connected::Refused { next_host: false } => break,
                Connected::AtLimit => return Tried::AtLimit,
            };
            permit.begin_serving();
            match self.serve(session).await {
                // Those who have their answer from this host wait for the next.
                Served::Stale => targets.push_front(target),
                Served::Open(session) if !self.recipients.are_for_another_host() => {
                    session.belong_to(None);
                    permit.keep(session);
                    return Tried::All;
                }
                // The permit is for the next host's connection.
                Served::Open(session) => session.quit().await,
                Served::Over => {}
            }
            permit.end_serving();
        }
        Tried::All
    }

    /// A session with `target`, or what became of it.
    async fn connect(&mut self, target: &Target) -> Connected {
        let (peers, dialer) = (&self.delivery.peers, &self.delivery.dialer);
        if let Some(down) = peers.down_at(self.name, target) {
            self.recipients.found_before(&down, "not tried again", self.attempt.now());
            return Connected::Refused { next_host: true };
        }
        let in_clear = peers.clear_text(target.address);
        let run = &self.attempt.of_run;
        let mut opened = Session::open(dialer, target, in_clear.as_deref(), run).await;
        if let Err(refused) = &mut opened
            && let Some(reason) = refused.in_clear_instead.take()
        {
            peers.note_clear_text(target.address, &reason);
            self.dialogue.append(&mut refused.dialogue);
            opened = Session::open(dialer, target, Some(&reason), run).await;
        }
        match opened {
            Ok(session) => {
                self.attempt.note_contact();
                Connected::Session(Box::new(session))
            }
            Err(refused) => self.refused(*refused).await,
        }
    }

    async fn refused(&mut self, refused: Refused) -> Connected {
        let Refused { finding, contact, dialogue, .. } = refused;
        self.note_dialogue(dialogue, &contact, &finding);
        let stamp = self.stamp();
        if let Some(cause) = local_error(&finding) {
            self.local_error.get_or_insert(cause);
            self.recipients.not_taken(&contact, &finding, stamp);
            return Connected::Refused { next_host: true };
        }
        self.attempt.note_contact();
        let (peers, pool) = (&self.delivery.peers, &self.delivery.pool);
        let seen = Circumstances {
            sessions: pool.sessions(self.name),
            last_host: self.last_host,
            asked: self.asked,
            ..Circumstances::default()
        };
        match peers.judge(self.name, &contact, &finding, seen) {
            Judgement::Limit { alone } => {
                if alone {
                    // Where the run ends meanwhile, that is all there is to it.
                    let _ = tokio::time::timeout(LIMIT_PAUSE, self.attempt.ended()).await;
                }
                return Connected::AtLimit;
            }
            Judgement::Nothing => {}
            Judgement::Trouble(_) => pool.turn_away(self.name),
        }
        self.recipients.not_taken(&contact, &finding, self.stamp());
        Connected::Refused { next_host: finding.ruling().next_host }
    }

    /// Keeps what was said with a host that refused us; where nothing was, what came of
    /// connecting.
    fn note_dialogue(&mut self, mut dialogue: Vec<DialogueEntry>, contact: &Contact, finding: &Finding) {
        if dialogue.is_empty() {
            let text = format!("[connecting to {}: {}]", contact.target, in_words(finding));
            let peer = Some(contact.target.address);
            dialogue.push(DialogueEntry { time: self.attempt.now(), from: Side::Client, text, peer });
        }
        self.dialogue.append(&mut dialogue);
    }

    /// Transactions with one host until all were asked.
    async fn serve(&mut self, mut session: Box<Session>) -> Served {
        let config = &self.delivery.dialer.config;
        self.asked = true;
        while self.recipients.are_for_this_host() {
            let group = self.recipients.group(config.max_recipients_per_transaction.max(1));
            let (mut contact, wire) = (session.contact.clone(), session.wire.clone());
            contact.dsn = session.offers.dsn.then(|| Arc::clone(&self.attempt.message.dsn));
            let mut transaction = session.ask(&self.attempt.message, &group, config.send_partial).await;
            // The reply to the final dot may be long in coming; refusals are known by now.
            let refused = transaction.take_refused();
            let refused = self.recipients.sort(&contact, refused, self.last_host, self.stamp());
            let dialogue = self.dialogue_of(&refused, &wire);
            let ((), done) = tokio::join!(self.record(refused, dialogue), transaction.end());
            let (stale, last) = (done.stale, done.last_word());
            if !stale {
                self.attempt.note_contact();
            }
            let outcomes = self.recipients.sort(&contact, done, self.last_host, self.stamp());
            let dialogue = self.dialogue_of(&outcomes, &wire);
            self.record(outcomes, dialogue).await;
            match last {
                _ if stale => return Served::Stale,
                Some(last) => {
                    self.recipients.unasked(&session.contact, &last, self.stamp());
                    return Served::Over;
                }
                // Something that nobody's outcome depends on ended the session.
                None if session.over && self.recipients.are_for_this_host() => return Served::Stale,
                None if session.over => return Served::Over,
                None => {}
            }
        }
        Served::Open(session)
    }

    /// What was said so far, for the record with `outcomes`; kept where there are none.
    fn dialogue_of(&mut self, outcomes: &[Recorded], wire: &Wire) -> Vec<DialogueEntry> {
        self.dialogue.extend(wire.take_dialogue());
        if outcomes.is_empty() { Vec::new() } else { std::mem::take(&mut self.dialogue) }
    }

    /// Records what no host did better.
    async fn close(mut self) -> HopEnd {
        let cause = match self.attempt.has_ended() {
            Some(_) if !self.recipients.are_known() => {
                return HopEnd::LocalError(self.attempt.not_tried(&self.recipients.all()), Uncounted::GivenUp);
            }
            Some(why) => why.to_string(),
            None => format!("no host of {} was tried", self.name),
        };
        let rest = self.recipients.rest(&cause, self.attempt.now());
        match self.local_error.take() {
            Some(cause) if !self.attempt.has_contacted() => HopEnd::LocalError(rest, Uncounted::Trouble(cause)),
            _ => {
                if !self.asked {
                    // For whoever asks what is known of the hop.
                    self.delivery.peers.down(self.name, &self.route.targets);
                }
                let dialogue = std::mem::take(&mut self.dialogue);
                self.record(rest, dialogue).await;
                HopEnd::Decided
            }
        }
    }

    async fn record(&self, outcomes: Vec<Recorded>, dialogue: Vec<DialogueEntry>) {
        self.delivery.peers.note_outcomes(self.name, &outcomes);
        self.attempt.record(outcomes, dialogue).await;
    }

    fn stamp(&self) -> Stamp {
        Stamp { time: self.attempt.now(), duration: self.since.elapsed() }
    }
}

impl Connected {
    /// Over a session that is open already.
    fn again(session: Box<Session>, run: &Cancellation) -> Self {
        session.belong_to(Some(run));
        session.wire.note(&format!("session with {} reused", session.contact.target));
        Self::Session(session)
    }
}

/// The addresses in the order to be tried. A session that is open comes first: it is with the
/// first that is not in trouble, or the only one to be had.
fn in_order(route: &Route, idle: Option<&Session>) -> VecDeque<Target> {
    let open = idle.map(|session| &session.contact.target);
    let others = route.targets.iter().filter(|target| idle.is_none_or(|session| !session.is_with(target)));
    open.into_iter().chain(others).cloned().collect()
}

/// Why it is an error of our own that nobody was reached, where it is; a missing route is only
/// where there is none to anywhere.
fn local_error(finding: &Finding) -> Option<String> {
    match &finding.event {
        Event::Decision(Decision::Own(cause)) => Some(cause.clone()),
        Event::Broken(Broken::NoRoute) if !network::has_any_route() => {
            Some("there is no route to any network".to_owned())
        }
        _ => None,
    }
}

fn in_words(finding: &Finding) -> String {
    match &finding.event {
        Event::Broken(broken) => broken.to_string(),
        Event::Decision(Decision::Own(cause)) => cause.clone(),
        _ => "refused".to_owned(),
    }
}
