//! Delivery status notifications as messages (RFC 3464, RFC 6522, RFC 6533).
//!
//! [`Notification::compose`] writes the whole message that tells a sender what became of his:
//! a part for people whose first lines say who did not get it and what the other side said, a
//! part for programs, and what is returned of the message. It decides nothing: whom to tell of
//! what, and how often, is the caller's matter. Nothing of our own inside stands in it: no
//! local address, no mailet, no repository.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::mime::{encoded_words, has_short_lines, is_seven_bit, quoted_printable};
use super::{Address, NewMail, Outcome, Recorded, ReversePath, Stage};
use crate::text::plain;

/// What is told of a recipient (RFC 3464 section 2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It did not get the message, and will not.
    Failed,
    /// It has not got the message yet.
    Delayed,
    /// The message went to a system that tells nobody of a delivery (RFC 3461 section 5.2.2).
    Relayed,
}

impl Action {
    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Relayed => "relayed",
        }
    }

    /// The class of its status codes (RFC 3463 section 3.1).
    pub fn class(self) -> char {
        match self {
            Self::Failed => '5',
            Self::Delayed => '4',
            Self::Relayed => '2',
        }
    }
}

/// A recipient, and what his sender is told of him.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Who.
    pub recipient: Address,
    /// What.
    pub action: Action,
    /// ORCPT as it was given, `type;address` with the address in xtext (RFC 3461 section 4.2).
    pub original: Option<String>,
    /// When the message was accepted: where several are told of together, which it was.
    #[serde(default)]
    pub accepted: Option<DateTime<Utc>>,
    /// Fields by which its sender knows it, `Subject: x`: likewise.
    #[serde(default)]
    pub marks: Vec<String>,
    /// The outcome that is told; `None` where nobody was asked to take the message.
    pub outcome: Option<Recorded>,
    /// The status where the reply has none of the action's class, such as `5.0.0`.
    pub default_status: String,
}

/// How many notifications are born within any hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DsnLimits {
    /// To one sender; what is more is gathered in a digest.
    pub per_sender: u32,
    /// In all; what is more is told to nobody.
    pub total: u32,
}

impl Default for DsnLimits {
    fn default() -> Self {
        Self { per_sender: 100, total: 1000 }
    }
}

/// A notification that is about to be a mail, if there are not too many.
#[derive(Debug, Clone)]
pub struct NewDsn {
    /// The mail that it is; its key stands where it is noted what was told.
    pub mail: NewMail,
    /// The reverse-path that it answers, by which notifications are counted.
    pub sender: Address,
    /// What it tells.
    pub action: Action,
    /// Of whom: for a digest, where it is not sent itself.
    pub told: Vec<Told>,
    /// How many there may be.
    pub limits: DsnLimits,
}

/// Octets of all replies together in each of the parts, and of one of them.
const MAX_REPLIES: usize = 128 * 1024;
const MAX_REPLY: usize = 16 * 1024;
const MIN_REPLY: usize = 512;

/// Octets of a line of a reply in a field.
const MAX_FIELD_LINE: usize = 900;

/// Octets of a field by which a message is known.
const MAX_MARK: usize = 200;

/// What is returned of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Returned {
    /// Nothing: the report has two parts.
    Nothing,
    /// Its header, with the empty line or without.
    Header(Vec<u8>),
    /// All of it, at most some ten thousand octets: the caller bounds it.
    Message(Vec<u8>),
}

/// All that a notification is made of.
#[derive(Debug, Clone)]
pub struct Notification {
    /// What is told, and of whom; at least one. Of one message it is the same of all.
    pub recipients: Vec<Told>,
    /// It gathers what is told of several messages, and of so many recipients more that are
    /// not named.
    pub digest: Option<u64>,
    /// Whom it goes to.
    pub to: ReversePath,
    /// Whom it comes from.
    pub from: Address,
    /// Our name, for Reporting-MTA.
    pub hostname: String,
    /// ENVID as it was given, in xtext.
    pub envelope_id: Option<String>,
    /// When the message was accepted.
    pub arrived: Option<DateTime<Utc>>,
    /// Until when a message that is delayed is tried.
    pub until: Option<DateTime<Utc>>,
    /// In front of the subject.
    pub prefix: Option<String>,
    /// In place of our words for people; `[machine]` becomes our name.
    pub words: Option<String>,
    /// What is returned.
    pub returned: Returned,
    /// The message was submitted with SMTPUTF8, so that its report may be in UTF-8 (RFC 6533).
    pub utf8: bool,
    /// Now.
    pub date: DateTime<Utc>,
    /// What makes Message-ID and boundary unique.
    pub random: u64,
}

