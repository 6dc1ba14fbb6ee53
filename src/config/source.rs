//! Where the configuration is looked for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where the configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file that is there, though perhaps not readable.
    File(PathBuf),
    /// None was found: what ships is in force.
    BuiltIn,
}

impl Source {
    /// Why this user may not read it; `None` where he may, or something else is wrong with it.
    pub fn forbidden(&self) -> Option<String> {
        let Self::File(path) = self else { return None };
        let error = crate::files::open(path).err()?;
        let forbidden = error.kind() == std::io::ErrorKind::PermissionDenied;
        forbidden.then(|| format!("{} cannot be read: {error}", path.display()))
    }
}

/// Where to look.
#[derive(Debug, Clone)]
pub struct Search {
    /// `--config`.
    pub option: Option<PathBuf>,
    /// `$REDELIVER_CONFIG`; empty counts as unset.
    pub environment: Option<OsString>,
    /// The file of the working directory.
    pub here: PathBuf,
    /// The machine's file.
    pub machine: PathBuf,
    /// Started as `sendmail` or `mailq`, from anywhere by anyone: neither the working
    /// directory nor what ships counts.
    pub by_mail_program: bool,
}

/// There is no configuration where one is needed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no configuration: neither --config nor $REDELIVER_CONFIG is given, and there is no {0}")]
pub struct NoConfiguration(String);

impl Search {
    /// The machine's file.
    pub fn machine() -> PathBuf {
        PathBuf::from("/etc/redeliver/redeliver.yaml")
    }

    /// The usual places.
    pub fn new(option: Option<PathBuf>, environment: Option<OsString>, by_mail_program: bool) -> Self {
        Self { option, environment, here: PathBuf::from("redeliver.yaml"), machine: Self::machine(), by_mail_program }
    }

    /// The first place that has a configuration. A file that was named must be there, and
    /// one that is there is never passed over: reading it tells what is wrong.
    ///
    /// # Errors
    /// For a mail program that finds none.
    pub fn find(&self) -> Result<Source, NoConfiguration> {
        let environment = self.environment.as_ref().filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(named) = self.option.clone().or(environment) {
            return Ok(Source::File(named));
        }
        let here = (!self.by_mail_program).then_some(&self.here);
        let found = here.into_iter().chain([&self.machine]).find(|path| is_there(path));
        match found {
            Some(path) => Ok(Source::File(path.clone())),
            None if self.by_mail_program => Err(NoConfiguration(self.machine.display().to_string())),
            None => Ok(Source::BuiltIn),
        }
    }
}

/// Also where it cannot be told: then reading it says why.
fn is_there(path: &Path) -> bool {
    match path.symlink_metadata() {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_wins_and_a_mail_program_looks_in_fewer() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("here"), "").expect("written");
        // A dangling link is there, and cannot be read.
        std::os::unix::fs::symlink("nowhere", path("machine")).expect("linked");
        let search = |option: Option<&str>, environment: Option<&str>, here: &str, machine: &str, by_mail_program| {
            let option = option.map(PathBuf::from);
            let environment = environment.map(OsString::from);
            Search { option, environment, here: path(here), machine: path(machine), by_mail_program }.find()
        };
        let file = |path: PathBuf| Ok(Source::File(path));
        assert_eq!(search(Some("o"), Some("e"), "here", "machine", false), file("o".into()));
        assert_eq!(search(None, Some("e"), "here", "machine", true), file("e".into()));
        assert_eq!(search(None, Some(""), "here", "machine", false), file(path("here")));
        assert_eq!(search(None, None, "none", "machine", false), file(path("machine")));
        assert_eq!(search(None, None, "none", "none", false), Ok(Source::BuiltIn));
        assert_eq!(search(None, None, "here", "machine", true), file(path("machine")));
        let none = search(None, None, "here", "none", true).expect_err("no configuration");
        assert!(none.to_string().contains("none"), "{none}");
    }
}
