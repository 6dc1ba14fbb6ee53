//! Peers and domains that stay as they are: what they answer is the cause of every pass, and
//! of the promotion in the end.

use serde_json::json;

use crate::support::message;
use crate::support::relay::Setup;
use crate::support::sink::{Script, SmtpSink, on, reply, script};
use crate::support::zones::Zones;

#[test]
fn a_banner_that_refuses_is_asked_once_a_sweep_and_promoted_with_its_words() {
    let refusal = "554 5.7.1 mx.example.net: your address is on our list";
    let peer = SmtpSink::start(script![on("CONNECT") => reply(refusal)]);
    let relay = Setup::gateway(peer.address()).limit(3).build();
    relay.fill((0..20).map(|n| vec![format!("r{n}@x.example")]));
    assert_eq!(relay.run_spool().expect(75).counts(), [20, 0, 20, 0, 0, 0]);
    assert_eq!(relay.sweep().expect(75).counts(), [20, 0, 20, 0, 0, 0]);
    assert_eq!(relay.sweep().expect(69).counts(), [20, 0, 0, 20, 20, 0]);
    assert_eq!(peer.connections(), 3, "one a sweep");
    for mail in relay.mails("permanent") {
        let shown = relay.show("permanent", mail["key"].as_str().expect("a key"));
        let error = shown["attributes"]["delivery-error"].as_str().unwrap_or_default().to_owned();
        assert!(error.contains(refusal), "{error}");
        assert_eq!(shown["attempts"].as_array().map(Vec::len), Some(3));
    }
}

#[test]
fn greylisting_is_a_deferral_in_whatever_dress_a_4_comes() {
    for (at, said, outcome) in [
        ("RCPT", "422 4.2.2 Greylisted, please try again in a few moments.", "deferred"),
        ("RCPT", "450 4.2.0 <you@x.example>: Recipient address rejected: Greylisted", "deferred"),
        ("RCPT", "451 greylisted", "deferred"),
        ("RCPT", "499 5.7.1 try later", "deferred"),
        ("MAIL", "421 4.7.0 Try again later", "deferred"),
        ("DATA", "451 4.7.1 Greylisting in action", "deferred"),
        (".", "451 4.7.1 greylisted for 300 seconds", "deferred"),
        // By the letter it is for good; RFC 5321 section 4.2.1.
        ("RCPT", "550 greylisted, try again later", "failed"),
    ] {
        let peer = SmtpSink::start(script![on(at).times(1) => reply(said)]);
        let relay = Setup::gateway(peer.address()).build();
        relay.submit("me@example.org", &["you@x.example"], &message("m"));
        relay.run_spool();
        let record = relay.only_record();
        assert_eq!((&record["outcome"], &record["reply"]), (&json!(outcome), &json!(said)));
        if outcome == "deferred" {
            relay.sweep().expect(0);
            assert_eq!(peer.copies_of("you@x.example", "m@example.org"), 1, "{said}");
        }
    }
}

#[test]
fn a_domain_whose_name_servers_fail_for_weeks_is_promoted_with_that_and_holds_nobody_up() {
    let peer = SmtpSink::start(Script::new());
    let zones = Zones::start(&format!("broken.example SERVFAIL\nwell.example A {}", peer.ip()));
    let relay = Setup::mx(&zones, peer.port()).limit(3).build();
    relay.submit("me@example.org", &["a@broken.example", "b@broken.example"], &message("m0"));
    for pass in 1..=3_usize {
        relay.submit("me@example.org", &[&format!("r{pass}@well.example")], &message("well"));
        relay.run_spool().expect(if pass == 1 { 75 } else { 0 });
        assert_eq!(peer.transactions().len(), pass, "the others go out");
        if pass > 1 {
            // The root answers, so that it is the domain's own trouble and counts.
            relay.sweep().expect(if pass == 3 { 69 } else { 75 });
        }
    }
    let shown = relay.show_only("permanent");
    assert_eq!(shown["passes"], 3);
    let error = shown["attributes"]["delivery-error"].as_str().unwrap_or_default().to_owned();
    assert_eq!(error, "looking up the MX records of broken.example: SERVFAIL");
}
