//! Peers that take their time with a large message, or with every reply: what becomes of
//! their mails, and that others do not wait for them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::message;
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{
    Identity, Script, SmtpSink, Then, close, read_slowly, reply, reset, script, stop_reading, wait,
};
use crate::support::zones::Zones;

/// More than the buffers of both sides take.
fn large_message() -> String {
    message("large") + &"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n".repeat(200_000)
}

/// A good host and another one, and the relay that reaches both.
fn beside_a_good_one(other: Script, line: &str) -> (SmtpSink, SmtpSink, Zones, Relay) {
    let good = SmtpSink::start(Script::new());
    let other = SmtpSink::beside(&good, other);
    let zones = Zones::start(&format!("good.example A {}\nother.example A {}", good.ip(), other.ip()));
    let relay = Setup::mx(&zones, good.port()).delivery(line).delivery("deliveryThreads: 4").build();
    (good, other, zones, relay)
}

/// The only recipient's record in the attempt that has this domain.
fn record(relay: &Relay, domain: &str) -> Value {
    let attempts = relay.attempts();
    let mut all = attempts.iter().map(|attempt| &attempt["recipients"][0]);
    all.find(|record| record["nextHop"] == domain).expect("a record").clone()
}

#[test]
fn a_reply_in_the_middle_of_a_large_message_is_the_outcome() {
    for (what, end) in [("and listens on", None), ("and closes", Some(close())), ("and resets", Some(reset()))] {
        let said = reply("354 go").then(wait(Duration::from_millis(200))).then(reply("452 4.3.1 disk full"));
        // Time for it to be read, as far as a reset is concerned.
        let then = end.map_or(said.clone(), |end| said.then(wait(Duration::from_millis(100))).then(end));
        let (_, other, _zones, relay) =
            beside_a_good_one(script!["DATA" => then.then(stop_reading())].receive_buffer(4096), "timeout: 10s");
        relay.submit("me@example.org", &["you@other.example"], &large_message());

        let finished = relay.run_spool().expect(75);

        let record = record(&relay, "other.example");
        let seen = ["outcome", "code", "reply", "stage"].map(|name| record[name].clone());
        assert_eq!(seen, [json!("deferred"), json!(452), json!("452 4.3.1 disk full"), json!("data")], "{what}");
        assert!(finished.elapsed < Duration::from_secs(9), "{what}: it is not waited for anything: {finished:?}");
        assert_eq!((other.connections(), other.transactions().len()), (1, 0), "{what}");
    }
}

#[test]
fn a_peer_that_stops_reading_is_given_up_and_holds_up_nobody() {
    let stops = script!["DATA" => reply("354 go").then(stop_reading())].receive_buffer(4096);
    let (good, other, _zones, relay) = beside_a_good_one(stops, "timeout: 2s");
    relay.submit("me@example.org", &["you@other.example"], &large_message());
    relay.fill((0..50).map(|n| vec![format!("r{n}@good.example")]));

    assert_eq!(relay.run_spool().expect(75).counts(), [51, 50, 1, 0, 0, 0]);

    let record = record(&relay, "other.example");
    assert_eq!((&record["outcome"], &record["stage"]), (&json!("deferred"), &json!("data")), "{record}");
    assert!(record["cause"].as_str().is_some_and(|cause| cause.contains("timed out after 2 s")), "{record}");
    let given_up = other.record().transactions.first().map_or_else(std::time::Instant::now, |t| t.ended);
    let good_ones_left = good.transactions().iter().map(|t| t.ended).max().expect("transactions");
    assert!(good_ones_left < given_up, "the good ones did not wait for it");
}

