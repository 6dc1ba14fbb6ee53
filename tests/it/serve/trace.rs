//! What the kernel sees before each 250: the mail is on the disk.

use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Client, Service, message, served};
use crate::support::relay::Setup;

#[test]
fn a_sync_of_the_log_lies_before_every_250_for_a_mail() {
    let relay = served(Setup::gateway(crate::support::refusing()).delivery("connectiontimeout: 100ms"));
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("not run: strace is not installed");
        return;
    }
    let service = Service::start(&relay);
    let trace = relay.path().join("trace");
    let mut strace = Command::new("strace")
        .args(["-f", "-y", "-s", "60", "-e", "trace=fdatasync,fsync,sendto,write,writev,sendmsg,pwrite64"])
        .arg("-o")
        .arg(&trace)
        .args(["-p", &service.child.id().to_string()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("strace");
    super::until("it is traced", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", service.child.id())).expect("a process");
        strace.try_wait().expect("our own child").is_some() || !status.contains("TracerPid:\t0\n")
    });
    if strace.try_wait().expect("our own child").is_some() {
        eprintln!("not run: this user may not trace");
        return;
    }
    let mut client = Client::connect(service.smtp).expect("it listens");
    for number in 0..10 {
        assert!(client.submit(&["you@example.net"], &message(&format!("m{number}"))).expect("an answer"));
    }
    kill(Pid::from_raw(strace.id().cast_signed()), Signal::SIGINT).expect("our own child");
    strace.wait().expect("our own child");
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
