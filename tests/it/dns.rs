//! Where mail goes by what the DNS says, and what becomes of it where the DNS says nothing good.

use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

use crate::support::records::summary;
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, script};
use crate::support::zones::Zones;
use crate::support::{fresh_loopback, message};

/// Recipient domains with `outcome code enhanced stage`, for the zones of [`world`].
const OUTCOMES: &[(&str, &str)] = &[
    ("plain.example", "delivered 250 2.0.0 end-of-data"),
    ("implicit.example", "delivered 250 2.0.0 end-of-data"),
    ("MixedCase.Example", "delivered 250 2.0.0 end-of-data"),
    ("second.example", "delivered 250 2.0.0 end-of-data"),
    ("alias.example", "delivered 250 2.0.0 end-of-data"),
    ("mxalias.example", "delivered 250 2.0.0 end-of-data"),
    ("nullish.example", "delivered 250 2.0.0 end-of-data"),
    ("oneaddress.example", "delivered 250 2.0.0 end-of-data"),
    ("under_score.example", "delivered 250 2.0.0 end-of-data"),
    ("both.example", "delivered 250 2.0.0 end-of-data"),
    ("half.example", "delivered 250 2.0.0 end-of-data"),
    ("large.example", "delivered 250 2.0.0 end-of-data"),
    ("slow.example", "delivered 250 2.0.0 end-of-data"),
    ("onebroken.example", "delivered 250 2.0.0 end-of-data"),
    ("xn--mnchen-3ya.example", "delivered 250 2.0.0 end-of-data"),
    ("single", "delivered 250 2.0.0 end-of-data"),
    ("servfail.example", "deferred - 4.4.3 dns"),
    ("refused.example", "deferred - 4.4.3 dns"),
    ("formerr.example", "deferred - 4.4.3 dns"),
    ("notimp.example", "deferred - 4.4.3 dns"),
    ("garbage.example", "deferred - 4.4.3 dns"),
    ("silent.example", "deferred - 4.4.3 dns"),
    ("referral.example", "deferred - 4.4.3 dns"),
    ("mxreferral.example", "deferred - 4.4.3 dns"),
    ("norecursion.example", "deferred - 4.4.3 dns"),
    ("mxnorecursion.example", "deferred - 4.4.3 dns"),
    ("authority.example", "failed - 5.4.4 dns"),
    ("mxservfail.example", "deferred - 4.4.3 dns"),
    ("mxsilent.example", "deferred - 4.4.3 dns"),
    ("null.example", "failed - 5.1.10 dns"),
    ("absent.example", "failed - 5.1.2 dns"),
    ("0123456789012345678901234567890123456789012345678901234567890123.example", "failed - 5.1.2 dns"),
    ("xn--a-.example", "failed - 5.1.2 dns"),
    ("nodata.example", "failed - 5.4.4 dns"),
    ("noaddress.example", "failed - 5.4.4 dns"),
    ("address.example", "failed - 5.4.4 dns"),
    ("ourselves.example", "failed - 5.4.6 dns"),
    ("cut.example", "deferred - 4.4.3 dns"),
    ("longhost.example", "failed - 5.4.4 dns"),
    ("123.456", "failed - 5.1.2 dns"),
    ("chain0.example", "delivered 250 2.0.0 end-of-data"),
    ("mxchain.example", "delivered 250 2.0.0 end-of-data"),
    ("circle.example", "failed - 5.4.4 dns"),
    ("mxcircle.example", "failed - 5.4.4 dns"),
    ("dangling.example", "failed - 5.1.2 dns"),
    ("mxdangling.example", "failed - 5.4.4 dns"),
    ("ipv6.example", "deferred - 4.4.1 connect"),
    ("refusing.example", "deferred - 4.4.1 connect"),
];

