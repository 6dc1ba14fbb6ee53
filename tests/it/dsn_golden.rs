//! Notifications of each kind as they are sent, to be read by people and programs:
//! `tests/dsn/golden`. `tests/dsn/readers` has others' programs read them.

use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use redeliver::mail::{Action, Address, Notification, Outcome, Recorded, Returned, ReversePath, Stage, Told};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dsn/golden").join(format!("{name}.eml"))
}

fn address(text: &str) -> Address {
    Address::parse(text).expect("an address")
}

fn accepted() -> DateTime<Utc> {
    DateTime::from_timestamp(1_790_000_000, 0).expect("in range")
}

/// What a host said of a recipient.
fn said(recipient: &str, outcome: Outcome, stage: Stage, enhanced: &str, reply: &str) -> Recorded {
    let known = silent(recipient, outcome, stage, "");
    let domain = address(recipient).domain().to_string();
    Recorded {
        code: reply.get(..3).and_then(|code| code.parse().ok()),
        enhanced: Some(enhanced.to_owned()).filter(|code| !code.is_empty()),
        reply: Some(reply.to_owned()),
        host: Some(format!("mx1.{domain}")),
        next_hop: Some(domain),
        cause: None,
        ..known
    }
}

/// What is known where nobody said anything.
fn silent(recipient: &str, outcome: Outcome, stage: Stage, cause: &str) -> Recorded {
    let time = accepted() + TimeDelta::minutes(3);
    Recorded::without_contact(address(recipient), outcome, stage, cause.to_owned(), time)
}

fn told(action: Action, outcome: Recorded) -> Told {
    let recipient = outcome.recipient.clone();
    let default_status = format!("{}.0.0", action.class());
    let marks = ["Subject: Minutes of Monday", "Message-ID: <minutes@sender.example>"].map(str::to_owned).to_vec();
    Told {
        recipient,
        action,
        original: None,
        accepted: Some(accepted()),
        marks,
        outcome: Some(outcome),
        default_status,
    }
}

fn notification(recipients: Vec<Told>) -> Notification {
    let header = b"From: Anna <anna@sender.example>\r\nTo: Bert <bert@example.net>\r\nSubject: Minutes of Monday\r\n\
                   Date: Mon, 21 Sep 2026 14:13:19 +0200\r\nMessage-ID: <minutes@sender.example>\r\n";
    Notification {
        recipients,
        digest: None,
        to: ReversePath::parse("anna@sender.example").expect("an address"),
        from: address("MAILER-DAEMON@relay.example.org"),
        hostname: "relay.example.org".to_owned(),
        envelope_id: None,
        arrived: Some(accepted()),
        until: None,
        prefix: None,
        words: None,
        returned: Returned::Header(header.to_vec()),
        utf8: false,
        date: accepted() + TimeDelta::minutes(4),
        random: 0x1234_5678,
    }
}

