//! The record of attempts: begun, added to, read.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, Row, params};

use super::super::{AttemptFilter, AttemptId, Claim, Result, Time};
use super::{claims, rows};
use crate::mail::{
    self, Attempt, AttemptState, Attributes, Dialogue, DialogueEntry, Mail, MailKey, Planned, Recorded, ReversePath,
    Side,
};

/// Opens the attempt and counts it, with the attributes as the matchers left them.
pub(super) fn begin(
    connection: &Connection,
    claim: &Claim,
    attributes: &Attributes,
    plan: &[Planned],
    now: Time,
) -> Result<AttemptId> {
    claims::verify(connection, claim)?;
    connection
        .prepare_cached("UPDATE mail SET attributes = ?2, attempts = attempts + 1 WHERE id = ?1")?
        .execute(params![claim.mail, rows::to_json(attributes)?])?;
    let attempt = open(connection, claim.mail, now)?;
    add_planned(connection, attempt, plan)?;
    Ok(attempt)
}

/// Writes the attributes of a mail whose attempt is open, and whom else it is with.
pub(super) fn extend(
    connection: &Connection,
    claim: &Claim,
    attempt: AttemptId,
    attributes: &Attributes,
    plan: &[Planned],
) -> Result<()> {
    claims::verify(connection, claim)?;
    connection
        .prepare_cached("UPDATE mail SET attributes = ?2 WHERE id = ?1")?
        .execute(params![claim.mail, rows::to_json(attributes)?])?;
    add_planned(connection, attempt, plan)
}

fn add_planned(connection: &Connection, attempt: AttemptId, plan: &[Planned]) -> Result<()> {
    let mut lines = String::new();
    for hop in plan {
        lines += &rows::to_json(hop)?;
        lines.push('\n');
    }
    connection
        .prepare_cached("UPDATE attempt SET planned = coalesce(planned, '') || ?2 WHERE id = ?1")?
        .execute(params![attempt.0, lines])?;
    Ok(())
}

/// Whom an open attempt is with.
///
/// `None` where nothing about that was stored: an earlier release began it.
pub(super) fn planned(connection: &Connection, attempt: AttemptId) -> Result<Option<Vec<Planned>>> {
    let lines: Option<String> = connection
        .prepare_cached("SELECT planned FROM attempt WHERE id = ?1")?
        .query_row([attempt.0], |row| row.get(0))?;
    lines.map(|lines| lines.lines().map(rows::from_json).collect()).transpose()
}

/// Adds an open record to the mail's.
pub(super) fn open(connection: &Connection, mail: i64, now: Time) -> Result<AttemptId> {
    connection.prepare_cached("UPDATE mail SET records = records + 1 WHERE id = ?1")?.execute([mail])?;
    connection
        .prepare_cached(
            "INSERT INTO attempt (mail, sender, number, instance, run, started) \
             SELECT key, sender, records, instance, run, ?2 FROM mail WHERE id = ?1",
        )?
        .execute(params![mail, now.timestamp_millis()])?;
    Ok(AttemptId(connection.last_insert_rowid()))
}

/// Ends a record: in doubt where one of its outcomes is, else settled.
pub(super) fn finish(connection: &Connection, attempt: AttemptId, counted: bool, now: Time) -> Result<()> {
    let in_doubt = outcomes(connection, attempt)?.iter().any(|recorded| recorded.in_doubt);
    let state = if in_doubt { 2 } else { 1 };
    connection
        .prepare_cached("UPDATE attempt SET finished = ?2, state = ?3, counted = ?4, planned = NULL WHERE id = ?1")?
        .execute(params![attempt.0, now.timestamp_millis(), state, counted])?;
    Ok(())
}

