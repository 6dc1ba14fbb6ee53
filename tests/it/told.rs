//! Senders are told what became of their mail, by what ships: whom, of what, once.

use serde_json::Value;

use crate::support::message;
use crate::support::relay::Relay;
use crate::support::sink::{Script, SmtpSink, Transaction, close, script};

const TEMPORARY: &str = "temporary";
const PERMANENT: &str = "permanent";

/// What ships, with everything going to one gateway; `changes` are texts with what stands for them.
fn shipped(gateway: impl std::fmt::Display, changes: &[(&str, &str)]) -> Relay {
    let mut text = include_str!("../../redeliver.yaml").to_owned();
    let gateway = format!("gateway: \"{gateway}\"");
    let always = [
        ("# gateway: \"gw1.example.net:25, [2001:db8::1]:2525\"", gateway.as_str()),
        ("# hostname: relay.example.org", "hostname: relay.test"),
        ("\nsmtp:\n", "\nsendmail: { domain: relay.test }\nsmtp:\n"),
    ];
    for (from, to) in always.iter().chain(changes) {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    Relay::written(&[
        ("redeliver.yaml", text.as_str()),
        ("jobs/retry-temporary.yaml", include_str!("../../jobs/retry-temporary.yaml")),
        ("jobs/purge-dsn.yaml", include_str!("../../jobs/purge-dsn.yaml")),
    ])
}

/// The notifications that a peer took, as text.
fn notifications(peer: &SmtpSink) -> Vec<String> {
    let is_one = |transaction: &&Transaction| transaction.reverse_path.is_empty() && transaction.is_taken();
    peer.transactions().iter().filter(is_one).map(Transaction::text).collect()
}

/// `recipient action status`, of each recipient that a notification tells of.
fn told(notification: &str) -> Vec<String> {
    let of = |group: &str, name: &str| {
        let field = group.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        field.map(|value| value.trim_end().rsplit("; ").next().unwrap_or_default().to_owned())
    };
    let groups = notification.split("\r\n\r\n").filter(|group| group.contains("Final-Recipient: "));
    groups
        .map(|group| ["Final-Recipient", "Action", "Status"].map(|name| of(group, name).unwrap_or_default()).join(" "))
        .collect()
}

fn told_all(peer: &SmtpSink) -> Vec<Vec<String>> {
    notifications(peer).iter().map(|one| told(one)).collect()
}

fn refusing(recipient: &'static str) -> Script {
    script![recipient => "550 5.1.1 nobody of that name"]
}

#[test]
fn who_was_not_reached_is_told_of_in_the_same_run_and_once() {
    let peer = SmtpSink::start(script!["RCPT TO:<no" => "550-5.1.1 nobody\n550 5.1.1 of that name"]);
    let relay = shipped(peer.address(), &[]);
    relay.submit("me@sender.example", &["no1@x.example", "yes@x.example", "no2@x.example"], &message("m"));
    assert_eq!(relay.run_spool().expect(69).counts(), [1, 1, 0, 2, 0, 0]);
    let found = notifications(&peer);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(told(&found[0]), ["no1@x.example failed 5.1.1", "no2@x.example failed 5.1.1"]);
    for part in [
        "From: Mail Delivery System <MAILER-DAEMON@relay.test>\r\nTo: <me@sender.example>\r\n",
        "Auto-Submitted: auto-replied\r\n",
        "Your message was not delivered to no1@x.example.\r\n",
        "said:\r\n  550-5.1.1 nobody\r\n  550 5.1.1 of that name\r\n",
        "Reporting-MTA: dns; relay.test\r\n",
        "Content-Type: text/rfc822-headers\r\n",
        "Subject: a test\r\n",
    ] {
        assert!(found[0].contains(part), "{part}\n{}", found[0]);
    }
    assert!(!found[0].contains("Hello."), "heads alone");
    assert_eq!(relay.size(PERMANENT), 1, "the mail itself stays");
    // However often it goes through again.
    for _ in 0..3 {
        relay.command(&["repository", "reprocess", PERMANENT, "--all", "--processor", "relay", "--reset"]).expect(0);
        relay.run_spool().expect(69);
    }
    assert_eq!(notifications(&peer).len(), 1);
    assert_eq!(peer.copies_of("yes@x.example", "<m@"), 1);
    assert!(peer.violations().is_empty(), "{:?}", peer.violations());
}

#[test]
fn who_can_be_told_nothing_is_told_nothing() {
    let peer = SmtpSink::start(refusing("RCPT TO:<no"));
    let relay = shipped(peer.address(), &[]);
    relay.submit("<>", &["no@x.example"], &message("null"));
    relay.submit("root@relay.test", &["no@x.example"], &message("local"));
    relay.command_with_input(&["sendmail", "-N", "never", "-f", "me@y.example", "no@x.example"], b"Subject: x\n\nx\n");
    relay.run_spool().expect(69);
    assert_eq!(notifications(&peer), Vec::<String>::new());
    assert_eq!(relay.size(PERMANENT), 3);
    let local = relay.mails(PERMANENT).into_iter().find(|mail| mail["sender"] == "root@relay.test").expect("kept");
    let shown = relay.command(&["repository", "show", PERMANENT, local["key"].as_str().expect("a key")]).expect(0);
    assert!(shown.stdout.contains("sendmail.aliases has nothing for it"), "{}", shown.stdout);
}

#[test]
fn a_local_sender_is_told_where_his_alias_says() {
    let peer = SmtpSink::start(refusing("RCPT TO:<no"));
    let aliases = "{ domain: relay.test, aliases: { root: admin@y.example } }";
    let relay = shipped(peer.address(), &[("{ domain: relay.test }", aliases)]);
    relay.submit("root@relay.test", &["no@x.example"], &message("m"));
    relay.run_spool().expect(69);
    let told: Vec<_> = peer.transactions().into_iter().map(|one| (one.reverse_path, one.recipients)).collect();
    assert_eq!(told, [(String::new(), vec!["admin@y.example".to_owned()])]);
}

#[test]
fn a_notification_that_fails_makes_none_and_is_kept_apart() {
    let peer = SmtpSink::start(script!["RCPT TO:" => "550 5.1.1 nobody of that name"]);
    let relay = shipped(peer.address(), &[]);
    relay.submit("me@sender.example", &["no@x.example"], &message("m"));
    assert_eq!(relay.run_spool().expect(69).counts(), [1, 0, 0, 1, 0, 0], "its own mail alone counts");
    assert_eq!((relay.size(PERMANENT), relay.size("var/mail/error/dsn"), relay.size("var/mail/error")), (1, 1, 0));
    assert_eq!(relay.run_spool().expect(0).counts(), [0; 6]);
    let kept = relay.show_only("var/mail/error/dsn");
    assert_eq!(kept["sender"], Value::Null);
    relay.command(&["run", "purge-dsn", "--now"]).expect(0);
}

#[test]
fn the_limit_of_passes_tells_what_the_last_attempt_came_to() {
    let peer = SmtpSink::start(script!["RCPT TO:<late" => "451 4.3.0 come back later"]);
    let relay = shipped(peer.address(), &[("=8", "=2")]);
    relay.submit("me@sender.example", &["late@x.example"], &message("m"));
    relay.run_spool().expect(75);
    assert_eq!(told_all(&peer), Vec::<Vec<String>>::new(), "no word of a delay that nobody asked for");
    relay.sweep().expect(69);
    assert_eq!(told_all(&peer), [["late@x.example failed 5.0.0"]]);
    let text = &notifications(&peer)[0];
    assert!(text.contains("  451 4.3.0 come back later\r\n"), "{text}");
}

#[test]
fn a_mail_that_is_given_up_by_hand_is_told_of() {
    let peer = SmtpSink::start(script!["RCPT TO:<late" => "451 4.3.0 come back later"]);
    let relay = shipped(peer.address(), &[]);
    relay.submit("me@sender.example", &["late@x.example"], &message("m"));
    relay.run_spool().expect(75);
    let key = relay.mails(TEMPORARY)[0]["key"].as_str().expect("a key").to_owned();
    relay.command(&["repository", "reprocess", TEMPORARY, &key, "--processor", "give-up"]).expect(0);
    relay.run_spool().expect(69);
    assert_eq!(told_all(&peer), [["late@x.example failed 5.0.0"]]);
    assert_eq!((relay.size(TEMPORARY), relay.size(PERMANENT)), (0, 1));
}

#[test]
fn without_an_answer_the_sentence_says_what_is_known_and_nothing_of_ours() {
    let peer = SmtpSink::start(script!["RCPT TO:<gone" => close()]);
    let relay = shipped(peer.address(), &[("=8", "=1")]);
    relay.submit("me@sender.example", &["gone@x.example"], &message("m"));
    relay.run_spool().expect(69);
    let text = &notifications(&peer)[0];
    for part in ["The connection with the mail system of the recipient broke off.", "Diagnostic-Code: x-redeliver; "] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let human = text.split("Content-Type: message/delivery-status").next().expect("a part");
    for ours in ["DSNBounce", "permanent", "remote-delivery", "127.", "give-up"] {
        assert!(!human.contains(ours), "{ours}\n{human}");
    }
    assert!(!text.contains("Remote-MTA"), "{text}");
}
