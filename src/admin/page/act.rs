//! What is done to mails: asked once on a page that shows to which, then done to exactly those.
//!
//! A path for each verb, since a form's token is of its path. Of many, the page that asks
//! counts what is there at that moment, and carries how far that is; ages become times, so
//! that nothing grows into the selection while somebody reads.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use serde_json::json;

use super::super::error::Refusal;
use super::super::mail_repositories::{Work, act_on, respool};
use super::super::query::Query;
use super::super::{Name, Shared, Site};
use super::door::{Form, Visitor, see};
use super::frame::{Frame, Section, page};
use super::html::{grouped, short};
use super::repositories::{given, place_name};
use super::rows::Row;
use super::url;
use crate::mail::MailKey;
use crate::operations::{Bounds, Conditions, Moment, Preview, Selection, Verb};
use crate::store::{Place, Respool};
use crate::text::rfc3339;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/ui/act/{verb}", get(ask_first).post(act))
}

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Into the spool.
    Reprocess,
    /// To another repository.
    Move,
    /// Somebody takes note.
    Acknowledge,
    /// That is taken back.
    Unacknowledge,
    /// Out, for good.
    Remove,
}

impl Kind {
    /// What is done to many: a note is taken back of one.
    pub(super) const ALL: [Self; 4] = [Self::Reprocess, Self::Move, Self::Acknowledge, Self::Remove];

    fn named(name: &str) -> Option<Self> {
        let all = Self::ALL.into_iter().chain([Self::Unacknowledge]);
        all.into_iter().find(|kind| kind.name() == name)
    }

    /// As the path has it.
    fn name(self) -> &'static str {
        match self {
            Self::Reprocess => "reprocess",
            Self::Move => "move",
            Self::Acknowledge => "acknowledge",
            Self::Unacknowledge => "unacknowledge",
            Self::Remove => "remove",
        }
    }

    /// On the button that asks for it.
    pub(super) fn button(self) -> &'static str {
        match self {
            Self::Reprocess => "Reprocess\u{2026}",
            Self::Move => "Move\u{2026}",
            Self::Acknowledge => "Acknowledge\u{2026}",
            Self::Unacknowledge => "Take the note back\u{2026}",
            Self::Remove => "Remove\u{2026}",
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Self::Reprocess => "Reprocess",
            Self::Move => "Move",
            Self::Acknowledge => "Acknowledge",
            Self::Unacknowledge => "Take back the note on",
            Self::Remove => "Remove",
        }
    }

    /// Whether it makes sense for mails of that place.
    pub(super) fn is_possible(self, place: &Place) -> bool {
        !matches!((self, place), (Self::Reprocess | Self::Acknowledge | Self::Unacknowledge, Place::Spool))
    }

    /// Whether the visitor's role may do it.
    pub(super) fn is_allowed(self, visitor: &Visitor) -> bool {
        match self {
            Self::Remove => visitor.may(&Verb::Remove),
            _ => visitor.may_change(),
        }
    }

    /// The kind of task that it is for many.
    fn task(self) -> &'static str {
        match self {
            Self::Reprocess => "reprocessing-all",
            Self::Move => "move-mails",
            Self::Acknowledge | Self::Unacknowledge => "acknowledge-mails",
            Self::Remove => "clear-mail-repository",
        }
    }
}

/// The page that asks before it is done: to all of a place that match, or to one (`key`).
pub(super) fn ask(kind: Kind, place: &Place, given: &[(&str, &str)]) -> String {
    let name = place_name(place);
    let place = match place {
        Place::Spool => ("place", "spool"),
        Place::Repository(_) => ("repository", name.as_str()),
    };
    url::with(&action(kind), &[&[place], given].concat())
}

fn action(kind: Kind) -> String {
    format!("/ui/act/{}", kind.name())
}

/// Names of parameters that say which mails are meant.
const WHICH: [&str; 4] = ["repository", "place", "key", "until"];

/// And of what a form adds.
const HOW: [&str; 5] = ["token", "processor", "resetCounters", "to", "note"];

/// The mails that are meant.
struct Meant {
    place: Place,
    selection: Selection,
    /// As a form gives it back.
    hidden: Vec<(String, String)>,
}

