//! Programs that send mail by calling `sendmail`, as Debian has them. One that is not
//! installed is passed over with a word: `tests/run` installs them.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::dialogue::Dialogue;
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, script};

/// A relay under the name `sendmail`, whose new mail goes to repository `aside`.
struct Machine {
    relay: Relay,
    sendmail: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let relay = Setup::gateway("127.0.0.2:25").top("smtp: { processor: aside }").build();
        let text = fs::read_to_string(relay.configuration()).expect("written");
        let aside = "  aside:\n    - mailet: ToRepository\n      repositoryPath: aside\n";
        fs::write(relay.configuration(), format!("{text}{aside}")).expect("written");
        let sendmail = relay.path().join("sendmail");
        symlink(env!("CARGO_BIN_EXE_redeliver"), &sendmail).expect("linked");
        Self { relay, sendmail }
    }

    /// A program that finds our configuration as a mail program does.
    fn program(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("REDELIVER_CONFIG", self.relay.configuration()).current_dir(self.relay.path());
        command
    }

    /// The one mail that was sent, and its message.
    fn sent(&self) -> (Value, String) {
        self.relay.run_spool();
        let mut mails = self.relay.mails("aside");
        assert_eq!(mails.len(), 1, "{mails:?}");
        let mail = mails.remove(0);
        let key = mail["key"].as_str().expect("a key").to_owned();
        (mail, self.relay.command(&["repository", "export", "aside", &key]).expect(0).stdout)
    }
}

fn run(command: &mut Command, input: &str) {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("taken");
    let output = child.wait_with_output().expect("our own child");
    assert!(output.status.success(), "{output:?}");
}

fn installed(program: &str) -> bool {
    let there = Path::new(program).exists();
    if !there {
        eprintln!("passed over: {program} is not installed");
    }
    there
}

#[test]
fn bsd_mailx_sends_to_whom_it_is_told() {
    let machine = Machine::new();
    if !installed("/usr/bin/bsd-mailx") {
        return;
    }
    let settings = machine.relay.path().join("mailrc");
    fs::write(&settings, format!("set sendmail={}\n", machine.sendmail.display())).expect("written");
    let mut mail = machine.program("/usr/bin/bsd-mailx");
    run(mail.env("MAILRC", settings).args(["-s", "a subject", "b@x.example", "c@x.example"]), "hello\n.\nmore\n");
    let (mail, message) = machine.sent();
    assert_eq!(mail["recipients"], serde_json::json!(["b@x.example", "c@x.example"]));
    assert!(message.contains("\r\nSubject: a subject\r\n"), "{message}");
    assert!(message.contains("\r\n\r\nhello\r\n"), "{message}");
}

#[test]
fn cron_reports_to_a_user_of_this_machine() {
    let machine = Machine::new();
    // As cron(8) of Debian calls it.
    let mut cron = machine.program(&machine.sendmail);
    cron.args(["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root"]);
    run(&mut cron, "From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@here> true\n\noutput\n.\n");
    let (mail, message) = machine.sent();
    assert_eq!(mail["recipients"], serde_json::json!(["root@relay.test"]));
    assert!(message.ends_with("\r\n\r\noutput\r\n.\r\n"), "{message}");
    let ended = machine.program(&machine.sendmail).arg("no-such-user").output().expect("it runs");
    assert_eq!(ended.status.code(), Some(65), "a word that is no user is no address: {ended:?}");
}

