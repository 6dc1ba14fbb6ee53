//! The repository that an operator means.

use std::collections::BTreeSet;

use super::{Error, Result};
use crate::mail::RepositoryPath;
use crate::store::Store;

/// Repositories that are named to whoever asks for one that there is not.
const NAMED: usize = 20;

/// Those that there are.
fn known_are(known: &[RepositoryPath]) -> String {
    let named: Vec<_> = known.iter().take(NAMED).map(RepositoryPath::as_str).collect();
    let more = known.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("known are {}{more}", named.join(", "))
}

/// The repository that is meant by a URL of one of `schemes`, by a path, or by a last segment
/// where that is unique.
///
/// # Errors
/// Where there is none, or more than one.
pub async fn resolve(store: &dyn Store, schemes: &BTreeSet<String>, text: &str) -> Result<RepositoryPath> {
    let unknown = |why: String| Error::NoSuchRepository(why);
    let (scheme, path) = RepositoryPath::parse_url(text).map_err(|error| unknown(error.to_string()))?;
    if let Some(scheme) = scheme.filter(|scheme| !schemes.contains(scheme)) {
        return Err(unknown(format!("no store is configured for scheme {scheme:?} of {text:?}")));
    }
    let known = store.repositories().await?;
    if known.contains(&path) {
        return Ok(path);
    }
    let named: Vec<_> = known.iter().filter(|known| known.last_segment() == path.as_str()).collect();
    match named[..] {
        [one] => Ok(one.clone()),
        [] => Err(Error::UnknownRepository(path, known_are(&known))),
        _ => {
            let paths: Vec<_> = named.iter().map(ToString::to_string).collect();
            Err(unknown(format!("{text:?} could be {}: write the path", paths.join(" or "))))
        }
    }
}
