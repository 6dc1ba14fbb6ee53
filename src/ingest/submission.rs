//! A message that a user of this machine submits, by whichever way: read, completed,
//! committed.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::addresses::Here;
use super::header::Missing;
use super::message::{Intake, IntakeError};
use super::sendmail::Invocation;
use super::trace::{Origin, received_field};
use crate::mail::{Address, AttributeValue, Envelope, MailKey, ReversePath, attribute};
use crate::spool::{AcceptError, Incoming, Spool, Submission};

/// Who submits.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The user's number, as the kernel has it.
    pub uid: u32,
    /// `user@hostname`.
    pub address: Address,
    /// From the table of users.
    pub full_name: Option<String>,
}

/// Where the octets of a message come from.
#[async_trait]
pub trait Input: Send {
    /// The next octets; none at the end.
    async fn next(&mut self) -> io::Result<Vec<u8>>;
}

/// Why a message was not taken. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// What is in it.
    #[error(transparent)]
    Message(#[from] IntakeError),
    /// It is in order, and not taken.
    #[error(transparent)]
    Accept(#[from] AcceptError),
    /// It did not come to its end.
    #[error("the message cannot be read: {0}")]
    Input(#[from] io::Error),
}

impl SubmitError {
    /// The code of sysexits(3).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Message(_) | Self::Accept(AcceptError::TooLarge(_) | AcceptError::Message(_)) => 65,
            Self::Accept(AcceptError::NoRecipient) => 64,
            // The caller may try again.
            Self::Accept(AcceptError::Behind | AcceptError::NoFreeSpace | AcceptError::Store(_)) | Self::Input(_) => 75,
        }
    }
}

/// Takes the message as `invocation` asks. `Ok` means that it is committed and ours to deliver.
///
/// # Errors
/// [`SubmitError`]; nothing is kept then.
pub async fn submit(
    spool: &Arc<Spool>,
    invocation: &Invocation,
    caller: &Caller,
    here: &Here,
    now: DateTime<Utc>,
    input: &mut dyn Input,
) -> Result<MailKey, SubmitError> {
    spool.admits(0).map_err(SubmitError::Accept)?;
    let own = || ReversePath::Address(caller.address.clone());
    let reverse_path = invocation.reverse_path.clone().unwrap_or_else(own);
    let missing = Missing {
        from: reverse_path.address().unwrap_or(&caller.address).clone(),
        full_name: invocation.full_name.clone().or_else(|| caller.full_name.clone()),
        hostname: here.domain.clone(),
        now,
        random: rand::random(),
    };
    let mut incoming = spool.incoming();
    let trace = trace(invocation, caller, here, incoming.key(), now);
    incoming.write_trace(&trace);
    let here = invocation.recipients_from_header.then(|| here.clone());
    let intake = Intake::new(missing, invocation.dot_ends_input, here);
    let from_header = match read(intake, &mut incoming, input).await {
        Ok(recipients) => recipients,
        Err(error) => {
            incoming.abandon().await;
            return Err(error);
        }
    };
    let mut envelope = Envelope::new(reverse_path, [&invocation.recipients[..], &from_header].concat());
    envelope.smtputf8 = invocation.smtputf8;
    let mut attributes = invocation.dsn.attributes();
    if invocation.require_tls {
        attributes.set(attribute::REQUIRE_TLS, AttributeValue::Boolean(true));
    }
    Ok(incoming.accept(Submission { attributes, ..envelope.into() }).await?)
}

/// The trace field; it names the recipient only where it is the only one.
fn trace(invocation: &Invocation, caller: &Caller, here: &Here, key: &MailKey, now: DateTime<Utc>) -> String {
    let only = match &invocation.recipients[..] {
        [one] if !invocation.recipients_from_header => Some(one),
        _ => None,
    };
    received_field(Origin::User(caller.uid), &here.domain, key, only, now)
}

/// Reads to the end of the input, or to a lone dot; the recipients of the header.
async fn read(mut intake: Intake, incoming: &mut Incoming, input: &mut dyn Input) -> Result<Vec<Address>, SubmitError> {
    let mut message = Vec::new();
    loop {
        let piece = input.next().await?;
        if piece.is_empty() {
            break;
        }
        let more = intake.push(&piece, &mut message)?;
        incoming.write(&message).await?;
        message.clear();
        if incoming.is_too_large() {
            // Nothing that follows could change it.
            return Err(AcceptError::TooLarge(incoming.limit()).into());
        }
        if !more {
            break;
        }
    }
    let recipients = intake.finish(&mut message)?;
    incoming.write(&message).await?;
    Ok(recipients)
}
