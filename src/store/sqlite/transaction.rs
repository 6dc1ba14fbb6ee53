//! A transaction under way, and the sums that change with it.
//!
//! What changes is gathered while the operations of a group run, and written once before
//! their commit: a sum costs a group of mails as much as it costs one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Deref;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use super::super::{Result, Time};
use super::rows;
use crate::clock::Clock;
use crate::mail::{Outcome, Recorded};

/// A connection on which an operation writes.
pub(super) struct Transaction<'a> {
    connection: &'a Connection,
    clock: &'a Clock,
    /// This process, 0 as long as it is not registered.
    instance: i64,
    /// The last number of the sequence that was given out here, where one was.
    number: Cell<Option<i64>>,
    changes: RefCell<Changes>,
    begun: Instant,
    /// How long a turn of bulk work may take, its commit aside.
    turn: Duration,
}

impl Deref for Transaction<'_> {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        self.connection
    }
}

/// What counts in a sum of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weight {
    pub(super) repository: i64,
    pub(super) passes: u32,
    /// Since 1970, in which it was accepted.
    pub(super) hour: i64,
    pub(super) octets: u64,
    pub(super) acknowledged: bool,
}

#[derive(Debug, Default)]
struct Change {
    mails: i64,
    octets: i64,
    acknowledged: i64,
}

/// Outcomes of one hour at one next hop, with the last of them.
#[derive(Debug, Default)]
struct Hour {
    delivered: i64,
    deferred: i64,
    failed: i64,
    last: Option<(i64, Recorded)>,
}

/// What is to be added to the sums.
#[derive(Debug, Default)]
struct Changes {
    /// By repository and passes.
    places: HashMap<(i64, u32), Change>,
    /// Mails by repository and the hour in which they were accepted.
    ages: HashMap<(i64, i64), i64>,
    /// By hour and next hop.
    hours: HashMap<(i64, String), Hour>,
    /// By outcome, stage and class of the reply.
    totals: HashMap<(String, String, u16), i64>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(connection: &'a Connection, clock: &'a Clock, instance: i64, turn: Duration) -> Self {
        let begun = clock.instant();
        Self { connection, clock, instance, number: Cell::default(), changes: RefCell::default(), begun, turn }
    }

    /// Another that goes on with the numbers of this one, for an operation that may fail alone.
    pub(super) fn own(&self) -> Self {
        Self { number: self.number.clone(), ..Self::new(self.connection, self.clock, self.instance, self.turn) }
    }

    /// The next number of the one sequence: orders what comes to rest, and makes claims unique.
    pub(super) fn next_number(&self) -> Result<i64> {
        let last = self.number.get().map_or_else(|| last_number(self), Ok)?;
        self.number.set(Some(last + 1));
        Ok(last + 1)
    }

    /// The store's time.
    pub(super) fn now(&self) -> Time {
        self.clock.now()
    }

    /// The store's time, as it is stored.
    pub(super) fn millis(&self) -> i64 {
        self.now().timestamp_millis()
    }

    /// Whether a turn of bulk work is to end here: others wait.
    pub(super) fn is_over(&self) -> bool {
        self.clock.instant().saturating_duration_since(self.begun) >= self.turn
    }

    /// A mail came to rest somewhere.
    pub(super) fn add(&self, weight: Weight) {
        self.weigh(weight, 1);
    }

    /// A mail left where it was.
    pub(super) fn subtract(&self, weight: Weight) {
        self.weigh(weight, -1);
    }

    fn weigh(&self, weight: Weight, sign: i64) {
        let mut changes = self.changes.borrow_mut();
        let change = changes.places.entry((weight.repository, weight.passes)).or_default();
        change.mails += sign;
        change.octets += sign * i64::try_from(weight.octets).unwrap_or(i64::MAX);
        change.acknowledged += sign * i64::from(weight.acknowledged);
        // What passes through the spool would change them with every mail.
        if weight.repository != 0 {
            *changes.ages.entry((weight.repository, weight.hour)).or_default() += sign;
        }
    }

    /// A recipient has an outcome.
    pub(super) fn count(&self, outcome: &Recorded) {
        let mut changes = self.changes.borrow_mut();
        let class = outcome.code.map_or(0, |code| code / 100);
        *changes.totals.entry((outcome.outcome.to_string(), outcome.stage.to_string(), class)).or_default() += 1;
        let now = self.millis();
        let next_hop = outcome.next_hop.clone().unwrap_or_default();
        let hour = changes.hours.entry((hour_of(now), next_hop)).or_default();
        *match outcome.outcome {
            Outcome::Delivered => &mut hour.delivered,
            Outcome::Deferred => &mut hour.deferred,
            Outcome::Failed => &mut hour.failed,
        } += 1;
        hour.last = Some((now, outcome.clone()));
    }

