//! Stored failures by the million: copies of one that redeliver itself has stored.

use std::path::Path;

use rusqlite::types::Value;
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

/// Makes `number` copies of the oldest mail for recipient `from`, with message, attempt and
/// dialogue, in repository `to`.
pub(crate) fn copy(database: &Path, from: &str, to: &str, number: u64, age: &Age) -> Outcome<()> {
    let connection = Connection::open(database)?;
    connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = -200000")?;
    let (mail, key): (i64, String) = connection.query_row(
        "SELECT id, key FROM mail WHERE recipients LIKE ?1 ORDER BY id LIMIT 1",
        [format!("%{from}%")],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let to_path = to;
    let to: i64 =
        connection.query_row("SELECT id FROM repository WHERE path LIKE ?1", [format!("%{to}")], |row| row.get(0))?;
    let back = if matches!(age, Age::Old) { 86_400_000 } else { 0 };
    let mut done = 0;
    while done < number {
        let batch = BATCH.min(number - done);
        connection.execute_batch("BEGIN")?;
        let key = key.clone();
        Copying { connection: &connection, mail, key, to, batch, back }.copy_batch()?;
        connection.execute_batch("COMMIT")?;
        done += batch;
        eprintln!("  {done} of {number} for {to_path}");
    }
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA optimize")?;
    Ok(())
}

/// What is copied how often, and where to.
struct Copying<'a> {
    connection: &'a Connection,
    /// Number and key of the mail that is copied.
    mail: i64,
    key: String,
    /// The repository of the copies.
    to: i64,
    /// Copies of this transaction.
    batch: u64,
    /// By how much they are older, in milliseconds.
    back: i64,
}

