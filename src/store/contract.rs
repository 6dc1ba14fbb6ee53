//! What every backend must do, as tests that a backend is put through.
//!
//! A backend calls [`store_contract!`] with a function that opens it at a directory. Each
//! test opens the store anew as often as it needs "another process": a store that is
//! dropped without `close` is one that died.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta};

use super::*;
use crate::mail::{Address, AttributeValue, ReversePath, Side, Stage, attribute};

/// Opens the backend under test.
pub(super) type Open = fn(&Path) -> Arc<dyn Store>;

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
            a_clock_set_back_makes_nobody_wait
            a_dead_process_gives_back_what_is_not_known
            recorded_outcomes_survive_their_process
            what_is_in_doubt_is_told_by_the_record_and_no_text
            who_ends_in_order_leaves_nothing_in_hand
            a_lost_claim_is_refused
            a_mail_alone_in_hand_at_a_death_is_counted
            a_mail_given_up_by_a_living_process_is_counted_too
            who_only_waited_at_a_death_is_no_suspect
            runs_that_are_over_go_after_their_time
            of_two_of_a_kind_only_the_later_is_told
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
            $crate::store::contract::$test($open, directory.path()).await;
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
        state: "relay".to_owned(),
        attributes: Attributes::default(),
        message: NewMessage::Whole(Bytes::from_static(b"Subject: x\r\n\r\nbody\r\n")),
        facts: MessageFacts { size: 20, ..MessageFacts::default() },
        import_digest: None,
    }
}

fn wanted(from: Place, run: Option<RunId>) -> Wanted {
    Wanted { from, run, upto: Seq(i64::MAX), spacing: Vec::new(), limit: 100, suspects: false, only: None }
}

fn recorded(recipient: &str, outcome: Outcome) -> Recorded {
    Recorded::without_contact(address(recipient), outcome, Stage::Rcpt, "as scripted".to_owned(), at(5))
}

async fn insert(store: &dyn Store, name: &str, recipients: &[&str]) {
    store.insert(new_mail(name, recipients), at(0)).await.expect("inserted");
}

async fn claim_one(store: &dyn Store, from: Place) -> Claimed {
    let mut claimed = store.claim(&wanted(from, None), at(1)).await.expect("claimed");
    assert_eq!(claimed.len(), 1);
    claimed.remove(0)
}

/// Settles the whole mail into `temporary`.
async fn defer(store: &dyn Store, claimed: &Claimed, attempt: Option<AttemptId>, now: Time) {
    let parts = vec![Resting { mail: claimed.mail.clone(), place: Some(temporary()) }];
    let settlement = Settlement { parts, attempt, counted: attempt.is_some(), outcomes: Vec::new() };
    store.settle(&claimed.claim, &settlement, now).await.expect("settled");
}

/// One counted pass that ends in `temporary`.
async fn pass(store: &dyn Store, claimed: &Claimed, now: Time) {
    let attempt = store.begin_attempt(&claimed.claim, &claimed.mail.attributes, &[], now).await.expect("begun");
    defer(store, claimed, Some(attempt), now).await;
}

pub(super) async fn what_was_inserted_is_claimed_settled_and_gone(open: Open, directory: &Path) {
    let store = open(directory);
    insert(&*store, "K1", &["b@x.example"]).await;
    assert_eq!(store.size(&Place::Spool).await.expect("size"), 1);
    let claimed = claim_one(&*store, Place::Spool).await;
    assert_eq!(claimed.mail.envelope.recipients, [address("b@x.example")]);
    assert_eq!(store.content(claimed.mail.message).read(0).expect("read"), b"Subject: x\r\n\r\nbody\r\n");
    store.settle(&claimed.claim, &Settlement::default(), at(2)).await.expect("settled");
    assert_eq!(store.size(&Place::Spool).await.expect("size"), 0);
    assert!(store.content(claimed.mail.message).read(0).is_err(), "the message went with its mail");
}

pub(super) async fn a_message_written_ahead_is_read_back_octet_for_octet(open: Open, directory: &Path) {
    let store = open(directory);
    let rows: Vec<Vec<u8>> = (0..20_u8).map(|n| vec![n; crate::mail::CHUNK_BYTES]).collect();
    let mut message = None;
    for (number, row) in rows.iter().enumerate() {
        let number = u32::try_from(number).expect("small");
        message = Some(store.write_chunk(message, number, Bytes::from(row.clone()), at(0)).await.expect("written"));
    }
    let message = message.expect("a message");
    let mail = NewMail { message: NewMessage::Written(message), ..new_mail("K1", &["b@x.example"]) };
    store.insert(mail, at(0)).await.expect("inserted");
    let (mut offset, mut read) = (0, Vec::new());
    loop {
        let piece = store.content(message).read(offset).expect("read");
        if piece.is_empty() {
            break;
        }
        offset += piece.len() as u64;
        read.extend(piece);
    }
    assert!(read == rows.concat());
    // A large message is deleted in steps; none of it stays.
    let claimed = claim_one(&*store, Place::Spool).await;
    store.settle(&claimed.claim, &Settlement::default(), at(2)).await.expect("settled");
    while store.tidy().await.expect("tidied") {}
    assert!(store.content(message).read(19 * crate::mail::CHUNK_BYTES as u64).is_err());
}

