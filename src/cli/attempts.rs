//! `redeliver attempts`: the record, as JSON and for people.

use std::io::Write;

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::app::App;
use super::args::{AttemptsArguments, Format, OutcomeArgument};
use super::exit::{Exit, Failure};
use super::json_lines;
use super::repository::said;
use super::terminal;
use crate::mail::{Attempt, AttemptState, Outcome, Recorded, Side};
use crate::store::AttemptFilter;
use crate::text::rfc3339;
use crate::text::{self, Table};

/// Attempts read from the store at once.
const PAGE: usize = 100;

pub(super) async fn run(app: &App, arguments: AttemptsArguments, out: &mut impl Write) -> Result<Exit, Failure> {
    let now = app.clock.now();
    let since =
        arguments.since.and_then(|age| TimeDelta::from_std(age).ok()).and_then(|age| now.checked_sub_signed(age));
    let outcome = arguments.outcome.map(|outcome| match outcome {
        OutcomeArgument::Delivered => Outcome::Delivered,
        OutcomeArgument::Deferred => Outcome::Deferred,
        OutcomeArgument::Failed => Outcome::Failed,
    });
    let filter = AttemptFilter { recipient: arguments.recipient, outcome, since };
    let mut table = Table::new(&["TIME", "KEY", "NO", "RECIPIENT", "OUTCOME", "CODE", "STAGE", "HOST", "REPLY"]);
    let (mut after, mut number) = (None, 0_u64);
    loop {
        let page = app.store.attempts(&filter, after, PAGE).await?;
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        for (_, attempt) in &page {
            number += 1;
            match arguments.format {
                Format::Json => json_lines::write(out, &json!(attempt))?,
                Format::Text => rows(attempt, &filter, &mut table),
            }
        }
        if arguments.format == Format::Text {
            write!(out, "{}", table.block(terminal::width()))?;
        }
    }
    if arguments.format == Format::Text && number == 0 {
        writeln!(out, "no attempts")?;
    }
    Ok(Exit::Ok)
}

/// The recipients of an attempt that are asked for.
fn rows(attempt: &Attempt, filter: &AttemptFilter, table: &mut Table) {
    for recorded in attempt.recipients.iter().filter(|recorded| filter.means(recorded)) {
        table.row(&[
            rfc3339(recorded.time),
            attempt.key.to_string(),
            attempt.number.to_string(),
            recorded.recipient.to_string(),
            recorded.outcome.to_string(),
            recorded.code.map_or("-".to_owned(), |code| code.to_string()),
            recorded.stage.to_string(),
            recorded.host.clone().unwrap_or_else(|| "-".to_owned()),
            said(recorded),
        ]);
    }
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

/// An attempt for a person: what became of whom, and what was said.
pub(super) fn picture(attempt: &Attempt) -> String {
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
        let said = text::one_line(&said(recorded));
        text.push_str(&format!("    {} {} at {}: {said}\n", recorded.recipient, recorded.outcome, recorded.stage));
    }
    for entry in &attempt.dialogue {
        let arrow = if entry.from == Side::Client { "->" } else { "<-" };
        for line in entry.text.lines() {
            text.push_str(&format!("    {} {arrow} {}\n", entry.time.format("%H:%M:%S%.3f"), text::printable(line)));
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
    text::one_line(&text) + "\n"
}
