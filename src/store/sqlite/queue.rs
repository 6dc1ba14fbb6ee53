//! What waits for the thread that writes, and in which groups it gets it.
//!
//! What somebody waits for is given out at once, with all that came meanwhile. What may wait a
//! little does, for others to share a commit with. A turn of what is done to many mails comes
//! alone: when nobody else has asked for something for a moment, or when it has waited for long.
//! The thread is woken only for what is to be done sooner than it wakes by itself.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Operations in one group at most: keeps the wait for the lock short.
const GROUP: usize = 256;

/// How long what ends a pass waits for others: a result is to be durable within 50 ms; mail that
/// comes one by one comes sooner than this.
const ALONG: Duration = Duration::from_millis(5);

/// How long an attempt whose connection is still to come waits for others.
const AHEAD: Duration = Duration::from_micros(1500);

/// How long nobody may have asked for anything before a turn of bulk work begins: a client that
/// sends mail after mail asks again sooner.
const MOMENT: Duration = Duration::from_millis(5);

/// How long such a turn takes, its commit aside: whoever asks meanwhile waits for it.
const SHORT_TURN: Duration = Duration::from_millis(3);

/// Groups of others after which a turn comes though nobody pauses: fewer than one client in a
/// hundred waits for it.
const GROUPS: usize = 150;

/// How long it waits at most: a cancelled task is to end within a second.
const LONG: Duration = Duration::from_millis(700);

/// How long a turn takes that comes so seldom.
const LONG_TURN: Duration = Duration::from_millis(20);

/// When an operation is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Haste {
    /// At once: somebody waits for it.
    Urgent,
    /// With others that come within a moment: somebody will wait for it.
    Ahead,
    /// With others, or a little later: nobody waits for it.
    Along,
    /// After all others.
    Bulk,
}

/// Operations that wait.
pub(super) struct Queue<T> {
    line: Mutex<Line<T>>,
    news: Condvar,
}

struct Line<T> {
    operations: VecDeque<T>,
    /// Until when the operations may wait for others; those of a full group do not.
    until: Option<Instant>,
    /// Turns of bulk work, and since when they wait.
    bulk: VecDeque<(T, Instant)>,
    /// When a group of others was given out last, and how many in a row.
    busy: Option<Instant>,
    groups: usize,
    /// The last turn of bulk work was one that comes seldom.
    is_long: bool,
    thread: Thread,
    /// No more can come.
    closed: bool,
}

/// What the thread that writes does.
#[derive(Clone, Copy)]
enum Thread {
    /// It works, and looks here after that.
    Works,
    /// It waits until then.
    Waits(Instant),
    /// It waits for something to do.
    Idles,
}

/// What there is to do for the thread that writes.
#[derive(Debug, PartialEq, Eq)]
enum Next<T> {
    /// These; nothing where nothing came for long enough.
    Do(Vec<T>),
    /// Something at that time, or nothing.
    Wait(Option<Instant>),
    /// Nothing any more.
    Over,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let line = Line {
            operations: VecDeque::new(),
            until: None,
            bulk: VecDeque::new(),
            busy: None,
            groups: 0,
            is_long: false,
            thread: Thread::Works,
            closed: false,
        };
        Self { line: Mutex::new(line), news: Condvar::new() }
    }
}

impl<T> Queue<T> {
    fn line(&self) -> MutexGuard<'_, Line<T>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an operation; whether it was taken.
    pub(super) fn add(&self, operation: T, haste: Haste) -> bool {
        let mut line = self.line();
        if line.closed {
            return false;
        }
        if line.add(operation, haste, Instant::now()) {
            line.thread = Thread::Works;
            drop(line);
            self.news.notify_one();
        }
        true
    }

    /// Takes no more.
    pub(super) fn close(&self) {
        self.line().closed = true;
        self.news.notify_one();
    }

    /// How long a turn of bulk work may take that was just given out.
    pub(super) fn turn(&self) -> Duration {
        if self.line().is_long { LONG_TURN } else { SHORT_TURN }
    }

    /// Nobody does any of it any more: those who wait hear so.
    pub(super) fn abandon(&self) {
        let mut line = self.line();
        line.closed = true;
        let left = (std::mem::take(&mut line.operations), std::mem::take(&mut line.bulk));
        drop(line);
        drop(left);
    }

    /// Waits for what is to be done together: nothing where nothing came for `quiet`. `None` once
    /// no more can come.
    pub(super) fn next_group(&self, quiet: Option<Duration>) -> Option<Vec<T>> {
        let quiet = quiet.map(|quiet| Instant::now() + quiet);
        let mut line = self.line();
        loop {
            match line.next(Instant::now(), quiet) {
                Next::Do(group) => return Some(group),
                Next::Over => return None,
                Next::Wait(until) => line = self.wait(line, until),
            }
        }
    }

    fn wait<'a>(&'a self, mut line: MutexGuard<'a, Line<T>>, until: Option<Instant>) -> MutexGuard<'a, Line<T>> {
        line.thread = until.map_or(Thread::Idles, Thread::Waits);
        let mut line = match until {
            Some(until) => {
                let rest = until.saturating_duration_since(Instant::now());
                self.news.wait_timeout(line, rest).unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.news.wait(line).unwrap_or_else(PoisonError::into_inner),
        };
        line.thread = Thread::Works;
        line
    }
}

impl<T> Line<T> {
    /// Adds an operation; whether the thread is to be woken for it.
    fn add(&mut self, operation: T, haste: Haste, now: Instant) -> bool {
        let until = match haste {
            Haste::Urgent => now,
            Haste::Ahead => now + AHEAD,
            Haste::Along => now + ALONG,
            Haste::Bulk => {
                self.bulk.push_back((operation, now));
                return !matches!(self.thread, Thread::Works);
            }
        };
        self.operations.push_back(operation);
        self.until = Some(self.until.map_or(until, |before| before.min(until)));
        match self.thread {
            Thread::Works => false,
            Thread::Waits(then) => until < then,
            Thread::Idles => true,
        }
    }

