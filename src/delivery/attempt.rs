//! One attempt of one mail: all its next hops at the same time, each over as many hosts as
//! it takes.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use chrono::{DateTime, Utc};
use tokio::sync::OnceCell;

use crate::mail::{Address, DialogueEntry, Outcome, Planned, Recorded, Side, Stage};

use super::dns::Whose;
use super::outcome::{Decision, Event, Finding, without_route};
use super::peers::{Circumstances, Down, Judgement, LIMIT_PAUSE};
use super::pool::{Fits, Permit, Turn};
use super::recipients::Open;
use super::routing::{Hop, NoRoute, Route, Target};
use super::session::{Refused, Session};
use super::transaction::{Message, Transacted};
use super::{Attempted, Delivery, NotBegun, Request, Sink, concurrently, log};

/// One mail's attempt.
pub(super) struct Attempt<'a> {
    delivery: &'a Delivery,
    request: &'a Request,
    sink: &'a dyn Sink,
    message: Message,
    plan: Vec<Planned>,
    started: Instant,
    begun: OnceCell<Result<(), NotBegun>>,
    /// A packet went to a peer, or might have.
    contacted: AtomicBool,
    recorded: Mutex<HashMap<Address, Recorded>>,
}

/// How one next hop's part of an attempt ended.
enum HopEnd {
    /// Each of its recipients has an outcome.
    Decided,
    /// Nobody was contacted, because of ourselves: deferrals, not yet recorded, and why.
    OwnTrouble(Vec<Recorded>, String),
    /// Nobody was contacted, because nothing may begin.
    NotBegun(NotBegun),
}

/// Whether a next hop's part is over.
enum Worked {
    Over,
    /// The peer's limit of connections: wait for a session, or try again where there is none.
    Limited,
}

/// What a host did with the recipients it was given.
enum Served {
    /// All of them were asked, or will not be.
    Asked,
    /// The session was given up without a word for those in `todo`: a fresh one is for them.
    Stale,
}

fn planned(name: &str, recipients: &[Address], route: &Route) -> Option<Planned> {
    let first = route.targets.first()?;
    Some(Planned {
        next_hop: name.to_owned(),
        recipients: recipients.to_vec(),
        host: first.host.clone(),
        address: first.address,
        others: route.targets.len() - 1,
    })
}

impl<'a> Attempt<'a> {
    pub(super) fn new(delivery: &'a Delivery, request: &'a Request, sink: &'a dyn Sink) -> Self {
        let message = Message {
            from: request.reverse_path.clone(),
            smtputf8: request.smtputf8,
            require_tls: request.require_tls,
            facts: request.facts,
            prefix: request.header_prefix.as_str().into(),
            content: std::sync::Arc::clone(&request.content),
        };
        Self {
            delivery,
            request,
            sink,
            message,
            plan: Vec::new(),
            started: delivery.dialer.network.clock.instant(),
            begun: OnceCell::new(),
            contacted: AtomicBool::new(false),
            recorded: Mutex::default(),
        }
    }

    /// Tries every next hop of the plan.
    pub(super) async fn run(mut self, plan: Vec<Hop>) -> Attempted {
        let (mut routed, mut unrouted) = (Vec::new(), Vec::new());
        for hop in plan {
            match hop.route {
                Ok(route) => routed.push((hop.name, hop.recipients, route)),
                Err(none) => unrouted.push((hop.name, hop.recipients, none)),
            }
        }
        if let Some(cause) = Box::pin(self.dead_dns(routed.is_empty(), &unrouted)).await {
            return self.own_trouble(Stage::Dns, cause);
        }
        self.plan = routed.iter().filter_map(|(name, recipients, route)| planned(name, recipients, route)).collect();
        let ends = concurrently(routed.iter().map(|(name, recipients, route)| self.hop(name, recipients, route))).await;
        Box::pin(self.conclude(ends, unrouted)).await
    }

    /// Why nothing could be routed, where that is our own trouble: a question that could not
    /// be sent, or no name server that has said anything, or anything but errors, in this sweep.
    async fn dead_dns(&self, nothing_routed: bool, unrouted: &[(String, Vec<Address>, NoRoute)]) -> Option<String> {
        if !nothing_routed {
            return None;
        }
        let cause = |whose| {
            let found = unrouted.iter().find(|(_, _, none)| none.trouble == Some(whose))?;
            Some(found.2.cause.clone())
        };
        if let Some(ours) = cause(Whose::Ours) {
            return Some(ours);
        }
        let dns = &self.delivery.dialer.network.dns;
        if let Some(cause) = cause(Whose::Nobodys).filter(|_| !dns.has_answered()) {
            return Some(format!("no name server answers: {cause}"));
        }
        let cause = cause(Whose::Theirs).or_else(|| cause(Whose::Nobodys))?;
        dns.is_useless().await.then(|| format!("the name servers answer with errors alone: {cause}"))
    }

