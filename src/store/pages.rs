//! A place's mails, page by page.

use super::{Cursor, Listed, MailFilter, Place, Result, Span, Store};

/// Mails read at once.
const PAGE: usize = 200;

/// Walks through the mails of a place that match, oldest first, without holding more than
/// a page of them.
pub struct Pages<'a> {
    store: &'a dyn Store,
    place: Place,
    filter: MailFilter,
    after: Option<Cursor>,
    left: usize,
}

impl<'a> Pages<'a> {
    /// All mails of `place` that match `filter`.
    pub fn new(store: &'a dyn Store, place: Place, filter: MailFilter) -> Self {
        Self { store, place, filter, after: None, left: usize::MAX }
    }

    /// At most so many.
    #[must_use]
    pub fn limit(mut self, mails: usize) -> Self {
        self.left = mails;
        self
    }

    /// The next page; `None` behind the last.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn next(&mut self) -> Result<Option<Vec<Listed>>> {
        let limit = self.left.min(PAGE);
        if limit == 0 {
            return Ok(None);
        }
        let span = Span::of(limit).after(self.after.take());
        let page = self.store.list(&self.place, &self.filter, &span).await?;
        self.left = if page.next.is_some() { self.left - page.items.len() } else { 0 };
        self.after = page.next;
        Ok(if page.items.is_empty() { None } else { Some(page.items) })
    }
}
