//! What a sender asks of notifications, and what was told already (RFC 3461 section 4).
//!
//! The values of RET, ENVID, NOTIFY and ORCPT are read here, strictly, for every way in. They
//! are kept as they were given, since they go on to the next hop unchanged.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::dsn::Action;
use super::{Address, MailKey};

/// Octets of ENVID at most (RFC 3461 section 4.4).
const MAX_ENVID: usize = 100;

/// Octets of ORCPT at most (RFC 3461 section 4.2).
const MAX_ORCPT: usize = 500;

/// Why a value is refused. The text is one line, and says what would be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(&'static str);

impl Malformed {
    /// Of an ORCPT that is not ASCII.
    pub const NEEDS_SMTPUTF8: Self = Self("an ORCPT outside ASCII needs SMTPUTF8");
}

/// How much of the message comes back with the report of a failure (section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Ret {
    /// All of it.
    Full,
    /// Its header.
    Hdrs,
}

impl Ret {
    /// Reads a value of RET; case makes no difference.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        match text.to_ascii_uppercase().as_str() {
            "FULL" => Ok(Self::Full),
            "HDRS" => Ok(Self::Hdrs),
            _ => Err(Malformed("RET is FULL or HDRS")),
        }
    }
}

impl fmt::Display for Ret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Full => "FULL",
            Self::Hdrs => "HDRS",
        })
    }
}

/// What a sender can ask to be told of (section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It was delivered, or passed on to where nobody tells of it.
    Success,
    /// It cannot be delivered.
    Failure,
    /// It takes long.
    Delay,
}

impl Event {
    const ALL: [Self; 3] = [Self::Success, Self::Failure, Self::Delay];

    fn name(self) -> &'static str {
        match self {
            Self::Success => "SUCCESS",
            Self::Failure => "FAILURE",
            Self::Delay => "DELAY",
        }
    }
}

const NEVER: &str = "NEVER";

/// A value of NOTIFY: the events in the order they were given in, none twice; no event is NEVER.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<&'static str>")]
pub struct Notify([Option<Event>; 3]);

impl Notify {
    /// Of nothing at all.
    pub const NEVER: Self = Self([None; 3]);

    /// Reads a value of NOTIFY; case makes no difference.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        if text.eq_ignore_ascii_case(NEVER) {
            return Ok(Self::NEVER);
        }
        let mut notify = Self::NEVER;
        for word in text.split(',') {
            let event = Event::ALL.into_iter().find(|event| event.name().eq_ignore_ascii_case(word));
            let wrong = Malformed("NOTIFY is NEVER alone, or any of SUCCESS, FAILURE and DELAY with commas between");
            notify.add(event.ok_or(wrong)?);
        }
        Ok(notify)
    }

    fn add(&mut self, event: Event) {
        if let Some(free) = self.0.iter_mut().find(|place| place.is_none_or(|there| there == event)) {
            *free = Some(event);
        }
    }

    /// Whether it asks for this.
    pub fn names(self, event: Event) -> bool {
        self.0.contains(&Some(event))
    }

    fn words(self) -> Vec<&'static str> {
        let words: Vec<_> = self.0.into_iter().flatten().map(Event::name).collect();
        if words.is_empty() { vec![NEVER] } else { words }
    }
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.words().join(","))
    }
}

impl From<Notify> for Vec<&'static str> {
    fn from(notify: Notify) -> Self {
        notify.words()
    }
}

impl TryFrom<Vec<String>> for Notify {
    type Error = Malformed;
    fn try_from(words: Vec<String>) -> Result<Self, Malformed> {
        Self::parse(&words.join(","))
    }
}

/// Reads a value of ENVID: xtext of printable characters.
///
/// # Errors
/// [`Malformed`].
pub fn parse_envid(text: &str) -> Result<String, Malformed> {
    if text.is_empty() || text.len() > MAX_ENVID {
        return Err(Malformed("ENVID has 1 to 100 characters"));
    }
    if !is_xtext(text, false) {
        return Err(Malformed(NO_XTEXT));
    }
    Ok(text.to_owned())
}

/// Reads a value of ORCPT: a type, `;` and the address in xtext; `utf8` where the transaction
/// says SMTPUTF8, so that a `utf-8` address may stand there as it is (RFC 6533 section 3).
///
/// # Errors
/// [`Malformed`].
pub fn parse_orcpt(text: &str, utf8: bool) -> Result<String, Malformed> {
    if text.len() > MAX_ORCPT {
        return Err(Malformed("ORCPT has at most 500 characters"));
    }
    let (kind, address) = text.split_once(';').ok_or(NO_TYPE)?;
    if !is_atom(kind) || address.is_empty() {
        return Err(NO_TYPE);
    }
    if !is_xtext(address, utf8 && kind.eq_ignore_ascii_case("utf-8")) {
        return Err(Malformed(NO_XTEXT));
    }
    Ok(text.to_owned())
}

