//! Repositories and their mails, by page. Pages begin behind a key of the order, never at
//! an offset, so that the last costs what the first does.

use std::borrow::Cow;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, OptionalExtension, ToSql, params};
use tracing::warn;

use super::super::{
    AttemptFilter, Catalogue, Cursor, Error, Horizon, Lineage, Listed, MailFilter, OutcomeTotal, Page, Period, Place,
    Recipients, Result, SeenHop, Span, Sums, Time,
};
use super::pager::Pager;
use super::transaction::{hour_of, last_number};
use super::{SqliteStore, attempts, history, messages, rows};
use crate::mail::{self, Attempt, Mail, MailKey, MessageId, Recorded, RepositoryPath, folded, folded_domain};

#[async_trait]
impl Catalogue for SqliteStore {
    async fn repositories(&self) -> Result<Vec<RepositoryPath>> {
        self.read(repositories).await
    }

    async fn size(&self, place: &Place) -> Result<u64> {
        let place = place.clone();
        self.read(move |connection| size(connection, &place)).await
    }

    async fn sums(&self) -> Result<Vec<(Place, Sums)>> {
        self.read(sums).await
    }

    async fn accepted(&self, repository: &RepositoryPath) -> Result<Vec<(Time, u64)>> {
        let place = Place::Repository(repository.clone());
        self.read(move |connection| accepted(connection, &place)).await
    }

    async fn horizon(&self) -> Result<Horizon> {
        self.read(last_number).await.map(rows::new_horizon)
    }

    async fn list(&self, place: &Place, filter: &MailFilter, span: &Span) -> Result<Page<Listed>> {
        let (place, filter, span) = (place.clone(), filter.clone(), span.clone());
        self.read(move |connection| list(connection, &place, &filter, &span)).await
    }

    async fn behind(&self, place: &Place, mails: usize) -> Result<Option<Cursor>> {
        let place = place.clone();
        self.read(move |connection| behind_mails(connection, &place, mails)).await
    }

    async fn find(&self, place: &Place, key: &MailKey) -> Result<Listed> {
        let (place, key) = (place.clone(), key.clone());
        self.read(move |connection| Ok(find(connection, &place, &key)?.listed)).await
    }

    async fn content(&self, message: MessageId, number: u32) -> Result<Bytes> {
        self.read(move |connection| messages::row(connection, message, number)).await
    }

    async fn first_rows(&self, messages: &[MessageId]) -> Result<Vec<Option<Bytes>>> {
        let messages = messages.to_vec();
        self.read(move |connection| messages.into_iter().map(|one| messages::stored_row(connection, one, 0)).collect())
            .await
    }

    async fn attempts_of(&self, mail: &Mail) -> Result<Vec<Attempt>> {
        let mail = mail.clone();
        self.read(move |connection| attempts::of_mail(connection, &mail)).await
    }

    async fn lineage_of(&self, key: &MailKey) -> Result<Lineage> {
        let key = key.clone();
        self.read(move |connection| attempts::lineage_of(connection, &key)).await
    }

    async fn last_outcomes(&self, mails: &[Mail]) -> Result<Vec<Vec<Option<Recorded>>>> {
        let mails = mails.to_vec();
        self.read(move |connection| mails.iter().map(|mail| attempts::last_outcomes(connection, mail)).collect()).await
    }

    async fn attempts(&self, filter: &AttemptFilter, span: &Span) -> Result<Page<Attempt>> {
        let (filter, span) = (filter.clone(), span.clone());
        self.read(move |connection| attempts::page(connection, &filter, &span)).await
    }

    async fn outcome_totals(&self) -> Result<Vec<OutcomeTotal>> {
        self.read(outcome_totals).await
    }

    async fn history(&self, since: Time) -> Result<Vec<Period>> {
        self.read(move |connection| history::since(connection, since.timestamp_millis())).await
    }

    async fn hops(&self, hours: u32) -> Result<Vec<SeenHop>> {
        let since = hour_of(self.now().timestamp_millis()) - i64::from(hours);
        self.read(move |connection| hops(connection, since)).await
    }
}

/// All repositories, by path.
fn repositories(connection: &Connection) -> Result<Vec<RepositoryPath>> {
    let mut statement = connection.prepare_cached("SELECT path FROM repository WHERE id > 0 ORDER BY path")?;
    let paths = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    // A name that was valid when it was stored stays so; what is not is not listed.
    Ok(paths.iter().filter_map(|path| RepositoryPath::parse(path).ok()).collect())
}

