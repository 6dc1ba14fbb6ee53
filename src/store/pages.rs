//! A place's mails, page by page.

use super::{Cursor, Listed, MailFilter, Place, Result, Span, Store};

/// Mails read at once.
const PAGE: usize = 200;

/// Mails looked at for a page: who walks hears of a stop between two pages, however rare is
/// what he looks for.
const LOOK: usize = 10_000;

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

    /// The next page, which may be empty; `None` behind the last.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn next(&mut self) -> Result<Option<Vec<Listed>>> {
        let limit = self.left.min(PAGE);
        if limit == 0 {
            return Ok(None);
        }
        let span = Span::of(limit).look(LOOK).after(self.after.take());
        let page = self.store.list(&self.place, &self.filter, &span).await?;
        self.left = if page.next.is_some() { self.left - page.items.len() } else { 0 };
        self.after = page.next;
        Ok(Some(page.items))
    }
}
