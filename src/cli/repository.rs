//! `redeliver repository`: looking at what failed, and sending it round again.

use std::io::Write;

use super::app::App;
use super::args::{FilterArguments, Format, RepositoryCommand, WhichArguments};
use super::bundle::{self, Asked};
use super::exit::{Exit, Failure};
use super::json_lines;
use super::terminal;
use crate::audit::{self, Extent, QueuePage, QueueTotal, WAITING_COLUMNS, Waiting, mail_json, waiting, waiting_row};
use crate::config;
use crate::mail::{MailKey, RepositoryPath};
use crate::operations::{self, Bounds, Conditions, Selection, Verb, Wrong};
use crate::store::{Error, Gone, Listed, MailFilter, Pages, Place, Respool, Time};
use crate::text::Table;

pub(super) async fn run(app: &App, command: RepositoryCommand, out: &mut impl Write) -> Result<Exit, Failure> {
    match command {
        RepositoryCommand::List { format } => list(app, format, out).await,
        RepositoryCommand::Mails { repository, filter, limit, format } => {
            mails(app, &repository, &filter, limit, format, out).await
        }
        RepositoryCommand::Show { repository, key, format } => show(app, &repository, &key, format, out).await,
        RepositoryCommand::Export { repository, key } => export(app, &repository, &key, out).await,
        RepositoryCommand::Bundle { repository, key, next_hop, output, message, full } => {
            let extent = Extent { next_hop: next_hop.as_deref(), full };
            bundle::run(app, Asked { repository: &repository, key: &key, extent, message, output }, out).await
        }
        RepositoryCommand::Reprocess { repository, which, processor, reset } => {
            app.known_processor(&processor)?;
            let reset = if reset { app.config.processors.counters() } else { Vec::new() };
            act(app, &repository, &which, &Verb::Reprocess(Respool { processor, reset, ..Respool::default() }), out)
                .await
        }
        RepositoryCommand::Move { repository, which, to } => {
            let to = resolve(app, &to).await?;
            act(app, &repository, &which, &Verb::Move { to }, out).await
        }
        RepositoryCommand::Acknowledge { repository, which, note, undo } => {
            let verb = if undo { Verb::Unacknowledge } else { Verb::Acknowledge { note } };
            act(app, &repository, &which, &verb, out).await
        }
        RepositoryCommand::Remove { repository, which } => act(app, &repository, &which, &Verb::Remove, out).await,
    }
}

/// The repository that an operator means by a URL, a path or a last segment.
pub(super) async fn resolve(app: &App, text: &str) -> Result<RepositoryPath, Failure> {
    Ok(operations::resolve(&*app.store, &app.config.store.schemes, text).await?)
}

async fn list(app: &App, format: Format, out: &mut impl Write) -> Result<Exit, Failure> {
    let mut table = Table::new(&["MAILS", "REPOSITORY"]).whole();
    for path in app.store.repositories().await? {
        let size = app.store.size(&Place::Repository(path.clone())).await?;
        match format {
            Format::Json => {
                json_lines::write(out, &audit::repository_json(&path, config::Store::SCHEME, size))?;
            }
            Format::Text => table.row(&[size.to_string(), path.to_string()]),
        }
    }
    if format == Format::Text {
        write!(out, "{}", table.block(terminal::width()))?;
    }
    Ok(Exit::Ok)
}

async fn mails(
    app: &App,
    repository: &str,
    filter: &FilterArguments,
    limit: Option<usize>,
    format: Format,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let path = resolve(app, repository).await?;
    let filter = app.operations().listing(&Place::Repository(path.clone()), &conditions(filter)?).await?;
    list_place(app, &Place::Repository(path), &filter, limit, format, out).await
}

/// The mails of a place; an empty one says so to a person.
pub(super) async fn list_place(
    app: &App,
    place: &Place,
    filter: &MailFilter,
    limit: Option<usize>,
    format: Format,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let mut pages = Pages::new(&*app.store, place.clone(), filter.clone()).limit(limit.unwrap_or(usize::MAX));
    let mut table = Table::new(&WAITING_COLUMNS);
    let mut number = 0;
    let mut page = pages.next().await?;
    while let Some(mails) = page {
        number += mails.len();
        // The next page is read while this one is written.
        let (next, written) = tokio::join!(pages.next(), write_page(app, &mails, format, &mut table, out));
        written?;
        page = next?;
    }
    if format == Format::Text && number == 0 {
        writeln!(out, "no mails")?;
    }
    Ok(Exit::Ok)
}

async fn write_page(
    app: &App,
    mails: &[Listed],
    format: Format,
    table: &mut Table,
    out: &mut impl Write,
) -> Result<(), Failure> {
    match format {
        Format::Json => mails.iter().try_for_each(|listed| json_lines::write(out, &mail_json(listed)))?,
        Format::Text if mails.is_empty() => {}
        Format::Text => {
            rows(&waiting(&*app.store, mails).await?, app.clock.now(), table);
            write!(out, "{}", table.block(terminal::width()))?;
        }
    }
    Ok(())
}

fn rows(mails: &[Waiting], now: Time, table: &mut Table) {
    for mail in mails {
        table.row(&waiting_row(mail, now));
    }
}

/// What waits: for a person each place under its name, for a script in every line.
pub(super) struct QueueTable {
    json: bool,
    table: Table,
    place: Option<String>,
}

impl QueueTable {
    pub(super) fn new(json: bool) -> Self {
        Self { json, table: Table::new(&WAITING_COLUMNS), place: None }
    }

