//! The one loop that takes mail up: for a sweep, and for a service's spool.
//!
//! A [`Taker`] says which mails it wants, how many more it will have now, and what comes of
//! them. The loop is the same for all: mails that were in hand when a process died first,
//! alone; then the others, in steps that grow; then what is left of the first. Many are
//! active at once, and when the taker has had enough, the loop ends with the last of them.

use std::future::{pending, ready};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::active::Active;
use super::exclusion::{Exclusion, ExclusiveHold, SharedHold};
use super::handover::{Handed, Handover};
use super::incoming::KEPT;
use super::parked::{Parked, ParkedMails};
use super::{Passed, Spool, Tally};
use crate::pipeline::Verdict;
use crate::stop::Cancellation;
use crate::store::{Claimed, Error, Store, Wanted};

/// Mails of the first step; each further one is of twice as many. Local trouble that meets
/// every mail is mostly known at once, and is to meet few: at 500 a step 20 000 would be
/// claimed by then, and each left with an uncounted record.
const FIRST_STEP: usize = 8;

/// Mails in hand beside which new ones are handed over: what comes in beyond that rests until
/// there is room for it.
const HANDED_OVER: usize = 1000;

/// Mails in hand up to which messages are read ahead: of those beyond, most wait for long.
const READ_AHEAD: usize = 500;

/// Mails that are parked at most: some 100 octets each.
const PARKED: usize = 200_000;

/// Parked mails that are given back in one transaction.
const GIVEN_BACK: usize = 500;

/// How long a step waits for a pass to end, or to begin an attempt, before the next one is
/// taken: a dead peer is not to hold up the others.
const STEP: Duration = Duration::from_millis(50);

/// Why the loop is to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// There may be mail.
    Mail,
    /// It is time to look at everything: [`Taker::look_around`].
    Time,
    /// The taker may have had enough.
    Stop,
}

/// On whose behalf mail is taken up.
pub trait Taker: Send {
    /// What mails go through; asked for anew, since a reload may replace it.
    fn spool(&self) -> Arc<Spool>;

    /// Which mails. How many, and whether suspects, is set by the loop.
    fn wanted(&self) -> Wanted;

    /// The run that all of it is, which somebody may cancel; a service's spool is none.
    fn run(&self) -> Cancellation {
        Cancellation::default()
    }

    /// How many more mails may be taken now; 0 while it pauses.
    fn allowance(&self) -> usize;

    /// Whether suspects may be taken now.
    fn takes_suspects(&self) -> bool {
        true
    }

    /// Whether it has had enough; `exhausted` where there is no more mail that it wants.
    fn is_over(&self, exhausted: bool) -> bool;

    /// Where new mail is handed over to it, if anywhere.
    fn handover(&self) -> Option<Handover> {
        None
    }

    /// A mail as it is to enter the pipeline.
    fn prepared(&self, claimed: Claimed) -> Claimed {
        claimed
    }

    /// Whether it wants nothing attempted any more, of what was taken already either.
    fn has_given_up(&self) -> bool;

    /// So many mails were taken; `idle` where no mail is active after it.
    fn took(&mut self, mails: usize, idle: bool);

    /// A pass has ended; whether there may be more mail because of that.
    fn ended(&mut self, passed: &Passed) -> bool;

    /// The store could not say which mails there are, or give them.
    fn failed(&mut self, error: Error);

    /// No mail is waited for alone any more.
    fn suspects_are_through(&mut self) {}

    /// Waits for a reason to look again.
    fn news(&mut self) -> impl Future<Output = News> + Send;

    /// Looks at what nobody tells of.
    fn look_around(&mut self) -> impl Future<Output = ()> + Send {
        ready(())
    }
}

/// Takes up mail until `taker` has had enough, and returns when none is active any more.
pub async fn take_up(taker: &mut impl Taker, store: &dyn Store, exclusion: &Exclusion) {
    let mut taking = Taking::new(taker, store, exclusion);
    while !taking.is_over() {
        if let Err(error) = taking.take().await {
            taking.taker.failed(error);
        }
        taking.offer();
        taking.wait().await;
    }
    taking.take_last_handed_over().await;
    taking.end().await;
}

/// What is known of mails that were in hand when a process died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Suspects {
    /// There may be some: each is taken alone.
    Alone,
    /// Others have waited long enough: what is left is taken as any mail is.
    AsOthers,
    /// There are none.
    None,
}

struct Taking<'a, T> {
    taker: &'a mut T,
    store: &'a dyn Store,
    exclusion: &'a Exclusion,
    run: Cancellation,
    handover: Option<Handover>,
    active: Active,
    parked: ParkedMails,
    /// How many are claimed at once, as yet.
    step: usize,
    /// There may be mail to take.
    more: bool,
    suspects: Suspects,
}

