//! Addresses as they stand in an envelope (RFC 5321 section 4.1.2, RFC 6531).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// A mailbox: local part and domain, each kept as it was written.
///
/// It never holds a control character, so it can stand in a command, a log line or a
/// record as it is. Two addresses are the same mailbox when [`Address::mailbox`] agrees.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    local: String,
    domain: Domain,
}

/// The part behind the `@`: a name or an address literal, as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Domain(String);

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing there.
    #[error("the address is empty")]
    Empty,
    /// A control character: it could end a command line.
    #[error("the address has a control character (0x{0:02x})")]
    Control(u32),
    /// No `@` with something behind it.
    #[error("the address has no domain: write it as local-part@domain")]
    NoDomain,
    /// Unquoted blank, bracket or the like, or a quoted string that does not end.
    #[error("the local part {0:?} is not valid: quote it, or remove what does not belong")]
    LocalPart(String),
    /// It could be taken for an option by a program.
    #[error("the address begins with '-'")]
    LeadingDash,
    /// The domain breaks a rule of RFC 5321 section 4.1.2 or RFC 1035 section 2.3.4.
    #[error("the domain {0:?} is not valid")]
    Domain(String),
    /// Over 64 (local part), 255 (domain) or 254 octets (path; RFC 5321 section 4.5.3.1).
    #[error("the {0} is longer than {1} octets")]
    TooLong(&'static str, usize),
}

impl Address {
    /// Reads one address without angle brackets, comments or source route.
    ///
    /// Local parts that break RFC 5321 in harmless ways (`a..b`, `.a`) pass, since only
    /// the domain's own server may interpret them (section 2.3.11).
    ///
    /// # Errors
    /// [`AddressError`], whose text says what is wrong and is safe to print.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if let Some(control) = text.chars().find(|c| c.is_control()) {
            return Err(AddressError::Control(u32::from(control)));
        }
        let (local, domain) = text.rsplit_once('@').ok_or(AddressError::NoDomain)?;
        check_local_part(local)?;
        if domain.is_empty() {
            return Err(AddressError::NoDomain);
        }
        let address = Self { local: local.to_owned(), domain: Domain::parse(domain)? };
        // RFC 5321 section 4.5.3.1.3: 256 octets with the angle brackets; A-labels are longer.
        if text.len().max(address.on_the_wire().len()) > 254 {
            return Err(AddressError::TooLong("address", 254));
        }
        Ok(address)
    }

    /// The part in front of the `@`, with its quotes where it has them.
    pub fn local_part(&self) -> &str {
        &self.local
    }

    /// The part behind the `@`.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// What makes it one mailbox: the local part exactly, the domain without case.
    pub fn mailbox(&self) -> String {
        format!("{}@{}", self.local, self.domain.folded())
    }

    /// Whether the local part needs SMTPUTF8 at the peer (RFC 6531 section 3.2).
    pub fn needs_smtputf8(&self) -> bool {
        !self.local.is_ascii()
    }

    /// The address for the wire: a domain outside ASCII as A-labels (RFC 5891), unless
    /// the transaction says SMTPUTF8 and nothing needs changing.
    pub fn on_the_wire(&self) -> String {
        let domain = self.domain.wire();
        format!("{}@{domain}", self.local)
    }
}

fn check_local_part(local: &str) -> Result<(), AddressError> {
    if local.len() > 64 {
        return Err(AddressError::TooLong("local part", 64));
    }
    let wrong = || AddressError::LocalPart(local.to_owned());
    if let Some(inner) = local.strip_prefix('"') {
        let inner = inner.strip_suffix('"').filter(|_| local.len() > 1).ok_or_else(wrong)?;
        let mut escaped = false;
        for c in inner.chars() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return Err(wrong()),
                _ => {}
            }
        }
        return if escaped { Err(wrong()) } else { Ok(()) };
    }
    if local.starts_with('-') {
        return Err(AddressError::LeadingDash);
    }
    let plain = |c: char| !c.is_whitespace() && !"()<>[]:;@\\,\"".contains(c);
    if local.is_empty() || !local.chars().all(plain) {
        return Err(wrong());
    }
    Ok(())
}

