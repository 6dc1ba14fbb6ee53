//! What rests where: the places, and the mails of one with a filter that is in its address.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;

use super::super::error::Refusal;
use super::super::query::Query;
use super::super::{Name, Shared};
use super::act::{self, Kind};
use super::door::{Visitor, see};
use super::field::{Field, Wrongs};
use super::frame::{Frame, Section, page};
use super::html::{self, Html, count, grouped, link};
use super::rows::{Row, rows};
use super::url;
use crate::audit::waiting;
use crate::mail::RepositoryPath;
use crate::operations::{self, Conditions, Wrong};
use crate::store::{MailFilter, Page, Place, Span, Sums};
use crate::text::rfc3339_seconds;

/// Mails of a page, and rows that are looked at for them.
const SHOWN: usize = 30;
const LOOKED_AT: usize = 20_000;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/ui/repositories", get(places))
        .route("/ui/repositories/", get(places))
        .route("/ui/repositories/{*path}", get(of_repository))
        .route("/ui/spool", get(of_spool))
}

/// A place in a list.
pub(super) struct PlaceRow {
    pub(super) name: Html,
    pub(super) what: &'static str,
    pub(super) mails: Html,
    pub(super) unacknowledged: Option<Html>,
    pub(super) size: String,
}

/// The places with what rests in them.
pub(super) async fn place_rows(shared: &Shared) -> Result<Vec<PlaceRow>, Refusal> {
    let kept = &shared.context.intake.now().kept;
    let row = |(place, sums): (Place, Sums)| {
        let href = url::mails(&place, &[]);
        let is_repository = matches!(place, Place::Repository(_));
        PlaceRow {
            name: link(&href, place_name(&place)),
            what: what(&place, |path| kept.contains(path)),
            mails: count(&href, sums.mails),
            unacknowledged: is_repository
                .then(|| count(&url::mails(&place, &[("unacknowledged", "true")]), sums.unacknowledged)),
            size: html::size(sums.octets),
        }
    };
    Ok(shared.context.store.sums().await?.into_iter().map(row).collect())
}

/// What a place is called.
pub(super) fn place_name(place: &Place) -> String {
    match place {
        Place::Spool => "spool".to_owned(),
        Place::Repository(path) => path.to_string(),
    }
}

/// What it means to rest there.
fn what(place: &Place, is_swept: impl Fn(&RepositoryPath) -> bool) -> &'static str {
    match place {
        Place::Spool => "Mail on its way",
        Place::Repository(path) if is_swept(path) => "Mail that waits for its next pass",
        Place::Repository(path) if *path == RepositoryPath::error() => "Mail that something of ours went wrong with",
        Place::Repository(path) if *path == RepositoryPath::dsn() => "Reports to senders that cannot be delivered",
        // The name that it has in what ships.
        Place::Repository(path) if path.last_segment() == "permanent" => "Mail that failed for good",
        Place::Repository(_) => "Mail that is kept",
    }
}

#[derive(Template)]
#[template(path = "places.html", config = "src/admin/page/askama.toml")]
struct Places {
    frame: Frame,
    places: Vec<PlaceRow>,
}

async fn places(State(shared): super::super::State, visitor: Visitor) -> Result<Response, Refusal> {
    let places = place_rows(&shared).await?;
    Ok(page(&Places { frame: visitor.frame("Mails", Section::Mails), places }))
}

async fn of_repository(
    State(shared): super::super::State,
    visitor: Visitor,
    name: Name,
    query: Query,
) -> Result<Response, Refusal> {
    let Path(name) = name?;
    let place = Place::Repository(shared.repository(&name).await?);
    of_place(&shared, &visitor, &place, &query).await
}

async fn of_spool(State(shared): super::super::State, visitor: Visitor, query: Query) -> Result<Response, Refusal> {
    of_place(&shared, &visitor, &Place::Spool, &query).await
}

#[derive(Template)]
#[template(path = "repository.html", config = "src/admin/page/askama.toml")]
struct Mails {
    frame: Frame,
    /// Where the form leads.
    href: String,
    what: &'static str,
    total: String,
    size: String,
    unacknowledged: Option<Html>,
    filter: Filter,
    /// Something in it cannot be read.
    is_wrong: bool,
    /// The conditions in words; empty where there are none.
    given: String,
    rows: Vec<Row>,
    /// What may be done to all that match, and where that is asked.
    actions: Vec<(String, &'static str)>,
    /// The same list from its other end.
    other_order: String,
    oldest_first: bool,
    /// Where it goes on.
    next: Option<String>,
    /// Whether this page is not the first, and where that is.
    first: Option<String>,
    /// How far was looked, where that ended the page.
    searched_to: Option<String>,
}

/// The form, as it was filled in.
struct Filter {
    first: Vec<Field>,
    more: Vec<Field>,
    unacknowledged: bool,
}

impl Filter {
    fn of(query: &Query, wrong: &Wrongs) -> Self {
        let field = |(name, label)| Field::of(name, label, query, wrong);
        let first = [
            ("recipient", "Recipient, or *@domain"),
            ("nextHop", "Next hop"),
            ("code", "Code"),
            ("text", "Words of the reply"),
        ];
        let more = [
            ("sender", "Sender, *@domain or <>"),
            ("domain", "Domain of a recipient"),
            ("olderThan", "Older than (2d, or a time)"),
            ("newerThan", "Newer than (1h, or a time)"),
            ("passes", "Passes"),
            ("group", "Cause"),
        ];
        let unacknowledged = query.flag("unacknowledged");
        Self { first: first.map(field).into(), more: more.map(field).into(), unacknowledged }
    }

