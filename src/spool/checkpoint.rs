//! A pass's way to the store: what must be durable before contact, what became known, and
//! the settlement at the end.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use tracing::{debug, error, info, warn};

use super::ended::settlement;
use super::{Spool, is_written_ahead};
use crate::delivery::{Checkpoint, Content, NotBegun};
use crate::mail::{
    Address, AttributeValue, Attributes, DialogueEntry, Mail, MailKey, MessageId, NewDsn, Outcome, Planned, Recorded,
};
use crate::metrics::Held;
use crate::pipeline::{Backing, Disposition, End};
use crate::stop::Cancellation;
use crate::store::{AttemptId, Claim, Error, Fate, Settlement, Store};

/// How long the last outcomes of an attempt wait for the end of the pass, to be committed with
/// it. It is there at once, unless the pass goes on with something that takes its time; results
/// are to be durable within 50 ms.
const HELD: Duration = Duration::from_millis(20);

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// One pass of one mail.
pub(super) struct Pass<'a> {
    spool: &'a Spool,
    claim: Claim,
    /// How many recipients the mail has, where it may be parked.
    parks: Option<usize>,
    message: Stored,
    run: Cancellation,
    state: Mutex<State>,
    /// One begins, others wait for the answer.
    beginning: tokio::sync::Mutex<()>,
    /// Told when outcomes are held back.
    holds: Notify,
}

/// How a pass ended in the store.
pub(super) enum Settled {
    /// Nothing was written: the mail waits for this next hop.
    Parked(String),
    /// With the keys of the notifications that it bore.
    Done(Vec<MailKey>),
}

