//! The SMTP listener: mail comes in over TCP from those who may relay, and over a stream
//! from the users of this machine (`sendmail -bs`).
//!
//! [`Listener::bind`] opens the sockets, [`Listener::run`] serves them until a [`Stop`].
//! A session is one task (`session`); it reads commands through `wire`, which knows
//! deadlines and bounds, keeps what MAIL began in one `transaction`, and hands the octets
//! behind DATA to the spool (`message`). 250 is written after the spool's commit and never
//! before.

mod accept;
mod answer;
mod credentials;
mod message;
mod open_connections;
mod pace;
mod session;
mod settings;
mod transaction;

mod wire;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket, UnixStream};
use tokio_util::task::TaskTracker;

use crate::clients::{self, Columns, FileError};
use crate::clock::Clock;
use crate::ingest::Intake;
use crate::live::Live;
use crate::mail::Domain;
use crate::stop::Stop;
use open_connections::OpenConnections;
use session::{Client, Session};
use settings::Settings;
use wire::Stream;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// What the listener is told by the configuration. How large a message may be, and which
/// processor it enters, the spool knows.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 is any free port.
    pub listen: Vec<SocketAddr>,
    /// Who may relay without AUTH. An IPv4 address that comes through an IPv6 socket
    /// counts as the IPv4 address.
    pub networks: Vec<IpNet>,
    /// Our name, in the banner and in `Received:`.
    pub hostname: Domain,
    /// Recipients of one mail.
    pub max_recipients: usize,
    /// For STARTTLS, which is offered only with it.
    pub tls: Option<TlsFiles>,
    /// A file of lines `name:hash`, the hash in the PHC format of argon2. AUTH is offered
    /// with it, within TLS.
    pub users: Option<PathBuf>,
    /// A bare LF of those who may relay is a line end, in commands and in messages; only
    /// CRLF.CRLF ends a message all the same.
    pub normalize_lf: bool,
    /// SMTPUTF8 is offered (RFC 6531).
    pub smtputf8: bool,
    /// DSN is offered (RFC 3461).
    pub dsn: bool,
    /// What one client may take of us.
    pub limits: Limits,
}

impl Config {
    /// What holds where nothing is said: loopback only.
    pub fn new(hostname: Domain) -> Self {
        let loopback_v4 = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
        let loopback_v6 = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 2525))],
            networks: vec![loopback_v4.into(), loopback_v6.into()],
            hostname,
            max_recipients: 1000,
            tls: None,
            users: None,
            normalize_lf: false,
            smtputf8: true,
            dsn: false,
            limits: Limits::default(),
        }
    }
}

/// Our certificate: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, with the chain behind it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Bounds on what clients cost. The defaults are what operators of other servers found
/// to hurt nobody who means well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once: 500.
    pub connections: usize,
    /// Of those, from one IPv4 address or one IPv6 /64: 50.
    pub connections_per_address: usize,
    /// Refused commands and mails since the last accepted mail, before a session ends: 20.
    pub errors: u32,
    /// Commands that bring no mail about (NOOP, RSET, VRFY, HELP, EHLO) since the last
    /// accepted mail, before each further one counts as an error: 100.
    pub idle_commands: u32,
    /// From a reply to the last octet of the next command, and for a reply to be taken:
    /// 5 minutes (RFC 5321 section 4.5.3.2.7).
    pub command: Duration,
    /// For a TLS handshake: 30 seconds.
    pub handshake: Duration,
    /// Message octets are counted over stretches of this length: 3 minutes.
    pub data_stretch: Duration,
    /// Octets a second that each stretch must bring: 500.
    pub data_rate: u64,
    /// From 354 to the final dot: 1 hour.
    pub data: Duration,
    /// Refused AUTH commands in one session: 3.
    pub auth_failures: u32,
    /// How long the answer to a refused AUTH waits: 1 second.
    pub auth_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 500,
            connections_per_address: 50,
            errors: 20,
            idle_commands: 100,
            command: Duration::from_mins(5),
            handshake: Duration::from_secs(30),
            data_stretch: Duration::from_mins(3),
            data_rate: 500,
            data: Duration::from_hours(1),
            auth_failures: 3,
            auth_pause: Duration::from_secs(1),
        }
    }
}

