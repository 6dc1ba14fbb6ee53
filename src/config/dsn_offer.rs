//! Whether DSN may be offered to those who bring mail (RFC 3461).

use super::Config;
use super::files::File;
use crate::pipeline::{Silence, Untold};
use crate::yaml::{Node, Place, Value};

/// The rule that stands against it, in words with its place.
pub(super) fn silence(config: &Config, main: &File) -> Option<String> {
    let found = config.processors.silence(&config.smtp.processor)?;
    let place = main.root().and_then(|root| place(root, &found)).and_then(|place| main.line_of(place));
    let rule = place.unwrap_or_else(|| format!("{} of processor {}", found.rule + 1, found.processor));
    Some(match found.of {
        Untold::Failures => format!("rule at {rule} keeps failures without telling"),
        Untold::Deliveries => format!("rule at {rule} tells nobody of deliveries: it needs onSuccess with a DSNBounce"),
    })
}

fn place(root: &Node, found: &Silence) -> Option<Place> {
    let processor = entry(entry(root, "processors")?, &found.processor)?;
    match &processor.value {
        Value::Sequence(rules) => rules.get(found.rule).map(|rule| rule.place),
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
