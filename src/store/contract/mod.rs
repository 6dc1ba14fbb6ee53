//! What every backend must do, as tests that a backend is put through.
//!
//! A backend calls [`store_contract!`] with a function that opens it at a directory. Each
//! test opens the store anew as often as it needs "another process": a store that is
//! dropped without `close` is one that died.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta};

use super::*;
use crate::clock::Clock;
use crate::mail::{
    Address, AttributeValue, Attributes, DialogueEntry, Envelope, Mail, MailKey, MessageFacts, NewMail, NewMessage,
    Outcome, Planned, Recorded, ReversePath, Side, Stage, attribute,
};

/// Opens the backend under test at a directory, with this time.
pub(super) type Open = fn(&Path, &Clock) -> Arc<dyn Store>;

/// A time that a test sets, in seconds.
#[derive(Clone, Default)]
pub(super) struct TestClock(Arc<AtomicI64>);

impl TestClock {
    fn clock(&self) -> Clock {
        let seconds = Arc::clone(&self.0);
        Clock::scripted(move || at(seconds.load(Ordering::Relaxed)))
    }
}

/// Where a test plays: a directory, and the time there.
pub(super) struct Scene {
    pub(super) open: Open,
    pub(super) directory: PathBuf,
    pub(super) clock: TestClock,
}

impl Scene {
    /// Another process opens the store.
    fn open(&self) -> Opened {
        self.open_with(&self.clock)
    }

    /// Another process, with a clock of its own.
    fn open_with(&self, clock: &TestClock) -> Opened {
        Opened { store: (self.open)(&self.directory, &clock.clock()), clock: clock.clone() }
    }

    /// Another store.
    fn open_at(&self, directory: &Path) -> Opened {
        Opened { store: (self.open)(directory, &self.clock.clock()), clock: self.clock.clone() }
    }
}

/// A process that has the store open.
#[derive(Clone)]
struct Opened {
    store: Arc<dyn Store>,
    clock: TestClock,
}

impl Deref for Opened {
    type Target = dyn Store;
    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}

impl Opened {
    /// It is so late.
    fn at(&self, seconds: i64) -> &Self {
        self.clock.0.store(seconds, Ordering::Relaxed);
        self
    }

    /// Does something to one mail, as an operation of its own.
    async fn act_within(&self, place: &Place, key: &MailKey, act: Act, within: Option<Horizon>) -> Result<()> {
        let operation = self.begin_operation(&NewOperation::default()).await?;
        let batch = Batch { operation, place: place.clone(), act, keys: vec![key.clone()], within };
        match self.act(&batch).await?.remove(0) {
            Acted::Done => Ok(()),
            Acted::InHand => Err(Error::InHand(key.clone())),
            Acted::Gone => Err(Error::NoSuchMail(key.clone())),
            Acted::Unreadable(why) => Err(Error::Unreadable(key.clone(), why)),
        }
    }

    async fn respool(&self, place: &Place, key: &MailKey, how: &Respool) -> Result<()> {
        self.act_within(place, key, Act::Respool(how.clone()), None).await
    }

    async fn move_to(&self, place: &Place, key: &MailKey, to: &RepositoryPath) -> Result<()> {
        self.act_within(place, key, Act::Move(to.clone()), None).await
    }

    async fn remove(&self, place: &Place, key: &MailKey) -> Result<()> {
        self.act_within(place, key, Act::Remove, None).await
    }
}

/// Puts a backend through every test of the contract.
macro_rules! store_contract {
    ($open:expr) => {
        store_contract! { $open;
            what_was_inserted_is_claimed_settled_and_gone
            a_message_written_ahead_is_read_back_octet_for_octet
            a_split_loses_no_recipient_and_stores_the_message_once
            two_claims_never_give_one_mail
            a_mail_put_back_waits_for_the_next_run
            a_run_whose_end_is_not_on_record_keeps_nothing_from_the_next
            spacing_decides_when_a_mail_is_due
            each_part_of_a_split_waits_for_its_time
            after_a_clock_was_set_back_a_mail_is_due_one_spacing_later
            a_process_whose_clock_is_behind_takes_nothing_before_its_time
            a_dead_process_gives_back_what_is_not_known
            recorded_outcomes_survive_their_process
            what_is_in_doubt_is_told_by_the_record_and_no_text
            who_ends_in_order_leaves_nothing_in_hand
            a_lost_claim_is_refused
            a_mail_alone_in_hand_at_a_death_is_counted
            a_mail_given_up_by_a_living_process_is_counted_too
            who_only_waited_at_a_death_is_no_suspect
            runs_that_are_over_go_after_their_time
            an_uncounted_pass_leaves_the_counters
            a_mail_in_hand_is_neither_moved_nor_removed
            reprocessing_counts_and_resets
            attempts_outlive_their_mail_for_the_retention_time
            a_long_dialogue_is_cut_with_a_mark
            pages_are_filtered_and_in_order
            what_comes_to_rest_stands_behind_the_newest
            an_import_is_taken_once
            runs_are_recorded
            the_last_outcome_of_each_recipient_is_found_over_splits
            old_mails_are_purged_in_steps_unless_in_hand
            a_report_goes_on_where_the_last_one_ended
            a_backup_holds_everything_and_is_a_store
        }
    };
    ($open:expr; $($test:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let scene = $crate::store::contract::Scene {
                open: $open,
                directory: directory.path().to_owned(),
                clock: $crate::store::contract::TestClock::default(),
            };
            $crate::store::contract::$test(&scene).await;
        }
    )*};
}
pub(super) use store_contract;

fn at(seconds: i64) -> Time {
    DateTime::from_timestamp(1_700_000_000 + seconds, 0).expect("in range")
}

fn address(text: &str) -> Address {
    Address::parse(text).expect("an address")
}

fn key(text: &str) -> MailKey {
    MailKey::parse(text).expect("a key")
}

