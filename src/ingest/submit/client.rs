//! The side of the program that asks.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout_at};

use super::protocol::{
    ANSWER, Answer, MAX_FRAME, PATIENCE, Refusal, Request, read_frame, read_json, within, write_frame, write_json,
};
use crate::ingest::sendmail::Invocation;
use crate::ingest::submission::Input;
use crate::mail::MailKey;

/// Between two tries to reach a service that is being restarted.
const PAUSE: Duration = Duration::from_millis(200);

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

/// Hands a message over to the service at `path`, which is waited for as long as `patience`
/// says: the input is read only once the service has taken the request up.
///
/// # Errors
/// [`Unanswered`]; behind a broken connection the mail is not known to be taken.
pub async fn hand_over(
    path: &Path,
    invocation: &Invocation,
    patience: Duration,
    input: &mut dyn Input,
) -> Result<MailKey, Unanswered> {
    let mut stream = begin(path, invocation, patience).await?;
    // Whoever refuses reads on for a while, and may have said why where he stopped.
    let sent = send(&mut stream, input).await;
    let answer: Answer<MailKey> = match within(PATIENCE, read_json(&mut stream)).await {
        Ok(answer) => answer,
        Err(error) => return Err(hung_up(sent.err().unwrap_or(error)).into()),
    };
    Ok(answer?)
}

async fn send(stream: &mut UnixStream, input: &mut dyn Input) -> io::Result<()> {
    loop {
        let piece = input.next().await?;
        if piece.is_empty() {
            return write_frame(stream, &[]).await;
        }
        for piece in piece.chunks(MAX_FRAME) {
            write_frame(stream, piece).await?;
        }
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
    let Some(request) = Request::of(invocation) else {
        return Err(io::Error::from(io::ErrorKind::Unsupported).into());
    };
    let deadline = Instant::now() + patience;
    loop {
        let error = match begin_once(path, &request).await {
            Err(Unanswered::Connection(error)) => error,
            answered => return answered,
        };
        if !may_pass(&error) || timeout_at(deadline, sleep(PAUSE)).await.is_err() {
            return Err(in_words(error).into());
        }
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
