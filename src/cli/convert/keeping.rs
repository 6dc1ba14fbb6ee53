//! Nothing is deleted that James kept, or whose sender it told.
//!
//! Follows what was left out along the processors: where mail comes behind it to a rule that
//! deletes, that rule keeps.

use std::collections::BTreeMap;

use super::notes::Notes;
use super::rule::{Entry, Lost, Processor, Rule};
use super::{ERROR, PERMANENT};

/// Keeps what would be deleted behind something that was left out.
pub(super) fn keep(processors: &mut [Processor], notes: &mut Notes) {
    let at_entry = settled(processors);
    for processor in processors {
        let mut lost = at_entry.get(&processor.name).copied().unwrap_or_default();
        for entry in &mut processor.entries {
            lost = lost.max(of_entry(entry));
            if let Entry::Rule(rule) = entry
                && rule.deletes()
                && lost != Lost::Nothing
            {
                *rule = kept(rule, lost, notes);
            }
        }
    }
}

fn kept(rule: &Rule, lost: Lost, notes: &mut Notes) -> Rule {
    let (path, why) = match lost {
        Lost::Told => {
            notes.warn_at(
                rule.line,
                format!("{} behind a dropped bounce would lose the mail: it is kept in {PERMANENT}", rule.mailet),
            );
            (PERMANENT, "kept, since nobody is told here")
        }
        Lost::Kept | Lost::Nothing => {
            notes.warn_at(
                rule.line,
                format!("{} would delete mail that James may have kept: it is kept in {ERROR}", rule.mailet),
            );
            (ERROR, "kept, since James may have kept it elsewhere")
        }
    };
    let mut kept = Rule::to_repository(rule.line, rule.matcher.clone(), path);
    kept.comment = format!("line {}: {why}", rule.line);
    kept
}

/// What was left out before mail comes to each processor.
fn settled(processors: &[Processor]) -> BTreeMap<String, Lost> {
    let mut at_entry = BTreeMap::new();
    loop {
        let before = at_entry.clone();
        for processor in processors {
            let lost = before.get(&processor.name).copied().unwrap_or_default();
            follow(processor, lost, &mut at_entry);
        }
        if at_entry == before {
            return at_entry;
        }
    }
}

fn follow(processor: &Processor, mut lost: Lost, at_entry: &mut BTreeMap<String, Lost>) {
    for entry in &processor.entries {
        lost = lost.max(of_entry(entry));
        let Entry::Rule(rule) = entry else { continue };
        for next in rule.edge().into_iter().chain(rule.edge_of_failure()) {
            let known = at_entry.entry(next.to_owned()).or_default();
            *known = lost.max(*known);
        }
        if rule.takes_all() {
            return;
        }
    }
}

/// What is lost where mail comes by. A rule that asks which domains James hosted sends their
/// mail another way than James did.
fn of_entry(entry: &Entry) -> Lost {
    match entry {
        Entry::LeftOut(left_out) => left_out.lost,
        // Not everybody may be told.
        Entry::Rule(rule) if rule.mailet == "DSNBounce" => Lost::Told,
        Entry::Rule(rule) if rule.hosted => Lost::Kept,
        Entry::Rule(_) => Lost::Nothing,
    }
}
