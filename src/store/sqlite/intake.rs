//! Mail comes in.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{OptionalExtension, params};

use super::super::{Arrivals, Error, Intake, Result};
use super::transaction::{Transaction, Weight, hour_of};
use super::{SqliteStore, messages, rows};
use crate::mail::{MailKey, MessageId, NewMail, NewMessage};

#[async_trait]
impl Intake for SqliteStore {
    async fn write_chunk(&self, message: Option<MessageId>, number: u32, octets: Bytes) -> Result<MessageId> {
        let writer = self.instance().await?;
        self.write(move |tx| messages::write_chunk(tx, message, number, &octets, writer)).await
    }

    async fn discard(&self, message: MessageId) -> Result<()> {
        self.write(move |tx| messages::disown(tx, message)).await
    }

    async fn insert(&self, mail: NewMail) -> Result<()> {
        let mail = Arc::new(mail);
        self.write(move |tx| insert(tx, &mail)).await?;
        self.tell_arrival();
        Ok(())
    }

    fn arrivals(&self) -> Arrivals {
        Arrivals(self.arrived.subscribe())
    }
}

/// Takes a mail into the spool.
pub(super) fn insert(tx: &Transaction<'_>, mail: &NewMail) -> Result<()> {
    if let Some(digest) = &mail.import_digest {
        note_import(tx, digest, &mail.key)?;
    }
    let message = match &mail.message {
        NewMessage::Whole(octets) => messages::store_whole(tx, octets, &mail.facts)?,
        NewMessage::Written(message) => {
            messages::own(tx, *message, &mail.facts)?;
            *message
        }
    };
    let passes = mail.attributes.passes();
    let dsn = rows::Dsn::of(&mail.envelope)?;
    tx.prepare_cached(
        "INSERT INTO mail (key, name, repository, seq, accepted, last_updated, sender, recipients, smtputf8, \
         state, attributes, message, passes, client, ret, envid, notify, return_path) \
         VALUES (?1, ?2, 0, ?3, ?4, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
    )?
    .execute(params![
        mail.key.as_str(),
        mail.name,
        tx.next_number()?,
        tx.millis(),
        rows::sender(&mail.envelope.reverse_path),
        rows::to_json(&mail.envelope.recipients)?,
        mail.envelope.smtputf8,
        mail.state,
        rows::to_json(&mail.attributes)?,
        message.0,
        passes,
        mail.client.map(|client| client.to_string()),
        dsn.ret,
        dsn.envid,
        dsn.notify,
        dsn.return_path,
    ])?;
    let hour = hour_of(tx.millis());
    tx.add(Weight { repository: 0, passes, hour, octets: mail.facts.size, acknowledged: false });
    Ok(())
}

fn note_import(tx: &Transaction<'_>, digest: &str, key: &MailKey) -> Result<()> {
    let before = tx
        .prepare_cached("SELECT key FROM imported WHERE digest = ?1")?
        .query_row([digest], |row| row.get::<_, String>(0))
        .optional()?;
    if let Some(before) = before {
        return Err(Error::ImportedBefore(rows::key(&before)?));
    }
    tx.prepare_cached("INSERT INTO imported (digest, key, at) VALUES (?1, ?2, ?3)")?.execute(params![
        digest,
        key.as_str(),
        tx.millis()
    ])?;
    Ok(())
}
