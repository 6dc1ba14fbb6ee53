//! The program under test with a configuration of its own in a temporary directory.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use redeliver::clock::Clock;
use redeliver::mail::{Address, Attributes, Envelope, HeaderScan, MailKey, NewMail, NewMessage, ReversePath};
use redeliver::store::{SqliteStore, Store};
use serde_json::Value;
use tempfile::TempDir;

use super::records::record_of;
use super::zones::Zones;

/// How long a command may run before it is killed and the test fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a run counts; see [`Finished::counts`].
pub(crate) const COUNTS: [&str; 6] = ["selected", "delivered", "deferred", "failed", "promoted", "errors"];

/// A configuration in the making: the shipped strategy, small numbers.
pub(crate) struct Setup {
    limit: u32,
    top: Vec<String>,
    delivery: Vec<String>,
    job: Vec<String>,
}

impl Setup {
    /// Routes by MX, asking these zones; MX hosts are reached at `port`.
    pub(crate) fn mx(zones: &Zones, port: u16) -> Self {
        let dns = format!("dns: {{ servers: [\"{}\"], timeout: 1s, attempts: 1 }}", zones.address());
        Self { limit: 3, top: vec![dns], delivery: vec![format!("port: {port}")], job: Vec::new() }
    }

    /// Routes everything to one or more gateways, as `gateway:` takes them.
    pub(crate) fn gateway(gateway: impl std::fmt::Display) -> Self {
        Self { limit: 3, top: Vec::new(), delivery: vec![format!("gateway: \"{gateway}\"")], job: Vec::new() }
    }

    /// Attempts until a mail is promoted; 3 without this.
    pub(crate) fn limit(mut self, attempts: u32) -> Self {
        self.limit = attempts;
        self
    }

    /// A line at the top level of the configuration.
    pub(crate) fn top(mut self, line: &str) -> Self {
        self.top.push(line.to_owned());
        self
    }

    /// A parameter of RemoteDelivery.
    pub(crate) fn delivery(mut self, line: &str) -> Self {
        self.delivery.push(line.to_owned());
        self
    }

    /// A line of job `retry-temporary`.
    pub(crate) fn job(mut self, line: &str) -> Self {
        self.job.push(line.to_owned());
        self
    }

    /// Writes it down.
    pub(crate) fn build(self) -> Relay {
        Relay::written(&[("redeliver.yaml", &self.configuration()), ("jobs/retry-temporary.yaml", &self.retry_job())])
    }

    fn configuration(&self) -> String {
        let mut top = self.top.join("\n");
        // What /etc/mailname says differs from host to host.
        if !self.top.iter().any(|line| line.starts_with("sendmail:")) {
            top.push_str("\nsendmail: { domain: relay.test }");
        }
        let limit = self.limit;
        let delivery = self.delivery.iter().fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "      {line}");
            text
        });
        format!(
            "hostname: relay.test
stateDirectory: ./var
stores: {{ sqlite: {{ path: redeliver.db }} }}
{top}
processors:
  relay:
    - match: AtMost={limit}
      mailet: RemoteDelivery
      maxRetries: 0
      bounceProcessor: remote-delivery-error
{delivery}    - match: All
      mailet: ToRepository
      repositoryPath: sqlite://var/mail/error/remote-delivery/permanent/
  remote-delivery-error:
    - match: AttemptsExhausted={limit}
      mailet: ToRepository
      repositoryPath: sqlite://var/mail/error/remote-delivery/permanent/
    - match: IsRemoteDeliveryTemporaryError
      mailet: ToRepository
      repositoryPath: sqlite://var/mail/error/remote-delivery/temporary/
    - match: IsRemoteDeliveryPermanentError
      mailet: ToRepository
      repositoryPath: sqlite://var/mail/error/remote-delivery/permanent/
    - match: All
      mailet: ToRepository
      repositoryPath: sqlite://var/mail/error/
"
        )
    }

    fn retry_job(&self) -> String {
        format!(
            "kind: reprocess
repository: sqlite://var/mail/error/remote-delivery/temporary/
processor: relay
{}
",
            self.job.join("\n")
        )
    }
}

/// A configured relay; its state lasts from command to command, and goes with it.
pub(crate) struct Relay {
    directory: TempDir,
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The exit code; `None` where a signal ended it.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
    /// How long it ran.
    pub(crate) elapsed: Duration,
}

impl Finished {
    /// Standard output as JSON Lines.
    pub(crate) fn json(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        self.stdout.lines().map(parse).collect()
    }

    /// The one line of a run's result: its counts, in the order of [`COUNTS`].
    pub(crate) fn counts(&self) -> [u64; 6] {
        let lines = self.json();
        assert_eq!(lines.len(), 1, "{self:?}");
        COUNTS.map(|name| lines[0][name].as_u64().unwrap_or_else(|| panic!("no {name}: {self:?}")))
    }

