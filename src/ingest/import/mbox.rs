//! Mailbox files (RFC 4155) in their four dialects, read message by message.
//!
//! Between messages stands a line that begins with `From `. The dialects differ in what
//! they do where a line of a message begins so: *mboxo* puts a `>` before it, *mboxrd* also
//! before lines that have such a `>` already, so that it can be undone; *mboxcl* and *mboxcl2*
//! tell each message's length in `Content-Length:`, the first with the `>` of mboxo, the
//! second without. Nothing in a file says which dialect it is, and some writers quote
//! nothing: what a line looks like, where it stands and what follows decide together
//! ([`judge`]). Where they leave a doubt, [`detect`] asks for the dialect.

mod lines;
mod separator;

use std::io::{self, BufRead, Seek, SeekFrom};

use lines::{Lines, Piece, unquoted};
use separator::{Follows, Likeness, Verdict, judge, likeness};

/// How messages are kept apart in a mailbox file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `From ` becomes `>From `.
    Mboxo,
    /// `From `, `>From `, `>>From `... get one `>` more.
    Mboxrd,
    /// As mboxo, and `Content-Length:`.
    Mboxcl,
    /// `Content-Length:` alone.
    Mboxcl2,
}

impl Dialect {
    /// All, by the names they are called.
    pub const ALL: [(&str, Self); 4] =
        [("mboxo", Self::Mboxo), ("mboxrd", Self::Mboxrd), ("mboxcl", Self::Mboxcl), ("mboxcl2", Self::Mboxcl2)];

    fn has_length(self) -> bool {
        matches!(self, Self::Mboxcl | Self::Mboxcl2)
    }
}

/// Why a mailbox file, or the rest of it, cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum MboxError {
    /// The file system.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Two dialects would make different messages of it.
    #[error("it may be {0} or {1}, which read line {2} differently: say which with --mbox-dialect")]
    Ambiguous(&'static str, &'static str, u64),
    /// A line that may belong to a message, or begin the next.
    #[error("{0}: say with --mbox-dialect mboxrd that a message begins there, or put a > before it")]
    Doubtful(Doubt),
    /// Between two messages stands no `From ` line.
    #[error("no line 'From ... date' stands where the next message should begin, which is line {0}")]
    NoSeparator(u64),
    /// A message of mboxcl or mboxcl2 does not tell its length.
    #[error("the message has no Content-Length: field, which its dialect needs")]
    NoLength,
    /// It ends before the length that it tells.
    #[error("the file ends before the length that Content-Length: tells")]
    TooShort,
}

/// The first of the lines that may belong to a message, or begin the next.
#[derive(Debug, Clone, thiserror::Error)]
#[error("line {line} '{text}' {why}{}", Self::others(*more))]
pub(super) struct Doubt {
    line: u64,
    /// As far as it is safe to print.
    text: String,
    why: &'static str,
    /// How many such lines follow.
    more: u64,
}

impl Doubt {
    fn others(more: u64) -> String {
        if more == 0 { String::new() } else { format!(" (as may {more} more)") }
    }
}

/// Octets of a line that are looked at, and handed on, at once.
const PIECE: usize = 64 * 1024;

/// Characters of a line that a message cites.
const CITED: usize = 60;

/// Messages whose told lengths are watched at once.
const LENGTHS: usize = 64;

/// A mailbox file, open at one of its messages.
pub(super) struct Mbox<R> {
    lines: Lines<R>,
    dialect: Dialect,
    state: State,
    /// An empty line that may belong to the message or stand before the next `From ` line.
    blank: Option<Vec<u8>>,
    /// The last line was empty, be it the one that ends the header.
    after_blank: bool,
    /// The length told in the header that is being read.
    length: Option<u64>,
    /// It begins with a patch by git: so do its other messages.
    of_patches: bool,
    met: Met,
}

/// Where the reading stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a `From ` line, or the end of the file.
    Between,
    /// Behind a `From ` line that was read.
    Behind,
    Header,
    Body,
    /// So many octets of the body are still to come.
    Counted(u64),
    End,
}

