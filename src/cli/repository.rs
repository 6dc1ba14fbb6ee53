//! `redeliver repository`: looking at what failed, and sending it round again.

use std::io::Write;
use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::{Map, Value, json};

use super::app::App;
use super::args::{FilterArguments, Format, RepositoryCommand, WhichArguments};
use super::attempts;
use super::exit::{Exit, Failure};
use super::json_lines;
use super::terminal;
use crate::config;
use crate::mail::{AttributeValue, Attributes, Mail, MailKey, Recorded, RepositoryPath, attribute};
use crate::spool::{QueuePage, Waiting, waiting};
use crate::store::{Error, Listed, MailFilter, Pages, Place, Respool, Seq, Time};
use crate::text::{self, Table, rfc3339};

pub(super) async fn run(app: &App, command: RepositoryCommand, out: &mut impl Write) -> Result<Exit, Failure> {
    match command {
        RepositoryCommand::List { format } => list(app, format, out).await,
        RepositoryCommand::Mails { repository, filter, limit, format } => {
            mails(app, &repository, &filter, limit, format, out).await
        }
        RepositoryCommand::Show { repository, key, format } => show(app, &repository, &key, format, out).await,
        RepositoryCommand::Export { repository, key } => export(app, &repository, &key, out).await,
        RepositoryCommand::Reprocess { repository, which, processor, reset } => {
            app.known_processor(&processor)?;
            let reset = if reset { app.config.processors.counters() } else { Vec::new() };
            act(app, &repository, &which, &Verb::Reprocess(Respool { processor, reset, upto: None }), out).await
        }
        RepositoryCommand::Move { repository, which, to } => {
            let to = resolve(app, &to).await?;
            if to == resolve(app, &repository).await? {
                // Each would come to rest behind the others, and be met again.
                return Err(Failure::new(Exit::Usage, format!("they are in {to} already")));
            }
            act(app, &repository, &which, &Verb::Move { to }, out).await
        }
        RepositoryCommand::Remove { repository, which } => act(app, &repository, &which, &Verb::Remove, out).await,
    }
}

/// The repository that an operator means by a URL, a path or a last segment.
pub(super) async fn resolve(app: &App, text: &str) -> Result<RepositoryPath, Failure> {
    let (scheme, path) = RepositoryPath::parse_url(text).map_err(|e| Failure::new(Exit::NotFound, e.to_string()))?;
    if let Some(scheme) = scheme.filter(|scheme| !app.config.store.schemes.contains(scheme)) {
        return Err(Failure::new(Exit::NotFound, format!("no store is configured for scheme {scheme:?} of {text:?}")));
    }
    let known = app.store.repositories().await?;
    if known.contains(&path) {
        return Ok(path);
    }
    let named: Vec<_> = known.iter().filter(|known| known.last_segment() == path.as_str()).collect();
    match named[..] {
        [one] => Ok(one.clone()),
        [] => Err(Error::NoSuchRepository(path).into()),
        _ => {
            let paths: Vec<_> = named.iter().map(ToString::to_string).collect();
            Err(Failure::new(Exit::NotFound, format!("{text:?} could be {}: write the path", paths.join(" or "))))
        }
    }
}

