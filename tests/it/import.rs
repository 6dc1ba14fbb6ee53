//! `redeliver import`: files of all kinds, each message once.

use std::fs;

use serde_json::json;

use crate::support::relay::{Relay, Setup};

const FROM: &str = "From x@y.example Mon Jan  2 03:04:05 2026\n";

/// A relay whose new mail goes to repository `aside`, and these files beside its configuration.
fn relay(files: &[(&str, &[u8])]) -> Relay {
    let relay = Setup::gateway("127.0.0.2:25").top("smtp: { processor: aside }").build();
    let text = fs::read_to_string(relay.configuration()).expect("written");
    let aside = "  aside:\n    - mailet: ToRepository\n      repositoryPath: aside\n";
    fs::write(relay.configuration(), format!("{text}{aside}")).expect("written");
    for (name, octets) in files {
        let path = relay.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, octets).expect("written");
    }
    relay
}

/// All messages taken so far, without the field that the import added.
fn taken(relay: &Relay) -> Vec<String> {
    relay.run_spool();
    let mails = relay.mails("aside");
    let content = |mail: &serde_json::Value| {
        let key = mail["key"].as_str().expect("a key");
        let message = relay.command(&["repository", "export", "aside", key]).expect(0).stdout;
        let (trace, rest) = message.split_once(" +0000\r\n").expect("a trace field");
        assert!(trace.starts_with("Received: by relay.test (redeliver, from userid "), "{trace}");
        rest.to_owned()
    };
    mails.iter().map(content).collect()
}

const ENVELOPE: [&str; 4] = ["--from", "a@sender.example", "--to", "b@x.example"];

fn import(relay: &Relay, arguments: &[&str], code: i32) -> (serde_json::Value, String) {
    let arguments = [&["import", "--format", "json"], arguments].concat();
    let mut ended = relay.command(&arguments).expect(code);
    (ended.json().remove(0), std::mem::take(&mut ended.stderr))
}

#[test]
fn a_message_a_mailbox_and_a_maildir_are_taken_octet_for_octet() {
    let mailbox = format!("{FROM}X: 2\n\n>From here\n\n{FROM}X: 3\n\nbody\n\n");
    let relay = relay(&[
        ("in/1.eml", b"X: 1\r\n\r\n..\r\nx\r\n"),
        ("in/2.mbox", mailbox.as_bytes()),
        ("in/maildir/new/4.host", b"X: 4\n\nunix"),
        ("in/maildir/cur/5.host:2,S", b"X: 5\n"),
        ("in/maildir/tmp/6.host", b"X: 6\n"),
    ]);
    let (told, _) = import(&relay, &[&["in/1.eml", "in/2.mbox", "in/maildir"][..], &ENVELOPE].concat(), 0);
    assert_eq!(told, json!({"taken": 5, "before": 0, "refused": 0}));
    assert!(relay.mails("aside").is_empty(), "they wait in the spool");
    let mut found = taken(&relay);
    found.sort_unstable();
    let expected = ["1\r\n\r\n..\r\nx", "2\r\n\r\nFrom here", "3\r\n\r\nbody", "4\r\n\r\nunix", "5"];
    assert_eq!(found, expected.map(|message| format!("X: {message}\r\n")));
    let mail = relay.mails("aside").remove(0);
    assert_eq!((&mail["sender"], &mail["recipients"]), (&json!("a@sender.example"), &json!(["b@x.example"])));
    assert!(mail["name"].as_str().is_some_and(|name| name.starts_with("in/")), "{mail}");
}

#[test]
fn what_was_taken_once_is_not_taken_again() {
    let mailbox = format!("{FROM}X: 1\n\na\n\n{FROM}X: 2\n\nb\n\n");
    let relay = relay(&[("box", mailbox.as_bytes())]);
    let all = [&["box"][..], &ENVELOPE].concat();
    assert_eq!(import(&relay, &all, 0).0, json!({"taken": 2, "before": 0, "refused": 0}));
    let more = format!("{mailbox}{FROM}X: 3\n\nc\n\n");
    fs::write(relay.path().join("box"), more).expect("written");
    assert_eq!(import(&relay, &all, 0).0, json!({"taken": 1, "before": 2, "refused": 0}));
    let other = ["box", "--from", "a@sender.example", "--to", "c@x.example"];
    assert_eq!(import(&relay, &other, 0).0["taken"], 3, "for somebody else it is another mail");
    assert_eq!(taken(&relay).len(), 6);
}

