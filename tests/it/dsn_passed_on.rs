//! What a sender asks of notifications, as the next hop hears it (RFC 3461 section 5.2).

use serde_json::Value;

use super::support::message;
use super::support::relay::{Relay, Setup};
use super::support::sink::{Script, SmtpSink, on, reply, script};
use super::told::shipped;
use super::told_killed::{field, told};

const OFFERED: [&str; 4] = ["PIPELINING", "SIZE 52428800", "8BITMIME", "DSN"];

const NOTIFY: [Option<&str>; 9] = [
    None,
    Some("NEVER"),
    Some("SUCCESS"),
    Some("FAILURE"),
    Some("DELAY"),
    Some("SUCCESS,FAILURE"),
    Some("SUCCESS,DELAY"),
    Some("FAILURE,DELAY"),
    Some("SUCCESS,FAILURE,DELAY"),
];

const RET: [Option<&str>; 3] = [None, Some("FULL"), Some("HDRS")];

/// Each wish with its number.
fn cells() -> impl Iterator<Item = (usize, Option<&'static str>, Option<&'static str>)> {
    NOTIFY
        .into_iter()
        .flat_map(|notify| RET.map(|ret| (notify, ret)))
        .enumerate()
        .map(|(n, (notify, ret))| (n, notify, ret))
}

fn submit(relay: &Relay, options: &[&str], from: &str, to: &[&str]) {
    let arguments = [&["sendmail", "-i", "-f", from], options, &["--"], to].concat();
    relay.command_with_input(&arguments, message("m").as_bytes()).expect(0);
}

/// MAIL and RCPT of every transaction, as they were said, without what the size is.
fn envelopes(peer: &SmtpSink) -> Vec<String> {
    let commands = peer.commands().into_iter().filter(|line| line.starts_with("MAIL") || line.starts_with("RCPT"));
    let plain = |line: String| line.split(' ').filter(|word| !word.starts_with("SIZE=")).collect::<Vec<_>>().join(" ");
    commands.map(plain).collect()
}

fn parameter(keyword: &str, value: Option<&str>) -> String {
    value.map_or(String::new(), |value| format!(" {keyword}={value}"))
}

#[test]
fn every_wish_goes_unchanged_to_a_peer_that_offers_dsn_and_not_to_another() {
    for offers in [true, false] {
        let offered = if offers { &OFFERED[..] } else { &OFFERED[..3] };
        let peer = SmtpSink::start(Script::new().capabilities(offered));
        let relay = Setup::gateway(peer.address()).build();
        let mut expected = Vec::new();
        for (n, notify, ret) in cells() {
            let (from, to, envid) = (format!("s{n}@y.example"), format!("r{n}@x.example"), format!("id+2B{n}"));
            let options = [("-N", notify), ("-R", ret), ("-V", Some(envid.as_str()))];
            let options = options.into_iter().filter_map(|(option, value)| Some([option, value?])).flatten();
            submit(&relay, &options.collect::<Vec<_>>(), &from, &[&to]);
            let said = |keyword, value| if offers { parameter(keyword, value) } else { String::new() };
            expected.push(vec![
                format!("MAIL FROM:<{from}>{}{}", said("RET", ret), said("ENVID", Some(&envid))),
                format!("RCPT TO:<{to}>{}", said("NOTIFY", notify)),
            ]);
        }
        relay.run_spool().expect(0);
        let mut said: Vec<_> = envelopes(&peer).chunks(2).map(<[String]>::to_vec).collect();
        said.sort();
        expected.sort();
        assert_eq!(said, expected, "the peer offers DSN: {offers}");
        assert_eq!(peer.violations(), [""; 0]);
        let handed_on = relay.attempts().iter().filter(|one| one["recipients"][0]["dsnHandedOn"] == true).count();
        assert_eq!(handed_on, if offers { 24 } else { 0 }, "whose NOTIFY the peer was given");
    }
}

/// What ships tells, of a mail for one recipient of each kind: who has it, who never will, and
/// who is waited for.
fn told_of(n: usize, notify: Option<&str>, handed_on: bool) -> Vec<String> {
    let asks = |event: &str| notify.is_some_and(|notify| notify.split(',').any(|one| one == event));
    let told = [
        ("delayed late", asks("DELAY")),
        ("failed no", notify.is_none() || asks("FAILURE")),
        ("relayed yes", asks("SUCCESS") && !handed_on),
    ];
    told.into_iter().filter(|(_, is_told)| *is_told).map(|(what, _)| format!("{what}{n}@x.example")).collect()
}

