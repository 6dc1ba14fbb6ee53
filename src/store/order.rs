//! Order without positions: what was there then, and where a listing goes on.

use std::fmt;
use std::str::FromStr;

use super::Time;

/// What had come to rest by a moment. Only the store makes one, and only it can tell what
/// lies within.
///
/// As text it may be handed to whoever asks, and given back: another process of the same
/// store understands it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Horizon(pub(super) String);

/// Where a listing goes on. Only the store makes one; it holds for the listing that it came
/// with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub(super) String);

/// A text that no store gave out as a horizon or a cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none that this store gave out: take it from an answer as it stands there")]
pub struct NotOurs(pub(super) String);

/// Characters of a cursor or a horizon at most.
const LONGEST: usize = 64;

fn checked(text: &str) -> Result<String, NotOurs> {
    let fits = (1..=LONGEST).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fits { Ok(text.to_owned()) } else { Err(NotOurs(text.chars().take(LONGEST).collect())) }
}

impl FromStr for Horizon {
    type Err = NotOurs;
    fn from_str(text: &str) -> Result<Self, NotOurs> {
        checked(text).map(Self)
    }
}

impl FromStr for Cursor {
    type Err = NotOurs;
    fn from_str(text: &str) -> Result<Self, NotOurs> {
        checked(text).map(Self)
    }
}

impl fmt::Display for Horizon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which part of a listing is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Behind this one; `None` from the beginning.
    pub after: Option<Cursor>,
    /// The newest first, else the oldest.
    pub newest_first: bool,
    /// At most so many that match.
    pub limit: usize,
    /// At most so many rows are looked at for them.
    pub look: usize,
}

impl Span {
    /// The first `limit` that match, the oldest first, however many must be looked at.
    pub fn of(limit: usize) -> Self {
        Self { after: None, newest_first: false, limit, look: usize::MAX }
    }

    /// The same, the newest first.
    #[must_use]
    pub fn newest_first(self) -> Self {
        Self { newest_first: true, ..self }
    }

    /// The same, behind `after`.
    #[must_use]
    pub fn after(self, after: Option<Cursor>) -> Self {
        Self { after, ..self }
    }

    /// The same, looking at so many rows at most.
    #[must_use]
    pub fn look(self, rows: usize) -> Self {
        Self { look: rows, ..self }
    }
}

/// A part of a listing.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// What matches, in order.
    pub items: Vec<T>,
    /// Where the next page begins; `None` where there is none.
    pub next: Option<Cursor>,
    /// How far was looked, where that ended the page before its limit.
    pub searched_to: Option<Time>,
}

/// One that has nothing, and nothing behind it.
impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { items: Vec::new(), next: None, searched_to: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_from_outside_is_taken_as_text_and_never_trusted() {
        for (text, taken) in
            [("17", true), ("a1-7", true), ("", false), ("1 2", false), ("'; DROP", false), (&"7".repeat(65), false)]
        {
            assert_eq!(text.parse::<Cursor>().is_ok(), taken, "{text}");
            assert_eq!(text.parse::<Horizon>().map(|horizon| horizon.to_string()).ok(), taken.then(|| text.to_owned()));
        }
    }
}
