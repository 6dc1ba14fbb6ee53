//! Failures by cause, as the store counts them.

use serde_json::{Value, json};

use super::or_nothing;
use crate::store::{FailureGroup, Time};
use crate::text::{age, rfc3339};

/// Of a listing of groups.
pub const GROUP_COLUMNS: [&str; 10] =
    ["GROUP", "MAILS", "NEW", "OLDEST", "LATEST", "CODE", "STAGE", "NEXT HOP", "REPOSITORY", "REPLY"];

/// A group in one repository; `days` are counts of arrivals, today (UTC) last.
pub fn group_json(group: &FailureGroup) -> Value {
    let cause = &group.cause;
    json!({
        "id": group.id,
        "repository": group.repository,
        "outcome": cause.outcome,
        "code": cause.code,
        "enhanced": cause.enhanced,
        "stage": cause.stage,
        "nextHop": cause.next_hop,
        "text": cause.text,
        "count": group.mails,
        "unacknowledged": group.unacknowledged,
        "oldest": rfc3339(group.oldest),
        "newest": rfc3339(group.newest),
        "days": group.days,
        "examples": group.examples,
    })
}

/// A group in [`GROUP_COLUMNS`].
pub fn group_row(group: &FailureGroup, now: Time) -> Vec<String> {
    let cause = &group.cause;
    vec![
        group.id.to_string(),
        group.mails.to_string(),
        group.unacknowledged.to_string(),
        age(now - group.oldest),
        age(now - group.newest),
        or_nothing(cause.code),
        or_nothing(cause.stage),
        or_nothing(cause.next_hop.as_ref()),
        group.repository.last_segment().to_owned(),
        cause.text.clone(),
    ]
}
