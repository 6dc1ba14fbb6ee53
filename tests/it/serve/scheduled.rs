//! Schedules in a running service. What is decided is tested beside the decision; this is
//! that it happens.

use super::{Service, served, until, write_schedule};
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, on, script, wait};
use crate::support::zones::Zones;
use std::time::Duration;

use serde_json::Value;

fn runs(relay: &Relay) -> Vec<Value> {
    relay.command(&["job", "runs", "--format", "json", "--limit", "1000"]).expect(0).json()
}

#[test]
fn a_job_is_started_every_second_and_every_run_is_on_record() {
    let peer = SmtpSink::start(script![on("RCPT").times(2) => "451 4.2.0 later"]);
    let relay = served(Setup::gateway(peer.address()).limit(8));
    write_schedule(&relay, "s", "job: retry-temporary\ncron: \"* * * * * *\"\n");
    let service = Service::start(&relay);
    service.submit(&["you@example.net"], "m");
    peer.wait_for_transactions(1);
    until("three runs", || runs(&relay).len() >= 3);
    service.stop();
    let runs = runs(&relay);
    assert!(runs.iter().all(|run| run["trigger"] == "schedule" && run["finished"].is_string()), "{runs:#?}");
    let sum = |name: &str| runs.iter().map(|run| run[name].as_u64().expect("a number")).sum::<u64>();
    assert_eq!((sum("selected"), sum("deferred"), sum("delivered")), (2, 1, 1));
    let mut started: Vec<_> =
        runs.iter().map(|run| run["started"].as_str().expect("a time")[..19].to_owned()).collect();
    started.dedup();
    assert_eq!(started.len(), runs.len(), "none twice in one second");
}

/// What the DNS said, that there is nothing too, is kept for `downFor`.
#[test]
fn a_domain_that_is_set_up_is_found_by_a_later_sweep_of_the_same_service() {
    let peer = SmtpSink::start(Script::new());
    let zones = Zones::start("other.example A 127.0.0.1");
    let setup = Setup::mx(&zones, peer.port()).limit(99).delivery("maxDnsProblemRetries: 99").top("downFor: 1s");
    let relay = served(setup);
    write_schedule(&relay, "s", "job: retry-temporary\ncron: \"* * * * * *\"\n");
    let service = Service::start(&relay);
    service.submit(&["you@new.example"], "m");
    until("a sweep has found nothing", || {
        relay.mails("temporary").iter().any(|mail| mail["passes"].as_u64() >= Some(2))
    });
    zones.replace(&format!("new.example A {}", peer.ip()));
    peer.wait_for_transactions(1);
    service.stop();
}

#[test]
fn a_tick_missed_while_down_is_one_run_at_the_start() {
    let relay = served(Setup::gateway("127.0.0.2:25"));
    for (name, missed) in [("owed", "runOnce"), ("skipped", "skip")] {
        let text = format!("job: retry-temporary\ncron: \"0 0 * * *\"\nmissed: {missed}\n");
        write_schedule(&relay, name, &text);
    }
    Service::start(&relay).stop();
    assert_eq!(runs(&relay).len(), 0, "a schedule never seen before has missed nothing");
    let database = rusqlite::Connection::open(relay.path().join("var/redeliver.db")).expect("the store");
    let set_back = "UPDATE schedule_seen SET seen = seen - 5 * 86400000";
    assert_eq!(database.execute(set_back, []).expect("set back"), 2);
    drop(database);
    let service = Service::start(&relay);
    until("it ran", || runs(&relay).iter().any(|run| run["finished"].is_string()));
    service.stop();
    Service::start(&relay).stop();
    let runs = runs(&relay);
    assert_eq!(runs.len(), 1, "{runs:#?}");
    assert_eq!(runs[0]["trigger"], "start");
}

#[test]
fn a_long_run_is_alone_and_what_it_overlaps_is_skipped() {
    let slow = script!["EHLO" => wait(Duration::from_secs(3)).then("451 4.2.0 later"), "HELO" => "451 4.2.0 later"];
    let (quick, slow) = (SmtpSink::start(script![on("RCPT").times(1) => "451 4.2.0 later"]), SmtpSink::start(slow));
    let relay = served(Setup::gateway(quick.address()).limit(8));
    relay.submit("me@example.org", &["you@example.net"], "Subject: s\n\nb\n");
    relay.run_spool().expect(75);
    let text = std::fs::read_to_string(relay.configuration()).expect("read");
    let text = text.replace(&quick.address().to_string(), &slow.address().to_string());
    std::fs::write(relay.configuration(), text).expect("written");
    write_schedule(&relay, "s", "job: retry-temporary\ncron: \"* * * * * *\"\n");
    let service = Service::start(&relay);
    service.log.wait_for("a tick is skipped", |text| text.contains("this tick is skipped").then_some(()));
    slow.wait_until("the end of the session", |seen| seen.connections.iter().any(|c| c.closed.is_some()));
    service.stop();
    let going = runs(&relay).iter().filter(|run| run["selected"] == 1).count();
    assert!(going <= 2, "one, and perhaps one more after it ended");
    assert_eq!(slow.record().most_open(), 1);
}