fn temporary() -> RepositoryPath {
    RepositoryPath::parse("var/mail/error/remote-delivery/temporary").expect("a path")
}

fn new_mail(name: &str, recipients: &[&str]) -> NewMail {
    NewMail {
        key: key(name),
        name: name.to_owned(),
        envelope: Envelope::new(
            ReversePath::parse("a@sender.example").expect("an address"),
            recipients.iter().map(|r| address(r)).collect(),
        ),
        client: None,
        state: "relay".to_owned(),
        attributes: Attributes::default(),
        message: NewMessage::Whole(Bytes::from_static(b"Subject: x\r\n\r\nbody\r\n")),
        facts: MessageFacts { size: 20, ..MessageFacts::default() },
        import_digest: None,
    }
}

fn wanted(from: Place, run: Option<RunId>) -> Wanted {
    Wanted { from, run, within: None, spacing: Vec::new(), limit: 100, suspects: false, only: None }
}

fn recorded(recipient: &str, outcome: Outcome) -> Recorded {
    Recorded::without_contact(address(recipient), outcome, Stage::Rcpt, "as scripted".to_owned(), at(5))
}

/// That an attempt is with one host of this next hop.
fn planned(next_hop: &str, recipient: &str) -> Planned {
    Planned {
        next_hop: next_hop.to_owned(),
        recipients: vec![address(recipient)],
        host: format!("mx.{next_hop}"),
        address: "192.0.2.1:25".parse().expect("an address"),
        others: 0,
    }
}

async fn insert(store: &Opened, name: &str, recipients: &[&str]) {
    store.at(0).insert(new_mail(name, recipients)).await.expect("inserted");
}

async fn claim_one(store: &Opened, from: Place) -> Claimed {
    let mut claimed = store.at(1).claim(&wanted(from, None)).await.expect("claimed");
    assert_eq!(claimed.len(), 1);
    claimed.remove(0)
}

/// Settles the whole mail into `temporary`.
async fn defer(store: &Opened, claimed: &Claimed, attempt: Option<AttemptId>, now: i64) {
    let parts = vec![Resting { mail: claimed.mail.clone(), place: Some(temporary()) }];
    let settlement = Settlement { parts, attempt, counted: attempt.is_some(), ..Settlement::default() };
    store.at(now).settle(&claimed.claim, &settlement).await.expect("settled");
}

/// One counted pass that ends in `temporary`.
async fn pass(store: &Opened, claimed: &Claimed, now: i64) {
    let attempt = store.at(now).begin_attempt(&claimed.claim, &claimed.mail.attributes, &[]).await.expect("begun");
    defer(store, claimed, Some(attempt), now).await;
}

pub(super) async fn what_was_inserted_is_claimed_settled_and_gone(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example"]).await;
    assert_eq!(store.size(&Place::Spool).await.expect("size"), 1);
    let claimed = claim_one(&store, Place::Spool).await;
    assert_eq!(claimed.mail.envelope.recipients, [address("b@x.example")]);
    assert_eq!(store.content(claimed.mail.message, 0).await.expect("read"), b"Subject: x\r\n\r\nbody\r\n"[..]);
    store.at(2).settle(&claimed.claim, &Settlement::default()).await.expect("settled");
    assert_eq!(store.size(&Place::Spool).await.expect("size"), 0);
    assert!(store.content(claimed.mail.message, 0).await.is_err(), "the message went with its mail");
}

pub(super) async fn a_message_written_ahead_is_read_back_octet_for_octet(scene: &Scene) {
    let store = scene.open();
    let rows: Vec<Vec<u8>> = (0..20_u8).map(|n| vec![n; crate::mail::CHUNK_BYTES]).collect();
    let mut message = None;
    for (number, row) in rows.iter().enumerate() {
        let number = u32::try_from(number).expect("small");
        message = Some(store.at(0).write_chunk(message, number, Bytes::from(row.clone())).await.expect("written"));
    }
    let message = message.expect("a message");
    let mail = NewMail { message: NewMessage::Written(message), ..new_mail("K1", &["b@x.example"]) };
    store.at(0).insert(mail).await.expect("inserted");
    let mut read = Vec::new();
    for number in 0.. {
        let row = store.content(message, number).await.expect("read");
        if row.is_empty() {
            break;
        }
        read.extend(row);
    }
    assert!(read == rows.concat());
    // A large message is deleted in steps; none of it stays.
    let claimed = claim_one(&store, Place::Spool).await;
    store.at(2).settle(&claimed.claim, &Settlement::default()).await.expect("settled");
    while store.tidy().await.expect("tidied") {}
    assert!(store.content(message, 19).await.is_err());
}

