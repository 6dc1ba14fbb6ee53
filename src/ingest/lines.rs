//! Line ends on the way in: which become CRLF, what is mended, and the lone dot that may end
//! the input. Knows nothing of header and body.

use crate::mail::{AttributeValue, Attributes, attribute};

/// What is put right; what is not passes as it is, for the spool to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mend {
    /// A bare CR is a line end, and a NUL is left out: what programs of this machine write
    /// (progress meters, binary output) is no attempt to hide a line end from somebody.
    pub(super) cr_and_nul: bool,
    /// A bare LF is a line end.
    pub(super) lf: bool,
}

impl Mend {
    /// As `sendmail` reads its input.
    pub(super) const ALL: Self = Self { cr_and_nul: true, lf: true };
}

/// How much was mended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Repairs {
    bare_cr: u64,
    nul: u64,
}

impl Repairs {
    /// In words; `None` where there was nothing to mend.
    fn told(self) -> Option<String> {
        let parts = [(self.bare_cr, "bare CR made a line end"), (self.nul, "NUL left out")];
        let told: Vec<_> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        (!told.is_empty()).then(|| told.join(", "))
    }

    /// Says so in the attributes of the mail.
    pub(super) fn note_in(self, attributes: &mut Attributes) {
        if let Some(told) = self.told() {
            attributes.set(attribute::SENDMAIL_REPAIRED, AttributeValue::Text(told));
        }
    }
}

/// The lines of one message while they come in, in pieces of any length.
#[derive(Debug)]
pub(super) struct Lines {
    mend: Mend,
    dot_ends_input: bool,
    ended: bool,
    place: Place,
    /// CRs kept back until what follows says what they are.
    held: u64,
    seen_lf: bool,
    repairs: Repairs,
}

/// Where in a line the input stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    /// Behind a dot that began the line: kept back too.
    Dot,
    Within,
}

impl Lines {
    pub(super) fn new(mend: Mend, dot_ends_input: bool) -> Self {
        let (place, repairs) = (Place::Start, Repairs::default());
        Self { mend, dot_ends_input, ended: false, place, held: 0, seen_lf: false, repairs }
    }

    /// Whether a lone dot has ended the input.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Whether a line ended in LF so far.
    pub(super) fn seen_lf(&self) -> bool {
        self.seen_lf
    }

    pub(super) fn repairs(&self) -> Repairs {
        self.repairs
    }

    /// Takes the next octets. A bare CR that is mended becomes `for_cr`.
    pub(super) fn push(&mut self, mut octets: &[u8], for_cr: &[u8], out: &mut Vec<u8>) {
        while !octets.is_empty() && !self.ended {
            let plain = octets.iter().position(|octet| matches!(octet, b'\r' | b'\n' | 0)).unwrap_or(octets.len());
            let (text, rest) = octets.split_at(plain);
            self.text(text, for_cr, out);
            octets = rest;
            if let Some((&special, rest)) = octets.split_first() {
                self.special(special, for_cr, out);
                octets = rest;
            }
        }
    }

    fn text(&mut self, text: &[u8], for_cr: &[u8], out: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        self.bare_cr(for_cr, out);
        if self.place == Place::Start && self.dot_ends_input && text == b"." {
            self.place = Place::Dot;
            return;
        }
        self.no_lone_dot(out);
        out.extend_from_slice(text);
    }

    /// The CRs that were kept back end no line by themselves.
    fn bare_cr(&mut self, for_cr: &[u8], out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        if held == 0 {
            return;
        }
        self.no_lone_dot(out);
        let instead = if self.mend.cr_and_nul { for_cr } else { b"\r" };
        (0..held).for_each(|_| out.extend_from_slice(instead));
        self.repairs.bare_cr += if self.mend.cr_and_nul { held } else { 0 };
    }

    /// What follows is no line end: a dot in front of it is text, and so is one behind it,
    /// since only a line that is known to be one may end the input.
    fn no_lone_dot(&mut self, out: &mut Vec<u8>) {
        if self.place == Place::Dot {
            out.push(b'.');
        }
        self.place = Place::Within;
    }

    fn special(&mut self, octet: u8, for_cr: &[u8], out: &mut Vec<u8>) {
        match octet {
            b'\r' => self.held += 1,
            b'\n' => self.line_feed(out),
            _ if self.mend.cr_and_nul => {
                self.repairs.nul += 1;
                if self.held == 0 {
                    self.no_lone_dot(out);
                }
            }
            nul => {
                self.bare_cr(for_cr, out);
                self.no_lone_dot(out);
                out.push(nul);
            }
        }
    }

