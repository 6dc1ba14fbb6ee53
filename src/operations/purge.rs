//! Old mails removed, step by step.

use crate::store::{NewOperation, Old, Result, Store};

/// Mails that are looked at in one step, between which it may end.
const BATCH: usize = 100;

/// Removes every mail that is `old` and that nobody has in hand, as long as `goes_on`, which
/// is told after each step how many it removed; whether it came to the end. Who does it is on
/// record.
///
/// # Errors
/// Where the store cannot do it.
pub async fn purge(
    store: &dyn Store,
    who: &str,
    mut old: Old,
    goes_on: &mut (dyn FnMut(u64) -> bool + Send),
) -> Result<bool> {
    let operation = store
        .begin_operation(&NewOperation {
            who: who.to_owned(),
            verb: "purge".to_owned(),
            place: Some(old.place.clone()),
            selection: format!("older than {} s", old.older_than.as_secs()),
            ..NewOperation::default()
        })
        .await?;
    let mut removed = 0;
    while goes_on(removed) {
        let purged = store.purge(operation, &old, BATCH).await?;
        removed = purged.mails as u64;
        old.after = purged.next;
        if old.after.is_none() {
            goes_on(removed);
            return Ok(true);
        }
    }
    Ok(false)
}
