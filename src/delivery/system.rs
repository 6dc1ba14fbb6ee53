//! What this machine says of names: its own, `/etc/resolv.conf` and `/etc/hosts`.
//!
//! Nothing here asks a name server, and no state of these files is an error: a machine
//! takes mail in before its network is up.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::net::if_::if_nametoindex;

use super::config::DnsConfig;
use super::hosts::{Hosts, is_localhost};
use super::resolv_conf::{Machine, ResolvConf, Server};
use crate::files;
use crate::mail::Domain;

/// Both files as they were read.
pub(super) struct System {
    pub(super) resolv_conf: ResolvConf,
    pub(super) hosts: Hosts,
    /// Why 127.0.0.1 is asked, where no name server is named.
    pub(super) without_server: Option<String>,
    /// Why the file of hosts is of no use, though there is something of its name.
    pub(super) without_hosts: Option<String>,
}

/// Octets of a resolv.conf: a few lines are usual.
const MAX_RESOLV_CONF: u64 = 64 << 10;

/// What changes when one of the files does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp([Option<File>; 2]);

/// When a file was written, and which file of what size it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct File {
    modified: (i64, i64),
    inode: (u64, u64),
    size: u64,
}

impl Stamp {
    /// Of the files as they are now.
    pub(super) fn of(config: &DnsConfig) -> Self {
        Self([&config.resolv_conf, &config.hosts].map(|path| {
            let found = path.metadata().ok()?;
            Some(File {
                modified: (found.mtime(), found.mtime_nsec()),
                inode: (found.dev(), found.ino()),
                size: found.size(),
            })
        }))
    }
}

impl System {
    /// Reads both.
    pub(super) fn read(config: &DnsConfig) -> Self {
        let (path, name) = (config.resolv_conf.display(), host_name());
        let read = files::read(&config.resolv_conf, MAX_RESOLV_CONF);
        let resolv_conf = parse(read.as_deref().unwrap_or_default(), &name);
        let without_server = resolv_conf.servers.is_empty().then(|| match &read {
            Ok(_) => format!("{path} names no name server, so that 127.0.0.1 is asked"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                format!("there is no {path}, so that 127.0.0.1 is asked")
            }
            Err(error) => format!("{path} cannot be read ({error}), so that 127.0.0.1 is asked"),
        });
        let (hosts, without_hosts) = read_hosts(&config.hosts);
        Self { resolv_conf, hosts, without_server, without_hosts }
    }

    /// The name servers at `port`.
    pub(super) fn servers(&self, port: u16) -> Vec<SocketAddr> {
        let address = |server: &Server| match server.ip {
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, server.scope).into(),
            ip @ IpAddr::V4(_) => SocketAddr::new(ip, port),
        };
        match self.resolv_conf.servers.as_slice() {
            [] => vec![(Ipv4Addr::LOCALHOST, port).into()],
            servers => servers.iter().map(address).collect(),
        }
    }

    /// Sentences for the operator: what of the files is not used, by its line.
    pub(super) fn warnings(&self, path: &Path) -> Vec<String> {
        let passed_over = self.resolv_conf.passed_over.iter();
        let lines = passed_over.map(|(line, why)| format!("{}:{line}: {why}: passed over", path.display()));
        lines.chain(self.without_server.clone()).chain(self.without_hosts.clone()).collect()
    }
}

/// The file of hosts, and why it is of no use where that is to be said.
fn read_hosts(path: &Path) -> (Hosts, Option<String>) {
    match files::read(path, files::MOST) {
        Ok(text) => (Hosts::parse(&text), None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Hosts::parse(b""), None),
        Err(error) => (
            Hosts::parse(b""),
            Some(format!("{} cannot be read ({error}), so that its names are not known", path.display())),
        ),
    }
}

fn parse(text: &[u8], name: &str) -> ResolvConf {
    let (local_domain, options) = (std::env::var("LOCALDOMAIN").ok(), std::env::var("RES_OPTIONS").ok());
    let (local_domain, options) = (local_domain.as_deref(), options.as_deref());
    ResolvConf::parse(text, &Machine { name, local_domain, options, interface: &|name| if_nametoindex(name).ok() })
}

