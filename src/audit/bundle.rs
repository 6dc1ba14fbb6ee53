//! Evidence about one mail and one next hop, to be handed to the other side: a zip archive
//! that says what happened to a reader who does not know us.
//!
//! What concerns others is a count, and what concerns only ourselves is left out, unless all
//! is asked for. The same input gives the same octets.

use std::collections::BTreeSet;

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::attempt::of_mail_json;
use super::{header_field, said, zip};
use crate::mail::{Attempt, CANCELLED_BY, Dialogue, Recorded};
use crate::store::Listed;
use crate::text::{one_line, printable, rfc3339};

/// What evidence is made of.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The mail.
    pub listed: &'a Listed,
    /// Its attempts, oldest first.
    pub attempts: &'a [Attempt],
    /// Its header as it is sent, CRLF line ends.
    pub header: &'a [u8],
    /// The whole message, where it is to be handed over too.
    pub message: Option<&'a [u8]>,
}

/// How much of it is shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extent<'a> {
    /// About whom; it must be named where there were several.
    pub next_hop: Option<&'a str>,
    /// Everything: other next hops, our own addresses and the attributes too.
    pub full: bool,
}

/// Why there is no bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoBundle {
    /// Several next hops, and none was named.
    #[error("it was tried at several next hops, name one of: {}", .0.join(", "))]
    NameOne(Vec<String>),
    /// None of that name.
    #[error("it was never tried at {:?}; it was at: {}", .0, .1.join(", "))]
    NeverThere(String, Vec<String>),
    /// Beyond what the format can hold.
    #[error("the bundle would be larger than a zip archive can be: leave the message out")]
    TooLarge,
}

/// The archive.
///
/// # Errors
/// Where it is not clear about whom it is to be.
pub fn bundle(evidence: &Evidence<'_>, extent: Extent<'_>) -> Result<Vec<u8>, NoBundle> {
    let about = About::new(evidence, extent)?;
    let mut entries = vec![
        ("attempts.json".to_owned(), about.attempts_json().into_bytes()),
        ("header.txt".to_owned(), evidence.header.to_vec()),
        ("summary.txt".to_owned(), about.summary().into_bytes()),
    ];
    entries.extend(about.attempts.iter().filter(|attempt| !attempt.dialogue.is_empty()).map(dialogue_entry));
    entries.extend(evidence.message.map(|message| ("message.eml".to_owned(), message.to_vec())));
    entries.sort();
    entries.push(("SHA256SUMS".to_owned(), sums(&entries).into_bytes()));
    entries.sort();
    let newest = evidence.attempts.iter().map(|attempt| attempt.finished.unwrap_or(attempt.started)).max();
    zip::stored(&entries, newest.unwrap_or(evidence.listed.accepted)).ok_or(NoBundle::TooLarge)
}

/// As sha256sum(1) writes and checks it.
fn sums(entries: &[(String, Vec<u8>)]) -> String {
    let line = |(name, content): &(String, Vec<u8>)| {
        let sum: String = digest(&SHA256, content).as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
        format!("{sum}  {name}\n")
    };
    entries.iter().map(line).collect()
}

fn dialogue_entry(attempt: &Attempt) -> (String, Vec<u8>) {
    let mut text = format!(
        "Attempt {}, all times in UTC. -> was said by the sender, <- by the receiver, -- happened.\n\n",
        attempt.number
    );
    for entry in &attempt.dialogue {
        let arrow = entry.arrow();
        for line in entry.text.lines() {
            text.push_str(&format!("{} {arrow} {}\n", rfc3339(entry.time), printable(line)));
        }
    }
    (format!("dialogue-{}.txt", attempt.number), text.into_bytes())
}

/// Whom a recipient was tried at: his own domain, where no next hop was known.
fn hop_of(recorded: &Recorded) -> String {
    recorded.next_hop.clone().unwrap_or_else(|| recorded.recipient.domain().folded())
}

