//! Mailbox files (RFC 4155) in their four dialects, read message by message.
//!
//! Between messages stands a line that begins with `From `. The dialects differ in what
//! they do where a line of a message begins so: *mboxo* puts a `>` before it, *mboxrd* also
//! before lines that have such a `>` already, so that it can be undone; *mboxcl* and *mboxcl2*
//! tell each message's length in `Content-Length:`, the first with the `>` of mboxo, the
//! second without. Nothing in a file says which dialect it is.

use std::io::{self, BufRead, Seek, SeekFrom};

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
    #[error("it may be {0} or {1}, which read some of its lines differently: say which with --mbox-dialect")]
    Ambiguous(&'static str, &'static str),
    /// A whole `From ` line that may belong to a message, or begin the next.
    #[error(
        "a line 'From ... date' stands behind a line that is not empty: say with --mbox-dialect mboxrd that a \
         message begins there, or put a > before it"
    )]
    Tight,
    /// Between two messages stands no `From ` line.
    #[error("no line 'From ... date' stands where the next message should begin")]
    NoSeparator,
    /// A message of mboxcl or mboxcl2 does not tell its length.
    #[error("the message has no Content-Length: field, which its dialect needs")]
    NoLength,
    /// It ends before the length that it tells.
    #[error("the file ends before the length that Content-Length: tells")]
    TooShort,
}

/// Octets of a line that are looked at, and handed on, at once.
const PIECE: usize = 64 * 1024;

/// The longest `From ` line.
const LONGEST_SEPARATOR: usize = 1000;

/// A mailbox file, open at one of its messages.
pub(super) struct Mbox<R> {
    input: R,
    dialect: Dialect,
    state: State,
    /// The last piece ended a line.
    at_line_start: bool,
    /// An empty line that may belong to the message or stand before the next `From ` line.
    blank: Option<Vec<u8>>,
    /// The last line was empty, be it the one that ends the header.
    after_blank: bool,
    /// The length told in the header that is being read.
    length: Option<u64>,
    /// What lines begin with that dialects treat differently.
    quotes: Quotes,
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

/// Lines met so far.
#[expect(clippy::struct_excessive_bools, reason = "each is one kind of line, met or not")]
#[derive(Debug, Clone, Copy, Default)]
struct Quotes {
    /// `From ` within a message.
    bare: bool,
    /// `>From `.
    once: bool,
    /// `>>From ` and deeper.
    deeper: bool,
    /// A whole `From ` line without an empty line before it. Who quotes would have quoted
    /// it within a message, but some look only at what follows an empty line.
    tight: bool,
}

impl<R: BufRead> Mbox<R> {
    pub(super) fn new(input: R, dialect: Dialect) -> Self {
        Self {
            input,
            dialect,
            state: State::Between,
            at_line_start: true,
            blank: None,
            after_blank: false,
            length: None,
            quotes: Quotes::default(),
        }
    }

    /// Goes on to the next message; `false` behind the last.
    pub(super) fn advance(&mut self) -> Result<bool, MboxError> {
        while !matches!(self.state, State::Between | State::Behind | State::End) {
            self.read(&mut Vec::new())?;
        }
        while self.state == State::Between {
            match self.piece(PIECE)? {
                None => self.state = State::End,
                Some(line) if is_blank(&line) => {}
                Some(line) if separates(&line) => self.state = State::Behind,
                Some(_) => return Err(MboxError::NoSeparator),
            }
        }
        if self.state == State::End {
            return Ok(false);
        }
        (self.state, self.length, self.blank) = (State::Header, None, None);
        Ok(true)
    }

    /// Appends the next octets of the message; `false` at its end.
    pub(super) fn read(&mut self, message: &mut Vec<u8>) -> Result<bool, MboxError> {
        let mut taken = 0;
        while taken < PIECE && matches!(self.state, State::Header | State::Body | State::Counted(1..)) {
            let room =
                if let State::Counted(left) = self.state { usize::try_from(left).unwrap_or(PIECE) } else { PIECE };
            let starts = self.at_line_start;
            let Some(line) = self.piece(room.min(PIECE))? else {
                self.end_of_file()?;
                break;
            };
            taken += line.len();
            self.line(&line, starts, message)?;
        }
        if self.state == State::Counted(0) {
            self.state = State::Between;
        }
        Ok(matches!(self.state, State::Header | State::Body | State::Counted(_)))
    }

    /// The next piece of a line, with its line end where that fits.
    fn piece(&mut self, room: usize) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        while line.len() < room && line.last() != Some(&b'\n') {
            let buffered = self.input.fill_buf()?;
            if buffered.is_empty() {
                break;
            }
            let buffered = &buffered[..buffered.len().min(room - line.len())];
            let taken = buffered.iter().position(|&octet| octet == b'\n').map_or(buffered.len(), |at| at + 1);
            line.extend_from_slice(&buffered[..taken]);
            self.input.consume(taken);
        }
        self.at_line_start = line.last() == Some(&b'\n');
        Ok(if line.is_empty() { None } else { Some(line) })
    }

