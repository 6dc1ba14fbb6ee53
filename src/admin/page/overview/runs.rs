//! What ran last, and what runs next.

use super::super::super::Shared;
use super::super::super::error::Refusal;
use super::super::html::{Html, link, mark, short, when};
use super::super::runs::{Ran, ran};
use super::super::url;
use crate::schedule::Pauses;
use crate::store::{Span, Time};

/// Runs, and schedules, that are shown.
const SHOWN: usize = 8;

/// When a schedule ticks next.
pub(super) struct Next {
    pub(super) job: Html,
    pub(super) schedule: String,
    pub(super) at: Html,
}

/// The schedules, the one that ticks first at the top.
pub(super) async fn next(shared: &Shared, now: Time) -> Result<Vec<Next>, Refusal> {
    let site = shared.site();
    let pauses = Pauses::new(shared.context.store.paused().await?);
    let mut ticks: Vec<_> = site
        .schedules
        .iter()
        .map(|(name, schedule)| (schedule.next_after(now).filter(|_| schedule.enabled), name, schedule))
        .collect();
    ticks.sort_by_key(|(next, name, _)| (next.is_none(), *next, *name));
    let row = |(next, name, schedule): &(Option<Time>, &String, &crate::schedule::Config)| Next {
        job: link(&url::job(&schedule.job), &schedule.job),
        schedule: short(name),
        at: match (next, pauses.of(name, now)) {
            (None, _) => Html::text("never: it is switched off"),
            (Some(_), Some(_)) => mark("wait", "paused"),
            (Some(next), None) => when(*next, now),
        },
    };
    Ok(ticks.iter().take(SHOWN).map(row).collect())
}

/// The last runs, the latest first.
pub(super) async fn last(shared: &Shared, now: Time) -> Result<Vec<Ran>, Refusal> {
    let runs = shared.context.store.runs(None, &Span::of(SHOWN).newest_first()).await?.items;
    Ok(runs.iter().map(|run| ran(run, now)).collect())
}