/// What is told, cut down to what the reader is to see.
struct About<'a> {
    evidence: &'a Evidence<'a>,
    full: bool,
    /// `None` where there was none, or all are meant.
    next_hop: Option<String>,
    attempts: Vec<Attempt>,
    /// Recipients at other next hops.
    others: usize,
}

impl<'a> About<'a> {
    fn new(evidence: &'a Evidence<'a>, extent: Extent<'_>) -> Result<Self, NoBundle> {
        let all = || evidence.attempts.iter().flat_map(|attempt| &attempt.recipients);
        let hops: BTreeSet<_> = all().map(hop_of).collect();
        let known = || hops.iter().cloned().collect::<Vec<_>>();
        let next_hop = match extent.next_hop {
            Some(named) => match hops.iter().find(|hop| hop.eq_ignore_ascii_case(named)) {
                Some(hop) => Some(hop.clone()),
                None => return Err(NoBundle::NeverThere(named.to_owned(), known())),
            },
            None if extent.full || hops.is_empty() => None,
            None if hops.len() > 1 => return Err(NoBundle::NameOne(known())),
            None => hops.first().cloned(),
        };
        let is_meant = |recorded: &Recorded| next_hop.as_ref().is_none_or(|hop| hop_of(recorded) == *hop);
        let others = all().filter(|one| !is_meant(one)).map(|one| one.recipient.mailbox()).collect::<BTreeSet<_>>();
        let attempts = evidence.attempts.iter().filter_map(|attempt| cut_down(attempt, is_meant, extent.full));
        Ok(Self { evidence, full: extent.full, attempts: attempts.collect(), others: others.len(), next_hop })
    }

    fn attempts_json(&self) -> String {
        let attempts: Vec<Value> = self.attempts.iter().map(|attempt| self.attempt_json(attempt)).collect();
        let mut object = json!({
            "mail": self.evidence.listed.mail.key,
            "nextHop": self.next_hop,
            "otherRecipients": self.others,
            "attempts": attempts,
        });
        if self.full {
            object["attributes"] = super::mail::attributes_json(&self.evidence.listed.mail);
        }
        // Nothing of it can fail to be written as text.
        serde_json::to_string_pretty(&object).unwrap_or_default() + "\n"
    }

    fn attempt_json(&self, attempt: &Attempt) -> Value {
        let mut object = of_mail_json(attempt);
        let recipients = object["recipients"].as_array_mut().into_iter().flatten();
        for recipient in recipients.filter_map(Value::as_object_mut).filter(|_| !self.full) {
            recipient.shift_remove("localAddress");
        }
        object
    }

    fn summary(&self) -> String {
        let mail = &self.evidence.listed.mail;
        let whom = self.next_hop.as_deref().map_or("its receivers".to_owned(), one_line);
        let mut text = format!("What happened to one message on its way to {whom}\n\n");
        let mut lines = vec![
            ("our key", mail.key.to_string()),
            ("sender", mail.envelope.reverse_path.to_string()),
            ("message ID", field(self.evidence.header, "message-id")),
            ("date", field(self.evidence.header, "date")),
            ("size", format!("{} octets", mail.facts.size)),
            ("accepted", rfc3339(self.evidence.listed.accepted)),
            ("attempts", self.attempts.len().to_string()),
        ];
        if self.others > 0 {
            lines.push(("others", format!("{} with other receivers, not shown here", recipients(self.others))));
        }
        text.extend(lines.iter().map(|(name, value)| format!("{name:<12} {}\n", one_line(value))));
        text.extend(self.attempts.iter().map(attempt_summary));
        text + CLOSING
    }
}

const CLOSING: &str = "
All times are UTC. attempts.json has every detail, dialogue-N.txt what was said in attempt N
(passwords and the message itself left out), header.txt the header of the message as it was
sent. SHA256SUMS is checked with: sha256sum -c SHA256SUMS
";

