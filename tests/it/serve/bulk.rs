//! What is done to many mails over HTTP: killed in its middle, cancelled, asked for twice, beside
//! a sweep, and awaited by clients that go away.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::webadmin::{ask, ask_with, deferring, get, task};
use super::{LONG, Service, served};
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, on, reply, script, wait};

const MAILS: &str = "/mailRepositories/temporary/mails";

/// A service with so many mails in its temporary repository.
pub(super) fn filled(peer: &SmtpSink, mails: usize) -> (Relay, Service) {
    let relay = served(Setup::gateway(peer.address()));
    relay.fill((0..mails).map(|number| vec![format!("n{number}@later.example")]));
    let service = Service::start(&relay);
    service.wait_until_settled();
    assert_eq!(relay.size("temporary"), mails);
    (relay, service)
}

/// Begins a task; its id.
pub(super) fn begin(service: &Service, method: &str, path: &str, body: &str) -> String {
    let begun = ask_with(service, method, path, "", body).expect(201).json();
    begun["taskId"].as_str().expect("an id").to_owned()
}

/// Waits until a task has done some of its work, or all of it.
fn wait_for_progress(service: &Service, id: &str) {
    let started = Instant::now();
    loop {
        let task = get(service, &format!("/tasks/{id}"));
        let information = &task["additionalInformation"];
        let is_begun = information["remainingCount"].as_u64() < information["initialCount"].as_u64();
        if is_begun && information["remainingCount"].is_u64() || task["completedDate"].is_string() {
            return;
        }
        assert!(started.elapsed() < LONG, "waited in vain for progress: {task}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn keys(relay: &Relay, repository: &str) -> BTreeSet<String> {
    relay.mails(repository).iter().map(|mail| mail["key"].as_str().expect("a key").to_owned()).collect()
}

#[test]
fn a_kill_in_the_middle_of_bulk_work_leaves_each_mail_whole_in_one_place() {
    let kept = "{\"mailRepository\": \"var/kept\"}";
    for (method, path, body, verb) in [("PATCH", MAILS, kept, "move"), ("DELETE", MAILS, "", "remove")] {
        let peer = deferring();
        let (relay, service) = filled(&peer, 2000);
        ask(&service, "PUT", "/mailRepositories/var%2Fkept?protocol=sqlite").expect(204);
        let all = keys(&relay, "temporary");
        let id = begin(&service, method, path, body);
        wait_for_progress(&service, &id);
        service.kill();
        let service = Service::start(&relay);
        let ended = get(&service, &format!("/tasks/{id}"));
        let (left, moved) = (keys(&relay, "temporary"), keys(&relay, "var/kept"));
        assert!(left.is_disjoint(&moved) && left.union(&moved).all(|key| all.contains(key)), "{verb}");
        let operations = relay.command(&["operations", "--format", "json"]).expect(0).json();
        let operation = operations.iter().find(|one| one["verb"] == verb).expect("on record");
        let done = usize::try_from(operation["mails"].as_u64().expect("a number")).expect("small");
        assert_eq!(done, all.len() - left.len(), "{verb}: the record has what was committed");
        assert_eq!(moved.len(), if verb == "move" { done } else { 0 }, "{verb}: nothing is lost");
        if left.is_empty() {
            assert_eq!(ended["status"], "completed", "{ended}");
        } else {
            assert_eq!(ended["status"], "failed", "{verb}: {ended}");
            let why = ended["additionalInformation"]["error"].as_str().expect("a reason");
            assert!(why.contains("ended before this task did"), "{why}");
        }
        if let Some(gone) = all.difference(&left).find(|key| !moved.contains(*key)) {
            let shown = relay.command(&["repository", "show", "temporary", gone]);
            assert!(shown.stderr.contains("removed by operation"), "{}{}", shown.stdout, shown.stderr);
        }
        // Each that is left is whole: it is attempted again.
        let before = peer.transactions().len();
        let again = ask(&service, "PATCH", &format!("{MAILS}?action=reprocess&processor=relay"));
        assert_eq!(task(&service, again)["status"], "completed");
        service.wait_until_settled();
        assert_eq!(keys(&relay, "temporary"), left, "{verb}");
        assert!(peer.transactions().len() >= before);
        service.stop();
    }
}

#[test]
fn two_calls_to_reprocess_at_once_attempt_each_mail_once() {
    let peer = deferring();
    let (relay, service) = filled(&peer, 300);
    let path = format!("{MAILS}?action=reprocess&processor=relay");
    let ids = [(); 2].map(|()| begin(&service, "PATCH", &path, ""));
    let ended = ids.map(|id| get(&service, &format!("/tasks/{id}/await?timeout=30")));
    assert!(ended.iter().all(|task| task["status"] == "completed"), "{ended:?}");
    service.wait_until_settled();
    let mails = relay.mails("temporary");
    assert_eq!(mails.len(), 300);
    let twice: Vec<_> = mails.iter().filter(|mail| mail["passes"] != 2).collect();
    assert!(twice.is_empty(), "{} were met by both: {:?}", twice.len(), twice.first());
    let done: u64 = get(&service, "/operations")["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|one| one["mails"].as_u64().expect("a number"))
        .sum();
    assert_eq!(done, 300);
    service.stop();
}

#[test]
fn a_cancelled_task_stops_between_two_batches_and_says_how_far_it_came() {
    let peer = deferring();
    let (relay, service) = filled(&peer, 2000);
    ask(&service, "PUT", "/mailRepositories/var%2Fkept?protocol=sqlite").expect(204);
    let first = begin(&service, "PATCH", MAILS, "{\"mailRepository\": \"var/kept\"}");
    // It waits for its turn, and ends at once.
    let second = begin(&service, "DELETE", MAILS, "");
    for id in [&second, &first] {
        ask(&service, "DELETE", &format!("/tasks/{id}")).expect(204);
    }
    let ended = [&second, &first].map(|id| get(&service, &format!("/tasks/{id}/await?timeout=10")));
    assert_eq!(ended[0]["status"], "canceled", "{}", ended[0]);
    assert!(ended[0]["startedDate"].is_null(), "{}", ended[0]);
    let (left, moved) = (relay.size("temporary"), relay.size("var/kept"));
    assert_eq!(left + moved, 2000);
    assert!(left > 0 && ended[1]["status"] == "canceled", "{left}: {}", ended[1]);
    assert!(ended[1]["canceledDate"].is_string(), "{}", ended[1]);
    service.stop();
}

#[test]
fn reprocessing_beside_a_sweep_counts_every_attempt_and_loses_no_mail() {
    let peer = deferring();
    let (relay, service) = filled(&peer, 200);
    let sweep = begin(&service, "POST", "/jobs/retry-temporary/run", "{\"now\": true}");
    let path = format!("{MAILS}?action=reprocess&processor=relay");
    let again = begin(&service, "PATCH", &path, "");
    for id in [sweep, again] {
        assert_eq!(get(&service, &format!("/tasks/{id}/await?timeout=30"))["status"], "completed");
    }
    service.wait_until_settled();
    let mails = relay.mails("temporary");
    assert_eq!(mails.len(), 200);
    let passes: u64 = mails.iter().map(|mail| mail["passes"].as_u64().expect("a number")).sum();
    // The peer heard of each recipient as often as a pass was counted for him.
    let heard = peer.commands().iter().filter(|line| line.starts_with("RCPT")).count();
    assert_eq!(heard as u64, passes);
    assert!(mails.iter().all(|mail| [2, 3].map(Value::from).contains(&mail["passes"])), "{mails:#?}");
    service.stop();
}

#[test]
fn who_waits_for_a_task_hears_when_the_time_is_over_and_costs_nothing_once_gone() {
    let peer = SmtpSink::start(script![
        on("RCPT TO:<slow") => wait(Duration::from_secs(6)).then(reply("451 4.2.0 later")),
    ]);
    let relay = served(Setup::gateway(peer.address()));
    let service = Service::start(&relay);
    service.submit(&["slow@later.example"], "m1");
    service.wait_until_settled();
    let id = begin(&service, "POST", "/jobs/retry-temporary/run", "{\"now\": true}");
    let path = format!("/tasks/{id}/await");
    for timeout in ["1", "1s", "200ms"] {
        let refused = ask(&service, "GET", &format!("{path}?timeout={timeout}")).expect(408).json();
        assert_eq!(refused["message"], "The timeout has been reached");
    }
    for wrong in ["0", "-1", "", "x", "1y", "366d", "99999999999999999999"] {
        let refused = ask(&service, "GET", &format!("{path}?timeout={wrong}")).expect(400).json();
        assert_eq!(refused["message"], "Invalid timeout", "{wrong}");
    }
    // More of them than there are connections at once: each takes the place of one that is gone.
    for _ in 0..150 {
        let mut stream = TcpStream::connect(service.admin).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", service.admin).expect("sent");
    }
    get(&service, "/healthcheck");
    let mut waiting = TcpStream::connect(service.admin).expect("it listens");
    write!(waiting, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", service.admin).expect("sent");
    assert_eq!(get(&service, &format!("{path}?timeout=30"))["status"], json!("completed"));
    drop(waiting);
    service.stop();
    drop(relay);
}
