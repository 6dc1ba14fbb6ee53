//! The peer's end of a connection, before and after STARTTLS, and what the kernel is told of
//! it.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
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

    fn tcp(&self) -> io::Result<&TcpStream> {
        match self {
            Self::Plain(stream) => Ok(stream),
            Self::Secure(stream) => Ok(stream.get_ref().0),
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Whether a part of what is written may be of use to the peer. Within TLS only whole
    /// records are.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// There is room for more while fewer than half of these octets are unsent (`TCP_NOTSENT_LOWAT`);
    /// with 1 only when none is. Where the system does not have it, its buffers decide.
    pub(super) fn keep_unsent_below(&self, octets: u32) {
        if let Ok(tcp) = self.tcp() {
            let _ = SockRef::from(tcp).set_tcp_notsent_lowat(octets);
        }
    }

    /// Ready once there is room in that sense. A write alone does not tell: the kernel adds to
    /// an unsent segment whatever the limit says.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tcp = self.tcp()?;
        loop {
            ready!(tcp.poll_write_ready(cx))?;
            match tcp.try_io(Interest::WRITABLE, || has_room(tcp)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// What is still unsent when it is closed is thrown away, and the peer sees a reset.
    pub(super) fn reset_on_close(&self) {
        if let Ok(tcp) = self.tcp() {
            let _ = tcp.set_zero_linger();
        }
    }
}

/// # Errors
/// `WouldBlock` where there is none; the kernel says when there is.
fn has_room(tcp: &TcpStream) -> io::Result<()> {
    let mut asked = [PollFd::new(tcp.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut asked, PollTimeout::ZERO)? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        // An error is there for the write to find.
        _ => Ok(()),
    }
}