impl Meant {
    async fn read(shared: &Shared, query: &Query, visitor: &Visitor) -> Result<Self, Refusal> {
        let place = place(shared, query).await?;
        let mut hidden = vec![match &place {
            Place::Spool => ("place".to_owned(), "spool".to_owned()),
            Place::Repository(path) => ("repository".to_owned(), path.to_string()),
        }];
        if let Some(key) = query.get("key") {
            let unknown = || Refusal::not_found(format!("Could not retrieve {key}"));
            hidden.push(("key".to_owned(), key.to_owned()));
            let selection = Selection::Mail(MailKey::parse(key).ok_or_else(unknown)?);
            return Ok(Self { place, selection, hidden });
        }
        let mut conditions = Conditions::default();
        for (name, value) in given(query) {
            let value = fixed(name, value, visitor.now);
            conditions = conditions.with(name, &value)?;
            hidden.push((name.to_owned(), value));
        }
        let until =
            query.read_as("until", |text| text.parse().map_err(|error: crate::store::NotOurs| error.to_string()))?;
        let selection = Selection::Matching { conditions: Box::new(conditions), until, bounds: Bounds::default() };
        Ok(Self { place, selection, hidden })
    }

    /// In words: `K1`, or the conditions.
    fn words(&self) -> String {
        match &self.selection {
            Selection::Mail(key) => format!("key {key}"),
            Selection::Matching { conditions, .. } if conditions.is_empty() => "no condition: all of them".to_owned(),
            Selection::Matching { conditions, .. } => short(conditions),
        }
    }
}

/// An age as the time that it is now.
fn fixed(name: &str, value: &str, now: crate::store::Time) -> String {
    let is_moment = ["olderThan", "newerThan"].contains(&name);
    let moment = is_moment.then(|| Moment::parse(value).and_then(|moment| moment.at(now))).flatten();
    moment.map_or_else(|| value.to_owned(), rfc3339)
}

async fn place(shared: &Shared, query: &Query) -> Result<Place, Refusal> {
    match (query.get("place"), query.get("repository")) {
        (Some("spool"), None) => Ok(Place::Spool),
        (None, Some(name)) => Ok(Place::Repository(shared.repository(name).await?)),
        _ => Err(Refusal::invalid("It is not said of which repository: begin at its list of mails".to_owned())),
    }
}

fn kind(name: Name, visitor: &Visitor) -> Result<Kind, Refusal> {
    let Path(name) = name?;
    let kind = Kind::named(&name).ok_or_else(|| Refusal::not_found(format!("Nothing is called {name} here")))?;
    if kind.is_allowed(visitor) {
        return Ok(kind);
    }
    Err(Refusal::forbidden("Your role may not do this"))
}

#[derive(Template)]
#[template(path = "act.html", config = "src/admin/page/askama.toml")]
struct Asks {
    frame: Frame,
    kind: Kind,
    action: String,
    token: String,
    hidden: Vec<(String, String)>,
    place: String,
    which: String,
    /// `1 234`, or `at least 10 000`.
    count: String,
    is_nothing: bool,
    is_one: bool,
    rows: Vec<Row>,
    preview: Preview,
    processors: Vec<String>,
    /// Which of them is chosen.
    processor: String,
    targets: Vec<String>,
    /// Where to go back to.
    back: String,
}

async fn ask_first(
    State(shared): super::super::State,
    visitor: Visitor,
    name: Name,
    query: Query,
) -> Result<Response, Refusal> {
    let kind = kind(name, &visitor)?;
    query.only(&[&WHICH[..], &Conditions::NAMES].concat())?;
    let meant = Meant::read(&shared, &query, &visitor).await?;
    let (site, targets) = (shared.site(), targets(&shared, &meant.place).await?);
    let verb = usual(kind, &site, &targets, &meant.place)?;
    let asked = shared.asked_by(&visitor.actor);
    let preview = asked.operations().preview(&meant.place, &meant.selection, &verb).await?;
    let is_one = matches!(meant.selection, Selection::Mail(_));
    let mut hidden = meant.hidden.clone();
    if !is_one {
        hidden.push(("until".to_owned(), preview.until.to_string()));
    }
    let least = if preview.exact { "" } else { "at least " };
    let action = action(kind);
    Ok(page(&Asks {
        frame: visitor.frame(format!("{} {least}{}", kind.heading(), mails(preview.count)), Section::Mails),
        token: visitor.token(&action),
        action,
        kind,
        hidden,
        place: place_name(&meant.place),
        which: meant.words(),
        count: format!("{least}{}", mails(preview.count)),
        is_nothing: preview.count == 0,
        is_one,
        rows: preview.sample.iter().map(|waiting| Row::new(waiting, false, visitor.now)).collect(),
        processors: site.processors.processors().map(str::to_owned).collect(),
        processor: site.processor.clone(),
        targets,
        back: back(&meant, &query),
        preview,
    }))
}

