//! What this user cannot do by himself, handed over to the service.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use super::super::exit::{Exit, Failure};
use super::super::note;
use super::exit;
use super::listing::list_told;
use super::stdio::{StandardInput, join_standard_streams};
use crate::clock::Clock;
use crate::config::Config;
use crate::ingest::{Invocation, Kept, Mode, Unanswered, hand_over, hung_up, open_session};
use crate::parts::submission::{is_socket, socket};

/// How long a service that is being restarted is waited for: nothing is lost by that.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the service is asked for in place of its user.
pub(super) struct HandOver<'a> {
    /// Where he may read it.
    pub(super) config: Option<&'a Config>,
    pub(super) invocation: &'a Invocation,
    /// What it ends with where no service takes it.
    pub(super) why: Failure,
    /// Nobody else can do it: a service that is not there is waited for.
    pub(super) only_service: bool,
}

impl HandOver<'_> {
    /// Hands the message, the session or the question over.
    ///
    /// # Errors
    /// Why it was not done here, and by the service neither.
    pub(super) async fn carry_out(self, clock: &Clock, out: &mut impl Write) -> Result<Exit, Failure> {
        let socket = socket(self.config);
        let done = match self.invocation.mode {
            _ if !self.only_service && !is_socket(&socket) => Err(self.why),
            Mode::Submit => self.message(&socket).await,
            Mode::Smtp => session(&socket, self.invocation, &self.why, out).await,
            Mode::List => list_told(&socket, self.invocation.json, &self.why, clock.now(), out).await,
            _ => Err(self.why),
        };
        if done.is_err() && self.invocation.mode == Mode::Smtp {
            // Whoever speaks SMTP waits for a reply, and may see no exit code.
            let hostname = self.config.map_or("localhost", |config| &config.hostname);
            write!(out, "421 4.3.0 {hostname} mail cannot be stored now, try again later\r\n")?;
        }
        done
    }

    /// A message, which is read to its end before the service hears of it.
    async fn message(&self, socket: &Path) -> Result<Exit, Failure> {
        let limit = self.config.map(|config| config.smtp.max_message_size);
        let message = Kept::read(&mut StandardInput, self.invocation, limit, &std::env::temp_dir()).await?;
        let handed_over = hand_over(socket, self.invocation, PATIENCE, &message).await;
        let handed_over = handed_over.map_err(|error| unanswered(error, &self.why, socket))?;
        if handed_over.perhaps_twice {
            note("a service went away before its answer: the mail may have been taken twice");
        }
        if self.invocation.verbose {
            note("the mail is stored; the service attempts it");
        }
        Ok(Exit::Ok)
    }
}

async fn session(socket: &Path, invocation: &Invocation, why: &Failure, out: &mut impl Write) -> Result<Exit, Failure> {
    let opened = open_session(socket, invocation, PATIENCE).await;
    let stream = opened.map_err(|error| unanswered(error, why, socket))?;
    if join_standard_streams(stream, out)? {
        return Ok(Exit::Ok);
    }
    Err(unanswered(hung_up(io::ErrorKind::UnexpectedEof.into()).into(), why, socket))
}

/// What the service says is the answer; where nobody says anything, neither it nor this user
/// can do it.
pub(super) fn unanswered(error: Unanswered, why: &Failure, socket: &Path) -> Failure {
    match error {
        Unanswered::Refused(refusal) => Failure::new(exit(refusal.exit), refusal.message),
        Unanswered::Connection(error) => {
            Failure::new(why.exit, format!("{}; {}: {error}", why.message, socket.display()))
        }
    }
}

/// Why mail is left to the service where there is no store to be seen and somebody listens elsewhere.
///
/// A sandbox may have an empty folder in place of ours (`TemporaryFileSystem=/var`), and what were
/// stored in it would go with it.
pub(super) fn hidden_store(config: &Config, mode: &Mode) -> Option<Failure> {
    let (store, socket) = (&config.store.path, socket(Some(config)));
    let asked = matches!(mode, Mode::Submit | Mode::Smtp | Mode::List);
    let hidden = asked && !store.exists() && !socket.starts_with(&config.state_directory);
    let why = || Failure::new(Exit::Deferred, format!("{} is not there, as in a sandbox", store.display()));
    (hidden && UnixStream::connect(&socket).is_ok()).then(why)
}

/// Whether this user may not write the store, so that only the service can.
pub(super) fn is_forbidden(store: &Path) -> bool {
    let writable = |path: &Path| access(path, AccessFlags::W_OK);
    match writable(store) {
        Err(Errno::EACCES) => true,
        Err(Errno::ENOENT) => store.parent().is_some_and(|folder| writable(folder) == Err(Errno::EACCES)),
        _ => false,
    }
}
