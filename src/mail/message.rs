//! The message: what travels between DATA and the final dot, as octets.

use memchr::memchr3;
use serde::{Deserialize, Serialize};

/// Octets of one stored row of a message: 256 KiB.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// What a transport must know of a message, found once when it comes in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageFacts {
    /// Octets as stored.
    pub size: u64,
    /// An octet above 127 in the header (RFC 6532).
    pub eight_bit_header: bool,
    /// An octet above 127 in the body (RFC 6152).
    pub eight_bit_body: bool,
    /// `Received:` fields in the header (RFC 5321 section 6.3).
    pub received: u32,
}

/// Why a message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageProblem {
    /// CR without LF: two parsers could disagree on where a line ends.
    #[error("the message has a bare CR in line {0}")]
    BareCr(u64),
    /// LF without CR.
    #[error("the message has a bare LF in line {0}")]
    BareLf(u64),
    /// A NUL octet.
    #[error("the message has a NUL octet in line {0}")]
    Nul(u64),
    /// More than 100 `Received:` fields.
    #[error("the message has more than 100 Received: fields: it is in a loop")]
    Loop,
}

/// `Received:` fields that are one too many (RFC 5321 section 6.3).
const MAX_RECEIVED: u32 = 100;

/// Reads a message once, in pieces of any length, and finds its [`MessageFacts`] or the
/// first [`MessageProblem`].
#[derive(Debug, Default)]
pub struct HeaderScan {
    facts: MessageFacts,
    problem: Option<MessageProblem>,
    in_body: bool,
    last_was_cr: bool,
    line: u64,
    /// `Received:` fields that were put there on the way in, and say nothing of a loop.
    own_received: u32,
    /// The first octets of the current header line, enough to know `Received:`.
    name: Vec<u8>,
    line_length: u64,
}

impl HeaderScan {
    /// Takes the next octets.
    pub fn push(&mut self, octets: &[u8]) {
        self.facts.size += octets.len() as u64;
        let mut rest = octets;
        while let Some((&octet, behind)) = rest.split_first() {
            let run = self.plain_run(rest);
            self.line_length += run as u64;
            rest = &rest[run..];
            if run == 0 {
                self.octet(octet);
                rest = behind;
            }
        }
    }

    /// How many octets of a body say nothing but that their line goes on. Few are looked at, so
    /// that no line is looked at again and again.
    fn plain_run(&self, octets: &[u8]) -> usize {
        if !self.in_body || self.last_was_cr {
            return 0;
        }
        let few = &octets[..octets.len().min(256)];
        let run = &few[..memchr3(b'\r', b'\n', 0, few).unwrap_or(few.len())];
        if run.is_ascii() { run.len() } else { 0 }
    }

    /// Takes the trace field that the way in puts in front of the message.
    pub fn push_trace(&mut self, field: &[u8]) {
        let (received, line) = (self.facts.received, self.line);
        self.push(field);
        self.own_received += self.facts.received - received;
        // Whoever sent the message does not see our lines.
        self.line = line;
    }

    fn octet(&mut self, octet: u8) {
        if self.last_was_cr && octet != b'\n' {
            self.report(MessageProblem::BareCr(self.line + 1));
        }
        match octet {
            b'\n' if !self.last_was_cr => self.report(MessageProblem::BareLf(self.line + 1)),
            0 => self.report(MessageProblem::Nul(self.line + 1)),
            128.. if self.in_body => self.facts.eight_bit_body = true,
            128.. => self.facts.eight_bit_header = true,
            _ => {}
        }
        self.last_was_cr = octet == b'\r';
        match octet {
            b'\n' => self.end_of_line(),
            b'\r' => {}
            _ => {
                // Blanks before the colon are obsolete, and still read (RFC 5322 section 4.5).
                let obsolete = matches!(octet, b' ' | b'\t') && self.name == b"received";
                if !self.in_body && !obsolete && self.name.len() < b"received:".len() {
                    self.name.push(octet.to_ascii_lowercase());
                }
                self.line_length += 1;
            }
        }
    }

