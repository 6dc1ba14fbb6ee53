//! Mail that would go round in circles: our own address among the hosts, by whatever way it
//! comes to be there, and messages that have passed too many relays.

use serde_json::Value;

use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, close, script};
use crate::support::zones::Zones;
use crate::support::{fresh_loopback, message};

fn one_mail(relay: &Relay, recipient: &str) {
    relay.submit("me@example.org", &[recipient], &message("m"));
}

/// `outcome enhanced stage` of the only recipient.
fn ending(relay: &Relay) -> String {
    let attempts = relay.attempts();
    assert_eq!(attempts.len(), 1);
    let record = &attempts[0]["recipients"][0];
    ["outcome", "enhanced", "stage"].map(|name| record[name].as_str().unwrap_or("-").to_owned()).join(" ")
}

/// A relay that listens at `listen`, beside peers at one port.
fn listening(zones: &Zones, port: u16, listen: &str) -> Relay {
    Setup::mx(zones, port).top(&format!("smtp: {{ listen: [\"{listen}\"] }}")).build()
}

/// We are the backup, between a better host and a worse one.
fn backup(better: Script) -> (Relay, Zones, [SmtpSink; 3]) {
    let better = SmtpSink::start(better);
    let ourselves = SmtpSink::beside(&better, Script::new());
    let worse = SmtpSink::beside(&better, Script::new());
    let zones = Zones::start(&format!(
        "example.net MX 10 better.example.net
         example.net MX 20 backup.example.net
         example.net MX 20 equal.example.net
         example.net MX 30 worse.example.net
         better.example.net A {}
         backup.example.net A {}
         equal.example.net A {2}
         worse.example.net A {2}",
        better.ip(),
        ourselves.ip(),
        worse.ip()
    ));
    let relay = listening(&zones, better.port(), &ourselves.address().to_string());
    (relay, zones, [better, ourselves, worse])
}

#[test]
fn a_backup_hands_on_to_better_hosts_and_to_nobody_else() {
    let (relay, _zones, [better, ourselves, worse]) = backup(Script::new());
    one_mail(&relay, "you@example.net");
    relay.run_spool().expect(0);
    assert_eq!([&better, &ourselves, &worse].map(|peer| peer.transactions().len()), [1, 0, 0]);
}

#[test]
fn a_backup_keeps_the_mail_while_the_better_hosts_are_down() {
    let (relay, _zones, [better, ourselves, worse]) = backup(script!["CONNECT" => close()]);
    one_mail(&relay, "you@example.net");
    relay.run_spool().expect(75);
    assert_eq!(ending(&relay), "deferred 4.4.2 banner");
    assert_eq!([&better, &ourselves, &worse].map(SmtpSink::connections), [1, 0, 0], "it would come back");
    assert_eq!(relay.size("temporary"), 1);
}

#[test]
fn our_own_name_among_the_hosts_is_ourselves_wherever_it_leads() {
    for own in ["relay.test", "RELAY.Test"] {
        let worse = SmtpSink::start(Script::new());
        let zones = Zones::start(&format!(
            "example.net MX 10 {own}
             example.net MX 20 worse.example.net
             relay.test A {}
             worse.example.net A {}",
            fresh_loopback(),
            worse.ip()
        ));
        let relay = Setup::mx(&zones, worse.port()).build();
        one_mail(&relay, "you@example.net");
        relay.run_spool().expect(69);
        assert_eq!((ending(&relay).as_str(), worse.connections()), ("failed 5.4.6 dns", 0), "{own}");
    }
}

#[test]
fn our_own_address_is_known_by_every_way_to_it() {
    let us = SmtpSink::start(Script::new());
    let zones =
        Zones::start(&format!("implicit.example A {0}\nmx.example MX 5 host.example\nhost.example A {0}", us.ip()));
    for listen in [us.address().to_string(), format!("0.0.0.0:{}", us.port())] {
        for recipient in ["you@implicit.example", "you@mx.example", &format!("you@[{}]", us.ip())] {
            let relay = listening(&zones, us.port(), &listen);
            one_mail(&relay, recipient);
            relay.run_spool().expect(69);
            assert_eq!(ending(&relay), "failed 5.4.6 dns", "{recipient}, {listen}");
        }
    }
    assert_eq!(us.connections(), 0);
}

/// The unspecified address, and IPv4 written as IPv6, lead to this machine too.
#[test]
fn our_own_address_is_known_however_it_is_written() {
    let us = SmtpSink::start_at((std::net::Ipv4Addr::LOCALHOST, 0), Script::new());
    let zones = Zones::start(
        "zero.example   A 0.0.0.0
         mapped.example AAAA ::ffff:127.0.0.1
         both.example   A 127.0.0.1
         both.example   AAAA ::",
    );
    for recipient in [
        "you@zero.example",
        "you@mapped.example",
        "you@both.example",
        "you@[0.0.0.0]",
        "you@[127.0.0.1]",
        "you@[IPv6:::ffff:127.0.0.1]",
    ] {
        let relay = listening(&zones, us.port(), &us.address().to_string());
        one_mail(&relay, recipient);
        relay.run_spool().expect(69);
        assert_eq!(ending(&relay), "failed 5.4.6 dns", "{recipient}");
    }
    assert_eq!(us.connections(), 0);
}

#[test]
fn the_same_address_at_another_port_is_somebody_else() {
    let peer = SmtpSink::start(Script::new());
    let zones = Zones::start(&format!("example.net A {}", peer.ip()));
    let other = if peer.port() == 65535 { 65534 } else { peer.port() + 1 };
    let relay = listening(&zones, peer.port(), &format!("{}:{other}", peer.ip()));
    one_mail(&relay, "you@example.net");
    relay.run_spool().expect(0);
    assert_eq!(peer.transactions().len(), 1);
}

#[test]
fn a_gateway_that_is_ourselves_is_our_own_mistake_and_no_failure() {
    let us = SmtpSink::start(Script::new());
    let listen = format!("smtp: {{ listen: [\"{}\"] }}", us.address());
    let relay = Setup::gateway(us.address()).top(&listen).build();
    one_mail(&relay, "you@example.net");
    relay.run_spool().expect(75);
    assert_eq!(us.connections(), 0);
    let record: Value = relay.attempts()[0]["recipients"][0].clone();
    assert!(record["cause"].as_str().is_some_and(|cause| cause.contains("this relay itself")), "{record}");
}

#[test]
fn a_message_that_has_passed_a_hundred_relays_is_taken_and_one_more_is_not() {
    let peer = SmtpSink::start(Script::new());
    let relay = Setup::gateway(peer.address()).build();
    let passed = |relays: usize| format!("{}{}", "Received: from a by b; now\n".repeat(relays), message("m"));
    let arguments = ["sendmail", "-i", "-f", "me@example.org", "--", "you@example.net"];

    let refused = relay.command_with_input(&arguments, passed(101).as_bytes()).expect(65);
    assert!(refused.stderr.contains("Received") && refused.stderr.lines().count() == 1, "{refused:?}");
    assert_eq!(relay.run_spool().expect(0).counts(), [0; 6], "nothing was taken");

    relay.command_with_input(&arguments, passed(100).as_bytes()).expect(0);
    assert_eq!(relay.run_spool().expect(0).counts(), [1, 1, 0, 0, 0, 0]);
    let text = peer.transactions()[0].text();
    let fields = text.lines().filter(|line| line.starts_with("Received:")).count();
    assert_eq!(fields, 101, "exactly one of our own");
}
