//! The record of attempts, read.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension, Row, ToSql};

use super::super::rules::{entries_of, in_order};
use super::super::{AttemptFilter, AttemptId, Lineage, Page, Result, Span, Time};
use super::groups::LastCause;
use super::pager::Pager;
use super::records::{
    BEHIND_RECORDED_COLUMNS, IN_ATTEMPT, RECORDED_COLUMNS, outcomes, recipients_of, recorded, tens_of,
};
use super::rows;
use crate::mail::{self, Address, Attempt, AttemptState, Dialogue, Mail, MailKey, Recorded, ReversePath};

fn dialogue(connection: &Connection, attempt: AttemptId) -> Result<Dialogue> {
    let mut statement = connection.prepare_cached("SELECT entries FROM dialogue WHERE attempt = ?1")?;
    let mut found = statement.query([attempt.0])?;
    let Some(row) = found.next()? else { return Ok(Vec::new()) };
    Ok(in_order(entries_of(&row.get::<_, String>(0)?)?))
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

/// Numbers of the attempts of the mail ?1 that are under the keys of mails it was split off from,
/// and of mails those were split off from: there or gone.
const SHARED: &str = "WITH RECURSIVE line (key, upto) AS (SELECT origin, upto FROM lineage WHERE key = ?1 \
     UNION ALL SELECT lineage.origin, lineage.upto FROM line CROSS JOIN lineage ON lineage.key = line.key) \
     SELECT shared.id FROM line CROSS JOIN attempt shared ON shared.mail = line.key AND shared.id < line.upto";

/// The attempts of a mail, and those of the mails it was split off from.
fn of_mail_sql() -> String {
    format!("SELECT {ATTEMPT_COLUMNS} FROM attempt WHERE mail = ?1 OR id IN ({SHARED}) ORDER BY id")
}

fn mailboxes(recipients: &[Address]) -> HashSet<String> {
    recipients.iter().map(Address::mailbox).collect()
}

/// Attempts of a mail and of those it was split off from, for the recipients it has.
pub(super) fn of_mail(connection: &Connection, mail: &Mail) -> Result<Vec<Attempt>> {
    let mut statement = connection.prepare_cached(&of_mail_sql())?;
    let mut found = statement.query([mail.key.as_str()])?;
    let owed = mailboxes(&mail.envelope.recipients);
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

/// What a mail was split off from, and what was split off from it.
pub(super) fn lineage_of(connection: &Connection, key: &MailKey) -> Result<Lineage> {
    let keys = |sql: &str| -> Result<Vec<MailKey>> {
        let mut statement = connection.prepare_cached(sql)?;
        let keys = statement.query_map([key.as_str()], |row| row.get::<_, String>(0))?;
        keys.take(Lineage::PARTS).map(|key| rows::key(&key?)).collect()
    };
    Ok(Lineage {
        origin: keys("SELECT origin FROM lineage WHERE key = ?1")?.pop(),
        parts: keys("SELECT key FROM lineage WHERE origin = ?1")?,
    })
}

/// A mail's own attempts, the last first.
const OWN_BACK: &str = "SELECT id FROM attempt WHERE mail = ?1 ORDER BY id DESC";

/// Those of the mails that it was split off from: all of them before its own.
fn shared_back() -> String {
    format!("{SHARED} ORDER BY shared.id DESC")
}

/// Looks at the attempts of a mail from the last back, as long as `goes_on` says so.
fn look_back(connection: &Connection, key: &MailKey, mut goes_on: impl FnMut(AttemptId) -> Result<bool>) -> Result<()> {
    for sql in [OWN_BACK, &shared_back()] {
        let mut statement = connection.prepare_cached(sql)?;
        let mut attempts = statement.query([key.as_str()])?;
        while let Some(row) = attempts.next()? {
            if !goes_on(AttemptId(row.get(0)?))? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The recipients of a mail, with their places.
fn places(mail: &Mail) -> HashMap<String, usize> {
    mail.envelope.recipients.iter().enumerate().map(|(place, one)| (one.mailbox(), place)).collect()
}

/// The last outcome of each recipient of a mail, in their order, but those that tell nothing of him
/// ([`Recorded::is_not_tried`]). Attempts are read from the
/// last back, until every recipient has one.
pub(super) fn last_outcomes(connection: &Connection, mail: &Mail) -> Result<Vec<Option<Recorded>>> {
    let owed = places(mail);
    let mut last: Vec<Option<Recorded>> = vec![None; mail.envelope.recipients.len()];
    look_back(connection, &mail.key, |attempt| {
        for recorded in outcomes(connection, attempt)?.into_iter().filter(|one| !one.is_not_tried()) {
            if let Some(&place) = owed.get(&recorded.recipient.mailbox()) {
                last[place].get_or_insert(recorded);
            }
        }
        Ok(last.iter().any(Option::is_none))
    })?;
    Ok(last)
}

/// The cause of the same last outcome of each recipient of a mail, in their order.
pub(super) fn last_causes(connection: &Connection, mail: &Mail) -> Result<Vec<LastCause>> {
    let owed = places(mail);
    let mut last: Vec<Option<LastCause>> = mail.envelope.recipients.iter().map(|_| None).collect();
    let mut of_attempt = connection.prepare_cached(&format!(
        "SELECT {RECORDED_COLUMNS}, cause, cause IS NOT NULL AND NOT EXISTS (SELECT 1 FROM cause WHERE cause.id = \
         attempt_recipient.cause) FROM attempt_recipient WHERE id BETWEEN ?1 AND ?2 \
         AND (cause IS NOT NULL OR outcome = 'delivered') ORDER BY id",
    ))?;
    look_back(connection, &mail.key, |attempt| {
        let ids = recipients_of(attempt);
        let mut outcomes = of_attempt.query([ids.start(), ids.end()])?;
        while let Some(row) = outcomes.next()? {
            if let Some(&place) = owed.get(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)
                && last[place].is_none()
            {
                last[place] = Some(last_cause(row)?);
            }
        }
        Ok(last.iter().any(Option::is_none))
    })?;
    Ok(last.into_iter().map(|last| last.unwrap_or(LastCause::NoAttempt)).collect())
}

fn last_cause(row: &Row<'_>) -> Result<LastCause> {
    if row.get(BEHIND_RECORDED_COLUMNS + 1)? {
        return Ok(LastCause::Lost(Box::new(recorded(row)?)));
    }
    Ok(LastCause::Known(row.get(BEHIND_RECORDED_COLUMNS)?))
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
    let own = filter.key.as_ref().map(|key| Own::of(connection, key)).transpose()?;
    let mut pager = Pager::new(span);
    while let Some(row) = found.next()?
        && pager.goes_on()
    {
        pager.looked(row.get(0)?, row.get(4)?);
        if row.get(8)? {
            let mut attempt = attempt(connection, row)?;
            if own.as_ref().is_none_or(|own| own.keeps(&mut attempt, filter)) {
                pager.found(attempt);
            }
        }
    }
    Ok(pager.page())
}

/// The mail whose attempts are asked for, there or gone.
struct Own<'a> {
    key: &'a MailKey,
    /// Whom it had when it was split off, if it was.
    recipients: HashSet<String>,
}

impl<'a> Own<'a> {
    fn of(connection: &Connection, key: &'a MailKey) -> Result<Self> {
        let recipients: Option<String> = connection
            .prepare_cached("SELECT recipients FROM lineage WHERE key = ?1")?
            .query_row([key.as_str()], |row| row.get(0))
            .optional()?;
        let recipients = recipients.as_deref().map_or(Ok(Vec::new()), rows::from_json::<Vec<Address>>)?;
        Ok(Self { key, recipients: mailboxes(&recipients) })
    }

    /// Leaves of an attempt before it was split off what concerns it; whether anything that is
    /// meant does.
    fn keeps(&self, attempt: &mut Attempt, filter: &AttemptFilter) -> bool {
        if attempt.key == *self.key {
            return true;
        }
        attempt.recipients.retain(|recorded| self.recipients.contains(&recorded.recipient.mailbox()));
        attempt.recipients.iter().any(|recorded| filter.means(recorded))
    }
}

/// The query of a page; behind lower and upper bound its values follow.
fn page_sql(filter: &AttemptFilter, newest_first: bool, values: &mut Vec<Box<dyn ToSql>>) -> String {
    let mut rows_meant = "id > ?1 AND id < ?2".to_owned();
    if let Some(key) = &filter.key {
        values.push(Box::new(key.to_string()));
        rows_meant.push_str(&format!(" AND (mail = ?3 OR id IN ({}))", SHARED.replace("?1", "?3")));
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
        of_mail_sql(),
        OWN_BACK.to_owned(),
        shared_back(),
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
            "EXISTS (SELECT 1 FROM attempt_recipient WHERE {IN_ATTEMPT} AND {})",
            of_recipient.join(" AND ")
        ));
    }
    conditions.join(" AND ")
}

/// Just below the first attempt of that time, or of the ten seconds around it, so that a page does
/// not read through all before it. A clock that was set back may have given a later attempt an
/// earlier time.
fn first_since(connection: &Connection, since: Option<Time>) -> Result<i64> {
    let Some(since) = since else { return Ok(0) };
    let first: Option<i64> = connection
        .prepare_cached("SELECT min(first) FROM attempt_time WHERE tens >= ?1")?
        .query_row([tens_of(since.timestamp_millis())], |row| row.get(0))?;
    // Where there is none, nothing is to be read either.
    Ok(first.map_or(i64::MAX, |id| id - 1))
}
