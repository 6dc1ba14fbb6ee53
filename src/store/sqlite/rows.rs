//! Between rows and mails. What is read is checked as what came from outside is.

use chrono::DateTime;
use rusqlite::{Connection, OptionalExtension, Row};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::{Acknowledged, Cursor, Error, Horizon, Listed, NotOurs, OperationId, Place, Result, Time, Trouble};
use crate::mail::{
    Address, AttemptState, DsnRequest, Envelope, Mail, MailKey, MessageFacts, MessageId, Ret, ReversePath, parse_envid,
};

/// The columns of [`mail`], in order.
macro_rules! mail_columns {
    () => {
        "mail.id, mail.key, mail.name, mail.origin, mail.sender, mail.recipients, mail.smtputf8, mail.attributes, \
         mail.state, mail.error, mail.last_updated, mail.header_prefix, mail.message, mail.recorded, message.size, \
         message.eight_bit_header, message.eight_bit_body, message.received, mail.seq, mail.accepted, mail.claimed, \
         mail.suspect, mail.client, mail.acknowledged, mail.ret, mail.envid, mail.notify, mail.return_path, mail.attempts, mail.last_attempt"
    };
}

/// Where some of them stand.
const KEY: usize = 1;
const LAST_UPDATED: usize = 10;
const ACCEPTED: usize = 19;

/// One mail by its number.
pub(super) const MAIL_BY_ID: &str =
    concat!("SELECT ", mail_columns!(), " FROM mail JOIN message ON message.id = mail.message WHERE mail.id = ?1");

/// One mail by its number and the claim on it.
pub(super) const MAIL_IN_HAND: &str = concat!(
    "SELECT ",
    mail_columns!(),
    " FROM mail JOIN message ON message.id = mail.message WHERE mail.id = ?1 AND mail.claim = ?2 AND mail.claimed = 1"
);

/// One mail by its key and its place.
pub(super) const MAIL_BY_KEY: &str = concat!(
    "SELECT ",
    mail_columns!(),
    " FROM mail JOIN message ON message.id = mail.message WHERE mail.key = ?1 AND mail.repository = ?2"
);

/// One row of `mail JOIN message`.
pub(super) struct MailRow {
    pub(super) suspect: u32,
    pub(super) id: i64,
    pub(super) listed: Listed,
}

/// Reads a row of `mail_columns!`.
pub(super) fn mail(row: &Row<'_>) -> Result<MailRow> {
    let mail = Mail {
        key: key(&row.get::<_, String>(KEY)?)?,
        name: row.get(2)?,
        origin: row.get::<_, Option<String>>(3)?.map(|text| key(&text)).transpose()?,
        envelope: envelope(row)?,
        attributes: from_json(&row.get::<_, String>(7)?)?,
        state: row.get(8)?,
        error: row.get(9)?,
        accepted: time(row.get(ACCEPTED)?),
        last_updated: time(row.get(LAST_UPDATED)?),
        header_prefix: row.get(11)?,
        message: MessageId(row.get(12)?),
        recorded: from_json(&row.get::<_, String>(13)?)?,
        facts: MessageFacts {
            size: row.get(14)?,
            eight_bit_header: row.get(15)?,
            eight_bit_body: row.get(16)?,
            received: row.get(17)?,
        },
        // One that makes no sense is none: no mail is unreadable for it.
        client: row.get::<_, Option<String>>(22)?.and_then(|client| client.parse().ok()),
    };
    let listed = Listed {
        mail,
        accepted: time(row.get(ACCEPTED)?),
        in_hand: row.get(20)?,
        acknowledged: row.get::<_, Option<String>>(23)?.map(|note| acknowledged(&note)).transpose()?,
        attempted: match (u32::try_from(row.get::<_, i64>(28)?).unwrap_or(0), row.get(29)?) {
            (0, _) | (_, 0) => None,
            (attempts, last) => Some((attempts, time(last))),
        },
    };
    let suspect = u32::try_from(row.get::<_, i64>(21)?).unwrap_or(0);
    Ok(MailRow { id: row.get(0)?, suspect, listed })
}

/// How it is stored that somebody took note of a mail.
#[derive(Serialize, Deserialize)]
struct Note {
    by: String,
    at: i64,
    #[serde(rename = "note")]
    words: String,
    operation: i64,
}

