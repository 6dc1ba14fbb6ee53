//! `/ui/jobs`: what runs and when, how the runs went; a run or a pause that is asked for.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;

use super::super::error::Refusal;
use super::super::jobs::{begin_run, is_for_role, pause_schedule, resume_schedule};
use super::super::query::Query;
use super::super::{self as admin, Shared, Site};
use super::door::{Form, Visitor, see};
use super::frame::{Frame, Section, page};
use super::html::{Html, lines, link, mark, short, when};
use super::runs::{Ran, ran};
use super::url;
use crate::mail::RepositoryPath;
use crate::schedule::{self, Pauses};
use crate::store::{Pause, Span, Time};
use crate::text::cut;

/// Runs of a job that are shown, and looked at for the last of each job.
const RUNS: usize = 25;

/// Characters of a reason that is given for a pause.
const REASON: usize = 1000;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/ui/jobs", get(list))
        .route("/ui/jobs/{name}", get(one))
        .route("/ui/jobs/{name}/run", get(ask_run).post(run))
        .route("/ui/schedules/{name}/pause", get(ask_pause).post(pause))
        .route("/ui/schedules/{name}/resume", get(ask_resume).post(resume))
}

#[derive(Template)]
#[template(path = "jobs.html", config = "src/admin/page/askama.toml")]
struct List {
    frame: Frame,
    rows: Vec<Row>,
}

/// A job.
struct Row {
    job: Html,
    kind: String,
    place: Html,
    /// Its schedules with their next times.
    next: Html,
    last: Option<Ran>,
}

async fn list(State(shared): admin::State, visitor: Visitor) -> Result<Response, Refusal> {
    let (site, pauses) = (shared.site(), pauses(&shared).await?);
    let mut rows = Vec::new();
    for (name, job) in &site.jobs {
        let last = shared.context.store.runs(Some(name), &Span::of(1).newest_first()).await?.items;
        let schedules = of_job(&site, name).map(|(schedule, config)| next(schedule, config, &pauses, visitor.now));
        let schedules: Vec<_> = schedules.collect();
        rows.push(Row {
            job: link(&url::job(name), name),
            kind: job.view(name).kind.to_owned(),
            place: place(job.repository()),
            next: if schedules.is_empty() { Html::text("only when asked for") } else { lines(schedules) },
            last: last.first().map(|run| ran(run, visitor.now)),
        });
    }
    Ok(page(&List { frame: visitor.frame("Jobs", Section::Jobs), rows }))
}

async fn pauses(shared: &Shared) -> Result<Pauses, Refusal> {
    Ok(Pauses::new(shared.context.store.paused().await?))
}

fn of_job<'a>(site: &'a Site, job: &str) -> impl Iterator<Item = (&'a String, &'a schedule::Config)> {
    site.schedules.iter().filter(move |(_, schedule)| schedule.job == job)
}

fn place(repository: Option<&RepositoryPath>) -> Html {
    repository.map_or_else(|| Html::text("-"), |path| link(&url::repository(path, &[]), path.last_segment()))
}

/// When a schedule ticks next.
fn next(name: &str, schedule: &schedule::Config, pauses: &Pauses, now: Time) -> Html {
    match (schedule.next_after(now).filter(|_| schedule.enabled), pauses.of(name, now)) {
        (None, _) => Html::text("never: switched off"),
        (Some(_), Some(_)) => mark("wait", "paused"),
        (Some(next), None) => when(next, now),
    }
}

#[derive(Template)]
#[template(path = "job.html", config = "src/admin/page/askama.toml")]
struct One {
    frame: Frame,
    kind: String,
    place: Html,
    processor: String,
    limit: String,
    run: Option<String>,
    why_no_run: &'static str,
    schedules: Vec<ScheduleRow>,
    runs: Vec<Ran>,
}

/// A schedule of the job.
struct ScheduleRow {
    name: String,
    cron: String,
    zone: String,
    next: Vec<Html>,
    is_on: bool,
    paused: Option<Html>,
    pause: Option<String>,
    resume: Option<String>,
}

