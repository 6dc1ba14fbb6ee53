//! The users of this machine.

use nix::unistd::{Uid, User};

use crate::config::Config;
use crate::ingest::{Caller, Here};
use crate::mail::{Address, Domain};

/// This machine under its configured name.
///
/// # Errors
/// Where the name is no domain.
pub fn here(config: &Config) -> Result<Here, String> {
    let domain = Domain::parse(&config.hostname).map_err(|error| format!("hostname: {error}"))?;
    Ok(Here { domain, is_user: |name| User::from_name(name).is_ok_and(|user| user.is_some()) })
}

/// The user with this number, for people: `name (number)`.
pub fn named(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| format!("uid {uid}"), |user| format!("{} ({uid})", user.name))
}

/// The user with this number, as `user@hostname`; one who is in no table is named by it.
///
/// # Errors
/// Where such an address cannot be.
pub fn caller(uid: u32, here: &Here) -> Result<Caller, String> {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let name = user.as_ref().map_or_else(|| format!("uid{uid}"), |user| user.name.clone());
    let text = format!("{name}@{}", here.domain);
    let address = Address::parse(&text)
        .map_err(|error| format!("{text:?} cannot be a sender: {error}; set hostname, or use -f"))?;
    let full_name = user
        .and_then(|user| user.gecos.into_string().ok())
        .and_then(|gecos| gecos.split(',').next().map(str::to_owned))
        .filter(|name| !name.is_empty());
    Ok(Caller { uid, address, full_name })
}
