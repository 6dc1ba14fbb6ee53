//! The DKIM signature of a message (RFC 6376, RFC 8301, RFC 8463), made of the octets that are
//! sent: `relaxed/relaxed`, `rsa-sha256` or `ed25519-sha256`, without `l=`.
//!
//! [`Key`] is read from a PEM file, [`Signatory`] says in whose name is signed, and
//! [`Signing`] takes the message piece by piece and makes the field to be put in front. Which
//! mails are signed, and where the message comes from, is left to the caller. No clock, and no
//! I/O but the key file that the configuration names.

mod canonical;
mod config;
mod key;
mod signing;

pub use key::{Key, KeyError};
pub use signing::{Signatory, Signing, Unsigned};
