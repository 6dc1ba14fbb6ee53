//! One attempt of a mail: what became of each recipient, and what was said.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;

use super::super::Shared;
use super::super::error::Refusal;
use super::super::query::Query;
use super::door::Visitor;
use super::frame::{Frame, Section, page};
use super::html::{Html, cut, link, mark, outcome, short, when, when_known};
use super::mails::recorded;
use super::url;
use crate::mail::{Attempt, AttemptState, MailKey, Recorded, Side};
use crate::text::{one_line, printable};

/// Recipients that are shown.
const RECIPIENTS: usize = 50;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/ui/mails/{key}/attempts/{number}", get(one))
}

/// What became of a recipient.
pub(super) struct OutcomeRow {
    pub(super) recipient: String,
    pub(super) outcome: Html,
    pub(super) code: String,
    pub(super) stage: String,
    pub(super) next_hop: String,
    pub(super) host: String,
    /// The reply in its own lines, or our own words.
    pub(super) said: String,
    pub(super) tls: String,
    pub(super) notes: Vec<String>,
    pub(super) took: String,
}

/// Recipients whose replies are shown at length: those of many are mostly the same.
const FEW: usize = 5;

/// Columns of a reply where there are many.
const REPLY: usize = 80;

/// The first of these outcomes, each as a row; what was said to many is cut, unless it is to be
/// `whole`.
pub(super) fn outcome_rows(recorded: &[Recorded], shown: usize, whole: bool) -> Vec<OutcomeRow> {
    let whole = whole || recorded.len() <= FEW;
    recorded.iter().take(shown).map(|one| outcome_row(one, whole)).collect()
}

fn outcome_row(one: &Recorded, whole: bool) -> OutcomeRow {
    let code = one.code.map(|code| code.to_string()).into_iter().chain(one.enhanced.clone());
    let peer = one.peer().map(|peer| format!(" ({peer})")).unwrap_or_default();
    let host = one.host.as_ref().map(|host| format!("{host}{peer}")).unwrap_or_default();
    let mut outcome = outcome(one.outcome);
    if one.in_doubt {
        outcome = outcome.and(&mark("wait", "in doubt"));
    }
    OutcomeRow {
        recipient: cut(&one.recipient.to_string(), 100),
        outcome,
        code: cut(&code.collect::<Vec<_>>().join(" "), 20),
        stage: one.stage.to_string(),
        next_hop: cut(one.next_hop.as_deref().unwrap_or("-"), 80),
        host: cut(&host, 120),
        said: said(one, whole),
        tls: one.tls.as_ref().map_or_else(
            || "none".to_owned(),
            |tls| {
                let verified = if tls.verified {
                    "verified".to_owned()
                } else {
                    format!("not verified{}", tls.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}")))
                };
                short(format!("{} {}, {verified}", tls.version, tls.cipher))
            },
        ),
        notes: one.notes.iter().map(short).collect(),
        took: format!("{:.3} s", one.duration),
    }
}

/// What the other side said, or we ourselves.
fn said(one: &Recorded, whole: bool) -> String {
    let text = one.reply.as_deref().or(one.cause.as_deref()).unwrap_or_default();
    if !whole {
        return cut(text, REPLY);
    }
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// A line of what was said.
struct Said {
    time: String,
    /// Who said it, in a word for those who do not see the arrow.
    who: &'static str,
    arrow: &'static str,
    text: String,
}

#[derive(Template)]
#[template(path = "attempt.html", config = "src/admin/page/askama.toml")]
struct Page {
    frame: Frame,
    mail: Html,
    sender: String,
    started: Html,
    finished: Html,
    state: Html,
    counted: bool,
    rows: Vec<OutcomeRow>,
    more: usize,
    whole: String,
    dialogue: Vec<Said>,
    previous: Option<String>,
    following: Option<String>,
}

async fn one(
    State(shared): super::super::State,
    visitor: Visitor,
    path: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
    query: Query,
) -> Result<Response, Refusal> {
    let Path((key, number)) = path?;
    let unknown = || {
        Refusal::not_found(format!("There is no attempt {} of mail {} on record", one_line(&number), one_line(&key)))
    };
    let key = MailKey::parse(&key).ok_or_else(unknown)?;
    let all = recorded(&shared, &key).await?;
    let wanted = number.parse::<u32>().map_err(|_| unknown())?;
    let attempt = all.iter().find(|attempt| attempt.number == wanted).ok_or_else(unknown)?;
    let is_whole = query.flag("whole");
    let shown = if is_whole { usize::MAX } else { RECIPIENTS };
    let beside = |number: Option<u32>| {
        let there = number.filter(|number| all.iter().any(|attempt| attempt.number == *number));
        there.map(|number| url::attempt(&key, number))
    };
    Ok(page(&Page {
        frame: visitor.frame(format!("Attempt {wanted} of mail {key}"), Section::Mails),
        mail: link(&url::mail(&key), &key),
        sender: short(&attempt.sender),
        started: when(attempt.started, visitor.now),
        finished: when_known(attempt.finished, visitor.now),
        state: state(attempt),
        counted: attempt.counted,
        rows: outcome_rows(&attempt.recipients, shown, is_whole),
        more: attempt.recipients.len().saturating_sub(shown),
        whole: url::with(&url::attempt(&key, wanted), &[("whole", "true")]),
        dialogue: dialogue(attempt),
        previous: beside(wanted.checked_sub(1)),
        following: beside(wanted.checked_add(1)),
    }))
}

fn state(attempt: &Attempt) -> Html {
    match attempt.state {
        AttemptState::Open => mark("wait", "under way"),
        AttemptState::Settled => Html::text("ended"),
        AttemptState::InDoubt => mark("wait", "in doubt").and(&Html::text("the peer may have the mail")),
    }
}

fn dialogue(attempt: &Attempt) -> Vec<Said> {
    let entry = |entry: &crate::mail::DialogueEntry| {
        let (who, arrow) = match entry.from {
            Side::Client if entry.is_event() => ("event", "\u{00b7}"),
            Side::Client => ("we", "\u{2192}"),
            Side::Server => ("peer", "\u{2190}"),
        };
        let text = entry.text.lines().map(printable).collect::<Vec<_>>().join("\n");
        Said { time: entry.time.format("%H:%M:%S%.3f").to_string(), who, arrow, text }
    };
    attempt.dialogue.iter().map(entry).collect()
}
