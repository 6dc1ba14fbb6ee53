//! Mails that were in hand when the service was killed: nobody waits for them for long.

use std::time::Duration;

use super::{Client, Service, message, served};
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, on, script, stall, wait};
use crate::support::zones::Zones;

/// Hands in so many mails to a domain.
fn load(service: &Service, mails: usize, domain: &str) {
    let mut client = Client::connect(service.smtp).expect("it listens");
    for number in 0..mails {
        let recipient = format!("n{number}@{domain}");
        assert!(client.submit(&[&recipient], &message(&format!("n{number}"))).expect("an answer"), "it is taken");
    }
}

/// A relay with a peer for `slow.example` and one for `good.example`.
fn two_peers(slow: Script) -> (Relay, SmtpSink, SmtpSink, Zones) {
    let slow = SmtpSink::start(slow);
    let good = SmtpSink::beside(&slow, Script::new());
    let zones = Zones::start(&format!(
        "slow.example MX 10 mx.slow.example\nmx.slow.example A {}\ngood.example MX 10 mx.good.example\nmx.good.example A {}",
        slow.ip(),
        good.ip()
    ));
    (served(Setup::mx(&zones, slow.port()).limit(8)), slow, good, zones)
}

#[test]
fn a_peer_that_never_answers_does_not_hold_up_the_spool_after_a_kill() {
    // Each in a session of its own, until the time-out of five minutes for a reply to RCPT.
    let (relay, slow, good, _zones) = two_peers(script!["RCPT" => stall()]);
    let service = Service::start(&relay);
    load(&service, 6, "slow.example");
    slow.wait_for_connections(6);
    service.kill();

    let before = slow.connections();
    let service = Service::start(&relay);
    slow.wait_for_connections(before + 1);
    service.submit(&["you@good.example"], "new");
    good.wait_for_transactions(1);
    assert!(slow.record().connections[before..].iter().all(|one| one.closed.is_none()), "they are still waited for");
    service.kill();
}

#[test]
fn many_mails_in_hand_at_a_kill_are_not_passed_one_by_one() {
    let (relay, slow, good, _zones) =
        two_peers(script![on(".") => wait(Duration::from_millis(500)).then("250 2.0.0 ok")]);
    let service = Service::start(&relay);
    load(&service, 60, "slow.example");
    slow.wait_for_transactions(1);
    service.kill();
    let before = slow.record();

    let service = Service::start(&relay);
    service.submit(&["you@good.example"], "new");
    good.wait_for_transactions(1);
    service.wait_until_settled();
    let record = slow.record();
    let beside = record.connections[before.connections.len() + 1].opened;
    let after = &record.transactions[before.transactions.len()..];
    let alone = after.iter().filter(|transaction| transaction.ended < beside).count();
    // Those of ten connections at the kill, and those of them whose end was not on record yet.
    assert!((1..=25).contains(&alone), "{alone} mails were passed one by one");
    service.stop();
    for number in 0..60 {
        assert!(slow.copies_of(&format!("n{number}@slow.example"), "<n") >= 1, "{number}");
    }
}
