//! Mails in hand, and the time of the next pass.

use super::*;
use crate::mail::AttemptState;

pub(in crate::store) async fn a_split_loses_no_recipient_and_stores_the_message_once(scene: &Scene) {
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

pub(in crate::store) async fn two_claims_never_give_one_mail(scene: &Scene) {
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

pub(in crate::store) async fn a_mail_put_back_waits_for_the_next_run(scene: &Scene) {
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

pub(in crate::store) async fn each_part_of_a_split_waits_for_its_time(scene: &Scene) {
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

pub(in crate::store) async fn spacing_decides_when_a_mail_is_due(scene: &Scene) {
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

pub(in crate::store) async fn after_a_clock_was_set_back_a_mail_is_due_one_spacing_later(scene: &Scene) {
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

pub(in crate::store) async fn a_process_whose_clock_is_behind_takes_nothing_before_its_time(scene: &Scene) {
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

pub(in crate::store) async fn what_is_in_doubt_is_told_by_the_record_and_no_text(scene: &Scene) {
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

pub(in crate::store) async fn a_lost_claim_is_refused(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example"]).await;
    let claimed = claim_one(&store, Place::Spool).await;
    store.release(&claimed.claim).await.expect("released");
    let again = claim_one(&store, Place::Spool).await;
    let lost = |result: Result<()>| matches!(result, Err(Error::ClaimLost(_)));
    assert!(lost(store.at(3).settle(&claimed.claim, &Settlement::default()).await.map(drop)));
    assert!(lost(store.release(&claimed.claim).await));
    assert!(lost(store.at(3).begin_attempt(&claimed.claim, &Attributes::default(), &[]).await.map(drop)));
    assert!(lost(store.record(&claimed.claim, AttemptId(1), &[], &[], 10).await));
    store.at(4).settle(&again.claim, &Settlement::default()).await.expect("settled");
}

pub(in crate::store) async fn an_uncounted_pass_leaves_the_counters(scene: &Scene) {
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

pub(in crate::store) async fn mails_in_hand_are_read_again_and_given_back_together(scene: &Scene) {
    let (store, other) = (scene.open(), scene.open());
    for name in ["K1", "K2", "K3"] {
        insert(&store, name, &["b@x.example"]).await;
    }
    let claimed = store.claim(&wanted(Place::Spool, None)).await.expect("claimed");
    let claims: Vec<_> = claimed.iter().map(|one| one.claim.clone()).collect();
    let again = store.in_hand(&claims).await.expect("read");
    let mails = |claimed: &[Claimed]| claimed.iter().map(|one| one.mail.clone()).collect::<Vec<_>>();
    assert_eq!(mails(&again), mails(&claimed), "in the order of the claims");
    store.settle(&claims[0], &Settlement::default()).await.expect("settled");
    assert_eq!(mails(&store.in_hand(&claims).await.expect("read")), mails(&claimed[1..]), "the first has gone");

    store.release_all(&claims).await.expect("given back, but for the first");
    assert!(store.in_hand(&claims).await.expect("read").is_empty());
    assert_eq!(mails(&other.claim(&wanted(Place::Spool, None)).await.expect("claimed")), mails(&claimed[1..]));
    assert!(store.in_hand(&claims).await.expect("read").is_empty(), "they are another's");
}

pub(in crate::store) async fn the_last_outcomes_come_with_the_settlement(scene: &Scene) {
    let store = scene.open();
    for (name, earlier, in_doubt) in
        [("K1", false, false), ("K2", false, true), ("K3", true, false), ("K4", true, true)]
    {
        insert(&store, name, &["b@x.example", "c@x.example"]).await;
        let claimed = claim_one(&store, Place::Spool).await;
        let attempt = store.at(2).begin_attempt(&claimed.claim, &claimed.mail.attributes, &[]).await.expect("begun");
        let said =
            |text: &str| vec![DialogueEntry { time: at(3), from: Side::Server, text: text.to_owned(), peer: None }];
        let first = Recorded { in_doubt, ..recorded("b@x.example", Outcome::Deferred) };
        let mut outcomes = vec![recorded("c@x.example", Outcome::Failed)];
        if earlier {
            store.record(&claimed.claim, attempt, &[first], &said("first"), 1000).await.expect("recorded");
        } else {
            outcomes.insert(0, first);
        }
        let parts = vec![Resting { mail: claimed.mail.clone(), place: Some(RepositoryPath::error()) }];
        let dialogue = said("last");
        let settlement = Settlement {
            parts,
            attempt: Some(attempt),
            counted: true,
            outcomes,
            dialogue,
            dialogue_limit: 1000,
            ..Settlement::default()
        };
        store.at(3).settle(&claimed.claim, &settlement).await.expect("settled");
        let record = store.attempts_of(&claimed.mail).await.expect("attempts").remove(0);
        let recipients: Vec<_> = record.recipients.iter().map(|one| one.recipient.to_string()).collect();
        assert_eq!(recipients, ["b@x.example", "c@x.example"], "{name}");
        let texts: Vec<_> = record.dialogue.iter().map(|entry| entry.text.as_str()).collect();
        assert_eq!(texts, if earlier { vec!["first", "last"] } else { vec!["last"] }, "{name}");
        let state = if in_doubt { AttemptState::InDoubt } else { AttemptState::Settled };
        assert_eq!(record.state, state, "{name}: one in doubt is enough, whenever it came");
    }
}

pub(in crate::store) async fn a_long_dialogue_is_cut_with_a_mark(scene: &Scene) {
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

pub(in crate::store) async fn what_a_pass_bears_is_there_with_its_settlement_or_not_at_all(scene: &Scene) {
    let store = scene.open();
    for name in ["K1", "K2"] {
        insert(&store, name, &["b@x.example"]).await;
    }
    let claimed = store.at(1).claim(&wanted(Place::Spool, None)).await.expect("claimed");
    let before = picture::of(&*store).await;
    // The second cannot be born: its key is taken. So the first is not, and the mail stays.
    let bears = |names: &[&str]| Settlement {
        born: names.iter().map(|name| new_dsn(name, "a@sender.example")).collect(),
        ..Settlement::default()
    };
    store.settle(&claimed[0].claim, &bears(&["D1", "K2"])).await.expect_err("refused");
    assert_eq!(picture::of(&*store).await, before, "nothing of it is there");
    // A process that dies before it could settle bears nothing either.
    let dying = scene.open();
    let given = claimed[1].clone();
    store.release(&given.claim).await.expect("released");
    let held = claim_one(&dying, Place::Spool).await;
    drop((held, dying));
    store.reap().await.expect("reaped");
    assert!(store.find(&Place::Spool, &key("D1")).await.is_err());
    store.settle(&claimed[0].claim, &bears(&["D1", "D2"])).await.expect("settled");
    for name in ["D1", "D2"] {
        assert_eq!(store.find(&Place::Spool, &key(name)).await.expect("born").mail.state, "relay");
    }
    assert!(store.find(&Place::Spool, &key("K1")).await.is_err(), "and the mail is done");
    let lost = store.settle(&claimed[0].claim, &bears(&["D3"])).await;
    assert!(matches!(lost, Err(Error::ClaimLost(_))), "no pass ends twice");
}

pub(in crate::store) async fn a_whole_pass_is_in_the_picture_of_the_store(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example", "c@x.example"]).await;
    let mut claimed = claim_one(&store, Place::Spool).await;
    claimed.mail.attributes.increment(attribute::AT_MOST_EXECUTIONS);
    let attributes = claimed.mail.attributes.clone();
    let attempt = store.at(2).begin_attempt(&claimed.claim, &attributes, &[]).await.expect("begun");
    let outcomes = [recorded("b@x.example", Outcome::Delivered), recorded("c@x.example", Outcome::Deferred)];
    let line = DialogueEntry { time: at(3), from: Side::Server, text: "451 later".to_owned(), peer: None };
    store.at(3).record(&claimed.claim, attempt, &outcomes, &[line], 1000).await.expect("recorded");
    claimed.mail.envelope.recipients.remove(0);
    defer(&store, &claimed, Some(attempt), 4).await;
    let operation = NewOperation { who: "anna (full)".into(), verb: "reprocess".into(), ..NewOperation::default() };
    store.begin_operation(&operation).await.expect("begun");
    insert(&store, "K2", &["d@x.example"]).await;
    let expected = "\
spool: 1 mails, 20 octets, [(0, 1)]
  K2: a@sender.example -> d@x.example in relay, 0 passes, 20 octets read
var/mail/error/remote-delivery/temporary: 1 mails, 20 octets, [(1, 1)]
  K1: a@sender.example -> c@x.example in relay, 1 passes, 20 octets read
    AT_MOST_EXECUTIONS = 1
attempt 1 of K1: Settled, counted true
  b@x.example delivered at rcpt: None
  c@x.example deferred at rcpt: None
  Server 451 later
operation 1: reprocess by anna (full): 0 done, 0 in hand, 0 gone
";
    assert_eq!(picture::of(&*store).await, expected);
}
