//! Names of mail repositories.

use serde::{Deserialize, Serialize};

/// The canonical path of a repository, such as `var/mail/error/remote-delivery/temporary`.
///
/// It is a name, never a path of a file system: it is only ever looked up. No scheme, no
/// trailing slash, no empty, `.` or `..` segment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryPath(String);

/// Why a text names no repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a repository: write scheme://path/ or path, without empty, '.' or '..' segments")]
pub struct RepositoryPathError(String);

impl RepositoryPath {
    /// Where mails are kept that are nobody's failure but ours: `var/mail/error`.
    pub fn error() -> Self {
        Self("var/mail/error".to_owned())
    }

    /// Where notifications of ours are kept that cannot be delivered: `var/mail/error/dsn`.
    pub fn dsn() -> Self {
        Self("var/mail/error/dsn".to_owned())
    }

    /// Reads a path, with or without a trailing slash.
    ///
    /// # Errors
    /// Where a segment is empty, `.` or `..`, or a character is a control character or
    /// a backslash; so too over 1024 octets.
    pub fn parse(text: &str) -> Result<Self, RepositoryPathError> {
        let path = text.strip_suffix('/').unwrap_or(text);
        let segment = |s: &str| {
            !s.is_empty() && s != "." && s != ".." && !s.contains(['\\', ':']) && !s.contains(char::is_control)
        };
        if text.len() <= 1024 && path.split('/').all(segment) {
            Ok(Self(path.to_owned()))
        } else {
            Err(RepositoryPathError(text.chars().take(80).collect()))
        }
    }

    /// Splits a URL such as `cassandra://var/mail/error/` into scheme and path; the
    /// scheme is `None` for a bare path.
    ///
    /// # Errors
    /// As [`RepositoryPath::parse`].
    pub fn parse_url(text: &str) -> Result<(Option<String>, Self), RepositoryPathError> {
        match text.split_once("://") {
            Some((scheme, path)) => Ok((Some(scheme.to_owned()), Self::parse(path)?)),
            None => Ok((None, Self::parse(text)?)),
        }
    }

    /// The path as text, without trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether lists and numbers could not tell it from the spool.
    pub fn is_called_as_the_spool(&self) -> bool {
        self.0 == "spool"
    }

    /// What stands behind the last slash: the short name, where it is unique.
    pub fn last_segment(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl std::fmt::Display for RepositoryPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for RepositoryPath {
    type Error = RepositoryPathError;
    fn try_from(text: String) -> Result<Self, RepositoryPathError> {
        Self::parse(&text)
    }
}

impl From<RepositoryPath> for String {
    fn from(path: RepositoryPath) -> Self {
        path.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_has_one_canonical_path() {
        for (text, scheme, path) in [
            ("cassandra://var/mail/error/", Some("cassandra"), "var/mail/error"),
            ("var/mail/error/", None, "var/mail/error"),
            ("var/mail/error", None, "var/mail/error"),
            ("temporary", None, "temporary"),
        ] {
            let (found, parsed) = RepositoryPath::parse_url(text).expect(text);
            assert_eq!((found.as_deref(), parsed.as_str()), (scheme, path), "{text}");
        }
    }

    #[test]
    fn a_repository_is_never_a_way_through_the_file_system() {
        for text in
            ["", "/", "/etc/passwd", "a//b", "../x", "a/../b", "a/./b", "a\\b", "a\0b", "sqlite://../x", "a://b://c"]
        {
            assert!(RepositoryPath::parse_url(text).is_err(), "{text:?}");
        }
    }
}
