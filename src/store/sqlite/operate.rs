//! What is done to many mails at rest, each on account of an operation.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::TimeDelta;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::{
    Act, Acted, Batch, Gone, Listed, NewOperation, Old, Operation, OperationId, Operations, Page, Place, Purged,
    Respool, Result, Span, rules,
};
use super::transaction::{Transaction, Weight, hour_of};
use super::{SqliteStore, claim, filing, groups, pager, rows};
use crate::mail::{Mail, MailKey};

#[async_trait]
impl Operations for SqliteStore {
    async fn begin_operation(&self, operation: &NewOperation) -> Result<OperationId> {
        let operation = operation.clone();
        self.write(move |tx| begin(tx, &operation)).await
    }

    async fn act(&self, batch: &Batch) -> Result<Vec<Acted>> {
        self.reap_dead().await?;
        let batch = Arc::new(batch.clone());
        let mut acted = Vec::with_capacity(batch.keys.len());
        loop {
            let (rest, from) = (Arc::clone(&batch), acted.len());
            let turn = move |tx: &Transaction<'_>| act(tx, &rest, from);
            let is_one = batch.keys.len() < 2;
            acted.extend(if is_one { self.write(turn).await? } else { self.write_bulk(turn).await? });
            if matches!(batch.act, Act::Respool(_)) {
                self.tell_arrival();
            }
            if acted.len() >= batch.keys.len() {
                return Ok(acted);
            }
        }
    }

    async fn purge(&self, operation: OperationId, old: &Old, batch: usize) -> Result<Purged> {
        self.reap_dead().await?;
        let age = TimeDelta::from_std(old.older_than).unwrap_or(TimeDelta::MAX);
        // Nothing can be older than the calendar.
        let Some(before) = self.now().checked_sub_signed(age) else { return Ok(Purged::default()) };
        let before = before.timestamp_millis();
        let wanted = old.clone();
        let found = self.read(move |connection| old_mails(connection, &wanted, before, batch)).await?;
        if found.is_empty() {
            return Ok(Purged::default());
        }
        let found = Arc::new(found);
        let (place, some) = (old.place.clone(), Arc::clone(&found));
        let Turn { looked, mails } = self.write_bulk(move |tx| purge(tx, operation, &place, before, &some)).await?;
        let is_last = looked == found.len() && looked < batch;
        let last = found.get(looked.saturating_sub(1)).filter(|_| !is_last);
        Ok(Purged { mails, next: last.map(|&(_, seq)| rows::new_cursor(seq)) })
    }

    async fn operations(&self, span: &Span) -> Result<Page<Operation>> {
        let span = span.clone();
        self.read(move |connection| page(connection, &span)).await
    }

    async fn operation(&self, id: OperationId) -> Result<Option<Operation>> {
        self.read(move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM operation WHERE id = ?1");
            Ok(connection.prepare_cached(&sql)?.query_row([id.0], operation).optional()?)
        })
        .await
    }

    async fn mails_of(&self, id: OperationId, after: Option<&MailKey>, limit: usize) -> Result<Vec<MailKey>> {
        let (after, limit) =
            (after.map_or(String::new(), ToString::to_string), i64::try_from(limit).unwrap_or(i64::MAX));
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(MAILS_OF)?;
            let keys = statement.query_map(params![id.0, after, limit], |row| row.get::<_, String>(0))?;
            keys.map(|key| rows::key(&key?)).collect()
        })
        .await
    }

    async fn operations_of(&self, key: &MailKey) -> Result<Vec<Operation>> {
        let key = key.clone();
        self.read(move |connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM operation WHERE id IN (SELECT operation FROM operation_mail WHERE key = ?1) \
                 ORDER BY id"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let found = statement.query_map([key.as_str()], operation)?;
            Ok(found.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    async fn gone(&self, key: &MailKey) -> Result<Option<Gone>> {
        let key = key.clone();
        self.read(move |connection| gone(connection, &key)).await
    }
}

/// The index ends with the key, which is a part of the primary key.
const MAILS_OF: &str = "SELECT key FROM operation_mail INDEXED BY operation_mail_operation \
     WHERE operation = ?1 AND key > ?2 ORDER BY key LIMIT ?3";

/// How SQLite answers the query for the mails of an operation.
#[cfg(test)]
pub(super) fn plans(connection: &Connection) -> Result<Vec<(String, String)>> {
    Ok(vec![(MAILS_OF.to_owned(), claim::plan(connection, MAILS_OF)?)])
}

fn begin(tx: &Transaction<'_>, operation: &NewOperation) -> Result<OperationId> {
    tx.prepare_cached(
        "INSERT INTO operation (at, who, client, verb, repository, selection, detail, task) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        tx.millis(),
        operation.who,
        operation.client.map(|client| client.to_string()),
        operation.verb,
        operation.place.as_ref().map(|place| match place {
            Place::Spool => "",
            Place::Repository(path) => path.as_str(),
        }),
        operation.selection,
        operation.detail,
        operation.task,
    ])?;
    Ok(OperationId(tx.last_insert_rowid()))
}

/// A batch with the numbers of what it names.
struct Acting<'a> {
    batch: &'a Batch,
    repository: i64,
    within: i64,
    /// Where the mails go.
    to: i64,
}

