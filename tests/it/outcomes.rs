//! What becomes of a mail when its peer answers so: tables whose rows are a script, the
//! record expected, and how many messages the peer was sent.
//!
//! All rows of a table are one run of the spool: each has a domain and a host of its own.

use std::time::Duration;

use serde_json::Value;

use crate::support::message;
use crate::support::records::{self, record_of};
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, close, drip, endless, on, raw, reply, reset, script, stall, wait};
use crate::support::zones::Zones;

/// What the peer does, how it is scripted, `outcome code enhanced stage` with `-` for what
/// is not there, and the final dots that the peer sees.
type Row = (&'static str, Script, &'static str, usize);

/// One mail to a peer of its own for each row, all in one run; the replies are waited for `timeout`.
fn expect_outcomes(timeout: &str, rows: &[Row]) {
    let mut peers: Vec<SmtpSink> = Vec::new();
    for (_, script, ..) in rows {
        let peer = match peers.first() {
            Some(first) => SmtpSink::beside(first, script.clone()),
            None => SmtpSink::start(script.clone()),
        };
        peers.push(peer);
    }
    let (_zones, relay) = to_each(&peers, timeout);
    for n in 0..rows.len() {
        relay.submit("me@example.org", &[&format!("you@d{n}.example")], &message(&format!("m{n}")));
    }
    relay.run_spool();

    let attempts = relay.attempts();
    let mut wrong = Vec::new();
    for (n, ((what, _, expected, dots), peer)) in rows.iter().zip(&peers).enumerate() {
        let recipient = format!("you@d{n}.example");
        let seen = summary(&attempts, &recipient);
        let transactions = peer.transactions().len();
        if seen.0 != *expected || transactions != *dots {
            wrong.push(format!(
                "{what}: {}, {transactions} final dots; expected {expected}, {dots}: {}",
                seen.0, seen.1
            ));
        }
        wrong.extend(peer.violations().into_iter().map(|violation| format!("{what}: {violation}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    every_recipient_is_in_one_place(&relay, &attempts, rows.len());
}

fn to_each(peers: &[SmtpSink], timeout: &str) -> (Zones, Relay) {
    let zone = |(n, peer): (usize, &SmtpSink)| {
        format!("d{n}.example MX 10 mx.d{n}.example\nmx.d{n}.example A {}\n", peer.ip())
    };
    let zones = Zones::start(&peers.iter().enumerate().map(zone).collect::<String>());
    let relay = Setup::mx(&zones, peers[0].port())
        .delivery("deliveryThreads: 200")
        .delivery(&format!("timeout: {timeout}"))
        .build();
    (zones, relay)
}

/// A recipient's `outcome code enhanced stage`, and the whole record.
fn summary(attempts: &[Value], recipient: &str) -> (String, String) {
    (records::summary(attempts, recipient), record_of(attempts, recipient).map_or_else(String::new, Value::to_string))
}

fn every_recipient_is_in_one_place(relay: &Relay, attempts: &[Value], mails: usize) {
    let count = |outcome: &str| attempts.iter().filter(|a| a["recipients"][0]["outcome"] == outcome).count();
    assert_eq!(attempts.len(), mails, "one attempt a mail");
    assert_eq!(relay.size("temporary"), count("deferred"));
    assert_eq!(relay.size("permanent"), count("failed"));
    assert_eq!(relay.size("var/mail/error"), 0);
}

#[test]
fn the_first_digit_of_a_refusal_decides_at_every_stage() {
    expect_outcomes(
        "5s",
        &[
            ("taken", script![], "delivered 250 2.0.0 end-of-data", 1),
            (
                "421 greeting",
                script!["CONNECT" => reply("421 4.3.2 busy").then(close())],
                "deferred 421 4.3.2 banner",
                0,
            ),
            ("451 greeting", script!["CONNECT" => "451 4.3.0 no"], "deferred 451 4.3.0 banner", 0),
            ("554 greeting", script!["CONNECT" => "554 5.3.2 no mail here"], "deferred 554 5.3.2 banner", 0),
            ("421 to EHLO", script!["EHLO" => reply("421 4.3.2 no").then(close())], "deferred 421 4.3.2 ehlo", 0),
            (
                "451 to EHLO and HELO",
                script!["EHLO" => "451 4.3.0 no", "HELO" => "451 4.3.0 no"],
                "deferred 451 4.3.0 ehlo",
                0,
            ),
            (
                "550 to EHLO and HELO",
                script!["EHLO" => "550 5.7.1 you?", "HELO" => "550 5.7.1 you?"],
                "deferred 550 5.7.1 ehlo",
                0,
            ),
            ("421 to MAIL", script!["MAIL" => reply("421 4.3.2 no").then(close())], "deferred 421 4.3.2 mail", 0),
            ("451 to MAIL", script!["MAIL" => "451 4.3.0 no"], "deferred 451 4.3.0 mail", 0),
            ("550 to MAIL", script!["MAIL" => "550 5.7.1 no"], "failed 550 5.7.1 mail", 0),
            ("552 to MAIL", script!["MAIL" => "552 5.3.4 too big"], "failed 552 5.3.4 mail", 0),
            ("421 to RCPT", script!["RCPT" => reply("421 4.3.2 no").then(close())], "deferred 421 4.3.2 rcpt", 0),
            ("450 to RCPT", script!["RCPT" => "450 4.2.0 no"], "deferred 450 4.2.0 rcpt", 0),
            ("452 to RCPT", script!["RCPT" => "452 4.2.2 full"], "deferred 452 4.2.2 rcpt", 0),
            ("550 to RCPT", script!["RCPT" => "550 5.1.1 no"], "failed 550 5.1.1 rcpt", 0),
            ("551 to RCPT", script!["RCPT" => "551 5.1.6 moved"], "failed 551 5.1.6 rcpt", 0),
            ("552 to RCPT", script!["RCPT" => "552 5.2.2 full"], "deferred 552 5.2.2 rcpt", 0),
            ("553 to RCPT", script!["RCPT" => "553 5.1.3 no"], "failed 553 5.1.3 rcpt", 0),
            ("503 to RCPT", script!["RCPT" => "503 5.5.1 no"], "failed 503 5.5.1 rcpt", 0),
            ("421 to DATA", script!["DATA" => reply("421 4.3.2 no").then(close())], "deferred 421 4.3.2 data", 0),
            ("451 to DATA", script!["DATA" => "451 4.3.0 no"], "deferred 451 4.3.0 data", 0),
            ("554 to DATA", script!["DATA" => "554 5.7.1 no"], "failed 554 5.7.1 data", 0),
            (
                "421 to the dot",
                script!["." => reply("421 4.3.2 no").then(close())],
                "deferred 421 4.3.2 end-of-data",
                1,
            ),
            ("451 to the dot", script!["." => "451 4.3.0 no"], "deferred 451 4.3.0 end-of-data", 1),
            ("552 to the dot", script!["." => "552 5.3.4 too big"], "failed 552 5.3.4 end-of-data", 1),
            ("554 to the dot", script!["." => "554 5.6.0 spam"], "failed 554 5.6.0 end-of-data", 1),
        ],
    );
}

#[test]
fn a_connection_lost_before_the_final_dot_is_deferred_and_behind_it_in_doubt() {
    expect_outcomes(
        "5s",
        &[
            ("closed at the greeting", script!["CONNECT" => close()], "deferred - 4.4.2 banner", 0),
            ("closed at EHLO", script!["EHLO" => close()], "deferred - 4.4.2 ehlo", 0),
            ("closed at MAIL", script!["MAIL" => close()], "deferred - 4.4.2 mail", 0),
            ("closed at RCPT", script!["RCPT" => close()], "deferred - 4.4.2 rcpt", 0),
            ("closed at DATA", script!["DATA" => close()], "deferred - 4.4.2 data", 0),
            ("closed at the dot", script!["." => close()], "deferred - 4.4.2 end-of-data", 1),
            (
                "reset at the greeting",
                script!["CONNECT" => wait(Duration::from_millis(100)).then(reset())],
                "deferred - 4.4.2 banner",
                0,
            ),
            ("reset at EHLO", script!["EHLO" => reset()], "deferred - 4.4.2 ehlo", 0),
            ("reset at MAIL", script!["MAIL" => reset()], "deferred - 4.4.2 mail", 0),
            ("reset at RCPT", script!["RCPT" => reset()], "deferred - 4.4.2 rcpt", 0),
            ("reset at DATA", script!["DATA" => reset()], "deferred - 4.4.2 data", 0),
            ("reset at the dot", script!["." => reset()], "deferred - 4.4.2 end-of-data", 1),
            (
                "reset behind 550 to MAIL",
                script!["MAIL" => reply("550 5.7.1 no").then(reset())],
                "failed 550 5.7.1 mail",
                0,
            ),
            (
                "reset behind 550 to RCPT",
                script!["RCPT" => reply("550 5.1.1 no").then(reset())],
                "failed 550 5.1.1 rcpt",
                0,
            ),
            (
                "reset behind 554 to DATA",
                script!["DATA" => reply("554 5.7.1 no").then(reset())],
                "failed 554 5.7.1 data",
                0,
            ),
            (
                "reset behind 250 to the dot",
                script!["." => reply("250 2.0.0 ok").then(reset())],
                "delivered 250 2.0.0 end-of-data",
                1,
            ),
        ],
    );
}

/// Whether it has kept the mail the peer does not say.
#[test]
fn a_mail_without_a_reply_to_its_final_dot_is_sent_once_more_by_the_next_sweep() {
    for then in [close(), reset()] {
        let peer = SmtpSink::start(script![on(".").times(1) => then]);
        let relay = Setup::gateway(peer.address()).build();
        relay.submit("me@example.org", &["you@example.net"], &message("m"));
        relay.run_spool().expect(75);
        assert_eq!(relay.sweep().expect(0).counts(), [1, 1, 0, 0, 0, 0]);
        let replies: Vec<_> = peer.transactions().into_iter().map(|transaction| transaction.reply).collect();
        assert_eq!(replies, [None, Some("250 2.0.0 taken".to_owned())]);
        assert_eq!(relay.attempts()[0]["state"], "inDoubt");
    }
}

#[test]
fn a_silent_peer_costs_one_time_out_at_every_stage() {
    expect_outcomes(
        "700ms",
        &[
            ("at the greeting", script!["CONNECT" => stall()], "deferred - 4.4.2 banner", 0),
            ("at EHLO", script!["EHLO" => stall()], "deferred - 4.4.2 ehlo", 0),
            ("at MAIL", script!["MAIL" => stall()], "deferred - 4.4.2 mail", 0),
            ("at RCPT", script!["RCPT" => stall()], "deferred - 4.4.2 rcpt", 0),
            ("at DATA", script!["DATA" => stall()], "deferred - 4.4.2 data", 0),
            ("at the dot", script!["." => stall()], "deferred - 4.4.2 end-of-data", 1),
            ("at QUIT", script!["QUIT" => stall()], "delivered 250 2.0.0 end-of-data", 1),
            // Each octet comes in time, the reply does not.
            (
                "an octet at a time",
                script!["RCPT" => drip("250 2.1.5 a long while", Duration::from_millis(100))],
                "deferred - 4.4.2 rcpt",
                0,
            ),
            (
                "continued, never ended",
                script!["MAIL" => raw("250-2.1.0 and\r\n").then(stall())],
                "deferred - 4.4.2 mail",
                0,
            ),
        ],
    );
}

#[test]
fn nothing_said_at_quit_changes_an_outcome() {
    let delivered = "delivered 250 2.0.0 end-of-data";
    expect_outcomes(
        "5s",
        &[
            ("421", script!["QUIT" => reply("421 4.3.2 no").then(close())], delivered, 1),
            ("500", script!["QUIT" => "500 5.5.1 what"], delivered, 1),
            ("250", script!["QUIT" => "250 ok"], delivered, 1),
            ("garbage", script!["QUIT" => raw("\0\u{7f}\r\n")], delivered, 1),
            ("closed", script!["QUIT" => close()], delivered, 1),
            ("reset", script!["QUIT" => reset()], delivered, 1),
            ("endless", script!["QUIT" => endless("221-bye\r\n")], delivered, 1),
        ],
    );
}

#[test]
fn odd_codes_are_read_by_their_first_digit_and_what_is_no_smtp_is_deferred() {
    expect_outcomes(
        "2s",
        &[
            ("571 to RCPT", script!["RCPT" => "571 5.7.1 no"], "failed 571 5.7.1 rcpt", 0),
            ("590 to RCPT", script!["RCPT" => "590 no"], "failed 590 - rcpt", 0),
            ("550 without text to RCPT", script!["RCPT" => "550"], "failed 550 - rcpt", 0),
            ("299 to RCPT", script!["RCPT" => "299 fine"], "delivered 250 2.0.0 end-of-data", 1),
            ("251 to RCPT", script!["RCPT" => "251 2.1.5 will forward"], "delivered 250 2.0.0 end-of-data", 1),
            ("252 to RCPT", script!["RCPT" => "252 2.1.5 cannot verify"], "delivered 250 2.0.0 end-of-data", 1),
            ("199 to RCPT", script!["RCPT" => "199 what"], "deferred - 4.4.2 rcpt", 0),
            ("354 to RCPT", script!["RCPT" => "354 what"], "deferred - 4.4.2 rcpt", 0),
            ("000 to RCPT", script!["RCPT" => "000 what"], "deferred - 4.4.2 rcpt", 0),
            ("999 to RCPT", script!["RCPT" => "999 what"], "deferred - 4.4.2 rcpt", 0),
            ("banana to RCPT", script!["RCPT" => "banana"], "deferred - 4.4.2 rcpt", 0),
            ("an empty line to RCPT", script!["RCPT" => ""], "deferred - 4.4.2 rcpt", 0),
            ("250 without text to the dot", script!["." => "250"], "delivered 250 - end-of-data", 1),
            ("299 to the dot", script!["." => "299 fine"], "delivered 299 - end-of-data", 1),
            ("571 to the dot", script!["." => "571 5.7.1 no"], "failed 571 5.7.1 end-of-data", 1),
            ("590 to the dot", script!["." => "590 no"], "failed 590 - end-of-data", 1),
            ("199 to the dot", script!["." => "199 what"], "deferred - 4.4.2 end-of-data", 1),
            ("354 to the dot", script!["." => "354 go on"], "deferred - 4.4.2 end-of-data", 1),
            ("999 to the dot", script!["." => "999 what"], "deferred - 4.4.2 end-of-data", 1),
            ("banana to the dot", script!["." => "banana"], "deferred - 4.4.2 end-of-data", 1),
            ("250 to DATA", script!["DATA" => "250 fine"], "deferred - 4.4.2 data", 0),
            ("354 to MAIL", script!["MAIL" => "354 go"], "deferred - 4.4.2 mail", 0),
            (
                "bare LF",
                script!["RCPT" => raw("250 2.1.5 ok\n"), "." => raw("250 2.0.0 ok\n")],
                "delivered 250 2.0.0 end-of-data",
                1,
            ),
            ("not UTF-8", script!["." => raw(b"250 2.0.0 d\xe9livr\xe9\r\n")], "delivered 250 2.0.0 end-of-data", 1),
            (
                "lines that disagree",
                script!["RCPT" => raw("250-2.1.5 ok\r\n550 5.1.1 no\r\n")],
                "deferred - 4.4.2 rcpt",
                0,
            ),
            ("lines without end to EHLO", script!["EHLO" => endless("250-x\r\n")], "deferred - 4.4.2 ehlo", 0),
            ("lines without end to the dot", script!["." => endless("250-x\r\n")], "deferred - 4.4.2 end-of-data", 1),
            ("a line without end to EHLO", script!["EHLO" => endless("250-xxxx")], "deferred - 4.4.2 ehlo", 0),
            (
                "a line of 5000 octets",
                script!["RCPT" => raw(format!("250 {}\r\n", "x".repeat(5000)))],
                "deferred - 4.4.2 rcpt",
                0,
            ),
            (
                "a reply of 100 KiB",
                script!["RCPT" => raw(format!("{}250 ok\r\n", "250-yes\r\n".repeat(12_000)))],
                "deferred - 4.4.2 rcpt",
                0,
            ),
        ],
    );
}

#[test]
fn greetings_and_capabilities_of_any_shape_are_lived_with() {
    let (delivered, no) = ("delivered 250 2.0.0 end-of-data", "deferred - 4.4.2 banner");
    let capabilities = |offered: &[&str]| Script::new().capabilities(offered);
    let many: Vec<String> = (0..2000).map(|n| format!("X-CAPABILITY-{n}")).collect();
    expect_outcomes(
        "5s",
        &[
            ("a greeting of lines", script!["CONNECT" => "220-sink\n220-welcome\n220 sink"], delivered, 1),
            ("a greeting without text", script!["CONNECT" => "220"], delivered, 1),
            (
                "a refusal of lines",
                script!["CONNECT" => "554-5.3.2 no\n554 5.3.2 mail"],
                "deferred 554 5.3.2 banner",
                0,
            ),
            ("garbage", script!["CONNECT" => raw("\u{1}\u{2}SSH-2.0-OpenSSH\r\n")], no, 0),
            ("a greeting of 100 KB", script!["CONNECT" => raw(format!("220 {}\r\n", "x".repeat(100_000)))], no, 0),
            ("EHLO refused, HELO taken", script!["EHLO" => "502 5.5.1 what"], delivered, 1),
            ("EHLO refused by 500", script!["EHLO" => "500 what"], delivered, 1),
            ("EHLO refused by 504", script!["EHLO" => "504 what"], delivered, 1),
            ("EHLO refused by 550", script!["EHLO" => "550 what"], delivered, 1),
            ("no capabilities", capabilities(&[]), delivered, 1),
            ("SIZE abc", capabilities(&["SIZE abc"]), delivered, 1),
            ("SIZE", capabilities(&["SIZE"]), delivered, 1),
            ("SIZE 0", capabilities(&["SIZE 0"]), delivered, 1),
            ("SIZE of 20 digits", capabilities(&["SIZE 99999999999999999999"]), delivered, 1),
            ("in lower case", capabilities(&["pipelining", "size 1000000", "8bitmime"]), delivered, 1),
            ("AUTH=", capabilities(&["AUTH=PLAIN", "AUTH PLAIN"]), delivered, 1),
            ("2000 of them", capabilities(&many.iter().map(String::as_str).collect::<Vec<_>>()), delivered, 1),
            ("SIZE too small", capabilities(&["SIZE 100"]), "failed - 5.3.4 mail", 0),
        ],
    );
}

#[test]
fn surplus_replies_never_pass_for_the_next_ones() {
    expect_outcomes(
        "2s",
        &[
            ("behind the greeting", script!["CONNECT" => raw("220 sink\r\n250 sink\r\n")], "deferred - 4.4.2 ehlo", 0),
            ("behind EHLO", script!["EHLO" => raw("250 sink\r\n550 5.7.1 no\r\n")], "deferred - 4.4.2 mail", 0),
            (
                "behind MAIL",
                script!["MAIL" => raw("250 2.1.0 ok\r\n550 5.1.1 no\r\n")].capabilities(&[]),
                "deferred - 4.4.2 rcpt",
                0,
            ),
            (
                "behind RCPT",
                script!["RCPT" => raw("250 2.1.5 ok\r\n354 go\r\n")].capabilities(&[]),
                "deferred - 4.4.2 data",
                0,
            ),
            ("behind DATA", script!["DATA" => raw("354 go\r\n250 2.0.0 taken\r\n")], "deferred - 4.4.2 data", 0),
            ("behind the dot", script!["." => raw("250 2.0.0 ok\r\n550 no\r\n")], "delivered 250 2.0.0 end-of-data", 1),
        ],
    );
}

/// One reply too many behind the first recipient's, with all commands said at once: from
/// there on no reply can be told whose it is.
#[test]
fn a_surplus_reply_within_a_pipeline_is_nobodys_failure() {
    let peer = SmtpSink::start(script!["RCPT TO:<a@" => raw("250 2.1.5 ok\r\n550 5.1.1 no\r\n")]);
    let relay = Setup::gateway(peer.address()).build();
    relay.submit("me@example.org", &["a@example.net", "b@example.net"], &message("m"));
    assert_eq!(relay.run_spool().expect(75).counts(), [1, 0, 2, 0, 0, 0]);
    assert_eq!(peer.transactions().len(), 0);
}

#[test]
fn mixed_replies_give_each_recipient_its_own_outcome() {
    let replies = [
        ("a", "250 2.1.5 ok", "delivered 250 2.0.0 end-of-data"),
        ("b", "251 2.1.5 ok", "delivered 250 2.0.0 end-of-data"),
        ("c", "450 4.2.0 later", "deferred 450 4.2.0 rcpt"),
        ("d", "452 4.2.2 full", "deferred 452 4.2.2 rcpt"),
        ("e", "550 5.1.1 no", "failed 550 5.1.1 rcpt"),
        ("f", "553 5.1.3 no", "failed 553 5.1.3 rcpt"),
        ("g", "552 5.2.2 full", "deferred 552 5.2.2 rcpt"),
    ];
    for (dot, outcome) in [
        ("250 2.0.0 taken", None),
        ("451 4.3.0 no", Some("deferred 451 4.3.0 end-of-data")),
        ("554 5.6.0 no", Some("failed 554 5.6.0 end-of-data")),
    ] {
        for pipelining in [&["PIPELINING"][..], &[]] {
            let script = replies.iter().fold(Script::new().on(".", dot), |script, (name, text, _)| {
                script.on(on(&format!("RCPT TO:<{name}@")), *text)
            });
            let peer = SmtpSink::start(script.capabilities(pipelining));
            let relay = Setup::gateway(peer.address()).build();
            let recipients = replies.map(|(name, ..)| format!("{name}@example.net"));
            relay.submit("me@example.org", &recipients.each_ref().map(String::as_str), &message("m"));
            relay.run_spool();

            let attempts = relay.attempts();
            for ((_, _, expected), recipient) in replies.iter().zip(&recipients) {
                let expected = outcome.filter(|_| expected.starts_with("delivered")).unwrap_or(expected);
                assert_eq!(summary(&attempts, recipient).0, expected, "{recipient}, {dot}, {pipelining:?}");
            }
            assert_eq!((attempts.len(), peer.transactions().len()), (1, 1));
            assert_eq!(peer.violations(), Vec::<String>::new());
        }
    }
}

#[test]
fn when_every_recipient_is_refused_no_content_is_sent() {
    for pipelining in [&["PIPELINING"][..], &[]] {
        let script =
            script!["RCPT TO:<a@" => "550 5.1.1 no", "RCPT TO:<b@" => "450 4.2.0 later", "DATA" => "354 go on"];
        let peer = SmtpSink::start(script.capabilities(pipelining));
        let relay = Setup::gateway(peer.address()).build();
        relay.submit("me@example.org", &["a@example.net", "b@example.net"], &message("m"));
        assert_eq!(relay.run_spool().expect(69).counts(), [1, 0, 1, 1, 0, 0]);
        // A lone dot is no content.
        assert!(peer.transactions().iter().all(|transaction| transaction.content.is_empty()));
        assert_eq!(peer.violations(), Vec::<String>::new());
    }
}

#[test]
fn a_421_to_one_recipient_leaves_earlier_refusals_standing_and_sends_to_nobody() {
    let peer = SmtpSink::start(
        script!["RCPT TO:<no@" => "550 5.1.1 no", "RCPT TO:<c@" => reply("421 4.3.2 bye").then(close())],
    );
    let relay = Setup::gateway(peer.address()).build();
    relay.submit(
        "me@example.org",
        &["yes@example.net", "no@example.net", "c@example.net", "d@example.net"],
        &message("m"),
    );

    assert_eq!(relay.run_spool().expect(69).counts(), [1, 0, 3, 1, 0, 0]);

    let attempts = relay.attempts();
    assert_eq!(summary(&attempts, "no@example.net").0, "failed 550 5.1.1 rcpt");
    for deferred in ["yes@example.net", "c@example.net", "d@example.net"] {
        assert_eq!(summary(&attempts, deferred).0, "deferred 421 4.3.2 rcpt");
    }
    assert_eq!((peer.connections(), peer.transactions().len()), (1, 0));
}

#[test]
fn with_sendpartial_false_all_are_sent_to_or_nobody_is() {
    let peer = SmtpSink::start(script![on("RCPT TO:<no@").times(1) => "550 5.1.1 no"]);
    let relay = Setup::gateway(peer.address()).delivery("sendpartial: false").build();
    relay.submit("me@example.org", &["yes@example.net", "no@example.net"], &message("m"));

    assert_eq!(relay.run_spool().expect(69).counts(), [1, 0, 1, 1, 0, 0]);
    assert_eq!(summary(&relay.attempts(), "yes@example.net").0, "deferred - 4.5.0 rcpt");
    assert_eq!(peer.transactions().len(), 0);

    assert_eq!(relay.sweep().expect(0).counts(), [1, 1, 0, 0, 0, 0]);
    assert_eq!(peer.copies_of("yes@example.net", "<m@"), 1);
}

#[test]
fn what_is_recorded_of_a_recipient_is_everything_an_auditor_asks_for() {
    let peer = SmtpSink::start(script!["RCPT" => "550-5.1.1 no such\n550 5.1.1 user"]);
    let zones = Zones::start(&format!("example.net MX 10 mx.example.net\nmx.example.net A {}", peer.ip()));
    let relay = Setup::mx(&zones, peer.port()).build();
    relay.submit("me@example.org", &["you@example.net"], &message("m"));
    relay.run_spool().expect(69);

    let attempt = relay.attempts().remove(0);
    let members: Vec<_> = attempt.as_object().expect("an object").keys().map(String::as_str).collect();
    for member in ["number", "started", "finished", "state", "counted", "recipients", "dialogue", "key", "sender"] {
        assert!(members.contains(&member), "{members:?}");
    }
    assert_eq!(
        (&attempt["number"], &attempt["state"], &attempt["counted"]),
        (&1.into(), &"settled".into(), &true.into())
    );
    assert_eq!(attempt["sender"], "me@example.org");
    let recipient = &attempt["recipients"][0];
    let members: Vec<_> = recipient.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(
        members,
        [
            "recipient",
            "outcome",
            "code",
            "enhanced",
            "reply",
            "stage",
            "nextHop",
            "host",
            "address",
            "port",
            "localAddress",
            "tls",
            "notes",
            "cause",
            "time",
            "duration"
        ]
    );
    assert_eq!(recipient["reply"], "550-5.1.1 no such\n550 5.1.1 user");
    assert_eq!((&recipient["nextHop"], &recipient["host"]), (&"example.net".into(), &"mx.example.net".into()));
    assert_eq!((&recipient["address"], &recipient["port"]), (&peer.ip().to_string().into(), &peer.port().into()));
    assert_eq!(recipient["localAddress"], peer.record().connections[0].from.to_string());
    assert_eq!((&recipient["tls"], &recipient["cause"]), (&Value::Null, &Value::Null));
    assert!(recipient["duration"].as_f64().is_some_and(|seconds| seconds < 30.0), "{recipient}");
    said(&attempt, &["220 sink", "EHLO relay.test", "RCPT TO:<you@example.net>", "550-5.1.1 no such\n550 5.1.1 user"]);
}

#[test]
fn what_was_said_with_several_next_hops_at_once_stands_in_order_of_time() {
    let after = |millis| wait(Duration::from_millis(millis));
    // Long enough that both are connected when the first of them says more.
    let slow = SmtpSink::start(
        script![on("EHLO") => after(300).then("250 slow"), on(".") => after(900).then("250 2.0.0 from the slow one")],
    );
    let late = SmtpSink::beside(
        &slow,
        script![on("EHLO") => after(600).then("250 late"), on(".") => "250 2.0.0 from the late one"],
    );
    let peers = [slow, late];
    let (_zones, relay) = to_each(&peers, "10s");
    relay.submit("me@example.org", &["a@d0.example", "b@d1.example"], &message("m"));
    assert_eq!(relay.run_spool().expect(0).counts(), [1, 2, 0, 0, 0, 0]);

    let attempt = relay.attempts().remove(0);
    let members: Vec<_> = attempt["dialogue"][0].as_object().expect("an entry").keys().collect();
    assert_eq!(members, ["time", "from", "text"]);
    let times: Vec<_> = attempt["dialogue"].as_array().expect("entries").iter().map(|e| e["time"].as_str()).collect();
    assert!(times.is_sorted(), "{attempt:#}");
    let address = |n: usize| format!("{}:{}", attempt["recipients"][n]["address"], attempt["recipients"][n]["port"]);
    let again = |n: usize| format!("[with {} again]", address(n).replace('"', ""));
    // The record has the late one's first, since it was over first.
    assert_eq!(attempt["recipients"][1]["recipient"], "a@d0.example");
    said(&attempt, &[&again(0), "from the late one", &again(1), "from the slow one"]);
}

/// These stand in the dialogue, in this order.
fn said(attempt: &Value, texts: &[&str]) {
    let dialogue = attempt["dialogue"].as_array().expect("a dialogue");
    let mut entries = dialogue.iter();
    for text in texts {
        let found = entries.any(|entry| entry["text"].as_str().is_some_and(|said| said.contains(text)));
        assert!(found, "{text} is not there, or not in its place: {dialogue:#?}");
    }
}
