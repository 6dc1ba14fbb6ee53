//! Mailet `RemoteDelivery`: one attempt, and its outcomes sorted.
//!
//! Delivered recipients are done; deferred ones go on as one part, failed ones as another,
//! both to the `bounceProcessor`, with attributes that say what happened.

use std::collections::HashMap;

use async_trait::async_trait;

use super::config::Known;
use super::mailet::{Ended, Step};
use super::part::Part;
use super::{End, Pass};
use crate::delivery::{self, Attempted, Checkpoint, Explanation, Peer, Request, Uncounted};
use crate::mail::{Address, AttributeValue, Event, Outcome, Recorded, Stage, attribute};
use crate::yaml::Fields;

/// What makes attempts: the room `delivery`, or in tests a script.
#[async_trait]
pub trait Deliver: Send + Sync {
    /// Tries every recipient of the request once; see [`Attempted`].
    async fn attempt(&self, request: Request, checkpoint: &dyn Checkpoint) -> Attempted;

    /// What an attempt for `recipient` would do, for who can say.
    async fn explain(&self, _recipient: &Address) -> Option<Explanation> {
        None
    }

    /// How many attempts wait for a connection.
    fn waiting(&self) -> usize {
        0
    }

    /// How many of them for `next_hop`.
    fn waiting_for(&self, _next_hop: &str) -> usize {
        0
    }

    /// The next hops that were seen lately, with what is known of them.
    fn peers(&self) -> Vec<Peer> {
        Vec::new()
    }

    /// Ends what is kept open for further mails; not for long.
    async fn close(&self) {}
}

#[async_trait]
impl Deliver for delivery::Delivery {
    async fn attempt(&self, request: Request, checkpoint: &dyn Checkpoint) -> Attempted {
        // Its own method, not this one.
        delivery::Delivery::attempt(self, request, checkpoint).await
    }

    async fn explain(&self, recipient: &Address) -> Option<Explanation> {
        Some(delivery::Delivery::explain(self, recipient).await)
    }

    fn waiting(&self) -> usize {
        delivery::Delivery::waiting(self)
    }

    fn waiting_for(&self, next_hop: &str) -> usize {
        delivery::Delivery::waiting_for(self, next_hop)
    }

    fn peers(&self) -> Vec<Peer> {
        delivery::Delivery::peers(self)
    }

    async fn close(&self) {
        delivery::Delivery::close(self).await;
    }
}

/// A rule's `RemoteDelivery`.
#[derive(Debug, Clone)]
pub(super) struct RemoteDelivery {
    /// How an attempt is made.
    pub(super) delivery: delivery::Config,
    /// The processor that takes what is deferred or failed.
    pub(super) bounce_processor: String,
    /// The processor that takes what is delivered.
    pub(super) on_success: Option<String>,
    /// It does something with all that is delivered, not only where the sender asked for it.
    pub(super) keeps_successes: bool,
    /// Its place among all of the configuration, from 0.
    pub(super) number: usize,
}

impl RemoteDelivery {
    pub(super) fn read(fields: &mut Fields<'_>, known: &Known<'_>) -> Option<Self> {
        let bounce_processor = fields.required("bounceProcessor", |node| known.processor(node));
        let on_success = fields.optional("onSuccess", |node| known.processor(node));
        let delivery = delivery::Config::read(fields);
        Some(Self { delivery, bounce_processor: bounce_processor?, on_success, keeps_successes: false, number: 0 })
    }

    pub(super) async fn run(&self, mut part: Part, pass: &Pass<'_>) -> Vec<Step> {
        if std::mem::take(&mut part.trail.on_record) {
            return vec![Step::Go(part, self.bounce_processor.clone())];
        }
        match pass.deliver(self.number).attempt(self.request(&part, pass), pass.backing).await {
            Attempted::Done(recorded) => self.sort(&part, recorded, pass),
            Attempted::Partly(recorded, uncounted, why) => {
                let (left, decided) = part.of(&uncounted);
                let decided = decided.map_or_else(Vec::new, |part| self.sort(&part, recorded, pass));
                decided.into_iter().chain(left.map(|part| stays(part, uncounted, why))).collect()
            }
            Attempted::LocalError(uncounted, why) => vec![stays(part, uncounted, why)],
            Attempted::Stopped => vec![Step::End(Ended::new(part, End::Stay(None)))],
        }
    }