#[test]
fn what_is_no_message_is_named_and_the_others_are_taken() {
    let mailbox = format!("{FROM}no header\n\n{FROM}X: 1\n\na\n\n{FROM}X: 3\n\nc\n\n");
    let relay = relay(&[
        ("good.eml", b"X: 1\n\nb\n"),
        ("nul.eml", b"X: 1\n\n\0\n"),
        ("mixed.eml", b"X: 1\r\n\nb\n"),
        ("text.eml", b"not a message\n"),
        ("box", mailbox.as_bytes()),
        ("doubt", format!("{FROM}X: 1\n\n>>From a\n\n").as_bytes()),
        ("empty/x.txt", b"x"),
        ("folder/1.eml", b"X: 5\n"),
        ("folder/notes.txt", b"X: 6\n"),
        ("folder/sub/2.eml", b"X: 7\n"),
        ("mail/new/1.host", b"X: 8\n"),
        ("mail/cur/.hidden", b"X: 9\n"),
        ("mail/.Sent/cur/1.host", b"X: 10\n"),
        ("mail/.Sent/new/.keep", b""),
        ("mail/dovecot.index", b"x"),
    ]);
    fs::create_dir_all(relay.path().join("linked/cur")).expect("made");
    std::os::unix::fs::symlink(relay.path().join("mail/new"), relay.path().join("linked/new")).expect("a link");
    std::os::unix::fs::symlink("/etc/hostname", relay.path().join("mail/cur/2.host")).expect("a link");
    let paths = [
        "nul.eml",
        "mixed.eml",
        "text.eml",
        "absent.eml",
        "box",
        "doubt",
        "empty",
        "folder",
        "mail",
        "linked",
        "good.eml",
    ];
    let (told, stderr) = import(&relay, &[&paths[..], &ENVELOPE].concat(), 65);
    // Of mixed.eml all line ends are made alike.
    assert_eq!(told, json!({"taken": 6, "before": 0, "refused": 11}));
    for line in [
        "redeliver: nul.eml: the message has a NUL octet in line 3",
        "redeliver: text.eml: it has no header",
        "redeliver: absent.eml: it cannot be read: No such file",
        "redeliver: box: message 1: it has no header",
        "redeliver: doubt: it may be mboxo or mboxrd, which read line 4 differently",
        "redeliver: empty: it cannot be read: the folder is no maildir",
        "redeliver: folder/notes.txt: it is not named .eml",
        "redeliver: folder/sub: it is a folder within a folder",
        "redeliver: mail/cur/2.host: it is a symbolic link",
        "redeliver: linked/new: it is a symbolic link",
        "redeliver: mail/.Sent: it is a folder within a folder",
    ] {
        assert!(stderr.lines().any(|one| one.starts_with(line)), "{line}\n{stderr}");
    }
    let asked = [&["doubt", "--mbox-dialect", "mboxo"][..], &ENVELOPE].concat();
    assert_eq!(import(&relay, &asked, 0).0["taken"], 1);
}

#[test]
fn the_envelope_is_of_the_command_line_or_of_the_last_delivery() {
    let relay = relay(&[
        ("a.eml", b"Return-Path: <>\nDelivered-To: own@x.example\nX: 1\n\n"),
        ("b.eml", b"To: somebody@x.example\nFrom: else@y.example\n\n"),
    ]);
    let (told, stderr) = import(&relay, &["a.eml", "b.eml"], 65);
    assert_eq!(told, json!({"taken": 1, "before": 0, "refused": 1}));
    assert!(stderr.contains("b.eml: it has no Return-Path: name the reverse-path with --from"), "{stderr}");
    taken(&relay);
    let mail = relay.mails("aside").remove(0);
    assert_eq!((&mail["sender"], &mail["recipients"]), (&json!(null), &json!(["own@x.example"])));
    relay.command(&["import", "a.eml", "--to", "nobody"]).expect(65);
    relay.command(&["import"]).expect(64);
    relay.command(&["import", "a.eml", "--mbox-dialect", "mboxx"]).expect(64);
}