fn world(peer: &SmtpSink) -> String {
    let (good, dead) = (peer.ip(), fresh_loopback());
    // 250 octets with the domain behind it.
    let long = format!("{0}.{0}.{0}.{1}", "l".repeat(60), "l".repeat(50));
    let chain = (0..20).map(|n| format!("chain{n}.example CNAME chain{}.example\n", n + 1)).collect::<String>();
    format!(
        "host.example        A {good}
         dead.example        A {dead}
         broken.example      SERVFAIL
         mute.example        SILENT
         plain.example       MX 10 host.example
         implicit.example    A {good}
         mixedcase.example   MX 10 HOST.Example
         second.example      MX 10 dead.example
         second.example      MX 20 host.example
         alias.example       CNAME plain.example
         mxalias.example     MX 10 hostalias.example
         hostalias.example   CNAME host.example
         nullish.example     MX 0 .
         nullish.example     MX 10 host.example
         oneaddress.example  MX 10 nothing.host.example
         oneaddress.example  MX 20 host.example
         under_score.example MX 10 mx_1.under_score.example
         mx_1.under_score.example A {good}
         both.example        MX 10 dual.example
         dual.example        AAAA ::1
         dual.example        A {good}
         half.example        MX 10 halfhost.example
         halfhost.example    A {good}
         halfhost.example    SERVFAIL AAAA
         large.example       TRUNCATED
         large.example       MX 10 host.example
         slow.example        DELAY 300
         slow.example        MX 10 host.example
         onebroken.example   MX 10 broken.example
         onebroken.example   MX 20 host.example
         xn--mnchen-3ya.example MX 10 host.example
         single              A {good}
         servfail.example    SERVFAIL
         refused.example     REFUSED
         formerr.example     FORMERR
         notimp.example      NOTIMP
         garbage.example     GARBAGE
         silent.example      SILENT
         referral.example    REFERRAL ns.other.example
         mxreferral.example  MX 10 referral.example
         norecursion.example NORECURSION
         mxnorecursion.example MX 10 norecursion.example
         authority.example   AUTHORITY
         mxservfail.example  MX 10 broken.example
         mxsilent.example    MX 10 mute.example
         null.example        MX 0 .
         sub.nodata.example  A {good}
         noaddress.example   MX 10 nothing.host.example
         address.example     MX 10 127.0.0.9
         ourselves.example   MX 10 relay.test
         ourselves.example   MX 20 host.example
         relay.test          A {good}
         cut.example         CUT
         longhost.example    MX 10 {long}.longhost.example
         mxchain.example     MX 10 chain0.example
         {chain}
         chain20.example     A {good}
         circle.example      CNAME circle2.example
         circle2.example     CNAME circle.example
         mxcircle.example    MX 10 circle.example
         dangling.example    CNAME nowhere.invalid
         mxdangling.example  MX 10 dangling.example
         ipv6.example        MX 10 six.example
         six.example         AAAA ::1
         refusing.example    MX 10 dead.example"
    )
}

fn one_mail_to(relay: &Relay, recipient: &str) {
    relay.submit("me@example.org", &[recipient], &message("m"));
}