    /// Whether a condition is set that is not among the first.
    fn has_more(&self) -> bool {
        self.more.iter().any(Field::is_filled)
    }
}

/// The filter that a query asks for, with its conditions; what cannot be read of it is noted.
async fn read(
    shared: &Shared,
    visitor: &Visitor,
    place: &Place,
    query: &Query,
    wrong: &mut Wrongs,
) -> Result<(Conditions, MailFilter), Refusal> {
    let mut conditions = Conditions::default();
    for name in Conditions::NAMES {
        let Some(value) = query.get(name) else { continue };
        match conditions.clone().with(name, value) {
            Ok(more) => conditions = more,
            Err(Wrong { condition, why }) => wrong.add(condition, &why),
        }
    }
    let filter = match shared.asked_by(&visitor.actor).operations().listing(place, &conditions).await {
        Err(operations::Error::Wrong(Wrong { condition, why })) => {
            wrong.add(condition, &why);
            MailFilter::default()
        }
        Err(error @ operations::Error::NoSuchGroup(_)) => {
            wrong.add("group", &error);
            MailFilter::default()
        }
        filter => filter?,
    };
    Ok((conditions, filter))
}

/// The conditions of a query, by name.
pub(super) fn given(query: &Query) -> Vec<(&str, &str)> {
    query.pairs().filter(|(name, _)| Conditions::NAMES.contains(name)).collect()
}

async fn of_place(shared: &Shared, visitor: &Visitor, place: &Place, query: &Query) -> Result<Response, Refusal> {
    if let Some(filled) = query.without_empty() {
        return Ok(see(&url::mails(place, &filled.pairs().collect::<Vec<_>>())));
    }
    let mut wrong = Wrongs::default();
    let (conditions, filter) = read(shared, visitor, place, query, &mut wrong).await?;
    let oldest_first = query.get("order") == Some("oldest");
    let span = Span::of(SHOWN).after(query.cursor()?).look(LOOKED_AT);
    let span = if oldest_first { span } else { span.newest_first() };
    let found =
        if wrong.is_empty() { shared.context.store.list(place, &filter, &span).await? } else { Page::default() };
    let waiting = waiting(&*shared.context.store, &found.items).await?;
    let sums = sums_of(shared, place).await?;
    let kept = &shared.context.intake.now().kept;
    let given = given(query);
    let in_order = |oldest: bool, cursor: Option<&str>| {
        let order = oldest.then_some(("order", "oldest"));
        let cursor = cursor.map(|cursor| ("cursor", cursor));
        url::mails(place, &given.iter().copied().chain(order).chain(cursor).collect::<Vec<_>>())
    };
    let is_repository = matches!(place, Place::Repository(_));
    Ok(wrong.told(page(&Mails {
        frame: visitor.frame(place_name(place), Section::Mails),
        href: url::mails(place, &[]),
        what: what(place, |path| kept.contains(path)),
        total: grouped(sums.mails),
        size: html::size(sums.octets),
        unacknowledged: is_repository
            .then(|| count(&url::mails(place, &[("unacknowledged", "true")]), sums.unacknowledged)),
        filter: Filter::of(query, &wrong),
        is_wrong: !wrong.is_empty(),
        given: if given.is_empty() { String::new() } else { html::short(&conditions) },
        rows: rows(&waiting, &found.items, visitor.now),
        actions: actions(visitor, place, &given),
        other_order: in_order(!oldest_first, None),
        oldest_first,
        next: found.next.map(|next| in_order(oldest_first, Some(&next.to_string()))),
        first: query.get("cursor").map(|_| in_order(oldest_first, None)),
        searched_to: found.searched_to.map(|time| rfc3339_seconds(&time, true)),
    })))
}

/// What the visitor may do to all that match.
fn actions(visitor: &Visitor, place: &Place, given: &[(&str, &str)]) -> Vec<(String, &'static str)> {
    let possible = Kind::ALL.into_iter().filter(|kind| kind.is_possible(place) && kind.is_allowed(visitor));
    possible.map(|kind| (act::ask(kind, place, given), kind.button())).collect()
}

async fn sums_of(shared: &Shared, place: &Place) -> Result<Sums, Refusal> {
    let all = shared.context.store.sums().await?;
    Ok(all.into_iter().find(|(known, _)| known == place).map(|(_, sums)| sums).unwrap_or_default())
}
