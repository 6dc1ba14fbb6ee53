//! The repository that an operator means.

use std::collections::BTreeSet;

use super::{Error, Result};
use crate::mail::RepositoryPath;
use crate::store::Store;

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
        [] => Err(crate::store::Error::NoSuchRepository(path).into()),
        _ => {
            let paths: Vec<_> = named.iter().map(ToString::to_string).collect();
            Err(unknown(format!("{text:?} could be {}: write the path", paths.join(" or "))))
        }
    }
}
