//! `submit.sock`: handing a message over to the service, for users who may not write the
//! store themselves.
//!
//! The client says in one frame what was asked for, then the message as it reads it, in
//! frames, then an empty one; the service reads it with the same code as if it were its own
//! standard input, and answers with one frame after the commit. A frame is its length (four
//! octets, the most significant first) and so many octets. Who the client is the kernel says.
//! Where `sendmail -bs` was asked for, both speak SMTP behind the first frame.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use nix::unistd::Uid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::addresses::Here;
use super::intake::Intake;
use super::listener::Control as ListenerControl;
use super::queue;
use super::sendmail::{Invocation, Mode};
use super::submission::{Caller, Input, submit};
use crate::clock::Clock;
use crate::live::Live;
use crate::mail::{Address, MailKey};
use crate::stop::Stop;

/// Octets of one frame at most: a request with a thousand recipients fits.
const MAX_FRAME: usize = 1 << 20;

/// Clients of one user that are served at once; others of his wait, in the order they came.
const AT_ONCE: usize = 50;

/// Connections of one user, those that wait included; more are closed, and their clients
/// say 75. A user who holds all that he may holds up nobody else.
const PER_USER: usize = 200;

/// Connections of all users.
const IN_ALL: usize = 600;

/// Between two lines of the log about clients that are turned away.
const TELL_AGAIN: Duration = Duration::from_mins(1);

/// How long a client may take to say what it wants: the program knows that when it connects.
const REQUEST: Duration = Duration::from_secs(10);

/// How long it may take for one frame of the message, which somebody may be typing.
pub(super) const PATIENCE: Duration = Duration::from_mins(5);

/// How long the rest of a refused message is read, so that the client sees the answer.
const DRAIN: Duration = Duration::from_secs(30);

/// How long a question is waited for that needs no mail and no peer.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// The socket's name in the state directory.
pub const SOCKET: &str = "submit.sock";

/// What the service says in the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The code of sysexits(3) that the client ends with; 0 once the mail is committed.
    pub exit: u8,
    /// The mail.
    pub key: Option<MailKey>,
    /// Why it was not taken.
    pub message: Option<String>,
}

impl Answer {
    fn refused(exit: u8, message: String) -> Self {
        Self { exit, key: None, message: Some(message) }
    }
}

/// What the service takes messages with.
pub struct SubmitContext {
    /// What new mail meets.
    pub intake: Live<Intake>,
    /// Told after each mail that was taken.
    pub accepted: Arc<Notify>,
    /// The time.
    pub clock: Clock,
    /// What speaks SMTP with those who ask for that.
    pub smtp: ListenerControl,
    /// Asks it to end.
    pub stop: Stop,
    /// Who has this number on the machine; the error says why he cannot submit.
    pub caller: fn(u32, &Here) -> Result<Caller, String>,
}

/// The socket, bound and not yet served.
pub struct SubmitSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl SubmitSocket {
    /// Binds `path`, in place of what a service that died has left there. Any user who can
    /// reach it may submit.
    ///
    /// # Errors
    /// Where it cannot be bound, or a service is listening there.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "a service is listening there"));
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves clients until `stop`. Those that have begun a message may end, until the context's
    /// hard stop; a commit under way still ends then.
    pub async fn serve(self, context: Arc<SubmitContext>, stop: CancellationToken) {
        let (mut users, mut turned_away) = (Users::default(), TurnedAway::default());
        let mut clients = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok((stream, uid)) => {
                    let Some(turn) = users.admit(uid) else {
                        turned_away.one_more(uid, context.clock.instant());
                        continue;
                    };
                    let context = Arc::clone(&context);
                    clients.spawn(async move {
                        tokio::select! {
                            () = context.stop.gentle.cancelled() => {}
                            // Whoever has gone when his turn comes is found to be gone.
                            _turn = turn.wait() => serve_one(stream, uid, &context).await,
                        }
                    });
                }
                Err(error) => {
                    warn!(%error, "a submission cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            while clients.try_join_next().is_some() {}
        }
        // Whoever comes now is to find nobody, and to try again.
        drop(std::fs::remove_file(&self.path));
        drop(self.listener);
        while clients.join_next().await.is_some() {}
    }

    /// The next connection, and the number of its user.
    async fn accept(&self) -> io::Result<(UnixStream, u32)> {
        let (stream, _) = self.listener.accept().await?;
        let uid = stream.peer_cred()?.uid();
        Ok((stream, uid))
    }
}

/// The users with connections, each with the turns that his clients take.
#[derive(Default)]
struct Users(HashMap<u32, Arc<Semaphore>>);

/// One client's place among those of its user.
struct Turn {
    turns: Arc<Semaphore>,
}

impl Users {
    /// A place for one more client of `uid`; `None` where there is none. A place is counted
    /// by its share in the user's turns.
    fn admit(&mut self, uid: u32) -> Option<Turn> {
        let open = |turns: &Arc<Semaphore>| Arc::strong_count(turns) - 1;
        self.0.retain(|_, turns| open(turns) > 0);
        if self.0.values().map(open).sum::<usize>() >= IN_ALL {
            return None;
        }
        let turns = self.0.entry(uid).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE)));
        (open(turns) < PER_USER).then(|| Turn { turns: Arc::clone(turns) })
    }
}

