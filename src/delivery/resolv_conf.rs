//! The system's `/etc/resolv.conf`, read as glibc reads it (resolv.conf(5)): line by line,
//! and what cannot be used is passed over.
//!
//! An empty file, or none, is what a machine has before its network is up: the name server
//! is then 127.0.0.1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use hickory_resolver::proto::rr::Name;

/// Name servers that are used (`MAXNS`).
const MAX_SERVERS: usize = 3;

/// The most dots that `ndots` can ask for (`RES_MAXNDOTS`).
const MAX_NDOTS: usize = 15;

/// The most seconds of `timeout` (`RES_MAXRETRANS`) and rounds of `attempts` (`RES_MAXRETRY`).
const MAX_TIMEOUT: usize = 30;
const MAX_ATTEMPTS: usize = 5;

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResolvConf {
    /// In order, at most three; where there is none, 127.0.0.1 is meant.
    pub(super) servers: Vec<Server>,
    /// For names that the operator wrote, without trailing dots; empty for the root.
    pub(super) search: Vec<String>,
    /// A name with so many dots is looked up as it is first.
    pub(super) ndots: usize,
    /// For one query, where it says so.
    pub(super) timeout: Option<Duration>,
    /// Rounds over all servers, where it says so.
    pub(super) attempts: Option<usize>,
    /// Questions say that long answers are welcome (RFC 6891).
    pub(super) edns0: bool,
    /// Questions go over TCP.
    pub(super) tcp_only: bool,
    /// IPv6 addresses are not asked for.
    pub(super) no_aaaa: bool,
    /// Lines by number that were passed over, or a part of them, each with the reason.
    pub(super) passed_over: Vec<(usize, String)>,
}

/// A name server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) ip: IpAddr,
    /// The interface of a link-local address, by number; else 0.
    pub(super) scope: u32,
}

/// What of this machine and of this process decides what some lines mean.
pub(super) struct Machine<'a> {
    /// As gethostname(2) has it.
    pub(super) name: &'a str,
    /// `LOCALDOMAIN`: searched instead of what the file says.
    pub(super) local_domain: Option<&'a str>,
    /// `RES_OPTIONS`: in addition to those of the file.
    pub(super) options: Option<&'a str>,
    /// The number of an interface by its name.
    pub(super) interface: &'a dyn Fn(&str) -> Option<u32>,
}