pub(super) async fn a_split_loses_no_recipient_and_stores_the_message_once(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example", "c@x.example", "d@x.example", "e@x.example"]).await;
    let claimed = claim_one(&store, Place::Spool).await;
    let attempt = store.at(2).begin_attempt(&claimed.claim, &claimed.mail.attributes, &[]).await.expect("begun");
    let outcomes = [
        recorded("b@x.example", Outcome::Delivered),
        recorded("c@x.example", Outcome::Deferred),
        recorded("d@x.example", Outcome::Failed),
    ];
    store.record(&claimed.claim, attempt, &outcomes, &[], 1000).await.expect("recorded");
    let set = ReversePath::parse("set@x.example").expect("an address");
    let part = |name: &str, recipient: &str, place: &str| {
        let mut mail = claimed.mail.clone();
        mail.key = key(name);
        mail.envelope.recipients = vec![address(recipient)];
        mail.envelope.reverse_path = set.clone();
        Resting { mail, place: Some(RepositoryPath::parse(place).expect("a path")) }
    };
    let parts = vec![part("K1", "c@x.example", "t"), part("K2", "d@x.example", "p"), part("K3", "e@x.example", "p")];
    let settlement = Settlement { parts, attempt: Some(attempt), counted: true, ..Settlement::default() };
    store.at(3).settle(&claimed.claim, &settlement).await.expect("settled");

    let find = |place: &str, name: &str| {
        let place = Place::Repository(RepositoryPath::parse(place).expect("a path"));
        let (store, name) = (store.clone(), key(name));
        async move { store.find(&place, &name).await.expect("found").mail }
    };
    let (deferred, failed) = (find("t", "K1").await, find("p", "K2").await);
    assert_eq!((failed.origin.clone(), deferred.message), (Some(key("K1")), failed.message));
    for (mail, recipient) in [(&deferred, "c@x.example"), (&failed, "d@x.example")] {
        let attempts = store.attempts_of(mail).await.expect("attempts");
        let seen: Vec<_> = attempts.iter().flat_map(|a| &a.recipients).map(|r| r.recipient.to_string()).collect();
        assert_eq!(seen, [recipient], "an attempt is stored once and shown for the recipients that the mail has");
    }
    let untried = find("p", "K3").await;
    for mail in [&deferred, &failed, &untried] {
        assert_eq!(mail.envelope.reverse_path, set, "as a rule has set it");
    }
    assert!(store.attempts_of(&untried).await.expect("attempts").is_empty(), "nobody was tried for e@x.example");
    store
        .at(4)
        .remove(&Place::Repository(RepositoryPath::parse("t").expect("a path")), &key("K1"))
        .await
        .expect("removed");
    assert!(!store.content(failed.message, 0).await.expect("read").is_empty(), "the other part still has the message");
    assert_eq!(store.attempts_of(&failed).await.expect("attempts").len(), 1, "and the record");
}

pub(super) async fn two_claims_never_give_one_mail(scene: &Scene) {
    let (one, other) = (scene.open(), scene.open());
    for n in 0..50 {
        insert(&one, &format!("K{n}"), &["b@x.example"]).await;
    }
    let mut taken = Vec::new();
    for _ in 0..6 {
        let few = Wanted { limit: 5, ..wanted(Place::Spool, None) };
        let (a, b) = tokio::join!(one.at(1).claim(&few), other.at(1).claim(&few));
        taken.extend(a.expect("claimed").into_iter().chain(b.expect("claimed")).map(|c| c.mail.key));
    }
    assert_eq!(taken.len(), 50);
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), 50);
}

pub(super) async fn a_mail_put_back_waits_for_the_next_run(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example"]).await;
    let claimed = claim_one(&store, Place::Spool).await;
    defer(&store, &claimed, None, 2).await;
    let from = Place::Repository(temporary());
    let (first, upto) = store.at(3).start_run("retry-temporary", "command").await.expect("started");
    let of = |run, within: &Horizon| Wanted { within: Some(within.clone()), ..wanted(from.clone(), Some(run)) };
    let claimed = store.at(3).claim(&of(first, &upto)).await.expect("claimed").remove(0);
    pass(&store, &claimed, 4).await;
    assert!(store.at(5).claim(&of(first, &upto)).await.expect("claimed").is_empty(), "once in a run");
    let other = scene.open();
    let (second, later) = other.at(5).start_run("retry-temporary", "command").await.expect("started");
    assert!(store.at(5).claim(&of(second, &later)).await.expect("claimed").is_empty(), "while the first is going");
    store.at(6).finish_run(first, Counts::default(), None).await.expect("finished");
    assert_eq!(store.at(6).claim(&of(second, &later)).await.expect("claimed").len(), 1);
}

pub(super) async fn a_run_whose_end_is_not_on_record_keeps_nothing_from_the_next(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example"]).await;
    defer(&store, &claim_one(&store, Place::Spool).await, None, 2).await;
    let (lost, upto) = store.at(3).start_run("j", "schedule").await.expect("started");
    let of = |run, within| Wanted { within: Some(within), ..wanted(Place::Repository(temporary()), Some(run)) };
    let claimed = store.at(3).claim(&of(lost, upto)).await.expect("claimed").remove(0);
    pass(&store, &claimed, 4).await;
    let (next, upto) = store.at(5).start_run("j", "schedule").await.expect("started");
    assert_eq!(store.at(5).claim(&of(next, upto)).await.expect("claimed").len(), 1);
    let runs = store.runs(Some("j"), 9).await.expect("runs");
    assert_eq!((runs[1].finished, runs[1].counts.selected), (Some(at(5)), 1));
    assert_eq!(runs[1].failure.as_deref(), Some("its end could not be noted"));
    assert_eq!(runs[0].finished, None);
}

pub(super) async fn each_part_of_a_split_waits_for_its_time(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example", "c@x.example"]).await;
    let claimed = claim_one(&store, Place::Spool).await;
    let attempt = store.at(2).begin_attempt(&claimed.claim, &claimed.mail.attributes, &[]).await.expect("begun");
    let part = |name: &str, recipient: &str| {
        let mut mail = claimed.mail.clone();
        (mail.key, mail.envelope.recipients) = (key(name), vec![address(recipient)]);
        Resting { mail, place: Some(temporary()) }
    };
    let parts = vec![part("K1", "b@x.example"), part("K2", "c@x.example")];
    let settlement = Settlement { parts, attempt: Some(attempt), counted: true, ..Settlement::default() };
    store.at(3).settle(&claimed.claim, &settlement).await.expect("settled");
    let spaced = Wanted { spacing: vec![Duration::from_mins(15)], ..wanted(Place::Repository(temporary()), None) };
    assert_eq!(store.at(3 + 899).claim(&spaced).await.expect("claimed").len(), 0);
    assert_eq!(store.at(3 + 900).claim(&spaced).await.expect("claimed").len(), 2);
}

