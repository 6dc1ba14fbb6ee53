//! Credentials and certificates of our own: with whom they are used, and that what is secret
//! of them is seen by nobody else.

use serde_json::json;

use crate::support::message;
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Authority, Identity, Script, SmtpSink, close, on, reply, script};
use crate::support::zones::Zones;

const USER: &str = "relay";
const PASSWORD: &str = "correct horse battery";

/// The password as itself, and in each form in which it goes over the wire.
const SECRETS: [&str; 3] = [PASSWORD, "AHJlbGF5AGNvcnJlY3QgaG9yc2UgYmF0dGVyeQ==", "Y29ycmVjdCBob3JzZSBiYXR0ZXJ5"];

fn gateway(peer: &SmtpSink) -> Setup {
    Setup::gateway(peer.address()).delivery(&format!("gatewayUsername: {USER}"))
}

fn with_password(peer: &SmtpSink) -> Setup {
    gateway(peer).delivery(&format!("gatewayPassword: \"{PASSWORD}\""))
}

fn secure() -> Script {
    Script::new().starttls(Identity::self_signed("gw")).auth(USER, PASSWORD)
}

fn said_auth(peer: &SmtpSink) -> Vec<String> {
    peer.commands().into_iter().filter(|line| line.starts_with("AUTH")).collect()
}

fn one_mail(relay: &Relay) {
    relay.submit("me@example.org", &["you@example.net"], &message("m"));
}

#[test]
fn plain_is_preferred_and_login_is_said_where_only_that_is_offered() {
    for (mechanisms, first) in [
        ("PLAIN LOGIN", "AUTH PLAIN "),
        ("LOGIN PLAIN", "AUTH PLAIN "),
        ("PLAIN", "AUTH PLAIN "),
        ("LOGIN", "AUTH LOGIN"),
        ("CRAM-MD5 login", "AUTH LOGIN"),
        ("SCRAM-SHA-256 plain XOAUTH2", "AUTH PLAIN "),
    ] {
        let peer = SmtpSink::start(secure().mechanisms(mechanisms));
        let relay = with_password(&peer).build();
        one_mail(&relay);
        relay.run_spool().expect(0);
        assert!(peer.transactions()[0].authenticated && peer.transactions()[0].tls, "{mechanisms}");
        assert!(said_auth(&peer).len() == 1 && said_auth(&peer)[0].starts_with(first), "{mechanisms}");
        assert_eq!(peer.violations(), Vec::<String>::new(), "{mechanisms}");
    }
}

#[test]
fn once_authenticated_a_session_serves_all_its_mails() {
    let peer = SmtpSink::start(secure());
    let relay = with_password(&peer).delivery("deliveryThreads: 1").build();
    relay.fill((0..20).map(|n| vec![format!("r{n}@example.net")]));
    relay.run_spool().expect(0);
    assert_eq!((said_auth(&peer).len(), peer.connections()), (1, 1));
    assert!(peer.transactions().iter().all(|t| t.authenticated));
}

#[test]
fn the_password_can_rest_in_a_file_of_its_own() {
    for content in [PASSWORD.to_owned(), format!("{PASSWORD}\n"), format!("{PASSWORD}\r\n")] {
        let peer = SmtpSink::start(secure());
        let relay = gateway(&peer).delivery("gatewayPasswordFile: secret.txt").build();
        std::fs::write(relay.path().join("secret.txt"), &content).expect("a file");
        one_mail(&relay);
        relay.run_spool().expect(0);
        assert!(peer.transactions()[0].authenticated, "{content:?}");
    }
}

#[test]
fn a_password_file_that_cannot_be_used_is_a_configuration_error_with_its_place() {
    let peer = SmtpSink::start(secure());
    let relay = gateway(&peer).delivery("gatewayPasswordFile: secret.txt").build();
    let missing = relay.command(&["check"]).expect(78);
    assert!(missing.stderr.contains("redeliver.yaml:") && missing.stderr.contains("secret.txt"), "{missing:?}");
    std::fs::write(relay.path().join("secret.txt"), "one\ntwo\n").expect("a file");
    let two_lines = relay.command(&["check"]).expect(78);
    assert!(two_lines.stderr.contains("more than one line"), "{two_lines:?}");
    assert!(!two_lines.stderr.contains("two\n"), "a secret in an error: {two_lines:?}");
}