fn mails(number: u64) -> String {
    format!("{} mail{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// The list, or the mail, that it was asked from.
fn back(meant: &Meant, query: &Query) -> String {
    match &meant.selection {
        Selection::Mail(key) => url::mail(key),
        Selection::Matching { .. } => url::mails(&meant.place, &given(query)),
    }
}

/// The repositories that mails of a place can be moved to.
async fn targets(shared: &Shared, place: &Place) -> Result<Vec<String>, Refusal> {
    let all = shared.context.store.repositories().await?;
    let others = all.into_iter().filter(|path| *place != Place::Repository(path.clone()));
    Ok(others.map(|path| path.to_string()).collect())
}

/// The verb as the form has it before anything is chosen: it counts the same mails.
fn usual(kind: Kind, site: &Site, targets: &[String], place: &Place) -> Result<Verb, Refusal> {
    if !kind.is_possible(place) {
        return Err(Refusal::invalid("What waits in the spool is on its way: it can be moved or removed".to_owned()));
    }
    Ok(match kind {
        Kind::Reprocess => Verb::Reprocess(respool(site, None, false).unwrap_or_default()),
        Kind::Move => {
            let none = || Refusal::invalid("There is no other repository to move them to".to_owned());
            let to = targets.first().and_then(|target| crate::mail::RepositoryPath::parse(target).ok());
            Verb::Move { to: to.ok_or_else(none)? }
        }
        Kind::Acknowledge => Verb::Acknowledge { note: String::new() },
        Kind::Unacknowledge => Verb::Unacknowledge,
        Kind::Remove => Verb::Remove,
    })
}

async fn act(
    State(shared): super::super::State,
    visitor: Visitor,
    name: Name,
    Form(form): Form,
) -> Result<Response, Refusal> {
    let kind = kind(name, &visitor)?;
    form.only(&[&WHICH[..], &HOW, &Conditions::NAMES].concat())?;
    let meant = Meant::read(&shared, &form, &visitor).await?;
    usual(kind, &shared.site(), &[place_name(&meant.place)], &meant.place)?;
    let verb = chosen(kind, &shared, &form).await?;
    match &meant.selection {
        Selection::Mail(key) => to_one(&shared, &visitor, &meant.place, key, &verb).await,
        Selection::Matching { until: None, .. } => {
            Err(Refusal::invalid("It is not said up to where was counted: load the page that asks anew".to_owned()))
        }
        Selection::Matching { .. } => to_many(&shared, &visitor, kind, meant, verb).await,
    }
}

/// The verb as it was chosen.
async fn chosen(kind: Kind, shared: &Shared, form: &Query) -> Result<Verb, Refusal> {
    Ok(match kind {
        Kind::Reprocess => Verb::Reprocess(reprocessing(shared, form)?),
        Kind::Move => Verb::Move { to: shared.repository(form.get("to").unwrap_or_default()).await? },
        Kind::Acknowledge => Verb::Acknowledge { note: form.get("note").unwrap_or_default().trim().to_owned() },
        Kind::Unacknowledge => Verb::Unacknowledge,
        Kind::Remove => Verb::Remove,
    })
}

fn reprocessing(shared: &Shared, form: &Query) -> Result<Respool, Refusal> {
    respool(&shared.site(), form.get("processor"), form.boolean("resetCounters", false)?)
}

/// Done at once; the mail's page says so.
async fn to_one(
    shared: &Shared,
    visitor: &Visitor,
    place: &Place,
    key: &MailKey,
    verb: &Verb,
) -> Result<Response, Refusal> {
    let done = act_on(shared, &visitor.actor, place, key.clone(), verb).await?;
    let operation = done.operation.map(|operation| operation.to_string()).unwrap_or_default();
    Ok(see(&url::with(&url::mail(key), &[("operation", &operation)])))
}

/// A task; its page says how far it is.
async fn to_many(
    shared: &Arc<Shared>,
    visitor: &Visitor,
    kind: Kind,
    meant: Meant,
    verb: Verb,
) -> Result<Response, Refusal> {
    let mut parameters = json!({"repositoryPath": place_name(&meant.place), "selection": meant.words()});
    match &verb {
        Verb::Reprocess(how) => parameters["targetProcessor"] = json!(how.processor),
        Verb::Move { to } => parameters["targetRepositoryPath"] = json!(to),
        _ => {}
    }
    let Meant { place, selection, .. } = meant;
    let work = Work { kind: kind.task(), place, selection, verb, parameters, dry_run: false };
    let task = work.begin(shared, &visitor.actor, &shared.site()).await?;
    Ok(see(&url::task(&task)))
}
