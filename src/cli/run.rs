//! `redeliver run`: one run of a job, in the foreground.

use std::future::Future;
use std::future::pending;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tracing::warn;

use super::app::App;
use super::args::{Format, RunArguments};
use super::exit::{self, Exit, Failure};
use super::json_lines;
use super::note;
use super::output::Report;
use crate::audit::result_json;
use crate::clock::Clock;
use crate::jobs::{self, Order, Progress, Swept};
use crate::mail::{Address, MailKey};
use crate::parts::warn_of_unnamed_repositories;
use crate::stop::Stop;
use crate::store::{LAST_WRITES, Store};
use crate::text::count;

/// How often the progress line is drawn anew.
const REDRAW: Duration = Duration::from_millis(200);

pub(super) async fn run(app: &App, arguments: RunArguments, out: &mut impl Write) -> Result<Exit, Failure> {
    let job = app.job(&arguments.job)?;
    let started = app.clock.now();
    let progress = Arc::new(Progress::default());
    warn_of_unnamed_repositories(&app.config, &*app.store).await;
    let order = Order { job: &arguments.job, all_due: arguments.now, trigger: "command", only: None };
    let swept = {
        let _signals = ends_in_order(app);
        let _deadline = Aside::spawn(at_deadline(app.stop.clone(), arguments.deadline));
        let _drawing = Aside::spawn(draw(arguments.job.clone(), Arc::clone(&progress)));
        app.runner(&progress).run(order, job).await
    };
    clear_line();
    let swept = swept?;
    let finished = app.clock.now();
    let mut out = Report(out);
    match arguments.format {
        Format::Json => json_lines::write(&mut out, &result_json(&arguments.job, started, finished, &swept.counts))?,
        Format::Text => writeln!(out, "{}", as_text(&arguments.job, job, finished - started, &swept))?,
    }
    out.flush()?;
    if let Some(error) = swept.failure {
        return Err(error.into());
    }
    if let Some(trouble) = &swept.trouble {
        return Err(Failure::new(Exit::Internal, trouble.clone()));
    }
    if let Err(error) = jobs::housekeep(&*app.store, app.config.audit.retention, app.config.history_retention).await {
        warn!(%error, "expired audit records are still there");
    }
    Ok(exit::of_run(&swept))
}

fn as_text(name: &str, job: &jobs::Config, took: chrono::TimeDelta, swept: &Swept) -> String {
    let (mails, took) = (count(swept.counts.selected, "mail"), took.as_seconds_f64());
    let written = swept.written.as_deref().unwrap_or(Path::new("")).display();
    let done = match job {
        jobs::Config::Spool | jobs::Config::Reprocess(_) => return delivered_text(name, &mails, took, swept),
        jobs::Config::Purge { repository, .. } => format!("{mails} removed from {repository}"),
        jobs::Config::Report { mailing: None, .. } => "off, its list 'to' is empty: no mails reported".to_owned(),
        jobs::Config::Report { repository, .. } if swept.counts.selected == 0 => {
            format!("nothing new in {repository}, no report sent")
        }
        jobs::Config::Report { repository, mailing: Some(mailing) } => {
            format!("{mails} new in {repository} reported to {}", addresses(&mailing.to))
        }
        jobs::Config::Export { .. } => format!("{mails} written to {written}"),
        jobs::Config::Backup { .. } if swept.written.is_none() => "nothing written".to_owned(),
        jobs::Config::Backup { .. } => format!("written to {written}"),
    };
    let left = if swept.left > 0 { format!(", {} left for the next run", swept.left) } else { String::new() };
    format!("{name}: {done} in {took:.1} s{left}")
}

