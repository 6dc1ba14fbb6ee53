//! YAML read with positions: the only place that knows which parser stands behind it.
//!
//! A [`Document`] is one file as a tree of [`Node`]s. [`Fields`] takes a mapping apart and
//! notes in [`Reading`] everything that is wrong, so that all errors are told at once;
//! [`Document::diagnostics`] then finds the line and column of each.
//!
//! The parser tells positions only in its errors. Each key and each value therefore has its
//! ordinal in the order of reading ([`Place`]), and a position is found by reading the same
//! text again with the order to fail at that ordinal.

mod fields;
mod node;
mod scalar;

use std::fmt::{self, Write as _};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use fields::Problem;
pub use fields::{Fields, Reading, Weight, nearest};
pub use node::{Entry, Node, Place, Value};
pub use scalar::{
    boolean, choice, duration, format_duration, integer, milliseconds, name_server, parse_duration, positive_duration,
    secret_text, size, socket_address, text,
};

/// A configuration file over 1 MB is refused before it is parsed.
const MAX_OCTETS: usize = 1_000_000;

/// Brackets open at once; the parser's own limit of 128 comes too late for its running time.
const MAX_BRACKETS: usize = 256;

/// Positions are found one by one; a file with more problems than this is told apart by the first.
const MAX_DIAGNOSTICS: usize = 100;

/// One thing that is wrong in one file: `path/to/file.yaml:LINE:COLUMN: message`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// The file as it was named.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// What is wrong and what would be right.
    pub message: String,
    /// What it means for a message that is handed in meanwhile.
    pub weight: Weight,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}:{}:{}: {}", self.file.display(), self.line, self.column, self.message);
        for c in text.chars() {
            // What is cited from a file must not make two lines of one, or move a cursor.
            if c.is_control() { write!(f, "{}", c.escape_default()) } else { f.write_char(c) }?;
        }
        Ok(())
    }
}

/// Everything that is wrong in all files, a line each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Diagnostics {}

/// One file, parsed.
#[derive(Debug)]
pub struct Document {
    file: PathBuf,
    text: String,
    root: Node,
    /// Keys that stand twice in one mapping.
    repeated: Vec<(Place, String)>,
}

impl Document {
    /// Reads and parses `file`.
    ///
    /// # Errors
    /// One diagnostic where the file cannot be read, is too large, or is not one YAML document.
    pub fn read(file: &Path) -> Result<Self, Diagnostic> {
        let cannot = |error: std::io::Error| diagnostic(file, (1, 1), format!("cannot be read: {error}"));
        let mut octets = Vec::new();
        let opened = crate::files::open(file).map_err(cannot)?;
        opened.take(MAX_OCTETS as u64 + 1).read_to_end(&mut octets).map_err(cannot)?;
        Self::parse(file, &octets)
    }

    /// Parses what stands in `file`. A byte order mark is passed over.
    ///
    /// # Errors
    /// One diagnostic, as [`Document::read`].
    pub fn parse(file: &Path, octets: &[u8]) -> Result<Self, Diagnostic> {
        let wrong = |at, message: String| diagnostic(file, at, message);
        if octets.len() > MAX_OCTETS {
            return Err(wrong((1, 1), format!("the file is larger than {MAX_OCTETS} octets")));
        }
        let octets = octets.strip_prefix("\u{feff}".as_bytes()).unwrap_or(octets);
        let text = std::str::from_utf8(octets).map_err(|error| {
            let valid = String::from_utf8_lossy(&octets[..error.valid_up_to()]);
            let utf_16 = if octets.contains(&0) { ": it may be UTF-16, save it as UTF-8" } else { "" };
            wrong(position_after(&valid), format!("the file is not UTF-8 here{utf_16}"))
        })?;
        if let Some(before) = odd_line_end(text) {
            return Err(wrong(position_after(before), "this line ends neither with LF nor with CRLF".to_owned()));
        }
        if let Some((at, c)) = text.char_indices().find(|(_, c)| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
            let message = format!("a control character (0x{:02x}) stands here: remove it", u32::from(c));
            return Err(wrong(position_after(&text[..at]), message));
        }
        if let Some(before) = too_deep(text) {
            return Err(wrong(position_after(before), "nested too deep: more than 128 levels".to_owned()));
        }
        let tree = node::parse(text).map_err(|(at, message)| wrong(within(text, at), explain(text, at.0, &message)))?;
        if matches!(tree.root.value, Value::Null) {
            return Err(wrong((1, 1), "the file is empty".to_owned()));
        }
        if let Some(place) = merge_key(&tree.root) {
            // Without what it stands for, everything else that could be said would be wrong.
            let message = "a merge key '<<' is not read: write here the keys that it stands for";
            return Err(wrong(node::position(text, place), message.to_owned()));
        }
        Ok(Self { file: file.to_owned(), text: text.to_owned(), root: tree.root, repeated: tree.repeated })
    }

