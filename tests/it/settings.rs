//! Settings of RemoteDelivery that change how an attempt is made: names, addresses, order of
//! the gateways, time-outs, all or nobody.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, close, on, reply, reset, script, stall, wait};
use crate::support::{fresh_loopback, message, never_accepting, refusing};

fn one_mail(relay: &Relay, recipients: &[&str]) {
    relay.submit("me@example.org", recipients, &message("m"));
}

#[test]
fn the_ehlo_name_is_the_hostname_unless_helo_name_is_set() {
    for (line, expected) in [("port: 25", "EHLO relay.test"), ("heloName: out.example.org", "EHLO out.example.org")] {
        let peer = SmtpSink::start(Script::new());
        let relay = Setup::gateway(peer.address()).delivery(line).build();
        one_mail(&relay, &["you@example.net"]);
        relay.run_spool().expect(0);
        assert_eq!(peer.commands()[0], expected);
    }
}

#[test]
fn connections_come_from_the_address_that_is_bound() {
    let (peer, bound) = (SmtpSink::start(Script::new()), fresh_loopback());
    let relay = Setup::gateway(peer.address()).delivery(&format!("bind: {bound}")).build();
    one_mail(&relay, &["you@example.net"]);
    relay.run_spool().expect(0);
    let from = peer.record().connections[0].from;
    assert_eq!(from.ip(), bound);
    assert_eq!(relay.record_of("you@example.net")["localAddress"], from.to_string());
}

/// How many mails each of two gateways gets; each closes after one, so that the order is
/// chosen for each.
fn shares(load_balancing: bool) -> [usize; 2] {
    let script = script!["." => reply("250 2.0.0 taken").then(close())];
    let peers = [SmtpSink::start(script.clone()), SmtpSink::start(script)];
    let relay = Setup::gateway(format!("{}, {}", peers[0].address(), peers[1].address()))
        .delivery(&format!("loadBalancing: {load_balancing}"))
        .build();
    relay.fill((0..40).map(|n| vec![format!("r{n}@example.net")]));
    assert_eq!(relay.run_spool().expect(0).counts(), [40, 40, 0, 0, 0, 0]);
    peers.each_ref().map(|peer| peer.transactions().len())
}

#[test]
fn gateways_are_tried_in_the_order_written_unless_the_load_is_balanced() {
    assert_eq!(shares(false), [40, 0]);
    let [first, second] = shares(true);
    assert_eq!(first + second, 40);
    assert!(first >= 5 && second >= 5, "{first} and {second}");
}

#[test]
fn the_next_gateway_takes_over_within_the_pass() {
    for (what, script, over) in [
        ("closes", script!["CONNECT" => close()], true),
        ("resets", script!["CONNECT" => wait(Duration::from_millis(50)).then(reset())], true),
        ("hangs", script!["CONNECT" => stall()], true),
        ("hangs at EHLO", script!["EHLO" => stall()], true),
        ("no SMTP", script!["CONNECT" => "SSH-2.0-OpenSSH"], true),
        ("421 greeting", script!["CONNECT" => reply("421 4.3.2 busy").then(close())], true),
        ("451 to MAIL", script!["MAIL" => "451 4.3.0 later"], true),
        ("450 to RCPT", script!["RCPT" => "450 4.2.0 later"], true),
        ("451 to DATA", script!["DATA" => "451 4.3.0 later"], true),
        ("451 to the dot", script!["." => "451 4.3.0 later"], true),
        ("550 to MAIL", script!["MAIL" => "550 5.7.1 no"], false),
        ("550 to RCPT", script!["RCPT" => "550 5.1.1 no"], false),
        ("554 to the dot", script!["." => "554 5.6.0 no"], false),
        ("no reply to the dot", script!["." => close()], false),
    ] {
        let peers = [SmtpSink::start(script), SmtpSink::start(Script::new())];
        let gateways = format!("{}, {}", peers[0].address(), peers[1].address());
        let relay = Setup::gateway(gateways).delivery("timeout: 1s").build();
        one_mail(&relay, &["you@example.net"]);
        let finished = relay.run_spool();
        assert_eq!(finished.counts()[1], u64::from(over), "{what}: {finished:?}");
        assert_eq!(peers[1].transactions().len(), usize::from(over), "{what}");
        assert_eq!(relay.attempts().len(), 1, "{what}: one attempt");
    }
}

#[test]
fn behind_gateways_that_cannot_be_reached_the_next_takes_over() {
    let (hangs, _listener, _waiting) = never_accepting();
    let peer = SmtpSink::start(Script::new());
    let gateways = format!("{}, {hangs}, {}", refusing(), peer.address());
    let relay = Setup::gateway(gateways).delivery("connectiontimeout: 400ms").build();
    one_mail(&relay, &["you@example.net"]);
    assert_eq!(relay.run_spool().expect(0).counts(), [1, 1, 0, 0, 0, 0]);
    let attempts = relay.attempts();
    let dialogue = attempts[0]["dialogue"].to_string();
    assert!(dialogue.contains("connection refused") && dialogue.contains("timed out after 400 ms"), "{dialogue}");
}

