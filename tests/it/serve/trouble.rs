//! A store that cannot be written for a while: nothing that was acknowledged is lost,
//! nobody is tried more often for it, and everything goes on by itself.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Client, Service, message, served, until, write_schedule};
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, on, script, wait};

/// Takes the write lock of the store until it is dropped.
fn lock(relay: &Relay) -> rusqlite::Connection {
    let database = rusqlite::Connection::open(relay.path().join("var/redeliver.db")).expect("the store");
    database.busy_timeout(Duration::from_secs(10)).expect("set");
    database.execute_batch("BEGIN IMMEDIATE").expect("the write lock");
    database
}

#[test]
fn a_database_that_another_process_locks_is_waited_for() {
    let peer = SmtpSink::start(script![on(".").times(1) => wait(Duration::from_secs(1)).then("250 2.0.0 ok")]);
    let relay = served(Setup::gateway(peer.address()));
    let service = Service::start(&relay);
    service.submit(&["first@example.net"], "first");
    peer.wait_for_transactions(1);
    // The result of the first and the taking of the second fall into the time of the lock.
    let locked = lock(&relay);
    let mut client = Client::connect(service.smtp).expect("it listens");
    let taken = client.submit(&["second@example.net"], &message("second")).expect("an answer");
    assert!(!taken, "after ten seconds it is put off");
    until("health is red", || service.health("Store").0 == "unhealthy");
    drop(locked);
    until("it is taken", || client.submit(&["third@example.net"], &message("third")).expect("an answer"));
    service.wait_until_settled();
    until("health is green", || service.health("Store").0 == "healthy" && service.health("Spool").0 == "healthy");
    service.stop();
    let copies = |name: &str| peer.copies_of(&format!("{name}@example.net"), &format!("<{name}@"));
    assert_eq!((copies("first"), copies("second"), copies("third")), (1, 0, 1));
    assert_eq!(relay.attempts().len(), 2);
}

#[test]
fn a_process_that_stood_still_goes_on_as_if_nothing_had_been() {
    let peer = SmtpSink::start(Script::new());
    let relay = served(Setup::gateway(peer.address()));
    write_schedule(&relay, "s", "job: retry-temporary\ncron: \"*/2 * * * * *\"\n");
    let service = Service::start(&relay);
    let runs = || relay.command(&["job", "runs", "--format", "json", "--limit", "100"]).expect(0).json().len();
    until("it runs", || runs() > 0);
    service.signal(Signal::SIGSTOP);
    let before = runs();
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(runs(), before);
    service.signal(Signal::SIGCONT);
    until("it goes on", || runs() > before);
    std::thread::sleep(Duration::from_millis(500));
    assert!(runs() <= before + 2, "{} runs for the ticks it jumped over", runs() - before);
    service.submit(&["you@example.net"], "m");
    peer.wait_for_transactions(1);
    service.stop();
}

#[test]
fn a_store_that_is_removed_under_it_takes_nothing_and_turns_health_red() {
    let relay = served(Setup::gateway("127.0.0.2:25"));
    let service = Service::start(&relay);
    for file in ["redeliver.db", "redeliver.db-wal", "redeliver.db-shm"] {
        std::fs::remove_file(relay.path().join("var").join(file)).expect("removed");
    }
    let mut client = Client::connect(service.smtp).expect("it listens");
    assert!(!client.submit(&["you@example.net"], &message("m")).expect("an answer"));
    until("health is red", || service.health("Store").0 == "unhealthy");
    assert!(service.health("Store").1.as_str().is_some_and(|cause| cause.contains("restart redeliver")));
}

