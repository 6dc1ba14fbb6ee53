//! Address lists of header fields and command lines (RFC 5322 section 3.4, with the
//! obsolete forms of section 4.4).

use std::iter::Peekable;
use std::str::Chars;

use super::{Address, AddressError};

/// Why a text is no list of addresses. The text is safe to print.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressListError {
    /// A quoted string, comment, literal or angle bracket that is not closed.
    #[error("the address list ends within {0}")]
    Unfinished(&'static str),
    /// One of the addresses is none.
    #[error("{0:?}: {1}")]
    Address(String, #[source] AddressError),
    /// More than a comment behind an address in angle brackets.
    #[error("something stands behind the address {0:?}: separate addresses with commas")]
    Separator(String),
    /// More than one, where one is expected.
    #[error("several addresses: one is expected here")]
    Several,
    /// A word that is no address, in front of a name with an address in angle brackets.
    #[error("{0:?} is no address: if the comma belongs to a name, quote the name, as in \"{0}, {1}\" <{2}>")]
    Comma(String, String, String),
    /// Octets that are not UTF-8 within an address.
    #[error("{0:?}: the address is not UTF-8")]
    NotUtf8(String),
}

/// The mailboxes of an address list, in their order: display names, comments, group names
/// and source routes are left out, quoted local parts keep their quotes.
///
/// Line ends count as blanks, so an unfolded field body and a folded one are alike.
///
/// # Errors
/// Where anything in the list is no mailbox: no part of a list is passed over.
pub fn parse_address_list(text: &str) -> Result<Vec<Address>, AddressListError> {
    parse_list(text, &|text| Address::parse(text).map(|address| vec![address]))
}

/// As [`parse_address_list`], where `meaning` says whom the text of a mailbox means.
///
/// # Errors
/// As there, and what `meaning` refuses.
pub fn parse_list(text: &str, meaning: &Meaning<'_>) -> Result<Vec<Address>, AddressListError> {
    let rest = text.chars().peekable();
    let (mailbox, name, found) = (String::new(), String::new(), Vec::new());
    let mut list = List { rest, mailbox, bracketed: None, name, found, words: None, meaning };
    list.read()?;
    Ok(list.found)
}

/// Whom the text of a mailbox means.
pub type Meaning<'a> = dyn Fn(&str) -> Result<Vec<Address>, AddressError> + 'a;

struct List<'a> {
    rest: Peekable<Chars<'a>>,
    /// What stands since the last separator, without comments.
    mailbox: String,
    /// What stood in angle brackets since then.
    bracketed: Option<String>,
    /// What stood in front of them.
    name: String,
    found: Vec<Address>,
    /// Words that are no address, and why: a name may follow whose beginning they are.
    words: Option<(String, AddressListError)>,
    meaning: &'a Meaning<'a>,
}