#[test]
fn no_mistake_in_the_configuration_brings_a_secret_into_its_message() {
    let peer = SmtpSink::start(secure());
    for line in [
        format!("gatewayPassword: [{PASSWORD}]"),
        format!("gatewayPassword: {{ a: {PASSWORD} }}"),
        format!("gatewayPasword: {PASSWORD}"),
        format!("gatewayPassword: \"{PASSWORD}"),
    ] {
        let told = gateway(&peer).delivery(&line).build().command(&["check"]).expect(78);
        assert!(told.stderr.contains("redeliver.yaml:") && !told.stderr.contains(PASSWORD), "{line}: {told:?}");
    }
    // One of the two is missing, or there is one too many.
    let both = with_password(&peer).delivery("gatewayPasswordFile: secret.txt").build();
    std::fs::write(both.path().join("secret.txt"), PASSWORD).expect("a file");
    let alone = Setup::gateway(peer.address()).delivery(&format!("gatewayPassword: {PASSWORD}")).build();
    for relay in [both, alone] {
        let told = relay.command(&["check"]).expect(78);
        assert!(!told.stderr.contains(PASSWORD), "{told:?}");
    }
}

#[test]
fn credentials_never_go_in_clear_unless_that_is_allowed() {
    for (policy, allowed) in [("true", false), ("false", false), ("true", true), ("false", true)] {
        let peer = SmtpSink::start(Script::new().auth(USER, PASSWORD));
        let relay =
            with_password(&peer).delivery(&format!("startTLS: {policy}")).delivery(&format!("authInClear: {allowed}"));
        let relay = relay.build();
        one_mail(&relay);
        let finished = relay.run_spool();
        if allowed {
            assert_eq!(finished.code, Some(0), "{finished:?}");
            assert!(peer.transactions()[0].authenticated);
        } else {
            assert_eq!(finished.code, Some(75), "{finished:?}");
            assert_eq!((said_auth(&peer), peer.transactions().len()), (vec![], 0), "neither AUTH nor MAIL");
            let record = relay.only_record();
            assert_eq!((&record["stage"], &record["enhanced"]), (&json!("auth"), &json!("4.7.0")), "{record}");
            assert!(record["cause"].as_str().is_some_and(|cause| cause.contains("authInClear")), "{record}");
        }
    }
}

#[test]
fn where_tls_fails_the_attempt_in_clear_sends_no_credentials() {
    let peer = SmtpSink::start(secure().on("STARTTLS", "454 4.7.0 not now"));
    let relay = with_password(&peer).build();
    one_mail(&relay);
    relay.run_spool().expect(75);
    assert_eq!((said_auth(&peer), peer.transactions().len()), (vec![], 0));
}

#[test]
fn a_secret_stands_in_no_record_no_log_and_no_file() {
    for mechanisms in ["PLAIN", "LOGIN"] {
        for (what, password, code) in [("taken", PASSWORD, 0), ("refused", "another", 75)] {
            let script = Script::new().starttls(Identity::self_signed("gw")).auth(USER, password);
            let peer = SmtpSink::start(script.mechanisms(mechanisms).on("RCPT TO:<no@", "450 4.2.0 later"));
            let relay = with_password(&peer).top("log: { level: trace }").build();
            relay.submit("me@example.org", &["yes@example.net"], &message("m"));
            let run = relay.command(&["--verbose", "run", "spool", "--format", "json"]).expect(code);

            let mut seen = vec![("the run", run.stdout), ("the log", run.stderr)];
            seen.push(("attempts", relay.command(&["attempts", "--format", "json"]).stdout));
            seen.push(("attempts as text", relay.command(&["attempts"]).stdout));
            let others: [&[&str]; 5] = [
                &["check"],
                &["explain", "you@example.net"],
                &["explain", "you@example.net", "--format", "json"],
                &["job", "runs"],
                &["repository", "mails", "temporary"],
            ];
            for command in others {
                let finished = relay.command(command);
                seen.extend([(command[0], finished.stdout), (command[0], finished.stderr)]);
            }
            if code != 0 {
                let key = relay.mails("temporary")[0]["key"].as_str().expect("a key").to_owned();
                seen.push(("show", relay.command(&["repository", "show", "temporary", &key]).expect(0).stdout));
                seen.push(("show in JSON", relay.show("temporary", &key).to_string()));
            }
            assert!(seen[2].1.contains(&format!("AUTH {mechanisms}")) && seen[2].1.contains("****"), "{}", seen[2].1);
            seen.extend(files(&relay));
            for (place, text) in seen {
                for secret in SECRETS {
                    assert!(!text.contains(secret), "{what}, {mechanisms}: in {place}");
                }
            }
        }
    }
}

