//! The header section of a message that `sendmail` reads: where it ends, whom it names,
//! what it lacks.

use super::local::Here;
use super::message::IntakeError;
use crate::mail::Address;

/// The header section is held whole; one that is longer is refused: 1 MiB.
pub(super) const MAX_HEADER_BYTES: usize = 1024 * 1024;

/// The header section while it is read, in lines that end with CRLF.
#[derive(Debug, Default)]
pub(super) struct Header {
    /// Everything so far; behind [`Header::end`] it is body.
    pub(super) octets: Vec<u8>,
    /// Where the lines known to be header end.
    pub(super) end: usize,
    /// Up to where there is no line end.
    searched: usize,
    /// The line in front of a message in a mailbox file was left out.
    separated: bool,
    /// An empty line in front of the first field is no end of the header.
    may_begin_empty: bool,
}

/// Some editors and programs begin every text with it (UTF-8).
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// One header field with its line ends.
pub(super) struct Field<'a> {
    pub(super) octets: &'a [u8],
}

impl Header {
    pub(super) fn new(may_begin_empty: bool) -> Self {
        Self { may_begin_empty, ..Self::default() }
    }

    /// Looks at the lines that came; whether one of them ended the header section.
    pub(super) fn is_through(&mut self) -> Result<bool, IntakeError> {
        while let Some(length) = self.octets[self.searched..].iter().position(|&octet| octet == b'\n') {
            let line_end = self.searched + length + 1;
            if line_end > MAX_HEADER_BYTES {
                return Err(IntakeError::HeaderTooLong);
            }
            let line = without_marks(&self.octets[self.end..line_end]);
            // One of each only: what were left out as often as it comes would count against no limit.
            if self.end == 0 && !self.separated && separates_messages(line) {
                self.octets.drain(..line_end);
                (self.searched, self.separated) = (0, true);
                continue;
            }
            if self.end == 0 && self.may_begin_empty && line == b"\r\n" {
                self.octets.drain(..line_end);
                (self.searched, self.may_begin_empty) = (0, false);
                continue;
            }
            if self.end == 0 && begins_with_mark(line) {
                self.octets.drain(..BYTE_ORDER_MARK.len());
                self.searched = 0;
                continue;
            }
            let folds = self.end > 0 && starts_with_blank(line);
            if !folds && field_name(line).is_none() {
                return Ok(true);
            }
            (self.end, self.searched) = (line_end, line_end);
        }
        self.searched = self.octets.len();
        if self.searched > MAX_HEADER_BYTES { Err(IntakeError::HeaderTooLong) } else { Ok(false) }
    }

    /// Makes each bare CR a line end, where no line ended otherwise.
    pub(super) fn end_lines_at_cr(&mut self) {
        self.octets = with_bare_cr(&self.octets, b"\r\n");
        (self.end, self.searched) = (0, 0);
    }

    /// Makes a line end of each bare CR. Within a header field the line goes on behind it:
    /// what somebody put into a subject must not become a field, a `Bcc:` least of all.
    pub(super) fn settle_bare_cr(&mut self) {
        let (header, body) = self.octets.split_at(self.end);
        let lines = header.split_inclusive(|&octet| octet == b'\n');
        let mut settled: Vec<u8> = lines.flat_map(|line| folded_at_cr(without_marks(line))).collect();
        let end = settled.len();
        settled.extend(with_bare_cr(body, b"\r\n"));
        (self.octets, self.end) = (settled, end);
    }

    pub(super) fn fields(&self) -> Vec<Field<'_>> {
        let octets = &self.octets[..self.end];
        let mut starts: Vec<usize> = Vec::new();
        let mut at = 0;
        for line in octets.split_inclusive(|&octet| octet == b'\n') {
            if !starts_with_blank(line) {
                starts.push(at);
            }
            at += line.len();
        }
        let ends = starts.iter().skip(1).copied().chain([at]);
        starts.iter().zip(ends).map(|(&start, end)| Field { octets: &octets[start..end] }).collect()
    }
}