/// Mails in a place.
fn size(connection: &Connection, place: &Place) -> Result<u64> {
    let repository = rows::place_id(connection, place)?;
    let mut statement =
        connection.prepare_cached("SELECT coalesce(sum(mails), 0) FROM place_sum WHERE repository = ?1")?;
    Ok(statement.query_row([repository], |row| row.get(0))?)
}

fn sums(connection: &Connection) -> Result<Vec<(Place, Sums)>> {
    let mut statement = connection.prepare_cached(
        "SELECT path, passes, mails, octets, mails - acknowledged FROM repository \
         LEFT JOIN place_sum ON repository = id AND mails > 0 ORDER BY path, passes",
    )?;
    let mut found = statement.query([])?;
    let mut all: Vec<(Place, Sums)> = Vec::new();
    while let Some(row) = found.next()? {
        let path: String = row.get(0)?;
        let place = if path.is_empty() {
            Place::Spool
        } else if let Ok(path) = RepositoryPath::parse(&path) {
            Place::Repository(path)
        } else {
            continue;
        };
        if all.last().is_none_or(|(last, _)| *last != place) {
            all.push((place, Sums::default()));
        }
        if let (Some(passes), Some((_, sums))) = (row.get(1)?, all.last_mut()) {
            let mails = row.get(2)?;
            sums.mails += mails;
            sums.octets += row.get::<_, u64>(3)?;
            sums.unacknowledged += row.get::<_, u64>(4)?;
            sums.by_passes.push((passes, mails));
        }
    }
    Ok(all)
}

const ACCEPTED: &str = "SELECT hour, mails FROM place_hour WHERE repository = ?1 ORDER BY hour";

fn accepted(connection: &Connection, place: &Place) -> Result<Vec<(Time, u64)>> {
    let repository = rows::place_id(connection, place)?;
    let mut statement = connection.prepare_cached(ACCEPTED)?;
    let hours = statement.query_map([repository], |row| Ok((time_of(row.get(0)?), row.get(1)?)))?;
    Ok(hours.collect::<rusqlite::Result<_>>()?)
}

/// When an hour since 1970 begins.
fn time_of(hour: i64) -> Time {
    rows::time(hour.saturating_mul(3_600_000))
}

/// A page of a place's mails, by the order in which they came to rest; of a failure group, by
/// that in which they were accepted.
fn list(connection: &Connection, place: &Place, filter: &MailFilter, span: &Span) -> Result<Page<Listed>> {
    let repository = rows::place_id(connection, place)?;
    let walk = if filter.group.is_some() { &BY_GROUP } else { &BY_PLACE };
    let (after, before) = behind(span)?;
    let beyond = filter.beyond.as_ref().map_or(Ok(i64::MIN), rows::horizon)?;
    let within = filter.within.as_ref().map_or(Ok(i64::MAX), rows::horizon)?;
    let mut values: Vec<Box<dyn ToSql>> =
        [repository, after, before, beyond, within].map(|value| Box::new(value) as Box<dyn ToSql>).into();
    values.push(Box::new(filter.group.as_ref().map(ToString::to_string)));
    let mut matches = "1".to_owned();
    for (condition, value) in conditions_of(filter) {
        values.push(value);
        matches.push_str(" AND ");
        matches.push_str(&condition.replace('?', &format!("?{}", values.len())));
    }
    let mut statement = connection.prepare_cached(&walk.sql(&matches, span.newest_first))?;
    let mut found = statement.query(rusqlite::params_from_iter(values.iter().map(|value| &**value)))?;
    let mut by_id = connection.prepare_cached(rows::MAIL_BY_ID)?;
    let mut pager = Pager::new(span);
    while let Some(row) = found.next()?
        && pager.goes_on()
    {
        pager.looked(row.get(0)?, row.get(1)?);
        if !row.get::<_, bool>(2)? {
            continue;
        }
        match by_id.query_and_then([row.get::<_, i64>(3)?], rows::mail)?.next() {
            Some(Ok(row)) => pager.found(row.listed),
            Some(Err(error)) if error.is_unreadable() => {
                let key: String = row.get(4)?;
                warn!(mail.id = key, %error, "the mail cannot be read and is passed over");
            }
            Some(Err(error)) => return Err(error),
            None => {}
        }
    }
    Ok(pager.page())
}

/// In which order mails are met, each row by a step in an index.
struct Walk {
    from: &'static str,
    /// The column of the order.
    order: &'static str,
}

