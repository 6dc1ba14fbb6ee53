use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::store::SqliteStore;

struct Scene {
    directory: TempDir,
    tasks: Arc<Tasks>,
    stop: Stop,
}

fn scene() -> Scene {
    let directory = tempfile::tempdir().expect("a folder");
    let stop = Stop::default();
    let tasks = open(&directory, &stop);
    Scene { directory, tasks, stop }
}

fn open(directory: &TempDir, stop: &Stop) -> Arc<Tasks> {
    let clock = Clock::system();
    let store = SqliteStore::open(&directory.path().join("t.db"), "serve", &clock).expect("opens");
    Tasks::new(Arc::new(store), clock, stop.clone())
}

fn new(together: Together) -> NewTask {
    let by = Operator { who: "anna (full)".to_owned(), ..Operator::default() };
    NewTask { kind: "reprocessing-all", by, parameters: json!({"repository": "x"}), expected: Some(2), together }
}

/// Work that goes on until it is told to end.
async fn forever(handle: Handle) -> Ended {
    handle.progress(1, &json!({"done": 1}));
    handle.stop().cancelled().await;
    Ended::failed(json!({}))
}

fn details(task: &Task) -> Value {
    serde_json::from_str(&task.details).expect("JSON")
}

const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_task_is_kept_and_its_end_awaited() {
    let Scene { tasks, directory: _directory, .. } = scene();
    let id = tasks
        .begin(new(Together::Always), |handle| async move {
            assert_eq!(handle.by.task.as_deref().map(str::len), Some(36));
            Ended::completed(json!({"mails": 2}))
        })
        .await
        .expect("begun");
    let Awaited::Ended(task) = tasks.wait(&id, LONG).await.expect("read") else { panic!("it ends") };
    assert_eq!(
        (task.status.as_str(), task.who.as_str(), details(&task)),
        ("completed", "anna (full)", json!({"mails": 2}))
    );
    assert!(task.started.is_some() && task.finished.is_some());
    tasks.end().await;
    assert_eq!(tasks.find(&id).await.expect("read"), tasks.list(&Span::of(5)).await.expect("read").items.pop());
    assert_eq!(tasks.wait("none", LONG).await.expect("read"), Awaited::Unknown);
}

#[tokio::test]
async fn a_cancelled_task_ends_at_once_and_keeps_what_it_said() {
    let Scene { tasks, directory: _directory, .. } = scene();
    let id = tasks.begin(new(Together::Always), forever).await.expect("begun");
    assert_eq!(tasks.wait(&id, Duration::from_millis(50)).await.expect("read"), Awaited::TimedOut);
    tasks.cancel(&id, "anna");
    let Awaited::Ended(task) = tasks.wait(&id, Duration::from_secs(1)).await.expect("read") else { panic!("it ends") };
    assert_eq!((task.status.as_str(), task.done, details(&task)), ("canceled", 1, json!({"done": 1})));
    tasks.cancel(&id, "anna");
    tasks.cancel("unknown", "anna");
}

#[tokio::test]
async fn a_task_that_panics_has_failed_and_holds_up_no_other() {
    let Scene { tasks, directory: _directory, .. } = scene();
    let only = || new(Together::Never("job x".to_owned()));
    let broken = tasks.begin(only(), |handle| async move {
        handle.progress(1, &json!({"done": 1}));
        assert!(handle.by.task.is_none(), "as it is");
        Ended::completed(json!({}))
    });
    let broken = broken.await.expect("begun");
    let Awaited::Ended(task) = tasks.wait(&broken, LONG).await.expect("read") else { panic!("it ends") };
    let error = "it panicked, a fault of redeliver: as it is";
    assert_eq!((task.status.as_str(), details(&task)), ("failed", json!({"done": 1, "error": error})));
    let next = tasks.begin(only(), |_| async { Ended::completed(json!({})) }).await.expect("the name is free again");
    assert!(matches!(tasks.wait(&next, LONG).await, Ok(Awaited::Ended(task)) if task.status == "completed"));
}

#[tokio::test]
async fn tasks_of_one_name_wait_for_their_turn_or_are_refused() {
    let Scene { tasks, directory: _directory, .. } = scene();
    let in_turn = || new(Together::InTurn("var/x".to_owned()));
    let first = tasks.begin(in_turn(), forever).await.expect("begun");
    let second = tasks.begin(in_turn(), |_| async { Ended::completed(json!({})) }).await.expect("begun");
    let third = tasks.begin(in_turn(), |_| async { Ended::completed(json!({})) }).await.expect("begun");
    let beside = tasks.begin(new(Together::InTurn("var/y".into())), |_| async { Ended::completed(json!({})) }).await;
    let beside = tasks.wait(&beside.expect("begun"), LONG).await.expect("read");
    assert!(matches!(beside, Awaited::Ended(_)), "another one goes on beside");
    assert_eq!(tasks.find(&second).await.expect("read").map(|task| task.status), Some("waiting".to_owned()));
    tasks.cancel(&third, "anna");
    let Awaited::Ended(third) = tasks.wait(&third, LONG).await.expect("read") else { panic!("it ends") };
    assert_eq!((third.status.as_str(), third.started), ("canceled", None), "before its turn");
    tasks.cancel(&first, "anna");
    let Awaited::Ended(second) = tasks.wait(&second, LONG).await.expect("read") else { panic!("it ends") };
    assert_eq!(second.status, "completed");

    let only = || new(Together::Never("job retry".to_owned()));
    let one = tasks.begin(only(), forever).await.expect("begun");
    let refused = tasks.begin(only(), forever).await.expect_err("there may be one");
    assert!(refused.to_string().contains(&one), "{refused}");
    tasks.cancel(&one, "anna");
    tasks.wait(&one, LONG).await.expect("read");
    tasks.end().await;
    tasks.begin(only(), forever).await.expect("begun");
}

#[tokio::test]
async fn a_stop_ends_tasks_and_says_so() {
    let Scene { tasks, stop, directory: _directory } = scene();
    let id = tasks.begin(new(Together::Always), forever).await.expect("begun");
    stop.gentle.cancel();
    tasks.end().await;
    let task = tasks.find(&id).await.expect("read").expect("known");
    assert_eq!(task.status, "failed");
    assert!(details(&task)["error"].as_str().is_some_and(|why| why.contains("stopped")), "{task:?}");
}

#[tokio::test]
async fn a_task_that_a_restart_cut_off_has_failed_and_is_told_once() {
    let Scene { directory, tasks, .. } = scene();
    let id = tasks.begin(new(Together::Always), forever).await.expect("begun");
    while tasks.store.task(&id).await.expect("read").is_some_and(|task| task.status != "inProgress") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // As a process that dies: nothing more of it is written.
    tasks.workers.lock().expect("a lock").abort_all();
    tasks.store.close().await.expect("closed");
    drop(tasks);

    let next = open(&directory, &Stop::default());
    assert_eq!(next.bury_those_cut_off().await.expect("written"), 1);
    assert_eq!(next.bury_those_cut_off().await.expect("written"), 0);
    let task = next.find(&id).await.expect("read").expect("known");
    assert_eq!(task.status, "failed");
    assert!(details(&task)["error"].as_str().is_some_and(|why| why.contains("ended before")), "{task:?}");
}

#[test]
fn ids_are_random_uuids() {
    assert_eq!(work::new_id(0), "00000000-0000-4000-8000-000000000000");
    assert_eq!(work::new_id(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
}
