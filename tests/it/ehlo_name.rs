//! Peers that refuse mail for the name we gave with EHLO.

use serde_json::{Value, json};

use crate::support::message;
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, on, reply, script};

/// What becomes of a mail from a relay that calls itself `web1`.
fn ended(script: Script, delivery: Option<&str>) -> (Relay, Value, SmtpSink) {
    let peer = SmtpSink::start(script);
    let mut setup = Setup::gateway(peer.address());
    if let Some(line) = delivery {
        setup = setup.delivery(line);
    }
    let relay = setup.build();
    relay.reconfigure("hostname: relay.test", "hostname: web1");
    relay.submit("me@example.org", &["you@example.net"], &message("m"));
    relay.run_spool();
    let record = relay.only_record();
    (relay, record, peer)
}

#[test]
fn a_refusal_of_our_name_is_our_trouble_and_waits_until_it_is_set() {
    let postfix = "504 5.5.2 <web1>: Helo command rejected: need fully-qualified hostname";
    // At, reply, outcome, whether the cause names the key, whether a note suspects it.
    for (at, said, outcome, named, noted) in [
        ("RCPT", postfix, "deferred", true, false),
        (
            "RCPT",
            "550 5.7.1 <you@example.net>: Recipient address rejected: EHLO name web1 is bogus",
            "deferred",
            true,
            false,
        ),
        ("MAIL", postfix, "deferred", true, false),
        ("MAIL", "550 5.7.25 invalid HELO WEB1, fix it", "deferred", true, false),
        ("RCPT", "501 5.5.4 HELO requires a valid host name", "failed", false, true),
        ("MAIL", "550 5.7.1 bad helo", "failed", false, true),
        ("RCPT", "550 5.1.1 <helo@web1>: no such user", "failed", false, false),
        ("RCPT", "550 5.1.1 no such user at web1", "failed", false, false),
        ("RCPT", "450 4.7.1 <web1>: Helo command rejected: Host not found", "deferred", false, false),
        (".", "550 5.7.1 message from HELO web1 refused", "failed", false, false),
    ] {
        let (relay, record, peer) = ended(script![on(at) => reply(said)], None);
        assert_eq!((&record["outcome"], &record["reply"]), (&json!(outcome), &json!(said)), "{record}");
        let cause = record["cause"].as_str().unwrap_or_default();
        let named_so = cause.contains("refuses the EHLO name \"web1\"") && cause.contains("set 'hostname'");
        assert_eq!(named_so, named, "{said}: {cause}");
        let notes = record["notes"].to_string();
        assert_eq!(notes.contains("our EHLO name"), noted, "{said}: {notes}");
        assert_eq!(peer.connections(), 1, "{said}");
        let place = if outcome == "failed" { "permanent" } else { "temporary" };
        assert_eq!(relay.mails(place)[0]["passes"], 1, "it counts: {said}");
    }
}

#[test]
fn refused_at_ehlo_and_helo_it_names_the_key_too() {
    let said = "550 5.7.1 EHLO web1: go away";
    let (_, record, _) = ended(script![on("EHLO") => reply(said), on("HELO") => reply(said)], Some("heloName: web1"));
    assert_eq!((&record["outcome"], &record["stage"]), (&json!("deferred"), &json!("ehlo")), "{record}");
    assert!(record["cause"].to_string().contains("set 'heloName'"), "{record}");
}

#[test]
fn once_the_name_is_set_right_the_mail_goes_out() {
    let refused = "504 5.5.2 <web1>: Helo command rejected: need fully-qualified hostname";
    let (relay, _, peer) = ended(script![on("RCPT").times(1) => reply(refused)], None);
    relay.reconfigure("hostname: web1", "hostname: web1.example.org");
    relay.sweep().expect(0);
    assert_eq!(peer.transactions().len(), 1);
}

#[test]
fn a_name_outside_ascii_is_given_as_the_dns_has_it() {
    for (hostname, delivery, said) in [
        ("r\u{e9}lais.example", "timeout: 5s", "EHLO xn--rlais-bsa.example"),
        ("relay.example.org", "heloName: b\u{fc}cher.example", "EHLO xn--bcher-kva.example"),
    ] {
        let peer = SmtpSink::start(Script::new());
        let relay = Setup::gateway(peer.address()).delivery(delivery).build();
        relay.reconfigure("hostname: relay.test", &format!("hostname: {hostname}"));
        relay.submit("me@example.org", &["you@example.net"], &message("m"));
        relay.run_spool().expect(0);
        assert!(peer.commands().iter().any(|line| line == said), "{:?}", peer.commands());
    }
}