impl Copying<'_> {
    fn copy_batch(&self) -> Outcome<()> {
        let (mails, messages, attempts) = (self.highest("mail")?, self.highest("message")?, self.highest("attempt")?);
        self.copy_message(messages)?;
        self.copy_mail(mails, messages)?;
        self.copy_attempt(mails, attempts)?;
        self.count_in_groups(mails)?;
        self.count_in_sums()?;
        self.connection.execute("UPDATE tally SET x = x + ?1 WHERE kind = 0", [self.batch])?;
        Ok(())
    }

    fn highest(&self, table: &str) -> rusqlite::Result<i64> {
        self.connection.query_row(&format!("SELECT coalesce(max(id), 0) FROM {table}"), [], |row| row.get(0))
    }

    /// The first attempt of the mail that is copied.
    fn attempt(&self) -> rusqlite::Result<i64> {
        self.connection.query_row("SELECT id FROM attempt WHERE mail = ?1 LIMIT 1", [&self.key], |row| row.get(0))
    }

    /// Runs an INSERT that reads the numbers from 1 to the batch's as `n (i)`.
    fn insert(&self, sql: &str, values: impl rusqlite::Params) -> rusqlite::Result<usize> {
        let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)";
        self.connection.execute(&format!("{numbers} {sql}"), values)
    }

    fn copy_message(&self, messages: i64) -> Outcome<()> {
        self.insert(
            "INSERT INTO message (id, size, mails) SELECT ?2 + i, size, 1 FROM n, \
             (SELECT size FROM message WHERE id = (SELECT message FROM mail WHERE id = ?3))",
            params![self.batch, messages, self.mail],
        )?;
        self.insert(
            "INSERT INTO chunk (id, octets) SELECT (?2 + i) * 1048576, octets FROM n, \
             (SELECT octets FROM chunk WHERE id = (SELECT message FROM mail WHERE id = ?3) * 1048576)",
            params![self.batch, messages, self.mail],
        )?;
        Ok(())
    }

    fn copy_mail(&self, mails: i64, messages: i64) -> Outcome<()> {
        self.insert(
            "INSERT INTO mail (id, key, name, repository, seq, accepted, last_updated, attempts, last_attempt, \
             records, passes, sender, recipients, client, notify, return_path, state, error, attributes, \
             header_prefix, message) \
             SELECT ?2 + i, printf('COPY%014d', ?2 + i), name, ?5, (SELECT value FROM sequence) + i, accepted - ?6, \
             last_updated - ?6, attempts, last_attempt - ?6, records, passes, sender, recipients, client, notify, \
             return_path, state, error, attributes, header_prefix, ?4 + i \
             FROM n, (SELECT * FROM mail WHERE id = ?3)",
            params![self.batch, mails, self.mail, messages, self.to, self.back],
        )?;
        Ok(())
    }

    fn copy_attempt(&self, mails: i64, attempts: i64) -> Outcome<()> {
        self.insert(
            "INSERT INTO attempt (id, mail, sender, number, started, finished, state, counted) \
             SELECT ?2 + i, printf('COPY%014d', ?4 + i), sender, number, started - ?5, finished - ?5, state, counted \
             FROM n, (SELECT * FROM attempt WHERE mail = ?3 LIMIT 1)",
            params![self.batch, attempts, self.key, mails, self.back],
        )?;
        self.connection.execute(
            "INSERT INTO attempt_time (tens, first) SELECT started / 10000, id FROM attempt WHERE id = ?1 \
             ON CONFLICT DO NOTHING",
            [attempts + 1],
        )?;
        self.insert(
            "INSERT INTO attempt_recipient (id, recipient, outcome, code, next_hop, cause, record) \
             SELECT (?2 + i) << 20 | (id & 1048575), recipient, outcome, code, next_hop, cause, record FROM n, \
             (SELECT * FROM attempt_recipient WHERE id BETWEEN ?3 << 20 AND (?3 << 20 | 1048575))",
            params![self.batch, attempts, self.attempt()?],
        )?;
        self.insert(
            "INSERT INTO dialogue (attempt, entries) SELECT ?2 + i, entries FROM n, \
             (SELECT entries FROM dialogue WHERE attempt = (SELECT id FROM attempt WHERE mail = ?3 LIMIT 1))",
            params![self.batch, attempts, self.key],
        )?;
        Ok(())
    }

    /// The copies are in the failure groups of what they copy.
    fn count_in_groups(&self, mails: i64) -> Outcome<()> {
        self.insert(
            "INSERT INTO mail_cause (cause, repository, mail) SELECT cause, ?4, ?2 + i FROM n, \
             (SELECT cause FROM mail_cause WHERE mail = ?3)",
            params![self.batch, mails, self.mail, self.to],
        )?;
        let entered = "FROM mail_cause JOIN mail ON mail.id = mail_cause.mail WHERE mail.id = ?2";
        self.connection.execute(
            &format!(
                "INSERT INTO failure_group (cause, repository, mails, oldest, newest) \
                 SELECT cause, ?3, ?1, last_updated - ?4, last_updated - ?4 {entered} \
                 ON CONFLICT (cause, repository) DO UPDATE SET mails = mails + ?1, \
                 oldest = min(oldest, excluded.oldest), newest = max(newest, excluded.newest)"
            ),
            params![self.batch, self.mail, self.to, self.back],
        )?;
        self.connection.execute(
            &format!(
                "INSERT INTO failure_day (cause, repository, day, mails) \
                 SELECT cause, ?3, (last_updated - ?4) / 86400000, ?1 {entered} \
                 ON CONFLICT (cause, repository, day) DO UPDATE SET mails = mails + ?1"
            ),
            params![self.batch, self.mail, self.to, self.back],
        )?;
        Ok(())
    }

    fn count_in_sums(&self) -> Outcome<()> {
        self.connection.execute(
            "INSERT INTO tally (kind, a, b, x, y) \
             SELECT 1, ?3, passes, ?1, ?1 * size FROM mail JOIN message ON message.id = mail.message \
             WHERE mail.id = ?2 ON CONFLICT (kind, a, b, c) DO UPDATE SET x = x + ?1, y = y + excluded.y",
            params![self.batch, self.mail, self.to],
        )?;
        self.connection.execute(
            "INSERT INTO tally (kind, a, b, x) \
             SELECT 3, ?3, (accepted - ?4) / 3600000, ?1 FROM mail WHERE id = ?2 AND ?3 > 0 \
             ON CONFLICT (kind, a, b, c) DO UPDATE SET x = x + ?1",
            params![self.batch, self.mail, self.to, self.back],
        )?;
        let outcomes = "FROM attempt JOIN attempt_recipient ON attempt_recipient.id BETWEEN attempt.id << 20 \
                        AND (attempt.id << 20 | 1048575) WHERE attempt.id = (SELECT id FROM attempt WHERE mail = ?2 LIMIT 1)";
        self.connection.execute(
            &format!(
                "INSERT INTO tally (kind, a, b, c, x) \
                 SELECT 2, outcome, json_extract(record, '$.stage'), coalesce(code, 0) / 100, ?1 * count(*) {outcomes} \
                 GROUP BY 1, 2, 3, 4 ON CONFLICT (kind, a, b, c) DO UPDATE SET x = x + excluded.x"
            ),
            params![self.batch, self.key],
        )?;
        self.connection.execute(
            &format!(
                "INSERT INTO tally (kind, a, b, c, x, y, z, last_at, last) \
                 SELECT 4, (finished - ?3) / 3600000, 0, coalesce(next_hop, ''), 0, \
                 ?1 * sum(outcome = 'deferred'), ?1 * sum(outcome = 'failed'), finished - ?3, {WHOLE} \
                 {outcomes} GROUP BY next_hop ON CONFLICT (kind, a, b, c) DO UPDATE SET \
                 y = y + excluded.y, z = z + excluded.z"
            ),
            params![self.batch, self.key, self.back],
        )?;
        Ok(())
    }
}

