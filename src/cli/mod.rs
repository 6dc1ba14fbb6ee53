//! The command line: sub-commands, output for people and for scripts, exit codes.
//!
//! Standard output is only ever the answer; everything else goes to standard error.

mod app;
mod args;
mod attempts;
mod bundle;
mod completion;
mod convert;
mod exit;
mod explain;
mod groups;
mod import;
mod jobs;
mod json_lines;
mod manual;
mod output;
mod peers;
mod repository;
mod run;
mod sendmail;
mod service;
mod terminal;

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::io::{self, Write};
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::RwLock;

use clap::Parser;
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing::warn;

use crate::audit::{self, sweep_json};
use crate::clock::Clock;
use crate::config::{self, Config, Search, Source, Sweep};
use crate::logging;
use crate::parts;
use crate::schedule::zone_data;
use crate::serve;
use crate::text::{self};
use app::App;
use args::{Arguments, Command, Format};
use exit::{Exit, Failure};
use output::StandardOutput;

/// Threads that the least command has beside the runtime's own: one that writes the store, one that
/// reads it, one that reads the input.
const BESIDE_WORKERS: usize = 3;

/// Descriptors that it has beside the standard ones: of the runtime, the lock file, and a
/// connection that writes the store and one that reads it.
const DESCRIPTORS: usize = 12;

/// Runs the program; `arguments` begin with its name.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    keep_files_private();
    let exit = match run(arguments) {
        Ok(exit) => exit,
        Err(failure) => {
            if !failure.message.is_empty() {
                // With nowhere to say it, the exit code remains.
                let _ = writeln!(std::io::stderr(), "redeliver: {}", text::one_line(&failure.message));
            }
            failure.exit
        }
    };
    exit.into()
}

/// Files of ours are nobody else's business; the store's group may read, where the caller's
/// umask lets it.
fn keep_files_private() {
    use nix::sys::stat::{Mode, umask};

    let private = Mode::from_bits_truncate(0o027);
    let callers = umask(private);
    umask(private | callers);
}

fn run(arguments: Vec<OsString>) -> Result<Exit, Failure> {
    let name = arguments.first().map(PathBuf::from).unwrap_or_default();
    match name.file_name().and_then(OsStr::to_str) {
        // BSD's mail calls it send-mail.
        Some("sendmail" | "send-mail") => return sendmail::main(arguments.into_iter().skip(1).collect(), None, true),
        Some("mailq") => {
            let options = arguments.into_iter().skip(1);
            return sendmail::main(std::iter::once("-bp".into()).chain(options).collect(), None, true);
        }
        Some("newaliases") => return sendmail::main(vec!["-bi".into()], None, true),
        _ => {}
    }
    match completion::answered(&arguments) {
        Ok(true) => return Ok(Exit::Ok),
        Ok(false) => {}
        Err(error) => return Ok(usage(&error)),
    }
    let raw = arguments.clone();
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return Ok(usage(&error)),
    };
    let clock = Clock::system();
    match arguments.command {
        Command::Sendmail { arguments: words } => {
            let (config, mut words) = sendmail::own_options(with_double_dash(&raw, words), arguments.config);
            // Its -v is another one than ours, which was read first.
            if arguments.verbose {
                words.insert(0, "-v".into());
            }
            sendmail::main(words, config, false)
        }
        Command::Check { format, service } => check(arguments.config, format, service),
        Command::Serve => serve(arguments.config, false, clock),
        Command::Manual { directory } => manual::write(&directory),
        Command::Convert { file } => convert::run(&file, &mut StandardOutput::new()),
        Command::Explain { recipient, format } => {
            let config = load(arguments.config, false)?;
            let mut out = StandardOutput::new();
            block_on(explain::run(&config, &clock, &recipient, format, &mut out))
        }
        command => {
            let config = load(arguments.config, false)?;
            // Before root becomes the owner of the store.
            let uid = nix::unistd::Uid::current().as_raw();
            let console = if arguments.verbose { config.log.level } else { LevelFilter::WARN };
            let _logging = start_logging(&config, console)?;
            block_on(with_app(config, clock, uid, command))
        }
    }
}

