//! Mails to more recipients than one transaction takes: by our own number, and by the peer's.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, Transaction, close, on, reply, script};
use crate::support::zones::Zones;

fn recipients(number: usize) -> Vec<String> {
    (0..number).map(|n| format!("r{n}@example.net")).collect()
}

/// How many recipients each transaction had, in their order.
fn sizes(peer: &SmtpSink) -> Vec<usize> {
    peer.transactions().iter().map(|t| t.recipients.len()).collect()
}

fn each_once(peer: &SmtpSink, number: usize) {
    let all: Vec<_> = peer.transactions().into_iter().flat_map(|t| t.recipients).collect();
    let different: BTreeSet<_> = all.iter().collect();
    assert_eq!((all.len(), different.len()), (number, number), "each once");
}

/// The recipients of the only attempt that ended so.
fn with_outcome(relay: &Relay, outcome: &str) -> Vec<Value> {
    let attempts = relay.attempts();
    assert_eq!(attempts.len(), 1, "one attempt");
    let all = attempts[0]["recipients"].as_array().expect("recipients");
    all.iter().filter(|record| record["outcome"] == outcome).cloned().collect()
}

#[test]
fn a_thousand_recipients_for_a_peer_that_takes_a_hundred_are_delivered_in_one_pass() {
    for (number, refusal, pipelining) in [
        (1000, "452 4.5.3 too many", &["PIPELINING"][..]),
        (1000, "452 4.5.3 too many", &[]),
        (300, "552 5.5.3 too many", &["PIPELINING"]),
        (300, "452 Too many recipients", &[]),
        (300, "552 sorry, too many recipients in one go", &["PIPELINING"]),
    ] {
        let peer = SmtpSink::start(script![on("RCPT").accepted(100) => refusal].capabilities(pipelining));
        let relay = Setup::gateway(peer.address()).delivery("maxRecipientsPerTransaction: 1000").build();
        relay.fill([recipients(number)]);

        assert_eq!(relay.run_spool().expect(0).counts(), [1, number as u64, 0, 0, 0, 0], "{refusal}, {pipelining:?}");

        assert_eq!((sizes(&peer), peer.connections()), (vec![100; number / 100], 1), "{refusal}, {pipelining:?}");
        each_once(&peer, number);
        assert_eq!(with_outcome(&relay, "delivered").len(), number);
        assert_eq!((peer.violations(), peer.record().notes), (vec![], vec![]));
    }
}

#[test]
fn our_own_groups_spare_the_peer_the_refusals() {
    for (setting, expected) in
        [(None, vec![100, 100, 50]), (Some(60), vec![60, 60, 60, 60, 10]), (Some(1), vec![1; 250])]
    {
        let peer = SmtpSink::start(script![on("RCPT").accepted(100) => "452 4.5.3 too many"]);
        let setup = Setup::gateway(peer.address());
        let relay = match setting {
            Some(number) => setup.delivery(&format!("maxRecipientsPerTransaction: {number}")),
            None => setup,
        }
        .build();
        relay.fill([recipients(250)]);
        relay.run_spool().expect(0);
        assert_eq!((sizes(&peer), peer.connections()), (expected, 1), "{setting:?}");
        let asked = peer.commands().iter().filter(|line| line.starts_with("RCPT")).count();
        assert_eq!(asked, 250, "{setting:?}: nobody is asked twice");
        each_once(&peer, 250);
    }
}

#[test]
fn any_other_452_is_that_recipient_s_deferral() {
    for pipelining in [&["PIPELINING"][..], &[]] {
        let rules = script![
            "RCPT TO:<r1@" => "452 4.2.2 mailbox full",
            "RCPT TO:<r2@" => "452 4.3.1 insufficient storage",
            "RCPT TO:<r3@" => "452 try later",
            "RCPT TO:<r4@" => "552 5.2.2 mailbox full",
        ];
        let peer = SmtpSink::start(rules.capabilities(pipelining));
        let relay = Setup::gateway(peer.address()).build();
        relay.fill([recipients(7)]);
        assert_eq!(relay.run_spool().expect(75).counts(), [1, 3, 4, 0, 0, 0], "{pipelining:?}");
        assert_eq!(sizes(&peer), [3], "{pipelining:?}: no further transaction");
    }
}

