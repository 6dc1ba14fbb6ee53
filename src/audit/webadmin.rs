//! A mail as James's webadmin shows it, with what we add.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::attempt::of_mail_json;
use super::james_date;
use super::mail::{acknowledged_json, attributes_json, dsn_json};
use crate::mail::Attempt;
use crate::store::{Listed, Operation};

/// Members of a mail that are shown when they are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailFields(BTreeSet<&'static str>);

/// The names there are: James's, then ours.
const NAMES: [&str; 10] = [
    "attributes",
    "headers",
    "textBody",
    "htmlBody",
    "messageSize",
    "perRecipientsHeaders",
    "attempts",
    "acknowledged",
    "operations",
    "dsn",
];

impl MailFields {
    /// Reads a list with commas; case, blanks and repetitions make no difference.
    ///
    /// # Errors
    /// The first name that is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let named = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let known = |name: &str| NAMES.into_iter().find(|known| known.eq_ignore_ascii_case(name));
        named.map(|name| known(name).ok_or_else(|| name.to_owned())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether this member is asked for.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

/// A mail with the members asked for; `header` is that of its message, `attempts` and
/// `operations` are looked at where they are asked for.
pub fn webadmin_mail_json(
    listed: &Listed,
    fields: &MailFields,
    header: &[u8],
    attempts: &[Attempt],
    operations: &[Operation],
) -> Value {
    let mail = &listed.mail;
    let asked = |name: &str, value: fn(&Shown<'_>) -> Value| {
        if fields.has(name) { value(&Shown { listed, header, attempts, operations }) } else { Value::Null }
    };
    json!({
        "name": mail.name,
        "key": mail.key,
        "sender": mail.envelope.reverse_path,
        "recipients": mail.envelope.recipients,
        "error": mail.error,
        "state": mail.state,
        // Nobody looks names up.
        "remoteHost": null,
        "remoteAddr": mail.client,
        "lastUpdated": james_date(mail.last_updated),
        "passes": mail.passes(),
        "origin": mail.origin,
        "attributes": asked("attributes", |shown| attributes_json(&shown.listed.mail)),
        "perRecipientsHeaders": asked("perRecipientsHeaders", |_| json!({})),
        "headers": asked("headers", |shown| headers_json(shown.header)),
        // Nobody looks into a message.
        "textBody": null,
        "htmlBody": null,
        "messageSize": asked("messageSize", |shown| shown.listed.mail.facts.size.into()),
        "attempts": asked("attempts", |shown| shown.attempts.iter().map(of_mail_json).collect()),
        "acknowledged": asked("acknowledged", |shown| json!(shown.listed.acknowledged.as_ref().map(acknowledged_json))),
        "dsn": asked("dsn", |shown| dsn_json(&shown.listed.mail)),
        "operations": asked("operations", |shown| shown.operations.iter().map(super::operation_json).collect()),
    })
}

/// What members are made from.
struct Shown<'a> {
    listed: &'a Listed,
    header: &'a [u8],
    attempts: &'a [Attempt],
    operations: &'a [Operation],
}

/// Fields by name, in their order, unfolded and not decoded.
fn headers_json(header: &[u8]) -> Value {
    let text = String::from_utf8_lossy(header);
    let unfolded = text.replace("\r\n ", " ").replace("\r\n\t", "\t");
    let mut fields = Map::new();
    for (name, value) in unfolded.split("\r\n").filter_map(|line| line.split_once(':')) {
        let values = fields.entry(name.trim_end().to_owned()).or_insert_with(|| json!([]));
        if let Some(values) = values.as_array_mut() {
            values.push(value.trim().into());
        }
    }
    fields.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_asked_for_by_name_whatever_the_case() {
        let fields = MailFields::parse(" Attributes,headers , ATTRIBUTES,").expect("known");
        assert!(fields.has("attributes") && fields.has("headers") && !fields.has("attempts"));
        assert_eq!(MailFields::parse("attributes,x"), Err("x".to_owned()));
    }

    #[test]
    fn header_fields_are_unfolded_and_kept_in_their_order() {
        let header =
            b"To: a@x.example,\r\n b@x.example\r\nReceived: one\r\nReceived: two\r\nSubject: =?utf-8?q?=C3=BC?=\r\n";
        assert_eq!(
            headers_json(header),
            json!({"To": ["a@x.example, b@x.example"], "Received": ["one", "two"], "Subject": ["=?utf-8?q?=C3=BC?="]})
        );
    }
}
