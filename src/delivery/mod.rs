//! One delivery attempt for one mail.
//!
//! Groups recipients by next hop, opens a session per hop and returns one outcome per
//! recipient. Retrying, filing and bouncing belong to the caller; so does the record:
//! what a transaction yields is handed to the caller's [`Checkpoint`] as soon as it is known.

mod attempt;
mod auth;
mod config;
mod connection;
mod content;
mod dns;
mod ehlo_name;
mod envelope;
mod explain;
mod fairness;
mod hop;
mod hosts;
mod limits;
mod masking;
mod name_servers;
mod network;
mod outcome;
mod peers;
mod pool;
mod recipients;
mod resolv_conf;
mod routing;
mod session;
mod signature;
mod step;
mod system;
#[cfg(test)]
mod tests;
mod tls;
mod transaction;
mod wire;

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub use config::{Config, Credentials, DnsConfig, Gateway, Secret, StartTls};
pub use content::Content;
#[cfg(test)]
pub use content::MemoryContent;
pub use explain::{ExplainedHost, Explanation, RoutedBy};
pub use network::Network;
pub use outcome::is_dns_problem;
pub use peers::{DownSince, Outcomes, Peer};
pub use system::{is_full_name, machine_name, resolver_warnings};

use attempt::Attempt;
use connection::Dialer;
use ehlo_name::EhloName;
use fairness::Capacity;
use peers::Peers;
use pool::{Permit, Pool};
use session::Session;
use tls::Tls;

use crate::dkim::Signatory;
use crate::mail::{
    Address, Attributes, DialogueEntry, Domain, DsnRequest, MailKey, MessageFacts, Planned, Recorded, ReversePath,
};
use crate::stop::Cancellation;

/// Characters of a reply that a line of the log has.
const LOGGED: usize = 1000;

/// What an attempt needs to know of a mail.
pub struct Request {
    /// For logs only.
    pub key: MailKey,
    /// The argument of MAIL FROM.
    pub reverse_path: ReversePath,
    /// Whom to try, none twice.
    pub recipients: Vec<Address>,
    /// The submitter said SMTPUTF8.
    pub smtputf8: bool,
    /// The submitter said REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// REQUIRETLS is asked for where it is offered; it goes without where not.
    pub prefer_require_tls: bool,
    /// What the sender asks of notifications (RFC 3461): for peers that offer DSN.
    pub dsn: DsnRequest,
    /// Size and content facts of the stored message, without the prefix.
    pub facts: MessageFacts,
    /// Header fields to send in front of the stored message.
    pub header_prefix: String,
    /// The mail's attributes, to be committed with the open attempt.
    pub attributes: Attributes,
    /// Who signs the message as it is sent.
    pub signatories: Vec<Arc<Signatory>>,
    /// Earlier passes of this mail that ended with "no such domain".
    pub dns_problems: u32,
}

/// The caller could not commit the open attempt, or is stopping: nobody may be contacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotBegun {
    /// The store said no, in words.
    StoreError(String),
    /// The caller is stopping, or the mail is no longer its own.
    Stopped,
}

/// What an attempt needs of its caller while it runs: that what must be durable is so before
/// contact, that what becomes known is recorded, and the message.
#[async_trait]
pub trait Checkpoint: Send + Sync {
    /// Commits the open attempt with the attributes as the matchers left them: called after
    /// routing and once there is a connection to be had, before the first packet; once per
    /// attempt, by this or [`Checkpoint::begin_ahead`]. `plan` is whom it is going to be with.
    async fn begin(&self, attributes: &Attributes, plan: &[Planned]) -> Result<(), NotBegun>;

    /// As [`Checkpoint::begin`], with the connection still to come, but soon: it may take a little
    /// longer, to be committed with what others begin.
    async fn begin_ahead(&self, attributes: &Attributes, plan: &[Planned]) -> Result<(), NotBegun> {
        self.begin(attributes, plan).await
    }

    /// Takes the outcomes of one transaction, or of recipients decided without one,
    /// with the dialogue since the last call. Returns once they are on their way to
    /// disk; it never fails towards the attempt.
    async fn record(&self, outcomes: &[Recorded], dialogue: &[DialogueEntry]);

    /// As [`Checkpoint::record`], with which every recipient of the attempt has his outcome: it
    /// may go to disk with what becomes of the mail next, as long as that is soon.
    async fn record_last(&self, outcomes: &[Recorded], dialogue: &[DialogueEntry]) {
        self.record(outcomes, dialogue).await;
    }

    /// Whether an attempt for these, of which nothing was begun, may wait with the caller instead
    /// of here: many wait for `next_hop` already. After that it ends as one that was stopped.
    fn park(&self, _next_hop: &str, _recipients: &[Address]) -> bool {
        false
    }

    /// The run that the attempt is part of, which somebody may cancel.
    fn run(&self) -> Cancellation {
        Cancellation::default()
    }

    /// The mail's stored message.
    fn content(&self) -> Arc<dyn Content>;
}

/// How an attempt ended.
#[derive(Debug)]
pub enum Attempted {
    /// One outcome per recipient, in the order of the request. The pass counts.
    Done(Vec<Recorded>),
    /// The first had their outcomes; the others nothing came of because of ourselves, as below, and
    /// the pass does not count for them.
    Partly(Vec<Recorded>, Vec<Recorded>, Uncounted),
    /// It ended before a packet because of ourselves: the pass is not counted. One deferral per
    /// recipient, and why.
    LocalError(Vec<Recorded>, Uncounted),
    /// An end was asked for before anything was begun.
    Stopped,
}

