//! What we say: the commands that lettre writes, and HELO, which it does not know.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Buf;

use crate::mail::Side;
use crate::smtp::{Command, NotSmtp, Reply};

use super::state::{Saying, State};
use crate::delivery::step::Step;

impl State {
    /// Writes a command of lettre's.
    pub(super) fn poll_command(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        if self.awaiting.is_empty() && self.line.is_empty() {
            let _ = self.poll_fill(cx);
            // A peer that shuts down says 421 unasked (RFC 5321 section 3.8): that is
            // then the answer. Anything else would shift all replies by one.
            if self.has_surplus() {
                self.refuse(NotSmtp::Surplus.into());
            }
            // Each time it is tried again is no new beginning.
            if !std::mem::replace(&mut self.begun, true) {
                self.deadlines.start(Step::of(&String::from_utf8_lossy(octets)));
            }
        }
        if self.broken.is_some() || !self.may_say(octets) {
            self.begun = false;
            return Poll::Ready(Err(self.error()));
        }
        let result = match self.stream.io() {
            Ok(stream) if self.saying != Saying::Unheard => stream.poll_write(cx, octets),
            _ => Poll::Ready(Ok(octets.len())),
        };
        match result {
            Poll::Ready(Ok(count)) => {
                self.written(&octets[..count]);
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(_)) => {
                self.saying = Saying::Unheard;
                self.written(octets);
                Poll::Ready(Ok(octets.len()))
            }
            Poll::Pending => {
                ready!(self.poll_limits(cx));
                Poll::Ready(Err(self.error()))
            }
        }
    }

    pub(super) fn may_say(&self, octets: &[u8]) -> bool {
        match self.saying {
            Saying::Anything | Saying::Unheard => true,
            Saying::OnlyQuit => octets.starts_with(b"QUIT"),
            Saying::Nothing => false,
        }
    }

    /// Takes note of what was said; each line is a command that wants a reply.
    pub(super) fn written(&mut self, octets: &[u8]) {
        self.begun = false;
        for &octet in octets {
            self.line.push(octet);
            if octet == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.said(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']));
            }
        }
    }

    pub(super) fn said(&mut self, command: &str) {
        let step = if self.challenged { Step::Auth } else { Step::of(command) };
        let shown = match step {
            Step::Auth => self.masking.auth(command, self.challenged),
            _ => command.to_owned(),
        };
        self.log(Side::Client, shown);
        self.awaiting.push_back(step);
        if let Some(&first) = self.awaiting.front() {
            self.deadlines.start(first);
        }
    }

    /// RFC 5321 section 3.2: a peer that does not know EHLO is asked with HELO. lettre
    /// cannot, so it is done below it.
    pub(super) fn say_helo(&mut self, refusal: Reply) {
        let helo = Command::helo(&self.helo).to_string();
        self.outgoing.extend_from_slice(helo.as_bytes());
        self.ehlo_refused = Some(refusal);
        self.written(helo.as_bytes());
    }

    pub(super) fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.outgoing.is_empty() {
            let result = match self.stream.io() {
                Ok(stream) => ready!(stream.poll_write(cx, &self.outgoing)),
                Err(error) => Err(error),
            };
            match result {
                Ok(count) => self.outgoing.advance(count),
                Err(_) => self.outgoing.clear(),
            }
            if let Ok(stream) = self.stream.io() {
                let _ = stream.poll_flush(cx);
            }
        }
        Poll::Ready(())
    }
}
