//! A store that cannot be used: what is said, the exit code, and that it is left as it was.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::relay::{Relay, Running, Setup};
use crate::support::sink::{Record, Script, SmtpSink, on, reply, script, wait};
use crate::support::{message, refusing};

fn database(relay: &Relay) -> PathBuf {
    relay.path().join("var/redeliver.db")
}

/// `sendmail`, a listing and a run: each says why in one line, with 75 and 73.
fn is_refused(relay: &Relay, why: &str) {
    for (command, code) in [
        (&["sendmail", "-i", "-f", "me@example.org", "you@example.net"][..], 75),
        (&["repository", "list"], 73),
        (&["run", "spool", "--format", "json"], 73),
    ] {
        let finished = relay.command_with_input(command, message("m").as_bytes());
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(code), ""), "{command:?}: {finished:?}");
        let said = &finished.stderr;
        assert!(
            said.lines().count() == 1 && said.contains("redeliver.db") && said.contains(why),
            "{command:?}: {said}"
        );
    }
}

/// With this at the place of the database, all is refused for this reason and nothing changed.
fn is_refused_and_untouched(octets: &[u8], why: &str) {
    let relay = Setup::gateway(refusing()).build();
    std::fs::create_dir(relay.path().join("var")).expect("a directory");
    std::fs::write(database(&relay), octets).expect("a file");
    is_refused(&relay, why);
    assert_eq!(std::fs::read(database(&relay)).expect("still there"), octets, "{why}");
}

/// The octets of a database in which this was done.
fn made(sql: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("x.db");
    let connection = rusqlite::Connection::open(&path).expect("a database");
    connection.execute_batch(sql).expect("done");
    drop(connection);
    std::fs::read(path).expect("there")
}

#[test]
fn what_is_no_database_of_ours_is_refused_untouched() {
    is_refused_and_untouched(
        b"this is a text and no database at all, whatever its name may be\n",
        "not a SQLite database",
    );
    is_refused_and_untouched(&made("CREATE TABLE t (x)"), "another program");
    is_refused_and_untouched(
        &made("CREATE TABLE t (x); PRAGMA application_id = 0x7265646c; PRAGMA user_version = 999"),
        "schema version 999",
    );
    is_refused_and_untouched(
        &made("CREATE TABLE t (x); PRAGMA application_id = 0x7265646c; PRAGMA user_version = 4"),
        "schema version 4, of a redeliver before the first release",
    );
}

#[test]
fn a_directory_or_a_dangling_link_at_its_place_is_said_to_be_one() {
    let relay = Setup::gateway(refusing()).build();
    std::fs::create_dir_all(database(&relay)).expect("a directory");
    is_refused(&relay, "it is a directory");

    let relay = Setup::gateway(refusing()).build();
    std::fs::create_dir(relay.path().join("var")).expect("a directory");
    std::os::unix::fs::symlink("nowhere/at/all.db", database(&relay)).expect("a link");
    is_refused(&relay, "it is a link to a file that does not exist");
}

#[test]
fn a_state_directory_that_is_a_file_is_named() {
    let relay = Setup::gateway(refusing()).build();
    std::fs::write(relay.path().join("var"), "a file").expect("written");
    is_refused(&relay, "directory");
}

#[test]
fn mail_that_only_the_log_beside_a_missing_database_holds_is_kept() {
    let relay = Setup::gateway(refusing()).build();
    relay.submit("me@example.org", &["you@example.net"], &message("m"));
    let (wal, aside) = (relay.path().join("var/redeliver.db-wal"), relay.path().join("aside.db"));
    // As a process that is killed leaves it: with a reader nobody empties the log.
    let reader = rusqlite::Connection::open(database(&relay)).expect("the store");
    reader.query_row("SELECT count(*) FROM mail", [], |row| row.get::<_, i64>(0)).expect("read");
    relay.submit("me@example.org", &["she@example.net"], &message("n"));
    let log = std::fs::read(&wal).expect("a log");
    assert!(!log.is_empty());
    std::fs::rename(database(&relay), &aside).expect("moved");

    is_refused(&relay, "put the database back");
    assert_eq!(std::fs::read(&wal).expect("still there"), log);
    std::fs::rename(&aside, database(&relay)).expect("put back");
    assert_eq!(relay.run_spool().code, Some(75));
    drop(reader);
}

