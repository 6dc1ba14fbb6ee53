//! SMTPUTF8 (RFC 6531) and internationalised domains (RFC 5891): who needs it, where it is
//! found, and what goes without.

use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, close, script};
use crate::support::zones::Zones;

const WITH: &[&str] = &["PIPELINING", "8BITMIME", "SMTPUTF8"];
const WITHOUT: &[&str] = &["PIPELINING", "8BITMIME"];

const ASCII: &str = "Subject: x\n\nHello.\n";
const EIGHT_BIT_BODY: &str = "Subject: x\n\nGrüße.\n";
const EIGHT_BIT_HEADER: &str = "Subject: Grüße\n\nHello.\n";

fn offering(offered: &[&str]) -> Script {
    Script::new().capabilities(offered)
}

fn submit(relay: &Relay, options: &[&str], from: &str, to: &[&str], message: &str) {
    let arguments = [&["sendmail", "-i", "-f", from], options, &["--"], to].concat();
    let text = format!("From: me@example.org\nTo: you@example.net\n{message}");
    relay.command_with_input(&arguments, text.as_bytes()).expect(0);
}

/// `outcome code enhanced` of a recipient in the only attempt.
fn ending(relay: &Relay, recipient: &str) -> String {
    let attempts = relay.attempts();
    assert_eq!(attempts.len(), 1);
    let all = attempts[0]["recipients"].as_array().expect("recipients").clone();
    let record = all.iter().find(|r| r["recipient"] == recipient).unwrap_or_else(|| panic!("{recipient}: {all:?}"));
    let word = |name: &str| match &record[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    ["outcome", "code", "enhanced"].map(word).join(" ")
}

/// Reverse-path, recipient, options of sendmail and message, and whether it needs SMTPUTF8.
const NEEDS: &[(&str, &str, &[&str], &str, bool)] = &[
    ("me@example.org", "you@example.net", &[], ASCII, false),
    ("me@example.org", "grüße@example.net", &[], ASCII, true),
    ("grüße@example.org", "you@example.net", &[], ASCII, true),
    ("me@example.org", "\"grüße gott\"@example.net", &[], ASCII, true),
    ("me@example.org", "you@bücher.example", &[], ASCII, false),
    ("me@bücher.example", "you@example.net", &[], ASCII, false),
    ("<>", "you@bücher.example", &[], ASCII, false),
    // Only who declares his header to be UTF-8 needs somebody who understands it.
    ("me@example.org", "you@example.net", &[], EIGHT_BIT_HEADER, false),
    ("me@example.org", "you@example.net", &["-O", "smtputf8"], EIGHT_BIT_HEADER, true),
    ("me@example.org", "you@example.net", &["-O", "smtputf8"], EIGHT_BIT_BODY, false),
    ("me@example.org", "you@example.net", &["-O", "smtputf8"], ASCII, false),
];

#[test]
fn smtputf8_is_said_where_it_is_needed_and_nowhere_else() {
    for &(from, to, options, message, needed) in NEEDS {
        let what = format!("{from} to {to}, {options:?}, {message:?}");
        let peer = SmtpSink::start(offering(WITH));
        let relay = Setup::gateway(peer.address()).build();
        submit(&relay, options, from, &[to], message);
        relay.run_spool().expect(0);
        let transaction = peer.transactions().remove(0);
        assert_eq!(transaction.parameters.contains(&"SMTPUTF8".to_owned()), needed, "{what}");
        let eight_bit = !message.is_ascii();
        assert_eq!(transaction.parameters.contains(&"BODY=8BITMIME".to_owned()), eight_bit, "{what}");
        let (header, body) = message.split_once("\n\n").expect("a header");
        let text = transaction.text();
        assert!(text.contains(&format!("\r\n{header}\r\n")) && text.ends_with(&body.replace('\n', "\r\n")), "{text}");
        assert_eq!(peer.violations(), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn where_no_host_offers_it_those_who_need_it_fail_and_nobody_else() {
    for &(from, to, options, message, needed) in NEEDS {
        let what = format!("{from} to {to}, {options:?}, {message:?}");
        let peer = SmtpSink::start(offering(WITHOUT));
        let relay = Setup::gateway(peer.address()).build();
        submit(&relay, options, from, &[to], message);
        relay.run_spool().expect(if needed { 69 } else { 0 });
        assert_eq!(peer.transactions().len(), usize::from(!needed), "{what}");
        if needed {
            assert_eq!(ending(&relay, to), "failed - 5.6.7", "{what}");
            assert!(!peer.commands().iter().any(|line| line.starts_with("MAIL")), "{what}: it is not even asked");
            assert_eq!(relay.show_only("permanent")["attributes"]["is-delivery-permanent-error"], "true");
        }
        assert_eq!(peer.violations(), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn of_several_recipients_only_those_who_need_it_fail() {
    let peer = SmtpSink::start(offering(WITHOUT));
    let relay = Setup::gateway(peer.address()).build();
    submit(&relay, &[], "me@example.org", &["a@example.net", "grüße@example.net", "b@example.net"], ASCII);
    assert_eq!(relay.run_spool().expect(69).counts(), [1, 2, 0, 1, 0, 0]);
    assert_eq!(peer.transactions()[0].recipients, ["a@example.net", "b@example.net"]);
    assert_eq!(relay.mails("permanent")[0]["recipients"], json!(["grüße@example.net"]));
    assert_eq!(peer.violations(), Vec::<String>::new());
}

/// Two MX hosts, the first of which is preferred.
fn two_hosts(best: Script, second: Script) -> ([SmtpSink; 2], Zones, Relay) {
    let best = SmtpSink::start(best);
    let second = SmtpSink::beside(&best, second);
    let zones = Zones::start(&format!(
        "example.net MX 10 best.example.net
         example.net MX 20 second.example.net
         best.example.net A {}
         second.example.net A {}",
        best.ip(),
        second.ip()
    ));
    let relay = Setup::mx(&zones, best.port()).build();
    ([best, second], zones, relay)
}

#[test]
fn a_host_that_offers_it_is_found_behind_one_that_does_not() {
    let ([best, second], _zones, relay) = two_hosts(offering(WITHOUT), offering(WITH));
    submit(&relay, &[], "me@example.org", &["a@example.net", "grüße@example.net"], ASCII);
    assert_eq!(relay.run_spool().expect(0).counts(), [1, 2, 0, 0, 0, 0]);
    assert_eq!(best.transactions()[0].recipients, ["a@example.net"], "whom any host will do for");
    assert_eq!(second.transactions()[0].recipients, ["grüße@example.net"]);
    assert_eq!(relay.attempts().len(), 1, "in one pass");
    assert_eq!((best.violations(), second.violations()), (vec![], vec![]));
}

#[test]
fn while_a_host_that_may_offer_it_is_in_trouble_nobody_fails() {
    for trouble in [script!["CONNECT" => close()], script!["MAIL" => "451 4.3.0 later"].capabilities(WITH)] {
        for swapped in [false, true] {
            let hosts = if swapped {
                two_hosts(trouble.clone(), offering(WITHOUT))
            } else {
                two_hosts(offering(WITHOUT), trouble.clone())
            };
            submit(&hosts.2, &[], "me@example.org", &["grüße@example.net"], ASCII);
            assert_eq!(hosts.2.run_spool().expect(75).counts(), [1, 0, 1, 0, 0, 0], "{swapped}");
        }
    }
}

#[test]
fn a_domain_is_looked_up_and_sent_as_a_labels_but_kept_as_it_was_written() {
    let peer = SmtpSink::start(offering(WITHOUT).on("RCPT", "450 4.2.0 later"));
    let zones = Zones::start(&format!("xn--bcher-kva.example MX 10 mx.example\nmx.example A {}", peer.ip()));
    let relay = Setup::mx(&zones, peer.port()).build();
    submit(&relay, &[], "me@example.org", &["you@BÜCHER.example"], ASCII);
    submit(&relay, &[], "me@example.org", &["you@xn--bcher-kva.example"], ASCII);
    relay.run_spool().expect(75);
    let asked = |line: &&String| line.as_str() == "RCPT TO:<you@xn--bcher-kva.example>";
    assert_eq!(peer.commands().iter().filter(asked).count(), 2);
    assert_eq!(zones.queries_of("xn--bcher-kva.example", RecordType::MX), 1, "it is one domain");
    let mut kept: Vec<_> = relay.mails("temporary").iter().map(|mail| mail["recipients"][0].to_string()).collect();
    kept.sort();
    assert_eq!(kept, ["\"you@BÜCHER.example\"", "\"you@xn--bcher-kva.example\""]);
}

#[test]
fn eight_bit_content_goes_as_it_is_and_the_record_says_so() {
    let peer = SmtpSink::start(offering(&["PIPELINING"]));
    let relay = Setup::gateway(peer.address()).build();
    submit(&relay, &[], "me@example.org", &["you@example.net"], EIGHT_BIT_BODY);
    relay.run_spool().expect(0);
    assert!(peer.transactions()[0].text().ends_with("Grüße.\r\n"));
    assert_eq!(peer.transactions()[0].parameters, Vec::<String>::new());
    let notes = relay.attempts()[0]["recipients"][0]["notes"].clone();
    assert!(notes.as_array().is_some_and(|n| n.contains(&json!("8-bit content was sent without 8BITMIME"))), "{notes}");
}
