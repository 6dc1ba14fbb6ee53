//! The stream under lettre's connection.
//!
//! lettre writes commands and asks for replies; what a reply is, this adapter decides. It
//! reads with our own bounded parser, keeps every reply whole for the record, and gives
//! lettre a line for it that lettre cannot stumble over. It gives lettre one reply at a
//! time, so that what a peer says unasked is never taken for the answer to the next
//! command; and it holds the deadlines, which lettre has none of.

mod content;
mod reading;
mod state;
mod stream;
mod under_lettre;
mod writing;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::mail::{DialogueEntry, Side};
use crate::smtp::{NotSmtp, Reply};
use crate::stop::Cancellation;

use super::limits::Limits;
use super::step::{Broken, Step};
use content::{DRAINING, FINAL_DOT};
use state::State;
use stream::Stream;

/// One connection: lettre holds one handle of it, the session another.
#[derive(Clone)]
pub(super) struct Wire {
    state: Arc<Mutex<State>>,
    peer: SocketAddr,
}

impl Wire {
    /// Over a connected stream, with a banner to come.
    pub(super) fn new(
        stream: TcpStream,
        peer: SocketAddr,
        helo: String,
        limits: Limits,
        clock: Clock,
        hard: CancellationToken,
    ) -> Self {
        let state = State::new(Stream::Plain(stream), helo, limits, clock, hard);
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

    /// It carries mail of a run from now on, which somebody may cancel; or of none.
    pub(super) fn belong_to(&self, run: Option<&Cancellation>) {
        self.state().run = run.map(|run| (run.clone(), Box::pin(run.token().clone().cancelled_owned())));
    }

    /// Keeps `secret` out of all records of what is said from now on, by whomever.
    pub(super) fn hide(&self, secret: &str) {
        self.state().masking.hide(secret);
    }

    /// Lets `secret` into the records again.
    pub(super) fn show(&self, secret: &str) {
        self.state().masking.show(secret);
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
        // With TLS from the first byte nothing can be a reply yet.
        let greets = state.awaiting.front() == Some(&Step::Banner);
        if !greets && state.incoming.first().is_some_and(u8::is_ascii_digit) {
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

    /// No TLS came of the stream that was taken: nothing more is said, and the dialogue says
    /// why.
    pub(super) fn fail_handshake(&self, broken: &Broken) {
        let mut state = self.state();
        match &state.broken {
            None => state.break_off(broken.clone()),
            // It was closed before the handshake began: that much stands there already.
            Some(known) if known != broken => state.log(Side::Client, format!("[{broken}]")),
            Some(_) => {}
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

    /// Begins content of so many octets.
    pub(super) fn start_content(&self, octets: u64) {
        self.state().start_content(octets);
    }

    /// Sends content; `last` says that the octets end with the final dot. False where the
    /// rest is not to be sent: the peer has answered already, or the connection is broken.
    ///
    /// The final dot of large content is handed to the kernel when that has sent all the rest.
    pub(super) async fn send(&self, octets: &[u8], last: bool) -> bool {
        if !last || !self.state().is_large {
            return self.put(octets, last).await;
        }
        let (rest, dot) = octets.split_at(octets.len().saturating_sub(FINAL_DOT));
        self.put(rest, false).await && self.drain().await && self.put(dot, true).await
    }

    async fn put(&self, octets: &[u8], last: bool) -> bool {
        let mut sent = 0;
        poll_fn(|cx| self.state().poll_send(cx, octets, &mut sent, last)).await
    }

    /// Waits until nothing is unsent.
    async fn drain(&self) -> bool {
        self.state().start_draining();
        for unsent in DRAINING {
            self.state().stream.keep_unsent_below(unsent);
            if !poll_fn(|cx| self.state().poll_drained(cx)).await {
                return false;
            }
        }
        true
    }

    /// The content cannot be sent to its end: the connection ends here.
    pub(super) fn give_up_content(&self) {
        self.state().give_up_content();
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

#[cfg(test)]
mod tests {
    use std::io;

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
        let mut wire =
            Wire::new(stream, address, "me.example".into(), limits, Clock::system(), CancellationToken::new());
        wire.state().awaiting.clear();
        let said = tokio::time::timeout(Duration::from_secs(10), wire.write_all(b"QUIT\r\n")).await;
        assert!(said.expect("it is given up").is_err());
    }
}