#[test]
fn a_damaged_database_is_never_taken_for_an_empty_one() {
    let relay = Setup::gateway(refusing()).build();
    for n in 0..40 {
        relay.submit(
            "me@example.org",
            &["you@example.net"],
            &format!("{}{}\n", message(&format!("m{n}")), "x".repeat(900)),
        );
    }
    let mut octets = std::fs::read(database(&relay)).expect("a database");
    // The first page says what the file is; everything behind it is gone.
    octets[4096..].fill(0xA5);
    std::fs::write(database(&relay), &octets).expect("damaged");
    let _ = std::fs::remove_file(relay.path().join("var/redeliver.db-wal"));

    for (command, codes) in [
        (&["sendmail", "-i", "-f", "me@example.org", "you@example.net"][..], [75, 75]),
        (&["repository", "list"], [73, 74]),
        (&["run", "spool", "--format", "json"], [73, 74]),
    ] {
        let finished = relay.command_with_input(command, message("m").as_bytes());
        assert!(finished.code.is_some_and(|code| codes.contains(&code)), "{command:?}: {finished:?}");
        assert!(finished.stderr.contains("damaged"), "{command:?}: {finished:?}");
    }
}

#[test]
fn a_locked_store_is_waited_for_and_then_tried_later() {
    let relay = Setup::gateway(refusing()).build();
    relay.submit("me@example.org", &["you@example.net"], &message("before"));
    let other = rusqlite::Connection::open(database(&relay)).expect("the store");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    let submit =
        |id| relay.spawn(&["sendmail", "-i", "-f", "me@example.org", "you@example.net"], message(id).as_bytes());

    let (given_up, run) = (submit("given up"), relay.spawn(&["run", "spool", "--format", "json"], b""));
    // Whoever only looks waits for nobody.
    for looking in [&["repository", "list"][..], &["attempts"], &["job", "runs"], &["sendmail", "-bp"]] {
        let looked = relay.command(looking).expect(0);
        assert!(looked.elapsed < std::time::Duration::from_secs(5), "{looking:?}: {looked:?}");
    }
    let given_up = given_up.wait().expect(75);
    let run = run.wait();

    assert!(given_up.stderr.contains("locked"), "{given_up:?}");
    assert!(matches!(run.code, Some(73 | 74)) && run.stderr.contains("locked"), "{run:?}");
    // One that comes while the lock is soon to go is taken.
    let patient = submit("patient");
    other.execute_batch("ROLLBACK").expect("unlocked");
    patient.wait().expect(0);
    assert_eq!(relay.run_spool().expect(75).counts(), [2, 0, 2, 0, 0, 0]);
}

/// A small file system of its own, gone with the value. `None` where this user may not mount.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a directory");
        let disk = Self(at.to_owned());
        if disk.run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "redeliver-test"]) {
            return Some(disk);
        }
        std::mem::forget(disk);
        eprintln!("not run: this user may not mount a file system");
        None
    }

    fn run(&self, program: &str, arguments: &[&str]) -> bool {
        let mut command = Command::new(program);
        command.args(arguments).arg(&self.0).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        assert!(self.run("umount", &["-l"]), "the test's file system can be unmounted");
    }
}