impl Domain {
    /// Reads a domain name (letters, digits, `-`, `_`, or U-labels; a trailing dot is
    /// kept) or an address literal such as `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
    ///
    /// # Errors
    /// [`AddressError::Domain`] or [`AddressError::TooLong`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.len() > 255 {
            return Err(AddressError::TooLong("domain", 255));
        }
        let domain = Self(text.to_owned());
        let valid = if text.starts_with('[') {
            domain.literal().is_some()
        } else {
            // No server could be asked for a name without an ASCII form, and none be told of it.
            is_name(text) && (text.is_ascii() || domain.ascii().is_ok())
        };
        if valid { Ok(domain) } else { Err(AddressError::Domain(text.to_owned())) }
    }

    /// The domain as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address of a literal (RFC 5321 section 4.1.3); `None` for a name.
    pub fn literal(&self) -> Option<IpAddr> {
        let inner = self.0.strip_prefix('[')?.strip_suffix(']')?;
        match inner.get(..5) {
            Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => inner[5..].parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => inner.parse().ok().filter(IpAddr::is_ipv4),
        }
    }

    /// The name for DNS: A-labels, lower case, without trailing dot.
    ///
    /// # Errors
    /// [`AddressError::Domain`] where no A-label form exists (bad punycode, a label over
    /// 63 octets), or for a literal.
    pub fn ascii(&self) -> Result<String, AddressError> {
        let wrong = || AddressError::Domain(self.0.clone());
        let name = self.0.strip_suffix('.').unwrap_or(&self.0);
        if self.0.starts_with('[') {
            return Err(wrong());
        }
        let ascii = if name.is_ascii() {
            name.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii(name).map_err(|_| wrong())?
        };
        let fits = ascii.len() <= 253 && ascii.split('.').all(|label| (1..=63).contains(&label.len()));
        // Compatibility forms become what they stand for, blanks and brackets among it.
        if fits && is_name(&ascii) { Ok(ascii) } else { Err(wrong()) }
    }

    /// What tells domains apart: the DNS form, or the literal in lower case.
    pub fn folded(&self) -> String {
        self.ascii().unwrap_or_else(|_| self.0.to_lowercase())
    }

    /// As it stands in a command: as written while it is ASCII, else as A-labels.
    fn wire(&self) -> String {
        if self.0.is_ascii() { self.0.clone() } else { self.ascii().unwrap_or_else(|_| self.0.clone()) }
    }
}

fn is_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|c| {
                c.is_ascii_alphanumeric()
                    || c == '-'
                    || c == '_'
                    || (!c.is_ascii() && c.is_alphanumeric() || is_mark(c))
            })
    };
    name.split('.').all(label)
}

/// Combining marks belong to U-labels of many scripts but are not alphanumeric.
fn is_mark(c: char) -> bool {
    !c.is_ascii() && !c.is_whitespace() && !c.is_control() && c != '\u{3002}'
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}@{}", self.local, self.domain))
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        Self::parse(&text)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

/// An address as it is compared where somebody looks for one: without case, the domain as
/// the DNS has it (`B\u{fc}cher.example` is `xn--bcher-kva.example`). What is no address is
/// only folded; `*@domain` stays a pattern.
pub fn folded(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((local, domain)) => format!("{}@{}", local.to_lowercase(), folded_domain(domain)),
        None => address.to_lowercase(),
    }
}

/// A domain likewise.
pub fn folded_domain(text: &str) -> String {
    Domain::parse(text).map_or_else(|_| text.to_lowercase(), |domain| domain.folded())
}

/// Whether somebody who looks for `pattern`, folded, means this address: an address, or
/// `*@domain` for all of a domain.
///
/// Asked of a million addresses one after the other: most are told from it at a glance.
pub fn is_named_by(address: &str, pattern: &str) -> bool {
    let Some((local, domain)) = address.rsplit_once('@') else { return address.to_lowercase() == pattern };
    match (pattern.strip_prefix("*@"), pattern.rsplit_once('@')) {
        (Some(wanted), _) => is_domain(domain, wanted),
        (None, Some((wanted, of))) => is_in_lower_case(local, wanted) && is_domain(domain, of),
        (None, None) => false,
    }
}

fn is_in_lower_case(text: &str, lower_case: &str) -> bool {
    text.eq_ignore_ascii_case(lower_case) || !text.is_ascii() && text.to_lowercase() == lower_case
}

/// Whether a domain is this one, folded. A plain name is in lower case once it is folded.
fn is_domain(text: &str, folded: &str) -> bool {
    let is_label = |start: &[u8]| start.eq_ignore_ascii_case(b"xn--");
    let is_plain = || text.is_ascii() && !text.ends_with('.') && !text.as_bytes().windows(4).any(is_label);
    text.eq_ignore_ascii_case(folded) || !is_plain() && folded_domain(text) == folded
}

/// The argument of MAIL FROM: null (`<>`) for notifications, else an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Option<Address>", into = "Option<Address>")]
pub enum ReversePath {
    /// `<>`: nobody is to be told of a failure (RFC 5321 section 4.5.5).
    Null,
    /// Who is to be told.
    Address(Address),
}

