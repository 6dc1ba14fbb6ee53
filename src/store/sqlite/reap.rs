//! What processes that died had in hand goes back, in steps between which others write.

use rusqlite::{Connection, OptionalExtension, params};
use tracing::warn;

use super::super::rules::{self, Aftermath, Death};
use super::super::{AttemptId, Reaped, Result};
use super::instance::{self, Liveness};
use super::transaction::Transaction;
use super::{SqliteStore, claim, filing, groups, records, rows, runs};
use crate::mail::{AttemptState, Mail};

/// Mails that are freed in one transaction at most.
pub(super) const BATCH: usize = 500;

impl SqliteStore {
    pub(super) async fn reap_dead(&self) -> Result<Reaped> {
        let own = self.own_instance();
        // Looking costs no write: nearly always nobody has died.
        let liveness = self.liveness();
        let dead = self.read(move |connection| instance::dead(connection, &liveness, own)).await?;
        let mut reaped = Reaped::default();
        for instance in dead {
            while self.reap_some(instance, &mut reaped).await? {}
        }
        // Whoever comes first does it: a command, a run, or the service as it starts.
        if reaped.mails > 0 {
            let Reaped { mails, in_doubt, .. } = reaped;
            warn!(mails, in_doubt, "a process had ended with mails in hand: they are free again");
        }
        Ok(reaped)
    }

    /// One step; whether there is more to do.
    async fn reap_some(&self, dead: i64, reaped: &mut Reaped) -> Result<bool> {
        let liveness = self.liveness();
        let (step, more) = self.write(move |tx| reap(tx, &liveness, dead)).await?;
        reaped.instances += step.instances;
        reaped.mails += step.mails;
        reaped.in_doubt += step.in_doubt;
        Ok(more)
    }
}

/// Frees some of what a dead process held, and ends it with the last; whether there is more.
pub(super) fn reap(tx: &Transaction<'_>, liveness: &Liveness, dead: i64) -> Result<(Reaped, bool)> {
    let mut reaped = Reaped::default();
    // Somebody else may have come first.
    if !instance::is_dead(tx, liveness, dead)? {
        return Ok((reaped, false));
    }
    if free_mails(tx, dead, &mut reaped)? {
        return Ok((reaped, true));
    }
    reaped.instances = 1;
    tx.prepare_cached("UPDATE message SET writer = NULL WHERE mails = 0 AND writer = ?1")?.execute([dead])?;
    runs::end_of_dead(tx, dead)?;
    instance::end(tx, dead)?;
    Ok((reaped, false))
}

/// What there was at a death, as it was found first.
fn death_of(tx: &Transaction<'_>, dead: i64) -> Result<Death> {
    let mut statement = tx.prepare_cached("SELECT in_hand, begun FROM instance WHERE id = ?1")?;
    let found =
        statement.query_row([dead], |row| Ok((row.get::<_, Option<u64>>(0)?, row.get::<_, Option<u64>>(1)?)))?;
    if let (Some(in_hand), Some(begun)) = found {
        return Ok(Death::with(in_hand, begun));
    }
    let sql = format!("SELECT count(*), coalesce(sum({BEGUN}), 0) FROM mail WHERE claimed = 1 AND instance = ?1");
    let (in_hand, begun): (u64, u64) =
        tx.prepare_cached(&sql)?.query_row([dead], |row| Ok((row.get(0)?, row.get(1)?)))?;
    tx.prepare_cached("UPDATE instance SET in_hand = ?2, begun = ?3 WHERE id = ?1")?
        .execute(params![dead, in_hand, begun])?;
    Ok(Death::with(in_hand, begun))
}

const BEGUN: &str = "EXISTS (SELECT 1 FROM attempt WHERE attempt.mail = mail.key AND attempt.state = 0)";

/// Whether it were so many that there may be more.
fn free_mails(tx: &Transaction<'_>, dead: i64, reaped: &mut Reaped) -> Result<bool> {
    let death = death_of(tx, dead)?;
    let mut statement = tx.prepare_cached("SELECT id FROM mail WHERE claimed = 1 AND instance = ?1 LIMIT ?2")?;
    let held = statement.query_map(params![dead, BATCH], |row| row.get(0))?;
    let held = held.collect::<rusqlite::Result<Vec<i64>>>()?;
    for &id in &held {
        match free(tx, id, death, reaped) {
            Err(error) if error.is_unreadable() => claim::set_aside(tx, id, &error)?,
            freed => freed?,
        }
    }
    reaped.mails += held.len();
    Ok(held.len() == BATCH)
}

/// One mail back where it was, due at once, without the recipients that have it.
pub(super) fn free(tx: &Transaction<'_>, id: i64, death: Death, reaped: &mut Reaped) -> Result<()> {
    let row = claim::by_id(tx, id)?;
    let mut mail = row.listed.mail;
    let attempt = open_attempt(tx, &mail)?;
    if let Some(attempt) = attempt {
        let known = records::outcomes(tx, attempt)?;
        let aftermath = rules::after_death(&mut mail, &records::planned(tx, attempt)?, &known, tx.now());
        reaped.in_doubt += usize::from(aftermath.state == AttemptState::InDoubt);
        end_attempt(tx, attempt, &aftermath)?;
    }
    if mail.envelope.recipients.is_empty() {
        return filing::take_out(tx, id, None);
    }
    tx.prepare_cached(
        "UPDATE mail SET claimed = 0, instance = NULL, claim = NULL, last_attempt = 0, suspect = ?2, \
         recipients = ?3, recorded = ?4, notify = ?5 WHERE id = ?1",
    )?
    .execute(params![
        id,
        death.suspect(row.suspect, attempt.is_some()),
        rows::to_json(&mail.envelope.recipients)?,
        rows::to_json(&mail.recorded)?,
        rows::Dsn::of(&mail.envelope)?.notify,
    ])?;
    groups::refresh(tx, id, &mail)
}

fn open_attempt(connection: &Connection, mail: &Mail) -> Result<Option<AttemptId>> {
    Ok(connection
        .prepare_cached("SELECT id FROM attempt WHERE mail = ?1 AND state = 0 ORDER BY id DESC LIMIT 1")?
        .query_row([mail.key.as_str()], |row| row.get(0).map(AttemptId))
        .optional()?)
}

/// What a dead process's attempt is known to be; when it ended nobody knows.
fn end_attempt(tx: &Transaction<'_>, attempt: AttemptId, aftermath: &Aftermath) -> Result<()> {
    records::record(tx, attempt, &aftermath.added)?;
    tx.prepare_cached("UPDATE attempt SET state = ?2, planned = NULL WHERE id = ?1")?
        .execute(params![attempt.0, rows::state(aftermath.state)])?;
    Ok(())
}
