//! Takes connections in: within the limits, and without spinning where that fails.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::answer::Answer;
use super::session::Session;
use super::{Shared, Stop};

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
pub(super) struct Door {
    pub(super) shared: Arc<Shared>,
    pub(super) stop: Stop,
    pub(super) tasks: TaskTracker,
}

impl Door {
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
        match self.shared.slots.take(peer.ip(), &settings.limits) {
            Ok(slot) => {
                let session = Session::new(stream, peer, settings, self.shared.context.clone(), self.stop.clone());
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
