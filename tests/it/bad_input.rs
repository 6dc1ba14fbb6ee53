//! Input that is no good: each gets its line and its exit code, and nothing is taken, lost
//! or left behind.

use std::fs;

use crate::support::dialogue::Dialogue;
use crate::support::relay::{Finished, Relay, Setup};
use crate::support::sink::{Script, SmtpSink};
use crate::support::{message, refusing};

/// A processor `relay` that delivers, with whatever stands behind it.
const RELAY: &str = "\
processors:
  relay:
    - match: AtMost=5
      mailet: RemoteDelivery
      bounceProcessor: error-handling
    - { match: All, mailet: ToRepository, repositoryPath: sqlite://var/mail/error/permanent/ }
  error-handling:
    - { match: All, mailet: ToRepository, repositoryPath: sqlite://var/mail/error/temporary/ }
";

/// What `check` says of a `redeliver.yaml`, without the folder in front.
fn complaints(files: &[(&str, &str)]) -> Vec<String> {
    let relay = Relay::written(files);
    let finished = relay.command(&["check"]).expect(78);
    assert_eq!(finished.stdout, "", "{finished:?}");
    assert!(!relay.path().join("var").exists(), "check creates nothing");
    let folder = format!("{}/", relay.path().display());
    finished.stderr.lines().map(|line| line.replace(&folder, "")).collect()
}

#[test]
fn every_mistake_in_the_configuration_has_its_line_and_column() {
    let in_relay = |line: &str, instead: &str| RELAY.replace(line, instead);
    for (what, text, expected) in [
        (
            "unknown key",
            format!("hostnam: x\n{RELAY}"),
            "redeliver.yaml:1:1: unknown key 'hostnam': did you mean 'hostname'?",
        ),
        ("unknown matcher", in_relay("AtMost=5", "AtMots=5"), "redeliver.yaml:3:14: "),
        ("unknown mailet", in_relay("mailet: RemoteDelivery", "mailet: RemoteDelivry"), "redeliver.yaml:4:15: "),
        (
            "unknown parameter",
            in_relay("      bounceProcessor", "      sendPartail: true\n      bounceProcessor"),
            "redeliver.yaml:5:7: ",
        ),
        (
            "unknown processor",
            in_relay("bounceProcessor: error-handling", "bounceProcessor: eror-handling"),
            "redeliver.yaml:5:24: ",
        ),
        (
            "unknown scheme",
            in_relay("sqlite://var/mail/error/permanent/", "cassandra2://var/mail/error/permanent/"),
            "redeliver.yaml:6:59: ",
        ),
        ("AtMost=0", in_relay("AtMost=5", "AtMost=0"), "redeliver.yaml:3:14: "),
        ("AtMost=-1", in_relay("AtMost=5", "AtMost=-1"), "redeliver.yaml:3:14: "),
        ("AtMost=abc", in_relay("AtMost=5", "AtMost=abc"), "redeliver.yaml:3:14: "),
        ("AtMost=4294967296", in_relay("AtMost=5", "AtMost=4294967296"), "redeliver.yaml:3:14: "),
        ("AtMost without number", in_relay("AtMost=5", "AtMost"), "redeliver.yaml:3:14: "),
        (
            "a retry of its own",
            in_relay("      bounceProcessor", "      maxRetries: 3\n      bounceProcessor"),
            "redeliver.yaml:5:19: ",
        ),
        (
            "port 70000",
            in_relay("      bounceProcessor", "      port: 70000\n      bounceProcessor"),
            "redeliver.yaml:5:13: ",
        ),
        (
            "a negative time",
            in_relay("      bounceProcessor", "      timeout: -1s\n      bounceProcessor"),
            "redeliver.yaml:5:16: ",
        ),
        (
            "no time at all",
            in_relay("      bounceProcessor", "      timeout: soon\n      bounceProcessor"),
            "redeliver.yaml:5:16: ",
        ),
        (
            "no connections",
            in_relay("      bounceProcessor", "      deliveryThreads: 0\n      bounceProcessor"),
            "redeliver.yaml:5:24: ",
        ),
        (
            "startTLS: maybe",
            in_relay("      bounceProcessor", "      startTLS: maybe\n      bounceProcessor"),
            "redeliver.yaml:5:17: ",
        ),
        ("a list for a map", "smtp: [a]\n".to_owned(), "redeliver.yaml:1:7: "),
        (
            "an open end",
            in_relay(
                "{ match: All, mailet: ToRepository, repositoryPath: sqlite://var/mail/error/temporary/ }",
                "{ match: AtMost=3, mailet: ToRepository, repositoryPath: sqlite://var/mail/error/temporary/ }",
            ),
            "redeliver.yaml:",
        ),
        (
            "a circle",
            in_relay(
                "{ match: All, mailet: ToRepository, repositoryPath: sqlite://var/mail/error/temporary/ }",
                "{ match: All, mailet: ToProcessor, processor: relay }",
            ),
            "redeliver.yaml:",
        ),
        ("a key twice", "hostname: a\nhostname: b\n".to_owned(), "redeliver.yaml:2:1: "),
        ("a tab", "smtp:\n\tlisten: []\n".to_owned(), "redeliver.yaml:2:1: "),
        ("an open quote", "hostname: \"a\n".to_owned(), "redeliver.yaml:"),
        ("not YAML", "a: [\n".to_owned(), "redeliver.yaml:"),
        ("several documents", "hostname: a\n---\nhostname: b\n".to_owned(), "redeliver.yaml:"),
        ("a scalar", "hello\n".to_owned(), "redeliver.yaml:1:1: "),
    ] {
        let told = complaints(&[("redeliver.yaml", &text)]);
        assert!(told.iter().any(|line| line.starts_with(expected)), "{what}: {told:#?}");
        assert!(told.len() <= 2, "{what}: {told:#?}");
        let cut: Vec<_> = told[0].splitn(4, ':').collect();
        assert!(cut.len() == 4 && cut[1].parse::<u32>().is_ok() && cut[2].parse::<u32>().is_ok(), "{what}: {told:?}");
    }
}

#[test]
fn what_is_wrong_with_senders_and_aliases_has_its_place() {
    for (settings, expected) in [
        ("form: a@x.example", "redeliver.yaml:1:13: unknown key 'form'"),
        ("from: relay", "redeliver.yaml:1:19: \"relay\" has no domain"),
        ("from: <>", "redeliver.yaml:1:19: \"<>\" has no domain"),
        ("from: 5", "redeliver.yaml:1:19: a text is expected"),
        ("fromHeader: no", "redeliver.yaml:1:25: true or false"),
        ("domain: a b", "redeliver.yaml:1:21: the domain \"a b\" is not valid"),
        ("aliases: [root]", "redeliver.yaml:1:22: 'aliases' is expected here as keys and values"),
        ("aliases: { root: ops }", "redeliver.yaml:1:30: \"ops\" has no domain"),
        ("aliases: { root: [a@x.example, ops] }", "redeliver.yaml:1:44: \"ops\" has no domain"),
        ("aliases: { root: [] }", "redeliver.yaml:1:30: nobody stands here"),
        (
            "aliases: { root: a@x.example, Root: b@x.example }",
            "redeliver.yaml:1:43: the alias 'Root' stands here a second",
        ),
        ("aliases: { root@h: a@x.example }", "redeliver.yaml:1:24: 'root@h' cannot be an alias"),
        ("aliasesFile: /nowhere/aliases", "redeliver.yaml:1:26: /nowhere/aliases cannot be read"),
        ("aliasesFile: /etc", "redeliver.yaml:1:26: /etc is a folder"),
        ("aliasesFile: /dev/zero", "redeliver.yaml:1:26: /dev/zero cannot be read: it is a device, and no file"),
    ] {
        let told = complaints(&[("redeliver.yaml", &format!("sendmail: {{ {settings} }}\n{RELAY}"))]);
        assert!(told.len() == 1 && told[0].starts_with(expected), "{settings}: {told:#?}");
    }
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_named_and_not_waited_for() {
    for (settings, code, told) in [
        ("dns: { resolvConf: pipe }", 0, "pipe cannot be read (it is a pipe, and no file), so that 127.0.0.1 is asked"),
        ("sendmail: { aliasesFile: pipe }", 78, "redeliver.yaml:1:26: "),
        ("admin: { users: pipe }", 78, "pipe:1:1: it is a pipe, and no file"),
        ("admin: { passwordFile: pipe }", 78, "redeliver.yaml:1:24: "),
        ("admin: { tls: { certificate: pipe, key: pipe } }", 78, "redeliver.yaml:1:30: "),
        ("smtp: { users: pipe }", 78, "pipe"),
        ("dkim: { domain: a.example, selector: s, privateKeyFile: pipe }", 78, "redeliver.yaml:1:57: "),
    ] {
        let relay = Relay::written(&[("redeliver.yaml", &format!("{settings}\n{RELAY}"))]);
        nix::unistd::mkfifo(&relay.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("made");
        let finished = relay.command(&["check"]).expect(code);
        let all = format!("{}{}", finished.stdout, finished.stderr);
        assert!(all.contains(told) && all.contains("it is a pipe, and no file"), "{settings}: {finished:?}");
        assert!(finished.elapsed.as_secs() < 20, "{settings}");
    }
    let relay = Relay::written(&[("redeliver.yaml", &format!("stores: {{ sqlite: {{ path: pipe }} }}\n{RELAY}"))]);
    let pipe = relay.path().join("var/pipe");
    std::fs::create_dir_all(relay.path().join("var")).expect("made");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("made");
    let refused = relay.command(&["repository", "list"]).expect(73);
    assert!(refused.stderr.contains("var/pipe: it is a pipe, and no file"), "{refused:?}");
    assert!(!pipe.metadata().expect("still there").is_file(), "nothing was put in its place");
}

#[test]
fn configuration_files_that_are_too_much_are_refused_in_bounded_time_and_memory() {
    let bomb: String =
        (1..12).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", "))).collect();
    for (what, text) in [
        ("too deep", format!("{}{}\n", "[".repeat(100_000), "]".repeat(100_000))),
        ("too deep, by indentation", (0..2000).map(|n| format!("{}a:\n", " ".repeat(n))).collect()),
        ("too large", format!("hostname: relay.test\n{}", "# a comment to fill it up\n".repeat(3_000_000))),
        ("an alias bomb", format!("a0: &a0 x\n{bomb}")),
    ] {
        let relay = Relay::written(&[("redeliver.yaml", &text)]);
        let finished = relay.command(&["check"]).expect(78);
        assert!(finished.stderr.contains("redeliver.yaml:"), "{what}: {finished:?}");
        assert!(finished.stderr.len() < 5_000, "{what}");
        assert!(finished.elapsed.as_secs() < 20, "{what}: {:?}", finished.elapsed);
    }
}

#[test]
fn check_refuses_what_a_start_would_refuse_of_the_listener_s_files() {
    let made = || rcgen::generate_simple_self_signed(["relay.test".to_owned()]).expect("a certificate");
    let (ours, other) = (made(), made());
    let hash = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$p4NJNfCQ4bbNnhXjHZdJNr8Iqx4rJnO4K1xkLJ8rHhY";
    let told = |users: &str, key: &str, code: i32| {
        let text = format!("{RELAY}\nsmtp: {{ users: users, tls: {{ certificate: c.pem, key: k.pem }} }}\n");
        let (certificate, users) = (ours.cert.pem(), users.to_owned());
        let relay =
            Relay::written(&[("redeliver.yaml", &text), ("users", &users), ("c.pem", &certificate), ("k.pem", key)]);
        relay.command(&["check"]).expect(code).stderr
    };
    let key = ours.signing_key.serialize_pem();
    assert_eq!(told(&format!("# who\ncat:{hash}\n"), &key, 0), "");
    let users = told("# who\ncat:plain\n", &key, 78);
    assert!(users.contains("users:2:1: the hash of user \"cat\""), "{users}");
    let pair = told(&format!("cat:{hash}\n"), &other.signing_key.serialize_pem(), 78);
    assert!(pair.contains("c.pem:1:1: ") && pair.lines().count() == 1, "{pair}");
    let all = told(&format!("cat:plain\ndog\nowl:{hash}\nowl:{hash}\n"), &other.signing_key.serialize_pem(), 78);
    let places: Vec<_> = ["c.pem:1:1: ", "users:1:1: ", "users:2:1: ", "users:4:1: "].to_vec();
    assert!(all.lines().zip(&places).all(|(line, place)| line.contains(place)), "{all}");
    assert_eq!(all.lines().count(), places.len(), "{all}");
}

#[test]
fn a_broken_file_does_not_hide_the_mistakes_of_the_others() {
    let told = complaints(&[
        ("redeliver.yaml", &format!("hostnam: x\n{}", RELAY.replace("AtMost=5", "AtMost=0"))),
        ("jobs/a.yaml", "kind: [\n"),
        ("jobs/b.yaml", "kind: reprocess\nrepository: temporary\nprocessor: nowhere\nlimt: 3\n"),
        ("schedules/s.yaml", "job: c\ncron: '61 * * * *'\ntimezone: Mars/Olympus\n"),
    ]);
    for begin in [
        "redeliver.yaml:1:1: ",
        "redeliver.yaml:4:14: ",
        "jobs/a.yaml:",
        "jobs/b.yaml:4:1: ",
        "schedules/s.yaml:1:6: ",
        "schedules/s.yaml:2:7: ",
        "schedules/s.yaml:3:11: ",
    ] {
        assert!(told.iter().any(|line| line.starts_with(begin)), "{begin} is not in {told:#?}");
    }
}

#[test]
fn a_configuration_that_is_not_there_or_no_file_gives_78_for_every_command() {
    let relay = Relay::written(&[("redeliver.yaml", RELAY)]);
    std::fs::create_dir(relay.path().join("folder.yaml")).expect("a directory");
    for file in ["none.yaml", "folder.yaml"] {
        let file = relay.path().join(file);
        for command in [&["check"][..], &["run", "spool"], &["repository", "list"], &["sendmail", "you@example.net"]] {
            let arguments = [&["--config", file.to_str().expect("text")], command].concat();
            // Of two --config the later counts, or the two are refused; so it is run plainly.
            let output = std::process::Command::new(env!("CARGO_BIN_EXE_redeliver"))
                .args(&arguments)
                .current_dir(relay.path())
                .stdin(std::process::Stdio::null())
                .output()
                .expect("the program");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(78), "{arguments:?}: {said}");
            assert!(said.contains(file.to_str().expect("text")), "{said}");
        }
    }
}