async fn one(
    State(shared): admin::State,
    visitor: Visitor,
    name: admin::Name,
    query: Query,
) -> Result<Response, Refusal> {
    let Path(name) = name?;
    let site = shared.site();
    let job = site.jobs.get(&name).ok_or_else(|| unknown("job", &name))?;
    let (view, pauses) = (job.view(&name), pauses(&shared).await?);
    let runs = shared.context.store.runs(Some(&name), &Span::of(RUNS).newest_first()).await?.items;
    let may_run = visitor.may_change() && is_for_role(job, visitor.actor.role);
    let schedules = of_job(&site, &name).map(|(name, config)| schedule_row(name, config, &pauses, &visitor));
    Ok(page(&One {
        frame: visitor.frame(format!("Job {name}"), Section::Jobs).notice(notice(&query, &pauses, visitor.now)),
        kind: view.kind.to_owned(),
        place: place(job.repository()),
        processor: short(view.processor.unwrap_or("-")),
        limit: view.limit.map_or_else(|| "all that are due".to_owned(), |limit| format!("{limit} mails at most")),
        run: may_run.then(|| format!("{}/run", url::job(&name))),
        why_no_run: if visitor.may_change() && !may_run {
            "It removes mail, and your role may not run it."
        } else {
            ""
        },
        schedules: schedules.collect(),
        runs: runs.iter().map(|run| ran(run, visitor.now)).collect(),
    }))
}

fn unknown(what: &str, name: &str) -> Refusal {
    Refusal::not_found(format!("There is no {what} {} in the configuration", short(name)))
}

/// What was just done, as far as it is so.
fn notice(query: &Query, pauses: &Pauses, now: Time) -> Option<Html> {
    let asked = (query.get("paused"), query.get("resumed"));
    let is_paused = |name: &str| pauses.of(name, now).is_some();
    let operations = link("/ui/operations", "It is on record.");
    let say = |text: String| Some(Html::text(text).and(&operations));
    match asked {
        (Some(name), _) if is_paused(name) => say(format!("Schedule {} is paused: its ticks pass.", short(name))),
        (_, Some(name)) if !is_paused(name) => say(format!("Schedule {} is not paused: it ticks on.", short(name))),
        _ => None,
    }
}

fn schedule_row(name: &str, schedule: &schedule::Config, pauses: &Pauses, visitor: &Visitor) -> ScheduleRow {
    let (now, pause) = (visitor.now, pauses.of(name, visitor.now));
    let view = schedule.view(name, now, pause);
    let may = visitor.may_change();
    let path = |verb: &str| format!("{}/{verb}", url::schedule(name));
    ScheduleRow {
        name: short(name),
        cron: short(view.cron),
        zone: short(view.timezone),
        next: if schedule.enabled { ticks(schedule, now) } else { Vec::new() },
        is_on: schedule.enabled,
        paused: pause.map(|pause| paused(pause, now)),
        pause: (may && schedule.enabled && pause.is_none()).then(|| path("pause")),
        resume: (may && pause.is_some()).then(|| path("resume")),
    }
}

/// The next five times.
fn ticks(schedule: &schedule::Config, now: Time) -> Vec<Html> {
    let next = |last: &Time| schedule.next_after(*last);
    std::iter::successors(schedule.next_after(now), next).take(5).map(|time| when(time, now)).collect()
}

fn paused(pause: &Pause, now: Time) -> Html {
    let reason = pause.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
    let who = Html::text(short(format!("by {}{reason}", pause.by)));
    let until = pause
        .until
        .map_or_else(|| Html::text("until it is resumed"), |until| Html::text("until").and(&when(until, now)));
    mark("wait", "paused").and(&Html::text("since")).and(&when(pause.at, now)).and(&who).and(&until)
}

#[derive(Template)]
#[template(path = "job_run.html", config = "src/admin/page/askama.toml")]
struct AskRun {
    frame: Frame,
    action: String,
    token: String,
    is_sweep: bool,
    is_purge: bool,
    what: String,
    back: String,
}