#[test]
fn on_a_full_disk_nothing_is_taken_and_what_was_taken_is_kept() {
    let peer = SmtpSink::start(Script::new());
    let relay = Setup::gateway(peer.address()).top("smtp: { maxMessageSize: 200MiB }").build();
    // Room enough for more mail to be let in, and not for this message.
    let Some(disk) = Disk::mount(&relay.path().join("var"), "68m") else { return };
    relay.submit("me@example.org", &["kept@example.net"], &message("kept"));
    let large = format!("{}{}", message("large"), "line after line\n".repeat(5 << 20));

    let finished = relay
        .command_with_input(&["sendmail", "-i", "-f", "me@example.org", "lost@example.net"], large.as_bytes())
        .expect(75);

    assert!(finished.stderr.contains("no room"), "{finished:?}");
    // Once there is room all goes on, without anybody's help.
    assert!(disk.run("mount", &["-o", "remount,size=200m"]), "remounted");
    relay.submit("me@example.org", &["later@example.net"], &message("later"));
    assert_eq!(relay.run_spool().expect(0).counts(), [2, 2, 0, 0, 0, 0]);
    let mut seen: Vec<_> = peer.transactions().into_iter().flat_map(|transaction| transaction.recipients).collect();
    seen.sort();
    assert_eq!(seen, ["kept@example.net", "later@example.net"]);
    drop(disk);
}

/// No file that this process writes grows any more, as on a full disk.
fn let_no_file_grow(running: &Running) {
    let pid = running.id().to_string();
    let limited = Command::new("prlimit").args(["--fsize=1", "--pid", &pid]).status().expect("prlimit, of util-linux");
    assert!(limited.success());
}

#[test]
fn a_run_says_what_it_waits_for_and_ends_soon_where_the_store_can_no_longer_be_written() {
    // The peer answers once no file grows any more.
    let slow = || wait(Duration::from_secs(2)).then(reply("250 2.0.0 taken"));
    let peer = SmtpSink::start(Script::new().on(on("."), slow()));
    // 30 s where nothing is said.
    let relay = Setup::gateway(peer.address()).top("shutdownTimeout: 2s").build();
    for n in 0..4 {
        relay.submit("me@example.org", &[&format!("r{n}@example.net")], &message(&format!("m{n}")));
    }

    let running = relay.spawn(&["run", "spool", "--format", "json"], b"");
    peer.wait_for_connections(4);
    let_no_file_grow(&running);
    let finished = running.wait().expect(74);

    let (elapsed, told) = (finished.elapsed, &finished.stderr);
    assert!(told.contains("the store cannot be written: waiting for it up to 2 s"), "{finished:?}");
    assert!(elapsed >= Duration::from_secs(4), "{elapsed:?}");
    assert_eq!(finished.counts(), [4, 0, 0, 0, 0, 4], "{finished:?}");
    let in_doubt = |record: &serde_json::Value| record["state"] == "inDoubt";
    assert_eq!(relay.run_spool().expect(0).counts(), [4, 4, 0, 0, 0, 0], "nothing is lost");
    assert_eq!(relay.attempts().iter().filter(|record| in_doubt(record)).count(), 4);
}

#[test]
fn a_log_directory_that_cannot_be_made_is_a_mistake_in_the_configuration() {
    let relay = Setup::gateway(refusing()).top("log: { directory: ../redeliver.yaml/log }").build();
    let refused = relay.run_spool().expect(78);
    assert!(refused.stderr.contains("log.directory"), "{refused:?}");
}

#[test]
fn with_little_room_new_mail_is_put_off_and_what_was_taken_is_delivered() {
    let peer = SmtpSink::start(Script::new());
    let relay = Setup::gateway(peer.address()).build();
    let Some(disk) = Disk::mount(&relay.path().join("var"), "80m") else { return };
    relay.submit("me@example.org", &["kept@example.net"], &message("kept"));
    assert!(disk.run("mount", &["-o", "remount,size=40m"]), "remounted");
    let file = relay.path().join("m.eml");
    std::fs::write(&file, message("import")).expect("written");
    let file = file.to_str().expect("UTF-8");
    for arguments in [&["sendmail", "lost@example.net"][..], &["import", file, "--to", "lost@example.net"]] {
        let put_off = relay.command_with_input(arguments, message("lost").as_bytes()).expect(75);
        assert!(put_off.stderr.contains("little room left"), "{put_off:?}");
        assert!(put_off.stderr.contains(" MiB, and 64 MiB are to stay free"), "{put_off:?}");
    }
    let import = relay.command(&["import", file, "--to", "lost@example.net", "--format", "json"]).expect(75);
    assert_eq!(import.json()[0]["taken"], 0, "what was taken until then is said");
    let bs = relay.command_with_input(&["sendmail", "-bs"], b"EHLO c\r\nMAIL FROM:<a@x.example>\r\nQUIT\r\n");
    assert!(bs.stdout.contains("\r\n452 4.3.1 little room left"), "{bs:?}");
    assert_eq!(relay.run_spool().expect(0).counts(), [1, 1, 0, 0, 0, 0]);
}

