//! The `relaxed` forms of header fields and bodies (RFC 6376 sections 3.4.2 and 3.4.4).

use ring::digest::{Context, Digest, SHA256};

/// Octets handed to the digest at once.
const PIECE: usize = 8 * 1024;

fn is_blank(octet: u8) -> bool {
    matches!(octet, b' ' | b'\t')
}

/// A header field, unfolded, with its name in small letters, one blank for each stretch of
/// them, and none at the ends or around the colon; without its line end.
pub(super) fn field(field: &[u8]) -> Vec<u8> {
    let colon = field.iter().position(|&octet| octet == b':').unwrap_or(field.len());
    let (name, value) = field.split_at(colon);
    let mut found = name.trim_ascii_end().to_ascii_lowercase();
    found.push(b':');
    let start = found.len();
    let mut blank = false;
    for &octet in value.iter().skip(1).filter(|octet| !matches!(octet, b'\r' | b'\n')) {
        if is_blank(octet) {
            blank = true;
            continue;
        }
        if blank && found.len() > start {
            found.push(b' ');
        }
        blank = false;
        found.push(octet);
    }
    found
}

/// The digest of a body, taken in pieces of any length.
pub(super) struct Body {
    digest: Context,
    out: Vec<u8>,
    /// Blanks that are one blank if the line goes on.
    blank: bool,
    /// A CR that may belong to a line end.
    cr: bool,
    /// Line ends that count only if something follows.
    line_ends: u64,
    /// There was something but blanks and line ends.
    has_text: bool,
}

impl Body {
    pub(super) fn new() -> Self {
        let out = Vec::with_capacity(PIECE + 2);
        Self { digest: Context::new(&SHA256), out, blank: false, cr: false, line_ends: 0, has_text: false }
    }

    pub(super) fn push(&mut self, octets: &[u8]) {
        for &octet in octets {
            self.octet(octet);
        }
    }

    fn octet(&mut self, octet: u8) {
        if std::mem::take(&mut self.cr) {
            if octet == b'\n' {
                self.blank = false;
                self.line_ends += 1;
                return;
            }
            self.text(b'\r');
        }
        match octet {
            b'\r' => self.cr = true,
            octet if is_blank(octet) => self.blank = true,
            octet => self.text(octet),
        }
    }

    fn text(&mut self, octet: u8) {
        for _ in 0..std::mem::take(&mut self.line_ends) {
            self.put(b"\r\n");
        }
        if std::mem::take(&mut self.blank) {
            self.put(b" ");
        }
        self.put(&[octet]);
        self.has_text = true;
    }

    fn put(&mut self, octets: &[u8]) {
        self.out.extend_from_slice(octets);
        if self.out.len() >= PIECE {
            self.digest.update(&self.out);
            self.out.clear();
        }
    }

    /// The digest. A last line without line end is sent with one; of a body without text
    /// nothing is left.
    pub(super) fn finish(mut self) -> Digest {
        if std::mem::take(&mut self.cr) {
            self.text(b'\r');
        }
        if self.has_text {
            self.put(b"\r\n");
        }
        self.digest.update(&self.out);
        self.digest.finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::digest::digest;

    use super::*;

    /// The canonical form by the letter of the section, of a body held whole.
    fn by_the_letter(body: &str) -> String {
        let blanks = |line: &str| {
            let mut found = String::new();
            for c in line.chars() {
                match c {
                    ' ' | '\t' if found.ends_with(' ') => {}
                    ' ' | '\t' => found.push(' '),
                    c => found.push(c),
                }
            }
            found.trim_end_matches(' ').to_owned()
        };
        let mut lines: Vec<_> = body.split("\r\n").map(blanks).collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        lines.iter().map(|line| format!("{line}\r\n")).collect()
    }

    fn hash(body: &str, piece: usize) -> Vec<u8> {
        let mut hash = Body::new();
        body.as_bytes().chunks(piece).for_each(|piece| hash.push(piece));
        hash.finish().as_ref().to_vec()
    }

    #[test]
    fn the_examples_of_the_standard_come_out() {
        assert_eq!(field(b"A: X\r\n"), b"a:X");
        assert_eq!(field(b"B : Y\t\r\n\tZ  \r\n"), b"b:Y Z");
        for (body, canonical) in [
            (" C \r\nD \t E\r\n\r\n\r\n", " C\r\nD E\r\n"),
            ("", ""),
            ("\r\n", ""),
            ("\r\n\r\n \t\r\n", ""),
            (" ", ""),
            ("x", "x\r\n"),
            ("x \r\n", "x\r\n"),
            ("x\r\n \r\n\r\ny", "x\r\n\r\n\r\ny\r\n"),
            (".\r\n..\r\n", ".\r\n..\r\n"),
            ("\tx", " x\r\n"),
        ] {
            assert_eq!(by_the_letter(body), canonical, "{body:?}");
            for piece in [1, 2, 1000] {
                assert_eq!(hash(body, piece), digest(&SHA256, canonical.as_bytes()).as_ref(), "{body:?}");
            }
        }
    }

    #[test]
    fn fields_are_unfolded_and_keep_every_octet_of_their_text() {
        for (written, canonical) in [
            (&b"Subject:\r\n"[..], &b"subject:"[..]),
            (b"SUBJECT \t:   \r\n \r\n a  b\r\n", b"subject:a b"),
            (b"X:a:b\r\n", b"x:a:b"),
            (b"X: \xc3\xbc \xff\r\n", b"x:\xc3\xbc \xff"),
        ] {
            assert_eq!(field(written), canonical);
        }
    }

    proptest! {
        #[test]
        fn a_body_has_one_digest_however_it_is_cut(body in "([ a-z\t]|\r\n|\\.|ü){0,60}", piece in 1..9_usize) {
            let expected = digest(&SHA256, by_the_letter(&body).as_bytes());
            prop_assert_eq!(hash(&body, piece), expected.as_ref());
        }
    }
}
