//! Failures by cause, kept right by whatever changes a mail, in the same transaction.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use rusqlite::{Connection, Row, params};

use super::super::groups::{DAYS, GROUPS_OF_A_MAIL, TEXTS_OF_A_HOP};
use super::super::{Cursor, FailureGroup, GroupFilter, Groups, Page, Place, Result, Span};
use super::transaction::Transaction;
use super::{SqliteStore, attempts, rows};
use crate::mail::{Address, CAUSE_VERSION, Cause, CauseId, Mail, OTHER_TEXTS, Recorded, RepositoryPath};

/// Mails named for each group.
const EXAMPLES: usize = 3;

const DAY: i64 = 86_400_000;

#[async_trait]
impl Groups for SqliteStore {
    async fn groups(&self, filter: &GroupFilter, span: &Span) -> Result<Page<FailureGroup>> {
        let (filter, span, today) = (filter.clone(), span.clone(), day_of(self.now().timestamp_millis()));
        self.read(move |connection| page(connection, &filter, &span, today)).await
    }

    async fn in_other_groups(&self, group: &CauseId, repository: &RepositoryPath) -> Result<u64> {
        let (group, place) = (group.clone(), Place::Repository(repository.clone()));
        self.read(move |connection| in_other_groups(connection, &group, &place)).await
    }
}

/// Of the first 10 000 of a group, which is as far as mails are counted.
const IN_OTHERS: &str = "SELECT count(*) FROM (SELECT mail FROM mail_cause WHERE cause = ?1 AND repository = ?2 LIMIT 10000) mine \
     WHERE EXISTS (SELECT 1 FROM mail_cause other WHERE other.mail = mine.mail AND other.cause <> ?1)";

fn in_other_groups(connection: &Connection, group: &CauseId, place: &Place) -> Result<u64> {
    let repository = rows::place_id(connection, place)?;
    let mut statement = connection.prepare_cached(IN_OTHERS)?;
    Ok(statement.query_row(params![group.as_str(), repository], |row| row.get(0))?)
}

fn day_of(millis: i64) -> i64 {
    millis.div_euclid(DAY)
}

/// The id of an outcome's cause, which is put on record where it is new; `None` of a delivery.
pub(super) fn cause_of(tx: &Transaction<'_>, outcome: &Recorded) -> Result<Option<String>> {
    Cause::of(outcome).map(|cause| known(tx, cause)).transpose()
}

fn known(tx: &Transaction<'_>, mut cause: Cause) -> Result<String> {
    let mut id = cause.id();
    if is_known(tx, &id)? {
        return Ok(id.to_string());
    }
    let texts: usize = tx
        .prepare_cached(
            "SELECT count(*) FROM (SELECT 1 FROM cause WHERE next_hop IS ?1 AND code IS ?2 AND text <> ?3 LIMIT ?4)",
        )?
        .query_row(params![cause.next_hop, cause.code, OTHER_TEXTS, TEXTS_OF_A_HOP], |row| row.get(0))?;
    if texts >= TEXTS_OF_A_HOP {
        cause = cause.with_other_text();
        id = cause.id();
    }
    tx.prepare_cached(
        "INSERT INTO cause (id, version, outcome, code, enhanced, stage, next_hop, text) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (id) DO NOTHING",
    )?
    .execute(params![
        id.as_str(),
        CAUSE_VERSION,
        cause.outcome.to_string(),
        cause.code,
        cause.enhanced,
        cause.stage.map(|stage| stage.to_string()).unwrap_or_default(),
        cause.next_hop,
        cause.text,
    ])?;
    Ok(id.to_string())
}

fn is_known(connection: &Connection, id: &CauseId) -> Result<bool> {
    Ok(connection.prepare_cached("SELECT 1 FROM cause WHERE id = ?1")?.exists([id.as_str()])?)
}

/// What is needed of a mail's row.
struct Standing {
    id: i64,
    repository: i64,
    acknowledged: bool,
}

fn standing(tx: &Transaction<'_>, id: i64) -> Result<Standing> {
    let mut statement = tx.prepare_cached("SELECT repository, acknowledged IS NOT NULL FROM mail WHERE id = ?1")?;
    Ok(statement.query_row([id], |row| Ok(Standing { id, repository: row.get(0)?, acknowledged: row.get(1)? }))?)
}