async fn list(app: &App, format: Format, out: &mut impl Write) -> Result<Exit, Failure> {
    let mut table = Table::new(&["MAILS", "REPOSITORY"]).whole();
    for path in app.store.repositories().await? {
        let size = app.store.size(&Place::Repository(path.clone())).await?;
        match format {
            Format::Json => {
                let url = format!("{}://{path}/", config::Store::SCHEME);
                json_lines::write(out, &json!({"repository": path.as_str(), "url": url, "size": size}))?;
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
    let filter = filter_of(filter, app.clock.now())?;
    list_place(app, &Place::Repository(path), &filter, limit, format, out).await
}

/// Of a listing of mails.
const COLUMNS: [&str; 8] = ["KEY", "AGE", "PASSES", "CODE", "NEXT HOP", "SENDER", "RECIPIENT", "REPLY"];

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
    let mut table = Table::new(&COLUMNS);
    let mut number = 0;
    while let Some(page) = pages.next().await? {
        number += page.len();
        match format {
            Format::Json => page.iter().try_for_each(|listed| json_lines::write(out, &mail_json(&listed.mail)))?,
            Format::Text => {
                rows(&waiting(&*app.store, &page).await?, app.clock.now(), &mut table);
                write!(out, "{}", table.block(terminal::width()))?;
            }
        }
    }
    if format == Format::Text && number == 0 {
        writeln!(out, "no mails")?;
    }
    Ok(Exit::Ok)
}

fn rows(mails: &[Waiting], now: Time, table: &mut Table) {
    for mail in mails {
        table.row(&row(mail, now));
    }
}

fn row(mail: &Waiting, now: Time) -> Vec<String> {
    let last = mail.last.as_ref();
    let mark = if mail.in_hand { "*" } else { "" };
    // What was decided here about the mail stands above what a peer said before.
    let reply = mail.error.clone().or_else(|| last.map(said)).unwrap_or_default();
    let first = mail.recipient.as_ref().map(ToString::to_string).unwrap_or_default();
    vec![
        format!("{}{mark}", mail.key),
        text::age(now - mail.accepted),
        mail.passes.to_string(),
        last.and_then(|r| r.code).map_or("-".to_owned(), |code| code.to_string()),
        last.and_then(|r| r.next_hop.clone()).unwrap_or_else(|| "-".to_owned()),
        mail.sender.to_string(),
        if mail.others == 0 { first } else { format!("{first} +{}", mail.others) },
        reply,
    ]
}

/// What waits: for a person each place under its name, for a script in every line.
pub(super) struct QueueTable {
    json: bool,
    table: Table,
    place: Option<String>,
}

impl QueueTable {
    pub(super) fn new(json: bool) -> Self {
        Self { json, table: Table::new(&COLUMNS), place: None }
    }

    pub(super) fn write(&mut self, page: &QueuePage, now: Time, out: &mut impl Write) -> std::io::Result<()> {
        if self.json {
            return page.mails.iter().try_for_each(|mail| json_lines::write(out, &waiting_json(&page.place, mail)));
        }
        if self.place.as_deref() != Some(page.place.as_str()) {
            writeln!(out, "{}{}:", if self.place.is_none() { "" } else { "\n" }, page.place)?;
            self.table = Table::new(&COLUMNS);
            self.place = Some(page.place.clone());
        }
        rows(&page.mails, now, &mut self.table);
        write!(out, "{}", self.table.block(terminal::width()))
    }

    /// What stands in place of a table, as it does with other mailers.
    pub(super) fn end(self, out: &mut impl Write) -> std::io::Result<()> {
        if self.place.is_none() && !self.json { writeln!(out, "Mail queue is empty") } else { Ok(()) }
    }
}

fn waiting_json(place: &str, mail: &Waiting) -> Value {
    json!({
        "place": place,
        "key": mail.key,
        "accepted": rfc3339(mail.accepted),
        "inHand": mail.in_hand,
        "passes": mail.passes,
        "sender": mail.sender,
        "recipient": mail.recipient,
        "others": mail.others,
        "error": mail.error,
        "last": mail.last,
    })
}

/// The reply, or what stands for it.
pub(super) fn said(recorded: &Recorded) -> String {
    recorded.reply.clone().or_else(|| recorded.cause.clone()).unwrap_or_default()
}

/// A mail in a listing.
pub(super) fn mail_json(mail: &Mail) -> Value {
    json!({
        "key": mail.key,
        "name": mail.name,
        "sender": mail.envelope.reverse_path,
        "recipients": mail.envelope.recipients,
        "state": mail.state,
        "lastUpdated": rfc3339(mail.last_updated),
        "passes": mail.passes(),
        "error": mail.error,
    })
}

/// A time as all output for scripts has it.
async fn show(app: &App, repository: &str, key: &str, format: Format, out: &mut impl Write) -> Result<Exit, Failure> {
    let listed = find(app, repository, key).await?;
    let attempts = app.store.attempts_of(&listed.mail).await?;
    if format == Format::Json {
        let mut object = mail_json(&listed.mail);
        let attributes: Map<String, Value> =
            listed.mail.attributes.iter().map(|(name, value)| (name.to_owned(), value.to_string().into())).collect();
        object["attributes"] = attributes.into();
        object["messageSize"] = listed.mail.facts.size.into();
        object["origin"] = json!(listed.mail.origin);
        object["attempts"] = attempts.iter().map(attempts::of_mail_json).collect();
        json_lines::write(out, &object)?;
    } else {
        write!(out, "{}", picture(&listed, app.clock.now()))?;
        for attempt in &attempts {
            write!(out, "\n{}", attempts::picture(attempt))?;
        }
    }
    Ok(Exit::Ok)
}

/// A mail for a person, without its attempts.
fn picture(listed: &Listed, now: Time) -> String {
    let mail = &listed.mail;
    let mut lines = vec![
        ("key", mail.key.to_string()),
        ("sender", mail.envelope.reverse_path.to_string()),
        ("accepted", format!("{} ({} ago)", rfc3339(listed.accepted), text::age(now - listed.accepted))),
        ("last updated", rfc3339(mail.last_updated)),
        ("size", format!("{} octets", mail.facts.size)),
        ("processor", mail.state.clone()),
        ("passes", mail.passes().to_string()),
    ];
    lines.extend(mail.envelope.recipients.iter().map(|recipient| ("recipient", recipient.to_string())));
    lines.extend(mail.origin.iter().map(|origin| ("split off from", origin.to_string())));
    lines.extend(mail.error.iter().map(|error| ("error", error.clone())));
    if listed.in_hand {
        lines.push(("in hand", "an attempt is under way".to_owned()));
    }
    for (name, value) in mail.attributes.iter().filter(|(name, _)| *name != attribute::DELIVERY_ERROR) {
        lines.push(("attribute", format!("{name} = {value}")));
    }
    if let Some(AttributeValue::Text(error)) = mail.attributes.get(attribute::DELIVERY_ERROR) {
        lines.push(("last failure", error.clone()));
    }
    lines.iter().map(|(name, value)| format!("{name:<15} {}\n", text::one_line(value))).collect()
}

async fn export(app: &App, repository: &str, key: &str, out: &mut impl Write) -> Result<Exit, Failure> {
    let listed = find(app, repository, key).await?;
    let content = app.store.content(listed.mail.message);
    let mut offset = 0;
    loop {
        let reader = Arc::clone(&content);
        let piece = tokio::task::spawn_blocking(move || reader.read(offset))
            .await
            .map_err(|panic| Failure::new(Exit::Internal, panic.to_string()))?
            .map_err(|error| Failure::new(Exit::CannotWrite, error.to_string()))?;
        if piece.is_empty() {
            out.flush()?;
            return Ok(Exit::Ok);
        }
        offset += piece.len() as u64;
        out.write_all(&piece)?;
    }
}

async fn find(app: &App, repository: &str, key: &str) -> Result<Listed, Failure> {
    let path = resolve(app, repository).await?;
    Ok(app.store.find(&Place::Repository(path), &parse_key(key)?).await?)
}

fn parse_key(key: &str) -> Result<MailKey, Failure> {
    MailKey::parse(key).ok_or_else(|| Failure::new(Exit::NotFound, format!("{key:?} is no key of a mail")))
}

/// What is done to each mail that is meant.
#[derive(Clone)]
enum Verb {
    Reprocess(Respool),
    Move { to: RepositoryPath },
    Remove,
}

impl Verb {
    /// The same for mails that had come to rest by `upto`: one that another command has sent
    /// round meanwhile is not sent again.
    fn upto(&self, upto: Seq) -> Self {
        match self {
            Self::Reprocess(how) => Self::Reprocess(Respool { upto: Some(upto), ..how.clone() }),
            other => other.clone(),
        }
    }
}

/// What was done, in numbers.
struct Done {
    /// Of a dry run for a person: the mails that are meant.
    meant: Option<Table>,
    mails: u64,
    in_hand: u64,
    /// Mails whose counter was not reset and is used up.
    exhausted: u64,
}

impl Done {
    async fn show_meant(&mut self, app: &App, page: &[Listed], out: &mut impl Write) -> Result<(), Failure> {
        if let Some(table) = &mut self.meant {
            rows(&waiting(&*app.store, page).await?, app.clock.now(), table);
            write!(out, "{}", table.block(terminal::width()))?;
        }
        Ok(())
    }
}

async fn act(
    app: &App,
    repository: &str,
    which: &WhichArguments,
    verb: &Verb,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let place = Place::Repository(resolve(app, repository).await?);
    let meant = (which.dry_run && which.format == Format::Text).then(|| Table::new(&COLUMNS));
    let mut done = Done { meant, mails: 0, in_hand: 0, exhausted: 0 };
    if let Some(key) = &which.key {
        if !which.filter.is_empty() {
            return Err(Failure::new(Exit::Usage, "a key names one mail: name either a key or a filter"));
        }
        let key = parse_key(key)?;
        let listed = match app.store.find(&place, &key).await {
            Ok(listed) => Some(listed),
            // What cannot be shown can be put elsewhere all the same.
            Err(error) if error.is_unreadable() => None,
            Err(error) => return Err(error.into()),
        };
        let attributes = listed.as_ref().map(|listed| &listed.mail.attributes);
        act_on(app, &place, &key, attributes, verb, which.dry_run, &mut done).await?;
        done.show_meant(app, listed.as_slice(), out).await?;
    } else {
        if !which.all && which.filter.is_empty() {
            return Err(Failure::new(Exit::Usage, "name a key, a filter such as --domain, or --all"));
        }
        let filter = filter_of(&which.filter, app.clock.now())?;
        act_on_all(app, &place, filter, verb, which.dry_run, &mut done, out).await?;
    }
    report(which, verb, &done, out)?;
    Ok(if which.key.is_some() && done.in_hand > 0 { Exit::Deferred } else { Exit::Ok })
}

/// Every mail that matches and was there at the start: what a running service brings back
/// meanwhile is not met again. A mail that is in hand, or went away, is passed over.
async fn act_on_all(
    app: &App,
    place: &Place,
    filter: MailFilter,
    verb: &Verb,
    dry_run: bool,
    done: &mut Done,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let upto = app.store.newest().await?;
    let verb = &verb.upto(upto);
    let mut pages = Pages::new(&*app.store, place.clone(), filter).upto(upto);
    while let Some(page) = pages.next().await? {
        done.show_meant(app, &page, out).await?;
        for listed in page {
            if dry_run && listed.in_hand {
                done.in_hand += 1;
                continue;
            }
            let mail = &listed.mail;
            match act_on(app, place, &mail.key, Some(&mail.attributes), verb, dry_run, done).await {
                Err(Error::InHand(_)) => done.in_hand += 1,
                Ok(()) | Err(Error::NoSuchMail(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

async fn act_on(
    app: &App,
    place: &Place,
    key: &MailKey,
    attributes: Option<&Attributes>,
    verb: &Verb,
    dry_run: bool,
    done: &mut Done,
) -> Result<(), Error> {
    let now = app.clock.now();
    match verb {
        _ if dry_run => {}
        Verb::Reprocess(how) => app.store.respool(place, key, how, now).await?,
        Verb::Move { to } => app.store.move_to(place, key, to, now).await?,
        Verb::Remove => app.store.remove(place, key, now).await?,
    }
    if let (Verb::Reprocess(how), Some(attributes)) = (verb, attributes) {
        let is_used_up = || app.config.processors.is_used_up(&how.processor, attributes);
        done.exhausted += u64::from(how.reset.is_empty() && is_used_up());
    }
    done.mails += 1;
    Ok(())
}

fn report(which: &WhichArguments, verb: &Verb, done: &Done, out: &mut impl Write) -> Result<(), Failure> {
    if which.format == Format::Json {
        let mut object = json!({"mails": done.mails, "skipped": done.in_hand, "dryRun": which.dry_run});
        if let Verb::Reprocess(_) = verb {
            object["exhausted"] = done.exhausted.into();
        }
        json_lines::write(out, &object)?;
        return Ok(());
    }
    let what = match verb {
        Verb::Reprocess(how) => format!("put into the spool for processor {}", how.processor),
        Verb::Move { to } => format!("moved to {to}"),
        Verb::Remove => "removed".to_owned(),
    };
    let would = if which.dry_run { "would be " } else { "" };
    writeln!(out, "{} {would}{what}", text::count(done.mails, "mail"))?;
    if done.in_hand > 0 {
        writeln!(out, "{} in hand now and left alone", text::count(done.in_hand, "mail"))?;
    }
    match done.exhausted {
        0 => {}
        1 => writeln!(
            out,
            "1 of them has used up its passes and goes where AtMost sends it; --reset makes it start again"
        )?,
        more => writeln!(
            out,
            "{more} of them have used up their passes and go where AtMost sends them; --reset makes them start again"
        )?,
    }
    Ok(())
}

fn filter_of(arguments: &FilterArguments, now: Time) -> Result<MailFilter, Failure> {
    let ago = |age: std::time::Duration| {
        TimeDelta::from_std(age)
            .ok()
            .and_then(|age| now.checked_sub_signed(age))
            .ok_or_else(|| Failure::new(Exit::Usage, "that age is before the calendar begins"))
    };
    // What can match nobody is a slip, not a question with the answer "none".
    for (option, pattern) in [("--sender", &arguments.sender), ("--recipient", &arguments.recipient)] {
        let names_somebody = |pattern: &String| pattern.contains('@') || pattern == "<>";
        if let Some(pattern) = pattern.as_ref().filter(|pattern| !names_somebody(pattern)) {
            let why = format!("{option} {pattern:?} is nobody: write an address, *@domain, or <> for the null sender");
            return Err(Failure::new(Exit::Usage, why));
        }
    }
    if let Some(domain) = arguments.domain.as_ref().filter(|domain| domain.is_empty() || domain.contains('@')) {
        return Err(Failure::new(Exit::Usage, format!("--domain {domain:?} is no domain: write it as x.example")));
    }
    Ok(MailFilter {
        sender: arguments.sender.clone(),
        recipient: arguments.recipient.clone(),
        domain: arguments.domain.clone(),
        code: arguments.code,
        before: arguments.older.map(ago).transpose()?,
        after: arguments.newer.map(ago).transpose()?,
        passes: arguments.passes,
    })
}
