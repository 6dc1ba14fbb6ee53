//! What the store knows, as numbers for Prometheus.

use crate::metrics::{Stored, StoredJob, StoredPlace};
use crate::store::{MailFilter, Place, Result, Runs, Span, Store};

/// Runs of a job that are looked at for the last one that went well.
const RUNS: usize = 100;

/// The numbers of now; each is read from a sum, or from the first row of an index.
///
/// # Errors
/// Where the store cannot be read.
pub async fn stored_metrics<'a>(
    store: &dyn Store,
    jobs: impl Iterator<Item = &'a String> + Send,
    schedules: impl Iterator<Item = &'a String> + Send,
) -> Result<Stored> {
    let mut stored = Stored { places: places(store).await?, ..Stored::default() };
    for total in store.outcome_totals().await? {
        let class = if total.class == 0 { "none".to_owned() } else { total.class.to_string() };
        stored.outcomes.push((total.outcome.to_string(), total.stage.to_string(), class, total.recipients));
    }
    stored.dsn = store.dsn_counts().await?.by_action;
    for job in jobs.cloned().collect::<Vec<_>>() {
        stored.jobs.push(last_runs(store, job).await?);
    }
    let paused = store.paused().await?;
    stored.schedules = schedules.map(|name| (name.clone(), paused.iter().any(|(one, _)| one == name))).collect();
    stored.wal_bytes = store.log_bytes();
    stored.tasks = store.task_sums().await?;
    Ok(stored)
}

async fn places(store: &dyn Store) -> Result<Vec<StoredPlace>> {
    let mut places = Vec::new();
    for (place, sums) in store.sums().await? {
        let oldest = store.list(&place, &MailFilter::default(), &Span::of(1)).await?;
        let name = match &place {
            Place::Spool => "spool".to_owned(),
            Place::Repository(path) => path.to_string(),
        };
        places.push(StoredPlace {
            place: name,
            mails: sums.mails,
            unacknowledged: sums.unacknowledged,
            oldest: oldest.items.first().map(|listed| listed.mail.last_updated.timestamp()),
        });
    }
    Ok(places)
}

async fn last_runs(store: &(impl Runs + ?Sized), job: String) -> Result<StoredJob> {
    let runs = store.runs(Some(&job), &Span::of(RUNS).newest_first()).await?.items;
    let well = runs.iter().find(|run| run.finished.is_some() && run.failure.is_none());
    let last = runs.iter().find_map(|run| Some((run.finished? - run.started).as_seconds_f64()));
    let last_success = well.and_then(|run| run.finished).map(|time| time.timestamp());
    Ok(StoredJob { job, last_success, last_seconds: last })
}