#[test]
fn a_peer_that_repeats_a_secret_does_not_bring_it_into_the_record() {
    let refusal = format!("535 5.7.8 {PASSWORD} is wrong ({})", SECRETS[1]);
    let peer = SmtpSink::start(secure().on("AUTH", reply(&refusal)));
    let relay = with_password(&peer).build();
    one_mail(&relay);
    let run = relay.run_spool().expect(75);
    let record = relay.only_record();
    assert_eq!(record["reply"], "535 5.7.8 **** is wrong (****)");
    let mut seen = files(&relay);
    seen.extend([("the log", run.stderr), ("attempts", relay.attempts()[0].to_string())]);
    for (place, text) in seen {
        assert!(SECRETS.iter().all(|secret| !text.contains(secret)), "in {place}");
    }
}

/// Everything below the state directory.
fn files(relay: &Relay) -> Vec<(&'static str, String)> {
    let entries = std::fs::read_dir(relay.path().join("var")).expect("the state directory");
    let files = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file());
    files
        .map(|file| ("a file", String::from_utf8_lossy(&std::fs::read(file).expect("readable")).into_owned()))
        .collect()
}

#[test]
fn without_a_mechanism_that_we_have_nothing_is_sent() {
    for (what, script) in [
        ("none", Script::new().starttls(Identity::self_signed("gw"))),
        ("others", secure().mechanisms("CRAM-MD5 GSSAPI")),
    ] {
        let peer = SmtpSink::start(script);
        let relay = with_password(&peer).build();
        one_mail(&relay);
        relay.run_spool().expect(75);
        assert_eq!((said_auth(&peer), peer.transactions().len()), (vec![], 0), "{what}");
        assert_eq!(relay.only_record()["stage"], "auth", "{what}");
    }
}

#[test]
fn auth_refused_is_deferred_whatever_the_code() {
    for refusal in ["535 5.7.8 wrong", "534 5.7.9 too weak", "454 4.7.0 not now", "504 5.5.4 what", "421 4.3.2 bye"] {
        let peer = SmtpSink::start(secure().on("AUTH", refusal));
        let relay = with_password(&peer).build();
        one_mail(&relay);
        relay.run_spool().expect(75);
        let record = relay.only_record();
        assert_eq!((&record["outcome"], &record["stage"]), (&json!("deferred"), &json!("auth")), "{refusal}");
        assert_eq!(record["reply"], refusal);
        assert_eq!(peer.transactions().len(), 0, "{refusal}");
    }
}