#[test]
fn the_dns_decides_where_a_mail_goes_and_what_it_lacks_is_told_apart() {
    let peer = SmtpSink::start(Script::new());
    let zones = Zones::start(&world(&peer));
    let relay = Setup::mx(&zones, peer.port()).delivery("deliveryThreads: 50").build();
    // All are asked at once, one over TCP: that is to have time on a busy machine.
    relay.reconfigure("timeout: 1s", "timeout: 3s");
    for (domain, _) in OUTCOMES {
        one_mail_to(&relay, &format!("you@{domain}"));
    }

    relay.run_spool().expect(69);

    let attempts = relay.attempts();
    let mut wrong = Vec::new();
    for (domain, expected) in OUTCOMES {
        let seen = summary(&attempts, &format!("you@{domain}").to_ascii_lowercase());
        if seen != *expected {
            wrong.push(format!("{domain}: {seen}; expected {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for record in attempts.iter().map(|attempt| &attempt["recipients"][0]).filter(|record| record["stage"] == "dns") {
        let cause = record["cause"].as_str().expect("a cause");
        let names = [".example", "relay.test", "123.456"];
        assert!(names.iter().any(|name| cause.contains(name)), "it names no domain and no host: {record}");
    }
    assert_eq!(peer.violations(), Vec::<String>::new());
}

/// Servers may send along addresses that nobody asked for; whoever believed them could be
/// sent anywhere.
#[test]
fn an_address_of_another_name_is_never_used() {
    // Whoever had a second address would try it after this.
    let named = SmtpSink::start(script!["MAIL" => "451 4.3.0 later"]);
    let other = SmtpSink::beside(&named, Script::new());
    let zones = Zones::start(&format!(
        "stray.example     MX 10 mx.stray.example
         mx.stray.example  STRAY elsewhere.example A {1}
         mx.stray.example  A {0}
         extra.example     MX 10 mx.extra.example
         extra.example     EXTRA mx.extra.example A {1}
         mx.extra.example  EXTRA elsewhere.example A {1}
         mx.extra.example  A {0}
         only.example      MX 10 mx.only.example
         mx.only.example   STRAY elsewhere.example A {1}
         target.example    MX 10 mx.target.example
         mx.target.example EXTRA elsewhere.example A {1}",
        named.ip(),
        other.ip()
    ));
    let relay = Setup::mx(&zones, named.port()).build();
    for domain in ["stray", "extra", "only", "target"] {
        one_mail_to(&relay, &format!("you@{domain}.example"));
    }
    assert_eq!(relay.run_spool().expect(69).counts(), [4, 0, 2, 2, 0, 0]);
    assert_eq!((named.connections() > 0, other.connections()), (true, 0));
}

#[test]
fn a_server_that_bears_no_edns_is_asked_without() {
    for (refusal, most) in [("FORMERR", 2), ("NOTIMP", 2), ("SILENT", 3)] {
        let peer = SmtpSink::start(Script::new());
        let zones = Zones::start(&format!(
            "one.example NOEDNS {refusal}\none.example MX 10 mx.one.example\n\
             mx.one.example NOEDNS {refusal}\nmx.one.example A {}",
            peer.ip()
        ));
        let relay = Setup::mx(&zones, peer.port()).build();
        relay.reconfigure("timeout: 1s, attempts: 1", "timeout: 500ms, attempts: 2");
        one_mail_to(&relay, "you@one.example");
        assert_eq!(relay.run_spool().expect(0).counts(), [1, 1, 0, 0, 0, 0], "{refusal}");
        let asked = zones.queries_of("one.example", RecordType::MX);
        assert!((2..=most).contains(&asked), "{refusal}: {asked}");
        assert_eq!(zones.queries_of("mx.one.example", RecordType::A), 1, "what it bears is known by now: {refusal}");
    }
}

#[test]
fn a_domain_is_looked_up_once_in_a_sweep() {
    let peer = SmtpSink::start(Script::new());
    let zones = Zones::start(&format!("one.example MX 10 mx.one.example\nmx.one.example A {}", peer.ip()));
    let relay = Setup::mx(&zones, peer.port()).build();
    for n in 0..6 {
        one_mail_to(&relay, &format!("r{n}@one.example"));
    }
    relay.run_spool().expect(0);
    assert_eq!(zones.queries_of("one.example", RecordType::MX), 1);
    assert_eq!(zones.queries_of("mx.one.example", RecordType::A), 1);
    assert_eq!(peer.transactions().len(), 6);
}

#[test]
fn dead_dns_costs_no_mail_a_pass_and_says_so() {
    for zone in ["one.example SILENT\ntwo.example SILENT", "one.example GARBAGE\ntwo.example GARBAGE"] {
        let zones = Zones::start(zone);
        let relay = Setup::mx(&zones, 25).limit(1).build();
        one_mail_to(&relay, "a@one.example");
        one_mail_to(&relay, "b@two.example");

        let finished = relay.run_spool().expect(70);

        assert_eq!(finished.counts()[1..5], [0; 4], "{zone}: {finished:?}");
        assert!(finished.counts()[5] > 0, "{zone}: {finished:?}");
        assert!(finished.stderr.contains("no name server answers"), "{finished:?}");
        assert!(relay.attempts().iter().all(|attempt| attempt["counted"] == false), "{zone}");
        assert_eq!((relay.size("temporary"), relay.size("permanent")), (0, 0), "still in the spool");
    }
}

#[test]
fn a_domain_that_does_not_exist_is_given_so_many_passes() {
    let zones = Zones::start("other.example A 127.0.0.1");
    let relay = Setup::mx(&zones, 25).limit(9).delivery("maxDnsProblemRetries: 2").build();
    one_mail_to(&relay, "you@absent.example");
    assert_eq!(relay.run_spool().expect(75).counts(), [1, 0, 1, 0, 0, 0]);
    assert_eq!(relay.sweep().expect(75).counts(), [1, 0, 1, 0, 0, 0]);
    assert_eq!(relay.sweep().expect(69).counts(), [1, 0, 0, 1, 0, 0], "not promoted: failed by itself");
    let outcomes: Vec<_> = relay.attempts().iter().map(|a| a["recipients"][0]["outcome"].clone()).collect();
    assert_eq!(outcomes, ["deferred", "deferred", "failed"]);
    assert_eq!(relay.show_only("permanent")["attributes"]["is-delivery-permanent-error"], "true");
    assert_eq!(relay.show_only("permanent")["attributes"]["delivery-error-code"], Value::Null);
}

#[test]
fn a_domain_that_is_set_up_between_two_passes_is_found_by_the_next() {
    let peer = SmtpSink::start(Script::new());
    let zones = Zones::start("other.example A 127.0.0.1");
    let relay = Setup::mx(&zones, peer.port()).build();
    one_mail_to(&relay, "you@new.example");
    relay.run_spool().expect(69);
    zones.replace(&format!("new.example A {}", peer.ip()));
    relay.command(&["repository", "reprocess", "permanent", "--all", "--processor", "relay", "--reset"]).expect(0);
    assert_eq!(relay.run_spool().expect(0).counts(), [1, 1, 0, 0, 0, 0]);
}

#[test]
fn a_gateway_that_does_not_resolve_is_only_ever_deferred() {
    let zones = Zones::start("other.example A 127.0.0.1");
    let dns = format!("dns: {{ servers: [\"{}\"], timeout: 1s, attempts: 1 }}", zones.address());
    let relay = Setup::gateway("gw.absent.example:25").limit(9).top(&dns).build();
    one_mail_to(&relay, "you@example.net");
    assert_eq!(relay.run_spool().expect(75).counts(), [1, 0, 1, 0, 0, 0]);
    assert_eq!(relay.sweep().expect(75).counts(), [1, 0, 1, 0, 0, 0]);
    let mail = relay.show_only("temporary");
    let error = mail["attributes"]["delivery-error"].as_str().expect("a sentence");
    assert!(error.contains("gw.absent.example"), "{error}");
}

#[test]
fn an_address_literal_is_its_own_next_hop() {
    let peer = SmtpSink::start(Script::new());
    let zones = Zones::start("other.example A 127.0.0.1");
    let relay = Setup::mx(&zones, peer.port()).build();
    let recipient = format!("you@[{}]", peer.ip());
    one_mail_to(&relay, &recipient);
    relay.run_spool().expect(0);
    assert_eq!(peer.transactions()[0].recipients, [recipient]);
}

#[test]
fn the_better_hosts_come_first_and_equal_ones_share() {
    let best = SmtpSink::start(script!["MAIL" => "451 4.3.0 not here"]);
    let equal = [SmtpSink::beside(&best, Script::new()), SmtpSink::beside(&best, Script::new())];
    let last = SmtpSink::beside(&best, Script::new());
    let zones = Zones::start(&format!(
        "example.net MX 30 last.example.net
         example.net MX 20 a.example.net
         example.net MX 20 b.example.net
         example.net MX 10 best.example.net
         best.example.net A {}
         a.example.net A {}
         b.example.net A {}
         last.example.net A {}",
        best.ip(),
        equal[0].ip(),
        equal[1].ip(),
        last.ip()
    ));
    let relay = Setup::mx(&zones, best.port()).build();
    one_mail_to(&relay, "you@example.net");
    relay.run_spool().expect(0);
    let shares = equal.each_ref().map(|peer| peer.transactions().len());
    assert_eq!((best.connections(), shares[0] + shares[1], last.connections()), (1, 1, 0));
}

#[test]
fn mail_for_ourselves_is_no_delivery() {
    let us = SmtpSink::start(Script::new());
    let zones = Zones::start(&format!(
        "loop.example MX 10 us.example
         loop.example MX 10 worse.example
         us.example A {}
         worse.example A {}",
        us.ip(),
        fresh_loopback()
    ));
    let listen = format!("smtp: {{ listen: [\"{}\"] }}", us.address());
    let relay = Setup::mx(&zones, us.port()).top(&listen).build();
    one_mail_to(&relay, "you@loop.example");
    relay.run_spool().expect(69);
    assert_eq!(summary(&relay.attempts(), "you@loop.example"), "failed - 5.4.6 dns");
    assert_eq!(us.connections(), 0);
    assert_eq!(relay.mails("permanent")[0]["recipients"], json!(["you@loop.example"]));
}