#[test]
fn a_peer_that_takes_its_time_with_every_reply_is_given_up_and_holds_up_nobody() {
    let after = |text: &str| -> Then { wait(Duration::from_millis(400)).then(reply(text)) };
    let slow = script!["MAIL" => after("250 ok"), "RCPT" => after("250 ok"), "DATA" => after("354 go")];
    let (good, other, _zones, relay) = beside_a_good_one(slow.capabilities(&[]), "attemptTimeout: 1s");
    let to = |domain: &str, number: usize| (0..number).map(|n| vec![format!("r{n}@{domain}")]).collect::<Vec<_>>();
    relay.fill(to("other.example", 10).into_iter().chain(to("good.example", 100)));

    assert_eq!(relay.run_spool().expect(75).counts(), [110, 100, 10, 0, 0, 0]);

    let cause = record(&relay, "other.example")["cause"].clone();
    assert!(cause.as_str().is_some_and(|cause| cause.contains("longer than 1 s")), "{cause}");
    let last_try = other.record().connections.iter().map(|c| c.opened).max().expect("connections");
    let good_ones_left = good.transactions().iter().map(|t| t.ended).max().expect("transactions");
    assert!(good_ones_left < last_try, "the good ones did not wait for it");
    assert_eq!((other.transactions().len(), other.connections()), (0, 10), "one attempt each");
}

/// A message of so many octets, more or less.
fn message_of(octets: usize) -> String {
    message("sized") + &"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n".repeat(octets / 64)
}

/// Reads 40 kB a second; in clear and within TLS.
fn slow_readers() -> [(&'static str, Script); 2] {
    let slow = || script!["DATA" => read_slowly(40_000).then(reply("354 go"))].receive_buffer(16 * 1024);
    [("in clear", slow()), ("within TLS", slow().starttls(Identity::self_signed("mx.example.net")))]
}

#[test]
fn a_large_message_to_a_slow_peer_ends_with_the_time_of_its_transaction_and_not_in_doubt() {
    for (what, script) in slow_readers() {
        let peer = SmtpSink::start(script);
        let relay = Setup::gateway(peer.address()).delivery("attemptTimeout: 3s").delivery("timeout: 20s").build();
        relay.submit("me@example.org", &["you@example.net"], &message_of(3_000_000));

        let finished = relay.run_spool().expect(75);

        let record = relay.only_record();
        let seen = ["outcome", "code", "stage"].map(|name| record[name].clone());
        assert_eq!(seen, [json!("deferred"), Value::Null, json!("data")], "{what}: {record}");
        let cause = record["cause"].as_str().unwrap_or_default();
        assert!(cause.contains("longer than 3 s") && !cause.contains("in doubt"), "{what}: {cause}");
        assert_eq!(relay.attempts()[0]["state"], "settled", "{what}");
        assert!(finished.elapsed < Duration::from_secs(8), "{what}: {:?}", finished.elapsed);
        // A plain close would still send what the kernel has.
        peer.wait_for_end_of_connections();
        assert!(peer.record().notes.contains(&"connection 1: reset".to_owned()), "{what}: {:?}", peer.record().notes);
        assert!(peer.transactions().iter().all(|transaction| !transaction.complete), "{what}");
    }
}

#[test]
fn a_peer_that_is_slow_and_never_stands_still_gets_its_mail() {
    for (what, script) in slow_readers() {
        let peer = SmtpSink::start(script);
        // It reads for longer than that in all, and what it has in buffers when the final dot comes for less.
        let relay = Setup::gateway(peer.address()).delivery("timeout: 3s").build();
        let message = message_of(200_000);
        relay.submit("me@example.org", &["you@example.net"], &message);

        let finished = relay.run_spool().expect(0);

        assert!(finished.elapsed > Duration::from_secs(4), "{what}: it was slow: {:?}", finished.elapsed);
        let content = &peer.transactions()[0].content;
        assert!(content.len() > message.len() && peer.violations().is_empty(), "{what}: {:?}", peer.violations());
    }
}

#[test]
fn a_peer_that_reads_to_the_end_and_is_silent_then_may_have_the_mail() {
    let silent = || script!["." => stop_reading()];
    for (what, script) in
        [("in clear", silent()), ("within TLS", silent().starttls(Identity::self_signed("mx.example.net")))]
    {
        for octets in [1000, 300_000] {
            let peer = SmtpSink::start(script.clone());
            let relay = Setup::gateway(peer.address()).delivery("timeout: 1s").build();
            relay.submit("me@example.org", &["you@example.net"], &message_of(octets));
            relay.run_spool().expect(75);
            let record = relay.only_record();
            let cause = record["cause"].as_str().unwrap_or_default();
            assert!(cause.contains("in doubt"), "{what}, {octets}: {cause}");
            assert_eq!(record["stage"], "end-of-data", "{what}, {octets}");
        }
    }
}
