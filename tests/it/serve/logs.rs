//! The log: lines that nobody can forge, files that rotate, and what becomes of the service
//! when these cannot be written or are taken away.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;

use super::trouble::SmallDisk;
use super::{Service, served, spawn};
use crate::support::relay::Setup;
use crate::support::sink::{Script, SmtpSink, reply, script};
use crate::support::{message, refusing};

/// Everything in the log's files, whatever their names.
fn written(directory: &Path) -> String {
    let files = std::fs::read_dir(directory).expect("a folder").map(|entry| entry.expect("an entry").path());
    files.map(|file| std::fs::read_to_string(file).expect("text")).collect()
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    entries.map(|name| name.to_string_lossy().into_owned()).collect()
}

/// What a peer says to whom it wants to fool: a screen cleared, a line forged, a name
/// turned round, and a great many words.
fn hostile() -> String {
    let many = format!("550-{}\n", "x".repeat(3000)).repeat(15);
    format!("550-no\u{1b}[2J\u{9b}1m\n550-2026-01-01T00:00:00Z  INFO forged\n{many}550 \u{202e}gnp.exe")
}

fn steers(text: &str) -> bool {
    text.contains(|c: char| c != '\n' && c.is_control() || c == '\u{202e}')
}

#[test]
fn whatever_a_peer_says_is_one_line_of_moderate_length() {
    for format in ["text", "json"] {
        let peer = SmtpSink::start(script!["RCPT" => reply(&hostile())]);
        let relay = served(Setup::gateway(peer.address()).top(&format!("log: {{ directory: log, format: {format} }}")));
        let service = Service::start(&relay);
        service.submit(&["you@example.net"], "m");
        service.wait_until_settled();
        let console = Arc::clone(&service.log);
        service.stop();
        for text in [console.text(), written(&relay.path().join("var/log"))] {
            assert!(!steers(&text), "{text}");
            let lines: Vec<_> = text.lines().filter(|line| line.contains("failed to you@example.net")).collect();
            assert!(lines.len() == 1 && lines[0].contains("forged") && lines[0].len() < 2000, "{lines:?}");
            if format == "json" {
                let line: Value = serde_json::from_str(lines[0]).expect("JSON");
                assert!(
                    line["message"].as_str().is_some_and(|said| said.contains("no\u{1b}[2J\u{9b}1m\n550-")),
                    "{line}"
                );
            }
        }
        // The record has it whole, and steers the terminal of its reader as little.
        let attempts = relay.attempts();
        let reply = attempts[0]["recipients"][0]["reply"].as_str().expect("a reply").to_owned();
        assert!(reply.len() > 40_000 && reply.contains("\u{9b}1m") && reply.contains("\u{202e}gnp"), "{reply}");
        let key = relay.mails("permanent")[0]["key"].as_str().expect("a key").to_owned();
        for command in
            [&["attempts"][..], &["repository", "mails", "permanent"], &["repository", "show", "permanent", &key]]
        {
            for format in ["text", "json"] {
                let shown = relay.command(&[command, &["--format", format]].concat()).expect(0).stdout;
                assert!(shown.contains("you@example.net") && !steers(&shown), "{shown}");
            }
        }
    }
}

