//! Takes connections in: within the limits, and without spinning where that fails.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::Shared;
use super::answer::Answer;
use super::session::Client;
use crate::stop::Stop;

/// After an error of our own, out of descriptors for instance: doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long somebody who is turned away may take to read why.
const TURNED_AWAY: Duration = Duration::from_secs(5);

/// Where connections come from: a socket, or a script.
pub(super) trait Accept {
    /// The next connection and whose it is.
    fn accept(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send;
}

impl Accept for TcpListener {
    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        Self::accept(self).await
    }
}

/// One socket's way to sessions.
pub(super) struct Acceptor {
    pub(super) shared: Arc<Shared>,
    pub(super) stop: Stop,
    pub(super) tasks: TaskTracker,
}

impl Acceptor {
    /// Begins a session for each connection, until a stop.
    pub(super) async fn accept_all(&self, socket: &impl Accept) {
        let mut pause = FIRST_PAUSE;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.gentle.cancelled() => return,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    pause = FIRST_PAUSE;
                    self.admit(stream, peer);
                }
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    warn!(%error, pause_ms = pause.as_millis(), "no connection can be accepted at the moment");
                    tokio::select! {
                        () = self.stop.gentle.cancelled() => return,
                        () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                    }
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let settings = self.shared.settings();
        match self.shared.open.take(peer.ip(), &settings.limits) {
            Ok(slot) => {
                // A reply is one small write that somebody waits for. If it cannot be had, it is slower.
                let _ = stream.set_nodelay(true);
                let client = Client::Peer(SocketAddr::new(peer.ip().to_canonical(), peer.port()));
                let session = self.shared.session(Box::new(stream), client, settings, self.stop.clone());
                self.tasks.spawn(async move {
                    session.run().await;
                    drop(slot);
                });
            }
            Err(answer) => {
                info!(client = %peer, reply = %answer.to_string().trim_end(), "connection turned away");
                self.tasks.spawn(turn_away(stream, answer));
            }
        }
    }
}

/// The connection was gone before it was taken: nothing is wrong here.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
}

async fn turn_away(mut stream: TcpStream, answer: Answer) {
    let say = async {
        stream.write_all(answer.to_string().as_bytes()).await?;
        stream.shutdown().await
    };
    // Nobody is waiting for how it went.
    let _ = tokio::time::timeout(TURNED_AWAY, say).await;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::AsyncReadExt;

    use super::super::{Config, Context, Settings};
    use super::*;
    use crate::clock::Clock;
    use crate::ingest::{Here, Intake};
    use crate::live::Live;
    use crate::mail::Domain;
    use crate::spool::Spool;

    /// Too many open files, this often; then what the socket says.
    struct OutOfDescriptors {
        socket: TcpListener,
        times: usize,
        calls: AtomicUsize,
    }

    impl Accept for OutOfDescriptors {
        async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
            if self.calls.fetch_add(1, Ordering::Relaxed) < self.times {
                return Err(io::Error::from_raw_os_error(nix::errno::Errno::EMFILE as i32));
            }
            Accept::accept(&self.socket).await
        }
    }

    fn acceptor() -> Acceptor {
        let config = Config::new(Domain::parse("relay.test").expect("a domain"));
        let here = Here::new(config.hostname.clone(), |_| false);
        let intake = Live::new(Intake { spool: Spool::unused(), kept: BTreeSet::new(), here });
        let context = Context { intake, clock: Clock::system() };
        let settings = std::sync::RwLock::new(Arc::new(Settings::load(&config, Arc::default()).expect("valid")));
        let shared = Arc::new(Shared { settings, context, open: Arc::default() });
        Acceptor { shared, stop: Stop::default(), tasks: TaskTracker::new() }
    }

    #[tokio::test]
    async fn without_descriptors_it_waits_and_does_not_spin() {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("bound");
        let socket = OutOfDescriptors { socket, times: 3, calls: AtomicUsize::new(0) };
        let (acceptor, mut client) = (acceptor(), TcpStream::connect(address).await.expect("in the backlog"));
        let greeted = async {
            let mut code = [0; 4];
            client.read_exact(&mut code).await.expect("a banner");
            assert_eq!(&code, b"220 ");
            acceptor.stop.gentle.cancel();
        };
        tokio::join!(greeted, acceptor.accept_all(&socket));
        let calls = socket.calls.load(Ordering::Relaxed);
        assert!((4..=5).contains(&calls), "{calls} calls for three failures and one connection");
    }
}
