//! What the peer says: octets to lines, lines to replies, each reply to the command that it
//! answers.

use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;

use crate::mail::Side;
use crate::smtp::{NotSmtp, Reply, ReplyReader};

use super::state::{Saying, State};
use super::under_lettre::line_for_lettre;
use crate::delivery::outcome;
use crate::delivery::step::{Broken, Step};

impl State {
    /// Reads what has come. Ready once there is more, or the connection is broken.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.broken.is_some() {
            return Poll::Ready(());
        }
        let mut space = [0; 4096];
        let mut read = ReadBuf::new(&mut space);
        let result = match self.stream.io() {
            Ok(stream) => ready!(stream.poll_read(cx, &mut read)),
            Err(error) => Err(error),
        };
        match result {
            Ok(()) if read.filled().is_empty() => self.break_off(Broken::Closed),
            Ok(()) => self.incoming.extend_from_slice(read.filled()),
            Err(error) => self.break_off(Broken::from_io(&error)),
        }
        Poll::Ready(())
    }

    /// Takes a line out of what was read; false where there is no whole one.
    pub(super) fn understand(&mut self) -> bool {
        let line = match ReplyReader::line_length(&self.incoming) {
            Ok(Some(length)) => self.incoming.split_to(length),
            Ok(None) => return false,
            Err(problem) => {
                self.refuse(problem.into());
                return false;
            }
        };
        match self.reader.push(&self.masking.line(&line)) {
            Ok(None) => {}
            Ok(Some(reply)) => self.accept(reply),
            Err(problem) => self.refuse(problem.into()),
        }
        true
    }

    pub(super) fn accept(&mut self, reply: Reply) {
        self.log(Side::Server, reply.text());
        let Some(step) = self.awaiting.pop_front() else {
            return self.refuse(NotSmtp::Surplus.into());
        };
        if step == Step::Ehlo && reply.class() == 5 {
            return self.say_helo(reply);
        }
        if !outcome::has_meaning(step, &reply) {
            // What was waited for stays, so that it is known what had no answer.
            self.awaiting.push_front(step);
            return self.refuse(NotSmtp::OutOfPlace(reply.code()).into());
        }
        if step == Step::Banner && reply.code() != 220 {
            self.saying = Saying::OnlyQuit;
        }
        self.challenged = step == Step::Auth && reply.class() == 3;
        self.for_lettre.extend(line_for_lettre(&reply).into_bytes());
        self.replies.push_back(reply);
        if let Some(&next) = self.awaiting.front() {
            self.deadlines.start(next);
        }
    }

    /// Whether the peer has said something that no command asked for, other than that it
    /// closes.
    pub(super) fn has_surplus(&self) -> bool {
        !self.incoming.is_empty() && !self.incoming.starts_with(b"421")
    }
}
