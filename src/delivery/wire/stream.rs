//! The peer's end of a connection, before and after STARTTLS.

use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// The peer's end, before and after STARTTLS.
pub(super) enum Stream {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
    /// Taken out for a handshake that failed.
    Gone,
}

pub(super) trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

impl Stream {
    pub(super) fn io(&mut self) -> io::Result<Pin<&mut dyn Io>> {
        match self {
            Self::Plain(stream) => Ok(Pin::new(stream)),
            Self::Secure(stream) => Ok(Pin::new(stream.as_mut())),
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}
