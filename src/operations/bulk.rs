//! One verb for all mails that are meant.

use serde_json::{Value, json};

use super::Selection;
use crate::audit::{Waiting, waiting};
use crate::clock::Clock;
use crate::mail::{Attributes, MailKey, RepositoryPath};
use crate::pipeline;
use crate::store::{Error, Listed, MailFilter, Pages, Place, Respool, Result, Seq, Store};
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
    /// The same for mails that had come to rest by `upto`: one that another command has sent
    /// round meanwhile is not sent again.
    fn upto(&self, upto: Seq) -> Self {
        match self {
            Self::Reprocess(how) => Self::Reprocess(Respool { upto: Some(upto), ..how.clone() }),
            other => other.clone(),
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
    /// The time.
    pub clock: &'a Clock,
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
        let mut bulk = Bulk { operations: self, place, verb: verb.clone(), dry_run, done: Done::default() };
        match selection {
            Selection::Mail(key) => bulk.one(&key, seen).await?,
            Selection::Matching(filter) => bulk.all(filter, seen).await?,
        }
        Ok(bulk.done)
    }

    /// Puts into the spool what matches in each of these repositories, for the processor
    /// beside it; the keys of all that match and wait in the spool now.
    ///
    /// # Errors
    /// Where the store cannot do it.
    pub async fn gather(&self, from: &[(RepositoryPath, String)], filter: &MailFilter) -> Result<Vec<MailKey>> {
        // What a running service brings back meanwhile is not met again.
        let upto = self.store.newest().await?;
        let mut keys = self.keys(&Place::Spool, filter, upto).await?;
        for (repository, processor) in from {
            let place = Place::Repository(repository.clone());
            let how = Respool { processor: processor.clone(), upto: Some(upto), ..Respool::default() };
            for key in self.keys(&place, filter, upto).await? {
                match self.store.respool(&place, &key, &how, self.clock.now()).await {
                    Ok(()) => keys.push(key),
                    // It is attempted already, or went away.
                    Err(Error::InHand(_) | Error::NoSuchMail(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(keys)
    }

    async fn keys(&self, place: &Place, filter: &MailFilter, upto: Seq) -> Result<Vec<MailKey>> {
        let mut pages = Pages::new(self.store, place.clone(), filter.clone()).upto(upto);
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
            let how = Respool { processor: processor.clone(), ..Respool::default() };
            match self.store.respool(&Place::Repository(repository.clone()), key, &how, self.clock.now()).await {
                Err(Error::NoSuchMail(_)) => {}
                done => return done,
            }
        }
        self.store.find(&Place::Spool, key).await.map(drop)
    }
}

/// One verb under way.
struct Bulk<'a> {
    operations: &'a Operations<'a>,
    place: &'a Place,
    verb: Verb,
    dry_run: bool,
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
        self.act_on(key, listed.as_ref().map(|listed| &listed.mail.attributes)).await
    }

    /// Every mail that matches and was there at the start: what a running service brings back
    /// meanwhile is not met again. A mail that is in hand, or went away, is passed over.
    async fn all(&mut self, filter: MailFilter, seen: &mut (dyn FnMut(&[Waiting]) + Send)) -> Result<()> {
        let upto = self.operations.store.newest().await?;
        self.verb = self.verb.upto(upto);
        let mut pages = Pages::new(self.operations.store, self.place.clone(), filter).upto(upto);
        while let Some(page) = pages.next().await? {
            self.tell(&page, seen).await?;
            for listed in page {
                if self.dry_run && listed.in_hand {
                    self.done.in_hand += 1;
                    continue;
                }
                match self.act_on(&listed.mail.key, Some(&listed.mail.attributes)).await {
                    Err(Error::InHand(_)) => self.done.in_hand += 1,
                    Ok(()) | Err(Error::NoSuchMail(_)) => {}
                    Err(error) => return Err(error),
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

    async fn act_on(&mut self, key: &MailKey, attributes: Option<&Attributes>) -> Result<()> {
        let Operations { store, clock, processors } = self.operations;
        let now = clock.now();
        match &self.verb {
            _ if self.dry_run => {}
            Verb::Reprocess(how) => store.respool(self.place, key, how, now).await?,
            Verb::Move { to } => store.move_to(self.place, key, to, now).await?,
            Verb::Remove => store.remove(self.place, key, now).await?,
        }
        if let (Verb::Reprocess(how), Some(attributes)) = (&self.verb, attributes) {
            let is_used_up = || processors.is_used_up(&how.processor, attributes);
            self.done.exhausted += u64::from(how.reset.is_empty() && is_used_up());
        }
        self.done.mails += 1;
        Ok(())
    }
}