/// A whole outcome as JSON of a row of attempt_recipient, whose record leaves out what the row has.
const WHOLE: &str = "json_set(record, '$.recipient', recipient, '$.outcome', outcome, '$.code', code, '$.nextHop', \
                     next_hop, '$.time', strftime('%Y-%m-%dT%H:%M:%SZ', (finished - ?3) / 1000, 'unixepoch'))";

/// What every sum must be, counted anew.
const COUNTED: [(&str, &str, &str); 6] = [
    (
        "the sums of places",
        "SELECT repository, passes, mails, octets, acknowledged FROM place_sum WHERE mails > 0 ORDER BY 1, 2",
        "SELECT repository, passes, count(*), sum(size), sum(acknowledged IS NOT NULL) FROM mail \
         JOIN message ON message.id = message GROUP BY 1, 2 ORDER BY 1, 2",
    ),
    (
        "the sums by hour of acceptance",
        "SELECT repository, hour, mails FROM place_hour ORDER BY 1, 2",
        "SELECT repository, accepted / 3600000, count(*) FROM mail WHERE repository > 0 GROUP BY 1, 2 ORDER BY 1, 2",
    ),
    (
        "the sums of failure groups",
        "SELECT cause, repository, mails FROM failure_group WHERE mails > 0 ORDER BY 1, 2",
        "SELECT cause, mail.repository, count(*) FROM mail_cause JOIN mail ON mail.id = mail GROUP BY 1, 2 ORDER BY 1, 2",
    ),
    (
        "the mails of failure groups",
        "SELECT cause, count(*) FROM mail_cause GROUP BY 1 ORDER BY 1",
        "SELECT cause, count(DISTINCT mail.id) FROM mail JOIN attempt ON attempt.mail = mail.key AND number = records \
         CROSS JOIN attempt_recipient ON attempt_recipient.id BETWEEN attempt.id << 20 AND (attempt.id << 20 | 1048575) \
         WHERE mail.repository > 0 AND cause IS NOT NULL \
         GROUP BY 1 ORDER BY 1",
    ),
    (
        "the outcomes in all",
        "SELECT outcome, stage, class, recipients FROM outcome_sum ORDER BY 1, 2, 3",
        "SELECT outcome, json_extract(record, '$.stage'), coalesce(code, 0) / 100, count(*) FROM attempt_recipient \
         GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    ),
    (
        "the outcomes by next hop",
        "SELECT next_hop, sum(delivered), sum(deferred), sum(failed) FROM outcome_hour GROUP BY 1 ORDER BY 1",
        "SELECT coalesce(next_hop, ''), sum(outcome = 'delivered'), sum(outcome = 'deferred'), \
         sum(outcome = 'failed') FROM attempt_recipient GROUP BY 1 ORDER BY 1",
    ),
];

/// Compares each sum that the store keeps with what it would count; an error names the first
/// that is wrong.
pub(crate) fn check(database: &Path) -> Outcome<()> {
    let connection = Connection::open(database)?;
    for (what, kept, counted) in COUNTED {
        let (kept, counted) = (rows(&connection, kept)?, rows(&connection, counted)?);
        if kept != counted {
            return Err(format!("{what} are {kept:?}, and should be {counted:?}").into());
        }
    }
    Ok(())
}

fn rows(connection: &Connection, sql: &str) -> Outcome<Vec<Vec<Value>>> {
    let mut statement = connection.prepare(sql)?;
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| (0..columns).map(|column| row.get(column)).collect())?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
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
