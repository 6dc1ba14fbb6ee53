//! One verb for all mails that are meant, in batches between which others write.

use std::net::IpAddr;

use tokio_util::sync::CancellationToken;

use super::preview::{EXACT, Preview, SAMPLE};
use super::{Bounds, Conditions, Done, Error, Result, Selection, Verb};
use crate::audit::waiting;
use crate::mail::{CauseId, Mail, MailKey, RepositoryPath};
use crate::pipeline;
use crate::store::{
    self, Acted, Batch, GroupFilter, Horizon, Listed, MailFilter, NewOperation, OperationId, Pages, Place, Respool,
    Span, Store, Time,
};

/// Who asks for something, as the record of operations names him.
#[derive(Debug, Clone, Default)]
pub struct Operator {
    /// A user of this machine with his number, a name with its role, or a job.
    pub who: String,
    /// The client's address, where it was asked for over HTTP.
    pub client: Option<IpAddr>,
    /// The task that does it.
    pub task: Option<String>,
}

/// What carries out verbs.
#[derive(Clone, Copy)]
pub struct Operations<'a> {
    /// Where mail rests.
    pub store: &'a dyn Store,
    /// Who does it.
    pub by: &'a Operator,
    /// Knows whose passes are used up.
    pub processors: &'a pipeline::Config,
    /// Ages are counted back from here.
    pub now: Time,
    /// Ends it between two batches.
    pub stop: &'a CancellationToken,
}

