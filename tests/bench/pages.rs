//! First pages in a browser, as a running service gives them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::Outcome;
use super::measure::median;
use super::table::{Table, Value};

/// Octets of a page at most.
const LARGEST: usize = 50_000;

const PAGES: [(&str, &str); 10] = [
    ("overview", "/ui/"),
    ("mails of a repository", "/ui/repositories/temporary"),
    ("mails of a domain", "/ui/repositories/temporary?domain=x.example&code=451"),
    ("causes", "/ui/groups"),
    ("attempts", "/ui/attempts"),
    ("attempts of a recipient", "/ui/attempts?recipient=refused%40x.example"),
    ("jobs", "/ui/jobs"),
    ("next hops", "/ui/peers"),
    ("operations", "/ui/operations"),
    ("tasks", "/ui/tasks"),
];

/// A running service, ended when this goes.
struct Service {
    child: Child,
    address: SocketAddr,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long each first page takes; one that is too large is an error.
pub(crate) fn measure(program: &Path, directory: &Path, table: &mut Table) -> Outcome<()> {
    let service = Service::start(program, directory)?;
    for (name, path) in PAGES {
        service.add(table, name, path)?;
    }
    let groups = service.get("/ui/groups")?;
    let group = groups.split("href=\"/ui/groups/").nth(1).and_then(|rest| rest.split(['"', '?']).next());
    service.add(table, "one cause", &format!("/ui/groups/{}", group.ok_or("no cause")?))
}

impl Service {
    fn start(program: &Path, directory: &Path) -> Outcome<Self> {
        let mut command = Command::new(program);
        command.arg("serve").current_dir(directory).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let mut lines = BufReader::new(child.stderr.take().ok_or("no standard error")?).lines();
        let address = lines.find_map(|line| {
            let line = line.ok()?;
            line.split_once("listening for HTTP on ")?.1.split_whitespace().next()?.parse().ok()
        });
        let service = Self { child, address: address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))) };
        std::thread::spawn(move || lines.for_each(drop));
        if address.is_some() { Ok(service) } else { Err("the service does not listen".into()) }
    }

    fn add(&self, table: &mut Table, name: &str, path: &str) -> Outcome<()> {
        let time = median(5, || {
            let started = Instant::now();
            let page = self.get(path)?;
            let taken = started.elapsed();
            if page.len() > LARGEST { Err(format!("{path} has {} octets", page.len()).into()) } else { Ok(taken) }
        })?;
        table.add(&format!("page: {name}"), Value::Time(time));
        Ok(())
    }

    fn get(&self, path: &str) -> Outcome<String> {
        let mut stream = TcpStream::connect(self.address)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.starts_with("HTTP/1.1 200 ") { Ok(answer) } else { Err(format!("{path}: {answer}").into()) }
    }
}