/// Puts a mail that came to rest, or lost recipients, into the groups of its recipients' last
/// failures. A group that it was in already, there, did not get it anew.
pub(super) fn refresh(tx: &Transaction<'_>, id: i64, mail: &Mail) -> Result<()> {
    let now = standing(tx, id)?;
    let wanted = if now.repository == 0 { HashSet::new() } else { causes(tx, mail)? };
    let mut missing = wanted.clone();
    for (cause, repository) in memberships(tx, id)? {
        if repository == now.repository && wanted.contains(&cause) {
            missing.remove(&cause);
        } else {
            leave(tx, &cause, repository, &now)?;
        }
    }
    missing.iter().try_for_each(|cause| enter(tx, cause, &now))
}

/// Takes a mail out of all its groups, before it goes or enters the spool.
pub(super) fn forget(tx: &Transaction<'_>, id: i64) -> Result<()> {
    let groups = memberships(tx, id)?;
    if groups.is_empty() {
        return Ok(());
    }
    let now = standing(tx, id)?;
    groups.iter().try_for_each(|(cause, repository)| leave(tx, cause, *repository, &now))
}

/// Lets a mail that has another repository by now take its groups with it.
pub(super) fn follow(tx: &Transaction<'_>, id: i64) -> Result<()> {
    let now = standing(tx, id)?;
    for (cause, repository) in memberships(tx, id)? {
        leave(tx, &cause, repository, &now)?;
        enter(tx, &cause, &now)?;
    }
    Ok(())
}

/// Counts that somebody took note of a mail (1), or that this is no longer so (-1).
pub(super) fn acknowledge(tx: &Transaction<'_>, id: i64, change: i64) -> Result<()> {
    tx.prepare_cached(
        "UPDATE failure_group SET acknowledged = acknowledged + ?2 \
         WHERE (cause, repository) IN (SELECT cause, repository FROM mail_cause WHERE mail = ?1)",
    )?
    .execute([id, change])?;
    Ok(())
}

