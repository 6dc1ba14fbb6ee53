//! The query of a request, read strictly where something is changed.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use chrono::{DateTime, Utc};

use super::error::Refusal;
use crate::operations::Moment;
use crate::store::{Cursor, NotOurs, Span};

/// Items of a list of ours where nothing is said, and at most.
const ITEMS: usize = 100;
const MOST_ITEMS: usize = 1000;

/// Rows that one request looks at.
const SEARCHED: usize = 20_000;

/// The parameters, decoded, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::read(head.uri.query().unwrap_or_default()))
    }
}

impl Query {
    /// A name that stands there alone says yes: `?strict`. One with an empty value says nothing.
    pub(super) fn read(query: &str) -> Self {
        let read = |piece: &str| {
            let pair = form_urlencoded::parse(piece.as_bytes()).into_owned().next()?;
            Some(if piece.contains('=') { pair } else { (pair.0, "true".to_owned()) })
        };
        Self(query.split('&').filter_map(read).collect())
    }

    /// The first value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All of them, in their order.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Without those that a form has left empty; `None` where there are none such.
    pub(super) fn without_empty(&self) -> Option<Self> {
        let filled: Vec<_> = self.0.iter().filter(|(_, value)| !value.trim().is_empty()).cloned().collect();
        (filled.len() < self.0.len()).then_some(Self(filled))
    }

    /// One parameter.
    pub(super) fn of(name: &str, value: &str) -> Self {
        Self(vec![(name.to_owned(), value.to_owned())])
    }

    /// Every value of a parameter.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether a parameter stands there, with any value but `false`.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value != "false")
    }

    /// Refuses what a call that changes something does not know, and what is given twice: a
    /// misspelt filter would mean more mail than was meant.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Refusal> {
        for (at, (name, _)) in self.0.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let known =
                    if known.is_empty() { "it has none".to_owned() } else { format!("there are {}", known.join(", ")) };
                return Err(Refusal::invalid(format!("'{name}' is no query parameter of this call: {known}")));
            }
            if self.0[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(Refusal::invalid(format!("The query parameter '{name}' is given twice")));
            }
        }
        Ok(())
    }

    /// A parameter's value as `read` has it.
    pub(super) fn read_as<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Refusal> {
        let wrong =
            |why: String| Refusal::invalid(format!("Invalid value supplied for query parameter '{name}': {why}"));
        self.get(name).map(read).transpose().map_err(wrong)
    }

    /// James's `limit`: `None` where none is given.
    pub(super) fn limit(&self) -> Result<Option<usize>, Refusal> {
        match self.number("limit")? {
            Some(0) => Err(Refusal::invalid("limit can not be equal to zero".to_owned())),
            number => Ok(number),
        }
    }

    /// James's `offset`: 0 where none is given.
    pub(super) fn offset(&self) -> Result<usize, Refusal> {
        Ok(self.number("offset")?.unwrap_or(0))
    }

    /// A number, with James's words where it is none.
    pub(super) fn number(&self, name: &str) -> Result<Option<usize>, Refusal> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse::<i64>() {
            Ok(number) if number < 0 => Err(Refusal::invalid(format!("{name} can not be negative"))),
            Ok(number) => Ok(Some(usize::try_from(number).unwrap_or(usize::MAX))),
            Err(_) => Err(Refusal::invalid(format!("Can not parse {name}"))),
        }
    }

    /// Yes or no; `default` where nothing is said. Any other word is refused: a dry run that is
    /// asked for as `dryRun=1` must not do it.
    pub(super) fn boolean(&self, name: &str, default: bool) -> Result<bool, Refusal> {
        let read = |value: &str| match value.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("{value:?} is neither true nor false")),
        };
        Ok(self.read_as(name, read)?.unwrap_or(default))
    }

    /// Where a list of ours goes on.
    pub(super) fn cursor(&self) -> Result<Option<Cursor>, Refusal> {
        self.read_as("cursor", |text| text.parse().map_err(|error: NotOurs| error.to_string()))
    }

    /// A page of a list of ours, the newest first; search looks at so many rows at most.
    pub(super) fn span(&self) -> Result<Span, Refusal> {
        Ok(Span::of(self.items()?).newest_first().after(self.cursor()?).look(SEARCHED))
    }

    /// How many items of one of our lists are wanted.
    pub(super) fn items(&self) -> Result<usize, Refusal> {
        let number = |text: &str| match text.parse() {
            Ok(number @ 1..=MOST_ITEMS) => Ok(number),
            _ => Err(format!("{text:?} is no number from 1 to {MOST_ITEMS}")),
        };
        Ok(self.read_as("limit", number)?.unwrap_or(ITEMS))
    }

    /// A time: an age (`90m`) before `now`, or RFC 3339.
    pub(super) fn time(&self, name: &str, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, Refusal> {
        self.read_as(name, |text| time(text, now))
    }
}

fn time(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    let wrong = || format!("{text:?} is neither an age such as 1h nor a time such as 2026-11-28T17:00:00Z");
    Moment::parse(text).and_then(|moment| moment.at(now)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_changing_call_does_not_know_or_has_twice_is_named() {
        let known = ["sender", "dryRun"];
        assert!(Query::read("sender=a%40x.example&dryRun=true").only(&known).is_ok());
        let refusal = Query::read("foo=1").only(&[]).expect_err("refused");
        assert!(refusal.message().ends_with("of this call: it has none"), "{refusal:?}");
        for (query, named) in [("sneder=a", "'sneder'"), ("sender=a&sender=b", "'sender' is given twice")] {
            let refusal = Query::read(query).only(&known).expect_err("refused");
            assert!(format!("{refusal:?}").contains(named), "{refusal:?}");
        }
    }

    #[test]
    fn values_are_decoded_and_judged() {
        let query = Query::read("a=x%2By+z&limit=7&since=1h&until=2026-11-28T17:00:00%2B01:00&strict&off=false");
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
        assert_eq!(query.get("a"), Some("x+y z"));
        assert_eq!(query.items().expect("a number"), 7);
        assert_eq!(query.time("since", now).expect("an age").map(|time| (now - time).num_seconds()), Some(3600));
        let until = query.time("until", now).expect("a time").map(|time| time.to_rfc3339());
        assert_eq!(until.as_deref(), Some("2026-11-28T16:00:00+00:00"));
        assert!(query.flag("strict") && !query.flag("off") && !query.flag("nothing"));
        let dry = |query: &str| Query::read(query).boolean("dryRun", false).ok();
        let words = ["dryRun=true", "dryRun=TRUE", "dryRun", "dryRun=false", "", "dryRun=1", "dryRun=yes"].map(dry);
        assert_eq!(words, [Some(true), Some(true), Some(true), Some(false), Some(false), None, None]);
        assert_eq!(["dryRun=", "a&dryRun=", "&&dryRun&a=b"].map(dry), [None, None, Some(true)]);
        for wrong in ["limit=0", "limit=1001", "limit=x", "limit="] {
            assert!(Query::read(wrong).items().is_err(), "{wrong}");
        }
        for wrong in ["since=x", "since=", "since=-1h", "since=2026-13-01T00:00:00Z", "since=99999999999d"] {
            assert!(Query::read(wrong).time("since", now).is_err(), "{wrong}");
        }
    }
}
