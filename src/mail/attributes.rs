//! Mail attributes: what matchers and mailets know of a mail beside its envelope.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Names of the attributes that the contract fixes; all are James's.
pub mod attribute {
    /// Integer: passes counted by the matcher `AtMost`.
    pub const AT_MOST_EXECUTIONS: &str = "AT_MOST_EXECUTIONS";
    /// Boolean: the last attempt's verdict.
    pub const IS_DELIVERY_PERMANENT_ERROR: &str = "is-delivery-permanent-error";
    /// Text: the whole reply, or a sentence naming host, address, port and cause.
    pub const DELIVERY_ERROR: &str = "delivery-error";
    /// Integer: the reply code; absent where there was no reply.
    pub const DELIVERY_ERROR_CODE: &str = "delivery-error-code";
    /// Integer: how often the mail was taken out of a repository for reprocessing.
    pub const REPROCESSING: &str = "mailRepository-reprocessing";
    /// Text: what went wrong in a mailet or matcher.
    pub const MAILET_ERROR: &str = "org.apache.james.MailetError";
    /// Boolean: it goes to servers alone that promise TLS all the way (RFC 8689).
    pub const REQUIRE_TLS: &str = "redeliver.require-tls";
    /// Text: what was mended in a message that a program of this machine handed in.
    pub const SENDMAIL_REPAIRED: &str = "sendmail-repaired";
    /// Text: in whose names it is signed when it is sent, as `selector._domainkey.domain`, with
    /// commas between them.
    pub const DKIM_SIGN: &str = "redeliver.dkim-sign";
    /// Boolean: the same, where they promise it; else by any way.
    pub const PREFER_REQUIRE_TLS: &str = "redeliver.prefer-require-tls";
    /// Text: it is a delivery status notification of ours; the key of the mail that it tells of.
    pub const DSN: &str = "redeliver-dsn";
    /// Text: while it is attempted, the processor for those who get it.
    pub const ON_SUCCESS: &str = "redeliver.on-success";
    /// Boolean: redeliver wrote the message itself.
    pub const OWN_MESSAGE: &str = "redeliver.own-message";
    /// Integer: passes that ended with "no such domain"; see `maxDnsProblemRetries`.
    pub const DNS_PROBLEMS: &str = "redeliver.dns-problems";
}

/// One attribute's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AttributeValue {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Any text.
    Text(String),
}

impl fmt::Display for AttributeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Text(value) => value.fmt(f),
        }
    }
}

/// A mail's attributes, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attributes(BTreeMap<String, AttributeValue>);

impl Attributes {
    /// The attribute's value.
    pub fn get(&self, name: &str) -> Option<&AttributeValue> {
        self.0.get(name)
    }

    /// The value where it is an integer; a wrong type counts as absent, as in James.
    pub fn integer(&self, name: &str) -> Option<i64> {
        match self.0.get(name) {
            Some(AttributeValue::Integer(value)) => Some(*value),
            _ => None,
        }
    }

    /// The value where it is a boolean; a wrong type counts as absent, as in James.
    pub fn boolean(&self, name: &str) -> Option<bool> {
        match self.0.get(name) {
            Some(AttributeValue::Boolean(value)) => Some(*value),
            _ => None,
        }
    }

    /// The value where it is a text; a wrong type counts as absent, as in James.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name) {
            Some(AttributeValue::Text(value)) => Some(value),
            _ => None,
        }
    }

    /// Sets an attribute, replacing what was there.
    pub fn set(&mut self, name: &str, value: AttributeValue) {
        self.0.insert(name.to_owned(), value);
    }

    /// Removes an attribute; nothing happens where it is absent.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Passes counted so far: `AT_MOST_EXECUTIONS`, or 0.
    pub fn passes(&self) -> u32 {
        self.integer(attribute::AT_MOST_EXECUTIONS).and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
    }

    /// Counts an integer attribute up by one, from 0 where it is absent.
    pub fn increment(&mut self, name: &str) {
        let next = self.integer(name).unwrap_or(0).saturating_add(1);
        self.set(name, AttributeValue::Integer(next));
    }

    /// All attributes in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &AttributeValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_survive_being_written_and_read() {
        let mut attributes = Attributes::default();
        attributes.set("b", AttributeValue::Boolean(true));
        attributes.set("t", AttributeValue::Text("true".into()));
        attributes.increment("n");
        attributes.increment("n");
        let text = serde_json::to_string(&attributes).expect("JSON");
        assert_eq!(text, r#"{"b":true,"n":2,"t":"true"}"#);
        assert_eq!(serde_json::from_str::<Attributes>(&text).expect("the same"), attributes);
        assert_eq!((attributes.boolean("t"), attributes.integer("n")), (None, Some(2)));
    }
}
