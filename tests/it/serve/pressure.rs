//! More than it can carry: descriptors, memory, clients. It says so or waits, nothing that
//! was acknowledged is lost, and it goes on by itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use super::{Client, LONG, Service, message, served, until};
use crate::support::relay::Setup;
use crate::support::sink::{Script, SmtpSink};

/// Sets a limit of a running service, as `prlimit` writes it.
fn limit(service: &Service, limit: &str) {
    let pid = service.child.id().to_string();
    assert!(Command::new("prlimit").args(["--pid", &pid, limit]).status().expect("prlimit").success());
}

#[test]
fn out_of_descriptors_it_waits_without_spinning_and_goes_on_when_there_are_some() {
    let peer = SmtpSink::start(Script::new());
    let relay = served(Setup::gateway(peer.address()));
    let service = Service::start(&relay);
    limit(&service, "--nofile=64");
    let mut first = Client::connect(service.smtp).expect("it listens");
    let connect = |_| TcpStream::connect(service.smtp).expect("in the queue of the socket");
    let mut others: Vec<_> = (0..200).map(connect).collect();
    // The pauses between them double: the fourth comes half a second after the first.
    let refusals = |log: &str| log.matches("no connection can be accepted at the moment").count();
    service.log.wait_for("the fourth refusal", |log| (refusals(log) >= 4).then_some(()));
    assert!(refusals(&service.log.text()) < 8, "{}", service.log.text());
    // Who has a session is served, though nothing can be sent on: that counts for nobody.
    assert!(first.submit(&["you@example.net"], &message("m")).expect("an answer"));
    service.log.wait_for("trouble of our own", |log| log.contains("no mail is taken up").then_some(()));
    // The last one waits in the socket until others are gone.
    let mut last = others.pop().expect("two hundred");
    drop(others);
    last.set_read_timeout(Some(LONG)).expect("set");
    last.read_exact(&mut [0; 4]).expect("a greeting");
    service.wait_until_settled();
    until("health is green", || service.get("/healthcheck").1["status"] == "healthy");
    assert_eq!(peer.copies_of("you@example.net", "<m@"), 1);
    let counted = relay.attempts().iter().filter(|attempt| attempt["counted"] == true).count();
    assert_eq!(counted, 1, "only the one that reached the peer");
    service.stop();
}

/// The most that the process has had in memory so far, in KiB.
fn peak_memory(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.child.id())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn large_messages_cost_memory_by_their_number_and_not_by_their_size() {
    const CLIENTS: usize = 20;
    const MEGABYTES: usize = 8;

    let relay = served(Setup::gateway(crate::support::refusing()).delivery("connectiontimeout: 100ms"));
    let service = Service::start(&relay);
    let before = peak_memory(&service);
    let block = "a line of the message, and then another one\r\n".repeat((1 << 20) / 45);
    std::thread::scope(|scope| {
        let send = |_| {
            let mut client = Client::connect(service.smtp).expect("it listens");
            for line in ["MAIL FROM:<me@example.org>", "RCPT TO:<you@example.net>", "DATA"] {
                client.say(line).expect("an answer");
            }
            for _ in 0..MEGABYTES {
                client.stream.get_mut().write_all(block.as_bytes()).expect("sent");
            }
            assert!(client.say(".").expect("an answer").starts_with("250 "));
        };
        (0..CLIENTS).for_each(|number| drop(scope.spawn(move || send(number))));
    });
    let grown = peak_memory(&service) - before;
    assert!(grown < 64 * 1024, "{grown} KiB for {CLIENTS} messages of {MEGABYTES} MiB");
    service.stop();
}

#[test]
fn two_hundred_sendmails_at_once_are_taken_or_told_to_come_again() {
    let peer = SmtpSink::start(Script::new());
    let relay = served(Setup::gateway(peer.address()));
    let service = Service::start(&relay);
    let submit = |number: usize| {
        let (to, text) = (format!("r{number}@example.net"), message(&format!("m{number}")));
        relay.spawn(&["sendmail", "-i", "-f", "me@example.org", &to], text.as_bytes())
    };
    let running: Vec<_> = (0..200).map(submit).collect();
    let codes: Vec<_> = running.into_iter().map(|running| running.wait().code).collect();
    until("all that was taken is attempted", || service.in_spool() == 0);
    service.stop();
    for (number, code) in codes.into_iter().enumerate() {
        let copies = peer.copies_of(&format!("r{number}@example.net"), &format!("<m{number}@"));
        assert!(matches!((code, copies), (Some(0), 1) | (Some(75), 0)), "{number}: {code:?}, {copies} copies");
    }
}

#[test]
fn clients_that_reset_the_connection_leave_no_descriptor_behind() {
    let relay = served(Setup::gateway(crate::support::refusing()));
    let service = Service::start(&relay);
    for _ in 0..500 {
        let mut stream = TcpStream::connect(service.smtp).expect("it listens");
        stream.write_all(b"EHLO x\r\nMAIL FROM:<>\r\n").expect("sent");
        // Closed with a linger of no time, the connection is reset.
        let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &at_once).expect("set");
    }
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", service.child.id())).expect("a process").count();
    until("their descriptors are closed", || descriptors() < 64);
    // Some may still wait in the socket, and their address has only so many sessions.
    let submit = || Client::connect(service.smtp)?.submit(&["you@example.net"], &message("m"));
    until("their slots are free", || submit().unwrap_or(false));
    service.stop();
}
