//! What waits, as `mailq` shows it: the spool, then the repositories that a job sweeps.

use std::collections::{BTreeSet, VecDeque};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{or_nothing, said};
use crate::mail::{Address, Mail, MailKey, Recorded, RepositoryPath, ReversePath};
use crate::store::{Error, Listed, MailFilter, Pages, Place, Result, Store, Time};
use crate::text::{age, rfc3339};

/// A mail that waits, with what there is to say of it on one line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// The mail.
    pub key: MailKey,
    /// When it was first accepted.
    pub accepted: DateTime<Utc>,
    /// Somebody works on it now.
    pub in_hand: bool,
    /// Passes that counted.
    pub passes: u32,
    /// Whose it is.
    pub sender: ReversePath,
    /// The first recipient.
    pub recipient: Option<Address>,
    /// How many recipients there are besides.
    pub others: usize,
    /// What was decided here about the mail.
    pub error: Option<String>,
    /// The outcome of its last attempt, for one of its recipients.
    pub last: Option<Recorded>,
}

/// What waits in one place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueuePage {
    /// `spool`, or the repository's path.
    pub place: String,
    /// Oldest first.
    pub mails: Vec<Waiting>,
}

/// All that waits, whoever sent it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueTotal {
    /// Mails.
    pub mails: u64,
    /// Octets of their messages.
    pub octets: u64,
}

impl QueueTotal {
    /// Of the spool and what is `kept` for a next pass.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn of(store: &dyn Store, kept: &BTreeSet<RepositoryPath>) -> Result<Self> {
        let mut total = Self::default();
        for (place, sums) in store.sums().await? {
            let waits = match &place {
                Place::Spool => true,
                Place::Repository(path) => kept.contains(path),
            };
            if waits {
                total.mails += sums.mails;
                total.octets += sums.octets;
            }
        }
        Ok(total)
    }

    /// The end of `mailq`, as sendmail and Postfix have it: programs look for the one line or the
    /// other, and take it for empty where they find neither.
    pub fn footer(&self) -> String {
        match self.mails {
            0 => "Mail queue is empty".to_owned(),
            mails => {
                format!("\t\tTotal requests: {mails}\n-- {} Kbytes in {mails} Requests.", self.octets.div_ceil(1024))
            }
        }
    }
}

/// A walk through what waits, page by page.
pub struct Queue<'a> {
    store: &'a dyn Store,
    /// Those that are not begun yet.
    places: VecDeque<(String, Place)>,
    filter: MailFilter,
    current: Option<(String, Pages<'a>)>,
}

impl<'a> Queue<'a> {
    /// The spool and what is `kept` for a next pass; with `only`, just the mails whose
    /// reverse-path that is.
    pub fn new(store: &'a dyn Store, kept: impl IntoIterator<Item = RepositoryPath>, only: Option<&Address>) -> Self {
        let kept = kept.into_iter().map(|path| (path.to_string(), Place::Repository(path)));
        let places = std::iter::once(("spool".to_owned(), Place::Spool)).chain(kept).collect();
        let filter = MailFilter { sender: only.map(ToString::to_string), ..MailFilter::default() };
        Self { store, places, filter, current: None }
    }

    /// The next page, which is never empty; `None` behind the last place.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn next(&mut self) -> Result<Option<QueuePage>> {
        loop {
            if let Some((place, pages)) = &mut self.current
                && let Some(page) = pages.next().await?
            {
                if page.is_empty() {
                    continue;
                }
                return Ok(Some(QueuePage { place: place.clone(), mails: waiting(self.store, &page).await? }));
            }
            let Some((name, place)) = self.places.pop_front() else { return Ok(None) };
            self.current = Some((name, Pages::new(self.store, place, self.filter.clone())));
        }
    }
}

/// Where a mail rests, whichever place that is; `None` where it is gone, or nobody knows it.
///
/// # Errors
/// Where the store cannot be read.
pub async fn whereabouts(store: &dyn Store, key: &MailKey) -> Result<Option<(Place, Listed)>> {
    // It may move from a place not yet looked at to one that was: twice is enough for once.
    for _ in 0..2 {
        let repositories = store.repositories().await?.into_iter().map(Place::Repository);
        for place in std::iter::once(Place::Spool).chain(repositories) {
            match store.find(&place, key).await {
                Ok(listed) => return Ok(Some((place, listed))),
                Err(Error::NoSuchMail(_) | Error::NoSuchRepository(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(None)
}

/// The mails of a page, each with its last outcome.
///
/// # Errors
/// Where the store cannot be read.
pub async fn waiting(store: &dyn Store, page: &[Listed]) -> Result<Vec<Waiting>> {
    let mails: Vec<Mail> = page.iter().map(|listed| listed.mail.clone()).collect();
    let outcomes = store.last_outcomes(&mails).await?;
    let lines = page.iter().zip(mails).zip(outcomes).map(|((listed, mail), outcomes)| Waiting {
        passes: mail.passes(),
        others: mail.envelope.recipients.len().saturating_sub(1),
        recipient: mail.envelope.recipients.into_iter().next(),
        key: mail.key,
        accepted: listed.accepted,
        in_hand: listed.in_hand,
        sender: mail.envelope.reverse_path,
        error: mail.error,
        last: outcomes.into_iter().flatten().next(),
    });
    Ok(lines.collect())
}

/// Of a listing of what waits, and of a repository's mails.
pub const WAITING_COLUMNS: [&str; 8] = ["KEY", "AGE", "PASSES", "CODE", "NEXT HOP", "SENDER", "RECIPIENT", "REPLY"];

/// A mail in [`WAITING_COLUMNS`].
pub fn waiting_row(mail: &Waiting, now: Time) -> Vec<String> {
    let last = mail.last.as_ref();
    let mark = if mail.in_hand { "*" } else { "" };
    // What was decided here about the mail stands above what a peer said before.
    let reply = mail.error.clone().or_else(|| last.map(said)).unwrap_or_default();
    let first = mail.recipient.as_ref().map(ToString::to_string).unwrap_or_default();
    vec![
        format!("{}{mark}", mail.key),
        age(now - mail.accepted),
        mail.passes.to_string(),
        or_nothing(last.and_then(|last| last.code)),
        or_nothing(last.and_then(|last| last.next_hop.as_ref())),
        mail.sender.to_string(),
        if mail.others == 0 { first } else { format!("{first} +{}", mail.others) },
        reply,
    ]
}

/// A mail that waits in `place`, as `mailq` writes it for scripts.
pub fn waiting_json(place: &str, mail: &Waiting) -> Value {
    json!({
        "place": place,
        "key": mail.key,
        "accepted": rfc3339(mail.accepted),
        "inHand": mail.in_hand,
        "passes": mail.passes,
        "sender": mail.sender,
        "recipient": mail.recipient,
        "others": mail.others,
        "error": mail.error,
        "last": mail.last,
    })
}