struct State {
    /// What the store has: the attributes of all parts that began, counters at their highest.
    attributes: Attributes,
    attempt: Option<AttemptId>,
    /// Outcomes that no record holds yet.
    pending: Vec<Recorded>,
    /// What was said for them.
    dialogue: Vec<DialogueEntry>,
    /// Counts the attempt from its beginning to the end of the pass.
    in_flight: Option<Held>,
    /// The next hop that the mail is to wait for, in the store.
    waits_for: Option<String>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(
        spool: &'a Spool,
        claim: Claim,
        parks: Option<usize>,
        message: Stored,
        attributes: Attributes,
        run: Cancellation,
    ) -> Self {
        let state = State {
            attributes,
            attempt: None,
            pending: Vec::new(),
            dialogue: Vec::new(),
            in_flight: None,
            waits_for: None,
        };
        let (state, beginning, holds) = (Mutex::new(state), tokio::sync::Mutex::default(), Notify::new());
        Self { spool, claim, parks, message, run, state, beginning, holds }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the pass in the store. What cannot be written leaves the mail in hand until this
    /// process ends; after that its attempt is in doubt. Nothing is written for a mail that is
    /// parked.
    pub(super) async fn settle(&self, dispositions: Vec<Disposition>) -> Result<Settled, Error> {
        if dispositions.iter().flat_map(|part| &part.born).any(|dsn| is_written_ahead(&dsn.mail)) {
            // That takes its time, and results are to be durable before.
            self.flush().await;
        }
        let base = {
            let mut state = self.state();
            let uncounted = dispositions.iter().all(|part| matches!(part.end, End::Stay(_)));
            let (attempt, mut outcomes) = (state.attempt, std::mem::take(&mut state.pending));
            outcomes.extend(dispositions.iter().flat_map(|part| part.uncounted.iter().cloned()));
            let (dialogue, dialogue_limit) = (std::mem::take(&mut state.dialogue), self.spool.settings.max_dialogue);
            let counted = attempt.is_some() && !uncounted;
            Settlement { attempt, counted, outcomes, dialogue, dialogue_limit, ..Settlement::default() }
        };
        let mut settlement = settlement(dispositions, &base);
        let (store, waits_for) = (&self.spool.store, self.state().waits_for.take());
        let untouched = untouched(&settlement, &self.claim);
        if let Some(next_hop) = waits_for {
            if untouched {
                return Ok(Settled::Parked(next_hop));
            }
            // What the pass did would be done again each time.
            self.spool.parks.store(false, Ordering::Relaxed);
        }
        let written = if untouched {
            self.written(|| store.release(&self.claim)).await.map(|()| Vec::new())
        } else {
            for dsn in &mut settlement.born {
                let ahead = self.written(|| self.spool.written_ahead(dsn.mail.clone())).await;
                // Where it could not, the settlement meets the same trouble, and says so.
                dsn.mail = ahead.unwrap_or_else(|_| dsn.mail.clone());
            }
            self.written(|| store.settle(&self.claim, &settlement)).await
        };
        match written {
            Ok(fates) => Ok(Settled::Done(self.told(&settlement.born, &fates))),
            Err(error) => {
                error!(mail.id = %self.claim.key, %error, "the end of the pass is not on record; the mail is in hand until this process ends, and in doubt then");
                Err(error)
            }
        }
    }

    /// Says what became of notifications; the keys of those that are mails.
    fn told(&self, born: &[NewDsn], fates: &[Fate]) -> Vec<MailKey> {
        let mut keys = Vec::new();
        for (dsn, fate) in born.iter().zip(fates) {
            let (action, recipients) = (dsn.action.name(), dsn.told.len());
            match fate {
                Fate::Born => {
                    info!(mail.id = %self.claim.key, dsn = %dsn.mail.key, action, recipients, "the sender is told");
                    keys.push(dsn.mail.key.clone());
                }
                Fate::Gathered => {
                    debug!(mail.id = %self.claim.key, action, recipients, "the sender is told in a digest");
                }
                Fate::HeldBack => self.spool.hold_back(&self.claim.key, recipients),
            }
        }
        keys
    }

    /// Waits until outcomes have been held back for long enough.
    pub(super) async fn overdue(&self) {
        self.holds.notified().await;
        tokio::time::sleep(HELD).await;
    }

    /// Puts on record what was held back for the end of the pass.
    pub(super) async fn flush(&self) {
        let (attempt, outcomes, dialogue) = {
            let mut state = self.state();
            let Some(attempt) = state.attempt.filter(|_| !state.pending.is_empty()) else { return };
            (attempt, std::mem::take(&mut state.pending), std::mem::take(&mut state.dialogue))
        };
        self.write_record(attempt, &outcomes, &dialogue).await;
    }

    async fn write_record(&self, attempt: AttemptId, outcomes: &[Recorded], dialogue: &[DialogueEntry]) {
        let (store, limit) = (&self.spool.store, self.spool.settings.max_dialogue);
        let written = self.written(|| store.record(&self.claim, attempt, outcomes, dialogue, limit)).await;
        if written.is_err() {
            let mut state = self.state();
            state.pending.extend_from_slice(outcomes);
            state.dialogue.extend_from_slice(dialogue);
        }
    }

    /// The dialogue that belongs to outcomes, where it is kept.
    fn kept<'d>(&self, outcomes: &[Recorded], dialogue: &'d [DialogueEntry]) -> &'d [DialogueEntry] {
        let all = self.spool.settings.keep_all_dialogues;
        if all || outcomes.iter().any(|o| o.outcome != Outcome::Delivered) { dialogue } else { &[] }
    }

    /// Writes until it is written; a store in trouble is waited for, since the peer's
    /// answer is not to be had again. Given up after [`Settings::patience`](super::Settings), or
    /// with the last try after a hard stop.
    async fn written<T, F>(&self, write: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let hard = &self.spool.stop.hard;
        let mut pause = FIRST_PAUSE;
        loop {
            let is_last = hard.is_cancelled();
            match write().await {
                Ok(written) => {
                    self.spool.store_is_written();
                    return Ok(written);
                }
                Err(error) if error.is_passing() && !is_last && self.spool.waits_for_store(&error) => {
                    debug!(mail.id = %self.claim.key, %error, "a result cannot be written yet");
                    self.spool.unwritten.fetch_add(1, Ordering::Relaxed);
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = hard.cancelled() => {}
                    }
                    self.spool.unwritten.fetch_sub(1, Ordering::Relaxed);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(error) => {
                    // Said with the end of the pass, which is written next or is this.
                    debug!(mail.id = %self.claim.key, %error, "a result cannot be written");
                    return Err(error);
                }
            }
        }
    }

    /// Begins the attempt, at once or `ahead` of its connection.
    async fn begin_attempt(&self, attributes: &Attributes, plan: &[Planned], ahead: bool) -> Result<(), NotBegun> {
        let _one = self.beginning.lock().await;
        // Another part of the mail had its attempt: the pass goes on.
        self.flush().await;
        if self.spool.is_behind() {
            return Err(NotBegun::StoreError("results of earlier attempts cannot be written".to_owned()));
        }
        match self.open_attempt(attributes, plan, ahead).await {
            Ok(attempt) => {
                self.state().attempt = Some(attempt);
                self.state().in_flight = Some(self.spool.settings.metrics.attempts_in_flight.hold());
                self.spool.begun.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(Error::ClaimLost(key)) => {
                error!(mail.id = %key, "the mail was taken from this process; nobody is contacted for it");
                Err(NotBegun::Stopped)
            }
            Err(error) => Err(NotBegun::StoreError(error.to_string())),
        }
    }

    async fn open_attempt(&self, attributes: &Attributes, plan: &[Planned], ahead: bool) -> Result<AttemptId, Error> {
        let (already, merged) = {
            let mut state = self.state();
            merge(&mut state.attributes, attributes);
            (state.attempt, state.attributes.clone())
        };
        let store = &self.spool.store;
        match already {
            Some(attempt) => store.extend_attempt(&self.claim, attempt, &merged, plan).await.map(|()| attempt),
            None if ahead => store.begin_attempt_ahead(&self.claim, &merged, plan).await,
            None => store.begin_attempt(&self.claim, &merged, plan).await,
        }
    }
}

