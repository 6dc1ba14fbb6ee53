//! Where the mailboxes of a header field stand, so that one can be changed while everything
//! beside it stays octet for octet (RFC 5322 section 3.4).

use std::ops::Range;

/// One mailbox; all are places in the text it was found in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mailbox {
    /// The display name as it is written, with its quotes; empty where there is none.
    pub(super) name: Range<usize>,
    /// The address, without angle brackets and the blanks beside them.
    pub(super) address: Range<usize>,
    /// It stands in angle brackets.
    pub(super) bracketed: bool,
    /// What the last comment says, as it is written.
    pub(super) comment: Option<Range<usize>>,
}

/// The mailboxes in their order; none where the text is no list of them.
pub(super) fn mailboxes(text: &[u8]) -> Vec<Mailbox> {
    let mut scan = Scan { text, at: 0, words: None, bracketed: None, comment: None, found: Vec::new() };
    if scan.all().is_some() { scan.found } else { Vec::new() }
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    /// From the first word to the last since the separator.
    words: Option<Range<usize>>,
    /// The name, and what stands in angle brackets behind it.
    bracketed: Option<(Range<usize>, Range<usize>)>,
    comment: Option<Range<usize>>,
    found: Vec<Mailbox>,
}

impl Scan<'_> {
    /// `None` where something is not closed, or stands twice.
    fn all(&mut self) -> Option<()> {
        while let Some(&octet) = self.text.get(self.at) {
            let from = self.at;
            self.at += 1;
            match octet {
                b'(' => {
                    self.comment()?;
                    self.comment = Some(from + 1..self.at - 1);
                }
                b'<' => self.brackets(from)?,
                b',' | b';' => self.end_of_mailbox(),
                // The name of a group.
                b':' => self.words = None,
                b' ' | b'\t' | b'\r' | b'\n' => {}
                opening => {
                    self.closing(opening)?;
                    let first = self.words.as_ref().map_or(from, |words| words.start);
                    self.words = Some(first..self.at);
                }
            }
        }
        self.end_of_mailbox();
        Some(())
    }

    /// Goes behind what a quote or a bracket opens.
    fn closing(&mut self, opening: u8) -> Option<()> {
        let end = match opening {
            b'"' => b'"',
            b'[' => b']',
            _ => return Some(()),
        };
        loop {
            let octet = *self.text.get(self.at)?;
            self.at += if octet == b'\\' { 2 } else { 1 };
            if octet == end {
                return Some(());
            }
        }
    }

    fn comment(&mut self) -> Option<()> {
        let mut depth = 1;
        while depth > 0 {
            let octet = *self.text.get(self.at)?;
            self.at += if octet == b'\\' { 2 } else { 1 };
            depth += i32::from(octet == b'(') - i32::from(octet == b')');
        }
        (self.at <= self.text.len()).then_some(())
    }

    fn brackets(&mut self, from: usize) -> Option<()> {
        if self.bracketed.is_some() {
            return None;
        }
        loop {
            let octet = *self.text.get(self.at)?;
            self.at += 1;
            if octet == b'>' {
                break;
            }
            self.closing(octet)?;
        }
        let inner = &self.text[from + 1..self.at - 1];
        let start = from + 1 + (inner.len() - inner.trim_ascii_start().len());
        let name = self.words.take().unwrap_or(from..from);
        self.bracketed = Some((name, start..start + inner.trim_ascii().len()));
        Some(())
    }

    fn end_of_mailbox(&mut self) {
        let (words, comment) = (self.words.take(), self.comment.take());
        let (name, address, bracketed) = match (self.bracketed.take(), words) {
            (Some((name, address)), None) => (name, address, true),
            (None, Some(address)) => (address.start..address.start, address, false),
            _ => return,
        };
        self.found.push(Mailbox { name, address, bracketed, comment });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_of_a_mailbox_is_found_where_it_stands() {
        for (text, found) in [
            (" root (Cron Daemon)\r\n", "root((Cron Daemon)"),
            (" root", "root"),
            (" \"Cron, Daemon\" < root >, b@x.example", "\"Cron, Daemon\"<root b@x.example"),
            (" =?utf-8?q?x?= Y <root>", "=?utf-8?q?x?= Y<root"),
            ("a,b ,, c", "a b c"),
            (" undisclosed-recipients:;", ""),
            (" friends: a, B <b@x.example>;", "a B<b@x.example"),
            (" Doe, John <j@x.example>", "Doe John<j@x.example"),
            (" two words", "two words"),
            (" a@[192.0.2.1] (x (y) \\) z)", "a@[192.0.2.1]((x (y) \\) z)"),
            (" <a\">\"@x.example>", "<a\">\"@x.example"),
            (" a <b> <c>", ""),
            (" \"open", ""),
            (" (open", ""),
            (" <open", ""),
            ("", ""),
        ] {
            let shown = |range: &Range<usize>| text[range.clone()].to_owned();
            let told: Vec<_> = mailboxes(text.as_bytes())
                .iter()
                .map(|mailbox| {
                    let comment =
                        mailbox.comment.as_ref().map_or(String::new(), |range| format!("(({})", shown(range)));
                    let bracket = if mailbox.bracketed { "<" } else { "" };
                    format!("{}{bracket}{}{}", shown(&mailbox.name), shown(&mailbox.address), comment)
                })
                .collect();
            assert_eq!(told.join(" "), found, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end_and_what_is_found_lies_in_it(text in "[ab@<>(),;:\"\\\\\\[\\] ]{0,30}") {
            for mailbox in mailboxes(text.as_bytes()) {
                prop_assert!(mailbox.name.end <= mailbox.address.start || mailbox.name.is_empty());
                prop_assert!(mailbox.address.end <= text.len());
            }
        }
    }
}