/// A field of the header, or that there is none.
fn field(header: &[u8], name: &str) -> String {
    header_field(header, name).unwrap_or_else(|| "none".to_owned())
}

fn recipients(number: usize) -> String {
    crate::text::count(number as u64, "recipient")
}

fn attempt_summary(attempt: &Attempt) -> String {
    let mut text = format!("\nAttempt {}, begun {}\n", attempt.number, rfc3339(attempt.started));
    for recorded in &attempt.recipients {
        let with = match (&recorded.host, recorded.peer()) {
            (Some(host), Some(peer)) => format!(" with {host} ({peer})"),
            (Some(host), None) => format!(" with {host}"),
            (None, _) => String::new(),
        };
        let doubt = if recorded.in_doubt { " (the receiver may have it all the same)" } else { "" };
        let Recorded { recipient, outcome, stage, time, .. } = recorded;
        let line =
            format!("{recipient}: {outcome}{doubt} at {}{with}, stage {stage}: {}", rfc3339(*time), said(recorded));
        text.push_str(&format!("  {}\n", one_line(&line)));
    }
    text
}

/// The part of an attempt that is about those meant; `None` where nothing is.
fn cut_down(attempt: &Attempt, is_meant: impl Fn(&Recorded) -> bool, full: bool) -> Option<Attempt> {
    let (mut meant, others): (Vec<_>, Vec<_>) = attempt.recipients.iter().cloned().partition(|one| is_meant(one));
    if meant.is_empty() {
        return None;
    }
    if !full {
        // Who works here is nobody else's business.
        for one in &mut meant {
            one.notes.retain(|note| !note.starts_with(CANCELLED_BY));
        }
    }
    let whole = others.is_empty() || full;
    let dialogue = if whole { attempt.dialogue.clone() } else { dialogue_with(&attempt.dialogue, &meant) };
    Some(Attempt { recipients: meant, dialogue, ..attempt.clone() })
}

/// What was said over connections to the addresses that these recipients were last tried at.
/// Each connection begins with an event that names its address, and so does what goes on
/// behind another.
fn dialogue_with(dialogue: &Dialogue, recipients: &[Recorded]) -> Dialogue {
    let peers: BTreeSet<String> = recipients.iter().filter_map(|one| Some(one.peer()?.to_string())).collect();
    let (mut theirs, mut last) = (false, None);
    let mut kept = Vec::new();
    for entry in dialogue {
        let mut is_known = false;
        if let Some(peer) = begins_with(&entry.text) {
            theirs = peers.contains(peer);
            // It went on behind others, who are not shown: that is no news.
            is_known = theirs && last == Some(peer) && entry.text.starts_with(AGAIN);
            last = if theirs { Some(peer) } else { last };
        }
        if theirs && !is_known {
            kept.push(entry.clone());
        }
    }
    kept
}

/// How an event begins that says with whom a dialogue goes on.
const AGAIN: &str = "[with ";