/// One turn: what became of some of the mails behind the first `from`, at least one.
fn act(tx: &Transaction<'_>, batch: &Batch, from: usize) -> Result<Vec<Acted>> {
    let acting = Acting {
        batch,
        repository: rows::place_id(tx, &batch.place)?,
        within: batch.within.as_ref().map_or(Ok(i64::MAX), rows::horizon)?,
        to: match &batch.act {
            Act::Move(path) => rows::place_id(tx, &Place::Repository(path.clone()))?,
            _ => 0,
        },
    };
    let mut acted = Vec::new();
    for key in batch.keys.iter().skip(from) {
        acted.push(acting.one(tx, key)?);
        if tx.is_over() {
            break;
        }
    }
    let count = |wanted: &Acted| acted.iter().filter(|one| *one == wanted).count();
    tx.prepare_cached("UPDATE operation SET done = done + ?2, in_hand = in_hand + ?3, gone = gone + ?4 WHERE id = ?1")?
        .execute(params![batch.operation.0, count(&Acted::Done), count(&Acted::InHand), count(&Acted::Gone)])?;
    Ok(acted)
}

/// What is needed of a mail; it may be one that cannot be read.
struct AtRest {
    id: i64,
    claimed: bool,
    seq: i64,
    recipients: String,
}

impl Acting<'_> {
    fn one(&self, tx: &Transaction<'_>, key: &MailKey) -> Result<Acted> {
        let found = tx
            .prepare_cached("SELECT id, claimed, seq, recipients FROM mail WHERE key = ?1 AND repository = ?2")?
            .query_row(params![key.as_str(), self.repository], |row| {
                Ok(AtRest { id: row.get(0)?, claimed: row.get(1)?, seq: row.get(2)?, recipients: row.get(3)? })
            })
            .optional()?;
        match found {
            Some(mail) if mail.claimed => Ok(Acted::InHand),
            Some(mail) if mail.seq <= self.within => self.act_on(tx, key, &mail),
            _ => Ok(Acted::Gone),
        }
    }

    fn act_on(&self, tx: &Transaction<'_>, key: &MailKey, mail: &AtRest) -> Result<Acted> {
        let operation = self.batch.operation;
        let detail = match &self.batch.act {
            Act::Respool(how) => match self.respool(tx, mail.id, how) {
                // In the spool, where nobody could reach it, it would be lost sight of.
                Err(error) if error.is_unreadable() => return Ok(Acted::Unreadable(error.to_string())),
                respooled => respooled.map(|()| None)?,
            },
            Act::Move(_) => move_to(tx, mail.id, self.to).map(|()| None)?,
            Act::Remove => {
                filing::take_out(tx, mail.id, Some(operation.0))?;
                Some(mail.recipients.as_str())
            }
            Act::Acknowledge { by, note } => acknowledge(tx, mail.id, operation, Some((by, note))).map(|()| None)?,
            Act::Unacknowledge => acknowledge(tx, mail.id, operation, None).map(|()| None)?,
        };
        note(tx, operation, key.as_str(), detail)?;
        Ok(Acted::Done)
    }

    fn respool(&self, tx: &Transaction<'_>, id: i64, how: &Respool) -> Result<()> {
        if !how.copy {
            return respool(tx, id, how);
        }
        let copy = copy(tx, id, how)?;
        note(tx, self.batch.operation, copy.as_str(), None)
    }
}

