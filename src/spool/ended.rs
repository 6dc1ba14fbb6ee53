//! How a pass ended: as what each part of the mail counts, and what is left of the mail.

use std::collections::HashSet;

use tracing::warn;

use super::parked::Waits;
use crate::mail::{Mail, MailKey, RepositoryPath};
use crate::pipeline::{Disposition, End, Verdict};
use crate::store::{Error, Resting, Settlement};

/// How a pass ended for one part of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// How its recipients count.
    pub verdict: Verdict,
    /// How many they are.
    pub recipients: u64,
}

/// How a pass ended.
#[derive(Debug, Clone, Default)]
pub struct Passed {
    /// Per part.
    pub tallies: Vec<Tally>,
    /// Trouble of our own that left a part where it was.
    pub trouble: Option<String>,
    /// Notifications that it bore: mails in the spool.
    pub born: Vec<MailKey>,
    /// Why the end of the pass is not on record: nothing of it counts, and what was begun is
    /// in doubt once this process has ended.
    pub unwritten: Option<Error>,
    /// It did not end: the mail is in hand still, and waits for its next hop.
    pub(super) parked: Option<Waits>,
}

/// All recipients count as what trouble of our own left.
pub(super) fn left_by_trouble(recipients: u64, cause: String) -> Passed {
    let tallies = vec![Tally { verdict: Verdict::Error, recipients }];
    Passed { tallies, trouble: Some(cause), ..Passed::default() }
}

/// A pass that is not on record: what it had deferred is deferred still, and everybody else
/// counts as what trouble of our own left.
pub(super) fn unwritten(passed: &Passed, error: &Error) -> Passed {
    let left = |tally: &Tally| match tally.verdict {
        Verdict::Deferred | Verdict::Copy => *tally,
        _ => Tally { verdict: Verdict::Error, ..*tally },
    };
    let tallies = passed.tallies.iter().map(left).collect();
    Passed { tallies, trouble: Some(error.to_string()), unwritten: Some(error.clone()), ..Passed::default() }
}

/// How the parts of a mail count.
pub(super) fn tally(dispositions: &[Disposition]) -> Passed {
    let trouble = dispositions.iter().find_map(|disposition| match &disposition.end {
        End::Stay(cause) => cause.clone(),
        _ => None,
    });
    let tallies = dispositions
        .iter()
        .map(|part| Tally { verdict: part.verdict, recipients: part.mail.envelope.recipients.len() as u64 })
        .collect();
    Passed { tallies, trouble, ..Passed::default() }
}

/// What is left of a mail after its pass.
pub(super) fn settlement(dispositions: Vec<Disposition>, base: &Settlement) -> Settlement {
    let (mut parts, mut dropped, mut born) = (Vec::new(), Vec::new(), Vec::new());
    for disposition in dispositions {
        born.extend(disposition.born);
        let mail = disposition.mail;
        match disposition.end {
            End::Delivered => {}
            End::Dropped => dropped.push(mail),
            End::Repository(path) => parts.push(Resting { mail, place: Some(path) }),
            End::Stay(_) => parts.push(Resting { mail, place: None }),
        }
    }
    let parts = one_part_a_key(parts);
    let unless_told = if born.is_empty() { Vec::new() } else { kept_unless_told(dropped, &parts) };
    Settlement { parts, born, unless_told, ..base.clone() }
}

/// Where what was dropped is kept if nobody can be told of it: a mail that ends with a
/// notification is not to end without it. Under a new key where another part has its own.
fn kept_unless_told(dropped: Vec<Mail>, parts: &[Resting]) -> Vec<Resting> {
    let mut kept: Vec<Resting> = Vec::new();
    for mut mail in dropped {
        if parts.iter().chain(&kept).any(|part| part.mail.key == mail.key) {
            take_another_key(&mut mail);
        }
        kept.push(Resting { mail, place: Some(RepositoryPath::error()) });
    }
    kept
}

/// Two parts under one key would be one row: the pipeline gives each its own, and where it
/// ever did not, the later one is better under a new key than lost.
fn one_part_a_key(mut parts: Vec<Resting>) -> Vec<Resting> {
    let mut seen = HashSet::new();
    for part in &mut parts {
        if !seen.insert(part.mail.key.clone()) {
            warn!(mail.id = %part.mail.key, "two parts of a mail had one key");
            take_another_key(&mut part.mail);
        }
    }
    parts
}

/// The old key is the origin: what is on record is found by it.
fn take_another_key(mail: &mut Mail) {
    let text = format!("{}-{}", mail.key, rand::random::<u32>());
    if let Some(key) = MailKey::parse(&text) {
        mail.origin = Some(std::mem::replace(&mut mail.key, key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_with_the_key_of_another_takes_one_of_its_own_and_keeps_its_record() {
        let (listed, _) = crate::audit::failure("K1", "a@x.example", 550, "550 no");
        let part = || Resting { mail: listed.mail.clone(), place: None };
        let parts = one_part_a_key(vec![part(), part(), part()]);
        let origins: Vec<_> = parts.iter().map(|part| part.mail.origin.as_ref().map(MailKey::as_str)).collect();
        assert_eq!(origins, [None, Some("K1"), Some("K1")]);
        let keys: HashSet<_> = parts.iter().map(|part| &part.mail.key).collect();
        assert_eq!(keys.len(), 3, "{keys:?}");
    }
}
