//! What an import makes of one message: CRLF line ends, the envelope that its header tells
//! of, and a digest by which it is known again.

use ring::digest::{Context, SHA256};

use super::super::header::{Field, Header, MAX_HEADER_BYTES};
use super::marks::{Marks, is_internal};
use crate::mail::{Address, MessageProblem, ReversePath, orcpt_of_field};
use crate::mail::{AddressListError, parse_address_list};

/// Why a message is refused. The text is one line and safe to print.
#[derive(Debug, thiserror::Error)]
pub enum TranscriptError {
    /// NUL, or CR without LF.
    #[error(transparent)]
    Octets(#[from] MessageProblem),
    /// Nothing, or something that is no message.
    #[error("it has no header: the first line is no header field")]
    NoHeader,
    /// The header section does not end in time.
    #[error("the header section is longer than {MAX_HEADER_BYTES} octets")]
    HeaderTooLong,
}

/// A field that should name an address and names something else. The text is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("header field {0}: {1}: name the {2}")]
pub struct FieldError(&'static str, #[source] AddressListError, &'static str);

/// Takes a message as it lies in its file, piece by piece.
pub struct Transcript {
    ends: LineEnds,
    /// The header section so far; `None` once it is through.
    header: Option<Header>,
    told: Told,
    digest: Context,
}

/// What a message tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Of `Return-Path:`, which a final delivery writes (RFC 5321 section 4.4).
    pub reverse_path: Result<Option<ReversePath>, FieldError>,
    /// Of `Delivered-To:`, or else `X-Original-To:` or `Envelope-To:`.
    pub recipients: Result<Vec<Address>, FieldError>,
    /// Of `Original-Recipient:`, which keeps the ORCPT of a delivered message (RFC 8098 section 2.3).
    pub orcpt: Option<String>,
    /// What somebody made of it.
    pub marks: Marks,
    /// It is no message: a program keeps data of its mailbox in it.
    pub internal: bool,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            reverse_path: Ok(None),
            recipients: Ok(Vec::new()),
            orcpt: None,
            marks: Marks::default(),
            internal: false,
        }
    }
}

impl Default for Transcript {
    fn default() -> Self {
        Self {
            ends: LineEnds::default(),
            header: Some(Header::default()),
            told: Told::default(),
            digest: Context::new(&SHA256),
        }
    }
}

impl Transcript {
    /// Takes the next octets and appends to `message` what becomes of them.
    ///
    /// # Errors
    /// The first thing for which the message is refused; `message` is then of no use.
    pub fn push(&mut self, octets: &[u8], message: &mut Vec<u8>) -> Result<(), TranscriptError> {
        self.digest.update(octets);
        let Some(mut header) = self.header.take() else { return self.ends.push(octets, message) };
        self.ends.push(octets, &mut header.octets)?;
        if through(&mut header)? {
            return self.end_header(&header, message);
        }
        self.header = Some(header);
        Ok(())
    }

    /// Ends the message, with a line end where the last line lacks one.
    ///
    /// # Errors
    /// As [`Transcript::push`].
    pub fn finish(mut self, message: &mut Vec<u8>) -> Result<(Told, Fingerprint), TranscriptError> {
        if let Some(mut header) = self.header.take() {
            self.ends.finish(&mut header.octets)?;
            through(&mut header)?;
            self.end_header(&header, message)?;
        } else {
            self.ends.finish(message)?;
        }
        Ok((self.told, Fingerprint(self.digest)))
    }

    fn end_header(&mut self, header: &Header, message: &mut Vec<u8>) -> Result<(), TranscriptError> {
        if header.end == 0 {
            return Err(TranscriptError::NoHeader);
        }
        self.told = told(&header.fields());
        message.extend_from_slice(&header.octets);
        Ok(())
    }
}

fn through(header: &mut Header) -> Result<bool, TranscriptError> {
    header.is_through().map_err(|_| TranscriptError::HeaderTooLong)
}

