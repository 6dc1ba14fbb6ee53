//! What a job is to do: one file of the jobs' folder.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::audit::JobView;
use crate::mail::{Address, RepositoryPath};
use crate::pipeline;
use crate::store::spacing_after;
use crate::yaml::{Fields, Node, Reading, Value, boolean, choice, integer, nearest, positive_duration, text};

/// A job, by its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Config {
    /// Takes each due mail of a repository through a processor again.
    Reprocess(Reprocess),
    /// Takes what waits in the spool through its processor once.
    Spool,
    /// Removes what has been in a repository for long.
    Purge {
        /// Which.
        repository: RepositoryPath,
        /// At rest at least so long.
        older_than: Duration,
        /// Although a job sweeps it.
        force: bool,
    },
    /// Mails a digest of failures by cause.
    Report {
        /// Whose failures.
        repository: RepositoryPath,
        /// To whom and from whom; `None` switches the job off.
        mailing: Option<Mailing>,
    },
    /// Writes one `.eml` per mail.
    Export {
        /// Which.
        repository: RepositoryPath,
        /// Into this folder.
        directory: PathBuf,
    },
    /// Writes one database file per run.
    Backup {
        /// Into this folder.
        directory: PathBuf,
    },
}

/// A sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reprocess {
    /// Out of where.
    pub repository: RepositoryPath,
    /// Into which processor.
    pub processor: String,
    /// At most so many mails in one run.
    pub limit: Option<u32>,
    /// When a mail is due again after its n-th attempt; the last value repeats, and with
    /// none every mail is due.
    pub spacing: Vec<Duration>,
}

impl Reprocess {
    /// How long after its `attempts`-th attempt a mail is due again.
    pub fn due_after(&self, attempts: u32) -> Duration {
        spacing_after(&self.spacing, attempts)
    }
}

/// Whom a report is mailed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailing {
    /// To whom; at least one.
    pub to: Vec<Address>,
    /// The address in `From:`; the reverse-path is null.
    pub from: Address,
}

/// The names a job may use; `None` where they could not be read, and nothing is checked.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The processors and their repositories.
    pub pipeline: Option<&'a pipeline::Config>,
    /// The schemes of the configured stores.
    pub schemes: Option<&'a BTreeSet<String>>,
}

#[derive(Clone, Copy)]
enum Kind {
    Reprocess,
    Spool,
    Purge,
    Report,
    Export,
    Backup,
}

const KINDS: [(&str, Kind); 6] = [
    ("reprocess", Kind::Reprocess),
    ("spool", Kind::Spool),
    ("purge", Kind::Purge),
    ("report", Kind::Report),
    ("export", Kind::Export),
    ("backup", Kind::Backup),
];

impl Config {
    /// Reads a job. Problems are noted in `reading`.
    pub fn read(node: &Node, known: Known<'_>, reading: &Reading) -> Option<Self> {
        let mut fields = Fields::of(node, "a job", reading)?;
        let kind = fields.required("kind", choice(&KINDS))?;
        let found = match kind {
            Kind::Reprocess => read_reprocess(&mut fields, known),
            Kind::Spool => Some(Self::Spool),
            Kind::Purge => read_purge(&mut fields, known),
            Kind::Report => read_report(&mut fields, known),
            Kind::Export => read_export(&mut fields, known),
            Kind::Backup => directory(&mut fields).map(|directory| Self::Backup { directory }),
        };
        fields.finish();
        found
    }

    /// Its kind, as it is written.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Reprocess(_) => "reprocess",
            Self::Spool => "spool",
            Self::Purge { .. } => "purge",
            Self::Report { .. } => "report",
            Self::Export { .. } => "export",
            Self::Backup { .. } => "backup",
        }
    }

    /// As it is shown under its `name`.
    pub fn view<'a>(&'a self, name: &'a str) -> JobView<'a> {
        let (processor, limit) = match self {
            Self::Reprocess(sweep) => (Some(sweep.processor.as_str()), sweep.limit),
            _ => (None, None),
        };
        let repository = self.repository().map(ToString::to_string);
        JobView { job: name, kind: self.kind(), repository, processor, limit }
    }

    /// The repository it works on.
    pub fn repository(&self) -> Option<&RepositoryPath> {
        match self {
            Self::Reprocess(Reprocess { repository, .. })
            | Self::Purge { repository, .. }
            | Self::Report { repository, .. }
            | Self::Export { repository, .. } => Some(repository),
            Self::Spool | Self::Backup { .. } => None,
        }
    }
}

