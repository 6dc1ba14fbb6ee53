//! Mails in hand: claimed, settled, released, and freed when their holder died.
//!
//! States stand in the SQL as literals: a bound state would let the planner leave the
//! partial indexes, and with them the promise that a claim does not depend on how much
//! is stored.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use tracing::error;

use super::super::{AttemptId, Claim, Claimed, Error, Reaped, Resting, Result, Settlement, Time, Trouble, Wanted};
use super::instance::{self, Liveness, next_number};
use super::{filing, records, rows, runs};
use crate::mail::{Address, Mail, MailKey, Outcome, Recorded, RepositoryPath};

/// A mail that a run still going took before is left to it.
const NOT_TAKEN: &str = "(run IS NULL OR run NOT IN (SELECT run.id FROM run WHERE run.finished IS NULL))";

/// Takes mails in hand.
pub(super) fn claim(connection: &Connection, wanted: &Wanted, instance: i64, now: Time) -> Result<Vec<Claimed>> {
    let repository = rows::place_id(connection, &wanted.from)?;
    let limit = i64::try_from(wanted.limit).unwrap_or(i64::MAX);
    let ids = if let Some(keys) = &wanted.only {
        of_keys(connection, keys, repository, wanted)?
    } else if wanted.suspects {
        in_order(connection, "mail_suspect", "suspect > 0", repository, wanted, limit)?
    } else if wanted.spacing.is_empty() {
        in_order(connection, "mail_resting", "suspect = 0", repository, wanted, limit)?
    } else {
        due(connection, repository, wanted, limit, now)?
    };
    let mut taken = Vec::with_capacity(ids.len());
    for id in ids {
        match by_id(connection, id) {
            Ok(row) => taken.push(take(connection, row, instance, wanted)?),
            Err(error) if error.is_unreadable() => set_aside(connection, id, &error, now)?,
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

/// Mails whatever their age, oldest first.
fn in_order(
    connection: &Connection,
    index: &str,
    condition: &str,
    repository: i64,
    wanted: &Wanted,
    limit: i64,
) -> Result<Vec<i64>> {
    let sql = format!(
        "SELECT id FROM mail INDEXED BY {index} WHERE claimed = 0 AND {condition} AND repository = ?1 AND seq <= ?2 \
         AND {NOT_TAKEN} ORDER BY seq LIMIT ?3"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let ids = statement.query_map(params![repository, wanted.upto.0, limit], |row| row.get(0))?;
    Ok(ids.collect::<rusqlite::Result<_>>()?)
}

/// Those of `keys` that may be taken, whatever their age.
fn of_keys(connection: &Connection, keys: &[MailKey], repository: i64, wanted: &Wanted) -> Result<Vec<i64>> {
    let condition = if wanted.suspects { "suspect > 0" } else { "suspect = 0" };
    let sql = format!(
        "SELECT id FROM mail WHERE key = ?1 AND claimed = 0 AND {condition} AND repository = ?2 AND seq <= ?3 AND {NOT_TAKEN}"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut ids = Vec::new();
    for key in keys {
        if ids.len() == wanted.limit {
            break;
        }
        let id = statement
            .query_row(params![key.as_str(), repository, wanted.upto.0], |row| row.get::<_, i64>(0))
            .optional()?;
        ids.extend(id);
    }
    Ok(ids)
}

/// What a due query reads: for one number of attempts, those whose last one lies long
/// enough back, or in the future (the clock was set back: nobody waits for it).
const DUE: &str = "SELECT id, seq FROM mail INDEXED BY mail_due WHERE claimed = 0 AND repository = ?1 AND attempts = ?2 \
     AND last_attempt BETWEEN ?3 AND ?4 AND suspect = 0 AND seq <= ?5 AND ";

/// Mails that are due, oldest first. The due time is not stored: a changed spacing holds at once.
fn due(connection: &Connection, repository: i64, wanted: &Wanted, limit: i64, now: Time) -> Result<Vec<i64>> {
    let sql = format!("{DUE}{NOT_TAKEN} ORDER BY last_attempt LIMIT ?6");
    let mut statement = connection.prepare_cached(&sql)?;
    let now = now.timestamp_millis();
    let mut found: Vec<(i64, i64)> = Vec::new();
    for attempts in numbers_of_attempts(connection, repository)? {
        let cutoff = now.saturating_sub(millis(spacing_after(&wanted.spacing, attempts)));
        for (from, to) in [(i64::MIN, cutoff), (now.saturating_add(1), i64::MAX)] {
            let ids = statement.query_map(params![repository, attempts, from, to, wanted.upto.0, limit], |row| {
                Ok((row.get(1)?, row.get(0)?))
            })?;
            found.extend(ids.collect::<rusqlite::Result<Vec<_>>>()?);
        }
    }
    found.sort_unstable();
    found.truncate(wanted.limit);
    Ok(found.into_iter().map(|(_, id)| id).collect())
}

/// The time that must lie between the n-th attempt and the next.
fn spacing_after(spacing: &[Duration], attempts: i64) -> Duration {
    match usize::try_from(attempts) {
        Ok(0) | Err(_) => Duration::ZERO,
        Ok(n) => spacing.get(n - 1).or(spacing.last()).copied().unwrap_or_default(),
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

fn take(connection: &Connection, row: rows::MailRow, instance: i64, wanted: &Wanted) -> Result<Claimed> {
    let token = next_number(connection)?;
    connection
        .prepare_cached("UPDATE mail SET claimed = 1, instance = ?2, claim = ?3, run = ?4 WHERE id = ?1")?
        .execute(params![row.id, instance, token, wanted.run.map(|run| run.0)])?;
    let mail = row.listed.mail;
    Ok(Claimed {
        claim: Claim { mail: row.id, token, key: mail.key.clone() },
        mail,
        deaths_alone: row.suspect.saturating_sub(1),
    })
}

/// Where mails are kept that are nobody's failure but ours.
const ERROR_REPOSITORY: &str = "var/mail/error";

/// Puts a mail that cannot be read where administrators look for trouble, in nobody's hand and
/// out of the way of all claims: -1 is neither a suspect nor none.
fn set_aside(connection: &Connection, id: i64, why: &Error, now: Time) -> Result<()> {
    let path = RepositoryPath::parse(ERROR_REPOSITORY).map_err(|error| Error::trouble(Trouble::Internal, error))?;
    let repository = filing::ensure(connection, &path, now)?;
    let key: String = connection
        .prepare_cached(
            "UPDATE mail SET claimed = 0, instance = NULL, claim = NULL, suspect = -1, repository = ?2, seq = ?3 \
             WHERE id = ?1 RETURNING key",
        )?
        .query_row([id, repository, next_number(connection)?], |row| row.get(0))?;
    error!(mail.id = key, error = %why, "the mail cannot be read: it is set aside in {ERROR_REPOSITORY}");
    Ok(())
}

fn by_id(connection: &Connection, id: i64) -> Result<rows::MailRow> {
    let sql =
        format!("SELECT {} FROM mail JOIN message ON message.id = mail.message WHERE mail.id = ?1", rows::MAIL_COLUMNS);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query([id])?;
    match found.next()? {
        Some(row) => rows::mail(row),
        None => Err(rusqlite::Error::QueryReturnedNoRows.into()),
    }
}

/// The fence: nothing is written for a claim that was reaped.
pub(super) fn verify(connection: &Connection, claim: &Claim) -> Result<()> {
    let held = connection
        .prepare_cached("SELECT 1 FROM mail WHERE id = ?1 AND claim = ?2 AND claimed = 1")?
        .exists([claim.mail, claim.token])?;
    if held { Ok(()) } else { Err(Error::ClaimLost(claim.key.clone())) }
}

/// Gives a mail back as it is, where it was.
pub(super) fn release(connection: &Connection, claim: &Claim) -> Result<()> {
    verify(connection, claim)?;
    connection
        .prepare_cached("UPDATE mail SET claimed = 0, instance = NULL, claim = NULL WHERE id = ?1")?
        .execute([claim.mail])?;
    Ok(())
}

/// Gives up one mail of a living process: a panic points to its mail as surely as a death
/// with nothing else in hand does.
pub(super) fn abandon(connection: &Connection, claim: &Claim, now: Time) -> Result<()> {
    verify(connection, claim)?;
    free(connection, claim.mail, Blame { suspect: true, alone: true }, now, &mut Reaped::default())
}

/// Ends a pass: the record, then what is left of the mail.
pub(super) fn settle(connection: &Connection, claim: &Claim, settlement: &Settlement, now: Time) -> Result<()> {
    verify(connection, claim)?;
    end_attempt(connection, claim, settlement, now)?;
    let attempted = settlement.counted && settlement.attempt.is_some();
    for part in settlement.parts.iter().filter(|part| part.mail.key != claim.key) {
        let repository = repository_of(connection, claim, part, now)?;
        let child = filing::Child { mail: &part.mail, parent: claim.mail, repository, attempted };
        filing::insert_child(connection, &child, now)?;
    }
    match settlement.parts.iter().find(|part| part.mail.key == claim.key) {
        Some(part) => keep(connection, claim, part, attempted, now),
        None => filing::take_out(connection, claim.mail, now),
    }
}

/// Where nothing was begun and nothing happened, there is no record to end.
fn end_attempt(connection: &Connection, claim: &Claim, settlement: &Settlement, now: Time) -> Result<()> {
    let attempt = match settlement.attempt {
        Some(attempt) => attempt,
        None if settlement.outcomes.is_empty() => return Ok(()),
        None => records::open(connection, claim.mail, now)?,
    };
    records::record(connection, attempt, &settlement.outcomes, &[], 0)?;
    records::finish(connection, attempt, settlement.counted, now)?;
    if settlement.attempt.is_some() && !settlement.counted {
        connection.prepare_cached("UPDATE mail SET attempts = attempts - 1 WHERE id = ?1")?.execute([claim.mail])?;
    }
    Ok(())
}

fn repository_of(connection: &Connection, claim: &Claim, part: &Resting, now: Time) -> Result<i64> {
    match &part.place {
        Some(path) => filing::ensure(connection, path, now),
        None => Ok(connection
            .prepare_cached("SELECT repository FROM mail WHERE id = ?1")?
            .query_row([claim.mail], |row| row.get(0))?),
    }
}

/// Writes the part that keeps the key over the claimed row. Back where it was, it keeps
/// its old place in the order too.
fn keep(connection: &Connection, claim: &Claim, part: &Resting, attempted: bool, now: Time) -> Result<()> {
    let mail = &part.mail;
    write_part(connection, claim.mail, mail)?;
    if part.place.is_some() {
        let repository = repository_of(connection, claim, part, now)?;
        connection
            .prepare_cached(
                "UPDATE mail SET repository = ?2, seq = ?3, last_updated = ?4, \
                 last_attempt = CASE WHEN ?5 THEN ?4 ELSE last_attempt END WHERE id = ?1",
            )?
            .execute(params![claim.mail, repository, next_number(connection)?, now.timestamp_millis(), attempted])?;
    }
    Ok(())
}

fn write_part(connection: &Connection, id: i64, mail: &Mail) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE mail SET claimed = 0, instance = NULL, claim = NULL, suspect = 0, recipients = ?2, state = ?3, \
             error = ?4, attributes = ?5, header_prefix = ?6, recorded = ?7, sender = ?8 WHERE id = ?1",
        )?
        .execute(params![
            id,
            rows::to_json(&mail.envelope.recipients)?,
            mail.state,
            mail.error,
            rows::to_json(&mail.attributes)?,
            mail.header_prefix,
            rows::to_json(&mail.recorded)?,
            rows::sender(&mail.envelope.reverse_path),
        ])?;
    Ok(())
}

/// Frees what dead processes held.
pub(super) fn reap(connection: &Connection, liveness: &Liveness, own: Option<i64>, now: Time) -> Result<Reaped> {
    let mut reaped = Reaped::default();
    for dead in instance::dead(connection, liveness, own)? {
        reaped.instances += 1;
        free_mails(connection, dead, now, &mut reaped)?;
        connection
            .prepare_cached("UPDATE message SET writer = NULL WHERE mails = 0 AND writer = ?1")?
            .execute([dead])?;
        runs::end_of_dead(connection, dead, now)?;
        instance::end(connection, dead, now)?;
    }
    Ok(reaped)
}

/// What a death says of a mail that was in hand.
#[derive(Clone, Copy)]
struct Blame {
    suspect: bool,
    alone: bool,
}

/// Of many mails in hand most only wait: where some were in an attempt, those are the suspects.
fn free_mails(connection: &Connection, dead: i64, now: Time, reaped: &mut Reaped) -> Result<()> {
    let mut statement = connection.prepare_cached(
        "SELECT id, EXISTS (SELECT 1 FROM attempt WHERE attempt.mail = mail.key AND attempt.state = 0) \
         FROM mail WHERE claimed = 1 AND instance = ?1",
    )?;
    let held = statement.query_map([dead], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let held = held.collect::<rusqlite::Result<Vec<(i64, bool)>>>()?;
    let alone = held.len() == 1;
    let none_begun = !held.iter().any(|&(_, begun)| begun);
    for (id, begun) in held {
        reaped.mails += 1;
        match free(connection, id, Blame { suspect: begun || none_begun, alone }, now, reaped) {
            Err(error) if error.is_unreadable() => set_aside(connection, id, &error, now)?,
            freed => freed?,
        }
    }
    Ok(())
}

/// One mail back where it was, due at once, without the recipients that have it.
fn free(connection: &Connection, id: i64, blame: Blame, now: Time, reaped: &mut Reaped) -> Result<()> {
    let mut mail = by_id(connection, id)?.listed.mail;
    if let Some(attempt) = open_attempt(connection, &mail)? {
        let recorded = records::outcomes(connection, attempt)?;
        mark_in_doubt(connection, attempt, &mail, &recorded, now)?;
        if unanswered(&mail, &recorded).next().is_some() {
            reaped.in_doubt += 1;
        }
        let with = |outcome| recorded.iter().filter(move |r| r.outcome == outcome);
        let done: HashSet<_> = with(Outcome::Delivered).map(|r| r.recipient.mailbox()).collect();
        mail.envelope.recipients.retain(|recipient| !done.contains(&recipient.mailbox()));
        mail.recorded.extend(with(Outcome::Failed).cloned());
    }
    if mail.envelope.recipients.is_empty() {
        return filing::take_out(connection, id, now);
    }
    connection
        .prepare_cached(
            "UPDATE mail SET claimed = 0, instance = NULL, claim = NULL, last_attempt = 0, \
             suspect = max(suspect, ?2) + ?3, recipients = ?4, recorded = ?5 WHERE id = ?1",
        )?
        .execute(params![
            id,
            blame.suspect,
            blame.alone,
            rows::to_json(&mail.envelope.recipients)?,
            rows::to_json(&mail.recorded)?,
        ])?;
    Ok(())
}

fn open_attempt(connection: &Connection, mail: &Mail) -> Result<Option<AttemptId>> {
    Ok(connection
        .prepare_cached("SELECT max(id) FROM attempt WHERE mail = ?1 AND state = 0")?
        .query_row([mail.key.as_str()], |row| row.get::<_, Option<i64>>(0))?
        .map(AttemptId))
}

fn unanswered<'a>(mail: &'a Mail, recorded: &[Recorded]) -> impl Iterator<Item = &'a Address> {
    let known: HashSet<_> = recorded.iter().map(|recorded| recorded.recipient.mailbox()).collect();
    mail.envelope.recipients.iter().filter(move |recipient| !known.contains(&recipient.mailbox()))
}

/// What a dead process's attempt is known to be: in doubt for those without an outcome.
fn mark_in_doubt(
    connection: &Connection,
    attempt: AttemptId,
    mail: &Mail,
    recorded: &[Recorded],
    now: Time,
) -> Result<()> {
    let plan = records::planned(connection, attempt)?;
    let known: HashSet<_> = mail.recorded.iter().map(|recorded| recorded.recipient.mailbox()).collect();
    let hops: HashMap<_, _> =
        plan.iter().flatten().flat_map(|hop| hop.recipients.iter().map(move |recipient| (recipient, hop))).collect();
    let doubtful: Vec<Recorded> = unanswered(mail, recorded)
        .filter(|recipient| !known.contains(&recipient.mailbox()))
        .map(|recipient| match hops.get(recipient) {
            Some(hop) => hop.in_doubt(recipient.clone(), now),
            None if plan.is_some() => Recorded::untried(recipient.clone(), now),
            None => Recorded::died(recipient.clone(), "", now),
        })
        .collect();
    records::record(connection, attempt, &doubtful, &[], 0)?;
    let state = if doubtful.is_empty() { 1 } else { 2 };
    connection
        .prepare_cached("UPDATE attempt SET state = ?2, planned = NULL WHERE id = ?1")?
        .execute(params![attempt.0, state])?;
    Ok(())
}

/// How SQLite answers the queries of a claim.
#[cfg(test)]
pub(super) fn plans(connection: &Connection) -> Result<Vec<(String, String)>> {
    let queries = [
        format!("{DUE}{NOT_TAKEN} ORDER BY last_attempt LIMIT ?6"),
        format!(
            "SELECT id FROM mail INDEXED BY mail_resting WHERE claimed = 0 AND suspect = 0 AND repository = ?1 \
             AND seq <= ?2 AND {NOT_TAKEN} ORDER BY seq LIMIT ?3"
        ),
    ];
    queries.into_iter().map(|query| Ok((query.clone(), plan(connection, &query)?))).collect()
}

#[cfg(test)]
fn plan(connection: &Connection, query: &str) -> Result<String> {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {query}"))?;
    let count = statement.parameter_count();
    let steps = statement.query_map(rusqlite::params_from_iter(vec![0_i64; count]), |row| row.get::<_, String>(3))?;
    Ok(steps.collect::<rusqlite::Result<Vec<_>>>()?.join("\n"))
}
