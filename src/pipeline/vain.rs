//! Limits that no mail comes to: an AttemptsExhausted that is beyond what AtMost lets through,
//! or behind a smaller one that ended the mail.

use super::config::{Config, Rule};
use super::mailet::Mailet;
use super::matcher::{Limit, Matcher};
use crate::mail::RepositoryPath;

/// An AttemptsExhausted that does not match, as far as the rules go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vain {
    /// Its processor, and its rule there, from 0.
    pub at: (String, usize),
    /// The limit.
    pub limit: u32,
    /// What keeps mail from it.
    pub kept: Kept,
}

/// What keeps mail from a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// No AtMost counts further than this.
    AtMost(u32),
    /// The rule of the same processor, from 0, that stores there what has had so many passes.
    By(usize, u32, RepositoryPath),
}

impl Config {
    /// Each AttemptsExhausted that is in vain. One behind a rule that stores is so only where no
    /// job takes mail out of that repository.
    pub fn vain_limits(&self) -> Vec<Vain> {
        let processors = self.processors.iter().flat_map(|(name, rules)| {
            rules.iter().enumerate().map(move |(number, rule)| (name, rules.as_slice(), number, rule))
        });
        processors
            .flat_map(|(name, rules, number, rule)| {
                let kept = move |limit: &Limit| {
                    let kept = self.beyond_at_most(limit).or_else(|| ended_before(rules, limit))?;
                    Some(Vain { at: (name.clone(), number), limit: limit.most, kept })
                };
                exhausted(rule).filter_map(kept).collect::<Vec<_>>()
            })
            .collect()
    }

    fn beyond_at_most(&self, limit: &Limit) -> Option<Kept> {
        let counting = self.rules().flat_map(|rule| rule.matcher.all()).filter_map(|matcher| match matcher {
            Matcher::AtMost(other) if other.counter == limit.counter => Some(other.most),
            _ => None,
        });
        counting.max().filter(|most| *most < limit.most).map(Kept::AtMost)
    }
}

fn exhausted(rule: &Rule) -> impl Iterator<Item = &Limit> {
    rule.matcher.all().into_iter().filter_map(|matcher| match matcher {
        Matcher::AttemptsExhausted(limit) => Some(limit),
        _ => None,
    })
}

/// The first rule that stores what has had fewer passes.
fn ended_before(rules: &[Rule], limit: &Limit) -> Option<Kept> {
    rules.iter().enumerate().find_map(|(number, rule)| match (&rule.matcher, &rule.mailet) {
        (Matcher::AttemptsExhausted(other), Mailet::ToRepository(mailet))
            if !rule.inverted
                && rule.mailet.consumes()
                && other.counter == limit.counter
                && other.most < limit.most =>
        {
            Some(Kept::By(number, other.most, mailet.repository.clone()))
        }
        _ => None,
    })
}