impl Known<'_> {
    /// A repository by its URL, its path, or its last segment where a rule stores in it.
    fn repository(&self, node: &Node) -> Result<RepositoryPath, String> {
        let written = text(node)?;
        let path = match self.schemes {
            Some(schemes) => pipeline::repository(&written, schemes)?,
            None => RepositoryPath::parse_url(&written).map_err(|error| error.to_string())?.1,
        };
        match self.pipeline {
            Some(pipeline) if !path.as_str().contains('/') => by_last_segment(path, &pipeline.repositories()),
            _ => Ok(path),
        }
    }

    fn processor(&self, node: &Node) -> Result<String, String> {
        let name = text(node)?;
        self.pipeline.map_or(Ok(()), |pipeline| pipeline.check_processor(&name))?;
        Ok(name)
    }
}

fn by_last_segment(name: RepositoryPath, known: &BTreeSet<RepositoryPath>) -> Result<RepositoryPath, String> {
    if known.contains(&name) {
        return Ok(name);
    }
    let mut found = known.iter().filter(|path| path.last_segment() == name.as_str());
    match (found.next(), found.next()) {
        (Some(path), None) => Ok(path.clone()),
        (Some(path), Some(other)) => Err(format!("'{name}' may be {path} or {other}: write the whole path")),
        (None, _) => {
            let near = nearest(name.as_str(), known.iter().map(RepositoryPath::last_segment));
            let hint = near.map_or("write its whole path".to_owned(), |near| format!("did you mean '{near}'?"));
            Err(format!("no rule stores in a repository '{name}': {hint}"))
        }
    }
}

fn read_reprocess(fields: &mut Fields<'_>, known: Known<'_>) -> Option<Config> {
    let repository = fields.required("repository", |node| known.repository(node));
    let processor = fields.required("processor", |node| known.processor(node));
    let limit = fields.optional("limit", integer(1..=u32::MAX));
    let spacing = fields.list("spacing", positive_duration).unwrap_or_default();
    Some(Config::Reprocess(Reprocess { repository: repository?, processor: processor?, limit, spacing }))
}

fn read_purge(fields: &mut Fields<'_>, known: Known<'_>) -> Option<Config> {
    let repository = fields.required("repository", |node| known.repository(node));
    let older_than = fields.required("olderThan", positive_duration);
    let force = fields.optional("force", boolean).unwrap_or(false);
    Some(Config::Purge { repository: repository?, older_than: older_than?, force })
}

/// An empty list of recipients switches a report off, so that one can ship without an
/// address that would be somebody's.
fn read_report(fields: &mut Fields<'_>, known: Known<'_>) -> Option<Config> {
    let address = |node: &Node| Address::parse(&text(node)?).map_err(|error| error.to_string());
    let repository = fields.required("repository", |node| known.repository(node));
    let to = fields.list("to", address);
    if to.is_none() {
        fields.reading().problem(fields.place(), "key 'to' is missing: write '[]' to switch the report off");
    }
    let from = fields.optional("from", address);
    let is_off =
        fields.node("to").is_some_and(|node| matches!(&node.value, Value::Sequence(items) if items.is_empty()));
    if is_off {
        return Some(Config::Report { repository: repository?, mailing: None });
    }
    if fields.node("from").is_none() {
        fields.reading().problem(fields.place(), "key 'from' is missing: the address in From: of the report");
    }
    Some(Config::Report { repository: repository?, mailing: Some(Mailing { to: to?, from: from? }) })
}

fn read_export(fields: &mut Fields<'_>, known: Known<'_>) -> Option<Config> {
    let repository = fields.required("repository", |node| known.repository(node));
    let directory = directory(fields);
    Some(Config::Export { repository: repository?, directory: directory? })
}

