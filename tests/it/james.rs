//! What Apache James' own tests of this strategy assert, and what its documentation promises
//! beyond that: RemoteDeliveryErrorHandlingTest and RemoteDeliveryErrorTest, case by case,
//! with the processors of the documentation as they stand.

use serde_json::{Value, json};

use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, close, on, reply, script};
use crate::support::zones::Zones;
use crate::support::{message, refusing};

/// The documentation's processors, in YAML, with its repository URLs; the gateway is the peer.
const STRATEGY: &str = "\
hostname: relay.example.org
stateDirectory: ./var
stores:
  sqlite: { path: redeliver.db }
  cassandra: sqlite
jobsDirectory: ./jobs
schedulesDirectory: ./schedules
processors:
  relay:
    - match: AtMost=5
      mailet: RemoteDelivery
      outgoingQueue: outgoing
      maxRetries: 0
      maxDnsProblemRetries: 0
      deliveryThreads: 10
      sendpartial: true
      bounceProcessor: remote-delivery-error
      gateway: \"GATEWAY\"
      connectiontimeout: 5s
    - match: All
      mailet: ToRepository
      repositoryPath: cassandra://var/mail/error/remote-delivery/permanent/
  remote-delivery-error:
    - match: IsRemoteDeliveryTemporaryError
      mailet: ToRepository
      repositoryPath: cassandra://var/mail/error/remote-delivery/temporary/
    - match: IsRemoteDeliveryPermanentError
      mailet: ToRepository
      repositoryPath: cassandra://var/mail/error/remote-delivery/permanent/
    - match: All
      mailet: ToRepository
      repositoryPath: cassandra://var/mail/error/
";

const RETRY: &str = "\
kind: reprocess
repository: cassandra://var/mail/error/remote-delivery/temporary/
processor: relay
";

fn strategy(gateway: impl std::fmt::Display) -> Relay {
    Relay::written(&[
        ("redeliver.yaml", &STRATEGY.replace("GATEWAY", &gateway.to_string())),
        ("jobs/retry-temporary.yaml", RETRY),
    ])
}

/// Of an attempt, what decides where a mail goes.
fn verdict(mail: &Value) -> Value {
    let last = mail["attempts"].as_array().expect("attempts").last().expect("an attempt").clone();
    let recipient = &last["recipients"][0];
    json!([recipient["outcome"], recipient["code"], recipient["stage"]])
}

#[test]
fn a_temporary_failure_is_kept_in_the_temporary_repository_with_its_attributes() {
    let peer = SmtpSink::start(script!["MAIL" => "421-4.3.2 service\n421 4.3.2 not available"]);
    let relay = strategy(peer.address());
    relay.submit("me@example.org", &["you@example.net"], &message("m1"));

    assert_eq!(relay.run_spool().expect(75).counts(), [1, 0, 1, 0, 0, 0]);

    let mail = relay.show_only("var/mail/error/remote-delivery/temporary");
    assert_eq!(
        mail["attributes"],
        json!({
            "AT_MOST_EXECUTIONS": "1",
            "delivery-error": "421-4.3.2 service\n421 4.3.2 not available",
            "delivery-error-code": "421",
            "is-delivery-permanent-error": "false",
        })
    );
    assert_eq!((&mail["state"], &mail["passes"]), (&json!("remote-delivery-error"), &json!(1)));
    assert_eq!(verdict(&mail), json!(["deferred", 421, "mail"]));
    for repository in ["var/mail/error/remote-delivery/permanent", "var/mail/error"] {
        assert_eq!(relay.size(repository), 0, "{repository}");
    }
    assert_eq!(peer.connections(), 1);
}

#[test]
fn reprocessing_a_temporary_failure_delivers_once_the_peer_is_well_again() {
    let peer = SmtpSink::start(script![on("MAIL").times(1) => "421 4.3.2 later"]);
    let relay = strategy(peer.address());
    relay.submit("me@example.org", &["you@example.net"], &message("m1"));
    relay.run_spool().expect(75);
    let key = relay.mails("temporary")[0]["key"].as_str().expect("a key").to_owned();
    let url = "cassandra://var/mail/error/remote-delivery/temporary/";

    relay.command(&["repository", "reprocess", url, &key, "--processor", "relay"]).expect(0);

    assert_eq!(relay.run_spool().expect(0).counts(), [1, 1, 0, 0, 0, 0]);
    assert_eq!((relay.size("temporary"), peer.copies_of("you@example.net", "m1")), (0, 1));
    let outcomes: Vec<_> = relay.attempts().iter().map(|one| one["recipients"][0]["outcome"].clone()).collect();
    assert_eq!(outcomes, ["deferred", "delivered"]);
}

