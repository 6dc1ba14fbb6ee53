//! A connection as a session sees it: lines and message octets in, replies out, each
//! within a deadline and with bounded memory.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::answer::Answer;
use crate::smtp::{MAX_EXTENDED_OCTETS, Unstuffer};

/// Octets that one read takes.
const READ_OCTETS: usize = 16 * 1024;

/// Replies to pipelined commands that are held back at most.
const HELD_BACK_OCTETS: usize = 16 * 1024;

/// How long a client is listened to after our last word, so that it can read that: what
/// it sent meanwhile would else make the kernel reset the connection.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_OCTETS: usize = 1024 * 1024;

/// How long the last reply may take once a hard stop was asked for.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The client is gone.
    Gone,
    /// The client let a deadline pass.
    Slow,
    /// We are stopping.
    Stopping,
    /// All was said.
    Finished,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "the client is gone",
            Self::Slow => "the client took too long",
            Self::Stopping => "the listener is stopping",
            Self::Finished => "all was said",
        })
    }
}

/// One line from the client.
pub(super) enum Line {
    /// With its line end.
    Whole(BytesMut),
    /// So long that it was not kept.
    TooLong,
}

/// Octets both ways: a socket, or TLS over one.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// The connection.
pub(super) struct Wire {
    /// None once it was lost in a handshake.
    stream: Option<Box<dyn Stream>>,
    is_tls: bool,
    input: BytesMut,
    output: Vec<u8>,
    /// For a reply to be taken.
    patience: Duration,
    hard_stop: CancellationToken,
}

impl Wire {
    pub(super) fn new(stream: Box<dyn Stream>, patience: Duration, hard_stop: CancellationToken) -> Self {
        let (input, output) = (BytesMut::new(), Vec::new());
        Self { stream: Some(stream), is_tls: false, input, output, patience, hard_stop }
    }

    pub(super) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Says something, at the latest before the next read that has to wait.
    pub(super) fn say(&mut self, answer: &Answer) {
        self.output.extend_from_slice(answer.to_string().as_bytes());
    }

    /// The next line. Commands that came together are answered together.
    pub(super) async fn line(&mut self, stop: &CancellationToken) -> Result<Line, Ended> {
        if self.output.len() > HELD_BACK_OCTETS {
            self.flush().await?;
        }
        let deadline = Instant::now() + self.patience;
        let mut too_long = false;
        loop {
            if let Some(end) = self.input.iter().position(|&octet| octet == b'\n') {
                let line = self.input.split_to(end + 1);
                too_long |= line.len() > MAX_EXTENDED_OCTETS;
                return Ok(if too_long { Line::TooLong } else { Line::Whole(line) });
            }
            if self.input.len() > MAX_EXTENDED_OCTETS {
                too_long = true;
                self.input.clear();
            }
            self.flush().await?;
            self.fill(stop, deadline).await?;
        }
    }

    /// The next octets of a message, appended to `out`; true with the final dot. What
    /// stands behind it waits for [`Wire::line`].
    pub(super) async fn content(
        &mut self,
        data: &mut Unstuffer,
        out: &mut Vec<u8>,
        deadline: Instant,
    ) -> Result<bool, Ended> {
        if self.input.is_empty() {
            self.fill(&self.hard_stop.clone(), deadline).await?;
        }
        let (taken, ended) = data.push(&self.input, out);
        self.input.advance(taken);
        Ok(ended)
    }

    /// Whether the client has sent more than it was asked for: looks, and does not wait.
    pub(super) async fn has_more(&mut self) -> bool {
        if self.input.is_empty() {
            tokio::select! {
                biased;
                // An end or an error is found again by whoever reads next.
                _ = read(&mut self.stream, &mut self.input) => {}
                () = std::future::ready(()) => {}
            }
        }
        !self.input.is_empty()
    }