#[test]
fn a_read_only_file_system_is_said_to_be_one() {
    let relay = Setup::gateway(refusing()).build();
    let Some(disk) = Disk::mount(&relay.path().join("var"), "80m") else { return };
    relay.submit("me@example.org", &["kept@example.net"], &message("kept"));
    assert!(disk.run("mount", &["-o", "remount,ro"]), "remounted");
    is_refused(&relay, "read-only");
    assert!(disk.run("mount", &["-o", "remount,rw"]), "remounted");
    assert_eq!(relay.run_spool().expect(75).counts(), [1, 0, 1, 0, 0, 0]);
}

#[test]
fn everybody_may_pass_to_the_socket_and_nobody_else_read_the_mail() {
    use std::os::unix::fs::PermissionsExt;
    let relay = Setup::gateway(refusing()).build();
    relay.submit("me@example.org", &["you@example.net"], &message("m"));
    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&relay.path().join("var")), 0o751);
    for file in std::fs::read_dir(relay.path().join("var")).expect("listed") {
        let file = file.expect("a file").path();
        assert_eq!(mode(&file) & 0o007, 0, "{}", file.display());
    }
}

#[test]
fn many_processes_may_open_a_store_that_does_not_exist_yet() {
    for round in 0..5 {
        let relay = Setup::gateway(refusing()).build();
        let started: Vec<_> = (0..8)
            .map(|n| {
                let text = message(&format!("r{round}m{n}"));
                relay.spawn(&["sendmail", "-i", "-f", "me@example.org", "you@example.net"], text.as_bytes())
            })
            .collect();
        for running in started {
            let finished = running.wait();
            assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
            // On a machine of two cores, beside other tests: nobody waited for a lock of 10 s.
            assert!(finished.elapsed < Duration::from_secs(8), "{finished:?}");
        }
        let files: Vec<_> = std::fs::read_dir(relay.path().join("var")).expect("listed").flatten().collect();
        let left: Vec<_> = files.iter().map(std::fs::DirEntry::file_name).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().contains("-new")), "{left:?}");
        assert_eq!(relay.run_spool().expect(75).counts()[0], 8);
    }
}

#[test]
fn an_empty_file_or_a_link_in_place_of_the_database_becomes_one() {
    let relay = Setup::gateway(refusing()).build();
    std::fs::create_dir(relay.path().join("var")).expect("a directory");
    std::fs::write(database(&relay), "").expect("an empty file");
    relay.submit("me@example.org", &["you@example.net"], &message("m"));
    assert_eq!(relay.run_spool().expect(75).counts()[0], 1);

    let relay = Setup::gateway(refusing()).build();
    std::fs::create_dir_all(relay.path().join("elsewhere")).expect("a directory");
    std::fs::create_dir(relay.path().join("var")).expect("a directory");
    let file = relay.path().join("elsewhere/mail.db");
    std::fs::write(&file, "").expect("an empty file");
    std::os::unix::fs::symlink(&file, database(&relay)).expect("a link");
    relay.submit("me@example.org", &["you@example.net"], &message("m"));
    assert!(database(&relay).is_symlink() && file.metadata().expect("there").len() > 0);
}