fn hand_in(relay: &Relay, arguments: &[&str], text: &[u8]) -> Finished {
    relay.command_with_input(&[&["sendmail"], arguments].concat(), text)
}

/// Nothing of it is in the spool, and nothing is left in the store.
fn nothing_was_taken(relay: &Relay, what: &str) {
    assert_eq!(relay.run_spool().expect(0).counts(), [0; 6], "{what}");
    let database = rusqlite::Connection::open(relay.path().join("var/redeliver.db")).expect("the store");
    let rows: i64 = database.query_row("SELECT count(*) FROM message", [], |row| row.get(0)).expect("a number");
    assert_eq!(rows, 0, "{what}");
}

#[test]
fn messages_that_cannot_go_out_as_they_are_are_refused_with_65() {
    let relay = Setup::gateway(refusing()).top("smtp: { maxMessageSize: 100KiB }").build();
    let received = "Received: by somewhere; Tue, 1 Jan 2026 00:00:00 +0000\n".repeat(101);
    for (what, text) in [
        ("too large", format!("Subject: a\n\n{}\n", "x".repeat(110_000)).into_bytes()),
        ("101 Received fields", format!("{received}Subject: a\n\nHello\n").into_bytes()),
        ("a header without end", "X: y\n".repeat(300_000).into_bytes()),
    ] {
        let finished = hand_in(&relay, &["-i", "-f", "me@example.org", "you@example.net"], &text).expect(65);
        assert_eq!(finished.stderr.lines().count(), 1, "{what}: {finished:?}");
        assert_eq!(finished.stdout, "", "{what}");
        nothing_was_taken(&relay, what);
    }
}

