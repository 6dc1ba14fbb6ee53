//! A service with many stored failures: what lists, counts and scrapes cost, and how long a client
//! waits for its 250 while something is done to all of them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Outcome;
use super::measure::median;
use super::site::Site;
use super::table::{Table, Value};

/// Messages whose 250 is waited for while something goes on.
const MESSAGES: usize = 1000;

/// Mails that a purge over HTTP removes.
pub(crate) const PURGED: u64 = 100_000;

/// Where the mails of the bench rest, as a path has it.
const TEMPORARY: &str = "/mailRepositories/temporary/mails";

/// A running service. Dropping it kills it.
struct Service {
    child: Child,
    smtp: String,
    admin: String,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    fn start(program: &Path, directory: &Path) -> Outcome<Self> {
        let mut child = Command::new(program).arg("serve").current_dir(directory).stderr(Stdio::piped()).spawn()?;
        let mut log = BufReader::new(child.stderr.take().ok_or("no log")?);
        let mut address = |what: &str| -> Outcome<String> {
            loop {
                let mut line = String::new();
                if log.read_line(&mut line)? == 0 {
                    return Err(format!("it ended before it said {what}").into());
                }
                if let Some((_, behind)) = line.split_once(what) {
                    return Ok(behind.split([' ', '"', '\n']).next().unwrap_or_default().to_owned());
                }
            }
        };
        let (smtp, admin) = (address("SMTP on ")?, address("HTTP on ")?);
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Ok(Self { child, smtp, admin })
    }