#[test]
fn a_refused_mechanism_judges_no_password_and_the_next_is_tried_in_the_same_session() {
    let (plain, login) = ("AUTH PLAIN", "AUTH LOGIN");
    // Listed, answered to PLAIN, what is said, whether it is delivered.
    for (mechanisms, refusal, said, delivered) in [
        ("LOGIN PLAIN", "504 5.7.4 PLAIN authentication is not permitted by this server.", vec![plain, login], true),
        ("PLAIN LOGIN", "504 5.5.4 unrecognized authentication type", vec![plain, login], true),
        ("PLAIN LOGIN", "534 5.7.9 mechanism too weak", vec![plain, login], true),
        ("PLAIN LOGIN", "504 what", vec![plain, login], true),
        ("PLAIN", "504 5.7.4 not permitted", vec![plain], false),
        ("PLAIN LOGIN", "535 5.7.8 wrong", vec![plain], false),
        ("PLAIN LOGIN", "535 5.7.139 basic authentication is disabled", vec![plain], false),
        ("PLAIN LOGIN", "553 5.7.1 no", vec![plain], false),
        ("PLAIN LOGIN", "454 4.7.0 later", vec![plain], false),
        ("PLAIN LOGIN", "530 5.7.0 STARTTLS first", vec![plain], false),
        ("PLAIN LOGIN", "421 4.7.0 bye", vec![plain], false),
    ] {
        let peer = SmtpSink::start(secure().mechanisms(mechanisms).on(plain, refusal));
        let relay = with_password(&peer).build();
        one_mail(&relay);
        relay.run_spool().expect(if delivered { 0 } else { 75 });
        let begun = |line: &String| line[..plain.len()].to_owned();
        assert_eq!(said_auth(&peer).iter().map(begun).collect::<Vec<_>>(), said, "{mechanisms}: {refusal}");
        assert_eq!((peer.connections(), peer.transactions().len()), (1, usize::from(delivered)), "{refusal}");
        if !delivered {
            let record = relay.only_record();
            assert_eq!((&record["stage"], &record["reply"]), (&json!("auth"), &json!(refusal)));
        }
    }
}

#[test]
fn what_is_offered_instead_of_a_password_is_named() {
    let peer = SmtpSink::start(secure().mechanisms("XOAUTH2 OAUTHBEARER"));
    let relay = with_password(&peer).build();
    one_mail(&relay);
    relay.run_spool().expect(75);
    let cause = relay.only_record()["cause"].to_string();
    assert!(cause.contains("offers neither AUTH PLAIN nor AUTH LOGIN, but XOAUTH2 OAUTHBEARER"), "{cause}");
}

#[test]
fn a_gateway_that_takes_mail_from_nobody_it_does_not_know_is_noted_as_such() {
    for (at, refusal, noted) in [
        ("MAIL", "530 5.7.0 Authentication required", true),
        ("RCPT", "530 5.7.0 Must issue a STARTTLS command first", true),
        ("MAIL", "538 5.7.11 encryption required", true),
        ("RCPT", "550 5.7.1 relaying denied", false),
    ] {
        let peer = SmtpSink::start(Script::new().on(at, refusal));
        let relay = Setup::gateway(peer.address()).build();
        one_mail(&relay);
        relay.run_spool().expect(69);
        let record = relay.only_record();
        assert_eq!(record["notes"].to_string().contains("see 'gatewayUsername'"), noted, "{refusal}: {record}");
    }
}

#[test]
fn a_wrong_password_at_the_second_mechanism_is_the_outcome() {
    let peer = SmtpSink::start(secure().on("AUTH PLAIN", "504 5.7.4 no").on("AUTH LOGIN", "535 5.7.8 wrong"));
    let relay = with_password(&peer).build();
    relay.fill((0..50).map(|n| vec![format!("r{n}@example.net")]));
    relay.run_spool().expect(75);
    assert_eq!((said_auth(&peer).len(), peer.connections()), (2, 1));
    assert_eq!(relay.attempts()[0]["recipients"][0]["reply"], "535 5.7.8 wrong");
}

#[test]
fn challenges_are_answered_whatever_they_say() {
    let (user, password, both) = ("cmVsYXk=", SECRETS[2], SECRETS[1]);
    for (mechanism, first, second) in [
        ("LOGIN", "334", "334"),
        ("LOGIN", "334 ", "334 "),
        ("LOGIN", "334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"),
        ("LOGIN", "334 VXNlciBOYW1lAA==", "334 UGFzc3dvcmQA"),
        ("LOGIN", "334 username:", "334 password:"),
        ("LOGIN", "334 ZW50ZXIgcGFzc3dvcmQ=", "334 ZW50ZXIgdXNlcg=="),
        ("PLAIN", "334", ""),
        ("PLAIN", "334 go on", ""),
    ] {
        let script = secure().mechanisms(mechanism).on("AUTH", first);
        let script = match mechanism {
            "LOGIN" => script.on(user, second).on(password, "235 2.7.0 ok"),
            _ => script.on(both, "235 2.7.0 ok"),
        };
        let peer = SmtpSink::start(script);
        let relay = with_password(&peer).build();
        one_mail(&relay);
        relay.run_spool().expect(0);
        assert_eq!((said_auth(&peer).len(), peer.transactions().len()), (1, 1), "{mechanism} {first}");
        let dialogue = relay.attempts()[0]["dialogue"].to_string();
        assert!(SECRETS.iter().all(|secret| !dialogue.contains(secret)), "{mechanism} {first}: {dialogue}");
    }
}

