//! `/ui/peers` and `/ui/explain`: next hops as they are now, and where mail would go.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;

use super::super::error::Refusal;
use super::super::query::Query;
use super::super::{self as admin, Shared};
use super::door::Visitor;
use super::frame::{Frame, Section, page};
use super::html::{Html, count, lines, link, mark, outcome, short, when};
use super::url;
use crate::audit::PeerView;
use crate::mail::{Address, Recorded, TlsFacts};
use crate::store::Time;
use crate::text::one_line;

/// Next hops of a page, those with the most trouble first.
const ROWS: usize = 100;

/// Hours whose outcomes are counted.
const HOURS: u32 = 24;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/ui/peers", get(peers)).route("/ui/explain", get(explain))
}

#[derive(Template)]
#[template(path = "peers.html", config = "src/admin/page/askama.toml")]
struct Page {
    frame: Frame,
    rows: Vec<Row>,
    more: usize,
}

struct Row {
    hop: Html,
    state: Html,
    why: String,
    connections: usize,
    waiting: usize,
    last: Html,
    delivered: Html,
    deferred: Html,
    failed: Html,
    tls: Html,
}

async fn peers(State(shared): admin::State, visitor: Visitor) -> Result<Response, Refusal> {
    let mut peers = shared.context.intake.now().spool.peers().await?;
    let seen = shared.context.store.hops(HOURS).await?;
    let last: BTreeMap<_, _> = seen.into_iter().map(|seen| (seen.next_hop, seen.last)).collect();
    // Who is in trouble stands first, then who has the most to do with us.
    let weight = |peer: &PeerView| (peer.outcomes.failed + peer.outcomes.deferred, peer.outcomes.delivered);
    peers.sort_by_key(|peer| (peer.down.is_none(), std::cmp::Reverse(weight(peer))));
    let rows = peers.iter().take(ROWS).map(|peer| row(peer, last.get(&peer.next_hop), visitor.now)).collect();
    let more = peers.len().saturating_sub(ROWS);
    Ok(page(&Page { frame: visitor.frame("Next hops", Section::Peers), rows, more }))
}

fn row(peer: &PeerView, last: Option<&Recorded>, now: Time) -> Row {
    let hop = peer.next_hop.as_str();
    let with = |name: &str| url::with("/ui/attempts", &[("nextHop", hop), ("outcome", name), ("since", "24h")]);
    let (state, why) = match &peer.down {
        Some(down) => (mark("bad", "down"), short(format!("since {}: {}", down.since, down.cause))),
        None if peer.connections > 0 => (Html::text("connected"), String::new()),
        None => (Html::text("idle"), String::new()),
    };
    Row {
        hop: link(&url::with("/ui/attempts", &[("nextHop", hop)]), hop),
        state,
        why,
        connections: peer.connections,
        waiting: peer.waiting,
        last: last.map_or_else(|| Html::text("-"), |last| lines([outcome(last.outcome), when(last.time, now)])),
        delivered: count(&with("delivered"), peer.outcomes.delivered),
        deferred: count(&with("deferred"), peer.outcomes.deferred),
        failed: count(&with("failed"), peer.outcomes.failed),
        tls: last.map_or_else(|| Html::text("-"), tls),
    }
}

/// What it spoke last.
fn tls(last: &Recorded) -> Html {
    match &last.tls {
        Some(TlsFacts { version, cipher, verified: true, .. }) => {
            Html::text(short(format!("{version} {cipher}, verified")))
        }
        Some(TlsFacts { version, cipher, reason, .. }) => {
            let why = reason.as_deref().map_or(String::new(), |reason| format!(" ({reason})"));
            Html::text(short(format!("{version} {cipher}, not verified{why}")))
        }
        None if last.code.is_some() => Html::text("none: in clear"),
        None => Html::text("-"),
    }
}

#[derive(Template)]
#[template(path = "explain.html", config = "src/admin/page/askama.toml")]
struct Explain {
    frame: Frame,
    recipient: String,
    /// What is wrong with it.
    wrong: String,
    explained: Vec<Vec<(&'static str, String)>>,
}

async fn explain(State(shared): admin::State, visitor: Visitor, query: Query) -> Result<Response, Refusal> {
    let recipient = query.get("recipient").map(str::trim).unwrap_or_default().to_owned();
    let (mut wrong, mut explained) = (String::new(), Vec::new());
    match Address::parse(&recipient) {
        _ if recipient.is_empty() => {}
        Ok(address) => explained = shared.context.intake.now().spool.explain(&[address]).await,
        Err(error) => wrong = short(error),
    }
    let frame = visitor.frame("Where would mail go?", Section::Explain);
    let shown = |(name, value): (&'static str, String)| (name, one_line(&value));
    let explained = explained.iter().map(|one| one.lines().into_iter().map(shown).collect()).collect();
    Ok(page(&Explain { frame, recipient, wrong, explained }))
}