/// Lines met so far that leave a doubt, or tell dialects apart; by their numbers.
#[derive(Debug, Default)]
struct Met {
    /// `From ` within a message.
    bare: bool,
    /// `>From `.
    once: Option<u64>,
    /// `>>From ` and deeper.
    deeper: Option<u64>,
    doubt: Option<Doubt>,
    /// What would begin a message, if the length that reaches over it were not true.
    within_length: Option<u64>,
    /// Where told lengths lead, and whether a message begins before that.
    lengths: Vec<(u64, bool)>,
}

impl<R: BufRead> Mbox<R> {
    pub(super) fn new(input: R, dialect: Dialect) -> Self {
        Self {
            lines: Lines::new(input),
            dialect,
            state: State::Between,
            blank: None,
            after_blank: false,
            length: None,
            of_patches: false,
            met: Met::default(),
        }
    }

    /// Goes on to the next message; `false` behind the last.
    pub(super) fn advance(&mut self) -> Result<bool, MboxError> {
        while !matches!(self.state, State::Between | State::Behind | State::End) {
            self.read(&mut Vec::new())?;
        }
        while self.state == State::Between {
            self.between()?;
        }
        if self.state == State::End {
            return Ok(false);
        }
        (self.state, self.length, self.blank) = (State::Header, None, None);
        Ok(true)
    }

    /// The number of the line that was read last.
    pub(super) fn line_number(&self) -> u64 {
        self.lines.number
    }

    /// Reads a line at a place where a message may begin, and nothing else.
    fn between(&mut self) -> Result<(), MboxError> {
        let is_first = self.lines.offset == 0;
        let Some(Piece { octets: line, starts }) = self.lines.next(PIECE)? else {
            self.state = State::End;
            return Ok(());
        };
        if is_blank(&line) {
            return Ok(());
        }
        let likeness = likeness(&line).filter(|_| starts).ok_or(MboxError::NoSeparator(self.lines.number))?;
        let is_sure = is_first || matches!(likeness, Likeness::Whole | Likeness::Dated);
        if !is_sure && self.lines.follows()? == Follows::Nothing {
            return Err(MboxError::NoSeparator(self.lines.number));
        }
        self.of_patches |= is_first && likeness == Likeness::Patch;
        self.state = State::Behind;
        Ok(())
    }

    /// Appends the next octets of the message; `false` at its end.
    pub(super) fn read(&mut self, message: &mut Vec<u8>) -> Result<bool, MboxError> {
        let mut taken = 0;
        while taken < PIECE && matches!(self.state, State::Header | State::Body | State::Counted(1..)) {
            let room =
                if let State::Counted(left) = self.state { usize::try_from(left).unwrap_or(PIECE) } else { PIECE };
            let Some(piece) = self.lines.next(room.min(PIECE))? else {
                self.end_of_file()?;
                break;
            };
            taken += piece.octets.len();
            self.line(&piece, message)?;
        }
        if self.state == State::Counted(0) {
            self.state = State::Between;
        }
        Ok(matches!(self.state, State::Header | State::Body | State::Counted(_)))
    }

    fn line(&mut self, piece: &Piece, message: &mut Vec<u8>) -> Result<(), MboxError> {
        let Piece { octets: line, starts } = piece;
        let is_blank = *starts && is_blank(line);
        let after_blank = std::mem::replace(&mut self.after_blank, is_blank);
        if *starts && self.begins_next(line, after_blank)? {
            if !after_blank {
                message.extend(self.blank.take().into_iter().flatten());
            }
            self.state = State::Behind;
            return Ok(());
        }
        if self.state == State::Header && *starts && self.is_second_separator(line)? {
            return Ok(());
        }
        if matches!(self.state, State::Counted(_)) && *starts {
            self.notice_within_length(line, after_blank)?;
        }
        match self.state {
            State::Header if is_blank => self.end_header()?,
            State::Header => self.length = content_length(line).filter(|_| *starts).or(self.length),
            State::Counted(left) => self.state = State::Counted(left.saturating_sub(line.len() as u64)),
            _ => {
                message.extend(self.blank.take().into_iter().flatten());
                if is_blank {
                    self.blank = Some(line.clone());
                    return Ok(());
                }
            }
        }
        message.extend_from_slice(if *starts { self.unquoted(line) } else { line });
        Ok(())
    }

