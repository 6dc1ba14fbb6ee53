//! The `Received:` field (RFC 5321 section 4.4).

use std::net::IpAddr;

use chrono::{DateTime, Utc};

use crate::mail::{Address, Domain, MailKey};

/// From where a message came in.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    /// Over SMTP.
    Peer {
        /// What the peer called itself in EHLO or HELO, whatever that is.
        name: &'a str,
        /// Its end of the connection.
        address: IpAddr,
        /// How it was spoken to.
        protocol: Protocol,
    },
    /// From a user of this machine, by number.
    User(u32),
    /// From a user of this machine who speaks SMTP.
    UserSession {
        /// The user's number.
        uid: u32,
        /// How he was spoken to.
        protocol: Protocol,
    },
    /// Over HTTP, from this address.
    Http(IpAddr),
}

/// How a peer spoke: what stands behind `with` (RFC 3848, RFC 6531 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HELO.
    Smtp,
    /// EHLO.
    Extended {
        /// The mail was submitted with SMTPUTF8.
        utf8: bool,
        /// Within TLS.
        tls: bool,
        /// After AUTH.
        auth: bool,
    },
}

impl Protocol {
    fn keyword(self) -> String {
        let Self::Extended { utf8, tls, auth } = self else { return "SMTP".to_owned() };
        let [base, tls, auth] = [(utf8, "UTF8SMTP", "ESMTP"), (tls, "S", ""), (auth, "A", "")]
            .map(|(is, then, otherwise)| if is { then } else { otherwise });
        format!("{base}{tls}{auth}")
    }
}

/// The trace field of a message that came in, folded, with its line end.
///
/// `recipient` is named only where it is the only one, lest others be disclosed, and only
/// in ASCII. A peer's name that is no domain is left out: nothing of it can reach another line.
pub fn received_field(
    origin: Origin,
    by: &Domain,
    id: &MailKey,
    recipient: Option<&Address>,
    now: DateTime<Utc>,
) -> String {
    let by = by.folded();
    let (from, with) = match origin {
        Origin::Peer { name, address, protocol } => {
            let literal = literal(address);
            let name = shown_name(name).unwrap_or_else(|| literal.clone());
            (format!("from {name} ({literal})\r\n\tby {by}"), format!("with {} ", protocol.keyword()))
        }
        Origin::User(uid) => (by_user(&by, uid), String::new()),
        Origin::UserSession { uid, protocol } => (by_user(&by, uid), format!("with {} ", protocol.keyword())),
        Origin::Http(address) => (format!("from {}\r\n\tby {by}", literal(address)), "with HTTP ".to_owned()),
    };
    let recipient = recipient.map(Address::to_string).filter(|recipient| recipient.is_ascii());
    let recipient = recipient.map_or_else(String::new, |recipient| format!("\r\n\tfor <{recipient}>"));
    format!("Received: {from}\r\n\t{with}id {id}{recipient};\r\n\t{}\r\n", now.to_rfc2822())
}

/// A domain, or a name that is none as far as it can stand there: as an atom, with `?` for
/// what is not printable ASCII.
fn shown_name(name: &str) -> Option<String> {
    if let Some(domain) = Domain::parse(name).ok().and_then(|name| name.ascii().ok()) {
        return Some(domain);
    }
    let printable = |octet: u8| if octet.is_ascii_graphic() || octet == b' ' { char::from(octet) } else { '?' };
    let shown: String = name.bytes().map(printable).collect();
    let in_atom = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    (!shown.is_empty() && shown.len() <= 255 && shown.chars().all(in_atom)).then_some(shown)
}

fn by_user(by: &str, uid: u32) -> String {
    format!("by {by} (redeliver, from userid {uid})")
}

