//! A dry run: what a verb would do, and until when that holds.

use serde_json::{Value, json};

use super::verb::{Verb, aside};
use crate::audit::Waiting;
use crate::store::Horizon;
use crate::text::count;

/// Mails that are counted exactly.
pub(super) const EXACT: u64 = 10_000;

/// Mails that are shown.
pub(super) const SAMPLE: usize = 20;

/// What would be done.
#[derive(Debug, Clone)]
pub struct Preview {
    /// Mails it would be done to: at least so many, where that is not exact.
    pub count: u64,
    /// Whether all were counted.
    pub exact: bool,
    /// The first of them.
    pub sample: Vec<Waiting>,
    /// Given back, it bounds the call to what was there now.
    pub until: Horizon,
    /// Mails in hand, which would be left alone.
    pub in_hand: u64,
    /// Mails whose counter would not be reset and is used up.
    pub exhausted: u64,
    /// Of those of a group, mails that are in other groups too; they are taken whole.
    pub in_other_groups: u64,
}

impl Preview {
    /// For scripts.
    pub fn json(&self, verb: &Verb) -> Value {
        let sample: Vec<_> = self.sample.iter().map(|waiting| &waiting.key).collect();
        let mut object = json!({
            "count": self.count,
            "exact": self.exact,
            "sample": sample,
            "until": self.until.to_string(),
            "mails": self.count,
            "skipped": self.in_hand,
            "inOtherGroups": self.in_other_groups,
            "dryRun": true,
        });
        if let Verb::Reprocess(_) = verb {
            object["exhausted"] = self.exhausted.into();
        }
        object
    }

    /// For people, below the sample.
    pub fn picture(&self, verb: &Verb) -> String {
        let mut text = String::new();
        let rest = self.count.saturating_sub(self.sample.len() as u64);
        if rest > 0 {
            text.push_str(&format!("and {rest}{} more\n", if self.exact { "" } else { " or" }));
        }
        let least = if self.exact { "" } else { "at least " };
        text.push_str(&format!("{least}{} {}\n", count(self.count, "mail"), verb.words(true)));
        if self.in_other_groups > 0 {
            text.push_str(&format!("{} of them in other groups too\n", self.in_other_groups));
        }
        text + &aside(self.in_hand, self.exhausted)
    }
}