fn memberships(tx: &Transaction<'_>, id: i64) -> Result<Vec<(String, i64)>> {
    let mut statement = tx.prepare_cached("SELECT cause, repository FROM mail_cause WHERE mail = ?1")?;
    let found = statement.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

fn enter(tx: &Transaction<'_>, cause: &str, mail: &Standing) -> Result<()> {
    let now = tx.millis();
    tx.prepare_cached("INSERT INTO mail_cause (cause, repository, mail) VALUES (?1, ?2, ?3)")?.execute(params![
        cause,
        mail.repository,
        mail.id
    ])?;
    // The first one after there was none begins it anew.
    tx.prepare_cached(
        "INSERT INTO failure_group (cause, repository, mails, acknowledged, oldest, newest) \
         VALUES (?1, ?2, 1, ?3, ?4, ?4) ON CONFLICT (cause, repository) DO UPDATE SET mails = mails + 1, \
         acknowledged = acknowledged + ?3, newest = ?4, oldest = CASE WHEN mails = 0 THEN ?4 ELSE oldest END",
    )?
    .execute(params![cause, mail.repository, mail.acknowledged, now])?;
    tx.prepare_cached(
        "INSERT INTO failure_day (cause, repository, day, mails) VALUES (?1, ?2, ?3, 1) \
         ON CONFLICT (cause, repository, day) DO UPDATE SET mails = mails + 1",
    )?
    .execute(params![cause, mail.repository, day_of(now)])?;
    Ok(())
}

fn leave(tx: &Transaction<'_>, cause: &str, repository: i64, mail: &Standing) -> Result<()> {
    tx.prepare_cached("DELETE FROM mail_cause WHERE cause = ?1 AND repository = ?2 AND mail = ?3")?
        .execute(params![cause, repository, mail.id])?;
    tx.prepare_cached(
        "UPDATE failure_group SET mails = mails - 1, acknowledged = acknowledged - ?3 \
         WHERE cause = ?1 AND repository = ?2",
    )?
    .execute(params![cause, repository, mail.acknowledged])?;
    Ok(())
}

/// The causes of the recipients' last failures, those of most recipients first where there are
/// too many.
fn causes(tx: &Transaction<'_>, mail: &Mail) -> Result<HashSet<String>> {
    let mut recipients: BTreeMap<String, usize> = BTreeMap::new();
    for (recipient, outcome) in mail.envelope.recipients.iter().zip(attempts::last_causes(tx, mail)?) {
        if let Some(cause) = cause_now(tx, mail, recipient, outcome)? {
            *recipients.entry(cause).or_default() += 1;
        }
    }
    let mut causes: Vec<_> = recipients.into_iter().collect();
    causes.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
    Ok(causes.into_iter().take(GROUPS_OF_A_MAIL).map(|(cause, _)| cause).collect())
}

/// What is known of a recipient's last outcome.
pub(super) enum LastCause {
    /// Its cause is on record; `None` of a delivery.
    Known(Option<String>),
    /// It was, and is put there again.
    Lost(Box<Recorded>),
    /// There was no attempt for him.
    NoAttempt,
}

fn cause_now(tx: &Transaction<'_>, mail: &Mail, recipient: &Address, last: LastCause) -> Result<Option<String>> {
    match (last, &mail.error) {
        (LastCause::Known(cause), _) => Ok(cause),
        (LastCause::Lost(outcome), _) => cause_of(tx, &outcome),
        (LastCause::NoAttempt, Some(error)) => known(tx, Cause::of_error(error, recipient)).map(Some),
        (LastCause::NoAttempt, None) => Ok(None),
    }
}

const COLUMNS: &str = "failure_group.cause, path, outcome, code, enhanced, stage, next_hop, text, \
     failure_group.mails, failure_group.mails - failure_group.acknowledged, oldest, newest, failure_group.repository";

/// Groups that have mails.
const ALL: &str = "?2 IS NULL AND failure_group.mails > 0 AND -failure_group.mails >= ?3";

/// Those of one cause, by repository.
const ONE: &str = "failure_group.cause = ?2";

/// The groups that `are` meant, those with most mails first, behind a place of that order.
fn query(are: &str) -> String {
    format!(
        "SELECT {COLUMNS} FROM failure_group CROSS JOIN cause ON cause.id = failure_group.cause \
         CROSS JOIN repository ON repository.id = failure_group.repository \
         WHERE {are} AND (?1 IS NULL OR path = ?1) \
         AND (-failure_group.mails, failure_group.cause, failure_group.repository) > (?3, ?4, ?5) \
         ORDER BY -failure_group.mails, failure_group.cause, failure_group.repository LIMIT ?6"
    )
}

/// How SQLite answers the queries for groups.
#[cfg(test)]
pub(super) fn plans(connection: &Connection) -> Result<Vec<(String, String)>> {
    let queries = [query(ALL), query(ONE), DAYS_OF.to_owned(), EXAMPLES_OF.to_owned(), IN_OTHERS.to_owned()];
    queries.into_iter().map(|query| Ok((query.clone(), super::claim::plan(connection, &query)?))).collect()
}

fn page(connection: &Connection, filter: &GroupFilter, span: &Span, today: i64) -> Result<Page<FailureGroup>> {
    let (mails, cause, repository) = match &span.after {
        Some(cursor) => place_of(cursor)?,
        None => (i64::MAX, String::new(), 0),
    };
    let mut statement = connection.prepare_cached(&query(if filter.id.is_some() { ONE } else { ALL }))?;
    let limit = span.limit.saturating_add(1);
    let mut found = statement.query(params![
        filter.repository.as_ref().map(RepositoryPath::as_str),
        filter.id.as_ref().map(CauseId::as_str),
        -mails,
        cause,
        repository,
        i64::try_from(limit).unwrap_or(i64::MAX),
    ])?;
    let mut page = Page { items: Vec::new(), next: None, searched_to: None };
    let mut last = None;
    while let Some(row) = found.next()? {
        if page.items.len() == span.limit {
            page.next = last;
            break;
        }
        let group = group(connection, row, today)?;
        last = Some(Cursor(format!("{}-{}-{}", group.mails, group.id, row.get::<_, i64>(12)?)));
        page.items.push(group);
    }
    Ok(page)
}

/// Behind which group a page begins: its mails, cause and repository.
fn place_of(cursor: &Cursor) -> Result<(i64, String, i64)> {
    let mut parts = cursor.0.split('-');
    let place = (|| {
        let mails = parts.next()?.parse().ok()?;
        let cause = CauseId::parse(parts.next()?)?;
        Some((mails, cause.to_string(), parts.next()?.parse().ok()?))
    })();
    place.ok_or_else(|| rows::not_ours(&cursor.0))
}

fn group(connection: &Connection, row: &Row<'_>, today: i64) -> Result<FailureGroup> {
    let (id, stage): (String, String) = (row.get(0)?, row.get(5)?);
    let repository: i64 = row.get(12)?;
    let path: String = row.get(1)?;
    Ok(FailureGroup {
        repository: RepositoryPath::parse(&path).map_err(|error| rows::corrupt(&error.to_string()))?,
        cause: Cause {
            outcome: rows::word(&row.get::<_, String>(2)?)?,
            code: row.get(3)?,
            enhanced: row.get(4)?,
            stage: if stage.is_empty() { None } else { Some(rows::word(&stage)?) },
            next_hop: row.get(6)?,
            text: row.get(7)?,
        },
        mails: row.get(8)?,
        unacknowledged: row.get(9)?,
        oldest: rows::time(row.get(10)?),
        newest: rows::time(row.get(11)?),
        days: days(connection, &id, repository, today)?,
        examples: examples(connection, &id, repository)?,
        id: CauseId::parse(&id).ok_or_else(|| rows::corrupt("a cause has no id"))?,
    })
}

const DAYS_OF: &str =
    "SELECT day, mails FROM failure_day WHERE cause = ?1 AND repository = ?2 AND day BETWEEN ?3 AND ?4";

fn days(connection: &Connection, cause: &str, repository: i64, today: i64) -> Result<[u64; DAYS]> {
    let mut statement = connection.prepare_cached(DAYS_OF)?;
    let first = today + 1 - i64::try_from(DAYS).unwrap_or(i64::MAX);
    let mut found = statement.query(params![cause, repository, first, today])?;
    let mut days = [0; DAYS];
    while let Some(row) = found.next()? {
        if let Ok(place) = usize::try_from(row.get::<_, i64>(0)? - first) {
            days[place] = row.get(1)?;
        }
    }
    Ok(days)
}

const EXAMPLES_OF: &str = "SELECT key FROM mail_cause CROSS JOIN mail ON mail.id = mail_cause.mail \
     WHERE cause = ?1 AND mail_cause.repository = ?2 ORDER BY mail_cause.mail DESC LIMIT ?3";

fn examples(connection: &Connection, cause: &str, repository: i64) -> Result<Vec<crate::mail::MailKey>> {
    let mut statement = connection.prepare_cached(EXAMPLES_OF)?;
    let keys = statement.query_map(params![cause, repository, EXAMPLES], |row| row.get::<_, String>(0))?;
    keys.map(|key| rows::key(&key?)).collect()
}

/// Days that nobody is shown any more, and groups without mails that got none since `before`:
/// at most `batch` of each; how many.
pub(super) fn purge(tx: &Transaction<'_>, before: i64, batch: i64) -> Result<usize> {
    let first = day_of(tx.millis()) + 1 - i64::try_from(DAYS).unwrap_or(i64::MAX);
    let mut purged = tx
        .prepare_cached(
            "DELETE FROM failure_day WHERE (cause, repository, day) IN \
             (SELECT cause, repository, day FROM failure_day WHERE day < ?1 LIMIT ?2)",
        )?
        .execute([first, batch])?;
    let mut statement = tx.prepare_cached(
        "DELETE FROM failure_group WHERE (cause, repository) IN \
         (SELECT cause, repository FROM failure_group WHERE mails = 0 AND newest < ?1 LIMIT ?2) RETURNING cause",
    )?;
    let gone = statement.query_map([before, batch], |row| row.get::<_, String>(0))?;
    for cause in gone.collect::<rusqlite::Result<Vec<_>>>()? {
        purged += 1;
        tx.prepare_cached(
            "DELETE FROM cause WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM failure_group WHERE cause = ?1)",
        )?
        .execute([cause])?;
    }
    Ok(purged)
}

/// Whether there is anything that [`purge`] would delete.
pub(super) fn any_expired(connection: &Connection, now: i64, before: i64) -> Result<bool> {
    let first = day_of(now) + 1 - i64::try_from(DAYS).unwrap_or(i64::MAX);
    let days = connection.prepare_cached("SELECT 1 FROM failure_day WHERE day < ?1 LIMIT 1")?.exists([first])?;
    let sql = "SELECT 1 FROM failure_group WHERE mails = 0 AND newest < ?1 LIMIT 1";
    Ok(days || connection.prepare_cached(sql)?.exists([before])?)
}
