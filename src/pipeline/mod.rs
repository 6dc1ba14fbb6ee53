//! Processors: what happens to a mail, as pairs of matcher and mailet.
//!
//! Knows no store: what must be durable before contact goes through the
//! [`Checkpoint`] that the caller gives.

use std::sync::Arc;

use async_trait::async_trait;

use crate::delivery::NotBegun;
use crate::mail::{Attributes, Content, DialogueEntry, Mail, Recorded, RepositoryPath};

/// What the pipeline needs of its caller while a mail is in it.
#[async_trait]
pub trait Checkpoint: Send + Sync {
    /// Commits the open attempt with the attributes as the matchers left them.
    async fn begin(&self, attributes: &Attributes) -> Result<(), NotBegun>;
    /// Hands on what a transaction yielded; see [`crate::delivery::Sink::record`].
    async fn record(&self, outcomes: &[Recorded], dialogue: &[DialogueEntry]);
    /// The mail's stored message.
    fn content(&self) -> Arc<dyn Content>;
}

/// Where a part of a mail came to its end, and why there.
#[derive(Debug)]
pub struct Disposition {
    /// The part: recipients, attributes, state and error as it ended.
    pub mail: Mail,
    /// Where it is to be.
    pub end: End,
    /// How its recipients count in a run.
    pub verdict: Verdict,
}

/// A place for a part of a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Its recipients have it.
    Delivered,
    /// At rest in a repository.
    Repository(RepositoryPath),
    /// Taken out by mailet `Null`.
    Dropped,
    /// Back where it was taken from, unchanged and uncounted: a stop, or trouble of our
    /// own with its cause.
    Stay(Option<String>),
}

/// How a part's recipients count in a run's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Delivered.
    Delivered,
    /// Kept for a next pass.
    Deferred,
    /// Refused for good.
    Failed,
    /// Failed for good because the limit of passes is used up.
    Promoted,
    /// In an error repository, or left where it was by trouble of our own.
    Error,
    /// Left where it was by a stop or a deadline.
    Left,
}
