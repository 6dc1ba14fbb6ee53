//! Sessions that carry more than one mail: what they save, and that nothing a peer does to
//! one of them costs a mail anything it would not have cost without it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, Transaction, close, on, reply, reset, script, wait};
use crate::support::zones::Zones;

/// `number` mails in the spool, each for a recipient of its own: `r0@example.net` and so on.
fn fill(relay: &Relay, number: usize) {
    relay.fill((0..number).map(|n| vec![format!("r{n}@example.net")]));
}

/// How often each recipient was sent to, by what peers have taken.
fn copies<'a>(peers: impl IntoIterator<Item = &'a SmtpSink>) -> BTreeMap<String, usize> {
    let mut copies = BTreeMap::new();
    for transaction in peers.into_iter().flat_map(SmtpSink::transactions).filter(Transaction::is_taken) {
        for recipient in transaction.recipients {
            *copies.entry(recipient).or_default() += 1;
        }
    }
    copies
}

/// All mails of [`fill`] are delivered, each once and in one attempt, by a well-behaved client.
fn expect_each_once(what: &str, relay: &Relay, peer: &SmtpSink, number: usize) {
    let finished = relay.run_spool();
    let all = number as u64;
    assert_eq!((finished.code, finished.counts()), (Some(0), [all, all, 0, 0, 0, 0]), "{what}: {finished:?}");
    let expected: BTreeMap<_, _> = (0..number).map(|n| (format!("r{n}@example.net"), 1)).collect();
    assert_eq!(copies([peer]), expected, "{what}");
    assert_eq!(relay.attempts().len(), number, "{what}: one attempt a mail");
    assert_eq!(peer.violations(), Vec::<String>::new(), "{what}");
}

fn commands_of(peer: &SmtpSink, connection: usize) -> Vec<String> {
    peer.record().connections[connection].commands.iter().map(|(_, line)| line.clone()).collect()
}

fn count(peer: &SmtpSink, verb: &str) -> usize {
    peer.commands().iter().filter(|line| line.starts_with(verb)).count()
}

#[test]
fn one_session_carries_a_hundred_mails_and_takes_leave() {
    let peer = SmtpSink::start(Script::new());
    let relay = Setup::gateway(peer.address()).delivery("deliveryThreads: 1").build();
    fill(&relay, 100);
    expect_each_once("one session", &relay, &peer, 100);
    assert_eq!((peer.connections(), count(&peer, "EHLO"), count(&peer, "RSET")), (1, 1, 0));
    assert_eq!(commands_of(&peer, 0).last().map(String::as_str), Some("QUIT"));
    assert_eq!(peer.record().notes, Vec::<String>::new());
    let again = |attempt: &Value| attempt["dialogue"].to_string().contains("reused");
    assert_eq!(relay.attempts().iter().filter(|attempt| again(attempt)).count(), 99, "and the record says so");
}

#[test]
fn many_sessions_share_the_mails_and_all_take_leave() {
    let peer = SmtpSink::start(script!["." => wait(Duration::from_millis(5)).then(reply("250 2.0.0 taken"))]);
    let relay = Setup::gateway(peer.address()).delivery("deliveryThreads: 4").build();
    fill(&relay, 100);
    expect_each_once("four sessions", &relay, &peer, 100);
    assert_eq!((peer.connections(), count(&peer, "QUIT")), (4, 4));
    assert_eq!(peer.record().notes, Vec::<String>::new());
}

#[test]
fn sessions_to_many_hosts_all_take_leave() {
    let first = SmtpSink::start(Script::new());
    let peers: Vec<_> = (0..7).map(|_| SmtpSink::beside(&first, Script::new())).collect();
    let zone = |(n, peer): (usize, &SmtpSink)| format!("d{n}.example A {}\n", peer.ip());
    let zones = Zones::start(&peers.iter().enumerate().map(zone).collect::<String>());
    // Fewer connections than hosts: idle ones make room.
    let relay = Setup::mx(&zones, first.port()).delivery("deliveryThreads: 2").build();
    relay.fill((0..70).map(|n| vec![format!("r{n}@d{}.example", n % 7)]));

    assert_eq!(relay.run_spool().expect(0).counts(), [70, 70, 0, 0, 0, 0]);

    assert!(copies(&peers).values().all(|copies| *copies == 1) && copies(&peers).len() == 70);
    for peer in &peers {
        assert_eq!((peer.violations(), peer.record().notes), (vec![], vec![]));
    }
}