/// What stands behind the listener.
#[derive(Clone)]
pub struct Context {
    /// What new mail meets.
    pub intake: Live<Intake>,
    /// For `Received:`.
    pub clock: Clock,
}

/// Why the listener cannot work as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, is none of ours, or its port needs a privilege.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] io::Error),
    /// The certificate, its key or the file of users cannot be used as it is.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Open sockets, and all that sessions share.
pub struct Listener {
    sockets: Vec<TcpListener>,
    shared: Arc<Shared>,
}

struct Shared {
    settings: RwLock<Arc<Settings>>,
    context: Context,
    open: Arc<OpenConnections>,
}

impl Shared {
    fn session(&self, stream: Box<dyn Stream>, client: Client, settings: Arc<Settings>, stop: Stop) -> Session {
        Session::new(stream, client, settings, self.context.clone(), stop)
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What can be asked of a listener while it runs.
#[derive(Clone)]
pub struct Control(Arc<Shared>);

impl Control {
    /// One session with the user of this machine who has number `uid`, over whatever
    /// stream; it may relay. Returns when the session has ended.
    pub async fn speak(&self, stream: UnixStream, uid: u32, stop: Stop) {
        let settings = self.0.settings();
        self.0.session(Box::new(stream), Client::User(uid), settings, stop).run().await;
    }

    /// Reads certificate, key and users again and puts everything but `listen` in force,
    /// for sessions that begin from now on.
    ///
    /// # Errors
    /// Where a file is wrong; what was in force stays.
    pub fn reload(&self, config: &Config) -> Result<(), Error> {
        let wrong_passwords = Arc::clone(&self.0.settings().wrong_passwords);
        let settings = Arc::new(Settings::load(config, wrong_passwords)?);
        *self.0.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
        Ok(())
    }
}

impl Listener {
    /// Reads the files that [`Listener::bind`] would read, and opens no socket: all that is
    /// wrong with them.
    pub fn check(config: &Config) -> Vec<Error> {
        let certificate = config.tls.as_ref().and_then(|tls| clients::acceptor(&tls.certificate, &tls.key).err());
        let users = config.users.as_deref().and_then(|file| clients::read(file, Columns::NameHash).err());
        certificate.into_iter().chain(users.into_iter().flatten()).map(Error::File).collect()
    }

    /// Opens all sockets; connections wait in them until [`Listener::run`]. Must be called
    /// within a runtime.
    ///
    /// # Errors
    /// [`Error`]; no socket stays open then.
    pub fn bind(config: &Config, context: Context) -> Result<Self, Error> {
        let settings = Settings::load(config, Arc::default())?;
        let open = |&address: &SocketAddr| open(address, &config.listen).map_err(|error| Error::Listen(address, error));
        let sockets = config.listen.iter().map(open).collect::<Result<_, _>>()?;
        let settings = RwLock::new(Arc::new(settings));
        Ok(Self { sockets, shared: Arc::new(Shared { settings, context, open: Arc::default() }) })
    }

    /// Listens on these too, which somebody else has opened.
    ///
    /// # Errors
    /// Where one of them cannot be used.
    pub fn beside(mut self, opened: Vec<std::net::TcpListener>) -> io::Result<Self> {
        for socket in opened {
            socket.set_nonblocking(true)?;
            self.sockets.push(TcpListener::from_std(socket)?);
        }
        Ok(self)
    }

    /// Where it listens, ports as they were given out.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// For a reload.
    pub fn control(&self) -> Control {
        Control(Arc::clone(&self.shared))
    }

    /// Serves until `stop`, and returns when the last session has ended.
    pub async fn run(self, stop: Stop) {
        let tasks = TaskTracker::new();
        for socket in self.sockets {
            let acceptor =
                accept::Acceptor { shared: Arc::clone(&self.shared), stop: stop.clone(), tasks: tasks.clone() };
            tasks.spawn(async move { acceptor.accept_all(&socket).await });
        }
        tasks.close();
        tasks.wait().await;
    }
}

fn open(address: SocketAddr, all: &[SocketAddr]) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Else an IPv6 wildcard takes IPv4 too, and the IPv4 address beside it is in use.
    if address.is_ipv6() && all.iter().any(|other| other.is_ipv4() && other.port() == address.port()) {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