impl ResolvConf {
    /// Reads the file's octets; it cannot fail.
    pub(super) fn parse(text: &[u8], machine: &Machine<'_>) -> Self {
        let mut found = Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: None,
            attempts: None,
            edns0: false,
            tcp_only: false,
            no_aaaa: false,
            passed_over: Vec::new(),
        };
        let mut domains = None;
        for (number, line) in text.split(|&octet| octet == b'\n').enumerate() {
            let line = String::from_utf8_lossy(line);
            let mut problems = Vec::new();
            found.line(line.trim_end_matches('\r'), machine, &mut domains, &mut problems);
            found.passed_over.extend(problems.into_iter().map(|problem| (number + 1, problem)));
        }
        found.environment(machine, &mut domains);
        found.search = domains.unwrap_or_else(|| own_domain(machine.name));
        found
    }

    /// What the environment says comes last, and counts. Nobody is told of what is wrong there: it
    /// is no line of the file.
    fn environment(&mut self, machine: &Machine<'_>, domains: &mut Option<Vec<String>>) {
        let [local_domain, options] =
            [machine.local_domain, machine.options].map(|text| text.unwrap_or_default().split_ascii_whitespace());
        replace(domains, local_domain, &mut Vec::new());
        options.for_each(|word| self.option(word, &mut Vec::new()));
    }

    /// One line. The keyword must be its first octets.
    fn line(
        &mut self,
        line: &str,
        machine: &Machine<'_>,
        domains: &mut Option<Vec<String>>,
        problems: &mut Vec<String>,
    ) {
        if line.trim().is_empty() || line.starts_with(['#', ';']) {
            return;
        }
        let (keyword, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
        match keyword {
            "nameserver" => self.server(words.next(), machine, problems),
            // The last of both counts.
            "domain" => replace(domains, words.take(1), problems),
            "search" => replace(domains, words, problems),
            "options" => words.for_each(|word| self.option(word, problems)),
            "sortlist" => {}
            _ => problems.push(format!("{line:?} is no line of resolv.conf(5)")),
        }
    }

    fn server(&mut self, word: Option<&str>, machine: &Machine<'_>, problems: &mut Vec<String>) {
        let Some(word) = word else { return problems.push("a name server without its address".to_owned()) };
        match server(word, machine) {
            Ok(_) if self.servers.len() >= MAX_SERVERS => {
                problems.push(format!("the name server {word} is one too many: {MAX_SERVERS} are used"));
            }
            Ok(server) => self.servers.push(server),
            Err(why) => problems.push(why),
        }
    }

    fn option(&mut self, word: &str, problems: &mut Vec<String>) {
        let (name, value) = word.split_once(':').unwrap_or((word, ""));
        let mut number = |most: usize| {
            let number = value.parse::<usize>().ok();
            if number.is_none() {
                problems.push(format!("the option {word:?} needs a number"));
            }
            number.map(|number| number.min(most))
        };
        match name {
            "ndots" => self.ndots = number(MAX_NDOTS).unwrap_or(self.ndots),
            "timeout" => {
                let seconds = number(MAX_TIMEOUT).and_then(|seconds| u64::try_from(seconds.max(1)).ok());
                self.timeout = seconds.map(Duration::from_secs).or(self.timeout);
            }
            "attempts" => self.attempts = number(MAX_ATTEMPTS).map(|rounds| rounds.max(1)).or(self.attempts),
            "edns0" => self.edns0 = true,
            "use-vc" | "usevc" | "tcp" => self.tcp_only = true,
            "no-aaaa" => self.no_aaaa = true,
            // Those that do not concern us, or that another system has.
            _ => {}
        }
    }

    /// What is to be looked up, in order, for a name that the operator wrote.
    pub(super) fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let searched = self.search.iter().map(|domain| match domain.as_str() {
            "" => name.to_owned(),
            domain => format!("{name}.{domain}"),
        });
        let mut found: Vec<String> = searched.filter(|full| full != name).collect();
        let first = name.matches('.').count() >= self.ndots;
        found.insert(if first { 0 } else { found.len() }, name.to_owned());
        found
    }
}

/// Takes the words that can be domains in place of those of an earlier line.
fn replace<'w>(domains: &mut Option<Vec<String>>, words: impl Iterator<Item = &'w str>, problems: &mut Vec<String>) {
    let mut found = Vec::new();
    let mut is_empty = true;
    for word in words {
        is_empty = false;
        if word.starts_with(['#', ';']) {
            problems.push(format!("{word:?} begins no comment behind other words"));
            break;
        }
        match search_domain(word) {
            Some(domain) => found.push(domain),
            None => problems.push(format!("{word:?} is no domain to search in")),
        }
    }
    if !is_empty {
        *domains = Some(found);
    }
}

/// A domain as the DNS can have it, without its trailing dot. What has an escape, a
/// bracket or hyphens alone in a label was not meant as one.
fn search_domain(word: &str) -> Option<String> {
    let bare = word.strip_suffix('.').unwrap_or(word);
    let is_label = |label: &str| {
        label.bytes().any(|octet| octet.is_ascii_alphanumeric())
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_".contains(&octet))
    };
    let is_domain = bare.is_empty() || bare.split('.').all(is_label) && Name::from_ascii(bare).is_ok();
    (is_domain && !word.is_empty()).then(|| bare.to_ascii_lowercase())
}

/// Without `domain` and `search` the machine's own domain is searched.
fn own_domain(machine: &str) -> Vec<String> {
    machine.split_once('.').and_then(|(_, domain)| search_domain(domain)).into_iter().collect()
}

