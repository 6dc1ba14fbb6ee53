//! What every backend must decide the same way. A backend fetches, asks here, and writes.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::{Error, Fate, Result, Time, Trouble};
use crate::mail::{
    AttemptState, Attributes, Dialogue, DialogueEntry, DsnLimits, Mail, Outcome, Planned, Recorded, Side, attribute,
};

/// The time that must lie between a mail's n-th counted attempt and the next: the n-th of
/// `spacing`, whose last value repeats. None before the first, and none without a spacing.
pub fn spacing_after(spacing: &[Duration], attempts: u32) -> Duration {
    match usize::try_from(attempts) {
        Ok(0) | Err(_) => Duration::ZERO,
        Ok(n) => spacing.get(n - 1).or(spacing.last()).copied().unwrap_or_default(),
    }
}

/// Counts that a mail is taken out of a repository for reprocessing.
pub fn taken_for_reprocessing(attributes: &mut Attributes) {
    attributes.increment(attribute::REPROCESSING);
}

/// The attributes of a mail that is put into the spool again: taken, and with the counters in
/// `reset` forgotten.
pub(super) fn respooled(mut attributes: Attributes, reset: &[String]) -> Attributes {
    taken_for_reprocessing(&mut attributes);
    for counter in reset {
        attributes.remove(counter);
    }
    attributes
}

/// What becomes of a notification, after so many to this sender and so many in all within an
/// hour.
pub(super) fn fate_of_notification(limits: DsnLimits, to_sender: u32, in_all: u32) -> Fate {
    match () {
        () if to_sender >= limits.per_sender => Fate::Gathered,
        () if in_all >= limits.total => Fate::HeldBack,
        () => Fate::Born,
    }
}

/// What a process's death says of the mails that it had in hand: some of them may have
/// killed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Death {
    /// There was one mail alone.
    alone: bool,
    /// Some were in an attempt: those that only waited are not to blame.
    some_begun: bool,
}

impl Death {
    /// With so many mails in hand, so many of them in an attempt.
    pub(super) fn with(in_hand: u64, begun: u64) -> Self {
        Self { alone: in_hand == 1, some_begun: begun > 0 }
    }

    /// Of a pass that panicked: that points to its mail as surely as a death with nothing else
    /// in hand does.
    pub(super) const PANIC: Self = Self { alone: true, some_begun: false };

    /// How suspect a mail is after it, that was `suspect` before and had `begun` an attempt or
    /// not: 0 is not at all, 1 is in hand at a death, 1 + n is alone in hand at the last n.
    pub(super) fn suspect(self, suspect: u32, begun: bool) -> u32 {
        let is_suspect = begun || !self.some_begun;
        suspect.max(u32::from(is_suspect)) + u32::from(self.alone)
    }
}

/// Deaths in a row at which a mail was alone in hand.
pub(super) fn deaths_alone(suspect: u32) -> u32 {
    suspect.saturating_sub(1)
}

/// What is known of a mail whose process died in an attempt.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Aftermath {
    /// To be added to the attempt's record: for those of whom nothing else is known.
    pub(super) added: Vec<Recorded>,
    /// Where the attempt's record stands.
    pub(super) state: AttemptState,
}

/// Takes a mail out of a dead process's attempt, which was with the next hops of `plan` and
/// has these outcomes on record: recipients with a delivery are done and leave the mail, unless
/// something is to follow on it; recorded failures are kept for the next pass to file without
/// contact, everybody else is owed another try. Who was to be contacted and has no outcome is in
/// doubt.
pub(super) fn after_death(mail: &mut Mail, plan: &[Planned], recorded: &[Recorded], now: Time) -> Aftermath {
    let known: HashSet<_> = recorded.iter().chain(&mail.recorded).map(|one| one.recipient.mailbox()).collect();
    let hops: HashMap<_, _> =
        plan.iter().flat_map(|hop| hop.recipients.iter().map(move |recipient| (recipient.mailbox(), hop))).collect();
    let unknown = mail.envelope.recipients.iter().filter(|recipient| !known.contains(&recipient.mailbox()));
    let added: Vec<_> = unknown
        .map(|recipient| match hops.get(&recipient.mailbox()) {
            Some(hop) => hop.in_doubt(recipient.clone(), now),
            None => Recorded::died_before_contact(recipient.clone(), now),
        })
        .collect();
    let state = state_of(recorded.iter().chain(&added));
    let with = |outcome| recorded.iter().filter(move |one| one.outcome == outcome);
    // Where something is to follow on a delivery, the next pass does it, without contact.
    let is_owed = mail.attributes.get(attribute::ON_SUCCESS).is_some();
    if is_owed {
        mail.recorded.extend(with(Outcome::Delivered).cloned());
    }
    let done: HashSet<_> = with(Outcome::Delivered).filter(|_| !is_owed).map(|one| one.recipient.mailbox()).collect();
    mail.envelope.keep(|recipient| !done.contains(&recipient.mailbox()));
    mail.recorded.extend(with(Outcome::Failed).cloned());
    Aftermath { added, state }
}

