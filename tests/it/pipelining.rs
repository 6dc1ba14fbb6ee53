//! PIPELINING (RFC 2920): whatever is refused at whichever command, each reply is matched to
//! its own command, and mails that share a session never get each other's.
//!
//! The tables are generated. Every reply has a text of its own, by which the record is told
//! from one that belongs to somebody else.

use std::time::Duration;

use serde_json::Value;

use crate::support::records::{record_of, words};
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, Then, Transaction, close, drip, on, raw, reply, reset, wait};
use crate::support::zones::Zones;

const WITH_AND_WITHOUT: [&[&str]; 2] = [&["PIPELINING"], &[]];

/// What is said to one of a mail's two recipients, or to DATA, or to the final dot.
#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Yes,
    Later,
    No,
}

use Answer::{Later, No, Yes};

const ANSWERS: [Answer; 3] = [Yes, Later, No];

impl Answer {
    fn outcome(self) -> &'static str {
        match self {
            Yes => "delivered",
            Later => "deferred",
            No => "failed",
        }
    }

    fn code(self) -> &'static str {
        match self {
            Yes => "250",
            Later => "451",
            No => "554",
        }
    }
}

/// One mail to two recipients, and what is said.
#[derive(Clone, Copy)]
struct Case {
    number: usize,
    recipients: [Answer; 2],
    data: Answer,
    dot: Answer,
}

/// All combinations: of the answers to DATA and to the dot only those that are reached.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for first in ANSWERS {
        for second in ANSWERS {
            let recipients = [first, second];
            let accepted = recipients.contains(&Yes);
            for data in if accepted { &ANSWERS[..] } else { &[Yes] } {
                for dot in if accepted && *data == Yes { &ANSWERS[..] } else { &[Yes] } {
                    cases.push(Case { number: cases.len(), recipients, data: *data, dot: *dot });
                }
            }
        }
    }
    cases
}

impl Case {
    fn recipient(self, which: usize) -> String {
        format!("c{}-{}@example.net", self.number, ["a", "b"][which])
    }

    /// The rules of this mail. Its answers to DATA and the dot go by whom it accepted.
    fn script(self, mut script: Script) -> Script {
        let Self { number, recipients, data, dot } = self;
        for (which, answer) in recipients.into_iter().enumerate() {
            let text = format!("{} rcpt {}", answer.code(), self.recipient(which));
            script = script.on(on(&format!("RCPT TO:<{}>", self.recipient(which))), reply(&text));
            if answer == Yes {
                let to = |verb: &str| on(verb).to(&self.recipient(which));
                let said = if data == Yes { "354".to_owned() } else { format!("{} data {number}", data.code()) };
                script = script.on(to("DATA"), reply(&said));
                script = script.on(to("."), reply(&format!("{} dot {number}", dot.code())));
            }
        }
        script
    }

    /// What the record must say of a recipient: `outcome stage reply`.
    fn expected(self, which: usize) -> String {
        let Self { number, recipients, data, dot } = self;
        let (answer, stage, what) = match recipients[which] {
            Yes if data != Yes => (data, "data", format!("data {number}")),
            Yes => (dot, "end-of-data", format!("dot {number}")),
            refused => (refused, "rcpt", format!("rcpt {}", self.recipient(which))),
        };
        format!("{} {stage} {} {what}", answer.outcome(), answer.code())
    }
}

/// `outcome stage reply` of a recipient.
fn seen(attempts: &[Value], recipient: &str) -> String {
    let record = record_of(attempts, recipient).unwrap_or_else(|| panic!("none of {recipient}"));
    words(record, ["outcome", "stage", "reply"])
}