pub(super) async fn who_ends_in_order_leaves_nothing_in_hand(scene: &Scene) {
    let ending = scene.open();
    insert(&ending, "K1", &["b@x.example"]).await;
    let claimed = claim_one(&ending, Place::Spool).await;
    let plan = [planned("x.example", "b@x.example")];
    ending.at(2).begin_attempt(&claimed.claim, &claimed.mail.attributes, &plan).await.expect("begun");
    ending.at(2).start_run("j", "command").await.expect("started");
    // What could not be written, to the peer's answer and the run's end, is not known.
    ending.at(3).close().await.expect("closed");
    drop(ending);
    let store = scene.open();
    let reaped = store.at(4).reap().await.expect("reaped");
    assert_eq!(reaped, Reaped { instances: 1, mails: 1, in_doubt: 1 });
    assert_eq!(store.runs(None, 9).await.expect("runs")[0].finished, Some(at(4)));

    let ending = scene.open();
    ending.at(5).write_chunk(None, 0, Bytes::from_static(b"half")).await.expect("written");
    ending.at(5).close().await.expect("closed");
    drop(ending);
    assert_eq!(store.at(6).reap().await.expect("reaped").instances, 1);
    assert!(store.tidy().await.expect("tidied"), "what was written ahead goes");

    let ending = scene.open();
    insert(&ending, "K2", &["b@x.example"]).await;
    let claimed = ending.at(7).claim(&wanted(Place::Spool, None)).await.expect("claimed");
    for one in claimed {
        ending.release(&one.claim).await.expect("released");
    }
    ending.at(7).close().await.expect("closed");
    drop(ending);
    assert_eq!(store.at(8).reap().await.expect("reaped"), Reaped::default(), "who has nothing is over at once");
}

pub(super) async fn what_comes_to_rest_stands_behind_the_newest(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example"]).await;
    let within = Some(store.horizon().await.expect("a horizon"));
    insert(&store, "K2", &["b@x.example"]).await;
    let mut pages = Pages::new(&*store, Place::Spool, MailFilter { within, ..MailFilter::default() });
    let page = pages.next().await.expect("read").expect("a page");
    assert_eq!(page.iter().map(|listed| listed.mail.key.to_string()).collect::<Vec<_>>(), ["K1"]);
    assert!(pages.next().await.expect("read").is_none());
}

pub(super) async fn spacing_decides_when_a_mail_is_due(scene: &Scene) {
    let store = scene.open();
    let from = Place::Repository(temporary());
    let spacing = vec![Duration::from_mins(15), Duration::from_hours(1)];
    let spaced = Wanted { spacing, ..wanted(from.clone(), None) };
    insert(&store, "K1", &["b@x.example"]).await;
    let mut claimed = claim_one(&store, Place::Spool).await;
    let mut last = 10;
    for gap in [900, 3600, 3600] {
        pass(&store, &claimed, last).await;
        assert!(store.at(last + gap - 1).claim(&spaced).await.expect("claimed").is_empty(), "not before {gap} s");
        last += gap;
        claimed = store.at(last).claim(&spaced).await.expect("claimed").pop().expect("due");
    }
}

pub(super) async fn after_a_clock_was_set_back_a_mail_is_due_one_spacing_later(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example"]).await;
    let claimed = claim_one(&store, Place::Spool).await;
    pass(&store, &claimed, 1_000_000).await;
    let spaced = Wanted { spacing: vec![Duration::from_mins(15)], ..wanted(Place::Repository(temporary()), None) };
    // First seen at 100: neither at once, nor when that time comes.
    for (seconds, due) in [(100, 0), (100 + 899, 0), (100 + 900, 1)] {
        assert_eq!(store.at(seconds).claim(&spaced).await.expect("claimed").len(), due, "{seconds}");
    }
}

pub(super) async fn a_process_whose_clock_is_behind_takes_nothing_before_its_time(scene: &Scene) {
    let (ahead, behind) = (scene.open(), scene.open_with(&TestClock::default()));
    insert(&ahead, "K1", &["b@x.example"]).await;
    let claimed = claim_one(&ahead, Place::Spool).await;
    pass(&ahead, &claimed, 600).await;
    let spaced = Wanted { spacing: vec![Duration::from_mins(15)], ..wanted(Place::Repository(temporary()), None) };
    for sweep in 0..15 {
        let taken = behind.at(60 * sweep).claim(&spaced).await.expect("claimed");
        assert!(taken.is_empty(), "at each of its sweeps it would use up a pass");
    }
    assert_eq!(behind.at(900).claim(&spaced).await.expect("claimed").len(), 1);
}

pub(super) async fn a_dead_process_gives_back_what_is_not_known(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example", "c@x.example", "d@x.example", "e@x.example"]).await;
    let dying = scene.open();
    let claimed = claim_one(&dying, Place::Spool).await;
    let mut attributes = claimed.mail.attributes.clone();
    attributes.increment(attribute::AT_MOST_EXECUTIONS);
    let first = [planned("x.example", "b@x.example")];
    let attempt = dying.at(2).begin_attempt(&claimed.claim, &attributes, &first).await.expect("begun");
    let second = [planned("gateway.example", "c@x.example")];
    dying.extend_attempt(&claimed.claim, attempt, &attributes, &second).await.expect("a second part");
    let outcomes = [recorded("b@x.example", Outcome::Delivered), recorded("d@x.example", Outcome::Failed)];
    dying.record(&claimed.claim, attempt, &outcomes, &[], 1000).await.expect("recorded");
    assert_eq!(store.at(3).reap().await.expect("reaped"), Reaped::default(), "it lives");
    drop(dying);
    let reaped = store.at(4).reap().await.expect("reaped");
    assert_eq!(reaped, Reaped { instances: 1, mails: 1, in_doubt: 1 });
    let suspects = Wanted { suspects: true, ..wanted(Place::Spool, None) };
    let again = store.at(5).claim(&suspects).await.expect("claimed").remove(0);
    assert_eq!(
        again.mail.envelope.recipients,
        [address("c@x.example"), address("d@x.example"), address("e@x.example")]
    );
    assert_eq!(again.mail.recorded.iter().map(|r| r.recipient.to_string()).collect::<Vec<_>>(), ["d@x.example"]);
    assert_eq!(again.mail.passes(), 1, "what was begun stays counted");
    let attempts = store.attempts_of(&again.mail).await.expect("attempts");
    assert_eq!((attempts[0].state, attempts[0].counted), (crate::mail::AttemptState::InDoubt, true));
    let doubtful = attempts[0].recipients.iter().find(|r| r.recipient == address("c@x.example")).expect("recorded");
    assert!(doubtful.in_doubt, "{doubtful:?}");
    let untried = attempts[0].recipients.iter().find(|r| r.recipient == address("e@x.example")).expect("recorded");
    assert!(!untried.in_doubt && untried.next_hop.is_none(), "nobody was to be contacted for it: {untried:?}");
    assert_eq!(doubtful.next_hop.as_deref(), Some("gateway.example"));
    assert_eq!((doubtful.host.as_deref(), doubtful.port), (Some("mx.gateway.example"), Some(25)));
}