/// Clients that were turned away: any user can bring them about by the thousand.
#[derive(Default)]
struct TurnedAway {
    number: u64,
    told: Option<Instant>,
}

impl TurnedAway {
    /// Tells the log, now and then.
    fn one_more(&mut self, uid: u32, now: Instant) {
        self.number += 1;
        if self.told.is_none_or(|told| now.duration_since(told) >= TELL_AGAIN) {
            let turned_away = std::mem::take(&mut self.number);
            warn!(uid, turned_away, "submissions are turned away: this user, or all together, have too many under way");
            self.told = Some(now);
        }
    }
}

impl Turn {
    /// Waits until fewer than [`AT_ONCE`] are served; the place is given back with what is
    /// returned.
    async fn wait(self) -> OwnedSemaphorePermit {
        self.turns.acquire_owned().await.expect("it is never closed")
    }
}

async fn serve_one(stream: UnixStream, uid: u32, context: &SubmitContext) {
    if let Err(error) = serve_request(stream, uid, context).await {
        info!(%error, uid, "the client of a submission went away");
    }
}

/// An error is the connection's.
async fn serve_request(stream: UnixStream, uid: u32, context: &SubmitContext) -> io::Result<()> {
    let mut frames = Frames { stream, ended: false, stop: &context.stop };
    let request = tokio::select! {
        () = context.stop.gentle.cancelled() => return Ok(()),
        request = within(REQUEST, read_frame(&mut frames.stream)) => request?,
    };
    let answer = match serde_json::from_slice::<Invocation>(&request) {
        Ok(invocation) if invocation.mode == Mode::Smtp => {
            context.smtp.speak(frames.stream, uid, context.stop.clone()).await;
            return Ok(());
        }
        Ok(invocation) if invocation.mode == Mode::Verify => {
            return verify(&invocation.recipients, uid, &mut frames.stream, context).await;
        }
        Ok(invocation) if invocation.mode == Mode::List => {
            return tokio::select! {
                () = context.stop.gentle.cancelled() => Ok(()),
                told = queue::tell(&mut frames.stream, uid, context) => told,
            };
        }
        Ok(invocation) => take(&invocation, uid, &mut frames, context).await,
        Err(error) => Answer::refused(64, format!("the request cannot be read: {error}")),
    };
    // With octets unread the client would see a reset instead of the answer.
    let drained = async { while !frames.ended && frames.next().await.is_ok() {} };
    drop(tokio::time::timeout(DRAIN, drained).await);
    write_json(&mut frames.stream, &answer).await
}

/// What would be done for each recipient, as the service knows it. Whoever may not read its
/// configuration is told nothing.
async fn verify(recipients: &[Address], uid: u32, stream: &mut UnixStream, context: &SubmitContext) -> io::Result<()> {
    let explained = if is_trusted(uid) { context.intake.now().spool.explain(recipients).await } else { Vec::new() };
    write_json(stream, &explained).await
}

/// Whether he could read configuration and store himself.
pub(super) fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == Uid::effective().as_raw()
}

async fn take(invocation: &Invocation, uid: u32, frames: &mut Frames<'_>, context: &SubmitContext) -> Answer {
    let intake = context.intake.now();
    let caller = match (context.caller)(uid, &intake.here) {
        Ok(caller) => caller,
        Err(why) => return Answer::refused(78, why),
    };
    match submit(&intake.spool, invocation, &caller, &intake.here, context.clock.now(), frames).await {
        Ok(key) => {
            info!(mail.id = %key, uid, "accepted over submit.sock");
            context.accepted.notify_one();
            Answer { exit: 0, key: Some(key), message: None }
        }
        Err(error) => Answer::refused(error.exit_code(), error.to_string()),
    }
}

