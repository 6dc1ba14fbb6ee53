//! The SMTP listener over real sockets, in front of a real store.
//!
//! Most tests are dialogues, see [`Client::talk`].

mod content;
mod devices;
mod dialogue;
mod limits;
mod log;
mod noise;
mod notifications;
mod stop;
mod tls;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redeliver::clock::Clock;
use redeliver::delivery::{Attempted, Checkpoint, Request};
use redeliver::ingest::{Here, Intake, Listener, ListenerConfig, ListenerContext, ListenerControl};
use redeliver::live::Live;
use redeliver::mail::{Domain, MessageId};
use redeliver::metrics::Metrics;
use redeliver::pipeline::{self, Deliver, Pipeline};
use redeliver::spool::{FreeSpace, Settings, Spool};
use redeliver::stop::Stop;
use redeliver::store::{MailFilter, Place, Span, SqliteStore, Store};
use redeliver::yaml::{Document, Reading};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The largest message that is taken, three rows of the store.
const LIMIT: usize = 600 * 1024;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

/// A listener with its store.
struct Relay {
    directory: TempDir,
    store: Arc<dyn Store>,
    address: std::net::SocketAddr,
    config: ListenerConfig,
    control: ListenerControl,
    stop: Stop,
    free_space: Arc<AtomicU64>,
    running: JoinHandle<()>,
}

/// A mail as the store has it: `sender recipient ...` and its message.
#[derive(Debug, PartialEq, Eq)]
struct Stored {
    envelope: String,
    message: Vec<u8>,
}

impl Stored {
    /// The message without the trace field that came in front of it.
    fn without_trace(&self) -> &[u8] {
        assert!(self.message.starts_with(b"Received: from "), "{:?}", String::from_utf8_lossy(&self.message));
        let folded = |at: usize| matches!(self.message.get(at + 2), Some(b' ' | b'\t'));
        let ends = self.message.windows(2).enumerate().filter(|(_, pair)| pair == b"\r\n");
        let end = ends.map(|(at, _)| at).find(|&at| !folded(at)).expect("the field ends");
        &self.message[end + 2..]
    }
}

/// Nobody is contacted: only the way in is looked at.
struct NoDelivery;

#[async_trait]
impl Deliver for NoDelivery {
    async fn attempt(&self, _: Request, _: &dyn Checkpoint) -> Attempted {
        Attempted::Stopped
    }
}

fn spool(store: &Arc<dyn Store>, free_space: &Arc<AtomicU64>) -> Arc<Spool> {
    let free_space = Arc::clone(free_space);
    let document = Document::parse(Path::new("f"), b"relay: [{match: All, mailet: 'Null'}]").expect("YAML");
    let reading = Reading::new(Path::new("f"));
    let config = pipeline::Config::read(document.root(), &["sqlite".to_owned()].into(), "relay", &reading);
    let pipeline = Pipeline::new(config, |_| Ok(Arc::new(NoDelivery))).expect("a pipeline");
    let settings = Settings {
        patience: Duration::from_secs(1),
        processor: "relay".to_owned(),
        max_message_size: LIMIT as u64,
        keep_all_dialogues: true,
        max_dialogue: 65536,
        metrics: Metrics::new(),
        free_space: FreeSpace::told_by(move || Ok(free_space.load(Ordering::Relaxed))),
    };
    Spool::new(Arc::clone(store), Arc::new(pipeline), Clock::system(), settings, Stop::default())
}

fn context(store: &Arc<dyn Store>, free_space: &Arc<AtomicU64>) -> ListenerContext {
    let here = Here::new(Domain::parse("Relay.test").expect("a domain"), |_| false);
    let intake = Live::new(Intake { spool: spool(store, free_space), kept: BTreeSet::new(), here });
    ListenerContext { intake, clock: Clock::system() }
}

impl Relay {
    fn start() -> Self {
        Self::with(|_, _| {})
    }