#[test]
fn at_no_level_there_is_a_password_or_a_message_in_it() {
    let peer = SmtpSink::start(Script::new());
    let relay = Setup::gateway(peer.address())
        .top("smtp: { listen: [\"127.0.0.1:0\"] }")
        .top("admin: { listen: \"127.0.0.1:0\", password: [sesame-opens] }")
        .top("log: { directory: log, level: trace }")
        .build();
    let service = Service::start(&relay);
    for (password, status) in [("sesame-opens", "200"), ("sesame-closes", "401")] {
        let mut stream = TcpStream::connect(service.admin).expect("it listens");
        let head = format!("Host: {}\r\nPassword: {password}\r\nConnection: close", service.admin);
        write!(stream, "GET /mailQueues HTTP/1.1\r\n{head}\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert_eq!(answer.split(' ').nth(1), Some(status), "{answer}");
    }
    service.submit(&["you@example.net"], "m");
    peer.wait_for_transactions(1);
    let console = Arc::clone(&service.log);
    service.stop();
    for text in [console.text(), written(&relay.path().join("var/log"))] {
        assert!(text.contains("delivered to you@example.net"), "{text}");
        // "a test" is the subject, "Hello." the text.
        for word in ["sesame", "a test", "Hello."] {
            assert!(!text.contains(word), "{word} is in {text}");
        }
    }
}

/// Makes an empty file that is younger than `last`, as the file system tells time.
fn younger(file: &Path, last: Option<std::time::SystemTime>) -> std::time::SystemTime {
    loop {
        std::fs::write(file, "old\n").expect("written");
        let created = std::fs::metadata(file).and_then(|metadata| metadata.created()).expect("a time");
        if last.is_none_or(|last| created > last) {
            return created;
        }
        std::fs::remove_file(file).expect("removed");
    }
}

#[test]
fn old_files_go_and_the_current_one_stays_however_often_something_starts() {
    for keep in [1, 3] {
        let setup = Setup::gateway(refusing()).delivery("connectiontimeout: 2s");
        let relay = setup.top(&format!("log: {{ directory: log, keep: {keep} }}")).build();
        let directory = relay.path().join("var/log");
        std::fs::create_dir_all(&directory).expect("made");
        let mut last = None;
        for day in 1..=6 {
            last = Some(younger(&directory.join(format!("redeliver.2026-01-0{day}.log")), last));
        }
        std::fs::write(directory.join("notes"), "of others\n").expect("written");
        for number in 0..4 {
            relay.submit("me@example.org", &["you@example.net"], &message(&format!("m{number}")));
            relay.run_spool();
        }
        let text = written(&directory);
        assert_eq!(text.matches("deferred to you@example.net").count(), 4, "keep {keep}: {text}");
        let found = names(&directory);
        assert_eq!(found.len(), keep + 1, "keep {keep}: {found:?}");
        assert!(found.contains("notes"), "{found:?}");
        let old: Vec<_> = found.iter().filter(|name| name.starts_with("redeliver.2026-01-0")).collect();
        let newest: Vec<_> = (8 - keep..=6).map(|day| format!("redeliver.2026-01-0{day}.log")).collect();
        assert_eq!(old, newest.iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_log_directory_is_made_and_one_that_cannot_be_is_named() {
    let relay = served(Setup::gateway("127.0.0.2:25").top("log: { directory: a/log }"));
    Service::start(&relay).stop();
    let mode = std::fs::metadata(relay.path().join("var/a/log")).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o750);

    relay.reconfigure("directory: a/log", "directory: file");
    std::fs::write(relay.path().join("var/file"), "text").expect("written");
    let (mut child, log) = spawn(&relay, &[]);
    assert_eq!(child.wait().expect("our own child").code(), Some(78));
    let place = relay.path().join("var/file").display().to_string();
    log.wait_for("the reason", |text| (text.contains("log.directory") && text.contains(&place)).then_some(()));
    // Mail is more than its log.
    let input = message("m");
    let taken = relay.command_with_input(&["sendmail", "-i", "you@example.net"], input.as_bytes()).expect(0);
    assert!(taken.stderr.contains(&place), "{taken:?}");
}

#[test]
fn the_log_of_roots_commands_belongs_to_the_owner_of_the_store() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("not run: this user is not root");
        return;
    }
    let relay = Setup::gateway("127.0.0.2:25").top("log: { directory: log }").build();
    std::fs::create_dir(relay.path().join("var")).expect("made");
    let chown = Command::new("chown").args(["-R", "daemon:"]).arg(relay.path()).status().expect("chown");
    assert!(chown.success());
    let owner = |path: &str| std::fs::metadata(relay.path().join(path)).expect("it is there").uid();
    relay.command(&["repository", "list"]).expect(0);
    let daemon = owner("var");
    assert!(daemon != 0 && owner("var/redeliver.db") == daemon && owner("var/log") == daemon);
    for name in names(&relay.path().join("var/log")) {
        assert_eq!(owner(&format!("var/log/{name}")), daemon);
    }
}

#[test]
fn a_full_disk_of_the_log_alone_stops_nothing_and_lost_lines_are_told() {
    let peer = SmtpSink::start(Script::new());
    let relay = served(Setup::gateway(peer.address()).top("log: { directory: log }"));
    std::fs::create_dir(relay.path().join("var")).expect("made");
    let Some(disk) = SmallDisk::mount(relay.path().join("var/log"), "1m") else {
        eprintln!("not run: this user may not mount a file system to fill up");
        return;
    };
    let service = Service::start(&relay);
    let filler = disk.fill();
    for number in 0..30 {
        service.submit(&["you@example.net"], &format!("m{number}"));
    }
    service.wait_until_settled();
    assert_eq!(service.get("/healthcheck").1["status"], "healthy");
    std::fs::remove_file(filler).expect("there is room again");
    let console = Arc::clone(&service.log);
    service.stop();
    assert_eq!(peer.transactions().len(), 30);
    console.wait_for("lost lines", |text| text.contains("lines are missing in the log file").then_some(()));
    let text = written(&relay.path().join("var/log"));
    assert!(text.contains("lines are missing in the log file"), "{text}");
    assert!(text.matches("mail accepted").count() < 30, "{text}");
}

#[test]
fn a_log_directory_that_is_taken_away_stops_nothing() {
    for renamed in [false, true] {
        let peer = SmtpSink::start(Script::new());
        let relay = served(Setup::gateway(peer.address()).top("log: { directory: log }"));
        let service = Service::start(&relay);
        let (directory, elsewhere) = (relay.path().join("var/log"), relay.path().join("elsewhere"));
        let taken_away =
            if renamed { std::fs::rename(&directory, &elsewhere) } else { std::fs::remove_dir_all(&directory) };
        taken_away.expect("it is there");
        service.submit(&["you@example.net"], "m");
        service.wait_until_settled();
        assert_eq!(service.get("/healthcheck").1["status"], "healthy");
        assert!(service.log.text().contains("mail accepted"), "standard error has it");
        service.stop();
        assert_eq!(peer.copies_of("you@example.net", "<m@"), 1);
        if renamed {
            let text = written(&elsewhere);
            assert!(text.contains("mail accepted") && text.contains("stopped"), "it goes on in the same file: {text}");
        }
    }
}