fn told(fields: &[Field<'_>]) -> Told {
    let returned = fields.iter().find(|field| field.is("Return-Path"));
    let reverse_path = returned.map(|field| reverse_path(&field.body())).transpose();
    Told {
        reverse_path: reverse_path.map_err(|error| FieldError("Return-Path", error, "reverse-path with --from")),
        recipients: recipients(fields),
        orcpt: fields.iter().find(|field| field.is("Original-Recipient")).and_then(|one| orcpt_of_field(&one.body())),
        marks: Marks::of(fields),
        internal: is_internal(fields),
    }
}

fn recipients(fields: &[Field<'_>]) -> Result<Vec<Address>, FieldError> {
    let mut found = Vec::new();
    for name in ["Delivered-To", "X-Original-To", "Envelope-To"] {
        for field in fields.iter().filter(|field| field.is(name)) {
            let addresses = parse_address_list(&field.body());
            found.extend(addresses.map_err(|error| FieldError(name, error, "recipient with --to"))?);
        }
        if !found.is_empty() {
            break;
        }
    }
    Ok(found)
}

fn reverse_path(body: &str) -> Result<ReversePath, AddressListError> {
    if body.trim() == "<>" {
        return Ok(ReversePath::Null);
    }
    Ok(parse_address_list(body)?.into_iter().next().map_or(ReversePath::Null, ReversePath::Address))
}

/// The digest of a message as it lay in its file.
pub struct Fingerprint(Context);

impl Fingerprint {
    /// What tells this message with this envelope from every other, in hexadecimal digits.
    pub fn with_envelope(mut self, reverse_path: &ReversePath, recipients: &[Address]) -> String {
        let addresses = recipients.iter().map(Address::mailbox);
        for address in std::iter::once(reverse_path.to_string()).chain(addresses) {
            // No address has a NUL, and no message that is taken.
            self.0.update(b"\0");
            self.0.update(address.as_bytes());
        }
        self.0.finish().as_ref().iter().map(|octet| format!("{octet:02x}")).collect()
    }
}

/// Turns LF into CRLF, be it here and there: within a file nothing else ends a message.
#[derive(Debug)]
struct LineEnds {
    /// A CR, kept back until the LF that must follow.
    cr: bool,
    within_line: bool,
    line: u64,
}

impl Default for LineEnds {
    fn default() -> Self {
        Self { cr: false, within_line: false, line: 1 }
    }
}

impl LineEnds {
    fn push(&mut self, mut octets: &[u8], out: &mut Vec<u8>) -> Result<(), TranscriptError> {
        while !octets.is_empty() {
            if self.cr && octets[0] != b'\n' {
                return Err(MessageProblem::BareCr(self.line).into());
            }
            let plain = octets.iter().position(|octet| matches!(octet, b'\r' | b'\n' | 0)).unwrap_or(octets.len());
            let (text, rest) = octets.split_at(plain);
            self.within_line |= !text.is_empty();
            out.extend_from_slice(text);
            octets = rest;
            if let Some((&special, rest)) = octets.split_first() {
                self.special(special, out)?;
                octets = rest;
            }
        }
        Ok(())
    }

    fn special(&mut self, octet: u8, out: &mut Vec<u8>) -> Result<(), TranscriptError> {
        match octet {
            0 => return Err(MessageProblem::Nul(self.line).into()),
            b'\r' => self.cr = true,
            _ => {
                out.extend_from_slice(b"\r\n");
                (self.cr, self.within_line) = (false, false);
                self.line += 1;
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), TranscriptError> {
        if self.cr {
            return Err(MessageProblem::BareCr(self.line).into());
        }
        if self.within_line {
            out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(message: &str) -> Result<(String, Told, String), String> {
        let mut transcript = Transcript::default();
        let mut out = Vec::new();
        for octet in message.as_bytes().chunks(1) {
            transcript.push(octet, &mut out).map_err(|error| error.to_string())?;
        }
        let (told, fingerprint) = transcript.finish(&mut out).map_err(|error| error.to_string())?;
        let digest = fingerprint.with_envelope(&ReversePath::Null, told.recipients.as_deref().unwrap_or_default());
        Ok((String::from_utf8(out).expect("it was"), told, digest))
    }

    #[test]
    fn line_ends_become_crlf_and_nothing_else_changes() {
        for (message, expected) in [
            ("X: 1\n\n.\n..\nb", "X: 1\r\n\r\n.\r\n..\r\nb\r\n"),
            ("X: 1\r\n\r\nb\r\n", "X: 1\r\n\r\nb\r\n"),
            ("X: 1", "X: 1\r\n"),
            ("X: 1\n", "X: 1\r\n"),
            ("X: 1\n\r\na\nb\r\n", "X: 1\r\n\r\na\r\nb\r\n"),
            ("X: 1\r\n\nb\n", "X: 1\r\n\r\nb\r\n"),
        ] {
            assert_eq!(transcript(message).expect(message).0, expected, "{message:?}");
        }
    }

    #[test]
    fn the_envelope_is_what_the_last_delivery_wrote() {
        let address = |text: &str| Address::parse(text).expect("an address");
        for (header, reverse_path, recipients) in [
            ("Return-Path: <a@x.example>\nDelivered-To: b@x.example\n", "a@x.example", vec!["b@x.example"]),
            ("Return-Path: <>\nX-Original-To: c@x.example\nEnvelope-To: d@x.example\n", "<>", vec!["c@x.example"]),
            (
                "Return-Path: <a@x.example>\nDelivered-To: b@x.example\nDelivered-To: c@x.example\n",
                "a@x.example",
                vec!["b@x.example", "c@x.example"],
            ),
        ] {
            let told = transcript(&format!("{header}To: nobody@else.example\n\n")).expect(header).1;
            assert_eq!(told.reverse_path.expect("read").expect("told").to_string(), reverse_path);
            assert_eq!(told.recipients, Ok(recipients.into_iter().map(address).collect::<Vec<_>>()));
        }
        let original = "Original-Recipient: rfc822;B+1@x.example\n\n";
        assert_eq!(transcript(original).expect("taken").1.orcpt.as_deref(), Some("rfc822;B+2B1@x.example"));
        assert_eq!(transcript("To: a@x.example\nFrom: b@x.example\n\n").expect("taken").1, Told::default());
    }

    #[test]
    fn what_is_no_message_is_refused_with_its_line() {
        for (message, why) in [
            ("", "no header"),
            ("\nbody\n", "no header"),
            ("just text\n", "no header"),
            ("X: 1\n\nb\0\n", "NUL octet in line 3"),
            ("X: 1\n\na\rb\n", "bare CR in line 3"),
            ("X: 1\n\na\r", "bare CR in line 3"),
        ] {
            let told = transcript(message).expect_err(message);
            assert!(told.contains(why), "{message:?}: {told}");
        }
    }

    #[test]
    fn fields_that_name_no_address_are_told_of_with_what_overrides_them() {
        let told = transcript("Return-Path: nobody\nDelivered-To: mailing list dev@x.example\n\n").expect("taken").1;
        let reverse_path = told.reverse_path.expect_err("no address").to_string();
        assert!(
            reverse_path.starts_with("header field Return-Path") && reverse_path.ends_with("--from"),
            "{reverse_path}"
        );
        let recipients = told.recipients.expect_err("no address").to_string();
        assert!(recipients.starts_with("header field Delivered-To") && recipients.ends_with("--to"), "{recipients}");
    }

    #[test]
    fn what_was_thrown_away_or_not_finished_is_told() {
        for (header, trash, draft) in [
            ("X-Mozilla-Status: 0009", true, false),
            ("X-Mozilla-Status: 0008\nX-Mozilla-Status2: 00000000", true, false),
            ("X-Mozilla-Status: 0001\nX-Mozilla-Status2: 00200000", true, false),
            ("X-Mozilla-Status: 0001\nX-Mozilla-Status2: 10000000", false, false),
            ("X-Mozilla-Status: nothing", false, false),
            ("X-Status: AD", true, false),
            ("X-Status: T", false, true),
            ("Status: RO\nX-Status: AF", false, false),
            ("X: 1\n\nX-Mozilla-Status: 0009", false, false),
        ] {
            let told = transcript(&format!("{header}\n\nb\n")).expect(header).1;
            assert_eq!((told.marks.trash, told.marks.draft), (trash, draft), "{header}");
        }
        let data = "Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\n";
        assert!(transcript(&format!("{data}X-IMAP: 1310 0000\n\nb\n")).expect("taken").1.internal);
        assert!(!transcript(&format!("{data}\nb\n")).expect("taken").1.internal);
        assert!(!transcript("Subject: x\nX-IMAPbase: 1310 0000\n\nb\n").expect("taken").1.internal);
    }

    #[test]
    fn a_message_is_known_again_and_every_other_is_another() {
        let digest = |message: &str| transcript(message).expect(message).2;
        assert_eq!(digest("X: 1\n\nb\n"), digest("X: 1\n\nb\n"));
        assert_ne!(digest("X: 1\n\nb\n"), digest("X: 1\n\nc\n"));
        assert_ne!(digest("Delivered-To: b@x\n\n"), digest("Delivered-To: c@x\n\n"));
    }
}