    /// Whether this line, met within a message, begins the next. A doubt is noted; who
    /// names the dialect has answered it.
    fn begins_next(&mut self, line: &[u8], after_blank: bool) -> Result<bool, MboxError> {
        let is_within = matches!(self.state, State::Header | State::Body) && !self.dialect.has_length();
        let Some(likeness) = likeness(line).filter(|_| is_within) else { return Ok(false) };
        let is_own_patch = self.of_patches && likeness == Likeness::Patch;
        let likeness = if is_own_patch { Likeness::Whole } else { likeness };
        let begins = match judge(likeness, self.lines.follows()?, after_blank) {
            Verdict::Text => false,
            Verdict::Begins => true,
            Verdict::Doubt(why) => {
                self.met.doubt(self.lines.number, line, why);
                true
            }
        };
        if begins && self.met.a_length_leads_to(self.lines.offset - line.len() as u64) {
            self.met.doubt(
                self.lines.number,
                line,
                "stands where the Content-Length: of an earlier message than the one before it leads",
            );
        }
        Ok(begins)
    }

    /// A sender may write any `Content-Length:`, and a mailbox of another dialect keeps it.
    fn notice_within_length(&mut self, line: &[u8], after_blank: bool) -> io::Result<()> {
        if let Some(likeness) = likeness(line).filter(|_| self.met.within_length.is_none())
            && judge(likeness, self.lines.follows()?, after_blank) != Verdict::Text
        {
            self.met.within_length = Some(self.lines.number);
        }
        Ok(())
    }

    fn end_header(&mut self) -> Result<(), MboxError> {
        self.state = State::Body;
        if self.dialect.has_length() {
            self.state = State::Counted(self.length.ok_or(MboxError::NoLength)?);
        } else if let Some(length) = self.length.filter(|_| self.met.lengths.len() < LENGTHS) {
            self.met.lengths.push((self.lines.offset.saturating_add(length), false));
        }
        Ok(())
    }

    /// Whether this line of a header once stood before the message in another mailbox.
    fn is_second_separator(&mut self, line: &[u8]) -> io::Result<bool> {
        let is_like_one = line.starts_with(b">")
            && matches!(likeness(unquoted(line)), Some(Likeness::Whole | Likeness::Dated | Likeness::Loose));
        Ok(is_like_one && self.lines.follows()? > Follows::Nothing)
    }

    fn end_of_file(&mut self) -> Result<(), MboxError> {
        match self.state {
            State::Counted(1..) => return Err(MboxError::TooShort),
            State::Header if self.dialect.has_length() => return Err(MboxError::NoLength),
            _ => self.state = State::End,
        }
        Ok(())
    }

    /// A line as it was before it was stored.
    fn unquoted<'l>(&mut self, line: &'l [u8]) -> &'l [u8] {
        let depth = line.len() - unquoted(line).len();
        if !line[depth..].starts_with(b"From ") {
            return line;
        }
        let number = self.lines.number;
        match depth {
            0 => self.met.bare = true,
            1 => self.met.once = self.met.once.or(Some(number)),
            _ => self.met.deeper = self.met.deeper.or(Some(number)),
        }
        let undo = match self.dialect {
            Dialect::Mboxo | Dialect::Mboxcl => depth == 1,
            Dialect::Mboxrd => depth >= 1,
            Dialect::Mboxcl2 => false,
        };
        if undo { &line[1..] } else { line }
    }
}

impl Met {
    fn doubt(&mut self, line: u64, text: &[u8], why: &'static str) {
        if let Some(first) = &mut self.doubt {
            first.more += 1;
            return;
        }
        let text = String::from_utf8_lossy(text.trim_ascii_end());
        let text = text.chars().filter(|c| !c.is_control()).take(CITED).collect();
        self.doubt = Some(Doubt { line, text, why, more: 0 });
    }

