//! `sendmail`: a message from standard input, ours once this exits with 0.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::PathBuf;

use super::app::App;
use super::args::Format;
use super::exit::{Exit, Failure};
use super::repository;
use crate::ingest::{Intake, IntakeError, Invocation, Missing, Mode, Origin, parse, received_field};
use crate::mail::{Address, Domain, Envelope, ReversePath};
use crate::spool::{AcceptError, Incoming, Submission};
use crate::store::{MailFilter, Place};

/// Octets read from standard input at once.
const PIECE: usize = 64 * 1024;

/// Reads the arguments; what is wrong with them is known before anything is opened.
pub(super) fn invocation(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, Failure> {
    parse(arguments).map_err(|error| {
        let exit = if error.exit_code() == 65 { Exit::Data } else { Exit::Usage };
        Failure::new(exit, error.to_string())
    })
}

/// Takes `--config FILE` out of a sub-command's words, where it may stand as well as in
/// front of it; what is behind `--` is nobody's option.
pub(super) fn own_options(words: Vec<OsString>, given: Option<PathBuf>) -> (Option<PathBuf>, Vec<OsString>) {
    let (mut config, mut rest) = (given, Vec::with_capacity(words.len()));
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word == "--" {
            rest.push(word);
            rest.extend(words.by_ref());
        } else if word == "--config" {
            config = words.next().map(PathBuf::from);
        } else if let Some(file) = word.to_str().and_then(|word| word.strip_prefix("--config=")) {
            config = Some(PathBuf::from(file));
        } else {
            rest.push(word);
        }
    }
    (config, rest)
}

/// Does what the arguments ask for.
pub(super) async fn run(app: &App, invocation: Invocation, out: &mut impl Write) -> Result<Exit, Failure> {
    match invocation.mode {
        Mode::Submit => submit(app, invocation).await,
        Mode::List => list(app, out).await,
        Mode::Sweep => super::run::sweep_all(app, out).await,
        Mode::Aliases => Ok(Exit::Ok),
    }
}

async fn submit(app: &App, invocation: Invocation) -> Result<Exit, Failure> {
    let user = app.local_user()?;
    let reverse_path = invocation.reverse_path.clone().unwrap_or_else(|| ReversePath::Address(user.address.clone()));
    let missing = Missing {
        from: reverse_path.address().unwrap_or(&user.address).clone(),
        full_name: invocation.full_name.clone().or(user.full_name),
        hostname: user.address.domain().clone(),
        now: app.clock.now(),
        random: rand::random(),
    };
    let mut incoming = app.spool.incoming();
    let trace = trace(app, &invocation, incoming.key(), user.address.domain(), user.uid);
    incoming.write_trace(&trace);
    let intake = Intake::new(missing, invocation.dot_ends_input, invocation.recipients_from_header);
    let from_header = read_message(intake, &mut incoming).await?;
    let recipients = [invocation.recipients, from_header].concat();
    let mut envelope = Envelope::new(reverse_path, recipients);
    envelope.smtputf8 = invocation.smtputf8;
    let key = incoming.accept(Submission { envelope, name: None, import_digest: None }).await?;
    tracing::info!(mail.id = %key, "accepted from standard input");
    Ok(Exit::Ok)
}

/// The trace field; it names the recipient only where it is the only one.
fn trace(app: &App, invocation: &Invocation, key: &crate::mail::MailKey, by: &Domain, uid: u32) -> String {
    let only = match &invocation.recipients[..] {
        [one] if !invocation.recipients_from_header => Some(one),
        _ => None,
    };
    received_field(Origin::User(uid), by, key, only, app.clock.now())
}

/// Reads standard input to its end, or to a lone dot; the recipients of the header.
async fn read_message(mut intake: Intake, incoming: &mut Incoming) -> Result<Vec<Address>, Failure> {
    let mut input = std::io::stdin().lock();
    let (mut piece, mut message) = (vec![0; PIECE], Vec::new());
    loop {
        let read = match input.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::new(Exit::Deferred, format!("cannot read standard input: {error}"))),
        };
        let more = intake.push(&piece[..read], &mut message).map_err(|error| refused(&error))?;
        incoming.write(&message).await?;
        message.clear();
        if incoming.is_too_large() || !more {
            break;
        }
    }
    if incoming.is_too_large() {
        // Nothing that follows could change it.
        return Err(AcceptError::TooLarge(incoming.limit()).into());
    }
    let recipients = intake.finish(&mut message).map_err(|error| refused(&error))?;
    incoming.write(&message).await?;
    Ok(recipients)
}

fn refused(error: &IntakeError) -> Failure {
    Failure::new(Exit::Data, error.to_string())
}

/// As mailq: what waits in the spool, and what is kept for a next pass.
async fn list(app: &App, out: &mut impl Write) -> Result<Exit, Failure> {
    let mut places = vec![Place::Spool];
    places.extend(app.config.swept_repositories().into_iter().map(Place::Repository));
    let mut mails = 0;
    for place in &places {
        mails += app.store.size(place).await?;
    }
    if mails == 0 {
        writeln!(out, "Mail queue is empty")?;
        return Ok(Exit::Ok);
    }
    for place in &places {
        if app.store.size(place).await? > 0 {
            repository::list_place(app, place, &MailFilter::default(), None, Format::Text, out).await?;
        }
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_may_be_named_on_either_side_of_the_sub_command() {
        let own = |words: &[&str]| {
            let (config, rest) = own_options(words.iter().map(OsString::from).collect(), None);
            let rest: Vec<_> = rest.into_iter().map(|word| word.into_string().expect("UTF-8")).collect();
            (config, rest.join(" "))
        };
        assert_eq!(own(&["-i", "--config", "f", "a@b"]), (Some("f".into()), "-i a@b".into()));
        assert_eq!(own(&["--config=f", "a@b"]), (Some("f".into()), "a@b".into()));
        assert_eq!(own(&["--", "--config", "f"]), (None, "-- --config f".into()));
    }
}
