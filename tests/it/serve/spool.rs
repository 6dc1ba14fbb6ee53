//! What waits in the spool of a running service.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Client, Service, message, served, until, write_schedule};
use crate::support::relay::Setup;
use crate::support::sink::{Script, SmtpSink, script, stall};
use crate::support::zones::Zones;
use crate::support::{fresh_loopback, refusing};

#[test]
fn mail_for_a_dead_peer_holds_up_no_other() {
    let dead = SmtpSink::start(script!["CONNECT" => stall()]);
    let good = SmtpSink::beside(&dead, Script::new());
    let zones = Zones::start(&format!(
        "dead.example MX 10 mx.dead.example\nmx.dead.example A {}\ngood.example MX 10 mx.good.example\nmx.good.example A {}",
        dead.ip(),
        good.ip()
    ));
    let relay = served(Setup::mx(&zones, dead.port()).delivery("timeout: 10s").delivery("deliveryThreads: 4"));
    let service = Service::start(&relay);
    let mut client = Client::connect(service.smtp).expect("it listens");
    for number in 0..300 {
        assert!(client.submit(&["b@dead.example"], &message(&format!("dead{number}"))).expect("an answer"));
    }
    dead.wait_for_connections(1);
    // Whatever the loop does from time to time must not wait for the dead peer either.
    std::thread::sleep(Duration::from_millis(2500));
    for number in 0..30 {
        assert!(client.submit(&["b@good.example"], &message(&format!("good{number}"))).expect("an answer"));
    }
    good.wait_for_transactions(30);
    assert!(dead.record().connections[0].closed.is_none(), "the dead peer is still waited for");
    service.wait_until_settled();
    assert!(dead.connections() < 10, "{} connections to a dead peer", dead.connections());
    assert_eq!(relay.mails("temporary").len(), 300);
    service.stop();
}

#[test]
fn mails_that_come_one_after_the_other_share_a_session_and_it_takes_leave() {
    let peer = SmtpSink::start(Script::new());
    let relay = served(Setup::gateway(peer.address()));
    let service = Service::start(&relay);
    for number in 1..=5 {
        service.submit(&["you@example.net"], &format!("m{number}"));
        peer.wait_for_transactions(number);
        until("it is settled", || service.in_spool() == 0);
    }
    // On a busy machine the pause between two may be longer than a session is kept.
    assert!(peer.connections() < 5, "{}", peer.connections());
    // Nobody has asked for it: without mail it is not kept for long.
    peer.wait_for_end_of_connections();
    assert_eq!(peer.commands().last().map(String::as_str), Some("QUIT"));
    service.submit(&["you@example.net"], "m6");
    peer.wait_for_transactions(6);
    service.stop();
    assert_eq!((peer.violations(), peer.record().notes), (vec![], vec![]));
}

#[test]
fn a_running_service_explains_whom_it_remembers_as_down_and_why() {
    let dead = refusing();
    let relay = served(Setup::gateway(dead));
    let explain = |format: &[&str]| relay.command(&[&["explain", "you@example.net"][..], format].concat()).expect(0);
    let host = || explain(&["--format", "json"]).json()[0]["hosts"][0].clone();
    let service = Service::start(&relay);
    assert_eq!(host()["down"], Value::Null, "nothing is known yet");
    service.submit(&["you@example.net"], "m");
    until("it was attempted", || relay.mails("temporary").len() == 1);
    let down = host()["down"].as_str().expect("why").to_owned();
    assert!(down.contains("connection refused") && down.contains(&dead.to_string()), "{down}");
    let text = explain(&[]).stdout;
    assert!(text.contains("down: ") && text.contains("outcome    deferred without contact"), "{text}");
    service.stop();
    assert_eq!(host()["down"], Value::Null, "whoever starts anew remembers nothing");
}

