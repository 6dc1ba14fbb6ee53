//! TLS by policy: what is used, what is recorded, and that nothing goes in clear where it may not.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{SignatureScheme, SupportedProtocolVersion};

use crate::support::message;
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{
    Authority, Identity, Script, SmtpSink, close, cut, on, raw, reply, reset, script, stall, wait,
};
use crate::support::zones::Zones;

/// The name that the peers' certificates are for, or not.
const HOST: &str = "mx.example.net";

/// A relay that trusts `authority` and reaches `peer` as [`HOST`] under a policy.
struct Case {
    relay: Relay,
    _zones: Zones,
}

impl Case {
    fn new(peer: &SmtpSink, policy: &str, authority: &Authority) -> Self {
        Self::with_roots(peer, policy, authority.pem())
    }

    fn with_roots(peer: &SmtpSink, policy: &str, roots: &str) -> Self {
        let zones = Zones::start(&format!("example.net MX 10 {HOST}\n{HOST} A {}", peer.ip()));
        let relay = Setup::mx(&zones, peer.port())
            .delivery(&format!("startTLS: {policy}"))
            .delivery("caFile: ca.pem")
            .delivery("timeout: 1s")
            .build();
        std::fs::write(relay.path().join("ca.pem"), roots).expect("a file");
        relay.submit("me@example.org", &["you@example.net"], &message("m"));
        relay.run_spool();
        Self { relay, _zones: zones }
    }

    /// The only recipient of the only attempt.
    fn record(&self) -> Value {
        self.relay.only_record()
    }
}

/// `outcome stage`.
fn ending(record: &Value) -> String {
    format!("{} {}", record["outcome"].as_str().expect("text"), record["stage"].as_str().expect("text"))
}

fn nothing_in_clear(peer: &SmtpSink, what: &str) {
    for connection in peer.record().connections {
        let mails = connection.commands.iter().filter(|(_, line)| line.starts_with("MAIL")).count();
        assert!(connection.tls || mails == 0, "{what}: {:?}", connection.commands);
    }
    assert!(peer.transactions().iter().all(|transaction| transaction.tls), "{what}");
}

#[test]
fn a_good_certificate_is_used_and_recorded_as_verified_under_every_policy() {
    let authority = Authority::new();
    for policy in ["true", "required", "verify"] {
        let peer = SmtpSink::start(Script::new().starttls(authority.certify(HOST)));
        let record = Case::new(&peer, policy, &authority).record();
        assert_eq!(ending(&record), "delivered end-of-data", "{policy}: {record}");
        assert_eq!((&record["tls"]["verified"], &record["tls"]["reason"]), (&true.into(), &Value::Null), "{record}");
        assert_eq!(record["tls"]["version"], "TLSv1.3");
        assert_eq!(record["notes"], serde_json::json!([]));
        nothing_in_clear(&peer, policy);
        assert_eq!(peer.violations(), Vec::<String>::new());
    }
}

#[test]
fn a_bad_certificate_is_used_and_noted_unless_it_must_verify() {
    let authority = Authority::new();
    let bad = || {
        [
            ("self-signed certificate", Identity::self_signed(HOST)),
            ("the certificate has expired", authority.certify_expired(HOST)),
            ("the certificate is not valid yet", authority.certify_not_yet(HOST)),
            ("the certificate is not for mx.example.net", authority.certify("other.example.net")),
            ("the certificate's issuer is not trusted", Authority::new().certify(HOST)),
        ]
    };
    for policy in ["true", "required"] {
        for (what, identity) in bad() {
            let peer = SmtpSink::start(Script::new().starttls(identity));
            let record = Case::new(&peer, policy, &authority).record();
            assert_eq!(ending(&record), "delivered end-of-data", "{policy}, {what}: {record}");
            assert_eq!(record["tls"]["verified"], false, "{policy}, {what}: {record}");
            assert_eq!(record["tls"]["reason"], what, "{policy}: {record}");
            assert_ne!(record["notes"], serde_json::json!([]), "{policy}, {what}: {record}");
            nothing_in_clear(&peer, what);
        }
    }
    for (what, identity) in bad() {
        let peer = SmtpSink::start(Script::new().starttls(identity));
        let record = Case::new(&peer, "verify", &authority).record();
        assert_eq!(ending(&record), "deferred starttls", "verify, {what}: {record}");
        assert_eq!(record["enhanced"], "4.7.0", "{record}");
        let cause = record["cause"].as_str().expect("a cause");
        assert!(cause.contains(HOST) && cause.contains(what), "{record}");
        assert!(!peer.commands().iter().any(|line| line.starts_with("MAIL")), "verify, {what}");
    }
}

