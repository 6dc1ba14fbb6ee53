//! A mail in hand: attempted, settled, given back.

use async_trait::async_trait;
use rusqlite::{OptionalExtension, params};
use tracing::{debug, warn};

use super::super::rules::Death;
use super::super::{AttemptId, Claim, Claimed, Error, Fate, Passes, Reaped, Resting, Result, Settlement, Wanted};
use super::queue::Haste;
use super::transaction::{Transaction, Weight, hour_of};
use super::{SqliteStore, claim, filing, groups, notifications, reap, records, rows};
use crate::mail::{Attributes, DialogueEntry, Mail, Planned, Recorded};

#[async_trait]
impl Passes for SqliteStore {
    async fn claim(&self, wanted: &Wanted) -> Result<Vec<Claimed>> {
        self.reap_dead().await?;
        let instance = self.instance().await?;
        let wanted = wanted.clone();
        let taken = self.write(move |tx| claim::claim(tx, &wanted, instance)).await?;
        tell_of_the_clock(taken.ahead);
        Ok(taken.claimed)
    }

    async fn in_hand(&self, claims: &[Claim]) -> Result<Vec<Claimed>> {
        let claims = claims.to_vec();
        self.read(move |connection| claims.iter().filter_map(|one| claim::again(connection, one).transpose()).collect())
            .await
    }

    async fn begin_attempt(&self, claim: &Claim, attributes: &Attributes, plan: &[Planned]) -> Result<AttemptId> {
        self.write(beginning(claim, attributes, plan)).await
    }

    async fn begin_attempt_ahead(&self, claim: &Claim, attributes: &Attributes, plan: &[Planned]) -> Result<AttemptId> {
        self.writer.call(beginning(claim, attributes, plan), Haste::Ahead).await
    }

    async fn extend_attempt(
        &self,
        claim: &Claim,
        attempt: AttemptId,
        attributes: &Attributes,
        plan: &[Planned],
    ) -> Result<()> {
        let (claim, attributes, plan) = (claim.clone(), attributes.clone(), plan.to_vec());
        self.write(move |tx| {
            set_attributes(tx, &claim, &attributes, false)?;
            records::extend(tx, attempt, &plan)
        })
        .await
    }

    async fn record(
        &self,
        claim: &Claim,
        attempt: AttemptId,
        outcomes: &[Recorded],
        dialogue: &[DialogueEntry],
        dialogue_limit: usize,
    ) -> Result<()> {
        let (claim, outcomes, dialogue) = (claim.clone(), outcomes.to_vec(), dialogue.to_vec());
        self.write(move |tx| {
            verify(tx, &claim)?;
            records::record(tx, attempt, &outcomes)?;
            records::append_dialogue(tx, attempt, &dialogue, dialogue_limit)
        })
        .await
    }

    async fn settle(&self, claim: &Claim, settlement: &Settlement) -> Result<Vec<Fate>> {
        let (claim, settlement) = (claim.clone(), settlement.clone());
        let fates = self.write_along(move |tx| settle(tx, &claim, &settlement)).await?;
        if fates.contains(&Fate::Born) {
            self.tell_arrival();
        }
        Ok(fates)
    }

    async fn release(&self, claim: &Claim) -> Result<()> {
        let claim = claim.clone();
        self.write_along(move |tx| release(tx, &claim)).await
    }

    async fn release_all(&self, claims: &[Claim]) -> Result<()> {
        let claims = claims.to_vec();
        self.write(move |tx| {
            claims.iter().try_for_each(|claim| match release(tx, claim) {
                Err(Error::ClaimLost(_)) => Ok(()),
                released => released,
            })
        })
        .await
    }

    async fn abandon(&self, claim: &Claim) -> Result<()> {
        let claim = claim.clone();
        self.write(move |tx| {
            verify(tx, &claim)?;
            reap::free(tx, claim.mail, Death::PANIC, &mut Reaped::default())
        })
        .await
    }

    async fn reap(&self) -> Result<Reaped> {
        self.reap_dead().await
    }
}

