//! Stored failures by the million: copies of one that redeliver itself has stored.

use std::path::Path;

use rusqlite::{Connection, params};

use super::Outcome;

/// Copies written in one transaction.
const BATCH: u64 = 50_000;

/// Times of copies lie behind the mail that they copy: milliseconds.
pub(crate) enum Age {
    /// Attempted just now: none of them is due.
    Fresh,
    /// Attempted a day ago: all of them are due.
    Old,
}

/// Makes `number` copies of the one mail of the repository that ends with `from`, with
/// message, attempt and dialogue, in repository `to`.
pub(crate) fn copy(database: &Path, from: &str, to: &str, number: u64, age: &Age) -> Outcome<()> {
    let connection = Connection::open(database)?;
    connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -200000")?;
    let template: (i64, String) = connection.query_row(
        "SELECT mail.id, key FROM mail JOIN repository ON repository.id = mail.repository WHERE path LIKE ?1 LIMIT 1",
        [format!("%{from}")],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let to: i64 =
        connection.query_row("SELECT id FROM repository WHERE path LIKE ?1", [format!("%{to}")], |row| row.get(0))?;
    let back = if matches!(age, Age::Old) { 86_400_000 } else { 0 };
    let mut done = 0;
    while done < number {
        let batch = BATCH.min(number - done);
        connection.execute_batch("BEGIN")?;
        copy_batch(&connection, &template, to, batch, back)?;
        connection.execute_batch("COMMIT")?;
        done += batch;
    }
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA optimize")?;
    Ok(())
}

fn copy_batch(connection: &Connection, template: &(i64, String), to: i64, batch: u64, back: i64) -> Outcome<()> {
    let (mail, key) = template;
    let highest = |table: &str| {
        connection.query_row(&format!("SELECT coalesce(max(id), 0) FROM {table}"), [], |row| row.get::<_, i64>(0))
    };
    let (mails, messages, attempts) = (highest("mail")?, highest("message")?, highest("attempt")?);
    let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)";
    connection.execute(
        &format!(
            "{numbers} INSERT INTO message (id, size, mails) SELECT ?2 + i, size, 1 FROM n, \
             (SELECT size FROM message WHERE id = (SELECT message FROM mail WHERE id = ?3))"
        ),
        params![batch, messages, mail],
    )?;
    connection.execute(
        &format!(
            "{numbers} INSERT INTO chunk (id, octets) SELECT (?2 + i) * 1048576, octets FROM n, \
             (SELECT octets FROM chunk WHERE id = (SELECT message FROM mail WHERE id = ?3) * 1048576)"
        ),
        params![batch, messages, mail],
    )?;
    connection.execute(
        &format!(
            "{numbers} INSERT INTO mail (id, key, name, repository, seq, accepted, last_updated, attempts, \
             last_attempt, records, sender, recipients, state, attributes, message) \
             SELECT ?2 + i, printf('COPY%014d', ?2 + i), name, ?5, (SELECT value FROM sequence) + i, accepted - ?6, \
             last_updated - ?6, attempts, last_attempt - ?6, records, sender, recipients, state, attributes, ?4 + i \
             FROM n, (SELECT * FROM mail WHERE id = ?3)"
        ),
        params![batch, mails, mail, messages, to, back],
    )?;
    connection.execute(
        &format!(
            "{numbers} INSERT INTO attempt (id, mail, sender, number, started, finished, state, counted) \
             SELECT ?2 + i, printf('COPY%014d', ?4 + i), sender, number, started - ?5, finished - ?5, state, counted \
             FROM n, (SELECT * FROM attempt WHERE mail = ?3 LIMIT 1)"
        ),
        params![batch, attempts, key, mails, back],
    )?;
    connection.execute(
        &format!(
            "{numbers} INSERT INTO attempt_recipient (attempt, position, recipient, outcome, code, next_hop, record) \
             SELECT ?2 + i, position, recipient, outcome, code, next_hop, record FROM n, \
             (SELECT * FROM attempt_recipient WHERE attempt = (SELECT id FROM attempt WHERE mail = ?3 LIMIT 1))"
        ),
        params![batch, attempts, key],
    )?;
    connection.execute(
        &format!(
            "{numbers} INSERT INTO dialogue (attempt, entries) SELECT ?2 + i, entries FROM n, \
             (SELECT entries FROM dialogue WHERE attempt = (SELECT id FROM attempt WHERE mail = ?3 LIMIT 1))"
        ),
        params![batch, attempts, key],
    )?;
    connection.execute("UPDATE sequence SET value = value + ?1", [batch])?;
    Ok(())
}

/// Lets every mail of a repository have come to rest a day earlier than it did.
pub(crate) fn age_all(database: &Path, repository: &str) -> Outcome<()> {
    let connection = Connection::open(database)?;
    connection.execute_batch("PRAGMA synchronous = OFF")?;
    connection.execute(
        "UPDATE mail SET last_updated = last_updated - 86400000 WHERE repository = \
         (SELECT id FROM repository WHERE path LIKE ?1)",
        [format!("%{repository}")],
    )?;
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(())
}

/// Lets the mails that were attempted twice be due at once.
pub(crate) fn due_again(database: &Path) -> Outcome<()> {
    Connection::open(database)?.execute("UPDATE mail SET last_attempt = 0 WHERE attempts = 2", [])?;
    Ok(())
}
