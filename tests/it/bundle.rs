//! `redeliver repository bundle`: evidence for one next hop and nothing about the others.

use std::collections::BTreeMap;

use ring::digest::{SHA256, digest};
use serde_json::Value;

use crate::support::message;
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, on, script};
use crate::support::zones::Zones;

/// The entries of an archive, by its directory (APPNOTE.TXT 4.3.12); all are stored.
fn entries(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let number = |at: usize, octets: usize| {
        archive[at..at + octets].iter().rev().fold(0, |number, octet| number << 8 | usize::from(*octet))
    };
    let end = archive.len() - 22;
    let mut at = number(end + 16, 4);
    let mut entries = BTreeMap::new();
    for _ in 0..number(end + 10, 2) {
        assert_eq!((&archive[at..at + 4], number(at + 10, 2)), (&b"PK\x01\x02"[..], 0), "stored");
        let (size, name, local) = (number(at + 24, 4), number(at + 28, 2), number(at + 42, 4));
        let content = local + 30 + name;
        let text = String::from_utf8(archive[at + 46..at + 46 + name].to_vec()).expect("a name");
        entries.insert(text, archive[content..content + size].to_vec());
        at += 46 + name;
    }
    entries
}

fn bundle(relay: &Relay, key: &str, options: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let file = relay.path().join("evidence.zip");
    let path = file.to_str().expect("UTF-8");
    relay.command(&[&["repository", "bundle", "permanent", key, "-o", path], options].concat()).expect(0);
    entries(&std::fs::read(file).expect("an archive"))
}

/// A mail to two domains, refused by both.
fn refused() -> (SmtpSink, SmtpSink, Zones, Relay, String) {
    let x = SmtpSink::start(script![on("RCPT") => "550 5.1.1 no such user here"]);
    let y = SmtpSink::beside(&x, script![on("RCPT") => "550 5.7.1 never heard of"]);
    let zones = Zones::start(&format!("x.example A {}\ny.example A {}", x.ip(), y.ip()));
    let relay = Setup::mx(&zones, x.port()).build();
    relay.submit("s@o.example", &["b@x.example", "c@y.example"], &message("m"));
    relay.run_spool().expect(69);
    let key = relay.mails("permanent")[0]["key"].as_str().expect("a key").to_owned();
    (x, y, zones, relay, key)
}

#[test]
fn evidence_for_one_next_hop_says_nothing_of_another() {
    let (x, y, _zones, relay, key) = refused();
    let unnamed = relay.command(&["repository", "bundle", "permanent", &key]).expect(64);
    assert!(unnamed.stderr.contains("x.example, y.example"), "{unnamed:?}");
    relay.command(&["repository", "bundle", "permanent", &key, "--next-hop", "z.example"]).expect(64);

    let evidence = bundle(&relay, &key, &["--next-hop", "x.example"]);
    let names: Vec<_> = evidence.keys().map(String::as_str).collect();
    assert_eq!(names, ["SHA256SUMS", "attempts.json", "dialogue-1.txt", "header.txt", "summary.txt"]);
    let all: String = evidence.values().map(|content| String::from_utf8_lossy(content)).collect();
    for there in ["no such user here", "b@x.example", "RCPT TO:<b@x.example>", &x.ip().to_string()] {
        assert!(all.contains(there), "{there}: {all}");
    }
    for hidden in ["y.example", "never heard of", &y.ip().to_string(), "localAddress", "AT_MOST_EXECUTIONS"] {
        assert!(!all.contains(hidden), "{hidden}: {all}");
    }
    let attempts: Value = serde_json::from_slice(&evidence["attempts.json"]).expect("JSON");
    assert_eq!((attempts["otherRecipients"].as_u64(), attempts["nextHop"].as_str()), (Some(1), Some("x.example")));

    let full = bundle(&relay, &key, &["--full", "--message"]);
    let attempts: Value = serde_json::from_slice(&full["attempts.json"]).expect("JSON");
    assert!(attempts["attempts"][0]["recipients"][1]["localAddress"].is_string(), "{attempts}");
    assert!(attempts["attributes"]["AT_MOST_EXECUTIONS"].is_string(), "{attempts}");
    assert!(full["message.eml"].starts_with(&full["header.txt"]), "{full:?}");
}

#[test]
fn evidence_is_the_same_whenever_it_is_taken_and_its_sums_are_right() {
    let (_x, _y, _zones, relay, key) = refused();
    let options = ["--next-hop", "y.example", "--message"];
    let evidence = bundle(&relay, &key, &options);
    let first = std::fs::read(relay.path().join("evidence.zip")).expect("an archive");
    bundle(&relay, &key, &options);
    assert!(first == std::fs::read(relay.path().join("evidence.zip")).expect("an archive"));
    let sums = String::from_utf8(evidence["SHA256SUMS"].clone()).expect("text");
    assert_eq!(sums.lines().count(), evidence.len() - 1);
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").expect("a sum and a name");
        let found: String =
            digest(&SHA256, &evidence[name]).as_ref().iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(sum, found, "{name}");
    }
}