#[test]
fn a_permanent_failure_is_kept_apart_with_its_attributes() {
    let peer = SmtpSink::start(script!["MAIL" => "500 5.5.1 no"]);
    let relay = strategy(peer.address());
    relay.submit("me@example.org", &["you@example.net"], &message("m1"));

    assert_eq!(relay.run_spool().expect(69).counts(), [1, 0, 0, 1, 0, 0]);

    let mail = relay.show_only("permanent");
    assert_eq!(
        mail["attributes"],
        json!({
            "AT_MOST_EXECUTIONS": "1",
            "delivery-error": "500 5.5.1 no",
            "delivery-error-code": "500",
            "is-delivery-permanent-error": "true",
        })
    );
    assert_eq!(relay.size("temporary"), 0);
    // A sweep has nothing to do with it.
    assert_eq!(relay.sweep().expect(0).counts(), [0; 6]);
    assert_eq!(peer.connections(), 1);
}

#[test]
fn after_five_passes_a_temporary_failure_becomes_permanent_without_another_contact() {
    let peer = SmtpSink::start(script!["RCPT" => "451 4.7.1 later"]);
    let relay = strategy(peer.address());
    relay.submit("me@example.org", &["you@example.net"], &message("m1"));
    relay.run_spool().expect(75);
    let key = relay.mails("temporary")[0]["key"].clone();
    for pass in 2..=5 {
        assert_eq!(relay.sweep().expect(75).counts(), [1, 0, 1, 0, 0, 0], "pass {pass}");
        assert_eq!(relay.mails("temporary")[0]["key"], key, "the key is stable over passes");
        assert_eq!(peer.connections(), pass);
    }

    assert_eq!(relay.sweep().expect(69).counts(), [1, 0, 0, 1, 1, 0]);

    assert_eq!(peer.connections(), 5);
    assert_eq!(relay.size("temporary"), 0);
    let mail = relay.show_only("permanent");
    // As James: a promotion by AtMost leaves what the last attempt wrote.
    assert_eq!(
        mail["attributes"],
        json!({
            "AT_MOST_EXECUTIONS": "5",
            "delivery-error": "451 4.7.1 later",
            "delivery-error-code": "451",
            "is-delivery-permanent-error": "false",
            "mailRepository-reprocessing": "5",
        })
    );
    assert_eq!((&mail["state"], &mail["passes"], &mail["key"]), (&json!("relay"), &json!(5), &key));
    let numbers: Vec<_> = mail["attempts"].as_array().expect("attempts").iter().map(|a| a["number"].clone()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    assert_eq!(relay.sweep().expect(0).counts(), [0; 6]);
}

#[test]
fn with_attempts_exhausted_the_last_failure_promotes_at_once() {
    let peer = SmtpSink::start(script!["RCPT" => "451 4.7.1 later"]);
    let relay = Setup::gateway(peer.address()).limit(2).build();
    relay.submit("me@example.org", &["you@example.net"], &message("m1"));
    assert_eq!(relay.run_spool().expect(75).counts(), [1, 0, 1, 0, 0, 0]);

    assert_eq!(relay.sweep().expect(69).counts(), [1, 0, 0, 1, 1, 0]);

    assert_eq!((peer.connections(), relay.size("temporary")), (2, 0));
    let mail = relay.show_only("permanent");
    assert_eq!(mail["attributes"]["AT_MOST_EXECUTIONS"], "2");
    assert_eq!(mail["attributes"]["is-delivery-permanent-error"], "false");
    assert_eq!(verdict(&mail), json!(["deferred", 451, "rcpt"]));
}

#[test]
fn a_promoted_mail_is_tried_again_only_with_its_counters_reset() {
    let peer = SmtpSink::start(script![on("RCPT").times(1) => "451 4.7.1 later"]);
    let relay = Setup::gateway(peer.address()).limit(1).build();
    relay.submit("me@example.org", &["you@example.net"], &message("m1"));
    assert_eq!(relay.run_spool().expect(69).counts(), [1, 0, 0, 1, 1, 0]);
    let reprocess = ["repository", "reprocess", "permanent", "--all", "--processor", "relay"];

    let answer = relay.command(&reprocess).expect(0);
    assert!(answer.stdout.contains("\n1 of them has used up its passes and goes where"), "{answer:?}");
    assert!(answer.stdout.contains("--reset"), "{answer:?}");
    assert_eq!(relay.run_spool().expect(69).counts(), [1, 0, 0, 1, 1, 0]);
    assert_eq!(peer.connections(), 1);

    relay.command(&[&reprocess[..], &["--reset"]].concat()).expect(0);
    assert_eq!(relay.run_spool().expect(0).counts(), [1, 1, 0, 0, 0, 0]);
    assert_eq!((peer.connections(), relay.size("permanent")), (2, 0));
}

#[test]
fn a_mail_that_was_never_delivered_remotely_goes_to_the_error_repository() {
    let peer = SmtpSink::start(Script::new());
    let relay = Relay::written(&[(
        "redeliver.yaml",
        &format!("smtp: {{ processor: remote-delivery-error }}\n{}", STRATEGY.replace("GATEWAY", "127.0.0.1:9")),
    )]);
    relay.submit("me@example.org", &["you@example.net"], &message("m1"));

    assert_eq!(relay.run_spool().expect(70).counts(), [1, 0, 0, 0, 0, 1]);

    assert_eq!(relay.show_only("var/mail/error")["attributes"], json!({}));
    assert_eq!((relay.size("temporary"), relay.size("permanent"), peer.connections()), (0, 0, 0));
}

#[test]
fn a_refusal_at_each_stage_goes_where_its_first_digit_says_and_is_tried_once() {
    for (at, stage, text, code, repository) in [
        ("MAIL", "mail", "421 mock", 421, "temporary"),
        ("RCPT", "rcpt", "421 mock", 421, "temporary"),
        ("DATA", "data", "421 mock", 421, "temporary"),
        (".", "end-of-data", "421 mock", 421, "temporary"),
        ("MAIL", "mail", "500 mock", 500, "permanent"),
        ("RCPT", "rcpt", "500 mock", 500, "permanent"),
        ("DATA", "data", "500 mock", 500, "permanent"),
        (".", "end-of-data", "500 mock", 500, "permanent"),
    ] {
        let then = if code == 421 { reply(text).then(close()) } else { reply(text) };
        let peer = SmtpSink::start(Script::new().on(at, then));
        let relay = strategy(peer.address());
        relay.submit("me@example.org", &["you@example.net"], &message("m1"));
        relay.run_spool();

        let mail = relay.show_only(repository);
        let outcome = if repository == "temporary" { "deferred" } else { "failed" };
        assert_eq!(verdict(&mail), json!([outcome, code, stage]), "{text} to {at}");
        assert_eq!(mail["attributes"]["delivery-error-code"], code.to_string(), "{text} to {at}");
        assert_eq!(mail["attributes"]["delivery-error"], text, "{text} to {at}");
        assert_eq!((peer.connections(), peer.violations()), (1, vec![]), "{text} to {at}");
    }
}

#[test]
fn a_partial_delivery_sends_nobody_a_second_copy() {
    let peer = SmtpSink::start(script![
        on("RCPT TO:<later@").times(1) => "451 4.2.0 later",
        "RCPT TO:<never@" => "550 5.1.1 never",
    ]);
    let relay = strategy(peer.address());
    let recipients = ["now@example.net", "later@example.net", "never@example.net"];
    relay.submit("me@example.org", &recipients, &message("m1"));

    assert_eq!(relay.run_spool().expect(69).counts(), [1, 1, 1, 1, 0, 0]);

    let (deferred, failed) = (relay.show_only("temporary"), relay.show_only("permanent"));
    assert_eq!(deferred["recipients"], json!(["later@example.net"]));
    assert_eq!(failed["recipients"], json!(["never@example.net"]));
    // The deferred part is the mail that was; the other was split off from it.
    assert_eq!((&deferred["origin"], &failed["origin"]), (&Value::Null, &deferred["key"]));
    assert_eq!(deferred["attributes"]["delivery-error"], "451 4.2.0 later");
    assert_eq!(failed["attributes"]["delivery-error"], "550 5.1.1 never");
    // Each shows what was tried for its own recipients.
    let shown = |mail: &Value| mail["attempts"][0]["recipients"].as_array().expect("recipients").len();
    assert_eq!((shown(&deferred), shown(&failed)), (1, 1));

    assert_eq!(relay.sweep().expect(0).counts(), [1, 1, 0, 0, 0, 0]);
    let copies = recipients.map(|recipient| peer.copies_of(recipient, "m1"));
    assert_eq!(copies, [1, 1, 0]);
    assert_eq!(peer.transactions().len(), 2);
    assert_eq!(peer.violations(), Vec::<String>::new());
}

#[test]
fn failing_over_sends_nobody_a_second_copy() {
    let first = SmtpSink::start(script!["RCPT TO:<second@" => "451 4.2.0 not here"]);
    let second = SmtpSink::beside(&first, Script::new());
    let zones = Zones::start(&format!(
        "example.net MX 10 mx1.example.net
         example.net MX 20 mx2.example.net
         mx1.example.net A {}
         mx2.example.net A {}",
        first.ip(),
        second.ip(),
    ));
    let relay = Setup::mx(&zones, first.port()).build();
    relay.submit("me@example.org", &["first@example.net", "second@example.net"], &message("m1"));

    assert_eq!(relay.run_spool().expect(0).counts(), [1, 2, 0, 0, 0, 0]);

    let on_both = |recipient| (first.copies_of(recipient, "m1"), second.copies_of(recipient, "m1"));
    assert_eq!((on_both("first@example.net"), on_both("second@example.net")), ((1, 0), (0, 1)));
    assert_eq!(relay.attempts().len(), 1, "both hosts belong to one attempt");
}

#[test]
fn the_next_gateway_is_tried_in_the_order_written_within_the_pass() {
    let peer = SmtpSink::start(Script::new());
    let busy = SmtpSink::start(script!["CONNECT" => reply("421 4.3.2 busy").then(close())]);
    let relay = strategy(format!("{}, {}, {}", refusing(), busy.address(), peer.address()));
    relay.submit("me@example.org", &["you@example.net"], &message("m1"));

    assert_eq!(relay.run_spool().expect(0).counts(), [1, 1, 0, 0, 0, 0]);

    assert_eq!((busy.connections(), peer.transactions().len()), (1, 1));
    let attempts = relay.attempts();
    let delivered = &attempts[0]["recipients"][0];
    assert_eq!((attempts.len(), &delivered["port"]), (1, &json!(peer.port())));
}

#[test]
fn the_null_reverse_path_fails_like_any_other() {
    let peer = SmtpSink::start(script!["RCPT" => "550 5.1.1 no such user"]);
    let relay = strategy(peer.address());
    relay.submit("<>", &["you@example.net"], &message("m1"));

    relay.run_spool().expect(69);

    assert_eq!(relay.show_only("permanent")["sender"], Value::Null);
    assert!(peer.commands().iter().any(|line| line.starts_with("MAIL FROM:<> ")), "{:?}", peer.commands());
}

#[test]
fn headers_named_like_attributes_of_ours_change_nothing() {
    let peer = SmtpSink::start(script!["RCPT" => "451 4.7.1 later"]);
    let relay = strategy(peer.address());
    let text = format!("AT_MOST_EXECUTIONS: 5\nis-delivery-permanent-error: true\n{}", message("m1"));
    relay.submit("me@example.org", &["you@example.net"], &text);

    relay.run_spool().expect(75);

    let mail = relay.show_only("temporary");
    assert_eq!(mail["attributes"]["AT_MOST_EXECUTIONS"], "1");
    assert_eq!(mail["attributes"]["is-delivery-permanent-error"], "false");
}
