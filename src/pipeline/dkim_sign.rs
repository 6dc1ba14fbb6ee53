//! Mailet `DKIMSign`: what goes on is signed when it is sent.
//!
//! The mail is marked and no more: what is signed are the octets that are sent, which later
//! rules and passes may still change.

use std::sync::Arc;

use super::mailet::Step;
use super::part::Part;
use crate::dkim::Signatory;
use crate::mail::{AttributeValue, attribute};
use crate::yaml::Fields;

/// A rule's `DKIMSign`.
#[derive(Debug, Clone)]
pub(super) struct DkimSign {
    pub(super) signatory: Arc<Signatory>,
}

impl DkimSign {
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Signatory::read_mailet(fields).map(|signatory| Self { signatory: Arc::new(signatory) })
    }

    pub(super) fn run(&self, mut part: Part) -> Vec<Step> {
        let attributes = &mut part.mail.attributes;
        let name = self.signatory.name();
        let marked = attributes.text(attribute::DKIM_SIGN).unwrap_or_default();
        let mut names: Vec<_> = marked.split(',').filter(|marked| !marked.is_empty()).collect();
        if !names.contains(&name.as_str()) {
            names.push(&name);
        }
        let names = names.join(",");
        attributes.set(attribute::DKIM_SIGN, AttributeValue::Text(names));
        vec![Step::Next(part)]
    }
}
