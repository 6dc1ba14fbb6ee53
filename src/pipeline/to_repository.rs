//! Mailet `ToRepository`: the part comes to rest.

use super::config::Known;
use super::mailet::{Ended, Step};
use super::part::Part;
use super::{End, Pass};
use crate::mail::RepositoryPath;
use crate::yaml::{Fields, boolean};

/// A rule's `ToRepository`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ToRepository {
    /// Where to.
    pub(super) repository: RepositoryPath,
    /// A copy rests there and the part goes on.
    pub(super) pass_through: bool,
}

impl ToRepository {
    pub(super) fn read(fields: &mut Fields<'_>, known: &Known<'_>) -> Option<Self> {
        let repository = fields.required("repositoryPath", |node| known.repository(node));
        let pass_through = fields.optional("passThrough", boolean).unwrap_or(false);
        Some(Self { repository: repository?, pass_through })
    }

    pub(super) fn run(&self, part: Part, _: &Pass<'_>) -> Vec<Step> {
        let end = End::Repository(self.repository.clone());
        if !self.pass_through {
            return vec![Step::End(Ended::new(part, end))];
        }
        let mut copy = part.clone();
        copy.trail.copy = true;
        vec![Step::End(Ended::new(copy, end)), Step::Next(part)]
    }
}
