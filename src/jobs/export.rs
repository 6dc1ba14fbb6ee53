//! Job kind `export`: one `.eml` file per mail, byte for byte.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::directory::{Directory, blocking};
use super::runner::Runner;
use super::sweep::Swept;
use crate::mail::{MailKey, MessageId, RepositoryPath};
use crate::store::{Error, Horizon, Listed, MailFilter, Pages, Place, Store};

/// Writes every mail of `repository` that was there when the run began into `directory`.
/// What an earlier run wrote is left: the message behind a key never changes.
pub(super) async fn run(
    runner: &Runner<'_>,
    repository: &RepositoryPath,
    directory: &Path,
    within: Horizon,
    swept: &mut Swept,
) -> Result<(), Error> {
    if let Err(error) = write_all(runner, repository, directory, within, swept).await? {
        swept.trouble = Some(format!("export to {}: {error}", directory.display()));
    }
    Ok(())
}

/// The outer error is the store's, the inner one the folder's.
async fn write_all(
    runner: &Runner<'_>,
    repository: &RepositoryPath,
    directory: &Path,
    within: Horizon,
    swept: &mut Swept,
) -> Result<io::Result<()>, Error> {
    let place = Place::Repository(repository.clone());
    swept.written = Some(directory.to_owned());
    let path = directory.to_owned();
    let directory = match blocking(move || Directory::open(&path)).await {
        Ok(directory) => Arc::new(directory),
        Err(error) => return Ok(Err(error)),
    };
    let mut pages =
        Pages::new(runner.store, place.clone(), MailFilter { within: Some(within), ..MailFilter::default() });
    while let Some(page) = pages.next().await? {
        for listed in page {
            if runner.is_stopped() {
                swept.left = runner.store.size(&place).await?.saturating_sub(swept.counts.selected);
                return Ok(blocking(move || directory.sync()).await);
            }
            match write_one(runner.store, &directory, &file_name(&listed.mail.key), listed.mail.message).await {
                Ok(()) => runner.handled(1, swept),
                // It was sent round again, or removed, while it was being read.
                Err(error) if error.kind() == io::ErrorKind::NotFound && is_gone(runner, &place, &listed).await? => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let key = &listed.mail.key;
                    tracing::error!(mail.id = %key, %error, "the mail is not exported");
                    swept.trouble.get_or_insert_with(|| format!("mail {key} is not exported: {error}"));
                }
                Err(error) => return Ok(Err(error)),
            }
        }
    }
    Ok(blocking(move || directory.sync()).await)
}

async fn is_gone(runner: &Runner<'_>, place: &Place, listed: &Listed) -> Result<bool, Error> {
    match runner.store.find(place, &listed.mail.key).await {
        Ok(_) => Ok(false),
        Err(Error::NoSuchMail(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

async fn write_one(store: &dyn Store, directory: &Arc<Directory>, name: &str, message: MessageId) -> io::Result<()> {
    let (into, wanted) = (Arc::clone(directory), name.to_owned());
    let part = blocking(move || if into.has(&wanted) { Ok(None) } else { into.part().map(Some) }).await?;
    let Some(part) = part else { return Ok(()) };
    let written = copy(store, message, &part).await;
    let (into, name) = (Arc::clone(directory), name.to_owned());
    blocking(move || match written {
        Ok(()) => into.keep(&name),
        Err(error) => into.give_up().and(Err(error)),
    })
    .await
}

async fn copy(store: &dyn Store, message: MessageId, part: &Path) -> io::Result<()> {
    let part = part.to_owned();
    let mut file = blocking(move || OpenOptions::new().write(true).open(part)).await?;
    for number in 0.. {
        let row = match store.content(message, number).await {
            Err(Error::NoContent) => return Err(io::Error::new(io::ErrorKind::NotFound, Error::NoContent)),
            row => row.map_err(io::Error::other)?,
        };
        if row.is_empty() {
            break;
        }
        file = blocking(move || file.write_all(&row).map(|()| file)).await?;
    }
    Ok(())
}

/// A name of the key alone: nothing that a sender wrote gets into it.
fn file_name(key: &MailKey) -> String {
    let safe =
        |c: char| if c.is_ascii_alphanumeric() || c == '-' { c.to_string() } else { format!("%{:02X}", c as u32) };
    key.as_str().chars().map(safe).chain([".eml".to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_cannot_lead_out_of_the_folder() {
        let name = |key: &str| file_name(&MailKey::parse(key).expect("a key"));
        assert_eq!(name("01K6Z5R0QG3M4N5P6Q-1"), "01K6Z5R0QG3M4N5P6Q-1.eml");
        assert_eq!(name("../x"), "%2E%2E%2Fx.eml");
        assert_eq!(name("~a"), "%7Ea.eml");
    }
}
