//! Commands as a client writes them (RFC 5321 section 4.1), and what EHLO offers.

use std::fmt;

use crate::mail::{Address, Notify, Ret, ReversePath};

use super::Reply;

/// One command line, written with its CRLF.
///
/// Whatever it was made from, it is one line: control characters are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command(String);

/// What a client says of the message with MAIL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// Octets between DATA and the final dot (RFC 1870).
    pub size: Option<u64>,
    /// `BODY=` (RFC 6152).
    pub body: Option<Body>,
    /// `SMTPUTF8` (RFC 6531).
    pub smtputf8: bool,
    /// `REQUIRETLS` (RFC 8689).
    pub require_tls: bool,
    /// `RET=` (RFC 3461 section 4.3).
    pub ret: Option<Ret>,
    /// `ENVID=` in xtext (RFC 3461 section 4.4).
    pub envid: Option<String>,
}

/// What a client says of a recipient with RCPT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RcptParameters {
    /// `NOTIFY=` (RFC 3461 section 4.1).
    pub notify: Option<Notify>,
    /// `ORCPT=`, `type;address` with the address in xtext (RFC 3461 section 4.2).
    pub orcpt: Option<String>,
}

/// The value of `BODY=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Octets above 127 are to be kept.
    EightBitMime,
}

impl Command {
    fn new(line: &str) -> Self {
        Self(line.chars().filter(|c| !c.is_control()).collect())
    }

    /// EHLO with our name.
    pub fn ehlo(name: &str) -> Self {
        Self::new(&format!("EHLO {name}"))
    }

    /// HELO with our name, for peers that do not know EHLO.
    pub fn helo(name: &str) -> Self {
        Self::new(&format!("HELO {name}"))
    }

    /// MAIL FROM; a domain outside ASCII goes as A-labels.
    pub fn mail(from: &ReversePath, parameters: &MailParameters) -> Self {
        let path = from.address().map(Address::on_the_wire).unwrap_or_default();
        Self::new(&format!("MAIL FROM:<{path}>{parameters}"))
    }

    /// RCPT TO; a domain outside ASCII goes as A-labels.
    pub fn rcpt(to: &Address, parameters: &RcptParameters) -> Self {
        Self::new(&format!("RCPT TO:<{}>{parameters}", to.on_the_wire()))
    }

    /// DATA.
    pub fn data() -> Self {
        Self::new("DATA")
    }

    /// RSET.
    pub fn rset() -> Self {
        Self::new("RSET")
    }

    /// STARTTLS (RFC 3207).
    pub fn starttls() -> Self {
        Self::new("STARTTLS")
    }

    /// QUIT.
    pub fn quit() -> Self {
        Self::new("QUIT")
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\r\n", self.0)
    }
}

impl fmt::Display for MailParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(size) = self.size {
            write!(f, " SIZE={size}")?;
        }
        if let Some(Body::EightBitMime) = self.body {
            f.write_str(" BODY=8BITMIME")?;
        }
        if self.smtputf8 {
            f.write_str(" SMTPUTF8")?;
        }
        if self.require_tls {
            f.write_str(" REQUIRETLS")?;
        }
        if let Some(ret) = self.ret {
            write!(f, " RET={ret}")?;
        }
        if let Some(envid) = &self.envid {
            write!(f, " ENVID={envid}")?;
        }
        Ok(())
    }
}

impl fmt::Display for RcptParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(notify) = self.notify {
            write!(f, " NOTIFY={notify}")?;
        }
        if let Some(orcpt) = &self.orcpt {
            write!(f, " ORCPT={orcpt}")?;
        }
        Ok(())
    }
}

/// What a peer offers in its answer to EHLO; nothing after HELO.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an extension of its own")]
pub struct Capabilities {
    /// `SIZE`: octets a message may have. `None` where it says nothing that can be
    /// understood, or 0, which is no limit (RFC 1870 section 4).
    pub size_limit: Option<u64>,
    /// `SIZE` is known at all, so that it may be said with MAIL.
    pub size: bool,
    /// `8BITMIME`.
    pub eight_bit_mime: bool,
    /// `SMTPUTF8`.
    pub smtputf8: bool,
    /// `REQUIRETLS`.
    pub require_tls: bool,
    /// `PIPELINING`.
    pub pipelining: bool,
    /// `DSN` (RFC 3461).
    pub dsn: bool,
    /// `STARTTLS`.
    pub starttls: bool,
    /// The mechanisms of `AUTH`, in upper case.
    pub auth: Vec<String>,
}

impl Capabilities {
    /// Reads the lines of a reply to EHLO, whatever case they are in; the first is the
    /// peer's greeting and what is not known is passed over.
    pub fn parse(reply: &Reply) -> Self {
        let mut capabilities = Self::default();
        for line in reply.texts().skip(1) {
            capabilities.line(&line.to_ascii_uppercase());
        }
        capabilities
    }

