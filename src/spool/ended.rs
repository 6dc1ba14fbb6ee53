//! How a pass ended: as what each part of the mail counts, and what is left of the mail.

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
            let key = another_key(&mail, rand::random::<u32>() as usize);
            mail.origin = Some(std::mem::replace(&mut mail.key, key));
        }
        kept.push(Resting { mail, place: Some(RepositoryPath::error()) });
    }
    kept
}

/// Two parts under one key would be one row: the pipeline gives each its own, and where it
/// ever did not, the later one is better under a new key than lost.
fn one_part_a_key(mut parts: Vec<Resting>) -> Vec<Resting> {
    let mut seen: Vec<MailKey> = Vec::new();
    for part in &mut parts {
        if seen.contains(&part.mail.key) {
            warn!(mail.id = %part.mail.key, "two parts of a mail had one key");
            part.mail.key = another_key(&part.mail, seen.len());
        }
        seen.push(part.mail.key.clone());
    }
    parts
}

fn another_key(mail: &Mail, number: usize) -> MailKey {
    let text = format!("{}-{number}", mail.key);
    MailKey::parse(&text).unwrap_or_else(|| mail.key.clone())
}
