//! `mailq`: what waits.

use std::io::Write;
use std::path::Path;

use super::super::app::App;
use super::super::exit::{Exit, Failure};
use super::super::note;
use super::super::repository::QueueTable;
use super::service::unanswered;
use crate::audit::QueuePage;
use crate::ingest::QueueTold;
use crate::store::Time;

/// Lines of a listing whose columns are laid out together.
const TOLD_AT_ONCE: usize = 200;

/// As mailq: what waits in the spool, and what is kept for a next pass.
pub(super) async fn list(app: &App, json: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    let mut queue = app.spool.queue(app.config.kept_repositories(), None);
    let mut table = QueueTable::new(json);
    while let Some(page) = queue.next().await? {
        table.write(&page, app.clock.now(), out)?;
    }
    table.end(app.spool.queue_total(&app.config.kept_repositories()).await?, out)?;
    Ok(Exit::Ok)
}

/// As mailq, of what the service tells this user.
pub(super) async fn list_told(
    socket: &Path,
    json: bool,
    why: &Failure,
    now: Time,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let mut told = QueueTold::ask(socket).await.map_err(|error| unanswered(error, why, socket))?;
    // A heading, though not among what is read by programs.
    if let Some(only) = &told.only {
        note(&format!("only mails from {only} are listed here; root is told of all"));
    }
    let mut table = QueueTable::new(json);
    let mut page = QueuePage { place: String::new(), mails: Vec::new() };
    while let Some((place, mail)) = told.next().await.map_err(|error| unanswered(error, why, socket))? {
        if page.mails.len() == TOLD_AT_ONCE || page.place != place {
            if !page.mails.is_empty() {
                table.write(&page, now, out)?;
            }
            page = QueuePage { place, mails: Vec::new() };
        }
        page.mails.push(mail);
    }
    if !page.mails.is_empty() {
        table.write(&page, now, out)?;
    }
    if let Some(only) = told.only.as_ref().filter(|_| !json && told.total.mails > 0) {
        writeln!(out, "(only mails from {only} above, and all counted below)")?;
    }
    table.end(told.total, out)?;
    Ok(Exit::Ok)
}
