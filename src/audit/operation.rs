//! What operators did.

use serde_json::{Value, json};

use super::or_nothing;
use crate::store::{Gone, Operation};
use crate::text::rfc3339;

/// Of a listing of operations.
pub const OPERATION_COLUMNS: [&str; 8] = ["NO", "TIME", "WHO", "VERB", "MAILS", "REPOSITORY", "SELECTION", "DETAIL"];

/// An operation on record.
pub fn operation_json(operation: &Operation) -> Value {
    json!({
        "id": operation.id,
        "at": rfc3339(operation.at),
        "who": operation.who,
        "client": operation.client,
        "verb": operation.verb,
        "repository": operation.repository,
        "selection": operation.selection,
        "detail": operation.detail,
        "mails": operation.done,
        "skipped": operation.in_hand,
        "gone": operation.gone,
        "task": operation.task,
    })
}

/// An operation in [`OPERATION_COLUMNS`].
pub fn operation_row(operation: &Operation) -> Vec<String> {
    vec![
        operation.id.to_string(),
        rfc3339(operation.at),
        by(operation),
        operation.verb.clone(),
        operation.done.to_string(),
        or_nothing(operation.repository.as_ref()),
        operation.selection.clone(),
        operation.detail.clone().unwrap_or_default(),
    ]
}

fn by(operation: &Operation) -> String {
    let client = operation.client.as_ref().map_or(String::new(), |client| format!(" from {client}"));
    format!("{}{client}", operation.who)
}

/// What an operation did to a mail: `removed by operation 17, anna (full) from 127.0.0.1`.
pub fn operation_words(operation: &Operation) -> String {
    let done = match (operation.verb.as_str(), &operation.detail) {
        ("reprocess", Some(processor)) => format!("reprocessed through {processor}"),
        ("move", Some(to)) => format!("moved to {to}"),
        ("acknowledge", Some(note)) if !note.is_empty() => format!("acknowledged ({note})"),
        (verb, _) => past(verb),
    };
    format!("{done} by operation {}, {}", operation.id, by(operation))
}

fn past(verb: &str) -> String {
    if verb.ends_with('e') { format!("{verb}d") } else { format!("{verb}ed") }
}

/// What became of a mail that is not there any more.
pub fn gone_words(gone: &Gone) -> String {
    let since = rfc3339(gone.at);
    match &gone.operation {
        Some(operation) => format!("{} at {since}", operation_words(operation)),
        None => format!("delivered, or ended by a processor, at {since}"),
    }
}

/// The same for scripts.
pub fn gone_json(gone: &Gone) -> Value {
    json!({"at": rfc3339(gone.at), "operation": gone.operation.as_ref().map(operation_json), "text": gone_words(gone)})
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn what_was_done_is_said_with_who_and_from_where() {
        let operation = |verb: &str, detail: Option<&str>, client: Option<&str>| Operation {
            id: "17".parse().expect("a number"),
            at: DateTime::UNIX_EPOCH,
            who: "anna (full)".to_owned(),
            client: client.map(str::to_owned),
            verb: verb.to_owned(),
            repository: None,
            selection: "all".to_owned(),
            detail: detail.map(str::to_owned),
            task: None,
            done: 1,
            in_hand: 0,
            gone: 0,
        };
        for (verb, detail, client, words) in [
            ("remove", None, Some("127.0.0.1"), "removed by operation 17, anna (full) from 127.0.0.1"),
            ("purge", None, None, "purged by operation 17, anna (full)"),
            ("reprocess", Some("relay"), None, "reprocessed through relay by operation 17, anna (full)"),
            ("move", Some("var/x"), None, "moved to var/x by operation 17, anna (full)"),
            ("acknowledge", Some("known"), None, "acknowledged (known) by operation 17, anna (full)"),
            ("unacknowledge", None, None, "unacknowledged by operation 17, anna (full)"),
        ] {
            assert_eq!(operation_words(&operation(verb, detail, client)), words);
        }
    }
}