    fn end_of_line(&mut self) {
        if !self.in_body {
            self.in_body = self.line_length == 0;
            if self.name == b"received:" {
                self.facts.received += 1;
            }
        }
        self.name.clear();
        self.line_length = 0;
        self.line += 1;
    }

    fn report(&mut self, problem: MessageProblem) {
        self.problem.get_or_insert(problem);
    }

    /// Whether the last octets were a line end, or nothing came at all.
    pub fn ends_with_line_end(&self) -> bool {
        self.line_length == 0 && !self.last_was_cr
    }

    /// The facts, once everything was pushed.
    ///
    /// # Errors
    /// The first problem found.
    pub fn finish(&self) -> Result<MessageFacts, MessageProblem> {
        if self.last_was_cr {
            return Err(self.problem.unwrap_or(MessageProblem::BareCr(self.line + 1)));
        }
        match self.problem {
            Some(problem) => Err(problem),
            None if self.facts.received - self.own_received > MAX_RECEIVED => Err(MessageProblem::Loop),
            None => Ok(self.facts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(message: &[u8]) -> Result<MessageFacts, MessageProblem> {
        let mut scan = HeaderScan::default();
        for piece in message.chunks(3) {
            scan.push(piece);
        }
        scan.finish()
    }

    #[test]
    fn facts_are_found_in_header_and_body_apart() {
        let facts =
            scan(b"Received: a\r\n b\r\nRECEIVED: c\r\nX: Received:\r\n\r\nReceived: no\r\n\xff\r\n").expect("valid");
        assert_eq!((facts.received, facts.eight_bit_header, facts.eight_bit_body), (2, false, true));
        assert!(scan(b"Subject: \xc3\xbc\r\n\r\n").expect("valid").eight_bit_header);
        assert_eq!(scan(b""), Ok(MessageFacts::default()));
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_named_with_its_line() {
        for (message, problem) in [
            (&b"A: b\r\n\r\nx\ny\r\n"[..], MessageProblem::BareLf(3)),
            (b"A: b\rc\r\n", MessageProblem::BareCr(1)),
            (b"A: b\r\n\r\nx\r", MessageProblem::BareCr(3)),
            (b"A: b\r\r\n", MessageProblem::BareCr(1)),
            (b"A: b\0\r\n", MessageProblem::Nul(1)),
            (b"\n.\n", MessageProblem::BareLf(1)),
        ] {
            assert_eq!(scan(message), Err(problem), "{message:?}");
        }
        let loops = "Received: x\r\n".repeat(101);
        assert_eq!(scan(loops.as_bytes()), Err(MessageProblem::Loop));
        assert!(scan("Received: x\r\n".repeat(100).as_bytes()).is_ok());
        assert_eq!(scan("Received \t: x\r\n".repeat(101).as_bytes()), Err(MessageProblem::Loop));
        assert!(scan("X: y\r\n received: x\r\nreceived x\r\n".repeat(101).as_bytes()).is_ok());
    }

    #[test]
    fn the_trace_field_of_the_way_in_is_no_sign_of_a_loop() {
        for (fields, facts) in [(100, Ok(101)), (101, Err(MessageProblem::Loop))] {
            let mut scan = HeaderScan::default();
            scan.push_trace(b"Received: by us;\r\n\tnow\r\n");
            scan.push("Received: x\r\n".repeat(fields).as_bytes());
            assert_eq!(scan.finish().map(|facts| facts.received), facts);
        }
    }

    #[test]
    fn a_line_is_counted_as_its_sender_counts_it() {
        let mut scan = HeaderScan::default();
        scan.push_trace(b"Received: by us;\r\n\tnow\r\n");
        scan.push(b"Subject: x\r\n\r\nbare\nhere\r\n");
        assert_eq!(scan.finish(), Err(MessageProblem::BareLf(3)));
    }
}
