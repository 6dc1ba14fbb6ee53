//! A mail at rest.

use serde_json::{Map, Value, json};

use super::attempt::{attempt_picture, of_mail_json};
use super::operation::{operation_json, operation_words};
use crate::mail::{Address, Attempt, AttributeValue, DsnRequest, Mail, Notice, RecipientRequest, attribute};
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
    object["dsn"] = dsn_json(mail);
    object["operations"] = operations.iter().map(operation_json).collect();
    object
}

/// What is asked of notifications, and who was told of what; null where there is nothing of it.
pub(super) fn dsn_json(mail: &Mail) -> Value {
    let dsn = &mail.envelope.dsn;
    if *dsn == DsnRequest::default() {
        return Value::Null;
    }
    let recipients = mail.envelope.recipients.iter().map(|recipient| {
        let RecipientRequest { notify, orcpt, told } = dsn.of(recipient);
        let told: Vec<_> = told.iter().map(notice_json).collect();
        json!({"recipient": recipient, "notify": notify, "orcpt": orcpt, "told": told})
    });
    json!({
        "ret": dsn.ret,
        "envid": dsn.envid,
        "returnPath": mail.envelope.return_path(),
        "recipients": recipients.collect::<Vec<_>>(),
    })
}

fn notice_json(notice: &Notice) -> Value {
    let Notice { action, at, dsn, note } = notice;
    json!({"action": action.name(), "at": rfc3339(*at), "dsn": dsn, "note": note})
}

/// What is asked for a recipient, and what was told of him, behind his address.
fn recipient_words(mail: &Mail, recipient: &Address) -> String {
    let RecipientRequest { notify, orcpt, told } = mail.envelope.dsn.of(recipient);
    let mut words = recipient.to_string();
    for (name, value) in [("NOTIFY", notify.map(|notify| notify.to_string())), ("ORCPT", orcpt.clone())] {
        words.extend(value.map(|value| format!(" {name}={value}")));
    }
    words.extend(told.iter().map(|notice| format!("; {}", notice_words(notice))));
    words
}

fn notice_words(Notice { action, at, dsn, note }: &Notice) -> String {
    let told = match dsn {
        Some(key) => format!("{} told {} by {key}", action.name(), rfc3339(*at)),
        None => format!("{} not told {}", action.name(), rfc3339(*at)),
    };
    note.as_ref().map_or(told.clone(), |note| format!("{told} ({note})"))
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
    lines.extend(mail.envelope.recipients.iter().map(|one| ("recipient", recipient_words(mail, one))));
    let DsnRequest { ret, envid, return_path, .. } = &mail.envelope.dsn;
    lines.extend(ret.iter().map(|ret| ("DSN returns", ret.to_string())));
    lines.extend(envid.iter().map(|envid| ("envelope id", envid.clone())));
    lines.extend(return_path.iter().map(|path| ("accepted from", path.to_string())));
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
