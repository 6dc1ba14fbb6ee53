//! Repositories and their mails, by page. Pages begin behind a key of the order, never at
//! an offset, so that the last costs what the first does.

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, ToSql};
use tracing::warn;

use super::super::{Listed, MailFilter, Place, Result, Seq};
use super::{filing, rows};
use crate::mail::{self, MailKey, RepositoryPath, folded, folded_domain};

/// All repositories, by path.
pub(super) fn repositories(connection: &Connection) -> Result<Vec<RepositoryPath>> {
    let mut statement = connection.prepare_cached("SELECT path FROM repository WHERE id > 0 ORDER BY path")?;
    let paths = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    // A name that was valid when it was stored stays so; what is not is not listed.
    Ok(paths.iter().filter_map(|path| RepositoryPath::parse(path).ok()).collect())
}

/// Mails in a place.
pub(super) fn size(connection: &Connection, place: &Place) -> Result<u64> {
    let repository = rows::place_id(connection, place)?;
    let mut statement = connection.prepare_cached("SELECT count(*) FROM mail WHERE repository = ?1")?;
    Ok(statement.query_row([repository], |row| row.get(0))?)
}

/// A page of a place's mails, oldest first.
pub(super) fn list(
    connection: &Connection,
    place: &Place,
    filter: &MailFilter,
    after: Option<Seq>,
    limit: usize,
) -> Result<Vec<Listed>> {
    let repository = rows::place_id(connection, place)?;
    let after = after.map_or(i64::MIN, |seq| seq.0);
    let mut conditions = String::new();
    let mut values: Vec<Box<dyn ToSql>> = vec![Box::new(repository), Box::new(after)];
    for (condition, value) in conditions_of(filter) {
        values.push(value);
        conditions.push_str(" AND ");
        conditions.push_str(&condition.replace('?', &format!("?{}", values.len())));
    }
    let sql = format!(
        "SELECT {} FROM mail INDEXED BY mail_listed JOIN message ON message.id = mail.message \
         WHERE mail.repository = ?1 AND mail.seq > ?2{conditions} ORDER BY mail.seq",
        rows::MAIL_COLUMNS
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(rusqlite::params_from_iter(values.iter().map(|value| &**value)))?;
    let mut page = Vec::new();
    while page.len() < limit
        && let Some(row) = found.next()?
    {
        match rows::mail(row) {
            Ok(row) => page.push(row.listed),
            Err(error) if error.is_unreadable() => {
                let key: String = row.get(1)?;
                warn!(mail.id = key, %error, "the mail cannot be read and is passed over");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(page)
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
    if let Some(code) = filter.code {
        conditions.push(("json_extract(mail.attributes, '$.\"delivery-error-code\"') = ?", Box::new(code)));
    }
    if let Some(before) = filter.before {
        conditions.push(("mail.last_updated < ?", Box::new(before.timestamp_millis())));
    }
    if let Some(after) = filter.after {
        conditions.push(("mail.last_updated > ?", Box::new(after.timestamp_millis())));
    }
    if let Some(passes) = filter.passes {
        conditions.push(("coalesce(json_extract(mail.attributes, '$.AT_MOST_EXECUTIONS'), 0) = ?", Box::new(passes)));
    }
    conditions
}

const HAS_RECIPIENT: &str = "EXISTS (SELECT 1 FROM json_each(mail.recipients) WHERE is_named_by(value, ?))";

/// Gives a connection the functions that conditions use; SQLite's own know no case but that
/// of ASCII.
pub(super) fn add_functions(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_scalar_function("is_named_by", 2, flags, |context| {
        let text = |at| Ok::<_, rusqlite::Error>(context.get_raw(at).as_str()?);
        Ok(mail::is_named_by(text(0)?, text(1)?))
    })
}

/// One mail of a place.
pub(super) fn find(connection: &Connection, place: &Place, key: &MailKey) -> Result<Listed> {
    Ok(filing::find(connection, place, key)?.listed)
}