/// Notes that an operation changed a mail.
fn note(tx: &Transaction<'_>, operation: OperationId, key: &str, detail: Option<&str>) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO operation_mail (key, operation, detail) VALUES (?1, ?2, ?3) \
         ON CONFLICT (key, operation) DO NOTHING",
    )?
    .execute(params![key, operation.0, detail])?;
    Ok(())
}

/// Puts a mail into the spool, for a processor.
fn respool(tx: &Transaction<'_>, id: i64, how: &Respool) -> Result<()> {
    let rows::MailRow { listed, .. } = claim::by_id(tx, id)?;
    let before = claim::weight(tx, id)?;
    groups::forget(tx, id)?;
    let state = how.processor_of(&listed.mail.state);
    let attributes = rules::respooled(listed.mail.attributes, &how.reset);
    let passes = attributes.passes();
    tx.prepare_cached(
        "UPDATE mail SET repository = 0, seq = ?2, state = ?3, error = NULL, attributes = ?4, last_updated = ?5, \
         run = NULL, suspect = 0, attempts = CASE WHEN ?6 THEN 0 ELSE attempts END, passes = ?7, \
         acknowledged = NULL WHERE id = ?1",
    )?
    .execute(params![
        id,
        tx.next_number()?,
        state,
        rows::to_json(&attributes)?,
        tx.millis(),
        !how.reset.is_empty(),
        passes,
    ])?;
    tx.subtract(before);
    tx.add(Weight { repository: 0, passes, acknowledged: false, ..before });
    Ok(())
}

/// Puts a copy of a mail into the spool, for a processor; its key. It shares message and
/// attempts with the one that stays.
fn copy(tx: &Transaction<'_>, id: i64, how: &Respool) -> Result<MailKey> {
    let Listed { mail: stored, accepted, .. } = claim::by_id(tx, id)?.listed;
    let mail = Mail {
        key: MailKey::new(tx.now(), rand::random()),
        state: how.processor_of(&stored.state).to_owned(),
        error: None,
        attributes: rules::respooled(stored.attributes.clone(), &how.reset),
        ..stored
    };
    let hour = hour_of(accepted.timestamp_millis());
    filing::insert_child(tx, &filing::Child { mail: &mail, parent: id, repository: 0, hour, attempted: false })?;
    tx.prepare_cached(
        "UPDATE mail SET run = NULL, attempts = CASE WHEN ?2 THEN 0 ELSE attempts END, \
         recorded = (SELECT recorded FROM mail WHERE id = ?3) WHERE key = ?1",
    )?
    .execute(params![mail.key.as_str(), !how.reset.is_empty(), id])?;
    Ok(mail.key)
}

fn move_to(tx: &Transaction<'_>, id: i64, repository: i64) -> Result<()> {
    let before = claim::weight(tx, id)?;
    tx.prepare_cached("UPDATE mail SET repository = ?2, seq = ?3, last_updated = ?4, run = NULL WHERE id = ?1")?
        .execute(params![id, repository, tx.next_number()?, tx.millis()])?;
    tx.subtract(before);
    tx.add(Weight { repository, ..before });
    groups::follow(tx, id)
}

