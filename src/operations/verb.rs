//! What is done to mails, and what came of it.

use serde_json::{Value, json};

use crate::mail::RepositoryPath;
use crate::store::{Act, OperationId, Place, Respool};
use crate::text::count;

/// Octets of a note at most.
pub const MAX_NOTE: usize = 10_000;

/// What is done to each mail that is meant.
#[derive(Debug, Clone)]
pub enum Verb {
    /// Into the spool for a processor.
    Reprocess(Respool),
    /// To another repository.
    Move {
        /// Which.
        to: RepositoryPath,
    },
    /// Out, for good.
    Remove,
    /// Somebody takes note of the failure; nothing else changes.
    Acknowledge {
        /// What he says to it.
        note: String,
    },
    /// That note is taken back.
    Unacknowledge,
}

impl Verb {
    /// As the record of operations has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reprocess(_) => "reprocess",
            Self::Move { .. } => "move",
            Self::Remove => "remove",
            Self::Acknowledge { .. } => "acknowledge",
            Self::Unacknowledge => "unacknowledge",
        }
    }

    /// What is to become of the mails, in a word.
    pub(super) fn detail(&self) -> Option<String> {
        match self {
            Self::Reprocess(how) if how.copy => Some(format!("{}, consume=false", how.processor)),
            Self::Reprocess(how) => Some(how.processor.clone()),
            Self::Move { to } => Some(to.to_string()),
            Self::Acknowledge { note } => Some(note.clone()),
            Self::Remove | Self::Unacknowledge => None,
        }
    }

    pub(super) fn act(&self, who: &str) -> Act {
        match self {
            Self::Reprocess(how) => Act::Respool(how.clone()),
            Self::Move { to } => Act::Move(to.clone()),
            Self::Remove => Act::Remove,
            Self::Acknowledge { note } => Act::Acknowledge { by: who.to_owned(), note: note.clone() },
            Self::Unacknowledge => Act::Unacknowledge,
        }
    }

    /// Whether it makes sense for the mails of `place`; if not, why.
    pub(super) fn check(&self, place: &Place) -> Result<(), String> {
        match (self, place) {
            (Self::Acknowledge { .. } | Self::Unacknowledge, Place::Spool) => {
                Err("what waits in the spool has not failed: nothing is there to be acknowledged".to_owned())
            }
            (Self::Acknowledge { note }, _) if note.len() > MAX_NOTE => {
                Err(format!("the note has {} octets, and may have {MAX_NOTE}", note.len()))
            }
            // Each would come to rest behind the others, and be met again.
            (Self::Move { to }, Place::Repository(from)) if to == from => Err(format!("they are in {to} already")),
            _ => Ok(()),
        }
    }

    fn done(&self) -> String {
        match self {
            Self::Reprocess(how) if how.copy => format!("copied into the spool for processor {}", how.processor),
            Self::Reprocess(how) => format!("put into the spool for processor {}", how.processor),
            Self::Move { to } => format!("moved to {to}"),
            Self::Remove => "removed".to_owned(),
            Self::Acknowledge { .. } => "acknowledged".to_owned(),
            Self::Unacknowledge => "no longer acknowledged".to_owned(),
        }
    }

    /// `moved to var/x`, or with `would` what would happen.
    pub(super) fn words(&self, would: bool) -> String {
        if would { format!("would be {}", self.done()) } else { self.done() }
    }
}

/// What was done, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// On whose account; `None` where nothing was met.
    pub operation: Option<OperationId>,
    /// Mails it was done to.
    pub mails: u64,
    /// Mails in hand, which were left alone.
    pub in_hand: u64,
    /// Mails that make no sense to this version, and were left where they can be seen.
    pub unreadable: u64,
    /// Mails whose counter was not reset and is used up.
    pub exhausted: u64,
    /// A stop came before the end: there may be more.
    pub stopped: bool,
}

impl Done {
    /// For scripts.
    pub fn json(&self, verb: &Verb) -> Value {
        let mut object = json!({"mails": self.mails, "skipped": self.in_hand, "dryRun": false});
        if let Verb::Reprocess(_) = verb {
            object["exhausted"] = self.exhausted.into();
        }
        object["operation"] = json!(self.operation);
        object
    }

    /// For people.
    pub fn picture(&self, verb: &Verb) -> String {
        let mut text = format!("{} {}\n", count(self.mails, "mail"), verb.words(false));
        if self.unreadable > 0 {
            text.push_str(&format!("{} that cannot be read left where they are\n", count(self.unreadable, "mail")));
        }
        text + &aside(self.in_hand, self.exhausted)
    }
}

/// What else there is to know of mails that were, or would be, done something to.
pub(super) fn aside(in_hand: u64, exhausted: u64) -> String {
    let in_hand = match in_hand {
        0 => String::new(),
        more => format!("{} in hand now and left alone\n", count(more, "mail")),
    };
    let exhausted = match exhausted {
        0 => String::new(),
        1 => "1 of them has used up its passes and goes where AtMost sends it; --reset makes it start again\n".into(),
        more => format!(
            "{more} of them have used up their passes and go where AtMost sends them; --reset makes them start again\n"
        ),
    };
    in_hand + &exhausted
}
