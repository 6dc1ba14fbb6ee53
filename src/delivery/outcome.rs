//! The only place that says what an event means for a recipient (RFC 5321 section 4.2,
//! RFC 3463): delivered, deferred or failed, and whether another host may be tried.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::mail::{Address, CANCELLED_BY, DsnRequest, IN_DOUBT, Outcome, Recorded, Stage, TlsFacts};
use crate::smtp::Reply;

use super::ehlo_name::{EhloName, speaks_of_helo};
use super::routing::{NoRoute, Target};
use super::step::{Broken, Step};

/// What happened to a recipient, at which step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Finding {
    pub(super) step: Step,
    pub(super) event: Event,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    /// The peer answered.
    Reply(Reply),
    /// It refused the name we gave with EHLO.
    OurName(Reply),
    /// There was no answer, or none that is SMTP.
    Broken(Broken),
    /// We decided, before the peer could.
    Decision(Decision),
}

/// What we decide by ourselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// A `startTLS` policy is not met, for this reason.
    TlsPolicy(String),
    /// AUTH is not possible, for this reason.
    NoAuth(String),
    /// The peer's SIZE limit, in octets.
    TooLarge(u64),
    /// The peer has no SMTPUTF8.
    NoSmtpUtf8,
    /// The mail's REQUIRETLS cannot be kept, for this reason.
    NoRequireTls(String),
    /// `sendpartial: false`, and another recipient was refused.
    NotPartially,
    /// The stored message cannot be sent, for this reason.
    Content(String),
    /// Trouble of our own before a packet.
    Own(String),
}

/// What an event means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ruling {
    pub(super) outcome: Outcome,
    /// Another host may be tried for this recipient in this attempt.
    pub(super) next_host: bool,
}

impl Ruling {
    const DELIVERED: Self = Self { outcome: Outcome::Delivered, next_host: false };
    const FAILED: Self = Self { outcome: Outcome::Failed, next_host: false };
    const DEFERRED: Self = Self { outcome: Outcome::Deferred, next_host: false };
    /// Deferred if no other host does better.
    const NEXT_HOST: Self = Self { outcome: Outcome::Deferred, next_host: true };
}

impl Finding {
    /// A reply or its absence, at the step that wanted it.
    pub(super) fn at(step: Step, result: Result<Reply, Broken>) -> Self {
        Self { step, event: result.map_or_else(Event::Broken, Event::Reply) }
    }

    pub(super) fn decided(step: Step, decision: Decision) -> Self {
        Self { step, event: Event::Decision(decision) }
    }

    /// The stage that the record names.
    pub(super) fn stage(&self) -> Stage {
        self.step.stage()
    }

    /// Whether the peer may have the mail: the connection broke, or it made no sense, behind
    /// the final dot.
    fn is_in_doubt(&self) -> bool {
        self.step == Step::EndOfData && matches!(self.event, Event::Broken(_))
    }

    /// The reply, where there was one.
    pub(super) fn reply(&self) -> Option<&Reply> {
        match &self.event {
            Event::Reply(reply) | Event::OurName(reply) => Some(reply),
            _ => None,
        }
    }

    /// What it means for the recipient.
    pub(super) fn ruling(&self) -> Ruling {
        match &self.event {
            Event::Reply(reply) => answer(self.stage(), reply),
            // Another host is as likely to, but only before MAIL nothing has come of asking it.
            Event::OurName(_) if self.stage() == Stage::Ehlo => Ruling::NEXT_HOST,
            Event::OurName(_) => Ruling::DEFERRED,
            // RFC 1047: it may not get the mail from elsewhere.
            Event::Broken(_) if self.is_in_doubt() => Ruling::DEFERRED,
            Event::Broken(_) => Ruling::NEXT_HOST,
            Event::Decision(decision) => decided(decision),
        }
    }

    /// Whether the recipient was accepted, and not sent to because another one was not.
    pub(super) fn is_for_another_s_sake(&self) -> bool {
        matches!(self.event, Event::Decision(Decision::NotPartially))
    }

    /// Whether nothing more is to be said on the connection.
    pub(super) fn ends_session(&self) -> bool {
        match &self.event {
            Event::Reply(reply) => reply.code() == 421 || self.step == Step::Banner,
            Event::OurName(_) => false,
            Event::Broken(_) => true,
            Event::Decision(decision) => matches!(decision, Decision::Content(_)),
        }
    }
}

/// What is noted with a refusal of those whom the peer does not know.
const WANTS_MORE: &str =
    "the peer wants AUTH or TLS of this relay first: see 'gatewayUsername', 'gatewayPassword' and 'startTLS'";