/// As gethostname(2) has it; empty where it cannot be read.
fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

/// What of `/etc/resolv.conf` cannot be used, where it is in force: sentences for the operator.
pub fn resolver_warnings(config: &DnsConfig) -> Vec<String> {
    let system = System::read(config);
    if config.servers.is_empty() {
        system.warnings(&config.resolv_conf)
    } else {
        system.without_hosts.into_iter().collect()
    }
}

/// The name of this machine as others may know it, found without a lookup: `localhost`
/// where it has none that can stand in EHLO.
pub fn machine_name(config: &DnsConfig) -> String {
    let (hosts, _) = read_hosts(&config.hosts);
    let resolv_conf = files::read(&config.resolv_conf, MAX_RESOLV_CONF).unwrap_or_default();
    full_name(&host_name(), &hosts, &resolv_conf)
}

/// Whether peers can take `name` for one of a machine (RFC 5321 section 4.1.2): it has a dot, letters,
/// digits and hyphens, and is neither that of the loopback nor an address without brackets, which
/// some machines are called by. An address literal will do.
pub fn is_full_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || c == '-');
    let has_domain = || name.rsplit_once('.').is_some_and(|(_, last)| !last.chars().all(|c| c.is_ascii_digit()));
    name.starts_with('[') || has_domain() && name.split('.').all(is_label) && !is_localhost(name)
}

/// `name` itself where it has a dot; else the full name beside it in the hosts' file; else
/// with the domain of resolv.conf behind it; else as it is.
fn full_name(name: &str, hosts: &Hosts, resolv_conf: &[u8]) -> String {
    let usable = |name: &String| Domain::parse(name).is_ok();
    let as_it_is = || Some(name.to_owned()).filter(usable).unwrap_or_else(|| "localhost".to_owned());
    if name.is_empty() || name.contains('.') || is_localhost(name) {
        return as_it_is();
    }
    let in_hosts = || hosts.full_name(name).map(str::to_owned).filter(usable);
    let in_domain = || {
        let domain = parse(resolv_conf, name).search.into_iter().find(|domain| !domain.is_empty())?;
        Some(format!("{name}.{domain}")).filter(usable)
    };
    in_hosts().or_else(in_domain).unwrap_or_else(as_it_is)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_take_a_full_name_or_an_address_literal() {
        for (name, full) in [
            ("relay.example.org", true),
            ("relay.example.org.", true),
            ("xn--bcher-kva.example", true),
            ("bücher.example", true),
            ("4.relay.example", true),
            ("[192.0.2.1]", true),
            ("relay", false),
            ("relay.", false),
            ("1843", false),
            ("192.0.2.1", false),
            ("my_relay.example.org", false),
            ("relay..example", false),
            ("localhost", false),
            ("localhost.localdomain", false),
            ("", false),
        ] {
            assert_eq!(is_full_name(name), full, "{name}");
        }
    }

    #[test]
    fn the_full_name_of_a_machine_is_found_without_a_lookup() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1 web1.example.org web1\n127.0.0.2 web2\n";
        // Host name, hosts' file, resolv.conf, full name.
        for (name, hosts, resolv_conf, full) in [
            ("mail.example.net", hosts, "domain x.example", "mail.example.net"),
            ("web1", hosts, "domain x.example", "web1.example.org"),
            ("web2", hosts, "domain x.example", "web2.x.example"),
            ("web2", hosts, "search y.example x.example", "web2.y.example"),
            ("web2", hosts, "search . x.example", "web2.x.example"),
            ("web2", hosts, "domain (none)", "web2"),
            ("web2", hosts, "", "web2"),
            ("4f1c2a", "", "", "4f1c2a"),
            ("web3", "192.0.2.3 bad_*name.example web3\n", "", "web3"),
            ("localhost", hosts, "domain x.example", "localhost"),
            ("(none)", hosts, "", "localhost"),
            ("", hosts, "domain x.example", "localhost"),
        ] {
            let found = full_name(name, &Hosts::parse(hosts.as_bytes()), resolv_conf.as_bytes());
            assert_eq!(found, full, "{name} {resolv_conf:?}");
        }
    }
}
