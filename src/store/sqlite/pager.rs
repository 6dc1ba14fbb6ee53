//! A page of a listing, row by row.

use rusqlite::{Connection, Row, ToSql};

use super::super::{Page, Result, Span};
use super::rows;

/// A page of a table whose rows have numbers in the order in which they came. `select` has the
/// number first and a time second, up to its table; `condition` may have the one parameter ?2.
pub(super) fn numbered<T>(
    connection: &Connection,
    (select, condition): (&str, &str),
    parameter: &dyn ToSql,
    span: &Span,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Page<T>> {
    let after = span.after.as_ref().map(rows::cursor).transpose()?;
    let (behind, direction, after) = if span.newest_first {
        ("id < ?1", "DESC", after.unwrap_or(i64::MAX))
    } else {
        ("id > ?1", "ASC", after.unwrap_or(i64::MIN))
    };
    let sql = query(select, behind, condition, direction);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = statement.query(rusqlite::params![after, parameter])?;
    let mut pager = Pager::new(span);
    while let Some(row) = found.next()?
        && pager.goes_on()
    {
        pager.looked(row.get(0)?, row.get(1)?);
        pager.found(read(row)?);
    }
    Ok(pager.page())
}

fn query(select: &str, behind: &str, condition: &str, direction: &str) -> String {
    format!("{select} WHERE {behind} AND {condition} ORDER BY id {direction}")
}

/// How SQLite answers the queries of [`numbered`].
#[cfg(test)]
pub(super) fn plans(connection: &Connection) -> Result<Vec<(String, String)>> {
    let ways = [("operation", "?2 IS NULL"), ("run", "?2 IS NULL"), super::runs::OF_JOB];
    let queries = ways.map(|(table, condition)| query(&format!("SELECT * FROM {table}"), "id < ?1", condition, "DESC"));
    queries.into_iter().map(|query| Ok((query.clone(), super::claim::plan(connection, &query)?))).collect()
}

/// Gathers what matches among the rows that are looked at, up to the ends of a span.
pub(super) struct Pager<'a, T> {
    span: &'a Span,
    items: Vec<T>,
    looked: usize,
    /// The last row: its place, and its time.
    last: Option<(i64, i64)>,
    more: bool,
}

impl<'a, T> Pager<'a, T> {
    pub(super) fn new(span: &'a Span) -> Self {
        Self { span, items: Vec::new(), looked: 0, last: None, more: false }
    }

    /// Whether the row that was met is still looked at: one that is not shows that there are more.
    pub(super) fn goes_on(&mut self) -> bool {
        self.more = self.items.len() >= self.span.limit || self.looked >= self.span.look;
        !self.more
    }

    /// A row is looked at.
    pub(super) fn looked(&mut self, place: i64, millis: i64) {
        self.looked += 1;
        self.last = Some((place, millis));
    }

    /// It matches.
    pub(super) fn found(&mut self, item: T) {
        self.items.push(item);
    }

    pub(super) fn page(self) -> Page<T> {
        let last = self.last.filter(|_| self.more);
        let is_short = self.items.len() < self.span.limit;
        Page {
            items: self.items,
            next: last.map(|(place, _)| rows::new_cursor(place)),
            searched_to: last.filter(|_| is_short).map(|(_, millis)| rows::time(millis)),
        }
    }
}
