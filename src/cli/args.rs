//! The command line, as clap reads it. `sendmail` has a reader of its own.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::schedule::zone_data;

/// An outbound mail relay: each mail is tried once per pass, what fails is kept and swept.
#[derive(Debug, Parser)]
#[command(name = "redeliver", version, long_version = long_version(), max_term_width = 110)]
pub(super) struct Arguments {
    /// Configuration file [default: $REDELIVER_CONFIG, ./redeliver.yaml, /etc/redeliver/redeliver.yaml, built in]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Log to standard error what the configuration's log level allows, not only warnings
    #[arg(long, short, global = true)]
    pub(super) verbose: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// The version, and the rules of time zones in force.
fn long_version() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| format!("{}\ntime zones: {}", env!("CARGO_PKG_VERSION"), zone_data()))
}

/// How a listing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Text,
    /// JSON Lines: one object a line
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The service: schedules, SMTP and HTTP, until SIGTERM; SIGHUP reloads
    Serve,
    /// One run of a job, in the foreground; the exit code says how it went
    Run(RunArguments),
    /// Check configuration, jobs and schedules; 0 or 78
    Check {
        /// How it is written; errors are lines on standard error either way
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        /// Look as the unit redeliver.service will: as its user, and at the directories it may write
        #[arg(long)]
        service: bool,
    },
    /// Take a message from standard input, as sendmail does; see redeliver sendmail --help
    #[command(disable_help_flag = true)]
    Sendmail {
        /// As sendmail's
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Take messages from files into the spool: .eml, mbox, maildir
    ///
    /// What was taken once, with the same envelope, is not taken again: an import that was
    /// interrupted is simply repeated. Files that are no messages are named and passed over; the
    /// exit code is 65 then.
    Import(ImportArguments),
    /// Mail repositories and the mails in them
    #[command(subcommand)]
    Repository(Box<RepositoryCommand>),
    /// James's mailetcontainer.xml as our YAML, on standard output
    ///
    /// What has no counterpart is said on standard error with its line. The exit code is 65 where a
    /// Bounce or DSNBounce was left out, since senders are no longer told of failures then.
    Convert {
        /// A container, or a part of one
        file: PathBuf,
    },
    /// Failures by cause, the most frequent first
    Groups {
        /// Only of this one: URL, path or last segment
        repository: Option<String>,
        /// How it is written
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Next hops of the last 24 hours: connections, down or not and why, outcomes
    ///
    /// A service that runs is asked what it knows of them now.
    Peers {
        /// How it is written
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// What the store counts, for the textfile collector of Prometheus's node_exporter
    Metrics,
    /// What operators did, the latest first
    Operations {
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// How it is written
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// The record of attempts, of mails that are gone too
    Attempts(AttemptsArguments),
    /// Jobs and their runs
    #[command(subcommand)]
    Job(JobCommand),
    /// Schedules
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// The manual pages of all commands, for packages
    #[command(hide = true)]
    Manual {
        /// The folder they are written to
        directory: PathBuf,
    },
    /// Which next hops, hosts and TLS policy would be used for a recipient, and why
    Explain {
        /// user@domain
        recipient: String,
        /// How it is written
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// The job's name; `spool` always exists
    pub(super) job: String,
    /// How the result is written
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
    /// As if every mail were due
    #[arg(long)]
    pub(super) now: bool,
    /// Begin no more attempts after this time, such as 20m; what is left stays for the next run
    #[arg(long, value_parser = duration)]
    pub(super) deadline: Option<Duration>,
}

#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    /// Files and folders: a message, an mbox, a maildir, or a folder of .eml files
    #[arg(required = true)]
    pub(super) paths: Vec<PathBuf>,
    /// Reverse-path, <> for null [default: that of each message's Return-Path:]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) from: Option<String>,
    /// Recipient; may be given more than once [default: that of each message's Delivered-To:]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) to: Vec<String>,
    /// mboxo, mboxrd, mboxcl or mboxcl2 [default: found out, where the file leaves no doubt]
    #[arg(long, value_parser = dialect)]
    pub(super) mbox_dialect: Option<crate::ingest::Dialect>,
    /// Take also what is marked as deleted or as junk [default: it is named and passed over]
    #[arg(long)]
    pub(super) include_trash: bool,
    /// Take also what is marked as a draft [default: it is named and passed over]
    #[arg(long)]
    pub(super) include_drafts: bool,
    /// How the result is written
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

#[derive(Debug, Subcommand)]
pub(super) enum RepositoryCommand {
    /// All repositories and how many mails they have
    List {
        /// How it is written
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// The mails of a repository, oldest first
    Mails {
        /// URL, path or last segment
        repository: String,
        #[command(flatten)]
        filter: FilterArguments,
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
        /// How it is written
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// One mail with all its attempts and what was said in them
    Show {
        /// URL, path or last segment
        repository: String,
        /// The mail's key
        key: String,
        /// How it is written
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// The stored message on standard output, byte for byte
    Export {
        /// URL, path or last segment
        repository: String,
        /// The mail's key
        key: String,
    },
    /// Evidence about one mail and one next hop as a zip archive, to be handed to the other side
    ///
    /// Its attempts, what was said in them, and the header. Other next hops are a count; our own
    /// addresses and the attributes are left out.
    Bundle {
        /// URL, path or last segment
        repository: String,
        /// The mail's key
        key: String,
        /// About whom; needed where it was tried at several
        #[arg(long)]
        next_hop: Option<String>,
        /// The file that is written [default: standard output]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// With the message
        #[arg(long)]
        message: bool,
        /// With everything: other next hops, our own addresses, the attributes
        #[arg(long)]
        full: bool,
    },
    /// Put mails into the spool for a processor
    Reprocess {
        /// URL, path or last segment
        repository: String,
        #[command(flatten)]
        which: WhichArguments,
        /// The processor they enter
        #[arg(long)]
        processor: String,
        /// Forget the counters, so that the peer is tried again
        #[arg(long)]
        reset: bool,
    },
    /// Move mails to another repository
    Move {
        /// URL, path or last segment
        repository: String,
        #[command(flatten)]
        which: WhichArguments,
        /// The repository they go to
        #[arg(long)]
        to: String,
    },
    /// Take note of failures: they are known, and no longer stand out
    ///
    /// Moving keeps it, reprocessing clears it.
    Acknowledge {
        /// URL, path or last segment
        repository: String,
        #[command(flatten)]
        which: WhichArguments,
        /// What there is to say of it
        #[arg(long, default_value = "", conflicts_with = "undo")]
        note: String,
        /// Take it back
        #[arg(long)]
        undo: bool,
    },
    /// Remove mails for good; their attempts stay on record for the retention time
    Remove {
        /// URL, path or last segment
        repository: String,
        #[command(flatten)]
        which: WhichArguments,
    },
}

/// One key, or a filter, or all: never all by default.
#[derive(Debug, Args)]
pub(super) struct WhichArguments {
    /// The mail's key
    #[arg(conflicts_with = "all")]
    pub(super) key: Option<String>,
    #[command(flatten)]
    pub(super) filter: FilterArguments,
    /// Every mail of the repository
    #[arg(long)]
    pub(super) all: bool,
    /// Only say how many mails are meant, and which
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Only mails that were there at a dry run: its member `until`
    #[arg(long, conflicts_with = "key")]
    pub(super) until: Option<String>,
    /// How the result is written
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

/// Conditions that must all hold; what makes no sense is said by `operations`.
#[derive(Debug, Clone, Args)]
pub(super) struct FilterArguments {
    /// Reverse-path; `<>` for null
    #[arg(long, value_name = "ADDRESS")]
    pub(super) sender: Option<String>,
    /// One recipient, or *@domain
    #[arg(long, value_name = "ADDRESS")]
    pub(super) recipient: Option<String>,
    /// Domain of a recipient
    #[arg(long)]
    pub(super) domain: Option<String>,
    /// Reply code of a last failure
    #[arg(long)]
    pub(super) code: Option<String>,
    /// Next hop of a last failure: a domain, an address or a gateway
    #[arg(long, value_name = "HOST")]
    pub(super) next_hop: Option<String>,
    /// Words of a last failure, whatever their case
    #[arg(long)]
    pub(super) text: Option<String>,
    /// Failure group, as `redeliver groups` names it
    #[arg(long, value_name = "ID")]
    pub(super) group: Option<String>,
    /// Came to rest longer ago than this, such as 2d, or before a time (RFC 3339)
    #[arg(long, alias = "older", value_name = "AGE")]
    pub(super) older_than: Option<String>,
    /// Came to rest within this time, or after a time (RFC 3339)
    #[arg(long, alias = "newer", value_name = "AGE")]
    pub(super) newer_than: Option<String>,
    /// Passes counted
    #[arg(long)]
    pub(super) passes: Option<String>,
    /// Nobody has acknowledged it
    #[arg(long)]
    pub(super) unacknowledged: bool,
}

impl FilterArguments {
    /// Names, as HTTP has them, and values of those that were given.
    pub(super) fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let values = [
            ("sender", &self.sender),
            ("recipient", &self.recipient),
            ("domain", &self.domain),
            ("code", &self.code),
            ("nextHop", &self.next_hop),
            ("text", &self.text),
            ("group", &self.group),
            ("olderThan", &self.older_than),
            ("newerThan", &self.newer_than),
            ("passes", &self.passes),
        ];
        let unacknowledged = self.unacknowledged.then_some(("unacknowledged", "true"));
        values.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).chain(unacknowledged)
    }
}

#[derive(Debug, Args)]
pub(super) struct AttemptsArguments {
    /// Attempts of this mail, there or gone, and those before it was split off from another
    #[arg(long, value_name = "KEY")]
    pub(super) key: Option<String>,
    /// Attempts for this recipient, or *@domain
    #[arg(long, value_name = "ADDRESS")]
    pub(super) recipient: Option<String>,
    /// Attempts with such an outcome
    #[arg(long, value_enum)]
    pub(super) outcome: Option<OutcomeArgument>,
    /// Attempts begun within this time, such as 1h
    #[arg(long, value_parser = duration, value_name = "AGE")]
    pub(super) since: Option<Duration>,
    /// How it is written
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

/// As in the record.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum OutcomeArgument {
    /// The peer took it
    Delivered,
    /// Kept for a next pass
    Deferred,
    /// For good
    Failed,
}

#[derive(Debug, Subcommand)]
pub(super) enum JobCommand {
    /// The jobs there are
    List {
        /// How it is written
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// The latest runs, newest first
    Runs {
        /// Only of this job
        job: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// How it is written
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ScheduleCommand {
    /// The schedules there are, with their next five times
    List {
        /// How it is written
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Let a schedule's ticks pass; `run` works meanwhile
    Pause {
        /// Its name
        #[arg(id = "schedule", value_name = "NAME")]
        name: String,
        /// Why, for those who wonder
        #[arg(long)]
        reason: Option<String>,
        /// For how long, such as 2h, or until a time (RFC 3339) [default: until it is resumed]
        #[arg(long)]
        until: Option<String>,
    },
    /// End a pause
    Resume {
        /// Its name
        #[arg(id = "schedule", value_name = "NAME")]
        name: String,
    },
}

fn dialect(text: &str) -> Result<crate::ingest::Dialect, String> {
    let known = crate::ingest::Dialect::ALL;
    let found = known.into_iter().find(|(name, _)| *name == text);
    found.map(|(_, dialect)| dialect).ok_or_else(|| format!("known are {}", known.map(|(name, _)| name).join(", ")))
}

/// A duration as the configuration has it.
fn duration(text: &str) -> Result<Duration, String> {
    crate::yaml::parse_duration(text).ok_or_else(|| format!("{text:?} is no duration: write 30s, 10m, 2h or 7d"))
}