/// An IPv4 address that came in through an IPv6 socket is the IPv4 address.
fn literal(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(name: &str, address: &str, recipient: Option<&str>) -> String {
        let address = address.parse().expect("an IP address");
        let recipient = recipient.map(|recipient| Address::parse(recipient).expect("an address"));
        received_field(
            Origin::Peer { name, address, protocol: Protocol::Extended { utf8: false, tls: true, auth: false } },
            &Domain::parse("Relay.test").expect("a domain"),
            &MailKey::parse("K1").expect("a key"),
            recipient.as_ref(),
            DateTime::from_timestamp(1_700_000_000, 0).expect("in range"),
        )
    }

    #[test]
    fn it_says_from_whom_by_whom_how_and_when() {
        assert_eq!(
            field("mx.Peer.example", "::ffff:192.0.2.7", Some("b@x.example")),
            "Received: from mx.peer.example ([192.0.2.7])\r\n\tby relay.test\r\n\twith ESMTPS id K1\r\n\t\
             for <b@x.example>;\r\n\tTue, 14 Nov 2023 22:13:20 +0000\r\n"
        );
        let local = received_field(
            Origin::User(1000),
            &Domain::parse("relay.test").expect("a domain"),
            &MailKey::parse("K1").expect("a key"),
            None,
            DateTime::from_timestamp(1_700_000_000, 0).expect("in range"),
        );
        assert_eq!(
            local,
            "Received: by relay.test (redeliver, from userid 1000)\r\n\tid K1;\r\n\tTue, 14 Nov 2023 22:13:20 +0000\r\n"
        );
    }

    #[test]
    fn over_http_it_names_the_client() {
        let field = received_field(
            Origin::Http("::1".parse().expect("an IP address")),
            &Domain::parse("relay.test").expect("a domain"),
            &MailKey::parse("K1").expect("a key"),
            None,
            DateTime::from_timestamp(1_700_000_000, 0).expect("in range"),
        );
        assert_eq!(
            field,
            "Received: from [IPv6:::1]\r\n\tby relay.test\r\n\twith HTTP id K1;\r\n\tTue, 14 Nov 2023 22:13:20 +0000\r\n"
        );
    }

    #[test]
    fn the_protocol_has_its_registered_name() {
        assert_eq!(Protocol::Smtp.keyword(), "SMTP");
        for (flags, keyword) in [
            ([false, false, false], "ESMTP"),
            ([false, true, false], "ESMTPS"),
            ([false, false, true], "ESMTPA"),
            ([false, true, true], "ESMTPSA"),
            ([true, false, false], "UTF8SMTP"),
            ([true, true, true], "UTF8SMTPSA"),
        ] {
            let [utf8, tls, auth] = flags;
            assert_eq!(Protocol::Extended { utf8, tls, auth }.keyword(), keyword);
        }
    }

    #[test]
    fn a_name_that_is_no_domain_is_not_repeated() {
        for name in ["", "a b", "x\r\nBcc: y@z", "(c)", "[192.0.2.9]", "a)"] {
            let field = field(name, "2001:db8::1", None);
            assert!(field.starts_with("Received: from [IPv6:2001:db8::1] ([IPv6:2001:db8::1])\r\n"), "{field}");
        }
        for (name, shown) in
            [("DESKTOP-?", "DESKTOP-?"), ("my_pc!", "my_pc!"), ("caf\u{e9}!", "caf??!"), ("a..b", "a..b")]
        {
            let field = field(name, "192.0.2.1", None);
            assert!(field.starts_with(&format!("Received: from {shown} ([192.0.2.1])\r\n")), "{field}");
        }
        assert!(field("bücher.example", "192.0.2.1", Some("ü@x.example")).is_ascii());
    }

    proptest! {
        #[test]
        fn it_is_one_field_of_short_lines_whatever_the_peer_says(
            name in "\\PC{0,300}|[\\x00-\\x7f]{0,60}|[a-z.]{0,255}",
            local in "[a-z]{1,64}|\"[ -~&&[^\"\\\\]]{0,60}\"",
        ) {
            let field = field(&name, "192.0.2.1", Some(&format!("{local}@x.example")));
            let body = field.strip_suffix("\r\n").expect("a line end");
            for (number, line) in body.split("\r\n").enumerate() {
                prop_assert!(line.len() <= 998 && !line.contains(['\r', '\n', '\0']), "{}", line);
                let start = if number == 0 { "Received: " } else { "\t" };
                prop_assert!(line.starts_with(start), "{}", line);
            }
        }
    }
}
