//! All that is known of one connection, and how it ends.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::clock::Clock;
use crate::mail::{DialogueEntry, Side};
use crate::smtp::{Reply, ReplyReader};
use crate::stop::Cancellation;

use super::stream::Stream;
use crate::delivery::limits::{Deadlines, Limits};
use crate::delivery::masking::Masking;
use crate::delivery::step::{Broken, Step};

/// Characters kept for the record of what is no reply.
const MAX_SHOWN: usize = 2000;

/// What may be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Saying {
    Anything,
    /// The banner forbids everything but QUIT.
    OnlyQuit,
    /// A write failed. The peer may have said why: what it sent is read before anything else.
    Unheard,
    /// We have closed our side.
    Nothing,
}

/// One connection.
pub(super) struct State {
    pub(super) stream: Stream,
    pub(super) deadlines: Deadlines,
    pub(super) stop: Pin<Box<WaitForCancellationFutureOwned>>,
    /// The run whose mail is under way, with the end that somebody may ask of it.
    pub(super) run: Option<(Cancellation, Pin<Box<WaitForCancellationFutureOwned>>)>,
    pub(super) clock: Clock,
    /// Our name, for HELO where EHLO is refused.
    pub(super) helo: String,
    /// Octets read and not yet understood.
    pub(super) incoming: BytesMut,
    pub(super) reader: ReplyReader,
    /// What the next replies answer.
    pub(super) awaiting: VecDeque<Step>,
    /// Replies that the session has not yet taken.
    pub(super) replies: VecDeque<Reply>,
    /// What lettre is still to read.
    pub(super) for_lettre: VecDeque<u8>,
    /// A command line of which the end is not yet written.
    pub(super) line: Vec<u8>,
    /// The time for a command runs, though nothing of it could be written yet.
    pub(super) begun: bool,
    /// Octets that the adapter says by itself.
    pub(super) outgoing: BytesMut,
    /// The content is so large that its final dot waits for everything before it.
    pub(super) is_large: bool,
    pub(super) broken: Option<Broken>,
    pub(super) saying: Saying,
    /// The last reply was a challenge: the next line is a secret.
    pub(super) challenged: bool,
    pub(super) masking: Masking,
    /// The reply that refused EHLO, where HELO was said instead.
    pub(super) ehlo_refused: Option<Reply>,
    pub(super) dialogue: Vec<DialogueEntry>,
}

impl State {
    /// With a banner to come.
    pub(super) fn new(stream: Stream, helo: String, limits: Limits, clock: Clock, hard: CancellationToken) -> Self {
        Self {
            stream,
            deadlines: Deadlines::new(limits),
            stop: Box::pin(hard.cancelled_owned()),
            run: None,
            clock,
            helo,
            incoming: BytesMut::new(),
            reader: ReplyReader::default(),
            awaiting: VecDeque::from([Step::Banner]),
            replies: VecDeque::new(),
            for_lettre: VecDeque::new(),
            line: Vec::new(),
            begun: false,
            outgoing: BytesMut::new(),
            is_large: false,
            broken: None,
            saying: Saying::Anything,
            challenged: false,
            masking: Masking::default(),
            ehlo_refused: None,
            dialogue: Vec::new(),
        }
    }

    pub(super) fn log(&mut self, from: Side, text: String) {
        self.dialogue.push(DialogueEntry { time: self.clock.now(), from, text, peer: None });
    }

    pub(super) fn break_off(&mut self, broken: Broken) {
        if self.broken.is_none() {
            // A whole line may still turn out to be the reply.
            if !matches!(ReplyReader::line_length(&self.incoming), Ok(Some(_))) {
                self.show_unread();
            }
            self.log(Side::Client, format!("[{broken}]"));
            self.broken = Some(broken);
        }
    }

    /// Breaks off for what the peer said, which is shown and not looked at any further.
    pub(super) fn refuse(&mut self, broken: Broken) {
        self.show_unread();
        self.break_off(broken);
    }

    /// Records what was read and is no reply, up to a limit.
    pub(super) fn show_unread(&mut self) {
        let text = self.reader.take_unread(&self.masking.line(&self.incoming.split()));
        if text.is_empty() {
            return;
        }
        let mut shown: String = text.chars().take(MAX_SHOWN).collect();
        if shown.len() < text.len() {
            shown.push_str(&format!("\n[and at least {} octets more]", text.len() - shown.len()));
        }
        self.log(Side::Server, shown);
    }

    pub(super) fn error(&self) -> io::Error {
        io::Error::other(self.broken.clone().unwrap_or(Broken::Closed))
    }

    /// Breaks the connection off once a deadline is over or an end was asked for.
    pub(super) fn poll_limits(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_stopped = self.stop.as_mut().poll(cx).is_ready();
        let broken = match self.poll_cancelled(cx) {
            _ if is_stopped => Broken::Stopped,
            Some(by) => Broken::Cancelled(by),
            None => ready!(self.deadlines.poll(cx)),
        };
        self.give_up_content();
        self.break_off(broken);
        Poll::Ready(())
    }

    /// Who cancelled the run, where nothing is to be waited for any more. A peer that has the
    /// final dot has a little time for its last word: without it the mail is in doubt.
    fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Option<String> {
        let (run, asked) = self.run.as_mut()?;
        if asked.as_mut().poll(cx).is_pending() {
            return None;
        }
        let by = run.by().unwrap_or_default();
        if self.awaiting.front() == Some(&Step::EndOfData) {
            self.deadlines.await_last_word(by);
            return None;
        }
        Some(by.to_owned())
    }
}
