//! A scripted SMTP peer on a real socket: it answers as its [`Script`] says, records
//! everything, and notes whatever the client does that RFC 5321 and the extensions forbid.
//!
//! It runs in a thread of its own and its methods block, so plain `#[test]`s and small
//! programs can use it as they are (`#[path]` and nothing else). Dropping it ends it.

#![allow(dead_code, unused_imports, reason = "the tests and the demo each use a part of it")]

mod certificates;
mod script;
mod session;
mod strict;
mod wire;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;

pub(crate) use certificates::{Authority, Identity};
pub(crate) use script::{
    Script, Then, When, close, cut, drip, endless, on, raw, read_slowly, reply, reset, script, stall, stop_reading,
    wait,
};

/// How long the `wait_...` methods wait before they fail the test.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running peer.
pub(crate) struct SmtpSink {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

/// What was seen so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    /// In the order they were accepted.
    pub(crate) connections: Vec<Connection>,
    /// In the order of their final dots, or of their ends without one.
    pub(crate) transactions: Vec<Transaction>,
    /// What the client must not do, each with the number of its connection.
    pub(crate) violations: Vec<String>,
    /// What it should not do, such as leaving without QUIT.
    pub(crate) notes: Vec<String>,
}

/// One connection.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    /// When it was accepted.
    pub(crate) opened: Instant,
    /// When it ended, on either side.
    pub(crate) closed: Option<Instant>,
    /// The client's end.
    pub(crate) from: SocketAddr,
    /// Whether TLS was reached.
    pub(crate) tls: bool,
    /// Whether that TLS session went on from an earlier one.
    pub(crate) resumed: bool,
    /// What the client said, without line ends and without message content.
    pub(crate) commands: Vec<(Instant, String)>,
}

/// One mail transaction that reached DATA.
#[derive(Clone)]
pub(crate) struct Transaction {
    /// The number of its connection; the first is 1.
    pub(crate) connection: usize,
    /// Whether it went over TLS.
    pub(crate) tls: bool,
    /// Whether AUTH had been accepted.
    pub(crate) authenticated: bool,
    /// What stood between the brackets of MAIL FROM.
    pub(crate) reverse_path: String,
    /// What stood behind them.
    pub(crate) parameters: Vec<String>,
    /// The recipients that were answered 2xx.
    pub(crate) recipients: Vec<String>,
    /// The content as it was before dot-stuffing.
    pub(crate) content: Vec<u8>,
    /// Whether the final dot came.
    pub(crate) complete: bool,
    /// The reply to the final dot; `None` where the script has none.
    pub(crate) reply: Option<String>,
    /// When the final dot, or the end of the connection, came.
    pub(crate) ended: Instant,
}

impl Record {
    /// How many connections were open at once, at most.
    pub(crate) fn most_open(&self) -> usize {
        let is_open = |at: Instant| move |c: &&Connection| c.opened <= at && c.closed.is_none_or(|closed| closed > at);
        self.connections
            .iter()
            .map(|one| self.connections.iter().filter(is_open(one.opened)).count())
            .max()
            .unwrap_or(0)
    }
}

/// Without the content's octets one by one: a failed test is to be read.
impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { connection, reverse_path, recipients, complete, reply, .. } = self;
        let octets = self.content.len();
        write!(f, "{connection}: <{reverse_path}> to {recipients:?}, {octets} octets, complete: {complete}, {reply:?}")
    }
}

impl Transaction {
    /// Whether a real host would have the message now: all of it came, and it was not refused.
    pub(crate) fn is_taken(&self) -> bool {
        self.complete && self.reply.as_ref().is_none_or(|reply| reply.starts_with('2'))
    }

    /// The content as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }
}

/// What the connections of one peer have in common.
struct Shared {
    script: Script,
    record: Mutex<Record>,
    changed: Condvar,
    /// How often each rule with a limit has been used.
    used: Mutex<Vec<usize>>,
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("no thread panics with it")
    }

    fn note<T>(&self, change: impl FnOnce(&mut Record) -> T) -> T {
        let result = change(&mut self.record());
        self.changed.notify_all();
        result
    }
}

impl SmtpSink {
    /// A peer on a loopback address and port that nobody else uses.
    pub(crate) fn start(script: Script) -> Self {
        Self::start_at((fresh_loopback(), 0), script)
    }

    /// A further host on the port of `other`, at its own loopback address.
    pub(crate) fn beside(other: &Self, script: Script) -> Self {
        Self::start_at((fresh_loopback(), other.port()), script)
    }