    /// Whether a message that told its length and is over long since would end here.
    fn a_length_leads_to(&mut self, offset: u64) -> bool {
        // Between a message and the next stands an empty line.
        let leads = self
            .lengths
            .iter()
            .any(|(target, is_over)| *is_over && (*target..=target.saturating_add(2)).contains(&offset));
        self.lengths.retain(|(target, _)| *target > offset);
        self.lengths.iter_mut().for_each(|(_, is_over)| *is_over = true);
        leads
    }
}

/// Finds the dialect of a file, and leaves it at its beginning.
///
/// # Errors
/// [`MboxError::Ambiguous`] or [`MboxError::Doubtful`] where it may be read in two ways.
pub(super) fn detect<R: BufRead + Seek>(mut input: R) -> Result<Dialect, MboxError> {
    if let Some(met) = survey(&mut input, Dialect::Mboxcl2)? {
        return match met {
            Met { within_length: Some(line), .. } => Err(MboxError::Ambiguous("mboxcl2", "mboxrd", line)),
            // Where lengths hold, an unquoted line shows that nothing is quoted.
            Met { bare: false, once: Some(line), .. } => Err(MboxError::Ambiguous("mboxcl", "mboxcl2", line)),
            Met { bare: false, deeper: Some(line), .. } => Err(MboxError::Ambiguous("mboxcl2", "mboxrd", line)),
            _ => Ok(Dialect::Mboxcl2),
        };
    }
    match survey(&mut input, Dialect::Mboxrd)? {
        Some(Met { doubt: Some(doubt), .. }) => Err(MboxError::Doubtful(doubt)),
        Some(Met { deeper: Some(line), .. }) => Err(MboxError::Ambiguous("mboxo", "mboxrd", line)),
        _ => Ok(Dialect::Mboxrd),
    }
}