#[test]
fn messages_of_odd_shape_are_taken_and_come_out_as_messages() {
    let peer = SmtpSink::start(Script::new());
    let relay = Setup::gateway(peer.address()).build();
    for (n, text) in [
        &b""[..],
        b"\n",
        b"no header at all\n",
        b"\nonly a body\n",
        b"Subject: only a header\n",
        b"Subject: only a header, without line end",
        b"From someone Mon Jan  1 00:00:00 2026\nSubject: mbox\n\nHello\n",
        b"\xef\xbb\xbfSubject: byte order mark\n\nHello\n",
        b"Subject: bare LF\n.\nand a dot\n..\n",
        b"Subject: a\rmeter\n\n 1%\r 99%\r\0done\n.\r",
    ]
    .into_iter()
    .enumerate()
    {
        let recipient = format!("r{n}@example.net");
        hand_in(&relay, &["-i", "-f", "me@example.org", &recipient], text).expect(0);
    }
    assert_eq!(relay.run_spool().expect(0).counts(), [10, 10, 0, 0, 0, 0]);
    for transaction in peer.transactions() {
        let text = transaction.text();
        for field in ["Received: ", "Date: ", "Message-ID: ", "From: "] {
            assert!(text.contains(field), "{field} is missing in {text:?}");
        }
        assert!(text.contains("\r\n\r\n") || text.ends_with("\r\n"), "{text:?}");
    }
    assert_eq!(peer.violations(), Vec::<String>::new());
}

