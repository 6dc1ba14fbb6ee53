//! `sendmail`: a message from standard input, ours once this exits with 0.

mod listing;
mod service;
mod stdio;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::UnixStream;
use tracing::level_filters::LevelFilter;

use super::app::App;
use super::args::Format;
use super::exit::{Exit, Failure};
use super::output::StandardOutput;
use super::run::{ends_in_order, sweep_all, sweep_job};
use super::{block_on, explain, find, load, note, note_all, refused, serve, start_logging};
use crate::audit::attempt_picture;
use crate::clock::Clock;
use crate::config::{self, Config, Doubt, ForSubmission, SPOOL_JOB};
use crate::ingest::{
    Here, Invocation, Listener, ListenerConfig, ListenerContext, Mode, SubmitError, UsageError, Waiting, parse, submit,
};
use crate::jobs::{self, Order, Progress};
use crate::live::Live;
use crate::mail::{Domain, MailKey, RepositoryPath};
use crate::operations::Conditions;
use crate::parts::submission::{is_socket, socket};
use crate::parts::{self, users};
use crate::stop::Stop;
use crate::store::{AttemptFilter, Span, Time};
use service::HandOver;
use stdio::{StandardInput, join_standard_streams};

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

-N, -R and -V say what the sender wants to be told of (RFC 3461): NEVER, or any of SUCCESS,
FAILURE and DELAY; FULL or HDRS; an envelope id. -B is checked; -C is refused; other
options of old are accepted and left out. The exit code is 0 once the mail
is committed, 64 for wrong usage, 65 for what is no address or no message, 75 where it
cannot be stored now, 78 for the configuration.
";

/// The configuration for what a mail program asks for, or why it is not to be used here.
enum Loaded {
    Usable(Box<Config>),
    /// The service may know better, or be allowed to read it.
    ForService {
        config: Option<Box<Config>>,
        why: Failure,
        /// Nobody else can do it, and nothing is wrong: it is waited for.
        only_service: bool,
    },
}

/// Carries out what the words behind the program's name ask for. What is wrong with the
/// options is known before anything is opened.
pub(super) fn main(arguments: Vec<OsString>, option: Option<PathBuf>, by_name: bool) -> Result<Exit, Failure> {
    let invocation = parse(arguments)?;
    match invocation.mode {
        Mode::Help => {
            write!(StandardOutput::new(), "{HELP}")?;
            return Ok(Exit::Ok);
        }
        // They are read as they are.
        Mode::Aliases => return Ok(Exit::Ok),
        Mode::Serve => return serve(option, by_name, Clock::system()),
        _ => {}
    }
    let loaded = match invocation.mode {
        Mode::Submit | Mode::Smtp | Mode::List => load_for_submission(option, by_name)?,
        _ => load_for_inquiry(option, by_name)?,
    };
    match loaded {
        Loaded::Usable(config) => with_configuration(&config, &invocation),
        Loaded::ForService { config, why, only_service } => {
            refuse_wrong_addresses(&invocation)?;
            let hand_over = HandOver { config: config.as_deref(), invocation: &invocation, why, only_service };
            block_on(async { hand_over.carry_out(&Clock::system(), &mut StandardOutput::new()).await })
        }
    }
}

/// What is an address on no machine is said at once, and not when the message has been read.
fn refuse_wrong_addresses(invocation: &Invocation) -> Result<(), Failure> {
    if invocation.mode == Mode::Submit {
        let anywhere = Domain::parse("localhost").map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
        invocation.parties(&Here::new(anywhere, |_| true))?;
    }
    Ok(())
}