#[test]
fn a_peer_that_takes_nobody_any_more_is_not_asked_for_ever() {
    for pipelining in [&["PIPELINING"][..], &[]] {
        // Three, and then none in whatever transaction.
        let rules = script![on("RCPT").times(3) => "250 ok", "RCPT" => "452 4.5.3 too many recipients"];
        let peer = SmtpSink::start(rules.capabilities(pipelining));
        let relay = Setup::gateway(peer.address()).build();
        relay.fill([recipients(50)]);
        assert_eq!(relay.run_spool().expect(75).counts(), [1, 3, 47, 0, 0, 0], "{pipelining:?}");
        assert_eq!(sizes(&peer).iter().sum::<usize>(), 3);
        assert!(with_outcome(&relay, "deferred").iter().all(|r| r["code"] == 452 && r["stage"] == "rcpt"));
        let asked = peer.commands().iter().filter(|line| line.starts_with("RCPT")).count();
        assert!(asked <= 150, "{pipelining:?}: {asked} times");
    }
}

#[test]
fn refusals_among_groups_are_each_recipient_s_own() {
    let rules = script![
        "RCPT TO:<r1" => "550 5.1.1 no such user",
        "RCPT TO:<r2" => "450 4.2.0 later",
        on("RCPT").accepted(10) => "452 4.5.3 too many recipients",
    ];
    let peer = SmtpSink::start(rules);
    let relay = Setup::gateway(peer.address()).build();
    relay.fill([recipients(100)]);
    // 1 and 10 to 19, 2 and 20 to 29.
    assert_eq!(relay.run_spool().expect(69).counts(), [1, 78, 11, 11, 0, 0]);
    assert!(with_outcome(&relay, "failed").iter().all(|r| r["reply"] == "550 5.1.1 no such user"));
    assert!(with_outcome(&relay, "deferred").iter().all(|r| r["reply"] == "450 4.2.0 later"));
    each_once(&peer, 78);
}

#[test]
fn a_session_that_ends_between_two_groups_costs_nothing() {
    for then in [close(), reply("421 4.7.0 one message a session").then(close())] {
        let peer = SmtpSink::start(script![on("MAIL").nth(2) => then]);
        let relay = Setup::gateway(peer.address()).delivery("maxRecipientsPerTransaction: 10").build();
        relay.fill([recipients(35)]);
        assert_eq!(relay.run_spool().expect(0).counts(), [1, 35, 0, 0, 0, 0]);
        assert_eq!((sizes(&peer), peer.connections()), (vec![10, 10, 10, 5], 4));
        each_once(&peer, 35);
    }
}

#[test]
fn who_was_sent_to_before_a_group_failed_is_not_sent_to_again() {
    let peer = SmtpSink::start(script![on(".").to("r10@example.net").times(1) => "451 4.3.0 not this group"]);
    let relay = Setup::gateway(peer.address()).delivery("maxRecipientsPerTransaction: 10").build();
    relay.fill([recipients(30)]);
    assert_eq!(relay.run_spool().expect(75).counts(), [1, 20, 10, 0, 0, 0]);
    assert_eq!(relay.sweep().expect(0).counts(), [1, 10, 0, 0, 0, 0]);
    let taken: Vec<_> =
        peer.transactions().into_iter().filter(Transaction::is_taken).flat_map(|t| t.recipients).collect();
    assert_eq!((taken.len(), taken.iter().collect::<BTreeSet<_>>().len()), (30, 30));
}

#[test]
fn of_thirty_domains_only_the_failing_ones_stay() {
    let good = SmtpSink::start(Script::new());
    let bad = SmtpSink::beside(&good, script!["RCPT" => "450 4.2.0 later"]);
    let zone = |n: usize| format!("d{n}.example A {}\n", if n % 10 == 3 { bad.ip() } else { good.ip() });
    let zones = Zones::start(&(0..30).map(zone).collect::<String>());
    let relay = Setup::mx(&zones, good.port()).build();
    relay.fill([(0..600).map(|n| format!("r{n}@d{}.example", n % 30)).collect::<Vec<_>>()]);

    assert_eq!(relay.run_spool().expect(75).counts(), [1, 540, 60, 0, 0, 0]);

    each_once(&good, 540);
    assert_eq!(good.transactions().len(), 27, "one transaction a domain");
    let left = relay.show_only("temporary");
    assert_eq!(left["recipients"].as_array().map(Vec::len), Some(60));
    let failing =
        |r: &Value| r.as_str().is_some_and(|r| r.split_once("@d").is_some_and(|(_, d)| d.starts_with(['3', '1', '2'])));
    assert!(left["recipients"].as_array().expect("recipients").iter().all(failing));
}
