//! A run of a job that somebody cancels: what it has under way, what it has not begun, and what
//! others have meanwhile.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bulk::{begin, filled};
use super::webadmin::{ask, get};
use super::{Service, until};
use crate::support::relay::Relay;
use crate::support::sink::{Script, SmtpSink, on, reply, script, stall, wait};

/// Far more than an end takes: the machine does other things too.
const SOON: Duration = Duration::from_secs(3);

const MAILS: usize = 80;

/// A peer that keeps silent at this command from the time on that all mails were deferred.
fn silent_at(command: &str) -> SmtpSink {
    let deferred = on("RCPT TO:<n").times(MAILS);
    SmtpSink::start(match command {
        "RCPT" => script![deferred => "451 4.2.0 later", on("RCPT TO:<n") => stall()],
        command => script![deferred => "451 4.2.0 later", on(command) => stall()],
    })
}

/// Runs the job over all mails, cancels it once the peer is silent; the task, and how long it took.
fn cancelled(service: &Service, peer: &SmtpSink, command: &str) -> (Value, Duration) {
    let before = peer.commands().iter().filter(|said| said.starts_with(command)).count();
    let id = begin(service, "POST", "/jobs/retry-temporary/run", "{\"now\": true}");
    let said = || peer.commands().iter().filter(|said| said.starts_with(command)).count();
    let dots = || peer.record().transactions.iter().filter(|one| one.complete).count();
    until("the peer is silent", || if command == "." { dots() > 0 } else { said() > before });
    let asked = Instant::now();
    ask(service, "DELETE", &format!("/tasks/{id}")).expect(204);
    assert!(asked.elapsed() < SOON, "the answer took {:?}", asked.elapsed());
    let task = get(service, &format!("/tasks/{id}/await?timeout=30"));
    (task, asked.elapsed())
}

/// Those that were tried a second time, and those that were not.
fn by_passes(relay: &Relay) -> [Vec<Value>; 2] {
    let mails = relay.mails("temporary");
    assert_eq!(mails.len(), MAILS, "all are in one place");
    let (twice, once): (Vec<_>, Vec<_>) = mails.into_iter().partition(|mail| mail["passes"] == 2);
    assert!(once.iter().all(|mail| mail["passes"] == 1), "{once:?}");
    [twice, once]
}

#[test]
fn a_cancelled_run_ends_within_a_second_and_counts_only_what_was_begun() {
    for (command, stage) in [("RCPT", "rcpt"), (".", "end-of-data")] {
        let peer = silent_at(command);
        let (relay, service) = filled(&peer, MAILS);
        let (task, took) = cancelled(&service, &peer, command);
        eprintln!("{command}: cancelled in {took:?}");
        assert!(took < SOON, "{command}: {took:?}");
        assert_eq!(task["status"], "canceled", "{task}");
        assert_eq!(task["cancelledFrom"], "full from 127.0.0.1", "{task}");
        let [tried, left] = by_passes(&relay);
        assert!(!tried.is_empty() && tried.len() <= 10, "{command}: {} were tried", tried.len());
        let mut at_the_stage = 0;
        for mail in &tried {
            let attempts = relay.show("temporary", mail["key"].as_str().expect("a key"))["attempts"].clone();
            let recipient = &attempts[1]["recipients"][0];
            let cause = recipient["cause"].as_str().expect("a cause");
            assert_eq!(attempts[1]["counted"], true, "{attempts}");
            assert!(cause.contains("broken off: the run was cancelled"), "{cause}");
            // Some may just have been on their way there.
            at_the_stage += usize::from(recipient["stage"] == stage);
            assert_eq!(cause.starts_with("in doubt: "), recipient["stage"] == "end-of-data", "{cause}");
            let note = recipient["notes"].as_array().and_then(|notes| notes.last()).expect("a note");
            assert_eq!(note, "the run was cancelled by full from 127.0.0.1", "{recipient}");
        }
        assert!(at_the_stage > 0, "{tried:#?}");
        let run = get(&service, "/runs?limit=1")["items"][0].clone();
        assert_eq!(run["failure"], "cancelled by full from 127.0.0.1", "{run}");
        assert_eq!(run["deferred"], tried.len(), "{run}");
        let operations = get(&service, "/operations?limit=2")["items"].clone();
        for (at, verb, selection) in [
            (0, "cancel", format!("task={}", task["taskId"].as_str().expect("an id"))),
            (1, "run", "job=retry-temporary".to_owned()),
        ] {
            let one = &operations[at];
            assert_eq!(
                (&one["verb"], &one["who"], &one["selection"]),
                (&json!(verb), &json!("full"), &json!(selection))
            );
            assert_eq!(one["client"], "127.0.0.1", "{one}");
        }
        assert_eq!(operations[1]["task"], task["taskId"], "{operations}");
        // The next run tries each of them, once.
        service.stop();
        let (silent, peer) = (peer, SmtpSink::start(Script::new()));
        relay.reconfigure(&silent.address().to_string(), &peer.address().to_string());
        relay.sweep().expect(0);
        assert_eq!((peer.transactions().len(), relay.size("temporary")), (MAILS, 0));
        assert_eq!(left.len() + tried.len(), MAILS);
    }
}

#[test]
fn what_is_under_way_beside_a_cancelled_run_ends_in_its_time() {
    let deferred = on("RCPT TO:<n").times(MAILS);
    let peer = SmtpSink::start(script![
        deferred => "451 4.2.0 later",
        on("RCPT TO:<n") => stall(),
        on("RCPT TO:<slow") => wait(Duration::from_secs(3)).then(reply("250 2.1.5 ok")),
    ]);
    let (relay, service) = filled(&peer, MAILS);
    service.submit(&["slow@later.example"], "beside");
    until("it is with the peer", || peer.commands().iter().any(|said| said.starts_with("RCPT TO:<slow")));
    let (task, took) = cancelled(&service, &peer, "RCPT TO:<n");
    assert!(took < SOON && task["status"] == "canceled", "{took:?}: {task}");
    service.submit(&["at-once@later.example"], "after");
    service.wait_until_settled();
    assert_eq!(peer.transactions().iter().filter(|one| one.is_taken()).count(), 2, "{:?}", peer.transactions());
    let slow: Vec<_> = relay.attempts().into_iter().filter(|one| one["sender"] == "me@example.org").collect();
    assert!(slow.iter().all(|one| one["recipients"][0]["outcome"] != "failed"), "{slow:?}");
    by_passes(&relay);
    service.stop();
}