    /// The whole document.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// Finds the positions of what was noted while this document was read, in their order
    /// in the file.
    pub fn diagnostics(&self, reading: Reading) -> Vec<Diagnostic> {
        let mut problems = reading.into_problems();
        let repeated = self.repeated.iter().cloned();
        problems.extend(repeated.map(|(place, message)| Problem { place, message, weight: Weight::Wrong }));
        problems.sort();
        problems.dedup();
        let left_out = problems.len().saturating_sub(MAX_DIAGNOSTICS);
        problems.truncate(MAX_DIAGNOSTICS);
        let mut found: Vec<_> = problems.into_iter().map(|problem| self.diagnostic(problem)).collect();
        if let Some(last) = found.last_mut().filter(|_| left_out > 0) {
            last.message = format!("{} (and {left_out} more problems in this file)", last.message);
        }
        found
    }

    /// Where something of it stands, as `path:line`.
    pub fn line_of(&self, place: Place) -> String {
        format!("{}:{}", self.file.display(), node::position(&self.text, place).0)
    }

    fn diagnostic(&self, Problem { place, message, weight }: Problem) -> Diagnostic {
        Diagnostic { weight, ..diagnostic(&self.file, node::position(&self.text, place), message) }
    }
}

fn diagnostic(file: &Path, (line, column): (usize, usize), message: String) -> Diagnostic {
    Diagnostic { file: file.to_owned(), line, column, message, weight: Weight::Wrong }
}

/// Line and column of what follows `text`.
fn position_after(text: &str) -> (usize, usize) {
    let last = text.rsplit('\n').next().unwrap_or(text);
    (text.matches('\n').count() + 1, last.chars().count() + 1)
}

/// The parser takes the end of a text without line end for the beginning of another line.
fn within(text: &str, at: (usize, usize)) -> (usize, usize) {
    let end = position_after(text);
    if at.0 > end.0 { end } else { at }
}

/// The text before a line end that YAML knows and editors do not: they would count lines
/// otherwise than the parser.
fn odd_line_end(text: &str) -> Option<&str> {
    let is_odd = |&(at, c): &(usize, char)| match c {
        '\r' => !text[at..].starts_with("\r\n"),
        c => matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}'),
    };
    text.char_indices().find(is_odd).map(|(at, _)| &text[..at])
}

/// The text before the bracket that is one too many. Quotes are not looked at: no
/// configuration has that many unbalanced brackets in its texts.
fn too_deep(text: &str) -> Option<&str> {
    let mut open = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '[' | '{' => open += 1,
            ']' | '}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > MAX_BRACKETS {
            return Some(&text[..at]);
        }
    }
    None
}

/// Where YAML 1.1 would have a mapping take over the keys of another.
fn merge_key(node: &Node) -> Option<Place> {
    match &node.value {
        Value::Sequence(items) => items.iter().find_map(merge_key),
        Value::Mapping(entries) => entries
            .iter()
            .find_map(|entry| if entry.key == "<<" { Some(entry.key_place) } else { merge_key(&entry.value) }),
        _ => None,
    }
}

