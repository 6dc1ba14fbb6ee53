//! The record of attempts: begun, added to, ended.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use super::super::rules::{self, entries_of, lines_within, octets_of};
use super::super::{AttemptId, Claim, Result};
use super::transaction::Transaction;
use super::{groups, rows};
use crate::mail::{DialogueEntry, Planned, Recorded, Stage, TlsFacts};

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
    let (id, now) = (tx.next_number()?, tx.millis());
    tx.prepare_cached(
        "INSERT INTO attempt (id, mail, sender, number, instance, run, started, planned) \
         SELECT ?4, key, sender, records, instance, run, ?2, ?3 FROM mail WHERE id = ?1",
    )?
    .execute(params![mail, now, plan, id])?;
    tx.prepare_cached("INSERT INTO attempt_time (tens, first) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute([tens_of(now), id])?;
    Ok(AttemptId(id))
}

/// The ten seconds since 1970 in which a time lies.
pub(super) fn tens_of(millis: i64) -> i64 {
    millis.div_euclid(10_000)
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
    let ids = recipients_of(attempt);
    let last: Option<i64> = tx
        .prepare_cached("SELECT max(id) FROM attempt_recipient WHERE id BETWEEN ?1 AND ?2")?
        .query_row([*ids.start(), *ids.end()], |row| row.get(0))?;
    let first = last.map_or(*ids.start(), |last| last + 1);
    let mut insert = tx.prepare_cached(
        "INSERT INTO attempt_recipient (id, recipient, outcome, code, next_hop, cause, record) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for (id, outcome) in (first..).zip(outcomes) {
        insert.execute(params![
            id,
            outcome.recipient.mailbox(),
            outcome.outcome.to_string(),
            outcome.code,
            outcome.next_hop,
            groups::cause_of(tx, outcome)?,
            rows::to_json(&Record::of(outcome))?,
        ])?;
        tx.count(outcome);
    }
    Ok(last.is_none())
}

/// The numbers of an attempt's recipients: see the table `attempt_recipient`.
pub(super) fn recipients_of(attempt: AttemptId) -> RangeInclusive<i64> {
    attempt.0 << 20..=attempt.0 << 20 | 0xf_ffff
}

/// Those of `attempt` in SQL.
pub(super) const IN_ATTEMPT: &str = "attempt_recipient.id BETWEEN attempt.id << 20 AND (attempt.id << 20 | 1048575)";

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
    let (entries, cut): (String, bool) = tx
        .prepare_cached("SELECT entries, cut FROM dialogue WHERE attempt = ?1")?
        .query_row([attempt.0], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if cut {
        return Ok(());
    }
    let used: usize = entries_of(&entries)?.iter().map(octets_of).sum();
    let (lines, cut) = lines_within(dialogue, limit.saturating_sub(used))?;
    tx.prepare_cached("UPDATE dialogue SET entries = entries || ?2, cut = ?3 WHERE attempt = ?1")?
        .execute(params![attempt.0, lines, cut])?;
    Ok(())
}

/// The outcomes recorded for an attempt so far.
pub(super) fn outcomes(connection: &Connection, attempt: AttemptId) -> Result<Vec<Recorded>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {RECORDED_COLUMNS} FROM attempt_recipient WHERE id BETWEEN ?1 AND ?2 ORDER BY id"
    ))?;
    let ids = recipients_of(attempt);
    let (mut found, mut outcomes) = (statement.query([ids.start(), ids.end()])?, Vec::new());
    while let Some(row) = found.next()? {
        outcomes.push(recorded(row)?);
    }
    Ok(outcomes)
}

/// The columns of [`recorded`], in order.
pub(super) const RECORDED_COLUMNS: &str = "recipient, outcome, code, next_hop, record";

/// Where those behind them stand.
pub(super) const BEHIND_RECORDED_COLUMNS: usize = 5;

/// Reads a row of [`RECORDED_COLUMNS`].
pub(super) fn recorded(row: &Row<'_>) -> Result<Recorded> {
    let record: Record<'_> = rows::from_json(row.get_ref(4)?.as_str().map_err(rusqlite::Error::from)?)?;
    let written = match &record.recipient {
        Some(recipient) => recipient.to_string(),
        None => row.get(0)?,
    };
    Ok(Recorded {
        recipient: rows::address(&written)?,
        outcome: rows::word(&row.get::<_, String>(1)?)?,
        code: row.get(2)?,
        next_hop: row.get(3)?,
        enhanced: record.enhanced.map(Cow::into_owned),
        reply: record.reply.map(Cow::into_owned),
        stage: record.stage,
        host: record.host.map(Cow::into_owned),
        address: record.address,
        port: record.port,
        local_address: record.local_address.map(Cow::into_owned),
        tls: record.tls.map(Cow::into_owned),
        notes: record.notes.into_owned(),
        cause: record.cause.map(Cow::into_owned),
        in_doubt: record.in_doubt,
        dsn_handed_on: record.dsn_handed_on,
        time: rows::time(record.at),
        duration: record.duration,
    })
}

/// What the other columns do not have of an outcome. What is not there takes no room.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    /// As it was written, where that is not what the column has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recipient: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    enhanced: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reply: Option<Cow<'a, str>>,
    stage: Stage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    local_address: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls: Option<Cow<'a, TlsFacts>>,
    #[serde(default, skip_serializing_if = "is_empty")]
    notes: Cow<'a, [String]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    in_doubt: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    dsn_handed_on: bool,
    /// Milliseconds since 1970.
    at: i64,
    duration: f64,
}

fn is_empty(notes: &[String]) -> bool {
    notes.is_empty()
}

impl<'a> Record<'a> {
    fn of(outcome: &'a Recorded) -> Self {
        let written = outcome.recipient.to_string();
        let text = |text: &'a Option<String>| text.as_deref().map(Cow::Borrowed);
        Self {
            recipient: (written != outcome.recipient.mailbox()).then_some(Cow::Owned(written)),
            enhanced: text(&outcome.enhanced),
            reply: text(&outcome.reply),
            stage: outcome.stage,
            host: text(&outcome.host),
            address: outcome.address,
            port: outcome.port,
            local_address: text(&outcome.local_address),
            tls: outcome.tls.as_ref().map(Cow::Borrowed),
            notes: Cow::Borrowed(&outcome.notes),
            cause: text(&outcome.cause),
            in_doubt: outcome.in_doubt,
            dsn_handed_on: outcome.dsn_handed_on,
            at: outcome.time.timestamp_millis(),
            duration: outcome.duration,
        }
    }
}
