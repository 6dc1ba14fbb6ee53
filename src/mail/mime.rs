//! The encodings of MIME that we write: what we say passes any relay unchanged.

/// Octets of a line of quoted-printable at most, the soft line break not counted (RFC 2045
/// section 6.7).
const LINE: usize = 75;

/// Characters between the marks of an encoded word, so that a line with it and the name of a
/// field has at most 76 (RFC 2047 section 2).
const MAX_WORD: usize = 52;

/// Octets with CRLF line ends as quoted-printable with CRLF; decoded they are the same again,
/// whatever they are.
pub fn quoted_printable(octets: &[u8]) -> String {
    let mut encoded = String::with_capacity(octets.len());
    let mut rest = octets;
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        encode_line(&rest[..end], &mut encoded);
        encoded.push_str("\r\n");
        rest = &rest[end + 2..];
    }
    encode_line(rest, &mut encoded);
    encoded
}

fn encode_line(line: &[u8], encoded: &mut String) {
    let mut length = 0;
    for (place, &octet) in line.iter().enumerate() {
        let last = place + 1 == line.len();
        // A blank at the end would be lost, and a dot in front mistaken.
        let plain = matches!(octet, b'!'..=b'<' | b'>'..=b'~') && (octet != b'.' || (1..LINE).contains(&length))
            || octet == b' ' && !last;
        let piece = if plain { char::from(octet).to_string() } else { format!("={octet:02X}") };
        if length + piece.len() > LINE {
            encoded.push_str("=\r\n");
            length = 0;
        }
        length += piece.len();
        encoded.push_str(&piece);
    }
}

/// A text for a header as encoded words, folded; they may stand in a phrase too (RFC 2047
/// section 5).
pub fn encoded_words(text: &str) -> String {
    let mut folded = String::new();
    let mut room = 0;
    for c in text.chars() {
        let encoded = q_encoded(c);
        // No character is split.
        if encoded.len() > room {
            folded.push_str(if folded.is_empty() { "=?utf-8?q?" } else { "?=\r\n =?utf-8?q?" });
            room = MAX_WORD;
        }
        room -= encoded.len();
        folded.push_str(&encoded);
    }
    if folded.is_empty() { folded } else { folded + "?=" }
}

/// A character in the Q encoding of a phrase (RFC 2047 section 5, rule 3).
fn q_encoded(c: char) -> String {
    if c.is_ascii_alphanumeric() {
        return c.to_string();
    }
    c.encode_utf8(&mut [0; 4]).bytes().fold(String::new(), |text, octet| format!("{text}={octet:02X}"))
}

/// Whether octets pass as they are where only 7-bit lines do (RFC 2045 section 2.7).
pub fn is_seven_bit(octets: &[u8]) -> bool {
    has_short_lines(octets) && octets.is_ascii() && !octets.contains(&0)
}

/// Whether every line has at most 998 octets, and CR and LF stand together alone (RFC 5322
/// section 2.1.1).
pub fn has_short_lines(octets: &[u8]) -> bool {
    let mut length = 0;
    let mut before = 0;
    for &octet in octets {
        match (before, octet) {
            (b'\r', b'\n') => length = 0,
            (b'\r', _) | (_, b'\n') => return false,
            (_, b'\r') => {}
            _ => length += 1,
        }
        if length > 998 {
            return false;
        }
        before = octet;
    }
    before != b'\r'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(text: &str) -> Vec<u8> {
        let (text, mut octets) = (text.replace("=\r\n", ""), Vec::new());
        let mut rest = text.as_bytes();
        while let Some((&octet, behind)) = rest.split_first() {
            if octet != b'=' {
                octets.push(octet);
                rest = behind;
                continue;
            }
            let digits = std::str::from_utf8(&behind[..2]).expect("digits");
            octets.push(u8::from_str_radix(digits, 16).expect("hexadecimal"));
            rest = &behind[2..];
        }
        octets
    }

    #[test]
    fn a_text_for_a_header_is_folded_in_words_of_whole_characters() {
        for (text, words) in [
            ("", ""),
            ("Gr\u{fc}\u{df}e?", "=?utf-8?q?Gr=C3=BC=C3=9Fe=3F?="),
            (
                &"\u{fc}".repeat(9),
                "=?utf-8?q?=C3=BC=C3=BC=C3=BC=C3=BC=C3=BC=C3=BC=C3=BC=C3=BC?=\r\n =?utf-8?q?=C3=BC?=",
            ),
        ] {
            assert_eq!(encoded_words(text), words);
            assert!(encoded_words(&text.repeat(50)).lines().all(|line| line.len() + "Subject:".len() <= 76));
        }
    }

    #[test]
    fn lines_are_judged_as_relays_do() {
        for (octets, short, seven) in [
            (&b"a\r\nb"[..], true, true),
            (b"", true, true),
            (b"a\nb", false, false),
            (b"a\rb", false, false),
            (b"a\r", false, false),
            (b"\xe4\r\n", true, false),
            (b"a\0b\r\n", true, false),
            (&[b'x'; 998], true, true),
            (&[b'x'; 999], false, false),
        ] {
            assert_eq!((has_short_lines(octets), is_seven_bit(octets)), (short, seven), "{octets:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(octets in proptest::collection::vec(any::<u8>(), 0..600)) {
            let encoded = quoted_printable(&octets);
            prop_assert!(is_seven_bit(encoded.as_bytes()));
            prop_assert!(encoded.split("\r\n").all(|line| line.len() <= 76 && line != "."), "{}", encoded);
            prop_assert_eq!(decoded(&encoded), octets);
        }
    }
}
