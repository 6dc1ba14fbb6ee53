//! Commands as a server reads them (RFC 5321 section 4.1, with SIZE, 8BITMIME, SMTPUTF8,
//! DSN and AUTH).
//!
//! Strict where two readers could disagree on who is meant or where a line ends; what is
//! refused says in one sentence what would be right.

mod lenient;

use crate::mail::{Address, AddressError, Domain, Malformed, Notify, Ret, ReversePath, parse_envid, parse_orcpt};

use super::{Body, MailParameters, RcptParameters};

pub use lenient::Leniency;

/// Octets of a command line with its CRLF (RFC 5321 section 4.5.3.1.4).
pub const MAX_COMMAND_OCTETS: usize = 512;

/// Octets of MAIL, RCPT, AUTH and what answers its challenge: their extensions lengthen
/// the line (RFC 1870, RFC 3461, RFC 4954, RFC 6531).
pub const MAX_EXTENDED_OCTETS: usize = 2048;

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// HELO with the client's name, whatever that is.
    Helo(String),
    /// EHLO with the client's name.
    Ehlo(String),
    /// MAIL FROM.
    Mail(ReversePath, MailParameters),
    /// RCPT TO.
    Rcpt(ForwardPath, RcptParameters),
    /// DATA.
    Data,
    /// RSET.
    Rset,
    /// NOOP, with anything behind it.
    Noop,
    /// QUIT.
    Quit,
    /// VRFY of something.
    Vrfy,
    /// HELP, with anything behind it.
    Help,
    /// STARTTLS (RFC 3207).
    StartTls,
    /// AUTH (RFC 4954).
    Auth {
        /// In upper case.
        mechanism: String,
        /// The initial response in base64, where one came along.
        initial: Option<String>,
    },
}

/// The argument of RCPT TO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardPath {
    /// `<postmaster>` without a domain, which every server knows (section 4.5.1).
    Postmaster,
    /// A word without a domain, where that is forgiven: somebody of this machine, or nobody.
    Local(String),
    /// Anybody else.
    Mailbox(Address),
}