const BY_PLACE: Walk =
    Walk { from: "mail INDEXED BY mail_listed WHERE mail.repository = ?1 AND ?6 IS NULL", order: "mail.seq" };

const BY_GROUP: Walk = Walk {
    from: "mail_cause CROSS JOIN mail ON mail.id = mail_cause.mail \
           WHERE mail_cause.cause = ?6 AND mail_cause.repository = ?1",
    order: "mail_cause.mail",
};

impl Walk {
    /// The mails between two places of the order, and two horizons: the place, the time and whether
    /// each `matches`. Of most that is all that is looked at; the others are read by their numbers.
    fn sql(&self, matches: &str, newest_first: bool) -> String {
        let (Self { from, order }, direction) = (self, if newest_first { "DESC" } else { "ASC" });
        format!(
            "SELECT {order}, mail.last_updated, {matches}, mail.id, mail.key FROM {from} AND {order} > ?2 \
             AND {order} < ?3 AND mail.seq > ?4 AND mail.seq <= ?5 ORDER BY {order} {direction}"
        )
    }
}

/// The index has all that is needed.
const BEHIND: &str = "SELECT seq FROM mail INDEXED BY mail_listed WHERE repository = ?1 ORDER BY seq LIMIT 1 OFFSET ?2";

fn behind_mails(connection: &Connection, place: &Place, mails: usize) -> Result<Option<Cursor>> {
    let repository = rows::place_id(connection, place)?;
    let Some(before) = mails.checked_sub(1) else { return Ok(Some(rows::new_cursor(i64::MIN))) };
    let before = i64::try_from(before).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(BEHIND)?;
    let last = statement.query_row([repository, before], |row| row.get(0)).optional()?;
    Ok(last.map(rows::new_cursor))
}

/// How SQLite answers the queries of a listing.
#[cfg(test)]
pub(super) fn plans(connection: &Connection) -> Result<Vec<(String, String)>> {
    let ways = [(&BY_PLACE, false), (&BY_PLACE, true), (&BY_GROUP, false), (&BY_GROUP, true)];
    let queries = ways.into_iter().map(|(walk, newest_first)| walk.sql("1", newest_first));
    queries
        .chain([ACCEPTED.to_owned(), BEHIND.to_owned(), HOPS.to_owned(), rows::MAIL_BY_KEY.to_owned()])
        .chain(attempts::queries_of_one_mail())
        .map(|query| Ok((query.clone(), super::claim::plan(connection, &query)?)))
        .collect()
}

/// Between which places of the order a page lies.
fn behind(span: &Span) -> Result<(i64, i64)> {
    let after = span.after.as_ref().map(rows::cursor).transpose()?;
    Ok(match after {
        Some(after) if span.newest_first => (i64::MIN, after),
        Some(after) => (after, i64::MAX),
        None => (i64::MIN, i64::MAX),
    })
}