#[test]
fn two_messages_never_become_one_and_one_is_never_cut_in_two_unasked() {
    let iso = "From a@y.example 2021-03-15T10:00:00Z\nSubject: 1\n\na\n\nFrom \nSubject: 2\n\nb\n";
    let relay = relay(&[
        ("iso.mbox", iso.as_bytes()),
        ("bom.mbox", format!("\u{feff}\n{FROM}Subject: 3\n\nc\n").as_bytes()),
        ("bom.eml", "\u{feff}\r\nSubject: 4\r\n\r\nd\r\n".as_bytes()),
        ("words.mbox", format!("{FROM}Subject: 5\n\ne\n\nFrom now on\nNote: this\n").as_bytes()),
        ("cited.mbox", format!("{FROM}Subject: 8\n\nhe wrote\n\n{FROM}no header here\n").as_bytes()),
        ("headless", format!("Subject: 6\n\nf\n\n{FROM}Subject: 7\n\ng\n").as_bytes()),
        ("16.mbox", b"\xff\xfeF\0r\0"),
        ("a.mbox.gz", b"\x1f\x8b\x08\0"),
    ]);
    let paths = ["iso.mbox", "bom.mbox", "bom.eml", "words.mbox", "cited.mbox", "headless", "16.mbox", "a.mbox.gz"];
    let (told, stderr) = import(&relay, &[&paths[..], &ENVELOPE].concat(), 65);
    assert_eq!(told, json!({"taken": 4, "before": 0, "refused": 5}));
    for line in [
        "redeliver: a.mbox.gz: it is compressed by gzip",
        "redeliver: words.mbox: line 6 'From now on' may begin a message, or be a line of one: say with --mbox-dialect",
        "redeliver: cited.mbox: line 6 'From x@y.example Mon Jan  2 03:04:05 2026' may begin a message, or be a line of one",
        "redeliver: headless: a message of a mailbox begins at line 5",
        "redeliver: 16.mbox: it is UTF-16",
    ] {
        assert!(stderr.lines().any(|one| one.starts_with(line)), "{line}\n{stderr}");
    }
    let mut found = taken(&relay);
    found.sort_unstable();
    let expected = ["1\r\n\r\na", "2\r\n\r\nb", "3\r\n\r\nc", "4\r\n\r\nd"];
    assert_eq!(found, expected.map(|message| format!("Subject: {message}\r\n")));
    let asked = [&["words.mbox", "--mbox-dialect", "mboxrd"][..], &ENVELOPE].concat();
    assert_eq!(import(&relay, &asked, 0).0["taken"], 2);
}

#[test]
fn trash_and_drafts_are_named_and_taken_only_when_asked_for() {
    let expunged = format!("{FROM}X-Mozilla-Status: 0009\nX: 4\n\n{FROM}X-Mozilla-Status: 0001\nX: 5\n\n");
    let relay = relay(&[
        ("mail/new/.keep", b""),
        ("mail/cur/1.a.h:2,ST", b"X: 1\n\n"),
        ("mail/cur/2.a.h:2,D", b"X: 2\n\n"),
        ("mail/cur/3.a.h:2,S", b"X: 3\n\n"),
        ("box", expunged.as_bytes()),
    ]);
    let paths = [&["mail", "box"][..], &ENVELOPE].concat();
    let (told, stderr) = import(&relay, &paths, 65);
    assert_eq!(told, json!({"taken": 2, "before": 0, "refused": 3}));
    for line in [
        "redeliver: mail/cur/1.a.h:2,ST: it is marked as deleted: --include-trash",
        "redeliver: mail/cur/2.a.h:2,D: it is marked as a draft: --include-drafts",
        "redeliver: box: message 1: it is marked as deleted: --include-trash",
    ] {
        assert!(stderr.lines().any(|one| one.starts_with(line)), "{line}\n{stderr}");
    }
    let (told, _) = import(&relay, &[&paths[..], &["--include-trash"]].concat(), 65);
    assert_eq!(told, json!({"taken": 2, "before": 2, "refused": 1}));
    let (told, _) = import(&relay, &[&paths[..], &["--include-trash", "--include-drafts"]].concat(), 0);
    assert_eq!(told, json!({"taken": 1, "before": 4, "refused": 0}));
}