#[test]
fn a_connect_is_given_up_after_its_time_out() {
    for written in ["400", "400ms"] {
        let (address, _listener, _waiting) = never_accepting();
        let relay = Setup::gateway(address).delivery(&format!("connectiontimeout: {written}")).build();
        one_mail(&relay, &["you@example.net"]);
        let finished = relay.run_spool().expect(75);
        assert!(finished.elapsed < Duration::from_secs(5), "{finished:?}");
        let record = relay.record_of("you@example.net");
        assert_eq!(record["stage"], "connect");
        assert!(record["cause"].as_str().is_some_and(|cause| cause.contains("timed out after 400 ms")), "{record}");
    }
}

#[test]
fn a_transaction_that_takes_too_long_is_given_up_however_busy_it_is() {
    let slowly = || wait(Duration::from_millis(300)).then(reply("250 2.1.5 ok"));
    let peer = SmtpSink::start(script!["RCPT" => slowly()].capabilities(&[]));
    let relay = Setup::gateway(peer.address()).delivery("attemptTimeout: 1s").delivery("timeout: 10s").build();
    let recipients: Vec<_> = (0..20).map(|n| format!("r{n}@example.net")).collect();
    one_mail(&relay, &recipients.iter().map(String::as_str).collect::<Vec<_>>());

    let finished = relay.run_spool().expect(75);

    assert_eq!(finished.counts(), [1, 0, 20, 0, 0, 0]);
    assert!(finished.elapsed < Duration::from_secs(5), "{finished:?}");
    let record = relay.record_of("r0@example.net");
    assert!(record["cause"].as_str().is_some_and(|cause| cause.contains("longer than 1 s")), "{record}");
    assert_eq!(peer.transactions().len(), 0);
}

#[test]
fn the_reply_to_the_final_dot_is_waited_for_beyond_the_transaction_s_time() {
    let peer = SmtpSink::start(script!["." => wait(Duration::from_millis(1500)).then(reply("250 2.0.0 taken"))]);
    let relay = Setup::gateway(peer.address()).delivery("attemptTimeout: 1s").delivery("timeout: 10s").build();
    one_mail(&relay, &["you@example.net"]);
    assert_eq!(relay.run_spool().expect(0).counts(), [1, 1, 0, 0, 0, 0]);
}

#[test]
fn each_reply_has_a_time_out_of_its_own() {
    let started = Instant::now();
    let slowly = |text: &str| wait(Duration::from_millis(350)).then(reply(text));
    let script = script!["CONNECT" => slowly("220 sink"), "MAIL" => slowly("250 ok"), "RCPT" => slowly("250 ok"), "DATA" => slowly("354 go"), "." => slowly("250 taken")];
    let peer = SmtpSink::start(script.capabilities(&[]));
    let relay = Setup::gateway(peer.address()).delivery("timeout: 1000").build();
    one_mail(&relay, &["you@example.net"]);
    relay.run_spool().expect(0);
    assert!(started.elapsed() > Duration::from_millis(1700), "all of them together take longer");
}

#[test]
fn quit_is_not_waited_for_longer_than_two_seconds() {
    let peer = SmtpSink::start(script!["QUIT" => stall()]);
    let relay = Setup::gateway(peer.address()).build();
    one_mail(&relay, &["you@example.net"]);
    let finished = relay.run_spool().expect(0);
    assert!(finished.elapsed < Duration::from_secs(5), "{finished:?}");
}

#[test]
fn all_or_nobody_holds_for_each_refusal_and_names_the_reason() {
    for (refusal, outcome, code) in
        [("550 5.1.1 no", "failed", 69), ("450 4.2.0 later", "deferred", 75), ("552 5.2.2 full", "deferred", 75)]
    {
        for pipelining in [&["PIPELINING"][..], &[]] {
            let peer = SmtpSink::start(script!["RCPT TO:<no@" => refusal].capabilities(pipelining));
            let relay = Setup::gateway(peer.address()).delivery("sendpartial: false").build();
            one_mail(&relay, &["a@example.net", "no@example.net", "b@example.net"]);
            relay.run_spool().expect(code);
            assert_eq!(peer.transactions().len(), 0, "{refusal}");
            assert_eq!(relay.record_of("no@example.net")["outcome"], outcome);
            for accepted in ["a@example.net", "b@example.net"] {
                let record = relay.record_of(accepted);
                assert_eq!((&record["outcome"], &record["code"]), (&json!("deferred"), &Value::Null), "{record}");
                assert!(record["cause"].as_str().is_some_and(|cause| cause.contains("sendpartial")), "{record}");
            }
            assert!(
                !peer.commands().iter().any(|line| line == "DATA"),
                "{refusal}, {pipelining:?}: DATA is not said ahead"
            );
            assert_eq!(peer.violations(), Vec::<String>::new());
        }
    }
}

#[test]
fn all_or_nobody_is_true_of_the_next_host_too() {
    // The second host would take all but one; then those of the first are not sent to either.
    let peers = [
        SmtpSink::start(script!["RCPT TO:<a@" => "450 4.2.0 later"]),
        SmtpSink::start(script![on("RCPT TO:<b@") => "550 5.1.1 no"]),
    ];
    let relay = Setup::gateway(format!("{}, {}", peers[0].address(), peers[1].address()))
        .delivery("sendpartial: false")
        .build();
    one_mail(&relay, &["a@example.net", "b@example.net"]);
    relay.run_spool().expect(75);
    assert!(peers.iter().all(|peer| peer.transactions().is_empty()), "nobody is sent to unless all are");
}
