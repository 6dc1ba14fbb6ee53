//! Mailet `SetErrorMessage`: sets the mail's error text.

use super::mailet::Step;
use super::part::Part;
use crate::yaml::{Fields, text};

/// A rule's `SetErrorMessage`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SetErrorMessage(String);

impl SetErrorMessage {
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        fields.required("errorMessage", text).map(Self)
    }

    pub(super) fn run(&self, mut part: Part) -> Vec<Step> {
        part.mail.error = Some(self.0.clone());
        vec![Step::Next(part)]
    }
}