/// Why a line is no command. The texts are one line and safe to print.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Over its limit.
    #[error("the line is too long")]
    TooLong,
    /// LF without CR: two servers could see two different lines.
    #[error("a line ends with CR LF")]
    LineEnd,
    /// A control character, or octets that are not UTF-8.
    #[error("the line has octets that do not belong into a command")]
    Octets,
    /// A client that speaks HTTP: a browser may have been talked into it.
    #[error("this is an SMTP server")]
    Http,
    /// No such command.
    #[error("the command is not known")]
    Unknown,
    /// A command that there is, but not here.
    #[error("the command is not implemented")]
    NotImplemented,
    /// What stands behind the verb.
    #[error("{0}")]
    Argument(&'static str),
    /// A parameter that EHLO did not offer.
    #[error("the parameter {0} is not known")]
    UnknownParameter(String),
    /// The value of a parameter of RFC 3461, by its name.
    #[error("{1}")]
    Dsn(&'static str, Malformed),
    /// The argument of MAIL FROM.
    #[error("{0}")]
    ReversePath(AddressError),
    /// The argument of RCPT TO.
    #[error("{0}")]
    ForwardPath(AddressError),
    /// An address outside ASCII without SMTPUTF8.
    #[error("an address outside ASCII needs SMTPUTF8")]
    NeedsSmtpUtf8,
}

impl CommandError {
    /// The reply code and enhanced status code that say so.
    pub fn status(&self) -> (u16, &'static str) {
        match self {
            Self::TooLong | Self::LineEnd | Self::Octets | Self::Unknown => (500, "5.5.2"),
            Self::Http => (421, "4.7.0"),
            Self::NotImplemented => (502, "5.5.1"),
            Self::Argument(_) | Self::Dsn(..) => (501, "5.5.4"),
            Self::UnknownParameter(_) => (555, "5.5.4"),
            Self::ReversePath(_) => (501, "5.1.7"),
            Self::ForwardPath(_) => (501, "5.1.3"),
            Self::NeedsSmtpUtf8 => (550, "5.6.7"),
        }
    }
}

type Parsed = Result<CommandLine, CommandError>;

impl CommandLine {
    /// Reads one line with its line end.
    ///
    /// # Errors
    /// [`CommandError`], of which nothing was carried out.
    pub fn parse(line: &[u8]) -> Parsed {
        let text = text(line)?;
        let (verb, argument) = text.split_once(' ').map_or((text, None), |(verb, rest)| (verb, Some(rest)));
        let verb = verb.to_ascii_uppercase();
        let extended = matches!(verb.as_str(), "MAIL" | "RCPT" | "AUTH");
        if line.len() > if extended { MAX_EXTENDED_OCTETS } else { MAX_COMMAND_OCTETS } {
            return Err(CommandError::TooLong);
        }
        match verb.as_str() {
            "HELO" => name(argument).map(Self::Helo),
            "EHLO" => name(argument).map(Self::Ehlo),
            "MAIL" => mail(argument.unwrap_or_default()),
            "RCPT" => rcpt(argument.unwrap_or_default()),
            "DATA" => alone(Self::Data, argument),
            "RSET" => alone(Self::Rset, argument),
            "QUIT" => alone(Self::Quit, argument),
            "STARTTLS" => alone(Self::StartTls, argument),
            "NOOP" => Ok(Self::Noop),
            "HELP" => Ok(Self::Help),
            "VRFY" => argument.map(|_| Self::Vrfy).ok_or(CommandError::Argument("write it as VRFY address")),
            "AUTH" => auth(argument.unwrap_or_default()),
            "EXPN" | "BDAT" | "ETRN" | "TURN" | "SEND" | "SOML" | "SAML" => Err(CommandError::NotImplemented),
            "GET" | "POST" | "PUT" | "HEAD" | "OPTIONS" | "DELETE" | "PATCH" | "CONNECT" => Err(CommandError::Http),
            _ => Err(CommandError::Unknown),
        }
    }
}

/// A line without its line end and the blanks in front of it (section 4.1.1).
fn text(line: &[u8]) -> Result<&str, CommandError> {
    let line = line.strip_suffix(b"\r\n").ok_or(CommandError::LineEnd)?;
    let text = std::str::from_utf8(line).map_err(|_| CommandError::Octets)?;
    if text.contains(char::is_control) {
        return Err(CommandError::Octets);
    }
    Ok(text.trim_end_matches(' '))
}

fn alone(command: CommandLine, argument: Option<&str>) -> Parsed {
    match argument {
        None => Ok(command),
        Some(_) => Err(CommandError::Argument("nothing may stand behind the command")),
    }
}

/// The name is not held against its owner (section 4.1.4): only that there is one.
fn name(argument: Option<&str>) -> Result<String, CommandError> {
    let name = argument.unwrap_or_default();
    if name.is_empty() || name.len() > 255 || name.contains(char::is_whitespace) {
        return Err(CommandError::Argument("say your name, one word"));
    }
    Ok(name.to_owned())
}

fn mail(argument: &str) -> Parsed {
    let (path, rest) = path(argument, "FROM:", "write it as MAIL FROM:<address>")?;
    let from = if path.is_empty() {
        ReversePath::Null
    } else {
        let address = Address::parse(without_route(path)?).map_err(CommandError::ReversePath)?;
        ReversePath::Address(address)
    };
    let parameters = mail_parameters(rest)?;
    if !path.is_ascii() && !parameters.smtputf8 {
        return Err(CommandError::NeedsSmtpUtf8);
    }
    Ok(CommandLine::Mail(from, parameters))
}

fn rcpt(argument: &str) -> Parsed {
    let (path, rest) = path(argument, "TO:", "write it as RCPT TO:<address>")?;
    let to = if path.eq_ignore_ascii_case("postmaster") {
        ForwardPath::Postmaster
    } else {
        ForwardPath::Mailbox(Address::parse(without_route(path)?).map_err(CommandError::ForwardPath)?)
    };
    Ok(CommandLine::Rcpt(to, rcpt_parameters(rest)?))
}

/// What stands in the angle brackets behind `keyword`, and what stands behind them.
///
/// A `>` within a quoted local part ends nothing (section 4.1.2).
fn path<'a>(argument: &'a str, keyword: &str, usage: &'static str) -> Result<(&'a str, &'a str), CommandError> {
    let wrong = CommandError::Argument(usage);
    let named = argument.get(..keyword.len()).is_some_and(|start| start.eq_ignore_ascii_case(keyword));
    let inner = argument.get(keyword.len()..).filter(|_| named).and_then(|rest| rest.strip_prefix('<'));
    inner.and_then(path_and_rest).ok_or(wrong)
}

