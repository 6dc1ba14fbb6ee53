//! The record of one recipient, out of the attempts that a command or a route printed.

use serde_json::Value;

/// The record of this recipient in the oldest attempt that has him; the domain's case is
/// as it was written.
pub(crate) fn record_of<'a>(attempts: &'a [Value], recipient: &str) -> Option<&'a Value> {
    let mut all = attempts.iter().flat_map(|attempt| attempt["recipients"].as_array().expect("recipients"));
    all.find(|record| record["recipient"].as_str().is_some_and(|address| address.eq_ignore_ascii_case(recipient)))
}

/// These members of a record with a blank between them, `-` for null.
pub(crate) fn words<const N: usize>(record: &Value, members: [&str; N]) -> String {
    let word = |name: &str| match &record[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    members.map(word).join(" ")
}

/// `outcome code enhanced stage` of a recipient.
pub(crate) fn summary(attempts: &[Value], recipient: &str) -> String {
    let of = |record| words(record, ["outcome", "code", "enhanced", "stage"]);
    record_of(attempts, recipient).map_or_else(|| "no record".to_owned(), of)
}
