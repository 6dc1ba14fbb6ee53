//! DKIM signatures of what a transaction is going to send.
//!
//! They are made anew for each transaction, out of the octets that follow them on the wire:
//! fields in front of the stored message, the message as it is stored, the line end that its
//! last line may lack. Nothing of them is kept but a note.

use std::borrow::Cow;
use std::sync::Arc;

use crate::clock::Clock;
use crate::dkim::{Signatory, Signing, Unsigned};

use super::content::Message;

/// Who signs a message.
#[derive(Clone)]
pub(super) struct Signers {
    pub(super) signatories: Arc<[Arc<Signatory>]>,
    pub(super) clock: Clock,
}

impl Message {
    /// The message with its signatures in front, and a note on each.
    ///
    /// # Errors
    /// Why it cannot be read to its end, in words.
    pub(super) async fn signed(&self) -> Result<Cow<'_, Self>, String> {
        let signatories = &self.signers.signatories;
        if signatories.is_empty() {
            return Ok(Cow::Borrowed(self));
        }
        let mut all: Vec<_> = signatories.iter().map(|signatory| Ok(Signing::new(signatory))).collect();
        take(&mut all, self.prefix.as_bytes());
        let (mut octets, mut rows) = (0, 0);
        while octets < self.facts.size {
            let row = self.row(rows).await?;
            octets += row.len() as u64;
            rows += 1;
            take(&mut all, &row);
        }
        let time = self.signers.clock.now().timestamp();
        let fields = all.into_iter().map(|signing| signing.and_then(|signing| signing.finish(time)));
        Ok(Cow::Owned(self.with(fields)))
    }

    fn with(&self, fields: impl Iterator<Item = Result<Vec<u8>, Unsigned>>) -> Self {
        let (mut prefix, mut notes) = (String::new(), Vec::new());
        for (field, signatory) in fields.zip(self.signers.signatories.iter()) {
            let (domain, selector) = (&signatory.domain, &signatory.selector);
            match field {
                Ok(field) => {
                    prefix.push_str(&String::from_utf8_lossy(&field));
                    notes.push(format!("DKIM: signed, d={domain} s={selector} {}", signatory.key.algorithm()));
                }
                Err(why) => notes.push(format!("DKIM: not signed, d={domain} s={selector}: {why}")),
            }
        }
        prefix.push_str(&self.prefix);
        Self { prefix: prefix.into(), notes, ..self.clone() }
    }
}

/// Hands octets to those that are still at work.
fn take(all: &mut [Result<Signing<'_>, Unsigned>], octets: &[u8]) {
    for signing in all {
        if let Ok(at_work) = signing
            && let Err(why) = at_work.push(octets)
        {
            *signing = Err(why);
        }
    }
}