#[test]
fn what_programs_of_this_machine_write_is_mended_and_never_thrown_away() {
    let cr = |n: u32| Some(format!("{n} bare CR made a line end"));
    let nul = || Some("1 NUL left out".to_owned());
    for (what, text, body, repaired) in [
        ("NUL in the header", &b"Subject: a\0b\n\nHello\n"[..], "Hello\r\n", nul()),
        ("NUL in the body", b"Subject: a\n\nHel\0lo\n", "Hello\r\n", nul()),
        ("bare CR in the header", b"Subject: a\rX: b\n\nHello\n", "Hello\r\n", cr(1)),
        ("bare CR in the body", b"Subject: a\n\nHel\rlo\n", "Hel\r\nlo\r\n", cr(1)),
        ("bare CR at the end", b"Subject: a\n\nHello\r", "Hello\r\n", cr(1)),
        ("two CR", b"Subject: a\r\n\r\nHello\r\r\n", "Hello\r\n", cr(1)),
        ("CR alone throughout", b"Subject: a\r\rHello\rthere\r", "Hello\r\nthere\r\n", cr(4)),
        ("a progress meter", b"Subject: a\n\n 1%\r 99%\r100%\ndone\n", " 1%\r\n 99%\r\n100%\r\ndone\r\n", cr(2)),
        ("nothing of it", b"Subject: a\n\nHello\n", "Hello\r\n", None),
    ] {
        let machine = Machine::new();
        machine.relay.command_with_input(&["sendmail", "-i", "b@x.example"], text).expect(0);
        let (_, message) = machine.sent();
        assert!(message.contains("\r\nSubject: a"), "{what}: {message:?}");
        assert!(message.ends_with(&format!("\r\n\r\n{body}")), "{what}: {message:?}");
        assert!(!message.contains("\r\nX: b"), "{what}: nothing becomes a field");
        let told = &machine.relay.show_only("aside")["attributes"]["sendmail-repaired"];
        assert_eq!(told.as_str(), repaired.as_deref(), "{what}");
    }
}

#[test]
fn names_and_separators_of_careless_programs_hurt_nobody() {
    let machine = Machine::new();
    let mut sendmail = machine.program(&machine.sendmail);
    sendmail.args(["-i", "-f", "Backup Job <a@y.example>", "b@x.example", ",", "c@x.example"]);
    sendmail.arg(std::ffi::OsStr::from_bytes(b"-FJ\xfcrgen"));
    run(&mut sendmail, "Subject: x\n\nx\n");
    let (mail, message) = machine.sent();
    assert_eq!(mail["recipients"], serde_json::json!(["b@x.example", "c@x.example"]));
    assert_eq!(mail["sender"], "a@y.example");
    assert!(message.contains("From: =?utf-8?q?J=C3=BCrgen?= <a@y.example>\r\n"), "{message}");
    let comma = machine.relay.command_with_input(&["sendmail", "-t"], b"To: Doe, John <j@x.example>\n\nx\n").expect(65);
    assert!(comma.stderr.contains("quote the name"), "{comma:?}");
}

#[test]
fn the_mail_function_of_php_sends() {
    let machine = Machine::new();
    if !installed("/usr/bin/php") {
        return;
    }
    let path = format!("sendmail_path={} -t -i", machine.sendmail.display());
    let script = "exit(mail('b@x.example', 'a subject', \"one\\n.\\ntwo\", 'From: a@y.example') ? 0 : 1);";
    run(machine.program("/usr/bin/php").args(["-d", &path, "-r", script]), "");
    let (mail, message) = machine.sent();
    assert_eq!(mail["recipients"], serde_json::json!(["b@x.example"]));
    assert!(message.contains("\r\nFrom: a@y.example\r\n") && message.contains("\r\n.\r\ntwo\r\n"), "{message}");
}

#[test]
fn git_send_email_sends_a_patch() {
    let machine = Machine::new();
    if !installed("/usr/lib/git-core/git-send-email") || !installed("/usr/bin/git") {
        return;
    }
    let patch = "From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\n\
        From: A <a@y.example>\nDate: Mon, 5 Jan 2026 10:00:00 +0000\nSubject: [PATCH] x\n\nbody\n---\n 0 files\n";
    fs::write(machine.relay.path().join("0001.patch"), patch).expect("written");
    let mut git = machine.program("/usr/bin/git");
    // It asks for an identity though a sender is given; what it would guess depends on the host.
    for who in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{who}_NAME"), "A").env(format!("GIT_{who}_EMAIL"), "a@y.example");
    }
    git.envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null")])
        .env("HOME", machine.relay.path())
        .args([
            "-c",
            "user.useConfigOnly=true",
            "send-email",
            &format!("--smtp-server={}", machine.sendmail.display()),
            "--from=a@y.example",
            "--envelope-sender=auto",
            "--to=b@x.example",
            "--suppress-cc=all",
            "--confirm=never",
            "0001.patch",
        ]);
    run(&mut git, "");
    let (mail, message) = machine.sent();
    assert_eq!((&mail["sender"], &mail["recipients"]), (&"a@y.example".into(), &serde_json::json!(["b@x.example"])));
    assert!(message.contains("\r\nSubject: [PATCH] x\r\n"), "{message}");
}