/// Nothing was begun, nothing is known, the whole mail stays.
fn untouched(settlement: &Settlement, claim: &Claim) -> bool {
    settlement.attempt.is_none()
        && settlement.outcomes.is_empty()
        && settlement.born.is_empty()
        && matches!(&settlement.parts[..], [only] if only.place.is_none() && only.mail.key == claim.key)
}

/// Parts of one mail count apart; what a crash leaves must not allow a pass too many.
fn merge(into: &mut Attributes, part: &Attributes) {
    for (name, value) in part.iter() {
        let highest = match (into.integer(name), value) {
            (Some(held), AttributeValue::Integer(new)) => AttributeValue::Integer(held.max(*new)),
            _ => value.clone(),
        };
        into.set(name, highest);
    }
}

#[async_trait]
impl Checkpoint for Pass<'_> {
    async fn begin(&self, attributes: &Attributes, plan: &[Planned]) -> Result<(), NotBegun> {
        self.begin_attempt(attributes, plan, false).await
    }

    async fn begin_ahead(&self, attributes: &Attributes, plan: &[Planned]) -> Result<(), NotBegun> {
        self.begin_attempt(attributes, plan, true).await
    }

    async fn record(&self, outcomes: &[Recorded], dialogue: &[DialogueEntry]) {
        let Some(attempt) = self.state().attempt else {
            self.state().pending.extend_from_slice(outcomes);
            return;
        };
        self.write_record(attempt, outcomes, self.kept(outcomes, dialogue)).await;
    }

    async fn record_last(&self, outcomes: &[Recorded], dialogue: &[DialogueEntry]) {
        let mut state = self.state();
        state.pending.extend_from_slice(outcomes);
        if state.attempt.is_some() {
            state.dialogue.extend_from_slice(self.kept(outcomes, dialogue));
            self.holds.notify_one();
        }
    }

    fn park(&self, next_hop: &str, recipients: &[Address]) -> bool {
        let mut state = self.state();
        let parks = self.parks == Some(recipients.len()) && state.attempt.is_none() && state.pending.is_empty();
        if parks {
            state.waits_for = Some(next_hop.to_owned());
        }
        parks
    }

    fn run(&self) -> Cancellation {
        self.run.clone()
    }

    fn content(&self) -> Arc<dyn Content> {
        Arc::new(Message { store: Arc::clone(&self.spool.store), stored: self.message.clone() })
    }
}

#[async_trait]
impl Backing for Pass<'_> {
    async fn last_outcomes(&self, part: &Mail) -> Vec<Option<Recorded>> {
        let found = self.spool.store.last_outcomes(std::slice::from_ref(part)).await;
        let found = found.unwrap_or_else(|error| {
            warn!(mail.id = %self.claim.key, %error, "what earlier attempts came to cannot be read, and is not told");
            Vec::new()
        });
        let mut known = found.into_iter().next().unwrap_or_default();
        known.resize(part.envelope.recipients.len(), None);
        known
    }
}

/// Where a message is.
#[derive(Clone)]
pub(super) struct Stored {
    /// In the store.
    pub(super) message: MessageId,
    /// All of it, where it came in just now.
    pub(super) whole: Option<Bytes>,
}

/// What is sent.
struct Message {
    store: Arc<dyn Store>,
    stored: Stored,
}

#[async_trait]
impl Content for Message {
    async fn row(&self, number: u32) -> io::Result<Bytes> {
        match &self.stored.whole {
            // It is of one row.
            Some(whole) => Ok(if number == 0 { whole.clone() } else { Bytes::new() }),
            None => self.store.content(self.stored.message, number).await.map_err(io::Error::other),
        }
    }
}
