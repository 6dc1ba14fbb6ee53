//! Nothing beside a suspect, whoever takes mail up in this process: the spool of a service
//! and the runs of its jobs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::{Instant, timeout};

/// How long is waited for mails in hand to leave the suspects alone.
const QUIET: Duration = Duration::from_secs(5);

/// How long suspects are alone, all together: no peer is so slow, and they are never so
/// many, that all mail is to wait for them.
const ALONE: Duration = Duration::from_secs(20);

/// What all who take mails in hand pass.
#[derive(Debug, Clone, Default)]
pub struct Exclusion(Arc<RwLock<()>>);

/// Keeps suspects from being alone, as long as a clone of it lives.
pub(super) type SharedHold = Arc<OwnedRwLockReadGuard<()>>;

impl Exclusion {
    /// Waits until no suspect is, or waits to be, alone.
    pub(super) async fn shared(&self) -> SharedHold {
        Arc::new(Arc::clone(&self.0).read_owned().await)
    }

    /// The same at once; none while a suspect is, or waits to be, alone.
    pub(super) fn try_shared(&self) -> Option<SharedHold> {
        Arc::clone(&self.0).try_read_owned().ok().map(Arc::new)
    }

    /// The time for suspects, which has not begun.
    pub(super) fn exclusive(&self) -> ExclusiveHold {
        ExclusiveHold { exclusion: self.clone(), begun: None }
    }
}

/// The time in which suspects have the process to themselves; dropping it lets others in.
#[derive(Debug)]
pub(super) struct ExclusiveHold {
    exclusion: Exclusion,
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    until: Instant,
    _nobody_beside: Option<OwnedRwLockWriteGuard<()>>,
}

impl ExclusiveHold {
    /// Waits for the first suspect, not for long, until nothing is in hand, and keeps
    /// everybody else out from then on.
    pub(super) async fn begin(&mut self) {
        if self.begun.is_none() {
            let nobody_beside = timeout(QUIET, Arc::clone(&self.exclusion.0).write_owned()).await.ok();
            self.begun = Some(Begun { until: Instant::now() + ALONE, _nobody_beside: nobody_beside });
        }
    }

    /// Whether others are to wait no longer.
    pub(super) fn is_over(&self) -> bool {
        self.begun.as_ref().is_some_and(|begun| begun.until <= Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::task::Poll;

    use super::*;

    async fn waits<F: Future>(future: &mut Pin<Box<F>>) -> bool {
        poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn others_wait_while_a_suspect_is_alone_and_it_waits_for_them() {
        let exclusion = Exclusion::default();
        let mut hold = exclusion.exclusive();
        hold.begin().await;
        assert!(!hold.is_over());
        let mut other = Box::pin(exclusion.shared());
        assert!(waits(&mut other).await);
        drop(hold);
        let beside = other.await;
        let another = Arc::clone(&beside);
        drop(beside);

        let mut hold = exclusion.exclusive();
        let mut suspect = Box::pin(hold.begin());
        assert!(waits(&mut suspect).await, "as long as any mail of the batch is in hand");
        let mut late = Box::pin(exclusion.shared());
        assert!(waits(&mut late).await, "who comes later does not overtake it");
        drop(another);
        suspect.await;
        drop(hold);
        late.await;
    }
}
