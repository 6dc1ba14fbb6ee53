//! What became of recipients over time: by hour while it is new, by day after that.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::{Period, Recipients, Result};
use super::rows;
use super::transaction::Transaction;

/// Whole days that are kept by hour, today not counted.
const DAYS_BY_HOUR: i64 = 2;

/// Next hops that are kept by name for a day that is over.
const NAMED: usize = 50;

/// Stands for all other next hops of a day.
const OTHERS: &str = "*";

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// Whether [`fold`] has anything to do.
pub(super) fn is_foldable(connection: &Connection, now: i64, names_before: i64, before: i64) -> Result<bool> {
    let any = |sql: &str, value: i64| -> Result<bool> { Ok(connection.prepare_cached(sql)?.exists([value])?) };
    Ok(any("SELECT 1 FROM outcome_hour WHERE hour < ?1 LIMIT 1", first_day_by_hour(now) * 24)?
        || any("SELECT 1 FROM outcome_day WHERE day < ?1 LIMIT 1", before.div_euclid(DAY))?
        || any(NAMED_BEFORE, names_before.div_euclid(DAY))?)
}

const NAMED_BEFORE: &str = "SELECT 1 FROM outcome_day WHERE day < ?1 AND next_hop <> '*' LIMIT 1";

fn first_day_by_hour(now: i64) -> i64 {
    now.div_euclid(DAY) - DAYS_BY_HOUR
}

/// One step: a day that is over long enough is folded, or one whose names are no longer kept,
/// or sums that are too old go.
pub(super) fn fold(tx: &Transaction<'_>, names_before: i64, before: i64) -> Result<()> {
    let first = first_day_by_hour(tx.millis());
    let hour: Option<i64> = tx
        .prepare_cached("SELECT min(hour) FROM outcome_hour WHERE hour < ?1")?
        .query_row([first * 24], |row| row.get(0))?;
    if let Some(hour) = hour {
        return fold_hours(tx, hour.div_euclid(24));
    }
    tx.prepare_cached("DELETE FROM outcome_day WHERE day < ?1")?.execute([before.div_euclid(DAY)])?;
    let named: Option<i64> = tx
        .prepare_cached("SELECT min(day) FROM outcome_day WHERE day < ?1 AND next_hop <> '*'")?
        .query_row([names_before.div_euclid(DAY)], |row| row.get(0))
        .optional()?
        .flatten();
    named.map_or(Ok(()), |day| forget_names(tx, day))
}

/// The hours of one day become its sums: of those with the most by name, of the rest together.
fn fold_hours(tx: &Transaction<'_>, day: i64) -> Result<()> {
    let mut statement = tx.prepare_cached(
        "SELECT next_hop, sum(delivered), sum(deferred), sum(failed) FROM outcome_hour \
         WHERE hour BETWEEN ?1 AND ?1 + 23 GROUP BY next_hop \
         ORDER BY sum(delivered + deferred + failed) DESC, next_hop",
    )?;
    let sums = statement.query_map([day * 24], |row| {
        let recipients = Recipients { delivered: row.get(1)?, deferred: row.get(2)?, failed: row.get(3)? };
        Ok((row.get::<_, String>(0)?, recipients))
    })?;
    for (place, (next_hop, recipients)) in sums.collect::<rusqlite::Result<Vec<_>>>()?.iter().enumerate() {
        add(tx, day, if place < NAMED { next_hop } else { OTHERS }, *recipients)?;
    }
    tx.prepare_cached("DELETE FROM tally WHERE kind = 4 AND a BETWEEN ?1 AND ?1 + 23")?.execute([day * 24])?;
    Ok(())
}

/// The sums of a day stay, the names go.
fn forget_names(tx: &Transaction<'_>, day: i64) -> Result<()> {
    let sum = "SELECT coalesce(sum(delivered), 0), coalesce(sum(deferred), 0), coalesce(sum(failed), 0) \
               FROM outcome_day WHERE day = ?1 AND next_hop <> '*'";
    let named = tx.prepare_cached(sum)?.query_row([day], |row| {
        Ok(Recipients { delivered: row.get(0)?, deferred: row.get(1)?, failed: row.get(2)? })
    })?;
    tx.prepare_cached("DELETE FROM outcome_day WHERE day = ?1 AND next_hop <> '*'")?.execute([day])?;
    add(tx, day, OTHERS, named)
}

fn add(tx: &Transaction<'_>, day: i64, next_hop: &str, recipients: Recipients) -> Result<()> {
    let Recipients { delivered, deferred, failed } = recipients;
    tx.prepare_cached(
        "INSERT INTO outcome_day (day, next_hop, delivered, deferred, failed) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (day, next_hop) DO UPDATE SET delivered = delivered + ?3, deferred = deferred + ?4, \
         failed = failed + ?5",
    )?
    .execute(params![day, next_hop, delivered, deferred, failed])?;
    Ok(())
}

const OF_DAYS: &str = "SELECT day * 24, 24, sum(delivered), sum(deferred), sum(failed) FROM outcome_day \
     WHERE day >= ?1 GROUP BY day ORDER BY day";

const OF_HOURS: &str = "SELECT hour, 1, sum(delivered), sum(deferred), sum(failed) FROM outcome_hour \
     WHERE hour >= ?1 GROUP BY hour ORDER BY hour";

/// How SQLite answers the queries for what was.
#[cfg(test)]
pub(super) fn plans(connection: &Connection) -> Result<Vec<(String, String)>> {
    [OF_DAYS, OF_HOURS, NAMED_BEFORE]
        .into_iter()
        .map(|query| Ok((query.to_owned(), super::claim::plan(connection, query)?)))
        .collect()
}

/// Sums since a time, the oldest first: by day as far as they are folded, then by hour.
pub(super) fn since(connection: &Connection, since: i64) -> Result<Vec<Period>> {
    let mut periods = Vec::new();
    for (sql, first) in [(OF_DAYS, since.div_euclid(DAY)), (OF_HOURS, since.div_euclid(HOUR))] {
        let mut statement = connection.prepare_cached(sql)?;
        let found = statement.query_map([first], |row| {
            Ok(Period {
                begins: rows::time(row.get::<_, i64>(0)? * HOUR),
                hours: row.get(1)?,
                recipients: Recipients { delivered: row.get(2)?, deferred: row.get(3)?, failed: row.get(4)? },
            })
        })?;
        periods.extend(found.collect::<rusqlite::Result<Vec<_>>>()?);
    }
    Ok(periods)
}
