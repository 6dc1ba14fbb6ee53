//! What becomes of a message that `sendmail` reads from standard input.
//!
//! Line ends become CRLF, bare CR and NUL are mended, a lone dot may end the input, missing
//! header fields are added and, with `-t`, the header names the recipients. Everything else
//! passes byte for byte, in pieces, so that a large message costs little memory.

use super::edit::Edit;
use super::header::{Header, MAX_HEADER_BYTES};
use super::lines::{Lines, Repairs};
use crate::mail::Address;
use crate::mail::AddressListError;

/// A bare CR as it stands in a header until it is known where that ends.
const MARK: &[u8] = b"\r";

/// A bare CR in a body.
const LINE_END: &[u8] = b"\r\n";

/// Why a message is refused. All of these are exit code 65.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    /// The header section does not end in time.
    #[error("the header section, or the first line, is longer than {MAX_HEADER_BYTES} octets")]
    HeaderTooLong,
    /// A field that should name recipients names something else.
    #[error("header field {0}: {1}")]
    Recipients(&'static str, #[source] AddressListError),
}

/// Turns the octets of standard input into a message, piece by piece.
#[derive(Debug)]
pub(super) struct MessageReader {
    lines: Lines,
    edit: Edit,
    /// The header section so far; `None` once it is through.
    header: Option<Header>,
    recipients: Vec<Address>,
}

/// What is known of a message at its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// Those that the header names, where they were asked for; those of the command line are
    /// the caller's to add.
    pub(super) recipients: Vec<Address>,
    /// What was mended.
    pub(super) repairs: Repairs,
}

impl MessageReader {
    /// A new message.
    pub(super) fn new(lines: Lines, edit: Edit) -> Self {
        // Without a field it names nobody, so that what is empty was not meant as its end.
        let header = Header::new(edit.recipients_from_header);
        Self { lines, edit, header: Some(header), recipients: Vec::new() }
    }

    /// Takes the next octets and appends to `message` what is known to belong to it.
    ///
    /// `false` once a lone dot has ended the input: nothing more is taken then.
    ///
    /// # Errors
    /// The first thing for which the message is refused; `message` is then of no use.
    pub(super) fn push(&mut self, octets: &[u8], message: &mut Vec<u8>) -> Result<bool, IntakeError> {
        match self.header.take() {
            None => self.lines.push(octets, LINE_END, message),
            Some(mut header) => {
                self.lines.push(octets, MARK, &mut header.octets);
                if header.is_through()? {
                    self.end_header(header, message)?;
                } else {
                    self.header = Some(header);
                }
            }
        }
        Ok(!self.lines.ended())
    }

    /// Ends the message, with a line end where the last line lacks one.
    ///
    /// # Errors
    /// As [`MessageReader::push`].
    pub(super) fn finish(mut self, message: &mut Vec<u8>) -> Result<Ended, IntakeError> {
        if let Some(mut header) = self.header.take() {
            self.lines.finish(MARK, &mut header.octets);
            // Else nothing but CR ended a line, as on computers of long ago.
            if !self.lines.seen_lf() {
                header.end_lines_at_cr();
            }
            // Only where it ends matters now: what is left may be all header, or all body.
            header.is_through()?;
            self.end_header(header, message)?;
        } else {
            self.lines.finish(LINE_END, message);
        }
        Ok(Ended { recipients: self.recipients, repairs: self.lines.repairs() })
    }