impl<'a, T: Taker> Taking<'a, T> {
    fn new(taker: &'a mut T, store: &'a dyn Store, exclusion: &'a Exclusion) -> Self {
        Self {
            store,
            exclusion,
            handover: taker.handover(),
            active: Active::new(&taker.spool(), taker.run()),
            run: taker.run(),
            parked: ParkedMails::default(),
            step: FIRST_STEP,
            more: true,
            suspects: Suspects::Alone,
            taker,
        }
    }

    fn is_over(&self) -> bool {
        self.taker.is_over(!self.more && self.suspects == Suspects::None)
    }

    /// Says how many new mails may be handed over.
    fn offer(&self) {
        let Some(handover) = &self.handover else { return };
        let may_take = self.suspects == Suspects::None && self.taker.takes_suspects() && !self.is_over();
        handover.offer(if may_take { self.room().min(HANDED_OVER.saturating_sub(self.active.len())) } else { 0 });
    }

    /// Sets mails on their way that were handed over.
    fn take_handed_over(&mut self, first: Handed) {
        let spool = self.taker.spool();
        let (mut next, mut taken) = (Some(first), 0);
        while let Some(Handed { claimed, shared }) = next {
            self.active.take(&spool, self.taker.prepared(claimed), true, &shared);
            taken += 1;
            next = self.handover.as_ref().and_then(Handover::try_next);
        }
        self.taker.took(taken, false);
    }

    /// What was committed by the last who had a seat; it goes back to rest.
    async fn take_last_handed_over(&mut self) {
        let Some(handover) = self.handover.clone() else { return };
        while let Some(handed) = handover.last().await {
            self.take_handed_over(handed);
        }
    }

    /// How many may be claimed now.
    fn room(&self) -> usize {
        let parked = PARKED.saturating_sub(self.parked.len());
        self.taker.allowance().min(self.active.room(&self.taker.spool())).min(parked)
    }

    async fn take(&mut self) -> Result<(), Error> {
        self.examine_suspects().await?;
        if self.taker.takes_suspects() {
            self.take_parked().await?;
        }
        if self.more && self.may_take() {
            self.more = self.take_batch(false).await?;
        }
        while self.suspects == Suspects::AsOthers && self.may_take_suspects() {
            if !self.take_batch(true).await? {
                self.suspects = Suspects::None;
            }
        }
        Ok(())
    }

    fn may_take(&self) -> bool {
        self.room() > 0 && !self.is_over()
    }

    fn may_take_suspects(&self) -> bool {
        self.taker.takes_suspects() && self.may_take()
    }

    /// One at a time and nothing beside, since the one that kills processes is to be found.
    async fn examine_suspects(&mut self) -> Result<(), Error> {
        let mut hold = self.exclusion.exclusive();
        while self.suspects == Suspects::Alone && self.may_take_suspects() {
            self.examine_one(&mut hold).await?;
            if self.suspects != Suspects::Alone {
                self.taker.suspects_are_through();
            }
        }
        Ok(())
    }

    async fn examine_one(&mut self, hold: &mut ExclusiveHold) -> Result<(), Error> {
        let Some(claimed) = self.claim(1, true).await?.pop() else {
            self.suspects = Suspects::None;
            return Ok(());
        };
        self.taker.took(1, false);
        self.begin(hold).await;
        let claimed = self.taker.prepared(claimed);
        if let Some(passed) = self.active.examine(&self.taker.spool(), claimed).await {
            self.ended(&passed);
        }
        if hold.is_over() {
            self.suspects = Suspects::AsOthers;
        }
        Ok(())
    }

    /// Waits until nothing is beside a suspect, and takes meanwhile what was about to be handed
    /// over: it would be waited for.
    async fn begin(&mut self, hold: &mut ExclusiveHold) {
        let (handover, run) = (self.handover.clone(), self.run.clone());
        let mut begun = pin!(hold.begin());
        loop {
            tokio::select! {
                biased;
                () = run.asked() => return,
                () = &mut begun => return,
                handed = next_of(handover.as_ref()) => self.take_handed_over(handed),
            }
        }
    }

    /// Claims a batch and sets it to work; whether there may be more.
    async fn take_batch(&mut self, suspects: bool) -> Result<bool, Error> {
        let Some(shared) = self.shared().await else { return Ok(false) };
        let limit = self.room().min(self.step);
        let claimed = self.claim(limit, suspects).await?;
        let claimed = self.with_messages(claimed).await;
        let taken = claimed.len();
        let spool = self.taker.spool();
        for claimed in claimed {
            self.active.take(&spool, self.taker.prepared(claimed), true, &shared);
        }
        self.taker.took(taken, self.active.is_empty());
        if taken == limit {
            self.grow().await;
        }
        Ok(taken == limit)
    }