    fn next(&mut self, now: Instant, quiet: Option<Instant>) -> Next<T> {
        let (turn, group) = (self.turn_at(now), self.group_at(now));
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(turn) || self.closed && group.is_none() && turn.is_some() {
            return Next::Do(self.take_turn(now));
        }
        if is_due(group) || self.closed && group.is_some() {
            return Next::Do(self.take_group(now));
        }
        if self.closed {
            return Next::Over;
        }
        match turn.into_iter().chain(group).min() {
            Some(at) => Next::Wait(Some(at)),
            None if is_due(quiet) => Next::Do(Vec::new()),
            None => Next::Wait(quiet),
        }
    }

    /// When the next turn of bulk work is to be done.
    fn turn_at(&self, now: Instant) -> Option<Instant> {
        let (_, since) = self.bulk.front()?;
        let long = *since + LONG;
        if self.groups >= GROUPS {
            return Some(now);
        }
        if !self.operations.is_empty() {
            return Some(long);
        }
        Some(self.busy.map_or(now, |busy| busy + MOMENT).min(long))
    }

    /// When the others are.
    fn group_at(&self, now: Instant) -> Option<Instant> {
        if self.operations.len() >= GROUP { Some(now) } else { self.until }
    }

    fn take_turn(&mut self, now: Instant) -> Vec<T> {
        let Some((turn, since)) = self.bulk.pop_front() else { return Vec::new() };
        self.is_long = self.groups >= GROUPS || since + LONG <= now;
        self.groups = 0;
        vec![turn]
    }

    fn take_group(&mut self, now: Instant) -> Vec<T> {
        let many = self.operations.len().min(GROUP);
        let group = self.operations.drain(..many).collect();
        // What is left waited as long as the first.
        self.until = self.until.filter(|_| !self.operations.is_empty());
        (self.busy, self.groups) = (Some(now), self.groups + 1);
        group
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> (Line<&'static str>, Instant) {
        (Queue::default().line.into_inner().expect("a line"), Instant::now())
    }

    #[test]
    fn what_may_wait_is_given_out_with_what_may_not() {
        let (mut line, now) = line();
        assert_eq!(line.next(now, None), Next::Wait(None));
        line.add("settle", Haste::Along, now);
        assert_eq!(line.next(now, None), Next::Wait(Some(now + ALONG)));
        line.add("begin", Haste::Ahead, now);
        assert_eq!(line.next(now, None), Next::Wait(Some(now + AHEAD)));
        line.add("insert", Haste::Urgent, now);
        assert_eq!(line.next(now, None), Next::Do(vec!["settle", "begin", "insert"]));
        line.add("settle", Haste::Along, now);
        assert_eq!(line.next(now + ALONG, None), Next::Do(vec!["settle"]));
        assert_eq!(line.next(now, Some(now)), Next::Do(vec![]), "nothing came for long");
    }

    #[test]
    fn the_thread_is_woken_for_what_cannot_wait_as_long_as_it_does() {
        let (mut line, now) = line();
        assert!(!line.add("", Haste::Urgent, now), "it looks by itself");
        line.thread = Thread::Idles;
        assert!(line.add("", Haste::Along, now));
        line.thread = Thread::Waits(now + AHEAD);
        assert!(!line.add("", Haste::Along, now) && !line.add("", Haste::Ahead, now));
        assert!(line.add("", Haste::Urgent, now) && line.add("", Haste::Bulk, now));
    }

    #[test]
    fn a_turn_of_bulk_work_comes_in_a_pause_or_after_long() {
        let (mut line, now) = line();
        line.add("turn", Haste::Bulk, now);
        line.add("insert", Haste::Urgent, now);
        assert_eq!(line.next(now, None), Next::Do(vec!["insert"]));
        assert_eq!(line.next(now, None), Next::Wait(Some(now + MOMENT)));
        assert_eq!(line.next(now + MOMENT, None), Next::Do(vec!["turn"]));
        assert!(!line.is_long);
        line.add("turn", Haste::Bulk, now);
        line.add("insert", Haste::Urgent, now + LONG);
        assert_eq!(line.next(now + LONG, None), Next::Do(vec!["turn"]), "others ask without a pause");
        assert_eq!((line.next(now + LONG, None), line.is_long), (Next::Do(vec!["insert"]), true));
        line.add("turn", Haste::Bulk, now);
        let others = (0..).take_while(|_| {
            line.add("insert", Haste::Urgent, now);
            line.next(now, None) == Next::Do(vec!["insert"])
        });
        assert_eq!(others.count() + 1, GROUPS);
    }

    #[test]
    fn what_was_asked_for_before_the_end_is_done() {
        let queue = Queue::default();
        for haste in [Haste::Along, Haste::Bulk, Haste::Ahead] {
            assert!(queue.add(haste, haste));
        }
        queue.close();
        assert!(!queue.add(Haste::Urgent, Haste::Urgent), "no more is taken");
        let groups: Vec<_> = std::iter::from_fn(|| queue.next_group(None)).collect();
        assert_eq!(groups, [vec![Haste::Along, Haste::Ahead], vec![Haste::Bulk]]);
    }
}
