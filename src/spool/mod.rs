//! The one door, the one pass, and the one loop that takes mail up.
//!
//! Every mail comes in through [`Spool::incoming`], whoever brings it, and is ours once
//! [`Incoming::accept`] answers. Every pass, of a first attempt as of a retry, is
//! [`Spool::process`]: a claimed mail through the pipeline, its parts to where they rest.
//! Sweeps and the service take mail up by [`take_up`].

mod active;
mod checkpoint;
mod ended;
mod exclusion;
mod free_space;
mod handover;
mod incoming;
mod parked;
mod taking;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::{debug, error, info, warn};

use crate::audit::{self, DownView, OutcomesView, PeerView, Queue, QueueTotal};
use crate::clock::Clock;
use crate::delivery::{Explanation, Outcomes, Peer};
use crate::mail::{Address, CHUNK_BYTES, Mail, MailKey, NewMail, NewMessage, RepositoryPath};
use crate::metrics::Metrics;
use crate::panics::caught;
use crate::pipeline::{Disposition, ERROR_PROCESSOR, Pipeline};
use crate::stop::{Cancellation, Stop};
use crate::store::{self, Claim, Claimed, Error, Store};
use crate::text::rfc3339;
use checkpoint::{Pass, Settled, Stored};
use ended::{left_by_trouble, tally, unwritten};
use parked::Waits;

pub use ended::{Passed, Tally};
pub use exclusion::Exclusion;
pub use free_space::{FreeSpace, MIN_FREE, free_space};
pub use handover::Handover;
pub use incoming::{AcceptError, Incoming, Submission};
pub use taking::{News, Taker, take_up};

/// Deaths of a process with only this mail in hand, or panics over it, in a row, before it
/// is set aside.
const DEATHS_BEFORE_SET_ASIDE: u32 = 3;

/// How often it is said that notifications are held back.
const HELD_BACK_AGAIN: Duration = Duration::from_mins(1);

/// What the spool is told by the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The processor that new mail enters.
    pub processor: String,
    /// The largest message that is taken, in octets.
    pub max_message_size: u64,
    /// Whether dialogues of transactions without any failure are kept too.
    pub keep_all_dialogues: bool,
    /// Octets of dialogue kept per attempt.
    pub max_dialogue: usize,
    /// How much space there is for more mail.
    pub free_space: FreeSpace,
    /// Where attempts under way are counted.
    pub metrics: Metrics,
    /// How long results are kept in memory and written again while the store cannot be
    /// written. What is given up then is in doubt.
    pub patience: Duration,
}

/// The door and the loop.
pub struct Spool {
    store: Arc<dyn Store>,
    pipeline: Arc<Pipeline>,
    clock: Clock,
    settings: Settings,
    stop: Stop,
    /// Results that could not be written yet: no attempt is begun while there are any.
    unwritten: AtomicUsize,
    /// Since when the store cannot be written.
    in_trouble: Mutex<Option<Instant>>,
    /// Attempts begun.
    begun: AtomicU64,
    /// Where new mail goes at once, if anywhere.
    handover: OnceLock<Handover>,
    /// Mails may be parked: a pass that is begun again does nothing twice.
    parks: AtomicBool,
    /// When it was last said that notifications are held back.
    said_held_back: Mutex<Option<Instant>>,
}

impl Spool {
    /// Stands between `store` and `pipeline`, which end by `stop` as well.
    pub fn new(
        store: Arc<dyn Store>,
        pipeline: Arc<Pipeline>,
        clock: Clock,
        settings: Settings,
        stop: Stop,
    ) -> Arc<Self> {
        Arc::new(Self {
            parks: AtomicBool::new(!pipeline.sets_copies_aside()),
            store,
            pipeline,
            clock,
            settings,
            stop,
            unwritten: AtomicUsize::new(0),
            in_trouble: Mutex::new(None),
            begun: AtomicU64::new(0),
            handover: OnceLock::new(),
            said_held_back: Mutex::new(None),
        })
    }

