//! A mail at rest.

use serde_json::{Map, Value, json};

use super::attempt::{attempt_picture, of_mail_json};
use super::operation::{operation_json, operation_words};
use crate::mail::{Attempt, AttributeValue, Mail, attribute};
use crate::store::{Acknowledged, Listed, Operation, Time};
use crate::text::{age, one_line, rfc3339};

/// A mail in a listing.
pub fn mail_json(listed: &Listed) -> Value {
    let mail = &listed.mail;
    json!({
        "key": mail.key,
        "name": mail.name,
        "sender": mail.envelope.reverse_path,
        "recipients": mail.envelope.recipients,
        "state": mail.state,
        "lastUpdated": rfc3339(mail.last_updated),
        "passes": mail.passes(),
        "error": mail.error,
        "acknowledged": listed.acknowledged.as_ref().map(acknowledged_json),
    })
}

/// That somebody has taken note of a mail's failure.
pub(super) fn acknowledged_json(acknowledged: &Acknowledged) -> Value {
    let Acknowledged { by, at, note, operation } = acknowledged;
    json!({"by": by, "at": rfc3339(*at), "note": note, "operation": operation})
}

/// A mail with all there is to know of it.
pub fn whole_mail_json(listed: &Listed, attempts: &[Attempt], operations: &[Operation]) -> Value {
    let (mail, mut object) = (&listed.mail, mail_json(listed));
    object["attributes"] = attributes_json(mail);
    object["messageSize"] = mail.facts.size.into();
    object["origin"] = json!(mail.origin);
    object["attempts"] = attempts.iter().map(of_mail_json).collect();
    object["operations"] = operations.iter().map(operation_json).collect();
    object
}

/// James's mail attributes, each as text.
pub(super) fn attributes_json(mail: &Mail) -> Value {
    let texts = mail.attributes.iter().map(|(name, value)| (name.to_owned(), value.to_string().into()));
    texts.collect::<Map<String, Value>>().into()
}

/// A mail for a person, with its attempts.
pub fn mail_picture(listed: &Listed, attempts: &[Attempt], operations: &[Operation], now: Time) -> String {
    let mut picture = facts_picture(listed, operations, now);
    for attempt in attempts {
        picture.push('\n');
        picture.push_str(&attempt_picture(attempt));
    }
    picture
}

fn facts_picture(listed: &Listed, operations: &[Operation], now: Time) -> String {
    let mail = &listed.mail;
    let mut lines = vec![
        ("key", mail.key.to_string()),
        ("sender", mail.envelope.reverse_path.to_string()),
        ("accepted", format!("{} ({} ago)", rfc3339(listed.accepted), age(now - listed.accepted))),
        ("last updated", rfc3339(mail.last_updated)),
        ("size", format!("{} octets", mail.facts.size)),
        ("processor", mail.state.clone()),
        ("passes", mail.passes().to_string()),
    ];
    lines.extend(mail.envelope.recipients.iter().map(|recipient| ("recipient", recipient.to_string())));
    lines.extend(mail.origin.iter().map(|origin| ("split off from", origin.to_string())));
    lines.extend(mail.error.iter().map(|error| ("error", error.clone())));
    if listed.in_hand {
        lines.push(("in hand", "an attempt is under way".to_owned()));
    }
    if let Some(Acknowledged { by, at, note, .. }) = &listed.acknowledged {
        lines.push(("acknowledged", format!("{} by {by}: {note}", rfc3339(*at))));
    }
    lines.extend(operations.iter().map(|one| ("operation", format!("{} {}", rfc3339(one.at), operation_words(one)))));
    for (name, value) in mail.attributes.iter().filter(|(name, _)| *name != attribute::DELIVERY_ERROR) {
        lines.push(("attribute", format!("{name} = {value}")));
    }
    if let Some(AttributeValue::Text(error)) = mail.attributes.get(attribute::DELIVERY_ERROR) {
        lines.push(("last failure", error.clone()));
    }
    lines.iter().map(|(name, value)| format!("{name:<15} {}\n", one_line(value))).collect()
}