#[test]
fn one_refused_auth_is_all_that_a_sweep_of_a_thousand_mails_says() {
    let refusal = "535 5.7.139 Authentication unsuccessful, basic authentication is disabled.";
    let peer = SmtpSink::start(secure().on("AUTH", refusal));
    let relay = with_password(&peer).build();
    relay.fill((0..1000).map(|n| vec![format!("r{n}@x{}.example", n % 7)]));
    let run = relay.run_spool().expect(75);
    assert_eq!(run.counts(), [1000, 0, 1000, 0, 0, 0]);
    assert_eq!((said_auth(&peer).len(), peer.connections()), (1, 1));
    let mails = relay.mails("temporary");
    assert_eq!(mails.len(), 1000);
    let attempts = relay.attempts();
    let told = |one: &serde_json::Value| one["recipients"][0].to_string().contains("basic authentication is disabled");
    assert!(attempts.iter().all(told), "each names the reply");
}

#[test]
fn two_gateways_with_two_accounts_are_two_deliveries() {
    let peers = [("one", "first"), ("two", "second")].map(|(user, password)| {
        SmtpSink::start(Script::new().starttls(Identity::self_signed("gw")).auth(user, password))
    });
    let delivery = |peer: &SmtpSink, user: &str, password: &str| {
        format!(
            "mailet: RemoteDelivery
      gateway: \"{}\"
      gatewayUsername: {user}
      gatewayPassword: {password}
      bounceProcessor: failed
",
            peer.address()
        )
    };
    let configuration = format!(
        "hostname: relay.test
stateDirectory: ./var
processors:
  relay:
    - match: RecipientDomainIs=one.example
      {}    - match: All
      {}  failed:
    - match: All
      mailet: ToRepository
      repositoryPath: sqlite://var/mail/error/
",
        delivery(&peers[0], "one", "first"),
        delivery(&peers[1], "two", "second")
    );
    let relay = Relay::written(&[("redeliver.yaml", &configuration)]);
    relay.submit("me@example.org", &["a@one.example", "b@two.example"], &message("m"));
    relay.run_spool().expect(0);
    for (peer, recipient) in peers.iter().zip(["a@one.example", "b@two.example"]) {
        assert!(peer.transactions()[0].authenticated);
        assert_eq!(peer.transactions()[0].recipients, [recipient]);
    }
}

/// A gateway known by name, so that its certificate can be verified.
fn named(peer: &SmtpSink) -> (Zones, Setup) {
    let zones = Zones::start(&format!("gw.example A {}", peer.ip()));
    let dns = format!("dns: {{ servers: [\"{}\"], timeout: 1s, attempts: 1 }}", zones.address());
    let setup = Setup::gateway(format!("gw.example:{}", peer.port())).top(&dns);
    (zones, setup.delivery("caFile: ca.pem").delivery("timeout: 2s"))
}

fn written(setup: Setup, authority: &Authority) -> Relay {
    let relay = setup.build();
    std::fs::write(relay.path().join("ca.pem"), authority.pem()).expect("a file");
    let (certificate, key) = authority.certify_client("relay.test");
    std::fs::write(relay.path().join("client.pem"), certificate).expect("a file");
    std::fs::write(relay.path().join("client.key"), key).expect("a file");
    relay
}

