//! Which mails are meant.

use std::time::Duration;

use chrono::TimeDelta;

use crate::mail::MailKey;
use crate::store::{MailFilter, Time};

/// The mails of a place that something is done to.
#[derive(Debug, Clone)]
pub enum Selection {
    /// One.
    Mail(MailKey),
    /// Those that match; an empty filter means all.
    Matching(MailFilter),
}

/// Conditions as an operator gives them; all must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Reverse-path; `<>` for null.
    pub sender: Option<String>,
    /// One recipient, or `*@domain`.
    pub recipient: Option<String>,
    /// Domain of a recipient.
    pub domain: Option<String>,
    /// Reply code of the last attempt.
    pub code: Option<u16>,
    /// Came to rest longer ago than this.
    pub older: Option<Duration>,
    /// Came to rest within this time.
    pub newer: Option<Duration>,
    /// Passes counted.
    pub passes: Option<u32>,
}

/// A condition that can match nobody: a slip, not a question with the answer "none".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{condition} {why}")]
pub struct Wrong {
    /// Which one.
    pub condition: &'static str,
    /// What is wrong with it, and what would be right.
    pub why: String,
}

impl Conditions {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As the store takes them; ages are counted back from `now`.
    pub fn filter(&self, now: Time) -> Result<MailFilter, Wrong> {
        names_somebody("sender", self.sender.as_deref())?;
        names_somebody("recipient", self.recipient.as_deref())?;
        if let Some(domain) = self.domain.as_ref().filter(|domain| domain.is_empty() || domain.contains('@')) {
            return Err(Wrong { condition: "domain", why: format!("{domain:?} is no domain: write it as x.example") });
        }
        Ok(MailFilter {
            sender: self.sender.clone(),
            recipient: self.recipient.clone(),
            domain: self.domain.clone(),
            code: self.code,
            before: ago("older", self.older, now)?,
            after: ago("newer", self.newer, now)?,
            passes: self.passes,
            ..MailFilter::default()
        })
    }
}

fn names_somebody(condition: &'static str, pattern: Option<&str>) -> Result<(), Wrong> {
    match pattern {
        Some(pattern) if !pattern.contains('@') && pattern != "<>" => {
            let why = format!("{pattern:?} is nobody: write an address, *@domain, or <> for the null sender");
            Err(Wrong { condition, why })
        }
        _ => Ok(()),
    }
}

fn ago(condition: &'static str, age: Option<Duration>, now: Time) -> Result<Option<Time>, Wrong> {
    let Some(age) = age else { return Ok(None) };
    let time = TimeDelta::from_std(age).ok().and_then(|age| now.checked_sub_signed(age));
    let early = || Wrong { condition, why: "is before the calendar begins".to_owned() };
    time.map(Some).ok_or_else(early)
}
