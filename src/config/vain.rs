//! Limits that no mail comes to, in words with their places.

use super::Config;
use super::dsn_offer::rule_place;
use super::files::File;
use crate::jobs;
use crate::mail::RepositoryPath;
use crate::pipeline::{Kept, Vain};

pub(super) fn limits_in_vain(config: &Config, main: &File) -> Vec<String> {
    let is_swept = |stored: &RepositoryPath| {
        let sweeps = |job: &jobs::Config| matches!(job, jobs::Config::Reprocess(sweep) if sweep.repository == *stored);
        config.jobs.values().any(sweeps)
    };
    let goes_on = |vain: &Vain| matches!(&vain.kept, Kept::By(_, _, stored) if is_swept(stored));
    let vain = config.processors.vain_limits().into_iter().filter(|vain| !goes_on(vain));
    vain.map(|vain| words(&vain, main)).collect()
}

fn words(vain: &Vain, main: &File) -> String {
    let (processor, number) = &vain.at;
    let rule = |number: usize| {
        let place = main.root().and_then(|root| rule_place(root, processor, number)).and_then(|at| main.line_of(at));
        place.unwrap_or_else(|| format!("{} of processor {processor}", number + 1))
    };
    let (at, limit) = (rule(*number), vain.limit);
    match &vain.kept {
        Kept::AtMost(most) => format!(
            "rule at {at}: AttemptsExhausted={limit} never matches, since AtMost={most} lets no mail have more passes: \
             let both have one number"
        ),
        Kept::By(other, most, stored) => format!(
            "rule at {at}: AttemptsExhausted={limit} does not match, since the rule at {} stores in {stored} what has \
             had {most} passes: let both have one number",
            rule(*other)
        ),
    }
}
