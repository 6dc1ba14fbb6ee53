//! Whether mail can leave through what a container became.

use std::collections::BTreeSet;

use super::rule::{Processor, Rule};

/// Where all mail ends that comes in at `first`; `None` where a RemoteDelivery may try some of
/// it. The repositories, or the mailet that deletes it: those that any mail comes to, else
/// those that some does.
pub(super) fn dead_ends(processors: &[Processor], first: &str) -> Option<Vec<String>> {
    let met = rules_met(processors, first, false);
    if met.iter().any(|rule| rule.mailet == "RemoteDelivery") {
        return None;
    }
    let ends = met.into_iter().filter(|rule| rule.consumes() && rule.mailet != "ToProcessor");
    let (of_all, of_some): (Vec<_>, Vec<_>) = ends.partition(|rule| rule.matcher.is_all());
    let mut places = Vec::new();
    for rule in if of_all.is_empty() { of_some } else { of_all } {
        let place = place(rule);
        if !places.contains(&place) {
            places.push(place);
        }
    }
    Some(places)
}

/// The rules that some mail may come to, each once; `failures`: also what failed.
pub(super) fn rules_met<'a>(processors: &'a [Processor], first: &'a str, failures: bool) -> Vec<&'a Rule> {
    let (mut met, mut seen, mut waiting) = (Vec::new(), BTreeSet::new(), vec![first]);
    while let Some(name) = waiting.pop() {
        if !seen.insert(name) {
            continue;
        }
        let processor = processors.iter().filter(|processor| processor.name == name);
        for rule in processor.flat_map(Processor::rules).filter(|rule| !rule.matcher.is_never()) {
            met.push(rule);
            if failures || rule.mailet == "ToProcessor" {
                waiting.extend(rule.edge());
            }
            if rule.takes_all() {
                break;
            }
        }
    }
    met
}

fn place(rule: &Rule) -> String {
    let Some(url) = rule.text("repositoryPath") else { return rule.mailet.clone() };
    url.split_once("://").map_or(url, |(_, path)| path).trim_end_matches('/').to_owned()
}
