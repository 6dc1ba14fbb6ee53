//! One attempt of one mail: all its next hops at the same time, begun once, with one outcome
//! for each recipient at its end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use chrono::{DateTime, Utc};
use tokio::sync::OnceCell;

use crate::mail::{Address, DialogueEntry, Outcome, Planned, Recorded, Stage};
use crate::stop::Cancellation;

use super::content::Message;
use super::dns::Whose;
use super::hop::{HopAttempt, HopEnd};
use super::outcome::{cancelled_by, without_route};
use super::routing::{Hop, NoRoute, Route};
use super::signature::Signers;
use super::step::Broken;
use super::{Attempted, Checkpoint, Delivery, NotBegun, Request, Uncounted, concurrently, log};

/// One mail's attempt.
pub(super) struct Attempt<'a> {
    delivery: &'a Delivery,
    request: &'a Request,
    checkpoint: &'a dyn Checkpoint,
    /// What it is part of.
    pub(super) of_run: Cancellation,
    pub(super) message: Message,
    plan: Vec<Planned>,
    started: Instant,
    begun: OnceCell<Result<(), NotBegun>>,
    /// A packet went to a peer, or might have.
    contacted: AtomicBool,
    recorded: Mutex<HashMap<Address, Recorded>>,
}

/// A next hop that has no hosts, whose it is, and why.
type Unrouted = (String, Vec<Address>, NoRoute);

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
    pub(super) fn new(
        delivery: &'a Delivery,
        request: &'a Request,
        checkpoint: &'a dyn Checkpoint,
        of_run: Cancellation,
    ) -> Self {
        let message = Message {
            from: request.reverse_path.clone(),
            smtputf8: request.smtputf8,
            require_tls: request.require_tls,
            prefer_require_tls: request.prefer_require_tls,
            dsn: Arc::new(request.dsn.clone()),
            facts: request.facts,
            prefix: request.header_prefix.as_str().into(),
            content: checkpoint.content(),
            signers: Signers {
                signatories: request.signatories.clone().into(),
                clock: delivery.dialer.network.clock.clone(),
            },
            notes: Vec::new(),
        };
        Self {
            delivery,
            request,
            checkpoint,
            of_run,
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
        self.plan = routed.iter().filter_map(|(name, recipients, route)| planned(name, recipients, route)).collect();
        let hops = routed
            .iter()
            .map(|(name, recipients, route)| HopAttempt::new(&self, self.delivery, name, recipients, route).run());
        // Who has a route waits for no trouble with the names of others.
        let (dead, ends) = tokio::join!(Box::pin(self.dead_dns(&unrouted)), concurrently(hops));
        if let (true, Some(cause)) = (routed.is_empty(), &dead) {
            return self.trouble(Stage::Dns, cause.clone());
        }
        Box::pin(self.conclude(ends, unrouted, dead)).await
    }

    /// Why some could not be routed, where that is an error of our own: a question that could not
    /// be sent, or no name server that has said anything, or anything but errors, in this sweep.
    async fn dead_dns(&self, unrouted: &[Unrouted]) -> Option<String> {
        let cause = |whose| {
            let found = unrouted.iter().find(|(_, _, none)| none.trouble == Some(whose))?;
            Some(found.2.cause.clone())
        };
        if let Some(ours) = cause(Whose::Ours) {
            return Some(ours);
        }
        let dns = &self.delivery.dialer.network.dns;
        if let Some(cause) = cause(Whose::Unknown).filter(|_| !dns.has_answered()) {
            return Some(format!("no name server answers: {cause}"));
        }
        let cause = cause(Whose::Theirs).or_else(|| cause(Whose::Unknown))?;
        dns.is_useless().await.then(|| format!("the name servers answer with errors alone: {cause}"))
    }

    /// What is on record at the end: `dead` says why those that met trouble with names met our own.
    async fn conclude(self, ends: Vec<HopEnd>, unrouted: Vec<Unrouted>, dead: Option<String>) -> Attempted {
        let mut left = Vec::new();
        let mut local_error = None;
        for end in ends {
            match end {
                HopEnd::Decided => {}
                HopEnd::LocalError(recorded, why) => {
                    left.extend(recorded);
                    local_error.get_or_insert(why);
                }
                HopEnd::NotBegun(NotBegun::Stopped) => return Attempted::Stopped,
                HopEnd::NotBegun(NotBegun::StoreError(cause)) => return self.trouble(Stage::Connect, cause),
            }
        }
        match local_error.take_if(|_| !self.has_contacted()) {
            Some(Uncounted::Trouble(cause)) => return self.trouble(Stage::Connect, cause),
            Some(Uncounted::GivenUp) => return self.given_up(),
            None => {}
        }
        match self.begin().await {
            Ok(()) => {}
            Err(NotBegun::Stopped) => return Attempted::Stopped,
            Err(NotBegun::StoreError(cause)) => return self.trouble(Stage::Connect, cause),
        }
        let is_ours = |(_, _, none): &Unrouted| dead.is_some() && none.trouble.is_some();
        let (ours, theirs): (Vec<_>, Vec<_>) = unrouted.into_iter().partition(is_ours);
        left.extend(self.unrouted(&ours));
        self.record(self.unrouted(&theirs), Vec::new()).await;
        match local_error.or(dead.map(Uncounted::Trouble)).filter(|_| !left.is_empty()) {
            Some(why) => Attempted::Partly(self.in_order(), left, why),
            None => Attempted::Done(self.in_order()),
        }
    }

    fn unrouted(&self, unrouted: &[Unrouted]) -> Vec<Recorded> {
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

    fn trouble(&self, stage: Stage, cause: String) -> Attempted {
        let time = self.now();
        let deferred = |recipient: &Address| {
            Recorded::without_contact(recipient.clone(), Outcome::Deferred, stage, cause.clone(), time)
        };
        let recorded = self.request.recipients.iter().map(deferred).collect();
        Attempted::LocalError(recorded, Uncounted::Trouble(cause))
    }

    fn given_up(&self) -> Attempted {
        Attempted::LocalError(self.not_tried(&self.request.recipients), Uncounted::GivenUp)
    }

    /// What is on record of those whose connection did not come before the end of the run or of the
    /// process.
    pub(super) fn not_tried(&self, recipients: &[Address]) -> Vec<Recorded> {
        let why = self.has_ended().unwrap_or(Broken::Stopped);
        let time = self.now();
        let note = match &why {
            Broken::Cancelled(by) => Some(cancelled_by(by)),
            _ => None,
        };
        let untried = |recipient: &Address| {
            let mut recorded = Recorded::not_tried(recipient.clone(), &why, time);
            recorded.notes.extend(note.clone());
            recorded
        };
        recipients.iter().map(untried).collect()
    }

    /// Whether nothing is waited for any more: why.
    pub(super) fn has_ended(&self) -> Option<Broken> {
        self.delivery.dialer.network.has_ended(&self.of_run)
    }

    /// Waits for that.
    pub(super) async fn ended(&self) {
        self.delivery.dialer.network.ended(&self.of_run).await;
    }

    /// Waits until nothing new is to begin.
    pub(super) async fn closing(&self) {
        self.delivery.dialer.network.closing(&self.of_run).await;
    }

    /// Has the open attempt committed, once for all next hops.
    pub(super) async fn begin(&self) -> Result<(), NotBegun> {
        self.begun.get_or_init(|| self.checkpoint.begin(&self.request.attributes, &self.plan)).await.clone()
    }

    /// The same where the connection is still to come: with what others commit meanwhile.
    pub(super) async fn begin_ahead(&self) -> Result<(), NotBegun> {
        self.begun.get_or_init(|| self.checkpoint.begin_ahead(&self.request.attributes, &self.plan)).await.clone()
    }

    /// Whether it was committed, or is not to be.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.initialized()
    }

    /// Nothing is to begin any more.
    ///
    /// # Errors
    /// None where another next hop is just about to begin: that decides for all.
    pub(super) async fn stop(&self) -> Result<(), NotBegun> {
        self.begun.get_or_init(|| async { Err(NotBegun::Stopped) }).await.clone()
    }

    /// Whether the mail waits for `next_hop`, its only one, with the caller.
    pub(super) fn park(&self, next_hop: &str) -> bool {
        let only = self.plan.len() == 1 && self.plan[0].recipients.len() == self.request.recipients.len();
        only && !self.has_begun() && self.checkpoint.park(next_hop, &self.request.recipients)
    }

    /// A packet goes to a peer, or might have gone.
    pub(super) fn note_contact(&self) {
        self.contacted.store(true, Ordering::Relaxed);
    }

    /// Whether one did.
    pub(super) fn has_contacted(&self) -> bool {
        self.contacted.load(Ordering::Relaxed)
    }

    /// Hands outcomes on, to the record and to the log.
    pub(super) async fn record(&self, outcomes: Vec<Recorded>, dialogue: Vec<DialogueEntry>) {
        if outcomes.is_empty() {
            return;
        }
        for outcome in &outcomes {
            log(&self.request.key, outcome);
        }
        if self.note(&outcomes) < self.request.recipients.len() {
            self.checkpoint.record(&outcomes, &dialogue).await;
        } else {
            self.checkpoint.record_last(&outcomes, &dialogue).await;
        }
    }

    /// Keeps outcomes for the end of the attempt; how many recipients have one.
    fn note(&self, outcomes: &[Recorded]) -> usize {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.extend(outcomes.iter().map(|outcome| (outcome.recipient.clone(), outcome.clone())));
        recorded.len()
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        self.delivery.dialer.network.clock.now()
    }
}
