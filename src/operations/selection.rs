//! Which mails are meant.

use std::time::Duration;

use chrono::TimeDelta;

use crate::mail::{Address, CauseId, Mail, MailKey, attribute, folded, is_named_by};
use crate::store::{Horizon, MailFilter, Time};
use crate::text::parse_rfc3339;
use crate::yaml::parse_duration;

/// The mails of a place that something is done to.
#[derive(Debug, Clone)]
pub enum Selection {
    /// One.
    Mail(MailKey),
    /// Those that match; none of the conditions means all.
    Matching {
        /// Which.
        conditions: Box<Conditions>,
        /// Only what had come to rest by then, as a dry run answered it.
        until: Option<Horizon>,
        /// Of those, only these.
        bounds: Bounds,
    },
}

/// Bounds on what matches, as James's calls have them; what is `Some` must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Mails that were taken for reprocessing less often than this.
    pub max_retries: Option<u32>,
    /// Mails for this recipient, without case.
    pub recipient: Option<Address>,
    /// So many of them at most.
    pub limit: Option<u64>,
}

impl Bounds {
    /// Whether a mail that matches is within all of them but the limit.
    pub(super) fn allow(&self, mail: &Mail) -> bool {
        let taken = mail.attributes.integer(attribute::REPROCESSING).unwrap_or(0);
        let is_for = |wanted: &Address| {
            let wanted = folded(&wanted.to_string());
            mail.envelope.recipients.iter().any(|one| is_named_by(&one.to_string(), &wanted))
        };
        self.max_retries.is_none_or(|most| taken < i64::from(most)) && self.recipient.as_ref().is_none_or(is_for)
    }

    /// How many more there may be behind `taken`.
    pub(super) fn left(&self, taken: u64) -> usize {
        self.limit.map_or(usize::MAX, |limit| usize::try_from(limit.saturating_sub(taken)).unwrap_or(usize::MAX))
    }
}

impl std::fmt::Display for Bounds {
    /// As they are given over HTTP: `maxRetries=3 limit=10`; nothing where there are none.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let given = [
            self.max_retries.map(|most| format!("maxRetries={most}")),
            self.recipient.as_ref().map(|one| format!("forRecipient={one}")),
            self.limit.map(|most| format!("limit={most}")),
        ];
        f.write_str(&given.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}

impl Selection {
    /// The same, of what had come to rest by `horizon` where no other bound was given.
    #[must_use]
    pub fn until(self, horizon: Horizon) -> Self {
        match self {
            Self::Matching { conditions, until, bounds } => {
                Self::Matching { conditions, until: until.or(Some(horizon)), bounds }
            }
            one @ Self::Mail(_) => one,
        }
    }

    /// Every mail that matches.
    pub fn matching(conditions: Conditions) -> Self {
        Self::Matching { conditions: Box::new(conditions), until: None, bounds: Bounds::default() }
    }
}

impl std::fmt::Display for Selection {
    /// As the record of operations has it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mail(key) => write!(f, "key={key}"),
            Self::Matching { conditions, bounds, .. } if *bounds == Bounds::default() => conditions.fmt(f),
            Self::Matching { conditions, bounds, .. } if conditions.is_empty() => bounds.fmt(f),
            Self::Matching { conditions, bounds, .. } => write!(f, "{conditions} {bounds}"),
        }
    }
}

/// A moment as an operator writes it: an age such as `2d`, or a time as RFC 3339 has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moment {
    /// So long ago.
    Ago(Duration),
    /// At this time.
    At(Time),
}

impl Moment {
    /// Reads one.
    pub fn parse(text: &str) -> Option<Self> {
        let time = || parse_rfc3339(text).map(Self::At);
        parse_duration(text).map(Self::Ago).or_else(time)
    }

    /// When it is, seen from `now`; `None` before the calendar begins.
    pub fn at(&self, now: Time) -> Option<Time> {
        match self {
            Self::At(time) => Some(*time),
            Self::Ago(age) => now.checked_sub_signed(TimeDelta::from_std(*age).ok()?),
        }
    }

    /// When it is where the span is one to come, as that of a pause is: so long from `now` on;
    /// `None` behind the end of the calendar.
    pub fn ahead(&self, now: Time) -> Option<Time> {
        match self {
            Self::At(time) => Some(*time),
            Self::Ago(span) => now.checked_add_signed(TimeDelta::from_std(*span).ok()?),
        }
    }
}

