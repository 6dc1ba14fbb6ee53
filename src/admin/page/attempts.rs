//! `/ui/attempts`: the record of all attempts, searched, of mails that are gone too.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;

use super::super::error::Refusal;
use super::super::query::Query;
use super::super::records::attempt_filter;
use super::super::{self as admin, Shared};
use super::door::{Visitor, see};
use super::field::{Field, Wrongs};
use super::frame::{Frame, Section, page};
use super::html::{Html, link, outcome, short, when};
use super::url;
use crate::mail::{Attempt, AttemptState, Recorded};
use crate::store::{self, AttemptFilter, Span, Time};

/// Attempts of a page, and recipients of one that are shown.
const ROWS: usize = 40;
const RECIPIENTS: usize = 5;

/// Rows that one search looks at.
const SEARCHED: usize = 20_000;

/// What is asked for, by the names of the query.
const FIELDS: [&str; 8] = ["recipient", "sender", "outcome", "code", "nextHop", "key", "since", "until"];

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/ui/attempts", get(search))
}

#[derive(Template)]
#[template(path = "attempts.html", config = "src/admin/page/askama.toml")]
struct Page {
    frame: Frame,
    given: Given,
    is_filtered: bool,
    /// Something that is asked for cannot be read.
    is_wrong: bool,
    rows: Vec<Row>,
    next: Option<String>,
    /// How far back was looked, where that ended the page.
    searched_to: Option<Html>,
}

/// What stands in the form.
struct Given {
    who: Vec<Field>,
    what: Vec<Field>,
    outcomes: Vec<(&'static str, bool)>,
    /// Why another outcome is none; empty where it is one.
    no_outcome: String,
}

/// A recipient of an attempt.
struct Row {
    time: Html,
    mail: Html,
    attempt: Html,
    recipient: String,
    outcome: Html,
    said: Html,
    hop: String,
    host: String,
}

async fn search(State(shared): admin::State, visitor: Visitor, query: Query) -> Result<Response, Refusal> {
    if let Some(filled) = query.without_empty() {
        return Ok(see(&url::with("/ui/attempts", &filled.pairs().collect::<Vec<_>>())));
    }
    let mut wrong = Wrongs::default();
    let filter = read(&query, visitor.now, &mut wrong)?;
    let span = Span::of(ROWS).newest_first().after(query.cursor()?).look(SEARCHED);
    let found =
        if wrong.is_empty() { shared.context.store.attempts(&filter, &span).await? } else { store::Page::default() };
    let next = found.next.map(|next| {
        let cursor = next.to_string();
        let mut parameters = given_pairs(&query);
        parameters.push(("cursor", &cursor));
        url::with("/ui/attempts", &parameters)
    });
    Ok(wrong.told(page(&Page {
        frame: visitor.frame("Attempts", Section::Attempts),
        is_filtered: !given_pairs(&query).is_empty(),
        rows: found.items.iter().flat_map(|attempt| rows(attempt, &filter, visitor.now)).collect(),
        next,
        searched_to: found.searched_to.map(|time| when(time, visitor.now)),
        given: Given::of(&query, &wrong),
        is_wrong: !wrong.is_empty(),
    })))
}

/// The attempts that are asked for; what cannot be read of that is noted, each value by itself.
fn read(query: &Query, now: Time, wrong: &mut Wrongs) -> Result<AttemptFilter, Refusal> {
    for name in FIELDS {
        let alone = query.get(name).map(|value| attempt_filter(&Query::of(name, value), now));
        if let Some(Err(refusal)) = alone {
            wrong.refused(name, &refusal);
        }
    }
    if wrong.is_empty() { attempt_filter(query, now) } else { Ok(AttemptFilter::default()) }
}

fn given_pairs(query: &Query) -> Vec<(&'static str, &str)> {
    FIELDS.iter().filter_map(|name| Some((*name, query.get(name)?))).collect()
}

impl Given {
    fn of(query: &Query, wrong: &Wrongs) -> Self {
        let chosen = query.get("outcome").unwrap_or_default();
        let field = |(name, label)| Field::of(name, label, query, wrong);
        let who = [("recipient", "Recipient, or *@domain"), ("sender", "Sender, <> for none")];
        let what = [
            ("code", "Reply code"),
            ("nextHop", "Next hop"),
            ("since", "Since (2h, or a time)"),
            ("until", "Until (1h, or a time)"),
            ("key", "Key of a mail"),
        ];
        Self {
            who: who.map(field).into(),
            what: what.map(field).into(),
            outcomes: ["delivered", "deferred", "failed"].map(|one| (one, one == chosen)).to_vec(),
            no_outcome: wrong.of("outcome"),
        }
    }
}

/// The recipients that are meant, the first of them.
fn rows(attempt: &Attempt, filter: &AttemptFilter, now: Time) -> Vec<Row> {
    let meant: Vec<_> = attempt.recipients.iter().filter(|recorded| filter.means(recorded)).collect();
    let mut rows: Vec<_> = meant.iter().take(RECIPIENTS).map(|recorded| row(attempt, recorded, now)).collect();
    match (meant.len().checked_sub(RECIPIENTS), meant.is_empty()) {
        (_, true) => rows.push(without_outcome(attempt, now)),
        (Some(more), _) if more > 0 => {
            if let Some(last) = rows.last_mut() {
                let rest = link(&url::attempt(&attempt.key, attempt.number), format!("and {more} more recipients"));
                last.said = last.said.clone().and(&rest);
            }
        }
        _ => {}
    }
    rows
}

fn row(attempt: &Attempt, recorded: &Recorded, now: Time) -> Row {
    let said = recorded.reply.as_deref().or(recorded.cause.as_deref()).unwrap_or_default();
    Row {
        time: when(recorded.time, now),
        mail: link(&url::mail(&attempt.key), &attempt.key),
        attempt: attempt_link(attempt),
        recipient: short(&recorded.recipient),
        outcome: outcome(recorded.outcome),
        said: Html::text(short(said)),
        hop: short(recorded.next_hop.as_deref().unwrap_or("-")),
        host: recorded.host.as_deref().map_or_else(|| "-".to_owned(), short),
    }
}

fn attempt_link(attempt: &Attempt) -> Html {
    link(&url::attempt(&attempt.key, attempt.number), format!("attempt {}", attempt.number))
}

/// An attempt that has told nothing yet, or ended before it could.
fn without_outcome(attempt: &Attempt, now: Time) -> Row {
    let words = match attempt.state {
        AttemptState::Open => "under way",
        AttemptState::Settled => "ended without an outcome",
        AttemptState::InDoubt => "in doubt",
    };
    Row {
        time: when(attempt.started, now),
        mail: link(&url::mail(&attempt.key), &attempt.key),
        attempt: attempt_link(attempt),
        recipient: "-".to_owned(),
        outcome: Html::text(words),
        said: Html::text("-"),
        hop: "-".to_owned(),
        host: "-".to_owned(),
    }
}