    async fn fill(&mut self, stop: &CancellationToken, deadline: Instant) -> Result<(), Ended> {
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(Ended::Stopping),
            () = sleep_until(deadline) => Err(Ended::Slow),
            octets = read(&mut self.stream, &mut self.input) => match octets {
                Ok(0) | Err(_) => Err(Ended::Gone),
                Ok(_) => Ok(()),
            },
        }
    }

    /// Sends what was said.
    pub(super) async fn flush(&mut self) -> Result<(), Ended> {
        if self.output.is_empty() {
            return Ok(());
        }
        let output = std::mem::take(&mut self.output);
        let hurry = async {
            self.hard_stop.cancelled().await;
            sleep(LAST_WORDS).await;
        };
        tokio::select! {
            sent = timeout(self.patience, write(&mut self.stream, &output)) => match sent {
                Ok(sent) => sent.map_err(|_| Ended::Gone),
                Err(_) => Err(Ended::Gone),
            },
            () = hurry => Err(Ended::Gone),
        }
    }

    /// Takes up TLS. Nothing that was read before survives.
    pub(super) async fn secure(&mut self, acceptor: &TlsAcceptor, within: Duration) -> Result<(), Ended> {
        self.flush().await?;
        self.input.clear();
        let stream = self.stream.take().ok_or(Ended::Gone)?;
        let handshake = tokio::select! {
            () = self.hard_stop.cancelled() => return Err(Ended::Gone),
            handshake = timeout(within, acceptor.accept(stream)) => handshake,
        };
        match handshake {
            Ok(Ok(stream)) => {
                self.stream = Some(Box::new(stream));
                self.is_tls = true;
                Ok(())
            }
            Ok(Err(error)) => {
                tracing::info!(%error, "TLS handshake failed");
                Err(Ended::Gone)
            }
            Err(_) => Err(Ended::Gone),
        }
    }

    /// Sends what was said and closes, so that the client can read it.
    pub(super) async fn close(mut self) {
        if self.flush().await.is_err() {
            return;
        }
        let hard_stop = self.hard_stop.clone();
        let linger = async {
            open(&mut self.stream)?.shutdown().await?;
            let mut octets = 0;
            while octets < LINGER_OCTETS {
                self.input.clear();
                match read(&mut self.stream, &mut self.input).await? {
                    0 => break,
                    more => octets += more,
                }
            }
            io::Result::Ok(())
        };
        tokio::select! {
            _ = linger => {}
            () = sleep(LINGER) => {}
            () = hard_stop.cancelled() => {}
        }
    }
}

fn open(stream: &mut Option<Box<dyn Stream>>) -> io::Result<&mut Box<dyn Stream>> {
    stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
}

async fn read(stream: &mut Option<Box<dyn Stream>>, into: &mut BytesMut) -> io::Result<usize> {
    into.reserve(READ_OCTETS);
    open(stream)?.read_buf(into).await
}

async fn write(stream: &mut Option<Box<dyn Stream>>, octets: &[u8]) -> io::Result<()> {
    let stream = open(stream)?;
    stream.write_all(octets).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_line_without_end_costs_no_memory() {
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let mut client = TcpStream::connect(socket.local_addr().expect("bound")).await.expect("connects");
        let (stream, _) = socket.accept().await.expect("accepts");
        let stop = CancellationToken::new();
        let mut wire = Wire::new(Box::new(stream), Duration::from_secs(20), stop.clone());
        let sent = async {
            client.write_all(&vec![b'x'; 4 * 1024 * 1024]).await.expect("sent");
            client.write_all(b"\r\nNOOP\r\n").await.expect("sent");
        };
        let ((), line) = tokio::join!(sent, wire.line(&stop));
        assert!(matches!(line, Ok(Line::TooLong)));
        assert!(wire.input.capacity() <= 4 * READ_OCTETS, "{} octets", wire.input.capacity());
        assert!(matches!(wire.line(&stop).await, Ok(Line::Whole(line)) if line == "NOOP\r\n"));
    }
}