    /// A peer at this address; port 0 picks one.
    pub(crate) fn start_at(address: impl Into<SocketAddr>, script: Script) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(async { listen(address.into(), &script) }).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let used = Mutex::new(vec![0; script.rules.len()]);
        let shared = Arc::new(Shared { script, used, record: Mutex::default(), changed: Condvar::new() });
        runtime.spawn(accept(listener, shared.clone()));
        Self { address, shared, runtime: Some(runtime) }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The IP address, for a zone.
    pub(crate) fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    /// The port, for `port:`.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Everything seen so far.
    pub(crate) fn record(&self) -> Record {
        self.shared.record().clone()
    }

    /// The transactions whose final dot came.
    pub(crate) fn transactions(&self) -> Vec<Transaction> {
        self.shared.record().transactions.iter().filter(|transaction| transaction.complete).cloned().collect()
    }

    /// Copies of a message, known by its Message-ID, that a real host would have for `recipient`.
    pub(crate) fn copies_of(&self, recipient: &str, message_id: &str) -> usize {
        let is_copy = |transaction: &&Transaction| {
            transaction.is_taken()
                && transaction.recipients.iter().any(|accepted| accepted == recipient)
                && contains(&transaction.content, message_id.as_bytes())
        };
        self.shared.record().transactions.iter().filter(is_copy).count()
    }

    /// Everything the client said, over all connections, in their order.
    pub(crate) fn commands(&self) -> Vec<String> {
        let record = self.shared.record();
        record.connections.iter().flat_map(|c| c.commands.iter().map(|(_, line)| line.clone())).collect()
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.shared.record().connections.len()
    }

    /// What the client did against the rules.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.shared.record().violations.clone()
    }

    /// Waits until `n` connections were made.
    pub(crate) fn wait_for_connections(&self, n: usize) {
        self.wait_until(&format!("{n} connections"), |record| record.connections.len() >= n);
    }

    /// Waits until the final dots of `n` transactions came, and returns all there are.
    pub(crate) fn wait_for_transactions(&self, n: usize) -> Vec<Transaction> {
        let complete = |record: &Record| record.transactions.iter().filter(|t| t.complete).count();
        self.wait_until(&format!("{n} transactions"), |record| complete(record) >= n);
        self.transactions()
    }

    /// Waits until what was seen is as `reached` says; fails the test after half a minute.
    pub(crate) fn wait_until(&self, what: &str, mut reached: impl FnMut(&Record) -> bool) {
        let waited = self.shared.changed.wait_timeout_while(self.shared.record(), PATIENCE, |record| !reached(record));
        let (record, timeout) = waited.expect("no thread panics with it");
        assert!(!timeout.timed_out(), "waited in vain for {what}; seen: {record:#?}");
    }

    /// Waits until there were connections and every one has ended.
    pub(crate) fn wait_for_end_of_connections(&self) {
        let all_ended = |record: &Record| record.connections.iter().all(|connection| connection.closed.is_some());
        self.wait_until("the end of all connections", |record| !record.connections.is_empty() && all_ended(record));
    }
}

impl Drop for SmtpSink {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// An address of 127.0.0.0/8 that no other caller on this machine has: made of the
/// process's number and a counter.
pub(crate) fn fresh_loopback() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = std::process::id().wrapping_mul(512).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
    let octet = |place: u32, least: u32, count: u32| u8::try_from(number / place % count + least).expect("below 256");
    // Neither 127.0.0.1, which others use, nor a first or last address; neighbours differ.
    Ipv4Addr::new(127, octet(254 * 256, 1, 255), octet(254, 0, 256), octet(1, 1, 254))
}

fn listen(address: SocketAddr, script: &Script) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    if let Some(octets) = script.receive_buffer {
        socket.set_recv_buffer_size(octets)?;
    }
    socket.bind(address)?;
    socket.listen(1024)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, from)) = listener.accept().await {
        tokio::spawn(serve(stream, from, shared.clone()));
    }
}

async fn serve(stream: TcpStream, from: SocketAddr, shared: Arc<Shared>) {
    let opened = Instant::now();
    let connection = Connection { opened, closed: None, from, tls: false, resumed: false, commands: Vec::new() };
    let (number, open) = shared.note(|record| {
        record.connections.push(connection);
        let open = record.connections.iter().filter(|connection| connection.closed.is_none()).count();
        (record.connections.len(), open)
    });
    let crowded = shared.script.max_connections.is_some_and(|limit| open > limit);
    // Small replies must not wait for an acknowledgement; without it the test is only slower.
    let _ = stream.set_nodelay(true);
    if shared.script.closes_beyond.is_none_or(|limit| open <= limit) {
        session::run(stream, number, crowded, &shared).await;
    }
    shared.note(|record| record.connections[number - 1].closed = Some(Instant::now()));
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len().max(1)).any(|window| window == needle)
}
