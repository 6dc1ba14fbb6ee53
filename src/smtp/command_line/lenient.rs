//! What is forgiven to clients who may relay: printers, controllers and telnet users send
//! it, and nobody can mend them. Each line is read as the one that it should have been.

use super::{CommandError, CommandLine, ForwardPath, MAX_COMMAND_OCTETS, MAX_EXTENDED_OCTETS, Parsed};
use super::{mail_parameters, path_and_rest, rcpt_parameters, without_route};
use crate::mail::{Address, AddressError, ReversePath};

/// What is forgiven.
pub struct Leniency<'a> {
    /// A bare LF ends a command too.
    pub bare_lf: bool,
    /// Reads a sender, who may be named without a domain.
    pub sender: &'a dyn Fn(&str) -> Result<Address, AddressError>,
}

impl CommandLine {
    /// As [`CommandLine::parse`], with what is forgiven: blanks beside `FROM:` and `TO:`,
    /// missing angle brackets, a display name in front of them, quotes around the address, tabs and
    /// several blanks for one, and any name in EHLO and HELO, in which octets outside printable
    /// ASCII become `?` where it is no UTF-8.
    ///
    /// # Errors
    /// As [`CommandLine::parse`].
    pub fn parse_leniently(line: &[u8], leniency: &Leniency<'_>) -> Parsed {
        if line.len() > MAX_EXTENDED_OCTETS {
            return Err(CommandError::TooLong);
        }
        let bare = line.strip_suffix(b"\n").filter(|_| leniency.bare_lf);
        let line = line.strip_suffix(b"\r\n").or(bare).ok_or(CommandError::LineEnd)?;
        let line = trimmed(line);
        let verb_ends = line.iter().position(|&octet| is_blank(octet)).unwrap_or(line.len());
        let (verb, argument) = line.split_at(verb_ends);
        let too_long = line.len() + 2 > MAX_COMMAND_OCTETS;
        match verb.to_ascii_uppercase().as_slice() {
            b"HELO" | b"EHLO" if too_long => Err(CommandError::TooLong),
            b"HELO" => Ok(Self::Helo(name(argument))),
            b"EHLO" => Ok(Self::Ehlo(name(argument))),
            b"MAIL" => mail(&text(argument)?, leniency),
            b"RCPT" => rcpt(&text(argument)?),
            // Some write the colon in one with the verb's argument and no blank at all.
            _ => Self::parse(&[line, b"\r\n"].concat()),
        }
    }
}

fn is_blank(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t')
}

/// Without the blanks at its ends; a bare CR is none.
fn trimmed(octets: &[u8]) -> &[u8] {
    let start = octets.iter().position(|&octet| !is_blank(octet)).unwrap_or(octets.len());
    let end = octets.iter().rposition(|&octet| !is_blank(octet)).map_or(start, |last| last + 1);
    &octets[start..end]
}

/// The name is not held against its owner, whatever it is.
fn name(argument: &[u8]) -> String {
    let printable = |octet: &u8| if (b' '..=b'~').contains(octet) { char::from(*octet) } else { '?' };
    let argument = trimmed(argument);
    match std::str::from_utf8(argument) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => argument.iter().map(printable).collect(),
    }
}

/// With a blank for each TAB, but not in a quoted local part: that would be somebody else's
/// mailbox. Octets that are no UTF-8 are marked as such: in a display name they hurt nobody.
fn text(argument: &[u8]) -> Result<String, CommandError> {
    let text = String::from_utf8_lossy(argument);
    if text.contains('\t') && text.split('"').skip(1).zip(text.split('"').skip(2)).any(is_local_part_with_tab) {
        return Err(CommandError::Octets);
    }
    let text = text.replace('\t', " ");
    if text.contains(char::is_control) { Err(CommandError::Octets) } else { Ok(text.trim().to_owned()) }
}

