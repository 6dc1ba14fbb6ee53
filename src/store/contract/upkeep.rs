//! What goes, and what is copied.

use super::*;

pub(in crate::store) async fn attempts_outlive_their_mail_for_the_retention_time(scene: &Scene) {
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

pub(in crate::store) async fn runs_that_are_over_go_after_their_time(scene: &Scene) {
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
    let left = store.runs(None, &Span::of(9).newest_first()).await.expect("listed").items;
    assert_eq!(left.iter().map(|run| run.job.as_str()).collect::<Vec<_>>(), ["short", "long"]);
    assert!(left.iter().any(|run| run.id == going));
}

pub(in crate::store) async fn a_backup_holds_everything_and_is_a_store(scene: &Scene) {
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

pub(in crate::store) async fn outcomes_are_folded_to_days_and_keep_their_sums(scene: &Scene) {
    const HOUR: i64 = 3600;
    let store = scene.open();
    // The scene begins at 22:13 of a day: two hours later is the next.
    let days = |n: u64| Duration::from_hours(24 * n);
    for (n, hop) in (0..60).map(|n| (n, format!("hop{n:02}.example"))).chain([(60, "hop00.example".to_owned())]) {
        insert(&store, &format!("K{n}"), &["b@x.example"]).await;
        let claimed = claim_one(&store, Place::Spool).await;
        let outcome = Recorded { next_hop: Some(hop), ..recorded("b@x.example", Outcome::Delivered) };
        let settlement = Settlement { outcomes: vec![outcome], ..Settlement::default() };
        store.at(if n < 60 { 2 * HOUR } else { 5 * HOUR }).settle(&claimed.claim, &settlement).await.expect("settled");
    }
    let told = async |seconds: i64| -> Vec<(u32, u64)> {
        let history = store.at(seconds).history(at(0)).await.expect("read");
        history.iter().map(|period| (period.hours, period.recipients.delivered)).collect()
    };
    assert_eq!(told(6 * HOUR).await, [(1, 60), (1, 1)]);
    assert!(!store.at(48 * HOUR).fold_history(days(30), days(400)).await.expect("folded"), "two days are by hour");
    assert!(store.at(80 * HOUR).fold_history(days(30), days(400)).await.expect("folded"));
    assert!(!store.fold_history(days(30), days(400)).await.expect("folded"), "once");
    assert_eq!(told(80 * HOUR).await, [(24, 61)]);
    assert!(store.at(40 * 24 * HOUR).fold_history(days(30), days(400)).await.expect("folded"), "the names go");
    assert_eq!(told(80 * HOUR).await, [(24, 61)]);
    assert!(store.at(500 * 24 * HOUR).fold_history(days(30), days(400)).await.expect("folded"), "all goes");
    assert!(!store.fold_history(days(30), days(400)).await.expect("folded"));
    assert!(told(0).await.is_empty());
}
