//! `redeliver import`: messages from files into the spool, each once.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::app::App;
use super::args::{Format, ImportArguments};
use super::exit::{Exit, Failure};
use super::json_lines;
use super::note;
use super::output::Report;
use crate::audit::import_json;
use crate::ingest::{
    FieldError, Fingerprint, Found, Marked, Opened, Origin, Sources, Told, Transcript, received_field,
};
use crate::mail::{Address, Domain, Envelope, MailKey, RecipientRequest, ReversePath};
use crate::spool::{AcceptError, Incoming, Submission};
use crate::store::Error;
use crate::text::count;

/// Mails that wait for one commit at most.
const AT_ONCE: usize = 32;

/// How often the progress line is drawn anew.
const REDRAW: Duration = Duration::from_millis(200);

/// Characters of a file's name that become the mail's.
const NAME: usize = 200;

pub(super) async fn run(app: &App, arguments: ImportArguments, out: &mut impl Write) -> Result<Exit, Failure> {
    let envelope = Asked::read(&arguments)?;
    let by = Domain::parse(&app.config.hostname)
        .map_err(|error| Failure::new(Exit::Configuration, format!("hostname: {error}")))?;
    let marked = Marked { trash: arguments.include_trash, drafts: arguments.include_drafts };
    let mut import =
        Import { app, asked: envelope, marked, by, under_way: JoinSet::new(), done: Done::default(), drawn: None };
    let read = import.all(Sources::new(arguments.paths, arguments.mbox_dialect, marked)).await;
    let settled = import.settle(0).await;
    // Also where the store gave out: what was taken is taken.
    let mut out = Report(out);
    let exit = import.finish(arguments.format, &mut out)?;
    out.flush()?;
    read.and(settled).map(|()| exit)
}

/// The envelope as far as the command line gives it.
struct Asked {
    reverse_path: Option<ReversePath>,
    recipients: Vec<Address>,
}

impl Asked {
    fn read(arguments: &ImportArguments) -> Result<Self, Failure> {
        let wrong = |option: &str, text: &str, error: &dyn std::fmt::Display| {
            Failure::new(Exit::Data, format!("{option} {text:?}: {error}"))
        };
        let from = arguments.from.as_deref();
        let reverse_path = from.map(|text| ReversePath::parse(text).map_err(|error| wrong("--from", text, &error)));
        let recipients =
            arguments.to.iter().map(|text| Address::parse(text).map_err(|error| wrong("--to", text, &error)));
        Ok(Self { reverse_path: reverse_path.transpose()?, recipients: recipients.collect::<Result<_, _>>()? })
    }

    /// Completed by what a message tells of itself; what it need not tell is not judged.
    fn envelope(&self, told: Told) -> Result<Envelope, Refusal> {
        let reverse_path = self.reverse_path.clone().map_or_else(|| told_reverse_path(told.reverse_path), Ok);
        if !self.recipients.is_empty() {
            return Ok(Envelope::new(reverse_path?, self.recipients.clone()));
        }
        let mut envelope = Envelope::new(reverse_path?, told_recipients(told.recipients)?);
        // Of several it says not of whom.
        if let [only] = &envelope.recipients[..] {
            envelope.dsn.ask(only, RecipientRequest { orcpt: told.orcpt, ..RecipientRequest::default() });
        }
        Ok(envelope)
    }
}

fn told_reverse_path(told: Result<Option<ReversePath>, FieldError>) -> Result<ReversePath, Refusal> {
    let lacks = || Refusal::Message("it has no Return-Path: name the reverse-path with --from".to_owned());
    told.map_err(|error| Refusal::Message(error.to_string()))?.ok_or_else(lacks)
}

fn told_recipients(told: Result<Vec<Address>, FieldError>) -> Result<Vec<Address>, Refusal> {
    match told {
        Ok(none) if none.is_empty() => {
            Err(Refusal::Message("it has no Delivered-To: name the recipient with --to".to_owned()))
        }
        told => told.map_err(|error| Refusal::Message(error.to_string())),
    }
}

/// What became of the messages.
#[derive(Default)]
struct Done {
    taken: u64,
    before: u64,
    refused: u64,
}

struct Import<'a> {
    app: &'a App,
    asked: Asked,
    marked: Marked,
    by: Domain,
    /// Mails on their way into the store, with the names of their messages.
    under_way: JoinSet<(String, Result<MailKey, AcceptError>)>,
    done: Done,
    drawn: Option<Instant>,
}

/// Why one message is not taken.
enum Refusal {
    /// It is named, and the import goes on.
    Message(String),
    /// So is the rest of its file.
    File(String),
    /// It was imported before.
    Before,
    /// The store is in trouble: the import ends.
    Store(Failure),
}

