//! Job kind `purge`: removes what has been at rest for long.

use std::time::Duration;

use chrono::TimeDelta;

use super::runner::Runner;
use super::sweep::Swept;
use crate::mail::RepositoryPath;
use crate::operations;
use crate::store::{Error, Old, Place, Seq};

/// Removes every mail of `repository` that came to rest more than `older_than` ago and that
/// nobody has in hand. Each is an action on record; its attempts stay for the retention time.
pub(super) async fn run(
    runner: &Runner<'_>,
    repository: &RepositoryPath,
    older_than: Duration,
    upto: Seq,
    swept: &mut Swept,
) -> Result<(), Error> {
    let age = TimeDelta::from_std(older_than).unwrap_or(TimeDelta::MAX);
    // Nothing can be older than the calendar.
    let Some(before) = runner.clock.now().checked_sub_signed(age) else { return Ok(()) };
    let place = Place::Repository(repository.clone());
    let old = Old { place: place.clone(), before, upto, after: None };
    let mut goes_on = |mails| {
        runner.handled(mails, swept);
        !runner.is_stopped()
    };
    if !operations::purge(runner.store, runner.clock, old, &mut goes_on).await? {
        // At most: the rest of the repository may be younger.
        swept.left = runner.store.size(&place).await?;
    }
    Ok(())
}
