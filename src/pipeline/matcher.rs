//! Matchers: which recipients of a mail a rule is for.

use std::collections::BTreeSet;

use super::part::Part;
use super::pattern::Pattern;
use crate::mail::{Address, Attributes, Domain, Event, attribute};
use crate::yaml::{Entry, Node, Reading, Value, nearest, text};

/// A matcher with its condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Matcher {
    /// Every recipient.
    All,
    /// All, and counts, while the counter is below the limit.
    AtMost(Limit),
    /// All once the counter has reached the limit; counts nothing.
    AttemptsExhausted(Limit),
    /// All where the last attempt's verdict is a deferral.
    IsRemoteDeliveryTemporaryError,
    /// All where the last attempt's verdict is a failure.
    IsRemoteDeliveryPermanentError,
    /// All where the last attempt ended with this reply code.
    RemoteDeliveryFailedWithSmtpCode(i64),
    /// All where the attribute is there.
    HasMailAttribute(String),
    /// All where the attribute's text is this one.
    HasMailAttributeWithValue(String, String),
    /// All where the reverse-path is one of these.
    SenderIs(Vec<Address>),
    /// All where the reverse-path's domain is one of these.
    SenderDomainIs(Vec<Domain>),
    /// All where the reverse-path is an address that this matches.
    SenderIsRegex(Pattern),
    /// All where the reverse-path is null.
    SenderIsNull,
    /// The recipients that are among these.
    RecipientIs(Vec<Address>),
    /// The recipients whose domain is among these.
    RecipientDomainIs(Vec<Domain>),
    /// The recipients whose address this matches.
    RecipientIsRegex(Pattern),
    /// All of a message with at least so many `Received:` fields.
    RelayLimit(u32),
    /// The recipients of whom the sender wants to be told this; with `true` also those of whom
    /// he says nothing.
    DsnRequested(Event, bool),
    /// The recipients that every one of these matches.
    And(Vec<Matcher>),
    /// The recipients that one of these matches.
    Or(Vec<Matcher>),
    /// The recipients that exactly an odd number of these matches.
    Xor(Vec<Matcher>),
    /// The recipients that this does not match.
    Not(Box<Matcher>),
}

/// A counter and the value it must not pass.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Limit {
    /// The attribute that counts.
    pub(super) counter: String,
    /// At least 1.
    pub(super) most: u32,
}

impl Limit {
    /// Reads `N` or `name:N`; the messages are James's.
    fn parse(condition: &str) -> Result<Self, String> {
        if condition.trim().is_empty() {
            return Err("MatcherConfiguration is mandatory!".to_owned());
        }
        if condition.starts_with(':') {
            return Err("MatcherConfiguration can not start with ':'".to_owned());
        }
        let (counter, number) = condition.split_once(':').unwrap_or((attribute::AT_MOST_EXECUTIONS, condition));
        if number.contains(':') {
            return Err("MatcherConfiguration format should follow: 'name:value' or 'value'".to_owned());
        }
        if number.trim().is_empty() {
            return Err("Condition is required. It should be a strictly positive integer".to_owned());
        }
        match number.parse() {
            Ok(most) if most > 0 => Ok(Self { counter: counter.to_owned(), most }),
            _ => Err(format!("Expecting condition to be a strictly positive integer. Got {number}")),
        }
    }

    /// Whether the counter has reached the limit; an attribute of another type counts as 0.
    pub(super) fn is_reached(&self, attributes: &Attributes) -> bool {
        attributes.integer(&self.counter).unwrap_or(0) >= i64::from(self.most)
    }
}

/// The names of all matchers, for "did you mean".
const NAMES: [&str; 24] = [
    "All",
    "AtMost",
    "AttemptsExhausted",
    "IsRemoteDeliveryTemporaryError",
    "IsRemoteDeliveryPermanentError",
    "RemoteDeliveryFailedWithSMTPCode",
    "HasMailAttribute",
    "HasMailAttributeWithValue",
    "SenderIs",
    "SenderDomainIs",
    "SenderIsRegex",
    "SenderIsNull",
    "RecipientIs",
    "RecipientDomainIs",
    "RecipientIsRegex",
    "HostIs",
    "RelayLimit",
    "DSNFailureRequested",
    "DSNDelayRequested",
    "DSNSuccessRequested",
    "And",
    "Or",
    "Xor",
    "Not",
];