/// What the header field `Original-Recipient:` of a delivered message says (RFC 8098 section
/// 2.3), as a value of ORCPT; `None` where it is none.
pub fn orcpt_of_field(text: &str) -> Option<String> {
    let (kind, address) = text.split_once(';')?;
    let escaped = |octet: u8| match octet {
        b'+' | b'=' | b' ' => format!("+{octet:02X}"),
        octet => char::from(octet).to_string(),
    };
    let address: String = address.trim().bytes().map(escaped).collect();
    parse_orcpt(&format!("{};{address}", kind.trim()), false).ok()
}

/// ORCPT for a transaction without SMTPUTF8: what is not ASCII as `\x{...}` (RFC 6533 section 3).
pub fn orcpt_in_ascii(orcpt: &str) -> String {
    let escaped = |c: char| if c.is_ascii() { c.to_string() } else { format!("\\x{{{:X}}}", u32::from(c)) };
    orcpt.chars().map(escaped).collect()
}

const NO_TYPE: Malformed = Malformed("ORCPT is a type, ';' and an address, such as rfc822;user@example.org");

const NO_XTEXT: &str = "a value in xtext (RFC 3461 section 4) has printable characters without '+', '=' and blanks, \
                        which stand as '+' and two digits 0-9 A-F, and no control character in any form";

/// A text in xtext, of what may stand in a report: printable ASCII, escaped or not.
fn is_xtext(text: &str, utf8: bool) -> bool {
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let fits = match c {
            '+' => is_printable(rest.next(), rest.next()),
            '=' => false,
            c if c.is_ascii() => c.is_ascii_graphic(),
            c => utf8 && !c.is_control(),
        };
        if !fits {
            return false;
        }
    }
    true
}

/// Whether two digits in upper case stand for a printable octet.
fn is_printable(high: Option<char>, low: Option<char>) -> bool {
    let digit = |c: Option<char>| c.filter(|c| !c.is_ascii_lowercase()).and_then(|c| c.to_digit(16));
    matches!((digit(high), digit(low)), (Some(high), Some(low)) if (0x20..=0x7e).contains(&(16 * high + low)))
}

fn is_atom(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_graphic() && !"()<>@,;:\\\".[]=+".contains(c))
}

/// What a sender asks for one recipient, and what he was told of him.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientRequest {
    /// NOTIFY; `None` where it was not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
    /// ORCPT as it was given, `type;address` with the address in xtext.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "orcpt")]
    pub orcpt: Option<String>,
    /// What was told, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<Notice>,
}

fn orcpt<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    text.map(|text| parse_orcpt(&text, true).map_err(D::Error::custom)).transpose()
}

/// That a sender was told something of a recipient, or would have been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What.
    pub action: Action,
    /// When.
    #[serde(serialize_with = "super::attempt::rfc3339")]
    pub at: DateTime<Utc>,
    /// The notification; `None` where it is none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dsn: Option<MailKey>,
    /// Why not, in words: for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

static NOTHING: RecipientRequest = RecipientRequest { notify: None, orcpt: None, told: Vec::new() };

impl RecipientRequest {
    /// Whether NOTIFY names the event; `None` where nothing was said of it.
    pub fn asks_for(&self, event: Event) -> Option<bool> {
        self.notify.map(|notify| notify.names(event))
    }

    /// Whether this was told, in a notification of its own or in a digest.
    pub fn was_told(&self, action: Action) -> bool {
        self.told.iter().any(|notice| notice.action == action && notice.dsn.is_some())
    }

    /// The same recipient was named twice: of what was to be told either time is told.
    pub fn join(&mut self, other: Self) {
        self.notify = match (self.notify, other.notify) {
            (Some(one), Some(two)) => {
                let mut both = one;
                two.0.into_iter().flatten().for_each(|event| both.add(event));
                Some(both)
            }
            // Silence is a wish to be told of failures.
            (Some(one), None) | (None, Some(one)) if one != Notify::NEVER => {
                let mut both = one;
                both.add(Event::Failure);
                Some(both)
            }
            _ => None,
        };
        self.orcpt = self.orcpt.take().or(other.orcpt);
        self.told.extend(other.told);
    }
}

/// What a sender asks of notifications of a mail. Of an ordinary mail nothing, at no cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DsnRequest {
    /// RET.
    pub ret: Option<Ret>,
    /// ENVID as it was given, in xtext.
    pub envid: Option<String>,
    /// The reverse-path that the mail was accepted with, where a rule has set another since.
    pub return_path: Option<Address>,
    /// By mailbox, of those of whom there is anything to say.
    recipients: BTreeMap<String, RecipientRequest>,
}

