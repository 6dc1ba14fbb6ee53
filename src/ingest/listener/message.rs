//! The octets behind DATA on their way to the spool, or what they are refused with.

use super::answer::Answer;
use crate::ingest::lines::{Lines, Repairs};
use crate::ingest::message::{IntakeError, MessageReader};
use crate::mail::MailKey;
use crate::spool::{AcceptError, Incoming, Submission};

/// What the octets of a message go through on their way.
pub(super) enum Filter {
    /// Nothing: they are taken or refused as they are.
    None,
    /// Line ends are mended.
    Lines(Lines),
    /// And the header is completed: a user of this machine speaks.
    Edited(Box<MessageReader>),
}

impl Filter {
    fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) -> Result<(), IntakeError> {
        match self {
            Self::None => out.extend_from_slice(octets),
            Self::Lines(lines) => lines.push(octets, b"\r\n", out),
            Self::Edited(reader) => drop(reader.push(octets, out)?),
        }
        Ok(())
    }

    fn finish(self, out: &mut Vec<u8>) -> Result<Repairs, IntakeError> {
        match self {
            Self::None => Ok(Repairs::default()),
            Self::Lines(mut lines) => {
                lines.finish(b"\r\n", out);
                Ok(lines.repairs())
            }
            Self::Edited(reader) => Ok(reader.finish(out)?.repairs),
        }
    }
}

/// A message that is coming in. Once it is refused, its octets are counted and forgotten.
pub(super) struct Message {
    taken: Result<Incoming, Refusal>,
    filter: Filter,
    octets: u64,
    limit: u64,
}

/// What is said after the final dot, and why in our own words.
pub(super) struct Refusal {
    pub(super) answer: Answer,
    pub(super) why: String,
}

impl From<AcceptError> for Refusal {
    fn from(error: AcceptError) -> Self {
        Self { answer: Answer::from(&error), why: error.to_string() }
    }
}

impl From<IntakeError> for Refusal {
    fn from(error: IntakeError) -> Self {
        Self { answer: Answer::new(550, "5.6.0", &error), why: error.to_string() }
    }
}

impl Message {
    /// Begins with the trace field.
    pub(super) fn new(mut incoming: Incoming, trace: &str, filter: Filter) -> Self {
        let limit = incoming.limit();
        incoming.write_trace(trace);
        Self { taken: Ok(incoming), filter, octets: 0, limit }
    }

    /// Takes the next octets.
    pub(super) async fn write(&mut self, octets: &[u8]) {
        self.octets += octets.len() as u64;
        if matches!(self.filter, Filter::None) {
            return self.keep(octets).await;
        }
        let mut filtered = Vec::new();
        match self.filter.push(octets, &mut filtered) {
            Ok(()) => self.keep(&filtered).await,
            Err(error) => self.refuse(error.into()).await,
        }
    }

    async fn keep(&mut self, octets: &[u8]) {
        let Ok(incoming) = &mut self.taken else { return };
        let written = incoming.write(octets).await;
        let too_large = incoming.is_too_large().then_some(AcceptError::TooLarge(self.limit));
        if let Some(error) = written.err().or(too_large) {
            self.refuse(error.into()).await;
        }
    }

    async fn refuse(&mut self, refusal: Refusal) {
        if let Ok(incoming) = std::mem::replace(&mut self.taken, Err(refusal)) {
            incoming.abandon().await;
        }
    }

    /// Octets that came so far.
    pub(super) fn octets(&self) -> u64 {
        self.octets
    }

    /// Whether so much came beyond the limit that its end is not waited for.
    pub(super) fn is_endless(&self) -> bool {
        self.octets / 2 > self.limit
    }

    /// Forgets it.
    pub(super) async fn abandon(self) {
        if let Ok(incoming) = self.taken {
            incoming.abandon().await;
        }
    }

    /// Makes it a mail. `Ok` after the commit, and only then.
    pub(super) async fn accept(mut self, mut submission: Submission) -> Result<MailKey, Refusal> {
        let mut rest = Vec::new();
        match std::mem::replace(&mut self.filter, Filter::None).finish(&mut rest) {
            Ok(repairs) => repairs.note_in(&mut submission.attributes),
            Err(error) => self.refuse(error.into()).await,
        }
        self.keep(&rest).await;
        Ok(self.taken?.accept(submission).await?)
    }
}