    /// One that no mail reaches, for tests of what stands before it.
    #[cfg(test)]
    pub(crate) fn unused() -> Arc<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let store = crate::store::SqliteStore::open(&directory.path().join("store.db"), "test", &Clock::system())
            .expect("opens");
        let pipeline = Pipeline::new(crate::pipeline::Config::default(), |_| Err("nobody delivers".to_owned()));
        Self::of_test(Arc::new(store), pipeline.expect("a pipeline"))
    }

    /// One that takes messages of an octet, and never waits for its store.
    #[cfg(test)]
    fn of_test(store: Arc<dyn Store>, pipeline: Pipeline) -> Arc<Self> {
        let settings = Settings {
            processor: "relay".to_owned(),
            max_message_size: 1,
            keep_all_dialogues: true,
            max_dialogue: 1,
            metrics: Metrics::new(),
            free_space: FreeSpace::told_by(|| Ok(u64::MAX)),
            patience: Duration::ZERO,
        };
        Self::new(store, Arc::new(pipeline), Clock::system(), settings, Stop::default())
    }

    /// Begins no more attempts: mails in hand that only wait go back to where they were.
    pub fn retire(&self) {
        self.stop.gentle.cancel();
    }

    /// Whether no more attempts are begun.
    pub fn is_retired(&self) -> bool {
        self.stop.gentle.is_cancelled()
    }

    /// Hands new mail over to the loop of a service, as long as that has room.
    pub fn hand_over_to(&self, handover: &Handover) {
        // The first one holds: a service has one loop.
        let _ = self.handover.set(handover.clone());
    }

    /// Begins to take a message in.
    pub fn incoming(self: &Arc<Self>) -> Incoming {
        Incoming::new(Arc::clone(self))
    }

    /// The largest message that is taken, in octets.
    pub fn max_message_size(&self) -> u64 {
        self.settings.max_message_size
    }

    /// Whether a message of so many octets may come in now.
    ///
    /// # Errors
    /// [`AcceptError::TooLarge`] for good, [`AcceptError::Behind`] and [`AcceptError::NoFreeSpace`]
    /// for the time being.
    pub fn admits(&self, octets: u64) -> Result<(), AcceptError> {
        if octets > self.settings.max_message_size {
            return Err(AcceptError::TooLarge(self.settings.max_message_size));
        }
        if self.is_behind() {
            return Err(AcceptError::Behind);
        }
        if !self.settings.free_space.takes(octets) {
            return Err(AcceptError::NoFreeSpace(self.settings.free_space.told()));
        }
        Ok(())
    }

    /// What may still be written on the disk of the store, where it can be told.
    pub fn free_bytes(&self) -> Option<u64> {
        self.settings.free_space.octets()
    }

    /// Whether results wait to be written because the store is in trouble.
    pub fn is_behind(&self) -> bool {
        self.unwritten.load(Ordering::Relaxed) > 0
    }

    /// What waits; see [`Queue::new`].
    pub fn queue(&self, kept: impl IntoIterator<Item = RepositoryPath>, only: Option<&Address>) -> Queue<'_> {
        Queue::new(&*self.store, kept, only)
    }

    /// The next hops of the last 24 hours, with what this process knows of them now.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn peers(&self) -> store::Result<Vec<PeerView>> {
        audit::peers(&*self.store, self.live_peers()).await
    }

    /// The next hops that this process knows of now.
    pub fn live_peers(&self) -> Vec<PeerView> {
        self.pipeline.peers().into_iter().map(shown).collect()
    }

    /// All that waits; see [`QueueTotal::of`].
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn queue_total(&self, kept: &BTreeSet<RepositoryPath>) -> Result<QueueTotal, crate::store::Error> {
        QueueTotal::of(&*self.store, kept).await
    }

    /// Whether the store, which could not be written just now, is waited for; said once, at
    /// the first time.
    fn waits_for_store(&self, error: &Error) -> bool {
        let (now, patience) = (self.clock.instant(), self.settings.patience);
        let mut in_trouble = self.in_trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if in_trouble.is_none() {
            warn!(%error, "the store cannot be written: waiting for it up to {} s, and no attempt is begun meanwhile", patience.as_secs());
        }
        now.duration_since(*in_trouble.get_or_insert(now)) < patience
    }

    /// The store was written: whoever has to wait next waits anew.
    fn store_is_written(&self) {
        let mut in_trouble = self.in_trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if in_trouble.take().is_some() {
            info!("the store is written again");
        }
    }

    /// Makes mails of the digests that are due; their keys.
    ///
    /// # Errors
    /// Where the store is in trouble; what is not ended is due the next time.
    pub async fn end_digests(&self) -> store::Result<Vec<MailKey>> {
        let mut born = Vec::new();
        while let Some(digest) = self.store.due_digest().await? {
            let (key, sender) = (&digest.key, &digest.sender);
            let (told, now) = (digest.told.clone(), self.clock.now());
            let mail = self.pipeline.notifications().digest(key.clone(), sender, told, digest.more, now);
            let mail = match mail {
                Some(mail) => Some(self.written_ahead(mail).await?),
                None => None,
            };
            let bears = mail.is_some();
            if self.store.end_digest(&digest, mail).await? && bears {
                info!(dsn = %key, recipients = digest.told.len() as u64 + digest.more, "a sender is told in a digest");
                born.push(key.clone());
            }
        }
        Ok(born)
    }

    /// Writes the rows of a message that needs several, which belong to nobody yet.
    async fn written_ahead(&self, mut mail: NewMail) -> store::Result<NewMail> {
        let NewMessage::Whole(octets) = &mail.message else { return Ok(mail) };
        if !is_written_ahead(&mail) {
            return Ok(mail);
        }
        let (mut message, mut rest, mut row) = (None, octets.clone(), 0);
        while !rest.is_empty() {
            let chunk = rest.split_to(rest.len().min(CHUNK_BYTES));
            message = Some(self.store.write_chunk(message, row, chunk).await?);
            row += 1;
        }
        mail.message = message.map_or(NewMessage::Whole(Bytes::new()), NewMessage::Written);
        Ok(mail)
    }

    /// Says that nobody is told of recipients of a mail; of many such mails once a minute.
    fn hold_back(&self, key: &MailKey, recipients: usize) {
        let (now, mut said) =
            (self.clock.instant(), self.said_held_back.lock().unwrap_or_else(PoisonError::into_inner));
        if said.is_some_and(|said| now.duration_since(said) < HELD_BACK_AGAIN) {
            return debug!(mail.id = %key, recipients, "nobody is told: dsn.total is reached");
        }
        *said = Some(now);
        warn!(mail.id = %key, recipients, "nobody is told, and of the next failures neither: dsn.total is reached; `redeliver metrics` says how many");
    }

    /// Of the mails in hand, how many wait for a connection.
    pub fn waiting_for_connections(&self) -> usize {
        self.pipeline.waiting()
    }

    /// How many of them for `next_hop`.
    pub(super) fn waiting_for(&self, next_hop: &str) -> usize {
        self.pipeline.waiting_for(next_hop)
    }

    /// What each `MetricsMailet` has counted since the rules were read, by name.
    pub fn metrics_mailets(&self) -> BTreeMap<&str, u64> {
        self.pipeline.metrics()
    }

    /// Where this process counts.
    pub fn metrics(&self) -> &Metrics {
        &self.settings.metrics
    }

    /// How many attempts have begun.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// What would be done now for each of `recipients`, and why.
    pub async fn explain(&self, recipients: &[Address]) -> Vec<Explanation> {
        self.pipeline.explain(recipients).await
    }

    /// One pass of one mail in hand: through the pipeline, then to where its parts rest.
    ///
    /// A panic on the way costs only this mail's pass. What cannot be settled stays in
    /// hand until this process ends, and is then given back with what was recorded.
    ///
    /// It begins at once, and goes on where the future is dropped. Thousands of mails wait at
    /// a time, so that what one needs while it waits is kept small; where the mail may be parked
    /// (`parks`) and many wait for its next hop, it ends as parked. It is part of `run`, which may
    /// be cancelled.
    pub fn process(
        self: &Arc<Self>,
        claimed: Claimed,
        parks: bool,
        run: &Cancellation,
    ) -> impl Future<Output = Passed> + Send + use<> {
        let recipients = claimed.mail.envelope.recipients.len() as u64;
        let (spool, claim) = (Arc::clone(self), claimed.claim.clone());
        let work = tokio::spawn(Box::pin(Arc::clone(self).pass(claimed, parks, run.clone())));
        async move {
            match work.await {
                Ok(passed) => passed,
                Err(panic) => spool.give_up(&claim, recipients, &panic.to_string()).await,
            }
        }
    }

    async fn give_up(&self, claim: &Claim, recipients: u64, panic: &str) -> Passed {
        error!(mail.id = %claim.key, panic, "a pass panicked; the mail goes back to where it was");
        if let Err(error) = self.store.abandon(claim).await {
            error!(mail.id = %claim.key, %error, "the mail stays in hand until this process ends");
        }
        left_by_trouble(recipients, format!("the pass of mail {} panicked: a fault of redeliver", claim.key))
    }

    async fn pass(self: Arc<Self>, claimed: Claimed, parks: bool, run: Cancellation) -> Passed {
        let Claimed { claim, mut mail, deaths_alone, content } = claimed;
        if deaths_alone >= DEATHS_BEFORE_SET_ASIDE {
            set_aside(&mut mail, deaths_alone);
        }
        let recipients = mail.envelope.recipients.len() as u64;
        let parks = (parks && self.parks.load(Ordering::Relaxed)).then_some(mail.envelope.recipients.len());
        let stored = Stored { message: mail.message, whole: content };
        let pass = Pass::new(&self, claim.clone(), parks, stored, mail.attributes.clone(), run);
        let dispositions = match caught(Box::pin(self.run(mail, &pass))).await {
            Ok(dispositions) => dispositions,
            Err(panic) => {
                // What is known of recipients is put down first: nobody gets it a second time.
                pass.flush().await;
                return self.give_up(&claim, recipients, &panic).await;
            }
        };
        let passed = tally(&dispositions);
        match Box::pin(pass.settle(dispositions)).await {
            Ok(Settled::Done(born)) => Passed { born, ..passed },
            Ok(Settled::Parked(next_hop)) => {
                Passed { parked: Some(Waits { claim, next_hop, recipients }), ..Passed::default() }
            }
            Err(error) => unwritten(&passed, &error),
        }
    }

    /// Through the pipeline. Outcomes that wait for its end do not wait for long.
    async fn run(&self, mail: Mail, pass: &Pass<'_>) -> Vec<Disposition> {
        let new_key = || MailKey::new(self.clock.now(), rand::random());
        let mut run = pin!(self.pipeline.run(mail, pass, self.clock.now(), &new_key));
        loop {
            tokio::select! {
                biased;
                dispositions = &mut run => return dispositions,
                () = pass.overdue() => pass.flush().await,
            }
        }
    }
}

/// Whether a mail's message is of several rows, which are stored before it.
fn is_written_ahead(mail: &NewMail) -> bool {
    matches!(&mail.message, NewMessage::Whole(octets) if octets.len() > CHUNK_BYTES)
}

/// Sends a mail that seems to kill processes to the error processor instead.
fn set_aside(mail: &mut Mail, deaths: u32) {
    let why = format!("redeliver crashed {deaths} times in a row over this mail alone: it was set aside");
    error!(mail.id = %mail.key, "{why}");
    ERROR_PROCESSOR.clone_into(&mut mail.state);
    mail.error = Some(why);
}

fn shown(peer: Peer) -> PeerView {
    let Peer { next_hop, connections, waiting, down, last_outcome, outcomes } = peer;
    let Outcomes { delivered, deferred, failed } = outcomes;
    PeerView {
        next_hop,
        connections,
        waiting,
        down: down.map(|down| DownView { since: rfc3339(down.since), cause: down.cause }),
        last_outcome,
        outcomes: OutcomesView { delivered, deferred, failed },
    }
}