/// The words with the `--` in front that clap took for itself: behind it an address that
/// looks like an option must not become one.
fn with_double_dash(raw: &[OsString], mut words: Vec<OsString>) -> Vec<OsString> {
    let before = raw.len().checked_sub(words.len() + 1).map(|at| &raw[at]);
    if before.is_some_and(|word| word == "--") {
        words.insert(0, "--".into());
    }
    words
}

/// What clap has to say: help and version are answers, the rest is wrong usage.
fn usage(error: &clap::Error) -> Exit {
    // Nowhere to print it to: the exit code remains.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Ok }
}

fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    have_threads(workers + BESIDE_WORKERS).map_err(|error| {
        let limits = "the limit of the user (ulimit -u), or TasksMax= of the unit, is reached";
        Failure::new(Exit::Deferred, format!("no thread can be started: {error}: {limits}: try again later"))
    })?;
    have_descriptors(DESCRIPTORS).map_err(|error| {
        let limits = "the limit of the process (ulimit -n), or LimitNOFILE= of the unit, is too low";
        Failure::new(Exit::Deferred, format!("no file can be opened: {error}: {limits}: try again with a higher one"))
    })?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Internal, format!("the runtime cannot be started: {error}")))?
        .block_on(async {
            outlive_file_size_limit();
            work.await
        })
}

/// Whether so many threads can be had at once. The runtime panics where one cannot, and then waits
/// for ever for those that it has.
fn have_threads(number: usize) -> io::Result<()> {
    let gate = RwLock::new(());
    let closed = gate.write();
    std::thread::scope(|scope| {
        let _opened_at_the_end = closed;
        (0..number).try_for_each(|_| std::thread::Builder::new().spawn_scoped(scope, || drop(gate.read())).map(drop))
    })
}

/// Whether so many descriptors can be had at once. Of one that lacks later the runtime makes a panic, and
/// SQLite a database that cannot be opened.
fn have_descriptors(number: usize) -> io::Result<()> {
    (0..number.div_ceil(2)).map(|_| io::pipe()).collect::<io::Result<Vec<_>>>().map(drop)
}

/// A write beyond `ulimit -f` is to fail like one on a full disk. Whoever listens for the signal
/// that comes with it is not ended by it.
fn outlive_file_size_limit() {
    if let Err(error) = signal(SignalKind::from_raw(Signal::SIGXFSZ as i32)) {
        warn!(%error, "the file size limit would end this process");
    }
}

/// Finds and reads the configuration; each error is a line of its own, and says where.
fn load(option: Option<PathBuf>, by_mail_program: bool) -> Result<Config, Failure> {
    find_and_load(option, by_mail_program).map(|(_, config)| config)
}

fn find_and_load(option: Option<PathBuf>, by_mail_program: bool) -> Result<(Source, Config), Failure> {
    let source = find(option, by_mail_program)?;
    let config = config::load(&source).map_err(|wrong| refused(&wrong.0))?;
    Ok((source, config))
}

fn find(option: Option<PathBuf>, by_mail_program: bool) -> Result<Source, Failure> {
    let source = Search::new(option, std::env::var_os("REDELIVER_CONFIG"), by_mail_program)
        .find()
        .map_err(|error| Failure::new(Exit::Configuration, error.to_string()))?;
    if source == Source::BuiltIn {
        note("no configuration found: the built-in one is in force, with its state in ./var");
    }
    Ok(source)
}

fn note_all(wrong: &[impl Display]) {
    for error in wrong {
        note(&error.to_string());
    }
}

fn refused(wrong: &[impl Display]) -> Failure {
    note_all(wrong);
    Failure::new(Exit::Configuration, "")
}

/// A line on standard error; where there is nowhere to say it, the exit code remains.
fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", text::one_line(line));
}

fn start_logging(config: &Config, console: LevelFilter) -> Result<logging::Logging, Failure> {
    // A log file of root's would keep the service out of it.
    parts::become_owner(&config.store.path)?;
    logging::start(&config.log, console).map_err(|error| Failure::new(Exit::Configuration, error.to_string()))
}