impl Import<'_> {
    async fn all(&mut self, sources: Sources) -> Result<(), Failure> {
        for found in sources {
            match found {
                Found::File(file) => self.file(*file).await?,
                Found::Nothing(error) => self.refuse(&error.to_string()),
            }
        }
        Ok(())
    }

    async fn file(&mut self, mut file: Opened) -> Result<(), Failure> {
        loop {
            match file.advance() {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => {
                    self.refuse(&error.to_string());
                    return Ok(());
                }
            }
            match self.message(&mut file).await {
                Ok(()) => {}
                Err(Refusal::File(why)) => {
                    self.refuse(&why);
                    return Ok(());
                }
                Err(Refusal::Message(why)) => {
                    let line = file.line().map(|line| format!(" (it begins at line {line})")).unwrap_or_default();
                    self.refuse(&format!("{}: {why}{line}", file.name()));
                }
                Err(refusal) => self.passed_over(&file.name(), refusal)?,
            }
            self.settle(AT_ONCE - 1).await?;
            self.draw();
        }
    }

    /// Reads one message and sends it on its way into the store.
    async fn message(&mut self, file: &mut Opened) -> Result<(), Refusal> {
        self.app.spool.admits(0).map_err(told)?;
        let mut incoming = self.app.spool.incoming();
        let only = if let [only] = &self.asked.recipients[..] { Some(only) } else { None };
        let uid = nix::unistd::Uid::current().as_raw();
        let trace = received_field(Origin::User(uid), &self.by, incoming.key(), only, self.app.clock.now());
        incoming.write_trace(&trace);
        let read = match read(file, &mut incoming).await {
            Ok((told, fingerprint)) => self.envelope(told).map(|envelope| (envelope, fingerprint)),
            Err(refusal) => Err(refusal),
        };
        let (envelope, fingerprint) = match read {
            Ok(read) => read,
            Err(refusal) => {
                incoming.abandon().await;
                return Err(refusal);
            }
        };
        let digest = fingerprint.with_envelope(&envelope.reverse_path, &envelope.recipients);
        let name = file.name();
        let of_mail = name.chars().filter(|c| !c.is_control()).take(NAME).collect();
        let submission = Submission { name: Some(of_mail), import_digest: Some(digest), ..envelope.into() };
        self.under_way.spawn(async move { (name, incoming.accept(submission).await) });
        Ok(())
    }

    fn envelope(&self, told: Told) -> Result<Envelope, Refusal> {
        if told.internal {
            return Err(Refusal::Message(
                "it is no message: the program whose mailbox it is keeps its data in it".to_owned(),
            ));
        }
        match self.marked.forbids(told.marks) {
            Some(why) => Err(Refusal::Message(why.to_owned())),
            None => self.asked.envelope(told),
        }
    }

    /// Waits until at most `left` mails are under way.
    async fn settle(&mut self, left: usize) -> Result<(), Failure> {
        while self.under_way.len() > left {
            let Some(ended) = self.under_way.join_next().await else { break };
            let (name, accepted) = ended.map_err(|panic| Failure::new(Exit::Internal, panic.to_string()))?;
            match accepted {
                Ok(_) => self.done.taken += 1,
                Err(error) => self.passed_over(&name, told(error))?,
            }
        }
        Ok(())
    }

    fn passed_over(&mut self, name: &str, refusal: Refusal) -> Result<(), Failure> {
        match refusal {
            Refusal::Store(failure) => return Err(failure),
            Refusal::Before => self.done.before += 1,
            Refusal::Message(why) | Refusal::File(why) => self.refuse(&format!("{name}: {why}")),
        }
        Ok(())
    }

    fn refuse(&mut self, line: &str) {
        self.clear();
        note(&format!("redeliver: {line}"));
        self.done.refused += 1;
    }

    /// How far it has come, on a terminal and only there.
    fn draw(&mut self) {
        if self.drawn.is_some_and(|last| last.elapsed() < REDRAW) || !std::io::stderr().is_terminal() {
            return;
        }
        self.drawn = Some(self.app.clock.instant());
        let Done { taken, before, refused } = self.done;
        // Nobody is to stop for a terminal that went away.
        let _ = write!(std::io::stderr(), "\r\x1b[Kimport: {taken} taken, {before} before, {refused} refused");
    }

    fn clear(&mut self) {
        if self.drawn.take().is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    fn finish(mut self, format: Format, out: &mut impl Write) -> Result<Exit, Failure> {
        self.clear();
        let Done { taken, before, refused } = self.done;
        match format {
            Format::Json => json_lines::write(out, &import_json(taken, before, refused))?,
            Format::Text => {
                let taken = count(taken, "message");
                writeln!(out, "{taken} taken, {before} imported before, {refused} refused")?;
            }
        }
        Ok(if refused > 0 { Exit::Data } else { Exit::Ok })
    }
}

/// Reads the message at which `file` stands; what it tells of itself.
async fn read(file: &mut Opened, incoming: &mut Incoming) -> Result<(Told, Fingerprint), Refusal> {
    let mut transcript = Transcript::default();
    let (mut raw, mut message) = (Vec::new(), Vec::new());
    loop {
        let more = file.read(&mut raw).map_err(|error| Refusal::File(error.to_string()))?;
        transcript.push(&raw, &mut message).map_err(|error| Refusal::Message(error.to_string()))?;
        incoming.write(&message).await.map_err(told)?;
        raw.clear();
        message.clear();
        if !more || incoming.is_too_large() {
            break;
        }
    }
    if incoming.is_too_large() {
        return Err(told(AcceptError::TooLarge(incoming.limit())));
    }
    let end = transcript.finish(&mut message).map_err(|error| Refusal::Message(error.to_string()))?;
    incoming.write(&message).await.map_err(told)?;
    Ok(end)
}

fn told(error: AcceptError) -> Refusal {
    match error {
        AcceptError::Store(Error::ImportedBefore(_)) => Refusal::Before,
        AcceptError::Store(error) => Refusal::Store(error.into()),
        AcceptError::Behind | AcceptError::NoFreeSpace(_) => Refusal::Store(error.into()),
        other => Refusal::Message(other.to_string()),
    }
}