#[test]
fn a_peer_that_closes_after_each_mail_takes_a_hundred_each_once() {
    let taken = || reply("250 2.0.0 taken");
    for (what, threads, number, then) in [
        ("closes", 1, 100, taken().then(close())),
        ("closes", 10, 100, taken().then(close())),
        ("resets", 10, 30, taken().then(reset())),
        ("says 421 unasked", 1, 30, taken().then(reply("421 4.3.2 that is all")).then(close())),
        ("closes a moment later", 1, 30, taken().then(wait(Duration::from_millis(2))).then(close())),
    ] {
        let peer = SmtpSink::start(script!["." => then]);
        let relay = Setup::gateway(peer.address()).delivery(&format!("deliveryThreads: {threads}")).build();
        fill(&relay, number);
        expect_each_once(&format!("{what}, {threads}"), &relay, &peer, number);
        assert_eq!(peer.connections(), number, "{what}: no connection in vain");
    }
}

#[test]
fn a_peer_that_says_421_at_the_sixth_mail_takes_a_hundred_each_once() {
    for pipelining in [&["PIPELINING"][..], &[]] {
        for (what, number, then) in [
            ("and closes", 100, reply("421 4.7.0 enough for one session").then(close())),
            ("and listens on", 30, reply("421 4.7.0 enough for one session")),
        ] {
            let script = script![on("MAIL").nth(6) => then.clone()].capabilities(pipelining);
            let peer = SmtpSink::start(script);
            let relay = Setup::gateway(peer.address()).delivery("deliveryThreads: 1").build();
            fill(&relay, number);
            expect_each_once(&format!("{what}, {pipelining:?}"), &relay, &peer, number);
            assert_eq!(peer.connections(), number / 5, "{what}, {pipelining:?}: five mails a session");
        }
    }
}

#[test]
fn open_sessions_do_not_undo_load_balancing() {
    let first = SmtpSink::start(Script::new());
    let second = SmtpSink::beside(&first, Script::new());
    let relay = Setup::gateway(format!("{}, {}", first.address(), second.address()))
        .delivery("loadBalancing: true")
        .delivery("deliveryThreads: 1")
        .build();
    fill(&relay, 60);

    assert_eq!(relay.run_spool().expect(0).counts(), [60, 60, 0, 0, 0, 0]);
    for peer in [&first, &second] {
        // Of 60 in random order one gets less than 10 once in ten million runs.
        assert!(peer.transactions().len() >= 10, "{} mails", peer.transactions().len());
        assert!(peer.connections() <= 10, "{} connections", peer.connections());
    }
}

#[test]
fn whatever_ends_a_reused_session_before_a_recipient_was_accepted_costs_nothing() {
    let ends = [
        ("EOF", close()),
        ("a reset", reset()),
        ("421 and EOF", reply("421 4.3.2 bye").then(close())),
        ("421 and a reset", reply("421 4.3.2 bye").then(reset())),
        ("421", reply("421 4.3.2 bye")),
    ];
    for (what, then) in ends {
        for stage in ["MAIL", "RCPT"] {
            for pipelining in [&["PIPELINING"][..], &[]] {
                let script = script![on(stage).nth(2) => then.clone()].capabilities(pipelining);
                let peer = SmtpSink::start(script);
                let relay = Setup::gateway(peer.address()).delivery("deliveryThreads: 1").build();
                fill(&relay, 4);
                expect_each_once(&format!("{what} at {stage}, {pipelining:?}"), &relay, &peer, 4);
            }
        }
    }
}

/// The only attempt's `outcome stage`, recipient by recipient.
fn endings(attempt: &Value) -> Vec<String> {
    let recipients = attempt["recipients"].as_array().expect("recipients");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    recipients.iter().map(|r| format!("{} {}", text(&r["outcome"]), text(&r["stage"]))).collect()
}

#[test]
fn a_fresh_connection_is_made_once_and_what_ends_that_is_the_outcome() {
    let rules = script![on("MAIL").connection(1).nth(2) => close(), on("MAIL").connection(2) => close()];
    let peer = SmtpSink::start(rules);
    let relay = Setup::gateway(peer.address()).delivery("deliveryThreads: 1").build();
    fill(&relay, 2);
    assert_eq!(relay.run_spool().expect(75).counts(), [2, 1, 1, 0, 0, 0]);
    assert_eq!(peer.connections(), 2);
    assert_eq!(
        relay.attempts().iter().flat_map(endings).collect::<Vec<_>>(),
        ["delivered end-of-data", "deferred mail"]
    );
}