#[test]
fn a_run_that_fails_shows_in_the_health_check() {
    let peer = SmtpSink::start(Script::new());
    let relay = served(Setup::gateway(peer.address()));
    write_schedule(&relay, "s", "job: retry-temporary\ncron: \"* * * * * *\"\n");
    let service = Service::start(&relay);
    assert_eq!(service.health("Schedules").0, "healthy");
    let database = rusqlite::Connection::open(relay.path().join("var/redeliver.db")).expect("the store");
    database
        .execute_batch("CREATE TRIGGER no_runs BEFORE INSERT ON run BEGIN SELECT RAISE(ABORT, 'no runs'); END")
        .expect("a trigger");
    until("it shows", || service.health("Schedules").0 == "degraded");
    assert!(service.health("Schedules").1.as_str().is_some_and(|cause| cause.contains("no runs")));
    database.execute_batch("DROP TRIGGER no_runs").expect("gone");
    until("it is well again", || service.health("Schedules").0 == "healthy");
    service.stop();
}

/// As a command names it.
fn schedule(relay: &Relay, arguments: &[&str]) -> String {
    relay.command(&[&["schedule"], arguments].concat()).expect(0).stdout
}

fn paused(relay: &Relay) -> Value {
    relay.command(&["schedule", "list", "--format", "json"]).expect(0).json().remove(0)["paused"].clone()
}

#[test]
fn a_paused_schedule_lets_its_ticks_pass_until_it_is_resumed() {
    let relay = served(Setup::gateway("127.0.0.2:25"));
    write_schedule(&relay, "s", "job: retry-temporary\ncron: \"* * * * * *\"\n");
    assert_eq!(paused(&relay), Value::Null);
    let service = Service::start(&relay);
    until("it runs", || !runs(&relay).is_empty());
    schedule(&relay, &["pause", "s", "--reason", "the peer moves"]);
    let shown = paused(&relay);
    assert_eq!((&shown["reason"], &shown["until"]), (&"the peer moves".into(), &Value::Null), "{shown}");
    assert!(schedule(&relay, &["list"]).contains("paused"));
    std::thread::sleep(Duration::from_secs(2));
    let before = runs(&relay).len();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(runs(&relay).len(), before, "taken up within two seconds");
    relay.command(&["run", "retry-temporary"]).expect(0);
    service.stop();

    let service = Service::start(&relay);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(runs(&relay).len(), before + 1, "kept over a restart, and nothing is owed");
    schedule(&relay, &["resume", "s"]);
    until("it goes on", || runs(&relay).len() > before + 1);
    service.stop();
    let verbs: Vec<_> = relay.command(&["operations", "--format", "json"]).expect(0).json();
    let verbs: Vec<_> = verbs.iter().map(|one| one["verb"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!(verbs, ["resume", "pause"]);
}

#[test]
fn a_pause_ends_by_itself_and_one_of_a_day_shows_in_the_health_check() {
    let relay = served(Setup::gateway("127.0.0.2:25"));
    write_schedule(&relay, "s", "job: retry-temporary\ncron: \"* * * * * *\"\n");
    write_schedule(&relay, "t", "job: retry-temporary\ncron: \"0 0 1 1 *\"\n");
    schedule(&relay, &["pause", "s", "--until", "3s"]);
    schedule(&relay, &["pause", "t"]);
    let database = rusqlite::Connection::open(relay.path().join("var/redeliver.db")).expect("the store");
    database.execute("UPDATE schedule_pause SET at = at - 25 * 3600000 WHERE schedule = 't'", []).expect("set back");
    drop(database);
    let service = Service::start(&relay);
    until("it goes on by itself", || !runs(&relay).is_empty());
    until("somebody is told", || {
        service.health("Schedules").1.as_str().is_some_and(|why| why.contains("schedule t has been paused since"))
    });
    service.stop();
    for (arguments, words) in [
        (&["pause", "nobody"][..], "there are: s, t"),
        (&["resume", "nobody"], "there are: s, t"),
        (&["pause", "s", "--until", "2001-01-01T00:00:00Z"], "future"),
        (&["pause", "s", "--until", "soon"], "--until"),
    ] {
        let ended = relay.command(&[&["schedule"], arguments].concat()).expect(64);
        assert!(ended.stderr.contains(words), "{ended:?}");
    }
}
