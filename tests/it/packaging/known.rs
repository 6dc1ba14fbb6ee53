//! What the program knows, asked of itself: a key that nobody knows is answered with those
//! that somebody does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use redeliver::config::{self, Source};

/// Far from every name, so that no guess is made.
const UNKNOWN: &str = "zzzzzzzzzzzzzzzzzzzzzzzz";

/// Keys by what they belong to.
pub(super) type Keys = BTreeMap<String, BTreeSet<String>>;

/// All that is wrong with a configuration of these files.
fn complaints(files: &[(&str, &str)]) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        std::fs::write(file, text).expect("written");
    }
    let source = Source::File(folder.path().join("redeliver.yaml"));
    match config::load(&source) {
        Ok(_) => Vec::new(),
        Err(wrong) => wrong.0.iter().map(|one| one.message.clone()).collect(),
    }
}

/// The names behind `known are` in the complaint about the unknown one.
fn known(complaints: &[String]) -> Option<BTreeSet<String>> {
    let about = complaints.iter().find(|one| one.starts_with("unknown ") && one.contains(UNKNOWN))?;
    let (_, names) = about.rsplit_once("known are ")?;
    Some(names.split(", ").map(str::to_owned).collect())
}

/// Every key of the main file by its whole path, such as `smtp.tls.key`.
pub(super) fn main_keys() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    add_keys_within(&[], &mut found);
    // It takes schemes, and one of them has a key.
    add_keys_within(&["stores", "sqlite"], &mut found);
    found
}

/// A mapping within mappings.
fn nested(path: &[&str], inner: &str) -> String {
    path.iter().rev().fold(format!("{{{inner}}}"), |inner, key| format!("{{{key}: {inner}}}"))
}

fn add_keys_within(path: &[&str], found: &mut BTreeSet<String>) {
    let alone = nested(path, &format!("{UNKNOWN}: 1"));
    // Or it takes a list of such.
    let listed = path.split_last().map(|(last, before)| nested(before, &format!("{last}: [{{{UNKNOWN}: 1}}]")));
    let mut texts = std::iter::once(alone).chain(listed);
    let Some(keys) = texts.find_map(|text| known(&complaints(&[("redeliver.yaml", &text)]))) else { return };
    for key in &keys {
        let inner: Vec<_> = path.iter().copied().chain([key.as_str()]).collect();
        found.insert(inner.join("."));
        if path.len() < 6 {
            add_keys_within(&inner, found);
        }
    }
}

fn of_rule(rule: &str) -> Vec<String> {
    complaints(&[("redeliver.yaml", &format!("processors: {{relay: [{{{rule}}}]}}"))])
}

/// The keys of every rule, and those of each mailet.
pub(super) fn rules_and_mailets() -> (BTreeSet<String>, Keys) {
    let mailets = known(&of_rule(&format!("mailet: {UNKNOWN}"))).expect("the mailets are told");
    let keys: Keys = mailets
        .into_iter()
        .map(|mailet| {
            // Some take any key: they have none of their own.
            let keys = known(&of_rule(&format!("mailet: '{mailet}', {UNKNOWN}: 1"))).unwrap_or_default();
            (mailet, keys)
        })
        .collect();
    let rules = keys.values().filter(|keys| !keys.is_empty()).cloned().reduce(|a, b| &a & &b).expect("keys");
    let own = keys.into_iter().map(|(mailet, keys)| (mailet, &keys - &rules)).collect();
    (rules, own)
}

/// The names of all matchers.
pub(super) fn matchers() -> BTreeSet<String> {
    known(&of_rule(&format!("match: {UNKNOWN}, mailet: 'Null'"))).expect("the matchers are told")
}

/// The keys of each kind of job.
pub(super) fn jobs() -> Keys {
    let read = |text: &str| complaints(&[("redeliver.yaml", "hostname: a.example\n"), ("jobs/one.yaml", text)]);
    let told = read(&format!("kind: {UNKNOWN}"));
    let kinds = told.iter().find_map(|one| one.split_once(" is expected here")).expect("the kinds are told").0;
    let keys = |kind: &str| known(&read(&format!("kind: {kind}\n{UNKNOWN}: 1\n"))).expect(kind);
    kinds.split(" or ").map(|kind| (kind.to_owned(), keys(kind))).collect()
}

/// The keys of a schedule.
pub(super) fn schedules() -> BTreeSet<String> {
    let files = [("redeliver.yaml", "hostname: a.example\n"), ("schedules/one.yaml", &*format!("{UNKNOWN}: 1\n"))];
    known(&complaints(&files)).expect("the keys are told")
}

/// The text of a manual page.
pub(super) fn page(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/man").join(name);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
