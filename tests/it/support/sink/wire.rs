//! The octets of one connection: in clear or in TLS, a line at a time.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, Shutdown, recv, shutdown};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::HandshakeKind;
use tokio_rustls::server::TlsStream;

use super::certificates::Identity;

pub(super) enum Wire {
    Clear(TcpStream, Vec<u8>),
    Tls(Box<TlsStream<TcpStream>>, Vec<u8>),
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self::Clear(stream, Vec::new())
    }

    /// The next line with its line end, whatever that is; empty or cut at the end of the stream.
    pub(super) async fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            let buffer = self.buffer();
            if let Some(end) = buffer[searched..].iter().position(|&octet| octet == b'\n') {
                return Ok(buffer.drain(..=searched + end).collect());
            }
            searched = buffer.len();
            if self.fill().await? == 0 {
                return Ok(std::mem::take(self.buffer()));
            }
        }
    }

    /// Reads until the client ends; the number of octets that came.
    pub(super) async fn drain(&mut self) -> usize {
        let mut drained = self.buffer().len();
        while let Ok(count @ 1..) = self.fill().await {
            drained += count;
            self.buffer().clear();
        }
        drained
    }

    /// Whether octets of the client wait unread.
    pub(super) fn has_input(&self) -> bool {
        let (Self::Clear(_, buffer) | Self::Tls(_, buffer)) = self;
        let waiting = recv(self.tcp().as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT);
        !buffer.is_empty() || waiting.is_ok_and(|count| count > 0)
    }

    pub(super) async fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        match self {
            Self::Clear(stream, _) => stream.write_all(octets).await,
            Self::Tls(stream, _) => {
                stream.write_all(octets).await?;
                stream.flush().await
            }
        }
    }

    pub(super) async fn close(&mut self) {
        // The client may be gone already.
        let _ = match self {
            Self::Clear(stream, _) => stream.shutdown().await,
            Self::Tls(stream, _) => stream.shutdown().await,
        };
    }

    /// Ends the TCP connection, in TLS without a word of it (no close_notify).
    pub(super) fn cut(&self) -> io::Result<()> {
        Ok(shutdown(self.tcp().as_raw_fd(), Shutdown::Write)?)
    }

    /// Makes the end of the connection a reset.
    pub(super) fn reset(&self) -> io::Result<()> {
        self.tcp().set_zero_linger()
    }

    /// Goes on in TLS; what came in clear before is gone.
    pub(super) async fn into_tls(self, identity: &Identity) -> io::Result<Self> {
        let Self::Clear(stream, _) = self else { return Err(io::Error::other("TLS within TLS")) };
        let stream = TlsAcceptor::from(identity.0.clone()).accept(stream).await?;
        Ok(Self::Tls(Box::new(stream), Vec::new()))
    }

    pub(super) fn in_tls(&self) -> bool {
        matches!(self, Self::Tls(..))
    }

    pub(super) fn is_resumed(&self) -> bool {
        matches!(self, Self::Tls(stream, _) if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Clear(stream, _) => stream,
            Self::Tls(stream, _) => stream.get_ref().0,
        }
    }

    fn buffer(&mut self) -> &mut Vec<u8> {
        let (Self::Clear(_, buffer) | Self::Tls(_, buffer)) = self;
        buffer
    }

    async fn fill(&mut self) -> io::Result<usize> {
        // Room for a whole TLS record, so that nothing deciphered stays behind unseen.
        self.buffer().reserve(32 * 1024);
        match self {
            Self::Clear(stream, buffer) => stream.read_buf(buffer).await,
            Self::Tls(stream, buffer) => stream.read_buf(buffer).await,
        }
    }
}
