//! One mail, there or gone: where it rests and why, what was tried, and what can be done.

mod due;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;

use super::super::error::Refusal;
use super::super::mail_repositories::{archive, message};
use super::super::query::Query;
use super::super::{Name, Shared};
use super::act::{self, Kind};
use super::attempts_of_mail::{OutcomeRow, outcome_rows};
use super::door::Visitor;
use super::frame::{Frame, Section, page};
use super::html::{self, Html, count, link, mark, short, when};
use super::repositories::place_name;
use super::url;
use crate::audit::{gone_words, header, operation_words, whereabouts};
use crate::clients::Role;
use crate::mail::{Address, Attempt, AttemptState, Mail, MailKey, Notice, Outcome, RepositoryPath};
use crate::store::{AttemptFilter, Lineage, Listed, Operation, Place, Span, Time};
use crate::text::printable;

/// Recipients whose outcomes are shown; and rows of lists of them, so that a page is no longer
/// than 50 kB.
const RECIPIENTS: usize = 50;
const LISTED: usize = 20;

/// Attempts that are looked at, and lines of them that are shown, the latest.
const ATTEMPTS: usize = 1000;
const LINES: usize = 30;

/// Columns of what was said on such a line.
const SAID: usize = 120;

/// Octets of a header that are shown.
const HEADER: usize = 2400;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/ui/mails/{key}", get(one))
        .route("/ui/mails/{key}/message", get(download))
        .route("/ui/mails/{key}/bundle", get(bundle))
}

/// A name with its value.
struct Fact {
    name: &'static str,
    value: Html,
}

/// An attempt on one line.
struct Line {
    number: Html,
    started: Html,
    outcomes: Html,
    next_hop: String,
    said: String,
}

/// An attribute, cut.
struct Attribute {
    name: String,
    value: String,
}

#[derive(Template)]
#[template(path = "mail.html", config = "src/admin/page/askama.toml")]
struct Page {
    frame: Frame,
    /// Where it is, in a sentence.
    state: Html,
    /// What comes next, where something does.
    outlook: Vec<String>,
    facts: Vec<Fact>,
    /// What can be done with it, and where that is asked.
    actions: Vec<(String, &'static str)>,
    /// The message, where it is there.
    message: Option<String>,
    /// Where bundles come from, and about whom one may be.
    bundle: Option<Bundle>,
    /// Outcomes of the last attempt, and where its whole record is.
    last: Vec<OutcomeRow>,
    last_href: String,
    last_more: usize,
    /// Attempts, the latest first.
    attempts: Vec<Line>,
    attributes: Vec<Attribute>,
    header: Option<String>,
    /// What was told of whom.
    notices: Vec<NoticeRow>,
    operations: Vec<(Html, String)>,
    /// Where nothing is cut, if something is.
    whole: Option<String>,
}

/// What the sender was told of a recipient, or why he was not.
struct NoticeRow {
    recipient: String,
    action: &'static str,
    at: Html,
    dsn: Html,
    to: String,
}

fn notices(mail: &Mail, shown: usize, now: Time) -> Vec<NoticeRow> {
    let to = mail.envelope.return_path().map_or_else(|| "<>".to_owned(), short);
    let of = |recipient| mail.envelope.dsn.of(recipient).told.iter().map(move |notice| (recipient, notice));
    let all = mail.envelope.recipients.iter().flat_map(of);
    let row = |(recipient, notice): (&Address, &Notice)| NoticeRow {
        recipient: short(recipient),
        action: notice.action.name(),
        at: when(notice.at, now),
        dsn: match (&notice.dsn, &notice.note) {
            (Some(dsn), _) => link(&url::mail(dsn), dsn),
            (None, Some(why)) => Html::text(short(why)),
            (None, None) => Html::text("-"),
        },
        to: to.clone(),
    };
    all.take(shown).map(row).collect()
}

/// What is asked of notifications, in the words of the protocol.
fn asked(mail: &Mail) -> Option<String> {
    let dsn = &mail.envelope.dsn;
    let of_mail = [dsn.ret.map(|ret| format!("RET={ret}")), dsn.envid.as_ref().map(|envid| format!("ENVID={envid}"))];
    let notify = mail.envelope.recipients.iter().filter_map(|one| dsn.of(one).notify);
    let of_recipients: BTreeSet<_> = notify.map(|notify| format!("NOTIFY={notify}")).collect();
    let all: Vec<_> = of_mail.into_iter().flatten().chain(of_recipients).collect();
    (!all.is_empty()).then(|| all.join(" "))
}

/// How a bundle is asked for.
struct Bundle {
    href: String,
    hops: Vec<String>,
    /// Whether the role may have all of it.
    full: bool,
}

/// What is known of a mail.
struct Known {
    key: MailKey,
    /// Where it is, unless it is gone.
    here: Option<(Place, Listed)>,
    gone: Option<crate::store::Gone>,
    lineage: Lineage,
    /// Oldest first.
    attempts: Vec<Attempt>,
    operations: Vec<Operation>,
}

impl Known {
    async fn read(shared: &Shared, key: &str) -> Result<Self, Refusal> {
        let searched = "The attempts of mails that are gone can be searched as long as they are on record.";
        let unknown = || Refusal::not_found(format!("Nothing is known of a mail {key}")).with_details(searched);
        let key = MailKey::parse(key).ok_or_else(unknown)?;
        let store = &*shared.context.store;
        let here = whereabouts(store, &key).await?;
        let gone = if here.is_none() { store.gone(&key).await? } else { None };
        let attempts = match &here {
            Some((_, listed)) => store.attempts_of(&listed.mail).await?,
            None => recorded(shared, &key).await?,
        };
        let (lineage, operations) = (store.lineage_of(&key).await?, store.operations_of(&key).await?);
        if here.is_none() && gone.is_none() && attempts.is_empty() && operations.is_empty() {
            return Err(unknown());
        }
        Ok(Self { key, here, gone, lineage, attempts, operations })
    }

