//! `redeliver run` as a script sees it: one line of JSON, an exit code, and what signals,
//! deadlines and a second run beside it do.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::relay::{Relay, Running, Setup};
use crate::support::sink::{Script, SmtpSink, on, reply, script, stall, wait};
use crate::support::{message, refusing};

const MEMBERS: [&str; 9] =
    ["job", "started", "finished", "selected", "delivered", "deferred", "failed", "promoted", "errors"];

fn submit_many(relay: &Relay, number: usize) {
    for n in 0..number {
        relay.submit("me@example.org", &[&format!("r{n}@example.net")], &message(&format!("m{n}")));
    }
}

fn signal(running: &Running, signal: Signal) {
    let id = i32::try_from(running.id()).expect("a process number");
    kill(Pid::from_raw(id), signal).expect("our own child");
}

fn time(value: &Value) -> chrono::DateTime<chrono::Utc> {
    let text = value.as_str().expect("a time");
    assert!(text.ends_with('Z'), "{text} is not in UTC");
    text.parse().expect("RFC 3339")
}

#[test]
fn the_result_is_one_line_of_json_and_nothing_else_is_on_standard_output() {
    let peer = SmtpSink::start(script!["RCPT TO:<r1@" => "451 4.2.0 later", "RCPT TO:<r2@" => "550 5.1.1 no"]);
    let relay = Setup::gateway(peer.address()).build();
    submit_many(&relay, 3);

    let finished = relay.run_spool().expect(69);

    assert_eq!(finished.stdout.matches('\n').count(), 1, "{finished:?}");
    let result = finished.json().remove(0);
    let members: Vec<_> = result.as_object().expect("an object").keys().collect();
    assert_eq!(members, MEMBERS);
    assert_eq!(result["job"], "spool");
    assert!(time(&result["started"]) <= time(&result["finished"]), "{result}");
    assert_eq!(finished.counts(), [3, 1, 1, 1, 0, 0]);
    assert!(!finished.stderr.contains('\x1b') && !finished.stderr.contains('\r'), "no terminal, no progress");
}

#[test]
fn every_recipient_is_counted_by_where_it_ended_and_the_worst_gives_the_exit_code() {
    for (rules, counts, code) in [
        (script![], [1, 2, 0, 0, 0, 0], 0),
        (script!["RCPT TO:<a@" => "451 4.2.0 later"], [1, 1, 1, 0, 0, 0], 75),
        (script!["RCPT TO:<a@" => "451 4.2.0 later", "RCPT TO:<b@" => "550 5.1.1 no"], [1, 0, 1, 1, 0, 0], 69),
        (script!["RCPT TO:<a@" => "550 5.1.1 no"], [1, 1, 0, 1, 0, 0], 69),
    ] {
        let peer = SmtpSink::start(rules);
        let relay = Setup::gateway(peer.address()).build();
        relay.submit("me@example.org", &["a@example.net", "b@example.net"], &message("m"));
        assert_eq!(relay.run_spool().expect(code).counts(), counts);
    }
}

#[test]
fn each_outcome_is_one_line_of_log_that_is_readable_alone() {
    let peer = SmtpSink::start(script!["RCPT TO:<a@" => "451 4.2.0 \x1b[2Jlater", "RCPT TO:<b@" => "550 5.1.1 no"]);
    let relay = Setup::gateway(peer.address()).build();
    relay.submit("me@example.org", &["a@example.net", "b@example.net", "c@example.net"], &message("m"));

    let finished = relay.command(&["--verbose", "run", "spool"]).expect(69);

    for (recipient, outcome) in [
        ("a", "status=deferred stage=rcpt code=451 enhanced=\"4.2.0\""),
        ("b", "status=failed stage=rcpt code=550 enhanced=\"5.1.1\""),
        ("c", "status=delivered stage=end-of-data code=250"),
    ] {
        let to = format!("recipient={recipient}@example.net ");
        let lines: Vec<_> = finished.stderr.lines().filter(|line| line.contains(&to)).collect();
        let [line] = lines[..] else { panic!("not one line for {recipient}: {}", finished.stderr) };
        assert!(line.contains(outcome) && line.contains("mail.id="), "{line}");
        assert!(line.contains(&format!("peer=\"{}\"", peer.address())), "{line}");
    }
    assert!(!finished.stderr.contains('\x1b'), "{}", finished.stderr);
}

