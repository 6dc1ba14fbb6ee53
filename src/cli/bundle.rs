//! `redeliver repository bundle`: evidence about one mail, to be handed to the other side.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use super::app::App;
use super::exit::{Exit, Failure};
use super::repository;
use crate::audit::{self, Evidence, Extent, NoBundle, header_of};

/// What is asked for.
pub(super) struct Asked<'a> {
    pub(super) repository: &'a str,
    pub(super) key: &'a str,
    pub(super) extent: Extent<'a>,
    pub(super) message: bool,
    pub(super) output: Option<PathBuf>,
}

pub(super) async fn run(app: &App, asked: Asked<'_>, out: &mut impl Write) -> Result<Exit, Failure> {
    if asked.output.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::new(Exit::Usage, "a zip archive is nothing for a terminal: name a file with -o"));
    }
    let listed = repository::find(app, asked.repository, asked.key).await?;
    let attempts = app.store.attempts_of(&listed.mail).await?;
    let message = audit::message(&*app.store, &listed.mail).await;
    let message = message.map_err(|error| Failure::new(Exit::CannotWrite, error.to_string()))?;
    let header = header_of(&message);
    let message = asked.message.then_some(message.as_slice());
    let archive = audit::bundle(&Evidence { listed: &listed, attempts: &attempts, header, message }, asked.extent)?;
    match asked.output {
        Some(file) => write_to(&file, &archive)?,
        None => out.write_all(&archive)?,
    }
    Ok(Exit::Ok)
}

fn write_to(file: &Path, archive: &[u8]) -> Result<(), Failure> {
    std::fs::write(file, archive).map_err(|error| {
        // Where root called, we are the user by now whom the store belongs to.
        let hint = if error.kind() == std::io::ErrorKind::PermissionDenied { "; or use > FILE" } else { "" };
        Failure::new(Exit::CannotWrite, format!("{} cannot be written: {error}{hint}", file.display()))
    })
}

impl From<NoBundle> for Failure {
    fn from(why: NoBundle) -> Self {
        Self::new(Exit::Usage, why.to_string())
    }
}
