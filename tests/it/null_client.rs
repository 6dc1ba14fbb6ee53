//! A machine that only sends: mail of cron and other programs, for users and from users whom
//! nobody elsewhere knows.

use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink};

/// As cron(8) of Debian calls it.
const CRON: [&str; 5] = ["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root"];
const REPORT: &str = "From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@web1> backup\n\noutput\n";

/// A relay with these settings, and the smarthost that it sends through.
fn machine(settings: &str) -> (Relay, SmtpSink) {
    let peer = SmtpSink::start(Script::new());
    let relay = Setup::gateway(peer.address()).top(&format!("sendmail: {{ {settings} }}")).build();
    (relay, peer)
}

/// What the smarthost gets when this is handed in: sender, recipients and message.
fn sent(machine: &(Relay, SmtpSink), arguments: &[&str], text: &str) -> (String, Vec<String>, String) {
    let (relay, peer) = machine;
    relay.command_with_input(&[&["sendmail"], arguments].concat(), text.as_bytes()).expect(0);
    relay.run_spool().expect(0);
    let transaction = peer.transactions().pop().expect("sent");
    (transaction.reverse_path.clone(), transaction.recipients.clone(), transaction.text())
}

#[test]
fn a_report_of_cron_goes_to_the_administrator_in_the_name_of_the_account() {
    let machine = machine("domain: relay.test, from: relay@example.com, aliases: { root: admin@example.net }");
    let (from, to, text) = sent(&machine, &CRON, REPORT);
    assert_eq!((from.as_str(), to), ("relay@example.com", vec!["admin@example.net".to_owned()]));
    let header = "\r\nFrom: \"Cron Daemon via relay.test\" <relay@example.com>\r\n\
                  X-Original-From: root@relay.test\r\nTo: root@relay.test\r\nSubject: Cron <root@web1> backup\r\n";
    assert!(text.contains(header), "{text}");
}

#[test]
fn nobody_who_is_known_elsewhere_is_replaced() {
    let machine = machine("domain: relay.test, from: relay@example.com");
    for (arguments, expected) in [
        (&["-f", "<>", "b@x.example"][..], ""),
        (&["-f", "a@y.example", "b@x.example"], "a@y.example"),
        (&["-f", "root", "b@x.example"], "relay@example.com"),
        (&["-f", "anything@relay.test", "b@x.example"], "relay@example.com"),
        (&["b@x.example"], "relay@example.com"),
    ] {
        let (from, ..) = sent(&machine, arguments, "From: Ann <a@y.example>\nSubject: x\n\nx\n");
        assert_eq!(from, expected, "{arguments:?}");
    }
    let (.., text) = sent(&machine, &["b@x.example"], "From: Ann <a@y.example>\n\nx\n");
    assert!(text.contains("\r\nFrom: Ann <a@y.example>\r\n") && !text.contains("X-Original-From"), "{text}");
}

#[test]
fn local_names_leave_with_a_domain() {
    let machine = machine("domain: relay.test");
    let (from, to, text) = sent(&machine, &CRON, REPORT);
    assert!(from.ends_with("@relay.test"), "{from}");
    assert_eq!(to, ["root@relay.test"]);
    assert!(text.contains("\r\nFrom: root@relay.test (Cron Daemon)\r\nTo: root@relay.test\r\n"), "{text}");
}

#[test]
fn the_header_names_recipients_by_their_aliases_too() {
    let machine = machine("domain: relay.test, aliases: { root: [a@x.example, b@x.example], Deploy: c@x.example }");
    let (_, to, text) = sent(&machine, &["-t"], "To: root, deploy\nBcc: Root\nCc: d@x.example\n\nx\n");
    assert_eq!(to, ["a@x.example", "b@x.example", "c@x.example", "d@x.example"]);
    assert!(text.contains("\r\nTo: root@relay.test, deploy@relay.test\r\n") && !text.contains("Bcc"), "{text}");
    let refused = machine.0.command_with_input(&["sendmail", "nobody-such"], b"X: y\n\n").expect(65);
    assert!(refused.stderr.contains("no domain"), "{refused:?}");
}

#[test]
fn what_a_file_of_aliases_has_for_local_delivery_is_said_by_check() {
    let machine = machine("domain: relay.test, aliasesFile: aliases");
    let file = machine.0.path().join("aliases");
    let text = "root: ops\nops: admin@example.net\nwww: |/bin/true\nlist: :include:/etc/list, e@x.example\n";
    std::fs::write(&file, text).expect("written");
    let checked = machine.0.command(&["check"]).expect(0).stdout;
    for (line, what) in [(3, "|/bin/true"), (4, ":include:/etc/list")] {
        let told = format!("warning: {}:{line}: ", file.display());
        assert!(checked.lines().any(|said| said.starts_with(&told) && said.contains(what)), "{checked}");
    }
    let (_, to, _) = sent(&machine, &["root", "list"], "X: y\n\n");
    assert_eq!(to, ["admin@example.net", "e@x.example"]);
    std::fs::remove_file(&file).expect("removed");
    let missing = machine.0.command(&["check"]).expect(78).stderr;
    assert!(missing.contains("redeliver.yaml:") && missing.contains("aliases cannot be read"), "{missing}");
    let taken = machine.0.command_with_input(&["sendmail", "root"], b"X: y\n\n").expect(0);
    assert!(taken.stderr.contains("cannot be read"), "said, and no reason to refuse: {taken:?}");
}

#[test]
fn a_whole_dialogue_may_be_written_into_bs_at_once() {
    let (relay, peer) = machine("from: relay@example.com");
    for (n, first) in ["EHLO web1", "HELO my pc"].iter().enumerate() {
        let text = format!(
            "{first}\r\nMAIL FROM: root\r\nRCPT TO: u@x.example\r\nDATA\r\nSubject: s{n}\r\n\r\n10%\r100%\0\r\n..\r\n.\r\n\
             RSET\r\nMAIL FROM:<>\r\nRCPT TO:<v@x.example>\r\nDATA\r\n\r\nsecond\r\n.\r\nQUIT\r\n"
        );
        let said = relay.command_with_input(&["sendmail", "-bs"], text.as_bytes()).expect(0).stdout;
        assert_eq!(said.matches("\r\n354 ").count(), 2, "{said}");
        assert!(!said.contains("\r\n5") && said.contains("\r\n221 "), "{said}");
        assert_eq!(relay.run_spool().expect(0).counts()[..2], [2, 2]);
    }
    let to =
        |recipient: &str| peer.transactions().into_iter().find(|sent| sent.recipients == [recipient]).expect("sent");
    let (first, second) = (to("u@x.example"), to("v@x.example"));
    assert!(first.text().ends_with("\r\n\r\n10%\r\n100%\r\n.\r\n"), "{}", first.text());
    assert_eq!((first.reverse_path.as_str(), second.reverse_path.as_str()), ("relay@example.com", ""));
}
