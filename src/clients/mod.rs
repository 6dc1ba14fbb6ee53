//! What both listeners know of their clients: who they are by a file of users, how many wrong
//! passwords come from where, and the certificate that they are shown.

mod tls;
mod users;
mod wrong_passwords;

use std::path::{Path, PathBuf};

pub use tls::acceptor;
pub use users::{Columns, Role, Users, Verdict, read};
pub use wrong_passwords::{FORGOTTEN_AFTER, WrongPasswords, network_of};

/// What is wrong with a file that a listener needs.
#[derive(Debug, thiserror::Error)]
#[error("{}:{line}:1: {why}", file.display())]
pub struct FileError {
    /// The file.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// What is wrong, without what is secret in it.
    pub why: String,
}

impl FileError {
    fn new(file: &Path, line: usize, why: String) -> Self {
        Self { file: file.to_owned(), line, why }
    }
}