/// A reply by its first digit, with the exceptions.
fn answer(stage: Stage, reply: &Reply) -> Ruling {
    match (stage, reply.class()) {
        (Stage::EndOfData, 2) => Ruling::DELIVERED,
        // Before MAIL a refusal is about this host and us, not about the recipient.
        (Stage::Banner | Stage::Ehlo | Stage::Starttls, _) => Ruling::NEXT_HOST,
        // Another host would lock the account just as well.
        (Stage::Auth, _) => Ruling::DEFERRED,
        // RFC 5321 section 4.5.3.1.10: "too many recipients", by an old code.
        (Stage::Rcpt, 5) if reply.code() == 552 => Ruling::DEFERRED,
        (_, 5) => Ruling::FAILED,
        _ => Ruling::NEXT_HOST,
    }
}

fn decided(decision: &Decision) -> Ruling {
    match decision {
        Decision::TooLarge(_) => Ruling::FAILED,
        Decision::NoSmtpUtf8 | Decision::NoRequireTls(_) => Ruling { outcome: Outcome::Failed, next_host: true },
        Decision::TlsPolicy(_) | Decision::Own(_) => Ruling::NEXT_HOST,
        Decision::NoAuth(_) | Decision::NotPartially | Decision::Content(_) => Ruling::DEFERRED,
    }
}

/// Whether a reply of this kind can answer the step at all: 3xx only asks for more of what
/// DATA and AUTH announce, and DATA has not been done by saying it.
pub(super) fn has_meaning(step: Step, reply: &Reply) -> bool {
    match (step, reply.class()) {
        (Step::Data, class) => class != 2,
        // Before its end no content can have been taken.
        (Step::Content, class) => class >= 4,
        (Step::Auth, _) => true,
        (_, class) => class != 3,
    }
}

/// Whether a reply to RCPT is about the number of recipients and not about this one, so
/// that a further transaction may take it.
pub(super) fn is_too_many_recipients(reply: &Reply) -> bool {
    // Some say 5.5.3 with a 452, which is no enhanced code by the letter.
    let status = reply.texts().next().and_then(|text| text.split_whitespace().next()).unwrap_or_default();
    let by_status = ["4.5.3", "5.5.3"].contains(&status);
    let by_text = || reply.text().to_ascii_lowercase().contains("too many recipients");
    matches!(reply.code(), 452 | 552) && (by_status || by_text())
}

/// Whether a fresh connection to the same host makes up for what a reused one did: it had
/// been given up by the peer (RFC 5321 section 3.8).
pub(super) fn is_stale_session(finding: &Finding) -> bool {
    match &finding.event {
        Event::Reply(reply) => reply.code() == 421,
        Event::Broken(Broken::Closed | Broken::Io(_) | Broken::Tls(_)) => !finding.is_in_doubt(),
        _ => false,
    }
}

/// Whom we were talking to.
#[derive(Debug, Clone)]
pub(super) struct Contact {
    pub(super) target: Target,
    pub(super) local_address: Option<String>,
    pub(super) tls: Option<TlsFacts>,
    /// Why it is to go on without TLS, where it is.
    pub(super) in_clear: Option<String>,
    pub(super) notes: Vec<String>,
    /// The name we gave.
    pub(super) ehlo: EhloName,
    /// What it is told of notifications, where it offers DSN.
    pub(super) dsn: Option<Arc<DsnRequest>>,
}

impl Contact {
    /// With a target that was not reached yet.
    pub(super) fn to(target: &Target) -> Self {
        Self {
            target: target.clone(),
            local_address: None,
            tls: None,
            in_clear: None,
            notes: Vec::new(),
            ehlo: EhloName::default(),
            dsn: None,
        }
    }

    /// As [`Finding::at`]; a refusal of the name we gave is one of its own kind.
    pub(super) fn found(&self, step: Step, result: Result<Reply, Broken>) -> Finding {
        match result {
            Ok(reply) if self.ehlo.is_refused_by(step, &reply) => Finding { step, event: Event::OurName(reply) },
            other => Finding::at(step, other),
        }
    }

    fn notes_on(&self, finding: &Finding) -> Vec<String> {
        let suspected = matches!(&finding.event, Event::Reply(reply) if speaks_of_helo(finding.step, reply));
        let suspected = suspected.then(|| self.ehlo.suspected());
        let unknown = self.is_unknown_to_gateway(finding).then(|| WANTS_MORE.to_owned());
        let cancelled = match &finding.event {
            Event::Broken(Broken::Cancelled(by)) => Some(cancelled_by(by)),
            _ => None,
        };
        self.notes.iter().cloned().chain(suspected).chain(unknown).chain(cancelled).collect()
    }

