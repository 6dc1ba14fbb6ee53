//! Mail that came in, handed straight to the loop that takes mail up.
//!
//! As long as the loop has room, new mail is in hand from the commit that accepts it on: it
//! need not be looked for and taken, nor its message read. Where there is no room, while mails
//! are suspected of killing processes, in local trouble and at a stop it comes to rest in the
//! spool, where the loop finds it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::exclusion::{Exclusion, SharedHold};
use crate::store::Claimed;

/// The way from those who accept mail to the loop.
#[derive(Debug, Clone)]
pub struct Handover {
    exclusion: Exclusion,
    state: Arc<Mutex<State>>,
    news: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    /// How many the loop would take now, those with a seat and those that wait included.
    offered: usize,
    /// Given out, for mails that are being committed.
    seats: usize,
    waiting: VecDeque<Handed>,
}

impl State {
    fn has_room(&self) -> bool {
        self.seats + self.waiting.len() < self.offered
    }

    /// A mail that the loop takes has used up what was offered for it.
    fn take(&mut self) -> Option<Handed> {
        let handed = self.waiting.pop_front()?;
        self.offered = self.offered.saturating_sub(1);
        Some(handed)
    }
}

/// A mail in hand, with what keeps suspects from being alone.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) claimed: Claimed,
    pub(super) shared: SharedHold,
}

/// Room for one mail; given back when it is dropped.
pub(super) struct Seat {
    handover: Handover,
    shared: Option<SharedHold>,
}

impl Handover {
    /// To a loop that keeps suspects apart by `exclusion`. There is no room until it offers some.
    pub fn new(exclusion: &Exclusion) -> Self {
        Self { exclusion: exclusion.clone(), state: Arc::default(), news: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many would be taken now, those included that have a seat already.
    pub(super) fn offer(&self, room: usize) {
        self.state().offered = room;
    }

    /// Room for a mail that is about to be committed, where there is some.
    pub(super) fn seat(&self) -> Option<Seat> {
        let shared = self.exclusion.try_shared()?;
        let mut state = self.state();
        if !state.has_room() {
            return None;
        }
        state.seats += 1;
        drop(state);
        Some(Seat { handover: self.clone(), shared: Some(shared) })
    }

    /// The next mail that was handed over, where one waits.
    pub(super) fn try_next(&self) -> Option<Handed> {
        self.state().take()
    }

    /// Waits for the next mail that is handed over.
    pub(super) async fn next(&self) -> Handed {
        loop {
            let news = self.news.notified();
            if let Some(handed) = self.try_next() {
                return handed;
            }
            news.await;
        }
    }

    /// After the last offer: what still comes of seats that were given out; `None` once nothing
    /// can come any more.
    pub(super) async fn last(&self) -> Option<Handed> {
        self.offer(0);
        loop {
            let news = self.news.notified();
            if let Some(handed) = self.try_next() {
                return Some(handed);
            }
            if self.state().seats == 0 {
                return None;
            }
            news.await;
        }
    }
}

impl Seat {
    /// For a mail that is committed, and in hand.
    pub(super) fn take(mut self, claimed: Claimed) {
        if let Some(shared) = self.shared.take() {
            self.handover.state().waiting.push_back(Handed { claimed, shared });
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.handover.state().seats -= 1;
        self.handover.news.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use bytes::Bytes;

    use super::*;
    use crate::clock::Clock;
    use crate::mail::{Address, Attributes, Envelope, MailKey, MessageFacts, NewMail, NewMessage, ReversePath};
    use crate::store::{Intake, SqliteStore};

    async fn claimed(name: &str) -> Claimed {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open(&directory.path().join("t.db"), "test", &Clock::system()).expect("opens");
        let mail = NewMail {
            key: MailKey::parse(name).expect("a key"),
            name: name.to_owned(),
            envelope: Envelope::new(ReversePath::Null, vec![Address::parse("b@x.example").expect("an address")]),
            state: "relay".to_owned(),
            attributes: Attributes::default(),
            message: NewMessage::Whole(Bytes::from_static(b"x")),
            facts: MessageFacts::default(),
            client: None,
            import_digest: None,
        };
        let (take, taken) = channel();
        store
            .insert_in_hand(mail, Box::new(move |claimed| take.send(claimed).expect("taken")))
            .await
            .expect("inserted");
        taken.recv().expect("in hand")
    }

    #[tokio::test]
    async fn as_many_are_handed_over_as_there_is_room_for() {
        let handover = Handover::new(&Exclusion::default());
        assert!(handover.seat().is_none(), "nobody takes any yet");
        handover.offer(2);
        let (first, second) = (handover.seat().expect("room"), handover.seat().expect("room"));
        assert!(handover.seat().is_none());
        drop(first);
        let third = handover.seat().expect("what failed gives its room back");
        second.take(claimed("K2").await);
        assert!(handover.seat().is_none(), "it waits for the loop");
        handover.offer(2);
        assert!(handover.seat().is_none(), "and counts until the loop has it");
        assert_eq!(handover.next().await.claimed.mail.key.to_string(), "K2");
        handover.offer(2);
        drop(handover.seat().expect("room"));
        third.take(claimed("K3").await);
        assert_eq!(handover.last().await.expect("the last").claimed.mail.key.to_string(), "K3");
        assert!(handover.last().await.is_none() && handover.seat().is_none());
    }

    #[tokio::test]
    async fn what_failed_gives_back_no_room_that_is_no_longer_offered() {
        let handover = Handover::new(&Exclusion::default());
        handover.offer(2);
        let (first, second) = (handover.seat().expect("room"), handover.seat().expect("room"));
        handover.offer(0);
        drop(first);
        assert!(handover.seat().is_none(), "the loop pauses");
        let (last, ()) = tokio::join!(handover.last(), async { drop(second) });
        assert!(last.is_none() && handover.seat().is_none(), "nobody takes any more");
    }

    #[tokio::test]
    async fn nobody_has_a_seat_while_a_suspect_is_alone() {
        let exclusion = Exclusion::default();
        let handover = Handover::new(&exclusion);
        handover.offer(9);
        let mut hold = exclusion.exclusive();
        hold.begin().await;
        assert!(handover.seat().is_none());
        drop(hold);
        assert!(handover.seat().is_some());
    }
}
