//! What a task does, as far as this room has to know.

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::going::Going;
use super::status;
use crate::operations::Operator;
use crate::stop::Cancellation;
use crate::store::OperationId;

/// A task that is asked for.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// James's word for what kind of work it is.
    pub kind: &'static str,
    /// Who asks.
    pub by: Operator,
    /// What is asked for.
    pub parameters: Value,
    /// How much there is to do, where that is known.
    pub expected: Option<u64>,
    /// With what it may go on at once.
    pub together: Together,
}

/// With what a task may go on at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Together {
    /// With anything.
    Always,
    /// One at a time of this name; the others wait.
    InTurn(String),
    /// One of this name; others are refused meanwhile.
    Never(String),
}

/// How a task's work tells how far it is, and learns that it is to end.
pub struct Handle {
    going: Going,
    /// Who asked, with the task's id: for the record of operations.
    pub by: Operator,
}

impl Handle {
    pub(super) fn new(going: &Going, by: Operator) -> Self {
        Self { going: going.clone(), by }
    }

    /// Cancelled where the work is to end: somebody asked for it, or the service stops.
    pub fn stop(&self) -> &CancellationToken {
        self.going.stop()
    }

    /// What somebody asks for who cancels it; [`Handle::stop`] is cancelled after that.
    pub fn cancellation(&self) -> &Cancellation {
        self.going.cancellation()
    }

    /// So much is done; `details` are James's `additionalInformation`.
    pub fn progress(&self, done: u64, details: &Value) {
        self.going.change(|task| {
            task.done = done;
            task.details = details.to_string();
        });
    }

    /// It works on account of this operation.
    pub fn operation(&self, operation: OperationId) {
        self.going.change(|task| task.operation = Some(operation));
    }
}

/// How a task's work ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// All was done.
    complete: bool,
    /// What there is to say of it: James's `additionalInformation`.
    details: Value,
}

impl Ended {
    /// All was done.
    pub fn completed(details: Value) -> Self {
        Self { complete: true, details }
    }

    /// Not all was done; `details` say why.
    pub fn failed(details: Value) -> Self {
        Self { complete: false, details }
    }

    /// The status, and the details where the work left none those that it had before.
    pub(super) fn judged(self, was_asked: bool, stopped: bool, before: &str) -> (&'static str, String) {
        let nothing = self.details.as_object().is_none_or(serde_json::Map::is_empty);
        let mut details = if nothing { object(before) } else { self.details };
        let status = match (self.complete, was_asked) {
            (true, _) => status::COMPLETED,
            (false, true) => status::CANCELED,
            (false, false) => status::FAILED,
        };
        if status == status::FAILED && stopped && details.get("error").is_none() {
            details["error"] = json!("the service was stopped before this task ended; it is not begun again");
        }
        (status, details.to_string())
    }
}

/// Stored details; what is no object is none.
pub(super) fn object(text: &str) -> Value {
    serde_json::from_str(text).ok().filter(Value::is_object).unwrap_or_else(|| json!({}))
}

/// A random UUID (RFC 9562 section 5.4).
pub(super) fn new_id(random: u128) -> String {
    let id = random & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62;
    let hex = format!("{id:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
