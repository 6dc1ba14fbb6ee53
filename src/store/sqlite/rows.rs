//! Between rows and mails. What is read is checked as what came from outside is.

use chrono::DateTime;
use rusqlite::{Connection, OptionalExtension, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::{Error, Listed, Place, Result, Seq, Time, Trouble};
use crate::mail::{Envelope, Mail, MailKey, MessageFacts, MessageId, ReversePath};

/// The columns of [`mail`], in order.
pub(super) const MAIL_COLUMNS: &str = "mail.id, mail.key, mail.name, mail.origin, mail.sender, mail.recipients, \
     mail.smtputf8, mail.attributes, mail.state, mail.error, mail.last_updated, mail.header_prefix, mail.message, \
     mail.recorded, message.size, message.eight_bit_header, message.eight_bit_body, message.received, mail.seq, \
     mail.accepted, mail.claimed, mail.suspect";

/// One row of `mail JOIN message`.
pub(super) struct MailRow {
    pub(super) id: i64,
    pub(super) suspect: u32,
    pub(super) listed: Listed,
}

/// Reads a row of [`MAIL_COLUMNS`].
pub(super) fn mail(row: &Row<'_>) -> Result<MailRow> {
    let mail = Mail {
        key: key(&row.get::<_, String>(1)?)?,
        name: row.get(2)?,
        origin: row.get::<_, Option<String>>(3)?.map(|text| key(&text)).transpose()?,
        envelope: envelope(row)?,
        attributes: from_json(&row.get::<_, String>(7)?)?,
        state: row.get(8)?,
        error: row.get(9)?,
        last_updated: time(row.get(10)?),
        header_prefix: row.get(11)?,
        message: MessageId(row.get(12)?),
        recorded: from_json(&row.get::<_, String>(13)?)?,
        facts: MessageFacts {
            size: row.get(14)?,
            eight_bit_header: row.get(15)?,
            eight_bit_body: row.get(16)?,
            received: row.get(17)?,
        },
    };
    let listed = Listed { mail, seq: Seq(row.get(18)?), accepted: time(row.get(19)?), in_hand: row.get(20)? };
    let suspect = u32::try_from(row.get::<_, i64>(21)?).unwrap_or(0);
    Ok(MailRow { id: row.get(0)?, suspect, listed })
}

fn envelope(row: &Row<'_>) -> Result<Envelope> {
    let reverse_path = match row.get::<_, Option<String>>(4)? {
        None => ReversePath::Null,
        Some(text) => ReversePath::parse(&text).map_err(damaged)?,
    };
    Ok(Envelope { reverse_path, recipients: from_json(&row.get::<_, String>(5)?)?, smtputf8: row.get(6)? })
}

pub(super) fn key(text: &str) -> Result<MailKey> {
    MailKey::parse(text).ok_or_else(|| damaged(format!("{text:?} is no key")))
}

pub(super) fn sender(path: &ReversePath) -> Option<String> {
    path.address().map(ToString::to_string)
}

pub(super) fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::trouble(Trouble::Internal, error))
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(damaged)
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::trouble(Trouble::Unreadable, what)
}

/// A stored time; what lies outside the calendar reads as 1970.
pub(super) fn time(millis: i64) -> Time {
    DateTime::from_timestamp_millis(millis).unwrap_or_default()
}

/// The number of a place.
pub(super) fn place_id(connection: &Connection, place: &Place) -> Result<i64> {
    let Place::Repository(path) = place else { return Ok(0) };
    connection
        .prepare_cached("SELECT id FROM repository WHERE path = ?1")?
        .query_row([path.as_str()], |row| row.get(0))
        .optional()?
        .ok_or_else(|| Error::NoSuchRepository(path.clone()))
}
