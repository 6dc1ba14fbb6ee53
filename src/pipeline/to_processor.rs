//! Mailet `ToProcessor`: the part goes on in another processor.

use super::config::Known;
use super::mailet::Step;
use super::part::Part;
use crate::yaml::{Fields, text};

/// A rule's `ToProcessor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ToProcessor {
    /// Which.
    pub(super) processor: String,
    /// Added to the mail's error text.
    pub(super) notice: Option<String>,
}

impl ToProcessor {
    pub(super) fn read(fields: &mut Fields<'_>, known: &Known<'_>) -> Option<Self> {
        let processor = fields.required("processor", |node| known.processor(node));
        let notice = fields.optional("notice", text);
        Some(Self { processor: processor?, notice })
    }

    pub(super) fn run(&self, mut part: Part) -> Vec<Step> {
        if let Some(notice) = &self.notice {
            part.mail.error = Some(match part.mail.error.take() {
                Some(so_far) => format!("{so_far}\r\n{notice}"),
                None => notice.clone(),
            });
        }
        vec![Step::Go(part, self.processor.clone())]
    }
}