    /// The body of an answer.
    fn ask(&self, method: &str, path: &str, body: &str) -> Outcome<String> {
        let mut stream = TcpStream::connect(&self.admin)?;
        let (host, length) = (&self.admin, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n");
        stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no head")?;
        if head.split(' ').nth(1).is_some_and(|status| status.starts_with('2')) {
            return Ok(body.to_owned());
        }
        Err(format!("{method} {path}: {answer}").into())
    }

    fn time(&self, table: &mut Table, name: &str, method: &str, path: &str) -> Outcome<()> {
        let taken = median(5, || {
            let started = Instant::now();
            self.ask(method, path, "")?;
            Ok(started.elapsed())
        })?;
        table.add(name, Value::Time(taken));
        Ok(())
    }

    /// The most memory it has had.
    fn memory(&self) -> Outcome<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// The 99th of a hundred times between the final dot and its 250, of one client that sends
    /// mail after mail.
    fn intake(&self) -> Outcome<Duration> {
        let mut stream = TcpStream::connect(&self.smtp)?;
        stream.set_nodelay(true)?;
        let mut replies = BufReader::new(stream.try_clone()?);
        let mut say = |text: &str| -> Outcome<String> {
            stream.write_all(text.as_bytes())?;
            loop {
                let mut line = String::new();
                if replies.read_line(&mut line)? == 0 {
                    return Err("the connection ended".into());
                }
                if line.as_bytes().get(3) != Some(&b'-') {
                    return Ok(line);
                }
            }
        };
        say("")?;
        say("EHLO bench.example\r\n")?;
        let mut times = Vec::new();
        for _ in 0..MESSAGES {
            say("MAIL FROM:<a@sender.example>\r\n")?;
            say("RCPT TO:<later@x.example>\r\n")?;
            say("DATA\r\n")?;
            let started = Instant::now();
            let taken = say(&format!("Subject: s\r\n\r\n{}.\r\n", "a line of text\r\n".repeat(60)))?;
            if !taken.starts_with("250") {
                return Err(taken.into());
            }
            times.push(started.elapsed());
        }
        times.sort_unstable();
        Ok(times[times.len() * 99 / 100])
    }

    /// Intake while a task goes on, which is cancelled after that; how much it had done.
    fn intake_beside(&self, table: &mut Table, name: &str, (method, path, body): (&str, &str, &str)) -> Outcome<()> {
        let task = self.ask(method, path, body)?;
        let id = task.split('"').nth(3).ok_or("no task")?;
        table.add(&format!("p99 of 250 while {name}"), Value::Time(self.intake()?));
        let asked = Instant::now();
        self.ask("DELETE", &format!("/tasks/{id}"), "")?;
        let ended = self.ask("GET", &format!("/tasks/{id}/await?timeout=60"), "")?;
        table.add(&format!("{name}: time to stop"), Value::Time(asked.elapsed()));
        let part = |name: &str| {
            ended
                .split(&format!("\"{name}\":"))
                .nth(1)
                .and_then(|text| text.split([',', '}']).next().map(str::to_owned))
        };
        eprintln!("    {:?} of {:?} left, {:?}", part("remainingCount"), part("initialCount"), part("status"));
        Ok(())
    }
}

impl Service {
    /// What is left of the old ones, with nothing beside it.
    fn purge(&self, table: &mut Table) -> Outcome<()> {
        let left = self.ask("GET", "/mailRepositories/permanent", "")?;
        let begun = Instant::now();
        let task = self.ask("POST", "/jobs/purge-permanent/run", "")?;
        let id = task.split('"').nth(3).ok_or("no task")?;
        self.ask("GET", &format!("/tasks/{id}/await?timeout=600"), "")?;
        table.add("the rest is purged over HTTP", Value::Time(begun.elapsed()));
        eprintln!("    of {left}");
        Ok(())
    }
}

/// Measures a site.
pub(crate) fn measure(site: &Site, table: &mut Table) -> Outcome<()> {
    let service = Service::start(site.program(), site.path())?;
    for (name, path) in [
        ("first 100 keys", format!("{TEMPORARY}?limit=100")),
        ("100 keys behind half of them", format!("{TEMPORARY}?limit=100&offset={}", site.stored() / 2)),
        ("100 keys of one code", format!("{TEMPORARY}?limit=100&code=452")),
        ("a sender that nobody is", format!("{TEMPORARY}?limit=100&sender=nobody%40x.example")),
        ("first page of attempts", "/attempts".to_owned()),
        ("failure groups", "/groups".to_owned()),
        ("tasks", "/tasks".to_owned()),
        ("scrape", "/metrics".to_owned()),
    ] {
        service.time(table, name, "GET", &path)?;
    }
    let group = site.small_group()?;
    service.time(table, "100 keys of a group", "GET", &format!("{TEMPORARY}?limit=100&group={group}"))?;
    for (name, query) in [("dry run of all", String::new()), ("dry run of a group", format!("&group={group}"))] {
        let path = format!("{TEMPORARY}?action=reprocess&processor=relay&dryRun=true{query}");
        service.time(table, name, "PATCH", &path)?;
    }
    table.add("metrics", Value::Time(site.run(&["metrics"])?.time));
    service.ask("PUT", "/mailRepositories/var%2Fkept?protocol=sqlite", "")?;
    // The first ones find nothing in memory.
    service.intake()?;
    table.add("p99 of 250 alone", Value::Time(service.intake()?));
    for (name, method, path, body) in [
        ("all move", "PATCH", TEMPORARY.to_owned(), "{\"mailRepository\": \"var/kept\"}"),
        ("old ones are purged", "POST", "/jobs/purge-permanent/run".to_owned(), ""),
        ("a filter looks at all", "DELETE", format!("{TEMPORARY}?sender=nobody%40x.example"), ""),
        ("all are removed", "DELETE", "/mailRepositories/var%2Fkept/mails".to_owned(), ""),
        ("all are reprocessed", "PATCH", format!("{TEMPORARY}?action=reprocess&processor=relay"), ""),
    ] {
        service.intake_beside(table, name, (method, &path, body))?;
    }
    table.add("p99 of 250 alone, at the end", Value::Time(service.intake()?));
    service.purge(table)?;
    table.add("memory of the service", Value::Bytes(service.memory()?));
    Ok(())
}