/// The filter as SQL, one condition with one value each.
fn conditions_of(filter: &MailFilter) -> Vec<(&'static str, Box<dyn ToSql>)> {
    let mut conditions: Vec<(&'static str, Box<dyn ToSql>)> = Vec::new();
    if let Some(sender) = &filter.sender {
        conditions.push(("is_named_by(coalesce(mail.sender, '<>'), ?)", Box::new(folded(sender))));
    }
    if let Some(recipient) = &filter.recipient {
        conditions.push((HAS_RECIPIENT, Box::new(folded(recipient))));
    }
    if let Some(domain) = &filter.domain {
        conditions.push((HAS_RECIPIENT, Box::new(format!("*@{}", folded_domain(domain)))));
    }
    if let Some(client) = &filter.client {
        conditions.push(("mail.client IS ?", Box::new(client.clone())));
    }
    if let Some(code) = filter.code {
        conditions.push((HAS_CODE, Box::new(code)));
    }
    if let Some(next_hop) = &filter.next_hop {
        conditions.push((HAS_HOP, Box::new(next_hop.to_lowercase())));
    }
    if let Some(text) = &filter.text {
        conditions.push((SAYS, Box::new(text.to_lowercase())));
    }
    if let Some(before) = filter.before {
        conditions.push(("mail.last_updated < ?", Box::new(before.timestamp_millis())));
    }
    if let Some(after) = filter.after {
        conditions.push(("mail.last_updated > ?", Box::new(after.timestamp_millis())));
    }
    if let Some(passes) = filter.passes {
        conditions.push(("mail.passes = ?", Box::new(passes)));
    }
    if let Some(acknowledged) = filter.acknowledged {
        conditions.push(("(mail.acknowledged IS NOT NULL) = ?", Box::new(acknowledged)));
    }
    conditions
}

const HAS_RECIPIENT: &str = "names_one(mail.recipients, ?)";

/// Of a mail in the spool only the attributes say it.
const HAS_CODE: &str = "(coalesce(json_extract(mail.attributes, '$.\"delivery-error-code\"') = ?, 0) OR \
     EXISTS (SELECT 1 FROM mail_cause JOIN cause ON cause.id = mail_cause.cause \
     WHERE mail_cause.mail = mail.id AND cause.code = ?))";

const HAS_HOP: &str = "EXISTS (SELECT 1 FROM mail_cause JOIN cause ON cause.id = mail_cause.cause \
     WHERE mail_cause.mail = mail.id AND cause.next_hop = ?)";

/// The whole reply stands in the attributes, for one recipient; for the others what their
/// causes have of it.
const SAYS: &str = "(mentions(mail.error, ?) OR mentions(json_extract(mail.attributes, '$.\"delivery-error\"'), ?) \
     OR EXISTS (SELECT 1 FROM mail_cause JOIN cause ON cause.id = mail_cause.cause \
     WHERE mail_cause.mail = mail.id AND mentions(cause.text, ?)))";

/// Gives a connection the functions that conditions use; SQLite's own know no case but that
/// of ASCII.
pub(super) fn add_functions(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_scalar_function("mentions", 2, flags, |context| {
        let text = |at| Ok::<_, rusqlite::Error>(context.get_raw(at).as_str_or_null()?.unwrap_or_default());
        Ok(text(0)?.to_lowercase().contains(text(1)?))
    })?;
    connection.create_scalar_function("is_named_by", 2, flags, |context| {
        let text = |at| Ok::<_, rusqlite::Error>(context.get_raw(at).as_str()?);
        Ok(mail::is_named_by(text(0)?, text(1)?))
    })?;
    // What is no list of addresses names nobody: who reads the mail is told so.
    connection.create_scalar_function("names_one", 2, flags, |context| {
        let text = |at| Ok::<_, rusqlite::Error>(context.get_raw(at).as_str()?);
        let (list, wanted) = (text(0)?, text(1)?);
        let all = serde_json::from_str::<Vec<Cow<'_, str>>>(list).unwrap_or_default();
        Ok(all.iter().any(|one| mail::is_named_by(one, wanted)))
    })
}

/// A mail of a place.
pub(super) fn find(connection: &Connection, place: &Place, key: &MailKey) -> Result<rows::MailRow> {
    let repository = rows::place_id(connection, place)?;
    let mut statement = connection.prepare_cached(rows::MAIL_BY_KEY)?;
    let mut found = statement.query(params![key.as_str(), repository])?;
    found.next()?.map(rows::mail).transpose()?.ok_or_else(|| Error::NoSuchMail(key.clone()))
}

fn outcome_totals(connection: &Connection) -> Result<Vec<OutcomeTotal>> {
    let mut statement = connection
        .prepare_cached("SELECT outcome, stage, class, recipients FROM outcome_sum ORDER BY outcome, stage, class")?;
    let mut found = statement.query([])?;
    let mut totals = Vec::new();
    while let Some(row) = found.next()? {
        totals.push(OutcomeTotal {
            outcome: rows::word(&row.get::<_, String>(0)?)?,
            stage: rows::word(&row.get::<_, String>(1)?)?,
            class: row.get(2)?,
            recipients: row.get(3)?,
        });
    }
    Ok(totals)
}

const HOPS: &str = "SELECT next_hop, sum(delivered), sum(deferred), sum(failed), last, max(last_at) FROM outcome_hour \
     WHERE hour >= ?1 GROUP BY next_hop ORDER BY next_hop";

/// Next hops since an hour. SQLite takes the other columns from the row with the largest time.
fn hops(connection: &Connection, since: i64) -> Result<Vec<SeenHop>> {
    let mut statement = connection.prepare_cached(HOPS)?;
    let mut found = statement.query([since])?;
    let mut hops = Vec::new();
    while let Some(row) = found.next()? {
        hops.push(SeenHop {
            next_hop: row.get(0)?,
            recipients: Recipients { delivered: row.get(1)?, deferred: row.get(2)?, failed: row.get(3)? },
            last: rows::from_json(&row.get::<_, String>(4)?)?,
        });
    }
    Ok(hops)
}
