//! Putting mails where they rest, and what administrators do with them there.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::{Error, NewMail, NewMessage, Place, Respool, Result, Time};
use super::instance::next_number;
use super::{messages, rows};
use crate::mail::{Mail, MailKey, RepositoryPath, attribute};

/// Takes a mail into the spool.
pub(super) fn insert(connection: &Connection, mail: &NewMail, now: Time) -> Result<()> {
    if let Some(digest) = &mail.import_digest {
        note_import(connection, digest, &mail.key, now)?;
    }
    let message = match &mail.message {
        NewMessage::Whole(octets) => messages::store_whole(connection, octets)?,
        NewMessage::Written(message) => *message,
    };
    messages::own(connection, message, &mail.facts)?;
    let seq = next_number(connection)?;
    connection
        .prepare_cached(
            "INSERT INTO mail (key, name, repository, seq, accepted, last_updated, sender, recipients, smtputf8, \
             state, attributes, message) VALUES (?1, ?2, 0, ?3, ?4, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            mail.key.as_str(),
            mail.name,
            seq,
            now.timestamp_millis(),
            rows::sender(&mail.envelope.reverse_path),
            rows::to_json(&mail.envelope.recipients)?,
            mail.envelope.smtputf8,
            mail.state,
            rows::to_json(&mail.attributes)?,
            message.0,
        ])?;
    Ok(())
}

fn note_import(connection: &Connection, digest: &str, key: &MailKey, now: Time) -> Result<()> {
    let before = connection
        .prepare_cached("SELECT key FROM imported WHERE digest = ?1")?
        .query_row([digest], |row| row.get::<_, String>(0))
        .optional()?;
    if let Some(before) = before {
        return Err(Error::ImportedBefore(rows::key(&before)?));
    }
    connection.prepare_cached("INSERT INTO imported (digest, key, at) VALUES (?1, ?2, ?3)")?.execute(params![
        digest,
        key.as_str(),
        now.timestamp_millis()
    ])?;
    Ok(())
}

/// A part of a settled mail under a key of its own.
pub(super) struct Child<'a> {
    pub(super) mail: &'a Mail,
    pub(super) parent: i64,
    pub(super) repository: i64,
    /// The pass that made it counted.
    pub(super) attempted: bool,
}

/// Inserts a part that gets a key of its own; it shares the message, and the attempts so far.
pub(super) fn insert_child(connection: &Connection, child: &Child<'_>, now: Time) -> Result<()> {
    let mail = child.mail;
    let seq = next_number(connection)?;
    connection
        .prepare_cached(
            "INSERT INTO mail (key, name, origin, repository, seq, accepted, last_updated, run, attempts, \
             last_attempt, records, sender, recipients, smtputf8, state, error, attributes, header_prefix, message) \
             SELECT ?1, ?2, parent.key, ?3, ?4, parent.accepted, ?5, parent.run, parent.attempts, \
             CASE WHEN ?15 THEN ?5 ELSE parent.last_attempt END, parent.records, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13 \
             FROM mail parent WHERE parent.id = ?14",
        )?
        .execute(params![
            mail.key.as_str(),
            mail.name,
            child.repository,
            seq,
            now.timestamp_millis(),
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
        ])?;
    let id = connection.last_insert_rowid();
    messages::share(connection, mail.message)?;
    inherit(connection, id, child.parent)
}

/// The child shares its parent's attempts up to now, and what the parent itself shares.
fn inherit(connection: &Connection, child: i64, parent: i64) -> Result<()> {
    connection
        .prepare_cached("INSERT INTO lineage (mail, key, upto) SELECT ?1, key, upto FROM lineage WHERE mail = ?2")?
        .execute([child, parent])?;
    connection
        .prepare_cached(
            "INSERT INTO lineage (mail, key, upto) SELECT ?1, key, \
             (SELECT coalesce(max(id), 0) FROM attempt WHERE attempt.mail = parent.key) \
             FROM mail parent WHERE parent.id = ?2",
        )?
        .execute([child, parent])?;
    Ok(())
}

