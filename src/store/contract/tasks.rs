//! Tasks on record.

use super::*;

pub(in crate::store) async fn a_task_is_kept_and_what_a_death_cut_off_is_told_once(scene: &Scene) {
    let (store, dying) = (scene.open(), scene.open());
    let task = |id: &str, status: &str| Task {
        id: id.to_owned(),
        kind: "reprocessing-all".to_owned(),
        status: status.to_owned(),
        who: "anna (full)".to_owned(),
        submitted: at(1),
        started: Some(at(2)),
        finished: None,
        operation: None,
        done: 3,
        expected: Some(9),
        parameters: "{}".to_owned(),
        details: "{}".to_owned(),
    };
    store.put_task(&task("T1", "waiting")).await.expect("kept");
    store.put_task(&task("T1", "inProgress")).await.expect("kept");
    dying.put_task(&task("T2", "inProgress")).await.expect("kept");
    assert!(store.cut_off_tasks().await.expect("asked").is_empty(), "all are at it");
    assert_eq!(store.task("T1").await.expect("read"), Some(task("T1", "inProgress")));
    drop(dying);
    assert_eq!(store.cut_off_tasks().await.expect("asked"), [task("T2", "inProgress")]);
    assert!(store.cut_off_tasks().await.expect("asked").is_empty(), "once");
    let ended = Task { finished: Some(at(9)), ..task("T2", "failed") };
    store.put_task(&ended).await.expect("kept");
    let page = store.tasks(&Span::of(9)).await.expect("read");
    let ids: Vec<_> = page.items.into_iter().map(|task| task.id).collect();
    assert_eq!((ids, page.next), (vec!["T2".to_owned(), "T1".to_owned()], None));
}

pub(in crate::store) async fn tasks_come_by_page_are_counted_and_go_after_their_time(scene: &Scene) {
    let store = scene.open();
    let task = |number: i64, status: &str, finished: Option<Time>| Task {
        id: format!("T{number}"),
        kind: "job".to_owned(),
        status: status.to_owned(),
        who: "anna (full)".to_owned(),
        // Two at a time come at once.
        submitted: at(number / 2),
        started: None,
        finished,
        operation: None,
        done: 0,
        expected: None,
        parameters: "{}".to_owned(),
        details: "{}".to_owned(),
    };
    for number in 0..7 {
        store.put_task(&task(number, "waiting", None)).await.expect("kept");
    }
    for number in 0..5 {
        store.put_task(&task(number, "completed", Some(at(number)))).await.expect("kept");
    }
    let (mut ids, mut span) = (Vec::new(), Span::of(2));
    loop {
        let page = store.tasks(&span).await.expect("a page");
        assert!(page.items.len() <= 2);
        ids.extend(page.items.into_iter().map(|task| task.id));
        let Some(next) = page.next else { break };
        span = span.after(Some(next));
    }
    assert_eq!(ids, ["T6", "T5", "T4", "T3", "T2", "T1", "T0"]);
    assert!(store.tasks(&Span::of(2).after("17".parse().ok())).await.is_err(), "no cursor of ours");
    let sums = |store: Opened| async move { store.task_sums().await.expect("sums") };
    let of = |completed, waiting| vec![("completed".to_owned(), completed), ("waiting".to_owned(), waiting)];
    assert_eq!(sums(store.clone()).await, of(5, 2));
    assert_eq!(store.at(10).purge_records(Duration::from_secs(7), 2).await.expect("purged"), 2);
    assert_eq!(
        store.at(10).purge_records(Duration::from_secs(7), 9).await.expect("purged"),
        1,
        "0, 1 and 2 ended before"
    );
    assert_eq!(sums(store.clone()).await, of(2, 2));
}