/// A composed notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composed {
    /// The message with CRLF line ends.
    pub message: Vec<u8>,
    /// It has octets beyond ASCII in its body: BODY=8BITMIME.
    pub eight_bit: bool,
    /// It has them in its header: SMTPUTF8.
    pub utf8: bool,
}

impl Notification {
    /// Writes the message.
    pub fn compose(&self) -> Composed {
        let boundary = format!("=_redeliver_{:016x}", self.random);
        let mut message = self.header(&boundary).into_bytes();
        for part in [Some(self.for_people()), Some(self.for_programs()), self.returned_part()].into_iter().flatten() {
            message.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
            message.extend_from_slice(&part);
            message.extend_from_slice(b"\r\n");
        }
        message.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        let header = message.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(message.len());
        let (utf8, eight_bit) = (!message[..header].is_ascii(), !message[header..].is_ascii());
        Composed { message, eight_bit, utf8 }
    }

    fn header(&self, boundary: &str) -> String {
        let to = match &self.to {
            ReversePath::Null => String::new(),
            ReversePath::Address(address) => self.address(address),
        };
        let domain = self.from.domain().folded();
        format!(
            "From: Mail Delivery System <{}>\r\nTo: <{to}>\r\nSubject: {}\r\nDate: {}\r\n\
             Message-ID: <dsn.{}.{:016x}@{}>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type={};\r\n boundary=\"{boundary}\"\r\n\r\n",
            self.address(&self.from),
            self.subject(),
            self.date.to_rfc2822(),
            self.date.format("%Y%m%d%H%M%S"),
            self.random,
            domain.trim_matches(['[', ']']),
            if self.utf8 { "global-delivery-status" } else { "delivery-status" },
        )
    }

    /// Whether its own header is in UTF-8, which its way back has to offer: only where who gets it
    /// or who sends it cannot be written otherwise. The sender of a mail that could not go on for
    /// want of SMTPUTF8 is often behind such a host himself.
    fn has_utf8_header(&self) -> bool {
        let to = match &self.to {
            ReversePath::Null => None,
            ReversePath::Address(address) => Some(address),
        };
        [to, Some(&self.from)].into_iter().flatten().any(Address::needs_smtputf8)
    }

    /// An address as it stands in the header: one that needs SMTPUTF8 as it is.
    fn address(&self, address: &Address) -> String {
        if self.has_utf8_header() { address.to_string() } else { address.on_the_wire() }
    }

    fn subject(&self) -> String {
        let prefix = self.prefix.as_deref().map_or(String::new(), |prefix| format!("{} ", plain(prefix)));
        let subject = prefix + &self.what_of_whom();
        if subject.is_ascii() || self.has_utf8_header() { subject } else { encoded_words(&subject) }
    }

    fn what_of_whom(&self) -> String {
        if let Some(more) = self.digest {
            return format!("Undelivered: your messages to {} recipients", self.recipients.len() as u64 + more);
        }
        let who = self.recipients.first().map_or_else(String::new, |told| told.recipient.to_string());
        let others = self.recipients.len().saturating_sub(1);
        let who = if others == 0 { who } else { format!("{who} and {others} more") };
        match self.action() {
            Action::Failed => format!("Undelivered: your message to {who}"),
            Action::Delayed => format!("Delayed: your message to {who}"),
            Action::Relayed => format!("Passed on: your message to {who}"),
        }
    }

    /// What is told of the recipients of one message.
    fn action(&self) -> Action {
        self.recipients.first().map_or(Action::Failed, |told| told.action)
    }

    fn for_people(&self) -> Vec<u8> {
        let mut text = String::new();
        for told in &self.recipients {
            text.push_str(&self.what_happened(told));
            text.push('\n');
        }
        text.push_str(&match (&self.words, self.digest) {
            (Some(words), _) => format!("{}\n", words.replace("[machine]", &self.hostname).trim_end()),
            (None, Some(more)) => what_is_gathered(more),
            (None, None) => self.what_next(),
        });
        text_part("text/plain; charset=utf-8", &text.replace("\r\n", "\n").replace('\n', "\r\n"))
    }