#[test]
fn what_a_mailbox_of_another_kind_is_and_what_to_do_is_said() {
    let cases: [(&str, &[u8], &str); 9] = [
        ("mac", b"From a@x.example Mon Jan  2 03:04:05 2026\rSubject: a\r\rb\r", "CR alone"),
        ("postfix", b"C_           1000             100               1\nN\x0aSubject: x", "postcat -bh"),
        ("exim-H", b"1aBcDe-000001-AB-H\nexim 100 100\n<a@x.example>\n", "exim -Mvc"),
        ("qf", b"V8\nT1600000000\nS<a@x.example>\n", "a queue file of sendmail's"),
        ("1.Repository.FileObjectStore", b"\xac\xed\0\x05sr\0", "name the .FileStreamStore"),
        ("apple", b"35\nSubject: a\n\nb\n<?xml version=\"1.0\"?>\n", "a message file of Apple Mail"),
        ("a.zst", b"\x28\xb5\x2f\xfd\0", "zstd: unpack it first"),
        ("In.dbx", b"\xcf\xad\x12\xfe\xc5\xfd", "Outlook Express"),
        ("uw", b"*mbx*\r\n12340000\r\n", "University of Washington"),
    ];
    let relay = relay(&cases.map(|(name, octets, _)| (name, octets)));
    for (name, _, said) in cases {
        let (told, stderr) = import(&relay, &[&[name][..], &ENVELOPE].concat(), 65);
        assert_eq!((&told["taken"], &told["refused"]), (&json!(0), &json!(1)), "{name}");
        assert!(stderr.starts_with(&format!("redeliver: {name}: it")) && stderr.contains(said), "{stderr}");
    }
}

#[test]
fn what_gmail_exports_of_the_trash_stays() {
    let message = |labels: &str| format!("{FROM}X-Gmail-Labels: {labels}\nSubject: x\n\n{labels}\n\n");
    let labels = ["Inbox", "Trash", "Drafts,Important", "Opened,Spam", "Trash talk"];
    let relay = relay(&[("all.mbox", labels.map(message).concat().as_bytes())]);
    let (told, stderr) = import(&relay, &[&["all.mbox"][..], &ENVELOPE].concat(), 65);
    assert_eq!(told, json!({"taken": 2, "before": 0, "refused": 3}));
    for said in [
        "message 2: it is marked as deleted: --include-trash",
        "message 3: it is marked as a draft: --include-drafts",
        "message 4: it is marked as junk: --include-trash",
    ] {
        assert!(stderr.contains(said), "{said}: {stderr}");
    }
    let everything = ["all.mbox", "--include-trash", "--include-drafts"];
    assert_eq!(
        import(&relay, &[&everything[..], &ENVELOPE].concat(), 0).0,
        json!({"taken": 3, "before": 2, "refused": 0})
    );
}

#[test]
fn what_the_command_line_overrides_is_not_judged() {
    let relay = relay(&[
        ("list.eml", b"Return-Path: <a@y.example>\nDelivered-To: mailing list dev@lists.example\n\n"),
        ("local.eml", b"Return-Path: <root>\nX-Original-To: root\n\n"),
    ]);
    let (told, stderr) = import(&relay, &["list.eml", "local.eml", "--to", "b@x.example"], 65);
    assert_eq!(told, json!({"taken": 1, "before": 0, "refused": 1}));
    assert!(stderr.contains("local.eml: header field Return-Path: ") && stderr.contains("with --from"), "{stderr}");
    let (told, _) = import(&relay, &[&["list.eml", "local.eml"][..], &ENVELOPE].concat(), 0);
    assert_eq!(told, json!({"taken": 2, "before": 0, "refused": 0}));
}
