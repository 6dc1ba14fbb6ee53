//! The record of attempts, read.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, Row, ToSql};

use super::super::rules::in_order;
use super::super::{AttemptFilter, AttemptId, Page, Result, Span, Time};
use super::groups::LastCause;
use super::pager::Pager;
use super::records::outcomes;
use super::rows;
use crate::mail::{self, Attempt, AttemptState, Dialogue, Mail, MailKey, Recorded, ReversePath};

fn dialogue(connection: &Connection, attempt: AttemptId) -> Result<Dialogue> {
    let mut statement = connection.prepare_cached("SELECT entries FROM dialogue WHERE attempt = ?1")?;
    let mut found = statement.query([attempt.0])?;
    let Some(row) = found.next()? else { return Ok(Vec::new()) };
    let entries: Result<_> = row.get::<_, String>(0)?.lines().map(rows::from_json).collect();
    Ok(in_order(entries?))
}

const ATTEMPT_COLUMNS: &str = "attempt.id, attempt.mail, attempt.sender, attempt.number, attempt.started, \
     attempt.finished, attempt.state, attempt.counted";

/// Reads a row of [`ATTEMPT_COLUMNS`] with all that belongs to it.
fn attempt(connection: &Connection, row: &Row<'_>) -> Result<Attempt> {
    let id = AttemptId(row.get(0)?);
    let key: MailKey = rows::key(&row.get::<_, String>(1)?)?;
    let sender = match row.get::<_, Option<String>>(2)? {
        None => ReversePath::Null,
        Some(text) => rows::from_json(&rows::to_json(&text)?)?,
    };
    Ok(Attempt {
        number: row.get(3)?,
        started: rows::time(row.get(4)?),
        finished: row.get::<_, Option<i64>>(5)?.map(rows::time),
        state: match row.get::<_, i64>(6)? {
            0 => AttemptState::Open,
            1 => AttemptState::Settled,
            _ => AttemptState::InDoubt,
        },
        counted: row.get(7)?,
        recipients: outcomes(connection, id)?,
        dialogue: dialogue(connection, id)?,
        key,
        sender,
    })
}

/// The attempts of a mail, and those of the mails it was split off from.
const OF_MAIL: &str = "FROM attempt WHERE mail = ?1 OR id IN (SELECT shared.id FROM lineage \
     JOIN attempt shared ON shared.mail = lineage.key AND shared.id <= lineage.upto \
     WHERE lineage.mail = (SELECT id FROM mail WHERE key = ?1)) ORDER BY id";

/// Attempts of a mail and of those it was split off from, for the recipients it has.
pub(super) fn of_mail(connection: &Connection, mail: &Mail) -> Result<Vec<Attempt>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {ATTEMPT_COLUMNS} {OF_MAIL}"))?;
    let mut found = statement.query([mail.key.as_str()])?;
    let owed: HashSet<String> = mail.envelope.recipients.iter().map(crate::mail::Address::mailbox).collect();
    let mut attempts = Vec::new();
    while let Some(row) = found.next()? {
        let mut attempt = attempt(connection, row)?;
        attempt.recipients.retain(|recorded| owed.contains(&recorded.recipient.mailbox()));
        // One that was for others alone, before this mail was split off.
        if attempt.key == mail.key || !attempt.recipients.is_empty() {
            attempts.push(attempt);
        }
    }
    Ok(attempts)
}

/// The last outcome of each recipient of a mail, in their order. Attempts are read from the
/// last back, until every recipient has one.
pub(super) fn last_outcomes(connection: &Connection, mail: &Mail) -> Result<Vec<Option<Recorded>>> {
    let recipients = &mail.envelope.recipients;
    let owed: HashMap<String, usize> =
        recipients.iter().enumerate().map(|(place, one)| (one.mailbox(), place)).collect();
    let mut last: Vec<Option<Recorded>> = vec![None; recipients.len()];
    let mut statement = connection.prepare_cached(&format!("SELECT id {OF_MAIL} DESC"))?;
    let mut attempts = statement.query([mail.key.as_str()])?;
    while let Some(row) = attempts.next()?
        && last.iter().any(Option::is_none)
    {
        for recorded in outcomes(connection, AttemptId(row.get(0)?))? {
            if let Some(&place) = owed.get(&recorded.recipient.mailbox()) {
                last[place].get_or_insert(recorded);
            }
        }
    }
    Ok(last)
}

/// The cause of the last outcome of each recipient of a mail, in their order.
pub(super) fn last_causes(connection: &Connection, mail: &Mail) -> Result<Vec<LastCause>> {
    let recipients = &mail.envelope.recipients;
    let owed: HashMap<String, usize> =
        recipients.iter().enumerate().map(|(place, one)| (one.mailbox(), place)).collect();
    let mut last: Vec<Option<LastCause>> = recipients.iter().map(|_| None).collect();
    let mut statement = connection.prepare_cached(&format!("SELECT id {OF_MAIL} DESC"))?;
    let mut attempts = statement.query([mail.key.as_str()])?;
    let mut of_attempt = connection.prepare_cached(
        "SELECT recipient, cause, cause IS NOT NULL AND NOT EXISTS (SELECT 1 FROM cause WHERE cause.id = \
         attempt_recipient.cause), record FROM attempt_recipient WHERE attempt = ?1 ORDER BY position",
    )?;
    while let Some(row) = attempts.next()?
        && last.iter().any(Option::is_none)
    {
        let mut outcomes = of_attempt.query([row.get::<_, i64>(0)?])?;
        while let Some(row) = outcomes.next()? {
            if let Some(&place) = owed.get(&row.get::<_, String>(0)?)
                && last[place].is_none()
            {
                last[place] = Some(last_cause(row)?);
            }
        }
    }
    Ok(last.into_iter().map(|last| last.unwrap_or(LastCause::NoAttempt)).collect())
}

