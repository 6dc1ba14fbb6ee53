//! `submit.sock`: handing a message over to the service, for users who may not write the
//! store themselves.
//!
//! The client says in one frame what was asked for, then the message as it reads it, in
//! frames, then an empty one; the service reads it with the same code as if it were its own
//! standard input, and answers with one frame after the commit. A frame is its length (four
//! octets, the most significant first) and so many octets. Who the client is the kernel says.
//! Where `sendmail -bs` was asked for, both speak SMTP behind the first frame.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nix::unistd::Uid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::addresses::Here;
use super::listener::{Control as ListenerControl, Stop as ListenerStop};
use super::sendmail::{Invocation, Mode};
use super::submission::{Caller, Input, submit};
use crate::clock::Clock;
use crate::mail::{Address, MailKey};
use crate::spool::Spool;

/// Octets of one frame at most: a request with a thousand recipients fits.
const MAX_FRAME: usize = 1 << 20;

/// Clients that are served at once; others wait.
const AT_ONCE: usize = 50;

/// How long a client may take for one frame.
const PATIENCE: Duration = Duration::from_mins(5);

/// How long the rest of a refused message is read, so that the client sees the answer.
const DRAIN: Duration = Duration::from_secs(30);

/// How long a question is waited for that needs no mail and no peer.
const ANSWER: Duration = Duration::from_secs(10);

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
pub struct Door {
    /// Where they go: asked for each message, since a reload may replace it.
    pub spool: Arc<dyn Fn() -> Arc<Spool> + Send + Sync>,
    /// Told after each mail that was taken.
    pub accepted: Arc<Notify>,
    /// The time.
    pub clock: Clock,
    /// What speaks SMTP with those who ask for that.
    pub smtp: ListenerControl,
    /// When it is to end doing so.
    pub stop: ListenerStop,
    /// The machine's name and users.
    pub here: Here,
    /// Who has this number; the error says why he cannot submit.
    pub caller: Box<dyn Fn(u32) -> Result<Caller, String> + Send + Sync>,
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

    /// Serves clients until `stop`; those that have begun may end.
    pub async fn serve(self, door: Arc<Door>, stop: CancellationToken) {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut clients = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.accept(&room) => accepted,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let door = Arc::clone(&door);
                    clients.spawn(async move {
                        serve_one(stream, &door).await;
                        drop(permit);
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

    async fn accept(&self, room: &Arc<Semaphore>) -> io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
        let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, _) = self.listener.accept().await?;
        Ok((stream, permit))
    }
}

async fn serve_one(stream: UnixStream, door: &Door) {
    if let Err(error) = serve_request(stream, door).await {
        info!(%error, "the client of a submission went away");
    }
}

/// An error is the connection's.
async fn serve_request(stream: UnixStream, door: &Door) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let mut frames = Frames { stream, ended: false };
    let answer = match serde_json::from_slice::<Invocation>(&read_frame(&mut frames.stream).await?) {
        Ok(invocation) if invocation.mode == Mode::Smtp => {
            door.smtp.speak(frames.stream, uid, door.stop.clone()).await;
            return Ok(());
        }
        Ok(invocation) if invocation.mode == Mode::Verify => {
            return verify(&invocation.recipients, uid, &mut frames.stream, door).await;
        }
        Ok(invocation) => take(&invocation, uid, &mut frames, door).await,
        Err(error) => Answer::refused(64, format!("the request cannot be read: {error}")),
    };
    // With octets unread the client would see a reset instead of the answer.
    let drained = async { while !frames.ended && frames.next().await.is_ok() {} };
    drop(tokio::time::timeout(DRAIN, drained).await);
    write_json(&mut frames.stream, &answer).await
}

/// What would be done for each recipient, as the service knows it. Whoever may not read its
/// configuration is told nothing.
async fn verify(recipients: &[Address], uid: u32, stream: &mut UnixStream, door: &Door) -> io::Result<()> {
    let may_know = uid == 0 || uid == Uid::effective().as_raw();
    let explained = if may_know { (door.spool)().explain(recipients).await } else { Vec::new() };
    write_json(stream, &explained).await
}

async fn take(invocation: &Invocation, uid: u32, frames: &mut Frames, door: &Door) -> Answer {
    let caller = match (door.caller)(uid) {
        Ok(caller) => caller,
        Err(why) => return Answer::refused(78, why),
    };
    match submit(&(door.spool)(), invocation, &caller, &door.here, door.clock.now(), frames).await {
        Ok(key) => {
            info!(mail.id = %key, uid, "accepted over submit.sock");
            door.accepted.notify_one();
            Answer { exit: 0, key: Some(key), message: None }
        }
        Err(error) => Answer::refused(error.exit_code(), error.to_string()),
    }
}

/// What a client sends behind its request.
struct Frames {
    stream: UnixStream,
    /// The empty frame came: the client waits for the answer.
    ended: bool,
}

#[async_trait]
impl Input for Frames {
    async fn next(&mut self) -> io::Result<Vec<u8>> {
        let frame = read_frame(&mut self.stream).await?;
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
    write_json(&mut stream, invocation).await?;
    loop {
        let piece = input.next().await?;
        if piece.is_empty() {
            write_frame(&mut stream, &[]).await?;
            break;
        }
        for piece in piece.chunks(MAX_FRAME) {
            write_frame(&mut stream, piece).await?;
        }
    }
    let answer = read_frame(&mut stream).await?;
    serde_json::from_slice(&answer).map_err(io::Error::other)
}

/// Asks the service at `path` for a session; SMTP is spoken over what is returned.
///
/// # Errors
/// Where nobody listens there.
pub async fn open_session(path: &Path, invocation: &Invocation) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(path).await?;
    write_json(&mut stream, invocation).await?;
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
    let answer = tokio::time::timeout(ANSWER, asked).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    serde_json::from_slice(&answer).map_err(io::Error::other)
}

async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let read = async {
        let length = usize::try_from(stream.read_u32().await?).map_err(io::Error::other)?;
        if length > MAX_FRAME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} octets is too long")));
        }
        let mut frame = vec![0; length];
        stream.read_exact(&mut frame).await?;
        Ok(frame)
    };
    tokio::time::timeout(PATIENCE, read).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), octets: &[u8]) -> io::Result<()> {
    stream.write_u32(u32::try_from(octets.len()).map_err(io::Error::other)?).await?;
    stream.write_all(octets).await
}

async fn write_json(stream: &mut (impl AsyncWrite + Unpin), value: &impl Serialize) -> io::Result<()> {
    write_frame(stream, &serde_json::to_vec(value).map_err(io::Error::other)?).await
}