/// Takes a mail out for good; its attempts stay for the retention time.
pub(super) fn take_out(connection: &Connection, id: i64, now: Time) -> Result<()> {
    let (key, message): (String, i64) = connection
        .prepare_cached("DELETE FROM mail WHERE id = ?1 RETURNING key, message")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    connection
        .prepare_cached("INSERT INTO released (key, at) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET at = ?2")?
        .execute(params![key, now.timestamp_millis()])?;
    messages::let_go(connection, crate::mail::MessageId(message))
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

pub(super) fn ensure_all(connection: &Connection, paths: &[RepositoryPath], now: Time) -> Result<()> {
    paths.iter().try_for_each(|path| ensure(connection, path, now).map(drop))
}

/// The number of a repository, which is made where it is not known.
pub(super) fn ensure(connection: &Connection, path: &RepositoryPath, now: Time) -> Result<i64> {
    connection
        .prepare_cached("INSERT INTO repository (path, created) VALUES (?1, ?2) ON CONFLICT (path) DO NOTHING")?
        .execute(params![path.as_str(), now.timestamp_millis()])?;
    rows::place_id(connection, &Place::Repository(path.clone()))
}

/// What administrators need of a mail; it may be one that cannot be read.
struct AtRest {
    id: i64,
    recipients: String,
}

/// A mail of a place that nobody has in hand.
fn at_rest(connection: &Connection, place: &Place, key: &MailKey) -> Result<AtRest> {
    let repository = rows::place_id(connection, place)?;
    let found = connection
        .prepare_cached("SELECT claimed, id, recipients FROM mail WHERE key = ?1 AND repository = ?2")?
        .query_row(params![key.as_str(), repository], |row| {
            let found = AtRest { id: row.get(1)?, recipients: row.get(2)? };
            Ok((row.get::<_, bool>(0)?, found))
        })
        .optional()?;
    match found {
        Some((false, found)) => Ok(found),
        Some((true, _)) => Err(Error::InHand(key.clone())),
        None => Err(Error::NoSuchMail(key.clone())),
    }
}

/// A mail of a place.
pub(super) fn find(connection: &Connection, place: &Place, key: &MailKey) -> Result<rows::MailRow> {
    let repository = rows::place_id(connection, place)?;
    let sql = format!(
        "SELECT {} FROM mail JOIN message ON message.id = mail.message WHERE mail.key = ?1 AND mail.repository = ?2",
        rows::MAIL_COLUMNS
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(params![key.as_str(), repository])?;
    found.next()?.map(rows::mail).transpose()?.ok_or_else(|| Error::NoSuchMail(key.clone()))
}

/// Puts a mail into the spool for `processor`, as one transaction.
pub(super) fn respool(connection: &Connection, place: &Place, key: &MailKey, how: &Respool, now: Time) -> Result<()> {
    // One that cannot be read would stand in the spool, where nobody could reach it.
    let rows::MailRow { id, listed, .. } = find(connection, place, key)?;
    if listed.in_hand {
        return Err(Error::InHand(key.clone()));
    }
    if how.upto.is_some_and(|upto| listed.seq > upto) {
        return Err(Error::NoSuchMail(key.clone()));
    }
    let mut attributes = listed.mail.attributes;
    attributes.increment(attribute::REPROCESSING);
    for counter in &how.reset {
        attributes.remove(counter);
    }
    connection
        .prepare_cached(
            "UPDATE mail SET repository = 0, seq = ?2, state = ?3, error = NULL, attributes = ?4, last_updated = ?5, \
             run = NULL, suspect = 0, attempts = CASE WHEN ?6 THEN 0 ELSE attempts END WHERE id = ?1",
        )?
        .execute(params![
            id,
            next_number(connection)?,
            how.processor,
            rows::to_json(&attributes)?,
            now.timestamp_millis(),
            !how.reset.is_empty(),
        ])?;
    note_action(connection, "reprocess", place, key, Some(&how.processor), now)
}

pub(super) fn move_to(
    connection: &Connection,
    place: &Place,
    key: &MailKey,
    to: &RepositoryPath,
    now: Time,
) -> Result<()> {
    let row = at_rest(connection, place, key)?;
    let repository = rows::place_id(connection, &Place::Repository(to.clone()))?;
    connection
        .prepare_cached("UPDATE mail SET repository = ?2, seq = ?3, last_updated = ?4, run = NULL WHERE id = ?1")?
        .execute(params![row.id, repository, next_number(connection)?, now.timestamp_millis()])?;
    note_action(connection, "move", place, key, Some(to.as_str()), now)
}

pub(super) fn remove(connection: &Connection, place: &Place, key: &MailKey, now: Time) -> Result<()> {
    let row = at_rest(connection, place, key)?;
    take_out(connection, row.id, now)?;
    note_action(connection, "remove", place, key, Some(&row.recipients), now)
}

/// Notes what was done to a mail otherwise than by delivery, as an operation of its own.
pub(super) fn note_action(
    connection: &Connection,
    verb: &str,
    place: &Place,
    key: &MailKey,
    detail: Option<&str>,
    now: Time,
) -> Result<()> {
    let repository = match place {
        Place::Spool => "",
        Place::Repository(path) => path.as_str(),
    };
    connection
        .prepare_cached("INSERT INTO operation (at, who, verb, repository, done) VALUES (?1, '', ?2, ?3, 1)")?
        .execute(params![now.timestamp_millis(), verb, repository])?;
    connection
        .prepare_cached("INSERT INTO operation_mail (key, operation, detail) VALUES (?1, ?2, ?3)")?
        .execute(params![key.as_str(), connection.last_insert_rowid(), detail])?;
    Ok(())
}