pub(super) async fn a_split_loses_no_recipient_and_stores_the_message_once(open: Open, directory: &Path) {
    let store = open(directory);
    insert(&*store, "K1", &["b@x.example", "c@x.example", "d@x.example", "e@x.example"]).await;
    let claimed = claim_one(&*store, Place::Spool).await;
    let attempt = store.begin_attempt(&claimed.claim, &claimed.mail.attributes, &[], at(2)).await.expect("begun");
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
    let settlement = Settlement { parts, attempt: Some(attempt), counted: true, outcomes: Vec::new() };
    store.settle(&claimed.claim, &settlement, at(3)).await.expect("settled");

    let find = |place: &str, name: &str| {
        let place = Place::Repository(RepositoryPath::parse(place).expect("a path"));
        let (store, name) = (Arc::clone(&store), key(name));
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
        .remove(&Place::Repository(RepositoryPath::parse("t").expect("a path")), &key("K1"), at(4))
        .await
        .expect("removed");
    assert!(!store.content(failed.message).read(0).expect("read").is_empty(), "the other part still has the message");
    assert_eq!(store.attempts_of(&failed).await.expect("attempts").len(), 1, "and the record");
}

pub(super) async fn two_claims_never_give_one_mail(open: Open, directory: &Path) {
    let (one, other) = (open(directory), open(directory));
    for n in 0..50 {
        insert(&*one, &format!("K{n}"), &["b@x.example"]).await;
    }
    let mut taken = Vec::new();
    for _ in 0..6 {
        let few = Wanted { limit: 5, ..wanted(Place::Spool, None) };
        let (a, b) = tokio::join!(one.claim(&few, at(1)), other.claim(&few, at(1)));
        taken.extend(a.expect("claimed").into_iter().chain(b.expect("claimed")).map(|c| c.mail.key));
    }
    assert_eq!(taken.len(), 50);
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), 50);
}

pub(super) async fn a_mail_put_back_waits_for_the_next_run(open: Open, directory: &Path) {
    let store = open(directory);
    insert(&*store, "K1", &["b@x.example"]).await;
    let claimed = claim_one(&*store, Place::Spool).await;
    defer(&*store, &claimed, None, at(2)).await;
    let from = Place::Repository(temporary());
    let (first, upto) = store.start_run("retry-temporary", "command", at(3)).await.expect("started");
    let of = |run, upto| Wanted { upto, ..wanted(from.clone(), Some(run)) };
    let claimed = store.claim(&of(first, upto), at(3)).await.expect("claimed").remove(0);
    pass(&*store, &claimed, at(4)).await;
    assert!(store.claim(&of(first, upto), at(5)).await.expect("claimed").is_empty(), "once in a run");
    let other = open(directory);
    let (second, later) = other.start_run("retry-temporary", "command", at(5)).await.expect("started");
    assert!(store.claim(&of(second, later), at(5)).await.expect("claimed").is_empty(), "while the first is going");
    store.finish_run(first, Counts::default(), None, at(6)).await.expect("finished");
    assert_eq!(store.claim(&of(second, later), at(6)).await.expect("claimed").len(), 1);
}

pub(super) async fn a_run_whose_end_is_not_on_record_keeps_nothing_from_the_next(open: Open, directory: &Path) {
    let store = open(directory);
    insert(&*store, "K1", &["b@x.example"]).await;
    defer(&*store, &claim_one(&*store, Place::Spool).await, None, at(2)).await;
    let (lost, upto) = store.start_run("j", "schedule", at(3)).await.expect("started");
    let of = |run, upto| Wanted { upto, ..wanted(Place::Repository(temporary()), Some(run)) };
    let claimed = store.claim(&of(lost, upto), at(3)).await.expect("claimed").remove(0);
    pass(&*store, &claimed, at(4)).await;
    let (next, upto) = store.start_run("j", "schedule", at(5)).await.expect("started");
    assert_eq!(store.claim(&of(next, upto), at(5)).await.expect("claimed").len(), 1);
    let runs = store.runs(Some("j"), 9).await.expect("runs");
    assert_eq!((runs[1].finished, runs[1].counts.selected), (Some(at(5)), 1));
    assert_eq!(runs[1].failure.as_deref(), Some("its end could not be noted"));
    assert_eq!(runs[0].finished, None);
}