/// Where the record of an attempt stands that is over: in doubt where one outcome is.
pub(super) fn state_of<'a>(outcomes: impl IntoIterator<Item = &'a Recorded>) -> AttemptState {
    if outcomes.into_iter().any(|recorded| recorded.in_doubt) { AttemptState::InDoubt } else { AttemptState::Settled }
}

/// How a dialogue that was cut ends.
const CUT: &str = "[dialogue cut here: it is longer than audit.maxDialogue]";

/// The entries as lines of JSON while `room` octets last, then the mark; whether it was needed.
/// See [`Line`].
pub(super) fn lines_within(dialogue: &[DialogueEntry], room: usize) -> Result<(String, bool)> {
    let (mut lines, mut used, mut before) = (String::new(), 0, None);
    for entry in dialogue {
        used += octets_of(entry);
        if used > room {
            return Ok((lines + &line_behind(&event(entry.time, CUT.to_owned()), before)?, true));
        }
        lines.push_str(&line_behind(entry, before)?);
        before = Some(entry);
    }
    Ok((lines, false))
}

/// How many octets an entry counts for, as it is shown: the text, and time and names around it.
pub(super) fn octets_of(entry: &DialogueEntry) -> usize {
    entry.text.len() + 60
}

fn line_behind(entry: &DialogueEntry, before: Option<&DialogueEntry>) -> Result<String> {
    let millis = entry.time.timestamp_millis();
    let when = before.map_or(When::At([millis]), |before| When::Behind(millis - before.time.timestamp_millis()));
    let side = u8::from(entry.from == Side::Server);
    let is_with_another = before.map_or(entry.peer.is_some(), |before| before.peer != entry.peer);
    let line = if is_with_another {
        let peer = entry.peer.map(|peer| peer.to_string()).unwrap_or_default();
        serde_json::to_string(&(when, side, &entry.text, peer))
    } else {
        serde_json::to_string(&(when, side, &entry.text))
    };
    Ok(line.map_err(|error| Error::trouble(Trouble::Internal, error))? + "\n")
}

/// The entries that lines were made of, at once or bit by bit.
pub(super) fn entries_of(lines: &str) -> Result<Dialogue> {
    let mut entries = Dialogue::new();
    for line in lines.lines() {
        let line: Line = serde_json::from_str(line).map_err(|error| Error::trouble(Trouble::Unreadable, error))?;
        let entry = line.behind(entries.last());
        entries.push(entry);
    }
    Ok(entries)
}

