//! Mail comes in.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{OptionalExtension, params};

use super::super::{Arrivals, Claim, Claimed, Error, Intake, Result};
use super::transaction::{Transaction, Weight, hour_of};
use super::{SqliteStore, messages, rows};
use crate::mail::{Mail, MailKey, MessageId, NewMail, NewMessage};

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
        self.write(move |tx| insert(tx, &mail, None).map(drop)).await?;
        self.tell_arrival();
        Ok(())
    }

    async fn insert_in_hand(&self, mail: NewMail, take: Box<dyn FnOnce(Claimed) + Send>) -> Result<()> {
        let instance = self.instance().await?;
        self.writer.call_then(move |tx| insert_in_hand(tx, &mail, instance), take).await
    }

    fn arrivals(&self) -> Arrivals {
        Arrivals(self.arrived.subscribe())
    }
}

/// What became of a mail that was taken into the spool.
pub(super) struct Inserted {
    /// The mail's; its place in the order, and the claim on it where it is in hand.
    number: i64,
    message: MessageId,
    now: i64,
}

/// Takes a mail into the spool, and into the hand of this process.
fn insert_in_hand(tx: &Transaction<'_>, mail: &NewMail, instance: i64) -> Result<Claimed> {
    let Inserted { number, message, now } = insert(tx, mail, Some(instance))?;
    let claim = Claim { mail: number, token: number, octets: mail.facts.size, key: mail.key.clone() };
    let mail = Mail {
        key: mail.key.clone(),
        name: mail.name.clone(),
        origin: None,
        envelope: mail.envelope.clone(),
        client: mail.client,
        attributes: mail.attributes.clone(),
        state: mail.state.clone(),
        error: None,
        accepted: rows::time(now),
        last_updated: rows::time(now),
        header_prefix: String::new(),
        message,
        facts: mail.facts,
        recorded: Vec::new(),
    };
    Ok(Claimed { claim, mail, deaths_alone: 0, content: None })
}

/// Takes a mail into the spool, to rest there or in the hand of an instance.
pub(super) fn insert(tx: &Transaction<'_>, mail: &NewMail, in_hand_of: Option<i64>) -> Result<Inserted> {
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
    let (passes, number, now) = (mail.attributes.passes(), tx.next_number()?, tx.millis());
    let dsn = rows::Dsn::of(&mail.envelope)?;
    tx.prepare_cached(
        "INSERT INTO mail (id, key, name, repository, seq, accepted, last_updated, sender, recipients, smtputf8, \
         state, attributes, message, passes, client, ret, envid, notify, return_path, claimed, instance, claim) \
         VALUES (?3, ?1, ?2, 0, ?3, ?4, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, \
         ?17 IS NOT NULL, ?17, CASE WHEN ?17 IS NOT NULL THEN ?3 END)",
    )?
    .execute(params![
        mail.key.as_str(),
        mail.name,
        number,
        now,
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
        in_hand_of,
    ])?;
    tx.add(Weight { repository: 0, passes, hour: hour_of(now), octets: mail.facts.size, acknowledged: false });
    Ok(Inserted { number, message, now })
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