    /// Octets of one reply at most: where there are many, a line or two of each.
    fn room(&self) -> usize {
        (MAX_REPLIES / self.recipients.len().max(1)).clamp(MIN_REPLY, MAX_REPLY)
    }

    /// Who, and what the other side said: the first lines that a person reads.
    fn what_happened(&self, told: &Told) -> String {
        let who = &told.recipient;
        let first = match told.action {
            Action::Failed => format!("Your message{} was not delivered to {who}.", self.which(told)),
            Action::Delayed => format!("Your message has not been delivered to {who} yet."),
            Action::Relayed => format!("Your message for {who} was passed on."),
        };
        let marks = self.marks(told);
        let Some((reply, outcome)) = reply(told) else { return format!("{first}\n{}\n{marks}", own_words(told)) };
        let said = said(up_to(reply, self.room()));
        let whose = if is_on_the_way(outcome) { "next mail system on the way" } else { "mail system of the recipient" };
        match outcome.host.as_deref().or(outcome.next_hop.as_deref()) {
            Some(host) => format!("{first}\nThe {whose}, {}, said:\n{said}\n{marks}", plain(host)),
            None => format!("{first}\nThe {whose} said:\n{said}\n{marks}"),
        }
    }

    /// By what the sender knows which message of several it was.
    fn marks(&self, told: &Told) -> String {
        let shown = if self.digest.is_some() { told.marks.as_slice() } else { &[] };
        shown.iter().map(|mark| format!("{}\n", up_to(&plain(mark), MAX_MARK))).collect()
    }

    /// Which message of several it was.
    fn which(&self, told: &Told) -> String {
        let accepted = told.accepted.filter(|_| self.digest.is_some());
        accepted.map_or_else(String::new, |accepted| format!(" of {}", accepted.format("%-d %B %Y, %H:%M:%S UTC,")))
    }

    fn what_next(&self) -> String {
        match self.action() {
            Action::Failed => "No further attempt is made. If the address is right and the words above do not help, ask\n\
                               the recipient, or whoever runs the mail system of the recipient, by another way than mail,\n\
                               and show them this report.\n"
                .to_owned(),
            Action::Delayed => {
                let until = self.until.map_or(String::new(), |until| {
                    format!(" until {}", until.format("%A, %-d %B %Y %H:%M UTC"))
                });
                format!(
                    "You need not do anything: delivery is tried again{until}. You will be told if it fails for good.\n"
                )
            }
            Action::Relayed => "That system does not tell whether a message arrives. As long as you hear nothing more, it was\n\
                                handed over in good order.\n"
                .to_owned(),
        }
    }

    fn for_programs(&self) -> Vec<u8> {
        let mut fields = vec![format!("Reporting-MTA: dns; {}", plain(&self.hostname))];
        if let Some(id) = &self.envelope_id {
            fields.insert(0, format!("Original-Envelope-Id: {}", decoded_xtext(id)));
        }
        fields.extend(self.arrived.map(|arrived| format!("Arrival-Date: {}", arrived.to_rfc2822())));
        let mut text = lines(&fields);
        for told in &self.recipients {
            text.push_str("\r\n");
            text.push_str(&lines(&self.fields_of(told)));
        }
        let kind = if self.utf8 { "message/global-delivery-status" } else { "message/delivery-status" };
        text_part(kind, &text)
    }

    /// The fields of one recipient (RFC 3464 section 2.3).
    fn fields_of(&self, told: &Told) -> Vec<String> {
        let mut fields = Vec::new();
        if let Some(original) = &told.original {
            fields.push(format!("Original-Recipient: {}", original_recipient(original)));
        }
        fields.push(format!("Final-Recipient: {}", self.final_recipient(&told.recipient)));
        fields.push(format!("Action: {}", told.action.name()));
        fields.push(format!("Status: {}", status(told)));
        fields.extend(self.said_by_whom(told));
        fields.extend(told.outcome.as_ref().map(|outcome| format!("Last-Attempt-Date: {}", outcome.time.to_rfc2822())));
        if let (Action::Delayed, Some(until)) = (told.action, self.until) {
            fields.push(format!("Will-Retry-Until: {}", until.to_rfc2822()));
        }
        fields
    }