    async fn conclude(self, ends: Vec<HopEnd>, unrouted: Vec<(String, Vec<Address>, NoRoute)>) -> Attempted {
        let mut own = Vec::new();
        let mut own_cause = None;
        for end in ends {
            match end {
                HopEnd::Decided => {}
                HopEnd::OwnTrouble(recorded, cause) => {
                    own.extend(recorded);
                    own_cause.get_or_insert(cause);
                }
                HopEnd::NotBegun(NotBegun::Stopped) => return Attempted::Stopped,
                HopEnd::NotBegun(NotBegun::Trouble(cause)) => return self.own_trouble(Stage::Connect, cause),
            }
        }
        if let Some(cause) = own_cause.filter(|_| !self.contacted.load(Ordering::Relaxed)) {
            return self.own_trouble(Stage::Connect, cause);
        }
        match self.begin().await {
            Ok(()) => {}
            Err(NotBegun::Stopped) => return Attempted::Stopped,
            Err(NotBegun::Trouble(cause)) => return self.own_trouble(Stage::Connect, cause),
        }
        self.record(own, Vec::new()).await;
        self.record(self.unrouted(&unrouted), Vec::new()).await;
        Attempted::Done(self.in_order())
    }

    fn unrouted(&self, unrouted: &[(String, Vec<Address>, NoRoute)]) -> Vec<Recorded> {
        let (network, config) = (&self.delivery.dialer.network, &self.delivery.dialer.config);
        let retries = self.request.dns_problems < config.max_dns_problem_retries;
        let mut recorded = Vec::new();
        for (name, recipients, none) in unrouted {
            let defers = none.dns_problem && retries;
            let time = network.clock.now();
            recorded.extend(recipients.iter().map(|recipient| {
                let mut recorded = without_route(recipient.clone(), name, none, defers, time);
                recorded.duration = self.started.elapsed().as_secs_f64();
                recorded
            }));
        }
        recorded
    }

    /// The outcomes in the order of the request.
    fn in_order(self) -> Vec<Recorded> {
        let mut recorded = self.recorded.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.request.recipients.iter().filter_map(|recipient| recorded.remove(recipient)).collect()
    }

    fn own_trouble(&self, stage: Stage, cause: String) -> Attempted {
        let time = self.now();
        let deferred = |recipient: &Address| {
            Recorded::without_contact(recipient.clone(), Outcome::Deferred, stage, cause.clone(), time)
        };
        let recorded = self.request.recipients.iter().map(deferred).collect();
        Attempted::OwnTrouble(recorded, cause)
    }

    /// Has the open attempt committed, once for all next hops.
    async fn begin(&self) -> Result<(), NotBegun> {
        self.begun.get_or_init(|| self.sink.begin(&self.plan)).await.clone()
    }

    /// Hands outcomes on, to the record and to the log.
    async fn record(&self, outcomes: Vec<Recorded>, dialogue: Vec<DialogueEntry>) {
        if outcomes.is_empty() {
            return;
        }
        for outcome in &outcomes {
            log(&self.request.key, outcome);
        }
        self.sink.record(&outcomes, &dialogue).await;
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.extend(outcomes.into_iter().map(|outcome| (outcome.recipient.clone(), outcome)));
    }

    /// One next hop: waits for a connection, then tries its hosts. Many attempts wait and few
    /// are at work: what only those need room for is in boxes.
    async fn hop(&self, name: &str, recipients: &[Address], route: &Route) -> HopEnd {
        let mut open = Open::new(name, recipients);
        loop {
            if let Some(trouble) = self.delivery.peers.down(name, &route.targets) {
                return Box::pin(self.answer_for_down_hop(open, &trouble)).await;
            }
            let (permit, session) = match self.wait_for_permit(name, route).await {
                Ok(Turn::Permit(permit, session)) => (permit, session),
                Ok(Turn::TurnedAway) => continue,
                Err(not_begun) => return HopEnd::NotBegun(not_begun),
            };
            if let Err(not_begun) = Box::pin(self.begin()).await {
                return HopEnd::NotBegun(not_begun);
            }
            match Box::pin(self.work(&mut open, route, permit, session)).await {
                Worked::Over => return Box::pin(self.close(open)).await,
                Worked::Limited => {}
            }
        }
    }

