//! What must hold of all processors together, proved when they are read.
//!
//! Every recipient reaches an end, in one pass is tried at most once, and no rule waits
//! for a counter that nothing counts.

use std::collections::{BTreeMap, BTreeSet};

use super::config::{Draft, DraftRule, ERROR_PROCESSOR};
use super::mailet::Mailet;
use super::matcher::Matcher;
use crate::mail::Action;
use crate::yaml::Reading;

/// What closes an open end.
pub(super) const CLOSE: &str = "let its last rule be 'match: All' with RemoteDelivery, ToRepository (without \
    passThrough), ToProcessor or Null";

/// Notes what is wrong in `reading`; mail comes in at processor `first`.
pub(super) fn all(drafts: &[Draft<'_>], first: &str, reading: &Reading) {
    open_ends(drafts, first, reading);
    successes(drafts, reading);
    circles(drafts, reading);
    second_attempts(drafts, reading);
    uncounted_limits(drafts, reading);
}

/// A recipient that passes the last rule would be nowhere, unless he has the mail.
fn open_ends(drafts: &[Draft<'_>], first: &str, reading: &Reading) {
    let (after, undelivered) = (after_success(drafts), undelivered(drafts, first));
    for draft in open_drafts(drafts).filter(|draft| undelivered.contains(draft.name)) {
        let mut astray: Vec<_> = edges_of_undelivered(drafts, &undelivered, &after)
            .filter_map(|(rule, edge)| (edge == draft.name).then_some(rule.edge_place))
            .collect();
        if !after.contains(draft.name) || astray.is_empty() {
            let message = format!("processor '{}' has an open end: {CLOSE}", draft.name);
            reading.problem(draft.place, message);
            continue;
        }
        astray.dedup();
        for place in astray {
            reading.problem(place, open_to_successes_alone(draft.name));
        }
    }
}

/// What to do about a processor for what is delivered, where another mail would come to it.
pub(super) fn open_to_successes_alone(name: &str) -> String {
    format!(
        "processor '{name}' has an open end, so that only onSuccess may lead to it: let its last rule be 'match: All' \
         with ToRepository (without passThrough) or Null, or name another processor here"
    )
}

/// Processors with an open end that no mail comes to, but for what is delivered, and whether that does.
pub(super) fn loose(drafts: &[Draft<'_>], first: &str) -> BTreeMap<String, bool> {
    let (after, undelivered) = (after_success(drafts), undelivered(drafts, first));
    let found = open_drafts(drafts).map(|draft| draft.name).filter(|name| !undelivered.contains(name));
    found.map(|name| (name.to_owned(), after.contains(name))).collect()
}

fn open_drafts<'a>(drafts: &'a [Draft<'a>]) -> impl Iterator<Item = &'a Draft<'a>> {
    drafts.iter().filter(|draft| !draft.incomplete && !draft.rules.iter().any(|draft| draft.rule.takes_all()))
}

/// Told once for each edge that closes a circle.
fn circles(drafts: &[Draft<'_>], reading: &Reading) {
    let mut finished = BTreeSet::new();
    for draft in drafts {
        follow(draft.name, drafts, &mut Vec::new(), &mut finished, reading);
    }
}

fn follow<'a>(
    name: &'a str,
    drafts: &'a [Draft<'a>],
    path: &mut Vec<&'a str>,
    finished: &mut BTreeSet<&'a str>,
    reading: &Reading,
) {
    if finished.contains(name) {
        return;
    }
    path.push(name);
    for (rule, next) in edges(name, drafts) {
        match path.iter().position(|one| *one == next) {
            Some(start) => {
                let circle = path[start..].iter().chain([&next]).copied().collect::<Vec<_>>().join(" -> ");
                let message = format!(
                    "a circle of processors: {circle}; a mail goes through again by a job of kind reprocess, not here"
                );
                reading.problem(rule.edge_place, message);
            }
            None => follow(next, drafts, path, finished, reading),
        }
    }
    path.pop();
    finished.insert(name);
}

fn edges<'a>(name: &str, drafts: &'a [Draft<'a>]) -> Vec<(&'a DraftRule, &'a str)> {
    let rules = drafts.iter().filter(|draft| draft.name == name).flat_map(|draft| &draft.rules);
    rules.flat_map(|draft| draft.rule.edges().map(move |edge| (draft, edge))).collect()
}

/// What one attempt leaves over is for the next pass, not for another attempt in this one.
fn second_attempts(drafts: &[Draft<'_>], reading: &Reading) {
    for first in drafts.iter().flat_map(|draft| &draft.rules) {
        let Mailet::RemoteDelivery(mailet) = &first.rule.mailet else { continue };
        if leads_to_delivery(&mailet.bounce_processor, drafts, &mut BTreeSet::new()) {
            let message = format!(
                "'{}' leads to another RemoteDelivery: a recipient is tried once per pass",
                mailet.bounce_processor
            );
            reading.problem(first.edge_place, message);
        }
    }
}

/// The processors that take what is delivered, and those behind them.
fn after_success<'a>(drafts: &'a [Draft<'a>]) -> BTreeSet<&'a str> {
    let first = drafts.iter().flat_map(|draft| &draft.rules).filter_map(|draft| draft.rule.on_success());
    first.flat_map(|name| reachable(name, drafts)).collect()
}

/// The processors that a mail may come to before it is delivered. One that is named for what is
/// delivered is none for a mistake in `smtp.processor`: that is told where it is.
fn undelivered<'a>(drafts: &'a [Draft<'a>], first: &'a str) -> BTreeSet<&'a str> {
    let after = after_success(drafts);
    let entered = [first, ERROR_PROCESSOR].into_iter().filter(|name| *name == ERROR_PROCESSOR || !after.contains(name));
    let mut found = BTreeSet::new();
    let mut waiting: Vec<_> = entered.collect();
    let others = drafts.iter().filter(|draft| !after.contains(draft.name)).flat_map(|draft| &draft.rules);
    waiting.extend(others.flat_map(|draft| draft.rule.ways_on()));
    while let Some(name) = waiting.pop() {
        if found.insert(name) {
            waiting.extend(rules_of(name, drafts).flat_map(|draft| draft.rule.ways_on()));
        }
    }
    found
}

/// Each rule that sends what is not delivered on, with the processor that it goes to.
fn edges_of_undelivered<'a>(
    drafts: &'a [Draft<'a>],
    undelivered: &BTreeSet<&str>,
    after: &BTreeSet<&str>,
) -> impl Iterator<Item = (&'a DraftRule, &'a str)> {
    let theirs = |draft: &&Draft<'_>| undelivered.contains(draft.name) || !after.contains(draft.name);
    let rules: Vec<_> = drafts.iter().filter(theirs).flat_map(|draft| &draft.rules).collect();
    rules.into_iter().flat_map(|draft| draft.rule.ways_on().map(move |edge| (draft, edge)))
}

/// Those whose rules do more than to tell who asked for it.
pub(super) fn keeping_processors<'a>(drafts: &'a [Draft<'a>]) -> BTreeSet<&'a str> {
    let keeps =
        |draft: &&DraftRule| !matches!(draft.rule.mailet, Mailet::DsnBounce(_) | Mailet::Null | Mailet::ToProcessor(_));
    let rules = |name: &str| {
        reachable(name, drafts).into_iter().flat_map(|name| rules_of(name, drafts)).any(|rule| keeps(&rule))
    };
    after_success(drafts).into_iter().filter(|name| rules(name)).collect()
}

/// What is delivered is done: it may be told and kept, and is never sent again.
fn successes(drafts: &[Draft<'_>], reading: &Reading) {
    for draft in drafts.iter().flat_map(|draft| &draft.rules) {
        let Some(name) = draft.rule.on_success() else { continue };
        for behind in reachable(name, drafts) {
            for rule in rules_of(behind, drafts) {
                let wrong = match &rule.rule.mailet {
                    Mailet::RemoteDelivery(_) => "leads to a RemoteDelivery: what is delivered is not sent again",
                    Mailet::LogMessage(mailet) if !mailet.pass_through => {
                        "ends in LogMessage: it may end only in Null, DSNBounce or ToRepository"
                    }
                    Mailet::DsnBounce(mailet) if mailet.action.is_some_and(|action| action != Action::Relayed) => {
                        "leads to a DSNBounce with another action than relayed, which tells nobody of a delivery"
                    }
                    _ => continue,
                };
                reading.problem(draft.success_place, format!("'{name}' {wrong}"));
            }
        }
    }
    relayed_elsewhere(drafts, reading);
}

/// Nothing but a delivery is told as `relayed`.
fn relayed_elsewhere(drafts: &[Draft<'_>], reading: &Reading) {
    if drafts.iter().any(|draft| draft.incomplete) {
        return;
    }
    let after = after_success(drafts);
    for draft in drafts.iter().filter(|draft| !after.contains(draft.name)) {
        for rule in &draft.rules {
            if let Mailet::DsnBounce(mailet) = &rule.rule.mailet
                && mailet.action == Some(Action::Relayed)
            {
                let message = format!("no onSuccess leads to '{}': nobody is told 'relayed' here", draft.name);
                reading.problem(rule.matcher_place, message);
            }
        }
    }
}

fn rules_of<'a>(name: &str, drafts: &'a [Draft<'a>]) -> impl Iterator<Item = &'a DraftRule> {
    let found = drafts.iter().find(|draft| draft.name == name);
    found.into_iter().flat_map(|draft| &draft.rules)
}

/// The processor, where there is one of that name, and those behind it.
fn reachable<'a>(name: &str, drafts: &'a [Draft<'a>]) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut waiting: Vec<_> = drafts.iter().filter(|draft| draft.name == name).collect();
    while let Some(draft) = waiting.pop() {
        if found.insert(draft.name) {
            let next: BTreeSet<_> = draft.rules.iter().flat_map(|draft| draft.rule.edges()).collect();
            waiting.extend(drafts.iter().filter(|draft| next.contains(draft.name)));
        }
    }
    found
}

fn leads_to_delivery<'a>(name: &'a str, drafts: &'a [Draft<'a>], seen: &mut BTreeSet<&'a str>) -> bool {
    if !seen.insert(name) {
        return false;
    }
    let mut rules = drafts.iter().filter(|draft| draft.name == name).flat_map(|draft| &draft.rules);
    rules.any(|draft| matches!(draft.rule.mailet, Mailet::RemoteDelivery(_)))
        || edges(name, drafts).into_iter().any(|(_, next)| leads_to_delivery(next, drafts, seen))
}

/// AttemptsExhausted reads a counter that some AtMost must count.
fn uncounted_limits(drafts: &[Draft<'_>], reading: &Reading) {
    if drafts.iter().any(|draft| draft.incomplete) {
        return;
    }
    let rules = || drafts.iter().flat_map(|draft| &draft.rules);
    let counted: BTreeSet<_> = rules()
        .flat_map(|draft| draft.rule.matcher.all())
        .filter_map(|matcher| if let Matcher::AtMost(limit) = matcher { Some(limit.counter.as_str()) } else { None })
        .collect();
    for draft in rules() {
        for matcher in draft.rule.matcher.all() {
            if let Matcher::AttemptsExhausted(limit) = matcher
                && !counted.contains(limit.counter.as_str())
            {
                let message = format!(
                    "AttemptsExhausted never matches: no AtMost counts '{}'; let the RemoteDelivery have 'match: AtMost={}'",
                    limit.counter, limit.most
                );
                reading.problem(draft.matcher_place, message);
            }
        }
    }
}