    fn sort(&self, part: &Part, recorded: Vec<Recorded>, pass: &Pass<'_>) -> Vec<Step> {
        let mut outcomes: HashMap<_, _> =
            recorded.into_iter().map(|recorded| (recorded.recipient.mailbox(), recorded)).collect();
        let outcomes: Vec<_> = part
            .mail
            .envelope
            .recipients
            .iter()
            .map(|recipient| outcomes.remove(&recipient.mailbox()).unwrap_or_else(|| unreported(recipient, pass)))
            .collect();
        pass.heard(&outcomes);
        let mut steps = Vec::new();
        for outcome in [Outcome::Delivered, Outcome::Deferred, Outcome::Failed] {
            let those: Vec<_> = outcomes.iter().filter(|one| one.outcome == outcome).cloned().collect();
            if !those.is_empty() {
                steps.push(self.step(part, outcome, &those));
            }
        }
        steps
    }

    fn step(&self, whole: &Part, outcome: Outcome, recorded: &[Recorded]) -> Step {
        let mut part = whole.clone().only(recipients(recorded));
        part.attempted(outcome, recorded);
        match outcome {
            Outcome::Delivered => match &self.on_success {
                Some(processor) => Step::Go(part, processor.clone()),
                None => Step::End(Ended::new(part, End::Delivered)),
            },
            Outcome::Deferred | Outcome::Failed => {
                if recorded.iter().any(delivery::is_dns_problem) {
                    part.mail.attributes.increment(attribute::DNS_PROBLEMS);
                }
                Step::Go(part, self.bounce_processor.clone())
            }
        }
    }

    /// Whether something is to follow on a delivery of this part.
    fn follows_on_success(&self, part: &Part) -> bool {
        let envelope = &part.mail.envelope;
        let asks = |recipient: &Address| envelope.dsn.of(recipient).asks_for(Event::Success) == Some(true);
        self.keeps_successes || !envelope.dsn.is_silent() && envelope.recipients.iter().any(asks)
    }

    fn request(&self, part: &Part, pass: &Pass<'_>) -> Request {
        let mail = &part.mail;
        let dns_problems = mail.attributes.integer(attribute::DNS_PROBLEMS).unwrap_or(0);
        let mut attributes = mail.attributes.clone();
        if let Some(processor) = self.on_success.as_ref().filter(|_| self.follows_on_success(part)) {
            // Whoever finds the mail after our death knows what is still to be done.
            attributes.set(attribute::ON_SUCCESS, AttributeValue::Text(processor.clone()));
        }
        Request {
            key: mail.key.clone(),
            reverse_path: mail.envelope.reverse_path.clone(),
            recipients: mail.envelope.recipients.clone(),
            smtputf8: mail.envelope.smtputf8,
            require_tls: mail.attributes.boolean(attribute::REQUIRE_TLS).unwrap_or(false),
            prefer_require_tls: mail.attributes.boolean(attribute::PREFER_REQUIRE_TLS).unwrap_or(false),
            dsn: mail.envelope.dsn.clone(),
            facts: mail.facts,
            header_prefix: mail.header_prefix.clone(),
            attributes,
            signatories: pass.pipeline.signatories(&mail.attributes),
            dns_problems: u32::try_from(dns_problems).unwrap_or(0),
        }
    }
}

/// A part for which this pass did not happen.
fn stays(part: Part, uncounted: Vec<Recorded>, why: Uncounted) -> Step {
    let trouble = match why {
        Uncounted::Trouble(cause) => Some(cause),
        Uncounted::GivenUp => None,
    };
    Step::End(Ended { part, end: End::Stay(trouble), uncounted })
}

fn recipients(recorded: &[Recorded]) -> Vec<Address> {
    recorded.iter().map(|one| one.recipient.clone()).collect()
}

/// An attempt that ended without a word on a recipient is trouble nobody foresaw: deferred.
fn unreported(recipient: &Address, pass: &Pass<'_>) -> Recorded {
    let cause = "the attempt ended without an outcome for this recipient".to_owned();
    Recorded::without_contact(recipient.clone(), Outcome::Deferred, Stage::Dns, cause, pass.now)
}