    fn line(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        match words.next().unwrap_or_default() {
            "SIZE" => {
                self.size = true;
                self.size_limit = words.next().and_then(|limit| limit.parse().ok()).filter(|&limit| limit > 0);
            }
            "8BITMIME" => self.eight_bit_mime = true,
            "SMTPUTF8" => self.smtputf8 = true,
            "REQUIRETLS" => self.require_tls = true,
            "PIPELINING" => self.pipelining = true,
            "DSN" => self.dsn = true,
            "STARTTLS" => self.starttls = true,
            "AUTH" => self.auth.extend(words.map(str::to_owned)),
            // The form of old Microsoft and Netscape servers.
            keyword => {
                if let Some(first) = keyword.strip_prefix("AUTH=") {
                    self.auth.extend(std::iter::once(first).chain(words).map(str::to_owned));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ReplyReader;
    use super::*;

    fn ehlo(lines: &[&str]) -> Capabilities {
        let mut reader = ReplyReader::default();
        let last = lines.len() - 1;
        let mut reply = None;
        for (at, line) in lines.iter().enumerate() {
            let line = format!("250{}{line}\r\n", if at == last { ' ' } else { '-' });
            reply = reader.push(line.as_bytes()).expect("SMTP");
        }
        Capabilities::parse(&reply.expect("whole"))
    }

    #[test]
    fn commands_are_written_as_rfc_5321_has_them() {
        let from = ReversePath::parse("a@B.example").expect("an address");
        let to = Address::parse("\"x y\"@bücher.example").expect("an address");
        let all = MailParameters {
            size: Some(7),
            body: Some(Body::EightBitMime),
            smtputf8: true,
            require_tls: true,
            ret: Some(Ret::Full),
            envid: Some("id+2B1".into()),
        };
        let asked =
            RcptParameters { notify: Notify::parse("delay,success").ok(), orcpt: Some("rfc822;B@x.example".into()) };
        for (command, line) in [
            (Command::ehlo("me.example"), "EHLO me.example\r\n"),
            (Command::mail(&ReversePath::Null, &MailParameters::default()), "MAIL FROM:<>\r\n"),
            (
                Command::mail(&from, &all),
                "MAIL FROM:<a@B.example> SIZE=7 BODY=8BITMIME SMTPUTF8 REQUIRETLS RET=FULL ENVID=id+2B1\r\n",
            ),
            (Command::rcpt(&to, &RcptParameters::default()), "RCPT TO:<\"x y\"@xn--bcher-kva.example>\r\n"),
            (
                Command::rcpt(&to, &asked),
                "RCPT TO:<\"x y\"@xn--bcher-kva.example> NOTIFY=DELAY,SUCCESS ORCPT=rfc822;B@x.example\r\n",
            ),
            (Command::data(), "DATA\r\n"),
        ] {
            assert_eq!(command.to_string(), line);
        }
    }

    #[test]
    fn capabilities_are_read_in_any_case_and_lies_about_size_are_no_limit() {
        let offered =
            ehlo(&["x", "size 1000", "8bitmime", "Pipelining", "SMTPUTF8", "dsn", "StartTLS", "AUTH plain LOGIN"]);
        assert_eq!((offered.size_limit, offered.size), (Some(1000), true));
        assert!(offered.eight_bit_mime && offered.pipelining && offered.smtputf8 && offered.dsn && offered.starttls);
        assert_eq!(offered.auth, ["PLAIN", "LOGIN"]);
        assert_eq!(ehlo(&["x", "AUTH=LOGIN PLAIN"]).auth, ["LOGIN", "PLAIN"]);
        for size in ["SIZE", "SIZE 0", "SIZE abc", "SIZE 99999999999999999999", "SIZE -1"] {
            let capabilities = ehlo(&["x", size]);
            assert_eq!((capabilities.size_limit, capabilities.size), (None, true), "{size}");
        }
        assert_eq!(ehlo(&["SIZE 5"]), Capabilities::default(), "the first line is a greeting");
    }

    proptest! {
        #[test]
        fn a_command_is_one_line_whatever_it_is_made_from(name in any::<String>(), address in any::<String>()) {
            let mut commands = vec![Command::ehlo(&name)];
            commands.extend(Address::parse(&address).map(|to| Command::rcpt(&to, &RcptParameters::default())));
            commands.extend(ReversePath::parse(&address).map(|from| Command::mail(&from, &MailParameters::default())));
            for command in commands {
                let text = command.to_string();
                prop_assert!(text.ends_with("\r\n"));
                prop_assert!(!text[..text.len() - 2].contains(['\r', '\n', '\0']));
            }
        }
    }
}
