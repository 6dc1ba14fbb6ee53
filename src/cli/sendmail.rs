//! `sendmail`: a message from standard input, ours once this exits with 0.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::net::UnixStream;

use super::app::App;
use super::args::Format;
use super::exit::{Exit, Failure};
use super::repository::QueueTable;
use super::run::{sweep_all, sweep_job};
use super::{explain, note};
use crate::audit::{QueuePage, attempt_picture};
use crate::clock::Clock;
use crate::config::{Config, SPOOL_JOB};
use crate::ingest::{
    Here, Input, Invocation, Listener, ListenerConfig, ListenerContext, Mode, QueueTold, SOCKET, SubmitError, Waiting,
    hand_over, hung_up, open_session, parse, submit,
};
use crate::jobs::{self, Order, Progress};
use crate::live::Live;
use crate::mail::{MailKey, RepositoryPath};
use crate::parts::{self, users};
use crate::stop::Stop;
use crate::store::{AttemptFilter, MailFilter, Time};

/// Octets read at once.
const PIECE: usize = 64 * 1024;

/// Lines of a listing whose columns are laid out together.
const TOLD_AT_ONCE: usize = 200;

/// Reads the arguments; what is wrong with them is known before anything is opened.
pub(super) fn invocation(arguments: Vec<OsString>, here: &Here) -> Result<Invocation, Failure> {
    parse(arguments, here).map_err(|error| {
        let exit = if error.exit_code() == 65 { Exit::Data } else { Exit::Usage };
        Failure::new(exit, error.to_string())
    })
}

/// Takes `--config FILE` out of a sub-command's words, where it may stand as well as in
/// front of it; what is behind `--` is nobody's option.
pub(super) fn own_options(words: Vec<OsString>, given: Option<PathBuf>) -> (Option<PathBuf>, Vec<OsString>) {
    let (mut config, mut rest) = (given, Vec::with_capacity(words.len()));
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word == "--" {
            rest.push(word);
            rest.extend(words.by_ref());
        } else if word == "--config" {
            config = words.next().map(PathBuf::from);
        } else if let Some(file) = word.to_str().and_then(|word| word.strip_prefix("--config=")) {
            config = Some(PathBuf::from(file));
        } else {
            rest.push(word);
        }
    }
    (config, rest)
}

/// What `sendmail --help` says.
pub(super) const HELP: &str = "\
Take a message from standard input, as sendmail does

Usage: redeliver sendmail [OPTIONS] [RECIPIENT]...

  -t                  Add the recipients of To:, Cc: and Bcc:, and remove Bcc:
  -i, -oi             A line with a single dot does not end the message
  -f, -r ADDRESS      Reverse-path, <> for null [default: the user at this host]
  -F NAME             Name for a From: that is missing
  -v                  Attempt it now, and show what was said on standard error
  -O smtputf8         Header octets outside ASCII are UTF-8
  -O requiretls       Only to gateways whose certificate verifies and that offer REQUIRETLS
  -bs                 Speak SMTP on standard input and output
  -bp                 List what waits, as mailq does; with --format json as JSON Lines
  -bv                 Say how the recipients would be routed, and send nothing
  -bd                 Be the service: redeliver serve
  -q, -qI KEY, -qR DOMAIN
                      Attempt what waits now: all, one mail, one domain
  --config FILE       Configuration file
  --                  What follows are recipients

-N, -R and -V are stored with the mail, though no DSN is sent yet; -B is checked; -C is
refused; other options of old are accepted and left out. The exit code is 0 once the mail
is committed, 64 for wrong usage, 65 for what is no address or no message, 75 where it
cannot be stored now, 78 for the configuration.
";

/// Does what the arguments ask for. `uid` is the user who called.
pub(super) async fn run(
    app: &App,
    invocation: &Invocation,
    here: &Here,
    uid: u32,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    match &invocation.mode {
        Mode::Submit => take(app, invocation, here, uid).await,
        Mode::Smtp => speak(app, uid, out).await,
        Mode::List => list(app, invocation.json, out).await,
        Mode::Sweep(Waiting::All) => sweep_all(app, out).await,
        Mode::Sweep(Waiting::Key(key)) => sweep_one(app, key, out).await,
        Mode::Sweep(Waiting::Domain(domain)) => {
            let filter = MailFilter { domain: Some(domain.clone()), ..MailFilter::default() };
            sweep_some(app, &filter, out).await
        }
        // The others were carried out without the parts.
        Mode::Aliases | Mode::Verify | Mode::Serve | Mode::Help => Ok(Exit::Ok),
    }
}

async fn take(app: &App, invocation: &Invocation, here: &Here, uid: u32) -> Result<Exit, Failure> {
    let caller = users::caller(uid, here).map_err(|message| Failure::new(Exit::Configuration, message))?;
    let now = app.clock.now();
    let key = submit(&app.spool, invocation, &caller, here, now, &mut StandardInput).await?;
    tracing::info!(mail.id = %key, "accepted from standard input");
    if invocation.verbose {
        show_delivery(app, &key, now).await?;
    }
    Ok(Exit::Ok)
}