/// What a client sends behind its request.
struct Frames<'a> {
    stream: UnixStream,
    /// The empty frame came: the client waits for the answer.
    ended: bool,
    stop: &'a Stop,
}

#[async_trait]
impl Input for Frames<'_> {
    async fn next(&mut self) -> io::Result<Vec<u8>> {
        let frame = tokio::select! {
            () = self.stop.hard.cancelled() => return Err(io::Error::other("the service is stopping")),
            frame = within(PATIENCE, read_frame(&mut self.stream)) => frame?,
        };
        self.ended = frame.is_empty();
        Ok(frame)
    }
}

/// Hands a message over to the service at `path`.
///
/// # Errors
/// Where nobody listens there, or the connection breaks: the mail is then not known to be taken.
pub async fn hand_over(path: &Path, invocation: &Invocation, input: &mut dyn Input) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(path).await?;
    write_json(&mut stream, invocation).await.map_err(hung_up)?;
    loop {
        let piece = input.next().await?;
        if piece.is_empty() {
            write_frame(&mut stream, &[]).await.map_err(hung_up)?;
            break;
        }
        for piece in piece.chunks(MAX_FRAME) {
            write_frame(&mut stream, piece).await.map_err(hung_up)?;
        }
    }
    let answer = within(PATIENCE, read_frame(&mut stream)).await.map_err(hung_up)?;
    serde_json::from_slice(&answer).map_err(io::Error::other)
}

/// Asks the service at `path` for a session; SMTP is spoken over what is returned.
///
/// # Errors
/// Where nobody listens there.
pub async fn open_session(path: &Path, invocation: &Invocation) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(path).await?;
    write_json(&mut stream, invocation).await.map_err(hung_up)?;
    Ok(stream)
}

/// Asks the service at `path` what it would do for the recipients of a [`Mode::Verify`].
///
/// # Errors
/// Where nobody listens there, or the answer is none.
pub async fn ask<T: DeserializeOwned>(path: &Path, invocation: &Invocation) -> io::Result<T> {
    let asked = async {
        let mut stream = open_session(path, invocation).await?;
        read_frame(&mut stream).await
    };
    let answer = within(ANSWER, asked).await?;
    serde_json::from_slice(&answer).map_err(io::Error::other)
}

/// Says what it means where the service ends a connection without an answer.
pub fn hung_up(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => io::Error::new(
            error.kind(),
            "the service hung up: it is stopping, or too many of your mails are on their way in",
        ),
        _ => error,
    }
}

pub(super) async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = usize::try_from(stream.read_u32().await?).map_err(io::Error::other)?;
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} octets is too long")));
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

pub(super) async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, work).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

pub(super) async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), octets: &[u8]) -> io::Result<()> {
    stream.write_u32(u32::try_from(octets.len()).map_err(io::Error::other)?).await?;
    stream.write_all(octets).await
}

pub(super) async fn write_json(stream: &mut (impl AsyncWrite + Unpin), value: &impl Serialize) -> io::Result<()> {
    write_frame(stream, &serde_json::to_vec(value).map_err(io::Error::other)?).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_user_who_holds_all_that_he_may_holds_up_nobody_else() {
        let mut users = Users::default();
        let mut waiting = Vec::new();
        for _ in 0..PER_USER {
            waiting.push(users.admit(1000).expect("a place"));
        }
        assert!(users.admit(1000).is_none(), "he has no more");
        let busy = served(waiting.drain(..AT_ONCE)).await;
        let next = waiting.pop().expect("one that waits").wait();
        let mut next = std::pin::pin!(next);
        assert!(tokio::time::timeout(Duration::from_millis(10), next.as_mut()).await.is_err(), "it waits for its turn");
        let _other = users.admit(1001).expect("a place of another's").wait().await;
        drop(busy);
        drop(next.await);
        assert!(users.admit(1000).is_some(), "there is room again");
    }

    async fn served(turns: impl Iterator<Item = Turn>) -> Vec<OwnedSemaphorePermit> {
        let mut held = Vec::new();
        for turn in turns {
            held.push(turn.wait().await);
        }
        held
    }

    #[test]
    fn all_together_have_a_limit_too_and_who_has_gone_is_forgotten() {
        let mut users = Users::default();
        let held: Vec<_> = (0..IN_ALL).map(|number| users.admit(u32::try_from(number / 100).expect("few"))).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(users.admit(7777).is_none());
        drop(held);
        assert!(users.admit(7777).is_some());
        assert_eq!(users.0.len(), 1);
    }
}
