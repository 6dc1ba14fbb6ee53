//! The octets behind DATA on their way to the spool, or what they are refused with.

use super::answer::Answer;
use crate::mail::MailKey;
use crate::spool::{AcceptError, Incoming, Submission};

/// A message that is coming in. Once it is refused, its octets are counted and forgotten.
pub(super) struct Message {
    taken: Result<Incoming, Refusal>,
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

impl Message {
    /// Begins with the trace field.
    pub(super) fn new(mut incoming: Incoming, trace: &str) -> Self {
        let limit = incoming.limit();
        incoming.write_trace(trace);
        Self { taken: Ok(incoming), octets: 0, limit }
    }

    /// Takes the next octets.
    pub(super) async fn write(&mut self, octets: &[u8]) {
        self.octets += octets.len() as u64;
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
    pub(super) async fn accept(self, submission: Submission) -> Result<MailKey, Refusal> {
        Ok(self.taken?.accept(submission).await?)
    }
}
