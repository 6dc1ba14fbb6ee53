//! Processors and rules on their way from James to YAML.

use std::time::Duration;

use super::matcher::Matcher;

/// A processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Processor {
    pub(super) name: String,
    /// Where the container has it.
    pub(super) line: usize,
    pub(super) entries: Vec<Entry>,
}

/// What stands in a processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Rule(Rule),
    LeftOut(LeftOut),
}

/// A rule of the container that has no counterpart. It stays as a comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Of the comment.
    pub(super) lines: Vec<String>,
    /// What James had done by it with mail that goes on behind it.
    pub(super) lost: Lost,
}

/// What James did with a mail and nobody does here: whether it may still be deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lost {
    /// Nothing.
    #[default]
    Nothing,
    /// It was kept, or given to somebody.
    Kept,
    /// Its sender, or the postmaster, was told.
    Told,
}

/// A rule of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// Where the container has it.
    pub(super) line: usize,
    /// Why it is not as James has it; empty where it is.
    pub(super) comment: String,
    pub(super) matcher: Matcher,
    pub(super) mailet: String,
    pub(super) parameters: Vec<(String, Value)>,
    /// The matcher asks which domains James hosted: James may have done otherwise with their
    /// mail.
    pub(super) hosted: bool,
    /// It keeps what James may have done something else with, that has no counterpart.
    pub(super) stands_in: bool,
    /// Its matcher bounds the passes that a RemoteDelivery's retries became.
    pub(super) is_of_passes: bool,
    /// A RemoteDelivery's own retries, which are still to become passes: the time before each.
    pub(super) delays: Vec<Duration>,
}

/// A value of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A text, quoted where it must be.
    Text(String),
    /// `true`, `false` or a number, as it stands.
    Bare(String),
}

impl Rule {
    pub(super) fn new(line: usize, matcher: Matcher, mailet: &str, parameters: Vec<(String, Value)>) -> Self {
        let (comment, mailet) = (String::new(), mailet.to_owned());
        Self {
            line,
            comment,
            matcher,
            mailet,
            parameters,
            hosted: false,
            stands_in: false,
            is_of_passes: false,
            delays: Vec::new(),
        }
    }

    pub(super) fn to_processor(line: usize, matcher: Matcher, name: &str) -> Self {
        Self::new(line, matcher, "ToProcessor", vec![pair("processor", name)])
    }

    pub(super) fn to_repository(line: usize, matcher: Matcher, url: &str) -> Self {
        Self::new(line, matcher, "ToRepository", vec![pair("repositoryPath", url)])
    }

    /// The same rule with a comment.
    pub(super) fn because(mut self, comment: impl Into<String>) -> Self {
        self.comment = comment.into();
        self
    }

    /// Sets a text in place, or at the end.
    pub(super) fn set(&mut self, name: &str, text: &str) {
        match self.parameters.iter_mut().find(|(key, _)| key == name) {
            Some((_, value)) => *value = Value::Text(text.to_owned()),
            None => self.parameters.push(pair(name, text)),
        }
    }

    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.value(name).map(|value| match value {
            Value::Text(text) | Value::Bare(text) => text.as_str(),
        })
    }

    /// Whether its mailet leaves nothing of what it takes for the next rule.
    pub(super) fn consumes(&self) -> bool {
        match self.mailet.as_str() {
            "RemoteDelivery" | "ToProcessor" | "Null" => true,
            "ToRepository" => self.text("passThrough") != Some("true"),
            // Whose sender may be told nothing goes on.
            "DSNBounce" => false,
            _ => self.text("passThrough") == Some("false"),
        }
    }

    /// Whether nobody is left behind it.
    pub(super) fn takes_all(&self) -> bool {
        self.matcher.is_all() && self.consumes() && self.text("onMailetException") != Some("ignore")
    }

    /// Whether it ends mail without a trace.
    pub(super) fn deletes(&self) -> bool {
        self.mailet == "Null" || self.mailet == "LogMessage" && self.consumes()
    }

    /// The processor that it leads to.
    pub(super) fn edge(&self) -> Option<&str> {
        match self.mailet.as_str() {
            "RemoteDelivery" => self.text("bounceProcessor"),
            "ToProcessor" => self.text("processor"),
            _ => None,
        }
    }

    /// Where mail goes that its mailet fails with: LogMessage reads the message, the others
    /// cannot fail.
    pub(super) fn edge_of_failure(&self) -> Option<&str> {
        let named = self.text("onMailetException").filter(|name| !matches!(*name, "ignore" | "propagate"));
        named.or((self.mailet == "LogMessage").then_some("error"))
    }
}

impl Processor {
    pub(super) fn new(name: &str, line: usize, rules: Vec<Rule>) -> Self {
        Self { name: name.to_owned(), line, entries: rules.into_iter().map(Entry::Rule).collect() }
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.entries.iter().filter_map(|entry| if let Entry::Rule(rule) = entry { Some(rule) } else { None })
    }
}

pub(super) fn pair(key: &str, text: &str) -> (String, Value) {
    (key.to_owned(), Value::Text(text.to_owned()))
}