pub(super) async fn recorded_outcomes_survive_their_process(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example"]).await;
    let dying = scene.open();
    let claimed = claim_one(&dying, Place::Spool).await;
    let attempt = dying.at(2).begin_attempt(&claimed.claim, &claimed.mail.attributes, &[]).await.expect("begun");
    dying
        .record(&claimed.claim, attempt, &[recorded("b@x.example", Outcome::Delivered)], &[], 1000)
        .await
        .expect("recorded");
    drop(dying);
    store.at(3).reap().await.expect("reaped");
    assert_eq!(store.size(&Place::Spool).await.expect("size"), 0, "nobody is owed anything");
    let all = store.attempts(&AttemptFilter::default(), &Span::of(10)).await.expect("attempts").items;
    assert_eq!(all[0].state, crate::mail::AttemptState::Settled);
}

pub(super) async fn what_is_in_doubt_is_told_by_the_record_and_no_text(scene: &Scene) {
    let store = scene.open();
    for (name, in_doubt, cause, state) in [
        ("K1", true, "however it is said", crate::mail::AttemptState::InDoubt),
        ("K2", false, "in doubt: as a peer might say", crate::mail::AttemptState::Settled),
    ] {
        insert(&store, name, &["b@x.example"]).await;
        let claimed = claim_one(&store, Place::Spool).await;
        let attempt = store.at(2).begin_attempt(&claimed.claim, &claimed.mail.attributes, &[]).await.expect("begun");
        let outcome =
            Recorded { in_doubt, cause: Some(cause.to_owned()), ..recorded("b@x.example", Outcome::Deferred) };
        store.record(&claimed.claim, attempt, &[outcome], &[], 1000).await.expect("recorded");
        defer(&store, &claimed, Some(attempt), 3).await;
        let attempts = store.attempts_of(&claimed.mail).await.expect("attempts");
        assert_eq!((attempts[0].state, attempts[0].recipients[0].in_doubt), (state, in_doubt), "{cause}");
    }
}

pub(super) async fn a_lost_claim_is_refused(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example"]).await;
    let claimed = claim_one(&store, Place::Spool).await;
    store.release(&claimed.claim).await.expect("released");
    let again = claim_one(&store, Place::Spool).await;
    let lost = |result: Result<()>| matches!(result, Err(Error::ClaimLost(_)));
    assert!(lost(store.at(3).settle(&claimed.claim, &Settlement::default()).await));
    assert!(lost(store.release(&claimed.claim).await));
    assert!(lost(store.at(3).begin_attempt(&claimed.claim, &Attributes::default(), &[]).await.map(drop)));
    assert!(lost(store.record(&claimed.claim, AttemptId(1), &[], &[], 10).await));
    store.at(4).settle(&again.claim, &Settlement::default()).await.expect("settled");
}

pub(super) async fn a_mail_alone_in_hand_at_a_death_is_counted(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example"]).await;
    insert(&store, "K2", &["b@x.example"]).await;
    let suspects = Wanted { suspects: true, limit: 1, ..wanted(Place::Spool, None) };
    let dying = scene.open();
    assert_eq!(dying.at(1).claim(&wanted(Place::Spool, None)).await.expect("claimed").len(), 2);
    drop(dying);
    for deaths in 0..3 {
        let dying = scene.open();
        let claimed = dying.at(2).claim(&suspects).await.expect("claimed").remove(0);
        assert_eq!((claimed.mail.key.as_str(), claimed.deaths_alone), ("K1", deaths));
        drop(dying);
    }
    let claimed = store.at(3).claim(&suspects).await.expect("claimed").remove(0);
    assert_eq!(claimed.deaths_alone, 3);
    assert!(store.at(3).claim(&wanted(Place::Spool, None)).await.expect("claimed").is_empty(), "K2 is a suspect");
}

pub(super) async fn a_mail_given_up_by_a_living_process_is_counted_too(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example"]).await;
    let first = claim_one(&store, Place::Spool).await;
    store.at(2).abandon(&first.claim).await.expect("given up");
    let suspects = Wanted { suspects: true, ..wanted(Place::Spool, None) };
    let again = store.at(3).claim(&suspects).await.expect("claimed").remove(0);
    assert_eq!(again.deaths_alone, 1);
}

pub(super) async fn who_only_waited_at_a_death_is_no_suspect(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example"]).await;
    insert(&store, "K2", &["b@x.example"]).await;
    let dying = scene.open();
    let held = dying.at(1).claim(&wanted(Place::Spool, None)).await.expect("claimed");
    dying.at(2).begin_attempt(&held[1].claim, &held[1].mail.attributes, &[]).await.expect("begun");
    drop(dying);
    for (suspects, name) in [(true, "K2"), (false, "K1")] {
        let wanted = Wanted { suspects, ..wanted(Place::Spool, None) };
        let keys: Vec<_> = store.at(3).claim(&wanted).await.expect("claimed").into_iter().map(|c| c.mail.key).collect();
        assert_eq!(keys.iter().map(MailKey::as_str).collect::<Vec<_>>(), [name]);
    }
}