/// What tells dialects apart; `None` where the file is not of this one.
fn survey<R: BufRead + Seek>(input: &mut R, dialect: Dialect) -> Result<Option<Met>, MboxError> {
    input.seek(SeekFrom::Start(0))?;
    let mut mbox = Mbox::new(&mut *input, dialect);
    let outcome = to_the_end(&mut mbox);
    let met = mbox.met;
    input.seek(SeekFrom::Start(0))?;
    match outcome {
        Ok(()) => Ok(Some(met)),
        Err(MboxError::Io(error)) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

fn to_the_end<R: BufRead>(mbox: &mut Mbox<R>) -> Result<(), MboxError> {
    let mut passed = Vec::new();
    while mbox.advance()? {
        while mbox.read(&mut passed)? {
            passed.clear();
        }
        passed.clear();
    }
    Ok(())
}

/// Whether a file that begins with these octets is a mailbox file.
pub(super) fn begins_mbox(start: &[u8]) -> bool {
    let mut lines = start.split_inclusive(|&octet| octet == b'\n').skip_while(|line| is_blank(line));
    match lines.next().and_then(likeness) {
        None => false,
        Some(Likeness::Words) => lines.next().and_then(separator::of_line).is_some(),
        Some(_) => true,
    }
}

/// The line at which a message of a mailbox begins, in a file that does not begin with one.
pub(super) fn message_within<R: BufRead + Seek>(mut input: R) -> io::Result<Option<u64>> {
    let mut lines = Lines::new(&mut input);
    let (mut found, mut after_blank) = (None, false);
    while found.is_none()
        && let Some(Piece { octets: line, starts }) = lines.next(PIECE)?
    {
        let likeness = likeness(&line).filter(|likeness| starts && after_blank && *likeness != Likeness::Patch);
        if let Some(likeness) = likeness {
            let follows = lines.follows()?;
            let is_one = follows > Follows::Field && judge(likeness, follows, true) == Verdict::Begins;
            found = is_one.then_some(lines.number);
        }
        after_blank = starts && is_blank(&line);
    }
    input.seek(SeekFrom::Start(0))?;
    Ok(found)
}

fn is_blank(line: &[u8]) -> bool {
    matches!(line, b"\n" | b"\r\n" | b"\xef\xbb\xbf\n" | b"\xef\xbb\xbf\r\n")
}

fn content_length(line: &[u8]) -> Option<u64> {
    let colon = line.iter().position(|&octet| octet == b':')?;
    if !line[..colon].trim_ascii_end().eq_ignore_ascii_case(b"content-length") {
        return None;
    }
    str::from_utf8(line[colon + 1..].trim_ascii()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    const FROM: &str = "From a@x.example Mon Jan  2 03:04:05 2026\n";

    fn read_as(file: &str, dialect: Dialect) -> Result<Vec<String>, String> {
        let mut mbox = Mbox::new(Cursor::new(file.as_bytes()), dialect);
        let mut messages = Vec::new();
        while mbox.advance().map_err(|error| error.to_string())? {
            let mut message = Vec::new();
            while mbox.read(&mut message).map_err(|error| error.to_string())? {}
            messages.push(String::from_utf8(message).expect("it was"));
        }
        Ok(messages)
    }

    fn detected(file: &str) -> Result<Dialect, String> {
        detect(Cursor::new(file.as_bytes())).map_err(|error| error.to_string())
    }

    fn counted(bodies: &[&str]) -> String {
        let message = |body: &&str| format!("{FROM}Content-Length: {}\n\n{body}\n", body.len());
        bodies.iter().map(message).collect()
    }

    #[test]
    fn each_dialect_undoes_what_it_did() {
        let quoted = format!("{FROM}X: 1\n\n>From a\n>>From b\n\n{FROM}X: 2\n\nbody\n\n");
        assert_eq!(read_as(&quoted, Dialect::Mboxo).expect("read"), ["X: 1\n\nFrom a\n>>From b\n", "X: 2\n\nbody\n"]);
        assert_eq!(read_as(&quoted, Dialect::Mboxrd).expect("read"), ["X: 1\n\nFrom a\n>From b\n", "X: 2\n\nbody\n"]);
        let file = counted(&[">From a\n", &format!("\n{FROM}x"), ""]);
        let cl2 = read_as(&file, Dialect::Mboxcl2).expect("read");
        assert_eq!(cl2[0], "Content-Length: 8\n\n>From a\n");
        assert!(cl2[1].ends_with(&format!("\n\n\n{FROM}x")), "{cl2:?}");
        assert_eq!(cl2.len(), 3);
        assert_eq!(read_as(&file, Dialect::Mboxcl).expect("read")[0], "Content-Length: 8\n\nFrom a\n");
    }

    #[test]
    fn dialects_are_told_apart_where_they_differ_and_asked_for_where_they_cannot_be() {
        for (file, dialect) in [
            (String::new(), Ok(Dialect::Mboxcl2)),
            (format!("{FROM}X: 1\n\nbody\n\n"), Ok(Dialect::Mboxrd)),
            (format!("{FROM}X: 1\n\n>From a\n\n"), Ok(Dialect::Mboxrd)),
            (format!("{FROM}X: 1\n\n>>From a\n\n"), Err("mboxo or mboxrd")),
            (counted(&["a\n", "b\n"]), Ok(Dialect::Mboxcl2)),
            (counted(&["From a\n", ">From b\n"]), Ok(Dialect::Mboxcl2)),
            (counted(&[">From a\n"]), Err("mboxcl or mboxcl2")),
            // A length that leads nowhere is a field like any other.
            (counted(&["a\n"]).replace(": 2", ": 200"), Ok(Dialect::Mboxrd)),
            (counted(&["a\nb\nc\n"]).replace(": 6", ": 2"), Ok(Dialect::Mboxrd)),
        ] {
            match (detected(&file), dialect) {
                (Err(told), Err(expected)) => assert!(told.contains(expected), "{told}"),
                (found, expected) => assert_eq!(found, expected.map_err(str::to_owned), "{file}"),
            }
        }
    }

    #[test]
    fn a_line_that_only_begins_so_ends_no_message() {
        let empty = format!("{FROM}X: 1\n\n{FROM}X: 2\n\n\n{FROM}X: 3\n\n");
        assert_eq!(read_as(&empty, Dialect::Mboxrd).expect("read"), ["X: 1\n\n", "X: 2\n\n", "X: 3\n\n"]);
        let file = format!("{FROM}X: 1\n\nhello\nFrom now on\n\nFrom here, too\n\n{FROM}X: 2\n\n");
        let messages = read_as(&file, Dialect::Mboxrd).expect("read");
        assert_eq!(messages, ["X: 1\n\nhello\nFrom now on\n\nFrom here, too\n", "X: 2\n\n"]);
    }

    #[test]
    fn a_message_that_begins_without_an_empty_line_is_asked_about() {
        let file = format!("{FROM}X: 1\n\na\n{FROM}X: 2\n{FROM}X: 3\n\n\nb\n\n");
        assert!(detected(&file).expect_err("asked").contains("--mbox-dialect"));
        let messages = read_as(&file, Dialect::Mboxrd).expect("read");
        assert_eq!(messages, ["X: 1\n\na\n", "X: 2\n", "X: 3\n\n\nb\n"]);
    }

    /// What a mailbox of two messages becomes, the second behind `line`.
    fn behind(line: &str, second: &str) -> Result<Vec<String>, String> {
        let file = format!("{FROM}X: 1\n\na\n{line}\n{second}");
        detected(&file).and_then(|dialect| read_as(&file, dialect))
    }

    #[test]
    fn lines_of_every_dialect_begin_a_message_where_a_header_follows() {
        for line in [
            "From a@y.example Tue, 15 Mar 2021 10:00:00 +0000",
            "From a@y.example 2021-03-15T10:00:00Z",
            "From a@y.example 15/03/2021 10:00",
            "From a@y.example Di Mär 15 10:00:00 2021",
            "From Tue Mar 15 10:00:00 2021",
            "From - Tue Mar 15 10:00:00 2021",
            "From news Tue Mar 15 10:00:00 1994 remote from uunet",
            "From a@y.example",
            "From -",
            "From ",
        ] {
            let second = "Subject: x\n\nb\n";
            assert_eq!(behind(&format!("\n{line}"), second), Ok(vec!["X: 1\n\na\n".into(), second.into()]), "{line}");
            let told = behind(line, second).expect_err("no empty line before it");
            assert!(told.contains("line 5 'From") && told.contains("--mbox-dialect mboxrd"), "{line}: {told}");
            let first = format!("{line}\nSubject: x\n\nb\n");
            for before in ["", "\n", "\u{feff}", "\u{feff}\r\n\n"] {
                let file = format!("{before}{first}");
                assert!(begins_mbox(file.as_bytes()), "{file:?}");
                assert_eq!(read_as(&file, Dialect::Mboxrd), Ok(vec![second.into()]), "{file:?}");
            }
        }
    }

    #[test]
    fn a_line_that_may_begin_a_message_is_asked_about() {
        for (lines, asked) in [
            ("\nFrom now on\nNote: this\n", true),
            ("\nFrom Bob Smith\nDate: today\nSubject: x\n", true),
            ("\nFrom\nTo: b\n", false),
            ("\nFrom alice\nPS: hello\n", true),
            ("\nFrom 10:00 to 12:00 on 15.03.2021\nPlace: Berlin\n", true),
            ("\nFrom a@y.example Tue, 15 Mar 2021 10:00:00 +0000\ntext\n", true),
            ("\nFrom 1b8c7d6e5f4a3b2c1d0e9f8a7b6c5d4e3f2a1b0c Mon Sep 17 00:00:00 2001\nFrom: a@y\nSubject: x\n", true),
            ("\nFrom bob@y.example Mon Jan  2 03:04:05 2026\nI had this\n", true),
            ("\nFrom now on\nwe see\n", false),
            ("\nFrom here on Mon we read\nit\n", false),
            ("\nFrom alice\nhttps://x.example/\n", false),
            ("\nFrom 2021-03-15 10:00 on\nit was down\n", false),
            ("From now on\nNote: this\n", false),
            ("From Bob Smith\nDate: today\n", false),
        ] {
            match behind(lines, "b\n") {
                Err(told) => assert!(
                    asked && told.contains("line 6 'From") || told.contains("line 5 'From"),
                    "{lines:?}: {told}"
                ),
                Ok(messages) => assert!(!asked && messages.len() == 1, "{lines:?}: {messages:?}"),
            }
        }
        let patch = "From 1b8c7d6e5f4a3b2c1d0e9f8a7b6c5d4e3f2a1b0c Mon Sep 17 00:00:00 2001\nSubject: x\n\nb\n\n";
        let file = patch.repeat(2);
        assert_eq!(detected(&file).and_then(|dialect| read_as(&file, dialect)).map(|found| found.len()), Ok(2));
    }

    #[test]
    fn a_length_that_leads_over_a_message_is_asked_about() {
        let inner = format!("a\n\n{FROM}X: 2\n\nb\n");
        let first = format!("{FROM}Content-Length: {}\n\n{inner}\n", inner.len());
        assert!(detected(&first).expect_err("asked").contains("mboxcl2 or mboxrd, which read line 6 differently"));
        let told = detected(&format!("{first}{FROM}X: 3\n\nno length here\n")).expect_err("asked");
        assert!(told.contains("Content-Length:"), "{told}");
        let endless = format!("{FROM}Content-Length: {}\n\na\n\n{FROM}X: 2\n\n{FROM}X: 3\n\n", u64::MAX);
        assert_eq!(detected(&endless), Ok(Dialect::Mboxrd));
    }

    #[test]
    fn what_once_stood_before_a_message_is_no_part_of_it() {
        for (before, after) in [
            ("", ">From - Sat Apr 12 15:59:28 2025\n"),
            ("", ">From a@y.example Sat Apr 12 15:59:28 1994 remote from uunet\n"),
            ("X-Mozilla-Status: 0011\n", ">From - Mon Jan 26 17:20:56 2009\n"),
        ] {
            let file = format!("{FROM}{before}{after}X-Mozilla-Status: 0001\nX: 1\n\nb\n");
            let expected = format!("{before}X-Mozilla-Status: 0001\nX: 1\n\nb\n");
            for dialect in [Dialect::Mboxo, Dialect::Mboxrd] {
                assert_eq!(read_as(&file, dialect), Ok(vec![expected.clone()]), "{file:?}");
            }
        }
    }

    #[test]
    fn a_mailbox_without_its_first_line_is_known() {
        for (file, line) in [
            (format!("X: 1\n\na\n\n{FROM}Subject: x\n\n"), Some(5)),
            ("X: 1\n\nFrom a@y.example\nSubject: x\n".to_owned(), Some(3)),
            (format!("X: 1\n\na\n{FROM}Subject: x\n"), None),
            ("X: 1\n\nFrom now on\nSubject: x\n".to_owned(), None),
        ] {
            assert_eq!(message_within(Cursor::new(file.as_bytes())).expect("read"), line, "{file}");
        }
    }

    #[test]
    fn what_is_no_mailbox_of_the_dialect_is_said() {
        for (file, dialect, why) in [
            ("X: 1\n\n".to_owned(), Dialect::Mboxrd, "no line 'From"),
            (format!("{FROM}X: 1\n\n"), Dialect::Mboxcl, "no Content-Length"),
            (counted(&["abc"]).replace(": 3", ": 9"), Dialect::Mboxcl2, "ends before"),
            (counted(&["abc\n"]).replace(": 4", ": 2"), Dialect::Mboxcl2, "no line 'From"),
        ] {
            let told = read_as(&file, dialect).expect_err(&file);
            assert!(told.contains(why), "{told}");
        }
    }

    const SEPARATORS: [&str; 9] = [
        "From a@x.example Mon Jan  2 03:04:05 2026",
        "From a@x.example Mon, 02 Jan 2026 03:04:05 +0000",
        "From a@x.example 2026-01-02 03:04:05",
        "From a@x.example 02.01.2026 03:04",
        "From a@x.example lun. janv. 2 03:04:05 2026",
        "From - Mon Jan  2 03:04:05 2026",
        "From a@x.example",
        "From -",
        "From ",
    ];

    /// A message as a program of this dialect stores it, and as it comes back: mboxo and
    /// mboxcl cannot tell a `>From ` that they wrote from one that was there.
    fn written(header: &str, body: &str, dialect: Dialect) -> (String, String) {
        let quoted = |line: &str| match dialect {
            Dialect::Mboxo | Dialect::Mboxcl => line.starts_with("From "),
            Dialect::Mboxrd => line.trim_start_matches('>').starts_with("From "),
            Dialect::Mboxcl2 => false,
        };
        let lossy = matches!(dialect, Dialect::Mboxo | Dialect::Mboxcl);
        let body: String = body.split_inclusive('\n').filter(|line| !(lossy && line.starts_with('>'))).collect();
        let stored = |line: &str| if quoted(line) { format!(">{line}") } else { line.to_owned() };
        let lines: String = body.split_inclusive('\n').map(stored).collect();
        let header = if dialect.has_length() {
            let fields = header.split_inclusive('\n').filter(|field| !field.starts_with("Content-Length"));
            fields.chain([format!("Content-Length: {}\n", lines.len()).as_str()]).collect()
        } else {
            header.to_owned()
        };
        (format!("{header}\n{lines}"), format!("{header}\n{body}"))
    }

    fn trimmed(messages: &[String]) -> Vec<String> {
        messages.iter().map(|message| message.trim_end().to_owned()).collect()
    }

    proptest! {
        #[test]
        fn mboxrd_brings_back_every_message(
            bodies in prop::collection::vec("((>{0,3}From )?[a-z ]{0,8}\n){0,6}", 0..5),
            longer in 0..3_usize,
        ) {
            let bodies: Vec<_> = bodies.iter().map(|body| format!("{body}{}\n", "x".repeat(longer * PIECE))).collect();
            let quote = |line: &str| {
                let quoted = line.trim_start_matches('>').starts_with("From ");
                if quoted { format!(">{line}") } else { line.to_owned() }
            };
            let stored = |body: &String| {
                let lines: String = body.split_inclusive('\n').map(quote).collect();
                format!("{FROM}X: 1\n\n{lines}\n")
            };
            let file: String = bodies.iter().map(stored).collect();
            let expected: Vec<_> = bodies.iter().map(|body| format!("X: 1\n\n{body}")).collect();
            prop_assert_eq!(read_as(&file, Dialect::Mboxrd), Ok(expected));
        }

        /// Whatever a program makes of messages is read back as these, or asked about.
        #[test]
        fn no_dialect_glues_or_splits_messages(
            messages in prop::collection::vec(
                (
                    "(Subject: x\n|X: [a-z]{0,3}\n|Received: y\n z\n|Content-Length: [0-9]{1,3}\n){1,3}",
                    "((>{0,2}From( -|( a)?( Mon Jan  2 03:04:05 2026| 15/03/2021 10:00| now on)?)|Subject: x|[a-z]{0,9}|>)?\n){0,7}",
                    proptest::sample::select(SEPARATORS.to_vec()),
                ),
                1..5,
            ),
            dialect in proptest::sample::select(Dialect::ALL.map(|(_, dialect)| dialect).to_vec()),
            crlf: bool,
        ) {
            let expected: Vec<_> = messages.iter().map(|(header, body, _)| written(header, body, dialect).1).collect();
            let file: String = messages.iter().map(|(header, body, separator)| {
                format!("{separator}\n{}\n", written(header, body, dialect).0)
            }).collect();
            let (file, expected) = if crlf && !dialect.has_length() {
                (file.replace('\n', "\r\n"), expected.iter().map(|text| text.replace('\n', "\r\n")).collect())
            } else {
                (file, expected)
            };
            // A told length may leave out empty lines at the end of a message.
            let read = |dialect| read_as(&file, dialect).map(|messages| trimmed(&messages));
            let expected = trimmed(&expected);
            prop_assert!(begins_mbox(file.as_bytes()));
            if let Ok(found) = detected(&file) {
                prop_assert_eq!(read(found), Ok(expected.clone()), "{:?} of {}", found, file);
            }
            prop_assert_eq!(read(dialect), Ok(expected), "{}", file);
        }

        #[test]
        fn any_file_is_read_to_an_end(file in "(From a Mon|Content-Length: [0-9]{1,2}|>?From|[a-z]{0,4}|\r?\n){0,30}") {
            for (_, dialect) in Dialect::ALL {
                let _ = read_as(&file, dialect);
            }
            let _ = detected(&file);
        }
    }
}