impl List<'_> {
    fn read(&mut self) -> Result<(), AddressListError> {
        while let Some(c) = self.rest.next() {
            match c {
                ',' | ';' => self.end_of_mailbox()?,
                // The display name of a group.
                ':' => self.mailbox.clear(),
                '<' => {
                    if let Some(first) = self.bracketed.take() {
                        return Err(AddressListError::Separator(first));
                    }
                    self.bracketed = Some(self.angle_brackets()?);
                    self.name = std::mem::take(&mut self.mailbox);
                }
                c => {
                    let token = self.token(c)?;
                    self.mailbox.push_str(&token);
                }
            }
        }
        self.end_of_mailbox()?;
        self.words.take().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// A character, or what it opens, as it stands; a comment is a blank.
    fn token(&mut self, first: char) -> Result<String, AddressListError> {
        match first {
            '(' => self.comment(),
            '"' => self.delimited(first, '"', "a quoted string"),
            '[' => self.delimited(first, ']', "an address literal"),
            '\r' | '\n' | '\t' => Ok(" ".to_owned()),
            c => Ok(c.to_string()),
        }
    }

    fn angle_brackets(&mut self) -> Result<String, AddressListError> {
        let mut inner = String::new();
        while let Some(c) = self.rest.next() {
            match c {
                '>' => return Ok(inner),
                // RFC 5322 section 4.4: a source route is to be ignored.
                ':' if inner.trim_start().starts_with('@') => inner.clear(),
                c => {
                    let token = self.token(c)?;
                    inner.push_str(&token);
                }
            }
        }
        Err(AddressListError::Unfinished("an angle bracket"))
    }

    fn delimited(&mut self, first: char, end: char, name: &'static str) -> Result<String, AddressListError> {
        let mut text = String::from(first);
        while let Some(c) = self.rest.next() {
            // A fold within a quoted string is no part of it (RFC 5322 section 3.2.4).
            if matches!(c, '\r' | '\n') {
                continue;
            }
            text.push(c);
            match c {
                '\\' => text.extend(self.rest.next()),
                c if c == end => return Ok(text),
                _ => {}
            }
        }
        Err(AddressListError::Unfinished(name))
    }

    fn comment(&mut self) -> Result<String, AddressListError> {
        let mut depth = 1;
        while let Some(c) = self.rest.next() {
            match c {
                '\\' => drop(self.rest.next()),
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Ok(" ".to_owned());
            }
        }
        Err(AddressListError::Unfinished("a comment"))
    }

    fn end_of_mailbox(&mut self) -> Result<(), AddressListError> {
        let (bare, name) = (std::mem::take(&mut self.mailbox), std::mem::take(&mut self.name));
        let text = match self.bracketed.take() {
            Some(bracketed) if bare.trim().is_empty() => {
                self.words_belong_to(name.trim(), &bracketed)?;
                without_blanks(&bracketed)
            }
            Some(bracketed) => return Err(AddressListError::Separator(bracketed)),
            None if bare.trim().is_empty() => return Ok(()),
            None => without_blanks(&bare),
        };
        if text.contains('\u{fffd}') {
            return Err(AddressListError::NotUtf8(text));
        }
        match (self.meaning)(&text) {
            Ok(addresses) => self.found.extend(addresses),
            Err(error @ AddressError::NoDomain) if !text.contains('@') => self.no_address(text, error),
            Err(error) => return Err(AddressListError::Address(text, error)),
        }
        Ok(())
    }

    /// Words without an address: wrong, though only what follows tells how to say so.
    fn no_address(&mut self, text: String, error: AddressError) {
        let words = self.words.take();
        self.words = Some(match words {
            Some((words, error)) => (format!("{words}, {text}"), error),
            None => (text.clone(), AddressListError::Address(text, error)),
        });
    }

    /// Refuses the words in front where a name and an address in angle brackets follow them.
    fn words_belong_to(&mut self, name: &str, bracketed: &str) -> Result<(), AddressListError> {
        match self.words.take() {
            Some((words, _)) if !name.is_empty() => {
                Err(AddressListError::Comma(words, name.to_owned(), bracketed.to_owned()))
            }
            words => {
                self.words = words;
                Ok(())
            }
        }
    }
}