pub(super) async fn runs_that_are_over_go_after_their_time(scene: &Scene) {
    let store = scene.open();
    let (going, _) = store.at(1).start_run("long", "command").await.expect("started");
    for time in [2, 3, 4] {
        let (run, _) = store.at(time).start_run("short", "command").await.expect("started");
        store.at(time).finish_run(run, Counts::default(), None).await.expect("finished");
    }
    let mut purged = Vec::new();
    while purged.last() != Some(&0) {
        purged.push(store.at(9).purge_records(Duration::from_secs(5), 2).await.expect("purged"));
    }
    assert_eq!(purged, [1, 1, 0], "two are looked at in one step");
    let left = store.runs(None, 9).await.expect("listed");
    assert_eq!(left.iter().map(|run| run.job.as_str()).collect::<Vec<_>>(), ["short", "long"]);
    assert!(left.iter().any(|run| run.id == going));
}

pub(super) async fn an_uncounted_pass_leaves_the_counters(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example"]).await;
    let claimed = claim_one(&store, Place::Spool).await;
    let mut counted = claimed.mail.attributes.clone();
    counted.increment(attribute::AT_MOST_EXECUTIONS);
    let attempt = store.at(2).begin_attempt(&claimed.claim, &counted, &[]).await.expect("begun");
    let parts = vec![Resting { mail: claimed.mail.clone(), place: None }];
    let outcomes = vec![recorded("b@x.example", Outcome::Deferred)];
    let settlement = Settlement { parts, attempt: Some(attempt), counted: false, outcomes, ..Settlement::default() };
    store.at(3).settle(&claimed.claim, &settlement).await.expect("settled");
    let again = claim_one(&store, Place::Spool).await;
    assert_eq!(again.mail.passes(), 0);
    let attempts = store.attempts_of(&again.mail).await.expect("attempts");
    assert_eq!((attempts.len(), attempts[0].counted, attempts[0].recipients.len()), (1, false, 1));
}

pub(super) async fn a_mail_in_hand_is_neither_moved_nor_removed(scene: &Scene) {
    let store = scene.open();
    store.at(0).ensure_repositories(&[temporary()]).await.expect("made");
    insert(&store, "K1", &["b@x.example"]).await;
    let _claimed = claim_one(&store, Place::Spool).await;
    let in_hand = |result: Result<()>| matches!(result, Err(Error::InHand(_)));
    let relay = Respool { processor: "relay".to_owned(), ..Respool::default() };
    assert!(in_hand(store.at(2).remove(&Place::Spool, &key("K1")).await));
    assert!(in_hand(store.at(2).move_to(&Place::Spool, &key("K1"), &temporary()).await));
    assert!(in_hand(store.at(2).respool(&Place::Spool, &key("K1"), &relay).await));
    let unknown = store.at(2).remove(&Place::Spool, &key("K9")).await;
    assert!(matches!(unknown, Err(Error::NoSuchMail(_))));
}

pub(super) async fn reprocessing_counts_and_resets(scene: &Scene) {
    let store = scene.open();
    let early = store.horizon().await.expect("a horizon");
    let mut mail = new_mail("K1", &["b@x.example"]);
    mail.attributes.set(attribute::AT_MOST_EXECUTIONS, AttributeValue::Integer(8));
    store.at(0).insert(mail).await.expect("inserted");
    let claimed = claim_one(&store, Place::Spool).await;
    defer(&store, &claimed, None, 2).await;
    let place = Place::Repository(temporary());
    let relay = Respool { processor: "relay".to_owned(), ..Respool::default() };
    let late = store.at(3).act_within(&place, &key("K1"), Act::Respool(relay.clone()), Some(early)).await;
    assert!(matches!(late, Err(Error::NoSuchMail(_))), "it came to rest after that");
    store.at(3).respool(&place, &key("K1"), &relay).await.expect("respooled");
    let kept = store.find(&Place::Spool, &key("K1")).await.expect("found").mail;
    assert_eq!(kept.passes(), 8);
    let reset = vec![attribute::AT_MOST_EXECUTIONS.to_owned()];
    let again = Respool { processor: "again".to_owned(), reset };
    store.at(4).respool(&Place::Spool, &key("K1"), &again).await.expect("respooled");
    let found = store.find(&Place::Spool, &key("K1")).await.expect("found").mail;
    assert_eq!(found.passes(), 0);
    assert_eq!((found.state.as_str(), found.attributes.integer(attribute::REPROCESSING)), ("again", Some(2)));
}

pub(super) async fn attempts_outlive_their_mail_for_the_retention_time(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example"]).await;
    let claimed = claim_one(&store, Place::Spool).await;
    let attempt = store.at(2).begin_attempt(&claimed.claim, &claimed.mail.attributes, &[]).await.expect("begun");
    store
        .record(&claimed.claim, attempt, &[recorded("b@x.example", Outcome::Delivered)], &[], 1000)
        .await
        .expect("recorded");
    let settlement = Settlement { attempt: Some(attempt), counted: true, ..Settlement::default() };
    store.at(10).settle(&claimed.claim, &settlement).await.expect("settled");
    assert_eq!(store.at(20).purge_records(Duration::from_secs(10), 100).await.expect("purged"), 0);
    let filter = AttemptFilter {
        recipient: Some("B@x.example".into()),
        outcome: Some(Outcome::Delivered),
        since: Some(at(2)),
        ..AttemptFilter::default()
    };
    assert_eq!(store.attempts(&filter, &Span::of(10)).await.expect("attempts").items.len(), 1);
    assert_eq!(store.at(20).purge_records(Duration::from_secs(9), 100).await.expect("purged"), 1);
    assert!(store.attempts(&AttemptFilter::default(), &Span::of(10)).await.expect("attempts").items.is_empty());
}

