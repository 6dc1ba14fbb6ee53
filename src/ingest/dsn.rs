//! What a sender asks for about delivery status notifications.

use crate::mail::{AttributeValue, Attributes, attribute};

/// When and how the sender wants to be told of what becomes of a mail (RFC 3461). It is
/// stored with the mail; nobody is told yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dsn {
    /// `-N`, for all recipients: `NEVER`, or any of `SUCCESS`, `FAILURE` and `DELAY` with commas.
    pub notify: Option<String>,
    /// `-R`: how much of the message is to be returned, `FULL` or `HDRS`.
    pub ret: Option<String>,
    /// `-V`: what the sender calls the mail.
    pub envelope_id: Option<String>,
}

impl Dsn {
    /// As attributes of the mail, with James's names.
    pub fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::default();
        let parts = [
            (attribute::DSN_NOTIFY, &self.notify),
            (attribute::DSN_RET, &self.ret),
            (attribute::DSN_ENVELOPE_ID, &self.envelope_id),
        ];
        for (name, value) in parts {
            if let Some(value) = value {
                attributes.set(name, AttributeValue::Text(value.clone()));
            }
        }
        attributes
    }
}