    fn line_feed(&mut self, out: &mut Vec<u8>) {
        self.seen_lf = true;
        let held = std::mem::take(&mut self.held);
        if self.place == Place::Dot && (held > 0 || self.mend.lf) {
            self.ended = true;
            return;
        }
        // CR CR LF is what a text becomes whose line ends were made CRLF twice.
        let more = held.saturating_sub(1);
        if self.mend.cr_and_nul {
            self.repairs.bare_cr += more;
        } else {
            (0..more).for_each(|_| out.push(b'\r'));
        }
        out.extend_from_slice(if held > 0 || self.mend.lf { b"\r\n" } else { b"\n" });
        self.place = Place::Start;
    }

    /// Ends the last line where it lacks that.
    pub(super) fn finish(&mut self, for_cr: &[u8], out: &mut Vec<u8>) {
        if self.ended {
            return;
        }
        if self.held > 0 && !self.mend.cr_and_nul {
            self.bare_cr(for_cr, out);
            return;
        }
        self.repairs.bare_cr += std::mem::take(&mut self.held);
        match self.place {
            Place::Start => {}
            // Without a line end it is a lone dot all the same.
            Place::Dot => self.ended = true,
            Place::Within => out.extend_from_slice(b"\r\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(mend: Mend, dot: bool, pieces: &[&[u8]]) -> (String, Option<String>) {
        let (mut lines, mut out) = (Lines::new(mend, dot), Vec::new());
        for piece in pieces {
            lines.push(piece, b"\r\n", &mut out);
        }
        lines.finish(b"\r\n", &mut out);
        (String::from_utf8_lossy(&out).into_owned(), lines.repairs().told())
    }

    #[test]
    fn what_a_program_writes_becomes_lines_and_nothing_of_it_is_lost() {
        for (input, output, repairs) in [
            (" 10%\r 50%\r100%\ndone\n", " 10%\r\n 50%\r\n100%\r\ndone\r\n", "2 bare CR made a line end"),
            ("a\r\r\nb\r\n", "a\r\nb\r\n", "1 bare CR made a line end"),
            ("a\r", "a\r\n", "1 bare CR made a line end"),
            ("a\n\rb\n\r", "a\r\n\r\nb\r\n", "2 bare CR made a line end"),
            ("a\0b\r\0\n\0", "ab\r\n\r\n", "3 NUL left out"),
            ("\0\n", "\r\n", "1 NUL left out"),
            ("a\r\0b", "a\r\nb\r\n", "1 bare CR made a line end, 1 NUL left out"),
            ("a\nb\r\n", "a\r\nb\r\n", ""),
            // A dot that only what was mended leaves alone is text.
            ("a\n.\0\nb\n", "a\r\n.\r\nb\r\n", "1 NUL left out"),
            ("a\n\0.\nb\n", "a\r\n.\r\nb\r\n", "1 NUL left out"),
            ("a\r.\nb\n", "a\r\n.\r\nb\r\n", "1 bare CR made a line end"),
            ("a\n.\rb\n", "a\r\n.\r\nb\r\n", "1 bare CR made a line end"),
            ("a\n.\r\nb\n", "a\r\n", ""),
        ] {
            let told = (!repairs.is_empty()).then(|| repairs.to_owned());
            assert_eq!(lines(Mend::ALL, true, &[input.as_bytes()]), (output.to_owned(), told), "{input:?}");
        }
    }

    #[test]
    fn what_is_not_mended_passes_as_it_is() {
        let strict = Mend { cr_and_nul: false, lf: true };
        let (output, told) = lines(strict, false, &[b"a\rb\0c\nd\r\r\ne\r"]);
        assert_eq!((output.as_str(), told), ("a\rb\0c\r\nd\r\r\ne\r", None));
        let (output, _) = lines(Mend { cr_and_nul: true, lf: false }, false, &[b"a\nb\r\nc\rd\r\n"]);
        assert_eq!(output, "a\nb\r\nc\r\nd\r\n");
    }

    proptest! {
        #[test]
        fn no_bare_line_end_and_no_nul_comes_out_however_it_is_cut(
            octets in prop::collection::vec(prop::sample::select(b"..\r\r\n\na\0".to_vec()), 0..40),
            dot in any::<bool>(), piece in 1_usize..9,
        ) {
            let (text, told) = lines(Mend::ALL, dot, &[&octets]);
            let pieces: Vec<_> = octets.chunks(piece).collect();
            prop_assert_eq!(lines(Mend::ALL, dot, &pieces), (text.clone(), told));
            prop_assert!(!text.replace("\r\n", "").contains(['\r', '\n', '\0']));
            if !dot {
                let kept = octets.iter().filter(|octet| !b"\r\n\0".contains(octet)).count();
                prop_assert_eq!(text.replace("\r\n", "").len(), kept);
            }
        }
    }
}