impl DsnRequest {
    /// What is asked, and was told, of a recipient.
    pub fn of(&self, recipient: &Address) -> &RecipientRequest {
        if self.recipients.is_empty() {
            return &NOTHING;
        }
        self.recipients.get(&recipient.mailbox()).unwrap_or(&NOTHING)
    }

    /// Whether there is nothing to say of any recipient.
    pub fn is_silent(&self) -> bool {
        self.recipients.is_empty()
    }

    /// Sets what is asked for a recipient.
    pub fn ask(&mut self, recipient: &Address, request: RecipientRequest) {
        if request != NOTHING {
            self.recipients.insert(recipient.mailbox(), request);
        }
    }

    /// Notes what was told of a recipient.
    pub fn tell(&mut self, recipient: &Address, notice: Notice) {
        self.recipients.entry(recipient.mailbox()).or_default().told.push(notice);
    }

    /// What was to be told in `dsn` was told in another notification `instead`, or in none, for
    /// the reason that the note gives.
    pub fn amend(&mut self, dsn: &MailKey, instead: Option<&MailKey>, note: Option<&str>) {
        let notices = self.recipients.values_mut().flat_map(|request| &mut request.told);
        for notice in notices.filter(|notice| notice.dsn.as_ref() == Some(dsn)) {
            notice.dsn = instead.cloned();
            notice.note = note.map(str::to_owned);
        }
    }

    /// Whether a recipient's sender was told in this notification.
    pub fn names(&self, dsn: &MailKey) -> bool {
        self.recipients.values().flat_map(|request| &request.told).any(|notice| notice.dsn.as_ref() == Some(dsn))
    }

    /// Forgets all recipients but these.
    pub fn keep(&mut self, recipients: &[Address]) {
        if !self.recipients.is_empty() {
            let kept: std::collections::HashSet<_> = recipients.iter().map(Address::mailbox).collect();
            self.recipients.retain(|mailbox, _| kept.contains(mailbox));
        }
    }

    /// What there is to say of recipients, as JSON by mailbox; for a store.
    pub fn recipients(&self) -> &BTreeMap<String, RecipientRequest> {
        &self.recipients
    }