pub(super) async fn a_long_dialogue_is_cut_with_a_mark(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example"]).await;
    let claimed = claim_one(&store, Place::Spool).await;
    let attempt = store.at(2).begin_attempt(&claimed.claim, &claimed.mail.attributes, &[]).await.expect("begun");
    let line = DialogueEntry { time: at(3), from: Side::Server, text: "x".repeat(300), peer: None };
    for _ in 0..3 {
        store.record(&claimed.claim, attempt, &[], &[line.clone(), line.clone()], 1000).await.expect("recorded");
    }
    let dialogue = store.attempts_of(&claimed.mail).await.expect("attempts").remove(0).dialogue;
    assert_eq!(dialogue.len(), 3, "two lines fit, then the mark, then nothing");
    assert!(dialogue[2].text.contains("cut"), "{dialogue:?}");
}

pub(super) async fn pages_are_filtered_and_in_order(scene: &Scene) {
    let store = scene.open();
    for n in 0..7 {
        let recipient = if n % 2 == 0 { "even@x.example" } else { "odd@y_z.example" };
        insert(&store, &format!("K{n}"), &[recipient]).await;
    }
    let all = MailFilter::default();
    let first = store.list(&Place::Spool, &all, &Span::of(4)).await.expect("a page");
    let rest = Span::of(4).after(first.next.clone());
    let second = store.list(&Place::Spool, &all, &rest).await.expect("a page");
    assert!(first.next.is_some() && second.next.is_none());
    let keys: Vec<_> = first.items.iter().chain(&second.items).map(|l| l.mail.key.to_string()).collect();
    assert_eq!(keys, ["K0", "K1", "K2", "K3", "K4", "K5", "K6"]);
    let count = |filter: MailFilter| {
        let store = store.clone();
        async move { store.list(&Place::Spool, &filter, &Span::of(100)).await.expect("a page").items.len() }
    };
    let with = |text: &str| Some(text.to_owned());
    assert_eq!(count(MailFilter { recipient: with("EVEN@x.example"), ..all.clone() }).await, 4);
    assert_eq!(count(MailFilter { recipient: with("*@y_z.example"), ..all.clone() }).await, 3);
    assert_eq!(count(MailFilter { domain: with("yaz.example"), ..all.clone() }).await, 0, "_ is no wildcard");
    assert_eq!(count(MailFilter { domain: with("%"), ..all.clone() }).await, 0, "% is no wildcard");
    assert_eq!(count(MailFilter { sender: with("A@sender.example"), passes: Some(0), ..all.clone() }).await, 7);
    assert_eq!(count(MailFilter { code: Some(550), ..all.clone() }).await, 0);
    assert_eq!(
        count(MailFilter { before: Some(at(0) + TimeDelta::seconds(1)), after: Some(at(-1)), ..all.clone() }).await,
        7
    );
    insert(&store, "U1", &["\u{e9}va@B\u{fc}cher.example"]).await;
    for domain in ["b\u{fc}cher.example", "XN--BCHER-KVA.example", "B\u{dc}CHER.EXAMPLE"] {
        assert_eq!(count(MailFilter { domain: with(domain), ..all.clone() }).await, 1, "{domain}");
        let recipient = with(&format!("\u{c9}VA@{domain}"));
        assert_eq!(count(MailFilter { recipient, ..all.clone() }).await, 1, "{domain}");
    }
}

pub(super) async fn an_import_is_taken_once(scene: &Scene) {
    let store = scene.open();
    let mail = |name: &str| NewMail { import_digest: Some("d".into()), ..new_mail(name, &["b@x.example"]) };
    store.at(0).insert(mail("K1")).await.expect("inserted");
    let again = store.at(0).insert(mail("K2")).await;
    assert!(matches!(again, Err(Error::ImportedBefore(key)) if key.as_str() == "K1"));
    assert_eq!(store.size(&Place::Spool).await.expect("size"), 1);
}

pub(super) async fn runs_are_recorded(scene: &Scene) {
    let store = scene.open();
    let (run, _) = store.at(1).start_run("retry-temporary", "schedule").await.expect("started");
    let counts = Counts { selected: 3, delivered: 2, deferred: 1, ..Counts::default() };
    store.at(2).finish_run(run, counts, Some("why")).await.expect("finished");
    let dying = scene.open();
    insert(&store, "K1", &["b@x.example", "c@x.example"]).await;
    let (run, _) = dying.at(3).start_run("other", "command").await.expect("started");
    let of_run = Wanted { run: Some(run), ..wanted(Place::Spool, None) };
    let claimed = dying.at(3).claim(&of_run).await.expect("claimed").remove(0);
    let attempt = dying.at(3).begin_attempt(&claimed.claim, &claimed.mail.attributes, &[]).await.expect("begun");
    let outcomes = [recorded("b@x.example", Outcome::Delivered)];
    dying.record(&claimed.claim, attempt, &outcomes, &[], 1000).await.expect("recorded");
    drop(dying);
    store.at(4).reap().await.expect("reaped");
    let runs = store.runs(None, 10).await.expect("runs");
    assert_eq!((runs[1].counts, runs[1].failure.as_deref(), runs[1].finished), (counts, Some("why"), Some(at(2))));
    assert_eq!(runs[0].failure.as_deref(), Some("its process died"));
    assert_eq!(runs[0].counts, Counts { selected: 1, delivered: 1, deferred: 1, ..Counts::default() });
    assert_eq!(store.runs(Some("retry-temporary"), 10).await.expect("runs").len(), 1);
    store.see_schedule("s", at(9)).await.expect("seen");
    assert_eq!(store.schedule_seen("s").await.expect("seen"), Some(at(9)));
    store.note_failed_run("late", "schedule", (at(7), at(8)), "locked").await.expect("noted");
    let late = store.runs(Some("late"), 9).await.expect("runs").remove(0);
    assert_eq!((late.started, late.finished, late.failure.as_deref()), (at(7), Some(at(8)), Some("locked")));
}

