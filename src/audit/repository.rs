//! A mail repository.

use serde_json::{Value, json};

use crate::mail::RepositoryPath;

/// A repository with its number of mails; its URL has the scheme of the store that is real.
pub fn repository_json(path: &RepositoryPath, scheme: &str, size: u64) -> Value {
    json!({"repository": path.as_str(), "url": format!("{scheme}://{path}/"), "size": size})
}