#[test]
fn addresses_that_are_none_are_refused_with_65_and_no_recipient_with_64() {
    let relay = Setup::gateway(refusing()).build();
    let long_local = format!("{}@example.net", "l".repeat(65));
    let long_domain = format!("you@{}example", "abcdefg.".repeat(40));
    for (arguments, code) in [
        (vec![], 64),
        (vec!["-f", "me@example.org"], 64),
        (vec!["--nonsense", "you@example.net"], 64),
        (vec!["you@example.net\r\nRCPT TO:<x@example.net>"], 65),
        (vec!["you@exam\nple.net"], 65),
        (vec!["you@"], 65),
        (vec!["@example.net"], 65),
        (vec![""], 65),
        (vec!["<>"], 65),
        (vec!["you you@example.net"], 65),
        (vec!["you@exa mple.net"], 65),
        (vec!["\"open@example.net"], 65),
        (vec!["you@[999.1.1.1]"], 65),
        (vec!["you@[IPv6:zz::1]"], 65),
        (vec!["you@example..net"], 65),
        (vec!["you@.example.net"], 65),
        (vec!["--", "-you@example.net"], 65),
        (vec![&long_local], 65),
        (vec![&long_domain], 65),
        (vec!["-f", "me@exa\rmple.org", "you@example.net"], 65),
        (vec!["-f", "-me@example.org", "you@example.net"], 65),
        (vec!["good@example.net", "bad@"], 65),
    ] {
        let finished = hand_in(&relay, &arguments, message("m").as_bytes());
        assert_eq!(finished.code, Some(code), "{arguments:?}: {finished:?}");
        assert_eq!(finished.stderr.lines().count(), 1, "{arguments:?}: {finished:?}");
    }
    // With -t it is the header that names nobody, or somebody impossible.
    let by_header = |text: &str| hand_in(&relay, &["-t", "-i", "-f", "me@example.org"], text.as_bytes()).code;
    assert_eq!(by_header("Subject: x\n\nHello\n"), Some(64));
    assert_eq!(by_header("To: you@\n\nHello\n"), Some(65));
    nothing_was_taken(&relay, "addresses");
}