/// What stands in front of the bracket that closes the path, and what stands behind it.
fn path_and_rest(inner: &str) -> Option<(&str, &str)> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => return Some((&inner[..at], &inner[at + 1..])),
            _ => {}
        }
    }
    None
}

/// A source route is read and not followed (section 3.6.1 and appendix C).
fn without_route(path: &str) -> Result<&str, CommandError> {
    let wrong = CommandError::Argument("the source route is not valid; leave it out");
    if !path.starts_with('@') {
        return Ok(path);
    }
    let (route, address) = path.split_once(':').ok_or_else(|| wrong.clone())?;
    let is_host = |host: &str| host.strip_prefix('@').is_some_and(|host| Domain::parse(host).is_ok());
    if route.split(',').all(is_host) { Ok(address) } else { Err(wrong) }
}

/// `keyword` or `keyword=value`.
struct Parameter<'a> {
    /// In upper case.
    keyword: String,
    value: Option<&'a str>,
}

fn parameters(rest: &str) -> Result<Vec<Parameter<'_>>, CommandError> {
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let rest = rest.strip_prefix(' ').ok_or(CommandError::Argument("one blank stands in front of a parameter"))?;
    let parameters = rest.split(' ').map(parameter).collect::<Result<Vec<_>, _>>()?;
    for (at, parameter) in parameters.iter().enumerate() {
        if parameters[..at].iter().any(|other| other.keyword == parameter.keyword) {
            return Err(CommandError::Argument("a parameter stands there twice"));
        }
    }
    Ok(parameters)
}

/// `esmtp-param` of section 4.1.2.
fn parameter(word: &str) -> Result<Parameter<'_>, CommandError> {
    let (keyword, value) = word.split_once('=').map_or((word, None), |(keyword, value)| (keyword, Some(value)));
    let in_keyword = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
    let keyword_fits = !keyword.is_empty() && !keyword.starts_with('-') && keyword.bytes().all(in_keyword);
    let value_fits = value.is_none_or(|value| !value.is_empty() && !value.contains('='));
    if !keyword_fits || !value_fits {
        return Err(CommandError::Argument("a parameter is KEYWORD or KEYWORD=VALUE, with one blank in front"));
    }
    Ok(Parameter { keyword: keyword.to_ascii_uppercase(), value })
}

fn mail_parameters(rest: &str) -> Result<MailParameters, CommandError> {
    let mut read = MailParameters::default();
    for Parameter { keyword, value } in parameters(rest)? {
        match keyword.as_str() {
            "SIZE" => read.size = Some(size(value.unwrap_or_default())?),
            "BODY" => read.body = body(value.unwrap_or_default())?,
            "SMTPUTF8" if value.is_none() => read.smtputf8 = true,
            "SMTPUTF8" => return Err(CommandError::Argument("SMTPUTF8 has no value")),
            // Who is said to have written it: checked, since a client may always say it
            // (RFC 4954 section 5), and not kept.
            "AUTH" if value.is_some_and(is_xtext) => {}
            "AUTH" => return Err(CommandError::Argument("AUTH= is <> or a mailbox in xtext")),
            "RET" => read.ret = Some(dsn("RET", value, Ret::parse)?),
            "ENVID" => read.envid = Some(dsn("ENVID", value, parse_envid)?),
            _ => return Err(CommandError::UnknownParameter(keyword)),
        }
    }
    Ok(read)
}