fn server(word: &str, machine: &Machine<'_>) -> Result<Server, String> {
    if let Some(ip) = ipv4(word) {
        return Ok(Server { ip: ip.into(), scope: 0 });
    }
    let (address, zone) = word.split_once('%').unwrap_or((word, ""));
    let Ok(ip) = address.parse::<Ipv6Addr>() else {
        return Err(format!("{word:?} is no address of a name server"));
    };
    let scope = match zone {
        "" => Some(0),
        zone => zone.parse().ok().or_else(|| (machine.interface)(zone)),
    };
    match scope {
        Some(scope) => Ok(Server { ip: ip.into(), scope }),
        None => Err(format!("the name server {word} cannot be reached: there is no interface {zone}")),
    }
}

/// As inet_aton(3): up to four numbers, the last of which fills what is left; decimal,
/// octal with a leading 0, hexadecimal with 0x.
fn ipv4(word: &str) -> Option<Ipv4Addr> {
    let numbers: Vec<u32> = word.split('.').map(number).collect::<Option<_>>()?;
    let (&last, front) = numbers.split_last().filter(|(_, front)| front.len() < 4)?;
    let shift = |place: usize| 8 * (3 - u32::try_from(place).unwrap_or(3));
    let room = u32::MAX.checked_shr(8 * u32::try_from(front.len()).ok()?)?;
    if last > room || front.iter().any(|&number| number > 255) {
        return None;
    }
    let high = front.iter().enumerate().fold(0, |sum, (place, number)| sum | number << shift(place));
    Some(Ipv4Addr::from(high | last))
}

fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_hexdigit());
    u32::from_str_radix(digits, radix).ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> ResolvConf {
        parse_with(text, None, None)
    }

    fn parse_with(text: &[u8], local_domain: Option<&str>, options: Option<&str>) -> ResolvConf {
        let interface = |name: &str| (name == "lo").then_some(1);
        ResolvConf::parse(text, &Machine { name: "web1", local_domain, options, interface: &interface })
    }

    fn servers(found: &ResolvConf) -> String {
        let shown = found.servers.iter().map(|server| match server.scope {
            0 => server.ip.to_string(),
            scope => format!("{}%{scope}", server.ip),
        });
        if found.servers.is_empty() { "-".to_owned() } else { shown.collect::<Vec<_>>().join(" ") }
    }

    #[test]
    fn a_file_as_it_is_found_is_read_as_glibc_reads_it() {
        // Text, name servers, search list, lines passed over.
        for (text, used, search, passed_over) in [
            ("", "-", "", ""),
            ("\n# nothing\n; nor here\n", "-", "", ""),
            ("nameserver 192.0.2.1\n", "192.0.2.1", "", ""),
            ("nameserver\t192.0.2.1   # near\n", "192.0.2.1", "", ""),
            ("nameserver 192.0.2.1\r\nsearch a.example\r\n", "192.0.2.1", "a.example", ""),
            ("nameserver 127.1", "127.0.0.1", "", ""),
            ("nameserver 0x7f.0.0.010", "127.0.0.8", "", ""),
            ("nameserver 192.0.2.1\nnameserver 2001:db8::1\n", "192.0.2.1 2001:db8::1", "", ""),
            ("nameserver fe80::1%lo", "fe80::1%1", "", ""),
            ("nameserver fe80::1%7", "fe80::1%7", "", ""),
            ("nameserver fe80::1%eth9\nnameserver 192.0.2.1", "192.0.2.1", "", "1"),
            ("nameserver 192.0.2.256\nnameserver ns.example\n", "-", "", "1 2"),
            ("nameserver 192.0.2.1:53\nnameserver [::1]", "-", "", "1 2"),
            ("nameserver\nnameserver \n", "-", "", "1 2"),
            (" nameserver 192.0.2.1", "-", "", "1"),
            ("NAMESERVER 192.0.2.1", "-", "", "1"),
            ("nameserver=192.0.2.1", "-", "", "1"),
            ("\u{feff}nameserver 192.0.2.1", "-", "", "1"),
            (
                "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n",
                "192.0.2.1 192.0.2.2 192.0.2.3",
                "",
                "4",
            ),
            ("domain (none)\nnameserver 192.0.2.1", "192.0.2.1", "", "1"),
            ("search space\\032space.com\nnameserver 192.0.2.1", "192.0.2.1", "", "1"),
            ("search --\nnameserver 192.0.2.1", "192.0.2.1", "", "1"),
            ("search .\nnameserver 192.0.2.1", "192.0.2.1", "<root>", ""),
            ("search A.example. b_c.example\tc", "-", "a.example b_c.example c", ""),
            ("search a..example b.example", "-", "b.example", "1"),
            ("search a.example # ours", "-", "a.example", "1"),
            ("search a.example\ndomain b.example c.example", "-", "b.example", ""),
            ("domain b.example\nsearch a.example", "-", "a.example", ""),
            ("search a.example\nsearch\n", "-", "a.example", ""),
            ("what is this\nnameserver 192.0.2.1", "192.0.2.1", "", "1"),
            ("options trust-ad edns0 retrans:1 retry:1 rotate\nsortlist 192.0.2.0/24", "-", "", ""),
            ("options ndots:x\noptions timeout:\n", "-", "", "1 2"),
        ] {
            let found = parse(text.as_bytes());
            let named = |domain: &String| if domain.is_empty() { "<root>".to_owned() } else { domain.clone() };
            let searched = found.search.iter().map(named).collect::<Vec<_>>().join(" ");
            let lines = found.passed_over.iter().map(|(line, _)| line.to_string()).collect::<Vec<_>>().join(" ");
            assert_eq!((servers(&found).as_str(), &*searched, &*lines), (used, search, passed_over), "{text:?}");
        }
        assert_eq!(servers(&parse(b"nameserver 192.0.2.1\n\xff\xfe\n")), "192.0.2.1");
    }

    #[test]
    fn options_are_bounded_and_the_last_counts() {
        let found = parse(b"options ndots:5 timeout:0\noptions attempts:9 timeout:99 edns0 use-vc no-aaaa ndots:99\n");
        assert_eq!((found.ndots, found.attempts, found.timeout), (15, Some(5), Some(Duration::from_secs(30))));
        assert!(found.edns0 && found.tcp_only && found.no_aaaa);
        let found = parse(b"nameserver 192.0.2.1");
        assert_eq!((found.ndots, found.attempts, found.timeout), (1, None, None));
    }

    #[test]
    fn the_environment_has_the_last_word() {
        let text = b"search a.example b.example\noptions ndots:2 timeout:9\n";
        for (local_domain, options, search, ndots, timeout) in [
            (None, None, "a.example b.example", 2, 9),
            (Some("c.example  d.example"), None, "c.example d.example", 2, 9),
            (Some("  "), Some(""), "a.example b.example", 2, 9),
            (Some("(none)"), None, "", 2, 9),
            (None, Some("ndots:5\ttimeout:x what attempts:1"), "a.example b.example", 5, 9),
            (None, Some("timeout:1"), "a.example b.example", 2, 1),
        ] {
            let found = parse_with(text, local_domain, options);
            let seconds = Some(Duration::from_secs(timeout));
            assert_eq!((found.search.join(" ").as_str(), found.ndots, found.timeout), (search, ndots, seconds));
            assert!(found.passed_over.is_empty(), "{:?}", found.passed_over);
        }
    }

    #[test]
    fn what_the_operator_wrote_is_searched_as_resolv_conf_5_says() {
        for (text, name, candidates) in [
            ("search a.example b.example", "gw", "gw.a.example gw.b.example gw"),
            ("search a.example", "gw.example.net", "gw.example.net gw.example.net.a.example"),
            ("search a.example\noptions ndots:5", "relay.mail", "relay.mail.a.example relay.mail"),
            ("search a.example\noptions ndots:0", "gw", "gw gw.a.example"),
            ("search a.example\noptions ndots:5", "gw.example.net.", "gw.example.net"),
            ("search a.example", "gw.", "gw"),
            ("search .", "gw", "gw"),
            ("", "gw", "gw"),
        ] {
            assert_eq!(parse(text.as_bytes()).candidates(name).join(" "), candidates, "{text:?} {name}");
        }
        let of = |name| {
            ResolvConf::parse(b"", &Machine { name, local_domain: None, options: None, interface: &|_| None }).search
        };
        assert_eq!(of("web1.b.example"), ["b.example"], "the machine's own domain, where nothing else is said");
        assert!(of("web1").is_empty() && of("web1.").is_empty());
    }
}
