//! The record of attempts: begun, added to, ended.

use rusqlite::{Connection, params};

use super::super::rules::{self, lines_within};
use super::super::{AttemptId, Claim, Result};
use super::transaction::Transaction;
use super::{groups, rows};
use crate::mail::{DialogueEntry, Planned, Recorded};

/// Opens the attempt, which is with the next hops of `plan`.
pub(super) fn begin(tx: &Transaction<'_>, claim: &Claim, plan: &[Planned]) -> Result<AttemptId> {
    open(tx, claim.mail, Some(&lines_of(plan)?))
}

fn lines_of(plan: &[Planned]) -> Result<String> {
    let mut lines = String::new();
    for hop in plan {
        lines += &rows::to_json(hop)?;
        lines.push('\n');
    }
    Ok(lines)
}

/// Notes with whom else an open attempt is.
pub(super) fn extend(tx: &Transaction<'_>, attempt: AttemptId, plan: &[Planned]) -> Result<()> {
    tx.prepare_cached("UPDATE attempt SET planned = coalesce(planned, '') || ?2 WHERE id = ?1")?
        .execute(params![attempt.0, lines_of(plan)?])?;
    Ok(())
}

/// Whom an open attempt is with.
pub(super) fn planned(connection: &Connection, attempt: AttemptId) -> Result<Vec<Planned>> {
    let lines: Option<String> = connection
        .prepare_cached("SELECT planned FROM attempt WHERE id = ?1")?
        .query_row([attempt.0], |row| row.get(0))?;
    lines.as_deref().unwrap_or_default().lines().map(rows::from_json).collect()
}

/// Adds an open record to the mail's, whose row counts it already.
pub(super) fn open(tx: &Transaction<'_>, mail: i64, plan: Option<&str>) -> Result<AttemptId> {
    tx.prepare_cached(
        "INSERT INTO attempt (mail, sender, number, instance, run, started, planned) \
         SELECT key, sender, records, instance, run, ?2, ?3 FROM mail WHERE id = ?1",
    )?
    .execute(params![mail, tx.millis(), plan])?;
    Ok(AttemptId(tx.last_insert_rowid()))
}

/// Ends a record: in doubt where one of its outcomes is, else settled. `all` are its outcomes,
/// where they are at hand.
pub(super) fn finish(tx: &Transaction<'_>, attempt: AttemptId, counted: bool, all: Option<&[Recorded]>) -> Result<()> {
    let state = rows::state(match all {
        Some(all) => rules::state_of(all),
        None => rules::state_of(&outcomes(tx, attempt)?),
    });
    tx.prepare_cached("UPDATE attempt SET finished = ?2, state = ?3, counted = ?4, planned = NULL WHERE id = ?1")?
        .execute(params![attempt.0, tx.millis(), state, counted])?;
    Ok(())
}

/// Adds outcomes; whether they are the first.
pub(super) fn record(tx: &Transaction<'_>, attempt: AttemptId, outcomes: &[Recorded]) -> Result<bool> {
    if outcomes.is_empty() {
        return Ok(false);
    }
    let first: i64 = tx
        .prepare_cached("SELECT coalesce(max(position) + 1, 0) FROM attempt_recipient WHERE attempt = ?1")?
        .query_row([attempt.0], |row| row.get(0))?;
    let mut insert = tx.prepare_cached(
        "INSERT INTO attempt_recipient (attempt, position, recipient, outcome, code, next_hop, cause, record) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for (position, outcome) in (first..).zip(outcomes) {
        let record = rows::to_json(outcome)?;
        insert.execute(params![
            attempt.0,
            position,
            outcome.recipient.mailbox(),
            outcome.outcome.to_string(),
            outcome.code,
            outcome.next_hop,
            groups::cause_of(tx, outcome)?,
            record,
        ])?;
        tx.count(outcome, &record);
    }
    Ok(first == 0)
}

/// Adds what was said, up to `limit` octets for the attempt.
pub(super) fn append_dialogue(
    tx: &Transaction<'_>,
    attempt: AttemptId,
    dialogue: &[DialogueEntry],
    limit: usize,
) -> Result<()> {
    if dialogue.is_empty() {
        return Ok(());
    }
    let (lines, cut) = lines_within(dialogue, limit)?;
    let first = tx
        .prepare_cached("INSERT INTO dialogue (attempt, entries, cut) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
        .execute(params![attempt.0, lines, cut])?;
    if first == 1 {
        return Ok(());
    }
    let (used, cut): (usize, bool) = tx
        .prepare_cached("SELECT octet_length(entries), cut FROM dialogue WHERE attempt = ?1")?
        .query_row([attempt.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if cut {
        return Ok(());
    }
    let (lines, cut) = lines_within(dialogue, limit.saturating_sub(used))?;
    tx.prepare_cached("UPDATE dialogue SET entries = entries || ?2, cut = ?3 WHERE attempt = ?1")?
        .execute(params![attempt.0, lines, cut])?;
    Ok(())
}

/// The outcomes recorded for an attempt so far.
pub(super) fn outcomes(connection: &Connection, attempt: AttemptId) -> Result<Vec<Recorded>> {
    let mut statement =
        connection.prepare_cached("SELECT record FROM attempt_recipient WHERE attempt = ?1 ORDER BY position")?;
    let records = statement.query_map([attempt.0], |row| row.get::<_, String>(0))?;
    records.map(|record| rows::from_json(&record?)).collect()
}
