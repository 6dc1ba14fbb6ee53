//! Matchers as our YAML has them, and what is known of one of James's.

use std::collections::BTreeSet;

/// The counter of an AtMost that names none.
const PASSES: &str = "AT_MOST_EXECUTIONS";

/// The counter of the container's AtMost where retries became passes.
const COUNTER: &str = "james-at-most";

/// A matcher of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Matcher {
    /// `Name` or `Name=condition`.
    One(String),
    /// And, Or or Xor of several.
    Several(&'static str, Vec<Matcher>),
    /// Not of one.
    Not(Box<Matcher>),
}

/// What is known of a matcher of James's: it may be one that nobody here can ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    /// Whom it matches for certain.
    pub(super) least: Matcher,
    /// Whom it matches at most.
    pub(super) most: Matcher,
    /// It asks which domains James hosted: here none is.
    pub(super) hosted: bool,
    /// It asks who may relay: here nobody else comes in.
    pub(super) relaying: bool,
    /// The attributes that each AtMost in it counts in.
    pub(super) counters: BTreeSet<String>,
}

impl Matcher {
    pub(super) fn one(written: impl Into<String>) -> Self {
        Self::One(written.into())
    }

    pub(super) fn all() -> Self {
        Self::one("All")
    }

    /// Matches nobody.
    pub(super) fn never() -> Self {
        Self::Not(Box::new(Self::all()))
    }

    pub(super) fn is_all(&self) -> bool {
        *self == Self::all()
    }

    pub(super) fn is_never(&self) -> bool {
        *self == Self::never()
    }

    /// Those that it does not match.
    pub(super) fn not(self) -> Self {
        match self {
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }

    /// Those that all of them match.
    pub(super) fn and(inner: Vec<Self>) -> Self {
        if inner.iter().any(Self::is_never) {
            return Self::never();
        }
        Self::several("And", inner.into_iter().filter(|one| !one.is_all()).collect(), Self::all())
    }

    /// Those that one of them matches.
    pub(super) fn or(inner: Vec<Self>) -> Self {
        if inner.iter().any(Self::is_all) {
            return Self::all();
        }
        Self::several("Or", inner.into_iter().filter(|one| !one.is_never()).collect(), Self::never())
    }

    fn several(name: &'static str, mut inner: Vec<Self>, of_none: Self) -> Self {
        match inner.len() {
            0 => of_none,
            1 => inner.pop().unwrap_or(of_none),
            _ => Self::Several(name, inner),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Several(_, inner) => inner.iter().map(Self::size).sum(),
            Self::Not(inner) => inner.size(),
        }
    }

    /// Whether an AtMost counts in it.
    pub(super) fn counts(&self) -> bool {
        !self.counters().is_empty()
    }

    /// The attributes that each AtMost in it counts in.
    pub(super) fn counters(&self) -> BTreeSet<String> {
        match self {
            Self::One(written) => {
                let condition = written.strip_prefix("AtMost=");
                let named = condition.map(|condition| condition.split_once(':').map_or(PASSES, |(name, _)| name));
                named.map(str::to_owned).into_iter().collect()
            }
            Self::Several(_, inner) => inner.iter().flat_map(Self::counters).collect(),
            Self::Not(inner) => inner.counters(),
        }
    }

    /// The same with another counter in each AtMost that has none of its own: that one counts
    /// the passes of a RemoteDelivery, and says when each is due.
    pub(super) fn with_counter_of_its_own(self) -> Self {
        match self {
            Self::One(written) => match written.strip_prefix("AtMost=") {
                Some(limit) if !limit.contains(':') => Self::One(format!("AtMost={COUNTER}:{limit}")),
                _ => Self::One(written),
            },
            Self::Several(name, inner) => {
                Self::Several(name, inner.into_iter().map(Self::with_counter_of_its_own).collect())
            }
            Self::Not(inner) => Self::Not(Box::new(inner.with_counter_of_its_own())),
        }
    }

    /// The same with each limit of an AtMost so many times as high.
    pub(super) fn scaled(self, times: usize) -> Self {
        match self {
            Self::One(written) => Self::One(scaled(&written, times).unwrap_or(written)),
            Self::Several(name, inner) => Self::Several(name, inner.into_iter().map(|one| one.scaled(times)).collect()),
            Self::Not(inner) => Self::Not(Box::new(inner.scaled(times))),
        }
    }
}

fn scaled(written: &str, times: usize) -> Option<String> {
    let condition = written.strip_prefix("AtMost=")?;
    let (counter, limit) = match condition.split_once(':') {
        Some((counter, limit)) => (format!("{counter}:"), limit),
        None => (String::new(), condition),
    };
    let limit: usize = limit.parse().ok()?;
    Some(format!("AtMost={counter}{}", limit.saturating_mul(times)))
}

impl Known {
    /// A matcher that we have too.
    pub(super) fn exactly(matcher: Matcher) -> Self {
        let counters = matcher.counters();
        Self { least: matcher.clone(), most: matcher, hosted: false, relaying: false, counters }
    }