#[test]
fn trouble_of_our_own_pauses_turns_health_red_and_ends_with_its_cause() {
    let peer = SmtpSink::start(Script::new());
    let relay = served(Setup::gateway(peer.address()).delivery("bind: 192.0.2.9"));
    let service = Service::start(&relay);
    service.submit(&["you@example.net"], "m");
    until("health is red", || service.health("Spool").0 == "unhealthy");
    assert_eq!((service.get("/healthcheck").0, service.in_spool()), (503, 1), "it is kept where it was");
    let text = std::fs::read_to_string(relay.configuration()).expect("read");
    std::fs::write(relay.configuration(), text.replace("bind: 192.0.2.9", "timeout: 9s")).expect("written");
    service.signal(Signal::SIGHUP);
    peer.wait_for_transactions(1);
    until("health is green", || service.health("Spool").0 == "healthy");
    service.stop();
    let counted = relay.attempts().iter().filter(|attempt| attempt["counted"] == true).count();
    assert_eq!(counted, 1, "only the one that reached a peer");
}

#[test]
fn a_mail_alone_in_hand_at_three_deaths_is_set_aside_and_holds_up_nobody() {
    let peer = SmtpSink::start(script!["RCPT TO:<poison@" => stall()]);
    let relay = served(Setup::gateway(peer.address()).limit(8));
    // No job runs beside a suspect either.
    write_schedule(&relay, "s", "job: retry-temporary\ncron: \"* * * * * *\"\n");
    relay.submit("me@example.org", &["poison@example.net"], "Subject: s\n\nb\n");
    let attempts = || peer.commands().iter().filter(|line| line.starts_with("RCPT TO:<poison@")).count();
    let runs = || relay.command(&["job", "runs", "--format", "json", "--limit", "100"]).expect(0).json().len();
    let mut runs_beside = 0;
    for deaths in 1..=3 {
        let before = runs();
        let service = Service::start(&relay);
        until("it is attempted", || attempts() == deaths);
        if deaths > 1 {
            std::thread::sleep(Duration::from_millis(1200));
            runs_beside += runs() - before;
        }
        service.kill();
        // From now on the first is a suspect, and alone in hand whatever else waits.
        relay.submit("me@example.org", &["other@example.net"], "Subject: s\n\nb\n");
    }
    assert_eq!((peer.transactions().len(), runs_beside), (0, 0));
    let service = Service::start(&relay);
    peer.wait_for_transactions(3);
    service.wait_until_settled();
    assert_eq!(service.health("EmptyErrorMailRepository"), ("degraded".into(), "MailRepository is not empty".into()));
    service.stop();
    let set_aside = relay.mails("var/mail/error");
    assert_eq!(set_aside.len(), 1);
    assert_eq!(set_aside[0]["recipients"][0], "poison@example.net");
    assert!(set_aside[0]["error"].as_str().is_some_and(|why| why.contains("3 times in a row")), "{set_aside:?}");
    assert_eq!(attempts(), 3, "nobody is contacted for it a fourth time");
    let key = set_aside[0]["key"].as_str().expect("a key");
    relay.command(&["repository", "reprocess", "var/mail/error", key, "--processor", "relay"]).expect(0);
}

#[test]
fn a_session_with_the_second_gateway_does_not_draw_mail_away_from_the_first() {
    let second = SmtpSink::start(Script::new());
    let away = SocketAddr::from((fresh_loopback(), second.port()));
    let relay = served(Setup::gateway(format!("{away}, {}", second.address())).top("downFor: 1s"));
    let service = Service::start(&relay);
    service.submit(&["a@example.net"], "a");
    second.wait_for_transactions(1);

    let first = SmtpSink::start_at(away, Script::new());
    // The session with the second one stays open for 5 s behind each mail; the first is
    // remembered as down for 1 s.
    let begun = Instant::now();
    while first.transactions().is_empty() {
        assert!(begun.elapsed() < Duration::from_mins(1), "all mail goes to the second");
        service.submit(&["b@example.net"], "b");
        until("it is settled", || service.in_spool() == 0);
    }
    service.stop();
}