/// Conditions as an operator gives them; all must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    sender: Option<String>,
    recipient: Option<String>,
    domain: Option<String>,
    code: Option<u16>,
    next_hop: Option<String>,
    text: Option<String>,
    group: Option<CauseId>,
    older_than: Option<Moment>,
    newer_than: Option<Moment>,
    passes: Option<u32>,
    unacknowledged: bool,
    /// As they were given, for the record.
    given: Vec<(&'static str, String)>,
}

/// A condition that makes no sense, or can match nobody: a slip, not a question with the
/// answer "none".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{condition} {why}")]
pub struct Wrong {
    /// Which one, as HTTP calls it.
    pub condition: &'static str,
    /// What is wrong with it, and what would be right.
    pub why: String,
}

impl Conditions {
    /// The names there are, as HTTP has them; the command line writes `nextHop` as
    /// `--next-hop`.
    pub const NAMES: [&str; 11] = [
        "sender",
        "recipient",
        "domain",
        "code",
        "nextHop",
        "text",
        "group",
        "olderThan",
        "newerThan",
        "passes",
        "unacknowledged",
    ];

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// The group that is meant, where one is.
    pub fn group(&self) -> Option<&CauseId> {
        self.group.as_ref()
    }

    /// One more, of the name `name` out of [`Conditions::NAMES`].
    ///
    /// # Errors
    /// Where the value makes no sense.
    pub fn with(mut self, name: &str, value: &str) -> Result<Self, Wrong> {
        let Some(condition) = Self::NAMES.into_iter().find(|known| *known == name) else {
            let why = format!("{name:?} is none of {}", Self::NAMES.join(", "));
            return Err(Wrong { condition: "condition", why });
        };
        self.read(condition, value).map_err(|why| Wrong { condition, why })?;
        if condition != "unacknowledged" || self.unacknowledged {
            self.given.push((condition, value.to_owned()));
        }
        Ok(self)
    }

    fn read(&mut self, condition: &str, value: &str) -> Result<(), String> {
        match condition {
            "sender" => self.sender = Some(somebody(value)?),
            "recipient" => self.recipient = Some(somebody(value)?),
            "domain" => self.domain = Some(domain(value)?),
            "code" => self.code = Some(code(value)?),
            "nextHop" => self.next_hop = Some(filled(value, "a domain, an address or a gateway")?),
            "text" => self.text = Some(filled(value, "words of a reply")?),
            "group" => self.group = Some(group(value)?),
            "olderThan" => self.older_than = Some(moment(value)?),
            "newerThan" => self.newer_than = Some(moment(value)?),
            "passes" => self.passes = Some(value.parse().map_err(|_| format!("{value:?} is no number of passes"))?),
            _ => self.unacknowledged = yes_or_no(value)?,
        }
        Ok(())
    }

    /// As the store takes them; ages are counted back from `now`.
    ///
    /// # Errors
    /// Where an age is older than the calendar.
    pub fn filter(&self, now: Time) -> Result<MailFilter, Wrong> {
        Ok(MailFilter {
            sender: self.sender.clone(),
            recipient: self.recipient.clone(),
            domain: self.domain.clone(),
            code: self.code,
            next_hop: self.next_hop.clone(),
            text: self.text.clone(),
            group: self.group.clone(),
            before: time("olderThan", self.older_than.as_ref(), now)?,
            after: time("newerThan", self.newer_than.as_ref(), now)?,
            passes: self.passes,
            acknowledged: self.unacknowledged.then_some(false),
            ..MailFilter::default()
        })
    }
}

impl std::fmt::Display for Conditions {
    /// As they were given: `domain=x.example code=550`, or `all`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.given.is_empty() {
            return f.write_str("all");
        }
        let given: Vec<_> = self.given.iter().map(|(name, value)| format!("{name}={value}")).collect();
        f.write_str(&given.join(" "))
    }
}

fn somebody(value: &str) -> Result<String, String> {
    if value.contains('@') || value == "<>" {
        return Ok(value.to_owned());
    }
    Err(format!("{value:?} is nobody: write an address, *@domain, or <> for the null sender"))
}

fn domain(value: &str) -> Result<String, String> {
    if value.is_empty() || value.contains('@') {
        return Err(format!("{value:?} is no domain: write it as x.example"));
    }
    Ok(value.to_owned())
}