fn acknowledge(tx: &Transaction<'_>, id: i64, operation: OperationId, by: Option<(&String, &String)>) -> Result<()> {
    let before = claim::weight(tx, id)?;
    let stored = by.map(|(by, note)| rows::note(by, tx.millis(), note, operation));
    tx.prepare_cached("UPDATE mail SET acknowledged = ?2 WHERE id = ?1")?.execute(params![id, stored.transpose()?])?;
    tx.subtract(before);
    tx.add(Weight { acknowledged: by.is_some(), ..before });
    groups::acknowledge(tx, id, i64::from(by.is_some()) - i64::from(before.acknowledged))
}

/// The next old mails that nobody has in hand, with their places in the order.
fn old_mails(connection: &Connection, old: &Old, before: i64, batch: usize) -> Result<Vec<(i64, i64)>> {
    let repository = rows::place_id(connection, &old.place)?;
    let mut statement = connection.prepare_cached(
        "SELECT id, seq FROM mail INDEXED BY mail_resting WHERE claimed = 0 AND repository = ?1 AND seq > ?2 \
         AND seq <= ?3 AND last_updated < ?4 ORDER BY seq LIMIT ?5",
    )?;
    let after = old.after.as_ref().map_or(Ok(i64::MIN), rows::cursor)?;
    let within = old.within.as_ref().map_or(Ok(i64::MAX), rows::horizon)?;
    let found =
        statement.query_map(params![repository, after, within, before, batch], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

/// How many mails a turn of a purge looked at, and how many of them it removed.
struct Turn {
    looked: usize,
    mails: usize,
}

/// One turn: removes those of the first of `found`, one at least, that are still there, old and
/// at rest.
fn purge(
    tx: &Transaction<'_>,
    operation: OperationId,
    place: &Place,
    before: i64,
    found: &[(i64, i64)],
) -> Result<Turn> {
    let repository = rows::place_id(tx, place)?;
    let (mut looked, mut mails) = (0, 0);
    for &(id, _) in found {
        let still = tx
            .prepare_cached(
                "SELECT key, recipients FROM mail WHERE id = ?1 AND claimed = 0 AND repository = ?2 \
                 AND last_updated < ?3",
            )?
            .query_row(params![id, repository, before], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let still: Option<(String, String)> = still;
        if let Some((key, recipients)) = still {
            filing::take_out(tx, id, Some(operation.0))?;
            note(tx, operation, &key, Some(&recipients))?;
            mails += 1;
        }
        looked += 1;
        if tx.is_over() {
            break;
        }
    }
    tx.prepare_cached("UPDATE operation SET done = done + ?2 WHERE id = ?1")?.execute(params![operation.0, mails])?;
    Ok(Turn { looked, mails })
}

const COLUMNS: &str = "id, at, who, client, verb, repository, selection, detail, task, done, in_hand, gone";

/// Reads a row of [`COLUMNS`].
fn operation(row: &Row<'_>) -> rusqlite::Result<Operation> {
    Ok(Operation {
        id: OperationId(row.get(0)?),
        at: rows::time(row.get(1)?),
        who: row.get(2)?,
        client: row.get(3)?,
        verb: row.get(4)?,
        repository: row.get(5)?,
        selection: row.get(6)?,
        detail: row.get(7)?,
        task: row.get(8)?,
        done: row.get(9)?,
        in_hand: row.get(10)?,
        gone: row.get(11)?,
    })
}

fn page(connection: &Connection, span: &Span) -> Result<Page<Operation>> {
    let select = format!("SELECT {COLUMNS} FROM operation");
    pager::numbered(connection, (&select, "?2 IS NULL"), &None::<i64>, span, operation)
}

fn gone(connection: &Connection, key: &MailKey) -> Result<Option<Gone>> {
    let mut statement = connection.prepare_cached("SELECT at, operation FROM released WHERE key = ?1")?;
    let found = statement.query_row([key.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((at, taken_by)): Option<(i64, Option<i64>)> = found else { return Ok(None) };
    let sql = format!("SELECT {COLUMNS} FROM operation WHERE id = ?1");
    let operation = connection.prepare_cached(&sql)?.query_row([taken_by], operation).optional()?;
    Ok(Some(Gone { at: rows::time(at), operation }))
}
