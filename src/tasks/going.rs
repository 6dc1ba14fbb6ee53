//! A task that goes on.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::work::object;
use super::{Together, is_over, status};
use crate::stop::Cancellation;
use crate::store::Task;

/// Clones are the same task.
#[derive(Clone)]
pub(super) struct Going {
    task: Arc<watch::Sender<Task>>,
    together: Together,
    /// Ends it, also where the service ends.
    stop: CancellationToken,
    /// Somebody asked for it.
    cancellation: Cancellation,
}

impl Going {
    pub(super) fn new(task: Task, together: Together, stop: CancellationToken) -> Self {
        Self { task: Arc::new(watch::Sender::new(task)), together, stop, cancellation: Cancellation::default() }
    }

    /// As far as it is.
    pub(super) fn task(&self) -> Task {
        self.task.borrow().clone()
    }

    pub(super) fn together(&self) -> &Together {
        &self.together
    }

    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Task)) {
        self.task.send_modify(change);
    }

    pub(super) async fn cancelled(&self) {
        self.stop.cancelled().await;
    }

    pub(super) fn was_cancelled(&self) -> bool {
        self.cancellation.by().is_some()
    }

    pub(super) fn cancellation(&self) -> &Cancellation {
        &self.cancellation
    }

    pub(super) fn cancel(&self, by: &str) {
        self.cancellation.cancel(by);
        self.change(|task| {
            if !is_over(task) {
                status::CANCEL_REQUESTED.clone_into(&mut task.status);
                let mut parameters = object(&task.parameters);
                parameters["cancelledFrom"] = self.cancellation.by().into();
                task.parameters = parameters.to_string();
            }
        });
        self.stop.cancel();
    }

    /// Waits until it is over.
    pub(super) async fn end(&self) -> Task {
        let mut changes = self.task.subscribe();
        match changes.wait_for(is_over).await {
            Ok(task) => task.clone(),
            // It cannot end while this is one of its owners.
            Err(_) => self.task(),
        }
    }
}
