//! `import`: messages from files - `.eml`, mailbox files, maildirs - one after the other.
//!
//! [`Sources`] finds the files, [`Opened`] cuts a mailbox file into its messages, and
//! [`Transcript`] makes of each what is stored, with the envelope its header tells of.

mod marks;
mod mbox;
mod sources;
mod transcript;

pub use marks::Marks;
pub use mbox::Dialect;
pub use sources::{Found, Marked, Opened, SourceError, Sources};
pub use transcript::{FieldError, Fingerprint, Told, Transcript, TranscriptError};