pub(super) async fn the_last_outcome_of_each_recipient_is_found_over_splits(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example", "c@x.example"]).await;
    let mut claimed = claim_one(&store, Place::Spool).await;
    let first = store.at(2).begin_attempt(&claimed.claim, &claimed.mail.attributes, &[]).await.expect("begun");
    let both = [recorded("b@x.example", Outcome::Deferred), recorded("c@x.example", Outcome::Failed)];
    store.record(&claimed.claim, first, &both, &[], 1000).await.expect("recorded");
    let mut failed = claimed.mail.clone();
    (failed.key, failed.envelope.recipients) = (key("K2"), vec![address("c@x.example")]);
    claimed.mail.envelope.recipients = vec![address("b@x.example")];
    let part = |mail: &Mail| Resting { mail: mail.clone(), place: Some(temporary()) };
    let parts = vec![part(&claimed.mail), part(&failed)];
    let settlement = Settlement { parts, attempt: Some(first), counted: true, ..Settlement::default() };
    store.at(3).settle(&claimed.claim, &settlement).await.expect("settled");
    let claimed = claim_one_of(&store, "K1").await;
    let second = store.at(4).begin_attempt(&claimed.claim, &claimed.mail.attributes, &[]).await.expect("begun");
    let later = Recorded { code: Some(452), ..recorded("b@x.example", Outcome::Deferred) };
    store.record(&claimed.claim, second, &[later], &[], 1000).await.expect("recorded");
    insert(&store, "K3", &["d@x.example", "e@x.example"]).await;
    let never = store.find(&Place::Spool, &key("K3")).await.expect("there").mail;
    let last = store.last_outcomes(&[claimed.mail, failed, never]).await.expect("read");
    let last: Vec<Vec<_>> =
        last.iter().map(|of| of.iter().map(|one| one.as_ref().map(|one| (one.outcome, one.code))).collect()).collect();
    assert_eq!(last[0], [Some((Outcome::Deferred, Some(452)))]);
    assert_eq!(last[1], [Some((Outcome::Failed, None))]);
    assert_eq!(last[2], [None, None], "each has its place, also where nobody knows of him");
}

/// Takes one mail of `temporary` in hand and gives the others back.
async fn claim_one_of(store: &Opened, name: &str) -> Claimed {
    let mut found = None;
    for claimed in store.at(3).claim(&wanted(Place::Repository(temporary()), None)).await.expect("claimed") {
        if claimed.claim.key == key(name) {
            found = Some(claimed);
        } else {
            store.release(&claimed.claim).await.expect("released");
        }
    }
    found.expect("it is there")
}

pub(super) async fn old_mails_are_purged_in_steps_unless_in_hand(scene: &Scene) {
    let store = scene.open();
    for n in 0..6 {
        insert(&store, &format!("K{n}"), &["b@x.example"]).await;
        let claimed = claim_one(&store, Place::Spool).await;
        defer(&store, &claimed, None, n).await;
    }
    let held = claim_one_of(&store, "K1").await;
    let older_than = Duration::from_secs(4);
    let mut old = Old { place: Place::Repository(temporary()), older_than, within: None, after: None };
    let operation = store.at(9).begin_operation(&NewOperation::default()).await.expect("begun");
    let (mut mails, mut steps) = (0, 0);
    loop {
        let purged = store.at(9).purge(operation, &old, 2).await.expect("purged");
        (mails, steps, old.after) = (mails + purged.mails, steps + 1, purged.next);
        if old.after.is_none() {
            break;
        }
    }
    assert_eq!((mails, steps), (4, 3), "all but the one in hand and the one that is too young");
    let left = store.list(&old.place, &MailFilter::default(), &Span::of(9)).await.expect("a page").items;
    assert_eq!(left.iter().map(|l| l.mail.key.as_str()).collect::<Vec<_>>(), ["K1", "K5"]);
    assert!(store.content(left[0].mail.message, 0).await.is_ok_and(|octets| !octets.is_empty()));
    store.release(&held.claim).await.expect("still ours");
    assert_eq!(
        store.at(10).purge_records(Duration::ZERO, 10).await.expect("purged"),
        9,
        "a record and a name each, and the operation"
    );
}

pub(super) async fn a_report_goes_on_where_the_last_one_ended(scene: &Scene) {
    let store = scene.open();
    assert_eq!(store.reported("r").await.expect("read"), None);
    for name in ["K1", "K2"] {
        insert(&store, name, &["b@x.example"]).await;
        let upto = store.horizon().await.expect("a horizon");
        store.note_reported("r", &upto).await.expect("noted");
        assert_eq!(store.reported("r").await.expect("read"), Some(upto));
    }
    assert_eq!(store.reported("other").await.expect("read"), None);
}

pub(super) async fn a_backup_holds_everything_and_is_a_store(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example"]).await;
    let held = claim_one(&store, Place::Spool).await;
    let copy = scene.directory.join("copy");
    std::fs::create_dir(&copy).expect("made");
    std::fs::write(copy.join("t.db"), "").expect("made");
    store.backup(&Destination(copy.join("t.db").into())).await.expect("written");
    assert!(store.backup(&Destination(copy.join("t.db").into())).await.is_err(), "nothing is overwritten");
    drop(held);
    let restored = scene.open_at(&copy);
    let claimed = claim_one_suspect(&restored).await;
    assert_eq!(claimed.mail.key, key("K1"), "what was in hand is free in the copy");
    assert_eq!(restored.content(claimed.mail.message, 0).await.expect("read"), b"Subject: x\r\n\r\nbody\r\n"[..]);
}

async fn claim_one_suspect(store: &Opened) -> Claimed {
    let suspects = Wanted { suspects: true, ..wanted(Place::Spool, None) };
    store.at(9).claim(&suspects).await.expect("claimed").remove(0)
}