#[test]
fn tls_from_the_first_byte_is_verified_by_ca_file_and_carries_credentials() {
    let authority = Authority::new();
    for (what, identity, delivered) in [
        ("good", authority.certify("gw.example"), true),
        ("for another name", authority.certify("other.example"), false),
        ("expired", authority.certify_expired("gw.example"), false),
        ("of a stranger", Authority::new().certify("gw.example"), false),
    ] {
        let peer = SmtpSink::start(Script::new().implicit_tls(identity).auth(USER, PASSWORD));
        let (_zones, setup) = named(&peer);
        let setup = setup.delivery("sslEnable: true").delivery("startTLS: verify");
        let setup =
            setup.delivery(&format!("gatewayUsername: {USER}")).delivery(&format!("gatewayPassword: {PASSWORD}"));
        let relay = written(setup, &authority);
        one_mail(&relay);
        let finished = relay.run_spool();
        assert_eq!(finished.code, Some(if delivered { 0 } else { 75 }), "{what}: {finished:?}");
        let record = relay.only_record();
        assert_eq!(peer.transactions().len(), usize::from(delivered), "{what}");
        if delivered {
            assert_eq!(record["tls"]["verified"], true, "{what}: {record}");
            assert!(peer.transactions()[0].authenticated && !peer.commands().contains(&"STARTTLS".to_owned()));
        } else {
            assert_eq!(peer.commands().iter().filter(|line| *line != "QUIT").count(), 0, "{what}: nothing is said");
            assert!(record["cause"].as_str().is_some_and(|cause| cause.contains("gw.example")), "{what}: {record}");
        }
    }
}

#[test]
fn a_client_certificate_is_shown_to_a_gateway_that_wants_one() {
    let authority = Authority::new();
    for shown in [true, false] {
        let peer = SmtpSink::start(Script::new().starttls(authority.certify_for_known_clients("gw.example")));
        let (_zones, setup) = named(&peer);
        let setup = setup.delivery("startTLS: verify");
        let setup = if shown { setup.delivery("certificate: client.pem").delivery("key: client.key") } else { setup };
        let relay = written(setup, &authority);
        one_mail(&relay);
        let finished = relay.run_spool();
        assert_eq!(finished.code, Some(if shown { 0 } else { 75 }), "{finished:?}");
        assert_eq!(peer.transactions().len(), usize::from(shown));
    }
}

#[test]
fn tls_sessions_are_resumed_and_stay_verified() {
    let authority = Authority::new();
    let script = script!["." => reply("250 2.0.0 taken").then(close())].starttls(authority.certify("gw.example"));
    let peer = SmtpSink::start(script);
    let (_zones, setup) = named(&peer);
    let relay = written(setup.delivery("startTLS: verify").delivery("deliveryThreads: 1"), &authority);
    relay.fill((0..6).map(|n| vec![format!("r{n}@example.net")]));
    relay.run_spool().expect(0);
    let attempts = relay.attempts();
    let resumed = attempts.iter().filter(|attempt| attempt["dialogue"].to_string().contains(", resumed]")).count();
    assert_eq!((peer.connections(), resumed), (6, 5));
    let seen_by_the_peer: Vec<_> = peer.record().connections.iter().map(|connection| connection.resumed).collect();
    assert_eq!(seen_by_the_peer, [false, true, true, true, true, true]);
    assert!(attempts.iter().all(|attempt| attempt["recipients"][0]["tls"]["verified"] == true));
}

#[test]
fn a_file_that_cannot_be_used_is_named_before_anything_is_sent() {
    let peer = SmtpSink::start(script![on("CONNECT") => close()]);
    for (lines, named) in [
        (&["caFile: nowhere.pem"][..], "nowhere.pem"),
        (&["caFile: redeliver.yaml"], "redeliver.yaml"),
        (&["certificate: client.pem"], "belong together"),
        (&["certificate: redeliver.yaml", "key: redeliver.yaml"], "redeliver.yaml"),
    ] {
        let setup = lines.iter().fold(Setup::gateway(peer.address()), |setup, line| setup.delivery(line));
        let relay = setup.build();
        let finished = relay.run_spool().expect(78);
        assert!(finished.stderr.contains(named), "{lines:?}: {finished:?}");
    }
    assert_eq!(peer.connections(), 0);
}
