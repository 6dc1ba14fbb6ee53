//! Long work that is asked for and goes on by itself: kept, listed, awaited, cancelled.
//!
//! A task is on record before its caller has an answer, so that one that a restart cuts off
//! is found and said to have failed; it is not begun again. How far it is is known at once to
//! who asks this process, and to others a second later.

mod going;
mod work;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::operations::Operator;
use crate::panics::caught;
use crate::stop::Stop;
use crate::store::{Error, Page, Result, Span, Store, Task};
use going::Going;

pub use work::{Ended, Handle, NewTask, Together};

/// James's words for how a task is.
pub mod status {
    /// Waits for others that must end first.
    pub const WAITING: &str = "waiting";
    /// Is worked on.
    pub const IN_PROGRESS: &str = "inProgress";
    /// Somebody asked for its end, which it is about to reach.
    pub const CANCEL_REQUESTED: &str = "canceledRequested";
    /// Ended, and all was done.
    pub const COMPLETED: &str = "completed";
    /// Ended, and not all was done.
    pub const FAILED: &str = "failed";
    /// Ended because somebody asked for it.
    pub const CANCELED: &str = "canceled";
    /// All of them.
    pub const ALL: [&str; 6] = [WAITING, IN_PROGRESS, CANCEL_REQUESTED, COMPLETED, FAILED, CANCELED];
}

/// Whether a task has ended.
pub fn is_over(task: &Task) -> bool {
    task.finished.is_some()
}

/// What came of waiting for a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Awaited {
    /// It has ended.
    Ended(Box<Task>),
    /// It goes on.
    TimedOut,
    /// Nobody knows it.
    Unknown,
}

/// Why a task was not begun.
#[derive(Debug, thiserror::Error)]
pub enum NotBegun {
    /// One of which there may be but one goes on.
    #[error("{0} is going on already, as task {1}")]
    GoesOn(String, String),
    /// It could not be put on record.
    #[error(transparent)]
    Store(#[from] Error),
}

/// The tasks of this process, and what is on record of others.
pub struct Tasks {
    store: Arc<dyn Store>,
    clock: Clock,
    stop: Stop,
    going: Mutex<BTreeMap<String, Going>>,
    /// One at a time for each of these.
    turns: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    workers: Mutex<JoinSet<()>>,
}

/// How often a task of another process is looked at.
const LOOK: Duration = Duration::from_millis(500);

impl Tasks {
    /// Tasks that are asked to end with `stop`.
    pub fn new(store: Arc<dyn Store>, clock: Clock, stop: Stop) -> Arc<Self> {
        Arc::new(Self {
            store,
            clock,
            stop,
            going: Mutex::default(),
            turns: Mutex::default(),
            workers: Mutex::default(),
        })
    }

    /// Says of tasks whose process ended without them that they failed; how many.
    ///
    /// # Errors
    /// Where the store cannot be written.
    pub async fn bury_those_cut_off(&self) -> Result<usize> {
        let cut_off = self.store.cut_off_tasks().await?;
        let number = cut_off.len();
        for task in cut_off {
            let mut details = work::object(&task.details);
            if task.operation.is_some() {
                details["mails"] = task.done.into();
                details["remainingCount"] = task.expected.map(|expected| expected.saturating_sub(task.done)).into();
            }
            details["error"] = json!("redeliver ended before this task did; it was not begun again");
            let finished = Some(self.clock.now());
            let status = status::FAILED.to_owned();
            self.store.put_task(&Task { status, finished, details: details.to_string(), ..task }).await?;
        }
        Ok(number)
    }

    /// Puts a task on record and begins it, or has it wait for its turn; its id.
    ///
    /// # Errors
    /// Where it must be the only one and is not, or cannot be put on record.
    pub async fn begin<W, F>(self: &Arc<Self>, new: NewTask, work: W) -> std::result::Result<String, NotBegun>
    where
        W: FnOnce(Handle) -> F + Send + 'static,
        F: Future<Output = Ended> + Send + 'static,
    {
        let task = Task {
            id: work::new_id(rand::random()),
            kind: new.kind.to_owned(),
            status: status::WAITING.to_owned(),
            who: new.by.who.clone(),
            submitted: self.clock.now(),
            started: None,
            finished: None,
            operation: None,
            done: 0,
            expected: new.expected,
            parameters: new.parameters.to_string(),
            details: json!({}).to_string(),
        };
        let id = task.id.clone();
        let going = Going::new(task.clone(), new.together.clone(), self.stop.gentle.child_token());
        self.enter(&id, &going)?;
        if let Err(error) = self.store.put_task(&task).await {
            self.going().remove(&id);
            return Err(error.into());
        }
        let by = Operator { task: Some(id.clone()), ..new.by };
        let (tasks, handle, of_work) = (Arc::clone(self), Handle::new(&going, by), going.clone());
        let work = async move {
            let ended = caught(Box::pin(async move { work(handle).await })).await;
            ended.unwrap_or_else(|panic| panicked(&of_work.task(), &panic))
        };
        let worker = async move { tasks.carry_out(going, work).await };
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that are over are let go of.
        while workers.try_join_next().is_some() {}
        workers.spawn(worker);
        drop(workers);
        Ok(id)
    }