/// A small file system under the relay's state, gone with the value. `None` where this
/// user may not mount.
pub(super) struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    pub(super) fn mount(path: std::path::PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir(&path).expect("a directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "redeliver-test"])
            .arg(&path)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        mounted.then_some(Self(path))
    }

    /// Leaves no room on it for as long as the returned file exists.
    pub(super) fn fill(&self) -> std::path::PathBuf {
        let filler = self.0.join("filler");
        let mut file = std::fs::File::create(&filler).expect("a file");
        let octets = vec![b'x'; 1 << 20];
        for piece in [1 << 20, 4096, 1] {
            while std::io::Write::write_all(&mut file, &octets[..piece]).is_ok() {}
        }
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A test that fails is not to fail twice.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_puts_mail_off_and_what_was_taken_is_delivered_once() {
    let peer = SmtpSink::start(script![on(".") => wait(Duration::from_millis(30)).then("250 2.0.0 ok")]);
    let relay = served(Setup::gateway(peer.address()).limit(8));
    let Some(disk) = SmallDisk::mount(relay.path().join("var"), "80m") else {
        eprintln!("not run: this user may not mount a file system to fill up");
        return;
    };
    let service = Service::start(&relay);
    let mut client = Client::connect(service.smtp).expect("it listens");
    let mut taken = Vec::new();
    let mut submit = |client: &mut Client, number: usize| {
        let id = format!("n{number}");
        let ok = client.submit(&[&format!("{id}@example.net")], &message(&id)).expect("an answer");
        if ok {
            taken.push(id);
        }
        ok
    };
    for number in 0..20 {
        assert!(submit(&mut client, number), "there is room");
    }
    // From one moment to the next there is none, with attempts under way.
    let filler = disk.fill();
    let refused = (20..60).filter(|&number| !submit(&mut client, number)).count();
    assert!(refused > 0);
    relay.command(&["repository", "list"]).expect(0);
    relay.command(&["attempts"]).expect(0);
    std::fs::remove_file(filler).expect("there is room again");
    let mut number = 60;
    until("mail is taken again", || {
        number += 1;
        submit(&mut client, number)
    });
    service.wait_until_settled();
    until("health is green", || service.get("/healthcheck").1["status"] == "healthy");
    service.stop();
    for id in &taken {
        assert_eq!(peer.copies_of(&format!("{id}@example.net"), &format!("<{id}@")), 1, "{id}");
    }
    assert_eq!(peer.transactions().len(), taken.len(), "and nobody else has anything");
}

#[test]
fn little_room_is_told_while_mail_is_put_off() {
    let relay = served(Setup::gateway(crate::support::refusing()));
    let Some(_disk) = SmallDisk::mount(relay.path().join("var"), "40m") else {
        eprintln!("not run: this user may not mount a file system that is small");
        return;
    };
    let service = Service::start(&relay);
    let mut client = Client::connect(service.smtp).expect("it listens");
    assert!(!client.submit(&["you@example.net"], &message("m")).expect("an answer"), "there is no room");
    until("health tells", || {
        let checks = service.get("/healthcheck").1["checks"].clone();
        let store =
            checks.as_array().and_then(|all| all.iter().find(|check| check["componentName"] == "Store").cloned());
        store.is_some_and(|store| {
            store["status"] == "degraded" && store["cause"].as_str().is_some_and(|cause| cause.contains("gets 452"))
        })
    });
    let log = service.log.text();
    assert_eq!(log.matches("MiB left: new mail gets 452").count(), 1, "{log}");
    service.stop();
}

/// An ext4 file system in a file, under the relay's state. `None` where this user may not
/// mount one.
struct FailingDisk {
    image: std::path::PathBuf,
    at: std::path::PathBuf,
}

impl FailingDisk {
    fn mount(relay: &Relay) -> Option<Self> {
        let disk = Self { image: relay.path().join("disk.img"), at: relay.path().join("var") };
        std::fs::create_dir(&disk.at).expect("a directory");
        std::fs::File::create(&disk.image).and_then(|file| file.set_len(256 << 20)).expect("an image");
        let made = run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), disk.image.as_ref()]);
        (made && disk.mount_again()).then_some(disk)
    }

    fn mount_again(&self) -> bool {
        let options = ["-o".as_ref(), "loop,errors=remount-ro".as_ref(), self.image.as_ref(), self.at.as_ref()];
        run("mount", &options)
    }

    /// What the kernel does at an I/O error: from now on nothing can be written.
    fn fail(&self) {
        let found = Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(&self.at).output().expect("findmnt");
        let device = String::from_utf8(found.stdout).expect("a path");
        let device = device.trim().strip_prefix("/dev/").expect("a loop device");
        std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1").expect("an error");
    }

    /// What the operator does then.
    fn repair(&self) {
        assert!(run("umount", &[self.at.as_ref()]), "nobody has a file open");
        // Its status says that errors were corrected.
        let _ = run("fsck.ext4", &["-y".as_ref(), self.image.as_ref()]);
        assert!(self.mount_again(), "it can be mounted again");
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l".as_ref(), self.at.as_ref()]);
    }
}