impl Operations<'_> {
    /// Does `verb` to the mails of `place` that are meant; `progress` is told after each batch.
    ///
    /// # Errors
    /// Where the verb makes no sense there, the store cannot do it, the one mail that is meant
    /// is in hand, or there is none.
    pub async fn carry_out(
        &self,
        place: &Place,
        selection: &Selection,
        verb: &Verb,
        progress: &mut (dyn FnMut(&Done) + Send),
    ) -> Result<Done> {
        verb.check(place).map_err(Error::Refused)?;
        let mut bulk = Bulk { operations: self, place, verb, selection, done: Done::default() };
        match selection {
            Selection::Mail(key) => bulk.one(key).await?,
            Selection::Matching { conditions, until, bounds } => {
                let filter = self.filter(place, conditions, until.clone()).await?;
                bulk.all(filter, bounds, progress).await?;
            }
        }
        Ok(bulk.done)
    }

    /// What [`Operations::carry_out`] would do now.
    ///
    /// # Errors
    /// As there.
    pub async fn preview(&self, place: &Place, selection: &Selection, verb: &Verb) -> Result<Preview> {
        verb.check(place).map_err(Error::Refused)?;
        let until = self.store.horizon().await?;
        let mut preview =
            Preview { count: 0, exact: true, sample: Vec::new(), until, in_hand: 0, exhausted: 0, in_other_groups: 0 };
        match selection {
            Selection::Mail(key) => {
                let listed = self.store.find(place, key).await?;
                self.count_in(&mut preview, &[listed], verb).await?;
            }
            Selection::Matching { conditions, until, bounds } => {
                let until = until.clone().unwrap_or_else(|| preview.until.clone());
                let filter = self.filter(place, conditions, Some(until.clone())).await?;
                preview.until = until;
                self.count_all(&mut preview, place, &filter, bounds, verb).await?;
            }
        }
        Ok(preview)
    }

    /// Refuses what [`Operations::carry_out`] would, whether or not any mail is meant.
    ///
    /// # Errors
    /// As there.
    pub async fn check(&self, place: &Place, selection: &Selection, verb: &Verb) -> Result<()> {
        verb.check(place).map_err(Error::Refused)?;
        if let Selection::Matching { conditions, until, .. } = selection {
            let filter = self.filter(place, conditions, until.clone()).await?;
            self.store.list(place, &filter, &Span::of(0)).await?;
        }
        Ok(())
    }

    /// The filter for a listing of the mails of `place`.
    ///
    /// # Errors
    /// Where a condition makes no sense, or the place is not known.
    pub async fn listing(&self, place: &Place, conditions: &Conditions) -> Result<MailFilter> {
        self.filter(place, conditions, None).await
    }

    async fn count_all(
        &self,
        preview: &mut Preview,
        place: &Place,
        filter: &MailFilter,
        bounds: &Bounds,
        verb: &Verb,
    ) -> Result<()> {
        let mut pages = Pages::new(self.store, place.clone(), filter.clone());
        while let Some(mut page) = pages.next().await? {
            if bounds.left(preview.count) == 0 {
                break;
            }
            if preview.count >= EXACT {
                preview.exact = false;
                break;
            }
            page.retain(|listed| bounds.allow(&listed.mail));
            let mut left = bounds.left(preview.count);
            page.retain(|listed| {
                let is_within = left > 0;
                left -= usize::from(is_within && !listed.in_hand);
                is_within
            });
            self.count_in(preview, &page, verb).await?;
        }
        if let (Some(group), Place::Repository(repository)) = (&filter.group, place) {
            preview.in_other_groups = self.store.in_other_groups(group, repository).await?;
        }
        Ok(())
    }

    async fn count_in(&self, preview: &mut Preview, page: &[Listed], verb: &Verb) -> Result<()> {
        let (in_hand, free): (Vec<_>, Vec<_>) = page.iter().cloned().partition(|listed| listed.in_hand);
        preview.in_hand += in_hand.len() as u64;
        preview.count += free.len() as u64;
        preview.exhausted += free.iter().filter(|listed| self.is_exhausted(verb, Some(&listed.mail))).count() as u64;
        let room = SAMPLE.saturating_sub(preview.sample.len()).min(free.len());
        if room > 0 {
            preview.sample.extend(waiting(self.store, &free[..room]).await?);
        }
        Ok(())
    }

    /// Whether a mail would go round without an attempt.
    fn is_exhausted(&self, verb: &Verb, mail: Option<&Mail>) -> bool {
        match (verb, mail) {
            (Verb::Reprocess(how), Some(mail)) => {
                let processor = how.processor_of(&mail.state);
                how.reset.is_empty() && self.processors.is_used_up(processor, &mail.attributes)
            }
            _ => false,
        }
    }

    /// The conditions as the store takes them. A group that nobody knows is a slip.
    async fn filter(&self, place: &Place, conditions: &Conditions, until: Option<Horizon>) -> Result<MailFilter> {
        if let Some(group) = conditions.group() {
            self.known_group(group).await?;
        }
        // Of a place that is not known, the store says so.
        self.store.size(place).await?;
        let filter = conditions.filter(self.now).map_err(Error::Wrong)?;
        Ok(MailFilter { within: until, ..filter })
    }

    async fn known_group(&self, group: &CauseId) -> Result<()> {
        let filter = GroupFilter { id: Some(group.clone()), ..GroupFilter::default() };
        let known = self.store.groups(&filter, &Span::of(1)).await?;
        if known.items.is_empty() { Err(Error::NoSuchGroup(group.clone())) } else { Ok(()) }
    }

    /// The repositories that have mails of a group.
    ///
    /// # Errors
    /// Where the store cannot be read, or nobody knows the group.
    pub async fn repositories_of(&self, group: &CauseId) -> Result<Vec<RepositoryPath>> {
        self.known_group(group).await?;
        let filter = GroupFilter { id: Some(group.clone()), ..GroupFilter::default() };
        let groups = self.store.groups(&filter, &Span::of(usize::MAX - 1)).await?;
        Ok(groups.items.into_iter().filter(|group| group.mails > 0).map(|group| group.repository).collect())
    }

    /// Begins an operation on record.
    async fn begin(&self, verb: &Verb, place: &Place, selection: String) -> store::Result<OperationId> {
        let Operator { who, client, task } = self.by.clone();
        let operation = NewOperation {
            who,
            client,
            task,
            verb: verb.name().to_owned(),
            place: Some(place.clone()),
            selection,
            detail: verb.detail(),
        };
        self.store.begin_operation(&operation).await
    }

    /// Puts into the spool what matches in each of these repositories, for the processor
    /// beside it; the keys of all that match and wait in the spool now.
    ///
    /// # Errors
    /// Where the store cannot do it.
    pub async fn gather(&self, from: &[(RepositoryPath, String)], conditions: &Conditions) -> Result<Vec<MailKey>> {
        // What a running service brings back meanwhile is not met again.
        let now = self.store.horizon().await?;
        let filter = self.filter(&Place::Spool, conditions, Some(now.clone())).await?;
        let mut keys = self.keys(&Place::Spool, &filter).await?;
        for (repository, processor) in from {
            let place = Place::Repository(repository.clone());
            let found = self.keys(&place, &filter).await?;
            if found.is_empty() {
                continue;
            }
            let verb = Verb::Reprocess(Respool { processor: processor.clone(), ..Respool::default() });
            let operation = self.begin(&verb, &place, conditions.to_string()).await?;
            for some in found.chunks(BATCH) {
                let (place, within) = (place.clone(), Some(now.clone()));
                let batch = Batch { operation, place, act: verb.act(&self.by.who), keys: some.to_vec(), within };
                // What is in hand is attempted already, and what is gone is gone.
                let acted = self.store.act(&batch).await?;
                let done = some.iter().zip(acted).filter(|(_, acted)| *acted == Acted::Done);
                keys.extend(done.map(|(key, _)| key.clone()));
            }
        }
        Ok(keys)
    }

    async fn keys(&self, place: &Place, filter: &MailFilter) -> Result<Vec<MailKey>> {
        let mut pages = Pages::new(self.store, place.clone(), filter.clone());
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await? {
            keys.extend(page.into_iter().map(|listed| listed.mail.key));
        }
        Ok(keys)
    }

    /// Puts one mail into the spool, from whichever of these repositories it rests in, for the
    /// processor beside it. One that waits in the spool already is left there.
    ///
    /// # Errors
    /// Where it is in neither, or in hand.
    pub async fn fetch(&self, from: &[(RepositoryPath, String)], key: &MailKey) -> Result<()> {
        for (repository, processor) in from {
            let place = Place::Repository(repository.clone());
            match self.store.find(&place, key).await {
                Err(store::Error::NoSuchMail(_)) => continue,
                found => drop(found?),
            }
            let verb = Verb::Reprocess(Respool { processor: processor.clone(), ..Respool::default() });
            let done = self.carry_out(&place, &Selection::Mail(key.clone()), &verb, &mut |_| {}).await;
            return done.map(drop);
        }
        Ok(self.store.find(&Place::Spool, key).await.map(drop)?)
    }
}