    /// A connection, or word that there is nothing to wait for; an error where a stop comes
    /// before the attempt was begun for any next hop.
    async fn wait_for_permit(&self, hop: &str, route: &Route) -> Result<Turn<Box<Session>>, NotBegun> {
        let first = route.targets.iter().find(|target| self.delivery.peers.down_at(hop, target).is_none()).cloned();
        let fits: Fits<Box<Session>> =
            Box::new(move |session| first.as_ref().is_some_and(|first| session.is_with(first)));
        let gentle = &self.delivery.dialer.network.stop.gentle;
        let mut turn = pin!(self.delivery.pool.acquire(hop, fits));
        tokio::select! {
            biased;
            () = gentle.cancelled(), if !self.begun.initialized() => {
                // Another next hop may just be about to begin: that decides for all.
                self.begun.get_or_init(|| async { Err(NotBegun::Stopped) }).await.clone()?;
                Ok(turn.await)
            }
            turn = &mut turn => Ok(turn),
        }
    }

    /// An earlier mail found the hop down: that answers for this one.
    async fn answer_for_down_hop(&self, mut open: Open<'_>, down: &Down) -> HopEnd {
        // Nobody closes it; without a permit the answer would be the same.
        let _one_of_few = self.delivery.answers.acquire().await;
        if let Err(not_begun) = self.begin().await {
            return HopEnd::NotBegun(not_begun);
        }
        open.next_host();
        open.found_before(down, &format!("{} was found down", open.hop), self.now());
        self.contacted.store(true, Ordering::Relaxed);
        self.close(open).await
    }

    /// Tries host after host until nobody is left to be tried for.
    async fn work(
        &self,
        open: &mut Open<'_>,
        route: &Route,
        permit: Permit<Box<Session>>,
        idle: Option<Box<Session>>,
    ) -> Worked {
        open.since = Instant::now();
        let mut permit = permit;
        let mut idle = idle.filter(|session| session.is_usable());
        if idle.is_none() {
            permit.end_serving();
        }
        let mut targets = targets(route, idle.as_deref());
        while let Some(target) = targets.pop_front() {
            open.last_host = targets.is_empty();
            if open.todo.is_empty() {
                open.next_host();
            }
            if open.todo.is_empty() {
                break;
            }
            let opened = match idle.take() {
                Some(session) => Opened::again(session),
                None => self.open_session(open, &target).await,
            };
            let session = match opened {
                Opened::Session(session) => session,
                Opened::Refused(next_host) if next_host => continue,
                Opened::Refused(_) => break,
                Opened::Limited => return Worked::Limited,
            };
            permit.begin_serving();
            match self.serve(open, session).await {
                // Those who have their answer from this host wait for the next.
                (Served::Stale, _) => targets.push_front(target),
                (Served::Asked, Some(session)) if open.later.is_empty() => {
                    permit.keep(session);
                    return Worked::Over;
                }
                // The permit is for the next host's connection.
                (Served::Asked, Some(session)) => session.quit().await,
                (Served::Asked, None) => {}
            }
            permit.end_serving();
        }
        Worked::Over
    }

    /// A session with `target`, or what became of it.
    async fn open_session(&self, open: &mut Open<'_>, target: &Target) -> Opened {
        let delivery = self.delivery;
        if let Some(trouble) = delivery.peers.down_at(open.hop, target) {
            open.found_before(&trouble, "not tried again", self.now());
            return Opened::Refused(true);
        }
        let in_clear = delivery.peers.clear_text(target.address);
        let mut opened = Session::open(&delivery.dialer, target, in_clear.as_deref()).await;
        if let Err(refused) = &mut opened
            && let Some(reason) = refused.in_clear_instead.take()
        {
            delivery.peers.note_clear_text(target.address, &reason);
            open.dialogue.append(&mut refused.dialogue);
            opened = Session::open(&delivery.dialer, target, Some(&reason)).await;
        }
        match opened {
            Ok(session) => {
                self.contacted.store(true, Ordering::Relaxed);
                Opened::Session(Box::new(session))
            }
            Err(refused) => self.refused(open, *refused).await,
        }
    }