/// What a peer offers that promises TLS all the way (RFC 8689).
fn promising(identity: Identity) -> Script {
    Script::new().starttls(identity).on("EHLO", "250-sink\n250-STARTTLS\n250-REQUIRETLS\n250 8BITMIME")
}

#[test]
fn a_mail_that_requires_tls_goes_to_verified_gateways_alone_that_promise_it() {
    let authority = Authority::new();
    let good = || authority.certify(HOST);
    let (by_gateway, by_mx) = (true, false);
    let cases = [
        ("kept", promising(good()), by_gateway, "delivered end-of-data", ""),
        ("not offered", Script::new().starttls(good()), by_gateway, "failed mail 5.7.30", "does not offer REQUIRETLS"),
        ("found by MX", promising(good()), by_mx, "failed mail 5.7.30", "found by MX"),
        ("of anybody", promising(Identity::self_signed(HOST)), by_gateway, "deferred mail 4.7.0", "does not verify"),
        ("in clear", Script::new(), by_gateway, "deferred mail 4.7.0", "no TLS"),
    ];
    for (what, script, by_gateway, ended, cause) in cases {
        let peer = SmtpSink::start(script);
        let zones = Zones::start(&format!("example.net MX 10 {HOST}\n{HOST} A {}", peer.ip()));
        let mut setup = Setup::mx(&zones, peer.port()).delivery("caFile: ca.pem");
        if by_gateway {
            setup = setup.delivery(&format!("gateway: \"{HOST}:{}\"", peer.port()));
        }
        let relay = setup.build();
        std::fs::write(relay.path().join("ca.pem"), authority.pem()).expect("a file");
        let words = ["sendmail", "-O", "requiretls", "-f", "me@example.org", "you@example.net"];
        relay.command_with_input(&words, b"X: y\n\nz\n").expect(0);
        relay.run_spool();
        let record = relay.attempts()[0]["recipients"][0].clone();
        let enhanced = record["enhanced"].as_str().filter(|status| !status.starts_with('2'));
        let told = format!("{} {}", ending(&record), enhanced.unwrap_or_default());
        assert_eq!(told.trim_end(), ended, "{what}: {record}");
        assert!(record["cause"].as_str().unwrap_or_default().contains(cause), "{what}: {record}");
        let mails: Vec<_> = peer.commands().into_iter().filter(|line| line.starts_with("MAIL")).collect();
        let promised: &[&str] = if what == "kept" { &["MAIL FROM:<me@example.org> REQUIRETLS"] } else { &[] };
        assert_eq!(mails, promised, "{what}");
    }
}

/// How a server answers that knows nothing later (RFC 4346 section 7.4.1.3).
fn server_hello_of_tls_1_1() -> Vec<u8> {
    let hello = [&b"\x02\x00\x00\x26\x03\x02"[..], &[7; 32], b"\x00\x00\x2f\x00"].concat();
    [&b"\x16\x03\x02\x00\x2a"[..], &hello].concat()
}

/// What may go wrong at STARTTLS; a handshake that hangs included.
fn broken() -> Vec<(&'static str, Script)> {
    let offers = || Script::new().starttls(Identity::self_signed(HOST));
    // Once the handshake has begun.
    let then = |then| wait(Duration::from_millis(150)).then(then);
    vec![
        ("refused by 454", offers().on("STARTTLS", "454 4.7.0 not now")),
        ("refused by 501", offers().on("STARTTLS", "501 5.5.2 what")),
        ("closed", offers().on("TLS", then(close()))),
        ("reset", offers().on("TLS", then(reset()))),
        ("garbage", offers().on("TLS", then(raw(b"\x00\x01garbage that is no TLS record\r\n").then(close())))),
        ("an alert", offers().on("TLS", then(raw(b"\x15\x03\x03\x00\x02\x02\x28").then(close())))),
        ("no answer", offers().on("TLS", stall())),
        ("TLS 1.1 at most", offers().on("TLS", then(raw(server_hello_of_tls_1_1()).then(stall())))),
        ("TLS 1.1 or nothing", offers().on("TLS", then(raw(b"\x15\x03\x02\x00\x02\x02\x46").then(close())))),
        ("plain text", offers().on("TLS", then(reply("250 2.0.0 let us go on in clear").then(stall())))),
    ]
}

