//! Which mails a claim takes.
//!
//! States stand in the SQL as literals: a bound state would let the planner leave the
//! partial indexes, and with them the promise that a claim does not depend on how much
//! is stored.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use tracing::error;

use super::super::rules::{deaths_alone, spacing_after};
use super::super::{Claim, Claimed, Error, Result, Wanted};
use super::transaction::{Transaction, Weight, hour_of};
use super::{filing, groups, rows};
use crate::mail::{MailKey, RepositoryPath};

/// A mail that a run still going took before is left to it.
macro_rules! not_taken {
    () => {
        "(run IS NULL OR run NOT IN (SELECT run.id FROM run WHERE run.finished IS NULL))"
    };
}

/// Mails whose last attempt lies in the future that are seen to in one claim.
const AHEAD_AT_ONCE: i64 = 5000;

/// What a claim came to.
pub(super) struct Taken {
    pub(super) claimed: Vec<Claimed>,
    /// Mails whose last attempt lay in the future: by how much at most, in milliseconds.
    pub(super) ahead: (usize, i64),
}

/// Takes mails in hand.
pub(super) fn claim(tx: &Transaction<'_>, wanted: &Wanted, instance: i64) -> Result<Taken> {
    let repository = rows::place_id(tx, &wanted.from)?;
    let within = wanted.within.as_ref().map_or(Ok(i64::MAX), rows::horizon)?;
    let query = Query { wanted, repository, within };
    let mut ahead = (0, 0);
    let ids = if let Some(keys) = &wanted.only {
        query.of_keys(tx, keys)?
    } else if wanted.suspects {
        query.in_order(tx, SUSPECTS)?
    } else if wanted.spacing.is_empty() {
        query.in_order(tx, RESTING)?
    } else {
        ahead = call_back(tx, repository)?;
        query.due(tx)?
    };
    let mut claimed = Vec::with_capacity(ids.len());
    for id in ids {
        match by_id(tx, id) {
            Ok(row) => claimed.push(take(tx, row, instance, wanted)?),
            Err(error) if error.is_unreadable() => set_aside(tx, id, &error)?,
            Err(error) => return Err(error),
        }
    }
    Ok(Taken { claimed, ahead })
}

/// A claim with the numbers of what it names.
struct Query<'a> {
    wanted: &'a Wanted,
    repository: i64,
    within: i64,
}

/// What a due query reads: for one number of attempts, those whose last one lies long
/// enough back.
const DUE: &str = concat!(
    "SELECT id, seq FROM mail INDEXED BY mail_due WHERE claimed = 0 AND repository = ?1 AND attempts = ?2 \
     AND last_attempt <= ?3 AND suspect = 0 AND seq <= ?4 AND ",
    not_taken!(),
    " ORDER BY last_attempt LIMIT ?5"
);

/// Mails whatever their age, oldest first.
const RESTING: &str = concat!(
    "SELECT id FROM mail INDEXED BY mail_resting WHERE claimed = 0 AND suspect = 0 AND repository = ?1 \
     AND seq <= ?2 AND ",
    not_taken!(),
    " ORDER BY seq LIMIT ?3"
);

/// The same of those that were in hand when a process died.
const SUSPECTS: &str = concat!(
    "SELECT id FROM mail INDEXED BY mail_suspect WHERE claimed = 0 AND suspect > 0 AND repository = ?1 \
     AND seq <= ?2 AND ",
    not_taken!(),
    " ORDER BY seq LIMIT ?3"
);

/// One by its key, whatever its age: no suspect, or (?4) one.
const OF_KEY: &str = concat!(
    "SELECT id FROM mail WHERE key = ?1 AND claimed = 0 AND suspect >= 0 AND (suspect > 0) = ?4 AND repository = ?2 \
     AND seq <= ?3 AND ",
    not_taken!()
);