#[test]
fn what_is_asked_for_about_dsns_is_stored_with_the_mail() {
    let machine = Machine::new();
    let mut sendmail = machine.program(&machine.sendmail);
    run(sendmail.args(["-N", "success,delay", "-R", "hdrs", "-V", "id 1", "-f", "a@y.example", "b@x.example"]), "x\n");
    machine.relay.run_spool();
    let dsn = &machine.relay.show_only("aside")["dsn"];
    let asked = serde_json::json!({
        "ret": "HDRS", "envid": "id+201", "returnPath": "a@y.example",
        "recipients": [{"recipient": "b@x.example", "notify": ["SUCCESS", "DELAY"], "orcpt": null, "told": []}],
    });
    assert_eq!(*dsn, asked);
}

#[test]
fn smtp_on_standard_input_takes_what_the_listener_takes() {
    let machine = Machine::new();
    // Whoever may call the program is no stranger.
    machine.relay.reconfigure("smtp: { processor: aside }", "smtp: { processor: aside, networks: [192.0.2.1/32] }");
    let mut session = Dialogue::start(machine.relay.sendmail_bs());
    assert!(session.say("RCPT TO:<b@x.example>\r\n").starts_with("503 "));
    assert!(session.say("FROB\r\n").starts_with("500 "));
    session.sends_a_mail();
    assert_eq!(session.end(), (Some(0), String::new()), "though its input is still open");
    let (mail, message) = machine.sent();
    assert_eq!((&mail["sender"], &mail["recipients"]), (&"a@y.example".into(), &serde_json::json!(["b@x.example"])));
    assert!(message.contains(&format!("from userid {})\r\n\twith ESMTP id", nix::unistd::Uid::current())), "{message}");
    assert!(message.ends_with("\r\nSubject: hello\r\n\r\n.a\r\n"), "{message}");
}

#[test]
fn a_message_that_smtp_on_standard_input_breaks_off_is_not_taken() {
    let machine = Machine::new();
    let mut session = Dialogue::start(machine.relay.sendmail_bs());
    session.say("EHLO me.example\r\n");
    session.say("MAIL FROM:<>\r\n");
    session.say("RCPT TO:<b@x.example>\r\n");
    assert!(session.say("DATA\r\n").starts_with("354 "));
    session.close();
    assert_eq!(machine.relay.run_spool().counts()[0], 0);
}

#[test]
fn swaks_sends_through_a_pipe() {
    let machine = Machine::new();
    if !installed("/usr/bin/swaks") {
        return;
    }
    let mut swaks = machine.program("/usr/bin/swaks");
    let pipe = format!("{} -bs", machine.sendmail.display());
    run(swaks.args(["--pipe", &pipe, "--from", "a@y.example", "--to", "b@x.example", "--h-Subject", "a subject"]), "");
    let (mail, message) = machine.sent();
    assert_eq!(mail["recipients"], serde_json::json!(["b@x.example"]));
    assert!(message.contains("\r\nSubject: a subject\r\n"), "{message}");
}