/// A message is not given up for a job or a schedule that somebody has just written, nor for
/// what its user may not read, as long as a service takes it.
fn load_for_submission(option: Option<PathBuf>, by_mail_program: bool) -> Result<Loaded, Failure> {
    let source = find(option, by_mail_program)?;
    if let Some(error) = source.forbidden() {
        let why = Failure::new(Exit::Deferred, error);
        return Ok(Loaded::ForService { config: None, why, only_service: true });
    }
    match config::load_for_submission(&source).map_err(|wrong| refused(&wrong.0))? {
        ForSubmission::Usable(config, beside) => {
            note_all(&beside.0);
            Ok(Loaded::Usable(Box::new(config)))
        }
        ForSubmission::Doubtful(config, doubt, wrong) => {
            let only_service = doubt == Doubt::Forbidden;
            if !only_service && !is_socket(&socket(Some(&config))) {
                return Err(refused(&wrong.0));
            }
            let why = wrong.0.first().map(ToString::to_string).unwrap_or_default();
            let why = Failure::new(Exit::Deferred, why);
            Ok(Loaded::ForService { config: Some(Box::new(config)), why, only_service })
        }
    }
}

/// Whoever asks for something else needs all of it; that this user may not read it is no
/// mistake in it.
fn load_for_inquiry(option: Option<PathBuf>, by_mail_program: bool) -> Result<Loaded, Failure> {
    match load_for_submission(option.clone(), by_mail_program)? {
        Loaded::ForService { why, only_service: true, .. } => Err(why),
        _ => Ok(Loaded::Usable(Box::new(load(option, by_mail_program)?))),
    }
}

fn with_configuration(config: &Config, invocation: &Invocation) -> Result<Exit, Failure> {
    let here = users::here(config).map_err(|message| Failure::new(Exit::Configuration, message))?;
    if matches!(invocation.mode, Mode::Submit | Mode::Verify) {
        // Before anything is written.
        invocation.parties(&here)?;
    }
    // Before root becomes the owner of the store.
    let uid = nix::unistd::Uid::current().as_raw();
    let console = if invocation.verbose { LevelFilter::INFO } else { LevelFilter::WARN };
    let logging = start_logging(config, console);
    // A log that this user may not write is no reason to give a message up either.
    let without_log = logging.as_ref().err().map(|failure| failure.message.as_str());
    block_on(with_own_store(config, invocation, &here, uid, without_log))
}

/// What a mail program asks for, with the store, or by the service that has it.
async fn with_own_store(
    config: &Config,
    invocation: &Invocation,
    here: &Here,
    uid: u32,
    without_log: Option<&str>,
) -> Result<Exit, Failure> {
    let mut out = StandardOutput::new();
    if invocation.mode == Mode::Verify {
        return verify(config, invocation, here, &mut out).await;
    }
    let clock = Clock::system();
    if let Some(why) = service::hidden_store(config, &invocation.mode) {
        let hand_over = HandOver { config: Some(config), invocation, why, only_service: true };
        return hand_over.carry_out(&clock, &mut out).await;
    }
    let app = match App::open(config.clone(), clock.clone(), "sendmail").await.map_err(try_again) {
        Ok(app) => app,
        Err(why) if why.exit != Exit::Deferred => return Err(why),
        Err(why) => {
            let only_service = service::is_forbidden(&config.store.path);
            let hand_over = HandOver { config: Some(config), invocation, why, only_service };
            return hand_over.carry_out(&clock, &mut out).await;
        }
    };
    if let Some(why) = without_log {
        tracing::warn!("{why}");
    }
    let exit = run(&app, invocation, here, uid, &mut out).await;
    app.close().await;
    exit
}

/// A store that cannot be opened now is no reason to give a message up.
fn try_again(failure: Failure) -> Failure {
    match failure.exit {
        Exit::CannotOpen | Exit::CannotWrite => Failure::new(Exit::Deferred, failure.message),
        _ => failure,
    }
}