/// Takes out the blanks that may stand at the ends and beside dots and the at sign.
///
/// A quoted local part is left as it is: no blank of it stands beside a dot or at sign
/// outside of its quotes.
fn without_blanks(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let (mut quoted, mut escaped, mut blanks) = (false, false, 0);
    for c in text.trim().chars() {
        if c == ' ' && !quoted {
            blanks += 1;
            continue;
        }
        let joins = matches!(c, '.' | '@') || kept.ends_with(['.', '@']);
        if blanks > 0 && (quoted || !joins) {
            kept.push(' ');
        }
        blanks = 0;
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        kept.push(c);
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(text: &str) -> Result<Vec<String>, String> {
        let parsed = parse_address_list(text).map_err(|error| error.to_string())?;
        Ok(parsed.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_form_of_a_mailbox_is_read() {
        for (text, mailboxes) in [
            ("", &[][..]),
            (" , ,", &[]),
            ("a@b.example", &["a@b.example"]),
            ("a@b.example, c@d.example ,e@f.example", &["a@b.example", "c@d.example", "e@f.example"]),
            ("Ann <a@b.example>", &["a@b.example"]),
            ("\"Last, First\" <a@b.example>", &["a@b.example"]),
            ("\"a \\\" <x@y.example>, \" <a@b.example>", &["a@b.example"]),
            ("=?utf-8?q?=C3=BC=2C_x?= <a@b.example>", &["a@b.example"]),
            ("a@b.example (Ann (the, second) \\) of b)", &["a@b.example"]),
            ("(before) a (in) @ (out) b . example", &["a@b.example"]),
            ("friends: a@b.example, C <c@d.example>;, e@f.example", &["a@b.example", "c@d.example", "e@f.example"]),
            ("undisclosed-recipients:;", &[]),
            ("<@r.example,@s.example:a@b.example>", &["a@b.example"]),
            ("\"a b\"@c.example", &["\"a b\"@c.example"]),
            ("X <\"a, . b\"@c.example>", &["\"a, . b\"@c.example"]),
            ("a@[192.0.2.1], b@[IPv6:2001:db8::1]", &["a@[192.0.2.1]", "b@[IPv6:2001:db8::1]"]),
            ("Ann\r\n\t<a@b.example>,\r\n c@d.example\r\n", &["a@b.example", "c@d.example"]),
            ("J\u{fffd}rg <a@b.example>", &["a@b.example"]),
            ("ü@bücher.example", &["ü@bücher.example"]),
        ] {
            let expected: Vec<_> = mailboxes.iter().map(ToString::to_string).collect();
            assert_eq!(list(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn nothing_that_is_no_mailbox_is_passed_over() {
        for (text, reason) in [
            ("a", "no domain"),
            ("Doe, John <j@x.example>", "quote the name, as in \"Doe, John\" <j@x.example>"),
            ("a@b.example, Doe, John, Jr. <j@x.example>", "\"Doe, John\" is no address"),
            ("Doe, a@b.example", "no domain"),
            ("Doe, <a@b.example>", "no domain"),
            ("a@b.example c@d.example", "local part"),
            ("Ann <>", "empty"),
            ("a@b.example, nobody", "no domain"),
            ("Ann a@b.example", "local part"),
            ("<a@b.example> <c@d.example>", "commas"),
            ("Ann <a@b.example> c@d.example", "commas"),
            ("Ann <a@b.example", "ends within an angle bracket"),
            ("\"Ann <a@b.example>", "ends within a quoted string"),
            ("a@b.example (Ann", "ends within a comment"),
            ("a@[192.0.2.1", "ends within an address literal"),
            ("a@b.example\0", "control character"),
            ("-oQ/tmp@b.example", "begins with '-'"),
            ("\u{fffd}@b.example", "not UTF-8"),
        ] {
            let error = list(text).expect_err(text);
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn addresses_come_back_from_any_list_they_are_written_in(
            locals in prop::collection::vec("[a-z0-9.+]{1,9}|\"[a-z ,;:<>@.()]{0,9}\"", 1..6),
            named in any::<bool>(),
        ) {
            let addresses: Vec<_> = locals.iter().map(|local| format!("{local}@b.example")).collect();
            let wrap = |address: &String| if named { format!("\"A, B\" (c) <{address}>") } else { address.clone() };
            let text = addresses.iter().map(wrap).collect::<Vec<_>>().join(",\r\n ");
            prop_assert_eq!(list(&text), Ok(addresses));
        }

        #[test]
        fn no_text_yields_an_address_that_could_not_stand_in_a_command(text in "\\PC{0,40}|[ -~\r\n\t]{0,40}") {
            for address in list(&text).unwrap_or_default() {
                prop_assert!(!address.chars().any(char::is_control));
                prop_assert_eq!(Address::parse(&address).map(|a| a.to_string()), Ok(address));
            }
        }
    }
}
