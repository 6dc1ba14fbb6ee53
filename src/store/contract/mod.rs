//! What every backend must do, as tests that a backend is put through.
//!
//! A backend calls [`store_contract!`] with a function that opens it at a directory. Each
//! test opens the store anew as often as it needs "another process": a store that is
//! dropped without `close` is one that died.

pub(super) mod catalogue;
pub(super) mod deaths;
pub(super) mod dsn;
pub(super) mod groups;
pub(super) mod intake;
pub(super) mod notifications;
pub(super) mod operations;
pub(super) mod passes;
mod picture;
pub(super) mod runs;
pub(super) mod splits;
pub(super) mod tasks;
pub(super) mod upkeep;

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
    Action, Address, AttributeValue, Attributes, DialogueEntry, DsnLimits, Envelope, Mail, MailKey, MessageFacts,
    NewDsn, NewMail, NewMessage, Notice, Outcome, Planned, Recorded, ReversePath, Side, Stage, Told, attribute,
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
            intake::what_was_inserted_is_claimed_settled_and_gone
            intake::a_message_written_ahead_is_read_back_octet_for_octet
            intake::a_mail_that_comes_in_in_hand_is_what_a_claim_would_give
            intake::an_import_is_taken_once
            intake::who_waits_for_mail_is_told_of_it
            intake::who_brought_a_mail_goes_with_all_its_parts
            passes::a_split_loses_no_recipient_and_stores_the_message_once
            passes::two_claims_never_give_one_mail
            passes::a_mail_put_back_waits_for_the_next_run
            passes::each_part_of_a_split_waits_for_its_time
            passes::spacing_decides_when_a_mail_is_due
            passes::after_a_clock_was_set_back_a_mail_is_due_one_spacing_later
            passes::a_process_whose_clock_is_behind_takes_nothing_before_its_time
            passes::what_is_in_doubt_is_told_by_the_record_and_no_text
            passes::a_lost_claim_is_refused
            passes::an_uncounted_pass_leaves_the_counters
            passes::mails_in_hand_are_read_again_and_given_back_together
            passes::the_last_outcomes_come_with_the_settlement
            passes::a_long_dialogue_is_cut_with_a_mark
            passes::what_a_pass_bears_is_there_with_its_settlement_or_not_at_all
            dsn::what_is_asked_and_told_goes_with_each_recipient
            dsn::a_death_leaves_what_is_asked_and_told
            passes::a_whole_pass_is_in_the_picture_of_the_store
            notifications::what_is_too_much_for_one_sender_is_gathered_and_ends_in_one_mail
            notifications::what_is_too_much_in_all_is_held_back_and_counted
            notifications::notes_agree_with_what_was_told
            deaths::a_dead_process_gives_back_what_is_not_known
            deaths::recorded_outcomes_survive_their_process
            deaths::who_ends_in_order_leaves_nothing_in_hand
            deaths::a_mail_alone_in_hand_at_a_death_is_counted
            deaths::a_mail_given_up_by_a_living_process_is_counted_too
            deaths::who_only_waited_at_a_death_is_no_suspect
            deaths::many_mails_of_a_dead_process_are_freed_in_steps_and_judged_alike
            splits::the_record_of_a_split_mail_is_found_by_each_key
            splits::a_shared_record_goes_with_the_last_that_needs_it
            splits::a_split_off_record_ends_before_that_of_the_mail_it_came_from
            splits::what_operators_did_goes_with_what_is_split_off
            splits::a_death_in_a_pass_that_splits_loses_no_record
            runs::a_run_whose_end_is_not_on_record_keeps_nothing_from_the_next
            runs::runs_are_recorded
            runs::a_report_goes_on_where_the_last_one_ended
            runs::a_pause_holds_until_it_is_ended_or_over
            catalogue::what_comes_to_rest_stands_behind_the_newest
            catalogue::pages_are_filtered_and_in_order
            catalogue::the_last_outcome_of_each_recipient_is_found_over_splits
            catalogue::nothing_is_missed_or_met_twice_while_others_write
            catalogue::a_listing_goes_either_way_and_says_how_far_it_looked
            catalogue::sums_are_those_of_the_mails_whatever_became_of_them
            catalogue::outcomes_are_counted_by_next_hop_and_in_all
            operations::a_mail_in_hand_is_neither_moved_nor_removed
            operations::reprocessing_counts_and_resets
            operations::a_copy_enters_the_spool_while_the_mail_stays
            operations::a_mail_enters_its_own_processor_where_that_is_named
            operations::old_mails_are_purged_in_steps_unless_in_hand
            operations::each_mail_of_a_batch_has_its_own_result
            operations::what_was_done_to_a_mail_is_told_also_when_it_is_gone
            operations::a_note_of_a_failure_stays_over_a_move_and_goes_with_reprocessing
            upkeep::outcomes_are_folded_to_days_and_keep_their_sums
            upkeep::attempts_outlive_their_mail_for_the_retention_time
            upkeep::runs_that_are_over_go_after_their_time
            upkeep::a_backup_holds_everything_and_is_a_store
            groups::a_group_follows_its_mails_in_the_commit_that_changes_them
            groups::who_was_not_tried_keeps_his_cause
            groups::a_death_leaves_a_mail_in_the_groups_of_those_it_still_owes
            groups::a_hop_and_code_have_a_hundred_texts_and_then_others
            groups::pages_of_groups_give_each_once_the_largest_first
            groups::arrivals_are_counted_by_day_and_empty_groups_go_after_their_time
            tasks::a_task_is_kept_and_what_a_death_cut_off_is_told_once
            tasks::tasks_come_by_page_are_counted_and_go_after_their_time
        }
    };
    ($open:expr; $($role:ident :: $test:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let scene = $crate::store::contract::Scene {
                open: $open,
                directory: directory.path().to_owned(),
                clock: $crate::store::contract::TestClock::default(),
            };
            $crate::store::contract::$role::$test(&scene).await;
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

/// A notification to this sender about one recipient.
fn new_dsn(name: &str, sender: &str) -> NewDsn {
    let told = Told {
        recipient: address("b@x.example"),
        action: Action::Failed,
        original: None,
        accepted: None,
        marks: Vec::new(),
        outcome: Some(recorded("b@x.example", Outcome::Failed)),
        default_status: "5.0.0".to_owned(),
    };
    NewDsn {
        mail: new_mail(name, &[sender]),
        sender: address(sender),
        action: Action::Failed,
        told: vec![told],
        limits: DsnLimits::default(),
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

async fn claim_one_suspect(store: &Opened) -> Claimed {
    let suspects = Wanted { suspects: true, ..wanted(Place::Spool, None) };
    store.at(9).claim(&suspects).await.expect("claimed").remove(0)
}