    pub(super) fn write(&mut self, page: &QueuePage, now: Time, out: &mut impl Write) -> std::io::Result<()> {
        if self.json {
            return page
                .mails
                .iter()
                .try_for_each(|mail| json_lines::write(out, &audit::waiting_json(&page.place, mail)));
        }
        if self.place.as_deref() != Some(page.place.as_str()) {
            writeln!(out, "{}{}:", if self.place.is_none() { "" } else { "\n" }, page.place)?;
            self.table = Table::new(&WAITING_COLUMNS);
            self.place = Some(page.place.clone());
        }
        rows(&page.mails, now, &mut self.table);
        write!(out, "{}", self.table.block(terminal::width()))
    }

    /// The last line, as other mailers have it; scripts have none.
    pub(super) fn end(self, total: QueueTotal, out: &mut impl Write) -> std::io::Result<()> {
        if self.json { Ok(()) } else { writeln!(out, "{}", total.footer()) }
    }
}

async fn show(app: &App, repository: &str, key: &str, format: Format, out: &mut impl Write) -> Result<Exit, Failure> {
    let listed = find(app, repository, key).await?;
    let attempts = app.store.attempts_of(&listed.mail).await?;
    let operations = app.store.operations_of(&listed.mail.key).await?;
    match format {
        Format::Json => json_lines::write(out, &audit::whole_mail_json(&listed, &attempts, &operations))?,
        Format::Text => write!(out, "{}", audit::mail_picture(&listed, &attempts, &operations, app.clock.now()))?,
    }
    Ok(Exit::Ok)
}

async fn export(app: &App, repository: &str, key: &str, out: &mut impl Write) -> Result<Exit, Failure> {
    let listed = find(app, repository, key).await?;
    for number in 0.. {
        let row = app.store.content(listed.mail.message, number).await?;
        if row.is_empty() {
            break;
        }
        out.write_all(&row)?;
    }
    out.flush()?;
    Ok(Exit::Ok)
}

pub(super) async fn find(app: &App, repository: &str, key: &str) -> Result<Listed, Failure> {
    let (path, key) = (resolve(app, repository).await?, parse_key(key)?);
    match app.store.find(&Place::Repository(path), &key).await {
        Err(error @ Error::NoSuchMail(_)) => match app.store.gone(&key).await? {
            Some(gone) => Err(Failure::new(Exit::NotFound, gone_failure(&error, &key, &gone))),
            None => Err(error.into()),
        },
        found => Ok(found?),
    }
}

fn gone_failure(error: &Error, key: &MailKey, gone: &Gone) -> String {
    let words = audit::gone_words(gone);
    format!("{error}: {words}; `redeliver attempts --key {key}` lists what was tried")
}

pub(super) fn parse_key(key: &str) -> Result<MailKey, Failure> {
    MailKey::parse(key).ok_or_else(|| Failure::new(Exit::NotFound, format!("{key:?} is no key of a mail")))
}

async fn act(
    app: &App,
    repository: &str,
    which: &WhichArguments,
    verb: &Verb,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let place = Place::Repository(resolve(app, repository).await?);
    let selection = selection(which)?;
    let operations = app.operations();
    if which.dry_run {
        let preview = operations.preview(&place, &selection, verb).await?;
        match which.format {
            Format::Json => json_lines::write(out, &preview.json(verb))?,
            Format::Text => {
                let mut table = Table::new(&WAITING_COLUMNS);
                rows(&preview.sample, app.clock.now(), &mut table);
                write!(out, "{}{}", table.block(terminal::width()), preview.picture(verb))?;
            }
        }
        return Ok(Exit::Ok);
    }
    let done = operations.carry_out(&place, &selection, verb, &mut |_| {}).await?;
    match which.format {
        Format::Json => json_lines::write(out, &done.json(verb))?,
        Format::Text => write!(out, "{}", done.picture(verb))?,
    }
    Ok(Exit::Ok)
}

fn selection(which: &WhichArguments) -> Result<Selection, Failure> {
    let conditions = conditions(&which.filter)?;
    match &which.key {
        Some(_) if !conditions.is_empty() => {
            Err(Failure::new(Exit::Usage, "a key names one mail: name either a key or a filter"))
        }
        Some(key) => Ok(Selection::Mail(parse_key(key)?)),
        None if !which.all && conditions.is_empty() => {
            Err(Failure::new(Exit::Usage, "name a key, a filter such as --domain, or --all"))
        }
        None => {
            let until = which.until.as_deref().map(str::parse).transpose();
            let until = until.map_err(|error| Failure::new(Exit::Usage, format!("--until {error}")))?;
            Ok(Selection::Matching { conditions: Box::new(conditions), until, bounds: Bounds::default() })
        }
    }
}

fn conditions(arguments: &FilterArguments) -> Result<Conditions, Wrong> {
    arguments.given().try_fold(Conditions::default(), |conditions, (name, value)| conditions.with(name, value))
}

/// `nextHop` as an option is written.
fn as_option(name: &str) -> String {
    name.chars().fold("--".to_owned(), |option, c| {
        if c.is_ascii_uppercase() { format!("{option}-{}", c.to_ascii_lowercase()) } else { format!("{option}{c}") }
    })
}

impl From<Wrong> for Failure {
    fn from(wrong: Wrong) -> Self {
        Self::new(Exit::Usage, format!("{} {}", as_option(wrong.condition), wrong.why))
    }
}

impl From<operations::Error> for Failure {
    fn from(error: operations::Error) -> Self {
        match error {
            operations::Error::Store(error) => error.into(),
            operations::Error::Wrong(wrong) => wrong.into(),
            operations::Error::NoSuchGroup(_)
            | operations::Error::NoSuchRepository(_)
            | operations::Error::UnknownRepository(..) => Self::new(Exit::NotFound, error.to_string()),
            operations::Error::Refused(why) => Self::new(Exit::Usage, why),
        }
    }
}