/// `-bs`: one session on standard input and output, with the listener's parser and limits.
async fn speak(app: &App, uid: u32, out: &mut impl Write) -> Result<Exit, Failure> {
    // Nobody can listen in between, and the key may be out of this user's reach.
    let config = ListenerConfig { listen: Vec::new(), tls: None, users: None, ..parts::listener_config(&app.config)? };
    let intake = Live::new(parts::intake(&app.config, &app.spool)?);
    let context = ListenerContext { intake, clock: app.clock.clone(), accepted: Arc::default() };
    let unusable = |error: &dyn std::fmt::Display| Failure::new(Exit::Deferred, error.to_string());
    let listener = Listener::bind(&config, context).map_err(|error| unusable(&error))?;
    let (ours, theirs) = UnixStream::pair().map_err(|error| unusable(&error))?;
    let session = tokio::spawn(async move { listener.control().speak(theirs, uid, Stop::default()).await });
    join_standard_streams(ours, out)?;
    session.await.map_err(|panic| Failure::new(Exit::Internal, panic.to_string()))?;
    Ok(Exit::Ok)
}

/// Copies standard input into `stream`, and what comes back to standard output, until
/// there is no more of that; whether anything came back.
fn join_standard_streams(stream: UnixStream, out: &mut impl Write) -> io::Result<bool> {
    let mut from = stream.into_std()?;
    from.set_nonblocking(false)?;
    let mut to = from.try_clone()?;
    // Left alone in the end: it may wait for input that never comes.
    std::thread::spawn(move || {
        // However the input ends, the client has said all.
        let _ = pass_on(&mut io::stdin().lock(), &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    tokio::task::block_in_place(|| {
        let copied = pass_on(&mut from, out);
        // The session does not wait for more.
        let _ = from.shutdown(std::net::Shutdown::Both);
        copied
    })
}

/// As `io::copy`, without its splice(2): that holds a pipe's lock while it waits for the
/// socket, and whoever reads the pipe waits with it. Whether there was anything.
fn pass_on(from: &mut impl Read, to: &mut impl Write) -> io::Result<bool> {
    let mut any = false;
    loop {
        // Who ends a connection without reading all that was said resets it.
        let piece = match read_piece(from) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Vec::new(),
            read => read?,
        };
        if piece.is_empty() {
            return Ok(any);
        }
        any = true;
        to.write_all(&piece)?;
        to.flush()?;
    }
}

/// Hands the message, the session or the question over to the service, where this user may
/// not open the store.
///
/// # Errors
/// `why` it could not be stored here, where no service takes it either.
pub(super) async fn hand_over_to(
    config: &Config,
    clock: &Clock,
    invocation: &Invocation,
    why: Failure,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let socket = config.state_directory.join(SOCKET);
    let taken = match invocation.mode {
        _ if why.exit != Exit::Deferred => return Err(why),
        Mode::Submit if is_socket(&socket) => hand_over_message(&socket, invocation, &why).await,
        Mode::Smtp if is_socket(&socket) => hand_over_session(&socket, invocation, &why, out).await,
        Mode::List if is_socket(&socket) => list_told(&socket, invocation.json, &why, clock.now(), out).await,
        _ => Err(why),
    };
    if taken.is_err() && invocation.mode == Mode::Smtp {
        // Whoever speaks SMTP waits for a reply, and may see no exit code.
        write!(out, "421 4.3.0 {} mail cannot be stored now, try again later\r\n", config.hostname)?;
    }
    taken
}

async fn hand_over_session(
    socket: &Path,
    invocation: &Invocation,
    why: &Failure,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let stream = open_session(socket, invocation).await.map_err(|error| neither(why, socket, &error))?;
    if join_standard_streams(stream, out)? {
        return Ok(Exit::Ok);
    }
    Err(neither(why, socket, &hung_up(io::ErrorKind::UnexpectedEof.into())))
}

/// Neither the store nor the service takes it.
fn neither(why: &Failure, socket: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Deferred, format!("{}; {}: {error}", why.message, socket.display()))
}

async fn hand_over_message(socket: &Path, invocation: &Invocation, why: &Failure) -> Result<Exit, Failure> {
    let answer =
        hand_over(socket, invocation, &mut StandardInput).await.map_err(|error| neither(why, socket, &error))?;
    match answer.exit {
        0 => {
            if invocation.verbose {
                note("the mail is stored; the service attempts it");
            }
            Ok(Exit::Ok)
        }
        64 => Err(Failure::new(Exit::Usage, answer.message.unwrap_or_default())),
        65 => Err(Failure::new(Exit::Data, answer.message.unwrap_or_default())),
        78 => Err(Failure::new(Exit::Configuration, answer.message.unwrap_or_default())),
        _ => Err(Failure::new(Exit::Deferred, answer.message.unwrap_or_default())),
    }
}

/// Whether a service takes messages of users who cannot store them themselves.
pub(super) fn has_service(config: &Config) -> bool {
    is_socket(&config.state_directory.join(SOCKET))
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    path.metadata().is_ok_and(|facts| facts.file_type().is_socket())
}

/// Standard input, from which nothing else of this program reads.
struct StandardInput;

#[async_trait]
impl Input for StandardInput {
    async fn next(&mut self) -> io::Result<Vec<u8>> {
        read_piece(&mut io::stdin().lock())
    }
}

/// The next octets, as soon as there are any; empty at the end.
fn read_piece(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => {
                piece.truncate(read?);
                return Ok(piece);
            }
        }
    }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        let exit = match error.exit_code() {
            64 => Exit::Usage,
            65 => Exit::Data,
            _ => Exit::Deferred,
        };
        Self::new(exit, error.to_string())
    }
}