fn run(program: &str, arguments: &[&OsStr]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn a_file_system_that_becomes_read_only_is_told_and_nothing_is_lost() {
    let peer = SmtpSink::start(script!["RCPT TO:<kept" => "451 4.2.0 later"]);
    let relay = served(Setup::gateway(peer.address()));
    let Some(disk) = FailingDisk::mount(&relay) else {
        eprintln!("not run: this user may not mount a file system in a file");
        return;
    };
    let service = Service::start(&relay);
    service.submit(&["kept@example.net"], "kept");
    service.wait_until_settled();
    disk.fail();
    let mut client = Client::connect(service.smtp).expect("it listens");
    assert!(!client.submit(&["second@example.net"], &message("second")).expect("an answer"));
    until("health is red", || service.health("Store").0 == "unhealthy");
    let cause = service.health("Store").1;
    assert!(cause.as_str().is_some_and(|cause| cause.contains("read-only")), "{cause}");
    service.stop();
    disk.repair();
    let service = Service::start(&relay);
    service.submit(&["third@example.net"], "third");
    peer.wait_for_transactions(1);
    service.wait_until_settled();
    assert_eq!(relay.mails("temporary").len(), 1);
    service.stop();
}

#[test]
fn files_beside_the_database_may_be_gone_or_garbage_after_a_kill() {
    for (file, text) in [
        ("redeliver.db-shm", None),
        ("redeliver.db-shm", Some("no index of a log\n".repeat(2000))),
        ("redeliver.db-wal", Some("no log\n".repeat(2000))),
        ("redeliver.db-wal", None),
        ("redeliver.db-instances", None),
        ("redeliver.db-instances", Some("no instances\n".repeat(2000))),
    ] {
        let peer = SmtpSink::start(script!["RCPT" => "451 4.2.0 later"]);
        let relay = served(Setup::gateway(peer.address()));
        let service = Service::start(&relay);
        service.submit(&["you@example.net"], "m");
        service.wait_until_settled();
        service.kill();
        let path = relay.path().join("var").join(file);
        assert!(path.exists(), "{file}");
        let done = text.as_ref().map_or_else(|| std::fs::remove_file(&path), |text| std::fs::write(&path, text));
        done.expect("it is there");
        let service = Service::start(&relay);
        service.submit(&["you@example.net"], "n");
        service.wait_until_settled();
        service.stop();
        // Without its log a database lacks what was only there; all else is whole.
        let kept = if file.ends_with("wal") { 1 } else { 2 };
        assert!(relay.size("temporary") >= kept, "{file}");
        let database = rusqlite::Connection::open(relay.path().join("var/redeliver.db")).expect("opens");
        let sound: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("an answer");
        assert_eq!(sound, "ok", "{file}");
    }
}

#[test]
fn a_run_that_met_a_locked_store_is_on_record_afterwards() {
    let relay = served(Setup::gateway("127.0.0.2:25"));
    super::write_schedule(&relay, "s", "job: retry-temporary\ncron: \"* * * * * *\"\n");
    let service = Service::start(&relay);
    service.log.wait_for("a run", |text| text.contains("run finished").then_some(()));
    let locked = lock(&relay);
    service.log.wait_for("a failed run", |text| text.contains("the run failed").then_some(()));
    let cause = service.get("/healthcheck/checks/Schedules").1["cause"].to_string();
    assert!(cause.contains("the last run of retry-temporary failed"), "{cause}");
    drop(locked);
    let failed = || {
        let runs = relay.command(&["job", "runs", "--format", "json", "--limit", "100"]).expect(0).json();
        runs.into_iter().filter(|run| run["failure"].to_string().contains("locked")).collect::<Vec<_>>()
    };
    until("it is recorded", || !failed().is_empty());
    let failed = failed().remove(0);
    assert!(failed["finished"].is_string() && failed["trigger"] == "schedule", "{failed}");
    until("health is green", || service.get("/healthcheck").1["status"] == "healthy");
    service.stop();
}

#[test]
fn a_locked_store_does_not_keep_a_service_that_is_told_twice_to_stop() {
    let peer = SmtpSink::start(script![on(".").times(1) => wait(Duration::from_secs(1)).then("250 2.0.0 ok")]);
    let relay = served(Setup::gateway(peer.address()));
    let mut service = Service::start(&relay);
    service.submit(&["you@example.net"], "m");
    peer.wait_for_transactions(1);
    let locked = lock(&relay);
    let begun = std::time::Instant::now();
    service.signal(Signal::SIGTERM);
    service.log.wait_for("the first", |text| text.contains("sessions under way may end").then_some(()));
    service.signal(Signal::SIGTERM);
    assert_eq!(service.wait(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    drop(locked);
    // What could not be written is in doubt, and sent again.
    let service = Service::start(&relay);
    service.wait_until_settled();
    service.stop();
    let states: Vec<_> = relay.attempts().iter().map(|attempt| attempt["state"].clone()).collect();
    assert_eq!(states, ["inDoubt", "settled"]);
}

/// Until then every run beside it is refused, since it cannot see who is alive.
#[test]
fn locks_that_somebody_removed_are_missed() {
    let peer = SmtpSink::start(Script::new());
    let relay = served(Setup::gateway(peer.address()));
    let service = Service::start(&relay);
    until("it is well", || service.health("Store").0 == "healthy");
    std::fs::remove_file(relay.path().join("var/redeliver.db-instances")).expect("there");
    until("it is missed", || service.health("Store").0 == "unhealthy");
    let cause = service.health("Store").1.to_string();
    assert!(cause.contains("redeliver.db-instances") && cause.contains("restart redeliver"), "{cause}");
    service.stop();
}