impl Matcher {
    /// Reads `Name`, `Name=condition`, or a composite such as `And: [Name, Name=condition]`.
    pub(super) fn read(node: &Node, reading: &Reading) -> Option<Self> {
        match &node.value {
            Value::Mapping(entries) => {
                let [entry] = entries.as_slice() else {
                    reading.problem(node.place, "one of And, Or, Xor or Not is expected here, with its matchers");
                    return None;
                };
                Self::read_composite(entry, reading)
            }
            _ => reading.value(node, |node| Self::parse(&text(node)?)),
        }
    }

    fn read_composite(entry: &Entry, reading: &Reading) -> Option<Self> {
        let read = |node: &Node| Self::read(node, reading);
        let several = || match &entry.value.value {
            Value::Sequence(items) if !items.is_empty() => items.iter().map(read).collect(),
            _ => {
                reading.problem(entry.value.place, format!("{} takes a list of matchers", entry.key));
                None
            }
        };
        match entry.key.as_str() {
            "And" => several().map(Self::And),
            "Or" => several().map(Self::Or),
            "Xor" => several().map(Self::Xor),
            "Not" => read(&entry.value).map(Box::new).map(Self::Not),
            other => {
                reading.problem(entry.key_place, unknown(other));
                None
            }
        }
    }

    fn parse(written: &str) -> Result<Self, String> {
        let (name, condition) = match written.split_once('=') {
            Some((name, condition)) => (name, Some(condition)),
            None => (written, None),
        };
        let given = condition.unwrap_or("");
        match name {
            "All" | "IsRemoteDeliveryTemporaryError" | "IsRemoteDeliveryPermanentError" | "SenderIsNull"
                if condition.is_some() =>
            {
                Err(format!("matcher {name} takes no condition: write {name} alone"))
            }
            "All" => Ok(Self::All),
            "IsRemoteDeliveryTemporaryError" => Ok(Self::IsRemoteDeliveryTemporaryError),
            "IsRemoteDeliveryPermanentError" => Ok(Self::IsRemoteDeliveryPermanentError),
            "SenderIsNull" => Ok(Self::SenderIsNull),
            "AtMost" => Limit::parse(given).map(Self::AtMost),
            "AttemptsExhausted" => Limit::parse(given).map(Self::AttemptsExhausted),
            "RemoteDeliveryFailedWithSMTPCode" => smtp_code(given).map(Self::RemoteDeliveryFailedWithSmtpCode),
            "HasMailAttribute" => attribute_name(given).map(Self::HasMailAttribute),
            "HasMailAttributeWithValue" => attribute_with_value(given),
            "SenderIs" => items(given, Address::parse).map(Self::SenderIs),
            "RecipientIs" => items(given, Address::parse).map(Self::RecipientIs),
            "SenderDomainIs" => items(given, Domain::parse).map(Self::SenderDomainIs),
            "SenderIsRegex" => Pattern::parse(given).map(Self::SenderIsRegex),
            "RecipientIsRegex" => Pattern::parse(given).map(Self::RecipientIsRegex),
            "RecipientDomainIs" | "HostIs" => items(given, Domain::parse).map(Self::RecipientDomainIs),
            "RelayLimit" => relay_limit(given).map(Self::RelayLimit),
            // Silence is a wish to be told of failures (RFC 3461 section 4.1).
            "DSNFailureRequested" => by_default(condition).map(|_| Self::DsnRequested(Event::Failure, true)),
            "DSNDelayRequested" => by_default(condition).map(|silence| Self::DsnRequested(Event::Delay, silence)),
            "DSNSuccessRequested" => by_default(condition).map(|silence| Self::DsnRequested(Event::Success, silence)),
            "And" | "Or" | "Xor" | "Not" => Err(format!("write {name} as a key, with its matchers as the value")),
            other => Err(unknown(other)),
        }
    }

    /// Which recipients of `part` match, in their order. Counts where it is AtMost.
    pub(super) fn select(&self, part: &mut Part) -> Vec<bool> {
        match self {
            Self::RecipientIs(those) => part.each(|recipient| those.iter().any(|one| same(one, recipient))),
            Self::RecipientDomainIs(those) => part.each(|recipient| among(recipient.domain(), those)),
            Self::RecipientIsRegex(pattern) => part.each(|recipient| pattern.matches(recipient)),
            Self::DsnRequested(event, silence) => {
                let asked = &part.mail.envelope.dsn;
                part.each(|recipient| asked.of(recipient).asks_for(*event).unwrap_or(*silence))
            }
            Self::And(inner) => combine(inner, part, true, |a, b| a && b),
            Self::Or(inner) => combine(inner, part, false, |a, b| a || b),
            Self::Xor(inner) => combine(inner, part, false, |a, b| a != b),
            Self::Not(inner) => inner.select(part).into_iter().map(|matched| !matched).collect(),
            _ => {
                let matched = self.matches_mail(part);
                part.each(|_| matched)
            }
        }
    }

