//! `redeliver explain`: the way of a mail told beforehand, with no connection to any host and
//! no word of it in the store.

use serde_json::{Value, json};

use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink};
use crate::support::zones::Zones;

fn explained(relay: &Relay, recipient: &str) -> Value {
    let lines = relay.command(&["explain", recipient, "--format", "json"]).expect(0).json();
    assert_eq!(lines.len(), 1, "one RemoteDelivery, one line");
    lines[0].clone()
}

/// Hosts as `host preference address port`.
fn hosts(explanation: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let host = |host: &Value| ["host", "preference", "address", "port"].map(|name| text(&host[name])).join(" ");
    explanation["hosts"].as_array().expect("hosts").iter().map(host).collect()
}

/// Two MX hosts that can be used and two that cannot, and domains without any.
fn world() -> (SmtpSink, SmtpSink, Zones) {
    let first = SmtpSink::start(Script::new());
    let second = SmtpSink::beside(&first, Script::new());
    let zones = Zones::start(&format!(
        "example.net MX 20 second.example.net
         example.net MX 10 first.example.net
         example.net MX 15 gone.example.net
         first.example.net A {}
         second.example.net A {}
         implicit.example A {0}
         null.example MX 0 .
         denied.example NXDOMAIN MX
         denied.example A {0}
         denied6.example NXDOMAIN MX
         denied6.example NXDOMAIN A
         denied6.example AAAA ::1
         nothing.example NXDOMAIN MX
         nothing.example NXDOMAIN A
         broken.example SERVFAIL
         ourselves.example MX 10 relay.test
         relay.test A {0}",
        first.ip(),
        second.ip()
    ));
    (first, second, zones)
}

#[test]
fn the_hosts_are_told_in_their_order_and_what_is_left_out_with_its_reason() {
    let (first, second, zones) = world();
    let relay = Setup::mx(&zones, first.port()).delivery("heloName: out.example.org").build();

    let explanation = explained(&relay, "you@Example.NET");

    assert_eq!(
        hosts(&explanation),
        [
            format!("first.example.net 10 {} {}", first.ip(), first.port()),
            format!("second.example.net 20 {} {}", second.ip(), first.port()),
        ]
    );
    assert_eq!((&explanation["routedBy"], &explanation["nextHop"]), (&json!("mx"), &json!("example.net")));
    assert_eq!((&explanation["outcome"], &explanation["cause"]), (&Value::Null, &Value::Null));
    assert_eq!((&explanation["heloName"], &explanation["auth"]), (&json!("out.example.org"), &json!("none")));
    assert!(explanation["leftOut"].to_string().contains("gone.example.net"), "{explanation}");
    assert_eq!((first.connections(), second.connections()), (0, 0));
}

#[test]
fn in_a_list_with_ourselves_the_hosts_that_are_no_better_are_told_and_that_the_order_is_drawn() {
    let first = SmtpSink::start(Script::new());
    let zones = Zones::start(&format!(
        "example.net MX 10 a.example.net
         example.net MX 10 b.example.net
         example.net MX 20 relay.test
         example.net MX 30 c.example.net
         a.example.net A {}
         b.example.net AAAA ::1
         c.example.net A 127.0.0.9
         relay.test A 127.0.0.8",
        first.ip()
    ));
    let relay = Setup::mx(&zones, first.port()).build();
    let explanation = explained(&relay, "you@example.net");
    assert_eq!((hosts(&explanation).len(), &explanation["shuffled"]), (2, &json!(true)));
    assert_eq!(
        explanation["leftOut"],
        json!([
            "relay.test (preference 20) is this relay itself",
            "c.example.net (preference 30) is no better than this relay"
        ])
    );
    let text = relay.command(&["explain", "you@example.net"]).expect(0).stdout;
    assert!(text.contains(&format!("b.example.net ([::1]:{}), preference 10", first.port())), "{text}");
    assert!(text.contains("order      hosts of equal rank are drawn anew for each attempt"), "{text}");
    assert_eq!(explained(&relay, "you@c.example.net")["shuffled"], false);
}

#[test]
fn what_needs_no_contact_is_told_with_its_outcome() {
    let (first, _second, zones) = world();
    let relay = Setup::mx(&zones, first.port()).build();
    for (recipient, outcome, enhanced, cause) in [
        ("you@null.example", "failed", "5.1.10", "null MX"),
        ("you@absent.example", "failed", "5.1.2", "does not exist"),
        ("you@nothing.example", "failed", "5.1.2", "does not exist"),
        ("you@broken.example", "deferred", "4.4.3", "broken.example"),
        ("you@ourselves.example", "failed", "5.4.6", "come back to this relay"),
    ] {
        let explanation = explained(&relay, recipient);
        assert_eq!(
            (&explanation["outcome"], &explanation["enhanced"]),
            (&json!(outcome), &json!(enhanced)),
            "{recipient}"
        );
        assert!(explanation["cause"].as_str().is_some_and(|text| text.contains(cause)), "{explanation}");
        assert_eq!(hosts(&explanation), Vec::<String>::new());
        // The run says the same.
        relay.submit("me@example.org", &[recipient], &crate::support::message("m"));
        relay.run_spool();
        let record = relay.attempts().pop().expect("an attempt")["recipients"][0].clone();
        assert_eq!((&record["outcome"], &record["enhanced"]), (&json!(outcome), &json!(enhanced)), "{recipient}");
        assert_eq!(record["cause"], explanation["cause"]);
    }
    assert_eq!(first.connections(), 0);
}

