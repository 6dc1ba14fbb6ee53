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
    let ids: Vec<_> = store.tasks(9).await.expect("read").into_iter().map(|task| task.id).collect();
    assert_eq!(ids, ["T2", "T1"]);
}
