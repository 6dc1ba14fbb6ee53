//! Why a recipient failed, without what differs from mail to mail: what is equal is one
//! failure group.
//!
//! Pure, and versioned: with other rules the same reply would be another cause, so that
//! whoever changes them counts [`CAUSE_VERSION`] up.

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::{Address, Outcome, Recorded, Stage};
use crate::text::plain;

/// Of the rules in this file.
pub const CAUSE_VERSION: u32 = 1;

/// The text that stands for all those that are too many to be told apart.
pub const OTHER_TEXTS: &str = "(other)";

/// Characters of a text that tell causes apart.
const MAX_TEXT: usize = 200;

/// Stands for a number, a time, a queue id, and whatever else has digits in it.
const NUMBER: &str = "#";

/// The cause of a recipient's last failure.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cause {
    /// Deferred or failed.
    pub outcome: Outcome,
    /// Reply code; `None` without a reply.
    pub code: Option<u16>,
    /// Enhanced status code.
    pub enhanced: Option<String>,
    /// Where in the attempt; `None` where there was no attempt.
    pub stage: Option<Stage>,
    /// Whom it was with.
    pub next_hop: Option<String>,
    /// The reply, or our own words, without what differs from mail to mail.
    pub text: String,
}

/// What a failure group is called: 12 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CauseId(String);

