//! Start and end.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{LONG, Service, served, spawn, until};
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, on, script, stall, wait};

/// For what only a machine without a free moment keeps waiting.
const VERY_LONG: Duration = Duration::from_mins(2);

/// The words of a service that does not start; it must end with `code`.
fn refused(relay: &Relay, code: i32) -> String {
    let (mut child, log) = spawn(relay, &[]);
    let begun = Instant::now();
    while child.try_wait().expect("our own child").is_none() {
        assert!(begun.elapsed() < LONG, "it runs");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(child.wait().expect("our own child").code(), Some(code), "{}", log.text());
    log.wait_for("the reason", |text| text.lines().find(|line| line.starts_with("redeliver: ")).map(str::to_owned))
}

#[test]
fn what_comes_in_over_smtp_goes_out_at_once() {
    let peer = SmtpSink::start(Script::new());
    let relay = served(Setup::gateway(peer.address()));
    let service = Service::start(&relay);
    assert_eq!(service.get("/healthcheck").0, 200);
    let begun = Instant::now();
    service.submit(&["you@example.net"], "m");
    peer.wait_for_transactions(1);
    assert!(begun.elapsed() < Duration::from_millis(1500), "at once, not at the next look: {:?}", begun.elapsed());
    service.wait_until_settled();
    service.stop();
    assert_eq!(relay.attempts()[0]["state"], "settled");
}

#[test]
fn what_other_processes_put_into_the_spool_is_found() {
    let peer = SmtpSink::start(Script::new());
    let relay = served(Setup::gateway(peer.address()));
    let service = Service::start(&relay);
    relay.submit("me@example.org", &["you@example.net"], "Subject: s\n\nb\n");
    let begun = Instant::now();
    peer.wait_for_transactions(1);
    // Two seconds are promised; the rest is for a busy machine.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    service.stop();
}

#[test]
fn a_second_service_is_refused_and_told_whose_process_is_there() {
    let relay = served(Setup::gateway("127.0.0.2:25"));
    let service = Service::start(&relay);
    let line = refused(&relay, 69);
    assert!(line.contains(&service.child.id().to_string()) && line.contains("redeliver.db"), "{line}");
    service.kill();
    Service::start(&relay).stop();
}

#[test]
fn a_port_that_is_taken_is_named() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = other.local_addr().expect("bound").to_string();
    for (smtp, admin) in [(taken.as_str(), "127.0.0.1:0"), ("127.0.0.1:0", &taken)] {
        let relay = Setup::gateway("127.0.0.2:25")
            .top(&format!("smtp: {{ listen: [\"{smtp}\"] }}\nadmin: {{ listen: \"{admin}\" }}"))
            .build();
        let line = refused(&relay, 69);
        assert!(line.contains(&taken), "{line}");
    }
}

#[test]
fn a_store_that_cannot_be_opened_is_named() {
    let relay = served(Setup::gateway("127.0.0.2:25"));
    std::fs::create_dir_all(relay.path().join("var/redeliver.db")).expect("a directory in its place");
    let line = refused(&relay, 73);
    assert!(line.contains("var/redeliver.db"), "{line}");
}