    /// The right to have mails in hand; none where the run is cancelled before.
    async fn shared(&self) -> Option<SharedHold> {
        tokio::select! {
            biased;
            () = self.run.asked() => None,
            shared = self.exclusion.shared() => Some(shared),
        }
    }

    /// The mails with their messages, the small ones: read for many at once, and kept in memory as
    /// those are that came in just now. What cannot be read is met when it is to be sent.
    async fn with_messages(&self, mut claimed: Vec<Claimed>) -> Vec<Claimed> {
        if self.active.len() + claimed.len() > READ_AHEAD {
            return claimed;
        }
        let mut small: Vec<_> =
            claimed.iter_mut().filter(|one| one.mail.facts.size <= KEPT as u64 && one.content.is_none()).collect();
        let messages: Vec<_> = small.iter().map(|one| one.mail.message).collect();
        let rows = self.store.first_rows(&messages).await.unwrap_or_default();
        for (claimed, row) in small.iter_mut().zip(rows) {
            claimed.content = row.filter(|row| row.len() as u64 == claimed.mail.facts.size);
        }
        claimed
    }

    /// The next step is of twice as many, a little later.
    async fn grow(&mut self) {
        if self.step >= self.room() {
            return;
        }
        self.step *= 2;
        if let Ok(Some(passed)) = timeout(STEP, self.active.next()).await {
            self.ended(&passed);
        }
    }

    /// Reads parked mails again before whose next hop few wait by now.
    async fn take_parked(&mut self) -> Result<(), Error> {
        let spool = self.taker.spool();
        let mut batches = self.parked.next(self.active.room_for_parked(&spool), |hop| spool.waiting_for(hop));
        while let Some((_, parked)) = batches.last() {
            let Some(shared) = self.shared().await else {
                self.put_back(batches);
                return Ok(());
            };
            let claims: Vec<_> = parked.iter().map(|one| one.claim.clone()).collect();
            match self.store.in_hand(&claims).await {
                // Who had to wait once does not have to again: else some would wait for ever.
                Ok(claimed) => {
                    for claimed in self.with_messages(claimed).await {
                        self.active.take(&spool, self.taker.prepared(claimed), false, &shared);
                    }
                }
                Err(error) => {
                    self.put_back(batches);
                    return Err(error);
                }
            }
            batches.pop();
        }
        Ok(())
    }

    fn put_back(&mut self, batches: Vec<(String, Vec<Parked>)>) {
        for (hop, parked) in batches {
            self.parked.put_back(hop, parked);
        }
    }

    /// Until nothing is in hand any more. No further mail is claimed.
    async fn end(&mut self) {
        while !self.active.is_empty() || self.parked.len() > 0 {
            if self.taker.has_given_up() {
                self.give_back_parked().await;
            } else if let Err(error) = self.take_parked().await {
                self.taker.failed(error);
            }
            tokio::select! {
                Some(passed) = self.active.next() => self.ended(&passed),
                // Those that are parked may have to wait though nothing is active.
                () = sleep(STEP) => {}
            }
            while let Some(passed) = self.active.try_next() {
                self.ended(&passed);
            }
        }
    }

    /// Lets parked mails rest again where they were.
    async fn give_back_parked(&mut self) {
        loop {
            let parked = self.parked.any(GIVEN_BACK);
            if parked.is_empty() {
                return;
            }
            let claims: Vec<_> = parked.iter().map(|one| one.claim.clone()).collect();
            if let Err(error) = self.store.release_all(&claims).await {
                // They are in hand until this process ends.
                self.taker.failed(error);
            }
            for one in parked {
                let tallies = vec![Tally { verdict: Verdict::Left, recipients: one.recipients }];
                self.taker.ended(&Passed { tallies, ..Passed::default() });
            }
        }
    }

    async fn claim(&self, limit: usize, suspects: bool) -> Result<Vec<Claimed>, Error> {
        self.store.claim(&Wanted { limit, suspects, ..self.taker.wanted() }).await
    }