    /// Takes over what an operation in a transaction of its own changed.
    pub(super) fn merge(&self, other: Transaction<'_>) {
        self.number.set(other.number.get());
        let other = other.changes.into_inner();
        let mut changes = self.changes.borrow_mut();
        for (place, change) in other.places {
            let sum = changes.places.entry(place).or_default();
            sum.mails += change.mails;
            sum.octets += change.octets;
            sum.acknowledged += change.acknowledged;
        }
        for (key, mails) in other.ages {
            *changes.ages.entry(key).or_default() += mails;
        }
        for (key, hour) in other.hours {
            let sum = changes.hours.entry(key).or_default();
            sum.delivered += hour.delivered;
            sum.deferred += hour.deferred;
            sum.failed += hour.failed;
            sum.last = hour.last;
        }
        for (key, recipients) in other.totals {
            *changes.totals.entry(key).or_default() += recipients;
        }
    }

    /// Writes the sums, and up to where numbers were given out, before the commit.
    pub(super) fn write_sums(&self) -> Result<()> {
        if let Some(number) = self.number.get() {
            self.prepare_cached("UPDATE tally SET x = ?1 WHERE kind = 0")?.execute([number])?;
        }
        let changes = self.changes.take();
        for ((repository, passes), change) in &changes.places {
            if matches!(change, Change { mails: 0, octets: 0, acknowledged: 0 }) {
                continue;
            }
            self.prepare_cached(
                "INSERT INTO tally (kind, a, b, x, y, z) VALUES (1, ?1, ?2, ?3, ?4, ?5) \
                 ON CONFLICT (kind, a, b, c) DO UPDATE SET x = x + ?3, y = y + ?4, z = z + ?5",
            )?
            .execute(params![repository, passes, change.mails, change.octets, change.acknowledged])?;
        }
        changes
            .ages
            .iter()
            .filter(|(_, mails)| **mails != 0)
            .try_for_each(|(key, mails)| self.add_aged(*key, *mails))?;
        changes.hours.iter().try_for_each(|(key, hour)| self.add_outcomes(key, hour))?;
        for ((outcome, stage, class), recipients) in &changes.totals {
            self.prepare_cached(
                "INSERT INTO tally (kind, a, b, c, x) VALUES (2, ?1, ?2, ?3, ?4) \
                 ON CONFLICT (kind, a, b, c) DO UPDATE SET x = x + ?4",
            )?
            .execute(params![outcome, stage, class, recipients])?;
        }
        Ok(())
    }

    fn add_outcomes(&self, (hour, next_hop): &(i64, String), sum: &Hour) -> Result<()> {
        let Some((last_at, last)) = &sum.last else { return Ok(()) };
        self.prepare_cached(
            "INSERT INTO tally (kind, a, b, c, x, y, z, last_at, last) VALUES (4, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
             ON CONFLICT (kind, a, b, c) DO UPDATE SET x = x + ?4, y = y + ?5, z = z + ?6, last_at = ?7, last = ?8",
        )?
        .execute(params![
            hour,
            self.instance,
            next_hop,
            sum.delivered,
            sum.deferred,
            sum.failed,
            last_at,
            rows::to_json(last)?
        ])?;
        Ok(())
    }

    fn add_aged(&self, (repository, hour): (i64, i64), mails: i64) -> Result<()> {
        self.prepare_cached(
            "INSERT INTO tally (kind, a, b, x) VALUES (3, ?1, ?2, ?3) \
             ON CONFLICT (kind, a, b, c) DO UPDATE SET x = x + ?3",
        )?
        .execute([repository, hour, mails])?;
        if mails < 0 {
            self.prepare_cached("DELETE FROM tally WHERE kind = 3 AND a = ?1 AND b = ?2 AND x = 0")?
                .execute([repository, hour])?;
        }
        Ok(())
    }
}

/// The hour since 1970 of a stored time.
pub(super) fn hour_of(millis: i64) -> i64 {
    millis.div_euclid(3_600_000)
}

/// The last number of the sequence that was given out.
pub(super) fn last_number(connection: &Connection) -> Result<i64> {
    let number = connection.prepare_cached("SELECT value FROM sequence")?.query_row([], |row| row.get(0));
    match number {
        Err(rusqlite::Error::QueryReturnedNoRows) => Err(rows::corrupt("the table sequence is empty")),
        number => Ok(number?),
    }
}
