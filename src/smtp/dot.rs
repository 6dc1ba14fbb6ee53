//! Transparency: how message octets travel between DATA and the final dot
//! (RFC 5321 section 4.5.2).

use std::fmt;

use memchr::{memchr, memchr2};

/// A CR without LF or a LF without CR: peers disagree on whether that ends a line, which
/// is how one message becomes two. It never leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BareLineEnd;

impl fmt::Display for BareLineEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the message has a CR or LF that is not part of CRLF")
    }
}

impl std::error::Error for BareLineEnd {}

/// Where in a line the last octet was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    #[default]
    LineStart,
    Middle,
    /// Behind a CR.
    Cr,
}

/// Makes a message ready to be sent, in pieces of any length.
#[derive(Debug, Default)]
pub struct Stuffer {
    at: At,
}

impl Stuffer {
    /// Appends `octets` to `out`, with each leading dot doubled.
    ///
    /// # Errors
    /// [`BareLineEnd`]; `out` then ends somewhere in front of it and nothing may follow.
    pub fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) -> Result<(), BareLineEnd> {
        out.reserve(octets.len());
        let mut rest = octets;
        while let Some((&octet, behind)) = rest.split_first() {
            let run = self.run(rest);
            if run > 0 {
                out.extend_from_slice(&rest[..run]);
                (self.at, rest) = (At::Middle, &rest[run..]);
                continue;
            }
            rest = behind;
            self.at = match (self.at, octet) {
                (At::Cr, b'\n') => At::LineStart,
                (At::Cr, _) | (_, b'\n') => return Err(BareLineEnd),
                (_, b'\r') => At::Cr,
                (At::LineStart, b'.') => {
                    out.push(b'.');
                    At::Middle
                }
                _ => At::Middle,
            };
            out.push(octet);
        }
        Ok(())
    }

    /// How many octets stay as they are, up to a line end.
    fn run(&self, octets: &[u8]) -> usize {
        match (self.at, octets) {
            (At::Cr, _) | (At::LineStart, [b'.', ..]) => 0,
            _ => memchr2(b'\r', b'\n', octets).unwrap_or(octets.len()),
        }
    }

    /// Appends what ends the message: CRLF only where the last line lacks it, and the
    /// final dot with its own CRLF.
    ///
    /// # Errors
    /// [`BareLineEnd`] where the last octet was a CR.
    pub fn finish(self, out: &mut Vec<u8>) -> Result<(), BareLineEnd> {
        match self.at {
            At::Cr => return Err(BareLineEnd),
            At::Middle => out.extend_from_slice(b"\r\n"),
            At::LineStart => {}
        }
        out.extend_from_slice(b".\r\n");
        Ok(())
    }
}

/// Undoes what [`Stuffer`] did, and finds the end, in pieces of any length.
///
/// Only CRLF.CRLF ends a message. Bare CR and LF pass through, for the caller to find
/// and refuse.
#[derive(Debug, Default)]
pub struct Unstuffer {
    at: At,
    /// Octets of `.` CR LF at the start of a line that are held back: they may be the end.
    held: &'static [u8],
}

