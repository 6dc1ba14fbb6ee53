//! Expired audit records, and room given back: in short steps, so that nobody waits.

use std::time::Duration;

use tracing::debug;

use crate::store::{Error, Store};

/// Records of each kind that are deleted in one transaction.
const BATCH: usize = 200;

/// Steps of tidying after one run at most; the next run goes on.
const STEPS: usize = 2000;

/// Deletes what is older than `retention`, folds outcomes to sums that are kept for `history`, then gives back room.
///
/// # Errors
/// Where the store is in trouble; nothing is lost by it.
pub async fn housekeep(store: &dyn Store, retention: Duration, history: Duration) -> Result<(), Error> {
    let mut records = 0;
    loop {
        let purged = store.purge_records(retention, BATCH).await?;
        if purged == 0 {
            break;
        }
        records += purged;
    }
    debug!(records, "expired audit records deleted");
    for _ in 0..STEPS {
        if !store.fold_history(retention, history).await? {
            break;
        }
    }
    for _ in 0..STEPS {
        if !store.tidy().await? {
            break;
        }
    }
    Ok(())
}