impl CauseId {
    /// Reads what an operator wrote; `None` where it can be none.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() == 12 && text.bytes().all(|octet| octet.is_ascii_hexdigit());
        fits.then(|| Self(text.to_ascii_lowercase()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for CauseId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

impl Cause {
    /// Of an outcome; `None` of a delivery.
    pub fn of(recorded: &Recorded) -> Option<Self> {
        if recorded.outcome == Outcome::Delivered || recorded.is_not_tried() {
            return None;
        }
        let own = recorded.cause.as_deref().map_or("", without_hearsay);
        let said = recorded.reply.as_deref().unwrap_or(own);
        Some(Self {
            outcome: recorded.outcome,
            code: recorded.code,
            enhanced: recorded.enhanced.clone(),
            stage: Some(recorded.stage),
            next_hop: recorded.next_hop.as_deref().map(str::to_lowercase),
            text: normalised(said, &recorded.recipient),
        })
    }

    /// Of a mail without an attempt: what it says itself.
    pub fn of_error(error: &str, recipient: &Address) -> Self {
        let text = normalised(error, recipient);
        Self { outcome: Outcome::Failed, code: None, enhanced: None, stage: None, next_hop: None, text }
    }

    /// The cause that stands for what its next hop and code have too many texts of.
    #[must_use]
    pub fn with_other_text(&self) -> Self {
        Self { enhanced: None, text: OTHER_TEXTS.to_owned(), ..self.clone() }
    }

    /// The first 12 hex digits of SHA-256 of version and members, each with a NUL behind it.
    pub fn id(&self) -> CauseId {
        let code = self.code.map(|code| code.to_string()).unwrap_or_default();
        let stage = self.stage.map(|stage| stage.to_string()).unwrap_or_default();
        let enhanced = self.enhanced.as_deref().unwrap_or_default();
        let next_hop = self.next_hop.as_deref().unwrap_or_default();
        let (version, outcome) = (CAUSE_VERSION.to_string(), self.outcome.to_string());
        let members = [&version, &outcome, &code, enhanced, &stage, next_hop, &self.text];
        let written: String = members.iter().flat_map(|member| [member, "\0"]).collect();
        let digest = digest(&SHA256, written.as_bytes());
        CauseId(digest.as_ref()[..6].iter().map(|octet| format!("{octet:02x}")).collect())
    }
}

/// Our own words without what says that another mail met it first: it is the same cause.
fn without_hearsay(own: &str) -> &str {
    own.split_once(FOUND_DOWN).map_or(own, |(_, cause)| cause)
}

/// Behind the name of a next hop, where another mail found it down; the cause follows.
const FOUND_DOWN: &str = " was found down: ";

/// A reply without what differs from mail to mail: codes (they are told apart already),
/// addresses, the recipient's local part, and words with digits such as queue ids, times and
/// IP addresses. Of several such words in a row one is left, and no weekday or month beside.
fn normalised(reply: &str, recipient: &Address) -> String {
    let mut words: Vec<String> = Vec::new();
    // Words of a date at the end of `words`.
    let mut of_date = 0;
    for word in reply.lines().flat_map(|line| without_codes(line).split_whitespace()) {
        let (general, is_of_date) = (general(word, recipient.local_part()), is_part_of_a_date(word));
        if general == NUMBER {
            words.truncate(words.len() - of_date);
        }
        let behind_number = words.last().is_some_and(|last| last == NUMBER);
        if behind_number && (general == NUMBER || is_of_date) {
            of_date = 0;
        } else {
            words.push(general);
            of_date = if is_of_date { of_date + 1 } else { 0 };
        }
    }
    plain(&words.join(" ")).chars().take(MAX_TEXT).collect()
}

/// A reply line without reply code and enhanced status code.
fn without_codes(line: &str) -> &str {
    let code = |c: &u8| c.is_ascii_digit();
    let rest = match line.as_bytes() {
        [a, b, c, b' ' | b'-', ..] if [a, b, c].into_iter().all(code) => &line[4..],
        [a, b, c] if [a, b, c].into_iter().all(code) => "",
        _ => line,
    };
    let rest = rest.trim_start();
    let (first, behind) = rest.split_once(' ').unwrap_or((rest, ""));
    let enhanced = first.split('.').count() == 3 && first.split('.').all(|n| n.parse::<u16>().is_ok());
    if enhanced { behind } else { rest }
}

/// A word without what differs from mail to mail. Of what is put together, as a URL is, only
/// the parts that differ go.
fn general(word: &str, local_part: &str) -> String {
    if let Some(at) = word.find('@') {
        // "from=<a@b>" is told apart from "to=<a@b>".
        let name = word[..at].split_once('=').map(|(name, _)| name);
        let name = name.filter(|name| name.chars().all(char::is_alphabetic));
        return name.map_or(String::new(), |name| format!("{name}=")) + "<address>";
    }
    let bare = word.trim_matches(is_punctuation);
    if bare.eq_ignore_ascii_case(local_part) && (is_quoted(word) || !is_common(bare)) {
        return "<user>".to_owned();
    }
    if !word.contains(char::is_numeric) {
        return word.to_owned();
    }
    let parts: String = word.split_inclusive(joins).map(general_part).collect();
    if parts.chars().all(|c| joins(c) || NUMBER.contains(c)) { NUMBER.to_owned() } else { parts }
}

/// A part of a URL or of `name=value`, with what joins it to the next.
fn general_part(part: &str) -> String {
    let (text, join) = part.split_at(part.trim_end_matches(joins).len());
    if text.contains(char::is_numeric) { format!("{NUMBER}{join}") } else { part.to_owned() }
}

fn joins(c: char) -> bool {
    matches!(c, '/' | '=' | '?' | '&' | '<' | '>' | '(' | ')')
}

/// What a reply may put around a name.
fn is_punctuation(c: char) -> bool {
    matches!(c, '<' | '>' | '(' | ')' | '[' | ']' | '"' | '\'' | '`' | ':' | ';' | ',' | '.')
}

/// Words of many replies that are local parts too: "mailbox full" is no other cause for full@.
const COMMON: &str = "a about abuse accept accepted access account action active address addresses admin again all allowed an \
     and any are as at attempts authenticated authentication authorized available back bad be been before \
     blacklist blacklisted block blocked body bounce box but by can cannot client closed closing command \
     complaints connect connection connections contact contain contains content could currently daily data \
     day days deactivated deferred deleted deliver delivered delivery denied details directory disabled disk \
     dns do does domain down due dynamic email enabled error exceed exceeded exceeds exist exists expired \
     failed failure file filter for format forward found from full gateway greylist greylisted greylisting \
     group has have header helo help host hour if in inactive inbox info insufficient internal invalid is it \
     known later limit limited line link list listed local lookup mail mailbox mailboxes maildir mailer mails \
     malware many match maximum me message messages minutes mode more much must name network new news no \
     nobody not now number of off office on only operation option or other our out over overquota owner \
     parameter password per permanent permission permitted phishing please policy poor postmaster problem \
     process prohibited protocol provider quota rate reached reason receive receiver recipient recipients \
     record refused registered reject rejected rejection relay relaying reply reputation request required \
     resolve resources restricted return reverse root route rule sales score seconds security see send sender \
     sending sent server service session site size smtp some sorry space spam status storage such support \
     suspended syntax system table team temp temporarily temporary test than that the there they this time \
     timeout to too transaction try unable unauthenticated unauthorized unavailable undeliverable unknown \
     unrouteable unsolicited up use user username users valid verification verify via virus was we web \
     webmaster will with write wrong you your";

fn is_common(word: &str) -> bool {
    word.is_empty() || COMMON.split(' ').any(|common| common.eq_ignore_ascii_case(word))
}

/// Whether it stands in quotes or angle brackets: then it is somebody's name, whatever else it means.
fn is_quoted(word: &str) -> bool {
    let word = word.trim_end_matches([':', ';', ',', '.', ')', ']']).trim_start_matches(['(', '[']);
    let pairs = [('<', '>'), ('\'', '\''), ('"', '"'), ('`', '\'')];
    word.len() > 2 && pairs.into_iter().any(|(open, close)| word.starts_with(open) && word.ends_with(close))
}

/// Whether a word is one of those that stand among the numbers of a date (RFC 5322 section 3.3).
fn is_part_of_a_date(word: &str) -> bool {
    const NAMES: [&str; 24] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Mon", "Tue", "Wed", "Thu",
        "Fri", "Sat", "Sun", "AM", "PM", "UTC", "GMT", "Z",
    ];
    NAMES.contains(&word.trim_matches(is_punctuation))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn recorded(recipient: &str, code: u16, reply: &str) -> Recorded {
        let recipient = Address::parse(recipient).expect("an address");
        let time = DateTime::UNIX_EPOCH;
        let known = Recorded::without_contact(recipient, Outcome::Failed, Stage::Rcpt, String::new(), time);
        let next_hop = Some("x.example".to_owned());
        Recorded { code: Some(code), reply: Some(reply.to_owned()), next_hop, ..known }
    }

    /// What hosts of these kinds say, twice as different mails meet it, and what is left of both.
    const REPLIES: &[(&str, &str, &str)] = &[
        // Postfix
        (
            "550 5.1.1 <alice@x.example>: Recipient address rejected: User unknown in local recipient table",
            "550 5.1.1 <bob@x.example>: Recipient address rejected: User unknown in local recipient table",
            "<address> Recipient address rejected: User unknown in local recipient table",
        ),
        (
            "450 4.2.0 <alice@x.example>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/x.example.html",
            "450 4.2.0 <bob@x.example>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/x.example.html",
            "<address> Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/x.example.html",
        ),
        (
            "452 4.3.1 Insufficient system storage",
            "452-4.3.1 Insufficient system storage",
            "Insufficient system storage",
        ),
        (
            "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org; https://www.spamhaus.org/query/ip/192.0.2.1",
            "554 5.7.1 Service unavailable; Client host [192.0.2.77] blocked using zen.spamhaus.org; https://www.spamhaus.org/query/ip/192.0.2.77",
            "Service unavailable; Client host # blocked using zen.spamhaus.org; https://www.spamhaus.org/query/ip/#",
        ),
        (
            "550 5.7.1 Message content rejected, id=06042-05 - spam, from=<a@o.example>",
            "550 5.7.1 Message content rejected, id=11977-13 - spam, from=<b@o.example>",
            "Message content rejected, id=# - spam, from=<address>",
        ),
        // Exim
        ("550 Unrouteable address", "550 Unrouteable address", "Unrouteable address"),
        (
            "451-192.0.2.1 is not yet authorized to deliver mail from\n451-<a@o.example> to <alice@x.example>. Please try later.\n451 1rABcd-0007Xy-2Z",
            "451-192.0.2.9 is not yet authorized to deliver mail from\n451-<b@o.example> to <bob@x.example>. Please try later.\n451 1rXYzz-000K9b-1Q",
            "# is not yet authorized to deliver mail from <address> to <address> Please try later. #",
        ),
        // Gmail
        (
            "550-5.1.1 The email account that you tried to reach does not exist. Please try\n550-5.1.1 double-checking the recipient's email address for typos or\n550 5.1.1  https://support.google.com/mail/?p=NoSuchUser d2e1a72fcca58-7259a8e6b2esi12b3a.12 - gsmtp",
            "550-5.1.1 The email account that you tried to reach does not exist. Please try\n550-5.1.1 double-checking the recipient's email address for typos or\n550 5.1.1  https://support.google.com/mail/?p=NoSuchUser 41be03b00d2f7-71b1a3c2ef7si9a12.345 - gsmtp",
            "The email account that you tried to reach does not exist. Please try double-checking the recipient's email address for typos or https://support.google.com/mail/?p=NoSuchUser # - gsmtp",
        ),
        // Microsoft
        (
            "550 5.4.1 Recipient address rejected: Access denied. [SN1PEPF0002529F.namprd04.prod.outlook.com 2026-05-12T10:11:12.345Z 08DC70ABCDEF1234]",
            "550 5.4.1 Recipient address rejected: Access denied. [DB5PEPF00014B8E.eurprd02.prod.outlook.com 2026-06-01T23:59:59.001Z 08DC81FEDCBA4321]",
            "Recipient address rejected: Access denied. #",
        ),
        (
            "451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719) [AM4PEPF00025F97 2026-01-02T03:04:05.6Z 08DC]",
            "451 4.7.500 Server busy. Please try again later from [192.0.2.8]. (S77719) [VI1EUR05FT048 2026-02-03T04:05:06.7Z 08DD]",
            "Server busy. Please try again later from #",
        ),
        // Yahoo
        (
            "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to user complaints - 4.16.55.1; see https://postmaster.yahooinc.com/error-codes",
            "421 4.7.0 [TSS04] Messages from 192.0.2.7 temporarily deferred due to user complaints - 4.16.56.1; see https://postmaster.yahooinc.com/error-codes",
            "# Messages from # temporarily deferred due to user complaints - # see https://postmaster.yahooinc.com/error-codes",
        ),
        // A user named without a domain, over quota with numbers, a date in words.
        ("550 5.1.1 user alice unknown", "550 5.1.1 user bob unknown", "user <user> unknown"),
        (
            "552 5.2.2 mailbox 'alice' is over quota (10485760 of 10485760 bytes)",
            "552 5.2.2 mailbox 'bob' is over quota (5242880 of 5242880 bytes)",
            "mailbox <user> is over quota # of # bytes)",
        ),
        (
            "451 4.7.1 Please try again after Mon, 12 Feb 2026 10:00:00 +0000 (UTC)",
            "451 4.7.1 Please try again after Sat, 2 May 2026 07:59:01 +0200 (UTC)",
            "Please try again after #",
        ),
        ("450 4.7.1 Try again in 297 seconds", "450 4.7.1 Try again in 12 seconds", "Try again in # seconds"),
    ];

    #[test]
    fn what_differs_from_mail_to_mail_does_not_tell_causes_apart() {
        for (one, other, text) in REPLIES {
            let code = one[..3].parse().expect("a code");
            let [one, other] = [("alice@x.example", one), ("bob@x.example", other)].map(|(recipient, reply)| {
                Cause::of(&Recorded { enhanced: None, ..recorded(recipient, code, reply) }).expect("a failure")
            });
            assert_eq!((one.text.as_str(), &one), (*text, &other));
            assert_eq!(one.id(), other.id());
        }
    }

    #[test]
    fn what_tells_causes_apart_stays() {
        let replies = [
            "550 5.1.1 User unknown",
            "550 5.1.1 Mailbox disabled",
            "550 5.7.1 blocked using zen.spamhaus.org",
            "550 5.7.1 blocked using b.barracudacentral.org",
            "550 5.1.1 https://support.google.com/mail/?p=NoSuchUser",
            "550 5.1.1 https://support.google.com/mail/?p=DisabledUser",
            "550 from=<a@b.example> refused",
            "550 to=<a@b.example> refused",
        ];
        let base = recorded("alice@x.example", 550, "");
        let mut all: Vec<_> = replies.iter().map(|reply| recorded("alice@x.example", 550, reply)).collect();
        all.extend([
            base.clone(),
            Recorded { code: Some(551), ..base.clone() },
            Recorded { enhanced: Some("5.1.2".into()), ..base.clone() },
            Recorded { stage: Stage::Mail, ..base.clone() },
            Recorded { outcome: Outcome::Deferred, ..base.clone() },
            Recorded { next_hop: Some("y.example".into()), ..base.clone() },
            Recorded { next_hop: None, ..base },
        ]);
        let ids: std::collections::BTreeSet<_> = all.iter().filter_map(Cause::of).map(|cause| cause.id()).collect();
        assert_eq!(ids.len(), all.len());
    }

    #[test]
    fn words_of_every_reply_are_no_user() {
        for (recipient, reply, text) in [
            ("user@x.example", "550 5.1.1 User unknown", "User unknown"),
            ("full@x.example", "552 5.2.2 Mailbox full", "Mailbox full"),
            ("over@x.example", "552 5.2.2 The mailbox is over quota", "The mailbox is over quota"),
            ("mail@x.example", "550 5.7.1 Mail refused, no such mail server", "Mail refused, no such mail server"),
            ("sales@x.example", "550 sales: no such user", "sales: no such user"),
            ("service@x.example", "421 4.3.2 Service not available", "Service not available"),
            ("relay@x.example", "550 5.7.1 Unable to relay", "Unable to relay"),
            ("spam@x.example", "554 5.7.1 Message is spam", "Message is spam"),
            // In quotes it is a name.
            ("full@x.example", "552 5.2.2 mailbox 'full' is full", "mailbox <user> is full"),
            ("user@x.example", "550 5.1.1 <user>: User unknown", "<user> User unknown"),
            ("info@x.example", "550 no mailbox (\"info\") here, info", "no mailbox <user> here, info"),
            ("alice@x.example", "550 5.1.1 Alice: 'alice', <ALICE>. alices", "<user> <user> <user> alices"),
            ("bob42@x.example", "550 bob42: no", "<user> no"),
            ("may@x.example", "550 you may not, may", "you <user> not, <user>"),
            ("alice@x.example", "550 you may not; on 3 May it may", "you may not; on # it may"),
            ("alice@x.example", "550", ""),
            ("alice@x.example", "", ""),
            ("alice@x.example", "550-5.7.1 blocked [192.0.2.1]\n550 5.7.1 see 4bXy12", "blocked # see #"),
            ("alice@x.example", "550 bad \u{202e}live\x1b[31m red", "bad # red"),
            ("alice@x.example", "550 on 2026/01/02", "on #"),
            (
                "alice@x.example",
                "550-5.1.1 <script>alert(1)</script> & \"quotes\"",
                "<script>alert(#)</script> & \"quotes\"",
            ),
        ] {
            let cause = Cause::of(&recorded(recipient, 550, reply)).expect("a failure");
            assert_eq!(cause.text, text, "{reply}");
        }
    }

    #[test]
    fn what_another_mail_found_is_the_same_cause() {
        let own = |cause: &str| {
            let known = recorded("alice@x.example", 550, "");
            Cause::of(&Recorded { code: None, reply: None, cause: Some(cause.to_owned()), ..known })
        };
        let first = own("connecting to mx.x.example (192.0.2.1:25): connection refused");
        assert!(first.is_some());
        assert_eq!(
            own("x.example was found down: connecting to mx.x.example (192.0.2.1:25): connection refused"),
            first
        );
    }

    #[test]
    fn a_delivery_has_no_cause_and_a_mail_without_an_attempt_its_own() {
        let delivered = Recorded { outcome: Outcome::Delivered, ..recorded("a@x.example", 250, "250 ok") };
        assert_eq!(Cause::of(&delivered), None);
        let recipient = Address::parse("a@x.example").expect("an address");
        let own = Cause::of_error("processor relay lets it fall", &recipient);
        assert_eq!((own.stage, own.text.as_str()), (None, "processor relay lets it fall"));
    }

    /// Written down, since links and commands of operators hold it.
    #[test]
    fn the_id_is_the_same_in_every_process() {
        let cause = Cause::of(&recorded("alice@x.example", 550, "550 5.1.1 <alice@x.example> unknown")).expect("one");
        assert_eq!(cause.id().as_str(), "262f96dab279");
        assert_eq!(CauseId::parse(&cause.id().to_string().to_uppercase()), Some(cause.id()));
        assert_eq!((CauseId::parse("12345678901"), CauseId::parse("12345678901g")), (None, None));
        assert_ne!(cause.with_other_text().id(), cause.id());
    }
}
