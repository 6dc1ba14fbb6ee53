//! Who asks, and what he may do.

use std::fmt;
use std::net::IpAddr;

use axum::http::{Method, Uri};

use crate::clients::Role;

/// Who made a request: it stands in the record of what he changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Actor {
    /// A user of `admin.users`; `None` with a password that several may know, or none at all.
    pub(super) name: Option<String>,
    /// What he may do.
    pub(super) role: Role,
    /// Where the request came from.
    pub(super) address: IpAddr,
}

impl fmt::Display for Actor {
    /// `anna (full) from 127.0.0.1`, `full from 127.0.0.1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (role, address) = (self.role.name(), self.address);
        match &self.name {
            Some(name) => write!(f, "{name} ({role}) from {address}"),
            None => write!(f, "{role} from {address}"),
        }
    }
}

/// Whether the role allows such a request. What takes mail away is a DELETE; a route that does
/// so by another method asks for the role itself.
pub(super) fn allows(role: Role, method: &Method, uri: &Uri) -> bool {
    match role {
        Role::Full => true,
        Role::NoDelete => method != Method::DELETE || takes_no_mail(uri.path()) || is_dry_run(uri),
        Role::ReadOnly => reads(method) || is_dry_run(uri),
    }
}

/// Whether a request with this method changes nothing.
pub(super) fn reads(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS].contains(method)
}

/// A task that is cancelled, and an acknowledgement that is taken back.
fn takes_no_mail(path: &str) -> bool {
    path.starts_with("/tasks/") || path.ends_with("/acknowledge")
}

fn is_dry_run(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|parameter| parameter.eq_ignore_ascii_case("dryRun=true")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_goes_by_what_is_done() {
        for (method, uri, no_delete, read_only) in [
            (Method::GET, "/x", true, true),
            (Method::HEAD, "/x", true, true),
            (Method::PATCH, "/mailRepositories/p/mails?action=reprocess", true, false),
            (Method::PATCH, "/mailRepositories/p/mails?action=reprocess&dryRun=true", true, true),
            (Method::DELETE, "/mailRepositories/p/mails?dryRun=true", true, true),
            (Method::DELETE, "/mailRepositories/p/mails/k", false, false),
            (Method::DELETE, "/mailQueues/spool/mails", false, false),
            (Method::DELETE, "/tasks/1", true, false),
            (Method::DELETE, "/mailRepositories/p/mails/k/acknowledge", true, false),
        ] {
            let uri = uri.parse::<Uri>().expect("a path");
            assert!(allows(Role::Full, &method, &uri), "{method} {uri}");
            assert_eq!(allows(Role::NoDelete, &method, &uri), no_delete, "{method} {uri}");
            assert_eq!(allows(Role::ReadOnly, &method, &uri), read_only, "{method} {uri}");
        }
    }

    #[test]
    fn the_record_says_who_it_was() {
        let address = "127.0.0.1".parse().expect("an address");
        let actor = |name: Option<&str>, role| Actor { name: name.map(str::to_owned), role, address }.to_string();
        assert_eq!(actor(Some("anna"), Role::Full), "anna (full) from 127.0.0.1");
        assert_eq!(actor(None, Role::NoDelete), "nodelete from 127.0.0.1");
    }
}