    /// The matchers that look at the mail, not at its recipients.
    fn matches_mail(&self, part: &mut Part) -> bool {
        let mail = &part.mail;
        let attributes = &mail.attributes;
        let sender = mail.envelope.reverse_path.address();
        match self {
            Self::AtMost(limit) => part.count(&limit.counter, !limit.is_reached(attributes)),
            Self::AttemptsExhausted(limit) => limit.is_reached(attributes),
            Self::IsRemoteDeliveryTemporaryError => verdict(attributes) == Some(false),
            Self::IsRemoteDeliveryPermanentError => verdict(attributes) == Some(true),
            Self::RemoteDeliveryFailedWithSmtpCode(code) => {
                attributes.integer(attribute::DELIVERY_ERROR_CODE) == Some(*code)
            }
            Self::HasMailAttribute(name) => attributes.get(name).is_some(),
            Self::HasMailAttributeWithValue(name, value) => {
                attributes.get(name).is_some_and(|found| found.to_string().trim() == value)
            }
            Self::SenderIs(those) => sender.is_some_and(|sender| those.iter().any(|one| same(one, sender))),
            Self::SenderDomainIs(those) => sender.is_some_and(|sender| among(sender.domain(), those)),
            Self::SenderIsRegex(pattern) => sender.is_some_and(|sender| pattern.matches(sender)),
            Self::SenderIsNull => sender.is_none(),
            Self::RelayLimit(most) => mail.facts.received >= *most,
            // Those that look at recipients do not come here.
            _ => true,
        }
    }

    /// Whether it matches whatever the mail.
    pub(super) fn is_certain(&self) -> bool {
        match self {
            Self::All => true,
            Self::Or(inner) => inner.iter().any(Self::is_certain),
            Self::And(inner) => inner.iter().all(Self::is_certain),
            _ => false,
        }
    }

    /// Lets silence be a wish to be told of a delay.
    pub(super) fn delay_by_default(&mut self) {
        match self {
            Self::DsnRequested(Event::Delay, silence) => *silence = true,
            Self::And(inner) | Self::Or(inner) | Self::Xor(inner) => inner.iter_mut().for_each(Self::delay_by_default),
            Self::Not(inner) => inner.delay_by_default(),
            _ => {}
        }
    }

    /// The matchers it is made of, itself included.
    pub(super) fn all(&self) -> Vec<&Matcher> {
        let mut found = vec![self];
        match self {
            Self::And(inner) | Self::Or(inner) | Self::Xor(inner) => found.extend(inner.iter().flat_map(Self::all)),
            Self::Not(inner) => found.extend(inner.all()),
            _ => {}
        }
        found
    }

    /// Whether an AtMost in it declines for its counter.
    pub(super) fn declines(&self, attributes: &Attributes) -> bool {
        self.all().iter().any(|one| matches!(one, Self::AtMost(limit) if limit.is_reached(attributes)))
    }

    /// Whether an AttemptsExhausted in it finds its limit used up.
    pub(super) fn is_exhausted(&self, attributes: &Attributes) -> bool {
        self.all().iter().any(|one| matches!(one, Self::AttemptsExhausted(limit) if limit.is_reached(attributes)))
    }
}