    /// Whether a gateway takes mail only from those who have said more of themselves (RFC 4954
    /// section 6, RFC 3207 section 4).
    fn is_unknown_to_gateway(&self, finding: &Finding) -> bool {
        let wants_more = matches!(&finding.event, Event::Reply(reply) if matches!(reply.code(), 530 | 538));
        wants_more && self.target.preference.is_none()
    }

    /// Why, in a sentence that names host, address and port; none where the reply says it.
    pub(super) fn cause(&self, finding: &Finding) -> Option<String> {
        match &finding.event {
            Event::OurName(_) => Some(format!("{}: {}", self.target, self.ehlo.refused())),
            _ => cause(&self.target, finding),
        }
    }

    /// One recipient's record, but for when it was made and how long it took.
    pub(super) fn record(&self, recipient: &Address, finding: &Finding, time: DateTime<Utc>) -> Recorded {
        let (reply, outcome) = (finding.reply(), finding.ruling().outcome);
        let was_told = self.dsn.as_ref().is_some_and(|dsn| dsn.of(recipient).notify.is_some());
        Recorded {
            recipient: recipient.clone(),
            outcome,
            code: reply.map(Reply::code),
            enhanced: enhanced(finding),
            reply: reply.map(Reply::text),
            stage: finding.stage(),
            next_hop: Some(self.target.next_hop.clone()),
            host: Some(self.target.host.clone()),
            address: Some(self.target.address.ip()),
            port: Some(self.target.address.port()),
            local_address: self.local_address.clone(),
            tls: self.tls.clone(),
            notes: self.notes_on(finding),
            cause: self.cause(finding),
            dsn_handed_on: was_told && outcome == Outcome::Delivered,
            in_doubt: finding.is_in_doubt(),
            time,
            duration: 0.0,
        }
    }
}

/// What is noted with those whose run somebody ended.
pub(super) fn cancelled_by(by: &str) -> String {
    format!("{CANCELLED_BY}{by}")
}

/// The record of a recipient whose next hop has no host.
pub(super) fn without_route(
    recipient: Address,
    hop: &str,
    none: &NoRoute,
    defers: bool,
    time: DateTime<Utc>,
) -> Recorded {
    let outcome = if defers { Outcome::Deferred } else { none.outcome };
    let mut recorded = Recorded::without_contact(recipient, outcome, Stage::Dns, none.cause.clone(), time);
    recorded.next_hop = Some(hop.to_owned());
    // RFC 3463 section 3.1: class 4 says that it may pass.
    recorded.enhanced =
        Some(if outcome == Outcome::Deferred { none.enhanced.replacen('5', "4", 1) } else { none.enhanced.to_owned() });
    recorded
}

/// Whether the pass ended with "no such domain" but was deferred all the same: what
/// `maxDnsProblemRetries` counts.
pub fn is_dns_problem(recorded: &Recorded) -> bool {
    recorded.stage == Stage::Dns
        && recorded.outcome == Outcome::Deferred
        && matches!(recorded.enhanced.as_deref(), Some("4.1.2" | "4.4.4"))
}

fn enhanced(finding: &Finding) -> Option<String> {
    let own = |status: &str| Some(status.to_owned());
    match &finding.event {
        Event::Reply(reply) | Event::OurName(reply) => reply.enhanced().map(|status| status.to_string()),
        Event::Broken(_) if finding.step == Step::Connect => own("4.4.1"),
        Event::Broken(_) => own("4.4.2"),
        Event::Decision(Decision::TlsPolicy(_) | Decision::NoAuth(_)) => own("4.7.0"),
        Event::Decision(Decision::TooLarge(_)) => own("5.3.4"),
        Event::Decision(Decision::NoSmtpUtf8) => own("5.6.7"),
        Event::Decision(Decision::NoRequireTls(_)) => own("5.7.30"),
        Event::Decision(Decision::NotPartially) => own("4.5.0"),
        Event::Decision(Decision::Content(_) | Decision::Own(_)) => own("4.3.0"),
    }
}

fn cause(target: &Target, finding: &Finding) -> Option<String> {
    let what = awaited(finding.step);
    Some(match &finding.event {
        Event::Reply(_) | Event::OurName(_) => return None,
        Event::Broken(broken) if finding.step == Step::Connect => format!("{what} {target}: {broken}"),
        Event::Broken(broken) if finding.is_in_doubt() => {
            format!("{IN_DOUBT}{target}: {broken} ({what}); the peer may have the mail")
        }
        Event::Broken(broken) => format!("{target}: {broken} ({what})"),
        Event::Decision(decision) => format!("{target}: {}", sentence(decision)),
    })
}

