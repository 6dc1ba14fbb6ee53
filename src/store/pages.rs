//! A place's mails, page by page.

use super::{Listed, MailFilter, Place, Result, Seq, Store};

/// Mails read at once.
const PAGE: usize = 200;

/// Walks through the mails of a place that match, oldest first, without holding more than
/// a page of them.
pub struct Pages<'a> {
    store: &'a dyn Store,
    place: Place,
    filter: MailFilter,
    after: Option<Seq>,
    upto: Option<Seq>,
    left: usize,
}

impl<'a> Pages<'a> {
    /// All mails of `place` that match `filter`.
    pub fn new(store: &'a dyn Store, place: Place, filter: MailFilter) -> Self {
        Self { store, place, filter, after: None, upto: None, left: usize::MAX }
    }

    /// At most so many.
    #[must_use]
    pub fn limit(mut self, mails: usize) -> Self {
        self.left = mails;
        self
    }

    /// Only those behind `after` in the order.
    #[must_use]
    pub fn after(mut self, after: Option<Seq>) -> Self {
        self.after = after;
        self
    }

    /// Only those that had come to rest by `upto`.
    #[must_use]
    pub fn upto(mut self, upto: Seq) -> Self {
        self.upto = Some(upto);
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
        let mut page = self.store.list(&self.place, &self.filter, self.after, limit).await?;
        self.after = page.last().map(|listed| listed.seq).or(self.after);
        if let Some(upto) = self.upto {
            page.retain(|listed| listed.seq <= upto);
        }
        self.left -= page.len();
        Ok(if page.is_empty() { None } else { Some(page) })
    }
}