    /// Writes the header with what was missing, and what of the body has come with it.
    fn end_header(&mut self, mut header: Header, message: &mut Vec<u8>) -> Result<(), IntakeError> {
        header.settle_bare_cr();
        let (edited, recipients) = self.edit.apply(&header)?;
        self.recipients = recipients;
        message.extend(edited);
        let rest = &header.octets[header.end..];
        if !rest.is_empty() && !rest.starts_with(b"\r\n") {
            message.extend_from_slice(b"\r\n");
        }
        message.extend_from_slice(rest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;

    use super::super::edit::Added;
    use super::super::lines::Mend;
    use super::*;
    use crate::ingest::Here;
    use crate::mail::Domain;

    const ADDED: &str = "From: \"Ann\" <a@relay.test>\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\n\
                         Message-ID: <20231114221320.0000000000000007@relay.test>\r\n";

    fn reader(options: &str) -> MessageReader {
        let now = DateTime::from_timestamp(1_700_000_000, 0).expect("in range");
        let edit = Edit {
            here: Here::new(Domain::parse("Relay.test").expect("a domain"), |name| name == "root"),
            sender: Some(Address::parse("a@relay.test").expect("an address")),
            full_name: Some("Ann".to_owned()),
            added: Some(Added { now, random: 7 }),
            recipients_from_header: options.contains('t'),
        };
        MessageReader::new(Lines::new(Mend::ALL, !options.contains('i')), edit)
    }

    fn intake(options: &str, pieces: &[&[u8]]) -> Result<(String, Vec<Address>), IntakeError> {
        let mut intake = reader(options);
        let mut message = Vec::new();
        for piece in pieces {
            intake.push(piece, &mut message)?;
        }
        let ended = intake.finish(&mut message)?;
        Ok((String::from_utf8_lossy(&message).into_owned(), ended.recipients))
    }

    /// The message that becomes of `input`, the same however it is cut.
    fn message(options: &str, input: &str) -> String {
        let (whole, _) = intake(options, &[input.as_bytes()]).unwrap_or_else(|error| panic!("{input:?}: {error}"));
        let octets: Vec<_> = input.as_bytes().chunks(1).collect();
        let (by_octet, _) = intake(options, &octets).expect("as before");
        assert_eq!(whole, by_octet, "{input:?}");
        whole
    }

    #[test]
    fn what_is_missing_is_added_and_the_rest_stays() {
        let complete = "From: x@y\r\nDATE: now\r\nMessage-Id : <1@x>\r\n";
        for (input, expected) in [
            (format!("{complete}\r\nbody\r\n"), format!("{complete}\r\nbody\r\n")),
            ("Subject: s\n\nbody".to_owned(), format!("Subject: s\r\n{ADDED}\r\nbody\r\n")),
            ("X: a\n\tb\n c\n \n\n\n".to_owned(), format!("X: a\r\n\tb\r\n c\r\n \r\n{ADDED}\r\n\r\n")),
            ("hello\nworld\n".to_owned(), format!("{ADDED}\r\nhello\r\nworld\r\n")),
            ("see: this is a field\n".to_owned(), format!("see: this is a field\r\n{ADDED}")),
            ("not a field: this\n".to_owned(), format!("{ADDED}\r\nnot a field: this\r\n")),
            (" blank first\nX: y\n".to_owned(), format!("{ADDED}\r\n blank first\r\nX: y\r\n")),
            ("X: y\nbody at once\n".to_owned(), format!("X: y\r\n{ADDED}\r\nbody at once\r\n")),
            ("\nbody\n".to_owned(), format!("{ADDED}\r\nbody\r\n")),
            ("From : x@y\nDate:\nMessage-ID:\n".to_owned(), "From : x@y\r\nDate:\r\nMessage-ID:\r\n".to_owned()),
            ("From now on\n".to_owned(), format!("{ADDED}\r\nFrom now on\r\n")),
            (
                "From a@b  Mon Jan  2 03:04:05 2026\nX: y\n\nFrom here\n".to_owned(),
                format!("X: y\r\n{ADDED}\r\nFrom here\r\n"),
            ),
            ("From a Mon b\nFrom a Tue b\nX: y\n".to_owned(), format!("{ADDED}\r\nFrom a Tue b\r\nX: y\r\n")),
            (">From a@b Mon Jan 2\nX: y\n\n".to_owned(), format!("X: y\r\n{ADDED}\r\n")),
            (">From the start\n".to_owned(), format!("{ADDED}\r\n>From the start\r\n")),
            ("\u{feff}X: y\n\nb\n".to_owned(), format!("X: y\r\n{ADDED}\r\nb\r\n")),
            ("\u{feff}From a@b Mon Jan 2\nX: y\n".to_owned(), format!("X: y\r\n{ADDED}")),
            ("\u{feff}text\n".to_owned(), format!("{ADDED}\r\n\u{feff}text\r\n")),
            ("\nX: y\n".to_owned(), format!("{ADDED}\r\nX: y\r\n")),
            (String::new(), ADDED.to_owned()),
            (":\n".to_owned(), format!("{ADDED}\r\n:\r\n")),
        ] {
            assert_eq!(message("i", &input), expected, "{input:?}");
        }
    }

    #[test]
    fn a_lone_dot_ends_the_input_unless_it_is_told_not_to() {
        for (input, without, with) in [
            ("X: y\n\na\n.\nb\n", "a\r\n", "a\r\n.\r\nb\r\n"),
            ("X: y\n\na\r\n.\r\nb\n", "a\r\n", "a\r\n.\r\nb\r\n"),
            ("X: y\n\na\n.", "a\r\n", "a\r\n.\r\n"),
            ("X: y\n\n..\n.x\n. \n", "..\r\n.x\r\n. \r\n", "..\r\n.x\r\n. \r\n"),
        ] {
            assert_eq!(message("", input), format!("X: y\r\n{ADDED}\r\n{without}"), "{input:?}");
            assert_eq!(message("i", input), format!("X: y\r\n{ADDED}\r\n{with}"), "{input:?}");
        }
        let mut intake = reader("");
        let mut message = Vec::new();
        assert_eq!(intake.push(b"X: y\n", &mut message), Ok(true));
        assert_eq!(intake.push(b".\nZ: never\n", &mut message), Ok(false));
        intake.finish(&mut message).expect("taken");
        assert_eq!(String::from_utf8_lossy(&message), format!("X: y\r\n{ADDED}"));
    }

    #[test]
    fn a_bare_cr_begins_no_field_and_ends_no_header_but_where_nothing_else_ends_a_line() {
        for (input, expected) in [
            ("X: y\rz\n\nbody\n", format!("X: y\r\n z\r\n{ADDED}\r\nbody\r\n")),
            ("Subject: 5%\r\r10%\nX: y\n\n", format!("Subject: 5%\r\n 10%\r\nX: y\r\n{ADDED}\r\n")),
            ("X: y\rBcc: z@x.example\n\n", format!("X: y\r\n Bcc: z@x.example\r\n{ADDED}\r\n")),
            ("X: y\r\r\nZ: a\r\r\n\r\r\nbody\r\r\n", format!("X: y\r\nZ: a\r\n{ADDED}\r\nbody\r\n")),
            ("X: y\n\rZ: a\n\r\n\rbody\n\r", format!("X: y\r\nZ: a\r\n{ADDED}\r\n\r\nbody\r\n")),
            ("X: y\n\n 10%\r 50%\r100%\n", format!("X: y\r\n{ADDED}\r\n 10%\r\n 50%\r\n100%\r\n")),
            ("X: y\rZ: a\r\rbody\rmore", format!("X: y\r\nZ: a\r\n{ADDED}\r\nbody\r\nmore\r\n")),
            ("X: y\0\n\n\0a\n", format!("X: y\r\n{ADDED}\r\na\r\n")),
            (" 10%\r100%\n", format!("{ADDED}\r\n 10%\r\n100%\r\n")),
        ] {
            assert_eq!(message("i", input), expected, "{input:?}");
        }
    }

    #[test]
    fn the_header_names_the_recipients_and_keeps_those_of_bcc_secret() {
        let input =
            "To: B <b@x.example>,\n c@x.example\nBCC: secret@x.example,\n\tmore@x.example\nCc: g: d@x.example;\n\n";
        let named = ["b@x.example", "c@x.example", "secret@x.example", "more@x.example", "d@x.example"];
        let (text, recipients) = intake("t", &[input.as_bytes()]).expect("taken");
        assert_eq!(recipients.iter().map(ToString::to_string).collect::<Vec<_>>(), named);
        let kept = "To: B <b@x.example>,\r\n c@x.example\r\nCc: g: d@x.example;\r\n";
        assert_eq!(text, format!("{kept}{ADDED}\r\n"));

        let (text, recipients) = intake("", &[input.as_bytes()]).expect("taken");
        assert!(recipients.is_empty() && text.contains("BCC: secret@x.example"), "{text}");

        let resent = format!("Resent-To: r@x.example\nResent-Bcc: s@x.example\n{input}");
        let (text, recipients) = intake("t", &[resent.as_bytes()]).expect("taken");
        assert_eq!(recipients.iter().map(ToString::to_string).collect::<Vec<_>>(), ["r@x.example", "s@x.example"]);
        assert!(!text.contains("s@x.example") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn an_empty_line_in_front_hides_no_recipient() {
        for (input, expected) in [
            ("\nTo: b@x.example\n\nbody\n", format!("To: b@x.example\r\n{ADDED}\r\nbody\r\n")),
            ("\r\n\u{feff}To: b@x.example\r\n", format!("To: b@x.example\r\n{ADDED}")),
            ("\n\nTo: b@x.example\n", format!("{ADDED}\r\nTo: b@x.example\r\n")),
            ("\nbody\n", format!("{ADDED}\r\nbody\r\n")),
        ] {
            assert_eq!(message("t", input), expected, "{input:?}");
        }
    }

    #[test]
    fn a_field_that_names_no_recipient_is_said_by_name() {
        let (_, recipients) = intake("t", &[b"To: root\n\n"]).expect("a user");
        assert_eq!(recipients[0].to_string(), "root@Relay.test");
        let error = intake("t", &[b"To: b@x.example\nCc: nobody\n\n"]).expect_err("no address");
        assert!(error.to_string().starts_with("header field Cc: \"nobody\""), "{error}");
        assert!(intake("", &[b"Cc: nobody\n\n"]).is_ok());
    }

    #[test]
    fn a_body_is_handed_on_at_once_and_nothing_of_it_is_kept() {
        let mut intake = reader("");
        let mut message = Vec::new();
        intake.push(b"X: y\n\n", &mut message).expect("taken");
        for _ in 0..1000 {
            message.clear();
            intake.push(b"eight by", &mut message).expect("taken");
            assert_eq!(message, b"eight by");
        }
    }

    #[test]
    fn a_header_that_does_not_end_is_refused_and_a_long_body_is_not() {
        let line = b"X: 0123456789\n".repeat(1000);
        let many: Vec<_> = std::iter::repeat_n(&line[..], 100).collect();
        assert_eq!(intake("", &many), Err(IntakeError::HeaderTooLong));
        assert_eq!(intake("", &[&many.concat()]), Err(IntakeError::HeaderTooLong));
        let many: Vec<_> = [&b"\n"[..]].into_iter().chain(many).collect();
        assert!(intake("", &many).is_ok());
    }

    proptest! {
        #[test]
        fn any_input_becomes_the_same_message_however_it_is_cut(
            input in "([A-Z]: [a-z]{0,5}\r?\n){0,3}([ -~]|\r\n|\n|\\.|\r|\0){0,40}",
            cuts in prop::collection::vec(1..9usize, 1..9),
            options in "i?t?",
        ) {
            let mut rest = input.as_bytes();
            let mut pieces = Vec::new();
            for cut in cuts {
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = behind;
            }
            pieces.push(rest);
            prop_assert_eq!(intake(&options, &pieces), intake(&options, &[input.as_bytes()]));
        }

        #[test]
        fn nothing_with_a_bare_line_end_comes_out(input in "([ -~]|\r\n|\n|\r|\0|\\.\n){0,60}") {
            let (text, _) = intake("", &[input.as_bytes()]).expect("nothing forbidden");
            prop_assert!(text.ends_with("\r\n"));
            prop_assert!(!text.replace("\r\n", "").contains(['\r', '\n', '\0']));
        }

        #[test]
        fn a_body_comes_out_as_it_went_in(body in "([ -~]|\r\n|\u{fc}){0,60}") {
            let input = format!("X: y\r\n\r\n{body}\r\n");
            prop_assert_eq!(message("i", &input), format!("X: y\r\n{ADDED}\r\n{body}\r\n"));
        }
    }
}
