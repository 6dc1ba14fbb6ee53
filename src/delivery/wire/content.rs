//! The content on its way out, watched for a reply that comes too early.
//!
//! Little of it is with the kernel and not yet sent: what is said of its progress, and of
//! the time that it takes, is then true of the peer and not of a buffer. And a peer can have
//! the mail only once its final dot was handed to the kernel, which for a large mail happens
//! when everything before it was sent.

use std::io;
use std::task::{Context, Poll, ready};

use super::state::State;
use crate::delivery::step::Step;

/// Octets that are written at a time.
const CHUNK: usize = 8 * 1024;

/// Octets, of content and behind it, that are at most written and not yet sent.
const UNSENT: u32 = 16 * 1024;

/// From so many octets on the final dot waits until everything before it was sent.
const LARGE: u64 = 64 * 1024;

/// Octets of the final dot, a line of its own.
pub(super) const FINAL_DOT: usize = 3;

/// Limits of what is unsent on the way to nothing. Each that is reached is progress.
pub(super) const DRAINING: [u32; 3] = [UNSENT, UNSENT / 2, 1];

impl State {
    /// From now on any reply comes too early.
    pub(super) fn start_content(&mut self, octets: u64) {
        self.awaiting.push_back(Step::Content);
        self.deadlines.start(Step::Content);
        self.stream.keep_unsent_below(UNSENT);
        self.is_large = octets > LARGE;
    }

    /// The content is out but for its final dot: what is unsent has its own time to go.
    pub(super) fn start_draining(&mut self) {
        self.deadlines.start(Step::Content);
    }

    /// Content is given up. What the kernel still has of it is not to be sent.
    pub(super) fn give_up_content(&mut self) {
        if self.awaiting.front() == Some(&Step::Content) {
            self.stream.reset_on_close();
        }
    }

    /// Sends content; see [`super::Wire::send`].
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        octets: &[u8],
        sent: &mut usize,
        last: bool,
    ) -> Poll<bool> {
        loop {
            if self.is_content_over(cx) {
                return Poll::Ready(false);
            }
            // The reply that says why it cannot be written may be there to be read.
            let Ok(count) = ready!(self.poll_write_some(cx, &octets[*sent..])) else {
                return Poll::Ready(false);
            };
            *sent += count;
            self.deadlines.progress(count);
            let all = *sent == octets.len() && self.poll_flushed(cx).is_ready();
            // From its first octet on the final dot may arrive, within TLS with its record.
            if last && (all || self.stream.is_plain() && *sent + FINAL_DOT > octets.len()) {
                self.hand_over();
            }
            if all {
                return Poll::Ready(true);
            }
        }
    }

    /// Waits until so few octets are unsent. False where the final dot is not to be sent.
    pub(super) fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.is_content_over(cx) {
            return Poll::Ready(false);
        }
        let result = ready!(self.stream.poll_room(cx));
        self.deadlines.progress(0);
        Poll::Ready(result.is_ok())
    }

    /// Whether the rest is not to be sent: the peer has answered, the connection is broken, or
    /// the time is over.
    fn is_content_over(&mut self, cx: &mut Context<'_>) -> bool {
        if self.poll_limits(cx).is_ready() {
            return true;
        }
        let _ = self.poll_fill(cx);
        let answered = !self.incoming.is_empty() && self.awaiting.front() == Some(&Step::Content);
        self.broken.is_some() || answered
    }

    /// Writes some of `octets`, once the kernel has all of those before them and has sent most.
    fn poll_write_some(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flushed(cx))?;
        if octets.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.stream.poll_room(cx))?;
        self.stream.io()?.poll_write(cx, &octets[..CHUNK.min(octets.len())])
    }

    fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.io()?.poll_flush(cx)
    }

    /// The kernel has the final dot, or may have it: what ends the connection now is in doubt.
    fn hand_over(&mut self) {
        self.awaiting.clear();
        self.awaiting.push_back(Step::EndOfData);
        self.deadlines.start(Step::EndOfData);
    }
}