fn check(option: Option<PathBuf>, format: Format, as_service: bool) -> Result<Exit, Failure> {
    let unit = as_service.then(service::enter).transpose()?;
    let config = load(option, false)?;
    let refused_directories = unit.map_or(Vec::new(), |unit| service::refused_directories(&unit, &config));
    if !refused_directories.is_empty() {
        return Err(refused(&refused_directories));
    }
    let wrong = serve::check(&config).map_err(|error| Failure::new(Exit::Configuration, error.to_string()))?;
    if !wrong.is_empty() {
        return Err(refused(&wrong));
    }
    let mut out = StandardOutput::new();
    if format == Format::Json {
        let sweeps: Vec<_> =
            config.sweeps().iter().map(|sweep| sweep_json(&sweep.job, sweep.attempts, sweep.covers)).collect();
        json_lines::write(
            &mut out,
            &audit::check_json(&sweeps, &config.warnings(), &zone_data(), &config.dsn_offer()),
        )?;
        return Ok(Exit::Ok);
    }
    for sweep in config.sweeps() {
        writeln!(out, "{}", sweep_line(&sweep))?;
    }
    writeln!(out, "time zones: {}", zone_data())?;
    writeln!(out, "{}", config.dsn_offer())?;
    for warning in config.warnings() {
        writeln!(out, "warning: {warning}")?;
    }
    writeln!(out, "ok")?;
    Ok(Exit::Ok)
}

/// What a mail can expect of a job.
fn sweep_line(sweep: &Sweep) -> String {
    let attempts = sweep.attempts.map_or("without limit".to_owned(), |n| text::count(n.into(), "time"));
    let covers =
        sweep.covers.map_or(String::new(), |covers| format!(" over {:.1} days", covers.as_secs_f64() / 86_400.0));
    format!("job {}: a deferred mail is tried {attempts}{covers}", sweep.job)
}

fn serve(option: Option<PathBuf>, by_mail_program: bool, clock: Clock) -> Result<Exit, Failure> {
    let (source, config) = find_and_load(option, by_mail_program)?;
    let logging = start_logging(&config, config.log.level)?;
    logging::log_panics();
    let lost_lines = logging.lost_lines();
    block_on(async { Ok(serve::run(source, config, clock, lost_lines).await?) })?;
    Ok(Exit::Ok)
}

async fn with_app(config: Config, clock: Clock, uid: u32, command: Command) -> Result<Exit, Failure> {
    let kind = match &command {
        Command::Run(_) => "run",
        _ => "command",
    };
    let mut app = App::open(config, clock, kind).await?;
    app.by.who = parts::users::named(uid);
    let mut out = io::BufWriter::new(StandardOutput::new());
    let exit = match command {
        Command::Run(arguments) => run::run(&app, arguments, &mut out).await,
        Command::Import(arguments) => import::run(&app, arguments, &mut out).await,
        Command::Repository(command) => repository::run(&app, *command, &mut out).await,
        Command::Groups { repository, format } => groups::groups(&app, repository, format, &mut out).await,
        Command::Metrics => peers::metrics(&app, &mut out).await,
        Command::Peers { format } => peers::run(&app, format, &mut out).await,
        Command::Operations { limit, format } => groups::operations(&app, limit, format, &mut out).await,
        Command::Attempts(arguments) => attempts::run(&app, arguments, &mut out).await,
        Command::Schedule(command) => jobs::schedules(&app, command, &mut out).await,
        Command::Job(command) => jobs::run(&app, command, &mut out).await,
        // The others were carried out without the parts.
        _ => Ok(Exit::Ok),
    };
    app.close().await;
    let exit = exit?;
    match out.flush().map_err(Failure::from) {
        Err(unwritten) if unwritten.exit > exit => Err(unwritten),
        _ => Ok(exit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_double_dash_that_clap_takes_is_given_back() {
        for (line, words) in [
            ("redeliver sendmail -- -oQ@x.example", "-- -oQ@x.example"),
            ("redeliver --config f sendmail -- -a@x.example --", "-- -a@x.example --"),
            ("redeliver sendmail -i -- -a@x.example", "-i -- -a@x.example"),
            ("redeliver sendmail a@x.example", "a@x.example"),
            ("redeliver sendmail", ""),
        ] {
            let raw: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let Ok(Arguments { command: Command::Sendmail { arguments }, .. }) = Arguments::try_parse_from(raw.clone())
            else {
                panic!("{line} is no sendmail");
            };
            assert_eq!(with_double_dash(&raw, arguments).join(OsStr::new(" ")), words, "{line}");
        }
    }
}