/// `-v`: attempts the mail now, and shows on standard error what was said for this mail.
async fn show_delivery(app: &App, key: &MailKey, since: Time) -> Result<(), Failure> {
    let progress = Progress::default();
    let only = Arc::from([key.clone()]);
    let order = Order { job: SPOOL_JOB, all_due: true, trigger: "command", only: Some(&only) };
    let swept = app.runner(&progress).run(order, app.job(SPOOL_JOB)?).await?;
    if let Some(error) = swept.failure {
        return Err(error.into());
    }
    let filter = AttemptFilter { since: Some(since), ..AttemptFilter::default() };
    let mut after = None;
    let mut shown = false;
    loop {
        let page = app.store.attempts(&filter, after, 100).await?;
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        for (_, attempt) in page.iter().filter(|(_, attempt)| attempt.key == *key) {
            shown = true;
            // What cannot be shown is on record all the same.
            let _ = io::stderr().write_all(attempt_picture(attempt).as_bytes());
        }
    }
    if !shown {
        note("the mail is stored; it was not attempted here");
    }
    Ok(())
}

/// `-bv`: as explain, for each recipient.
pub(super) async fn verify(config: &Config, invocation: &Invocation, out: &mut impl Write) -> Result<Exit, Failure> {
    explain::explain(config, &Clock::system(), &invocation.recipients, Format::Text, out).await
}

/// The repositories that jobs deliver out of, each with its job's processor.
fn swept(app: &App) -> Vec<(RepositoryPath, String)> {
    let sweeps = app.config.jobs.values().filter_map(|job| match job {
        jobs::Config::Reprocess(sweep) => Some((sweep.repository.clone(), sweep.processor.clone())),
        _ => None,
    });
    sweeps.collect()
}

/// `-qI`: one mail, wherever it waits.
async fn sweep_one(app: &App, key: &MailKey, out: &mut impl Write) -> Result<Exit, Failure> {
    app.operations().fetch(&swept(app), key).await?;
    sweep_job(app, SPOOL_JOB, Some(&Arc::from([key.clone()])), out).await
}

/// `-qR`: the mails that match, wherever they wait. One that is in hand is attempted already.
async fn sweep_some(app: &App, filter: &MailFilter, out: &mut impl Write) -> Result<Exit, Failure> {
    let only = app.operations().gather(&swept(app), filter).await?;
    sweep_job(app, SPOOL_JOB, Some(&only.into()), out).await
}

/// As mailq: what waits in the spool, and what is kept for a next pass.
async fn list(app: &App, json: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    let mut queue = app.spool.queue(app.config.kept_repositories(), None);
    let mut table = QueueTable::new(json);
    while let Some(page) = queue.next().await? {
        table.write(&page, app.clock.now(), out)?;
    }
    table.end(out)?;
    Ok(Exit::Ok)
}

/// As mailq, of what the service tells this user.
async fn list_told(socket: &Path, json: bool, why: &Failure, now: Time, out: &mut impl Write) -> Result<Exit, Failure> {
    let unable = |error: &io::Error| neither(why, socket, error);
    let mut told = QueueTold::ask(socket).await.map_err(|error| unable(&error))?;
    let mut table = QueueTable::new(json);
    let mut page = QueuePage { place: String::new(), mails: Vec::new() };
    while let Some((place, mail)) = told.next().await.map_err(|error| unable(&error))? {
        if page.mails.len() == TOLD_AT_ONCE || page.place != place {
            if !page.mails.is_empty() {
                table.write(&page, now, out)?;
            }
            page = QueuePage { place, mails: Vec::new() };
        }
        page.mails.push(mail);
    }
    if !page.mails.is_empty() {
        table.write(&page, now, out)?;
    }
    table.end(out)?;
    if let Some(only) = told.only {
        note(&format!("only mails from {only} are listed here; root is told of all"));
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_may_be_named_on_either_side_of_the_sub_command() {
        let own = |words: &[&str]| {
            let (config, rest) = own_options(words.iter().map(OsString::from).collect(), None);
            let rest: Vec<_> = rest.into_iter().map(|word| word.into_string().expect("UTF-8")).collect();
            (config, rest.join(" "))
        };
        assert_eq!(own(&["-i", "--config", "f", "a@b"]), (Some("f".into()), "-i a@b".into()));
        assert_eq!(own(&["--config=f", "a@b"]), (Some("f".into()), "a@b".into()));
        assert_eq!(own(&["--", "--config", "f"]), (None, "-- --config f".into()));
    }
}
