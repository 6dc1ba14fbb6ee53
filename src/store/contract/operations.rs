//! What is done to mails at rest.

use super::*;

pub(in crate::store) async fn a_mail_in_hand_is_neither_moved_nor_removed(scene: &Scene) {
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

pub(in crate::store) async fn reprocessing_counts_and_resets(scene: &Scene) {
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
    let again = Respool { processor: "again".to_owned(), reset, ..Respool::default() };
    store.at(4).respool(&Place::Spool, &key("K1"), &again).await.expect("respooled");
    let found = store.find(&Place::Spool, &key("K1")).await.expect("found").mail;
    assert_eq!(found.passes(), 0);
    assert_eq!((found.state.as_str(), found.attributes.integer(attribute::REPROCESSING)), ("again", Some(2)));
}

pub(in crate::store) async fn a_copy_enters_the_spool_while_the_mail_stays(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example"]).await;
    let claimed = claim_one(&store, Place::Spool).await;
    let attempt = store.at(2).begin_attempt(&claimed.claim, &claimed.mail.attributes, &[]).await.expect("begun");
    let later = recorded("b@x.example", Outcome::Deferred);
    store.record(&claimed.claim, attempt, &[later], &[], 1000).await.expect("recorded");
    defer(&store, &claimed, Some(attempt), 2).await;
    let place = Place::Repository(temporary());
    let note = Act::Acknowledge { by: "anna".into(), note: "known".into() };
    store.act_within(&place, &key("K1"), note, None).await.expect("noted");
    let stays = |store: Opened| {
        let place = place.clone();
        async move { format!("{:?}", store.find(&place, &key("K1")).await.expect("there")) }
    };
    let before = stays(store.clone()).await;
    let relay = Respool { processor: "relay".into(), copy: true, ..Respool::default() };
    let new = NewOperation { verb: "reprocess".into(), ..NewOperation::default() };
    let operation = store.at(5).begin_operation(&new).await.expect("begun");
    let act = Act::Respool(relay);
    let batch = Batch { operation, place: place.clone(), act, keys: vec![key("K1")], within: None };
    assert_eq!(store.at(5).act(&batch).await.expect("done"), [Acted::Done]);
    assert_eq!(stays(store.clone()).await, before, "nothing of the mail that stays is changed");
    let copy = store.list(&Place::Spool, &MailFilter::default(), &Span::of(9)).await.expect("a page").items.remove(0);
    let mail = &copy.mail;
    assert_eq!((mail.origin.as_ref(), mail.state.as_str()), (Some(&key("K1")), "relay"));
    assert_eq!((mail.attributes.integer(attribute::REPROCESSING), mail.error.as_ref()), (Some(1), None));
    assert!(mail.key != key("K1") && copy.acknowledged.is_none());
    assert_eq!(store.attempts_of(mail).await.expect("attempts").len(), 1, "its history comes with it");
    for named in [&mail.key, &key("K1")] {
        let of = store.operations_of(named).await.expect("asked");
        assert_eq!(of.last().map(|one| one.id), Some(operation), "{named}");
    }
    let size = |mails| Sums { mails, octets: 20, unacknowledged: mails, by_passes: vec![(0, mails)] };
    assert_eq!(store.sums().await.expect("sums")[0], (Place::Spool, size(1)));
    // Each has the message for itself.
    store.remove(&place, &key("K1")).await.expect("removed");
    let claimed = claim_one(&store, Place::Spool).await;
    assert!(store.content(claimed.mail.message, 0).await.is_ok_and(|octets| !octets.is_empty()));
    store.settle(&claimed.claim, &Settlement::default()).await.expect("settled");
    assert!(store.content(claimed.mail.message, 0).await.is_err(), "the last of them took it along");
}

pub(in crate::store) async fn a_mail_enters_its_own_processor_where_that_is_named(scene: &Scene) {
    let store = scene.open();
    for (name, own, state) in [("K1", "", "relay"), ("K2", "other", "relay"), ("K3", "relay-b", "relay-b")] {
        insert(&store, name, &["b@x.example"]).await;
        let first = Respool { processor: "relay-b".into(), ..Respool::default() };
        store.respool(&Place::Spool, &key(name), &first).await.expect("respooled");
        let how = Respool { processor: "relay".into(), own: vec![own.to_owned()], ..Respool::default() };
        store.respool(&Place::Spool, &key(name), &how).await.expect("respooled");
        assert_eq!(store.find(&Place::Spool, &key(name)).await.expect("there").mail.state, state, "{name}");
    }
}

pub(in crate::store) async fn old_mails_are_purged_in_steps_unless_in_hand(scene: &Scene) {
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

pub(in crate::store) async fn each_mail_of_a_batch_has_its_own_result(scene: &Scene) {
    let store = scene.open();
    store.ensure_repositories(&[temporary()]).await.expect("made");
    for name in ["K1", "K2", "K3"] {
        insert(&store, name, &["b@x.example"]).await;
    }
    let only = Some(Arc::from([key("K2")]));
    let held = store.at(1).claim(&Wanted { only, ..wanted(Place::Spool, None) }).await.expect("claimed");
    assert_eq!(held.len(), 1);
    let within = Some(store.horizon().await.expect("a horizon"));
    insert(&store, "K4", &["b@x.example"]).await;
    let new = NewOperation { who: "anna (full)".into(), verb: "move".into(), ..NewOperation::default() };
    let operation = store.at(7).begin_operation(&new).await.expect("begun");
    let keys = ["K1", "K2", "K9", "K4", "K3"].map(key).to_vec();
    let batch = Batch { operation, place: Place::Spool, act: Act::Move(temporary()), keys, within };
    let acted = store.at(8).act(&batch).await.expect("done");
    assert_eq!(acted, [Acted::Done, Acted::InHand, Acted::Gone, Acted::Gone, Acted::Done], "K4 came too late");
    let again = store.act(&batch).await.expect("done");
    assert!(again.iter().all(|one| *one != Acted::Done), "and it is done once");
    let there = store.operations(&Span::of(9)).await.expect("operations").items.remove(0);
    assert_eq!((there.who.as_str(), there.at, there.done, there.in_hand, there.gone), ("anna (full)", at(7), 2, 2, 6));
    let unknown = Act::Move(RepositoryPath::parse("nowhere").expect("a path"));
    let refused = store.act(&Batch { act: unknown, ..batch }).await;
    assert!(matches!(refused, Err(Error::NoSuchRepository(_))));
}

pub(in crate::store) async fn what_was_done_to_a_mail_is_told_also_when_it_is_gone(scene: &Scene) {
    let store = scene.open();
    store.ensure_repositories(&[temporary()]).await.expect("made");
    insert(&store, "K1", &["b@x.example"]).await;
    store.move_to(&Place::Spool, &key("K1"), &temporary()).await.expect("moved");
    assert!(store.gone(&key("K1")).await.expect("asked").is_none());
    let new = NewOperation { verb: "remove".into(), selection: "K1".into(), ..NewOperation::default() };
    let operation = store.at(8).begin_operation(&new).await.expect("begun");
    let (place, keys) = (Place::Repository(temporary()), vec![key("K1")]);
    let batch = Batch { operation, place, act: Act::Remove, keys, within: None };
    assert_eq!(store.at(9).act(&batch).await.expect("done"), [Acted::Done]);
    let gone = store.gone(&key("K1")).await.expect("asked").expect("it is");
    assert_eq!((gone.at, gone.operation.map(|by| (by.id, by.verb))), (at(9), Some((operation, "remove".to_owned()))));
    assert_eq!(store.operations_of(&key("K1")).await.expect("asked").len(), 2);
    insert(&store, "K2", &["b@x.example"]).await;
    store.settle(&claim_one(&store, Place::Spool).await.claim, &Settlement::default()).await.expect("settled");
    let delivered = store.gone(&key("K2")).await.expect("asked").expect("it is");
    assert!(delivered.operation.is_none());
}

pub(in crate::store) async fn a_note_of_a_failure_stays_over_a_move_and_goes_with_reprocessing(scene: &Scene) {
    let store = scene.open();
    let other = RepositoryPath::parse("other").expect("a path");
    store.ensure_repositories(&[temporary(), other.clone()]).await.expect("made");
    insert(&store, "K1", &["b@x.example"]).await;
    defer(&store, &claim_one(&store, Place::Spool).await, None, 2).await;
    let (first, second) = (Place::Repository(temporary()), Place::Repository(other.clone()));
    let note = Act::Acknowledge { by: "anna (full)".into(), note: "told them".into() };
    store.at(5).act_within(&first, &key("K1"), note.clone(), None).await.expect("noted");
    let noted = store.find(&first, &key("K1")).await.expect("there").acknowledged.expect("noted");
    assert_eq!((noted.by.as_str(), noted.at, noted.note.as_str()), ("anna (full)", at(5), "told them"));
    store.move_to(&first, &key("K1"), &other).await.expect("moved");
    assert_eq!(store.find(&second, &key("K1")).await.expect("there").acknowledged, Some(noted));
    let open = MailFilter { acknowledged: Some(false), ..MailFilter::default() };
    assert!(store.list(&second, &open, &Span::of(9)).await.expect("a page").items.is_empty());
    store.act_within(&second, &key("K1"), Act::Unacknowledge, None).await.expect("taken back");
    assert_eq!(store.list(&second, &open, &Span::of(9)).await.expect("a page").items.len(), 1);
    store.act_within(&second, &key("K1"), note, None).await.expect("noted");
    let relay = Respool { processor: "relay".into(), ..Respool::default() };
    store.respool(&second, &key("K1"), &relay).await.expect("respooled");
    assert_eq!(store.find(&Place::Spool, &key("K1")).await.expect("there").acknowledged, None);
}