fn code(value: &str) -> Result<u16, String> {
    let code = value.parse().ok().filter(|code| (100..1000).contains(code));
    code.ok_or_else(|| format!("{value:?} is no reply code: it has three digits"))
}

fn filled(value: &str, what: &str) -> Result<String, String> {
    if value.trim().is_empty() { Err(format!("{value:?} is empty: write {what}")) } else { Ok(value.to_owned()) }
}

fn group(value: &str) -> Result<CauseId, String> {
    CauseId::parse(value).ok_or_else(|| format!("{value:?} is no failure group: write the 12 hex digits of its id"))
}

fn moment(value: &str) -> Result<Moment, String> {
    Moment::parse(value)
        .ok_or_else(|| format!("{value:?} is no age and no time: write 30m, 2h, 7d or 2026-11-28T17:00:00Z"))
}

fn yes_or_no(value: &str) -> Result<bool, String> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{value:?} is neither true nor false")),
    }
}

fn time(condition: &'static str, moment: Option<&Moment>, now: Time) -> Result<Option<Time>, Wrong> {
    let early = || Wrong { condition, why: "is before the calendar begins".to_owned() };
    moment.map(|moment| moment.at(now).ok_or_else(early)).transpose()
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn conditions(given: &[(&str, &str)]) -> Result<Conditions, Wrong> {
        given.iter().try_fold(Conditions::default(), |conditions, (name, value)| conditions.with(name, value))
    }

    #[test]
    fn conditions_are_on_record_as_they_were_given() {
        for (given, text) in [
            (&[][..], "all"),
            (&[("domain", "x.example"), ("code", "550")], "domain=x.example code=550"),
            (&[("olderThan", "2d"), ("unacknowledged", "true")], "olderThan=2d unacknowledged=true"),
            (&[("unacknowledged", "false")], "all"),
        ] {
            let conditions = conditions(given).expect("conditions");
            assert_eq!((conditions.to_string().as_str(), conditions.is_empty()), (text, text == "all"));
        }
    }

    #[test]
    fn a_selection_is_on_record_with_its_bounds() {
        let recipient = Address::parse("b@x.example").expect("an address");
        let all = Bounds { max_retries: Some(3), recipient: Some(recipient), limit: Some(10) };
        for (given, bounds, text) in [
            (&[][..], Bounds::default(), "all"),
            (&[], Bounds { limit: Some(10), ..Bounds::default() }, "limit=10"),
            (&[("code", "550")], all, "code=550 maxRetries=3 forRecipient=b@x.example limit=10"),
        ] {
            let conditions = Box::new(conditions(given).expect("conditions"));
            assert_eq!(Selection::Matching { conditions, until: None, bounds }.to_string(), text);
        }
    }

    #[test]
    fn an_age_and_a_time_are_the_same_moment() {
        let now = DateTime::from_timestamp(1_700_000_000, 0).expect("in range");
        let filter = |value| conditions(&[("olderThan", value)]).and_then(|one| one.filter(now)).map(|one| one.before);
        assert_eq!(filter("1h"), filter("2023-11-14T21:13:20Z"));
        assert_eq!(filter("2023-11-14T22:13:20+01:00"), filter("1h"));
        assert_eq!(filter("2023-11-14T22:13:20 01:00"), filter("1h"), "a + that nobody encoded");
        assert!(filter("2023-11-14 22:13").is_err());
        assert!(filter("300000000000d").is_err());
    }

    #[test]
    fn what_can_match_nobody_is_a_slip() {
        for (name, value, why) in [
            ("sender", "s1", "is nobody"),
            ("recipient", "x.example", "is nobody"),
            ("domain", "@x.example", "is no domain"),
            ("code", "99", "is no reply code"),
            ("code", "five", "is no reply code"),
            ("nextHop", " ", "is empty"),
            ("text", "", "is empty"),
            ("group", "abc", "is no failure group"),
            ("olderThan", "soon", "is no age"),
            ("passes", "-1", "is no number"),
            ("unacknowledged", "maybe", "neither true nor false"),
            ("unacknowledged", "", "neither true nor false"),
            ("colour", "red", "is none of"),
        ] {
            let wrong = conditions(&[(name, value)]).expect_err(name);
            assert!(wrong.why.contains(why), "{wrong}");
        }
    }
}