/// Whether there is a matcher of that name.
pub fn is_matcher(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Whether a matcher without others in it, `Name` or `Name=condition`, can be read.
///
/// # Errors
/// What is wrong with it.
pub fn check_matcher(written: &str) -> Result<(), String> {
    Matcher::parse(written).map(drop)
}

fn unknown(name: &str) -> String {
    match nearest(name, NAMES) {
        Some(known) => format!("unknown matcher '{name}': did you mean '{known}'?"),
        None => format!("unknown matcher '{name}': known are {}", NAMES.join(", ")),
    }
}

fn verdict(attributes: &Attributes) -> Option<bool> {
    attributes.boolean(attribute::IS_DELIVERY_PERMANENT_ERROR)
}

/// Every matcher sees the mail, so that each AtMost counts as it would alone.
fn combine(inner: &[Matcher], part: &mut Part, start: bool, join: fn(bool, bool) -> bool) -> Vec<bool> {
    let selections: Vec<_> = inner.iter().map(|one| one.select(part)).collect();
    (0..part.mail.envelope.recipients.len())
        .map(|at| selections.iter().fold(start, |so_far, one| join(so_far, one[at])))
        .collect()
}

/// James compares addresses without case.
fn same(a: &Address, b: &Address) -> bool {
    a.local_part().eq_ignore_ascii_case(b.local_part()) && a.domain().folded() == b.domain().folded()
}

fn among(domain: &Domain, those: &[Domain]) -> bool {
    let folded: BTreeSet<_> = those.iter().map(Domain::folded).collect();
    folded.contains(&domain.folded())
}

/// Items between commas or blanks.
fn items<T, E: std::fmt::Display>(condition: &str, parse: fn(&str) -> Result<T, E>) -> Result<Vec<T>, String> {
    let found: Vec<_> = condition.split([',', ' ']).filter(|item| !item.is_empty()).collect();
    if found.is_empty() {
        return Err("a condition is required: items between commas".to_owned());
    }
    found.into_iter().map(|item| parse(item).map_err(|error| error.to_string())).collect()
}

fn attribute_name(condition: &str) -> Result<String, String> {
    match condition.trim() {
        "" => Err("a condition is required: the name of an attribute".to_owned()),
        name => Ok(name.to_owned()),
    }
}

fn attribute_with_value(condition: &str) -> Result<Matcher, String> {
    let (name, value) = condition.split_once(',').ok_or("a condition is required: 'name, value'")?;
    Ok(Matcher::HasMailAttributeWithValue(attribute_name(name)?, value.trim().to_owned()))
}

fn smtp_code(condition: &str) -> Result<i64, String> {
    let code = condition.parse().ok().filter(|code| (101..=554).contains(code));
    code.ok_or_else(|| format!("Invalid SMTP code: '{condition}' is not a number from 101 to 554"))
}

/// Whether silence is a wish, as the one condition of the matchers of notifications says.
fn by_default(condition: Option<&str>) -> Result<bool, String> {
    match condition {
        None => Ok(false),
        Some("shouldMatchByDefault") => Ok(true),
        Some(other) => Err(format!("the condition is shouldMatchByDefault or none, not '{other}'")),
    }
}

fn relay_limit(condition: &str) -> Result<u32, String> {
    let limit = condition.parse().ok().filter(|limit| *limit > 0);
    limit.ok_or_else(|| format!("RelayLimit takes a positive number of Received: fields, not '{condition}'"))
}

#[cfg(test)]
mod tests {
    use super::super::part::tests::part;
    use super::*;
    use crate::mail::AttributeValue;

    fn matcher(written: &str) -> Matcher {
        Matcher::parse(written).expect(written)
    }

    #[test]
    fn wrong_conditions_are_refused_in_james_words() {
        for (written, message) in [
            ("AtMost", "MatcherConfiguration is mandatory!"),
            ("AtMost= ", "MatcherConfiguration is mandatory!"),
            ("AtMost=:3", "MatcherConfiguration can not start with ':'"),
            ("AtMost=a:b:3", "MatcherConfiguration format should follow: 'name:value' or 'value'"),
            ("AtMost=name:", "Condition is required. It should be a strictly positive integer"),
            ("AtMost=0", "Expecting condition to be a strictly positive integer. Got 0"),
            ("AtMost=-1", "Expecting condition to be a strictly positive integer. Got -1"),
            ("AtMost= 5", "Expecting condition to be a strictly positive integer. Got  5"),
            ("AtMost=abc", "Expecting condition to be a strictly positive integer. Got abc"),
            ("AttemptsExhausted=4294967296", "Expecting condition to be a strictly positive integer. Got 4294967296"),
            ("AtMots=5", "unknown matcher 'AtMots': did you mean 'AtMost'?"),
            ("All=x", "matcher All takes no condition: write All alone"),
            ("RemoteDeliveryFailedWithSMTPCode=555", "Invalid SMTP code"),
            ("RecipientIs=", "a condition is required"),
            ("SenderIs=a b", "no domain"),
            ("SenderIsRegex", "a condition is required"),
            ("RecipientIsRegex=(?!x).*", "at character 1"),
            ("RecipientIsRegx=x", "did you mean 'RecipientIsRegex'?"),
            ("DSNDelayRequested=yes", "shouldMatchByDefault or none, not 'yes'"),
            ("DSNDelayRequested=", "shouldMatchByDefault or none, not ''"),
            ("DSNFailureRequestd", "did you mean 'DSNFailureRequested'?"),
        ] {
            let found = Matcher::parse(written).expect_err(written);
            assert!(found.contains(message), "{written}: {found}");
        }
        assert_eq!(matcher("AtMost=try:3"), Matcher::AtMost(Limit { counter: "try".into(), most: 3 }));
    }

    #[test]
    fn at_most_counts_until_its_limit_and_then_declines() {
        let mut part = part("<>", &["a@x.example", "b@x.example"]);
        let matcher = matcher("AtMost=2");
        assert_eq!(matcher.select(&mut part), [true, true]);
        assert_eq!(matcher.select(&mut part), [true, true]);
        assert_eq!(matcher.select(&mut part), [false, false]);
        assert_eq!(part.mail.passes(), 2);
        part.mail.attributes.set(attribute::AT_MOST_EXECUTIONS, AttributeValue::Text("9".into()));
        assert_eq!(matcher.select(&mut part), [true, true], "a wrong type counts as absent");
        assert_eq!(part.mail.passes(), 1);
    }

    #[test]
    fn matchers_look_at_the_mail_or_at_each_recipient() {
        let mut part = part("s@Send.example", &["a@x.example", "B@y.example"]);
        part.mail.facts.received = 3;
        part.mail.attributes.set("n", AttributeValue::Integer(7));
        part.mail.attributes.set(attribute::IS_DELIVERY_PERMANENT_ERROR, AttributeValue::Boolean(true));
        part.mail.attributes.set(attribute::DELIVERY_ERROR_CODE, AttributeValue::Integer(550));
        for (written, expected) in [
            ("All", [true, true]),
            ("IsRemoteDeliveryPermanentError", [true, true]),
            ("IsRemoteDeliveryTemporaryError", [false, false]),
            ("RemoteDeliveryFailedWithSMTPCode=550", [true, true]),
            ("RemoteDeliveryFailedWithSMTPCode=551", [false, false]),
            ("AttemptsExhausted=n:7", [true, true]),
            ("AttemptsExhausted=n:8", [false, false]),
            ("HasMailAttribute=n", [true, true]),
            ("HasMailAttributeWithValue=n, 7", [true, true]),
            ("HasMailAttributeWithValue=n, 8", [false, false]),
            ("SenderIs=x@y.example,S@send.example", [true, true]),
            ("SenderDomainIs=send.EXAMPLE", [true, true]),
            ("SenderIsNull", [false, false]),
            ("RecipientIs=b@Y.example", [false, true]),
            ("RecipientDomainIs=x.example", [true, false]),
            ("HostIs=Y.example, z.example", [false, true]),
            ("RecipientIsRegex=[Bb]@y\\..*", [false, true]),
            ("RecipientIsRegex=b@y\\..*", [false, false]),
            ("SenderIsRegex=.*@send\\.example", [true, true]),
            ("SenderIsRegex=send", [false, false]),
            ("RelayLimit=3", [true, true]),
            ("RelayLimit=4", [false, false]),
        ] {
            assert_eq!(matcher(written).select(&mut part), expected, "{written}");
        }
    }

    #[test]
    fn who_asked_to_be_told_is_found_by_recipient() {
        use crate::mail::{Notify, RecipientRequest};
        let asked = [Some("SUCCESS,DELAY"), Some("FAILURE"), Some("NEVER"), None];
        let mut part = part("s@x.example", &["a@x.example", "b@x.example", "c@x.example", "d@x.example"]);
        for (recipient, notify) in part.mail.envelope.recipients.clone().iter().zip(asked) {
            let notify = notify.map(|text| Notify::parse(text).expect(text));
            part.mail.envelope.dsn.ask(recipient, RecipientRequest { notify, ..RecipientRequest::default() });
        }
        for (written, expected) in [
            ("DSNFailureRequested", [false, true, false, true]),
            ("DSNFailureRequested=shouldMatchByDefault", [false, true, false, true]),
            ("DSNDelayRequested", [true, false, false, false]),
            ("DSNDelayRequested=shouldMatchByDefault", [true, false, false, true]),
            ("DSNSuccessRequested", [true, false, false, false]),
            ("DSNSuccessRequested=shouldMatchByDefault", [true, false, false, true]),
        ] {
            assert_eq!(matcher(written).select(&mut part), expected, "{written}");
        }
        let mut warned = Matcher::Not(Box::new(matcher("DSNDelayRequested")));
        warned.delay_by_default();
        assert_eq!(warned.select(&mut part), [false, true, true, false]);
    }

    #[test]
    fn composites_combine_recipient_by_recipient() {
        let mut part = part("<>", &["a@x.example", "b@y.example"]);
        let x = || matcher("RecipientDomainIs=x.example");
        for (composite, expected) in [
            (Matcher::And(vec![Matcher::All, x()]), [true, false]),
            (Matcher::Or(vec![x(), matcher("RecipientIs=b@y.example")]), [true, true]),
            (Matcher::Xor(vec![Matcher::All, x()]), [false, true]),
            (Matcher::Not(Box::new(x())), [false, true]),
        ] {
            assert_eq!(composite.select(&mut part), expected, "{composite:?}");
        }
    }
}