/// All [`cases`] over one session after another, `lone` being what is said where DATA is said
/// ahead and nobody was accepted.
fn expect_all_matched(what: &str, capabilities: &[&str], lone: impl FnOnce(Script) -> Script) {
    let cases = cases();
    let script = cases.iter().fold(Script::new().capabilities(capabilities), |script, case| case.script(script));
    let peer = SmtpSink::start(lone(script));
    let relay = Setup::gateway(peer.address()).delivery("deliveryThreads: 1").build();
    relay.fill(cases.iter().map(|case| vec![case.recipient(0), case.recipient(1)]));

    relay.run_spool();

    let attempts = relay.attempts();
    assert_eq!(attempts.len(), cases.len(), "{what}: one attempt a mail");
    let mut wrong = Vec::new();
    for (case, which) in cases.iter().flat_map(|case| [(case, 0), (case, 1)]) {
        let (seen, expected) = (seen(&attempts, &case.recipient(which)), case.expected(which));
        if seen != expected {
            wrong.push(format!("{what}: {seen}; expected {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    each_message_is_its_own(&peer, &cases, what);
    assert_eq!(peer.violations(), Vec::<String>::new(), "{what}");
}

/// Content went where somebody was accepted and DATA was answered with 354, and nowhere else.
fn each_message_is_its_own(peer: &SmtpSink, cases: &[Case], what: &str) {
    let transactions: Vec<_> = peer.transactions().into_iter().filter(|t| !t.content.is_empty()).collect();
    let sent: Vec<_> = cases.iter().filter(|case| case.recipients.contains(&Yes) && case.data == Yes).collect();
    assert_eq!(transactions.len(), sent.len(), "{what}");
    for case in sent {
        let accepted: Vec<_> =
            (0..2).filter(|which| case.recipients[*which] == Yes).map(|which| case.recipient(which)).collect();
        let its = |t: &&Transaction| t.recipients == accepted;
        let found: Vec<_> = transactions.iter().filter(its).collect();
        assert_eq!(found.len(), 1, "{what}: {accepted:?}");
        assert!(found[0].text().contains(&format!("<m{}@", case.number)), "{what}: another mail's content");
    }
}

#[test]
fn every_combination_of_refusals_in_one_session_gives_each_recipient_its_own_reply() {
    for capabilities in WITH_AND_WITHOUT {
        expect_all_matched(&format!("{capabilities:?}"), capabilities, |script| script);
    }
}

#[test]
fn data_refused_for_want_of_a_recipient_changes_no_outcome() {
    for refusal in ["503 5.5.1 no\n503 no", "554 5.5.1 no valid recipients", "451 4.3.0 no"] {
        let refusal = refusal.replace("503 5.5.1 no\n", "503-5.5.1 no\n");
        expect_all_matched(&refusal, &["PIPELINING"], |script| script.on("DATA", refusal.as_str()));
    }
}

#[test]
fn a_lone_dot_changes_no_outcome_whatever_is_said_to_it() {
    let replies: [(&str, Then); 6] = [
        ("250", reply("250 2.0.0 taken, by nobody")),
        ("451", reply("451 4.5.0 what")),
        ("554", reply("554 5.5.1 no valid recipients")),
        ("421", reply("421 4.3.2 bye").then(close())),
        ("closed", close()),
        ("garbage", raw("\u{1}banana\r\n")),
    ];
    for (what, then) in replies {
        expect_all_matched(&format!("a lone dot, {what}"), &["PIPELINING"], |script| {
            script.on("DATA", "354 go on").on(".", then)
        });
    }
}

#[test]
fn a_421_or_an_end_at_a_lone_data_changes_no_outcome() {
    for (what, then) in [("421", reply("421 4.3.2 bye").then(close())), ("closed", close()), ("reset", reset())] {
        expect_all_matched(&format!("a lone DATA, {what}"), &["PIPELINING"], |script| script.on("DATA", then));
    }
}

/// Where a peer's replies do not fit the commands, and with what it says then.
fn unfit(points: &[&'static str], replies: &[(&'static str, Then)]) -> Vec<(String, &'static str, Then)> {
    let row = |point: &&'static str, (what, then): &(&str, Then)| (format!("{what} at {point}"), *point, then.clone());
    points.iter().flat_map(|point| replies.iter().map(move |reply| row(point, reply))).collect()
}

/// One mail each to peers that answer wrongly once, and one more a sweep later.
fn expect_nobody_takes_another_s_reply(rows: &[(String, &'static str, Then)]) {
    for capabilities in WITH_AND_WITHOUT {
        let peers = misbehaving(rows, capabilities);
        let zone = |(n, peer): (usize, &SmtpSink)| format!("d{n}.example A {}\n", peer.ip());
        let zones = Zones::start(&peers.iter().enumerate().map(zone).collect::<String>());
        let setup = Setup::mx(&zones, peers[0].port()).delivery("deliveryThreads: 200").delivery("timeout: 500ms");
        let relay = setup.build();
        relay.fill((0..peers.len()).map(|n| vec![format!("a@d{n}.example"), format!("b@d{n}.example")]));

        relay.run_spool();

        let attempts = relay.attempts();
        for (n, ((what, ..), peer)) in rows.iter().zip(&peers).enumerate() {
            let what = format!("{what}, {capabilities:?}");
            agrees_with_the_peer(&attempts, peer, &["a", "b"].map(|name| format!("{name}@d{n}.example")), &what);
        }
        relay.sweep().expect(0);
        assert_eq!((relay.size("temporary"), relay.size("permanent")), (0, 0), "the second pass delivers the rest");
    }
}

fn misbehaving(rows: &[(String, &'static str, Then)], capabilities: &[&str]) -> Vec<SmtpSink> {
    let mut peers: Vec<SmtpSink> = Vec::new();
    for (_, point, then) in rows {
        let script = Script::new().capabilities(capabilities).on(on(point).times(1), then.clone());
        peers.push(match peers.first() {
            Some(first) => SmtpSink::beside(first, script),
            None => SmtpSink::start(script),
        });
    }
    peers
}

/// Nobody is failed, since no host refused anybody; delivered is who is at the peer. What a
/// second 354 says that comes as late as behind the final dot is in doubt, and recorded so.
fn agrees_with_the_peer(attempts: &[Value], peer: &SmtpSink, recipients: &[String], what: &str) {
    let transactions = peer.transactions();
    for recipient in recipients {
        let seen = seen(attempts, recipient);
        let taken = transactions.iter().filter(|t| t.is_taken() && t.recipients.contains(recipient)).count();
        match seen.split(' ').next() {
            Some("delivered") => assert_eq!(taken, 1, "{what}: {recipient}: {seen}"),
            Some("deferred") if seen.starts_with("deferred end-of-data -") && what.starts_with("250 and 354") => {}
            Some("deferred") => assert_eq!(taken, 0, "{what}: {recipient}: {seen}"),
            _ => panic!("{what}: {recipient}: {seen}"),
        }
    }
    assert_eq!(peer.connections(), 1, "{what}: one attempt is one connection");
}

#[test]
fn a_reply_too_many_is_noticed_and_is_nobody_s() {
    let rows = unfit(
        &["MAIL", "RCPT TO:<a@", "RCPT TO:<b@"],
        &[
            ("250 twice", raw("250 ok\r\n250 ok\r\n")),
            ("250 and 550", raw("250 ok\r\n550 5.1.1 no\r\n")),
            ("250 and 451", raw("250 ok\r\n451 4.3.0 no\r\n")),
            ("250 and 354", raw("250 ok\r\n354 go\r\n")),
            ("250 and garbage", raw("250 ok\r\nbanana\r\n")),
        ],
    );
    expect_nobody_takes_another_s_reply(&rows);
}

#[test]
fn a_reply_too_few_is_nobody_s_failure() {
    let nothing = wait(Duration::ZERO);
    expect_nobody_takes_another_s_reply(&unfit(&["RCPT TO:<a@", "RCPT TO:<b@", "DATA"], &[("nothing", nothing)]));
}

#[test]
fn replies_in_one_packet_or_an_octet_at_a_time_are_the_same() {
    for pause in [Duration::ZERO, Duration::from_millis(2)] {
        let slowly = |text: &str| drip(text, pause);
        let script = Script::new()
            .on("RCPT TO:<a@", slowly("250-2.1.5 yes\n250 2.1.5 do"))
            .on("RCPT TO:<b@", slowly("550-5.1.1 no such\n550 5.1.1 user"))
            .on("DATA", slowly("354 go"));
        let peer = SmtpSink::start(script);
        let relay = Setup::gateway(peer.address()).build();
        relay.fill([vec!["a@example.net", "b@example.net", "c@example.net"]]);
        assert_eq!(relay.run_spool().expect(69).counts(), [1, 2, 0, 1, 0, 0], "{pause:?}");
        assert_eq!(seen(&relay.attempts(), "b@example.net"), "failed rcpt 550-5.1.1 no such\n550 5.1.1 user");
    }
}

/// Commands in the order they came, with whether each came before the last reply was sent.
fn said(relay: &Relay) -> Vec<String> {
    let attempt = relay.attempts().remove(0);
    let dialogue = attempt["dialogue"].as_array().expect("a dialogue").clone();
    dialogue.iter().map(|entry| entry["from"].as_str().expect("a side")[..1].to_owned()).collect()
}

#[test]
fn commands_go_at_once_where_offered_and_one_by_one_where_not() {
    for (capabilities, sendpartial, expected) in [
        // The greeting, EHLO, then MAIL, two RCPT and DATA, the content.
        (&["PIPELINING"][..], true, "cscsccccssss"),
        // DATA only once it is known that all were accepted.
        (&["PIPELINING"][..], false, "cscscccsss"),
        (&[][..], true, "cscscscscscs"),
    ] {
        let peer = SmtpSink::start(Script::new().capabilities(capabilities));
        let relay = Setup::gateway(peer.address()).delivery(&format!("sendpartial: {sendpartial}")).build();
        relay.fill([vec!["a@example.net", "b@example.net"]]);
        relay.run_spool().expect(0);
        let said = said(&relay).concat();
        assert!(said.starts_with(expected), "{capabilities:?}, {sendpartial}: {said}");
        assert_eq!(peer.violations(), Vec::<String>::new());
    }
}
