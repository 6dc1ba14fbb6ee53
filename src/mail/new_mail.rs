//! A mail that is about to be one: nothing of it is stored but, perhaps, its message.

use std::net::IpAddr;

use bytes::Bytes;

use super::{Attributes, Envelope, MailKey, MessageFacts, MessageId};

/// A mail that comes in; its message was written ahead, or comes along.
#[derive(Debug, Clone)]
pub struct NewMail {
    /// The key it will have.
    pub key: MailKey,
    /// James's name.
    pub name: String,
    /// Who it is from and for.
    pub envelope: Envelope,
    /// The address of the client that brought it; `None` where it did not come over a network.
    pub client: Option<IpAddr>,
    /// The processor that will run it.
    pub state: String,
    /// First attributes.
    pub attributes: Attributes,
    /// The message.
    pub message: NewMessage,
    /// What is known of the message.
    pub facts: MessageFacts,
    /// Identifies what an import took in; a second mail with the same digest is refused.
    pub import_digest: Option<String>,
}

/// A message that comes in.
#[derive(Debug, Clone)]
pub enum NewMessage {
    /// All of it: at most [`super::CHUNK_BYTES`].
    Whole(Bytes),
    /// Written ahead, a row at a time.
    Written(MessageId),
}
