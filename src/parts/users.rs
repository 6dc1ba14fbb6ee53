//! The users of this machine.

use std::path::Path;

use nix::unistd::{Uid, User};

use crate::config::Config;
use crate::files;
use crate::ingest::{Caller, Here, MAILNAME, Origin, SystemNames};
use crate::mail::Domain;

/// This machine under its configured name.
///
/// # Errors
/// Where the name is no domain.
pub fn here(config: &Config) -> Result<Here, String> {
    let hostname = Domain::parse(&config.hostname).map_err(|error| format!("hostname: {error}"))?;
    let is_user = |name: &str| User::from_name(name).is_ok_and(|user| user.is_some());
    let system = SystemNames { mailname: mailname(), nodename: nodename() };
    Ok(Here::configured(hostname, system, config.sendmail.clone(), is_user))
}

/// The user with this number, for people: `name (number)`.
pub fn named(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| format!("uid {uid}"), |user| format!("{} ({uid})", user.name))
}

/// What the kernel calls the machine.
fn nodename() -> Option<Domain> {
    Domain::parse(nix::unistd::gethostname().ok()?.to_str()?).ok()
}

/// What the system calls itself in addresses: the first line of its file.
fn mailname() -> Option<Domain> {
    let text = files::read_text(Path::new(MAILNAME)).ok()?;
    Domain::parse(text.lines().next()?.trim()).ok()
}

/// The user with this number, as a local name with its domain; one who is in no table is named by it.
///
/// # Errors
/// Where such an address cannot be.
pub fn caller(uid: u32, here: &Here) -> Result<Caller, String> {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let name = user.as_ref().map_or_else(|| format!("uid{uid}"), |user| user.name.clone());
    let address = here
        .completed(&name)
        .map_err(|error| format!("user {name:?} cannot be a sender: {error}; set sendmail.domain, or use -f"))?;
    let full_name = user
        .and_then(|user| user.gecos.into_string().ok())
        .and_then(|gecos| gecos.split(',').next().map(str::to_owned))
        .filter(|name| !name.is_empty());
    Ok(Caller { origin: Origin::User(uid), address, full_name })
}