impl ReversePath {
    /// Reads an address, or the null reverse-path from an empty text or `<>`.
    ///
    /// # Errors
    /// As [`Address::parse`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        match text {
            "" | "<>" => Ok(Self::Null),
            address => Address::parse(address).map(Self::Address),
        }
    }

    /// The address, where there is one.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Null => None,
            Self::Address(address) => Some(address),
        }
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.pad("<>"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl From<Option<Address>> for ReversePath {
    fn from(address: Option<Address>) -> Self {
        address.map_or(Self::Null, Self::Address)
    }
}

impl From<ReversePath> for Option<Address> {
    fn from(path: ReversePath) -> Self {
        match path {
            ReversePath::Null => None,
            ReversePath::Address(address) => Some(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_pass_print_as_they_were_written() {
        for text in [
            "a@b.example",
            "a..b@x.example",
            ".a@x.example",
            "\"a b\"@x.example",
            "\"a@b>\\\"c\"@x.example",
            "\"\"@x.example",
            "u%other@x.example",
            "user@[192.0.2.1]",
            "user@[IPv6:2001:db8::1]",
            "üser@bücher.example",
            "a@x.example.",
            "a@under_score.example",
            "a@localhost",
        ] {
            assert_eq!(Address::parse(text).map(|a| a.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_reason() {
        let long = format!("{}@x.example", "a".repeat(65));
        for (text, reason) in [
            ("", "the address is empty"),
            ("a", "no domain"),
            ("a@", "no domain"),
            ("@x.example", "local part"),
            ("a b@x.example", "local part"),
            ("a@b@x.example", "local part"),
            ("\"a@x.example", "local part"),
            ("\"@x.example", "local part"),
            ("-a@x.example", "begins with '-'"),
            ("a@x..example", "domain"),
            ("a@x example", "domain"),
            ("a@[300.1.1.1]", "domain"),
            ("a@[1.2.3.4", "domain"),
            ("a\r\nRCPT TO:<b@x>@x.example", "control character (0x0d)"),
            ("a\0@x.example", "control character (0x00)"),
            (long.as_str(), "longer than 64"),
        ] {
            let error = Address::parse(text).expect_err(text).to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn domains_outside_ascii_go_as_a_labels_to_dns_and_wire() {
        let address = Address::parse("a@Bücher.Example").expect("an address");
        assert_eq!(address.domain().ascii().as_deref(), Ok("xn--bcher-kva.example"));
        assert_eq!(address.on_the_wire(), "a@xn--bcher-kva.example");
        assert_eq!(Address::parse("a@X.Example.").expect("an address").domain().folded(), "x.example");
    }

    /// What tells most at a glance tells the same as folding does.
    #[test]
    fn who_is_named_is_named_by_what_both_are_folded_to() {
        let all = [
            "Anna@X.Example",
            "anna@x.example.",
            "anna@x.example",
            "\u{c9}va@B\u{fc}cher.example",
            "\u{e9}va@XN--BCHER-KVA.example",
            "\u{e9}va@xn--bcher-kva.example.",
            "a@b@c.example",
            "a@ab--c.example",
            "anna@\u{212a}x.example",
            "anna@kx.example",
            "<>",
            "x.example",
            "\u{212a}elvin@x.example",
            "kelvin@x.example",
            "\"q q\"@x.example",
            "a@[127.0.0.1]",
            "A@[127.0.0.1]",
        ];
        for address in all {
            for wanted in all {
                let (address_folded, pattern) = (folded(address), folded(wanted));
                assert_eq!(is_named_by(address, &pattern), address_folded == pattern, "{address} by {wanted}");
                let Some((_, domain)) = pattern.rsplit_once('@') else { continue };
                let of_domain = address_folded.rsplit_once('@').is_some_and(|(_, of)| of == domain);
                assert_eq!(is_named_by(address, &format!("*@{domain}")), of_domain, "{address} by *@{domain}");
            }
        }
    }

    #[test]
    fn an_address_that_would_be_too_long_on_the_wire_is_too_long() {
        let domain = ["a\u{fc}"; 20].join(".");
        let wire = Address::parse(&format!("a@{domain}")).map(|address| address.on_the_wire().len());
        assert_eq!(wire, Ok(201));
        let local = "a".repeat(64);
        assert_eq!(Address::parse(&format!("{local}@{domain}")), Err(AddressError::TooLong("address", 254)));
    }

    #[test]
    fn a_domain_whose_ascii_form_would_be_no_name_is_none() {
        // A small tilde stands for a blank with a mark, other signs for the ASCII sign itself.
        for domain in
            ["x\u{2dc}y.example", "x\u{ff1e}\u{2dc}y.example", "x\u{fe6b}\u{fc}.example", "\u{fc}\u{2474}.example"]
        {
            let error = Address::parse(&format!("a@{domain}")).expect_err(domain);
            assert!(matches!(error, AddressError::Domain(_)), "{error}");
        }
    }

    #[test]
    fn the_null_reverse_path_is_written_as_two_brackets() {
        assert_eq!(ReversePath::parse("<>"), Ok(ReversePath::Null));
        assert_eq!(ReversePath::Null.to_string(), "<>");
    }
}