pub(super) async fn each_part_of_a_split_waits_for_its_time(open: Open, directory: &Path) {
    let store = open(directory);
    insert(&*store, "K1", &["b@x.example", "c@x.example"]).await;
    let claimed = claim_one(&*store, Place::Spool).await;
    let attempt = store.begin_attempt(&claimed.claim, &claimed.mail.attributes, &[], at(2)).await.expect("begun");
    let part = |name: &str, recipient: &str| {
        let mut mail = claimed.mail.clone();
        (mail.key, mail.envelope.recipients) = (key(name), vec![address(recipient)]);
        Resting { mail, place: Some(temporary()) }
    };
    let parts = vec![part("K1", "b@x.example"), part("K2", "c@x.example")];
    let settlement = Settlement { parts, attempt: Some(attempt), counted: true, outcomes: Vec::new() };
    store.settle(&claimed.claim, &settlement, at(3)).await.expect("settled");
    let spaced = Wanted { spacing: vec![Duration::from_mins(15)], ..wanted(Place::Repository(temporary()), None) };
    assert_eq!(store.claim(&spaced, at(3 + 899)).await.expect("claimed").len(), 0);
    assert_eq!(store.claim(&spaced, at(3 + 900)).await.expect("claimed").len(), 2);
}

pub(super) async fn who_ends_in_order_leaves_nothing_in_hand(open: Open, directory: &Path) {
    let ending = open(directory);
    insert(&*ending, "K1", &["b@x.example"]).await;
    let claimed = claim_one(&*ending, Place::Spool).await;
    ending.begin_attempt(&claimed.claim, &claimed.mail.attributes, &[], at(2)).await.expect("begun");
    ending.start_run("j", "command", at(2)).await.expect("started");
    // What could not be written, to the peer's answer and the run's end, is not known.
    ending.close(at(3)).await.expect("closed");
    drop(ending);
    let store = open(directory);
    let reaped = store.reap(at(4)).await.expect("reaped");
    assert_eq!(reaped, Reaped { instances: 1, mails: 1, in_doubt: 1 });
    assert_eq!(store.runs(None, 9).await.expect("runs")[0].finished, Some(at(4)));

    let ending = open(directory);
    ending.write_chunk(None, 0, Bytes::from_static(b"half"), at(5)).await.expect("written");
    ending.close(at(5)).await.expect("closed");
    drop(ending);
    assert_eq!(store.reap(at(6)).await.expect("reaped").instances, 1);
    assert!(store.tidy().await.expect("tidied"), "what was written ahead goes");

    let ending = open(directory);
    insert(&*ending, "K2", &["b@x.example"]).await;
    let claimed = ending.claim(&wanted(Place::Spool, None), at(7)).await.expect("claimed");
    for one in claimed {
        ending.release(&one.claim).await.expect("released");
    }
    ending.close(at(7)).await.expect("closed");
    drop(ending);
    assert_eq!(store.reap(at(8)).await.expect("reaped"), Reaped::default(), "who has nothing is over at once");
}

pub(super) async fn what_comes_to_rest_stands_behind_the_newest(open: Open, directory: &Path) {
    let store = open(directory);
    insert(&*store, "K1", &["b@x.example"]).await;
    let upto = store.newest().await.expect("a place");
    insert(&*store, "K2", &["b@x.example"]).await;
    let mut pages = Pages::new(&*store, Place::Spool, MailFilter::default()).upto(upto);
    let page = pages.next().await.expect("read").expect("a page");
    assert_eq!(page.iter().map(|listed| listed.mail.key.to_string()).collect::<Vec<_>>(), ["K1"]);
    assert!(pages.next().await.expect("read").is_none());
}

pub(super) async fn spacing_decides_when_a_mail_is_due(open: Open, directory: &Path) {
    let store = open(directory);
    let from = Place::Repository(temporary());
    let spacing = vec![Duration::from_mins(15), Duration::from_hours(1)];
    let spaced = Wanted { spacing, ..wanted(from.clone(), None) };
    insert(&*store, "K1", &["b@x.example"]).await;
    let mut claimed = claim_one(&*store, Place::Spool).await;
    let mut last = 10;
    for gap in [900, 3600, 3600] {
        pass(&*store, &claimed, at(last)).await;
        assert!(store.claim(&spaced, at(last + gap - 1)).await.expect("claimed").is_empty(), "not before {gap} s");
        last += gap;
        claimed = store.claim(&spaced, at(last)).await.expect("claimed").pop().expect("due");
    }
}

pub(super) async fn a_clock_set_back_makes_nobody_wait(open: Open, directory: &Path) {
    let store = open(directory);
    insert(&*store, "K1", &["b@x.example"]).await;
    let claimed = claim_one(&*store, Place::Spool).await;
    pass(&*store, &claimed, at(1_000_000)).await;
    let spaced = Wanted { spacing: vec![Duration::from_mins(15)], ..wanted(Place::Repository(temporary()), None) };
    assert_eq!(store.claim(&spaced, at(0)).await.expect("claimed").len(), 1);
}