    /// Waits until there may be something to take, or a pass has ended.
    async fn wait(&mut self) {
        if self.is_over() {
            return;
        }
        let more = self.more || (self.suspects == Suspects::AsOthers && self.taker.takes_suspects());
        let (may_take, is_full) = (more && self.room() > 0, more && self.active.room(&self.taker.spool()) == 0);
        tokio::select! {
            biased;
            news = self.taker.news() => self.heard(news).await,
            () = ready(()), if may_take => {}
            handed = next_of(self.handover.as_ref()) => self.take_handed_over(handed),
            Some(passed) = self.active.next() => self.ended(&passed),
            // Once an attempt has begun there is room for more.
            () = sleep(STEP), if is_full || self.parked.len() > 0 => {}
        }
        while let Some(passed) = self.active.try_next() {
            self.ended(&passed);
        }
    }

    async fn heard(&mut self, news: News) {
        match news {
            News::Mail => self.more = true,
            News::Time => {
                self.taker.look_around().await;
                (self.more, self.suspects) = (true, Suspects::Alone);
            }
            News::Stop => {}
        }
    }

    fn ended(&mut self, passed: &Passed) {
        if let Some(waits) = &passed.parked {
            return self.parked.park(waits.clone());
        }
        self.more |= self.taker.ended(passed);
    }
}

async fn next_of(handover: Option<&Handover>) -> Handed {
    match handover {
        Some(handover) => handover.next().await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::clock::Clock;
    use crate::delivery::{Attempted, Checkpoint, Request};
    use crate::pipeline::{Config, Deliver, Pipeline};
    use crate::spool::parked::Waits;
    use crate::store::{Claim, Place, SqliteStore};
    use crate::yaml::{Document, Reading};

    /// A next hop that others wait for; how often it was asked how many they are.
    #[derive(Default)]
    struct Busy {
        waiting: AtomicUsize,
        asked: AtomicUsize,
    }

    #[async_trait]
    impl Deliver for Arc<Busy> {
        async fn attempt(&self, _: Request, _: &dyn Checkpoint) -> Attempted {
            Attempted::Stopped
        }

        fn waiting_for(&self, _: &str) -> usize {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.waiting.load(Ordering::Relaxed)
        }
    }

    /// It has taken all that there is.
    struct Done(Arc<Spool>);

    impl Taker for Done {
        fn spool(&self) -> Arc<Spool> {
            Arc::clone(&self.0)
        }

        fn wanted(&self) -> Wanted {
            Wanted {
                from: Place::Spool,
                run: None,
                within: None,
                spacing: Vec::new(),
                limit: 1,
                suspects: false,
                only: None,
            }
        }

        fn allowance(&self) -> usize {
            0
        }

        fn is_over(&self, _: bool) -> bool {
            true
        }

        fn has_given_up(&self) -> bool {
            false
        }

        fn took(&mut self, _: usize, _: bool) {}

        fn ended(&mut self, _: &Passed) -> bool {
            false
        }

        fn failed(&mut self, error: Error) {
            panic!("{error}");
        }

        async fn news(&mut self) -> News {
            pending().await
        }
    }

    fn spool(store: &Arc<dyn Store>, hop: &Arc<Busy>) -> Arc<Spool> {
        let rules = b"relay: [{mailet: RemoteDelivery, bounceProcessor: kept}]\n\
            kept: [{mailet: ToRepository, repositoryPath: x}]";
        let document = Document::parse(Path::new("f"), rules).expect("YAML");
        let reading = Reading::new(Path::new("f"));
        let config = Config::read(document.root(), &["sqlite".to_owned()].into(), "relay", &reading);
        let pipeline = Pipeline::new(config, |_| Ok(Arc::new(Arc::clone(hop)))).expect("a pipeline");
        Spool::of_test(Arc::clone(store), pipeline)
    }

    /// While the last mails of a sweep are parked, others may have all places at their next hop.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_end_waits_for_a_busy_next_hop_and_does_not_spin() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open(&directory.path().join("t.db"), "test", &Clock::system()).expect("opens");
        let (store, hop): (Arc<dyn Store>, _) = (Arc::new(store), Arc::<Busy>::default());
        hop.waiting.store(1000, Ordering::Relaxed);
        let spool = spool(&store, &hop);
        let end = tokio::spawn(async move {
            let (mut taker, exclusion) = (Done(spool), Exclusion::default());
            let mut taking = Taking::new(&mut taker, &*store, &exclusion);
            let (claim, next_hop) = (Claim::of_test("K"), "x.example".to_owned());
            taking.parked.park(Waits { claim, next_hop, recipients: 1 });
            taking.end().await;
        });
        sleep(STEP * 10).await;
        let times = hop.asked.load(Ordering::Relaxed);
        assert!((1..=20).contains(&times), "it looked {times} times within ten steps");
        hop.waiting.store(0, Ordering::Relaxed);
        timeout(Duration::from_secs(10), end).await.expect("it ends").expect("no panic");
    }
}
