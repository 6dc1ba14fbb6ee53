//! One configured relay with its stored failures, and what is measured on it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use redeliver::clock::Clock;
use redeliver::mail::RepositoryPath;
use redeliver::store::{MailFilter, Place, Span, SqliteStore, Store, Wanted};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::Outcome;
use super::fill::{self, Age};
use super::measure::{self, median};
use super::pages;
use super::sink::{Script, SmtpSink, script};
use super::table::{Table, Value};

/// Mails that are due beside those that are stored.
const DUE: u64 = 100;

/// Mails that one purge removes.
pub(crate) const PURGED: u64 = 10_000;

/// A twentieth of the stored failures has a cause of its own.
const OF_A_KIND: u64 = 20;

const CONFIGURATION: &str = r#"hostname: relay.test
stateDirectory: ./var
stores: { sqlite: { path: redeliver.db } }
audit: { retention: RETENTION }
smtp: { listen: ["127.0.0.1:0"] }
admin: { listen: "127.0.0.1:0" }
processors:
  relay:
    - match: AtMost=100
      mailet: RemoteDelivery
      gateway: "GATEWAY"
      bounceProcessor: remote-delivery-error
    - mailet: ToRepository
      repositoryPath: sqlite://var/mail/error/remote-delivery/permanent/
  remote-delivery-error:
    - match: IsRemoteDeliveryTemporaryError
      mailet: ToRepository
      repositoryPath: sqlite://var/mail/error/remote-delivery/temporary/
    - mailet: ToRepository
      repositoryPath: sqlite://var/mail/error/remote-delivery/permanent/
"#;

const JOBS: [(&str, &str); 5] = [
    ("sweep", "kind: reprocess\nrepository: temporary\nprocessor: relay\nspacing: [12h]\n"),
    ("purge-permanent", "kind: purge\nrepository: permanent\nolderThan: 1h\n"),
    ("purge-temporary", "kind: purge\nrepository: temporary\nolderThan: 1h\nforce: true\n"),
    ("report", "kind: report\nrepository: temporary\nto: [ops@x.example]\nfrom: r@x.example\n"),
    ("backup", "kind: backup\ndirectory: ../backup\n"),
];

pub(crate) struct Site {
    directory: TempDir,
    program: PathBuf,
    /// Failures that are not due.
    stored: u64,
    /// Defers.
    busy: SmtpSink,
    /// Takes everything.
    friendly: SmtpSink,
}

