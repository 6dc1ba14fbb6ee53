//! Long work that was asked for: kept, so that it is shown while it goes on and after it.

use async_trait::async_trait;

use super::{OperationId, Page, Result, Span, Time};

/// A task, as far as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its name: unique.
    pub id: String,
    /// What kind of work it is.
    pub kind: String,
    /// James's word: `waiting`, `inProgress`, `completed`, `failed`, `cancelRequested`, `canceled`.
    pub status: String,
    /// Who asked.
    pub who: String,
    /// When it was asked for.
    pub submitted: Time,
    /// When it began.
    pub started: Option<Time>,
    /// When it ended.
    pub finished: Option<Time>,
    /// The operation on whose account it works.
    pub operation: Option<OperationId>,
    /// How much is done.
    pub done: u64,
    /// Of how much, where that is known.
    pub expected: Option<u64>,
    /// What was asked for, as JSON.
    pub parameters: String,
    /// What there is to say of it, as JSON.
    pub details: String,
}

/// Tasks on record.
#[async_trait]
pub trait Tasks: Send + Sync {
    /// Puts a task on record as this process's, or writes down how far it is.
    async fn put_task(&self, task: &Task) -> Result<()>;

    /// A page of the tasks, the latest first whatever the span says.
    async fn tasks(&self, span: &Span) -> Result<Page<Task>>;

    /// How many tasks there are on record by status, where there are any. Costs the same
    /// however many they are.
    async fn task_sums(&self) -> Result<Vec<(String, u64)>>;

    /// One task.
    async fn task(&self, id: &str) -> Result<Option<Task>>;

    /// Those that did not end and whose process is dead: each is given once, to whoever says
    /// that it failed.
    async fn cut_off_tasks(&self) -> Result<Vec<Task>>;
}
