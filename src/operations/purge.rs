//! Old mails removed, step by step.

use crate::clock::Clock;
use crate::store::{Old, Result, Store};

/// Mails removed in one transaction: others write in between.
const BATCH: usize = 50;

/// Removes every mail that is `old` and that nobody has in hand, as long as `goes_on`, which
/// is told after each step how many it removed; whether it came to the end.
///
/// # Errors
/// Where the store cannot do it.
pub async fn purge(
    store: &dyn Store,
    clock: &Clock,
    mut old: Old,
    goes_on: &mut (dyn FnMut(u64) -> bool + Send),
) -> Result<bool> {
    let mut removed = 0;
    while goes_on(removed) {
        let purged = store.purge(&old, BATCH, clock.now()).await?;
        removed = purged.mails as u64;
        old.after = purged.last;
        if purged.last.is_none() {
            goes_on(removed);
            return Ok(true);
        }
    }
    Ok(false)
}