impl Site {
    /// A relay with `stored` failures that are not due, [`DUE`] that are, and `old` ones that a
    /// purge is to remove.
    pub(crate) fn filled(program: &Path, stored: u64, old: u64) -> Outcome<Self> {
        let busy = SmtpSink::start(script![
            "RCPT TO:<refused@" => "550 5.1.1 no such user",
            "RCPT TO:<full@" => "452 4.2.2 mailbox full",
            "RCPT TO:" => "451 4.2.0 mailbox busy, come back later",
        ]);
        let friendly = SmtpSink::start(Script::new());
        let site = Self { directory: tempfile::tempdir()?, program: program.to_owned(), stored, busy, friendly };
        site.configure(&site.busy, "30d")?;
        fs::create_dir(site.path().join("jobs"))?;
        for (name, job) in JOBS {
            fs::write(site.path().join(format!("jobs/{name}.yaml")), job)?;
        }
        for recipient in ["later@x.example", "full@x.example", "refused@x.example"] {
            site.submit(recipient)?;
        }
        site.run(&["run", "spool"])?;
        let database = site.database();
        let few = stored / OF_A_KIND;
        fill::copy(&database, "full@", "temporary", few, &Age::Fresh)?;
        fill::copy(&database, "later@", "temporary", stored - few, &Age::Fresh)?;
        fill::copy(&database, "later@", "temporary", DUE, &Age::Old)?;
        fill::copy(&database, "refused@", "permanent", old, &Age::Old)?;
        eprintln!("  counting");
        fill::check(&database)?;
        Ok(site)
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    pub(crate) fn stored(&self) -> u64 {
        self.stored
    }

    /// The failure group of [`OF_A_KIND`].
    pub(crate) fn small_group(&self) -> Outcome<String> {
        let connection = rusqlite::Connection::open(self.database())?;
        Ok(connection.query_row("SELECT id FROM cause WHERE code = 452", [], |row| row.get(0))?)
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    fn database(&self) -> PathBuf {
        self.path().join("var/redeliver.db")
    }

    fn configure(&self, peer: &SmtpSink, retention: &str) -> Outcome<()> {
        let gateway = peer.address().to_string();
        let text = CONFIGURATION.replace("GATEWAY", &gateway).replace("RETENTION", retention);
        Ok(fs::write(self.path().join("redeliver.yaml"), text)?)
    }

    fn submit(&self, recipient: &str) -> Outcome<()> {
        let mut child = Command::new(&self.program)
            .args(["sendmail", "-f", "a@sender.example", recipient])
            .current_dir(self.path())
            .stdin(Stdio::piped())
            .spawn()?;
        let message = format!("Subject: for {recipient}\n\n{}\n", "some text of a usual length\n".repeat(30));
        child.stdin.take().ok_or("no standard input")?.write_all(message.as_bytes())?;
        if child.wait()?.success() { Ok(()) } else { Err("the mail was not taken".into()) }
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome<measure::Taken> {
        let taken = measure::run(&self.program, self.path(), arguments)?;
        if matches!(taken.code, 0 | 69 | 75) { Ok(taken) } else { Err(format!("{arguments:?}: {taken:?}").into()) }
    }

    pub(crate) fn measure(&self, table: &mut Table) -> Outcome<()> {
        self.store_calls(table)?;
        let start = median(5, || Ok(self.run(&["job", "list"])?.time))?;
        table.add("start of a command", Value::Time(start));
        pages::measure(&self.program, self.path(), table)?;
        self.sweeps(table)?;
        self.commands(table)?;
        self.emptied(table)
    }

    /// Calls of the store, in this process.
    fn store_calls(&self, table: &mut Table) -> Outcome<()> {
        let runtime = Runtime::new()?;
        let store: Box<dyn Store> = Box::new(SqliteStore::open(&self.database(), "bench", &Clock::system())?);
        let temporary = Place::Repository(RepositoryPath::parse("var/mail/error/remote-delivery/temporary")?);
        let wanted = Wanted {
            from: temporary.clone(),
            run: None,
            within: None,
            spacing: vec![std::time::Duration::from_hours(12)],
            limit: 100,
            suspects: false,
            only: None,
        };
        let claim = median(9, || {
            let started = Instant::now();
            let claimed = runtime.block_on(store.claim(&wanted))?;
            let taken = started.elapsed();
            assert_eq!(claimed.len() as u64, DUE, "all that are due, and no other");
            for claimed in claimed {
                runtime.block_on(store.release(&claimed.claim))?;
            }
            Ok(taken)
        })?;
        table.add("claim of 100 due", Value::Time(claim));
        let page = median(9, || {
            let started = Instant::now();
            runtime.block_on(store.list(&temporary, &MailFilter::default(), &Span::of(100)))?;
            Ok(started.elapsed())
        })?;
        table.add("first page of 100", Value::Time(page));
        let count = median(5, || {
            let started = Instant::now();
            runtime.block_on(store.size(&temporary))?;
            Ok(started.elapsed())
        })?;
        table.add("count", Value::Time(count));
        runtime.block_on(store.close())?;
        Ok(())
    }

    /// The due mails once deferred, and once delivered.
    fn sweeps(&self, table: &mut Table) -> Outcome<()> {
        for (name, peer) in
            [("sweep of 100 due, deferred", &self.busy), ("sweep of 100 due, delivered", &self.friendly)]
        {
            self.configure(peer, "30d")?;
            let before = peer.record().connections.len();
            let taken = self.run(&["run", "sweep"])?;
            if peer.record().connections.len() == before {
                return Err("the sweep attempted nothing".into());
            }
            table.add(name, Value::Time(taken.time));
            table.add(&format!("{name}: memory"), Value::Bytes(taken.memory));
            fill::due_again(&self.database())?;
        }
        Ok(())
    }

    /// Commands in processes of their own.
    fn commands(&self, table: &mut Table) -> Outcome<()> {
        for (name, arguments) in [
            ("repository list", &["repository", "list"][..]),
            ("repository mails --limit 100", &["repository", "mails", "temporary", "--limit", "100"]),
            ("repository mails", &["repository", "mails", "temporary"]),
            ("repository mails, JSON", &["repository", "mails", "temporary", "--format", "json"]),
            ("attempts, JSON", &["attempts", "--format", "json"]),
            (
                "mails of one domain, JSON",
                &["repository", "mails", "temporary", "--domain", "y.example", "--format", "json"],
            ),
            ("purge of 10 000", &["run", "purge-permanent"]),
            ("report", &["run", "report"]),
            ("backup", &["run", "backup"]),
        ] {
            let taken = self.run(arguments)?;
            table.add(name, Value::Time(taken.time));
            table.add(&format!("{name}: memory"), Value::Bytes(taken.memory));
        }
        fs::remove_dir_all(self.path().join("backup"))?;
        Ok(())
    }

    /// Everything purged, and its record expired.
    fn emptied(&self, table: &mut Table) -> Outcome<()> {
        table.add("size of the database", Value::Bytes(self.size()?));
        fill::age_all(&self.database(), "temporary")?;
        fill::age_all(&self.database(), "permanent")?;
        self.configure(&self.busy, "1ms")?;
        let taken = self.run(&["run", "purge-temporary"])?;
        table.add("purge of everything", Value::Time(taken.time));
        table.add("purge of everything: memory", Value::Bytes(taken.memory));
        // What one run's housekeeping left for the next.
        for _ in 0..3 {
            self.run(&["run", "purge-permanent"])?;
        }
        table.add("size of the database, all purged", Value::Bytes(self.size()?));
        Ok(())
    }

    /// The database with its WAL.
    fn size(&self) -> Outcome<u64> {
        let mut size = self.database().metadata()?.len();
        if let Ok(wal) = self.path().join("var/redeliver.db-wal").metadata() {
            size += wal.len();
        }
        Ok(size)
    }
}