#[test]
fn bv_says_where_mail_would_go_and_help_what_can_be_asked() {
    let machine = Machine::new();
    let asked = |arguments: &[&str]| {
        let output = machine.program(&machine.sendmail).args(arguments).output().expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let text = asked(&["-bv", "b@x.example", "c@x.example"]);
    assert!(text.contains("b@x.example") && text.contains("c@x.example") && text.contains("127.0.0.2:25"), "{text}");
    assert!(asked(&["--help"]).starts_with("Take a message"));
    machine.relay.command(&["sendmail", "--help"]).expect(0);
    assert_eq!(asked(&["-bi"]), "");
    assert_eq!(machine.relay.run_spool().counts()[0], 0);
}

#[test]
fn mailq_lists_what_waits_and_q_attempts_one_mail_or_one_domain() {
    let machine = Machine::new();
    let mailq = machine.relay.path().join("mailq");
    symlink(env!("CARGO_BIN_EXE_redeliver"), &mailq).expect("linked");
    let listed = || {
        let output = machine.program(&mailq).output().expect("it runs");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert_eq!(listed(), "Mail queue is empty\n");
    for recipient in ["b@x.example", "c@y.example"] {
        machine.relay.submit("a@z.example", &[recipient], "X: 1\n\n");
    }
    let text = listed();
    assert!(text.starts_with("spool:\nKEY ") && text.contains("b@x.example") && text.contains("c@y.example"), "{text}");
    assert!(text.ends_with("\n\t\tTotal requests: 2\n-- 1 Kbytes in 2 Requests.\n"), "{text}");
    let output = machine.program(&mailq).args(["--format", "json"]).output().expect("it runs");
    let lines: Vec<serde_json::Value> = String::from_utf8(output.stdout)
        .expect("UTF-8")
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["place"], &lines[0]["recipient"]), (&"spool".into(), &"b@x.example".into()));
    let code = |argument: &str| {
        let output = machine.program(&machine.sendmail).arg(argument).output().expect("it runs");
        output.status.code()
    };
    assert_eq!(code("-qINOSUCHKEY"), Some(66));
    // To rest in a repository without an attempt is to be deferred.
    assert_eq!(code("-qRx.example"), Some(75));
    let text = listed();
    assert!(text.contains("c@y.example") && !text.contains("b@x.example"), "the other domain waits: {text}");
    machine.relay.submit("a@z.example", &["d@y.example"], "X: 1\n\n");
    let key = listed().lines().find(|line| line.contains("c@y.example")).expect("it waits")[..18].to_owned();
    assert_eq!(code(&format!("-qI{}", key.trim())), Some(75));
    let text = listed();
    assert!(text.contains("d@y.example") && !text.contains("c@y.example"), "the other mail waits: {text}");
    assert_eq!(code("-q"), Some(75));
    assert_eq!(listed(), "Mail queue is empty\n");
}

#[test]
fn the_plugin_of_monitoring_counts_what_waits() {
    const PLUGIN: &str = "/usr/lib/nagios/plugins/check_mailq";
    let machine = Machine::new();
    if !installed(PLUGIN) {
        return;
    }
    let mailq = machine.relay.path().join("mailq");
    symlink(env!("CARGO_BIN_EXE_redeliver"), &mailq).expect("linked");
    // The plugin calls what its own module names.
    let module = fs::read_to_string("/usr/lib/nagios/plugins/utils.pm").expect("it comes with the plugin");
    let calls = |line: &str| {
        if line.starts_with("$PATH_TO_MAILQ") {
            format!("$PATH_TO_MAILQ = \"{}\";\n", mailq.display())
        } else {
            format!("{line}\n")
        }
    };
    let module: String = module.lines().map(calls).collect();
    fs::write(machine.relay.path().join("utils.pm"), module).expect("written");
    fs::copy(PLUGIN, machine.relay.path().join("check_mailq")).expect("copied");
    let told = |kind: &str| {
        let mut plugin = machine.program("/usr/bin/perl");
        let output = plugin.args(["check_mailq", "-w", "2", "-c", "3", "-M", kind]).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for (waiting, code) in [(0, 0), (1, 0), (2, 1), (3, 2)] {
        for kind in ["sendmail", "postfix"] {
            let (ended, said) = told(kind);
            assert_eq!(ended, Some(code), "{kind} with {waiting}: {said}");
            assert!(said.contains(&format!("unsent={waiting};")), "{kind} with {waiting}: {said}");
        }
        machine.relay.submit("a@z.example", &["b@x.example"], "X: 1\n\n");
    }
}

#[test]
fn with_v_the_mail_is_attempted_at_once_and_the_dialogue_shown() {
    let peer = SmtpSink::start(script!["RCPT TO:" => "451 4.2.0 later"]);
    let relay = Setup::gateway(peer.address()).build();
    relay.submit("a@z.example", &["secret@x.example"], "X: 1\n\n");
    let ended = relay.command_with_input(&["sendmail", "-v", "b@x.example"], b"X: 1\n\nhello\n").expect(0);
    assert!(!ended.stderr.contains("secret"), "other mail waits on: {ended:?}");
    for line in ["-> RCPT TO:<b@x.example>", "<- 451 4.2.0 later"] {
        assert!(ended.stderr.lines().any(|one| one.ends_with(line)), "{line}: {ended:?}");
    }
    assert_eq!(relay.mails("temporary").len(), 1, "deferred, and taken all the same");
}