fn directory(fields: &mut Fields<'_>) -> Option<PathBuf> {
    let written = fields.required("directory", text)?;
    Some(fields.reading().path(&written))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::yaml::Document;

    const PROCESSORS: &str = "
relay: [{match: AtMost=2, mailet: RemoteDelivery, bounceProcessor: rde}, {mailet: ToRepository, repositoryPath: a/permanent}]
rde: [{match: AttemptsExhausted=2, mailet: ToRepository, repositoryPath: b/permanent}, {mailet: ToRepository, repositoryPath: a/temporary}]
";

    fn read(text: &str) -> Result<Config, Vec<String>> {
        let schemes = ["sqlite".to_owned()].into();
        let document = Document::parse(Path::new("p"), PROCESSORS.as_bytes()).expect("parses");
        let pipeline = pipeline::Config::read(document.root(), &schemes, "relay", &Reading::new(Path::new("p")));
        let document = Document::parse(Path::new("f"), text.as_bytes()).expect("parses");
        let reading = Reading::new(Path::new("etc/jobs/f"));
        let known = Known { pipeline: Some(&pipeline), schemes: Some(&schemes) };
        let found = Config::read(document.root(), known, &reading);
        let told: Vec<_> = document.diagnostics(reading).iter().map(ToString::to_string).collect();
        if told.is_empty() { Ok(found.expect("read")) } else { Err(told) }
    }

    #[test]
    fn every_kind_has_its_keys() {
        let temporary = RepositoryPath::parse("a/temporary").expect("a path");
        for written in ["sqlite://a/temporary/", "a/temporary", "temporary", "temporary/"] {
            let job = read(&format!("kind: reprocess\nrepository: {written}\nprocessor: relay\nspacing: [15m, 1h]\n"));
            let Ok(Config::Reprocess(job)) = job else { panic!("{job:?}") };
            assert_eq!(job.repository, temporary);
            let due: Vec<_> = (0..4).map(|attempts| job.due_after(attempts).as_secs() / 60).collect();
            assert_eq!(due, [0, 15, 60, 60]);
        }
        assert_eq!(read("kind: spool"), Ok(Config::Spool));
        let backup = Config::Backup { directory: "etc/jobs/out".into() };
        assert_eq!(read("kind: backup\ndirectory: out"), Ok(backup));
        for text in [
            "kind: purge\nrepository: a/permanent\nolderThan: 90d\nforce: true",
            "kind: report\nrepository: a/permanent\nto: [a@x.example]\nfrom: b@x.example",
            "kind: report\nrepository: a/permanent\nto: []",
            "kind: export\nrepository: a/permanent\ndirectory: out",
        ] {
            assert!(read(text).is_ok_and(|job| text.contains(job.kind())), "{text}");
        }
    }

    #[test]
    fn mistakes_are_told_with_what_would_be_right() {
        for (text, expected) in [
            ("{}", "f:1:1: key 'kind' is missing"),
            ("kind: sweep", "f:1:7: reprocess or spool or purge or report or export or backup is expected here"),
            ("kind: spool\nlimt: 3", "f:2:1: unknown key 'limt'"),
            (
                "kind: reprocess\nrepository: tmporary\nprocessor: relay",
                "f:2:13: no rule stores in a repository 'tmporary': did you mean 'temporary'?",
            ),
            (
                "kind: reprocess\nrepository: permanent\nprocessor: relay",
                "f:2:13: 'permanent' may be a/permanent or b/permanent",
            ),
            ("kind: reprocess\nrepository: file://a/b\nprocessor: relay", "f:2:13: no store is called 'file'"),
            ("kind: reprocess\nrepository: temporary\nprocessor: realy", "f:3:12: there is no processor 'realy'"),
            ("kind: reprocess\nrepository: temporary\nprocessor: relay\nlimit: 0", "f:4:8: a whole number from 1"),
            (
                "kind: reprocess\nrepository: temporary\nprocessor: relay\nspacing: [0s, x]",
                "f:4:11: a duration longer than zero",
            ),
            ("kind: purge\nrepository: temporary", "f:1:1: key 'olderThan' is missing"),
            ("kind: report\nrepository: temporary\nfrom: a@x.example", "f:1:1: key 'to' is missing"),
            ("kind: report\nrepository: temporary\nto: a@x.example", "f:1:1: key 'from' is missing"),
            (
                "kind: report\nrepository: temporary\nto: [nobody]\nfrom: a@x.example",
                "f:3:6: the address has no domain",
            ),
        ] {
            let told = read(text).expect_err(text);
            assert!(told.iter().any(|line| line.starts_with(expected)), "{expected}\n{told:#?}");
        }
    }
}