/// What the parser says, and what would be right.
const HINTS: [(&str, &str); 8] = [
    ("cannot start any token", "a value that begins so needs quotes"),
    (
        "mapping values are not allowed",
        "a value with a colon and a blank in it needs quotes, and a key a line of its own",
    ),
    ("unknown anchor", "a text that begins with * needs quotes"),
    ("scanning an alias", "a text that begins with * needs quotes"),
    ("scanning an anchor", "a text that begins with & needs quotes"),
    ("a !tag has no meaning", "a text that begins with ! needs quotes"),
    ("scanning a quoted scalar", "a quote that was opened is not closed"),
    ("parsing a flow sequence", "a bracket that was opened is not closed"),
];

/// Adds what would be right where the parser's own words do not say it.
fn explain(text: &str, line: usize, message: &str) -> String {
    if message.contains("more than one document") {
        return second_document(text);
    }
    let indent = |line: &str| line.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t');
    let here = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    if indent(here) {
        return format!("{message}: indent with blanks, not with tabs");
    }
    let hint = HINTS.iter().find(|(words, _)| message.contains(words));
    hint.map_or_else(|| message.to_owned(), |(_, hint)| format!("{message}: {hint}"))
}

fn second_document(text: &str) -> String {
    let mut marks = (1..).zip(text.lines()).filter(|(_, line)| line.split_whitespace().next() == Some("---"));
    // The first mark may stand before the first document.
    let begun = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with(['#', '%']));
    let skipped = usize::from(begun.is_some_and(|line| line.starts_with("---")));
    let at = marks.nth(skipped).map(|(number, _)| format!(" at line {number}")).unwrap_or_default();
    format!("a second document begins{at}: a file has one, put the second into a file of its own or remove the '---'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &[u8]) -> String {
        Document::parse(Path::new("f.yaml"), text).expect_err("refused").to_string()
    }

    fn places(node: &Node, found: &mut Vec<Place>) {
        found.push(node.place);
        match &node.value {
            Value::Sequence(items) => items.iter().for_each(|item| places(item, found)),
            Value::Mapping(entries) => {
                for entry in entries {
                    found.push(entry.key_place);
                    places(&entry.value, found);
                }
            }
            _ => {}
        }
    }

    #[test]
    fn every_key_and_value_has_its_position() {
        let text = "# a comment\na: 1\nmap:\n  \"b c\": [x, {d: ~}]\n  list:\n    - |\n      text\n    - {}\nü: &n !!str 5\nz: *n\n";
        let document = Document::parse(Path::new("f"), text.as_bytes()).expect("valid");
        let mut all = Vec::new();
        places(document.root(), &mut all);
        let found: Vec<_> = all.into_iter().map(|place| node::position(text, place)).collect();
        let expected = [
            (2, 1), // the whole
            (2, 1),
            (2, 4), // a: 1
            (3, 1),
            (4, 3), // map:
            (4, 3),
            (4, 10),
            (4, 11),
            (4, 14),
            (4, 15),
            (4, 18), // "b c": [x, {d: ~}]
            (5, 3),
            (6, 5),
            (6, 7),
            (8, 7), // list
            (9, 1),
            (9, 4), // ü
            (10, 1),
            (9, 4), // an alias is where its anchor is
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_no_yaml_is_one_line_with_its_position() {
        let deep = "[".repeat(100_000);
        let nested = "- ".repeat(100_000);
        let bomb: String = (1..30).fold("x0: &x0 [a]\n".to_owned(), |text, n| {
            let last = format!("*x{},", n - 1).repeat(10);
            format!("{text}x{n}: &x{n} [{last}]\n")
        });
        for (text, expected) in [
            (&b"a:\n\t- b\n"[..], "f.yaml:2:1: "),
            (b"a: 'b\n", "f.yaml:2:1: "),
            (b"a: 'b", "f.yaml:1:6: "),
            (b"a: b\n  c: d\n", "f.yaml:2:4: "),
            (b"a: b\r\nc:\rd: e\r\n", "f.yaml:2:3: this line ends neither"),
            ("a: b\u{2028}c\n".as_bytes(), "f.yaml:1:5: this line ends neither"),
            (b"a: b\n---\nc: d\n", "f.yaml:1:1: a second document begins at line 2: a file has one"),
            (b"# x\n---\na: b\n--- # y\nc: d\n", "f.yaml:1:1: a second document begins at line 4"),
            (b"a: b\nc: d\0e\n", "f.yaml:2:5: a control character (0x00) stands here: remove it"),
            (b"a: b\x1b[0m\n", "f.yaml:1:5: a control character (0x1b)"),
            (b"\xff\xfea\0:\0", "f.yaml:1:1: the file is not UTF-8 here: it may be UTF-16"),
            (b"a: \xff\n", "f.yaml:1:4: the file is not UTF-8 here"),
            (b"", "f.yaml:1:1: the file is empty"),
            (b"# nothing\n", "f.yaml:1:1: the file is empty"),
            (b"a: !tag b\n", "f.yaml:1:4: "),
            (b"a: &a {b: c}\nd:\n  - <<: *a\n    e: f\n", "f.yaml:3:5: a merge key '<<' is not read: write"),
            (b"a: {<<: {b: c}}\n", "f.yaml:1:5: a merge key '<<' is not read: write"),
            (b"[a]: b\n", "f.yaml:1:1: "),
            (deep.as_bytes(), "f.yaml:1:257: nested too deep"),
            (nested.as_bytes(), "f.yaml:1:25"),
            (bomb.as_bytes(), "f.yaml:"),
        ] {
            let found = refused(text);
            let shown = String::from_utf8_lossy(&text[..text.len().min(20)]);
            assert!(found.starts_with(expected) && !found.contains('\n'), "{shown:?}: {found}");
        }
        assert!(refused(&vec![b'#'; MAX_OCTETS + 1]).contains("larger than"));
        for (text, hint) in [
            ("a:\n\t- b\n", "not with tabs"),
            ("a: @b\n", "a value that begins so needs quotes"),
            ("a: %b\n", "a value that begins so needs quotes"),
            ("a: `b\n", "a value that begins so needs quotes"),
            ("a: b: c\n", "a value with a colon and a blank in it needs quotes"),
            ("a: *b\n", "a text that begins with * needs quotes"),
            ("a: * * * * *\n", "a text that begins with * needs quotes"),
            ("a: &\n", "a text that begins with & needs quotes"),
            ("a: !b c\n", "a text that begins with ! needs quotes"),
            ("a: \"b\n", "a quote that was opened is not closed"),
            ("a: [b\n", "a bracket that was opened is not closed"),
        ] {
            let told = refused(text.as_bytes());
            assert!(told.ends_with(hint) || told.contains(&format!(": {hint}")), "{text:?}: {told}");
        }
    }

    #[test]
    fn windows_line_ends_and_a_byte_order_mark_change_no_position() {
        let document = Document::parse(Path::new("f"), b"\xef\xbb\xbfa: 1\r\nb:\r\n  - x\r\n").expect("valid");
        let mut all = Vec::new();
        places(document.root(), &mut all);
        let found: Vec<_> = all.into_iter().map(|place| node::position(&document.text, place)).collect();
        assert_eq!(found, [(1, 1), (1, 1), (1, 4), (2, 1), (3, 3), (3, 5)]);
    }

    #[test]
    fn what_is_cited_from_a_file_stays_on_one_line() {
        let document = Document::parse(Path::new("f"), b"\"a\\nb\\e\": 1\n\"a\\nb\\e\": 2\n").expect("parses");
        let told = document.diagnostics(Reading::new(Path::new("f")));
        assert_eq!(told[0].to_string(), r"f:2:1: key 'a\nb\u{1b}' stands here a second time");
    }

    #[test]
    fn a_key_that_stands_twice_is_told_at_its_second_place() {
        let document = Document::parse(Path::new("f"), b"a: 1\nb: {c: 1, c: 2}\na: 3\n").expect("parses");
        let told = document.diagnostics(Reading::new(Path::new("f")));
        let told: Vec<_> = told.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["f:2:11: key 'c' stands here a second time", "f:3:1: key 'a' stands here a second time"]);
    }
}