/// Why a pass does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uncounted {
    /// Trouble of our own that the next mails would meet too, in a sentence: no DNS server answered
    /// anything, no route at all, bind refused, out of descriptors, store trouble.
    Trouble(String),
    /// Somebody cancelled the run, or the process ends.
    GivenUp,
}

/// For all idle sessions to take leave.
const LEAVE: Duration = Duration::from_secs(4);

/// How long a session stays open without a mail.
const IDLE: Duration = Duration::from_secs(5);

/// Mails at once that a hop found down answers for. All of thousands together would keep
/// the caller's store from those that are being delivered.
const ANSWERED_AT_ONCE: usize = 64;

/// Delivers as one `RemoteDelivery` is configured. Many attempts run on it at once; what
/// one finds out about a peer the others know.
pub struct Delivery {
    dialer: Dialer,
    peers: Arc<Peers>,
    pool: Arc<Pool<Box<Session>>>,
    /// For mails that an earlier one answers for.
    answers: Semaphore,
    /// Sessions that are taking leave.
    leaving: TaskTracker,
}

impl Delivery {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// A sentence naming the setting or the file that cannot be used.
    pub fn new(config: Config, network: Arc<Network>) -> Result<Self, String> {
        let helo = in_ascii(config.helo_name.clone().unwrap_or_else(|| network.hostname.clone()));
        if helo.is_empty() || !helo.chars().all(|c| c.is_ascii_graphic()) {
            return Err(format!("the EHLO name {helo:?} is not a host name"));
        }
        let key = if config.helo_name.is_some() { "heloName" } else { "hostname" };
        let tls = Tls::new(&config, Arc::clone(&network))?;
        let leaving = TaskTracker::new();
        let peers = Peers::new(network.clock.clone(), network.down_for);
        let capacity = Capacity::new(config.delivery_threads, !config.gateways.is_empty());
        let pool = Pool::new(capacity, IDLE, Arc::clone(&peers), retire(leaving.clone()));
        let dialer = Dialer { config: Arc::new(config), network, tls, ehlo: EhloName { name: helo, key } };
        Ok(Self { dialer, peers, pool, answers: Semaphore::new(ANSWERED_AT_ONCE), leaving })
    }

    /// Tries each recipient once: over all its next hop's hosts if need be, and never again.
    ///
    /// A waiting attempt costs little, so that thousands may wait for a connection.
    pub async fn attempt(&self, request: Request, checkpoint: &dyn Checkpoint) -> Attempted {
        let (network, run) = (&self.dialer.network, checkpoint.run());
        let plan = tokio::select! {
            biased;
            () = network.closing(&run) => return Attempted::Stopped,
            plan = routing::plan(&self.dialer.config, network, &request.recipients) => plan,
        };
        Attempt::new(self, &request, checkpoint, run).run(plan).await
    }

    /// How many attempts wait for a connection: they have begun nothing.
    pub fn waiting(&self) -> usize {
        self.pool.waiting()
    }

    /// How many of them for `next_hop`.
    pub fn waiting_for(&self, next_hop: &str) -> usize {
        self.pool.load(next_hop).1
    }

    /// The next hops of the last 24 hours, by name, with what is known of them now.
    pub fn peers(&self) -> Vec<Peer> {
        let with_load = |mut peer: Peer| {
            (peer.connections, peer.waiting) = self.pool.load(&peer.next_hop);
            peer
        };
        self.peers.seen().into_iter().map(with_load).collect()
    }

    /// Ends the sessions that were kept open for further mails. Waits for that, but not long.
    pub async fn close(&self) {
        self.pool.retire_all();
        self.leaving.close();
        let _ = tokio::time::timeout(LEAVE, self.leaving.wait()).await;
        self.leaving.reopen();
    }
}

/// A name outside ASCII goes as A-labels (RFC 5891): before EHLO nobody has offered SMTPUTF8.
fn in_ascii(name: String) -> String {
    if name.is_ascii() { name } else { Domain::parse(&name).and_then(|name| name.ascii()).unwrap_or(name) }
}

/// Says QUIT in the background; the connection is given back when it is closed.
fn retire(leaving: TaskTracker) -> pool::Retire<Box<Session>> {
    Box::new(move |session: Box<Session>, permit: Permit<Box<Session>>| {
        leaving.spawn(async move {
            session.quit().await;
            drop(permit);
        });
    })
}

/// One line per recipient and outcome, to be understood without its neighbours.
fn log(key: &MailKey, recorded: &Recorded) {
    let said = match (&recorded.reply, &recorded.cause) {
        (Some(reply), Some(cause)) => format!("{reply} ({cause})"),
        (reply, cause) => reply.as_ref().or(cause.as_ref()).cloned().unwrap_or_default(),
    };
    tracing::info!(
        mail.id = %key,
        recipient = %recorded.recipient,
        next_hop = recorded.next_hop,
        host = recorded.host,
        peer = recorded.peer().map(|peer| peer.to_string()),
        status = %recorded.outcome,
        stage = %recorded.stage,
        code = recorded.code,
        enhanced = recorded.enhanced,
        duration_ms = (recorded.duration * 1000.0).round(),
        "{} to {}: {}", recorded.outcome, recorded.recipient, in_short(&said)
    );
}

/// The beginning of a long text; the record has it whole.
fn in_short(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(LOGGED) {
        Some((end, _)) => format!("{}… ({} octets)", &text[..end], text.len()).into(),
        None => text.into(),
    }
}

/// Runs `futures` at the same time and returns what they yield, in their order.
async fn concurrently<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    poll_fn(|cx| {
        let mut pending = false;
        for (future, output) in running.iter_mut().filter(|(_, output)| output.is_none()) {
            match future.as_mut().poll(cx) {
                Poll::Ready(value) => *output = Some(value),
                Poll::Pending => pending = true,
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}
