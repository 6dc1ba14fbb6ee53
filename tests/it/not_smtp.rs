//! Peers that say something which is no SMTP reply: what was said before it holds, and the
//! record shows the octets that the operator has to complain of.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, Then, close, raw, reply, script, stall, wait};
use crate::support::zones::Zones;

const WITH_AND_WITHOUT: [&[&str]; 2] = [&["PIPELINING"], &[]];

/// What is no reply, or none that can be read to its end.
fn no_replies() -> Vec<(&'static str, Then)> {
    vec![
        ("no code", raw("banana\r\n")),
        ("a code out of range", raw("999 what\r\n")),
        ("codes that disagree", raw("250-2.1.5 ok\r\n550 5.1.1 no\r\n")),
        ("a long line", raw(format!("250 {}\r\n", "x".repeat(5000)))),
        ("a long reply", raw(format!("{}250 ok\r\n", "250-yes\r\n".repeat(12_000)))),
        ("a reply cut short", raw("250-2.1.5 ok\r\n").then(close())),
    ]
}

/// `recipient outcome stage code` for each of the only attempt's recipients.
fn endings(relay: &Relay) -> Vec<String> {
    let attempts = relay.attempts();
    assert_eq!(attempts.len(), 1);
    let words = |one: &Value| {
        let text = |name: &str| one[name].as_str().expect("text").split('@').next().unwrap_or_default().to_owned();
        format!("{} {} {} {}", text("recipient"), text("outcome"), text("stage"), one["code"])
    };
    attempts[0]["recipients"].as_array().expect("recipients").iter().map(words).collect()
}

#[test]
fn replies_that_were_read_before_one_that_is_none_stay_as_they_were() {
    for capabilities in WITH_AND_WITHOUT {
        for (what, then) in no_replies() {
            let script = script!["RCPT TO:<a@" => "550 5.1.1 no such user", "RCPT TO:<c@" => then];
            let peer = SmtpSink::start(script.capabilities(capabilities));
            let relay = Setup::gateway(peer.address()).build();
            relay.fill([["a", "b", "c", "d"].map(|name| format!("{name}@example.net")).to_vec()]);

            assert_eq!(relay.run_spool().expect(69).counts(), [1, 0, 3, 1, 0, 0], "{what}, {capabilities:?}");

            let open = ["b", "c", "d"].map(|name| format!("{name} deferred rcpt null"));
            let expected: Vec<_> = [String::from("a failed rcpt 550")].into_iter().chain(open).collect();
            assert_eq!(endings(&relay), expected, "{what}, {capabilities:?}");
            assert_eq!((peer.transactions().len(), peer.connections()), (0, 1), "{what}, {capabilities:?}");
        }
    }
}

#[test]
fn behind_a_peer_that_makes_no_sense_the_next_host_has_who_is_still_open() {
    for capabilities in WITH_AND_WITHOUT {
        let script = script!["RCPT TO:<a@" => "550 5.1.1 no such user", "RCPT TO:<c@" => raw("banana\r\n")];
        let first = SmtpSink::start(script.capabilities(capabilities));
        let second = SmtpSink::beside(&first, Script::new());
        let zones = Zones::start(&format!(
            "example.net MX 10 mx1.example.net\nmx1.example.net A {}
             example.net MX 20 mx2.example.net\nmx2.example.net A {}",
            first.ip(),
            second.ip()
        ));
        let relay = Setup::mx(&zones, first.port()).build();
        relay.fill([["a", "b", "c"].map(|name| format!("{name}@example.net")).to_vec()]);

        assert_eq!(relay.run_spool().expect(69).counts(), [1, 2, 0, 1, 0, 0], "{capabilities:?}");

        assert_eq!(endings(&relay)[0], "a failed rcpt 550");
        assert_eq!(second.transactions()[0].recipients, ["b@example.net", "c@example.net"], "{capabilities:?}");
    }
}

/// What the record has of the peer's side, an entry a line.
fn server_said(relay: &Relay) -> Vec<String> {
    let dialogue = relay.attempts()[0]["dialogue"].as_array().expect("a dialogue").clone();
    let server = dialogue.iter().filter(|entry| entry["from"] == json!("server"));
    server.map(|entry| entry["text"].as_str().expect("text").to_owned()).collect()
}

#[test]
fn the_record_shows_all_that_was_said_instead_of_a_reply() {
    let rows = [
        ("lines that disagree", raw("250-2.1.5 one\r\n250-two\r\n550 three\r\n"), "250-2.1.5 one\n250-two\n550 three"),
        ("no code", raw("250-one\r\nbanana\r\n250 two\r\n"), "250-one\nbanana\n250 two"),
        ("cut within a line", raw("250-one\r\n250-tw").then(close()), "250-one\n250-tw"),
        ("a line that never ends", raw("250-one\r\n250 tw").then(stall()), "250-one\n250 tw"),
        ("NUL and Latin-1", raw(b"25\0 caf\xe9\r\n"), "25\u{fffd} caf\u{fffd}"),
    ];
    for (what, then, shown) in rows {
        let peer = SmtpSink::start(script!["RCPT" => then].capabilities(&[]));
        let relay = Setup::gateway(peer.address()).delivery("timeout: 500ms").build();
        relay.fill([vec!["you@example.net"]]);
        relay.run_spool().expect(75);
        assert_eq!(server_said(&relay).last().map(String::as_str), Some(shown), "{what}");
    }
}

#[test]
fn replies_that_nobody_asked_for_are_shown_too() {
    // Time enough for both to be there when the next command is said.
    let surplus = reply("250 2.1.0 ok").then(raw("250-whose\r\n250 this\r\n"));
    let peer = SmtpSink::start(script![
        "MAIL" => surplus.then(wait(Duration::from_millis(50))),
        "RCPT" => "250 2.1.5 ok",
    ]);
    let relay = Setup::gateway(peer.address()).delivery("sendpartial: false").build();
    relay.fill([vec!["you@example.net"]]);
    relay.run_spool().expect(75);
    assert!(server_said(&relay).iter().any(|text| text.contains("250-whose\n250 this")), "{:?}", server_said(&relay));
}

#[test]
fn of_a_peer_that_talks_without_end_the_record_shows_a_part_and_says_so() {
    for then in [raw(format!("250-{}\r\n", "x".repeat(5000))), raw("250-yes\r\n".repeat(12_000))] {
        let peer = SmtpSink::start(script!["RCPT" => then]);
        let relay = Setup::gateway(peer.address()).build();
        relay.fill([vec!["you@example.net"]]);
        relay.run_spool().expect(75);
        let shown = server_said(&relay).pop().expect("something");
        let mark = shown.lines().last().expect("a line");
        assert!(mark.starts_with("[and at least ") && mark.ends_with(" octets more]"), "{mark}");
        assert!(shown.starts_with("250-") && shown.len() < 2100, "{} octets", shown.len());
    }
}
