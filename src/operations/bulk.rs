//! One verb for all mails that are meant.

use serde_json::{Value, json};

use super::Selection;
use crate::audit::{Waiting, waiting};
use crate::mail::{Attributes, MailKey, RepositoryPath};
use crate::pipeline;
use crate::store::{
    Act, Acted, Batch, Error, Horizon, Listed, MailFilter, NewOperation, OperationId, Pages, Place, Respool, Result,
    Store,
};
use crate::text::count;

/// What is done to each mail that is meant.
#[derive(Debug, Clone)]
pub enum Verb {
    /// Into the spool for a processor.
    Reprocess(Respool),
    /// To another repository.
    Move {
        /// Which.
        to: RepositoryPath,
    },
    /// Out, for good.
    Remove,
}

impl Verb {
    /// As the record of operations has it.
    fn name(&self) -> &'static str {
        match self {
            Self::Reprocess(_) => "reprocess",
            Self::Move { .. } => "move",
            Self::Remove => "remove",
        }
    }

    /// What is to become of the mails, in a word.
    fn detail(&self) -> Option<String> {
        match self {
            Self::Reprocess(how) => Some(how.processor.clone()),
            Self::Move { to } => Some(to.to_string()),
            Self::Remove => None,
        }
    }

    fn act(&self) -> Act {
        match self {
            Self::Reprocess(how) => Act::Respool(how.clone()),
            Self::Move { to } => Act::Move(to.clone()),
            Self::Remove => Act::Remove,
        }
    }
}

/// What was done, or with a dry run what would be, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Mails it was done to.
    pub mails: u64,
    /// Mails in hand, which were left alone.
    pub in_hand: u64,
    /// Mails whose counter was not reset and is used up.
    pub exhausted: u64,
}

impl Done {
    /// For scripts.
    pub fn json(&self, verb: &Verb, dry_run: bool) -> Value {
        let mut object = json!({"mails": self.mails, "skipped": self.in_hand, "dryRun": dry_run});
        if let Verb::Reprocess(_) = verb {
            object["exhausted"] = self.exhausted.into();
        }
        object
    }

    /// For people.
    pub fn picture(&self, verb: &Verb, dry_run: bool) -> String {
        let what = match verb {
            Verb::Reprocess(how) => format!("put into the spool for processor {}", how.processor),
            Verb::Move { to } => format!("moved to {to}"),
            Verb::Remove => "removed".to_owned(),
        };
        let would = if dry_run { "would be " } else { "" };
        let mut text = format!("{} {would}{what}\n", count(self.mails, "mail"));
        if self.in_hand > 0 {
            text.push_str(&format!("{} in hand now and left alone\n", count(self.in_hand, "mail")));
        }
        match self.exhausted {
            0 => {}
            1 => text.push_str(
                "1 of them has used up its passes and goes where AtMost sends it; --reset makes it start again\n",
            ),
            more => text.push_str(&format!(
                "{more} of them have used up their passes and go where AtMost sends them; --reset makes them start again\n"
            )),
        }
        text
    }
}

/// What carries out verbs.
#[derive(Clone, Copy)]
pub struct Operations<'a> {
    /// Where mail rests.
    pub store: &'a dyn Store,
    /// Who does it, as the record of operations names him.
    pub who: &'a str,
    /// Knows whose passes are used up.
    pub processors: &'a pipeline::Config,
}

impl Operations<'_> {
    /// Does `verb` to the mails of `place` that are meant, or only looks at them; `seen` is
    /// told of each page first.
    ///
    /// # Errors
    /// Where the store cannot do it, the mail that is meant is in hand, or there is none.
    pub async fn carry_out(
        &self,
        place: &Place,
        selection: Selection,
        verb: &Verb,
        dry_run: bool,
        seen: &mut (dyn FnMut(&[Waiting]) + Send),
    ) -> Result<Done> {
        let mut bulk = Bulk { operations: self, place, verb, dry_run, begun: None, done: Done::default() };
        match selection {
            Selection::Mail(key) => bulk.one(&key, seen).await?,
            Selection::Matching(filter) => bulk.all(filter, seen).await?,
        }
        Ok(bulk.done)
    }

    /// Begins an operation on record.
    async fn begin(&self, verb: &Verb, place: &Place, selection: String) -> Result<OperationId> {
        let operation = NewOperation {
            who: self.who.to_owned(),
            verb: verb.name().to_owned(),
            place: Some(place.clone()),
            selection,
            detail: verb.detail(),
            ..NewOperation::default()
        };
        self.store.begin_operation(&operation).await
    }

    /// Puts into the spool what matches in each of these repositories, for the processor
    /// beside it; the keys of all that match and wait in the spool now.
    ///
    /// # Errors
    /// Where the store cannot do it.
    pub async fn gather(&self, from: &[(RepositoryPath, String)], filter: &MailFilter) -> Result<Vec<MailKey>> {
        // What a running service brings back meanwhile is not met again.
        let now = self.store.horizon().await?;
        let filter = MailFilter { within: Some(now.clone()), ..filter.clone() };
        let mut keys = self.keys(&Place::Spool, &filter).await?;
        for (repository, processor) in from {
            let place = Place::Repository(repository.clone());
            let how = Respool { processor: processor.clone(), ..Respool::default() };
            let found = self.keys(&place, &filter).await?;
            if found.is_empty() {
                continue;
            }
            let verb = Verb::Reprocess(how);
            let operation = self.begin(&verb, &place, format!("{filter:?}")).await?;
            for some in found.chunks(BATCH) {
                let (place, keys_of_batch) = (place.clone(), some.to_vec());
                let batch = Batch { operation, place, act: verb.act(), keys: keys_of_batch, within: Some(now.clone()) };
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
                Err(Error::NoSuchMail(_)) => continue,
                found => drop(found?),
            }
            let verb = Verb::Reprocess(Respool { processor: processor.clone(), ..Respool::default() });
            let done = self.carry_out(&place, Selection::Mail(key.clone()), &verb, false, &mut |_| {}).await;
            return done.map(drop);
        }
        self.store.find(&Place::Spool, key).await.map(drop)
    }
}