/// What stands between two quotes, and what behind the second.
fn is_local_part_with_tab((quoted, behind): (&str, &str)) -> bool {
    quoted.contains('\t') && behind.starts_with('@')
}

fn mail(argument: &str, leniency: &Leniency<'_>) -> Parsed {
    let (path, rest) = path(argument, "FROM", "write it as MAIL FROM:<address>")?;
    let from = if path.is_empty() {
        ReversePath::Null
    } else {
        let address = (leniency.sender)(without_route(&path)?).map_err(CommandError::ReversePath)?;
        ReversePath::Address(address)
    };
    let parameters = mail_parameters(&rest)?;
    if !path.is_ascii() && !parameters.smtputf8 {
        return Err(CommandError::NeedsSmtpUtf8);
    }
    Ok(CommandLine::Mail(from, parameters))
}

fn rcpt(argument: &str) -> Parsed {
    let (path, rest) = path(argument, "TO", "write it as RCPT TO:<address>")?;
    let parameters = rcpt_parameters(&rest)?;
    Ok(CommandLine::Rcpt(forward_path(path)?, parameters))
}

fn forward_path(path: String) -> Result<ForwardPath, CommandError> {
    if path.eq_ignore_ascii_case("postmaster") {
        return Ok(ForwardPath::Postmaster);
    }
    match Address::parse(without_route(&path)?) {
        Ok(address) => Ok(ForwardPath::Mailbox(address)),
        // Whether that is somebody here is not for the line to know.
        Err(AddressError::NoDomain) if !path.contains('@') => Ok(ForwardPath::Local(path)),
        Err(error) => Err(CommandError::ForwardPath(error)),
    }
}

/// The path behind `keyword` and a colon, and the parameters as strict clients write them.
fn path(argument: &str, keyword: &str, usage: &'static str) -> Result<(String, String), CommandError> {
    let wrong = CommandError::Argument(usage);
    let named = argument.get(..keyword.len()).filter(|start| start.eq_ignore_ascii_case(keyword));
    let rest = named.and_then(|named| argument[named.len()..].trim_start().strip_prefix(':'));
    let rest = rest.map(|rest| without_name(rest.trim())).filter(|rest| !rest.is_empty()).ok_or(wrong)?;
    let (path, rest) = match rest.strip_prefix('<') {
        Some(inner) => path_and_rest(inner).unwrap_or_else(|| at_blank(inner)),
        None => at_blank(rest),
    };
    if path.contains(char::REPLACEMENT_CHARACTER) {
        return Err(CommandError::Octets);
    }
    let parameters: String = rest.trim_start_matches('>').split_whitespace().map(|word| format!(" {word}")).collect();
    Ok((unquoted(path.trim()).to_owned(), parameters))
}

/// Without the display name in front of the angle brackets, which belongs into the header, and
/// with one pair of these.
fn without_name(text: &str) -> &str {
    if let Some(inner) = text.strip_prefix('<') {
        return if inner.starts_with('<') { without_name(inner) } else { text };
    }
    match text.rfind('<') {
        Some(at) if !text[..at].contains('@') && text[at..].contains('>') => &text[at..],
        _ => text,
    }
}

/// An address in quotes: the whole of it, which is none.
fn unquoted(path: &str) -> &str {
    let inner = |mark| path.strip_prefix(mark)?.strip_suffix(mark);
    inner('\'')
        .or_else(|| inner('"'))
        .filter(|inner| inner.contains('@') && !inner.contains(['"', '\'']))
        .unwrap_or(path)
}

