//! Replies as a client reads them (RFC 5321 section 4.2, RFC 2034, RFC 3463).
//!
//! Lenient where the meaning is plain (a code without text, a bare LF as line end, text
//! that is not UTF-8, codes such as 571), strict where two readers could disagree, and
//! bounded however much a peer sends.

use std::fmt;

/// Octets of one line with its line end: far above the 512 of RFC 5321 section 4.5.3.1.5.
pub const MAX_LINE_OCTETS: usize = 4096;

/// Octets of one reply with all its lines.
pub const MAX_REPLY_OCTETS: usize = 64 * 1024;

/// One whole reply: its code and its lines as they came, without line ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    lines: Vec<String>,
}

/// Why octets are no SMTP reply. The connection they came over is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSmtp {
    /// The line does not begin with three digits and a blank, a hyphen or its end.
    #[error("a line without reply code: {0:?}")]
    NoCode(String),
    /// A code that no command has as an answer.
    #[error("reply code {0:03}, which is outside 200 to 599")]
    CodeOutOfRange(u16),
    /// The lines of one reply have different codes.
    #[error("one reply with the codes {0} and {1}")]
    CodesDiffer(u16, u16),
    /// A line over [`MAX_LINE_OCTETS`].
    #[error("a reply line of more than {MAX_LINE_OCTETS} octets")]
    LongLine,
    /// A reply over [`MAX_REPLY_OCTETS`].
    #[error("a reply of more than {MAX_REPLY_OCTETS} octets")]
    LongReply,
    /// A valid reply where it has no meaning.
    #[error("the reply {0} where it has no meaning")]
    OutOfPlace(u16),
    /// Octets that no command asked for.
    #[error("a reply that no command asked for")]
    Surplus,
}

impl Reply {
    /// The reply code, 200 to 599.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The first digit, which says the kind (section 4.2.1).
    pub fn class(&self) -> u16 {
        self.code / 100
    }

    /// The lines as they came, codes included, joined by `\n`.
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// What the lines say behind the code.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|line| line.get(4..).unwrap_or(""))
    }

    /// The enhanced status code that the first line begins with (RFC 2034 section 4):
    /// only where its class agrees with the reply code.
    pub fn enhanced(&self) -> Option<EnhancedStatus> {
        let word = self.texts().next()?.split_whitespace().next()?;
        EnhancedStatus::parse(word).filter(|status| u16::from(status.class) == self.class())
    }
}

/// An enhanced status code (RFC 3463 section 2): class, subject, detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnhancedStatus {
    /// 2, 4 or 5.
    pub class: u8,
    /// 0 to 999.
    pub subject: u16,
    /// 0 to 999.
    pub detail: u16,
}

impl EnhancedStatus {
    /// Reads `class.subject.detail`, with one to three digits in the latter two.
    pub fn parse(word: &str) -> Option<Self> {
        let mut parts = word.split('.');
        let (class, subject, detail) = (parts.next()?, parts.next()?, parts.next()?);
        let short = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        let fits = matches!(class, "2" | "4" | "5") && short(subject) && short(detail) && parts.next().is_none();
        if !fits {
            return None;
        }
        Some(Self { class: class.parse().ok()?, subject: subject.parse().ok()?, detail: detail.parse().ok()? })
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// Puts the lines of one reply together.
#[derive(Debug, Default)]
pub struct ReplyReader {
    code: Option<u16>,
    lines: Vec<String>,
    octets: usize,
}

impl ReplyReader {
    /// How many octets at the front of `buffer` are one line with its LF; `None` while
    /// there is no LF yet.
    ///
    /// # Errors
    /// [`NotSmtp::LongLine`] as soon as that is certain.
    pub fn line_length(buffer: &[u8]) -> Result<Option<usize>, NotSmtp> {
        match buffer.iter().take(MAX_LINE_OCTETS).position(|&octet| octet == b'\n') {
            Some(end) => Ok(Some(end + 1)),
            None if buffer.len() >= MAX_LINE_OCTETS => Err(NotSmtp::LongLine),
            None => Ok(None),
        }
    }

    /// Takes one line with its LF and returns the reply once it is whole.
    ///
    /// # Errors
    /// Where the line cannot belong to a reply. It is one of [`ReplyReader::take_unread`]
    /// all the same.
    pub fn push(&mut self, line: &[u8]) -> Result<Option<Reply>, NotSmtp> {
        self.octets += line.len();
        let line = without_line_end(line);
        self.lines.push(to_text(line));
        if self.octets > MAX_REPLY_OCTETS {
            return Err(NotSmtp::LongReply);
        }
        let (code, last) = code_of(line)?;
        let first = *self.code.get_or_insert(code);
        if first != code {
            return Err(NotSmtp::CodesDiffer(first, code));
        }
        if !last {
            return Ok(None);
        }
        self.code = None;
        self.octets = 0;
        Ok(Some(Reply { code, lines: std::mem::take(&mut self.lines) }))
    }

    /// What was read of a reply that has not ended, or is none, and the octets that follow
    /// it, joined by `\n`: for whoever wants to see why.
    pub fn take_unread(&mut self, rest: &[u8]) -> String {
        self.lines.extend(rest.split_inclusive(|&octet| octet == b'\n').map(|line| to_text(without_line_end(line))));
        std::mem::take(&mut self.lines).join("\n")
    }

    /// Whether a reply has begun and not ended.
    pub fn is_midway(&self) -> bool {
        self.code.is_some()
    }
}

/// A database's text may not hold NUL.
fn to_text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).replace('\0', "\u{fffd}")
}

fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The code of a line and whether it is the last of its reply.
fn code_of(line: &[u8]) -> Result<(u16, bool), NotSmtp> {
    let wrong = || NotSmtp::NoCode(String::from_utf8_lossy(&line[..line.len().min(60)]).into_owned());
    let digits = line.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit)).ok_or_else(wrong)?;
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    let last = match line.get(3) {
        None | Some(b' ') => true,
        Some(b'-') => false,
        Some(_) => return Err(wrong()),
    };
    if (200..600).contains(&code) { Ok((code, last)) } else { Err(NotSmtp::CodeOutOfRange(code)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads one reply out of `octets`, line by line.
    fn read(mut octets: &[u8]) -> Result<Option<Reply>, NotSmtp> {
        let mut reader = ReplyReader::default();
        while let Some(length) = ReplyReader::line_length(octets)? {
            if let Some(reply) = reader.push(&octets[..length])? {
                return Ok(Some(reply));
            }
            octets = &octets[length..];
        }
        Ok(None)
    }

    #[test]
    fn what_has_a_plain_meaning_is_understood() {
        for (octets, code, text, enhanced) in [
            (&b"250 2.1.0 ok\r\n"[..], 250, "250 2.1.0 ok", Some("2.1.0")),
            (b"250\r\n", 250, "250", None),
            (b"250 \n", 250, "250 ", None),
            (b"550-5.1.1 no\n550 5.1.1 such user\r\n", 550, "550-5.1.1 no\n550 5.1.1 such user", Some("5.1.1")),
            (b"571 4.7.1 class differs\r\n", 571, "571 4.7.1 class differs", None),
            (b"590 no\r\n", 590, "590 no", None),
            (b"550 caf\xe9\r\n", 550, "550 caf\u{fffd}", None),
            (b"250-\r\n250\r\n", 250, "250-\n250", None),
            (b"450 4.2.0\r\n", 450, "450 4.2.0", Some("4.2.0")),
            (b"450 4.2.0000 x\r\n", 450, "450 4.2.0000 x", None),
        ] {
            let reply = read(octets).expect("SMTP").expect("a whole reply");
            assert_eq!((reply.code(), reply.text().as_str()), (code, text));
            assert_eq!(reply.enhanced().map(|status| status.to_string()).as_deref(), enhanced, "{text}");
        }
        assert_eq!(read(b"250-wait\r\n25"), Ok(None));
    }

    #[test]
    fn what_is_not_smtp_is_named() {
        for (octets, problem) in [
            (&b"banana\r\n"[..], "a line without reply code: \"banana\""),
            (b"\r\n", "a line without reply code: \"\""),
            (b"25 0\r\n", "a line without reply code: \"25 0\""),
            (b"2500 ok\r\n", "a line without reply code: \"2500 ok\""),
            (b"000 x\r\n", "reply code 000, which is outside 200 to 599"),
            (b"199 x\r\n", "reply code 199, which is outside 200 to 599"),
            (b"999 x\r\n", "reply code 999, which is outside 200 to 599"),
            (b"250-a\r\n550 b\r\n", "one reply with the codes 250 and 550"),
        ] {
            assert_eq!(read(octets).expect_err("not SMTP").to_string(), problem);
        }
        assert_eq!(read(&[b'2'; MAX_LINE_OCTETS]), Err(NotSmtp::LongLine));
        assert_eq!(read(&b"250-x\r\n".repeat(10_000)), Err(NotSmtp::LongReply));
    }

    proptest! {
        #[test]
        fn a_reply_written_and_read_is_the_same(code in 200_u16..600, texts in prop::collection::vec("[ -~]{0,80}", 1..6)) {
            let last = texts.len() - 1;
            let lines: Vec<String> = texts
                .iter()
                .enumerate()
                .map(|(at, text)| format!("{code}{}{text}", if at == last { ' ' } else { '-' }))
                .collect();
            let reply = read(format!("{}\r\n", lines.join("\r\n")).as_bytes()).expect("SMTP").expect("whole");
            prop_assert_eq!(reply.code(), code);
            prop_assert_eq!(reply.text(), lines.join("\n"));
            prop_assert_eq!(reply.texts().collect::<Vec<_>>(), texts);
        }

        #[test]
        fn no_octets_whatever_make_the_reader_fail_otherwise_than_by_saying_so(octets in prop::collection::vec(any::<u8>(), 0..6000)) {
            if let Ok(Some(reply)) = read(&octets) {
                prop_assert!((200..600).contains(&reply.code()));
            }
        }
    }
}
