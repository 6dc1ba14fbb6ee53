//! What becomes of a part whose mailet failed by a fault of ours (`onMailetException`), and
//! the like for matchers (`onMatchException`).

use super::config::Known;
use crate::yaml::{Fields, Node, text};

/// A rule's `onMailetException`, as James has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum OnException {
    /// To processor `error`.
    #[default]
    Error,
    /// On to the next rule.
    Ignore,
    /// Past all processors to rest in the error repository, where James's spooler has it
    /// after five more tries.
    Propagate,
    /// To another processor.
    Processor(String),
}

impl OnException {
    /// Reads both keys. Every matcher is read whole before mail comes and reads nothing but
    /// the mail at hand, so none can fail: for matchers the value is only checked.
    pub(super) fn read(fields: &mut Fields<'_>, known: &Known<'_>) -> Self {
        fields.optional("onMatchException", |node| match text(node)?.as_str() {
            "nomatch" | "matchall" | "propagate" => Ok(()),
            _ => processor(node, known, "nomatch, matchall, propagate").map(drop),
        });
        let read = |node: &Node| match text(node)?.as_str() {
            "ignore" => Ok(Self::Ignore),
            "propagate" => Ok(Self::Propagate),
            _ => processor(node, known, "ignore, propagate").map(Self::Processor),
        };
        fields.optional("onMailetException", read).unwrap_or_default()
    }

    /// The processor it leads to.
    pub(super) fn edge(&self) -> Option<&str> {
        match self {
            Self::Processor(name) => Some(name),
            _ => None,
        }
    }
}

fn processor(node: &Node, known: &Known<'_>, words: &str) -> Result<String, String> {
    known.processor(node).map_err(|error| format!("{error}; known are also the words {words}"))
}