/// A link to the database is the database: with locks of its own, each would take the other for
/// dead, and send again what that has in hand.
#[test]
fn a_database_with_two_names_is_held_once() {
    let peer = SmtpSink::start(script!["." => wait(Duration::from_secs(2)).then(reply("250 2.0.0 ok"))]);
    let relay = Setup::gateway(peer.address()).build();
    relay.submit("me@example.org", &["you@example.net"], &message("m"));
    std::fs::create_dir(relay.path().join("var2")).expect("a directory");
    std::os::unix::fs::symlink("../var/redeliver.db", relay.path().join("var2/redeliver.db")).expect("a link");
    let text = std::fs::read_to_string(relay.configuration()).expect("written");
    let second = relay.path().join("second.yaml");
    std::fs::write(&second, text.replace("./var", "./var2")).expect("a file");
    let first = relay.spawn(&["run", "spool", "--format", "json"], b"");
    peer.wait_until("the message", has_data);
    let mut program = Command::new(env!("CARGO_BIN_EXE_redeliver"));
    program.args(["run", "spool", "--config"]).arg(&second).current_dir(relay.path());
    let beside = program.output().expect("it");
    assert_eq!(beside.status.code(), Some(0), "the mail is in hand: {beside:?}");
    assert_eq!(first.wait().expect(0).counts()[1], 1);
    assert_eq!(peer.transactions().len(), 1);
}

fn has_data(seen: &Record) -> bool {
    seen.connections.iter().any(|connection| connection.commands.iter().any(|(_, line)| line == "DATA"))
}

/// So too where somebody removed the locks.
#[test]
fn locks_that_were_removed_while_they_are_held_are_missed() {
    let peer = SmtpSink::start(script!["." => wait(Duration::from_secs(2)).then(reply("250 2.0.0 ok"))]);
    let relay = Setup::gateway(peer.address()).build();
    relay.submit("me@example.org", &["you@example.net"], &message("m"));
    let first = relay.spawn(&["run", "spool", "--format", "json"], b"");
    peer.wait_until("the message", has_data);
    std::fs::remove_file(relay.path().join("var/redeliver.db-instances")).expect("removed");
    let beside = relay.run_spool().expect(73);
    assert!(beside.stderr.contains("was removed meanwhile"), "{beside:?}");
    assert_eq!(first.wait().expect(0).counts()[1], 1);
    assert_eq!(relay.run_spool().expect(0).counts()[0], 0);
    assert_eq!(peer.transactions().len(), 1);
}

/// As `docker run -v /data/redeliver.db:/var/lib/redeliver/redeliver.db` has it.
#[test]
fn a_database_that_is_mounted_by_itself_is_refused() {
    let may_mount = Command::new("unshare").args(["--map-root-user", "--mount", "true"]).status();
    if !may_mount.is_ok_and(|status| status.success()) {
        eprintln!("not run: this machine lets nobody mount");
        return;
    }
    let relay = Setup::gateway(refusing()).build();
    relay.submit("me@example.org", &["you@example.net"], &message("m"));
    let mounted = Command::new("unshare")
        .args([
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            "mount --bind var/redeliver.db var/redeliver.db && exec \"$@\"",
            "sh",
        ])
        .args([env!("CARGO_BIN_EXE_redeliver"), "repository", "list", "--config"])
        .arg(relay.configuration())
        .current_dir(relay.path())
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&mounted.stderr).into_owned();
    assert_eq!(mounted.status.code(), Some(73), "{said}");
    assert!(said.contains("redeliver.db") && said.contains("mount its directory"), "{said}");
}

#[test]
fn a_database_with_a_hard_link_is_refused_until_that_is_gone() {
    let relay = Setup::gateway(refusing()).build();
    relay.submit("me@example.org", &["you@example.net"], &message("m"));
    let other = relay.path().join("var/copy.db");
    std::fs::hard_link(database(&relay), &other).expect("a link");
    is_refused(&relay, "it has a second name");
    std::fs::remove_file(other).expect("removed");
    assert_eq!(relay.run_spool().expect(75).counts()[0], 1);
}