fn last_cause(row: &Row<'_>) -> Result<LastCause> {
    if row.get(2)? {
        return Ok(LastCause::Lost(Box::new(rows::from_json(&row.get::<_, String>(3)?)?)));
    }
    Ok(LastCause::Known(row.get(1)?))
}

/// A page of all attempts, by the order of their numbers.
pub(super) fn page(connection: &Connection, filter: &AttemptFilter, span: &Span) -> Result<Page<Attempt>> {
    let after = span.after.as_ref().map(rows::cursor).transpose()?;
    let (from, to) = match (after, span.newest_first) {
        (None, false) => (first_since(connection, filter.since)?, i64::MAX),
        (Some(after), false) => (after, i64::MAX),
        (after, true) => (first_since(connection, filter.since)?, after.unwrap_or(i64::MAX)),
    };
    let mut values: Vec<Box<dyn ToSql>> = vec![Box::new(from), Box::new(to)];
    let sql = page_sql(filter, span.newest_first, &mut values);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(rusqlite::params_from_iter(values.iter().map(|value| &**value)))?;
    let mut pager = Pager::new(span);
    while let Some(row) = found.next()?
        && pager.goes_on()
    {
        pager.looked(row.get(0)?, row.get(4)?);
        if row.get(8)? {
            pager.found(attempt(connection, row)?);
        }
    }
    Ok(pager.page())
}

/// The query of a page; behind lower and upper bound its values follow.
fn page_sql(filter: &AttemptFilter, newest_first: bool, values: &mut Vec<Box<dyn ToSql>>) -> String {
    let mut rows_meant = "id > ?1 AND id < ?2".to_owned();
    if let Some(key) = &filter.key {
        values.push(Box::new(key.to_string()));
        rows_meant.push_str(" AND mail = ?3");
    }
    let (matches, direction) = (matching(filter, values), if newest_first { "DESC" } else { "ASC" });
    format!("SELECT {ATTEMPT_COLUMNS}, {matches} FROM attempt WHERE {rows_meant} ORDER BY id {direction}")
}

/// The queries for the attempts of one mail, there or gone.
#[cfg(test)]
pub(super) fn queries_of_one_mail() -> Vec<String> {
    let filter = AttemptFilter { key: mail::MailKey::parse("K"), ..AttemptFilter::default() };
    vec![
        page_sql(&filter, false, &mut vec![Box::new(0), Box::new(0)]),
        format!("SELECT {ATTEMPT_COLUMNS} {OF_MAIL}"),
        format!("SELECT id {OF_MAIL} DESC"),
    ]
}

/// The filter as one condition.
fn matching(filter: &AttemptFilter, values: &mut Vec<Box<dyn ToSql>>) -> String {
    let mut bind = |value: Box<dyn ToSql>| {
        values.push(value);
        format!("?{}", values.len())
    };
    let mut conditions = vec!["1".to_owned()];
    if let Some(since) = filter.since {
        conditions.push(format!("started >= {}", bind(Box::new(since.timestamp_millis()))));
    }
    if let Some(until) = filter.until {
        conditions.push(format!("started < {}", bind(Box::new(until.timestamp_millis()))));
    }
    if let Some(sender) = &filter.sender {
        conditions.push(format!("is_named_by(coalesce(sender, '<>'), {})", bind(Box::new(mail::folded(sender)))));
    }
    // All of them of one recipient.
    let mut of_recipient = Vec::new();
    if let Some(recipient) = &filter.recipient {
        of_recipient.push(format!("is_named_by(recipient, {})", bind(Box::new(mail::folded(recipient)))));
    }
    if let Some(outcome) = filter.outcome {
        of_recipient.push(format!("outcome = {}", bind(Box::new(outcome.to_string()))));
    }
    if let Some(code) = filter.code {
        of_recipient.push(format!("code = {}", bind(Box::new(code))));
    }
    if let Some(next_hop) = &filter.next_hop {
        of_recipient.push(format!("next_hop = {}", bind(Box::new(next_hop.clone()))));
    }
    if !of_recipient.is_empty() {
        conditions.push(format!(
            "EXISTS (SELECT 1 FROM attempt_recipient WHERE attempt = attempt.id AND {})",
            of_recipient.join(" AND ")
        ));
    }
    conditions.join(" AND ")
}

/// Just below the first attempt of that time, so that a page does not read through all before
/// it. By the index of times, which SQLite would not choose: it would walk through all the older
/// ones. A clock that was set back may have given a later attempt an earlier time.
fn first_since(connection: &Connection, since: Option<Time>) -> Result<i64> {
    let Some(since) = since else { return Ok(0) };
    let first: Option<i64> = connection
        .prepare_cached("SELECT min(id) FROM attempt INDEXED BY attempt_started WHERE started >= ?1")?
        .query_row([since.timestamp_millis()], |row| row.get(0))?;
    // Where there is none, nothing is to be read either.
    Ok(first.map_or(i64::MAX, |id| id - 1))
}
