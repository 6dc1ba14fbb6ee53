//! The one thread that writes, with group commit.
//!
//! Operations that wait together share one transaction, and are answered after the commit
//! that holds them. Nearly always none of them fails. Where one does, all is rolled back and
//! the group is run again, each in a savepoint of its own, so that it fails alone; unless SQLite
//! ended the whole transaction (a full disk, an I/O error, no memory): then the next savepoint
//! would commit by itself, so the group is run once more, one transaction each.
//!
//! Which operations wait together, and for how long, is [`super::queue`]'s to say.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::super::{Error, Result, Trouble};
use super::log::{self, Log};
use super::open::{BUSY_TIMEOUT, Identity};
use super::queue::{Haste, Queue};
use super::transaction::Transaction;
use crate::clock::Clock;
use crate::metrics::Metrics;

/// A lock of another process is waited for in turns of this length.
const TURN: Duration = Duration::from_millis(250);

/// The way to the writing thread.
pub(super) struct Writer {
    queue: Arc<Queue<Box<dyn Operation>>>,
    deadline: Deadline,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// When nothing waits for others any more; none as long as the process goes on.
type Deadline = Arc<Mutex<Option<Instant>>>;

/// Something to be done in a transaction, perhaps more than once before it is answered.
trait Operation: Send {
    /// Does it; what it returns counts only once it is committed.
    fn run(&mut self, tx: &Transaction<'_>) -> Result<()>;
    /// Tells the caller, after the commit or instead of one.
    fn answer(self: Box<Self>, outcome: Result<()>);
}

struct Call<F, T, R> {
    operation: F,
    value: Option<T>,
    reply: R,
}

impl<F, T, R> Operation for Call<F, T, R>
where
    F: Fn(&Transaction<'_>) -> Result<T> + Send,
    T: Send,
    R: FnOnce(Result<T>) + Send,
{
    fn run(&mut self, tx: &Transaction<'_>) -> Result<()> {
        // What a run before this one returned was rolled back: a lock, say, that this one needs.
        self.value = None;
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.operation)(tx)));
        self.value = Some(outcome.unwrap_or_else(|_| Err(Error::trouble(Trouble::Internal, "an operation panicked")))?);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<()>) {
        let Self { value, reply, .. } = *self;
        reply(outcome.and_then(|()| value.ok_or_else(closed)));
    }
}

fn closed() -> Error {
    Error::trouble(Trouble::Closed, "no operation is taken any more")
}

impl Writer {
    /// Starts the thread on a connection that is set up.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub(super) fn start(
        connection: Connection,
        log: Log,
        identity: Identity,
        clock: Clock,
        instance: Arc<AtomicI64>,
        counted: Arc<OnceLock<Metrics>>,
    ) -> io::Result<Self> {
        let queue = Arc::<Queue<Box<dyn Operation>>>::default();
        let operations = Arc::clone(&queue);
        let deadline = Deadline::default();
        let (shared, turn) = (Arc::clone(&deadline), queue.turn());
        let database = Database { connection, identity, clock, instance, deadline: shared, counted, turn };
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || write(database, log, &operations))?;
        Ok(Self { queue, deadline, thread: Mutex::new(Some(thread)) })
    }

    /// Has `operation` done and answers once it is durable.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        operation: impl Fn(&Transaction<'_>) -> Result<T> + Send + 'static,
        haste: Haste,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        // A caller that went away wants no answer.
        let reply = move |outcome| drop(reply.send(outcome));
        self.add(Box::new(Call { operation, value: None, reply }), haste)?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Has `operation` done, and hands what it yields to `then` once it is durable, whether or
    /// not the caller still waits for that.
    pub(super) async fn call_then<T: Send + 'static>(
        &self,
        operation: impl Fn(&Transaction<'_>) -> Result<T> + Send + 'static,
        then: Box<dyn FnOnce(T) + Send>,
    ) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        let reply = move |outcome: Result<T>| drop(reply.send(outcome.map(then)));
        self.add(Box::new(Call { operation, value: None, reply }), Haste::Urgent)?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    fn add(&self, operation: Box<dyn Operation>, haste: Haste) -> Result<()> {
        if self.queue.add(operation, haste) { Ok(()) } else { Err(closed()) }
    }

    /// No transaction waits for a lock of another process beyond `by`.
    pub(super) fn deadline(&self, by: Instant) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Some(by);
    }

    /// Waits for what was asked for, then closes the connection.
    pub(super) async fn stop(&self) {
        self.queue.close();
        let thread = self.thread.lock().ok().and_then(|mut thread| thread.take());
        if let Some(thread) = thread {
            // The result of a join is a panic that was reported already.
            drop(tokio::task::spawn_blocking(move || drop(thread.join())).await);
        }
    }
}

impl Drop for Writer {
    /// The thread ends with what it was asked for.
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// The connection that writes, and the file that it should write.
struct Database {
    connection: Connection,
    identity: Identity,
    clock: Clock,
    instance: Arc<AtomicI64>,
    deadline: Deadline,
    /// Where commits are counted, if anywhere.
    counted: Arc<OnceLock<Metrics>>,
    /// How long a turn of bulk work may take now.
    turn: Duration,
}

impl Database {
    fn transaction(&self) -> Transaction<'_> {
        Transaction::new(&self.connection, &self.clock, self.instance.load(Ordering::Relaxed), self.turn)
    }

