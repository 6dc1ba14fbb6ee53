//! What the kernel sees before each 250, and what follows where the disk does not obey.

use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Client, Service, message, served, until};
use crate::support::relay::Setup;
use crate::support::sink::{Script, SmtpSink};

/// A strace of all threads of a service, until it is dropped.
struct Strace(Child);

impl Strace {
    /// `None` where it is not installed, or this user may not trace.
    fn attach(service: &Service, arguments: &[&str]) -> Option<Self> {
        let pid = service.child.id();
        let mut command = Command::new("strace");
        command.args(["-f", "-qq"]).args(arguments).args(["-p", &pid.to_string()]).stderr(Stdio::null());
        let Ok(child) = command.spawn() else {
            eprintln!("not run: strace is not installed");
            return None;
        };
        let mut strace = Self(child);
        until("all threads are traced", || strace.has_ended() || are_traced(pid));
        if strace.has_ended() {
            eprintln!("not run: this user may not trace");
            return None;
        }
        Some(strace)
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("our own child").is_some()
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // It lets go of the threads in order; where it has ended there is nothing to do.
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGINT);
        let _ = self.0.wait();
    }
}

fn are_traced(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let is_traced = |status: String| !status.contains("TracerPid:\t0\n");
    // A thread may end meanwhile.
    threads.flatten().all(|thread| std::fs::read_to_string(thread.path().join("status")).map_or(true, is_traced))
}

#[test]
fn a_sync_of_the_log_lies_before_every_250_for_a_mail() {
    let relay = served(Setup::gateway(crate::support::refusing()).delivery("connectiontimeout: 100ms"));
    let service = Service::start(&relay);
    let trace = relay.path().join("trace");
    let output = trace.to_str().expect("UTF-8");
    let calls = "trace=fdatasync,fsync,sendto,write,writev,sendmsg,pwrite64";
    let Some(strace) = Strace::attach(&service, &["-y", "-s", "60", "-e", calls, "-o", output]) else { return };
    let mut client = Client::connect(service.smtp).expect("it listens");
    for number in 0..10 {
        assert!(client.submit(&["you@example.net"], &message(&format!("m{number}"))).expect("an answer"));
    }
    drop(strace);
    let trace = std::fs::read_to_string(trace).expect("a trace");
    assert_eq!(answers_after_a_sync(&trace), 10);
}

/// Answers to final dots, each of which must have a sync of the log before it that came
/// after the last 354: no earlier one can hold the message.
fn answers_after_a_sync(trace: &str) -> usize {
    let (mut synced, mut answers) = (false, 0);
    for line in trace.lines() {
        if line.contains("\"354 ") {
            synced = false;
        } else if line.contains("sync") && (line.contains("-wal>") || line.contains("resumed")) && line.ends_with("= 0")
        {
            synced = true;
        } else if line.contains("\"250 2.6.0 ") {
            answers += 1;
            assert!(synced, "answer {answers} came before a sync");
        }
    }
    answers
}

#[test]
fn where_the_disk_cannot_sync_nothing_is_taken_and_what_was_taken_is_kept() {
    let peer = SmtpSink::start(Script::new());
    let relay = served(Setup::gateway(peer.address()));
    let service = Service::start(&relay);
    service.submit(&["before@example.net"], "before");
    service.wait_until_settled();
    let failing = ["-o", "/dev/null", "-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO"];
    let Some(strace) = Strace::attach(&service, &failing) else { return };
    let mut client = Client::connect(service.smtp).expect("it listens");
    for number in 0..5 {
        let taken = client.submit(&["lost@example.net"], &message(&format!("lost{number}"))).expect("an answer");
        assert!(!taken, "nobody knows whether it would be there after a power cut");
    }
    until("health is red", || service.health("Store").0 == "unhealthy");
    drop(strace);
    until("mail is taken again", || client.submit(&["after@example.net"], &message("after")).expect("an answer"));
    // What was written around the failures is sound also for a process that reads it anew.
    service.kill();
    let service = Service::start(&relay);
    service.wait_until_settled();
    until("health is green", || service.get("/healthcheck").1["status"] == "healthy");
    service.stop();
    let database = rusqlite::Connection::open(relay.path().join("var/redeliver.db")).expect("opens");
    let sound: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("an answer");
    assert_eq!(sound, "ok");
    let copies = |name: &str| peer.copies_of(&format!("{name}@example.net"), &format!("<{name}"));
    assert_eq!((copies("before"), copies("lost")), (1, 0));
    assert!(copies("after") > 0, "at least once: it was killed while that went on");
}