    fn mail(&self) -> Option<&Mail> {
        self.here.as_ref().map(|(_, listed)| &listed.mail)
    }

    fn last(&self) -> Option<&Attempt> {
        self.attempts.iter().rev().find(|attempt| !attempt.recipients.is_empty())
    }
}

/// The attempts of a mail that are on record, oldest first.
pub(super) async fn recorded(shared: &Shared, key: &MailKey) -> Result<Vec<Attempt>, Refusal> {
    let filter = AttemptFilter { key: Some(key.clone()), ..AttemptFilter::default() };
    Ok(shared.context.store.attempts(&filter, &Span::of(ATTEMPTS)).await?.items)
}

async fn one(
    State(shared): super::super::State,
    visitor: Visitor,
    key: Name,
    query: Query,
) -> Result<Response, Refusal> {
    let Path(key) = key?;
    let known = Known::read(&shared, &key).await?;
    let whole = query.flag("whole");
    let header = match known.mail() {
        Some(mail) => Some(header_text(&header(&*shared.context.store, mail).await?)),
        None => None,
    };
    let last = known.last();
    let is_header_cut = header.as_ref().is_some_and(|header| header.len() > HEADER);
    let recipients = known.mail().map_or(0, |mail| mail.envelope.recipients.len());
    let lines = if whole { usize::MAX } else { LINES };
    let is_cut = is_header_cut
        || recipients > LISTED
        || attributes_are_cut(known.mail())
        || known.attempts.len() > LINES
        || last.is_some_and(|last| last.recipients.len() > 1);
    let (shown, listed) = if whole { (usize::MAX, usize::MAX) } else { (RECIPIENTS, LISTED) };
    let operation = query.get("operation").unwrap_or_default();
    let notice = known.operations.iter().find(|one| one.id.to_string() == operation);
    let notice = notice.map(|one| Html::text(format!("Done: {}.", short(operation_words(one)))));
    Ok(page(&Page {
        frame: visitor.frame(format!("Mail {}", known.key), Section::Mails).notice(notice),
        state: state(&known, visitor.now),
        outlook: due::outlook(&shared, &known, visitor.now).await?,
        facts: facts(&known, listed, visitor.now),
        actions: actions(&visitor, &known),
        message: known.here.as_ref().map(|_| format!("{}/message", url::mail(&known.key))),
        bundle: known.here.as_ref().map(|_| offered(&visitor, &known)),
        last: last.map(|last| outcome_rows(&last.recipients, shown, whole)).unwrap_or_default(),
        last_href: last.map(|last| url::attempt(&last.key, last.number)).unwrap_or_default(),
        last_more: last.map_or(0, |last| last.recipients.len().saturating_sub(shown)),
        attempts: known.attempts.iter().rev().take(lines).map(|attempt| line(attempt, visitor.now)).collect(),
        attributes: known.mail().map(|mail| attributes(mail, whole)).unwrap_or_default(),
        header: header.map(|header| if whole { header } else { header.chars().take(HEADER).collect() }),
        notices: known.mail().map(|mail| notices(mail, listed, visitor.now)).unwrap_or_default(),
        operations: known.operations.iter().rev().map(|one| (when(one.at, visitor.now), done(one))).collect(),
        whole: (is_cut && !whole).then(|| url::with(&url::mail(&known.key), &[("whole", "true")])),
    }))
}

fn done(operation: &Operation) -> String {
    short(operation_words(operation))
}

/// Where it is, in a sentence.
fn state(known: &Known, now: Time) -> Html {
    match (&known.here, &known.gone) {
        (Some((place, listed)), _) if listed.in_hand => mark("wait", "in hand")
            .and(&Html::text(format!("an attempt is under way; it rests in {}", place_name(place)))),
        (Some((place, listed)), _) => {
            let (kind, word) = match place {
                Place::Spool => ("wait", "waiting"),
                Place::Repository(path) if *path == RepositoryPath::error() => ("bad", "error"),
                Place::Repository(_) => known.last().map_or(("plain", "kept"), worst),
            };
            let place = link(&url::mails(place, &[]), place_name(place));
            mark(kind, word)
                .and(&Html::text("in"))
                .and(&place)
                .and(&Html::text("since"))
                .and(&when(listed.mail.last_updated, now))
        }
        (None, Some(gone)) => mark("plain", "gone:").and(&Html::text(short(gone_words(gone)))),
        (None, None) => mark("plain", "gone").and(&Html::text("and how is no longer on record")),
    }
}

/// The worst of an attempt's outcomes.
fn worst(attempt: &Attempt) -> (&'static str, &'static str) {
    match attempt.recipients.iter().map(|one| one.outcome).max() {
        Some(Outcome::Failed) => ("bad", "failed"),
        Some(Outcome::Deferred) => ("wait", "deferred"),
        Some(Outcome::Delivered) => ("good", "delivered"),
        None => ("plain", "kept"),
    }
}

fn facts(known: &Known, shown: usize, now: Time) -> Vec<Fact> {
    let fact = |name, value| Fact { name, value };
    let related = related(&known.lineage).into_iter().map(|(name, value)| fact(name, value));
    let Some((_, listed)) = &known.here else {
        let sender = known.attempts.last().map(|attempt| fact("Sender", Html::text(short(&attempt.sender))));
        let tried =
            (!known.attempts.is_empty()).then(|| fact("Recipients tried", recipients(known, &tried(known), shown)));
        return sender.into_iter().chain(tried).chain(related).collect();
    };
    let mail = &listed.mail;
    let mut facts = vec![
        fact("Sender", Html::text(short(&mail.envelope.reverse_path))),
        fact("Recipients", recipients(known, &mail.envelope.recipients, shown)),
        fact("Accepted", when(listed.accepted, now)),
        fact("Size", Html::text(html::size(mail.facts.size))),
        fact("Passes", Html::text(mail.passes())),
        fact("Processor", Html::text(short(&mail.state))),
    ];
    facts.extend(mail.client.map(|client| fact("From client", Html::text(client))));
    facts.extend(asked(mail).map(|asked| fact("Asked of notifications", Html::text(short(asked)))));
    facts.extend(related);
    facts.extend(mail.error.as_ref().map(|error| fact("Why here", Html::text(short(error)))));
    if let Some(note) = &listed.acknowledged {
        let words = if note.note.is_empty() { String::new() } else { format!(": {}", note.note) };
        let by = Html::text(short(format!("by {}{words}", note.by)));
        facts.push(fact("Acknowledged", when(note.at, now).and(&by)));
    }
    facts
}

/// Mails that it shares attempts with.
fn related(lineage: &Lineage) -> Vec<(&'static str, Html)> {
    let to = |key: &MailKey| link(&url::mail(key), key);
    let origin = lineage.origin.as_ref().map(|origin| ("Split off from", to(origin)));
    let parts = (!lineage.parts.is_empty()).then(|| ("Split off from it", html::lines(lineage.parts.iter().map(to))));
    origin.into_iter().chain(parts).collect()
}

/// Whom its attempts were for.
fn tried(known: &Known) -> Vec<Address> {
    let mut seen = HashSet::new();
    let all = known.attempts.iter().flat_map(|attempt| &attempt.recipients).map(|one| &one.recipient);
    all.filter(|one| seen.insert(one.mailbox())).cloned().collect()
}

fn recipients(known: &Known, all: &[Address], shown: usize) -> Html {
    let rest = all.len().saturating_sub(shown);
    let whole = url::with(&url::mail(&known.key), &[("whole", "true")]);
    let more = (rest > 0).then(|| count(&whole, rest as u64).and(&Html::text("more")));
    html::lines(all.iter().take(shown).map(|one| Html::text(short(one))).chain(more))
}

/// What the visitor may do with it.
fn actions(visitor: &Visitor, known: &Known) -> Vec<(String, &'static str)> {
    let Some((place, listed)) = &known.here else { return Vec::new() };
    if listed.in_hand {
        return Vec::new();
    }
    let note = if listed.acknowledged.is_some() { Kind::Unacknowledge } else { Kind::Acknowledge };
    let kinds = [Kind::Reprocess, Kind::Move, note, Kind::Remove].into_iter();
    let possible = kinds.filter(|kind| kind.is_possible(place) && kind.is_allowed(visitor));
    possible.map(|kind| (act::ask(kind, place, &[("key", known.key.as_str())]), kind.button())).collect()
}

fn offered(visitor: &Visitor, known: &Known) -> Bundle {
    let all = known.attempts.iter().flat_map(|attempt| &attempt.recipients);
    let hops: BTreeSet<_> = all.filter_map(|one| one.next_hop.clone()).collect();
    Bundle {
        href: format!("{}/bundle", url::mail(&known.key)),
        hops: hops.into_iter().collect(),
        full: visitor.actor.role != Role::ReadOnly,
    }
}

/// An attempt on one line: what became of whom, and what was said last.
fn line(attempt: &Attempt, now: Time) -> Line {
    let number = |outcome| attempt.recipients.iter().filter(|one| one.outcome == outcome).count();
    let counts = [Outcome::Delivered, Outcome::Deferred, Outcome::Failed].map(|outcome| (outcome, number(outcome)));
    let mut outcomes: Vec<_> = counts
        .iter()
        .filter(|(_, number)| *number > 0)
        .map(|(outcome, number)| {
            if attempt.recipients.len() == 1 {
                html::outcome(*outcome)
            } else {
                html::outcome(*outcome).and(&Html::text(number))
            }
        })
        .collect();
    match attempt.state {
        AttemptState::Open => outcomes.push(mark("wait", "under way")),
        AttemptState::InDoubt => outcomes.push(mark("wait", "in doubt")),
        AttemptState::Settled => {}
    }
    if !attempt.counted {
        outcomes.push(Html::text("not counted"));
    }
    let worst = attempt.recipients.iter().max_by_key(|one| one.outcome);
    Line {
        number: link(&url::attempt(&attempt.key, attempt.number), format!("Attempt {}", attempt.number)),
        started: when(attempt.started, now),
        outcomes: html::lines(outcomes),
        next_hop: worst.and_then(|one| one.next_hop.as_deref()).map(short).unwrap_or_default(),
        said: worst
            .map(|one| html::cut(one.reply.as_deref().or(one.cause.as_deref()).unwrap_or_default(), SAID))
            .unwrap_or_default(),
    }
}

fn attributes(mail: &Mail, whole: bool) -> Vec<Attribute> {
    let value = |text: String| if whole { printable(&text) } else { short(text) };
    let all = mail.attributes.iter();
    all.map(|(name, given)| Attribute { name: short(name), value: value(given.to_string()) }).collect()
}

fn attributes_are_cut(mail: Option<&Mail>) -> bool {
    mail.is_some_and(|mail| mail.attributes.iter().any(|(_, value)| html::is_cut(&value.to_string())))
}

/// A header for a person: its own lines, with what steers made visible.
fn header_text(header: &[u8]) -> String {
    let text = String::from_utf8_lossy(header).replace("\r\n", "\n").replace('\t', "    ");
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// The mail that a download is of.
async fn present(shared: &Shared, key: Name) -> Result<Listed, Refusal> {
    let Path(key) = key?;
    let gone = || Refusal::not_found(format!("The mail {key} is not there any more, and its message neither"));
    let parsed = MailKey::parse(&key).ok_or_else(gone)?;
    Ok(whereabouts(&*shared.context.store, &parsed).await?.ok_or_else(gone)?.1)
}

async fn download(State(shared): super::super::State, key: Name) -> Result<Response, Refusal> {
    Ok(message(&shared, &present(&shared, key).await?.mail))
}

async fn bundle(
    State(shared): super::super::State,
    visitor: Visitor,
    key: Name,
    query: Query,
) -> Result<Response, Refusal> {
    let query = query.without_empty().unwrap_or(query);
    archive(&shared, &visitor.actor, &present(&shared, key).await?, &query).await
}