#[test]
fn a_run_with_nothing_to_do_exits_with_0() {
    let relay = Setup::gateway(refusing()).build();
    assert_eq!(relay.run_spool().expect(0).counts(), [0; 6]);
    assert_eq!(relay.sweep().expect(0).counts(), [0; 6]);
}

#[test]
fn trouble_of_our_own_gives_70_and_leaves_the_mail_uncounted_where_it_was() {
    let peer = SmtpSink::start(Script::new());
    // An address that no interface of this machine has.
    let relay = Setup::gateway(peer.address()).delivery("bind: 192.0.2.1").build();
    relay.submit("me@example.org", &["you@example.net"], &message("m"));

    let finished = relay.run_spool().expect(70);

    assert_eq!(finished.counts(), [1, 0, 0, 0, 0, 1]);
    assert!(finished.stderr.contains("192.0.2.1"), "{finished:?}");
    assert_eq!(relay.attempts()[0]["counted"], false);
    for repository in ["temporary", "permanent", "var/mail/error"] {
        assert_eq!(relay.size(repository), 0, "{repository}");
    }
    assert_eq!(relay.run_spool().expect(70).counts(), [1, 0, 0, 0, 0, 1], "it is still in the spool");
    assert_eq!(peer.connections(), 0);
}

#[test]
fn an_unknown_job_is_a_usage_error_that_names_the_known_ones() {
    let relay = Setup::gateway(refusing()).build();
    let finished = relay.command(&["run", "retry-temporery", "--format", "json"]).expect(64);
    assert_eq!(finished.stdout, "");
    assert!(finished.stderr.contains("retry-temporary") && finished.stderr.contains("spool"), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
}

#[test]
fn wrong_usage_gives_64() {
    let relay = Setup::gateway(refusing()).build();
    for arguments in [
        &["run"][..],
        &["run", "spool", "--format", "xml"],
        &["run", "spool", "--deadline", "soon"],
        &["rum"],
        &["repository", "mails"],
        &["repository", "reprocess", "temporary", "--all"],
        &["repository", "reprocess", "temporary", "--all", "--processor", "rely"],
        &["repository", "remove", "temporary"],
    ] {
        let finished = relay.command(arguments);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(64), ""), "{arguments:?}: {finished:?}");
        assert!(!finished.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_mail_is_due_again_by_spacing_and_at_once_with_now() {
    let peer = SmtpSink::start(script![on("RCPT").times(2) => "451 4.2.0 later"]);
    let relay = Setup::gateway(peer.address()).job("spacing: [100ms, 1h]").build();
    relay.submit("me@example.org", &["you@example.net"], &message("m"));
    relay.run_spool().expect(75);
    let sweep = ["run", "retry-temporary", "--format", "json"];

    // Due 100 ms after the first attempt: it is asked until it is.
    let begun = Instant::now();
    while relay.command(&sweep).counts()[0] == 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "never due");
    }
    assert_eq!(peer.connections(), 2);
    assert_eq!(relay.command(&sweep).expect(0).counts(), [0; 6], "after the second, an hour");
    assert_eq!(relay.sweep().expect(0).counts(), [1, 1, 0, 0, 0, 0]);
    assert_eq!(peer.connections(), 3);
}

#[test]
fn a_limited_run_takes_the_oldest_and_a_sweep_takes_each_mail_once() {
    let peer = SmtpSink::start(script!["RCPT" => "451 4.2.0 later"]);
    let relay = Setup::gateway(peer.address()).limit(9).job("limit: 2").build();
    submit_many(&relay, 5);
    relay.run_spool().expect(75);
    assert_eq!(peer.commands().iter().filter(|line| line.starts_with("RCPT")).count(), 5);

    let mut oldest: Vec<_> = relay.mails("temporary").iter().map(|mail| mail["key"].to_string()).collect();
    oldest.truncate(2);

    assert_eq!(relay.sweep().expect(75).counts(), [2, 0, 2, 0, 0, 0]);

    let swept = relay.attempts().into_iter().filter(|one| one["number"] == 2);
    let mut swept: Vec<_> = swept.map(|one| one["key"].to_string()).collect();
    swept.sort();
    oldest.sort();
    assert_eq!(swept, oldest, "longest in the repository, as `repository mails` lists them");
}

