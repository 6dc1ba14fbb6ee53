//! Mailet `Null`: the part is taken out, because the operator wrote so.

use super::End;
use super::mailet::{Ended, Step};
use super::part::Part;

pub(super) fn run(part: Part) -> Vec<Step> {
    vec![Step::End(Ended::new(part, End::Dropped))]
}