/// What systemd is told next; nothing within `time`.
fn next_word(socket: &UnixDatagram, time: Duration) -> Option<String> {
    let begun = Instant::now();
    let mut octets = [0; 512];
    loop {
        let left = time.checked_sub(begun.elapsed()).filter(|left| !left.is_zero())?;
        socket.set_read_timeout(Some(left)).expect("set");
        match socket.recv(&mut octets) {
            Ok(length) => return Some(String::from_utf8_lossy(&octets[..length]).trim().to_owned()),
            // With a time limit a signal to any thread ends it, SA_RESTART or not (signal(7)).
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// What systemd would be told, up to `last`.
fn told(socket: &UnixDatagram, last: &str) -> Vec<String> {
    let mut told = Vec::new();
    while told.last().is_none_or(|line: &String| !line.contains(last)) {
        let word = next_word(socket, VERY_LONG);
        told.push(word.unwrap_or_else(|| panic!("no {last} after {told:?}")));
    }
    told
}

#[test]
fn systemd_is_told_of_every_step_and_the_watchdog_is_fed() {
    let relay = served(Setup::gateway("127.0.0.2:25"));
    let path = relay.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("bound");
    let environment = [("NOTIFY_SOCKET", path.to_str().expect("a path")), ("WATCHDOG_USEC", "1500000")];
    let service = Service::start_with(&relay, &environment);
    told(&socket, "READY=1");
    assert_eq!(service.get("/healthcheck").0, 200, "ready means ready");
    for _ in 0..3 {
        told(&socket, "WATCHDOG=1");
    }
    service.signal(Signal::SIGHUP);
    let reloading = told(&socket, "RELOADING=1");
    assert!(reloading.last().expect("a line").contains("MONOTONIC_USEC="), "{reloading:?}");
    told(&socket, "READY=1");
    service.signal(Signal::SIGSTOP);
    // What was sent before it stood still.
    while next_word(&socket, Duration::from_millis(1200)).is_some() {}
    service.signal(Signal::SIGCONT);
    told(&socket, "WATCHDOG=1");
    service.signal(Signal::SIGTERM);
    told(&socket, "STOPPING=1");
}

#[test]
fn systemd_is_told_over_a_socket_without_a_file_too() {
    let relay = served(Setup::gateway("127.0.0.2:25"));
    let name = format!("redeliver-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let socket = UnixDatagram::bind_addr(&address).expect("bound");
    let service = Service::start_with(&relay, &[("NOTIFY_SOCKET", &format!("@{name}"))]);
    told(&socket, "READY=1");
    service.stop();
    let service = Service::start_with(&relay, &[("NOTIFY_SOCKET", "/nowhere/notify")]);
    service.log.wait_for("a warning", |text| text.contains("systemd cannot be told").then_some(()));
    service.stop();
}

#[test]
fn an_idle_service_ends_within_two_seconds() {
    let relay = served(Setup::gateway("127.0.0.2:25"));
    let service = Service::start(&relay);
    // A client that says nothing does not hold it up either.
    let _idle = super::Client::connect(service.smtp).expect("it listens");
    let begun = Instant::now();
    service.stop();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn sessions_under_way_at_the_end_have_their_time() {
    let peer = SmtpSink::start(script!["DATA" => wait(Duration::from_millis(1500)).then("354 go on")]);
    let relay = served(Setup::gateway(peer.address()));
    let service = Service::start(&relay);
    service.submit(&["you@example.net"], "m");
    peer.wait_until("DATA", |seen| seen.connections.iter().any(|c| c.commands.iter().any(|(_, l)| l == "DATA")));
    service.stop();
    assert_eq!(peer.copies_of("you@example.net", "<m@"), 1);
    assert_eq!(relay.attempts()[0]["recipients"][0]["outcome"], "delivered");
}

#[test]
fn what_takes_longer_than_the_shutdown_timeout_is_given_up_in_doubt() {
    let peer = SmtpSink::start(script![on(".") => stall()]);
    let relay = served(Setup::gateway(peer.address()).top("shutdownTimeout: 1s"));
    let service = Service::start(&relay);
    service.submit(&["you@example.net"], "m");
    peer.wait_for_transactions(1);
    let begun = Instant::now();
    service.stop();
    assert!(begun.elapsed() > Duration::from_millis(900) && begun.elapsed() < Duration::from_secs(8));
    assert_eq!(relay.mails("temporary").len(), 1, "deferred");
    let recipient = &relay.attempts()[0]["recipients"][0];
    assert!(recipient["cause"].as_str().is_some_and(|cause| cause.contains("in doubt")), "{recipient}");
}

#[test]
fn a_second_sigterm_gives_up_at_once() {
    let peer = SmtpSink::start(script!["RCPT" => stall()]);
    let relay = served(Setup::gateway(peer.address()));
    let mut service = Service::start(&relay);
    service.submit(&["you@example.net"], "m");
    peer.wait_until("RCPT", |seen| {
        seen.connections.iter().any(|c| c.commands.iter().any(|(_, l)| l.starts_with("RCPT")))
    });
    let begun = Instant::now();
    service.signal(Signal::SIGTERM);
    service.log.wait_for("the first", |text| text.contains("sessions under way may end").then_some(()));
    assert!(service.child.try_wait().expect("our own child").is_none(), "it waits for the peer");
    service.signal(Signal::SIGTERM);
    assert_eq!(service.wait(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(relay.mails("temporary").len(), 1);
}

#[test]
fn one_shot_commands_work_beside_it() {
    let peer = SmtpSink::start(script![on("RCPT").times(1) => "451 4.2.0 later"]);
    let relay = served(Setup::gateway(peer.address()));
    let service = Service::start(&relay);
    service.submit(&["you@example.net"], "m");
    until("it is kept", || relay.mails("temporary").len() == 1);
    relay.sweep().expect(0);
    assert_eq!(peer.copies_of("you@example.net", "<m@"), 1);
    relay.submit("me@example.org", &["you@example.net"], "Subject: s\n\nb\n");
    peer.wait_for_transactions(2);
    service.stop();
}

/// A script that rotates logs sends them to whatever daemon there is.
#[test]
fn signals_of_other_daemons_do_nothing() {
    let peer = SmtpSink::start(Script::new());
    let relay = served(Setup::gateway(peer.address()));
    let service = Service::start(&relay);
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
        service.signal(signal);
    }
    service.submit(&["you@example.net"], "m");
    peer.wait_for_transactions(1);
    service.wait_until_settled();
    service.stop();
}