    /// Fails the test unless the exit code is this.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

impl Relay {
    /// With these files, each a path and its text; the first is `redeliver.yaml`.
    pub(crate) fn written(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for (path, text) in files {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().expect("in the directory")).expect("a directory");
            std::fs::write(path, text).expect("a file");
        }
        for folder in ["jobs", "schedules"] {
            std::fs::create_dir_all(directory.path().join(folder)).expect("a directory");
        }
        Self { directory }
    }

    /// Where configuration and state are.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The configuration file.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.path().join("redeliver.yaml")
    }

    /// `sendmail -bs`, not started yet.
    pub(crate) fn sendmail_bs(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_redeliver"));
        command.args(["sendmail", "-bs", "--config"]).arg(self.configuration()).current_dir(self.path());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn command(&self, arguments: &[&str]) -> Finished {
        self.command_with_input(arguments, b"")
    }

    /// Runs a command to its end with this on standard input.
    pub(crate) fn command_with_input(&self, arguments: &[&str], input: &[u8]) -> Finished {
        self.spawn(arguments, input).wait()
    }

    /// A command, not started yet.
    pub(crate) fn program(&self, arguments: &[&str]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_redeliver"));
        program.arg("--config").arg(self.configuration()).args(arguments);
        program.env_remove("REDELIVER_CONFIG").current_dir(self.path());
        program
    }

    /// Starts a command, for tests that do something to it while it runs.
    pub(crate) fn spawn(&self, arguments: &[&str], input: &[u8]) -> Running {
        let child = self
            .program(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program");
        Running::new(child, input.to_vec())
    }

    /// Changes the configuration file: every `from` becomes `to`.
    pub(crate) fn reconfigure(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.configuration()).expect("written");
        assert!(text.contains(from), "{from:?} is not in {text}");
        std::fs::write(self.configuration(), text.replace(from, to)).expect("a file");
    }

    /// Hands a mail in, as `sendmail` takes it.
    pub(crate) fn submit(&self, reverse_path: &str, recipients: &[&str], message: &str) {
        let arguments = [&["sendmail", "-i", "-f", reverse_path, "--"], recipients].concat();
        self.command_with_input(&arguments, message.as_bytes()).expect(0);
    }

    /// Puts a mail into the spool for each list of recipients, without a process for each:
    /// the n-th, from 0, has the Message-ID `<m{n}@example.org>`.
    pub(crate) fn fill<S: AsRef<str>>(&self, mails: impl IntoIterator<Item = Vec<S>>) {
        self.put(mails.into_iter().enumerate().map(|(n, recipients)| new_mail(n, &recipients)).collect());
    }

    /// The same from these senders, for one recipient.
    pub(crate) fn fill_from(&self, senders: impl IntoIterator<Item = String>, recipient: &str) {
        let sent_by = |(n, sender): (usize, String)| {
            let mut mail = new_mail(n, &[recipient]);
            mail.envelope.reverse_path = ReversePath::parse(&sender).expect("an address");
            mail
        };
        self.put(senders.into_iter().enumerate().map(sent_by).collect());
    }

    fn put(&self, mails: Vec<NewMail>) {
        // Whatever makes the store makes its repositories known.
        self.command(&["repository", "list"]).expect(0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(insert(&self.path().join("var/redeliver.db"), mails));
    }

    /// Takes what waits in the spool through its first pass.
    pub(crate) fn run_spool(&self) -> Finished {
        self.command(&["run", "spool", "--format", "json"])
    }

    /// Sweeps the temporary repository as if every mail were due.
    pub(crate) fn sweep(&self) -> Finished {
        self.command(&["run", "retry-temporary", "--now", "--format", "json"])
    }

    /// The mails of a repository.
    pub(crate) fn mails(&self, repository: &str) -> Vec<Value> {
        self.command(&["repository", "mails", repository, "--format", "json"]).expect(0).json()
    }

    /// One mail with its attributes and attempts.
    pub(crate) fn show(&self, repository: &str, key: &str) -> Value {
        self.command(&["repository", "show", repository, key, "--format", "json"]).expect(0).json().remove(0)
    }

    /// The only mail of a repository, with its attributes and attempts.
    pub(crate) fn show_only(&self, repository: &str) -> Value {
        let mails = self.mails(repository);
        assert_eq!(mails.len(), 1, "{repository}: {mails:#?}");
        self.show(repository, mails[0]["key"].as_str().expect("a key"))
    }

    /// How many mails a repository has.
    pub(crate) fn size(&self, repository: &str) -> usize {
        self.mails(repository).len()
    }

    /// The record of all attempts, oldest first.
    pub(crate) fn attempts(&self) -> Vec<Value> {
        self.command(&["attempts", "--format", "json"]).expect(0).json()
    }

    /// The record of the only recipient of the only attempt.
    pub(crate) fn only_record(&self) -> Value {
        let attempts = self.attempts();
        assert_eq!(attempts.len(), 1, "{attempts:#?}");
        attempts[0]["recipients"][0].clone()
    }

    /// The record of this recipient in the oldest attempt that has him.
    pub(crate) fn record_of(&self, recipient: &str) -> Value {
        record_of(&self.attempts(), recipient).unwrap_or_else(|| panic!("{recipient} has no record")).clone()
    }
}

fn new_mail(n: usize, recipients: &[impl AsRef<str>]) -> NewMail {
    let message = super::message(&format!("m{n}")).replace('\n', "\r\n");
    let mut scan = HeaderScan::default();
    scan.push(message.as_bytes());
    let recipients = recipients.iter().map(|text| Address::parse(text.as_ref()).expect("an address")).collect();
    NewMail {
        key: MailKey::new(Clock::system().now(), n as u64),
        name: format!("m{n}"),
        envelope: Envelope::new(ReversePath::parse("me@example.org").expect("an address"), recipients),
        client: None,
        state: "relay".to_owned(),
        attributes: Attributes::default(),
        message: NewMessage::Whole(message.into()),
        facts: scan.finish().expect("a message"),
        import_digest: None,
    }
}

/// All at once, so that the store commits many together; they are accepted in their order.
async fn insert(database: &Path, mails: Vec<NewMail>) {
    let store = SqliteStore::open(database, "test", &Clock::system()).expect("the store");
    let store: std::sync::Arc<dyn Store> = std::sync::Arc::new(store);
    let mut inserted = tokio::task::JoinSet::new();
    for mail in mails {
        let store = std::sync::Arc::clone(&store);
        inserted.spawn(async move { store.insert(mail).await });
    }
    while let Some(result) = inserted.join_next().await {
        result.expect("no panic").expect("inserted");
    }
    store.close().await.expect("closed");
}

/// A command under way. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    started: Instant,
    output: mpsc::Receiver<(Channel, Vec<u8>)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Channel {
    Stdout,
    Stderr,
}

impl Running {
    fn new(mut child: Child, input: Vec<u8>) -> Self {
        let (sender, output) = mpsc::channel();
        let mut stdin = child.stdin.take().expect("piped");
        // A command that does not read it all closes the pipe; that is its right.
        std::thread::spawn(move || drop(stdin.write_all(&input)));
        collect(child.stdout.take().expect("piped"), Channel::Stdout, sender.clone());
        collect(child.stderr.take().expect("piped"), Channel::Stderr, sender);
        Self { child, started: Instant::now(), output }
    }

    /// The process's number, for signals.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("our own child");
    }

    /// Waits for the end; kills it and fails the test after a minute.
    pub(crate) fn wait(mut self) -> Finished {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            match self.output.recv_timeout(PATIENCE.saturating_sub(self.started.elapsed())) {
                Ok((Channel::Stdout, octets)) => stdout = octets,
                Ok((Channel::Stderr, octets)) => stderr = octets,
                Err(error) => panic!("the command still runs after {PATIENCE:?}: {error}"),
            }
        }
        let code = self.child.wait().expect("our own child").code();
        let text = |octets: Vec<u8>| String::from_utf8(octets).expect("output is UTF-8");
        Finished { code, stdout: text(stdout), stderr: text(stderr), elapsed: self.started.elapsed() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After a wait there is nothing left to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut from: impl Read + Send + 'static, channel: Channel, to: mpsc::Sender<(Channel, Vec<u8>)>) {
    std::thread::spawn(move || {
        let mut octets = Vec::new();
        // What was read before an error is shown all the same.
        let _ = from.read_to_end(&mut octets);
        let _ = to.send((channel, octets));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_configuration_is_what_was_asked_for() {
        let zones = Zones::start("x.example MX 0 .");
        let relay = Setup::mx(&zones, 2526).limit(2).delivery("timeout: 2s").top("log: { level: warn }").build();
        let text = std::fs::read_to_string(relay.configuration()).expect("written");
        let yaml: Value = serde_yaml::from_str(&text).expect("YAML");
        let delivery = &yaml["processors"]["relay"][0];
        assert_eq!((&delivery["port"], &delivery["timeout"]), (&2526.into(), &"2s".into()));
        assert_eq!(delivery["match"], "AtMost=2");
        assert_eq!(yaml["dns"]["servers"][0], zones.address().to_string());
        assert_eq!(yaml["log"]["level"], "warn");
    }

    #[test]
    fn a_command_is_run_to_its_end_with_its_output() {
        let relay = Setup::gateway("127.0.0.2:25").job("limit: 5").build();
        let finished = relay.command(&["check"]).expect(0);
        assert!(finished.elapsed < PATIENCE, "{finished:?}");
        assert!(
            std::fs::read_to_string(relay.path().join("jobs/retry-temporary.yaml"))
                .expect("written")
                .contains("limit: 5")
        );
    }
}