fn addresses(to: &[Address]) -> String {
    to.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// How a run that delivers went.
fn delivered_text(name: &str, mails: &str, took: f64, swept: &Swept) -> String {
    let counts = &swept.counts;
    let mut text = format!(
        "{name}: {mails} taken in {took:.1} s; recipients: {} delivered, {} deferred, {} failed",
        counts.delivered, counts.deferred, counts.failed,
    );
    for (number, what) in [(counts.errors, "in error"), (swept.left, "left for the next run")] {
        if number > 0 {
            text.push_str(&format!(", {number} {what}"));
        }
    }
    if counts.promoted > 0 {
        text.push_str(&format!("; {} became permanent by the limit", count(counts.promoted, "mail")));
    }
    text
}

/// What goes on beside something else, and ends when this is dropped.
pub(super) struct Aside(JoinHandle<()>);

impl Aside {
    fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Signals end the runs of `app` in order, until this is dropped.
pub(super) fn ends_in_order(app: &App) -> Aside {
    let (store, patience) = (Arc::clone(&app.store), app.config.shutdown_timeout);
    Aside::spawn(on_signals(app.stop.clone(), patience, store, app.clock.clone()))
}

/// As `sendmail -q`: what waits in the spool, then every job that delivers out of a repository.
pub(super) async fn sweep_all(app: &App, out: &mut impl Write) -> Result<Exit, Failure> {
    let mut worst = Exit::Ok;
    for (name, job) in &app.config.jobs {
        if matches!(job, jobs::Config::Spool | jobs::Config::Reprocess(_)) {
            worst = worst.max(sweep_job(app, name, None, out).await?);
        }
    }
    Ok(worst)
}

/// One run of a job that delivers, as if every mail were due, or of these mails alone.
pub(super) async fn sweep_job(
    app: &App,
    name: &str,
    only: Option<&Arc<[MailKey]>>,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let order = Order { job: name, all_due: true, trigger: "command", only };
    let (started, progress) = (app.clock.now(), Progress::default());
    let job = app.job(name)?;
    let swept = app.runner(&progress).run(order, job).await?;
    if let Some(trouble) = &swept.trouble {
        note(&format!("redeliver: {name}: {trouble}"));
    }
    writeln!(Report(out), "{}", as_text(name, job, app.clock.now() - started, &swept))?;
    match swept.failure {
        Some(error) => Err(error.into()),
        None => Ok(exit::of_run(&swept)),
    }
}

/// The first SIGINT, SIGTERM or SIGHUP begins nothing new and gives sessions `patience`; the
/// second gives them up.
async fn on_signals(stop: Stop, patience: Duration, store: Arc<dyn Store>, clock: Clock) {
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = (interrupt, terminate) else {
        warn!("signals cannot be waited for: a run ends with its last mail");
        return;
    };
    // A terminal that goes away, unless nohup has it ignored.
    let mut hang_up = if ignores_hang_up() { None } else { signal(SignalKind::hangup()).ok() };
    let mut next = async || {
        let hang_up = async { if let Some(signal) = &mut hang_up { signal.recv().await } else { pending().await } };
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hang_up => {} }
    };
    next().await;
    warn!("stopping: sessions under way may end within {} s", patience.as_secs());
    stop.gentle.cancel();
    tokio::select! { () = next() => {}, () = tokio::time::sleep(patience) => {} }
    stop.hard.cancel();
    store.deadline(clock.instant() + LAST_WRITES);
}

/// Whether SIGHUP came ignored (proc_pid_status(5)).
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).map(str::trim);
    ignored.and_then(|mask| u64::from_str_radix(mask, 16).ok()).is_some_and(|mask| mask & 1 != 0)
}

async fn at_deadline(stop: Stop, deadline: Option<Duration>) {
    let Some(deadline) = deadline else { return };
    tokio::time::sleep(deadline).await;
    warn!("the deadline has passed: no more attempts are begun");
    stop.gentle.cancel();
}

/// Shows how far the run has come, on a terminal and only there.
async fn draw(job: String, progress: Arc<Progress>) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    loop {
        tokio::time::sleep(REDRAW).await;
        let (selected, done) = (progress.selected.load(Ordering::Relaxed), progress.done.load(Ordering::Relaxed));
        // Nobody is to stop for a terminal that went away.
        let _ = write!(std::io::stderr(), "\r\x1b[K{job}: {done} of {selected} mails taken are done");
    }
}

fn clear_line() {
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
}