/// With every CR that is no part of CRLF replaced.
fn with_bare_cr(octets: &[u8], instead: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::with_capacity(octets.len());
    for (at, &octet) in octets.iter().enumerate() {
        if octet == b'\r' && octets.get(at + 1) != Some(&b'\n') {
            replaced.extend_from_slice(instead);
        } else {
            replaced.push(octet);
        }
    }
    replaced
}

/// A line of the header, which goes on in the next behind each bare CR that says more.
fn folded_at_cr(line: &[u8]) -> Vec<u8> {
    let (text, end) = line.strip_suffix(b"\r\n").map_or((line, &b""[..]), |text| (text, b"\r\n"));
    let mut parts = text.split(|&octet| octet == b'\r');
    let mut folded = parts.next().unwrap_or_default().to_vec();
    for part in parts.filter(|part| !part.trim_ascii().is_empty()) {
        folded.extend_from_slice(b"\r\n ");
        folded.extend_from_slice(part);
    }
    folded.extend_from_slice(end);
    folded
}

/// A line without the bare CRs in front of it: the line end was LF CR, or a program went back
/// to the start of its line.
fn without_marks(line: &[u8]) -> &[u8] {
    let marks = line.iter().take_while(|&&octet| octet == b'\r').count();
    &line[if line.get(marks) == Some(&b'\n') { marks.saturating_sub(1) } else { marks }..]
}

/// A byte order mark in front of a field or of what separates messages; in front of anything
/// else it is text.
fn begins_with_mark(line: &[u8]) -> bool {
    let line = line.strip_prefix(BYTE_ORDER_MARK);
    line.is_some_and(|line| field_name(line).is_some() || separates_messages(line))
}

/// The line in front of each message of a mailbox file (RFC 4155): no part of the message. What
/// forwards mail out of one quotes it (`>From`).
fn separates_messages(line: &[u8]) -> bool {
    let line = line.strip_prefix(b">").unwrap_or(line);
    let words: Vec<_> = line.split(|&octet| octet == b' ').filter(|word| !word.is_empty()).collect();
    let days: [&[u8]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];
    matches!(words.as_slice(), [b"From", _, day, _, ..] if days.contains(day))
}

fn starts_with_blank(line: &[u8]) -> bool {
    line.starts_with(b" ") || line.starts_with(b"\t")
}

/// The name of the field that begins with this line (RFC 5322 section 2.2; blanks in front
/// of the colon are of section 4.5).
fn field_name(line: &[u8]) -> Option<&[u8]> {
    let colon = line.iter().position(|&octet| octet == b':')?;
    let name = line[..colon].trim_ascii_end();
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some(name)
}

impl Field<'_> {
    pub(super) fn is(&self, name: &str) -> bool {
        field_name(self.octets).is_some_and(|own| own.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// What stands behind the colon, as it is.
    pub(super) fn raw_body(&self) -> (usize, &[u8]) {
        let colon = self.octets.iter().position(|&octet| octet == b':').map_or(0, |colon| colon + 1);
        (colon, &self.octets[colon..])
    }

    /// What stands behind the colon; octets that are not UTF-8 are marked as such.
    pub(super) fn body(&self) -> String {
        String::from_utf8_lossy(self.raw_body().1).into_owned()
    }
}

/// The recipients that the header names: those of the `Resent-` fields where there are
/// any, since the message is then for them (RFC 5322 section 3.6.6).
pub(super) fn recipients(fields: &[Field], here: &Here) -> Result<Vec<Address>, IntakeError> {
    const FIRST_SENT: [&str; 3] = ["To", "Cc", "Bcc"];
    const RESENT: [&str; 3] = ["Resent-To", "Resent-Cc", "Resent-Bcc"];
    let is_resent = fields.iter().any(|field| RESENT.iter().any(|name| field.is(name)));
    let mut found = Vec::new();
    for field in fields {
        let names = if is_resent { RESENT } else { FIRST_SENT };
        if let Some(name) = names.into_iter().find(|name| field.is(name)) {
            let addresses = here.list(&field.body());
            found.extend(addresses.map_err(|error| IntakeError::Recipients(name, error))?);
        }
    }
    Ok(found)
}