    fn enter(&self, id: &str, going: &Going) -> std::result::Result<(), NotBegun> {
        let mut all = self.going();
        if let Together::Never(name) = going.together()
            // One that has ended is about to be put on record, and no longer in the way.
            && let Some((other, _)) =
                all.iter().find(|(_, one)| one.together() == going.together() && !is_over(&one.task()))
        {
            return Err(NotBegun::GoesOn(name.clone(), other.clone()));
        }
        all.insert(id.to_owned(), going.clone());
        Ok(())
    }

    fn going(&self) -> MutexGuard<'_, BTreeMap<String, Going>> {
        self.going.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task from its turn to its end.
    async fn carry_out(&self, going: Going, work: impl Future<Output = Ended> + Send) {
        let turn = self.turn(going.together());
        let in_turn = async {
            match &turn {
                Some(turn) => Some(turn.lock().await),
                None => None,
            }
        };
        let ended = tokio::select! {
            biased;
            () = going.cancelled() => Ended::failed(json!({})),
            _turn = in_turn => {
                going.change(|task| {
                    status::IN_PROGRESS.clone_into(&mut task.status);
                    task.started = Some(self.clock.now());
                });
                self.write_down(&going).await;
                self.work(&going, work).await
            }
        };
        let was_asked = going.was_cancelled();
        going.change(|task| {
            let stopped = self.stop.gentle.is_cancelled();
            let (status, details) = ended.judged(was_asked, stopped, &task.details);
            (task.status, task.details) = (status.to_owned(), details);
            task.finished = Some(self.clock.now());
        });
        self.write_down(&going).await;
        self.going().remove(&going.task().id);
    }

    /// The work, with a note of how far it is every second.
    async fn work(&self, going: &Going, work: impl Future<Output = Ended> + Send) -> Ended {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                ended = &mut work => return ended,
                () = tokio::time::sleep(Duration::from_secs(1)) => self.write_down(going).await,
            }
        }
    }

    async fn write_down(&self, going: &Going) {
        if let Err(error) = self.store.put_task(&going.task()).await {
            tracing::warn!(task = going.task().id, %error, "it cannot be noted how far a task is");
        }
    }

    fn turn(&self, together: &Together) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let Together::InTurn(name) = together else { return None };
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(turns.entry(name.clone()).or_default()))
    }

    /// A page of the tasks, the latest first.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn list(&self, span: &Span) -> Result<Page<Task>> {
        // Before the store is read: what ends meanwhile is on record later than it is known here.
        let going = self.going().clone();
        let mut page = self.store.tasks(span).await?;
        for task in &mut page.items {
            // It may be further than it is on record.
            if let Some(going) = going.get(&task.id) {
                *task = going.task();
            }
        }
        Ok(page)
    }

    /// One task; `None` where nobody knows it.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn find(&self, id: &str) -> Result<Option<Task>> {
        if let Some(going) = self.going().get(id) {
            return Ok(Some(going.task()));
        }
        self.store.task(id).await
    }

    /// Waits for the end of a task, as long as that.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn wait(&self, id: &str, patience: Duration) -> Result<Awaited> {
        match tokio::time::timeout(patience, self.end_of(id)).await {
            Ok(Ok(Some(task))) => Ok(Awaited::Ended(Box::new(task))),
            Ok(Ok(None)) => Ok(Awaited::Unknown),
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(Awaited::TimedOut),
        }
    }

    async fn end_of(&self, id: &str) -> Result<Option<Task>> {
        loop {
            let going = self.going().get(id).cloned();
            if let Some(going) = going {
                return Ok(Some(going.end().await));
            }
            match self.store.task(id).await? {
                Some(task) if !is_over(&task) => tokio::time::sleep(LOOK).await,
                found => return Ok(found),
            }
        }
    }

    /// Asks a task of this process to end, on behalf of `by`; nothing happens to others. Whether
    /// it was going on, and nobody had asked before.
    pub fn cancel(&self, id: &str, by: &str) -> bool {
        let Some(going) = self.going().get(id).cloned() else { return false };
        let is_first = !going.was_cancelled();
        going.cancel(by);
        is_first
    }

    /// Waits for the ends of all, which a stop has been asked of.
    pub async fn end(&self) {
        let mut workers = std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner));
        while workers.join_next().await.is_some() {}
    }
}

/// The end of work that panicked, with what it had done until then.
fn panicked(task: &Task, panic: &str) -> Ended {
    let why = format!("it panicked, a fault of redeliver: {panic}");
    tracing::error!(task = task.id, kind = task.kind, "{why}");
    let mut details = work::object(&task.details);
    details["error"] = json!(why);
    Ended::failed(details)
}

#[cfg(test)]
mod tests;