/// Up to the first blank outside of quotes; a bracket that nothing opened is left out.
fn at_blank(text: &str) -> (&str, &str) {
    let (mut quoted, mut escaped) = (false, false);
    let end = text.find(|c: char| {
        let is_end = c == ' ' && !quoted;
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && quoted && !escaped;
        is_end
    });
    let (path, rest) = text.split_at(end.unwrap_or(text.len()));
    (path.strip_suffix('>').unwrap_or(path), rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leniency(bare_lf: bool) -> Leniency<'static> {
        let sender = &|text: &str| match text {
            "printer" => Address::parse("printer@h.example"),
            other => Address::parse(other),
        };
        Leniency { bare_lf, sender }
    }

    fn read(line: &[u8]) -> String {
        match CommandLine::parse_leniently(line, &leniency(false)) {
            Ok(CommandLine::Mail(from, parameters)) => format!("mail {from}{parameters}"),
            Ok(CommandLine::Rcpt(ForwardPath::Mailbox(to), parameters)) => format!("rcpt {to}{parameters}"),
            Ok(CommandLine::Rcpt(other, _)) => format!("rcpt {other:?}"),
            Ok(other) => format!("{other:?}"),
            Err(error) => format!("{} {error}", error.status().0),
        }
    }

    #[test]
    fn what_devices_send_is_read_as_what_they_mean() {
        for (line, meaning) in [
            ("MAIL FROM: <a@x.example>", "mail a@x.example"),
            ("MAIL FROM:  <a@x.example>  SIZE=10   BODY=8BITMIME ", "mail a@x.example SIZE=10 BODY=8BITMIME"),
            ("MAIL FROM:a@x.example", "mail a@x.example"),
            ("mail from: a@x.example SIZE=10", "mail a@x.example SIZE=10"),
            ("MAIL FROM : < a@x.example >", "mail a@x.example"),
            ("MAIL\tFROM:\t<a@x.example>", "mail a@x.example"),
            ("MAIL  FROM:<a@x.example>SIZE=10", "mail a@x.example SIZE=10"),
            ("MAIL FROM:<a@x.example", "mail a@x.example"),
            ("MAIL FROM:a@x.example>", "mail a@x.example"),
            ("MAIL FROM: <>", "mail <>"),
            ("MAIL FROM:<printer>", "mail printer@h.example"),
            ("MAIL FROM:\"a b\"@x.example SIZE=1", "mail \"a b\"@x.example SIZE=1"),
            (" MAIL FROM:<a@x.example>", "mail a@x.example"),
            ("MAIL FROM:Scanner <a@x.example> SIZE=10", "mail a@x.example SIZE=10"),
            ("MAIL FROM: \"Scanner, 2nd <floor>\" <a@x.example>", "mail a@x.example"),
            ("MAIL FROM:<<a@x.example>>", "mail a@x.example"),
            ("MAIL FROM:'a@x.example'", "mail a@x.example"),
            ("MAIL FROM:<\"a@x.example\">", "mail a@x.example"),
            ("MAIL FROM:<\"a\"@x.example>", "mail \"a\"@x.example"),
            ("MAIL FROM:<\"a<b\"@x.example>", "mail \"a<b\"@x.example"),
            ("RCPT TO:Anna B <b@x.example>", "rcpt b@x.example"),
            ("RCPT TO: 'b@x.example'", "rcpt b@x.example"),
            (
                "RCPT TO:<b@x.example,c@x.example>",
                "501 the local part \"b@x.example,c\" is not valid: quote it, or remove what does not belong",
            ),
            (
                "RCPT TO:<b c@x.example>",
                "501 the local part \"b c\" is not valid: quote it, or remove what does not belong",
            ),
            (
                "RCPT TO:<b@x.example>,<c@x.example>",
                "501 a parameter is KEYWORD or KEYWORD=VALUE, with one blank in front",
            ),
            ("RCPT TO: b@x.example", "rcpt b@x.example"),
            ("RCPT TO:<@r.example:b@x.example>", "rcpt b@x.example"),
            ("RCPT TO:\tAnna\tB\t<b@x.example>", "rcpt b@x.example"),
            ("RCPT TO:\"Anna\tB\" <b@x.example>", "rcpt b@x.example"),
            ("RCPT TO:<\"a b\"@x.example>", "rcpt \"a b\"@x.example"),
            ("RCPT TO:<\"a\tb\"@x.example>", "500 the line has octets that do not belong into a command"),
            ("RCPT TO:\"a\\\"\tb\"@x.example", "500 the line has octets that do not belong into a command"),
            ("MAIL FROM:<\"a\tb\"@x.example>", "500 the line has octets that do not belong into a command"),
            ("RCPT TO: root", "rcpt Local(\"root\")"),
            ("RCPT TO: PostMaster", "rcpt Postmaster"),
            ("HELO", "Helo(\"\")"),
            ("EHLO my pc", "Ehlo(\"my pc\")"),
            ("EHLO  b\u{fc}cher.example ", "Ehlo(\"b\u{fc}cher.example\")"),
            ("EHLO a\u{7}b", "Ehlo(\"a?b\")"),
            ("DATA ", "Data"),
            ("RSET", "Rset"),
            // What says too little, or something else, is refused as ever.
            ("MAIL FROM:", "501 write it as MAIL FROM:<address>"),
            ("MAIL a@x.example", "501 write it as MAIL FROM:<address>"),
            ("MAIL FROM:nobody", "501 the address has no domain: write it as local-part@domain"),
            ("RCPT TO:<>", "501 the address is empty"),
            ("RCPT TO:b@x.example  NOTIFY=NEVER", "rcpt b@x.example NOTIFY=NEVER"),
            ("RCPT TO:b@x.example X=NEVER", "555 the parameter X is not known"),
            ("MAIL FROM: a@x.example RET=all", "501 RET is FULL or HDRS"),
            ("RCPT TO:<b@x.example", "rcpt b@x.example"),
            ("RCPT TO:<b@>", "501 the address has no domain: write it as local-part@domain"),
            ("RCPT TO:<-b@x.example>", "501 the address begins with '-'"),
            ("RCPT TO:b@x.example\u{1}", "500 the line has octets that do not belong into a command"),
            ("MAIL FROM:<\u{fc}@x.example>", "550 an address outside ASCII needs SMTPUTF8"),
            ("XYZZY", "500 the command is not known"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 5 25", "500 the command is not known"),
        ] {
            assert_eq!(read(format!("{line}\r\n").as_bytes()), meaning, "{line:?}");
        }
        assert_eq!(read(b"EHLO DESKTOP-\xc4\r\n"), "Ehlo(\"DESKTOP-?\")");
        assert_eq!(read(b"MAIL FROM:<\xc4@x.example>\r\n").get(..3), Some("500"));
        assert_eq!(read(b"MAIL FROM:J\xfcrg <a@x.example>\r\n"), "mail a@x.example");
        assert_eq!(read(&[b"EHLO ", &[b'x'; 600][..], b"\r\n"].concat()), "500 the line is too long");
    }

    #[test]
    fn a_bare_lf_ends_a_command_only_where_that_is_forgiven() {
        let read = |bare_lf| CommandLine::parse_leniently(b"NOOP\n", &leniency(bare_lf));
        assert_eq!(read(false), Err(CommandError::LineEnd));
        assert_eq!(read(true), Ok(CommandLine::Noop));
    }

    proptest! {
        #[test]
        fn what_is_right_is_read_as_strictly_and_nothing_becomes_two_lines(
            line in "(MAIL FROM:<|RCPT TO:<|EHLO |MAIL FROM: )?[ -~\t\0é]{0,60}(>| SIZE=1)?",
        ) {
            let line = format!("{line}\r\n");
            let lenient = CommandLine::parse_leniently(line.as_bytes(), &leniency(false));
            match (CommandLine::parse(line.as_bytes()), &lenient) {
                (Ok(strict), lenient) => prop_assert_eq!(lenient, &Ok(strict)),
                (Err(_), Ok(command)) => {
                    let said = format!("{command:?}");
                    prop_assert!(!said.contains(char::is_control), "{}", said);
                }
                (Err(_), Err(error)) => prop_assert!(!error.to_string().contains(char::is_control)),
            }
        }
    }
}
