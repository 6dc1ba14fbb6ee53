//! Mailet `AddHeader`: a header field in front of the message.
//!
//! The stored message never changes: the field is kept as the mail's prefix, and not added
//! a second time by a later pass.

use super::mailet::Step;
use super::part::Part;
use crate::yaml::{Fields, Node, text};

/// A rule's `AddHeader`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AddHeader {
    /// Printable ASCII without colon (RFC 5322 section 3.6.8).
    pub(super) name: String,
    /// Printable ASCII.
    pub(super) value: String,
}

/// With its CRLF a line may have 998 octets (RFC 5322 section 2.1.1).
const MAX_LINE: usize = 998;

impl AddHeader {
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let name = fields.required("name", field_name);
        let value = fields.required("value", field_value);
        Some(Self { name: name?, value: value? })
    }

    pub(super) fn run(&self, mut part: Part) -> Vec<Step> {
        let field = format!("{}: {}\r\n", self.name, self.value);
        let prefix = &mut part.mail.header_prefix;
        if !prefix.split_inclusive("\r\n").any(|line| line == field) {
            prefix.insert_str(0, &field);
        }
        vec![Step::Next(part)]
    }
}

fn field_name(node: &Node) -> Result<String, String> {
    let name = text(node)?;
    if name.len() <= 70 && name.bytes().all(|octet| octet.is_ascii_graphic() && octet != b':') {
        Ok(name)
    } else {
        Err(format!("the name of a header field is expected here, without colon and blanks, not '{name}'"))
    }
}

fn field_value(node: &Node) -> Result<String, String> {
    let value = text(node)?;
    if !value.is_ascii() {
        return Err("a header field's value is ASCII: encode other text as RFC 2047 has it".to_owned());
    }
    if value.len() > MAX_LINE - 72 {
        return Err("the value does not fit into one line of 998 octets".to_owned());
    }
    Ok(value)
}