impl Query<'_> {
    fn limit(&self) -> i64 {
        i64::try_from(self.wanted.limit).unwrap_or(i64::MAX)
    }

    /// Mails whatever their age, as `sql` says.
    fn in_order(&self, connection: &Connection, sql: &str) -> Result<Vec<i64>> {
        let mut statement = connection.prepare_cached(sql)?;
        let ids = statement.query_map([self.repository, self.within, self.limit()], |row| row.get(0))?;
        Ok(ids.collect::<rusqlite::Result<_>>()?)
    }

    /// Those of `keys` that may be taken, whatever their age.
    fn of_keys(&self, connection: &Connection, keys: &[MailKey]) -> Result<Vec<i64>> {
        let mut statement = connection.prepare_cached(OF_KEY)?;
        let mut ids = Vec::new();
        for key in keys {
            if ids.len() == self.wanted.limit {
                break;
            }
            let values = params![key.as_str(), self.repository, self.within, self.wanted.suspects];
            ids.extend(statement.query_row(values, |row| row.get::<_, i64>(0)).optional()?);
        }
        Ok(ids)
    }

    /// Mails that are due, oldest first. The due time is not stored: a changed spacing holds
    /// at once.
    fn due(&self, tx: &Transaction<'_>) -> Result<Vec<i64>> {
        let mut statement = tx.prepare_cached(DUE)?;
        let now = tx.millis();
        let mut found: Vec<(i64, i64)> = Vec::new();
        for attempts in numbers_of_attempts(tx, self.repository)? {
            let spacing = spacing_after(&self.wanted.spacing, u32::try_from(attempts).unwrap_or(0));
            let values = [self.repository, attempts, now.saturating_sub(millis(spacing)), self.within, self.limit()];
            let ids = statement.query_map(values, |row| Ok((row.get(1)?, row.get(0)?)))?;
            found.extend(ids.collect::<rusqlite::Result<Vec<_>>>()?);
        }
        found.sort_unstable();
        found.truncate(self.wanted.limit);
        Ok(found.into_iter().map(|(_, id)| id).collect())
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The different numbers of attempts in a repository: one step into the index for each.
fn numbers_of_attempts(connection: &Connection, repository: i64) -> Result<Vec<i64>> {
    let mut statement = connection.prepare_cached(
        "SELECT attempts FROM mail INDEXED BY mail_due WHERE claimed = 0 AND repository = ?1 AND attempts > ?2 \
         ORDER BY attempts LIMIT 1",
    )?;
    let mut numbers = Vec::new();
    let mut last = -1;
    while let Some(next) = statement.query_row([repository, last], |row| row.get(0)).optional()? {
        numbers.push(next);
        last = next;
    }
    Ok(numbers)
}

const AHEAD: &str = "SELECT id, last_attempt FROM mail INDEXED BY mail_due WHERE claimed = 0 AND repository = ?1 \
     AND attempts = ?2 AND last_attempt > ?3 LIMIT ?4";

/// Lets a last attempt that lies in the future, since a clock was set back, have been now:
/// its mail is due one spacing later, neither at once nor when that time comes. How many they
/// were, and how far ahead the last of them was.
fn call_back(tx: &Transaction<'_>, repository: i64) -> Result<(usize, i64)> {
    let now = tx.millis();
    let mut ahead = (0, 0);
    for attempts in numbers_of_attempts(tx, repository)? {
        let mut statement = tx.prepare_cached(AHEAD)?;
        let found = statement.query_map([repository, attempts, now, AHEAD_AT_ONCE], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })?;
        for (id, last_attempt) in found.collect::<rusqlite::Result<Vec<_>>>()? {
            tx.prepare_cached("UPDATE mail SET last_attempt = ?2 WHERE id = ?1")?.execute([id, now])?;
            ahead = (ahead.0 + 1, ahead.1.max(last_attempt - now));
        }
    }
    Ok(ahead)
}

