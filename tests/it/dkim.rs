//! DKIM: what leaves bears signatures of exactly what leaves. That such signatures are right is
//! for others to say: tests/dkim/run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use redeliver::dkim::{Key, Signatory, Signing};
use redeliver::mail::Domain;
use serde_json::Value;

use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, on, script};

const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dkim/keys");

/// Puts a key of tests/dkim/keys beside the configuration.
pub(crate) fn put_key(relay: &Relay, from: &str, to: &str, mode: u32) {
    let file = relay.path().join(to);
    fs::copy(Path::new(KEYS).join(from), &file).expect("copied");
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("set");
}

/// The rule of a `DKIMSign` with these parameters.
pub(crate) fn rule(parameters: &str) -> String {
    format!("    - {{ mailet: DKIMSign, {parameters} }}\n")
}

/// A relay with these rules in front of its delivery, and two keys.
fn signing(setup: Setup, rules: &str) -> Relay {
    let relay = setup.build();
    put_key(&relay, "rsa-pkcs8.pem", "rsa.pem", 0o600);
    put_key(&relay, "ed25519.pem", "ed.pem", 0o640);
    relay.reconfigure("  relay:\n", &format!("  relay:\n{rules}"));
    relay
}

const RSA: &str = "domain: example.org, selector: rsa, privateKeyFile: rsa.pem";
const ED25519: &str = "domain: example.org, selector: ed, privateKeyFile: ed.pem";

/// Takes the signatures off the front of what was sent.
fn taken_off(content: &[u8]) -> (Vec<String>, Vec<u8>) {
    let mut rest = String::from_utf8_lossy(content).into_owned();
    assert_eq!(rest.as_bytes(), content, "these messages are UTF-8");
    let mut found = Vec::new();
    while rest.starts_with("DKIM-Signature:") {
        let mut end = rest.match_indices("\r\n").map(|(at, _)| at + 2);
        let end = end.find(|at| !rest[*at..].starts_with(' ')).expect("the field ends");
        found.push(rest[..end].to_owned());
        rest.drain(..end);
    }
    (found, rest.into_bytes())
}

/// The signature that `key` makes of this at the time that `field` tells.
fn made_again(field: &str, key: &str, selector: &str, message: &[u8]) -> String {
    let pem = fs::read(Path::new(KEYS).join(key)).expect("there");
    let signatory = Signatory {
        domain: Domain::parse("example.org").expect("a domain"),
        selector: selector.to_owned(),
        headers: None,
        any_from: false,
        key: Key::from_pem(&pem).expect("a key"),
    };
    let time = field.split_once(" t=").and_then(|(_, rest)| rest.split_once(';')).expect("a time").0;
    let mut signing = Signing::new(&signatory);
    signing.push(message).expect("signed");
    String::from_utf8(signing.finish(time.parse().expect("a number")).expect("signed")).expect("ASCII")
}

