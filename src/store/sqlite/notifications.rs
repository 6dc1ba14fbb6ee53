//! Notifications: decided when they are to be born, gathered, counted.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};

use super::super::{Digest, DsnCounts, Fate, NAMED_IN_DIGEST, Notifications, Resting, Result, Settlement, rules};
use super::transaction::Transaction;
use super::{SqliteStore, intake, rows};
use crate::mail::{Action, Address, MailKey, NewDsn, NewMail, Told};

/// Milliseconds in which notifications are counted, and after which a digest is due.
const HOUR: i64 = 3_600_000;

const DAY: i64 = 24 * HOUR;

#[async_trait]
impl Notifications for SqliteStore {
    async fn due_digest(&self) -> Result<Option<Digest>> {
        let now = self.now().timestamp_millis();
        self.read(move |connection| due_digest(connection, now)).await
    }

    async fn end_digest(&self, digest: &Digest, mail: Option<NewMail>) -> Result<bool> {
        let (key, sender) = (digest.key.clone(), digest.sender.mailbox());
        let bears = mail.is_some();
        let ended = self.write(move |tx| end_digest(tx, &key, &sender, mail.as_ref())).await?;
        if ended && bears {
            self.tell_arrival();
        }
        Ok(ended)
    }

    async fn dsn_counts(&self) -> Result<DsnCounts> {
        let since = self.now().timestamp_millis() - DAY;
        self.read(move |connection| counts(connection, since)).await
    }
}

/// Bears the notifications of a settlement, or gathers or holds back what is too much. What the
/// parts note of them is made to agree; `None` where it does.
pub(super) fn bear(tx: &Transaction<'_>, settlement: &Settlement) -> Result<(Vec<Fate>, Option<Vec<Resting>>)> {
    let (mut fates, mut parts) = (Vec::new(), None);
    for dsn in &settlement.born {
        let (fate, instead) = one(tx, dsn)?;
        if fate != Fate::Born {
            let parts = parts.get_or_insert_with(|| settlement.parts.clone());
            if fate == Fate::HeldBack {
                parts.extend(settlement.unless_told.iter().filter(|part| tells(dsn, part)).cloned());
            }
            let note = (fate == Fate::HeldBack).then_some(HELD_BACK);
            for part in parts {
                part.mail.envelope.dsn.amend(&dsn.mail.key, instead.as_ref(), note);
            }
        }
        fates.push(fate);
    }
    Ok((fates, parts))
}

/// Whether a part goes for having this notification's sender told that it failed.
fn tells(dsn: &NewDsn, part: &Resting) -> bool {
    dsn.action == Action::Failed && part.mail.envelope.dsn.names(&dsn.mail.key)
}

const HELD_BACK: &str = "told to nobody: there were more notifications within an hour than dsn.total";

/// What becomes of a notification, and in which one it is told instead.
fn one(tx: &Transaction<'_>, dsn: &NewDsn) -> Result<(Fate, Option<MailKey>)> {
    let (now, sender) = (tx.millis(), dsn.sender.mailbox());
    tx.prepare_cached("DELETE FROM dsn_born WHERE at <= ?1")?.execute([now - HOUR])?;
    let to_sender = born(tx, "sender = ?2 AND", now, &sender, dsn.limits.per_sender)?;
    let in_all = born(tx, "?2 = ?2 AND", now, &sender, dsn.limits.total)?;
    let fate = rules::fate_of_notification(dsn.limits, to_sender, in_all);
    let instead = match fate {
        Fate::Born => {
            intake::insert(tx, &dsn.mail, None)?;
            tx.prepare_cached("INSERT INTO dsn_born (at, sender) VALUES (?1, ?2)")?.execute(params![now, sender])?;
            count(tx, dsn.action.name(), 1)?;
            None
        }
        Fate::Gathered => Some(gather(tx, dsn, &sender, now)?),
        Fate::HeldBack => {
            hold_back(tx, dsn.told.len() as u64, now)?;
            None
        }
    };
    Ok((fate, instead))
}