/// Does what the arguments ask for. `uid` is the user who called.
async fn run(app: &App, invocation: &Invocation, here: &Here, uid: u32, out: &mut impl Write) -> Result<Exit, Failure> {
    match &invocation.mode {
        Mode::Submit => take(app, invocation, here, uid).await,
        Mode::Smtp => speak(app, uid, out).await,
        Mode::List => listing::list(app, invocation.json, out).await,
        Mode::Sweep(waiting) => sweep(app, waiting, out).await,
        // The others were carried out without the parts.
        Mode::Aliases | Mode::Verify | Mode::Peers | Mode::Serve | Mode::Help => Ok(Exit::Ok),
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
    let context = ListenerContext { intake, clock: app.clock.clone() };
    let unusable = |error: &dyn std::fmt::Display| Failure::new(Exit::Deferred, error.to_string());
    let listener = Listener::bind(&config, context).map_err(|error| unusable(&error))?;
    let (ours, theirs) = UnixStream::pair().map_err(|error| unusable(&error))?;
    let session = tokio::spawn(async move { listener.control().speak(theirs, uid, Stop::default()).await });
    join_standard_streams(ours, out)?;
    session.await.map_err(|panic| Failure::new(Exit::Internal, panic.to_string()))?;
    Ok(Exit::Ok)
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        Self::new(exit(error.exit_code()), error.to_string())
    }
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Self {
        Self::new(exit(error.exit_code()), error.to_string())
    }
}

/// The exit code with this number; what is not known is to be tried again.
fn exit(code: u8) -> Exit {
    [Exit::Usage, Exit::Data, Exit::Configuration]
        .into_iter()
        .find(|exit| exit.code() == code)
        .unwrap_or(Exit::Deferred)
}

/// `-v`: attempts the mail now, and shows on standard error what was said for this mail.
async fn show_delivery(app: &App, key: &MailKey, since: Time) -> Result<(), Failure> {
    let _signals = ends_in_order(app);
    let progress = Progress::default();
    let only = Arc::from([key.clone()]);
    let order = Order { job: SPOOL_JOB, all_due: true, trigger: "command", only: Some(&only) };
    let swept = app.runner(&progress).run(order, app.job(SPOOL_JOB)?).await?;
    if let Some(error) = swept.failure {
        return Err(error.into());
    }
    let filter = AttemptFilter { key: Some(key.clone()), since: Some(since), ..AttemptFilter::default() };
    let attempts = app.store.attempts(&filter, &Span::of(usize::MAX)).await?.items;
    for attempt in &attempts {
        // What cannot be shown is on record all the same.
        let _ = io::stderr().write_all(attempt_picture(attempt).as_bytes());
    }
    if attempts.is_empty() {
        note("the mail is stored; it was not attempted here");
    }
    Ok(())
}

/// `-bv`: as explain, for each recipient.
async fn verify(config: &Config, invocation: &Invocation, here: &Here, out: &mut impl Write) -> Result<Exit, Failure> {
    let recipients = invocation.parties(here)?.recipients;
    explain::explain(config, &Clock::system(), &recipients, Format::Text, out).await
}

/// The repositories that jobs deliver out of, each with its job's processor.
fn swept(app: &App) -> Vec<(RepositoryPath, String)> {
    let sweeps = app.config.jobs.values().filter_map(|job| match job {
        jobs::Config::Reprocess(sweep) => Some((sweep.repository.clone(), sweep.processor.clone())),
        _ => None,
    });
    sweeps.collect()
}

/// `-q`: what waits, or some of it.
async fn sweep(app: &App, waiting: &Waiting, out: &mut impl Write) -> Result<Exit, Failure> {
    let _signals = ends_in_order(app);
    match waiting {
        Waiting::All => sweep_all(app, out).await,
        Waiting::Key(key) => sweep_one(app, key, out).await,
        Waiting::Domain(domain) => sweep_some(app, &Conditions::default().with("domain", domain)?, out).await,
    }
}

/// `-qI`: one mail, wherever it waits.
async fn sweep_one(app: &App, key: &MailKey, out: &mut impl Write) -> Result<Exit, Failure> {
    app.operations().fetch(&swept(app), key).await?;
    sweep_job(app, SPOOL_JOB, Some(&Arc::from([key.clone()])), out).await
}

/// `-qR`: the mails that match, wherever they wait. One that is in hand is attempted already.
async fn sweep_some(app: &App, conditions: &Conditions, out: &mut impl Write) -> Result<Exit, Failure> {
    let only = app.operations().gather(&swept(app), conditions).await?;
    sweep_job(app, SPOOL_JOB, Some(&only.into()), out).await
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
