//! Whether DSN may be offered to those who bring mail (RFC 3461).

use super::Config;
use super::files::File;
use crate::jobs::{self, Reprocess};
use crate::pipeline::{Taker, Untold};
use crate::yaml::{Node, Place, Value};

/// The rule that stands against it, in words with its place.
pub(super) fn silence(config: &Config, main: &File) -> Option<String> {
    let takers: Vec<_> = config.jobs.iter().filter_map(|(name, job)| taker(name, job)).collect();
    let found = config.processors.silence(&config.smtp.processor, &takers)?;
    let place = main
        .root()
        .and_then(|root| rule_place(root, &found.processor, found.rule))
        .and_then(|place| main.line_of(place));
    let rule = place.unwrap_or_else(|| format!("{} of processor {}", found.rule + 1, found.processor));
    let way = found.job.map(|job| format!(", where job {job} leads")).unwrap_or_default();
    Some(match found.of {
        Untold::Failures => format!("rule at {rule} keeps failures without telling{way}"),
        Untold::Deliveries => {
            format!("rule at {rule} tells nobody of deliveries{way}: it needs onSuccess with a DSNBounce")
        }
        Untold::Removal(repository, job) => {
            format!("rule at {rule} keeps mail in {repository}{way}, and job {job} removes it there without telling")
        }
    })
}

fn taker<'a>(job: &'a str, config: &'a jobs::Config) -> Option<Taker<'a>> {
    match config {
        jobs::Config::Reprocess(Reprocess { repository, processor, .. }) => {
            Some(Taker { job, repository, processor: Some(processor) })
        }
        jobs::Config::Purge { repository, .. } => Some(Taker { job, repository, processor: None }),
        _ => None,
    }
}

/// Where a rule of a processor stands, from 0.
pub(super) fn rule_place(root: &Node, processor: &str, number: usize) -> Option<Place> {
    let processor = entry(entry(root, "processors")?, processor)?;
    match &processor.value {
        Value::Sequence(rules) => rules.get(number).map(|rule| rule.place),
        _ => None,
    }
}

fn entry<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    match &node.value {
        Value::Mapping(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
        _ => None,
    }
}

impl Config {
    /// Whether DSN is offered, in one line for who asks.
    pub fn dsn_offer(&self) -> String {
        match &self.silence {
            None => "DSN: offered".to_owned(),
            Some(silence) => format!("DSN: not offered: {silence}"),
        }
    }
}