pub(super) async fn a_dead_process_gives_back_what_is_not_known(open: Open, directory: &Path) {
    let store = open(directory);
    insert(&*store, "K1", &["b@x.example", "c@x.example", "d@x.example", "e@x.example"]).await;
    let dying = open(directory);
    let claimed = claim_one(&*dying, Place::Spool).await;
    let mut attributes = claimed.mail.attributes.clone();
    attributes.increment(attribute::AT_MOST_EXECUTIONS);
    let plan = |next_hop: &str, recipient: &str, others| Planned {
        next_hop: next_hop.to_owned(),
        recipients: vec![address(recipient)],
        host: format!("mx.{next_hop}"),
        address: "192.0.2.1:25".parse().expect("an address"),
        others,
    };
    let first = [plan("x.example", "b@x.example", 0)];
    let attempt = dying.begin_attempt(&claimed.claim, &attributes, &first, at(2)).await.expect("begun");
    let second = [plan("gateway.example", "c@x.example", 0)];
    dying.extend_attempt(&claimed.claim, attempt, &attributes, &second).await.expect("a second part");
    let outcomes = [recorded("b@x.example", Outcome::Delivered), recorded("d@x.example", Outcome::Failed)];
    dying.record(&claimed.claim, attempt, &outcomes, &[], 1000).await.expect("recorded");
    assert_eq!(store.reap(at(3)).await.expect("reaped"), Reaped::default(), "it lives");
    drop(dying);
    let reaped = store.reap(at(4)).await.expect("reaped");
    assert_eq!(reaped, Reaped { instances: 1, mails: 1, in_doubt: 1 });
    let suspects = Wanted { suspects: true, ..wanted(Place::Spool, None) };
    let again = store.claim(&suspects, at(5)).await.expect("claimed").remove(0);
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

pub(super) async fn recorded_outcomes_survive_their_process(open: Open, directory: &Path) {
    let store = open(directory);
    insert(&*store, "K1", &["b@x.example"]).await;
    let dying = open(directory);
    let claimed = claim_one(&*dying, Place::Spool).await;
    let attempt = dying.begin_attempt(&claimed.claim, &claimed.mail.attributes, &[], at(2)).await.expect("begun");
    dying
        .record(&claimed.claim, attempt, &[recorded("b@x.example", Outcome::Delivered)], &[], 1000)
        .await
        .expect("recorded");
    drop(dying);
    store.reap(at(3)).await.expect("reaped");
    assert_eq!(store.size(&Place::Spool).await.expect("size"), 0, "nobody is owed anything");
    let all = store.attempts(&AttemptFilter::default(), None, 10).await.expect("attempts");
    assert_eq!(all[0].1.state, crate::mail::AttemptState::Settled);
}

pub(super) async fn what_is_in_doubt_is_told_by_the_record_and_no_text(open: Open, directory: &Path) {
    let store = open(directory);
    for (name, in_doubt, cause, state) in [
        ("K1", true, "however it is said", crate::mail::AttemptState::InDoubt),
        ("K2", false, "in doubt: as a peer might say", crate::mail::AttemptState::Settled),
    ] {
        insert(&*store, name, &["b@x.example"]).await;
        let claimed = claim_one(&*store, Place::Spool).await;
        let attempt = store.begin_attempt(&claimed.claim, &claimed.mail.attributes, &[], at(2)).await.expect("begun");
        let outcome =
            Recorded { in_doubt, cause: Some(cause.to_owned()), ..recorded("b@x.example", Outcome::Deferred) };
        store.record(&claimed.claim, attempt, &[outcome], &[], 1000).await.expect("recorded");
        defer(&*store, &claimed, Some(attempt), at(3)).await;
        let attempts = store.attempts_of(&claimed.mail).await.expect("attempts");
        assert_eq!((attempts[0].state, attempts[0].recipients[0].in_doubt), (state, in_doubt), "{cause}");
    }
}

pub(super) async fn a_lost_claim_is_refused(open: Open, directory: &Path) {
    let store = open(directory);
    insert(&*store, "K1", &["b@x.example"]).await;
    let claimed = claim_one(&*store, Place::Spool).await;
    store.release(&claimed.claim).await.expect("released");
    let again = claim_one(&*store, Place::Spool).await;
    let lost = |result: Result<()>| matches!(result, Err(Error::ClaimLost(_)));
    assert!(lost(store.settle(&claimed.claim, &Settlement::default(), at(3)).await));
    assert!(lost(store.release(&claimed.claim).await));
    assert!(lost(store.begin_attempt(&claimed.claim, &Attributes::default(), &[], at(3)).await.map(drop)));
    assert!(lost(store.record(&claimed.claim, AttemptId(1), &[], &[], 10).await));
    store.settle(&again.claim, &Settlement::default(), at(4)).await.expect("settled");
}

pub(super) async fn a_mail_alone_in_hand_at_a_death_is_counted(open: Open, directory: &Path) {
    let store = open(directory);
    insert(&*store, "K1", &["b@x.example"]).await;
    insert(&*store, "K2", &["b@x.example"]).await;
    let suspects = Wanted { suspects: true, limit: 1, ..wanted(Place::Spool, None) };
    let dying = open(directory);
    assert_eq!(dying.claim(&wanted(Place::Spool, None), at(1)).await.expect("claimed").len(), 2);
    drop(dying);
    for deaths in 0..3 {
        let dying = open(directory);
        let claimed = dying.claim(&suspects, at(2)).await.expect("claimed").remove(0);
        assert_eq!((claimed.mail.key.as_str(), claimed.deaths_alone), ("K1", deaths));
        drop(dying);
    }
    let claimed = store.claim(&suspects, at(3)).await.expect("claimed").remove(0);
    assert_eq!(claimed.deaths_alone, 3);
    assert!(store.claim(&wanted(Place::Spool, None), at(3)).await.expect("claimed").is_empty(), "K2 is a suspect");
}

pub(super) async fn a_mail_given_up_by_a_living_process_is_counted_too(open: Open, directory: &Path) {
    let store = open(directory);
    insert(&*store, "K1", &["b@x.example"]).await;
    let first = claim_one(&*store, Place::Spool).await;
    store.abandon(&first.claim, at(2)).await.expect("given up");
    let suspects = Wanted { suspects: true, ..wanted(Place::Spool, None) };
    let again = store.claim(&suspects, at(3)).await.expect("claimed").remove(0);
    assert_eq!(again.deaths_alone, 1);
}

pub(super) async fn who_only_waited_at_a_death_is_no_suspect(open: Open, directory: &Path) {
    let store = open(directory);
    insert(&*store, "K1", &["b@x.example"]).await;
    insert(&*store, "K2", &["b@x.example"]).await;
    let dying = open(directory);
    let held = dying.claim(&wanted(Place::Spool, None), at(1)).await.expect("claimed");
    dying.begin_attempt(&held[1].claim, &held[1].mail.attributes, &[], at(2)).await.expect("begun");
    drop(dying);
    for (suspects, name) in [(true, "K2"), (false, "K1")] {
        let wanted = Wanted { suspects, ..wanted(Place::Spool, None) };
        let keys: Vec<_> =
            store.claim(&wanted, at(3)).await.expect("claimed").into_iter().map(|c| c.mail.key).collect();
        assert_eq!(keys.iter().map(MailKey::as_str).collect::<Vec<_>>(), [name]);
    }
}

pub(super) async fn runs_that_are_over_go_after_their_time(open: Open, directory: &Path) {
    let store = open(directory);
    let (going, _) = store.start_run("long", "command", at(1)).await.expect("started");
    for time in [2, 3, 4] {
        let (run, _) = store.start_run("short", "command", at(time)).await.expect("started");
        store.finish_run(run, Counts::default(), None, at(time)).await.expect("finished");
    }
    let mut purged = Vec::new();
    while purged.last() != Some(&0) {
        purged.push(store.purge_records(at(4), 2, at(9)).await.expect("purged"));
    }
    assert_eq!(purged, [1, 1, 0], "two are looked at in one step");
    let left = store.runs(None, 9).await.expect("listed");
    assert_eq!(left.iter().map(|run| run.job.as_str()).collect::<Vec<_>>(), ["short", "long"]);
    assert!(left.iter().any(|run| run.id == going));
}

pub(super) async fn of_two_of_a_kind_only_the_later_is_told(open: Open, directory: &Path) {
    let (first, second) = (open(directory), open(directory));
    assert_eq!(first.earlier_instance("test", at(1)).await.expect("asked"), None);
    assert_eq!(second.earlier_instance("test", at(2)).await.expect("asked"), Some(std::process::id()));
    assert_eq!(first.earlier_instance("test", at(3)).await.expect("asked"), None);
    assert_eq!(second.earlier_instance("other", at(3)).await.expect("asked"), None);
    drop(first);
    assert_eq!(second.earlier_instance("test", at(4)).await.expect("asked"), None, "it is dead");
}

pub(super) async fn an_uncounted_pass_leaves_the_counters(open: Open, directory: &Path) {
    let store = open(directory);
    insert(&*store, "K1", &["b@x.example"]).await;
    let claimed = claim_one(&*store, Place::Spool).await;
    let mut counted = claimed.mail.attributes.clone();
    counted.increment(attribute::AT_MOST_EXECUTIONS);
    let attempt = store.begin_attempt(&claimed.claim, &counted, &[], at(2)).await.expect("begun");
    let parts = vec![Resting { mail: claimed.mail.clone(), place: None }];
    let outcomes = vec![recorded("b@x.example", Outcome::Deferred)];
    let settlement = Settlement { parts, attempt: Some(attempt), counted: false, outcomes };
    store.settle(&claimed.claim, &settlement, at(3)).await.expect("settled");
    let again = claim_one(&*store, Place::Spool).await;
    assert_eq!(again.mail.passes(), 0);
    let attempts = store.attempts_of(&again.mail).await.expect("attempts");
    assert_eq!((attempts.len(), attempts[0].counted, attempts[0].recipients.len()), (1, false, 1));
}

pub(super) async fn a_mail_in_hand_is_neither_moved_nor_removed(open: Open, directory: &Path) {
    let store = open(directory);
    store.ensure_repositories(&[temporary()], at(0)).await.expect("made");
    insert(&*store, "K1", &["b@x.example"]).await;
    let _claimed = claim_one(&*store, Place::Spool).await;
    let in_hand = |result: Result<()>| matches!(result, Err(Error::InHand(_)));
    let relay = Respool { processor: "relay".to_owned(), ..Respool::default() };
    assert!(in_hand(store.remove(&Place::Spool, &key("K1"), at(2)).await));
    assert!(in_hand(store.move_to(&Place::Spool, &key("K1"), &temporary(), at(2)).await));
    assert!(in_hand(store.respool(&Place::Spool, &key("K1"), &relay, at(2)).await));
    let unknown = store.remove(&Place::Spool, &key("K9"), at(2)).await;
    assert!(matches!(unknown, Err(Error::NoSuchMail(_))));
}

pub(super) async fn reprocessing_counts_and_resets(open: Open, directory: &Path) {
    let store = open(directory);
    let mut mail = new_mail("K1", &["b@x.example"]);
    mail.attributes.set(attribute::AT_MOST_EXECUTIONS, AttributeValue::Integer(8));
    store.insert(mail, at(0)).await.expect("inserted");
    let claimed = claim_one(&*store, Place::Spool).await;
    defer(&*store, &claimed, None, at(2)).await;
    let place = Place::Repository(temporary());
    let relay = Respool { processor: "relay".to_owned(), ..Respool::default() };
    let before = Respool { upto: Some(Seq(0)), ..relay.clone() };
    let late = store.respool(&place, &key("K1"), &before, at(3)).await;
    assert!(matches!(late, Err(Error::NoSuchMail(_))), "it came to rest after that");
    store.respool(&place, &key("K1"), &relay, at(3)).await.expect("respooled");
    let kept = store.find(&Place::Spool, &key("K1")).await.expect("found").mail;
    assert_eq!(kept.passes(), 8);
    let reset = vec![attribute::AT_MOST_EXECUTIONS.to_owned()];
    let again = Respool { processor: "again".to_owned(), reset, upto: None };
    store.respool(&Place::Spool, &key("K1"), &again, at(4)).await.expect("respooled");
    let found = store.find(&Place::Spool, &key("K1")).await.expect("found").mail;
    assert_eq!(found.passes(), 0);
    assert_eq!((found.state.as_str(), found.attributes.integer(attribute::REPROCESSING)), ("again", Some(2)));
}

pub(super) async fn attempts_outlive_their_mail_for_the_retention_time(open: Open, directory: &Path) {
    let store = open(directory);
    insert(&*store, "K1", &["b@x.example"]).await;
    let claimed = claim_one(&*store, Place::Spool).await;
    let attempt = store.begin_attempt(&claimed.claim, &claimed.mail.attributes, &[], at(2)).await.expect("begun");
    store
        .record(&claimed.claim, attempt, &[recorded("b@x.example", Outcome::Delivered)], &[], 1000)
        .await
        .expect("recorded");
    let settlement = Settlement { attempt: Some(attempt), counted: true, ..Settlement::default() };
    store.settle(&claimed.claim, &settlement, at(10)).await.expect("settled");
    assert_eq!(store.purge_records(at(10), 100, at(20)).await.expect("purged"), 0);
    let filter =
        AttemptFilter { recipient: Some("B@x.example".into()), outcome: Some(Outcome::Delivered), since: Some(at(2)) };
    assert_eq!(store.attempts(&filter, None, 10).await.expect("attempts").len(), 1);
    assert_eq!(store.purge_records(at(11), 100, at(20)).await.expect("purged"), 1);
    assert!(store.attempts(&AttemptFilter::default(), None, 10).await.expect("attempts").is_empty());
}

pub(super) async fn a_long_dialogue_is_cut_with_a_mark(open: Open, directory: &Path) {
    let store = open(directory);
    insert(&*store, "K1", &["b@x.example"]).await;
    let claimed = claim_one(&*store, Place::Spool).await;
    let attempt = store.begin_attempt(&claimed.claim, &claimed.mail.attributes, &[], at(2)).await.expect("begun");
    let line = DialogueEntry { time: at(3), from: Side::Server, text: "x".repeat(300), peer: None };
    for _ in 0..3 {
        store.record(&claimed.claim, attempt, &[], &[line.clone(), line.clone()], 1000).await.expect("recorded");
    }
    let dialogue = store.attempts_of(&claimed.mail).await.expect("attempts").remove(0).dialogue;
    assert_eq!(dialogue.len(), 3, "two lines fit, then the mark, then nothing");
    assert!(dialogue[2].text.contains("cut"), "{dialogue:?}");
}

pub(super) async fn pages_are_filtered_and_in_order(open: Open, directory: &Path) {
    let store = open(directory);
    for n in 0..7 {
        let recipient = if n % 2 == 0 { "even@x.example" } else { "odd@y_z.example" };
        insert(&*store, &format!("K{n}"), &[recipient]).await;
    }
    let all = MailFilter::default();
    let first = store.list(&Place::Spool, &all, None, 4).await.expect("a page");
    let second = store.list(&Place::Spool, &all, Some(first[3].seq), 4).await.expect("a page");
    let keys: Vec<_> = first.iter().chain(&second).map(|l| l.mail.key.to_string()).collect();
    assert_eq!(keys, ["K0", "K1", "K2", "K3", "K4", "K5", "K6"]);
    let count = |filter: MailFilter| {
        let store = Arc::clone(&store);
        async move { store.list(&Place::Spool, &filter, None, 100).await.expect("a page").len() }
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
    insert(&*store, "U1", &["\u{e9}va@B\u{fc}cher.example"]).await;
    for domain in ["b\u{fc}cher.example", "XN--BCHER-KVA.example", "B\u{dc}CHER.EXAMPLE"] {
        assert_eq!(count(MailFilter { domain: with(domain), ..all.clone() }).await, 1, "{domain}");
        let recipient = with(&format!("\u{c9}VA@{domain}"));
        assert_eq!(count(MailFilter { recipient, ..all.clone() }).await, 1, "{domain}");
    }
}

pub(super) async fn an_import_is_taken_once(open: Open, directory: &Path) {
    let store = open(directory);
    let mail = |name: &str| NewMail { import_digest: Some("d".into()), ..new_mail(name, &["b@x.example"]) };
    store.insert(mail("K1"), at(0)).await.expect("inserted");
    let again = store.insert(mail("K2"), at(0)).await;
    assert!(matches!(again, Err(Error::ImportedBefore(key)) if key.as_str() == "K1"));
    assert_eq!(store.size(&Place::Spool).await.expect("size"), 1);
}

pub(super) async fn runs_are_recorded(open: Open, directory: &Path) {
    let store = open(directory);
    let (run, _) = store.start_run("retry-temporary", "schedule", at(1)).await.expect("started");
    let counts = Counts { selected: 3, delivered: 2, deferred: 1, ..Counts::default() };
    store.finish_run(run, counts, Some("why"), at(2)).await.expect("finished");
    let dying = open(directory);
    insert(&*store, "K1", &["b@x.example", "c@x.example"]).await;
    let (run, _) = dying.start_run("other", "command", at(3)).await.expect("started");
    let of_run = Wanted { run: Some(run), ..wanted(Place::Spool, None) };
    let claimed = dying.claim(&of_run, at(3)).await.expect("claimed").remove(0);
    let attempt = dying.begin_attempt(&claimed.claim, &claimed.mail.attributes, &[], at(3)).await.expect("begun");
    let outcomes = [recorded("b@x.example", Outcome::Delivered)];
    dying.record(&claimed.claim, attempt, &outcomes, &[], 1000).await.expect("recorded");
    drop(dying);
    store.reap(at(4)).await.expect("reaped");
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

pub(super) async fn the_last_outcome_of_each_recipient_is_found_over_splits(open: Open, directory: &Path) {
    let store = open(directory);
    insert(&*store, "K1", &["b@x.example", "c@x.example"]).await;
    let mut claimed = claim_one(&*store, Place::Spool).await;
    let first = store.begin_attempt(&claimed.claim, &claimed.mail.attributes, &[], at(2)).await.expect("begun");
    let both = [recorded("b@x.example", Outcome::Deferred), recorded("c@x.example", Outcome::Failed)];
    store.record(&claimed.claim, first, &both, &[], 1000).await.expect("recorded");
    let mut failed = claimed.mail.clone();
    (failed.key, failed.envelope.recipients) = (key("K2"), vec![address("c@x.example")]);
    claimed.mail.envelope.recipients = vec![address("b@x.example")];
    let part = |mail: &Mail| Resting { mail: mail.clone(), place: Some(temporary()) };
    let parts = vec![part(&claimed.mail), part(&failed)];
    let settlement = Settlement { parts, attempt: Some(first), counted: true, outcomes: Vec::new() };
    store.settle(&claimed.claim, &settlement, at(3)).await.expect("settled");
    let claimed = claim_one_of(&*store, "K1").await;
    let second = store.begin_attempt(&claimed.claim, &claimed.mail.attributes, &[], at(4)).await.expect("begun");
    let later = Recorded { code: Some(452), ..recorded("b@x.example", Outcome::Deferred) };
    store.record(&claimed.claim, second, &[later], &[], 1000).await.expect("recorded");
    insert(&*store, "K3", &["d@x.example"]).await;
    let never = store.find(&Place::Spool, &key("K3")).await.expect("there").mail;
    let last = store.last_outcomes(&[claimed.mail, failed, never]).await.expect("read");
    assert_eq!((last[0][0].code, last[0].len()), (Some(452), 1));
    assert_eq!((last[1][0].outcome, last[1].len()), (Outcome::Failed, 1));
    assert!(last[2].is_empty());
}

/// Takes one mail of `temporary` in hand and gives the others back.
async fn claim_one_of(store: &dyn Store, name: &str) -> Claimed {
    let mut found = None;
    for claimed in store.claim(&wanted(Place::Repository(temporary()), None), at(3)).await.expect("claimed") {
        if claimed.claim.key == key(name) {
            found = Some(claimed);
        } else {
            store.release(&claimed.claim).await.expect("released");
        }
    }
    found.expect("it is there")
}

pub(super) async fn old_mails_are_purged_in_steps_unless_in_hand(open: Open, directory: &Path) {
    let store = open(directory);
    for n in 0..6 {
        insert(&*store, &format!("K{n}"), &["b@x.example"]).await;
        let claimed = claim_one(&*store, Place::Spool).await;
        defer(&*store, &claimed, None, at(n)).await;
    }
    let held = claim_one_of(&*store, "K1").await;
    let mut old = Old { place: Place::Repository(temporary()), before: at(5), upto: Seq(i64::MAX), after: None };
    let (mut mails, mut steps) = (0, 0);
    loop {
        let purged = store.purge(&old, 2, at(9)).await.expect("purged");
        (mails, steps, old.after) = (mails + purged.mails, steps + 1, purged.last);
        if purged.last.is_none() {
            break;
        }
    }
    assert_eq!((mails, steps), (4, 3), "all but the one in hand and the one that is too young");
    let left = store.list(&old.place, &MailFilter::default(), None, 9).await.expect("a page");
    assert_eq!(left.iter().map(|l| l.mail.key.as_str()).collect::<Vec<_>>(), ["K1", "K5"]);
    assert!(store.content(left[0].mail.message).read(0).is_ok_and(|octets| !octets.is_empty()));
    store.release(&held.claim).await.expect("still ours");
    assert_eq!(store.purge_records(at(10), 10, at(10)).await.expect("purged"), 8, "a record and an action each");
}

pub(super) async fn a_report_goes_on_where_the_last_one_ended(open: Open, directory: &Path) {
    let store = open(directory);
    assert_eq!(store.reported("r").await.expect("read"), None);
    for upto in [Seq(7), Seq(9)] {
        store.note_reported("r", upto).await.expect("noted");
        assert_eq!(store.reported("r").await.expect("read"), Some(upto));
    }
    assert_eq!(store.reported("other").await.expect("read"), None);
}

pub(super) async fn a_backup_holds_everything_and_is_a_store(open: Open, directory: &Path) {
    let store = open(directory);
    insert(&*store, "K1", &["b@x.example"]).await;
    let held = claim_one(&*store, Place::Spool).await;
    let copy = directory.join("copy");
    std::fs::create_dir(&copy).expect("made");
    std::fs::write(copy.join("t.db"), "").expect("made");
    store.backup(&copy.join("t.db")).await.expect("written");
    assert!(store.backup(&copy.join("t.db")).await.is_err(), "nothing is overwritten");
    drop(held);
    let restored = open(&copy);
    let claimed = claim_one_suspect(&*restored).await;
    assert_eq!(claimed.mail.key, key("K1"), "what was in hand is free in the copy");
    assert_eq!(restored.content(claimed.mail.message).read(0).expect("read"), b"Subject: x\r\n\r\nbody\r\n");
}

async fn claim_one_suspect(store: &dyn Store) -> Claimed {
    let suspects = Wanted { suspects: true, ..wanted(Place::Spool, None) };
    store.claim(&suspects, at(9)).await.expect("claimed").remove(0)
}