#[test]
fn legal_addresses_of_odd_shape_go_out_exactly_as_they_are() {
    let peer = SmtpSink::start(Script::new());
    let relay = Setup::gateway(peer.address()).build();
    let (local, literal) = ("l".repeat(64) + "@example.net", "you@[IPv6:2001:db8::1]");
    let recipients = [
        "\"a b\"@example.net",
        "\"a@b\"@example.net",
        "\"a>b\"@example.net",
        "\"a\\\"b\"@example.net",
        "o'brien+tag=x@example.net",
        "u%other@example.net",
        "other!u@example.net",
        "a|b`c$d@example.net",
        "you@[192.0.2.1]",
        literal,
        &local,
        "Case@Example.NET",
    ];
    for recipient in recipients {
        hand_in(&relay, &["-i", "-f", "me@example.org", "--", recipient], message("m").as_bytes()).expect(0);
    }
    hand_in(&relay, &["-i", "-f", "me@example.org", "jörg@example.net"], message("m").as_bytes()).expect(0);
    hand_in(&relay, &["-i", "-f", "me@example.org", "you@bücher.example"], message("m").as_bytes()).expect(0);

    relay.run_spool().expect(0);

    let mut seen: Vec<_> = peer.transactions().into_iter().flat_map(|transaction| transaction.recipients).collect();
    let mut expected: Vec<_> = recipients.map(str::to_owned).to_vec();
    expected.extend(["jörg@example.net".to_owned(), "you@xn--bcher-kva.example".to_owned()]);
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected);
    assert_eq!(peer.violations(), Vec::<String>::new());
}

