//! `/ui/groups`: failures by cause, and what can be done about all that have one.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;

use super::super::error::Refusal;
use super::super::query::Query;
use super::super::{self as admin, Shared};
use super::act::{self, Kind};
use super::door::{Visitor, see};
use super::frame::{Frame, Section, page};
use super::html::{Html, count, grouped, link, outcome, short, when};
use super::url;
use crate::audit::sparkline;
use crate::mail::{Cause, CauseId, MailKey, Recorded, RepositoryPath};
use crate::store::{DAYS, FailureGroup, GroupFilter, Listed, MailFilter, Place, Span, Store, Time};
use crate::text::cut;

/// Groups of a page.
const ROWS: usize = 25;

/// Mails shown of a group.
const MAILS: usize = 20;

/// Rows that are looked at for them.
const SEARCHED: usize = 20_000;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/ui/groups", get(list)).route("/ui/groups/{id}", get(one))
}

#[derive(Template)]
#[template(path = "groups.html", config = "src/admin/page/askama.toml")]
struct List {
    frame: Frame,
    repositories: Vec<Choice>,
    is_filtered: bool,
    rows: Vec<Row>,
    next: Option<String>,
}

/// A repository that groups may be of.
struct Choice {
    path: String,
    name: String,
    is_chosen: bool,
}

/// A group in one repository.
struct Row {
    outcome: Html,
    said: Html,
    hop: Html,
    stage: String,
    place: Html,
    mails: Html,
    new: Html,
    newest: Html,
    oldest: Html,
    days: Html,
}

async fn list(State(shared): admin::State, visitor: Visitor, query: Query) -> Result<Response, Refusal> {
    if let Some(filled) = query.without_empty() {
        return Ok(see(&url::with("/ui/groups", &filled.pairs().collect::<Vec<_>>())));
    }
    let store = &*shared.context.store;
    let chosen = chosen(&shared, &query).await?;
    let filter = GroupFilter { repository: chosen.clone(), id: None };
    let found = store.groups(&filter, &Span::of(ROWS).after(query.cursor()?)).await?;
    let next = found.next.map(|next| {
        let (cursor, path) = (next.to_string(), chosen.as_ref().map(RepositoryPath::as_str));
        let mut parameters: Vec<_> = path.iter().map(|path| ("repository", *path)).collect();
        parameters.push(("cursor", &cursor));
        url::with("/ui/groups", &parameters)
    });
    let repositories = store.repositories().await?.iter().map(|path| choice(path, chosen.as_ref())).collect();
    let rows = found.items.iter().map(|group| row(group, visitor.now)).collect();
    let frame = visitor.frame("Failures by cause", Section::Groups);
    Ok(page(&List { frame, repositories, is_filtered: chosen.is_some(), rows, next }))
}

async fn chosen(shared: &Shared, query: &Query) -> Result<Option<RepositoryPath>, Refusal> {
    match query.get("repository") {
        Some(name) => Ok(Some(shared.repository(name).await?)),
        None => Ok(None),
    }
}

fn choice(path: &RepositoryPath, chosen: Option<&RepositoryPath>) -> Choice {
    Choice { path: path.to_string(), name: path.to_string(), is_chosen: chosen == Some(path) }
}

fn row(group: &FailureGroup, now: Time) -> Row {
    let (cause, id) = (&group.cause, group.id.to_string());
    let all = url::repository(&group.repository, &[("group", &id)]);
    let new = url::repository(&group.repository, &[("group", &id), ("unacknowledged", "true")]);
    let said = url::with(&url::group(&group.id), &[("repository", group.repository.as_str())]);
    Row {
        outcome: outcome(cause.outcome),
        said: link(&said, said_of(cause)),
        hop: hop(cause),
        stage: cause.stage.map_or_else(|| "-".to_owned(), |stage| stage.to_string()),
        place: link(&url::repository(&group.repository, &[]), group.repository.last_segment()),
        mails: count(&all, group.mails),
        new: count(&new, group.unacknowledged),
        newest: when(group.newest, now),
        oldest: when(group.oldest, now),
        days: trend(group),
    }
}

