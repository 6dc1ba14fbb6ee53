//! What became of recipients lately, and how old what waits is: pictures, with their numbers.

use super::super::super::Shared;
use super::super::super::error::Refusal;
use super::super::html::{Html, count, grouped, link};
use super::super::url;
use crate::audit;
use crate::store::{Period, Place, Recipients, Time};
use crate::text::rfc3339_seconds;

/// The stretches that are drawn: as they are called, the hours of a bar, and the bars.
const STRETCHES: [(&str, u32, u32); 3] = [("24 hours", 1, 24), ("7 days", 24, 7), ("30 days", 24, 30)];

/// A stretch of time.
pub(super) struct Stretch {
    pub(super) name: &'static str,
    pub(super) picture: Html,
    /// Where the first bar begins, and the last.
    pub(super) from: String,
    pub(super) to: String,
    /// The highest bar.
    pub(super) most: String,
    pub(super) delivered: Html,
    pub(super) deferred: Html,
    pub(super) failed: Html,
    /// The bars as numbers, the latest first.
    pub(super) numbers: Vec<(String, Recipients)>,
}

/// The last 24 hours, 7 and 30 days.
pub(super) async fn stretches(shared: &Shared, now: Time) -> Result<Vec<Stretch>, Refusal> {
    let longest = STRETCHES.iter().map(|(_, hours, number)| audit::timeline_since(now, *hours, *number)).min();
    let history = shared.context.store.history(longest.unwrap_or(now)).await?;
    let stretch = |(name, hours, number)| stretch(name, &audit::timeline(&history, now, hours, number));
    Ok(STRETCHES.into_iter().map(stretch).collect())
}

fn stretch(name: &'static str, periods: &[Period]) -> Stretch {
    let since = periods.first().map_or_else(String::new, |first| rfc3339_seconds(&first.begins, true));
    let searched = |outcome| url::with("/ui/attempts", &[("outcome", outcome), ("since", &since)]);
    let total = audit::recipients_of(periods);
    let title = format!("Recipients of the last {name}: delivered, deferred, failed");
    let named = |period: Option<&Period>| period.map_or_else(String::new, audit::period_name);
    Stretch {
        name,
        picture: Html::drawn(audit::outcome_bars(periods, &title)),
        from: named(periods.first()),
        to: named(periods.last()),
        most: grouped(most(periods)),
        delivered: count(&searched("delivered"), total.delivered),
        deferred: count(&searched("deferred"), total.deferred),
        failed: count(&searched("failed"), total.failed),
        numbers: periods.iter().rev().map(|period| (audit::period_name(period), period.recipients)).collect(),
    }
}

fn most(periods: &[Period]) -> u64 {
    let all = periods.iter().map(|Period { recipients: one, .. }| one.delivered + one.deferred + one.failed);
    all.max().unwrap_or_default()
}

/// How old the mails are that wait for their next pass in a repository.
pub(super) struct Ages {
    pub(super) place: Html,
    pub(super) picture: Html,
    pub(super) bands: Vec<(&'static str, String)>,
}

/// Of each repository that a job sweeps and that has any.
pub(super) async fn ages(shared: &Shared, now: Time) -> Result<Vec<Ages>, Refusal> {
    let kept = shared.context.intake.now().kept.clone();
    let mut all = Vec::new();
    for path in kept {
        let bands = audit::ages(&shared.context.store.accepted(&path).await?, now);
        if bands.iter().any(|band| band.mails > 0) {
            all.push(Ages {
                place: link(&url::mails(&Place::Repository(path.clone()), &[("order", "oldest")]), &path),
                picture: Html::drawn(audit::age_bars(&bands, "Mails that wait, by how long ago they were accepted")),
                bands: bands.iter().map(|band| (band.label, grouped(band.mails))).collect(),
            });
        }
    }
    Ok(all)
}
