//! Job kind `purge`: removes what has been at rest for long.

use std::time::Duration;

use super::runner::{Order, Runner};
use super::sweep::Swept;
use crate::mail::RepositoryPath;
use crate::operations;
use crate::store::{Error, Horizon, Old, Place};

/// Removes every mail of `repository` that came to rest more than `older_than` ago and that
/// nobody has in hand. The operation names each on record; its attempts stay for the retention time.
pub(super) async fn run(
    runner: &Runner<'_>,
    repository: &RepositoryPath,
    order: Order<'_>,
    older_than: Duration,
    within: Horizon,
    swept: &mut Swept,
) -> Result<(), Error> {
    let place = Place::Repository(repository.clone());
    let old = Old { place: place.clone(), older_than, within: Some(within), after: None };
    let mut goes_on = |mails| {
        runner.handled(mails, swept);
        !runner.is_stopped()
    };
    if !operations::purge(runner.store, &format!("job {}", order.job), old, &mut goes_on).await? {
        // At most: the rest of the repository may be younger.
        swept.left = runner.store.size(&place).await?;
    }
    Ok(())
}
