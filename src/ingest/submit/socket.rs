//! The socket: whose clients are served when.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::protocol::{Answer, Refusal, json_frame};
use super::service::{SubmitContext, serve_one};

/// Clients of one user that are served at once; others of his wait, in the order they came.
const AT_ONCE: usize = 50;

/// How long a client waits for its turn; then it says 75. His others take seconds each, unless
/// they are slow on purpose.
const TURN: Duration = Duration::from_secs(30);

/// Connections of one user, those that wait included; more are closed, and their clients
/// say 75. A user who holds all that he may holds up nobody else.
const PER_USER: usize = 200;

/// Connections of all users.
const IN_ALL: usize = 600;

/// Between two lines of the log about clients that are turned away.
const TELL_AGAIN: Duration = Duration::from_mins(1);

/// The socket, bound and not yet served.
pub struct SubmitSocket {
    listener: UnixListener,
    /// Where it is ours.
    path: Option<PathBuf>,
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
        Ok(Self { listener, path: Some(path.to_owned()) })
    }

    /// One that somebody else has bound, and keeps when we are gone.
    ///
    /// # Errors
    /// Where it cannot be used.
    pub fn handed_over(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener: UnixListener::from_std(listener)?, path: None })
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
                        turn_away(&stream);
                        continue;
                    };
                    let context = Arc::clone(&context);
                    clients.spawn(async move {
                        tokio::select! {
                            () = context.stop.gentle.cancelled() => {}
                            // Whoever has gone when his turn comes is found to be gone.
                            served = timeout(TURN, turn.wait()) => match served {
                                Ok(_turn) => serve_one(stream, uid, &context).await,
                                Err(_) => turn_away(&stream),
                            },
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
        drop(self.path.as_ref().map(std::fs::remove_file));
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

/// Says why, without waiting for anybody.
fn turn_away(stream: &UnixStream) {
    let refusal = Answer::<()>::Err(Refusal::for_now("too many of your mails are on their way in"));
    if let Ok(frame) = json_frame(&refusal) {
        // Whoever does not hear it is told by the end of the connection.
        let _ = stream.try_write(&frame);
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