#[test]
fn a_deadline_begins_nothing_more_and_leaves_the_rest_uncounted() {
    let peer = SmtpSink::start(script!["." => wait(Duration::from_millis(3500)).then(reply("250 2.0.0 ok"))]);
    let relay = Setup::gateway(peer.address()).delivery("deliveryThreads: 1").build();
    submit_many(&relay, 4);

    let finished = relay.command(&["run", "spool", "--deadline", "2s", "--format", "json"]).expect(75);

    let [selected, delivered, others @ ..] = finished.counts();
    assert_eq!((delivered, others), (1, [0; 4]), "of {selected}: {finished:?}");
    assert!(finished.elapsed < Duration::from_secs(20), "{finished:?}");
    assert_eq!(relay.attempts().len(), 1, "no other attempt was begun");
    assert_eq!(relay.run_spool().expect(0).counts(), [3, 3, 0, 0, 0, 0]);
}

#[test]
fn two_runs_started_together_share_the_mails() {
    let peer = SmtpSink::start(script!["." => wait(Duration::from_millis(20)).then(reply("250 2.0.0 ok"))]);
    let relay = Setup::gateway(peer.address()).build();
    submit_many(&relay, 24);
    let arguments = ["run", "spool", "--format", "json"];

    let runs = [relay.spawn(&arguments, b""), relay.spawn(&arguments, b"")];

    let counts = runs.map(|run| run.wait().expect(0).counts());
    assert_eq!((counts[0][0] + counts[1][0], counts[0][1] + counts[1][1]), (24, 24), "{counts:?}");
    for n in 0..24 {
        assert_eq!(peer.copies_of(&format!("r{n}@example.net"), &format!("<m{n}@")), 1, "mail {n}");
    }
    assert_eq!(peer.violations(), Vec::<String>::new());
}

#[test]
fn the_first_signal_lets_sessions_end_and_the_result_is_still_printed() {
    for stop in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let peer = SmtpSink::start(script!["." => wait(Duration::from_millis(600)).then(reply("250 2.0.0 ok"))]);
        let relay = Setup::gateway(peer.address()).delivery("deliveryThreads: 1").build();
        submit_many(&relay, 3);
        let running = relay.spawn(&["run", "spool", "--format", "json"], b"");
        peer.wait_for_transactions(1);

        signal(&running, stop);

        // One was delivered, two were left.
        let finished = running.wait().expect(75);
        assert_eq!(finished.counts()[1..], [1, 0, 0, 0, 0], "{finished:?}");
        assert_eq!(relay.attempts().len(), 1, "what was not begun is not counted");
        assert_eq!(relay.run_spool().expect(0).counts(), [2, 2, 0, 0, 0, 0]);
        assert_eq!(peer.transactions().len(), 3);
    }
}

#[test]
fn under_nohup_a_run_goes_on() {
    let peer = SmtpSink::start(script!["." => wait(Duration::from_millis(600)).then(reply("250 2.0.0 ok"))]);
    let relay = Setup::gateway(peer.address()).delivery("deliveryThreads: 1").build();
    submit_many(&relay, 2);
    let program = relay.program(&["run", "spool"]);
    let words = std::iter::once(program.get_program()).chain(program.get_args());
    let mut running = std::process::Command::new("nohup").args(words).current_dir(relay.path()).spawn().expect("nohup");
    peer.wait_for_transactions(1);
    kill(Pid::from_raw(running.id().cast_signed()), Signal::SIGHUP).expect("our own child");
    assert_eq!(running.wait().expect("it ends").code(), Some(0));
    assert_eq!(peer.transactions().len(), 2);
}

#[test]
fn a_signal_lets_the_sessions_of_sendmail_end_as_well() {
    for arguments in [&["sendmail", "-q"][..], &["sendmail", "-v", "-f", "me@example.org", "r0@example.net"]] {
        let peer = SmtpSink::start(script!["." => wait(Duration::from_millis(600)).then(reply("250 2.0.0 ok"))]);
        let relay = Setup::gateway(peer.address()).build();
        if arguments.contains(&"-q") {
            submit_many(&relay, 1);
        }
        let running = relay.spawn(arguments, message("m0").as_bytes());
        peer.wait_for_transactions(1);

        signal(&running, Signal::SIGINT);

        running.wait().expect(0);
        let attempts = relay.attempts();
        assert_eq!((attempts.len(), &attempts[0]["state"]), (1, &json!("settled")), "{arguments:?}");
    }
}

