//! What lettre sees of a connection: it writes commands, and reads one plain line for each
//! reply.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::smtp::Reply;

use super::Wire;
use super::state::{Saying, State};

impl State {
    /// Hands lettre the line that it is to read for the next reply.
    fn poll_line(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.for_lettre.is_empty() {
                let count = buffer.remaining().min(self.for_lettre.len());
                buffer.put_slice(&self.for_lettre.drain(..count).collect::<Vec<_>>());
                return Poll::Ready(Ok(()));
            }
            if self.understand() {
                continue;
            }
            if self.broken.is_some() {
                return Poll::Ready(Err(self.error()));
            }
            // A peer that sends an octet now and then must not outlast the deadline.
            if self.poll_limits(cx).is_ready() {
                continue;
            }
            ready!(self.poll_outgoing(cx));
            ready!(self.poll_fill(cx));
        }
    }
}

/// A reply in the one form that lettre reads without fail: codes with a second digit up to
/// 5, one line of some ASCII.
pub(super) fn line_for_lettre(reply: &Reply) -> String {
    let (first, second, third) = (reply.class(), (reply.code() / 10 % 10).min(5), reply.code() % 10);
    let text: String =
        reply.texts().next().unwrap_or_default().chars().filter(char::is_ascii_graphic).take(80).collect();
    format!("{first}{second}{third} -{text}\r\n")
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.state().poll_line(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        self.state().poll_command(cx, octets)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut guard = self.state();
        let state = &mut *guard;
        let result = match state.stream.io() {
            // What could not be written is not flushed either; the reply is read instead.
            Ok(stream) if state.saying != Saying::Unheard => stream.poll_flush(cx),
            _ => Poll::Ready(Ok(())),
        };
        match result {
            Poll::Ready(_) => Poll::Ready(Ok(())),
            Poll::Pending => {
                ready!(state.poll_limits(cx));
                Poll::Ready(Err(state.error()))
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        state.saying = Saying::Nothing;
        match state.stream.io()?.poll_shutdown(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => {
                ready!(state.poll_limits(cx));
                Poll::Ready(Err(state.error()))
            }
        }
    }
}

impl AsyncTokioStream for Wire {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wire({})", self.peer)
    }
}

#[cfg(test)]
mod tests {
    use crate::smtp::ReplyReader;

    use super::*;

    #[test]
    fn lettre_is_given_one_plain_line_of_each_reply() {
        let mut reader = ReplyReader::default();
        for (line, given) in [
            (&b"571 5.7.1 no\r\n"[..], "551 -5.7.1no\r\n"),
            (b"250\n", "250 -\r\n"),
            (b"550 caf\xe9 \x1b[1m\r\n", "550 -caf[1m\r\n"),
        ] {
            let reply = reader.push(line).expect("SMTP").expect("whole");
            assert_eq!(line_for_lettre(&reply), given);
        }
    }
}
