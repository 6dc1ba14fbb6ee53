//! The system's `/etc/hosts` (hosts(5)).

use std::net::IpAddr;

/// Its lines: addresses, each with the names it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hosts(Vec<(IpAddr, Vec<String>)>);

impl Hosts {
    /// Reads the file's octets; a line that is none is passed over.
    pub(super) fn parse(text: &[u8]) -> Self {
        Self(text.split(|&octet| octet == b'\n').filter_map(|line| entry(&String::from_utf8_lossy(line))).collect())
    }

    /// The addresses of `name`, IPv4 before IPv6 as the DNS's are.
    pub(super) fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let naming = self.0.iter().filter(|(_, names)| is_among(names, name));
        let mut found: Vec<IpAddr> = Vec::new();
        for (ip, _) in naming {
            if !found.contains(ip) {
                found.push(*ip);
            }
        }
        found.sort_by_key(IpAddr::is_ipv6);
        found
    }

    /// The first name with a dot beside `name` in a line, whatever the line's address.
    pub(super) fn full_name(&self, name: &str) -> Option<&str> {
        let full = |names: &&String| names.contains('.') && !is_localhost(names);
        let naming = self.0.iter().filter(|(_, names)| is_among(names, name));
        naming.flat_map(|(_, names)| names).find(full).map(String::as_str)
    }
}

fn is_among(names: &[String], name: &str) -> bool {
    names.iter().any(|one| one.eq_ignore_ascii_case(name))
}

/// Whether a name is that of the loopback, which is no machine's name.
pub(super) fn is_localhost(name: &str) -> bool {
    name.split('.').next().is_some_and(|first| first.eq_ignore_ascii_case("localhost"))
}

fn entry(line: &str) -> Option<(IpAddr, Vec<String>)> {
    let mut words = line.split('#').next()?.split_whitespace();
    let ip = words.next()?.parse().ok()?;
    let names = words.map(|name| name.trim_end_matches('.').to_owned()).collect();
    Some((ip, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS: &str = "127.0.0.1\tlocalhost\n# 192.0.2.9 gw\n127.0.1.1 web1.example.org web1 # Debian\r\n\
        ::1 localhost ip6-localhost\nfe80::1%lo gw\n2001:db8::1 GW.example.net gw\n192.0.2.1 gw\nnonsense here\n\
        127.0.0.2 localhost.localdomain web2 web2.example.org\n";

    #[test]
    fn addresses_are_found_by_any_of_their_names() {
        let hosts = Hosts::parse(HOSTS.as_bytes());
        for (name, found) in [
            ("gw", "192.0.2.1 2001:db8::1"),
            ("gw.EXAMPLE.net", "2001:db8::1"),
            ("web1", "127.0.1.1"),
            ("localhost", "127.0.0.1 ::1"),
            ("absent", ""),
            ("here", ""),
        ] {
            let addresses: Vec<_> = hosts.addresses(name).iter().map(ToString::to_string).collect();
            assert_eq!(addresses.join(" "), found, "{name}");
        }
    }

    #[test]
    fn the_full_name_of_a_machine_stands_beside_its_short_one() {
        let hosts = Hosts::parse(HOSTS.as_bytes());
        for (name, full) in [
            ("web1", Some("web1.example.org")),
            ("WEB1", Some("web1.example.org")),
            ("web2", Some("web2.example.org")),
            ("gw", Some("GW.example.net")),
            ("ip6-localhost", None),
            ("web3", None),
        ] {
            assert_eq!(hosts.full_name(name), full, "{name}");
        }
    }
}
