//! Mailet `SetReversePath`: another envelope sender for what goes on.
//!
//! For next hops that take mail from their own user's address only. The null reverse-path
//! stays: notifications must not be answered (RFC 5321 section 4.5.5).

use super::mailet::Step;
use super::part::Part;
use crate::mail::{Address, ReversePath};
use crate::yaml::{Fields, Node, text};

/// A rule's `SetReversePath`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SetReversePath(Address);

impl SetReversePath {
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        fields.required("value", address).map(Self)
    }

    /// Whoever the mail was accepted from stays on record: failures are told to him.
    pub(super) fn run(&self, mut part: Part) -> Vec<Step> {
        let envelope = &mut part.mail.envelope;
        if let ReversePath::Address(sender) = &envelope.reverse_path
            && *sender != self.0
        {
            envelope.dsn.return_path.get_or_insert_with(|| sender.clone());
            envelope.reverse_path = ReversePath::Address(self.0.clone());
        }
        vec![Step::Next(part)]
    }
}

fn address(node: &Node) -> Result<Address, String> {
    let written = text(node)?;
    let bare = written.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(&written);
    if bare.is_empty() {
        return Err("an address is expected here: the null reverse-path is for notifications alone".to_owned());
    }
    Address::parse(bare).map_err(|error| format!("an address is expected here, not '{written}': {error}"))
}
