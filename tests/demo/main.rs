//! Three messages on their way through redeliver, against a peer that this program starts
//! and stops itself: one is delivered, one is deferred and then delivered by a sweep, one is
//! refused and shown in the permanent repository with its dialogue.
//!
//! `cargo run --example demo`. Nothing leaves this machine, and nothing stays behind.

#[path = "../it/support/sink/mod.rs"]
mod sink;

use std::error::Error;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};

use serde_json::Value;
use sink::{Script, SmtpSink, on, script};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match demonstrate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demonstrate() -> Outcome<()> {
    let peer = SmtpSink::start(script![
        on("RCPT TO:<later@").times(1) => "451 4.7.1 greylisted, come back later",
        "RCPT TO:<nobody@" => "550 5.1.1 no such user here",
    ]);
    let relay = Relay::configure(&peer)?;
    say(&format!("A remote host listens at {}. It defers later@ once and refuses nobody@.", peer.address()));
    for recipient in ["someone@remote.example", "later@remote.example", "nobody@remote.example"] {
        relay.submit(recipient)?;
    }

    say("The first pass: each mail is tried once.");
    relay.show(&["run", "spool"])?;
    relay.show(&["repository", "list"])?;

    say("The sweep that a schedule would run: what was deferred is tried once more.");
    relay.show(&["run", "retry-temporary", "--now"])?;

    say("What was refused is kept, with all that was said.");
    relay.show(&["repository", "mails", "permanent"])?;
    let key = relay.first_key("permanent")?;
    relay.show(&["repository", "show", "permanent", &key])?;
    relay.show(&["attempts"])?;

    check(&peer)
}

/// Whether the peer saw what the text above says.
fn check(peer: &SmtpSink) -> Outcome<()> {
    let recipients: Vec<_> = peer.transactions().into_iter().flat_map(|transaction| transaction.recipients).collect();
    say(&format!("The remote host took mail for: {}.", recipients.join(", ")));
    if recipients != ["someone@remote.example", "later@remote.example"] {
        return Err("that is not as it should be".into());
    }
    match peer.violations().first() {
        Some(violation) => Err(format!("the remote host saw a breach of protocol: {violation}").into()),
        None => Ok(()),
    }
}

/// The program with a configuration in a directory that goes when this does.
struct Relay {
    program: PathBuf,
    directory: tempfile::TempDir,
}

impl Relay {
    fn configure(peer: &SmtpSink) -> Outcome<Self> {
        let directory = tempfile::tempdir()?;
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text);
        write("redeliver.yaml", &CONFIGURATION.replace("GATEWAY", &peer.address().to_string()))?;
        for name in ["jobs", "schedules"] {
            std::fs::create_dir(directory.path().join(name))?;
        }
        write("jobs/retry-temporary.yaml", JOB)?;
        Ok(Self { program: build()?, directory })
    }

    fn submit(&self, recipient: &str) -> Outcome<()> {
        let arguments = ["sendmail", "-i", "-f", "operator@here.example", recipient];
        println!("$ redeliver {}", arguments.join(" "));
        let message = format!("To: {recipient}\nSubject: a demonstration\n\nHello.\n");
        let output = self.run(&arguments, message.as_bytes())?;
        if output.status.success() { Ok(()) } else { Err(format!("sendmail: {}", output.status).into()) }
    }

    /// Runs a command and shows what it says. Exit codes 69 and 75 are news of mail, not trouble.
    fn show(&self, arguments: &[&str]) -> Outcome<()> {
        println!("$ redeliver {}", arguments.join(" "));
        let output = self.run(arguments, b"")?;
        println!("{}", String::from_utf8_lossy(&output.stdout));
        match output.status.code() {
            Some(0 | 69 | 75) => Ok(()),
            _ => Err(format!("{}: {}", arguments.join(" "), output.status).into()),
        }
    }

    fn first_key(&self, repository: &str) -> Outcome<String> {
        let output = self.run(&["repository", "mails", repository, "--format", "json"], b"")?;
        let first = String::from_utf8(output.stdout)?.lines().next().map(str::to_owned);
        let mail: Value = serde_json::from_str(&first.ok_or("the repository is empty")?)?;
        Ok(mail["key"].as_str().ok_or("a mail without key")?.to_owned())
    }

    fn run(&self, arguments: &[&str], input: &[u8]) -> Outcome<Output> {
        let mut child = Command::new(&self.program)
            .arg("--config")
            .arg(self.directory.path().join("redeliver.yaml"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that reads no input closes the pipe; that is its right.
            let _ = stdin.write_all(input);
        }
        Ok(child.wait_with_output()?)
    }
}

/// Builds the program beside this one, which `cargo run --example` alone does not.
fn build() -> Outcome<PathBuf> {
    let examples = std::env::current_exe()?;
    let profile = examples.parent().and_then(Path::parent).ok_or("this program lies in no target directory")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--bin", "redeliver"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile.ends_with("release") {
        build.arg("--release");
    }
    if build.status()?.success() { Ok(profile.join("redeliver")) } else { Err("the program could not be built".into()) }
}

fn say(text: &str) {
    println!("\n== {text}\n");
}

const CONFIGURATION: &str = r#"hostname: relay.here.example
stateDirectory: ./var
stores: { sqlite: { path: redeliver.db } }
processors:
  relay:
    - match: AtMost=3
      mailet: RemoteDelivery
      maxRetries: 0
      gateway: "GATEWAY"
      bounceProcessor: remote-delivery-error
    - match: All
      mailet: ToRepository
      repositoryPath: sqlite://var/mail/error/remote-delivery/permanent/
  remote-delivery-error:
    - match: IsRemoteDeliveryTemporaryError
      mailet: ToRepository
      repositoryPath: sqlite://var/mail/error/remote-delivery/temporary/
    - match: IsRemoteDeliveryPermanentError
      mailet: ToRepository
      repositoryPath: sqlite://var/mail/error/remote-delivery/permanent/
    - match: All
      mailet: ToRepository
      repositoryPath: sqlite://var/mail/error/
"#;

const JOB: &str = "kind: reprocess
repository: sqlite://var/mail/error/remote-delivery/temporary/
processor: relay
";