/// The next hop of a cause, as a link to what was tried with it.
fn hop(cause: &Cause) -> Html {
    let hop = cause.next_hop.as_deref().filter(|hop| !hop.is_empty());
    hop.map_or_else(|| Html::text("-"), |hop| link(&url::with("/ui/attempts", &[("nextHop", hop)]), hop))
}

/// Codes and words, as the peer said them but for what differs from mail to mail.
fn said_of(cause: &Cause) -> String {
    let parts = [cause.code.map(|code| code.to_string()), cause.enhanced.clone(), Some(cause.text.clone())];
    let said: Vec<_> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    if said.is_empty() { "(nothing was said)".to_owned() } else { said.join(" ") }
}

fn trend(group: &FailureGroup) -> Html {
    Html::drawn(sparkline(&group.days, &format!("Mails that came by day, the last {DAYS} days, today last")))
}

#[derive(Template)]
#[template(path = "group.html", config = "src/admin/page/askama.toml")]
struct One {
    frame: Frame,
    id: String,
    said: String,
    outcome: Html,
    hop: Html,
    stage: String,
    places: Vec<InPlace>,
    latest: Option<Said>,
    mails: Vec<MailRow>,
    /// Whose mails they are, where all are, and how many.
    of: String,
    all: Html,
    may_change: bool,
}

/// The group in one repository.
struct InPlace {
    place: Html,
    is_shown: bool,
    mails: Html,
    new: Html,
    newest: Html,
    oldest: Html,
    days: Html,
    numbers: Vec<u64>,
    acknowledge: Option<String>,
    reprocess: Option<String>,
}

/// The peer's own words, for one of the mails.
struct Said {
    whole: String,
    mail: Html,
    recipient: String,
    with: String,
    time: Html,
}

struct MailRow {
    mail: Html,
    came: Html,
    sender: String,
    recipients: String,
    passes: u32,
    acknowledged: Html,
}

async fn one(
    State(shared): admin::State,
    visitor: Visitor,
    id: admin::Name,
    query: Query,
) -> Result<Response, Refusal> {
    let (Path(id), store) = (id?, &*shared.context.store);
    let unknown = || Refusal::not_found(format!("There is no failure group {}", short(&id)));
    let id = CauseId::parse(&id).ok_or_else(unknown)?;
    let filter = GroupFilter { id: Some(id.clone()), repository: None };
    let groups = store.groups(&filter, &Span::of(100)).await?.items;
    let chosen = chosen(&shared, &query).await?;
    let shown = groups.iter().find(|group| chosen.as_ref().is_none_or(|path| *path == group.repository));
    let Some(shown) = shown.or(groups.first()) else { return Err(unknown()) };
    let mails = mails(store, shown).await?;
    let said = said_of(&shown.cause);
    let frame = visitor.frame(cut(&crate::text::one_line(&said), 90), Section::Groups);
    Ok(page(&One {
        frame,
        id: id.to_string(),
        outcome: outcome(shown.cause.outcome),
        hop: hop(&shown.cause),
        stage: shown.cause.stage.map_or_else(|| "none: no attempt was made".to_owned(), |stage| stage.to_string()),
        places: groups.iter().map(|group| in_place(group, shown, &visitor)).collect(),
        latest: latest(store, &mails, &id, visitor.now).await?,
        mails: mails.iter().map(|listed| mail_row(listed, visitor.now)).collect(),
        of: shown.repository.to_string(),
        all: all_mails(shown),
        may_change: visitor.may_change(),
        said,
    }))
}

fn all_mails(group: &FailureGroup) -> Html {
    let href = url::repository(&group.repository, &[("group", group.id.as_str())]);
    link(&href, format!("all {}", grouped(group.mails)))
}