fn take(tx: &Transaction<'_>, row: rows::MailRow, instance: i64, wanted: &Wanted) -> Result<Claimed> {
    let token = tx.next_number()?;
    tx.prepare_cached("UPDATE mail SET claimed = 1, instance = ?2, claim = ?3, run = ?4 WHERE id = ?1")?
        .execute(params![row.id, instance, token, wanted.run.map(|run| run.0)])?;
    let mail = row.listed.mail;
    Ok(Claimed {
        claim: Claim { mail: row.id, token, octets: mail.facts.size, key: mail.key.clone() },
        mail,
        deaths_alone: deaths_alone(row.suspect),
        content: None,
    })
}

/// A mail that is in hand with this claim still.
pub(super) fn again(connection: &Connection, claim: &Claim) -> Result<Option<Claimed>> {
    let mut statement = connection.prepare_cached(rows::MAIL_IN_HAND)?;
    let mut found = statement.query([claim.mail, claim.token])?;
    let Some(row) = found.next()? else { return Ok(None) };
    match rows::mail(row) {
        Ok(rows::MailRow { suspect, listed, .. }) => {
            let deaths_alone = deaths_alone(suspect);
            Ok(Some(Claimed { claim: claim.clone(), mail: listed.mail, deaths_alone, content: None }))
        }
        Err(error) if error.is_unreadable() => {
            error!(mail.id = %claim.key, %error, "the mail cannot be read any more: it stays in hand until this process ends");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Puts a mail that cannot be read where administrators look for trouble, in nobody's hand and
/// out of the way of all claims: -1 is neither a suspect nor none.
pub(super) fn set_aside(tx: &Transaction<'_>, id: i64, why: &Error) -> Result<()> {
    let path = RepositoryPath::error();
    let repository = filing::ensure(tx, &path)?;
    let before = weight(tx, id)?;
    let key: String = tx
        .prepare_cached(
            "UPDATE mail SET claimed = 0, instance = NULL, claim = NULL, suspect = -1, repository = ?2, seq = ?3 \
             WHERE id = ?1 RETURNING key",
        )?
        .query_row([id, repository, tx.next_number()?], |row| row.get(0))?;
    tx.subtract(before);
    tx.add(Weight { repository, ..before });
    groups::follow(tx, id)?;
    error!(mail.id = key, error = %why, "the mail cannot be read: it is set aside in {path}");
    Ok(())
}

/// What a mail counts for in the sums.
pub(super) fn weight(connection: &Connection, id: i64) -> Result<Weight> {
    let mut statement = connection.prepare_cached(
        "SELECT repository, passes, message.size, acknowledged IS NOT NULL, accepted FROM mail \
         JOIN message ON message.id = mail.message WHERE mail.id = ?1",
    )?;
    Ok(statement.query_row([id], |row| {
        let (octets, hour) = (row.get(2)?, hour_of(row.get(4)?));
        Ok(Weight { repository: row.get(0)?, passes: row.get(1)?, hour, octets, acknowledged: row.get(3)? })
    })?)
}

pub(super) fn by_id(connection: &Connection, id: i64) -> Result<rows::MailRow> {
    let mut statement = connection.prepare_cached(rows::MAIL_BY_ID)?;
    let mut found = statement.query([id])?;
    match found.next()? {
        Some(row) => rows::mail(row),
        None => Err(rusqlite::Error::QueryReturnedNoRows.into()),
    }
}

/// How SQLite answers the queries of a claim.
#[cfg(test)]
pub(super) fn plans(connection: &Connection) -> Result<Vec<(String, String)>> {
    let queries = [DUE, AHEAD, RESTING, SUSPECTS];
    queries.into_iter().map(|query| Ok((query.to_owned(), plan(connection, query)?))).collect()
}

/// How SQLite answers a query.
#[cfg(test)]
pub(super) fn plan(connection: &Connection, query: &str) -> Result<String> {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {query}"))?;
    let count = statement.parameter_count();
    let steps = statement.query_map(rusqlite::params_from_iter(vec![0_i64; count]), |row| row.get::<_, String>(3))?;
    Ok(steps.collect::<rusqlite::Result<Vec<_>>>()?.join("\n"))
}