impl Unstuffer {
    /// Appends message octets to `out`. The number of octets taken is returned with
    /// whether the final dot was reached; it is less than all of them only then.
    pub fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) -> (usize, bool) {
        let mut taken = 0;
        while let Some(&octet) = octets.get(taken) {
            let run = self.run(&octets[taken..]);
            if run > 0 {
                out.extend_from_slice(&octets[taken..taken + run]);
                self.at = At::Middle;
                taken += run;
                continue;
            }
            taken += 1;
            if self.octet(octet, out) {
                return (taken, true);
            }
        }
        (taken, false)
    }

    /// How many octets are content as they are, up to a CR: a bare LF begins no line.
    fn run(&self, octets: &[u8]) -> usize {
        match (self.held, self.at, octets) {
            (b"", At::LineStart, [b'.', ..]) | (b"", At::Cr, _) => 0,
            (b"", ..) => memchr(b'\r', octets).unwrap_or(octets.len()),
            _ => 0,
        }
    }

    /// Takes one octet; true at the end of the message.
    fn octet(&mut self, octet: u8, out: &mut Vec<u8>) -> bool {
        match (self.held, self.at, octet) {
            (b"", At::LineStart, b'.') => {
                self.held = b".";
                return false;
            }
            (b".", _, b'\r') => {
                self.held = b".\r";
                return false;
            }
            (b".\r", _, b'\n') => return true,
            // The dot was stuffing: what follows it is the line.
            (b".", ..) => self.held = b"",
            // `.` CR and something else is no end: the dot is dropped, the CR is content.
            (b".\r", ..) => {
                out.push(b'\r');
                self.held = b"";
                self.at = At::Cr;
            }
            _ => {}
        }
        out.push(octet);
        self.at = match (self.at, octet) {
            (At::Cr, b'\n') => At::LineStart,
            (_, b'\r') => At::Cr,
            _ => At::Middle,
        };
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stuff(message: &[u8], piece: usize) -> Result<Vec<u8>, BareLineEnd> {
        let (mut stuffer, mut out) = (Stuffer::default(), Vec::new());
        for octets in message.chunks(piece) {
            stuffer.push(octets, &mut out)?;
        }
        stuffer.finish(&mut out)?;
        Ok(out)
    }

    fn unstuff(wire: &[u8], piece: usize) -> (Vec<u8>, usize, bool) {
        let (mut unstuffer, mut out, mut taken) = (Unstuffer::default(), Vec::new(), 0);
        for octets in wire.chunks(piece) {
            let (count, ended) = unstuffer.push(octets, &mut out);
            taken += count;
            if ended {
                return (out, taken, true);
            }
        }
        (out, taken, false)
    }

    #[test]
    fn dots_are_doubled_and_the_end_is_written_once() {
        for (message, wire) in [
            (&b""[..], &b".\r\n"[..]),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"..\r\n.a\r\na.\r\n", b"...\r\n..a\r\na.\r\n.\r\n"),
            (b"a\r\n\r\n", b"a\r\n\r\n.\r\n"),
        ] {
            assert_eq!(stuff(message, 2).as_deref(), Ok(wire), "{message:?}");
        }
    }

    #[test]
    fn a_line_end_that_is_not_crlf_never_leaves() {
        for message in [&b"a\n.\nb"[..], b"a\r", b"a\rb", b"\n", b"a\n.\r\n", b"a\r\n.\rb", b"a\r\r\n"] {
            assert_eq!(stuff(message, 1), Err(BareLineEnd), "{message:?}");
        }
    }

    #[test]
    fn only_a_dot_alone_between_two_crlf_ends_a_message() {
        for (wire, message, taken) in [
            (&b".\r\nRSET\r\n"[..], &b""[..], 3),
            (b"a\r\n.\r\nMAIL", b"a\r\n", 6),
            (b"a\n.\nb\n.\r\nc\r.\rd\r\n.\re\r\n.\r\n", b"a\n.\nb\n.\r\nc\r.\rd\r\n\re\r\n", 24),
            (b"..\r\n...\r\n.\r\n", b".\r\n..\r\n", 12),
        ] {
            assert_eq!(unstuff(wire, 3), (message.to_vec(), taken, true), "{wire:?}");
        }
    }

    proptest! {
        #[test]
        fn unstuffed_is_what_was_stuffed(lines in prop::collection::vec("[.a\\x00\u{e9}]{0,5}", 0..12), piece in 1_usize..9) {
            let message: Vec<u8> = lines.iter().flat_map(|line| format!("{line}\r\n").into_bytes()).collect();
            let wire = stuff(&message, piece).expect("no bare line end");
            prop_assert_eq!(unstuff(&wire, piece), (message, wire.len(), true));
        }

        #[test]
        fn whatever_is_stuffed_has_one_end_and_no_bare_line_end(octets in prop::collection::vec(prop::sample::select(b".\r\na".to_vec()), 0..40)) {
            if let Ok(wire) = stuff(&octets, 7) {
                let (_, taken, ended) = unstuff(&wire, 1);
                prop_assert_eq!((taken, ended), (wire.len(), true));
                let text = String::from_utf8(wire).expect("ASCII").replace("\r\n", "");
                prop_assert!(!text.contains(['\r', '\n']));
            }
        }
    }
}