/// How many were born within the last hour, counted up to `most`.
fn born(tx: &Transaction<'_>, condition: &str, now: i64, sender: &str, most: u32) -> Result<u32> {
    let sql = format!("SELECT count(*) FROM (SELECT 1 FROM dsn_born WHERE {condition} at > ?1 AND at <= ?3 LIMIT ?4)");
    Ok(tx.prepare_cached(&sql)?.query_row(params![now - HOUR, sender, now, most], |row| row.get(0))?)
}

/// Adds the recipients to the sender's digest; the key that it will have.
fn gather(tx: &Transaction<'_>, dsn: &NewDsn, sender: &str, now: i64) -> Result<MailKey> {
    let recipients = dsn.told.len() as u64;
    let (key, before): (String, u64) = tx
        .prepare_cached(
            "INSERT INTO dsn_digest (sender, address, key, due, recipients) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT (sender) DO UPDATE SET recipients = recipients + ?5 RETURNING key, recipients - ?5",
        )?
        .query_row(params![sender, dsn.sender.to_string(), dsn.mail.key.as_str(), now + HOUR, recipients], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let named = usize::try_from(NAMED_IN_DIGEST.saturating_sub(before)).unwrap_or(0);
    for told in dsn.told.iter().take(named) {
        tx.prepare_cached("INSERT INTO dsn_gathered (sender, record) VALUES (?1, ?2)")?
            .execute(params![sender, rows::to_json(told)?])?;
    }
    rows::key(&key)
}

fn hold_back(tx: &Transaction<'_>, recipients: u64, now: i64) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO dsn_held (hour, recipients) VALUES (?1, ?2) \
         ON CONFLICT (hour) DO UPDATE SET recipients = recipients + ?2",
    )?
    .execute(params![now / HOUR, recipients])?;
    tx.prepare_cached("DELETE FROM dsn_held WHERE hour < ?1")?.execute([(now - 2 * DAY) / HOUR])?;
    count(tx, "held", recipients)
}

fn count(tx: &Transaction<'_>, action: &str, more: u64) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO dsn_sum (action, count) VALUES (?1, ?2) ON CONFLICT (action) DO UPDATE SET count = count + ?2",
    )?
    .execute(params![action, more])?;
    Ok(())
}

fn due_digest(connection: &Connection, now: i64) -> Result<Option<Digest>> {
    let found = connection
        .prepare_cached("SELECT sender, address, key, recipients FROM dsn_digest WHERE due <= ?1 ORDER BY due LIMIT 1")?
        .query_row([now], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?, row.get::<_, u64>(3)?))
        })
        .optional()?;
    let Some((sender, address, key, recipients)) = found else { return Ok(None) };
    let mut statement = connection.prepare_cached("SELECT record FROM dsn_gathered WHERE sender = ?1 ORDER BY id")?;
    let records = statement.query_map([&sender], |row| row.get::<_, String>(0))?;
    let told = records.map(|record| rows::from_json(&record?)).collect::<Result<Vec<Told>>>()?;
    let address = Address::parse(&address).map_err(|_| rows::corrupt("a digest's sender is no address"))?;
    let more = recipients.saturating_sub(told.len() as u64);
    Ok(Some(Digest { key: rows::key(&key)?, sender: address, told, more }))
}

fn end_digest(tx: &Transaction<'_>, key: &MailKey, sender: &str, mail: Option<&NewMail>) -> Result<bool> {
    let ended = tx
        .prepare_cached("DELETE FROM dsn_digest WHERE sender = ?1 AND key = ?2")?
        .execute(params![sender, key.as_str()])?;
    if ended == 0 {
        return Ok(false);
    }
    tx.prepare_cached("DELETE FROM dsn_gathered WHERE sender = ?1")?.execute([sender])?;
    if let Some(mail) = mail {
        intake::insert(tx, mail, None)?;
        count(tx, "digest", 1)?;
    }
    Ok(true)
}

fn counts(connection: &Connection, since: i64) -> Result<DsnCounts> {
    let mut statement = connection.prepare_cached("SELECT action, count FROM dsn_sum ORDER BY action")?;
    let by_action = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    let held_lately = connection
        .prepare_cached("SELECT coalesce(sum(recipients), 0) FROM dsn_held WHERE hour > ?1")?
        .query_row([since / HOUR], |row| row.get(0))?;
    Ok(DsnCounts { by_action, held_lately })
}
