//! The stream under lettre's connection.
//!
//! lettre writes commands and asks for replies; what a reply is, this adapter decides. It
//! reads with our own bounded parser, keeps every reply whole for the record, and hands
//! lettre the gist: one line that it cannot stumble over. It gives lettre one reply at a
//! time, so that what a peer says unasked is never taken for the answer to the next
//! command; and it holds the deadlines, which lettre has none of.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::clock::Clock;
use crate::mail::{DialogueEntry, Side};
use crate::smtp::{Command, NotSmtp, Reply, ReplyReader};

use super::limits::{Deadlines, Limits};
use super::masking::Masking;
use super::outcome;
use super::step::{Broken, Step};

/// Characters kept for the record of what is no reply.
const MAX_SHOWN: usize = 2000;

/// The peer's end, before and after STARTTLS.
enum Stream {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
    /// Taken out for a handshake that failed.
    Gone,
}

trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

impl Stream {
    fn io(&mut self) -> io::Result<Pin<&mut dyn Io>> {
        match self {
            Self::Plain(stream) => Ok(Pin::new(stream)),
            Self::Secure(stream) => Ok(Pin::new(stream.as_mut())),
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// One connection: lettre holds one handle of it, the session another.
#[derive(Clone)]
pub(super) struct Wire {
    state: Arc<Mutex<State>>,
    peer: SocketAddr,
}

/// What may be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Saying {
    Anything,
    /// The banner forbids everything but QUIT.
    OnlyQuit,
    /// A write failed. The peer may have said why: what it sent is read before anything else.
    IntoTheVoid,
    /// We have closed our side.
    Nothing,
}

struct State {
    stream: Stream,
    deadlines: Deadlines,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    clock: Clock,
    /// Octets read and not yet understood.
    incoming: BytesMut,
    reader: ReplyReader,
    /// What the next replies answer.
    awaiting: VecDeque<Step>,
    /// Replies that the session has not yet taken.
    replies: VecDeque<Reply>,
    /// The gist for lettre.
    gist: VecDeque<u8>,
    /// A command line of which the end is not yet written.
    line: Vec<u8>,
    /// The time for a command runs, though nothing of it could be written yet.
    begun: bool,
    /// Octets that the adapter says by itself.
    outgoing: BytesMut,
    broken: Option<Broken>,
    saying: Saying,
    /// The last reply was a challenge: the next line is a secret.
    challenged: bool,
    masking: Masking,
    /// The reply that refused EHLO, where HELO was said instead.
    ehlo_refused: Option<Reply>,
    dialogue: Vec<DialogueEntry>,
}

impl Wire {
    /// Over a connected stream, with a banner to come.
    pub(super) fn new(
        stream: TcpStream,
        peer: SocketAddr,
        limits: Limits,
        clock: Clock,
        hard: CancellationToken,
    ) -> Self {
        let state = State {
            stream: Stream::Plain(stream),
            deadlines: Deadlines::new(limits),
            stop: Box::pin(hard.cancelled_owned()),
            clock,
            incoming: BytesMut::new(),
            reader: ReplyReader::default(),
            awaiting: VecDeque::from([Step::Banner]),
            replies: VecDeque::new(),
            gist: VecDeque::new(),
            line: Vec::new(),
            begun: false,
            outgoing: BytesMut::new(),
            broken: None,
            saying: Saying::Anything,
            challenged: false,
            masking: Masking::default(),
            ehlo_refused: None,
            dialogue: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), peer }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reply to the oldest command whose reply was not yet taken, or why there is none.
    pub(super) fn take_reply(&self) -> Result<Reply, Broken> {
        let mut state = self.state();
        match state.replies.pop_front() {
            Some(reply) => Ok(reply),
            None => Err(state.broken.clone().unwrap_or(Broken::Closed)),
        }
    }

    /// The reply that refused EHLO, once, where the peer was asked with HELO instead.
    pub(super) fn take_ehlo_refusal(&self) -> Option<Reply> {
        self.state().ehlo_refused.take()
    }

    /// What was said since the last call.
    pub(super) fn take_dialogue(&self) -> Vec<DialogueEntry> {
        let mut dialogue = std::mem::take(&mut self.state().dialogue);
        for entry in &mut dialogue {
            entry.peer = Some(self.peer);
        }
        dialogue
    }

    /// Adds an event, in brackets, to the dialogue.
    pub(super) fn note(&self, event: &str) {
        self.state().log(Side::Client, format!("[{event}]"));
    }

    /// Keeps `secret` out of all records of what is said from now on, by whomever.
    pub(super) fn hide(&self, secret: &str) {
        self.state().masking.hide(secret);
    }

    /// Starts the time that the transaction may take up to its final dot.
    pub(super) fn start_transaction(&self) {
        self.state().deadlines.start_transaction();
    }

    /// Whether the peer has neither closed nor said anything that nobody asked for.
    pub(super) fn is_quiet(&self) -> bool {
        let mut state = self.state();
        let _ = state.poll_fill(&mut Context::from_waker(Waker::noop()));
        state.broken.is_none() && state.incoming.is_empty()
    }

    /// Takes the TCP stream out for a handshake.
    ///
    /// # Errors
    /// Where a reply waits behind the last one: it came in clear and must not be taken for
    /// something said inside TLS. Anything else that is there already is a failed handshake.
    pub(super) fn take_stream(&self) -> Result<TcpStream, Broken> {
        let mut state = self.state();
        let _ = state.poll_fill(&mut Context::from_waker(Waker::noop()));
        if state.incoming.first().is_some_and(u8::is_ascii_digit) {
            state.refuse(Broken::NotSmtp(NotSmtp::Surplus));
        } else if !state.incoming.is_empty() {
            state.refuse(Broken::Handshake("the peer does not speak TLS".to_owned()));
        }
        match &state.broken {
            None => {}
            Some(broken @ (Broken::Closed | Broken::Io(_))) => return Err(Broken::Handshake(broken.to_string())),
            Some(broken) => return Err(broken.clone()),
        }
        match std::mem::replace(&mut state.stream, Stream::Gone) {
            Stream::Plain(stream) => Ok(stream),
            _ => Err(Broken::Closed),
        }
    }

    /// Whether the peer has said something that no command asked for, other than that it
    /// closes.
    pub(super) fn has_surplus(&self) -> bool {
        let mut state = self.state();
        let _ = state.poll_fill(&mut Context::from_waker(Waker::noop()));
        state.has_surplus()
    }

    /// As [`Wire::has_surplus`], with some time for it to arrive.
    pub(super) async fn has_surplus_within(&self, time: Duration) -> bool {
        let arrives = poll_fn(|cx| {
            let mut state = self.state();
            let _ = state.poll_fill(cx);
            if state.has_surplus() { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::time::timeout(time, arrives).await.is_ok()
    }

    /// Goes on inside TLS.
    pub(super) fn secure(&self, stream: TlsStream<TcpStream>) {
        let mut state = self.state();
        state.stream = Stream::Secure(Box::new(stream));
        if let Some(&step) = state.awaiting.front() {
            state.deadlines.start(step);
        }
    }

    /// Begins the content: from now on any reply comes too early.
    pub(super) fn start_content(&self) {
        let mut state = self.state();
        state.awaiting.push_back(Step::Content);
        state.deadlines.start(Step::Content);
    }

    /// Sends content; `last` says that the octets end with the final dot. False where the
    /// rest is not to be sent: the peer has answered already, or the connection is broken.
    pub(super) async fn send(&self, octets: &[u8], last: bool) -> bool {
        let mut sent = 0;
        poll_fn(|cx| self.state().poll_send(cx, octets, &mut sent, last)).await
    }

    /// Records how much content went.
    pub(super) fn log_content(&self, octets: u64, whole: bool) {
        let text = if whole {
            format!("[message content, {octets} octets]")
        } else {
            format!("[message content broken off after {octets} octets]")
        };
        self.state().log(Side::Client, text);
    }

    /// What is waited for, where anything is.
    pub(super) fn awaits(&self) -> Option<Step> {
        self.state().awaiting.front().copied()
    }
}

impl State {
    fn log(&mut self, from: Side, text: String) {
        self.dialogue.push(DialogueEntry { time: self.clock.now(), from, text, peer: None });
    }

    fn break_off(&mut self, broken: Broken) {
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
    fn refuse(&mut self, broken: Broken) {
        self.show_unread();
        self.break_off(broken);
    }

    /// Records what was read and is no reply, up to a limit.
    fn show_unread(&mut self) {
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

    fn error(&self) -> io::Error {
        io::Error::other(self.broken.clone().unwrap_or(Broken::Closed))
    }

    /// Breaks the connection off once a deadline is over or a stop was asked for.
    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.stop.as_mut().poll(cx).is_ready() {
            self.break_off(Broken::Stopped);
            return Poll::Ready(());
        }
        let broken = ready!(self.deadlines.poll(cx));
        self.break_off(broken);
        Poll::Ready(())
    }

    /// Reads what has come. Ready once there is more, or the connection is broken.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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

    /// Hands lettre the gist of the next reply.
    fn poll_gist(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.gist.is_empty() {
                let count = buffer.remaining().min(self.gist.len());
                buffer.put_slice(&self.gist.drain(..count).collect::<Vec<_>>());
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

    /// Takes a line out of what was read; false where there is no whole one.
    fn understand(&mut self) -> bool {
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

    fn accept(&mut self, reply: Reply) {
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
        self.gist.extend(gist(&reply).into_bytes());
        self.replies.push_back(reply);
        if let Some(&next) = self.awaiting.front() {
            self.deadlines.start(next);
        }
    }

    /// RFC 5321 section 3.2: a peer that does not know EHLO is asked with HELO. lettre
    /// cannot, so it is done below it.
    fn say_helo(&mut self, refusal: Reply) {
        let name = self.dialogue.iter().rev().find_map(|entry| entry.text.strip_prefix("EHLO ")).unwrap_or_default();
        let helo = Command::helo(name).to_string();
        self.outgoing.extend_from_slice(helo.as_bytes());
        self.ehlo_refused = Some(refusal);
        self.written(helo.as_bytes());
    }

    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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

    /// Writes a command of lettre's.
    fn poll_command(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
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
            Ok(stream) if self.saying != Saying::IntoTheVoid => stream.poll_write(cx, octets),
            _ => Poll::Ready(Ok(octets.len())),
        };
        match result {
            Poll::Ready(Ok(count)) => {
                self.written(&octets[..count]);
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(_)) => {
                self.saying = Saying::IntoTheVoid;
                self.written(octets);
                Poll::Ready(Ok(octets.len()))
            }
            Poll::Pending => {
                ready!(self.poll_limits(cx));
                Poll::Ready(Err(self.error()))
            }
        }
    }

    fn has_surplus(&self) -> bool {
        !self.incoming.is_empty() && !self.incoming.starts_with(b"421")
    }

    fn may_say(&self, octets: &[u8]) -> bool {
        match self.saying {
            Saying::Anything | Saying::IntoTheVoid => true,
            Saying::OnlyQuit => octets.starts_with(b"QUIT"),
            Saying::Nothing => false,
        }
    }

    /// Takes note of what was said; each line is a command that wants a reply.
    fn written(&mut self, octets: &[u8]) {
        self.begun = false;
        for &octet in octets {
            self.line.push(octet);
            if octet == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.said(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']));
            }
        }
    }

    fn said(&mut self, command: &str) {
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

    /// Sends content, watching for a reply that comes before its end.
    fn poll_send(&mut self, cx: &mut Context<'_>, octets: &[u8], sent: &mut usize, last: bool) -> Poll<bool> {
        loop {
            if self.poll_limits(cx).is_ready() {
                return Poll::Ready(false);
            }
            let _ = self.poll_fill(cx);
            let answered = !self.incoming.is_empty() && self.awaiting.front() == Some(&Step::Content);
            if self.broken.is_some() || answered {
                return Poll::Ready(false);
            }
            let stream = match self.stream.io() {
                Ok(stream) => stream,
                Err(error) => {
                    self.break_off(Broken::from_io(&error));
                    continue;
                }
            };
            let result = if *sent < octets.len() {
                stream.poll_write(cx, &octets[*sent..])
            } else {
                stream.poll_flush(cx).map_ok(|()| 0)
            };
            match ready!(result) {
                Ok(0) if *sent == octets.len() => return Poll::Ready(true),
                Ok(count) => {
                    *sent += count;
                    self.deadlines.progress(count);
                    // From its first octet on the final dot may arrive.
                    if last && *sent > octets.len().saturating_sub(3) {
                        self.awaiting.clear();
                        self.awaiting.push_back(Step::EndOfData);
                        self.deadlines.start(Step::EndOfData);
                    }
                }
                // The reply that says why may be there to be read.
                Err(_) => return Poll::Ready(false),
            }
        }
    }
}

/// A reply in the one form that lettre reads without fail: codes with a second digit up to
/// 5, one line of some ASCII.
fn gist(reply: &Reply) -> String {
    let (first, second, third) = (reply.class(), (reply.code() / 10 % 10).min(5), reply.code() % 10);
    let text: String =
        reply.texts().next().unwrap_or_default().chars().filter(char::is_ascii_graphic).take(80).collect();
    format!("{first}{second}{third} -{text}\r\n")
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.state().poll_gist(cx, buffer)
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
            Ok(stream) if state.saying != Saying::IntoTheVoid => stream.poll_flush(cx),
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
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// The peer closed its window and answers all the same: nothing more can be said to it.
    #[tokio::test]
    async fn a_command_that_cannot_be_written_has_its_time_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        let (_peer, address) = listener.accept().await.expect("accepted");
        let junk = vec![0; 1 << 20];
        loop {
            stream.writable().await.expect("open");
            match stream.try_write(&junk) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // What was on its way may have arrived, and made room.
                    let full = tokio::time::timeout(Duration::from_millis(300), stream.writable()).await;
                    if full.is_err() {
                        break;
                    }
                }
                written => drop(written.expect("open")),
            }
        }
        let limits = Limits { timeout: Some(Duration::from_millis(300)), transaction: Duration::from_mins(1) };
        let mut wire = Wire::new(stream, address, limits, Clock::system(), CancellationToken::new());
        wire.state().awaiting.clear();
        let said = tokio::time::timeout(Duration::from_secs(10), wire.write_all(b"QUIT\r\n")).await;
        assert!(said.expect("it is given up").is_err());
    }

    #[test]
    fn lettre_is_given_one_plain_line_of_each_reply() {
        let mut reader = ReplyReader::default();
        for (line, line_for_lettre) in [
            (&b"571 5.7.1 no\r\n"[..], "551 -5.7.1no\r\n"),
            (b"250\n", "250 -\r\n"),
            (b"550 caf\xe9 \x1b[1m\r\n", "550 -caf[1m\r\n"),
        ] {
            let reply = reader.push(line).expect("SMTP").expect("whole");
            assert_eq!(gist(&reply), line_for_lettre);
        }
    }
}
