//! What became of recipients lately.

use chrono::TimeDelta;

use super::super::super::Shared;
use super::super::super::error::Refusal;
use super::super::html::{Html, count};
use super::super::url;
use crate::store::{Period, Time};

/// The stretches that are summed up: as they are called, as a condition, and their hours.
const STRETCHES: [(&str, &str, i64); 3] =
    [("24 hours", "24h", 24), ("7 days", "7d", 7 * 24), ("30 days", "30d", 30 * 24)];

/// The sums of a stretch of time.
pub(super) struct Total {
    pub(super) stretch: &'static str,
    pub(super) delivered: Html,
    pub(super) deferred: Html,
    pub(super) failed: Html,
}

/// Of the last 24 hours, 7 and 30 days.
pub(super) async fn totals(shared: &Shared, now: Time) -> Result<Vec<Total>, Refusal> {
    let longest = STRETCHES.iter().map(|(.., hours)| *hours).max().unwrap_or_default();
    let periods = shared.context.store.history(now - TimeDelta::hours(longest)).await?;
    Ok(STRETCHES
        .iter()
        .map(|(stretch, since, hours)| total(stretch, since, &periods, now - TimeDelta::hours(*hours)))
        .collect())
}

fn total(stretch: &'static str, since: &str, periods: &[Period], from: Time) -> Total {
    let within = || periods.iter().filter(|period| period.begins + TimeDelta::hours(i64::from(period.hours)) > from);
    let sum = |of: fn(&Period) -> u64| within().map(of).sum();
    let searched = |outcome| url::with("/ui/attempts", &[("outcome", outcome), ("since", since)]);
    Total {
        stretch,
        delivered: count(&searched("delivered"), sum(|period| period.recipients.delivered)),
        deferred: count(&searched("deferred"), sum(|period| period.recipients.deferred)),
        failed: count(&searched("failed"), sum(|period| period.recipients.failed)),
    }
}
