//! A page of a listing, row by row.

use super::super::{Page, Span};
use super::rows;

/// Gathers what matches among the rows that are looked at, up to the ends of a span.
pub(super) struct Pager<'a, T> {
    span: &'a Span,
    items: Vec<T>,
    looked: usize,
    /// The last row: its place, and its time.
    last: Option<(i64, i64)>,
    more: bool,
}

impl<'a, T> Pager<'a, T> {
    pub(super) fn new(span: &'a Span) -> Self {
        Self { span, items: Vec::new(), looked: 0, last: None, more: false }
    }

    /// Whether the row that was met is still looked at: one that is not shows that there are more.
    pub(super) fn goes_on(&mut self) -> bool {
        self.more = self.items.len() >= self.span.limit || self.looked >= self.span.look;
        !self.more
    }

    /// A row is looked at.
    pub(super) fn looked(&mut self, place: i64, millis: i64) {
        self.looked += 1;
        self.last = Some((place, millis));
    }

    /// It matches.
    pub(super) fn found(&mut self, item: T) {
        self.items.push(item);
    }

    pub(super) fn page(self) -> Page<T> {
        let last = self.last.filter(|_| self.more);
        let is_short = self.items.len() < self.span.limit;
        Page {
            items: self.items,
            next: last.map(|(place, _)| rows::new_cursor(place)),
            searched_to: last.filter(|_| is_short).map(|(_, millis)| rows::time(millis)),
        }
    }
}
