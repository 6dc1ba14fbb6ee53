//! The way of one mail: rule by rule, part by part, to its ends.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use tracing::warn;

use super::config::{ERROR_PROCESSOR, Rule};
use super::mailet::{Ended, Failed, Step};
use super::on_exception::OnException;
use super::part::Part;
use super::{Disposition, End, Pass, Verdict};
use crate::mail::{Address, AttributeValue, Mail, MailKey, Outcome, Recorded, RepositoryPath, attribute};

/// A part before a rule of the processor that its state names.
struct Waiting {
    part: Part,
    rule: usize,
}

/// Where a part is after one rule.
enum Moved {
    On(Waiting),
    Ended(Ended),
}

/// Runs a mail from the processor its state names until every part has its end. No
/// configuration has a circle, so it comes to one.
pub(super) async fn to_its_ends(mail: Mail, pass: &Pass<'_>) -> Vec<Ended> {
    let mut ended = Vec::new();
    // The last is the next: a part goes all its way before what was split off behind it.
    let mut waiting = Vec::new();
    for moved in start(mail, pass).into_iter().rev() {
        place(moved, &mut waiting, &mut ended);
    }
    while let Some(next) = waiting.pop() {
        for moved in one_rule(next, pass).await.into_iter().rev() {
            place(moved, &mut waiting, &mut ended);
        }
    }
    ended
}

fn place(moved: Moved, waiting: &mut Vec<Waiting>, ended: &mut Vec<Ended>) {
    match moved {
        Moved::On(next) => waiting.push(next),
        Moved::Ended(end) => ended.push(end),
    }
}

/// Takes out what a process that died has left on record: deliveries are done, failures go
/// their way as a part of their own, and nobody of them is contacted again.
fn start(mut mail: Mail, pass: &Pass<'_>) -> Vec<Moved> {
    let recorded = std::mem::take(&mut mail.recorded);
    let on_success = mail.attributes.text(attribute::ON_SUCCESS).map(str::to_owned);
    mail.attributes.remove(attribute::ON_SUCCESS);
    if mail.state != ERROR_PROCESSOR {
        mail.error = None;
        mail.attributes.remove(attribute::MAILET_ERROR);
    }
    let mut moved = Vec::new();
    let mut rest = Some(Part::whole(mail));
    for outcome in [Outcome::Delivered, Outcome::Failed] {
        let Some(part) = rest.take() else { break };
        let those: Vec<_> = recorded.iter().filter(|one| one.outcome == outcome).cloned().collect();
        let (found, others) = part.of(&those);
        rest = others;
        moved.extend(found.map(|part| on_record(part, outcome, &those, on_success.as_deref(), pass)));
    }
    moved.extend(rest.map(|part| enter(part, None, pass)));
    moved
}

/// Who got it is done, but for what is to follow on it: the process that delivered it named
/// the processor before contact.
fn on_record(
    mut part: Part,
    outcome: Outcome,
    recorded: &[Recorded],
    on_success: Option<&str>,
    pass: &Pass<'_>,
) -> Moved {
    pass.heard(recorded);
    part.attempted(outcome, recorded);
    let on_success = on_success.filter(|name| pass.pipeline.config.leads_to_no_delivery(name));
    match (outcome, on_success) {
        (Outcome::Delivered, None) => Moved::Ended(Ended::new(part, End::Delivered)),
        (Outcome::Delivered, Some(name)) => enter(part, Some(name.to_owned()), pass),
        _ => {
            part.trail.on_record = true;
            enter(part, None, pass)
        }
    }
}

/// Sends a part into `processor`, or for `None` into the one its state names.
fn enter(mut part: Part, processor: Option<String>, pass: &Pass<'_>) -> Moved {
    if let Some(name) = processor {
        part.mail.state = name;
    }
    let state = part.mail.state.as_str();
    if state == ERROR_PROCESSOR {
        part.trail.erred = true;
    }
    if !pass.pipeline.config.rules_of(state).is_empty() {
        return Moved::On(Waiting { part, rule: 0 });
    }
    if state == ERROR_PROCESSOR {
        return Moved::Ended(Ended::new(part, End::Repository(RepositoryPath::error())));
    }
    let cause = format!("MailProcessor '{state}' could not be found. Processing to 'error' instead");
    fail(part, cause, pass)
}