fn rcpt_parameters(rest: &str) -> Result<RcptParameters, CommandError> {
    let mut read = RcptParameters::default();
    for Parameter { keyword, value } in parameters(rest)? {
        match keyword.as_str() {
            "NOTIFY" => read.notify = Some(dsn("NOTIFY", value, Notify::parse)?),
            // Whether the transaction said SMTPUTF8 is not for the line to know.
            "ORCPT" => read.orcpt = Some(dsn("ORCPT", value, |text| parse_orcpt(text, true))?),
            _ => return Err(CommandError::UnknownParameter(keyword)),
        }
    }
    Ok(read)
}

/// A value of RFC 3461.
fn dsn<T>(
    keyword: &'static str,
    value: Option<&str>,
    read: impl Fn(&str) -> Result<T, Malformed>,
) -> Result<T, CommandError> {
    read(value.unwrap_or_default()).map_err(|malformed| CommandError::Dsn(keyword, malformed))
}

/// RFC 1870 section 3: 1 to 20 digits. More than can be counted is more than is taken.
fn size(value: &str) -> Result<u64, CommandError> {
    if !(1..=20).contains(&value.len()) || !value.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(CommandError::Argument("SIZE= is a number of octets"));
    }
    Ok(value.parse().unwrap_or(u64::MAX))
}

fn body(value: &str) -> Result<Option<Body>, CommandError> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Ok(None),
        "8BITMIME" => Ok(Some(Body::EightBitMime)),
        _ => Err(CommandError::Argument("BODY= is 7BIT or 8BITMIME")),
    }
}

/// RFC 3461 section 4: printable ASCII, with `+` only in front of two hexadecimal digits.
fn is_xtext(value: &str) -> bool {
    let is_hex = |octet: &u8| octet.is_ascii_digit() || (b'A'..=b'F').contains(octet);
    let mut parts = value.split('+');
    let plain = parts.next().is_some_and(|first| first.bytes().all(|octet| octet.is_ascii_graphic()));
    let encoded = |part: &str| {
        let octets = part.as_bytes();
        octets.len() >= 2 && octets[..2].iter().all(is_hex) && octets[2..].iter().all(u8::is_ascii_graphic)
    };
    plain && parts.all(encoded)
}