    /// The recipient with the type of its address; beyond ASCII it is escaped in a report in ASCII
    /// (RFC 6533 section 3).
    fn final_recipient(&self, recipient: &Address) -> String {
        match (self.utf8, recipient.needs_smtputf8()) {
            (true, _) => format!("utf-8; {recipient}"),
            (false, true) => format!("utf-8; {}", in_utf8_xtext(&recipient.on_the_wire())),
            (false, false) => format!("rfc822; {}", recipient.on_the_wire()),
        }
    }

    /// Remote-MTA and Diagnostic-Code: the reply and whose it was, or what we know ourselves.
    fn said_by_whom(&self, told: &Told) -> Vec<String> {
        let Some((reply, outcome)) = reply(told) else {
            return vec![format!("Diagnostic-Code: x-redeliver; {}", self.folded(&own_words(told)))];
        };
        let host = outcome.host.as_ref().map(|host| format!("Remote-MTA: dns; {}", plain(host)));
        let reply = format!("Diagnostic-Code: smtp; {}", self.folded(up_to(reply, self.room())));
        host.into_iter().chain([reply]).collect()
    }

    /// All lines of a text in one field: what may not stand there becomes a question mark.
    fn folded(&self, text: &str) -> String {
        let line = |line: &str| {
            let line = plain(line);
            let line = if self.utf8 { line } else { ascii(&line) };
            // A line of a header has at most 998 octets.
            let short = up_to(&line, MAX_FIELD_LINE);
            if short.len() < line.len() { format!("{short} [...]") } else { line }
        };
        let lines: Vec<_> = text.lines().map(line).filter(|line| !line.is_empty()).collect();
        lines.join("\r\n ")
    }

    fn returned_part(&self) -> Option<Vec<u8>> {
        let (kind, octets) = match &self.returned {
            Returned::Nothing => return None,
            Returned::Header(octets) if self.utf8 => ("message/global-headers", octets),
            Returned::Header(octets) => ("text/rfc822-headers", octets),
            Returned::Message(octets) if self.utf8 => ("message/global", octets),
            Returned::Message(octets) => ("message/rfc822", octets),
        };
        let composite = matches!(self.returned, Returned::Message(_));
        let (encoding, body) = if is_seven_bit(octets) {
            ("7bit", octets.clone())
        } else if (composite || self.utf8) && has_short_lines(octets) {
            ("8bit", octets.clone())
        } else {
            ("quoted-printable", quoted_printable(octets).into_bytes())
        };
        Some(
            [format!("Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n").into_bytes(), body]
                .concat(),
        )
    }
}

/// Whether a message may be returned whole: a composite type takes no encoding (RFC 2046
/// section 5.2.1), so that its lines must pass as they are.
pub fn may_be_returned_whole(message: &[u8]) -> bool {
    has_short_lines(message) && !message.contains(&0)
}

fn text_part(kind: &str, text: &str) -> Vec<u8> {
    let (encoding, body) = match is_seven_bit(text.as_bytes()) {
        true => ("7bit", text.to_owned()),
        // A message/* type takes no encoding; in UTF-8 it goes as 8bit (RFC 6533 section 5).
        false if kind.starts_with("message/") => ("8bit", text.to_owned()),
        false => ("quoted-printable", quoted_printable(text.as_bytes())),
    };
    format!("Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{body}").into_bytes()
}

fn lines(fields: &[String]) -> String {
    fields.iter().map(|field| format!("{field}\r\n")).collect()
}

fn ascii(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect()
}

/// What a peer said of the recipient or his message. What it said of how we log in there is ours
/// to read: it has our user name, as a rule, and a sender can do nothing about it.
fn reply(told: &Told) -> Option<(&str, &Recorded)> {
    let outcome = told.outcome.as_ref().filter(|outcome| outcome.stage != Stage::Auth)?;
    Some((outcome.reply.as_deref()?, outcome))
}

/// Whether a gateway said it, and not a host that the recipient's domain names.
fn is_on_the_way(outcome: &Recorded) -> bool {
    let domain = outcome.recipient.domain();
    let is_its =
        |hop: &str| hop.eq_ignore_ascii_case(&domain.to_string()) || hop.eq_ignore_ascii_case(&domain.folded());
    outcome.next_hop.as_deref().is_some_and(|hop| !is_its(hop))
}

/// The reply's enhanced code where it is one and of the action's class.
fn status(told: &Told) -> String {
    let of_recipient = told.outcome.as_ref().filter(|outcome| outcome.stage != Stage::Auth);
    let enhanced = of_recipient.and_then(|outcome| outcome.enhanced.as_ref());
    let fits = |code: &&String| is_status(code) && code.starts_with(told.action.class());
    enhanced.filter(fits).unwrap_or(&told.default_status).clone()
}