/// Hands a part to processor `error` with the cause.
fn fail(mut part: Part, cause: String, pass: &Pass<'_>) -> Moved {
    note_failure(&mut part, cause);
    if part.trail.erred {
        return Moved::Ended(Ended::new(part, End::Repository(RepositoryPath::error())));
    }
    enter(part, Some(ERROR_PROCESSOR.to_owned()), pass)
}

fn note_failure(part: &mut Part, cause: String) {
    part.mail.attributes.set(attribute::MAILET_ERROR, AttributeValue::Text(cause.clone()));
    part.mail.error = Some(cause);
}

/// Puts a part through its next rule: the matched recipients first, then the others.
async fn one_rule(waiting: Waiting, pass: &Pass<'_>) -> Vec<Moved> {
    let Waiting { part, rule: at } = waiting;
    let Some(rule) = pass.pipeline.config.rules_of(&part.mail.state).get(at) else {
        if part.trail.outcome == Some(Outcome::Delivered) {
            return vec![Moved::Ended(Ended::new(part, End::Delivered))];
        }
        // Refused when the configuration is read; still, nothing may fall off.
        let cause = format!("processor '{}' came to its end without a rule for this mail", part.mail.state);
        return vec![fail(part, cause, pass)];
    };
    let (matched, others) = matched_and_others(rule, part);
    let mut moved = Vec::new();
    if let Some(part) = matched {
        match rule.mailet.run(part, pass).await {
            Ok(steps) => moved.extend(steps.into_iter().map(|step| step_on(step, at, pass))),
            Err(failed) => moved.push(failed_on(failed, rule, at, pass)),
        }
    }
    moved.extend(others.map(|part| Moved::On(Waiting { part, rule: at + 1 })));
    moved
}

fn step_on(step: Step, at: usize, pass: &Pass<'_>) -> Moved {
    match step {
        Step::Next(part) => Moved::On(Waiting { part, rule: at + 1 }),
        Step::Go(part, processor) => enter(part, Some(processor), pass),
        Step::End(ended) => Moved::Ended(ended),
    }
}

/// Where a part goes whose mailet failed, as the rule says.
fn failed_on(failed: Failed, rule: &Rule, at: usize, pass: &Pass<'_>) -> Moved {
    let Failed { mut part, cause } = failed;
    warn!(mail.id = %part.mail.key, processor = part.mail.state, rule = at, %cause, "a mailet failed");
    // Who has the mail must not get it again from a repository of errors.
    if part.trail.outcome == Some(Outcome::Delivered) {
        return Moved::Ended(Ended::new(part, End::Delivered));
    }
    match &rule.on_exception {
        OnException::Error => fail(part, cause, pass),
        OnException::Ignore => Moved::On(Waiting { part, rule: at + 1 }),
        OnException::Propagate => {
            note_failure(&mut part, cause);
            part.trail.erred = true;
            Moved::Ended(Ended::new(part, End::Repository(RepositoryPath::error())))
        }
        OnException::Processor(name) => {
            note_failure(&mut part, cause);
            enter(part, Some(name.clone()), pass)
        }
    }
}

/// Splits by the rule's matcher and notes on which side the limit of passes decided.
fn matched_and_others(rule: &Rule, mut part: Part) -> (Option<Part>, Option<Part>) {
    let declined = rule.mailet.consumes() && rule.matcher.declines(&part.mail.attributes);
    let exhausted = rule.matcher.is_exhausted(&part.mail.attributes);
    let selected = rule.matcher.select(&mut part);
    let (mut matched, mut others) = part.split(&selected);
    if let Some(part) = &mut matched {
        part.trail.promoted |= exhausted;
    }
    if let Some(part) = &mut others {
        part.trail.promoted |= declined;
    }
    if rule.inverted { (others, matched) } else { (matched, others) }
}

