//! What every page has around it, and pages that say why there is no other.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html as Answer, IntoResponse, Response};

use super::super::error::Refusal;
use super::assets;
use super::door::{LOGOUT, Visitor};
use super::html::{Html, short};
use crate::store::Time;

/// The parts of the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    /// What needs attention now.
    Overview,
    /// What rests where.
    Mails,
    /// Failures by cause.
    Groups,
    /// The record.
    Attempts,
    /// Jobs, schedules and runs.
    Jobs,
    /// Next hops.
    Peers,
    /// Where mail would go.
    Explain,
    /// Who did what.
    Operations,
    /// What is going on.
    Tasks,
    /// None of them.
    None,
}

/// The navigation: in its order, where to, and as it is called.
const NAVIGATION: [(Section, &str, &str); 9] = [
    (Section::Overview, "/ui/", "Overview"),
    (Section::Mails, "/ui/repositories/", "Mails"),
    (Section::Groups, "/ui/groups", "Causes"),
    (Section::Attempts, "/ui/attempts", "Attempts"),
    (Section::Jobs, "/ui/jobs", "Jobs"),
    (Section::Peers, "/ui/peers", "Next hops"),
    (Section::Explain, "/ui/explain", "Explain"),
    (Section::Operations, "/ui/operations", "Operations"),
    (Section::Tasks, "/ui/tasks", "Tasks"),
];

/// What stands around a page.
pub(super) struct Frame {
    /// Of the page, and its one h1.
    pub(super) title: String,
    section: Section,
    /// What was just done, where it leads on.
    pub(super) notice: Option<Html>,
    /// Seconds after which the page is shown anew.
    pub(super) refresh: Option<u32>,
    /// Who is logged in; `None` where nobody has to be.
    pub(super) who: Option<String>,
    /// Of the form that logs out.
    pub(super) logout: String,
    /// What the program itself gives.
    pub(super) program: Program,
    now: Time,
}

/// The version, and where the files of pages are.
pub(super) struct Program {
    pub(super) version: &'static str,
    pub(super) style: &'static str,
    pub(super) script: &'static str,
    pub(super) icon: &'static str,
}

fn program() -> Program {
    let (style, script, icon) = (assets::style(), assets::script(), assets::icon());
    Program { version: env!("CARGO_PKG_VERSION"), style, script, icon }
}

impl Frame {
    pub(super) fn new(title: String, section: Section, visitor: &Visitor) -> Self {
        let actor = &visitor.actor;
        let name = actor.name.as_deref().map_or(String::new(), |name| format!("{name}, "));
        let who = visitor.is_logged_in.then(|| format!("{name}{}", role(actor.role)));
        Self {
            title: short(title),
            section,
            notice: None,
            refresh: None,
            who,
            logout: visitor.token(LOGOUT),
            program: program(),
            now: visitor.now,
        }
    }

    /// The same with what was just done.
    #[must_use]
    pub(super) fn notice(self, notice: Option<Html>) -> Self {
        Self { notice, ..self }
    }

    /// The same, shown anew every few seconds while something goes on.
    #[must_use]
    pub(super) fn refresh(self, seconds: Option<u32>) -> Self {
        Self { refresh: seconds, ..self }
    }

    pub(super) fn navigation(&self) -> Vec<(bool, &'static str, &'static str)> {
        NAVIGATION.iter().map(|(section, path, name)| (*section == self.section, *path, *name)).collect()
    }

    pub(super) fn made(&self) -> String {
        self.now.format("%Y-%m-%d %H:%M:%S").to_string()
    }
}

fn role(role: crate::clients::Role) -> &'static str {
    match role {
        crate::clients::Role::Full => "all rights",
        crate::clients::Role::NoDelete => "all but removing",
        crate::clients::Role::ReadOnly => "looking only",
    }
}

/// A template as an answer.
pub(super) fn page(template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => Answer(html).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be written");
            (StatusCode::INTERNAL_SERVER_ERROR, "this page could not be written: see the log").into_response()
        }
    }
}

#[derive(Template)]
#[template(path = "problem.html", config = "src/admin/page/askama.toml")]
struct Problem<'a> {
    frame: Frame,
    refusal: &'a Refusal,
    /// What to do about it.
    advice: &'static str,
}

/// A refusal as a page.
pub(super) fn problem(refusal: &Refusal, visitor: &Visitor) -> Response {
    let (title, advice) = match refusal.status() {
        400 => ("This cannot be read", "Go back, and put right what is named above."),
        403 => ("Not allowed", ""),
        404 => ("Not found", "It may be gone by now, or have another name."),
        405 => ("Not possible", "This page is only looked at, or only sent as a form."),
        409 => ("Not now", "An attempt or a run is under way. Wait until it has ended, and try again."),
        429 => ("Too many wrong passwords", "Wait a minute."),
        _ => ("Trouble", "The log says what it is, and /healthcheck whether it goes on."),
    };
    page(&Problem { frame: visitor.frame(title, Section::None), refusal, advice })
}