/// The text, or as much of it as there is room for.
fn up_to(text: &str, room: usize) -> &str {
    &text[..text.floor_char_boundary(room)]
}

/// What a digest ends with.
fn what_is_gathered(more: u64) -> String {
    let others = match more {
        0 => String::new(),
        1 => "It was the same with 1 more recipient, who is not named here.\n".to_owned(),
        n => format!("It was the same with {n} more recipients, who are not named here.\n"),
    };
    format!(
        "{others}These are told together, since too many of your messages failed within an hour. If you did not\n\
         send them, somebody uses your address: ask whoever runs your mail system.\n"
    )
}

/// A reply for a person: its lines one below the other.
fn said(reply: &str) -> String {
    reply.lines().map(|line| format!("  {}", plain(line))).collect::<Vec<_>>().join("\n")
}

/// What there is to say where no peer said anything, without names or addresses of our own
/// side: by what we found out ourselves, else by stage.
fn own_words(told: &Told) -> String {
    let domain = told.recipient.domain();
    let Some(outcome) = &told.outcome else {
        return "This mail system did not send it on.".to_owned();
    };
    match outcome.enhanced.as_deref().and_then(by_status) {
        Some(words) => words.replace("[domain]", &domain.to_string()),
        None => by_stage(outcome.stage, outcome.outcome == Outcome::Failed).replace("[domain]", &domain.to_string()),
    }
}

/// What each status says that is of our own finding (RFC 3463, RFC 7505, RFC 6531, RFC 8689).
fn by_status(status: &str) -> Option<&'static str> {
    Some(match status {
        "5.1.2" | "4.1.2" => "The domain [domain] does not exist.",
        "5.1.10" => "The domain [domain] takes no mail.",
        "5.4.4" | "4.4.4" => "No mail system takes mail for the domain [domain].",
        "5.4.6" => "The mail system for the domain [domain] is the one that this report comes from.",
        "5.3.4" => "Your message is larger than what the mail system of the recipient takes.",
        "5.6.7" => {
            "The mail system of the recipient does not take addresses or header fields with characters\n\
             beyond ASCII (SMTPUTF8), and your message has such."
        }
        "5.7.30" => {
            "Your message is to go over protected connections alone (REQUIRETLS), which the mail system\n\
             of the recipient does not offer."
        }
        "4.5.0" => "It was not sent, since another recipient of the same message was refused.",
        "4.3.0" => "This mail system had a fault of its own, and could not send it.",
        _ => return None,
    })
}

fn by_stage(stage: Stage, gave_up: bool) -> &'static str {
    match stage {
        Stage::Dns if gave_up => "The domain [domain] does not exist, or takes no mail.",
        Stage::Dns => "No mail system could be found for the domain [domain].",
        Stage::Connect | Stage::Banner => "The mail system of the recipient could not be reached.",
        Stage::Ehlo | Stage::Starttls | Stage::Auth => {
            "No session could be agreed on with the mail system of the recipient."
        }
        Stage::Mail | Stage::Rcpt | Stage::Data if gave_up => {
            "The mail system of the recipient cannot take this message."
        }
        Stage::Mail | Stage::Rcpt | Stage::Data => "The connection with the mail system of the recipient broke off.",
        Stage::EndOfData => {
            "The mail system of the recipient did not confirm that it took the message; it may have it."
        }
    }
}

/// Whether a text is a status code (RFC 3463 section 2).
pub fn is_status(code: &str) -> bool {
    let parts: Vec<_> = code.split('.').collect();
    let number = |part: &&str| (1..=3).contains(&part.len()) && part.bytes().all(|octet| octet.is_ascii_digit());
    parts.len() == 3 && matches!(parts[0], "2" | "4" | "5") && parts[1..].iter().all(number)
}

/// A text with all that is no QCHAR as `\x{...}` (RFC 6533 section 3).
fn in_utf8_xtext(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '+' | '=' | '\\');
    let each = |c| if is_plain(c) { String::from(c) } else { format!("\\x{{{:02X}}}", u32::from(c)) };
    text.chars().map(each).collect()
}