/// The newest mails of a group.
async fn mails(store: &dyn Store, group: &FailureGroup) -> Result<Vec<Listed>, Refusal> {
    let place = Place::Repository(group.repository.clone());
    let filter = MailFilter { group: Some(group.id.clone()), ..MailFilter::default() };
    let span = Span::of(MAILS).newest_first().look(SEARCHED);
    let found = store.list(&place, &filter, &span).await?.items;
    if !found.is_empty() {
        return Ok(found);
    }
    // None of them is among those that came last.
    let mut examples = Vec::new();
    for key in &group.examples {
        examples.extend(found_at(store, &place, key).await?);
    }
    Ok(examples)
}

/// A mail, unless it went meanwhile.
async fn found_at(store: &dyn Store, place: &Place, key: &MailKey) -> Result<Option<Listed>, Refusal> {
    match store.find(place, key).await {
        Ok(listed) => Ok(Some(listed)),
        Err(crate::store::Error::NoSuchMail(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What was said to the newest of the mails.
async fn latest(store: &dyn Store, mails: &[Listed], id: &CauseId, now: Time) -> Result<Option<Said>, Refusal> {
    let Some(listed) = mails.first() else { return Ok(None) };
    let outcomes = store.last_outcomes(std::slice::from_ref(&listed.mail)).await?;
    let of_group = |recorded: &Recorded| Cause::of(recorded).is_some_and(|cause| cause.id() == *id);
    let all: Vec<_> = outcomes.into_iter().flatten().flatten().collect();
    let recorded = all.iter().find(|recorded| of_group(recorded)).or(all.first());
    Ok(recorded.map(|recorded| said_to(recorded, &listed.mail.key, now)))
}

fn said_to(recorded: &Recorded, key: &MailKey, now: Time) -> Said {
    let whole = recorded.reply.clone().or_else(|| recorded.cause.clone()).unwrap_or_default();
    let with = match (&recorded.host, recorded.peer()) {
        (Some(host), Some(peer)) => format!("{host} ({peer})"),
        (Some(host), None) => host.clone(),
        (None, _) => "nobody".to_owned(),
    };
    Said {
        whole: cut_lines(&whole),
        mail: link(&url::mail(key), key),
        recipient: short(&recorded.recipient),
        with: short(with),
        time: when(recorded.time, now),
    }
}

/// Lines of a reply that steer nothing; the whole of a long one is behind the link to the mail.
fn cut_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().take(20).map(short).collect();
    lines.join("\n")
}

fn in_place(group: &FailureGroup, shown: &FailureGroup, visitor: &Visitor) -> InPlace {
    let row = row(group, visitor.now);
    let at = Place::Repository(group.repository.clone());
    let act = |kind: Kind| {
        let is_there = kind.is_allowed(visitor) && group.mails > 0;
        is_there.then(|| act::ask(kind, &at, &[("group", group.id.as_str())]))
    };
    InPlace {
        place: link(
            &url::with(&url::group(&group.id), &[("repository", group.repository.as_str())]),
            &group.repository,
        ),
        is_shown: group.repository == shown.repository,
        mails: row.mails,
        new: row.new,
        newest: row.newest,
        oldest: row.oldest,
        days: row.days,
        numbers: group.days.to_vec(),
        acknowledge: act(Kind::Acknowledge).filter(|_| group.unacknowledged > 0),
        reprocess: act(Kind::Reprocess),
    }
}

fn mail_row(listed: &Listed, now: Time) -> MailRow {
    let mail = &listed.mail;
    MailRow {
        mail: link(&url::mail(&mail.key), &mail.key),
        came: when(mail.last_updated, now),
        sender: short(&mail.envelope.reverse_path),
        recipients: recipients(listed),
        passes: mail.passes(),
        acknowledged: Html::text(listed.acknowledged.as_ref().map_or("no".to_owned(), |by| short(&by.by))),
    }
}

fn recipients(listed: &Listed) -> String {
    let all = &listed.mail.envelope.recipients;
    let first = all.first().map_or_else(|| "nobody".to_owned(), short);
    if all.len() > 1 { format!("{first} and {} more", all.len() - 1) } else { first }
}
