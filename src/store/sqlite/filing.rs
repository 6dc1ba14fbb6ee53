//! Putting mails where they rest, and taking them out.

use rusqlite::{Connection, params};

use super::super::{Error, Place, Result};
use super::transaction::{Transaction, Weight, hour_of};
use super::{groups, messages, rows};
use crate::mail::{Mail, MessageId, RepositoryPath};

/// A part of a settled mail under a key of its own.
pub(super) struct Child<'a> {
    pub(super) mail: &'a Mail,
    pub(super) parent: i64,
    pub(super) repository: i64,
    /// Since 1970, in which the parent was accepted.
    pub(super) hour: i64,
    /// The pass that made it counted.
    pub(super) attempted: bool,
}

/// Inserts a part that gets a key of its own; it shares the message, and the attempts so far.
pub(super) fn insert_child(tx: &Transaction<'_>, child: &Child<'_>) -> Result<()> {
    let mail = child.mail;
    let (dsn, id) = (rows::Dsn::of(&mail.envelope)?, tx.next_number()?);
    tx.prepare_cached(
        "INSERT INTO mail (id, key, name, origin, repository, seq, accepted, last_updated, run, attempts, \
         last_attempt, records, sender, recipients, smtputf8, state, error, attributes, header_prefix, message, \
         passes, client, ret, envid, notify, return_path) \
         SELECT ?4, ?1, ?2, parent.key, ?3, ?4, parent.accepted, ?5, parent.run, parent.attempts, \
         CASE WHEN ?15 THEN ?5 ELSE parent.last_attempt END, parent.records, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, \
         ?16, parent.client, ?17, ?18, ?19, ?20 \
         FROM mail parent WHERE parent.id = ?14",
    )?
    .execute(params![
        mail.key.as_str(),
        mail.name,
        child.repository,
        id,
        tx.millis(),
        rows::sender(&mail.envelope.reverse_path),
        rows::to_json(&mail.envelope.recipients)?,
        mail.envelope.smtputf8,
        mail.state,
        mail.error,
        rows::to_json(&mail.attributes)?,
        mail.header_prefix,
        mail.message.0,
        child.parent,
        child.attempted,
        mail.passes(),
        dsn.ret,
        dsn.envid,
        dsn.notify,
        dsn.return_path,
    ])?;
    tx.add(Weight {
        repository: child.repository,
        passes: mail.passes(),
        hour: child.hour,
        octets: mail.facts.size,
        acknowledged: false,
    });
    messages::share(tx, mail.message)?;
    inherit(tx, id, child)?;
    groups::refresh(tx, id, mail)
}

/// The child shares its parent's attempts up to now, what the parent itself shares, and what
/// operators did so far.
fn inherit(tx: &Transaction<'_>, id: i64, child: &Child<'_>) -> Result<()> {
    let key = child.mail.key.as_str();
    tx.prepare_cached(
        "INSERT INTO lineage (key, origin, upto, recipients) SELECT ?1, key, ?2, ?3 FROM mail WHERE id = ?4",
    )?
    .execute(params![key, id, rows::to_json(&child.mail.envelope.recipients)?, child.parent])?;
    tx.prepare_cached(
        "INSERT INTO operation_mail (key, operation) SELECT ?1, operation FROM operation_mail \
         WHERE key = (SELECT key FROM mail WHERE id = ?2)",
    )?
    .execute(params![key, child.parent])?;
    Ok(())
}

/// Takes a mail out for good, on account of an operation where one does it; its attempts stay
/// for the retention time.
pub(super) fn take_out(tx: &Transaction<'_>, id: i64, operation: Option<i64>) -> Result<()> {
    groups::forget(tx, id)?;
    let (key, message, mut weight): (String, i64, Weight) = tx
        .prepare_cached(
            "DELETE FROM mail WHERE id = ?1 \
             RETURNING key, message, repository, passes, acknowledged IS NOT NULL, accepted",
        )?
        .query_row([id], |row| {
            let hour = hour_of(row.get(5)?);
            let (repository, passes, acknowledged) = (row.get(2)?, row.get(3)?, row.get(4)?);
            let weight = Weight { repository, passes, hour, octets: 0, acknowledged };
            Ok((row.get(0)?, row.get(1)?, weight))
        })?;
    tx.prepare_cached(
        "INSERT INTO released (key, at, operation) VALUES (?1, ?2, ?3) \
         ON CONFLICT (key) DO UPDATE SET at = ?2, operation = ?3",
    )?
    .execute(params![key, tx.millis(), operation])?;
    weight.octets = messages::let_go(tx, MessageId(message))?;
    tx.subtract(weight);
    Ok(())
}

/// Which of `paths` are not known yet.
pub(super) fn unknown(connection: &Connection, paths: &[RepositoryPath]) -> Result<Vec<RepositoryPath>> {
    let mut unknown = Vec::new();
    for path in paths {
        match rows::place_id(connection, &Place::Repository(path.clone())) {
            Ok(_) => {}
            Err(Error::NoSuchRepository(path)) => unknown.push(path),
            Err(error) => return Err(error),
        }
    }
    Ok(unknown)
}

/// The number of a repository, which is made where it is not known.
pub(super) fn ensure(tx: &Transaction<'_>, path: &RepositoryPath) -> Result<i64> {
    match rows::place_id(tx, &Place::Repository(path.clone())) {
        Err(Error::NoSuchRepository(_)) => {}
        found => return found,
    }
    tx.prepare_cached("INSERT INTO repository (path, created) VALUES (?1, ?2)")?
        .execute(params![path.as_str(), tx.millis()])?;
    Ok(tx.last_insert_rowid())
}