    /// Starts with a configuration that `change` has changed; its files go into the directory.
    fn with(change: impl FnOnce(&mut ListenerConfig, &Path)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("redeliver.db");
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path, "test", &Clock::system()).expect("opens"));
        let mut config = ListenerConfig::new(Domain::parse("Relay.test").expect("a domain"));
        config.listen = vec!["127.0.0.1:0".parse().expect("an address")];
        change(&mut config, directory.path());
        let free_space = Arc::new(AtomicU64::new(u64::MAX));
        let listener = Listener::bind(&config, context(&store, &free_space)).expect("listens");
        let (address, control) = (listener.addresses()[0], listener.control());
        let stop = Stop::default();
        let running = tokio::spawn(listener.run(stop.clone()));
        Self { directory, store, address, config, control, stop, free_space, running }
    }

    async fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.address).await.expect("connects"))
    }

    /// Whether a new client is greeted or turned away: the first digit it hears.
    async fn first_digit(&self) -> u8 {
        let mut client = self.connect().await;
        client.line().await.as_bytes()[0]
    }

    /// What the spool has, oldest first.
    async fn mails(&self) -> Vec<Stored> {
        let listed = self.store.list(&Place::Spool, &MailFilter::default(), &Span::of(10_000)).await.expect("lists");
        let mut mails = Vec::new();
        for listed in listed.items {
            let recipients: Vec<_> = listed.mail.envelope.recipients.iter().map(ToString::to_string).collect();
            let message = whole(&*self.store, listed.mail.message).await;
            assert_eq!(listed.mail.facts.size, message.len() as u64);
            let envelope = format!("{} {}", listed.mail.envelope.reverse_path, recipients.join(" "));
            mails.push(Stored { envelope, message });
        }
        mails
    }

    async fn envelopes(&self) -> Vec<String> {
        self.mails().await.into_iter().map(|mail| mail.envelope).collect()
    }

    /// Ends all sessions and counts what is left in the database, once it is tidy: mails,
    /// messages and rows of messages.
    async fn left(self) -> (u64, u64, u64) {
        self.stop.hard.cancel();
        self.stop.gentle.cancel();
        timeout(LONG, self.running).await.expect("ends").expect("no panic");
        while self.store.tidy().await.expect("tidies") {}
        let path = self.directory.path().join("redeliver.db");
        let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("opens");
        let count = |table: &str| {
            database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("a table")
        };
        (count("mail"), count("message"), count("chunk"))
    }
}

async fn whole(store: &dyn Store, message: MessageId) -> Vec<u8> {
    let mut whole = Vec::new();
    for number in 0.. {
        let row = store.content(message, number).await.expect("reads");
        if row.is_empty() {
            break;
        }
        whole.extend(row);
    }
    whole
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The other end of a session.
struct Client {
    stream: BufReader<Box<dyn Stream>>,
}

impl Client {
    fn new(stream: impl Stream + 'static) -> Self {
        Self { stream: BufReader::new(Box::new(stream)) }
    }

    /// Plays a dialogue. `C: text` is sent with CRLF, `X: text` as it is, with `\r`, `\n`
    /// and `\0` for what they stand for; what stands together goes in one write. `S: text`
    /// is the next line from the server, `*` at its end for anything, and `S: (closed)` its
    /// end.
    async fn talk(&mut self, script: &str) {
        let mut out = Vec::new();
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            // Empty lines are `C:` alone.
            let (who, text) = line.split_once(' ').unwrap_or((line, ""));
            match who {
                "C:" => out.extend([text.as_bytes(), b"\r\n"].concat()),
                "X:" => {
                    out.extend(text.replace("\\r", "\r").replace("\\n", "\n").replace("\\0", "\0").into_bytes());
                }
                "S:" => {
                    self.send(&std::mem::take(&mut out)).await;
                    self.expect(text).await;
                }
                _ => panic!("no such line in a dialogue: {line}"),
            }
        }
        self.send(&out).await;
    }

    async fn expect(&mut self, text: &str) {
        if text == "(closed)" {
            return self.expect_end().await;
        }
        let line = self.line().await;
        match text.strip_suffix('*') {
            Some(start) => assert!(line.starts_with(start), "{line:?} instead of {text:?}"),
            None => assert_eq!(line, text),
        }
    }

    async fn send(&mut self, octets: &[u8]) {
        timeout(LONG, self.stream.write_all(octets)).await.expect("in time").expect("sent");
        self.stream.flush().await.expect("sent");
    }

    /// The next line without its line end; empty at the end of the connection.
    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            match timeout(LONG, self.stream.read_u8()).await.expect("in time") {
                Ok(octet) => line.push(octet),
                Err(_) => break,
            }
        }
        let text = String::from_utf8(line).expect("ASCII");
        text.trim_end_matches("\r\n").to_owned()
    }

    async fn expect_end(&mut self) {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = timeout(LONG, self.stream.read_to_end(&mut rest)).await.expect("in time");
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }

    /// Greets and begins a mail, up to 354.
    async fn until_data(&mut self) {
        self.talk(
            "S: 220 *
             C: EHLO client.example
             S: 250-relay.test",
        )
        .await;
        while !self.line().await.starts_with("250 ") {}
        self.talk(
            "C: MAIL FROM:<a@x.example>
             S: 250 2.1.0 *
             C: RCPT TO:<b@y.example>
             S: 250 2.1.5 *
             C: DATA
             S: 354 *",
        )
        .await;
    }
}