pub(super) fn note(by: &str, at: i64, words: &str, operation: OperationId) -> Result<String> {
    to_json(&Note { by: by.to_owned(), at, words: words.to_owned(), operation: operation.0 })
}

fn acknowledged(note: &str) -> Result<Acknowledged> {
    let Note { by, at, words, operation } = from_json(note)?;
    Ok(Acknowledged { by, at: time(at), note: words, operation: OperationId(operation) })
}

fn envelope(row: &Row<'_>) -> Result<Envelope> {
    let reverse_path = match row.get::<_, Option<String>>(4)? {
        None => ReversePath::Null,
        Some(text) => ReversePath::parse(&text).map_err(damaged)?,
    };
    let recipients = from_json(&row.get::<_, String>(5)?)?;
    Ok(Envelope { reverse_path, recipients, smtputf8: row.get(6)?, dsn: dsn(row)? })
}

fn dsn(row: &Row<'_>) -> Result<DsnRequest> {
    let ret = row.get::<_, Option<String>>(24)?.map(|ret| Ret::parse(&ret).map_err(damaged)).transpose()?;
    let envid = row.get::<_, Option<String>>(25)?.map(|envid| parse_envid(&envid).map_err(damaged)).transpose()?;
    let recipients = row.get::<_, Option<String>>(26)?.map(|notify| from_json(&notify)).transpose()?;
    let return_path = row.get::<_, Option<String>>(27)?.map(|path| Address::parse(&path).map_err(damaged));
    Ok(DsnRequest::stored(ret, envid, return_path.transpose()?, recipients.unwrap_or_default()))
}

/// What the columns hold of notifications: `ret`, `envid`, `notify` and `return_path`.
pub(super) struct Dsn {
    pub(super) ret: Option<String>,
    pub(super) envid: Option<String>,
    pub(super) notify: Option<String>,
    pub(super) return_path: Option<String>,
}

impl Dsn {
    /// Of the recipients that the envelope has, and no other.
    pub(super) fn of(envelope: &Envelope) -> Result<Self> {
        let DsnRequest { ret, envid, return_path, .. } = &envelope.dsn;
        Ok(Self {
            ret: ret.map(|ret| ret.to_string()),
            envid: envid.clone(),
            notify: notify(envelope)?,
            return_path: return_path.as_ref().map(ToString::to_string),
        })
    }
}

/// NULL where there is nothing to say.
fn notify(envelope: &Envelope) -> Result<Option<String>> {
    if envelope.dsn.is_silent() {
        return Ok(None);
    }
    let mut dsn = envelope.dsn.clone();
    dsn.keep(&envelope.recipients);
    if dsn.is_silent() { Ok(None) } else { to_json(dsn.recipients()).map(Some) }
}

pub(super) fn key(text: &str) -> Result<MailKey> {
    MailKey::parse(text).ok_or_else(|| damaged(format!("{text:?} is no key")))
}

pub(super) fn address(text: &str) -> Result<Address> {
    Address::parse(text).map_err(damaged)
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

/// A value by its one word, such as an outcome.
pub(super) fn word<T: DeserializeOwned>(word: &str) -> Result<T> {
    serde_json::from_value(word.into()).map_err(damaged)
}

/// Where the database itself makes no sense.
pub(super) fn corrupt(what: &str) -> Error {
    Error::trouble(Trouble::Corrupt, what)
}

/// How the state of an attempt is stored.
pub(super) fn state(state: AttemptState) -> i64 {
    match state {
        AttemptState::Open => 0,
        AttemptState::Settled => 1,
        AttemptState::InDoubt => 2,
    }
}

/// A place in an order, as it is given out.
pub(super) fn new_cursor(place: i64) -> Cursor {
    Cursor(place.to_string())
}

/// The number of the sequence up to which everything is in sight: the one writer at a time
/// commits in the order of the numbers that it gives out.
pub(super) fn new_horizon(number: i64) -> Horizon {
    Horizon(number.to_string())
}

pub(super) fn cursor(cursor: &Cursor) -> Result<i64> {
    number(&cursor.0)
}

pub(super) fn horizon(horizon: &Horizon) -> Result<i64> {
    number(&horizon.0)
}

fn number(text: &str) -> Result<i64> {
    text.parse().map_err(|_| not_ours(text))
}

/// What no listing gave out.
pub(super) fn not_ours(text: &str) -> Error {
    NotOurs(text.to_owned()).into()
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
