//! What a process leaves that dies, or ends.

use super::*;

pub(in crate::store) async fn a_dead_process_gives_back_what_is_not_known(scene: &Scene) {
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

pub(in crate::store) async fn recorded_outcomes_survive_their_process(scene: &Scene) {
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

pub(in crate::store) async fn who_ends_in_order_leaves_nothing_in_hand(scene: &Scene) {
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
    assert_eq!(store.runs(None, &Span::of(9)).await.expect("runs").items[0].finished, Some(at(4)));

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

pub(in crate::store) async fn a_mail_alone_in_hand_at_a_death_is_counted(scene: &Scene) {
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

pub(in crate::store) async fn a_mail_given_up_by_a_living_process_is_counted_too(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example"]).await;
    let first = claim_one(&store, Place::Spool).await;
    store.at(2).abandon(&first.claim).await.expect("given up");
    let suspects = Wanted { suspects: true, ..wanted(Place::Spool, None) };
    let again = store.at(3).claim(&suspects).await.expect("claimed").remove(0);
    assert_eq!(again.deaths_alone, 1);
}

pub(in crate::store) async fn who_only_waited_at_a_death_is_no_suspect(scene: &Scene) {
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

pub(in crate::store) async fn many_mails_of_a_dead_process_are_freed_in_steps_and_judged_alike(scene: &Scene) {
    let store = scene.open();
    let mut inserted = tokio::task::JoinSet::new();
    for n in 0..501 {
        let store = store.clone();
        inserted.spawn(async move { insert(&store, &format!("K{n}"), &["b@x.example"]).await });
    }
    inserted.join_all().await;
    let dying = scene.open();
    let all = Wanted { limit: 1000, ..wanted(Place::Spool, None) };
    let held = dying.at(1).claim(&all).await.expect("claimed");
    assert_eq!(held.len(), 501);
    for begun in [&held[0], &held[499]] {
        dying.at(2).begin_attempt(&begun.claim, &begun.mail.attributes, &[]).await.expect("begun");
    }
    drop(dying);
    let reaped = store.at(3).reap().await.expect("reaped");
    assert_eq!((reaped.instances, reaped.mails), (1, 501));
    let suspects = store.at(4).claim(&Wanted { suspects: true, ..all.clone() }).await.expect("claimed");
    let mut names: Vec<_> = suspects.iter().map(|claimed| &claimed.claim.key).collect();
    names.sort();
    let mut begun = vec![&held[0].claim.key, &held[499].claim.key];
    begun.sort();
    assert_eq!(names, begun, "the last of them is no more alone than the first");
    assert!(suspects.iter().all(|claimed| claimed.deaths_alone == 0));
    assert_eq!(store.at(4).claim(&all).await.expect("claimed").len(), 499);
}