fn beginning(
    claim: &Claim,
    attributes: &Attributes,
    plan: &[Planned],
) -> impl Fn(&Transaction<'_>) -> Result<AttemptId> + Send + 'static {
    let (claim, attributes, plan) = (claim.clone(), attributes.clone(), plan.to_vec());
    move |tx| {
        set_attributes(tx, &claim, &attributes, true)?;
        records::begin(tx, &claim, &plan)
    }
}

/// A clock is corrected by a little now and then; more than that somebody should know of.
fn tell_of_the_clock((mails, ahead): (usize, i64)) {
    if ahead > 60_000 {
        let seconds = ahead / 1000;
        warn!(mails, "the clock was set back by up to {seconds} s: mails tried since are due one spacing from now");
    } else if mails > 0 {
        debug!(mails, "last attempts lay in the future");
    }
}

/// The fence: nothing is written for a claim that was reaped. What the mail counts for.
fn verify(tx: &Transaction<'_>, claim: &Claim) -> Result<Weight> {
    tx.prepare_cached(
        "SELECT repository, passes, acknowledged IS NOT NULL, accepted FROM mail WHERE id = ?1 AND claim = ?2 AND claimed = 1",
    )?
    .query_row([claim.mail, claim.token], |row| {
        let (octets, hour) = (claim.octets, hour_of(row.get(3)?));
        Ok(Weight { repository: row.get(0)?, passes: row.get(1)?, hour, octets, acknowledged: row.get(2)? })
    })
    .optional()?
    .ok_or_else(|| Error::ClaimLost(claim.key.clone()))
}

/// Writes the attributes as the matchers left them, and counts an attempt that begins with its
/// record.
fn set_attributes(tx: &Transaction<'_>, claim: &Claim, attributes: &Attributes, begins: bool) -> Result<()> {
    let before = verify(tx, claim)?;
    let passes = attributes.passes();
    tx.prepare_cached(
        "UPDATE mail SET attributes = ?2, passes = ?3, attempts = attempts + ?4, records = records + ?4 WHERE id = ?1",
    )?
    .execute(params![claim.mail, rows::to_json(attributes)?, passes, begins])?;
    tx.subtract(before);
    tx.add(Weight { passes, ..before });
    Ok(())
}

/// Gives a mail back as it is, where it was.
fn release(tx: &Transaction<'_>, claim: &Claim) -> Result<()> {
    verify(tx, claim)?;
    tx.prepare_cached("UPDATE mail SET claimed = 0, instance = NULL, claim = NULL WHERE id = ?1")?
        .execute([claim.mail])?;
    Ok(())
}

/// Ends a pass: the record, then what is left of the mail, and what the pass bore.
fn settle(tx: &Transaction<'_>, claim: &Claim, settlement: &Settlement) -> Result<Vec<Fate>> {
    let before = verify(tx, claim)?;
    let (fates, amended) = notifications::bear(tx, settlement)?;
    let parts = amended.as_deref().unwrap_or(&settlement.parts);
    end_attempt(tx, claim, settlement)?;
    let attempted = settlement.counted && settlement.attempt.is_some();
    for part in parts.iter().filter(|part| part.mail.key != claim.key) {
        let repository = part.place.as_ref().map_or(Ok(before.repository), |path| filing::ensure(tx, path))?;
        let (mail, parent, hour) = (&part.mail, claim.mail, before.hour);
        filing::insert_child(tx, &filing::Child { mail, parent, repository, hour, attempted })?;
    }
    match parts.iter().find(|part| part.mail.key == claim.key) {
        Some(part) => keep(tx, claim, part, before, attempted)?,
        None => filing::take_out(tx, claim.mail, None)?,
    }
    Ok(fates)
}

/// Where nothing was begun and nothing happened, there is no record to end.
fn end_attempt(tx: &Transaction<'_>, claim: &Claim, settlement: &Settlement) -> Result<()> {
    let attempt = match settlement.attempt {
        Some(attempt) => attempt,
        None if settlement.outcomes.is_empty() => return Ok(()),
        None => open_uncounted(tx, claim.mail)?,
    };
    let first = records::record(tx, attempt, &settlement.outcomes)?;
    records::append_dialogue(tx, attempt, &settlement.dialogue, settlement.dialogue_limit)?;
    records::finish(tx, attempt, settlement.counted, first.then_some(&settlement.outcomes[..]))?;
    if settlement.attempt.is_some() && !settlement.counted {
        tx.prepare_cached("UPDATE mail SET attempts = attempts - 1 WHERE id = ?1")?.execute([claim.mail])?;
    }
    Ok(())
}

/// A record of what came of a pass that began no attempt.
fn open_uncounted(tx: &Transaction<'_>, mail: i64) -> Result<AttemptId> {
    tx.prepare_cached("UPDATE mail SET records = records + 1 WHERE id = ?1")?.execute([mail])?;
    records::open(tx, mail, None)
}

/// Writes the part that keeps the key over the claimed row. Back where it was, it keeps
/// its old place in the order too.
fn keep(tx: &Transaction<'_>, claim: &Claim, part: &Resting, before: Weight, attempted: bool) -> Result<()> {
    let mail = &part.mail;
    let mut after = Weight { passes: mail.passes(), ..before };
    let moved = match &part.place {
        None => None,
        Some(path) => {
            if before.acknowledged {
                groups::acknowledge(tx, claim.mail, -1)?;
            }
            after = Weight { repository: filing::ensure(tx, path)?, acknowledged: false, ..after };
            Some(tx.next_number()?)
        }
    };
    write_part(tx, claim.mail, mail, moved.map(|seq| (after.repository, seq, attempted)))?;
    tx.subtract(before);
    tx.add(after);
    groups::refresh(tx, claim.mail, mail)
}

/// Frees the row with what is left of the mail in it; where it is moved, with its repository,
/// its place in the order, and whether an attempt counted.
fn write_part(tx: &Transaction<'_>, id: i64, mail: &Mail, moved: Option<(i64, i64, bool)>) -> Result<()> {
    let (repository, seq, attempted) =
        moved.map_or((None, None, false), |(to, seq, tried)| (Some(to), Some(seq), tried));
    let dsn = rows::Dsn::of(&mail.envelope)?;
    tx.prepare_cached(
        "UPDATE mail SET claimed = 0, instance = NULL, claim = NULL, suspect = 0, recipients = ?2, state = ?3, \
         error = ?4, attributes = ?5, header_prefix = ?6, recorded = ?7, passes = ?8, sender = ?9, \
         ret = ?10, envid = ?11, notify = ?12, return_path = ?13, \
         repository = coalesce(?14, repository), seq = coalesce(?15, seq), \
         last_updated = CASE WHEN ?15 IS NULL THEN last_updated ELSE ?16 END, \
         acknowledged = CASE WHEN ?15 IS NULL THEN acknowledged END, \
         last_attempt = CASE WHEN ?17 THEN ?16 ELSE last_attempt END WHERE id = ?1",
    )?
    .execute(params![
        id,
        rows::to_json(&mail.envelope.recipients)?,
        mail.state,
        mail.error,
        rows::to_json(&mail.attributes)?,
        mail.header_prefix,
        rows::to_json(&mail.recorded)?,
        mail.passes(),
        rows::sender(&mail.envelope.reverse_path),
        dsn.ret,
        dsn.envid,
        dsn.notify,
        dsn.return_path,
        repository,
        seq,
        tx.millis(),
        attempted,
    ])?;
    Ok(())
}