/// The address that an event names, where it begins what was said with another one.
fn begins_with(text: &str) -> Option<&str> {
    if let Some(peer) = text.strip_prefix(AGAIN).and_then(|rest| rest.strip_suffix(" again]")) {
        return Some(peer);
    }
    let rest = text.strip_prefix("[connected to ").or_else(|| text.strip_prefix("[connecting to "))?;
    rest.split_once(" (")?.1.split_once(')').map(|(peer, _)| peer)
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;
    use crate::audit::failure;
    use crate::mail::{AttemptState, DialogueEntry, ReversePath, Side};

    const HEADER: &[u8] = b"Message-ID: <m@o.example>\r\nSubject: x\r\n y\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\n";

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).expect("in range")
    }

    fn entry(seconds: i64, text: &str) -> DialogueEntry {
        DialogueEntry { time: at(seconds), from: Side::Client, text: text.to_owned(), peer: None }
    }

    /// A mail tried with two next hops at once, and what was said to both.
    fn two_hops() -> (Listed, Vec<Attempt>) {
        let (mut listed, mut x) = failure("K1", "b@x.example", 550, "550 no");
        let (other, mut y) = failure("K1", "c@y.example", 550, "550 never");
        listed.mail.envelope.recipients.extend(other.mail.envelope.recipients);
        x.address = "192.0.2.1".parse().ok();
        y.address = "192.0.2.2".parse().ok();
        (x.port, y.port, y.next_hop) = (Some(25), Some(25), Some("y.example".to_owned()));
        (x.host, x.local_address) = (Some("mx.x.example".to_owned()), Some("10.0.0.1:4711".to_owned()));
        let dialogue = vec![
            entry(0, "[connected to mx.x.example (192.0.2.1:25)]"),
            entry(1, "MAIL FROM:<x>"),
            entry(2, "[connected to mx.y.example (192.0.2.2:25)]"),
            entry(3, "MAIL FROM:<y>"),
            entry(4, "[with 192.0.2.1:25 again]"),
            entry(5, "RCPT TO:<b@x.example>"),
        ];
        let attempt = Attempt {
            number: 1,
            started: at(0),
            finished: Some(at(6)),
            state: AttemptState::Settled,
            counted: true,
            recipients: vec![x, y],
            dialogue,
            key: listed.mail.key.clone(),
            sender: ReversePath::Null,
        };
        (listed, vec![attempt])
    }

    fn about(extent: Extent<'_>) -> Result<String, NoBundle> {
        let (listed, attempts) = two_hops();
        let evidence = Evidence { listed: &listed, attempts: &attempts, header: HEADER, message: None };
        bundle(&evidence, extent).map(|archive| String::from_utf8_lossy(&archive).into_owned())
    }

    #[test]
    fn one_next_hop_is_told_nothing_of_another_nor_of_ourselves() {
        let told = about(Extent { next_hop: Some("X.example"), full: false }).expect("a bundle");
        for there in [
            "b@x.example",
            "MAIL FROM:<x>",
            "RCPT TO:<b@x.example>",
            "550 no",
            "1 recipient with other",
            "<m@o.example>",
        ] {
            assert!(told.contains(there), "{there}\n{told}");
        }
        for hidden in ["y.example", "MAIL FROM:<y>", "never", "10.0.0.1", "localAddress", "192.0.2.2", "attributes"] {
            assert!(!told.contains(hidden), "{hidden}\n{told}");
        }
    }

    #[test]
    fn all_of_it_has_everybody_and_our_own_side() {
        let told = about(Extent { next_hop: None, full: true }).expect("a bundle");
        for there in ["b@x.example", "c@y.example", "MAIL FROM:<y>", "10.0.0.1:4711", "attributes"] {
            assert!(told.contains(there), "{there}\n{told}");
        }
    }

    #[test]
    fn of_several_next_hops_one_is_to_be_named() {
        let both = || vec!["x.example".to_owned(), "y.example".to_owned()];
        assert_eq!(about(Extent::default()), Err(NoBundle::NameOne(both())));
        let named = Extent { next_hop: Some("z.example"), full: false };
        assert_eq!(about(named), Err(NoBundle::NeverThere("z.example".into(), both())));
    }

    #[test]
    fn the_same_input_gives_the_same_octets_in_a_fixed_order() {
        let (listed, attempts) = two_hops();
        let evidence =
            Evidence { listed: &listed, attempts: &attempts, header: HEADER, message: Some(b"A: b\r\n\r\nx") };
        let extent = Extent { next_hop: Some("y.example"), full: false };
        let archive = bundle(&evidence, extent).expect("a bundle");
        assert_eq!(bundle(&evidence, extent), Ok(archive.clone()));
        let directory = String::from_utf8_lossy(&archive);
        let places = ["SHA256SUMS", "attempts.json", "dialogue-1.txt", "header.txt", "message.eml", "summary.txt"]
            .map(|name| directory.rfind(name).expect(name));
        assert!(places.is_sorted(), "{places:?}");
    }
}