/// Mails that the store is asked to do something to at once, which it does in turns that are
/// short: so many between two looks at whether it is to end.
const BATCH: usize = 100;

/// One verb under way.
struct Bulk<'a> {
    operations: &'a Operations<'a>,
    place: &'a Place,
    verb: &'a Verb,
    selection: &'a Selection,
    done: Done,
}

impl Bulk<'_> {
    async fn one(&mut self, key: &MailKey) -> Result<()> {
        let listed = match self.operations.store.find(self.place, key).await {
            Ok(listed) => Some(listed),
            // What cannot be shown can be put elsewhere all the same.
            Err(error) if error.is_unreadable() => None,
            Err(error) => return Err(error.into()),
        };
        if listed.as_ref().is_some_and(|listed| listed.in_hand) {
            return Err(store::Error::InHand(key.clone()).into());
        }
        let acted = self.act(vec![key.clone()], None).await?;
        match acted.into_iter().next() {
            Some(Acted::Done) => self.count(listed.as_ref().map(|listed| &listed.mail)),
            Some(Acted::InHand) => return Err(store::Error::InHand(key.clone()).into()),
            Some(Acted::Unreadable(why)) => return Err(store::Error::Unreadable(key.clone(), why).into()),
            Some(Acted::Gone) | None => return Err(store::Error::NoSuchMail(key.clone()).into()),
        }
        Ok(())
    }

    /// Every mail that matches and was there at the start: what a running service brings back
    /// meanwhile is not met again. A mail that is in hand, or went away, is passed over.
    async fn all(
        &mut self,
        filter: MailFilter,
        bounds: &Bounds,
        progress: &mut (dyn FnMut(&Done) + Send),
    ) -> Result<()> {
        let now = match &filter.within {
            Some(until) => until.clone(),
            None => self.operations.store.horizon().await?,
        };
        let filter = MailFilter { within: Some(now.clone()), ..filter };
        let mut pages = Pages::new(self.operations.store, self.place.clone(), filter);
        while let Some(mut page) = pages.next().await? {
            page.retain(|listed| bounds.allow(&listed.mail));
            if !self.goes_on(bounds) {
                break;
            }
            let mut rest = &page[..];
            while !rest.is_empty() && self.goes_on(bounds) {
                // Those in hand use up nothing of a limit: what is behind them comes next.
                let (some, behind) = rest.split_at(BATCH.min(bounds.left(self.done.mails)).min(rest.len()));
                self.some(some, &now).await?;
                progress(&self.done);
                rest = behind;
            }
        }
        Ok(())
    }

    fn goes_on(&mut self, bounds: &Bounds) -> bool {
        self.done.stopped = self.operations.stop.is_cancelled();
        !self.done.stopped && bounds.left(self.done.mails) > 0
    }

    async fn some(&mut self, some: &[Listed], now: &Horizon) -> Result<()> {
        let keys = some.iter().map(|listed| listed.mail.key.clone()).collect();
        let acted = self.act(keys, Some(now.clone())).await?;
        for (listed, acted) in some.iter().zip(acted) {
            match acted {
                Acted::Done => self.count(Some(&listed.mail)),
                Acted::InHand => self.done.in_hand += 1,
                Acted::Unreadable(_) => self.done.unreadable += 1,
                Acted::Gone => {}
            }
        }
        Ok(())
    }

    async fn act(&mut self, keys: Vec<MailKey>, within: Option<Horizon>) -> Result<Vec<Acted>> {
        let operation = match self.done.operation {
            Some(begun) => begun,
            None => self.operations.begin(self.verb, self.place, self.selection.to_string()).await?,
        };
        self.done.operation = Some(operation);
        let act = self.verb.act(&self.operations.by.who);
        let batch = Batch { operation, place: self.place.clone(), act, keys, within };
        Ok(self.operations.store.act(&batch).await?)
    }

    /// It was done to this mail, as it was before.
    fn count(&mut self, mail: Option<&Mail>) {
        self.done.exhausted += u64::from(self.operations.is_exhausted(self.verb, mail));
        self.done.mails += 1;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::clock::Clock;
    use crate::mail::{Address, Attributes, Envelope, MessageFacts, NewMail, NewMessage, ReversePath};
    use crate::store::{Intake, Passes, SqliteStore, Wanted};

    fn mail(key: &str) -> NewMail {
        NewMail {
            key: MailKey::parse(key).expect("a key"),
            name: key.to_owned(),
            envelope: Envelope::new(ReversePath::Null, vec![Address::parse("b@x.example").expect("an address")]),
            state: "relay".to_owned(),
            attributes: Attributes::default(),
            message: NewMessage::Whole(Bytes::from_static(b"x")),
            facts: MessageFacts::default(),
            client: None,
            import_digest: None,
        }
    }

    /// Five in the spool, of which the two oldest are in hand.
    async fn busy_store(directory: &tempfile::TempDir) -> SqliteStore {
        let store = SqliteStore::open(&directory.path().join("t.db"), "test", &Clock::system()).expect("opens");
        for key in ["K1", "K2", "K3", "K4", "K5"] {
            store.insert(mail(key)).await.expect("inserted");
        }
        let oldest = Wanted {
            from: Place::Spool,
            run: None,
            within: None,
            spacing: Vec::new(),
            limit: 2,
            suspects: false,
            only: None,
        };
        assert_eq!(store.claim(&oldest).await.expect("claimed").len(), 2);
        store
    }

    #[tokio::test]
    async fn bounds_are_of_what_it_is_done_to_and_not_of_what_is_in_hand() {
        for (limit, recipient, mails, in_hand) in [
            (None, None, 3, 2),
            (Some(2), None, 2, 2),
            (Some(3), None, 3, 2),
            (Some(9), None, 3, 2),
            (Some(2), Some("B@X.Example"), 2, 2),
            (None, Some("c@x.example"), 0, 0),
        ] {
            let directory = tempfile::tempdir().expect("a directory");
            let store = busy_store(&directory).await;
            let (by, processors, stop) = (Operator::default(), pipeline::Config::default(), CancellationToken::new());
            let now = Clock::system().now();
            let operations = Operations { store: &store, by: &by, processors: &processors, now, stop: &stop };
            let recipient = recipient.map(|text| Address::parse(text).expect(text));
            let bounds = Bounds { recipient, limit, ..Bounds::default() };
            let selection = Selection::Matching { conditions: Box::default(), until: None, bounds };
            let preview = operations.preview(&Place::Spool, &selection, &Verb::Remove).await.expect("counted");
            assert_eq!((preview.count, preview.in_hand), (mails, in_hand), "{limit:?}");
            let done = operations.carry_out(&Place::Spool, &selection, &Verb::Remove, &mut |_| {}).await;
            let done = done.expect("removed");
            assert_eq!((done.mails, done.in_hand, done.stopped), (mails, in_hand, false), "{limit:?}");
        }
    }
}
