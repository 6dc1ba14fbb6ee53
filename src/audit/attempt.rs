//! The record of an attempt.

use serde_json::{Value, json};

use super::{or_nothing, said};
use crate::mail::{Attempt, AttemptState, Recorded};
use crate::store::AttemptFilter;
use crate::text::{one_line, printable, rfc3339};

/// Of a listing of attempts: a row for each recipient.
pub const ATTEMPT_COLUMNS: [&str; 9] = ["TIME", "KEY", "NO", "RECIPIENT", "OUTCOME", "CODE", "STAGE", "HOST", "REPLY"];

/// An attempt with its mail's key and sender.
pub fn attempt_json(attempt: &Attempt) -> Value {
    json!(attempt)
}

/// An attempt within its mail: without the mail's own key and sender.
pub(super) fn of_mail_json(attempt: &Attempt) -> Value {
    let mut object = json!(attempt);
    if let Some(members) = object.as_object_mut() {
        members.shift_remove("key");
        members.shift_remove("sender");
    }
    object
}

/// The recipients of an attempt that are asked for, in [`ATTEMPT_COLUMNS`].
pub fn attempt_rows(attempt: &Attempt, filter: &AttemptFilter) -> Vec<Vec<String>> {
    let meant = attempt.recipients.iter().filter(|recorded| filter.means(recorded));
    meant.map(|recorded| row(attempt, recorded)).collect()
}

fn row(attempt: &Attempt, recorded: &Recorded) -> Vec<String> {
    vec![
        rfc3339(recorded.time),
        attempt.key.to_string(),
        attempt.number.to_string(),
        recorded.recipient.to_string(),
        recorded.outcome.to_string(),
        or_nothing(recorded.code),
        recorded.stage.to_string(),
        or_nothing(recorded.host.as_ref()),
        said(recorded),
    ]
}

/// An attempt for a person: what became of whom, and what was said.
pub fn attempt_picture(attempt: &Attempt) -> String {
    let state = match attempt.state {
        AttemptState::Open => ", under way",
        AttemptState::Settled => "",
        AttemptState::InDoubt => ", in doubt: the peer may have the mail",
    };
    let counted = if attempt.counted { "" } else { ", not counted" };
    let mut text = format!("attempt {} of {}{state}{counted}\n", attempt.number, rfc3339(attempt.started));
    let mut last_peer = String::new();
    for recorded in &attempt.recipients {
        let peer = peer_picture(recorded);
        if peer != last_peer {
            text.push_str(&peer);
            last_peer = peer;
        }
        let said = one_line(&said(recorded));
        text.push_str(&format!("    {} {} at {}: {said}\n", recorded.recipient, recorded.outcome, recorded.stage));
    }
    for entry in &attempt.dialogue {
        let arrow = entry.arrow();
        for line in entry.text.lines() {
            text.push_str(&format!("    {} {arrow} {}\n", entry.time.format("%H:%M:%S%.3f"), printable(line)));
        }
    }
    text
}

/// Whom a recipient was tried with, and how: the same for many, as a rule.
fn peer_picture(recorded: &Recorded) -> String {
    let mut text = match (&recorded.host, recorded.peer()) {
        (None, _) => "  no host".to_owned(),
        (Some(host), None) => format!("  {host}"),
        (Some(host), Some(peer)) => format!("  {host} ({peer})"),
    };
    if let Some(tls) = &recorded.tls {
        // Why not is among the notes.
        let verified = if tls.verified { "verified" } else { "not verified" };
        text.push_str(&format!(", {} {}, {verified}", tls.version, tls.cipher));
    }
    for note in &recorded.notes {
        text.push_str(&format!("; {note}"));
    }
    one_line(&text) + "\n"
}