/// A line of a stored dialogue: when, who (1 is the peer), what, and over which connection where
/// that is not the one of the line before ("" for none). What was said is most of what is kept of
/// an attempt, so that it is kept short.
#[derive(Deserialize)]
struct Line(When, u8, String, #[serde(default)] Option<String>);

/// In milliseconds.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(untagged)]
enum When {
    /// Since 1970, in the first line of what was written together.
    At([i64; 1]),
    /// Since the line before.
    Behind(i64),
}

impl Line {
    fn behind(self, before: Option<&DialogueEntry>) -> DialogueEntry {
        let Self(when, from, text, peer) = self;
        let (before, millis) = match when {
            When::At([millis]) => (None, millis),
            When::Behind(millis) => (before, millis),
        };
        let behind = TimeDelta::try_milliseconds(millis).unwrap_or_default();
        let time = before.map(|before| before.time).unwrap_or_default().checked_add_signed(behind).unwrap_or_default();
        let peer = peer.map_or(before.and_then(|before| before.peer), |peer| peer.parse().ok());
        DialogueEntry { time, from: if from == 1 { Side::Server } else { Side::Client }, text, peer }
    }
}

/// The entries as they followed each other: next hops that were tried at the same time came
/// to the record one after the other. Each connection begins with an event that names the
/// host; where one goes on behind another, an event says so.
pub(super) fn in_order(mut entries: Dialogue) -> Dialogue {
    entries.sort_by_key(|entry| (entry.text == CUT, entry.time));
    let (mut met, mut last): (HashSet<SocketAddr>, Option<SocketAddr>) = (HashSet::new(), None);
    let mut ordered = Vec::with_capacity(entries.len());
    for mut entry in entries {
        if let Some(peer) = entry.peer.take() {
            if !met.insert(peer) && last != Some(peer) {
                ordered.push(event(entry.time, format!("[with {peer} again]")));
            }
            last = Some(peer);
        }
        ordered.push(entry);
    }
    ordered
}

fn event(time: Time, text: String) -> DialogueEntry {
    DialogueEntry { time, from: Side::Client, text, peer: None }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::mail::{Address, AttributeValue, Envelope, MailKey, MessageFacts, MessageId, ReversePath, Stage};

    fn at(seconds: i64) -> Time {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).expect("in range")
    }

    fn address(name: &str) -> Address {
        Address::parse(&format!("{name}@x.example")).expect("an address")
    }

    fn mail(recipients: &[&str]) -> Mail {
        Mail {
            key: MailKey::parse("K").expect("a key"),
            name: "K".to_owned(),
            origin: None,
            envelope: Envelope::new(ReversePath::Null, recipients.iter().map(|name| address(name)).collect()),
            client: None,
            attributes: Attributes::default(),
            state: "relay".to_owned(),
            error: None,
            accepted: at(0),
            last_updated: at(0),
            header_prefix: String::new(),
            message: MessageId(1),
            facts: MessageFacts::default(),
            recorded: Vec::new(),
        }
    }

    fn recorded(name: &str, outcome: Outcome, in_doubt: bool) -> Recorded {
        let known = Recorded::without_contact(address(name), outcome, Stage::Rcpt, "as scripted".to_owned(), at(1));
        Recorded { in_doubt, ..known }
    }

    #[test]
    fn the_last_spacing_repeats_and_the_first_attempt_waits_for_nothing() {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let spacing = [minutes(15), minutes(60)];
        for (attempts, after) in [(0, 0), (1, 15), (2, 60), (3, 60), (u32::MAX, 60)] {
            assert_eq!(spacing_after(&spacing, attempts), minutes(after), "{attempts}");
            assert_eq!(spacing_after(&[], attempts), Duration::ZERO);
        }
    }

    #[test]
    fn a_death_makes_suspects_of_those_that_may_have_caused_it() {
        // In hand, of them begun; suspect before, begun; suspect after.
        for ((in_hand, begun), (before, is_begun), after) in [
            ((1, 0), (0, false), 2),
            ((1, 1), (0, true), 2),
            ((1, 1), (3, true), 4),
            ((2, 0), (0, false), 1),
            ((2, 1), (0, true), 1),
            ((2, 1), (0, false), 0),
            ((2, 1), (3, false), 3),
            ((2, 1), (3, true), 3),
        ] {
            let death = Death::with(in_hand, begun);
            assert_eq!(death.suspect(before, is_begun), after, "{in_hand} {begun} {before} {is_begun}");
        }
        assert_eq!((Death::PANIC.suspect(0, true), Death::PANIC.suspect(2, false)), (2, 3));
        assert_eq!([0, 1, 2, 4].map(deaths_alone), [0, 0, 1, 3]);
    }

    #[test]
    fn a_dead_process_s_recipients_are_done_failed_deferred_or_in_doubt() {
        use Outcome::{Deferred, Delivered, Failed};
        let mut left = mail(&["done", "failed", "deferred", "silent", "asked", "untried", "before"]);
        left.recorded.push(recorded("before", Failed, false));
        let plan = Planned {
            next_hop: "x.example".to_owned(),
            recipients: ["done", "failed", "deferred", "silent", "asked"].map(address).to_vec(),
            host: "mx.x.example".to_owned(),
            address: "192.0.2.1:25".parse().expect("an address"),
            others: 0,
        };
        let known = [
            recorded("done", Delivered, false),
            recorded("failed", Failed, false),
            recorded("deferred", Deferred, false),
            recorded("silent", Deferred, true),
        ];
        let aftermath = after_death(&mut left, &[plan], &known, at(9));
        let added: Vec<_> = aftermath.added.iter().map(|one| (one.recipient.to_string(), one.in_doubt)).collect();
        assert_eq!(added, [("asked@x.example".to_owned(), true), ("untried@x.example".to_owned(), false)]);
        assert_eq!(aftermath.state, AttemptState::InDoubt);
        let owed: Vec<_> = left.envelope.recipients.iter().map(Address::local_part).collect();
        assert_eq!(owed, ["failed", "deferred", "silent", "asked", "untried", "before"]);
        let to_file: Vec<_> = left.recorded.iter().map(|one| one.recipient.local_part().to_owned()).collect();
        assert_eq!(to_file, ["before", "failed"]);
    }

    #[test]
    fn where_everybody_is_known_nothing_is_in_doubt() {
        let mut all_done = mail(&["done"]);
        let aftermath = after_death(&mut all_done, &[], &[recorded("done", Outcome::Delivered, false)], at(9));
        assert_eq!(aftermath, Aftermath { added: Vec::new(), state: AttemptState::Settled });
        assert!(all_done.envelope.recipients.is_empty());
        let mut nobody_met = mail(&["untried"]);
        let aftermath = after_death(&mut nobody_met, &[], &[], at(9));
        assert_eq!((aftermath.added.len(), aftermath.state), (1, AttemptState::Settled), "nobody was to be contacted");
    }

    #[test]
    fn reprocessing_counts_and_forgets_what_is_to_be_forgotten() {
        let mut attributes = Attributes::default();
        for name in [attribute::AT_MOST_EXECUTIONS, "other"] {
            attributes.set(name, AttributeValue::Integer(8));
        }
        let once = respooled(attributes, &[]);
        assert_eq!(
            (once.integer(attribute::AT_MOST_EXECUTIONS), once.integer(attribute::REPROCESSING)),
            (Some(8), Some(1))
        );
        let again = respooled(once, &[attribute::AT_MOST_EXECUTIONS.to_owned(), "never set".to_owned()]);
        assert_eq!(again.integer(attribute::AT_MOST_EXECUTIONS), None);
        assert_eq!((again.integer("other"), again.integer(attribute::REPROCESSING)), (Some(8), Some(2)));
    }

    fn said(second: i64, peer: Option<&str>, text: &str) -> DialogueEntry {
        let peer = peer.map(|peer| peer.parse().expect("an address"));
        DialogueEntry { time: at(second), from: Side::Server, text: text.to_owned(), peer }
    }

    #[test]
    fn a_dialogue_is_cut_between_lines_with_a_mark() {
        let entries = [said(1, None, "220 x"), said(2, None, "250 y")];
        let line = octets_of(&entries[0]);
        for (room, kept, cut) in [(0, 0, true), (line - 1, 0, true), (line, 1, true), (2 * line, 2, false)] {
            let (lines, was_cut) = lines_within(&entries, room).expect("JSON");
            assert_eq!((lines.lines().count(), was_cut), (kept + usize::from(cut), cut), "{room}");
            assert_eq!(lines.contains(CUT), cut);
        }
    }

    #[test]
    fn stored_lines_say_what_was_said() {
        let (one, other) = (Some("192.0.2.1:25"), Some("[2001:db8::2]:25"));
        let early = DialogueEntry { from: Side::Client, ..said(1, one, "b") };
        let together =
            [said(3, one, "a \"quoted\"\nline"), early, said(4, None, "c"), said(4, other, "d"), said(4, other, "e")];
        let later = [said(9, None, "f"), said(9, one, "g")];
        let (first, second) = (lines_within(&together, 9999), lines_within(&later, 9999));
        let lines = first.expect("JSON").0 + &second.expect("JSON").0;
        assert_eq!(entries_of(&lines).expect("lines"), [&together[..], &later].concat());
        assert!(entries_of("[0,1]\n").is_err_and(|error| error.is_unreadable()));
    }

    #[test]
    fn what_was_said_is_in_order_of_time_and_names_its_peer_where_that_changes() {
        let (one, other) = (Some("192.0.2.1:25"), Some("192.0.2.2:25"));
        let mark = event(at(0), CUT.to_owned());
        let entries =
            vec![said(3, other, "c"), mark, said(1, one, "a"), said(4, one, "d"), said(2, one, "b"), said(5, one, "e")];
        let texts: Vec<_> = in_order(entries).into_iter().map(|entry| (entry.text, entry.peer)).collect();
        let texts: Vec<_> = texts.iter().map(|(text, peer)| (text.as_str(), *peer)).collect();
        let expected = ["a", "b", "c", "[with 192.0.2.1:25 again]", "d", "e", CUT].map(|text| (text, None));
        assert_eq!(texts, expected);
    }
}