#[test]
fn a_recipient_named_twice_gets_one_copy() {
    let peer = SmtpSink::start(Script::new());
    let relay = Setup::gateway(peer.address()).build();
    let recipients = ["you@Example.net", "you@example.NET", "You@example.net", "you@example.net"];
    relay.submit("me@example.org", &recipients, &message("m"));
    assert_eq!(relay.run_spool().expect(0).counts(), [1, 2, 0, 0, 0, 0]);
    assert_eq!(peer.transactions()[0].recipients, ["you@Example.net", "You@example.net"]);
}

#[test]
fn a_broken_job_or_schedule_gives_no_message_up() {
    let relay = Setup::gateway(refusing()).build();
    fs::create_dir_all(relay.path().join("schedules")).expect("made");
    fs::write(relay.path().join("schedules/s.yaml"), "job: nope\ncron: \"99 * * * *\"\n").expect("written");
    fs::write(relay.path().join("jobs/j.yaml"), "kind: nope\n").expect("written");
    let taken = relay.command_with_input(&["sendmail", "a@x.example"], b"X: y\n\nz\n").expect(0);
    assert!(taken.stderr.contains("schedules/s.yaml:") && taken.stderr.contains("jobs/j.yaml:1:"), "{taken:?}");
    let mut session = Dialogue::start(relay.sendmail_bs());
    session.sends_a_mail();
    assert_eq!(session.end().0, Some(0));
    let listed = relay.command(&["sendmail", "-bp"]).expect(0);
    assert!(listed.stdout.starts_with("spool:") && listed.stderr.contains("jobs/j.yaml:1:"), "{listed:?}");
    relay.command(&["sendmail", "-q"]).expect(78);
    fs::remove_file(relay.path().join("schedules/s.yaml")).expect("removed");
    fs::remove_file(relay.path().join("jobs/j.yaml")).expect("removed");
    assert_eq!(relay.run_spool().counts()[0], 2);
    relay.reconfigure("hostname: relay.test", "hostname: [1]");
    relay.command_with_input(&["sendmail", "a@x.example"], b"X: y\n\nz\n").expect(78);
}