    /// As it was stored.
    pub fn stored(
        ret: Option<Ret>,
        envid: Option<String>,
        return_path: Option<Address>,
        recipients: BTreeMap<String, RecipientRequest>,
    ) -> Self {
        Self { ret, envid, return_path, recipients }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mail::{Envelope, ReversePath};

    #[test]
    fn values_are_read_strictly_and_kept_as_they_were() {
        for (value, read) in [
            ("NEVER", Some("NEVER")),
            ("never", Some("NEVER")),
            ("Success", Some("SUCCESS")),
            ("DELAY,failure", Some("DELAY,FAILURE")),
            ("SUCCESS,FAILURE,DELAY", Some("SUCCESS,FAILURE,DELAY")),
            ("SUCCESS,SUCCESS", Some("SUCCESS")),
            ("", None),
            (",", None),
            ("SUCCESS,", None),
            ("SUCCESS, DELAY", None),
            ("NEVER,DELAY", None),
            ("DELAY,NEVER", None),
            ("ALWAYS", None),
        ] {
            let notify = Notify::parse(value).ok();
            assert_eq!(notify.map(|notify| notify.to_string()).as_deref(), read, "{value:?}");
            if let Some(notify) = notify {
                let json = serde_json::to_string(&notify).expect("JSON");
                assert_eq!(serde_json::from_str::<Notify>(&json).expect("the same"), notify, "{json}");
            }
        }
        for (value, read) in [("full", Some("FULL")), ("HDRS", Some("HDRS")), ("", None), ("HEADERS", None)] {
            assert_eq!(Ret::parse(value).ok().map(|ret| ret.to_string()).as_deref(), read, "{value:?}");
        }
    }

    #[test]
    fn xtext_has_no_control_character_in_any_form() {
        for (value, fits) in [
            ("QQ314159", true),
            ("a+2Bb+3Dc+20d", true),
            ("", false),
            ("a b", false),
            ("a=b", false),
            ("a+2b", false),
            ("a+2", false),
            ("a+", false),
            ("a+GG", false),
            ("a+0D+0Ab", false),
            ("a+00", false),
            ("a+7F", false),
            ("a+E4", false),
            ("a\u{e4}", false),
            ("a\tb", false),
        ] {
            assert_eq!(parse_envid(value).is_ok(), fits, "{value:?}");
        }
        assert!(parse_envid(&"x".repeat(100)).is_ok() && parse_envid(&"x".repeat(101)).is_err());
        for (value, utf8, fits) in [
            ("rfc822;b@x.example", false, true),
            ("RFC822;B+2Bc@x.example", false, true),
            ("x-own;any+20thing", false, true),
            ("rfc822;", false, false),
            (";b@x.example", false, false),
            ("b@x.example", false, false),
            ("rfc 822;b@x.example", false, false),
            ("rfc822;b@x.example+0D+0ABcc:+20c", false, false),
            ("utf-8;b\\x{FC}@x.example", false, true),
            ("utf-8;b\u{fc}@x.example", false, false),
            ("utf-8;b\u{fc}@x.example", true, true),
            ("rfc822;b\u{fc}@x.example", true, false),
        ] {
            assert_eq!(parse_orcpt(value, utf8).is_ok(), fits, "{value:?}");
        }
        let long = |n: usize| format!("rfc822;{}", "x".repeat(n - 7));
        assert!(parse_orcpt(&long(500), false).is_ok() && parse_orcpt(&long(501), false).is_err());
        for (field, orcpt) in [
            (" rfc822; b+c@x.example\r\n", Some("rfc822;b+2Bc@x.example")),
            ("RFC822;B=1@x.example", Some("RFC822;B+3D1@x.example")),
            ("b@x.example", None),
            ("rfc822;", None),
            ("rfc822;b\u{fc}@x.example", None),
        ] {
            assert_eq!(orcpt_of_field(field).as_deref(), orcpt, "{field:?}");
        }
        assert_eq!(orcpt_in_ascii("utf-8;b\u{fc}@x.example"), "utf-8;b\\x{FC}@x.example");
    }

    proptest! {
        #[test]
        fn no_value_that_is_read_can_end_a_line(value in "([a-z;+=,@\\r\\n\\x00-\\xff]|[+][0-9A-F]{2}|[+][0-9a-f]){0,20}") {
            for text in [parse_envid(&value), parse_orcpt(&value, true), parse_orcpt(&format!("utf-8;{value}"), true)] {
                prop_assert!(!text.is_ok_and(|text| text.contains(|c: char| c.is_control() || c == ' ')));
            }
        }
    }

    fn address(text: &str) -> Address {
        Address::parse(text).expect("an address")
    }

    fn asked(notify: Option<&str>) -> RecipientRequest {
        RecipientRequest { notify: notify.map(|text| Notify::parse(text).expect(text)), ..RecipientRequest::default() }
    }

    #[test]
    fn who_is_named_twice_is_told_of_all_that_was_asked_for_either_time() {
        for (one, two, both) in [
            (None, None, None),
            (None, Some("NEVER"), None),
            (None, Some("SUCCESS"), Some("SUCCESS,FAILURE")),
            (Some("NEVER"), Some("NEVER"), Some("NEVER")),
            (Some("NEVER"), Some("DELAY"), Some("DELAY")),
            (Some("DELAY,FAILURE"), Some("SUCCESS,DELAY"), Some("DELAY,FAILURE,SUCCESS")),
        ] {
            let mut joined = asked(one);
            joined.join(asked(two));
            assert_eq!(joined.notify.map(|n| n.to_string()).as_deref(), both, "{one:?} {two:?}");
        }
    }

    #[test]
    fn what_is_asked_for_a_recipient_goes_with_him() {
        let (b, c) = (address("b@x.example"), address("c@X.example"));
        let mut envelope = Envelope::new(ReversePath::Null, vec![b.clone(), c.clone()]);
        envelope.dsn.ask(&b, asked(Some("NEVER")));
        envelope.dsn.ask(&address("c@x.example"), asked(Some("DELAY")));
        let notice = Notice { action: Action::Delayed, at: DateTime::UNIX_EPOCH, dsn: MailKey::parse("K"), note: None };
        envelope.dsn.tell(&c, notice);
        envelope.keep(|recipient| *recipient == c);
        assert_eq!((&envelope.recipients[..], envelope.dsn.recipients().len()), (std::slice::from_ref(&c), 1));
        let of = envelope.dsn.of(&c);
        assert!(of.was_told(Action::Delayed) && !of.was_told(Action::Failed));
        assert_eq!((of.asks_for(Event::Delay), of.asks_for(Event::Failure)), (Some(true), Some(false)));
        assert_eq!(envelope.dsn.of(&b).asks_for(Event::Failure), None);
        let json = serde_json::to_string(envelope.dsn.recipients()).expect("JSON");
        assert_eq!(
            json,
            r#"{"c@x.example":{"notify":["DELAY"],"told":[{"action":"delayed","at":"1970-01-01T00:00:00.000Z","dsn":"K"}]}}"#
        );
        assert_eq!(&serde_json::from_str::<BTreeMap<_, _>>(&json).expect("the same"), envelope.dsn.recipients());
    }
}