    /// Begins a transaction that may write. SQLite would wait for the lock in one go, and
    /// nobody could tell it that the process is to end.
    fn begin(&self) -> Result<()> {
        self.connection.busy_timeout(TURN)?;
        let begun = self.begin_in_turns();
        self.connection.busy_timeout(BUSY_TIMEOUT)?;
        begun
    }

    fn begin_in_turns(&self) -> Result<()> {
        let patience = self.clock.instant() + BUSY_TIMEOUT;
        loop {
            let begun = self.connection.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([]));
            let begun = begun.map(drop).map_err(Error::from);
            let deadline = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
            let is_over = self.clock.instant() >= deadline.unwrap_or(patience).min(patience);
            match begun {
                Err(Error::Trouble { kind: Trouble::Busy, .. }) if !is_over => {}
                begun => return begun,
            }
        }
    }
}

/// However the thread ends, nobody waits for it after that.
struct End<'a>(&'a Queue<Box<dyn Operation>>);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

fn write(mut database: Database, mut log: Log, queue: &Queue<Box<dyn Operation>>) {
    let _end = End(queue);
    while let Some(group) = queue.next_group(log.is_to_be_moved().then_some(log::QUIET)) {
        if group.is_empty() {
            log.quiet();
            continue;
        }
        database.turn = queue.turn();
        let (begun, operations) = (database.clock.instant(), group.len());
        commit_group(&database, group);
        log.committed(&database.connection);
        if let Some(metrics) = database.counted.get() {
            let took = database.clock.instant().saturating_duration_since(begun);
            metrics.committed(took.as_secs_f64(), operations);
        }
    }
    log.wait();
    // The last connection to close checkpoints the WAL; what fails here is done at the next
    // start, so that nobody's lock is waited for.
    drop(database.connection.busy_timeout(Duration::ZERO));
    drop(database.connection.close());
}

/// A group of operations under one commit.
type Group = Vec<Box<dyn Operation>>;

fn commit_group(database: &Database, mut group: Group) {
    match run_group(database, &mut group) {
        Ok(outcomes) => answer(group, outcomes),
        // Every one of them would wait as long again for the same lock.
        Err(error @ Error::Trouble { kind: Trouble::Busy, .. }) => {
            let outcomes = group.iter().map(|_| Err(error.clone())).collect();
            answer(group, outcomes);
        }
        // Nothing of the group is stored. Alone, each is answered by what happened to it.
        Err(_) if group.len() > 1 => {
            for operation in group {
                commit_group(database, vec![operation]);
            }
        }
        Err(error) => answer(group, vec![Err(error)]),
    }
}

fn answer(group: Group, outcomes: Vec<Result<()>>) {
    for (operation, outcome) in group.into_iter().zip(outcomes) {
        operation.answer(outcome);
    }
}

/// One transaction for all; `Err` where nothing of it is stored.
fn run_group(database: &Database, group: &mut [Box<dyn Operation>]) -> Result<Vec<Result<()>>> {
    database.identity.check()?;
    if let Some(outcomes) = transaction(database, || run_bare(database, group))? {
        return Ok(outcomes);
    }
    transaction(database, || run_apart(database, group).map(Some)).map(Option::unwrap_or_default)
}

/// What `work` does, committed; where it says `None` or fails, nothing of it is stored.
fn transaction<T>(database: &Database, work: impl FnOnce() -> Result<Option<T>>) -> Result<Option<T>> {
    let connection = &database.connection;
    database.begin()?;
    let committed = work().and_then(|done| {
        if done.is_some() {
            connection.prepare_cached("COMMIT")?.execute([])?;
        }
        Ok(done)
    });
    if !matches!(committed, Ok(Some(_))) && !connection.is_autocommit() {
        // Where even this fails, the next BEGIN says so.
        drop(connection.execute_batch("ROLLBACK"));
    }
    committed
}

/// All of them one after the other; `None` where one fails and the others must not.
fn run_bare(database: &Database, group: &mut [Box<dyn Operation>]) -> Result<Option<Vec<Result<()>>>> {
    let all = database.transaction();
    for operation in &mut *group {
        match operation.run(&all) {
            Err(error) if database.connection.is_autocommit() => return Err(error),
            Err(_) => return Ok(None),
            Ok(()) => {}
        }
    }
    all.write_sums()?;
    Ok(Some(group.iter().map(|_| Ok(())).collect()))
}

/// Each in a savepoint of its own, so that one that fails takes no other along.
fn run_apart(database: &Database, group: &mut [Box<dyn Operation>]) -> Result<Vec<Result<()>>> {
    let (connection, all) = (&database.connection, database.transaction());
    let mut outcomes = Vec::with_capacity(group.len());
    for operation in group {
        connection.execute_batch("SAVEPOINT operation")?;
        let own = all.own();
        let outcome = operation.run(&own);
        match &outcome {
            Ok(()) => all.merge(own),
            Err(error) if connection.is_autocommit() => return Err(error.clone()),
            Err(_) => connection.execute_batch("ROLLBACK TO operation")?,
        }
        connection.execute_batch("RELEASE operation")?;
        outcomes.push(outcome);
    }
    all.write_sums()?;
    Ok(outcomes)
}