    /// One that nobody here can ask.
    pub(super) fn unknown() -> Self {
        Self { least: Matcher::never(), most: Matcher::all(), ..Self::exactly(Matcher::all()) }
    }

    /// How many matchers it is made of.
    pub(super) fn size(&self) -> usize {
        self.least.size() + self.most.size()
    }

    pub(super) fn is_exact(&self) -> bool {
        self.least == self.most
    }

    pub(super) fn not(self) -> Self {
        Self { least: self.most.not(), most: self.least.not(), ..self }
    }

    pub(super) fn and(inner: &[Self]) -> Self {
        Self::each(inner, Matcher::and)
    }

    pub(super) fn or(inner: &[Self]) -> Self {
        Self::each(inner, Matcher::or)
    }

    /// Those that an odd number of them match: one that cannot be asked tells nothing.
    pub(super) fn xor(inner: &[Self]) -> Self {
        let known = Self::each(inner, |inner| Matcher::several("Xor", inner, Matcher::never()));
        if inner.iter().all(Self::is_exact) {
            return known;
        }
        Self { least: Matcher::never(), most: Matcher::all(), ..known }
    }

    fn each(inner: &[Self], join: impl Fn(Vec<Matcher>) -> Matcher) -> Self {
        Self {
            least: join(inner.iter().map(|one| one.least.clone()).collect()),
            most: join(inner.iter().map(|one| one.most.clone()).collect()),
            hosted: inner.iter().any(|one| one.hosted),
            relaying: inner.iter().any(|one| one.relaying),
            counters: inner.iter().flat_map(|one| one.counters.iter().cloned()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender() -> Known {
        Known::exactly(Matcher::one("SenderIsNull"))
    }

    #[test]
    fn what_cannot_be_asked_leaves_a_least_and_a_most() {
        let all = || Known::exactly(Matcher::all());
        for (known, least, most) in [
            (Known::unknown(), Matcher::never(), Matcher::all()),
            (Known::unknown().not(), Matcher::never(), Matcher::all()),
            (Known::and(&[sender(), Known::unknown()]), Matcher::never(), sender().most),
            (Known::or(&[sender(), Known::unknown()]), sender().least, Matcher::all()),
            (Known::or(&[all(), Known::unknown()]), Matcher::all(), Matcher::all()),
            (Known::and(&[sender(), Known::unknown()]).not(), sender().least.not(), Matcher::all()),
            (Known::xor(&[sender(), Known::unknown()]), Matcher::never(), Matcher::all()),
            (Known::and(&[all(), sender()]), sender().least, sender().least),
            (all().not(), Matcher::never(), Matcher::never()),
        ] {
            assert_eq!((&known.least, &known.most), (&least, &most), "{known:?}");
        }
    }

    #[test]
    fn limits_are_scaled_wherever_they_stand() {
        let written = Matcher::and(vec![Matcher::one("AtMost=5"), Matcher::one("AtMost=tries:2").not(), sender().most]);
        let expected =
            Matcher::and(vec![Matcher::one("AtMost=20"), Matcher::one("AtMost=tries:8").not(), sender().most]);
        assert!(written.counts());
        assert_eq!(written.scaled(4), expected);
    }
}