/// Each kind by its name.
fn kinds() -> Vec<(&'static str, Notification)> {
    use Outcome::{Deferred, Delivered, Failed};
    let failed = |outcome| notification(vec![told(Action::Failed, outcome)]);
    let refused = |to| said(to, Failed, Stage::Rcpt, "5.1.1", "550 5.1.1 <bert@example.net>: no such mailbox here");
    let late = || said("bert@example.net", Deferred, Stage::Rcpt, "4.2.2", "452 4.2.2 mailbox full, try again later");
    let lines =
        "554-5.7.1 Your message was rejected as spam.\n554-5.7.1 See https://example.net/why\n554 5.7.1 (score 12.5)";
    let whole = b"Subject: Minutes of Monday\r\nMessage-ID: <minutes@sender.example>\r\n\r\nAs agreed.\r\n".to_vec();
    let mut asked = told(Action::Failed, refused("bert@example.net"));
    asked.original = Some("rfc822;bert+2Bwork@example.com".to_owned());
    let gathered = |n: i32| {
        let recipient = format!("bert{n}@example.net");
        told(Action::Failed, said(&recipient, Failed, Stage::Rcpt, "5.1.1", "550 5.1.1 no such mailbox here"))
    };
    let utf8 =
        said("b\u{e4}rt@example.net", Failed, Stage::Rcpt, "5.1.1", "550 5.1.1 kein Postfach f\u{fc}r b\u{e4}rt");
    vec![
        ("refused-recipient", failed(refused("bert@example.net"))),
        ("refused-content", failed(said("bert@example.net", Failed, Stage::EndOfData, "5.7.1", lines))),
        (
            "several",
            notification(vec![
                told(Action::Failed, refused("bert@example.net")),
                told(Action::Failed, refused("carl@example.net")),
            ]),
        ),
        (
            "no-such-domain",
            failed(Recorded {
                enhanced: Some("5.1.2".to_owned()),
                ..silent("bert@exmaple.net", Failed, Stage::Dns, "NXDOMAIN")
            }),
        ),
        ("unreachable", failed(silent("bert@example.net", Deferred, Stage::Connect, "connection refused"))),
        ("used-up", failed(late())),
        ("no-tls", failed(silent("bert@example.net", Deferred, Stage::Starttls, "no common cipher or protocol"))),
        ("broken-off", failed(silent("bert@example.net", Deferred, Stage::EndOfData, "timed out"))),
        (
            "delayed",
            Notification {
                until: Some(accepted() + TimeDelta::days(4)),
                ..notification(vec![told(Action::Delayed, late())])
            },
        ),
        (
            "relayed",
            notification(vec![told(
                Action::Relayed,
                said("bert@example.net", Delivered, Stage::EndOfData, "2.0.0", "250 2.0.0 Ok: queued as 4F2A"),
            )]),
        ),
        (
            "asked-for",
            Notification {
                envelope_id: Some("QQ+2B314159".to_owned()),
                returned: Returned::Message(whole),
                ..notification(vec![asked])
            },
        ),
        (
            "digest",
            Notification {
                digest: Some(250),
                arrived: None,
                returned: Returned::Nothing,
                ..notification((1..=3).map(gathered).collect())
            },
        ),
        (
            "international",
            Notification {
                utf8: true,
                to: ReversePath::parse("\u{e5}nna@sender.example").expect("an address"),
                ..failed(utf8.clone())
            },
        ),
        ("international-to-ascii", Notification { utf8: true, ..failed(utf8) }),
        (
            "too-large",
            failed(Recorded {
                enhanced: Some("5.3.4".to_owned()),
                ..silent(
                    "bert@example.net",
                    Failed,
                    Stage::Mail,
                    "the message is larger than the 100 octets that it takes",
                )
            }),
        ),
        (
            "eight-bit-header",
            Notification {
                returned: Returned::Header(b"Subject: Gr\xfc\xdfe\r\n".to_vec()),
                ..failed(refused("bert@example.net"))
            },
        ),
    ]
}

/// With REDELIVER_WRITE_GOLDEN set they are written instead.
#[test]
fn each_kind_is_as_it_was() {
    for (name, notification) in kinds() {
        let composed = notification.compose().message;
        if std::env::var_os("REDELIVER_WRITE_GOLDEN").is_some() {
            fs::write(golden(name), &composed).expect("written");
        }
        let kept = fs::read(golden(name)).expect(name);
        assert_eq!(String::from_utf8_lossy(&composed), String::from_utf8_lossy(&kept), "{name}");
    }
    let names: Vec<_> = kinds().into_iter().map(|(name, _)| golden(name)).collect();
    for entry in fs::read_dir(golden("x").parent().expect("a folder")).expect("there") {
        let path = entry.expect("an entry").path();
        assert!(names.contains(&path), "{} is of no kind", path.display());
    }
}

#[test]
fn the_first_three_lines_say_who_and_what_the_other_side_said() {
    for (name, notification) in kinds() {
        let text = String::from_utf8_lossy(&notification.compose().message).replace("=\r\n", "");
        let human = text.split("\r\n\r\n").nth(2).expect("a text");
        let first: Vec<_> = human.lines().take(3).collect();
        let who = notification.recipients[0].recipient.local_part();
        let who = if who.is_ascii() { who.to_owned() } else { "b=C3=A4rt".to_owned() };
        assert!(first[0].contains(&who), "{name}: {first:?}");
        let reply = notification.recipients[0].outcome.as_ref().and_then(|outcome| outcome.reply.clone());
        let word = reply.as_deref().and_then(|reply| reply.split(' ').nth(1)).unwrap_or("recipient");
        let says = first.iter().skip(1).any(|line| line.contains(word) || line.contains("domain"));
        assert!(says, "{name}: {first:?}");
        for ours in ["DSNBounce", "RemoteDelivery", "permanent", "temporary", "relay."] {
            assert!(!first.join(" ").contains(ours), "{name}: {first:?}");
        }
    }
}