#[test]
fn every_wish_is_told_with_what_is_returned_and_where_the_peer_tells_it_is_not_told_twice() {
    for offers in [true, false] {
        let offered = if offers { &OFFERED[..] } else { &OFFERED[..3] };
        let rules = script!["RCPT TO:<no" => "550 5.1.1 nobody", "RCPT TO:<late" => "451 4.3.0 come later"];
        let peer = SmtpSink::start(rules.capabilities(offered));
        let relay = shipped(peer.address(), &[]);
        let mut expected = Vec::new();
        for (n, notify, ret) in cells() {
            let (from, envid) = (format!("s{n}@y.example"), format!("id+2B{n}"));
            let options = [("-N", notify), ("-R", ret), ("-V", Some(envid.as_str()))];
            let options = options.into_iter().filter_map(|(option, value)| Some([option, value?])).flatten();
            let to = ["yes", "no", "late"].map(|kind| format!("{kind}{n}@x.example"));
            submit(&relay, &options.collect::<Vec<_>>(), &from, &to.each_ref().map(String::as_str));
            expected.extend(told_of(n, notify, offers));
        }
        relay.run_spool().expect(69);
        expected.sort();
        assert_eq!(told(&peer), expected.into_iter().map(|event| (event, 1)).collect(), "offers: {offers}");
        let notifications = peer.transactions().into_iter().filter(|one| one.reverse_path.is_empty());
        for notification in notifications {
            assert!(!notification.parameters.iter().any(|one| one.starts_with("RET") || one.starts_with("ENVID")));
            let (text, to) = (notification.text(), &notification.recipients[0]);
            let n: usize = to.trim_start_matches('s').split('@').next().and_then(|n| n.parse().ok()).expect("a cell");
            let (_, _, ret) = cells().nth(n).expect("a cell");
            let returns_all = ret == Some("FULL") && field(&text, "Action") == "failed";
            let kind = if returns_all { "message/rfc822" } else { "text/rfc822-headers" };
            assert!(text.contains(&format!("Content-Type: {kind}\r\n")), "{ret:?} {text}");
            assert_eq!(text.contains("Hello."), returns_all, "{ret:?} {text}");
            assert_eq!(field(&text, "Original-Envelope-Id"), format!("id+{n}"));
        }
        // Each action once, however often it is tried again.
        relay.sweep().expect(75);
        relay.command(&["repository", "reprocess", "permanent", "--all", "--processor", "relay", "--reset"]).expect(0);
        let before = told(&peer);
        relay.run_spool().expect(69);
        assert_eq!(told(&peer), before);
        assert_eq!(peer.violations(), [""; 0]);
    }
}

#[test]
fn a_peer_that_refuses_what_it_offers_gets_the_mail_without() {
    for (refused, code, envelope) in [
        (
            "MAIL FROM:<a@y.example> SIZE=",
            "555 5.5.4 unsupported",
            &["MAIL FROM:<a@y.example> RET=HDRS", "MAIL FROM:<a@y.example>", "RCPT TO:<b@x.example>"][..],
        ),
        (
            "RCPT TO:<b@x.example> NOTIFY",
            "501 5.5.4 syntax",
            &[
                "MAIL FROM:<a@y.example> RET=HDRS",
                "RCPT TO:<b@x.example> NOTIFY=SUCCESS",
                "MAIL FROM:<a@y.example>",
                "RCPT TO:<b@x.example>",
            ],
        ),
    ] {
        // Without PIPELINING a command is not said before the last was answered.
        let script = script![on(refused).nth(1) => reply(code)].capabilities(&OFFERED[1..]);
        let peer = SmtpSink::start(script);
        let relay = Setup::gateway(peer.address()).build();
        submit(&relay, &["-N", "success", "-R", "hdrs"], "a@y.example", &["b@x.example"]);
        relay.run_spool().expect(0);
        assert_eq!(envelopes(&peer), envelope);
        let record = relay.only_record();
        let notes = record["notes"].to_string();
        let code = &code[..3];
        assert!(notes.contains(&format!("it offers DSN and refused its parameters ({code})")), "{record}");
        assert_eq!((&record["outcome"], &record["dsnHandedOn"]), (&"delivered".into(), &Value::Null));
        assert_eq!(peer.transactions().len(), 1);
    }
}

#[test]
fn who_is_refused_for_himself_fails_with_that_and_the_others_get_the_mail_once() {
    for pipelining in [true, false] {
        let offered = if pipelining { &OFFERED[..] } else { &OFFERED[1..] };
        let peer = SmtpSink::start(
            script!["RCPT TO:<no@" => "501 5.1.3 bad address", "RCPT TO:<gone@" => "550 5.1.1 gone"]
                .capabilities(offered),
        );
        let relay = Setup::gateway(peer.address()).build();
        let to = ["b@x.example", "no@x.example", "gone@x.example", "c@x.example"];
        submit(&relay, &["-N", "delay"], "a@y.example", &to);
        relay.run_spool().expect(69);
        let outcome = |who: &str| relay.record_of(who)["outcome"].as_str().map(str::to_owned);
        let outcomes = to.map(|who| outcome(who).expect("an outcome"));
        assert_eq!(outcomes, ["delivered", "failed", "failed", "delivered"]);
        let copies: Vec<_> = peer.transactions().iter().map(|one| one.recipients.join(" ")).collect();
        assert_eq!(copies, ["b@x.example c@x.example"], "pipelining: {pipelining}");
    }
}
