//! Where the service takes what is submitted on this machine.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::config::{Config, Search, Source};
use crate::ingest::SOCKET;

/// Names the socket, for the service and for those who ask it.
const VARIABLE: &str = "REDELIVER_SUBMIT";

/// Where the Debian package has it.
const PACKAGED: &str = "/run/redeliver/submit.sock";

/// Where a service binds its own socket.
pub fn own_socket(config: &Config) -> PathBuf {
    named().unwrap_or_else(|| config.state_directory.join(SOCKET))
}

/// Where the service of this configuration is asked; `None` is one that this user may not read.
pub fn socket(config: Option<&Config>) -> PathBuf {
    if let Some(named) = named() {
        return named;
    }
    let is_machines = |source: &Source| *source == Source::File(Search::machine());
    let packaged = config.is_none_or(|config| is_machines(&config.source)).then(|| PathBuf::from(PACKAGED));
    let own = config.map(|config| config.state_directory.join(SOCKET));
    let found = packaged.iter().chain(&own).find(|path| is_socket(path)).cloned();
    found.or(own).or(packaged).unwrap_or_default()
}

fn named() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Whether there is one; not whether anybody listens.
pub fn is_socket(path: &Path) -> bool {
    path.metadata().is_ok_and(|facts| facts.file_type().is_socket())
}