/// Makes dispositions of the ends: keys, origins, verdicts, and what stays as it was.
pub(super) fn dispositions(
    ended: Vec<Ended>,
    whole: &Mail,
    now: DateTime<Utc>,
    new_key: &dyn Fn() -> MailKey,
) -> Vec<Disposition> {
    let (staying, ended): (Vec<_>, Vec<_>) = ended.into_iter().partition(|one| matches!(one.end, End::Stay(_)));
    let keeper = if staying.is_empty() { keeper(&ended) } else { None };
    let mut found: Vec<_> = stay(&staying, whole).into_iter().collect();
    for (at, Ended { mut part, mut end, uncounted }) in ended.into_iter().enumerate() {
        let verdict = verdict(&part, &end);
        // A notification that cannot be delivered is nobody's to audit (RFC 5321 section 6.1).
        if part.mail.attributes.get(attribute::DSN).is_some() && matches!(verdict, Verdict::Failed | Verdict::Promoted)
        {
            end = End::Repository(RepositoryPath::dsn());
        }
        if matches!(end, End::Repository(_)) {
            part.mail.last_updated = now;
            if keeper != Some(at) {
                part.mail.key = new_key();
                part.mail.origin = Some(whole.key.clone());
            }
        }
        found.push(Disposition { mail: *part.mail, end, verdict, uncounted, born: Vec::new() });
    }
    found
}

/// The part that keeps the key: the deferred one, else the first that is still owed anything.
fn keeper(ended: &[Ended]) -> Option<usize> {
    let rests = |one: &Ended| matches!(one.end, End::Repository(_)) && !one.part.trail.copy;
    let has = |outcome: Outcome| move |one: &Ended| one.part.trail.outcome == Some(outcome);
    let (deferred, delivered) = (has(Outcome::Deferred), has(Outcome::Delivered));
    let owed = ended.iter().position(|one| rests(one) && !delivered(one));
    ended.iter().position(|one| rests(one) && deferred(one)).or(owed).or_else(|| ended.iter().position(rests))
}

/// All that stays is one mail, as it came in.
fn stay(staying: &[Ended], whole: &Mail) -> Option<Disposition> {
    let mut mail = whole.clone();
    let recipients = staying.iter().flat_map(|one| &one.part.mail.envelope.recipients);
    let stays: HashSet<_> = recipients.map(Address::mailbox).collect();
    mail.envelope.keep(|recipient| stays.contains(&recipient.mailbox()));
    mail.recorded.retain(|recorded| stays.contains(&recorded.recipient.mailbox()));
    let mut causes =
        staying.iter().filter_map(|one| if let End::Stay(cause) = &one.end { cause.clone() } else { None });
    let cause = causes.next();
    let verdict = if cause.is_some() { Verdict::Error } else { Verdict::Left };
    if staying.is_empty() {
        return None;
    }
    let uncounted = staying.iter().flat_map(|one| one.uncounted.iter().cloned()).collect();
    Some(Disposition { mail, end: End::Stay(cause), verdict, uncounted, born: Vec::new() })
}

fn verdict(part: &Part, end: &End) -> Verdict {
    let trail = part.trail;
    match (end, trail.outcome) {
        _ if trail.copy => Verdict::Copy,
        (End::Delivered, _) | (_, Some(Outcome::Delivered)) => Verdict::Delivered,
        _ if trail.erred => Verdict::Error,
        (_, Some(Outcome::Failed)) => Verdict::Failed,
        _ if trail.promoted => Verdict::Promoted,
        // Taken out for good, by the operator's own rule.
        (End::Dropped, _) => Verdict::Failed,
        (_, Some(_)) => Verdict::Deferred,
        (_, None) => unattempted(part, end),
    }
}

/// Stored without an attempt: by what an earlier pass found, or by a rule of the operator's
/// that sets mail aside; in the error repository it is a mistake.
fn unattempted(part: &Part, end: &End) -> Verdict {
    let error = matches!(end, End::Repository(repository) if *repository == RepositoryPath::error());
    match part.mail.attributes.boolean(attribute::IS_DELIVERY_PERMANENT_ERROR) {
        _ if error => Verdict::Error,
        Some(true) => Verdict::Failed,
        _ if part.trail.given_up => Verdict::Failed,
        _ => Verdict::Deferred,
    }
}