fn sentence(decision: &Decision) -> String {
    match decision {
        Decision::TlsPolicy(reason) | Decision::NoAuth(reason) | Decision::Own(reason) => reason.clone(),
        Decision::TooLarge(limit) => format!("the message is larger than the {limit} octets that it takes"),
        Decision::NoSmtpUtf8 => "it does not offer SMTPUTF8, which this mail needs".to_owned(),
        Decision::NoRequireTls(reason) => format!("{reason}, and this mail requires TLS all the way (REQUIRETLS)"),
        Decision::NotPartially => "not sent, because another recipient was refused (sendpartial: false)".to_owned(),
        Decision::Content(reason) => format!("the message could not be sent: {reason}"),
    }
}

fn awaited(step: Step) -> &'static str {
    match step {
        Step::Connect => "connecting to",
        Step::Banner => "waiting for its greeting",
        Step::Ehlo | Step::Helo => "waiting for its reply to EHLO",
        Step::Starttls => "at STARTTLS",
        Step::Auth => "waiting for its reply to AUTH",
        Step::Mail | Step::Rset => "waiting for its reply to MAIL",
        Step::Rcpt => "waiting for its reply to RCPT",
        Step::Data => "waiting for its reply to DATA",
        Step::Content => "sending the content",
        Step::EndOfData | Step::Quit => "waiting for its reply to the final dot",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::smtp::{NotSmtp, ReplyReader};

    use super::*;

    fn reply(line: &str) -> Reply {
        ReplyReader::default().push(format!("{line}\r\n").as_bytes()).expect("SMTP").expect("whole")
    }

    fn name(ruling: Ruling) -> String {
        format!("{}{}", ruling.outcome, if ruling.next_host { ", next host" } else { "" })
    }

    #[test]
    fn the_first_digit_decides_with_the_exceptions() {
        for (step, line, means) in [
            (Step::Banner, "554 go away", "deferred, next host"),
            (Step::Banner, "421 4.3.2 busy", "deferred, next host"),
            (Step::Banner, "250 what", "deferred, next host"),
            (Step::Helo, "502 no", "deferred, next host"),
            (Step::Starttls, "454 not now", "deferred, next host"),
            (Step::Auth, "535 5.7.8 wrong", "deferred"),
            (Step::Auth, "454 4.7.0 later", "deferred"),
            (Step::Mail, "451 later", "deferred, next host"),
            (Step::Mail, "550 no", "failed"),
            (Step::Rcpt, "450 greylisted", "deferred, next host"),
            (Step::Rcpt, "421 closing", "deferred, next host"),
            (Step::Rcpt, "550 5.1.1 no such user", "failed"),
            (Step::Rcpt, "571 no", "failed"),
            (Step::Rcpt, "590 no", "failed"),
            (Step::Rcpt, "552 too many recipients", "deferred"),
            (Step::Rcpt, "553 no", "failed"),
            (Step::Data, "554 no valid recipients", "failed"),
            (Step::Data, "451 later", "deferred, next host"),
            (Step::Content, "452 disk full", "deferred, next host"),
            (Step::EndOfData, "250 ok", "delivered"),
            (Step::EndOfData, "299 ok", "delivered"),
            (Step::EndOfData, "451 later", "deferred, next host"),
            (Step::EndOfData, "552 too large", "failed"),
            (Step::EndOfData, "554 spam", "failed"),
        ] {
            assert_eq!(name(Finding::at(step, Ok(reply(line))).ruling()), means, "{line} to {step:?}");
        }
    }

    #[test]
    fn no_reply_is_a_deferral_and_behind_the_final_dot_in_doubt() {
        let target = Target {
            next_hop: "x.example".into(),
            host: "mx.example".into(),
            address: ([192, 0, 2, 1], 25).into(),
            preference: None,
        };
        let recipient = Address::parse("a@x.example").expect("an address");
        for (step, broken, means, cause) in [
            (
                Step::Banner,
                Broken::Closed,
                "deferred, next host",
                "mx.example (192.0.2.1:25): the connection was closed (waiting for its greeting)",
            ),
            (
                Step::Data,
                Broken::TimedOut(Duration::from_mins(2)),
                "deferred, next host",
                "mx.example (192.0.2.1:25): timed out after 120 s (waiting for its reply to DATA)",
            ),
            (
                Step::Content,
                Broken::TooSlow,
                "deferred, next host",
                "mx.example (192.0.2.1:25): the content went slower than 1 KiB/s (sending the content)",
            ),
            (
                Step::Rcpt,
                Broken::NotSmtp(NotSmtp::CodeOutOfRange(999)),
                "deferred, next host",
                "mx.example (192.0.2.1:25): not SMTP: reply code 999, which is outside 200 to 599 (waiting for its reply to RCPT)",
            ),
            (
                Step::EndOfData,
                Broken::TimedOut(Duration::from_mins(10)),
                "deferred",
                "in doubt: mx.example (192.0.2.1:25): timed out after 600 s (waiting for its reply to the final dot); the peer may have the mail",
            ),
            (
                Step::EndOfData,
                Broken::NotSmtp(NotSmtp::OutOfPlace(354)),
                "deferred",
                "in doubt: mx.example (192.0.2.1:25): not SMTP: the reply 354 where it has no meaning (waiting for its reply to the final dot); the peer may have the mail",
            ),
        ] {
            let finding = Finding::at(step, Err(broken));
            assert_eq!(name(finding.ruling()), means);
            assert!(finding.ends_session());
            let recorded = Contact::to(&target).record(&recipient, &finding, DateTime::UNIX_EPOCH);
            assert_eq!(recorded.cause.as_deref(), Some(cause));
            assert_eq!(recorded.in_doubt, step == Step::EndOfData);
        }
    }

    #[test]
    fn a_reply_that_cannot_answer_has_no_meaning() {
        for (step, line, meaning) in [
            (Step::Mail, "354 go", false),
            (Step::EndOfData, "354 go", false),
            (Step::Data, "250 done already", false),
            (Step::Data, "354 go", true),
            (Step::Data, "550 no", true),
            (Step::Content, "250 done already", false),
            (Step::Content, "452 full", true),
            (Step::Auth, "334 ", true),
        ] {
            assert_eq!(has_meaning(step, &reply(line)), meaning, "{line} to {step:?}");
        }
    }

    #[test]
    fn too_many_recipients_is_told_from_other_452s() {
        for (line, too_many) in [
            ("452 4.5.3 limit", true),
            ("552 5.5.3 limit", true),
            ("452 5.5.3 limit", true),
            ("452 Too many recipients received this hour", true),
            ("452 4.2.2 mailbox full", false),
            ("451 4.5.3 too many recipients", false),
        ] {
            assert_eq!(is_too_many_recipients(&reply(line)), too_many, "{line}");
        }
    }

    #[test]
    fn a_domain_that_does_not_exist_is_deferred_while_passes_for_that_are_left() {
        let recipient = Address::parse("a@x.example").expect("an address");
        let none = |enhanced, outcome, dns_problem| NoRoute {
            outcome,
            enhanced,
            cause: "why".into(),
            dns_problem,
            trouble: None,
        };
        for (none, defers, outcome, enhanced, counts) in [
            (none("5.1.2", Outcome::Failed, true), true, Outcome::Deferred, "4.1.2", true),
            (none("5.4.4", Outcome::Failed, true), true, Outcome::Deferred, "4.4.4", true),
            (none("5.1.2", Outcome::Failed, true), false, Outcome::Failed, "5.1.2", false),
            (none("5.1.10", Outcome::Failed, false), false, Outcome::Failed, "5.1.10", false),
            (none("4.4.3", Outcome::Deferred, false), false, Outcome::Deferred, "4.4.3", false),
        ] {
            let recorded = without_route(recipient.clone(), "x.example", &none, defers, DateTime::UNIX_EPOCH);
            assert_eq!((recorded.outcome, recorded.enhanced.as_deref()), (outcome, Some(enhanced)));
            assert_eq!(is_dns_problem(&recorded), counts, "{enhanced}");
        }
    }

    #[test]
    fn what_we_decide_ourselves_has_its_own_status() {
        for (decision, means, status) in [
            (Decision::TlsPolicy("x".into()), "deferred, next host", "4.7.0"),
            (Decision::NoAuth("x".into()), "deferred", "4.7.0"),
            (Decision::TooLarge(5), "failed", "5.3.4"),
            (Decision::NoSmtpUtf8, "failed, next host", "5.6.7"),
            (Decision::NoRequireTls("x".into()), "failed, next host", "5.7.30"),
            (Decision::NotPartially, "deferred", "4.5.0"),
            (Decision::Content("x".into()), "deferred", "4.3.0"),
        ] {
            let finding = Finding::decided(Step::Mail, decision);
            assert_eq!((name(finding.ruling()).as_str(), enhanced(&finding).as_deref()), (means, Some(status)));
        }
    }
}