/// Mails that something is done to in one transaction: others write in between.
const BATCH: usize = 200;

/// One verb under way.
struct Bulk<'a> {
    operations: &'a Operations<'a>,
    place: &'a Place,
    verb: &'a Verb,
    dry_run: bool,
    /// The operation on record, once there is something to do.
    begun: Option<OperationId>,
    done: Done,
}

impl Bulk<'_> {
    async fn one(&mut self, key: &MailKey, seen: &mut (dyn FnMut(&[Waiting]) + Send)) -> Result<()> {
        let listed = match self.operations.store.find(self.place, key).await {
            Ok(listed) => Some(listed),
            // What cannot be shown can be put elsewhere all the same.
            Err(error) if error.is_unreadable() => None,
            Err(error) => return Err(error),
        };
        self.tell(listed.as_slice(), seen).await?;
        if self.dry_run {
            self.count(listed.as_ref().map(|listed| &listed.mail.attributes));
            return Ok(());
        }
        let acted = self.act(vec![key.clone()], None, || key.to_string()).await?;
        match acted.into_iter().next() {
            Some(Acted::Done) => self.count(listed.as_ref().map(|listed| &listed.mail.attributes)),
            Some(Acted::InHand) => return Err(Error::InHand(key.clone())),
            Some(Acted::Unreadable(why)) => return Err(Error::Unreadable(key.clone(), why)),
            Some(Acted::Gone) | None => return Err(Error::NoSuchMail(key.clone())),
        }
        Ok(())
    }

    /// Every mail that matches and was there at the start: what a running service brings back
    /// meanwhile is not met again. A mail that is in hand, or went away, is passed over.
    async fn all(&mut self, filter: MailFilter, seen: &mut (dyn FnMut(&[Waiting]) + Send)) -> Result<()> {
        let now = self.operations.store.horizon().await?;
        let as_given = format!("{filter:?}");
        let filter = MailFilter { within: Some(now.clone()), ..filter };
        let mut pages = Pages::new(self.operations.store, self.place.clone(), filter);
        while let Some(page) = pages.next().await? {
            self.tell(&page, seen).await?;
            let acted = if self.dry_run {
                page.iter().map(|listed| if listed.in_hand { Acted::InHand } else { Acted::Done }).collect()
            } else {
                let keys = page.iter().map(|listed| listed.mail.key.clone()).collect();
                self.act(keys, Some(now.clone()), || as_given.clone()).await?
            };
            for (listed, acted) in page.iter().zip(acted) {
                match acted {
                    Acted::Done => self.count(Some(&listed.mail.attributes)),
                    Acted::InHand => self.done.in_hand += 1,
                    Acted::Gone | Acted::Unreadable(_) => {}
                }
            }
        }
        Ok(())
    }

    async fn tell(&self, page: &[Listed], seen: &mut (dyn FnMut(&[Waiting]) + Send)) -> Result<()> {
        if self.dry_run {
            seen(&waiting(self.operations.store, page).await?);
        }
        Ok(())
    }

    async fn act(
        &mut self,
        keys: Vec<MailKey>,
        within: Option<Horizon>,
        selection: impl FnOnce() -> String,
    ) -> Result<Vec<Acted>> {
        let operation = match self.begun {
            Some(begun) => begun,
            None => self.operations.begin(self.verb, self.place, selection()).await?,
        };
        self.begun = Some(operation);
        let batch = Batch { operation, place: self.place.clone(), act: self.verb.act(), keys, within };
        self.operations.store.act(&batch).await
    }

    /// It was done, or would be, to a mail with these attributes.
    fn count(&mut self, attributes: Option<&Attributes>) {
        if let (Verb::Reprocess(how), Some(attributes)) = (self.verb, attributes) {
            let is_used_up = || self.operations.processors.is_used_up(&how.processor, attributes);
            self.done.exhausted += u64::from(how.reset.is_empty() && is_used_up());
        }
        self.done.mails += 1;
    }
}
