//! `redeliver check --service`: the configuration as the service will meet it, as its user
//! and with the paths that its unit lets it write.

use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User};

use super::exit::{Exit, Failure};
use crate::config::{Config, Source};
use crate::jobs;
use crate::parts;
use crate::serve::Unit;
use crate::yaml::{Diagnostic, Document, Fields, Reading};

/// Reads the unit and becomes its user: what is read from now on is read as the service does.
pub(super) fn enter() -> Result<Unit, Failure> {
    let wrong = |message| Failure::new(Exit::Configuration, message);
    let unit = Unit::find(std::env::var_os("SYSTEMD_UNIT_PATH")).map_err(wrong)?;
    let Some(name) = &unit.user else { return Ok(unit) };
    let user = User::from_name(name).ok().flatten();
    let uid =
        user.ok_or_else(|| wrong(format!("the unit's user {name} does not exist: systemd-sysusers makes it")))?.uid;
    if Uid::effective().is_root() {
        let cannot = |error| Failure::new(Exit::Internal, format!("cannot become the user {name}: {error}"));
        parts::become_user(uid, group_of(&unit)?).map_err(cannot)?;
    } else if Uid::effective() != uid {
        return Err(Failure::new(Exit::Usage, format!("check --service looks as the user {name}: only root can")));
    }
    Ok(unit)
}

/// The group that the unit names; `None` where it is the user's own.
fn group_of(unit: &Unit) -> Result<Option<Gid>, Failure> {
    let Some(name) = &unit.group else { return Ok(None) };
    let wrong = || format!("the unit's group {name} does not exist: systemd-sysusers makes it");
    let group = Group::from_name(name).ok().flatten().ok_or_else(|| Failure::new(Exit::Configuration, wrong()))?;
    Ok(Some(group.gid))
}

/// Every directory that the service would write in, and may not.
pub(super) fn refused_directories(unit: &Unit, config: &Config) -> Vec<Diagnostic> {
    let Source::File(main) = &config.source else { return Vec::new() };
    let mut found: Vec<_> = unit.refused_links().flat_map(|told| problem(main, &["stateDirectory"], told)).collect();
    let mut look = |file: &Path, keys: &[&'static str], directory: &Path| {
        if let Some(why) = unit.refuses(directory) {
            found.extend(problem(file, keys, format!("{}: {why}", directory.display())));
        }
    };
    look(main, &["stateDirectory"], &config.state_directory);
    if config.store.directory() != config.state_directory {
        look(main, &["stores", "sqlite", "path"], config.store.directory());
    }
    for file in files_of_store(&config.store.path) {
        look(main, &["stateDirectory"], &file);
    }
    if let Some(directory) = &config.log.directory {
        look(main, &["log", "directory"], directory);
    }
    for (name, job) in &config.jobs {
        if let jobs::Config::Export { directory, .. } | jobs::Config::Backup { directory } = job {
            look(&config.jobs_directory.join(format!("{name}.yaml")), &["directory"], directory);
        }
    }
    found
}

/// The database and what belongs to it, where a command may have left one of another user.
fn files_of_store(database: &Path) -> Vec<PathBuf> {
    let beside = |suffix: &str| {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    ["", "-wal", "-shm"].map(beside).into_iter().filter(|file| file.exists()).collect()
}

/// At the value that `keys` lead to, or as far as they do.
fn problem(file: &Path, keys: &[&'static str], message: String) -> Vec<Diagnostic> {
    let document = match Document::read(file) {
        Ok(document) => document,
        Err(wrong) => return vec![wrong],
    };
    let reading = Reading::new(file);
    let mut node = document.root();
    for key in keys {
        match Fields::of(node, "a section", &reading).and_then(|mut fields| fields.node(key)) {
            Some(inner) => node = inner,
            None => break,
        }
    }
    reading.problem(node.place, message);
    document.diagnostics(reading)
}
