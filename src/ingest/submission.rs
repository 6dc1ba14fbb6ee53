//! A message that a user of this machine submits, by whichever way: read, completed,
//! committed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::edit::{Added, Edit};
use super::lines::{Lines, Mend};
use super::local::Here;
use super::message::{Ended, IntakeError, MessageReader};
use super::sendmail::{Invocation, Parties, UsageError};
use super::trace::{Origin, received_field};
use crate::mail::{Address, AttributeValue, Attributes, MailKey, ReversePath, attribute};
use crate::spool::{AcceptError, Incoming, Spool, Submission};

/// Who submits.
#[derive(Debug, Clone)]
pub struct Caller {
    /// How it comes here: by [`Origin::User`] or [`Origin::Http`].
    pub origin: Origin<'static>,
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
    /// Whom the command line names.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// What is in it.
    #[error(transparent)]
    Message(#[from] IntakeError),
    /// `-t`, and nobody is named.
    #[error(
        "the mail has no recipient: -t takes those of To:, Cc: and Bcc:, which stand in front of the first empty line, \
         each at the beginning of its line"
    )]
    Nobody,
    /// It is in order, and not taken.
    #[error(transparent)]
    Accept(#[from] AcceptError),
    /// It did not come to its end.
    #[error("the message cannot be read: {0}")]
    Input(#[from] io::Error),
    /// It cannot be kept until a service takes it.
    #[error("the message cannot be kept in {} until the service takes it: {_1}; $TMPDIR may name another folder", _0.display())]
    Keep(PathBuf, #[source] io::Error),
}

impl SubmitError {
    /// The code of sysexits(3).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(error) => error.exit_code(),
            Self::Message(_) | Self::Accept(AcceptError::TooLarge(_) | AcceptError::Message(_)) => 65,
            Self::Nobody | Self::Accept(AcceptError::NoRecipient) => 64,
            // The caller may try again.
            Self::Accept(AcceptError::Behind | AcceptError::NoFreeSpace(_) | AcceptError::Store(_))
            | Self::Input(_)
            | Self::Keep(..) => 75,
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
    let Parties { reverse_path, recipients } = invocation.parties(here)?;
    spool.admits(0).map_err(SubmitError::Accept)?;
    let own = || ReversePath::Address(caller.address.clone());
    let sender = reverse_path.as_ref().and_then(ReversePath::address).unwrap_or(&caller.address).clone();
    let reverse_path = here.reverse_path(reverse_path).unwrap_or_else(own);
    let edit = Edit {
        here: here.clone(),
        sender: Some(sender),
        full_name: invocation.full_name.clone().or_else(|| caller.full_name.clone()),
        added: Some(Added { now, random: rand::random() }),
        recipients_from_header: invocation.recipients_from_header,
    };
    let mut incoming = spool.incoming();
    // It names the recipient only where it is the only one.
    let only = if invocation.recipients_from_header { None } else { only(&recipients) };
    let trace = received_field(caller.origin, &here.hostname, incoming.key(), only, now);
    incoming.write_trace(&trace);
    let reader = MessageReader::new(Lines::new(Mend::ALL, invocation.dot_ends_input), edit);
    let ended = match read(reader, &mut incoming, input).await {
        Ok(ended) => ended,
        Err(error) => {
            incoming.abandon().await;
            return Err(error);
        }
    };
    let envelope = invocation.envelope(reverse_path, [recipients, ended.recipients].concat());
    if envelope.recipients.is_empty() {
        incoming.abandon().await;
        return Err(SubmitError::Nobody);
    }
    let mut attributes = Attributes::default();
    if invocation.require_tls {
        attributes.set(attribute::REQUIRE_TLS, AttributeValue::Boolean(true));
    }
    ended.repairs.note_in(&mut attributes);
    let client = match caller.origin {
        Origin::Http(address) => Some(address),
        _ => None,
    };
    Ok(incoming.accept(Submission { attributes, client, ..envelope.into() }).await?)
}

fn only(recipients: &[Address]) -> Option<&Address> {
    match recipients {
        [one] => Some(one),
        _ => None,
    }
}

/// Reads to the end of the input, or to a lone dot.
async fn read(mut reader: MessageReader, incoming: &mut Incoming, input: &mut dyn Input) -> Result<Ended, SubmitError> {
    let mut message = Vec::new();
    loop {
        let piece = input.next().await?;
        if piece.is_empty() {
            break;
        }
        let more = reader.push(&piece, &mut message)?;
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
    let ended = reader.finish(&mut message)?;
    incoming.write(&message).await?;
    Ok(ended)
}
