//! The service as a real process: its start and end, its schedules, its spool, and what
//! becomes of mail when it is killed or in trouble.

mod bulk;
mod cancelled;
mod corpus;
mod lifecycle;
mod logs;
mod page;
mod page_record;
mod pressure;
mod reload;
mod round;
mod scheduled;
mod sockets;
mod spool;
mod survival;
mod suspects;
mod trace;
mod trouble;
mod users;
mod webadmin;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::relay::{Relay, Setup};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(40);

/// Listeners on free ports, at addresses of this test's own.
const LISTENERS: [&str; 2] = ["smtp: { listen: [\"127.0.0.1:0\"] }", "admin: { listen: \"127.0.0.1:0\" }"];

/// A relay for a service that listens on free ports.
fn served(setup: Setup) -> Relay {
    LISTENERS.iter().fold(setup, |setup, line| setup.top(line)).build()
}

/// Writes a schedule of job `retry-temporary`, or another one.
fn write_schedule(relay: &Relay, name: &str, text: &str) {
    std::fs::write(relay.path().join(format!("schedules/{name}.yaml")), text).expect("written");
}

/// A running service. Dropping it kills it.
struct Service {
    child: Child,
    log: Arc<Log>,
    smtp: SocketAddr,
    admin: SocketAddr,
}

/// What it wrote to standard error so far.
#[derive(Default)]
struct Log {
    text: Mutex<String>,
    grown: Condvar,
}

impl Log {
    /// Waits for text that `pick` finds something in.
    fn wait_for<T>(&self, what: &str, pick: impl Fn(&str) -> Option<T>) -> T {
        let begun = Instant::now();
        let mut text = self.text.lock().expect("no thread panics with it");
        loop {
            if let Some(found) = pick(&text) {
                return found;
            }
            assert!(begun.elapsed() < LONG, "waited in vain for {what}:\n{text}");
            text = self.grown.wait_timeout(text, Duration::from_millis(200)).expect("no thread panics with it").0;
        }
    }

    fn text(&self) -> String {
        self.text.lock().expect("no thread panics with it").clone()
    }
}

/// Starts the program with these words, its log kept; it may end at once.
fn spawn(relay: &Relay, environment: &[(&str, &str)]) -> (Child, Arc<Log>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_redeliver"))
        .arg("--config")
        .arg(relay.configuration())
        .arg("serve")
        .env_remove("REDELIVER_CONFIG")
        .env_remove("NOTIFY_SOCKET")
        .envs(environment.iter().copied())
        .current_dir(relay.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    let log = Arc::new(Log::default());
    let (lines, kept) = (BufReader::new(child.stderr.take().expect("piped")), Arc::clone(&log));
    std::thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            let _ = writeln!(kept.text.lock().expect("no thread panics with it"), "{line}");
            kept.grown.notify_all();
        }
    });
    (child, log)
}

impl Service {
    fn start(relay: &Relay) -> Self {
        Self::start_with(relay, &[])
    }

    /// Returns once both listeners are open.
    fn start_with(relay: &Relay, environment: &[(&str, &str)]) -> Self {
        let (child, log) = spawn(relay, environment);
        let address = |text: &str, what: &str| {
            let behind = text.split_once(what)?.1;
            // A quote ends it in JSON.
            behind.split([' ', '"', '\n']).next()?.parse().ok()
        };
        let smtp = log.wait_for("SMTP", |text| address(text, "listening for SMTP on "));
        let admin = log.wait_for("HTTP", |text| address(text, "listening for HTTP on "));
        Self { child, log, smtp, admin }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("our own child");
    }

    /// Waits for the end; the exit code.
    fn wait(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return status.code();
            }
            assert!(begun.elapsed() < LONG, "it still runs:\n{}", self.log.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGTERM, and the end in order.
    fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.wait(), Some(0), "{}", self.log.text());
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    /// GET, with what Host header clients send; status and body.
    fn get(&self, path: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.admin).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.admin).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}")))
    }

    /// The status of one health check, and its cause.
    fn health(&self, check: &str) -> (String, Value) {
        let (_, body) = self.get(&format!("/healthcheck/checks/{check}"));
        (body["status"].as_str().expect("a word").to_owned(), body["cause"].clone())
    }

    /// Mails that are not settled.
    fn in_spool(&self) -> u64 {
        self.get("/mailQueues/spool").1["size"].as_u64().expect("a number")
    }

    /// However many they are, as long as they become fewer.
    fn wait_until_settled(&self) {
        let (mut least, mut since) = (u64::MAX, Instant::now());
        while least > 0 {
            let size = self.in_spool();
            if size < least {
                (least, since) = (size, Instant::now());
            }
            assert!(since.elapsed() < LONG, "{size} mails are not settled:\n{}", self.log.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Hands a mail in over SMTP.
    fn submit(&self, recipients: &[&str], id: &str) {
        let mut client = Client::connect(self.smtp).expect("it listens");
        assert!(client.submit(recipients, &message(id)).expect("it answers"), "it is taken");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // After an end there is nothing left to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again until it is so; fails the test after a while.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LONG, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A small message with this Message-ID, as it goes over the wire.
fn message(id: &str) -> String {
    format!("From: me@example.org\r\nSubject: a test\r\nMessage-ID: <{id}@example.org>\r\n\r\nHello.\r\n")
}

/// A simple client: one session, one command after the other.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(LONG))?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream: BufReader::new(stream) };
        client.reply()?;
        client.say("EHLO client.example")?;
        Ok(client)
    }

    fn reply(&mut self) -> std::io::Result<String> {
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line);
            }
        }
    }

    fn say(&mut self, line: &str) -> std::io::Result<String> {
        self.stream.get_mut().write_all(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    /// Whether the mail was taken; an error where it is not known.
    fn submit(&mut self, recipients: &[&str], message: &str) -> std::io::Result<bool> {
        let mut lines = vec!["MAIL FROM:<me@example.org>".to_owned()];
        lines.extend(recipients.iter().map(|recipient| format!("RCPT TO:<{recipient}>")));
        for line in lines {
            if !self.say(&line)?.starts_with('2') {
                self.say("RSET")?;
                return Ok(false);
            }
        }
        if !self.say("DATA")?.starts_with('3') {
            return Ok(false);
        }
        Ok(self.say(&format!("{message}."))?.starts_with('2'))
    }
}