async fn ask_run(State(shared): admin::State, visitor: Visitor, name: admin::Name) -> Result<Response, Refusal> {
    let Path(name) = name?;
    let site = shared.site();
    let job = site.jobs.get(&name).ok_or_else(|| unknown("job", &name))?;
    let (view, action) = (job.view(&name), format!("{}/run", url::job(&name)));
    let repository = view.repository.as_ref().map_or(String::new(), |path| format!(" of {path}"));
    Ok(page(&AskRun {
        frame: visitor.frame(format!("Run {name} now?"), Section::Jobs),
        token: visitor.token(&action),
        action,
        is_sweep: view.kind == "reprocess",
        is_purge: view.kind == "purge",
        what: short(format!("One run of kind {}{repository}, beside its schedules.", view.kind)),
        back: url::job(&name),
    }))
}

async fn run(
    State(shared): admin::State,
    visitor: Visitor,
    name: admin::Name,
    Form(form): Form,
) -> Result<Response, Refusal> {
    let Path(name) = name?;
    form.only(&["token", "now"])?;
    let task = begin_run(&shared, &visitor.actor, &name, form.boolean("now", false)?).await?;
    Ok(see(&url::task(&task)))
}

#[derive(Template)]
#[template(path = "schedule_pause.html", config = "src/admin/page/askama.toml")]
struct AskPause {
    frame: Frame,
    action: String,
    token: String,
    back: String,
}

fn scheduled<'a>(site: &'a Site, name: &str) -> Result<&'a schedule::Config, Refusal> {
    site.schedules.get(name).ok_or_else(|| unknown("schedule", name))
}

async fn ask_pause(State(shared): admin::State, visitor: Visitor, name: admin::Name) -> Result<Response, Refusal> {
    let Path(name) = name?;
    let site = shared.site();
    let (schedule, action) = (scheduled(&site, &name)?, format!("{}/pause", url::schedule(&name)));
    Ok(page(&AskPause {
        frame: visitor.frame(format!("Pause schedule {name}?"), Section::Jobs),
        token: visitor.token(&action),
        action,
        back: url::job(&schedule.job),
    }))
}

async fn pause(
    State(shared): admin::State,
    visitor: Visitor,
    name: admin::Name,
    Form(form): Form,
) -> Result<Response, Refusal> {
    let Path(name) = name?;
    form.only(&["token", "reason", "until"])?;
    let filled = |name: &str| form.get(name).map(str::trim).filter(|value| !value.is_empty());
    let reason = filled("reason").map(|reason| cut(reason, REASON));
    pause_schedule(&shared, &visitor.actor, &name, reason.as_deref(), filled("until")).await?;
    Ok(see(&url::with(&url::job(&scheduled(&shared.site(), &name)?.job), &[("paused", &name)])))
}

#[derive(Template)]
#[template(path = "ask.html", config = "src/admin/page/askama.toml")]
struct AskResume {
    frame: Frame,
    words: Vec<String>,
    action: String,
    token: String,
    button: &'static str,
    back: String,
}

async fn ask_resume(State(shared): admin::State, visitor: Visitor, name: admin::Name) -> Result<Response, Refusal> {
    let Path(name) = name?;
    let site = shared.site();
    let (schedule, action) = (scheduled(&site, &name)?, format!("{}/resume", url::schedule(&name)));
    Ok(page(&AskResume {
        frame: visitor.frame(format!("Resume schedule {name}?"), Section::Jobs),
        words: vec!["It ticks again at its next time; what passed meanwhile is not made up for.".to_owned()],
        token: visitor.token(&action),
        action,
        button: "Resume",
        back: url::job(&schedule.job),
    }))
}

async fn resume(
    State(shared): admin::State,
    visitor: Visitor,
    name: admin::Name,
    Form(form): Form,
) -> Result<Response, Refusal> {
    let Path(name) = name?;
    form.only(&["token"])?;
    resume_schedule(&shared, &visitor.actor, &name).await?;
    Ok(see(&url::with(&url::job(&scheduled(&shared.site(), &name)?.job), &[("resumed", &name)])))
}
