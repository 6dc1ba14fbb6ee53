//! Work that goes on for as long as the service does, whatever happens to it.

use std::pin::Pin;
use std::time::Duration;

use tracing::error;

use crate::stop::Stop;

/// Something that runs until a stop.
pub(super) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Before work that panicked is begun anew.
const PAUSE: Duration = Duration::from_secs(1);

/// Does the work, and begins it anew where it panics. Its health tells meanwhile.
pub(super) async fn supervised(name: &'static str, stop: Stop, work: impl Fn() -> Work) {
    while let Err(panic) = tokio::spawn(work()).await {
        error!(%panic, "the {name} task has failed, a fault of redeliver: it is begun anew");
        tokio::select! {
            () = stop.gentle.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn work_that_panics_is_begun_anew_until_it_ends_by_itself() {
        let begun = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&begun);
        let work = move || -> Work {
            let number = count.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move { assert!(number >= 1, "not yet") })
        };
        supervised("test", Stop::default(), work).await;
        assert_eq!(begun.load(Ordering::Relaxed), 2);
    }
}