fn auth(argument: &str) -> Parsed {
    let mut words = argument.split(' ');
    let mechanism = words.next().filter(|word| !word.is_empty()).map(str::to_ascii_uppercase);
    let initial = words.next().map(str::to_owned);
    match (mechanism, words.next()) {
        (Some(mechanism), None) => Ok(CommandLine::Auth { mechanism, initial }),
        _ => Err(CommandError::Argument("write it as AUTH PLAIN initial-response")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a line means, in words.
    fn read(line: &str) -> String {
        match CommandLine::parse(format!("{line}\r\n").as_bytes()) {
            Ok(CommandLine::Mail(from, parameters)) => format!("mail {from}{parameters}"),
            Ok(CommandLine::Rcpt(ForwardPath::Mailbox(to), parameters)) => format!("rcpt {to}{parameters}"),
            Ok(other) => format!("{other:?}"),
            Err(error) => {
                let (code, enhanced) = error.status();
                format!("{code} {enhanced} {error}")
            }
        }
    }

    #[test]
    fn commands_are_read_in_any_case_with_blanks_only_at_their_end() {
        for (line, meaning) in [
            ("EHLO client.example", "Ehlo(\"client.example\")"),
            ("ehlo [IPv6:2001:db8::1]  ", "Ehlo(\"[IPv6:2001:db8::1]\")"),
            ("HELO under_score", "Helo(\"under_score\")"),
            ("EHLO", "501 5.5.4 say your name, one word"),
            ("EHLO a b", "501 5.5.4 say your name, one word"),
            ("data ", "Data"),
            ("DATA now", "501 5.5.4 nothing may stand behind the command"),
            ("RSET x", "501 5.5.4 nothing may stand behind the command"),
            ("QUIT", "Quit"),
            ("NOOP anything", "Noop"),
            ("VRFY a", "Vrfy"),
            ("VRFY", "501 5.5.4 write it as VRFY address"),
            ("STARTTLS", "StartTls"),
            ("auth plain AGEAYg==", "Auth { mechanism: \"PLAIN\", initial: Some(\"AGEAYg==\") }"),
            ("AUTH PLAIN", "Auth { mechanism: \"PLAIN\", initial: None }"),
            ("AUTH", "501 5.5.4 write it as AUTH PLAIN initial-response"),
            ("AUTH PLAIN a b", "501 5.5.4 write it as AUTH PLAIN initial-response"),
            ("EXPN list", "502 5.5.1 the command is not implemented"),
            ("BDAT 5 LAST", "502 5.5.1 the command is not implemented"),
            ("POST / HTTP/1.1", "421 4.7.0 this is an SMTP server"),
            ("", "500 5.5.2 the command is not known"),
            (" DATA", "500 5.5.2 the command is not known"),
            ("DATA\tx", "500 5.5.2 the line has octets that do not belong into a command"),
            ("XYZZY", "500 5.5.2 the command is not known"),
        ] {
            assert_eq!(read(line), meaning, "{line:?}");
        }
    }

    #[test]
    fn paths_are_read_to_the_bracket_that_ends_them() {
        let long = |local: usize| format!("RCPT TO:<{}@x.example>", "a".repeat(local));
        for (line, meaning) in [
            ("MAIL FROM:<>", "mail <>"),
            ("mail from:<A@B.example>", "mail A@B.example"),
            ("MAIL FROM:<\"a@b> c\\\"\"@d.example> SIZE=5", "mail \"a@b> c\\\"\"@d.example SIZE=5"),
            ("RCPT TO:<\"\"@d.example>", "rcpt \"\"@d.example"),
            ("RCPT TO:<a@[192.0.2.1]>", "rcpt a@[192.0.2.1]"),
            ("RCPT TO:<a@[IPv6:2001:db8::1]>", "rcpt a@[IPv6:2001:db8::1]"),
            ("RCPT TO:<@r.example,@s.example:a@d.example>", "rcpt a@d.example"),
            ("MAIL FROM:<@r.example:a@d.example>", "mail a@d.example"),
            ("RCPT TO:<u%other.example@d.example>", "rcpt u%other.example@d.example"),
            ("RCPT TO:<other!u@d.example>", "rcpt other!u@d.example"),
            ("RCPT TO:<PostMaster>", "Rcpt(Postmaster, RcptParameters { notify: None, orcpt: None })"),
            ("RCPT TO:<@:a@d.example>", "501 5.5.4 the source route is not valid; leave it out"),
            ("RCPT TO:<@a@d.example>", "501 5.5.4 the source route is not valid; leave it out"),
            ("MAIL FROM: <a@b.example>", "501 5.5.4 write it as MAIL FROM:<address>"),
            ("MAIL FROM :<a@b.example>", "501 5.5.4 write it as MAIL FROM:<address>"),
            ("MAIL FROM:a@b.example", "501 5.5.4 write it as MAIL FROM:<address>"),
            ("MAIL FROM:<a@b.example", "501 5.5.4 write it as MAIL FROM:<address>"),
            ("MAIL FROM:<\"a@b.example>", "501 5.5.4 write it as MAIL FROM:<address>"),
            ("MAIL", "501 5.5.4 write it as MAIL FROM:<address>"),
            ("MAIL TO:<a@b.example>", "501 5.5.4 write it as MAIL FROM:<address>"),
            ("MAIL FROM:<é", "501 5.5.4 write it as MAIL FROM:<address>"),
            ("RCPT TO:<>", "501 5.1.3 the address is empty"),
            ("RCPT TO:<@>", "501 5.5.4 the source route is not valid; leave it out"),
            ("RCPT TO:<a>", "501 5.1.3 the address has no domain: write it as local-part@domain"),
            ("RCPT TO:<-a@d.example>", "501 5.1.3 the address begins with '-'"),
            (
                "RCPT TO:< a@d.example>",
                "501 5.1.3 the local part \" a\" is not valid: quote it, or remove what does not belong",
            ),
            (
                "RCPT TO:<<a@d.example>>",
                "501 5.1.3 the local part \"<a\" is not valid: quote it, or remove what does not belong",
            ),
            (
                "MAIL FROM:<a@b@c.example>",
                "501 5.1.7 the local part \"a@b\" is not valid: quote it, or remove what does not belong",
            ),
            (&long(64), &format!("rcpt {}@x.example", "a".repeat(64))),
            (&long(65), "501 5.1.3 the local part is longer than 64 octets"),
        ] {
            assert_eq!(read(line), meaning, "{line:?}");
        }
    }

    #[test]
    fn parameters_are_known_written_right_and_not_doubled() {
        let pair = "501 5.5.4 a parameter is KEYWORD or KEYWORD=VALUE, with one blank in front";
        for (parameters, meaning) in [
            (" SIZE=10 BODY=8bitmime SMTPUTF8 AUTH=<>", "mail a@b.c SIZE=10 BODY=8BITMIME SMTPUTF8"),
            (" body=7BIT  ", "mail a@b.c"),
            (" AUTH=e+3Dmc2@example.com", "mail a@b.c"),
            (" SIZE=99999999999999999999", "mail a@b.c SIZE=18446744073709551615"),
            (" SIZE=", pair),
            (" SIZE", "501 5.5.4 SIZE= is a number of octets"),
            (" SIZE=abc", "501 5.5.4 SIZE= is a number of octets"),
            (" SIZE=-1", "501 5.5.4 SIZE= is a number of octets"),
            (" SIZE=+1", "501 5.5.4 SIZE= is a number of octets"),
            (" SIZE=100000000000000000000", "501 5.5.4 SIZE= is a number of octets"),
            (" SIZE=1 size=1", "501 5.5.4 a parameter stands there twice"),
            (" BODY=BINARYMIME", "501 5.5.4 BODY= is 7BIT or 8BITMIME"),
            (" SMTPUTF8=yes", "501 5.5.4 SMTPUTF8 has no value"),
            (" AUTH", "501 5.5.4 AUTH= is <> or a mailbox in xtext"),
            (" AUTH=a+0Ab+2B", "mail a@b.c"),
            (" AUTH=a+g", "501 5.5.4 AUTH= is <> or a mailbox in xtext"),
            (" AUTH=a+é", "501 5.5.4 AUTH= is <> or a mailbox in xtext"),
            (" ret=hdrs ENVID=a+2Bb", "mail a@b.c RET=HDRS ENVID=a+2Bb"),
            (" RET=SOME", "501 5.5.4 RET is FULL or HDRS"),
            (" RET", "501 5.5.4 RET is FULL or HDRS"),
            (" ENVID", "501 5.5.4 ENVID has 1 to 100 characters"),
            (" ENVID=a ENVID=a", "501 5.5.4 a parameter stands there twice"),
            (" NOTIFY=NEVER", "555 5.5.4 the parameter NOTIFY is not known"),
            ("SIZE=1", "501 5.5.4 one blank stands in front of a parameter"),
            (" SIZE=1  BODY=7BIT", pair),
            (" =1", pair),
            (" SIZE=1=2", pair),
        ] {
            assert_eq!(read(&format!("MAIL FROM:<a@b.c>{parameters}")), meaning, "{parameters:?}");
        }
        for (parameters, meaning) in [
            (" NOTIFY=NEVER", "rcpt a@b.c NOTIFY=NEVER"),
            (" notify=Delay,SUCCESS ORCPT=rfc822;A+2B@b.c", "rcpt a@b.c NOTIFY=DELAY,SUCCESS ORCPT=rfc822;A+2B@b.c"),
            (
                " NOTIFY=NEVER,DELAY",
                "501 5.5.4 NOTIFY is NEVER alone, or any of SUCCESS, FAILURE and DELAY with commas between",
            ),
            (" NOTIFY=NEVER NOTIFY=NEVER", "501 5.5.4 a parameter stands there twice"),
            (" ORCPT=a@b.c", "501 5.5.4 ORCPT is a type, ';' and an address, such as rfc822;user@example.org"),
            (" RET=FULL", "555 5.5.4 the parameter RET is not known"),
            (" X=1 X=1", "501 5.5.4 a parameter stands there twice"),
        ] {
            assert_eq!(read(&format!("RCPT TO:<a@b.c>{parameters}")), meaning, "{parameters:?}");
        }
        let escaped = read("RCPT TO:<a@b.c> ORCPT=rfc822;a+0D+0ARCPT+20TO:<c@d.e>");
        assert!(escaped.starts_with("501 5.5.4 a value in xtext"), "{escaped}");
    }

    #[test]
    fn an_address_outside_ascii_needs_smtputf8() {
        for (line, meaning) in [
            ("MAIL FROM:<ü@b.example>", "550 5.6.7 an address outside ASCII needs SMTPUTF8"),
            ("MAIL FROM:<a@bücher.example>", "550 5.6.7 an address outside ASCII needs SMTPUTF8"),
            ("MAIL FROM:<ü@b.example> SMTPUTF8", "mail ü@b.example SMTPUTF8"),
            // Whether the transaction said SMTPUTF8 is not for the line to know.
            ("RCPT TO:<ü@b.example>", "rcpt ü@b.example"),
        ] {
            assert_eq!(read(line), meaning);
        }
    }

    #[test]
    fn a_line_is_one_line_and_no_longer_than_it_may_be() {
        let noop = |octets: usize| format!("NOOP {}\r\n", "x".repeat(octets - 7)).into_bytes();
        let mail = |octets: usize| format!("MAIL FROM:<a@b.c> AUTH={}\r\n", "x".repeat(octets - 25)).into_bytes();
        for (line, error) in [
            (noop(512), None),
            (noop(513), Some(CommandError::TooLong)),
            (mail(2048), None),
            (mail(2049), Some(CommandError::TooLong)),
            (b"NOOP\n".to_vec(), Some(CommandError::LineEnd)),
            (b"NOOP".to_vec(), Some(CommandError::LineEnd)),
            (b"NOOP\r\r\n".to_vec(), Some(CommandError::Octets)),
            (b"NOOP a\nRSET\r\n".to_vec(), Some(CommandError::Octets)),
            (b"NOOP \0\r\n".to_vec(), Some(CommandError::Octets)),
            (b"NOOP \xff\r\n".to_vec(), Some(CommandError::Octets)),
        ] {
            assert_eq!(CommandLine::parse(&line).err(), error, "{:?}", String::from_utf8_lossy(&line));
        }
    }

    proptest! {
        #[test]
        fn what_our_client_side_writes_is_read_as_it_was_meant(
            local in "[a-z0-9.+]{1,20}|\"[ -!#-\\[\\]-~]{0,20}\"|[a-zé]{1,9}",
            size in any::<Option<u64>>(), eight_bit in any::<bool>(),
            notify in prop::option::of(prop::sample::select(vec!["NEVER", "SUCCESS", "DELAY,FAILURE"])),
            xtext in prop::option::of("([!-*,-<>-~]|[+][2-6][0-9A-F]){1,30}"),
        ) {
            let address = Address::parse(&format!("{local}@x.example")).expect("an address");
            let body = eight_bit.then_some(Body::EightBitMime);
            let (ret, envid) = (eight_bit.then_some(Ret::Full), xtext.clone());
            let parameters = MailParameters { size, body, smtputf8: true, require_tls: false, ret, envid };
            let from = ReversePath::Address(address.clone());
            let line = super::super::Command::mail(&from, &parameters).to_string();
            prop_assert_eq!(CommandLine::parse(line.as_bytes()), Ok(CommandLine::Mail(from, parameters)));
            let notify = notify.map(|notify| Notify::parse(notify).expect(notify));
            let parameters = RcptParameters { notify, orcpt: xtext.map(|xtext| format!("rfc822;{xtext}")) };
            let line = super::super::Command::rcpt(&address, &parameters).to_string();
            let expected = CommandLine::Rcpt(ForwardPath::Mailbox(address), parameters);
            prop_assert_eq!(CommandLine::parse(line.as_bytes()), Ok(expected));
        }

        #[test]
        fn no_line_yields_anything_that_could_be_two_lines(
            line in "(MAIL FROM:<|RCPT TO:<|EHLO |AUTH )?[ -~\r\n\0é]{0,60}(>| SIZE=1)?\r\n",
        ) {
            match CommandLine::parse(line.as_bytes()) {
                Ok(command) => prop_assert!(!line.trim_end_matches("\r\n").contains(char::is_control), "{:?}", command),
                Err(error) => prop_assert!(!error.to_string().contains(char::is_control), "{}", error),
            }
        }
    }
}