/// ORCPT as it stands in the report: the type, and the address out of xtext.
fn original_recipient(given: &str) -> String {
    match given.split_once(';') {
        Some((kind, address)) => format!("{};{}", plain(kind), decoded_xtext(address)),
        None => decoded_xtext(given),
    }
}

/// A text out of xtext (RFC 3461 section 4); what steers, and what is no ASCII, is left as it
/// was given, since it may not stand in a field.
fn decoded_xtext(given: &str) -> String {
    let mut text = String::with_capacity(given.len());
    let mut rest = given;
    while let Some(at) = rest.find('+') {
        text.push_str(&rest[..at]);
        let digits = rest.get(at + 1..at + 3).unwrap_or_default();
        match u8::from_str_radix(digits, 16) {
            Ok(octet @ 0x20..=0x7e) => text.push(char::from(octet)),
            _ => text.push_str(rest.get(at..at + 3).unwrap_or(&rest[at..])),
        }
        rest = rest.get(at + 3..).unwrap_or_default();
    }
    text.push_str(rest);
    ascii(&plain(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).expect("an address")
    }

    fn time(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).expect("in range")
    }

    fn told(recipient: &str, reply: Option<&str>, stage: Stage) -> Told {
        let failed = Outcome::Failed;
        let mut outcome = Recorded::without_contact(address(recipient), failed, stage, "our word".into(), time(60));
        outcome.reply = reply.map(str::to_owned);
        outcome.enhanced = reply.and_then(|reply| reply.split(' ').nth(1)).map(str::to_owned);
        outcome.host = reply.map(|_| "mx.y.example".to_owned());
        let outcome = Some(outcome);
        let action = Action::Failed;
        Told {
            recipient: address(recipient),
            action,
            original: None,
            accepted: None,
            marks: Vec::new(),
            outcome,
            default_status: "5.0.0".into(),
        }
    }

    fn notification(recipients: Vec<Told>) -> Notification {
        Notification {
            recipients,
            digest: None,
            to: ReversePath::parse("a@x.example").expect("an address"),
            from: address("MAILER-DAEMON@relay.example"),
            hostname: "relay.example".into(),
            envelope_id: None,
            arrived: Some(time(0)),
            until: None,
            prefix: None,
            words: None,
            returned: Returned::Header(b"Subject: hello\r\n".to_vec()),
            utf8: false,
            date: time(120),
            random: 7,
        }
    }

    fn outcome(told: &mut Told) -> &mut Recorded {
        told.outcome.as_mut().expect("an outcome")
    }

    fn text(notification: &Notification) -> String {
        String::from_utf8(notification.compose().message).expect("text")
    }

    #[test]
    fn a_person_reads_who_and_what_was_said_and_a_program_all_of_it() {
        let mut one = told("b@y.example", Some("550-5.1.1 no such\n550 5.1.1 user here"), Stage::Rcpt);
        outcome(&mut one).enhanced = Some("5.1.1".into());
        one.original = Some("rfc822;B+2Bb@y.example".into());
        let message = text(&Notification { envelope_id: Some("id+2D1".into()), ..notification(vec![one]) });
        assert_eq!(
            message,
            "From: Mail Delivery System <MAILER-DAEMON@relay.example>\r\n\
             To: <a@x.example>\r\n\
             Subject: Undelivered: your message to b@y.example\r\n\
             Date: Tue, 14 Nov 2023 22:15:20 +0000\r\n\
             Message-ID: <dsn.20231114221520.0000000000000007@relay.example>\r\n\
             Auto-Submitted: auto-replied\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"=_redeliver_0000000000000007\"\r\n\r\n\
             --=_redeliver_0000000000000007\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
             Your message was not delivered to b@y.example.\r\n\
             The mail system of the recipient, mx.y.example, said:\r\n  550-5.1.1 no such\r\n  550 5.1.1 user here\r\n\r\n\
             No further attempt is made. If the address is right and the words above do not help, ask\r\n\
             the recipient, or whoever runs the mail system of the recipient, by another way than mail,\r\n\
             and show them this report.\r\n\r\n\
             --=_redeliver_0000000000000007\r\n\
             Content-Type: message/delivery-status\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
             Original-Envelope-Id: id-1\r\nReporting-MTA: dns; relay.example\r\nArrival-Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n\r\n\
             Original-Recipient: rfc822;B+b@y.example\r\nFinal-Recipient: rfc822; b@y.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\
             Remote-MTA: dns; mx.y.example\r\nDiagnostic-Code: smtp; 550-5.1.1 no such\r\n 550 5.1.1 user here\r\n\
             Last-Attempt-Date: Tue, 14 Nov 2023 22:14:20 +0000\r\n\r\n\
             --=_redeliver_0000000000000007\r\n\
             Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: 7bit\r\n\r\nSubject: hello\r\n\r\n\
             --=_redeliver_0000000000000007--\r\n"
        );
    }

    #[test]
    fn without_a_reply_nothing_of_our_own_is_told() {
        for (stage, words) in [
            (Stage::Dns, "The domain y.example does not exist"),
            (Stage::Connect, "could not be reached"),
            (Stage::Auth, "No session could be agreed on"),
            (Stage::Data, "cannot take this message"),
            (Stage::EndOfData, "it may have it"),
        ] {
            let message = text(&notification(vec![told("b@y.example", None, stage)]));
            assert!(message.contains(words) && message.contains("Diagnostic-Code: x-redeliver; "), "{message}");
            assert!(!message.contains("our word") && !message.contains("Remote-MTA"), "{message}");
        }
    }

    #[test]
    fn what_is_said_of_our_login_is_told_to_nobody() {
        let mut one = told("b@y.example", Some("535 5.7.8 relay-user@10.1.2.3 failed"), Stage::Auth);
        outcome(&mut one).host = Some("gateway.example".into());
        let message = text(&notification(vec![one]));
        for ours in ["relay-user", "gateway.example", "5.7.8", "smtp;"] {
            assert!(!message.contains(ours), "{ours}: {message}");
        }
        assert!(message.contains("No session could be agreed on") && message.contains("Status: 5.0.0"), "{message}");
    }

    #[test]
    fn a_gateway_is_not_taken_for_the_recipient_s_host() {
        for (hop, whose) in
            [("Y.example", "mail system of the recipient"), ("gw.example:587", "next mail system on the way")]
        {
            let mut one = told("b@y.example", Some("550 5.1.1 no"), Stage::Rcpt);
            outcome(&mut one).next_hop = Some(hop.into());
            let message = text(&notification(vec![one]));
            assert!(message.contains(&format!("\r\nThe {whose}, mx.y.example, said:\r\n")), "{message}");
        }
    }

    #[test]
    fn what_we_found_ourselves_is_said_so_that_a_sender_can_act() {
        for (stage, status, words) in [
            (Stage::Dns, "5.1.2", "y.example does not exist."),
            (Stage::Dns, "5.1.10", "y.example takes no mail."),
            (Stage::Dns, "5.4.4", "No mail system takes mail for the domain y.example."),
            (Stage::Mail, "5.3.4", "is larger than what"),
            (Stage::Mail, "5.6.7", "characters\r\nbeyond ASCII (SMTPUTF8)"),
            (Stage::Mail, "5.7.30", "protected connections alone"),
            (Stage::Rcpt, "4.5.0", "another recipient of the same message was refused"),
            (Stage::Data, "4.3.0", "had a fault of its own"),
        ] {
            let mut one = told("b@y.example", None, stage);
            outcome(&mut one).enhanced = Some(status.into());
            let message = text(&notification(vec![one]));
            let reported = words.replace("\r\n", "\r\n ");
            let says = message.matches(words).count() + message.matches(&reported).count();
            assert!(says >= 2 && !message.contains("our word"), "{status}: {message}");
        }
    }

    #[test]
    fn the_status_is_of_the_class_of_what_is_told() {
        for (enhanced, action, status) in [
            ("5.1.1", Action::Failed, "5.1.1"),
            ("4.2.0", Action::Failed, "5.0.0"),
            ("4.2.0", Action::Delayed, "4.2.0"),
            ("2.1.5", Action::Relayed, "2.1.5"),
            ("5.1", Action::Failed, "5.0.0"),
            ("5.1.1000", Action::Failed, "5.0.0"),
            ("5.x.1", Action::Failed, "5.0.0"),
        ] {
            let mut one = told("b@y.example", Some("550 x"), Stage::Rcpt);
            outcome(&mut one).enhanced = Some(enhanced.into());
            let message = text(&notification(vec![Told { action, ..one }]));
            assert!(message.contains(&format!("\r\nStatus: {status}\r\n")), "{enhanced}: {message}");
        }
    }

    #[test]
    fn hostile_replies_and_headers_stay_where_they_belong() {
        let reply = format!("550 5.7.1 n\u{f6}\u{202e}\u{1b}[31m\r\nBcc: z@z.example {}", "x".repeat(3000));
        let mut one = told("b@y.example", Some(&reply), Stage::Rcpt);
        one.original = Some("rfc822;a+0D+0ABcc:+20z".into());
        let returned = Returned::Header(b"Subject: \xfc\x00\r\nX: ".iter().chain(&[b'y'; 2000]).copied().collect());
        let composed = Notification { returned, ..notification(vec![one]) }.compose();
        assert!(is_seven_bit(&composed.message) && !composed.eight_bit && !composed.utf8);
        let text = String::from_utf8(composed.message).expect("ASCII");
        assert!(!text.contains("\r\nBcc") && text.contains("xxx [...]\r\n"), "{text}");
        assert!(text.contains("Subject: =FC=00\r\n"), "{text}");
    }

    #[test]
    fn a_mail_in_utf8_is_told_of_in_utf8() {
        let one = told("b\u{fc}@y.example", Some("550 5.1.1 nichts f\u{fc}r dich"), Stage::Rcpt);
        let returned = Returned::Header("Subject: \u{fc}\r\n".as_bytes().to_vec());
        let told_of = Notification { utf8: true, returned, ..notification(vec![one]) };
        // Whoever has an address in ASCII may be behind hosts without SMTPUTF8.
        let plain = told_of.compose();
        assert!(!plain.utf8 && plain.eight_bit);
        let subject = "\r\nSubject: =?utf-8?q?Undelivered=3A=20your=20message=20to=20b=C3=BC=40y?=\r\n =?utf-8?q?=2Eexample?=\r\n";
        assert!(
            String::from_utf8_lossy(&plain.message).contains(subject),
            "{}",
            String::from_utf8_lossy(&plain.message)
        );
        let to = ReversePath::parse("\u{e4}@x.example").expect("an address");
        let composed = Notification { to, ..told_of }.compose();
        assert!(composed.utf8 && composed.eight_bit);
        let text = String::from_utf8(composed.message).expect("UTF-8");
        for part in [
            "\r\nTo: <\u{e4}@x.example>\r\nSubject: Undelivered: your message to b\u{fc}@y.example\r\n",
            "report-type=global-delivery-status;",
            "Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit",
            "Final-Recipient: utf-8; b\u{fc}@y.example\r\n",
            "Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn an_address_outside_ascii_is_whole_in_a_report_in_ascii() {
        let one = told("b\u{fc}+\u{1f4e7}@y.example", Some("550 5.1.1 no"), Stage::Rcpt);
        let composed = Notification { prefix: Some("R\u{fc}ck:".into()), ..notification(vec![one]) }.compose();
        assert!(is_seven_bit(&composed.message));
        let text = String::from_utf8(composed.message).expect("ASCII");
        assert!(text.contains("\r\nSubject: =?utf-8?q?R=C3=BCck=3A=20Undelivered"), "{text}");
        assert!(text.contains("\r\nFinal-Recipient: utf-8; b\\x{FC}\\x{2B}\\x{1F4E7}@y.example\r\n"), "{text}");
        assert!(text.contains("=F0=9F=93=A7=40y"), "{text}");
    }

    #[test]
    fn delay_and_relay_say_what_comes_next() {
        let until = Some(time(86_400));
        let one = |action| vec![Told { action, ..told("b@y.example", Some("451 4.2.0 later"), Stage::Rcpt) }];
        let delayed = text(&Notification { until, ..notification(one(Action::Delayed)) });
        assert!(delayed.contains("tried again until Wednesday, 15 November 2023 22:13 UTC"), "{delayed}");
        assert!(delayed.contains("\r\nWill-Retry-Until: Wed, 15 Nov 2023 22:13:20 +0000\r\n"), "{delayed}");
        let relayed = text(&Notification { returned: Returned::Nothing, ..notification(one(Action::Relayed)) });
        assert!(relayed.contains("does not tell whether a message arrives") && !relayed.contains("rfc822-headers"));
    }

    #[test]
    fn only_what_passes_as_it_is_is_returned_whole() {
        for (message, whole) in
            [(&b"X: 1\r\n\r\nb\r\n"[..], true), (b"a\nb", false), (b"\xe4\r\n", true), (b"\0", false)]
        {
            assert_eq!(may_be_returned_whole(message), whole, "{message:?}");
        }
    }
}