    async fn refused(&self, open: &mut Open<'_>, refused: Refused) -> Opened {
        let Refused { finding, contact, mut dialogue, .. } = refused;
        if dialogue.is_empty() {
            let text = format!("[connecting to {}: {}]", contact.target, event(&finding));
            let peer = Some(contact.target.address);
            dialogue.push(DialogueEntry { time: self.now(), from: Side::Client, text, peer });
        }
        open.dialogue.append(&mut dialogue);
        if open.note_own_trouble(&finding) {
            open.not_taken(&contact, &finding, self.now());
            return Opened::Refused(true);
        }
        self.contacted.store(true, Ordering::Relaxed);
        // Whoever was asked already is not asked again by waiting.
        let (peers, pool) = (&self.delivery.peers, &self.delivery.pool);
        let (last_host, asked) = (open.last_host, open.asked);
        let seen = Circumstances { sessions: pool.sessions(open.hop), last_host, asked, ..Circumstances::default() };
        match peers.judge(open.hop, &contact, &finding, seen) {
            Judgement::Limit { alone } => {
                if alone {
                    tokio::time::sleep(LIMIT_PAUSE).await;
                }
                return Opened::Limited;
            }
            Judgement::Nothing => {}
            Judgement::Trouble(_) => pool.turn_away(open.hop),
        }
        open.not_taken(&contact, &finding, self.now());
        Opened::Refused(finding.ruling().next_host)
    }

    /// Transactions with one host until all were asked. The session comes back where it can
    /// still be used.
    async fn serve(&self, open: &mut Open<'_>, mut session: Box<Session>) -> (Served, Option<Box<Session>>) {
        let config = &self.delivery.dialer.config;
        open.asked = true;
        while !open.todo.is_empty() {
            let group = open.group(config.max_recipients_per_transaction.max(1));
            let (contact, wire) = (session.contact.clone(), session.wire.clone());
            let mut transaction = session.ask(&self.message, &group, config.send_partial).await;
            // The reply to the final dot may be long in coming; refusals are known by now.
            let refused = open.sort(&contact, transaction.take_refused(), self.now());
            self.delivery.peers.note_outcomes(open.hop, &refused);
            let dialogue = open.dialogue_of(&refused, &wire);
            let ((), done) = tokio::join!(self.record(refused, dialogue), transaction.end());
            let (stale, last) = (done.stale, done.last_word());
            let outcomes = open.sort(&contact, done, self.now());
            self.delivery.peers.note_outcomes(open.hop, &outcomes);
            let dialogue = open.dialogue_of(&outcomes, &wire);
            self.record(outcomes, dialogue).await;
            match last {
                _ if stale => return (Served::Stale, None),
                Some(last) => {
                    open.unasked(&session.contact, &last, self.now());
                    return (Served::Asked, None);
                }
                // Something that nobody's outcome depends on ended the session.
                None if session.over && !open.todo.is_empty() => return (Served::Stale, None),
                None if session.over => return (Served::Asked, None),
                None => {}
            }
        }
        (Served::Asked, Some(session))
    }

    fn now(&self) -> DateTime<Utc> {
        self.delivery.dialer.network.clock.now()
    }

    /// Records what no host did better.
    async fn close(&self, mut open: Open<'_>) -> HopEnd {
        let rest = open.rest(self.now());
        self.delivery.peers.note_outcomes(open.hop, &rest);
        match open.own_trouble {
            Some(cause) if !self.contacted.load(Ordering::Relaxed) => HopEnd::OwnTrouble(rest, cause),
            _ => {
                self.record(rest, open.dialogue).await;
                HopEnd::Decided
            }
        }
    }
}

/// What became of opening a session.
enum Opened {
    Session(Box<Session>),
    /// Whether the next host may be tried.
    Refused(bool),
    /// The peer's limit of connections is reached.
    Limited,
}

impl Opened {
    /// One that is open already.
    fn again(session: Box<Session>) -> Self {
        session.wire.note(&format!("session with {} reused", session.contact.target));
        Self::Session(session)
    }
}

/// The addresses in the order to be tried. A session that is open comes first: it is with the
/// first that is not in trouble, or the only one to be had.
fn targets(route: &Route, idle: Option<&Session>) -> VecDeque<Target> {
    let open = idle.map(|session| &session.contact.target);
    let others = route.targets.iter().filter(|target| idle.is_none_or(|session| !session.is_with(target)));
    open.into_iter().chain(others).cloned().collect()
}

fn event(finding: &Finding) -> String {
    match &finding.event {
        Event::Broken(broken) => broken.to_string(),
        Event::Decision(Decision::Own(cause)) => cause.clone(),
        _ => "refused".to_owned(),
    }
}

impl Transacted {
    /// The finding that ended the session.
    fn last_word(&self) -> Option<Finding> {
        self.findings.iter().map(|(_, finding)| finding).find(|finding| finding.ends_session()).cloned()
    }
}