#[test]
fn once_a_recipient_was_accepted_the_end_of_a_reused_session_is_an_outcome() {
    let accepted = "r1@example.net";
    for (what, when, stage) in [
        ("at the second recipient", on("RCPT").to(accepted), "rcpt"),
        ("at DATA", on("DATA").to(accepted), "data"),
        ("at the final dot", on(".").to(accepted), "end-of-data"),
    ] {
        for pipelining in [&["PIPELINING"][..], &[]] {
            let peer = SmtpSink::start(script![when.clone() => close()].capabilities(pipelining));
            let relay = Setup::gateway(peer.address()).delivery("deliveryThreads: 1").build();
            relay.fill([vec!["r0@example.net"], vec![accepted, "r2@example.net"], vec!["r3@example.net"]]);
            assert_eq!(relay.run_spool().expect(75).counts(), [3, 2, 2, 0, 0, 0], "{what}, {pipelining:?}");
            let attempts = relay.attempts();
            let ended = attempts.iter().find(|a| a["recipients"][0]["recipient"] == accepted).expect("its attempt");
            assert_eq!(endings(ended), vec![format!("deferred {stage}"); 2], "{what}, {pipelining:?}");
            assert!(copies([&peer]).values().all(|copies| *copies == 1), "{what}, {pipelining:?}");
        }
    }
}

#[test]
fn a_recipient_refused_for_good_before_a_reused_session_ended_stays_failed() {
    for pipelining in [&["PIPELINING"][..], &[]] {
        let rules = script![
            "RCPT TO:<no" => "550 5.1.1 no such user",
            // Whichever mail is the second of the session.
            on("RCPT TO:<yes").nth(2) => reply("421 4.3.2 bye").then(close()),
        ];
        let peer = SmtpSink::start(rules.capabilities(pipelining));
        let relay = Setup::gateway(peer.address()).delivery("deliveryThreads: 1").build();
        relay.fill([0, 1].map(|n| vec![format!("no{n}@example.net"), format!("yes{n}@example.net")]));
        assert_eq!(relay.run_spool().expect(69).counts(), [2, 2, 0, 2, 0, 0], "{pipelining:?}");
        assert_eq!((count(&peer, "RCPT TO:<no"), peer.connections()), (2, 2), "who was refused is not asked again");
        for attempt in relay.attempts() {
            assert_eq!(endings(&attempt), ["failed rcpt", "delivered end-of-data"], "{pipelining:?}");
        }
    }
}

#[test]
fn a_refused_mail_does_not_end_a_session() {
    for (what, rules) in [
        ("at MAIL", script![on("MAIL").nth(2) => "550 5.7.1 not this one"]),
        ("at RCPT", script!["RCPT TO:<r1@" => "550 5.1.1 not this one"]),
        ("at DATA", script![on("DATA").to("r1@example.net") => "554 5.7.1 not this one"]),
        ("at the final dot", script![on(".").to("r1@example.net") => "554 5.6.0 not this one"]),
        ("later, at MAIL", script![on("MAIL").nth(2) => "451 4.3.0 not now"]),
        ("later, at RCPT", script!["RCPT TO:<r1@" => "450 4.2.0 not now"]),
        ("later, at the final dot", script![on(".").to("r1@example.net") => "451 4.3.0 not now"]),
    ] {
        let (code, counts) =
            if what.starts_with("later") { (75, [5, 4, 1, 0, 0, 0]) } else { (69, [5, 4, 0, 1, 0, 0]) };
        for pipelining in [&["PIPELINING"][..], &[]] {
            let peer = SmtpSink::start(rules.clone().capabilities(pipelining));
            let relay = Setup::gateway(peer.address()).delivery("deliveryThreads: 1").build();
            fill(&relay, 5);
            assert_eq!(relay.run_spool().expect(code).counts(), counts, "{what}, {pipelining:?}");
            assert_eq!(peer.connections(), 1, "{what}, {pipelining:?}");
            assert_eq!((peer.violations(), peer.record().notes), (vec![], vec![]), "{what}, {pipelining:?}");
        }
    }
}

#[test]
fn a_peer_that_dislikes_rset_costs_nothing() {
    for then in [reply("421 4.3.2 bye").then(close()), reply("502 5.5.1 what"), close(), reset()] {
        let rules = script!["RCPT TO:<r1@" => "550 5.1.1 not this one", "RSET" => then.clone()];
        let peer = SmtpSink::start(rules);
        let relay = Setup::gateway(peer.address()).delivery("deliveryThreads: 1").build();
        fill(&relay, 5);
        assert_eq!(relay.run_spool().expect(69).counts(), [5, 4, 0, 1, 0, 0], "{then:?}");
        assert_eq!(copies([&peer]).len(), 4, "{then:?}");
    }
}