#[test]
fn the_second_signal_gives_sessions_up_in_doubt_behind_the_final_dot() {
    let peer = SmtpSink::start(script![on(".").times(1) => stall()]);
    let relay = Setup::gateway(peer.address()).build();
    submit_many(&relay, 1);
    let running = relay.spawn(&["run", "spool", "--format", "json"], b"");
    peer.wait_for_transactions(1);

    signal(&running, Signal::SIGTERM);
    // Two of a kind that arrive together would be one.
    signal(&running, Signal::SIGINT);

    let finished = running.wait().expect(75);
    assert_eq!(finished.counts(), [1, 0, 1, 0, 0, 0], "{finished:?}");
    let mail = relay.show_only("temporary");
    let recipient = &mail["attempts"][0]["recipients"][0];
    assert_eq!(recipient["stage"], "end-of-data");
    assert!(recipient["cause"].as_str().expect("a cause").contains("doubt"), "{recipient}");
    assert_eq!(mail["attempts"][0]["state"], "inDoubt");
    assert_eq!(relay.sweep().expect(0).counts(), [1, 1, 0, 0, 0, 0]);
}

#[test]
fn a_run_told_twice_to_stop_ends_though_the_store_is_locked_and_its_mail_is_in_doubt() {
    let peer = SmtpSink::start(script![on(".").times(1) => wait(Duration::from_secs(1)).then(reply("250 2.0.0 ok"))]);
    let relay = Setup::gateway(peer.address()).build();
    submit_many(&relay, 1);
    let running = relay.spawn(&["run", "spool", "--format", "json"], b"");
    peer.wait_for_transactions(1);
    let other = rusqlite::Connection::open(relay.path().join("var/redeliver.db")).expect("the store");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");

    signal(&running, Signal::SIGTERM);
    signal(&running, Signal::SIGINT);

    let finished = running.wait();
    other.execute_batch("ROLLBACK").expect("unlocked");
    // All that it had yet to write waited for the lock together, not each its ten seconds.
    assert!(finished.elapsed < Duration::from_secs(20), "{finished:?}");
    assert_eq!((finished.code, finished.counts()), (Some(74), [1, 0, 1, 0, 0, 0]), "{finished:?}");
    assert!(finished.stderr.contains("the end of the pass is not on record"), "{finished:?}");
    assert!(finished.stderr.ends_with("redeliver: the store is locked by another process: database is locked\n"));
    assert_eq!(relay.run_spool().counts(), [1, 1, 0, 0, 0, 0]);
    let states: Vec<_> = relay.attempts().iter().map(|attempt| attempt["state"].clone()).collect();
    assert_eq!(states, ["inDoubt", "settled"]);
}

#[test]
fn sessions_get_the_shutdown_timeout_and_no_more() {
    let peer = SmtpSink::start(script!["RCPT" => stall()]);
    let relay = Setup::gateway(peer.address()).top("shutdownTimeout: 300ms").build();
    submit_many(&relay, 1);
    let running = relay.spawn(&["run", "spool", "--format", "json"], b"");
    peer.wait_until("RCPT", |seen| {
        seen.connections.iter().any(|c| c.commands.iter().any(|(_, l)| l.starts_with("RCPT")))
    });

    signal(&running, Signal::SIGTERM);

    let finished = running.wait().expect(75);
    assert_eq!(finished.counts(), [1, 0, 1, 0, 0, 0]);
    assert!(finished.elapsed < Duration::from_secs(20), "{finished:?}");
    let mail = relay.show_only("temporary");
    assert_eq!(mail["attempts"][0]["recipients"][0]["stage"], "rcpt");
    assert_eq!(mail["attempts"][0]["state"], "settled");
}