    fn line(&mut self, line: &[u8], starts: bool, message: &mut Vec<u8>) -> Result<(), MboxError> {
        let after_blank = std::mem::replace(&mut self.after_blank, starts && is_blank(line));
        if starts && !after_blank && self.is_tight(line) {
            self.quotes.tight = true;
            self.state = State::Behind;
            message.extend(self.blank.take().into_iter().flatten());
            return Ok(());
        }
        match self.state {
            State::Header if starts && is_blank(line) => {
                self.state = if self.dialect.has_length() {
                    State::Counted(self.length.ok_or(MboxError::NoLength)?)
                } else {
                    State::Body
                };
                message.extend_from_slice(line);
                return Ok(());
            }
            State::Header => {
                if starts && let Some(length) = content_length(line) {
                    self.length = Some(length);
                }
            }
            State::Counted(left) => self.state = State::Counted(left.saturating_sub(line.len() as u64)),
            _ if starts && after_blank && separates(line) => {
                self.state = State::Behind;
                return Ok(());
            }
            _ => {
                message.extend(self.blank.take().into_iter().flatten());
                if starts && is_blank(line) {
                    self.blank = Some(line.to_vec());
                    return Ok(());
                }
            }
        }
        message.extend_from_slice(if starts { self.unquoted(line) } else { line });
        Ok(())
    }

    /// Whether a message begins here though no empty line stands before it.
    fn is_tight(&self, line: &[u8]) -> bool {
        let is_within = matches!(self.state, State::Header | State::Body);
        is_within && !self.dialect.has_length() && separates(line) && has_whole_date(line)
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
        let depth = line.iter().take_while(|&&octet| octet == b'>').count();
        if !line[depth..].starts_with(b"From ") {
            return line;
        }
        match depth {
            0 => self.quotes.bare = true,
            1 => self.quotes.once = true,
            _ => self.quotes.deeper = true,
        }
        let undo = match self.dialect {
            Dialect::Mboxo | Dialect::Mboxcl => depth == 1,
            Dialect::Mboxrd => depth >= 1,
            Dialect::Mboxcl2 => false,
        };
        if undo { &line[1..] } else { line }
    }
}

/// Finds the dialect of a file, and leaves it at its beginning.
///
/// # Errors
/// [`MboxError::Ambiguous`] where two would make different messages of it.
pub(super) fn detect<R: BufRead + Seek>(mut input: R) -> Result<Dialect, MboxError> {
    let counted = survey(&mut input, Dialect::Mboxcl2)?;
    if let Some(quotes) = counted {
        return match quotes {
            // Where lengths hold, an unquoted line shows that nothing is quoted.
            Quotes { bare: true, .. } => Ok(Dialect::Mboxcl2),
            Quotes { once: true, .. } => Err(MboxError::Ambiguous("mboxcl", "mboxcl2")),
            _ => Ok(Dialect::Mboxcl2),
        };
    }
    match survey(&mut input, Dialect::Mboxrd)? {
        Some(Quotes { tight: true, .. }) => Err(MboxError::Tight),
        Some(Quotes { deeper: true, .. }) => Err(MboxError::Ambiguous("mboxo", "mboxrd")),
        _ => Ok(Dialect::Mboxrd),
    }
}

/// The lines that dialects treat differently; `None` where the file is not of this one.
fn survey<R: BufRead + Seek>(input: &mut R, dialect: Dialect) -> Result<Option<Quotes>, MboxError> {
    input.seek(SeekFrom::Start(0))?;
    let mut mbox = Mbox::new(&mut *input, dialect);
    let outcome = to_the_end(&mut mbox);
    let quotes = mbox.quotes;
    input.seek(SeekFrom::Start(0))?;
    match outcome {
        Ok(()) => Ok(Some(quotes)),
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
    let end = start.iter().position(|&octet| octet == b'\n').unwrap_or(start.len());
    separates(&start[..end])
}

/// `From `, somebody, and a date that begins with the day of the week.
fn separates(line: &[u8]) -> bool {
    if line.len() > LONGEST_SEPARATOR || !line.starts_with(b"From ") {
        return false;
    }
    let days: [&[u8]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];
    let mut words = line[5..].split(|&octet| octet == b' ').filter(|word| !word.is_empty());
    words.next().is_some() && words.take(3).any(|word| days.contains(&word))
}

/// Whether a `From ` line has a time and a year behind the day of the week, as asctime(3)
/// writes them; nobody writes that by chance.
fn has_whole_date(line: &[u8]) -> bool {
    let digits = |word: &[u8]| word.iter().all(u8::is_ascii_digit);
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).rev();
    let is_year = words.next().is_some_and(|word| word.len() == 4 && digits(word));
    let is_time = |word: &[u8]| word.contains(&b':') && word.split(|&octet| octet == b':').all(digits);
    // Some write a time zone between them.
    is_year && words.take(2).any(is_time)
}

fn is_blank(line: &[u8]) -> bool {
    matches!(line, b"\n" | b"\r\n")
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
        for (line, whole) in [
            (FROM, true),
            ("From a@x.example Mon Jan  2 03:04 CET 2026\r\n", true),
            ("From here on Mon we read\n", false),
            ("From Mon 10:00 on\n", false),
        ] {
            assert_eq!(has_whole_date(line.as_bytes()), whole, "{line}");
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

        #[test]
        fn any_file_is_read_to_an_end(file in "(From a Mon|Content-Length: [0-9]{1,2}|>?From|[a-z]{0,4}|\r?\n){0,30}") {
            for (_, dialect) in Dialect::ALL {
                let _ = read_as(&file, dialect);
            }
            let _ = detected(&file);
        }
    }
}
