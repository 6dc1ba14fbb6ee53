//! Runs and schedules.

use super::*;

pub(in crate::store) async fn a_run_whose_end_is_not_on_record_keeps_nothing_from_the_next(scene: &Scene) {
    let store = scene.open();
    insert(&store, "K1", &["b@x.example"]).await;
    defer(&store, &claim_one(&store, Place::Spool).await, None, 2).await;
    let (lost, upto) = store.at(3).start_run("j", "schedule").await.expect("started");
    let of = |run, within| Wanted { within: Some(within), ..wanted(Place::Repository(temporary()), Some(run)) };
    let claimed = store.at(3).claim(&of(lost, upto)).await.expect("claimed").remove(0);
    pass(&store, &claimed, 4).await;
    let (next, upto) = store.at(5).start_run("j", "schedule").await.expect("started");
    assert_eq!(store.at(5).claim(&of(next, upto)).await.expect("claimed").len(), 1);
    let runs = store.runs(Some("j"), &Span::of(9).newest_first()).await.expect("runs").items;
    assert_eq!((runs[1].finished, runs[1].counts.selected), (Some(at(5)), 1));
    assert_eq!(runs[1].failure.as_deref(), Some("its end could not be noted"));
    assert_eq!(runs[0].finished, None);
}

pub(in crate::store) async fn runs_are_recorded(scene: &Scene) {
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
    let runs = store.runs(None, &Span::of(10).newest_first()).await.expect("runs").items;
    assert_eq!((runs[1].counts, runs[1].failure.as_deref(), runs[1].finished), (counts, Some("why"), Some(at(2))));
    assert_eq!(runs[0].failure.as_deref(), Some("its process died"));
    assert_eq!(runs[0].counts, Counts { selected: 1, delivered: 1, deferred: 1, ..Counts::default() });
    assert_eq!(store.runs(Some("retry-temporary"), &Span::of(10)).await.expect("runs").items.len(), 1);
    store.see_schedule("s", at(9)).await.expect("seen");
    assert_eq!(store.schedule_seen("s").await.expect("seen"), Some(at(9)));
    store.note_failed_run("late", "schedule", (at(7), at(8)), "locked").await.expect("noted");
    let late = store.runs(Some("late"), &Span::of(9)).await.expect("runs").items.remove(0);
    assert_eq!((late.started, late.finished, late.failure.as_deref()), (at(7), Some(at(8)), Some("locked")));
}

pub(in crate::store) async fn a_report_goes_on_where_the_last_one_ended(scene: &Scene) {
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

pub(in crate::store) async fn a_pause_holds_until_it_is_ended_or_over(scene: &Scene) {
    let store = scene.open();
    store.at(10).pause("a", Some("moving"), Some(at(20)), "anna (full)").await.expect("paused");
    store.at(11).pause("b", None, None, "root (0)").await.expect("paused");
    let names = async |seconds| -> Vec<String> {
        let paused = store.at(seconds).paused().await.expect("read");
        paused.into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(names(19).await, ["a", "b"]);
    let (_, pause) = store.paused().await.expect("read").remove(0);
    let expected = Pause { reason: Some("moving".into()), until: Some(at(20)), by: "anna (full)".into(), at: at(10) };
    assert_eq!(pause, expected);
    assert_eq!(names(20).await, ["b"]);
    assert!(!store.resume("a").await.expect("resumed"), "it was over");
    assert!(store.resume("b").await.expect("resumed") && !store.resume("b").await.expect("resumed"));
    assert!(names(21).await.is_empty());
}
