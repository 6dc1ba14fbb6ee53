//! What must hold of all processors together, proved when they are read.
//!
//! Every recipient reaches an end, in one pass is tried at most once, and no rule waits
//! for a counter that nothing counts.

use std::collections::BTreeSet;

use super::config::{Draft, DraftRule};
use super::mailet::Mailet;
use super::matcher::Matcher;
use crate::yaml::Reading;

pub(super) fn all(drafts: &[Draft<'_>], reading: &Reading) {
    for draft in drafts.iter().filter(|draft| !draft.incomplete) {
        open_end(draft, reading);
    }
    circles(drafts, reading);
    second_attempts(drafts, reading);
    uncounted_limits(drafts, reading);
}

/// A recipient that passes the last rule would be nowhere.
fn open_end(draft: &Draft<'_>, reading: &Reading) {
    if !draft.rules.iter().any(|draft| draft.rule.takes_all()) {
        let message = format!(
            "processor '{}' has an open end: let its last rule be 'match: All' with RemoteDelivery, ToRepository \
             (without passThrough), ToProcessor or Null",
            draft.name
        );
        reading.problem(draft.place, message);
    }
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
