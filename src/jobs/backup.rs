//! Job kind `backup`: one database file a run, which sqlite3 opens as it stands.

use std::io;
use std::path::{Path, PathBuf};

use super::directory::{Directory, blocking};
use super::runner::Runner;
use super::sweep::Swept;
use crate::store::{Destination, Error, Trouble};

/// Writes the store as it is now into `directory`. `selected` stays 0: no mail is touched.
pub(super) async fn run(runner: &Runner<'_>, directory: &Path, swept: &mut Swept) -> Result<(), Error> {
    let written = write(runner, directory).await;
    match written {
        Ok(Some(file)) => swept.written = Some(file),
        Ok(None) => swept.trouble = Some("the backup was given up: a stop was asked for".to_owned()),
        Err(why) => swept.trouble = Some(format!("backup to {}: {why}", directory.display())),
    }
    Ok(())
}

/// The file that was written; `None` where a stop came first.
async fn write(runner: &Runner<'_>, path: &Path) -> Result<Option<PathBuf>, String> {
    let told = |error: io::Error| error.to_string();
    let folder = path.to_owned();
    let opened =
        blocking(move || Directory::open(&folder).and_then(|directory| Ok((directory.part()?, directory)))).await;
    let (part, directory) = opened.map_err(told)?;
    let destination = Destination(part.into());
    let copied = tokio::select! {
        copied = runner.store.backup(&destination) => Some(copied),
        () = runner.stop.gentle.cancelled() => None,
    };
    match copied {
        Some(Ok(())) => {
            // To the millisecond, so that no run takes another's name.
            let name = runner.clock.now().format("redeliver-%Y%m%dT%H%M%S%.3fZ.db").to_string();
            let file = path.join(&name);
            blocking(move || directory.keep(&name).and_then(|()| directory.sync())).await.map_err(told)?;
            Ok(Some(file))
        }
        other => {
            blocking(move || directory.give_up()).await.map_err(told)?;
            other.map_or(Ok(None), |copied| copied.map(|()| None).map_err(|error| why(&error)))
        }
    }
}

/// What has no room is the folder, and not the store.
fn why(error: &Error) -> String {
    match error {
        Error::Trouble { kind: Trouble::Full, .. } => "there is no room left: make room on its file system".to_owned(),
        other => other.to_string(),
    }
}