/// Adds outcomes and what was said.
pub(super) fn record(
    connection: &Connection,
    attempt: AttemptId,
    outcomes: &[Recorded],
    dialogue: &[DialogueEntry],
    dialogue_limit: usize,
) -> Result<()> {
    let first: i64 = connection
        .prepare_cached("SELECT count(*) FROM attempt_recipient WHERE attempt = ?1")?
        .query_row([attempt.0], |row| row.get(0))?;
    for (position, outcome) in (first..).zip(outcomes) {
        connection
            .prepare_cached(
                "INSERT INTO attempt_recipient (attempt, position, recipient, outcome, code, next_hop, record) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                attempt.0,
                position,
                outcome.recipient.mailbox(),
                outcome.outcome.to_string(),
                outcome.code,
                outcome.next_hop,
                rows::to_json(outcome)?,
            ])?;
    }
    append_dialogue(connection, attempt, dialogue, dialogue_limit)
}

/// How a dialogue that was cut ends.
const CUT: &str = "[dialogue cut here: it is longer than audit.maxDialogue]";

fn append_dialogue(
    connection: &Connection,
    attempt: AttemptId,
    dialogue: &[DialogueEntry],
    limit: usize,
) -> Result<()> {
    if dialogue.is_empty() {
        return Ok(());
    }
    connection
        .prepare_cached("INSERT INTO dialogue (attempt) VALUES (?1) ON CONFLICT (attempt) DO NOTHING")?
        .execute([attempt.0])?;
    let (used, cut): (usize, bool) = connection
        .prepare_cached("SELECT octet_length(entries), cut FROM dialogue WHERE attempt = ?1")?
        .query_row([attempt.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if cut {
        return Ok(());
    }
    let (lines, cut) = lines_within(dialogue, limit.saturating_sub(used))?;
    connection
        .prepare_cached("UPDATE dialogue SET entries = entries || ?2, cut = ?3 WHERE attempt = ?1")?
        .execute(params![attempt.0, lines, cut])?;
    Ok(())
}

/// The entries as lines while they fit, then the mark; whether it was needed.
fn lines_within(dialogue: &[DialogueEntry], room: usize) -> Result<(String, bool)> {
    let mut lines = String::new();
    for entry in dialogue {
        let line = rows::to_json(entry)?;
        if lines.len() + line.len() >= room {
            let mark = event(entry.time, CUT.to_owned());
            return Ok((lines + &rows::to_json(&mark)? + "\n", true));
        }
        lines.push_str(&line);
        lines.push('\n');
    }
    Ok((lines, false))
}

/// The outcomes recorded for an attempt so far.
pub(super) fn outcomes(connection: &Connection, attempt: AttemptId) -> Result<Vec<Recorded>> {
    let mut statement =
        connection.prepare_cached("SELECT record FROM attempt_recipient WHERE attempt = ?1 ORDER BY position")?;
    let records = statement.query_map([attempt.0], |row| row.get::<_, String>(0))?;
    records.map(|record| rows::from_json(&record?)).collect()
}

fn dialogue(connection: &Connection, attempt: AttemptId) -> Result<Dialogue> {
    let mut statement = connection.prepare_cached("SELECT entries FROM dialogue WHERE attempt = ?1")?;
    let mut found = statement.query([attempt.0])?;
    let Some(row) = found.next()? else { return Ok(Vec::new()) };
    let entries: Result<_> = row.get::<_, String>(0)?.lines().map(rows::from_json).collect();
    Ok(in_order(entries?))
}

/// The entries as they followed each other: next hops that were tried at the same time came
/// to the record one after the other. Each connection begins with an event that names the
/// host; where one goes on behind another, an event says so.
fn in_order(mut entries: Dialogue) -> Dialogue {
    entries.sort_by_key(|entry| (entry.text == CUT, entry.time));
    let (mut met, mut last) = (HashSet::new(), None);
    let mut ordered = Vec::with_capacity(entries.len());
    for mut entry in entries {
        if let Some(peer) = entry.peer.take() {
            if !met.insert(peer) && last != Some(peer) {
                ordered.push(event(entry.time, format!("[with {peer} again]")));
            }
            last = Some(peer);
        }
        ordered.push(entry);
    }
    ordered
}

fn event(time: DateTime<Utc>, text: String) -> DialogueEntry {
    DialogueEntry { time, from: Side::Client, text, peer: None }
}

const ATTEMPT_COLUMNS: &str = "attempt.id, attempt.mail, attempt.sender, attempt.number, attempt.started, attempt.finished, attempt.state, attempt.counted";

/// Reads a row of [`ATTEMPT_COLUMNS`] with all that belongs to it.
fn attempt(connection: &Connection, row: &Row<'_>) -> Result<(AttemptId, Attempt)> {
    let id = AttemptId(row.get(0)?);
    let key: MailKey = rows::key(&row.get::<_, String>(1)?)?;
    let sender = match row.get::<_, Option<String>>(2)? {
        None => ReversePath::Null,
        Some(text) => rows::from_json(&rows::to_json(&text)?)?,
    };
    let attempt = Attempt {
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
    };
    Ok((id, attempt))
}

/// Attempts of a mail and of those it was split off from, for the recipients it has.
pub(super) fn of_mail(connection: &Connection, mail: &Mail) -> Result<Vec<Attempt>> {
    let sql = format!(
        "SELECT {ATTEMPT_COLUMNS} FROM attempt WHERE mail = ?1 OR id IN (SELECT shared.id FROM lineage \
         JOIN attempt shared ON shared.mail = lineage.key AND shared.id <= lineage.upto \
         WHERE lineage.mail = (SELECT id FROM mail WHERE key = ?1)) ORDER BY id"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query([mail.key.as_str()])?;
    let owed: HashSet<String> = mail.envelope.recipients.iter().map(crate::mail::Address::mailbox).collect();
    let mut attempts = Vec::new();
    while let Some(row) = found.next()? {
        let (_, mut attempt) = attempt(connection, row)?;
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
pub(super) fn last_outcomes(connection: &Connection, mail: &Mail) -> Result<Vec<Recorded>> {
    let owed: HashMap<String, usize> =
        mail.envelope.recipients.iter().enumerate().map(|(place, one)| (one.mailbox(), place)).collect();
    let mut last: Vec<Option<Recorded>> = vec![None; owed.len()];
    let mut statement = connection.prepare_cached(
        "SELECT id FROM attempt WHERE mail = ?1 OR id IN (SELECT shared.id FROM lineage \
         JOIN attempt shared ON shared.mail = lineage.key AND shared.id <= lineage.upto \
         WHERE lineage.mail = (SELECT id FROM mail WHERE key = ?1)) ORDER BY id DESC",
    )?;
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
    Ok(last.into_iter().flatten().collect())
}

/// A page of all attempts.
pub(super) fn page(
    connection: &Connection,
    filter: &AttemptFilter,
    after: Option<AttemptId>,
    limit: usize,
) -> Result<Vec<(AttemptId, Attempt)>> {
    let sql = format!(
        "SELECT {ATTEMPT_COLUMNS} FROM attempt WHERE id > ?1 AND (?2 IS NULL OR started >= ?2) \
         AND ((?3 IS NULL AND ?4 IS NULL) OR EXISTS (SELECT 1 FROM attempt_recipient WHERE attempt = attempt.id \
         AND (?3 IS NULL OR is_named_by(recipient, ?3)) AND (?4 IS NULL OR outcome = ?4))) ORDER BY id LIMIT ?5"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let first = match after {
        Some(id) => id.0,
        None => first_since(connection, filter.since)?,
    };
    let mut found = statement.query(params![
        first,
        filter.since.map(|since| since.timestamp_millis()),
        filter.recipient.as_deref().map(mail::folded),
        filter.outcome.map(|outcome| outcome.to_string()),
        i64::try_from(limit).unwrap_or(i64::MAX),
    ])?;
    let mut attempts = Vec::new();
    while let Some(row) = found.next()? {
        attempts.push(attempt(connection, row)?);
    }
    Ok(attempts)
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