#[test]
fn text_for_people_says_the_same_on_one_line() {
    let peer = SmtpSink::start(script!["RCPT" => "451 4.2.0 later"]);
    let relay = Setup::gateway(peer.address()).limit(1).build();
    submit_many(&relay, 1);
    let finished = relay.command(&["run", "spool"]).expect(69);
    assert_eq!(finished.stdout.lines().count(), 1);
    for part in ["spool: 1 mail taken", "0 delivered, 0 deferred, 1 failed", "1 mail became permanent by the limit"] {
        assert!(finished.stdout.contains(part), "{finished:?}");
    }
}

#[test]
fn mails_that_a_deadline_left_untaken_are_no_success() {
    // After a death they are taken one at a time, so the deadline finds two not taken.
    let peer = SmtpSink::start(script!["." => wait(Duration::from_millis(700)).then(reply("250 2.0.0 ok"))]);
    let relay = Setup::gateway(peer.address()).build();
    submit_many(&relay, 3);
    let mut running = relay.spawn(&["run", "spool"], b"");
    peer.wait_for_connections(1);
    running.kill();
    running.wait();

    let finished = relay.command(&["run", "spool", "--deadline", "300ms", "--format", "json"]).expect(75);

    assert_eq!(finished.counts(), [1, 1, 0, 0, 0, 0]);
    assert_eq!(relay.run_spool().expect(0).counts(), [2, 2, 0, 0, 0, 0]);
}

#[test]
fn what_was_done_has_its_exit_code_though_nobody_reads_it() {
    let peer = SmtpSink::start(script!["RCPT TO:<d" => "451 4.2.0 later", "RCPT TO:<f" => "550 5.1.1 no"]);
    let relay = Setup::gateway(peer.address()).build();
    let no_message = relay.path().join("empty.eml");
    std::fs::write(&no_message, "").expect("a file");
    let no_message = no_message.to_str().expect("a name");
    let container = relay.path().join("mailetcontainer.xml");
    std::fs::write(
        &container,
        "<processors><processor state='root'><mailet match='All' class='org.example.Ours'/></processor></processors>",
    )
    .expect("a file");
    let container = container.to_str().expect("a name");
    for (recipient, arguments, code) in [
        ("d@example.net", &["run", "spool"][..], 75),
        ("f@example.net", &["run", "spool", "--format", "json"], 69),
        ("f@example.net", &["sendmail", "-q"], 69),
        ("a@example.net", &["run", "spool"], 0),
        ("a@example.net", &["repository", "list"], 0),
        ("a@example.net", &["import", no_message, "--from", "a@b.example", "--to", "c@d.example"], 65),
        ("a@example.net", &["convert", container], 65),
    ] {
        relay.submit("me@example.org", &[recipient], &message("m"));
        let (reader, nobody_reads) = std::io::pipe().expect("a pipe");
        drop(reader);
        let status = relay.program(arguments).stdout(nobody_reads).status().expect("a status");
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

/// `O_NONBLOCK` belongs to the open file: ssh, node and others leave it set on what they share.
#[test]
fn streams_that_do_not_block_are_waited_for() {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let peer = SmtpSink::start(Script::new());
    let relay = Setup::gateway(peer.address()).build();
    let (input, mut writer) = std::io::pipe().expect("a pipe");
    fcntl(&input, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("set");
    let mut sendmail =
        relay.program(&["sendmail", "-f", "me@example.org", "you@example.net"]).stdin(input).spawn().expect("it");
    std::thread::sleep(Duration::from_millis(300));
    writer.write_all(b"Subject: s\n\nb\n").expect("it reads");
    drop(writer);
    assert_eq!(sendmail.wait().expect("it ends").code(), Some(0));

    relay.fill((0..600).map(|n| vec![format!("r{n}@example.net")]));
    let (mut reader, output) = std::io::pipe().expect("a pipe");
    fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("set");
    let mut mailq = relay.program(&["sendmail", "-bp", "--format", "json"]).stdout(output).spawn().expect("it");
    std::thread::sleep(Duration::from_millis(300));
    let mut listed = String::new();
    reader.read_to_string(&mut listed).expect("text");
    assert!(listed.len() > 100_000 && listed.lines().count() == 601, "{} lines", listed.lines().count());
    assert_eq!(mailq.wait().expect("it ends").code(), Some(0));
}