#[test]
fn a_name_that_is_denied_to_have_an_mx_record_and_has_an_address_takes_its_mail_there() {
    let (first, _second, zones) = world();
    let relay = Setup::mx(&zones, first.port()).build();
    assert_eq!(
        hosts(&explained(&relay, "you@denied.example")),
        hosts(&explained(&relay, "you@implicit.example"))
            .iter()
            .map(|host| host.replace("implicit.example", "denied.example"))
            .collect::<Vec<_>>()
    );
    assert!(hosts(&explained(&relay, "you@denied6.example"))[0].contains("::1"));
    relay.submit("me@example.org", &["you@denied.example"], &crate::support::message("m"));
    assert_eq!(relay.run_spool().expect(0).counts(), [1, 1, 0, 0, 0, 0]);
    assert_eq!(first.transactions().len(), 1);
}

#[test]
fn literals_and_gateways_are_told_for_what_they_are() {
    let (first, second, zones) = world();
    let relay = Setup::mx(&zones, first.port()).build();
    let literal = explained(&relay, &format!("you@[{}]", first.ip()));
    assert_eq!(literal["routedBy"], "literal");
    assert_eq!(hosts(&literal), [format!("{0} null {0} {1}", first.ip(), first.port())], "no MX, no preference");
    let implicit = explained(&relay, "you@implicit.example");
    assert_eq!(hosts(&implicit), [format!("implicit.example 0 {} {}", first.ip(), first.port())], "the implicit MX");

    let relay = Setup::gateway(format!("{}, {}", first.address(), second.address()))
        .delivery("gatewayUsername: relay")
        .delivery("gatewayPassword: secret")
        .build();
    let gateways = explained(&relay, "you@whatever.example");
    assert_eq!(gateways["routedBy"], "gateway");
    let host = |peer: &SmtpSink| format!("{0} null {0} {1}", peer.ip(), peer.port());
    assert_eq!(hosts(&gateways), [host(&first), host(&second)]);
    let text = relay.command(&["explain", "you@whatever.example"]).expect(0).stdout;
    assert!(text.contains(&format!("({})\n", first.address())), "{text}");
    assert_eq!(gateways["auth"], "as \"relay\", over TLS only");
    assert!(!gateways.to_string().contains("secret"), "{gateways}");
    assert_eq!((first.connections(), second.connections()), (0, 0));
}

#[test]
fn each_tls_policy_is_told_apart() {
    let (first, _second, zones) = world();
    let mut told = std::collections::BTreeSet::new();
    let policies = ["startTLS: false", "startTLS: true", "startTLS: required", "startTLS: verify", "sslEnable: true"];
    for policy in policies {
        let relay = Setup::mx(&zones, first.port()).delivery(policy).build();
        told.insert(explained(&relay, "you@example.net")["tls"].as_str().expect("text").to_owned());
    }
    assert_eq!(told.len(), policies.len(), "{told:?}");
}

#[test]
fn who_needs_smtputf8_is_told() {
    let (first, _second, zones) = world();
    let relay = Setup::mx(&zones, first.port()).build();
    assert_eq!(explained(&relay, "grüße@example.net")["needsSmtputf8"], true);
    assert_eq!(explained(&relay, "you@example.net")["needsSmtputf8"], false);
}

#[test]
fn a_person_reads_one_line_for_each_fact() {
    let (first, second, zones) = world();
    let relay = Setup::mx(&zones, first.port()).build();
    let text = relay.command(&["explain", "you@example.net"]).expect(0).stdout;
    let facts: Vec<_> = text.lines().map(|line| line.get(..10).unwrap_or(line).trim_end()).collect();
    assert_eq!(
        facts,
        ["recipient", "outgoing", "next hop", "host", "host", "left out", "TLS", "AUTH", "EHLO"],
        "{text}"
    );
    let before = |a: &str, b: &str| text.find(a).zip(text.find(b)).is_some_and(|(a, b)| a < b);
    assert!(before(&first.ip().to_string(), &second.ip().to_string()), "{text}");
    assert!(text.contains("gone.example.net: no such host"), "{text}");
    assert!(text.contains("STARTTLS where offered"), "{text}");
    let failed = relay.command(&["explain", "you@null.example"]).expect(0).stdout;
    assert!(failed.contains("failed 5.1.10 without contact") && failed.contains("null MX"), "{failed}");
}

#[test]
fn the_store_is_not_touched_whatever_state_it_is_in() {
    let (first, _second, zones) = world();
    let relay = Setup::mx(&zones, first.port()).build();
    explained(&relay, "you@example.net");
    assert!(!relay.path().join("var").exists(), "none is made");
    std::fs::create_dir(relay.path().join("var")).expect("a directory");
    std::fs::write(relay.path().join("var/redeliver.db"), "this is no database").expect("a file");
    assert_eq!(hosts(&explained(&relay, "you@example.net")).len(), 2);
    let kept = std::fs::read(relay.path().join("var/redeliver.db")).expect("still there");
    assert_eq!(kept, b"this is no database");
}

#[test]
fn what_is_no_address_is_refused() {
    let relay = Setup::gateway("127.0.0.2:25").build();
    for wrong in ["you", "@example.net", "you@", "a b@example.net", "you@exa mple.net", ""] {
        let finished = relay.command(&["explain", wrong]).expect(65);
        assert_eq!((finished.stdout.as_str(), finished.stderr.lines().count()), ("", 1), "{wrong:?}: {finished:?}");
    }
}