fn notes(relay: &Relay) -> Vec<String> {
    let record = relay.attempts().remove(0);
    let notes = record["recipients"][0]["notes"].as_array().cloned().unwrap_or_default();
    notes.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[test]
fn what_leaves_bears_signatures_of_exactly_what_leaves() {
    for message in [
        "From: me@example.org\nSubject: s\nTo: x@y.example\n\n.\n..\n.dots\ntrailing \t\n \n\n\n",
        "From: Me <me@mail.example.org>\nSubject: Grüße\nDate: now\n\nGrüße.\n",
        "From: me@example.org\nTo: a@b.example\nTo: c@d.example\n\nno line end",
        "From: me@example.org\n\n",
        &format!("From: me@example.org\n\n{}", "0123456789 abc\n".repeat(60_000)),
    ] {
        let peer = SmtpSink::start(Script::new());
        let added = "    - { mailet: AddHeader, name: X-Added, value: by us }\n";
        let relay = signing(Setup::gateway(peer.address()), &format!("{}{}{added}", rule(RSA), rule(ED25519)));
        relay.submit("me@example.org", &["you@x.example"], message);
        relay.run_spool().expect(0);
        let transaction = peer.record().transactions.remove(0);
        let (fields, rest) = taken_off(&transaction.content);
        assert_eq!(fields.len(), 2, "{fields:?}");
        assert!(rest.starts_with(b"X-Added: by us\r\n"), "the field that a rule added is signed with the rest");
        assert_eq!(fields[0], made_again(&fields[0], "ed25519.pem", "ed", &rest));
        assert_eq!(fields[1], made_again(&fields[1], "rsa-pkcs8.pem", "rsa", &rest));
        let size = transaction.parameters.iter().find_map(|parameter| parameter.strip_prefix("SIZE="));
        assert_eq!(size, Some(transaction.content.len().to_string().as_str()));
        let notes = notes(&relay);
        let signed = |selector: &str| {
            notes.iter().any(|note| note.starts_with(&format!("DKIM: signed, d=example.org s={selector} ")))
        };
        assert!(signed("rsa") && signed("ed"), "{notes:?}");
    }
}

#[test]
fn each_transaction_has_its_own_signature_and_none_is_stored() {
    let peer = SmtpSink::start(script![on("DATA").times(1) => "451 4.3.0 later"]);
    let relay = signing(Setup::gateway(peer.address()), &rule(ED25519));
    relay.submit("me@example.org", &["you@x.example"], "From: me@example.org\nSubject: s\n\nb\n");
    relay.run_spool().expect(75);
    let key = relay.mails("temporary")[0]["key"].as_str().expect("a key").to_owned();
    let stored = relay.command(&["repository", "export", "temporary", &key]).expect(0).stdout;
    assert!(!stored.contains("DKIM-Signature"), "{stored}");
    relay.sweep().expect(0);
    let (fields, rest) = taken_off(&peer.record().transactions.pop().expect("sent").content);
    assert_eq!(fields, [made_again(&fields[0], "ed25519.pem", "ed", &rest)], "once, though it was marked twice");
}

#[test]
fn nobody_is_signed_for_but_who_is_of_the_domain() {
    for (from, parameters, why) in [
        ("me@example.com", ED25519.to_owned(), Some("its From: is of example.com")),
        ("me@notexample.org", ED25519.to_owned(), Some("its From: is of notexample.org")),
        ("me@x.example.org", ED25519.to_owned(), None),
        ("me@example.com", format!("{ED25519}, anyFrom: true"), None),
    ] {
        let peer = SmtpSink::start(Script::new());
        let relay = signing(Setup::gateway(peer.address()), &rule(&parameters));
        relay.submit("me@example.org", &["you@x.example"], &format!("From: {from}\nSubject: s\n\nb\n"));
        relay.run_spool().expect(0);
        let (fields, _) = taken_off(&peer.record().transactions.remove(0).content);
        assert_eq!(fields.is_empty(), why.is_some(), "{from}: {fields:?}");
        let note =
            why.map_or("DKIM: signed, ".to_owned(), |why| format!("DKIM: not signed, d=example.org s=ed: {why}"));
        assert!(notes(&relay).iter().any(|one| one.starts_with(&note)), "{from}: {:?}", notes(&relay));
    }
}

#[test]
fn what_we_write_ourselves_is_signed_and_what_passes_is_not() {
    let peer = SmtpSink::start(script!["RCPT TO:<no@" => "550 5.1.1 no such user"]);
    let relay = Setup::gateway(peer.address())
        .top("dkim: { domain: relay.test, selector: ed, privateKeyFile: ed.pem }")
        .build();
    put_key(&relay, "ed25519.pem", "ed.pem", 0o600);
    let job = "kind: report\nrepository: permanent\nto: [ops@y.example]\nfrom: redeliver@relay.test\n";
    fs::write(relay.path().join("jobs/it.yaml"), job).expect("written");
    relay.submit("me@relay.test", &["no@x.example", "yes@x.example"], "From: me@relay.test\nSubject: s\n\nb\n");
    relay.run_spool().expect(69);
    relay.command(&["run", "it"]).expect(0);
    relay.run_spool();
    for transaction in &peer.record().transactions {
        let is_report = transaction.recipients == ["ops@y.example"];
        assert_eq!(transaction.text().starts_with("DKIM-Signature: v=1; a=ed25519-sha256;"), is_report);
    }
    assert_eq!(peer.record().transactions.len(), 2);
}

#[test]
fn parameters_are_those_of_james_too() {
    let template = "signatureTemplate: \"v=1; s=ed; d=example.org; h=from:to:received:received; a=rsa-sha256; bh=; b=;\", privateKeyFile: ed.pem";
    let listed = format!("{ED25519}, headers: [To, Subject]");
    for (parameters, names) in
        [(template, "h=from:from:subject:to:received;"), (listed.as_str(), "h=from:from:subject:subject:to;")]
    {
        let peer = SmtpSink::start(Script::new());
        let relay = signing(Setup::gateway(peer.address()), &rule(parameters));
        relay.submit("me@example.org", &["you@x.example"], "From: me@example.org\nTo: a@b.example\n\nb\n");
        relay.run_spool().expect(0);
        let (fields, _) = taken_off(&peer.record().transactions.remove(0).content);
        let expected = if parameters == template { names } else { "h=from:from:subject:to;" };
        assert!(fields[0].contains(expected), "{fields:?}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (parameters, told) in [
        ("selector: s, privateKeyFile: ed.pem".to_owned(), "key 'domain' is missing"),
        ("domain: example.org, selector: s".to_owned(), "key 'privateKeyFile' is missing"),
        ("domain: localhost, selector: s, privateKeyFile: ed.pem".to_owned(), "a domain such as example.org"),
        ("domain: example.org, selector: a b, privateKeyFile: ed.pem".to_owned(), "a selector is letters"),
        (
            "domain: example.org, selector: s, privateKeyFile: open.pem".to_owned(),
            "open.pem is open to others (mode 0644): chmod 640 it",
        ),
        ("domain: example.org, selector: s, privateKeyFile: none.pem".to_owned(), "none.pem cannot be read"),
        (
            "domain: example.org, selector: s, privateKeyFile: short.pem".to_owned(),
            "short.pem: its RSA key is shorter than 2048 bits",
        ),
        (
            "domain: example.org, selector: s, privateKeyFile: curve.pem".to_owned(),
            "curve.pem: its key is neither RSA nor Ed25519",
        ),
        (format!("{ED25519}, headers: [\"X Y\"]"), "'X Y' is no name of a header field"),
        (format!("{ED25519}, headers: dkim-signature"), "a signature does not cover 'dkim-signature'"),
        (format!("{ED25519}, signatureTemplate: \"v=1; l=100\""), "'l=100' is not made: leave it out"),
        (format!("{ED25519}, signatureTemplate: \"c=simple/simple\""), "the signature is relaxed/relaxed"),
        (format!("{ED25519}, selektor: x"), "unknown key 'selektor': did you mean 'selector'?"),
    ] {
        let relay = signing(Setup::gateway("127.0.0.2:25"), &rule(&parameters));
        put_key(&relay, "ed25519.pem", "open.pem", 0o644);
        put_key(&relay, "rsa-1024.pem", "short.pem", 0o600);
        put_key(&relay, "curve.pem", "curve.pem", 0o600);
        let stderr = relay.command(&["check"]).expect(78).stderr;
        let places: Vec<_> = stderr.lines().filter(|line| line.contains("redeliver.yaml:")).collect();
        assert!(places.len() == 1 && places[0].contains(told), "{parameters}: {stderr}");
    }
}
