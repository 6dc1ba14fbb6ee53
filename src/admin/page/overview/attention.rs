//! What somebody should look at.

use super::super::super::error::Refusal;
use super::super::super::{Shared, healthcheck};
use super::super::html::{Html, count, link, mark, short, when};
use super::super::url;
use crate::mail::RepositoryPath;
use crate::schedule::Pauses;
use crate::store::{FailureGroup, GroupFilter, Place, Span, Time};

/// Causes that are shown.
const SHOWN: usize = 10;

/// Causes of a repository that are looked at, the largest first.
const LOOKED_AT: usize = 500;

/// Something that is not as it should be.
pub(super) struct Matter {
    pub(super) what: Html,
    pub(super) why: Html,
}

/// Health, the error repository, and schedules that are paused.
pub(super) async fn matters(shared: &Shared, now: Time) -> Result<Vec<Matter>, Refusal> {
    let unwell = healthcheck::unwell(shared).await.into_iter().map(|(name, works, cause)| {
        let why = if name == healthcheck::ERROR_REPOSITORY { error_mails() } else { Html::text(short(cause)) };
        Matter { what: if works { mark("wait", name) } else { mark("bad", name) }, why }
    });
    let mut matters: Vec<_> = unwell.collect();
    matters.extend(undelivered_reports(shared).await?);
    matters.extend(paused(shared, now).await?);
    Ok(matters)
}

/// What went wrong here, and not at a peer.
fn error_mails() -> Html {
    let path = RepositoryPath::error();
    Html::text("a fault in the configuration or of redeliver itself brought mail to")
        .and(&link(&url::repository(&path, &[]), &path))
}

/// Senders whom nobody could tell: nobody has taken note of that.
async fn undelivered_reports(shared: &Shared) -> Result<Option<Matter>, Refusal> {
    let path = RepositoryPath::dsn();
    let sums = shared.context.store.sums().await?;
    let of_dsn = sums.into_iter().find(|(place, _)| *place == Place::Repository(path.clone()));
    let number = of_dsn.map_or(0, |(_, sums)| sums.unacknowledged);
    let mails = count(&url::repository(&path, &[("unacknowledged", "true")]), number);
    let why = mails.and(&Html::text("reports to senders could not be delivered, in"));
    let why = why.and(&link(&url::repository(&path, &[]), &path));
    Ok((number > 0).then(|| Matter { what: mark("wait", "Senders not told"), why }))
}

async fn paused(shared: &Shared, now: Time) -> Result<Vec<Matter>, Refusal> {
    let site = shared.site();
    let pauses = Pauses::new(shared.context.store.paused().await?);
    let matter = |name: &String, job: &str| {
        let pause = pauses.of(name, now)?;
        let reason = pause.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        let by = Html::text(short(format!("by {}{reason}", pause.by)));
        let until = pause.until.map_or_else(
            || Html::text("until somebody resumes it"),
            |until| Html::text("until").and(&when(until, now)),
        );
        let what = mark("wait", "Schedule paused");
        let why = link(&url::job(job), name).and(&Html::text("since")).and(&when(pause.at, now));
        Some(Matter { what, why: why.and(&until).and(&by) })
    };
    Ok(site.schedules.iter().filter_map(|(name, schedule)| matter(name, &schedule.job)).collect())
}

/// Permanent failures of one cause that nobody has taken note of.
pub(super) struct Cause {
    pub(super) text: Html,
    pub(super) code: String,
    pub(super) next_hop: String,
    pub(super) unacknowledged: Html,
    pub(super) newest: Html,
    pub(super) repository: String,
}

/// Unacknowledged permanent failures by cause, most first, and how many causes more there are.
pub(super) async fn causes(shared: &Shared, now: Time) -> Result<(Vec<Cause>, usize), Refusal> {
    let mut groups = Vec::new();
    let kept = &shared.context.intake.now().kept;
    for (place, sums) in shared.context.store.sums().await? {
        if let Place::Repository(path) = place
            && sums.unacknowledged > 0
            && !kept.contains(&path)
        {
            let filter = GroupFilter { repository: Some(path), id: None };
            groups.extend(shared.context.store.groups(&filter, &Span::of(LOOKED_AT)).await?.items);
        }
    }
    groups.retain(|group| group.unacknowledged > 0);
    groups.sort_by_key(|group| std::cmp::Reverse(group.unacknowledged));
    let more = groups.len().saturating_sub(SHOWN);
    Ok((groups.iter().take(SHOWN).map(|group| row(group, now)).collect(), more))
}

fn row(group: &FailureGroup, now: Time) -> Cause {
    let mails = url::repository(&group.repository, &[("group", group.id.as_str()), ("unacknowledged", "true")]);
    let text = if group.cause.text.is_empty() { "(no words)" } else { &group.cause.text };
    let code = group.cause.code.map(|code| code.to_string()).into_iter().chain(group.cause.enhanced.clone());
    Cause {
        text: link(&url::group(&group.id), text),
        code: short(code.collect::<Vec<_>>().join(" ")),
        next_hop: short(group.cause.next_hop.as_deref().unwrap_or("-")),
        unacknowledged: count(&mails, group.unacknowledged),
        newest: when(group.newest, now),
        repository: group.repository.last_segment().to_owned(),
    }
}