#[test]
fn where_tls_fails_an_opportunistic_attempt_goes_on_in_clear_and_says_so() {
    let authority = Authority::new();
    for (what, script) in broken() {
        let peer = SmtpSink::start(script);
        let record = Case::new(&peer, "true", &authority).record();
        assert_eq!(ending(&record), "delivered end-of-data", "{what}: {record}");
        assert_eq!(record["tls"], Value::Null, "{what}: {record}");
        let notes = record["notes"].as_array().expect("notes");
        assert!(notes.iter().any(|n| n.as_str().is_some_and(|n| n.starts_with("sent in clear"))), "{what}: {record}");
        // Over a new connection: nothing is said on one that promised TLS.
        assert_eq!((peer.connections(), peer.transactions()[0].connection), (2, 2), "{what}");
        assert_eq!(peer.violations(), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn where_tls_is_required_nothing_goes_in_clear_and_the_mail_waits() {
    let authority = Authority::new();
    for (what, script) in broken().into_iter().chain([("not offered", script![])]) {
        let peer = SmtpSink::start(script);
        let record = Case::new(&peer, "required", &authority).record();
        assert_eq!(ending(&record), "deferred starttls", "{what}: {record}");
        assert_eq!(record["notes"], json!([]), "{what}: nothing was sent");
        assert_eq!(peer.transactions().len(), 0);
        assert!(!peer.commands().iter().any(|line| line.starts_with("MAIL")), "{what}");
    }
}

#[test]
fn a_gateway_that_speaks_no_tls_from_the_first_byte_is_said_to() {
    for (what, script) in [
        ("greets in clear", Script::new()),
        ("closes", script!["CONNECT" => close()]),
        ("is silent", script!["CONNECT" => stall()]),
    ] {
        let peer = SmtpSink::start(script);
        let relay = Setup::gateway(peer.address()).delivery("sslEnable: true").delivery("timeout: 1s").build();
        relay.submit("me@example.org", &["you@example.net"], &message("m"));
        relay.run_spool().expect(75);
        let said = conversation(relay.attempts()[0]["dialogue"].as_array().expect("a dialogue"));
        let last = said.last().expect("an entry");
        assert!(last.starts_with("[TLS handshake failed: "), "{what}: {said:#?}");
        assert_eq!(ending(&relay.only_record()), "deferred connect", "{what}");
    }
}

/// The texts of a dialogue.
/// Certificates that nobody should have and some have, with what is said of each.
fn odd() -> Vec<(&'static str, Identity, &'static str)> {
    let (both, last) = ([&TLS13, &TLS12], [&TLS13]);
    let mut found = vec![(
        "Ed448",
        Identity::forged(include_str!("support/sink/odd/ed448.pem"), SignatureScheme::ED448, &last),
        "its Ed448 key is of a kind that cannot be checked here",
    )];
    for version in both {
        let versions: &[&'static SupportedProtocolVersion] = &[version];
        let short = include_str!("support/sink/odd/rsa_1024.pem");
        found.extend([
            (
                "X.509 version 1",
                Identity::odd(include_str!("support/sink/odd/version_1.pem"), versions),
                "its certificate is X.509 version 1",
            ),
            (
                "an RSA key of 1024 bits",
                Identity::forged(short, SignatureScheme::RSA_PSS_SHA256, versions),
                "its RSA key of 1024 bits is too short",
            ),
            ("SHA-1", Identity::odd(include_str!("support/sink/odd/sha1.pem"), versions), "self-signed certificate"),
            ("MD5", Identity::odd(include_str!("support/sink/odd/md5.pem"), versions), "self-signed certificate"),
            (
                "SHA-1 by an authority",
                Identity::odd(include_str!("support/sink/odd/sha1_by_authority.pem"), versions),
                "its certificate is signed with SHA-1, which proves nothing any more",
            ),
        ]);
    }
    found
}

#[test]
fn any_certificate_is_used_where_it_need_not_verify_and_noted_with_the_reason() {
    for (policy, used) in
        [("true", true), ("required", true), ("verify", false), ("verify\n      sslTrustAllCerts: true", true)]
    {
        for (what, identity, reason) in odd() {
            let peer = SmtpSink::start(Script::new().starttls(identity));
            let tried = Case::with_roots(&peer, policy, include_str!("support/sink/odd/authority.pem"));
            let record = tried.record();
            assert_eq!(peer.connections(), 1, "{policy}, {what}: {record}");
            nothing_in_clear(&peer, what);
            assert_eq!(record["tls"]["verified"], json!(false), "{policy}, {what}: {record}");
            assert!(record["tls"]["reason"].as_str().is_some_and(|told| told.starts_with(reason)), "{what}: {record}");
            assert!(record["notes"].to_string().contains(reason), "{policy}, {what}: {record}");
            let ends = if used { "delivered end-of-data" } else { "deferred starttls" };
            assert_eq!(ending(&record), ends, "{policy}, {what}: {record}");
            let cause = record["cause"].as_str().unwrap_or_default();
            assert!(used || cause.contains("does not verify: ") && cause.contains(reason), "{what}: {cause}");
        }
    }
}

#[test]
fn a_certificate_without_its_key_is_no_session_at_all() {
    for version in [&TLS13, &TLS12] {
        for (policy, ends) in [("true", "delivered end-of-data"), ("required", "deferred starttls")] {
            let peer = SmtpSink::start(Script::new().starttls(Identity::stolen(HOST, &[version])));
            let record = Case::new(&peer, policy, &Authority::new()).record();
            assert_eq!((ending(&record).as_str(), &record["tls"]), (ends, &Value::Null), "{record}");
            let told = format!("{}{}", record["cause"], record["notes"]);
            assert!(told.contains("its signature does not fit the key of its certificate ("), "{told}");
        }
    }
}

#[test]
fn why_there_is_no_tls_is_told_in_an_operator_s_words_with_the_library_s_behind() {
    let nothing_in_common = "no common cipher or protocol: the peer may know only TLS 1.0 or RSA key exchange (";
    // Once the handshake has begun.
    let later = || wait(Duration::from_millis(150));
    let alert = |description: u8| later().then(raw([0x15, 3, 3, 0, 2, 2, description]).then(close()));
    for (what, then, words) in [
        ("handshake_failure", alert(40), nothing_in_common),
        ("protocol_version", alert(70), nothing_in_common),
        ("insufficient_security", alert(71), nothing_in_common),
        (
            "TLS 1.1",
            wait(Duration::from_millis(150)).then(raw(server_hello_of_tls_1_1()).then(stall())),
            nothing_in_common,
        ),
        ("unknown_ca", alert(48), "it does not take our certificate, or wants one ("),
        ("unrecognized_name", alert(112), "it does not go by this name ("),
        ("plain text", later().then(reply("250 let us go on in clear").then(stall())), "what it sends is no TLS ("),
    ] {
        for policy in ["true", "required"] {
            let script = Script::new().starttls(Identity::self_signed(HOST)).on("TLS", then.clone());
            let peer = SmtpSink::start(script);
            let record = Case::new(&peer, policy, &Authority::new()).record();
            let told = match policy {
                "true" => record["notes"][0].as_str().unwrap_or_default().to_owned(),
                _ => record["cause"].as_str().unwrap_or_default().to_owned(),
            };
            assert!(told.contains(&format!("handshake failed: {words}")), "{what}, {policy}: {record}");
        }
    }
}

fn conversation(dialogue: &[Value]) -> Vec<String> {
    let text = |entry: &Value| entry["text"].as_str().expect("text").to_owned();
    dialogue.iter().map(text).collect()
}

#[test]
fn a_handshake_that_failed_stands_in_the_dialogue_as_what_failed() {
    let authority = Authority::new();
    let hangs_up = Script::new().starttls(Identity::self_signed(HOST)).on("STARTTLS", reply("220 go").then(close()));
    let not_refused = |(what, _): &(&str, Script)| !what.starts_with("refused");
    for (what, script) in broken().into_iter().filter(not_refused).chain([("hangs up", hangs_up)]) {
        for policy in ["true", "required"] {
            let peer = SmtpSink::start(script.clone());
            let case = Case::new(&peer, policy, &authority);
            let attempt = case.relay.attempts().remove(0);
            let said = conversation(attempt["dialogue"].as_array().expect("a dialogue"));
            let failed =
                said.iter().position(|text| text.starts_with("[TLS handshake failed: ")).unwrap_or_else(|| {
                    panic!("{what}, {policy}: {said:#?}");
                });
            assert!(!said.iter().any(|text| text.contains("not connected")), "{what}, {policy}: {said:#?}");
            // On that connection nothing can have been said any more.
            let next = said.get(failed + 1).map_or("[connected to ", String::as_str);
            assert!(next.starts_with("[connected to "), "{what}, {policy}: {said:#?}");
            let reason = said[failed].trim_start_matches("[TLS handshake failed: ").trim_end_matches(']');
            let record = case.record();
            assert!(record.to_string().contains(reason), "{what}, {policy}: the same words: {reason}, {record}");
        }
    }
}

#[test]
fn a_peer_that_wants_a_certificate_of_ours_says_so_behind_the_handshake() {
    let authority = Authority::new();
    let wanted = "it wants a certificate of ours: set 'certificate' and 'key' (";
    for (policy, expected) in [("true", "delivered end-of-data"), ("required", "deferred starttls")] {
        let peer = SmtpSink::start(Script::new().starttls(authority.certify_for_known_clients(HOST)));
        let record = Case::new(&peer, policy, &authority).record();
        assert_eq!(ending(&record), expected, "{policy}: {record}");
        let told = if policy == "true" { &record["notes"] } else { &record["cause"] };
        assert!(told.to_string().contains(&format!("handshake failed: {wanted}")), "{policy}: {record}");
        assert_eq!(record["tls"], Value::Null, "{policy}: {record}");
    }
}

#[test]
fn a_peer_that_hangs_up_right_behind_its_220_to_starttls_is_spoken_to_in_clear() {
    let go = || reply("220 2.0.0 go");
    for (what, point, then) in [
        ("FIN with the 220", "STARTTLS", go().then(close())),
        ("RST with the 220", "STARTTLS", go().then(reset())),
        ("FIN behind it", "TLS", close()),
        ("RST behind it", "TLS", reset()),
        ("FIN a moment later", "STARTTLS", go().then(wait(Duration::from_millis(20))).then(close())),
        ("RST a moment later", "STARTTLS", go().then(wait(Duration::from_millis(20))).then(reset())),
    ] {
        let script = Script::new().starttls(Identity::self_signed(HOST)).on(point, then);
        let peer = SmtpSink::start(script);
        let record = Case::new(&peer, "true", &Authority::new()).record();
        assert_eq!(ending(&record), "delivered end-of-data", "{what}: {record}");
        assert_eq!(record["tls"], Value::Null, "{what}: {record}");
        let note = record["notes"][0].as_str().expect("a note");
        assert!(note.starts_with("sent in clear: the TLS handshake failed: "), "{what}: {record}");
        assert_eq!((peer.connections(), peer.transactions()[0].connection), (2, 2), "{what}");
    }
}

#[test]
fn without_tls_on_offer_an_opportunistic_attempt_needs_no_second_connection() {
    let peer = SmtpSink::start(Script::new());
    let record = Case::new(&peer, "true", &Authority::new()).record();
    assert_eq!(ending(&record), "delivered end-of-data");
    assert_eq!(peer.connections(), 1);
}

#[test]
fn replies_injected_behind_the_220_to_starttls_are_never_used() {
    let authority = Authority::new();
    for policy in ["true", "required"] {
        let identity = authority.certify(HOST);
        let injected = raw("220 2.0.0 go\r\n250-injected\r\n250 SMTPUTF8\r\n");
        let peer = SmtpSink::start(Script::new().starttls(identity).on("STARTTLS", injected));
        let record = Case::new(&peer, policy, &authority).record();
        for connection in peer.record().connections.iter().filter(|connection| connection.tls) {
            assert!(!connection.commands.iter().any(|(_, line)| line.starts_with("MAIL")), "{policy}");
        }
        if policy == "required" {
            assert_eq!(ending(&record), "deferred starttls", "{record}");
        }
        assert!(!peer.commands().iter().any(|line| line.contains("SMTPUTF8")), "{policy}");
    }
}

#[test]
fn only_what_is_offered_within_tls_counts() {
    let authority = Authority::new();
    let script = Script::new()
        .starttls(authority.certify(HOST))
        .capabilities(&["SIZE 10", "SMTPUTF8", "8BITMIME", "PIPELINING"])
        .capabilities_in_tls(&["SIZE 100000"]);
    let peer = SmtpSink::start(script);
    let record = Case::new(&peer, "true", &authority).record();
    assert_eq!(ending(&record), "delivered end-of-data", "{record}");
    let ehlos = peer.commands().iter().filter(|line| line.starts_with("EHLO")).count();
    assert_eq!((ehlos, peer.violations()), (2, vec![]));
}

#[test]
fn a_peer_of_one_version_of_tls_is_spoken_to_in_that() {
    let authority = Authority::new();
    for (version, name) in [(&TLS12, "TLSv1.2"), (&TLS13, "TLSv1.3")] {
        let peer = SmtpSink::start(Script::new().starttls(authority.certify_for(HOST, version)));
        let record = Case::new(&peer, "verify", &authority).record();
        assert_eq!(ending(&record), "delivered end-of-data", "{name}: {record}");
        assert_eq!((&record["tls"]["version"], &record["tls"]["verified"]), (&name.into(), &true.into()), "{record}");
    }
}

#[test]
fn a_connection_cut_behind_the_reply_to_the_final_dot_changes_nothing() {
    let authority = Authority::new();
    for then in [reset(), cut()] {
        let script = Script::new().starttls(authority.certify(HOST)).on(".", reply("250 2.0.0 ok").then(then));
        let peer = SmtpSink::start(script);
        let record = Case::new(&peer, "verify", &authority).record();
        assert_eq!(ending(&record), "delivered end-of-data", "{record}");
    }
}

#[test]
fn a_session_that_is_cut_without_a_word_of_tls_costs_the_next_mail_nothing() {
    for (what, rules) in [
        ("behind the final dot", script!["." => reply("250 2.0.0 ok").then(cut())]),
        ("a moment later", script!["." => reply("250 2.0.0 ok").then(wait(Duration::from_millis(2))).then(cut())]),
        ("at MAIL", script![on("MAIL").nth(2) => cut()]),
        ("at RCPT", script![on("RCPT").nth(2) => cut()].capabilities(&[])),
    ] {
        let peer = SmtpSink::start(rules.starttls(Identity::self_signed(HOST)));
        let relay = Setup::gateway(peer.address()).delivery("deliveryThreads: 1").build();
        relay.fill((0..6).map(|n| vec![format!("r{n}@example.net")]));
        assert_eq!(relay.run_spool().expect(0).counts(), [6, 6, 0, 0, 0, 0], "{what}");
        assert_eq!(peer.transactions().len(), 6, "{what}: each once");
        assert!(peer.connections() > 1, "{what}");
    }
}

#[test]
fn a_gateway_can_speak_tls_from_the_first_byte() {
    let authority = Authority::new();
    let peer = SmtpSink::start(Script::new().implicit_tls(authority.certify("127.0.0.1")));
    let relay = Setup::gateway(peer.address()).delivery("sslEnable: true").delivery("timeout: 2s").build();
    relay.submit("me@example.org", &["you@example.net"], &message("m"));
    relay.run_spool().expect(0);
    nothing_in_clear(&peer, "implicit TLS");
    assert_eq!(relay.attempts()[0]["recipients"][0]["tls"]["verified"], false);
}

#[test]
fn credentials_go_over_tls_only_and_stand_nowhere() {
    let (user, password) = ("relay", "correct horse battery");
    for (what, script, delivered) in [
        ("in clear", Script::new().auth(user, password), false),
        ("in TLS", Script::new().auth(user, password).starttls(Identity::self_signed("gw")), true),
        ("refused", Script::new().auth(user, "another").starttls(Identity::self_signed("gw")), false),
    ] {
        let peer = SmtpSink::start(script);
        let relay = Setup::gateway(peer.address())
            .delivery(&format!("gatewayUsername: {user}"))
            .delivery(&format!("gatewayPassword: \"{password}\""))
            .build();
        relay.submit("me@example.org", &["you@example.net"], &message("m"));

        let finished = relay.command(&["--verbose", "run", "spool", "--format", "json"]);

        assert_eq!(finished.counts()[1..3], if delivered { [1, 0] } else { [0, 1] }, "{what}: {finished:?}");
        let record = relay.command(&["attempts", "--format", "json"]).stdout;
        let encoded = "AHJlbGF5AGNvcnJlY3QgaG9yc2UgYmF0dGVyeQ==";
        for text in [&record, &finished.stderr] {
            assert!(!text.contains(password) && !text.contains(encoded), "{what}: {text}");
        }
        if what != "in clear" {
            assert!(record.contains("****"), "{what}: {record}");
        }
        assert_eq!(peer.violations(), Vec::<String>::new(), "{what}");
        if !delivered {
            assert_eq!(relay.attempts()[0]["recipients"][0]["stage"], "auth", "{what}");
        }
    }
}
