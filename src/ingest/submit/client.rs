//! The side of the program that asks.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout_at};

use super::kept::Kept;
use super::protocol::{
    ANSWER, Answer, PATIENCE, Refusal, Request, read_frame, read_json, within, write_frame, write_json,
};
use crate::ingest::sendmail::Invocation;
use crate::mail::MailKey;

/// Between two tries to reach a service that is being restarted.
const PAUSE: Duration = Duration::from_millis(200);

/// Services that hang up on a message after which it is waited for a next one as long as for the
/// first. There is an end to it, since it may be this message that ends them.
const RENEWED: u32 = 3;

/// Why a service did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// It said so.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nobody listens there, or the connection broke.
    #[error("{0}")]
    Connection(#[from] io::Error),
}

impl Unanswered {
    /// Behind a service that had read all and did not answer.
    fn in_doubt(self) -> Self {
        let doubt = |why: &dyn std::fmt::Display| {
            format!("{why}; a service that had all of the message went away before its answer, and may have taken it")
        };
        match self {
            Self::Refused(Refusal { exit, message }) => Self::Refused(Refusal { exit, message: doubt(&message) }),
            Self::Connection(error) => Self::Connection(io::Error::new(error.kind(), doubt(&error))),
        }
    }
}

/// A message that the service has.
#[derive(Debug)]
pub struct HandedOver {
    /// The mail.
    pub key: MailKey,
    /// A service died before it answered, and may have taken it too.
    pub perhaps_twice: bool,
}

/// Hands a message over to the service at `path`, which is waited for as long as `patience`
/// says. One that hangs up before its answer is being restarted: the message is handed to the
/// next one. Whether one that had all of it took it nobody can say then; it may be taken
/// twice, since lost it must not be.
///
/// # Errors
/// [`Unanswered`].
pub async fn hand_over(
    path: &Path,
    invocation: &Invocation,
    patience: Duration,
    message: &Kept,
) -> Result<HandedOver, Unanswered> {
    let request = request(invocation)?;
    let (mut deadline, mut breaks, mut perhaps_twice) = (Instant::now() + patience, 0, false);
    loop {
        let begun = begin_until(path, &request, deadline).await;
        let stream = begun.map_err(|error| if perhaps_twice { error.in_doubt() } else { error })?;
        let (error, whole) = match give(stream, message).await {
            Ok(answer) => return Ok(HandedOver { key: answer?, perhaps_twice }),
            Err(broken) => broken,
        };
        perhaps_twice |= whole;
        breaks += 1;
        if breaks <= RENEWED {
            deadline = Instant::now() + patience;
        }
        if !may_pass(&error) || timeout_at(deadline, sleep(PAUSE)).await.is_err() {
            let error = Unanswered::from(error);
            return Err(if perhaps_twice { error.in_doubt() } else { error });
        }
    }
}

/// The service's answer; else why there is none, and whether it may have read all.
async fn give(mut stream: UnixStream, message: &Kept) -> Result<Answer<MailKey>, (io::Error, bool)> {
    // Whoever refuses reads on for a while, and may have said why where he stopped.
    let sent = send(&mut stream, message).await;
    match within(PATIENCE, read_json(&mut stream)).await {
        Ok(answer) => Ok(answer),
        Err(error) => {
            let whole = sent.is_ok();
            Err((hung_up(sent.err().unwrap_or(error)), whole))
        }
    }
}

async fn send(stream: &mut UnixStream, message: &Kept) -> io::Result<()> {
    let mut sent = 0;
    loop {
        let piece = message.piece(sent)?;
        // The empty one is the end.
        within(PATIENCE, write_frame(stream, &piece)).await?;
        if piece.is_empty() {
            return Ok(());
        }
        sent += piece.len() as u64;
    }
}

/// Asks the service at `path` for a session; SMTP is spoken over what is returned.
///
/// # Errors
/// [`Unanswered`]; nothing was said then.
pub async fn open_session(path: &Path, invocation: &Invocation, patience: Duration) -> Result<UnixStream, Unanswered> {
    begin(path, invocation, patience).await
}

/// Asks the service at `path` what it would do for the recipients of a
/// [`Mode::Verify`](crate::ingest::Mode::Verify).
///
/// # Errors
/// [`Unanswered`].
pub async fn ask<T: DeserializeOwned>(path: &Path, invocation: &Invocation) -> Result<T, Unanswered> {
    let mut stream = begin(path, invocation, Duration::ZERO).await?;
    let answer: Answer<T> = within(ANSWER, read_json(&mut stream)).await?;
    Ok(answer?)
}

/// Connects, asks, and is told that it is taken up. A service that is not there, or goes away
/// before it has said that, is being restarted: it is tried again.
pub(super) async fn begin(path: &Path, invocation: &Invocation, patience: Duration) -> Result<UnixStream, Unanswered> {
    begin_until(path, &request(invocation)?, Instant::now() + patience).await
}

fn request(invocation: &Invocation) -> Result<Request, Unanswered> {
    Request::of(invocation).ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported).into())
}

async fn begin_until(path: &Path, request: &Request, deadline: Instant) -> Result<UnixStream, Unanswered> {
    let since = Instant::now();
    loop {
        let error = match begin_once(path, request).await {
            Err(Unanswered::Connection(error)) => error,
            answered => return answered,
        };
        if !may_pass(&error) || timeout_at(deadline, sleep(PAUSE)).await.is_err() {
            return Err(tried_since(since, in_words(error)).into());
        }
    }
}

/// Whoever waited is told that it was in vain, and how long.
fn tried_since(since: Instant, error: io::Error) -> io::Error {
    match since.elapsed().as_secs() {
        0 => error,
        waited => io::Error::new(error.kind(), format!("{error}; no service took it up for {waited} s")),
    }
}

async fn begin_once(path: &Path, request: &Request) -> Result<UnixStream, Unanswered> {
    let mut stream = UnixStream::connect(path).await?;
    // Whoever turns us away has said why, and listens no more.
    let asked = write_json(&mut stream, request).await;
    // For a turn, where this user's others are served first.
    let answer: Answer<()> = match within(PATIENCE, read_json(&mut stream)).await {
        Ok(answer) => answer,
        Err(error) => return Err(hung_up(asked.err().unwrap_or(error)).into()),
    };
    answer?;
    Ok(stream)
}

/// Whether it is what a restart looks like.
fn may_pass(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof, WouldBlock};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotFound | UnexpectedEof | WouldBlock)
}

/// A unit that forbids Unix sockets says only that there are none.
fn in_words(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) {
        let why = "Unix sockets are forbidden here: a unit with RestrictAddressFamilies= needs AF_UNIX in it";
        return io::Error::new(error.kind(), why);
    }
    error
}

/// Says what it means where the service ends a connection without an answer.
pub fn hung_up(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
            io::Error::new(error.kind(), "the service hung up: it is stopping")
        }
        _ => error,
    }
}

/// The next frame of an answer that has several.
pub(super) async fn next_frame(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    within(PATIENCE, read_frame(stream)).await.map_err(hung_up)
}
