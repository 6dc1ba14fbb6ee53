//! Senders are told what became of their mail, by what ships: whom, of what, once.

use serde_json::Value;

use crate::support::message;
use crate::support::relay::Relay;
use crate::support::sink::{Script, SmtpSink, Transaction, close, script, stall};

const TEMPORARY: &str = "temporary";
const PERMANENT: &str = "permanent";

/// What ships, with everything going to one gateway; `changes` are texts with what stands for them.
pub(crate) fn shipped(gateway: impl std::fmt::Display, changes: &[(&str, &str)]) -> Relay {
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

/// Hands a mail in as `sendmail` does, with these options in front.
fn submit_asking(relay: &Relay, options: &[&str], recipients: &[&str]) {
    let arguments = [&["sendmail", "-f", "me@sender.example"], options, recipients].concat();
    relay.command_with_input(&arguments, message("m").as_bytes()).expect(0);
}

#[test]
fn each_is_told_what_he_asked_for() {
    let all = ["yes@x.example", "late@x.example", "no@x.example"];
    for (notify, expected) in [
        (None, &["no@x.example failed 5.1.1"][..]),
        (Some("never"), &[]),
        (Some("success"), &["yes@x.example relayed 2.0.0"]),
        (Some("failure"), &["no@x.example failed 5.1.1"]),
        (Some("delay"), &["late@x.example delayed 4.3.0"]),
        (Some("success,failure"), &["no@x.example failed 5.1.1", "yes@x.example relayed 2.0.0"]),
        (Some("success,delay"), &["late@x.example delayed 4.3.0", "yes@x.example relayed 2.0.0"]),
        (Some("failure,delay"), &["late@x.example delayed 4.3.0", "no@x.example failed 5.1.1"]),
        (
            Some("success,failure,delay"),
            &["late@x.example delayed 4.3.0", "no@x.example failed 5.1.1", "yes@x.example relayed 2.0.0"],
        ),
    ] {
        let peer = SmtpSink::start(script![
            "RCPT TO:<late" => "451 4.3.0 come back later",
            "RCPT TO:<no" => "550 5.1.1 nobody of that name",
        ]);
        let relay = shipped(peer.address(), &[]);
        let options: Vec<_> = notify.iter().flat_map(|notify| ["-N", notify]).collect();
        submit_asking(&relay, &options, &all);
        assert_eq!(relay.run_spool().expect(69).counts(), [1, 1, 1, 1, 0, 0], "{notify:?}");
        relay.sweep().expect(75);
        let mut found: Vec<_> = told_all(&peer).into_iter().flatten().collect();
        found.sort();
        assert_eq!(found, expected, "{notify:?}, and a second deferral says nothing new");
    }
}

#[test]
fn a_next_hop_that_offers_dsn_tells_of_a_delivery_itself() {
    let offered = ["PIPELINING", "DSN", "ENHANCEDSTATUSCODES"];
    let peer = SmtpSink::start(refusing("RCPT TO:<no").capabilities(&offered));
    let relay = shipped(peer.address(), &[]);
    submit_asking(&relay, &["-N", "success,failure"], &["yes@x.example", "no@x.example"]);
    relay.run_spool().expect(69);
    assert_eq!(told_all(&peer), [["no@x.example failed 5.1.1"]]);
}

#[test]
fn a_delay_is_told_when_it_is_long_and_says_until_when() {
    let peer = SmtpSink::start(script!["RCPT TO:<late" => "451 4.3.0 come back later"]);
    let relay = shipped(peer.address(), &[("# delayWarning: 4h", "delayWarning: 1s")]);
    relay.submit("me@sender.example", &["late@x.example"], &message("m"));
    relay.run_spool().expect(75);
    assert_eq!(notifications(&peer).len(), 0, "it is not late yet");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    for _ in 0..2 {
        relay.sweep().expect(75);
    }
    assert_eq!(told_all(&peer), [["late@x.example delayed 4.3.0"]]);
    let text = &notifications(&peer)[0];
    for part in
        ["You need not do anything: delivery is tried again", "Subject: Delayed: your message to late@x.example"]
    {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(relay.size(TEMPORARY), 1);
}

#[test]
fn ret_says_how_much_comes_back() {
    let long = format!("{}{}", message("long"), "0123456789\n".repeat(6000));
    for (ret, text, attachment, whole, header) in [
        (None, message("m"), None, false, true),
        (Some("hdrs"), message("m"), None, false, true),
        (Some("full"), message("m"), None, true, true),
        (Some("full"), long, None, false, true),
        (None, message("m"), Some("message"), true, true),
        (Some("hdrs"), message("m"), Some("message"), false, true),
        (Some("full"), message("m"), Some("none"), false, false),
    ] {
        let peer = SmtpSink::start(refusing("RCPT TO:<no"));
        let rule = attachment.map_or_else(String::new, |word| format!("mailet: DSNBounce\n      attachment: {word}"));
        let changes = [("mailet: DSNBounce", rule.as_str())];
        let relay = shipped(peer.address(), if attachment.is_some() { &changes } else { &[] });
        let options: Vec<_> = ret.iter().flat_map(|ret| ["-R", ret]).collect();
        let arguments = [&["sendmail", "-f", "me@y.example"], &options[..], &["no@x.example"]].concat();
        relay.command_with_input(&arguments, text.as_bytes()).expect(0);
        relay.run_spool().expect(69);
        let found = notifications(&peer).remove(0);
        let label = format!("{ret:?} {attachment:?} {}\n{found}", text.len());
        assert_eq!(found.contains("Content-Type: message/rfc822\r\n"), whole, "{label}");
        assert_eq!(found.contains("Hello."), whole, "{label}");
        assert_eq!(found.contains("Subject: a test"), header, "{label}");
    }
}

#[test]
fn a_rule_words_it_and_may_end_the_mail() {
    let peer = SmtpSink::start(refusing("RCPT TO:<no"));
    let rule = "mailet: DSNBounce\n      sender: help@relay.test\n      prefix: '[relay]'\n      passThrough: false\n      \
                messageString: 'Ask [machine].'\n      defaultStatus: 5.9.9";
    let before = "mailet: DSNBounce                # tells the sender; the mail goes on to the next rule";
    let relay = shipped(peer.address(), &[(before, rule)]);
    relay.submit("me@sender.example", &["no@x.example"], &message("m"));
    relay.submit("<>", &["no@x.example"], &message("null"));
    relay.run_spool().expect(69);
    let found = notifications(&peer);
    assert_eq!(found.len(), 1);
    for part in
        ["From: Mail Delivery System <help@relay.test>", "Subject: [relay] Undelivered: ", "Ask relay.test.\r\n"]
    {
        assert!(found[0].contains(part), "{part}\n{}", found[0]);
    }
    assert_eq!(relay.size(PERMANENT), 1, "whose sender may be told nothing is kept");
}

#[test]
fn what_is_delivered_may_be_kept_and_is_never_sent_again() {
    let peer = SmtpSink::start(refusing("RCPT TO:<no"));
    let (told, kept) =
        ("match: DSNSuccessRequested\n      mailet: DSNBounce", "mailet: ToRepository\n      repositoryPath: sent");
    let relay = shipped(peer.address(), &[(told, kept)]);
    relay.submit("me@sender.example", &["yes@x.example", "no@x.example"], &message("m"));
    assert_eq!(relay.run_spool().expect(69).counts(), [1, 1, 0, 1, 0, 0]);
    assert_eq!((relay.size("sent"), relay.size(PERMANENT)), (2, 1), "the notification is delivered too");
    assert_eq!(peer.copies_of("yes@x.example", "<m@"), 1);
}

#[test]
fn too_much_for_one_sender_is_one_digest_and_too_much_in_all_is_told_to_nobody() {
    let peer = SmtpSink::start(refusing("RCPT TO:<no"));
    let limits = [("perSender: 100/h", "perSender: 2/h"), ("total: 1000/h", "total: 5/h")];
    let relay = shipped(peer.address(), &limits);
    // One after the other, since the mails of a run end in any order.
    for n in 0..6 {
        relay.submit("me@sender.example", &[format!("no{n}@x.example").as_str()], &message("m"));
    }
    relay.run_spool().expect(69);
    for n in 0..6 {
        relay.submit(&format!("forged{n}@y.example"), &["no@x.example"], &message("m"));
    }
    relay.run_spool().expect(69);
    let to = |who: &str| notifications(&peer).iter().filter(|one| one.contains(&format!("To: <{who}"))).count();
    assert_eq!((to("me@"), to("forged")), (2, 3));
    // Over a restart, which each command is.
    relay.submit("me@sender.example", &["no9@x.example"], &message("m"));
    relay.run_spool().expect(69);
    assert_eq!(notifications(&peer).len(), 5);
    let metrics = relay.command(&["metrics"]).expect(0).stdout;
    for line in [r#"redeliver_dsn_total{action="failed"} 5"#, r#"redeliver_dsn_total{action="held"} 3"#] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    assert_eq!(relay.size(PERMANENT), 13);
}

#[test]
fn a_mail_that_ends_with_a_notification_is_kept_where_that_is_held_back() {
    let peer = SmtpSink::start(script!["RCPT TO:<no" => "550 5.1.1 nobody", "RCPT TO:<full" => "452 4.2.2 full"]);
    let tells = "mailet: DSNBounce                # tells the sender; the mail goes on to the next rule";
    let ends = "mailet: DSNBounce\n      passThrough: false";
    let relay = shipped(peer.address(), &[(tells, ends), ("total: 1000/h", "total: 1/h")]);
    for n in 0..3 {
        relay.submit(&format!("me{n}@sender.example"), &["no@x.example", "full@x.example"], &message("m"));
    }
    relay.run_spool().expect(69);
    assert_eq!(notifications(&peer).len(), 1);
    // Whose sender was told has ended; of the others nobody knows yet.
    assert_eq!((relay.size(PERMANENT), relay.size(TEMPORARY), relay.size("var/mail/error")), (0, 3, 2));
    // So too where nothing else is left of the mail, which then keeps its key.
    relay.submit("me@sender.example", &["no@x.example"], &message("alone"));
    relay.run_spool().expect(69);
    assert_eq!((notifications(&peer).len(), relay.size("var/mail/error")), (1, 3));
    for mail in relay.mails("var/mail/error") {
        let key = mail["key"].as_str().expect("a key");
        let shown = relay.command(&["repository", "show", "var/mail/error", key]).expect(0).stdout;
        assert!(shown.contains("no@x.example") && shown.contains("dsn.total"), "{shown}");
    }
}

#[test]
fn a_success_that_was_asked_for_is_told_though_the_process_died_after_it() {
    let peer = SmtpSink::start(script!["RCPT TO:<slow" => stall()]);
    let relay = shipped(
        peer.address(),
        &[("deliveryThreads: 10", "deliveryThreads: 10\n      maxRecipientsPerTransaction: 1")],
    );
    submit_asking(&relay, &["-N", "success,failure"], &["yes@x.example", "slow@x.example"]);
    let mut running = relay.spawn(&["run", "spool"], b"");
    peer.wait_for_transactions(1);
    std::thread::sleep(std::time::Duration::from_millis(300));
    running.kill();
    running.wait();
    let friendly = SmtpSink::start(Script::new());
    relay.reconfigure(&peer.address().to_string(), &friendly.address().to_string());
    relay.run_spool().expect(0);
    let mut found: Vec<_> = told_all(&friendly).into_iter().flatten().collect();
    found.sort();
    assert_eq!(found, ["slow@x.example relayed 2.0.0", "yes@x.example relayed 2.0.0"]);
    assert_eq!(friendly.copies_of("yes@x.example", "<m@"), 0, "nobody is sent to twice");
    assert_eq!(friendly.copies_of("slow@x.example", "<m@"), 1);
}

/// Mails of a flood: REDELIVER_FLOOD says how many, for a look at ten thousand by hand.
fn flood(usual: usize) -> usize {
    std::env::var("REDELIVER_FLOOD").ok().and_then(|number| number.parse().ok()).unwrap_or(usual)
}

#[test]
fn a_flood_of_one_sender_is_told_a_hundred_times_and_then_in_one_digest() {
    let peer = SmtpSink::start(refusing("RCPT TO:<no"));
    let (relay, mails) = (shipped(peer.address(), &[]), flood(400));
    relay.fill_from((0..mails).map(|_| "me@sender.example".to_owned()), "no@x.example");
    relay.run_spool().expect(69);
    assert_eq!((notifications(&peer).len(), relay.size(PERMANENT)), (100, mails));
    let dsn_of = |mail: &Value| {
        let shown = relay.show(PERMANENT, mail["key"].as_str().expect("a key"));
        shown["dsn"]["recipients"][0]["told"][0]["dsn"].as_str().map(str::to_owned)
    };
    let listed = relay.mails(PERMANENT);
    let keys: std::collections::BTreeSet<_> = listed.iter().rev().take(20).map(dsn_of).collect();
    assert_eq!(keys.len(), 1, "the last ones are told together: {keys:?}");
}

#[test]
fn a_flood_of_forged_senders_is_told_to_as_many_as_the_total_says() {
    let peer = SmtpSink::start(refusing("RCPT TO:<no"));
    let (relay, mails) = (shipped(peer.address(), &[("total: 1000/h", "total: 150/h")]), flood(400));
    relay.fill_from((0..mails).map(|n| format!("forged{n}@y.example")), "no@x.example");
    relay.run_spool().expect(69);
    assert_eq!((notifications(&peer).len(), relay.size(PERMANENT)), (150, mails));
    let held = format!("redeliver_dsn_total{{action=\"held\"}} {}", mails - 150);
    let metrics = relay.command(&["metrics"]).expect(0).stdout;
    assert!(metrics.contains(&held), "{held}\n{metrics}");
}
