//! The files that an import was told to read, and the messages in them.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::marks::Marks;
use super::mbox::{Dialect, Mbox, MboxError, begins_mbox, detect, message_within};

/// Octets read from a file at once.
const PIECE: usize = 64 * 1024;

/// Files still to be read, in order.
pub struct Sources {
    waiting: VecDeque<Waiting>,
    dialect: Option<Dialect>,
    marked: Marked,
}

/// Which messages are taken though somebody marked them; to import is to send.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marked {
    /// Those that were thrown away, or taken for junk.
    pub trash: bool,
    /// Those that were never finished.
    pub drafts: bool,
}

/// Something still to be looked at.
enum Waiting {
    /// What was asked for.
    Named(PathBuf),
    /// A file that a folder has: whoever may write there must not have others read.
    Met(PathBuf),
    /// A file of a maildir, likewise: it is one message, whatever it looks like.
    Delivered(PathBuf),
    /// What a folder has and nobody asked for.
    PassedOver(PathBuf, &'static str),
}

/// What was found at a path.
pub enum Found {
    /// A file, open at its beginning.
    File(Box<Opened>),
    /// Something that is no message.
    Nothing(SourceError),
}

/// Why a file is passed over, or the rest of it. The text names the file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct SourceError {
    path: PathBuf,
    why: Why,
}

/// Why nothing more is read of a file.
#[derive(Debug, thiserror::Error)]
enum Why {
    /// It was not asked for, or must not be.
    #[error("{0}")]
    PassedOver(&'static str),
    /// It would be one message, and looks like several.
    #[error(
        "a message of a mailbox begins at line {0}, and the file does not begin with one: if it is one message, \
         name it .eml; if it is a mailbox, put the missing 'From ' line before its first line"
    )]
    Headless(u64),
    #[error(transparent)]
    Unreadable(#[from] MboxError),
}

impl From<io::Error> for Why {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error.into())
    }
}

/// An open file: one message, or a mailbox of them.
pub struct Opened {
    path: PathBuf,
    inside: Inside,
    /// Messages begun.
    number: u64,
    /// The line at which the last of them begins, in a mailbox.
    begins: Option<u64>,
}

enum Inside {
    Message(BufReader<File>),
    Mailbox(Box<Mbox<BufReader<File>>>),
}

impl Sources {
    /// Reads `paths` in their order. A folder with `new` and `cur` is a maildir; of any other
    /// the `.eml` files are read. What else a folder has is named and passed over. Without
    /// `dialect` that of each mailbox file is found out. What is marked in its file's name is
    /// passed over, but as `marked` says.
    pub fn new(paths: Vec<PathBuf>, dialect: Option<Dialect>, marked: Marked) -> Self {
        Self { waiting: paths.into_iter().map(Waiting::Named).collect(), dialect, marked }
    }

    /// Opens a file, or puts what a folder has in front of what waits.
    fn look(&mut self, waiting: &Waiting) -> Result<Option<Opened>, Why> {
        let (path, facts) = match waiting {
            Waiting::Named(path) => (path, path.metadata()?),
            Waiting::Met(path) | Waiting::Delivered(path) => (path, path.symlink_metadata()?),
            Waiting::PassedOver(_, why) => return Err(Why::PassedOver(why)),
        };
        if facts.is_dir() {
            if !matches!(waiting, Waiting::Named(_)) {
                return Err(Why::PassedOver(FOLDER));
            }
            for inside in inside(path)?.into_iter().rev() {
                self.waiting.push_front(inside);
            }
            return Ok(None);
        }
        if facts.is_symlink() {
            return Err(Why::PassedOver(LINK));
        }
        if !facts.is_file() {
            return Err(io::Error::other("it is neither a file nor a folder").into());
        }
        if let Some(why) = self.marked.forbid(path) {
            return Err(Why::PassedOver(why));
        }
        let inside = self.inside(waiting, path)?;
        Ok(Some(Opened { path: path.to_owned(), inside, number: 0, begins: None }))
    }

    fn inside(&self, waiting: &Waiting, path: &Path) -> Result<Inside, Why> {
        let mut file = BufReader::with_capacity(PIECE, open(waiting, path)?);
        let is_message = matches!(waiting, Waiting::Delivered(_)) || named_eml(path);
        let start = file.fill_buf()?;
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("emlx")) {
            return Err(Why::PassedOver(
                "it is a message file of Apple Mail, with more than the message: export it as .mbox",
            ));
        }
        if let Some((_, why)) = FOREIGN.iter().find(|(begins, _)| start.starts_with(begins)) {
            return Err(Why::PassedOver(why));
        }
        if let Some(why) = foreign_first_line(start) {
            return Err(Why::PassedOver(why));
        }
        let is_mailbox = begins_mbox(start) || start.is_empty() && !is_message;
        if is_mailbox && !matches!(waiting, Waiting::Delivered(_)) {
            let dialect = self.dialect.map_or_else(|| detect(&mut file), Ok)?;
            return Ok(Inside::Mailbox(Box::new(Mbox::new(file, dialect))));
        }
        if !is_message && let Some(line) = message_within(&mut file)? {
            return Err(Why::Headless(line));
        }
        pass_over_blank_lines(&mut file)?;
        if is_mailbox {
            // Whoever delivered it into the maildir took it out of a mailbox, line and all.
            file.skip_until(b'\n')?;
        }
        Ok(Inside::Message(file))
    }
}

const POSTFIX: &str = "it is a queue file of Postfix: import what postcat -bh has of it, with --from and --to";

/// How files begin that hold messages and are none, and what they are.
const FOREIGN: [(&[u8], &str); 18] = [
    (b"\xff\xfe", "it is UTF-16: write it anew as UTF-8"),
    (b"\xfe\xff", "it is UTF-16: write it anew as UTF-8"),
    (b"\x1f\x8b", "it is compressed by gzip: unpack it first"),
    (b"BZh", "it is compressed by bzip2: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "it is compressed by zstd: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "it is a 7-Zip archive: unpack it first"),
    (b"\xfd7zXZ\0", "it is compressed by xz: unpack it first"),
    (b"PK\x03\x04", "it is a zip archive: unpack it first"),
    (b"BABYL OPTIONS:", "it is a Babyl file of Emacs: convert it to a mailbox file, with b2m or another program"),
    (b"\x01\x01\x01\x01\n", "it is an MMDF mailbox: convert it to a mailbox file, with formail or another program"),
    (b"*mbx*\r\n", "it is a mailbox of the University of Washington's: convert it to a mailbox file, with mailutil"),
    (b"\xcf\xad\x12\xfe", "it is a mailbox of Outlook Express: convert it, with readdbx or another program"),
    (
        b"\xac\xed\0\x05",
        "it is the envelope of a mail in a repository of James's: name the .FileStreamStore beside it, with --from and --to",
    ),
    (b"C_", POSTFIX),
    (b"CZ", POSTFIX),
    (b"V8\nT", "it is a queue file of sendmail's, the message is in two files: let sendmail deliver it"),
    (b"!BDN", "it is a data file of Outlook: convert it, with readpst or another program"),
    (b"\xd0\xcf\x11\xe0", "it is a message file of Outlook: convert it, with msgconvert or another program"),
];

/// What a file is that tells it by the form of its first line.
fn foreign_first_line(start: &[u8]) -> Option<&'static str> {
    if start.contains(&b'\r') && !start.contains(&b'\n') {
        return Some("its lines end with CR alone: write it anew with LF, for instance by tr '\\r' '\\n'");
    }
    let mut lines = start.split(|&octet| octet == b'\n');
    let (first, second) = (lines.next()?.trim_ascii_end(), lines.next().unwrap_or_default());
    let is_number = !first.is_empty() && first.len() < 12 && first.iter().all(u8::is_ascii_digit);
    match first {
        // `1aBcDe-000001-AB-H`
        [.., b'-', b'H' | b'D'] if !first.contains(&b':') && first.split(|&octet| octet == b'-').count() == 4 => Some(
            "it is a spool file of Exim, the message is in two files: import what exim -Mvc has of it, with --from and --to",
        ),
        _ if is_number && second.contains(&b':') => {
            Some("it is a message file of Apple Mail, with more than the message: export it as .mbox")
        }
        _ => None,
    }
}

/// Passes over a byte order mark and the empty lines before a header.
fn pass_over_blank_lines(file: &mut impl BufRead) -> io::Result<()> {
    if file.fill_buf()?.starts_with("\u{feff}".as_bytes()) {
        file.consume("\u{feff}".len());
    }
    loop {
        let blank = match file.fill_buf()? {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => return Ok(()),
        };
        file.consume(blank);
    }
}

impl Marked {
    /// Why a file of this name is passed over: it bears the flags of a maildir behind `:2,`,
    /// or behind `;2,` or `!2,` where a file system has no colons.
    fn forbid(self, path: &Path) -> Option<&'static str> {
        let name = path.file_name()?.to_string_lossy();
        let (before, flags) = name.rsplit_once("2,")?;
        if !before.ends_with([':', ';', '!']) || !flags.bytes().all(|flag| flag.is_ascii_alphabetic()) {
            return None;
        }
        self.forbids(Marks { trash: flags.contains('T'), draft: flags.contains('D'), junk: false })
    }

    /// Why a message is passed over that was thrown away, is a draft, or was taken for junk.
    pub fn forbids(self, marks: Marks) -> Option<&'static str> {
        let Marks { trash, draft, junk } = marks;
        match () {
            () if junk && !self.trash => Some("it is marked as junk: --include-trash has it sent"),
            () if trash && !self.trash => Some("it is marked as deleted: --include-trash has it sent"),
            () if draft && !self.drafts => Some("it is marked as a draft: --include-drafts has it sent"),
            () => None,
        }
    }
}

impl Iterator for Sources {
    type Item = Found;

    /// The next file.
    fn next(&mut self) -> Option<Found> {
        loop {
            let waiting = self.waiting.pop_front()?;
            match self.look(&waiting) {
                Ok(Some(opened)) => return Some(Found::File(Box::new(opened))),
                Ok(None) => {}
                Err(why) => return Some(Found::Nothing(SourceError { path: waiting.into_path(), why })),
            }
        }
    }
}

impl Waiting {
    fn into_path(self) -> PathBuf {
        match self {
            Self::Named(path) | Self::Met(path) | Self::Delivered(path) | Self::PassedOver(path, _) => path,
        }
    }
}

/// Why a link that a folder has is not followed: whoever may write there would choose what is
/// read.
const LINK: &str = "it is a symbolic link: name what it points to";

/// Why a folder within a folder is not read: it may be another mailbox, for somebody else.
const FOLDER: &str = "it is a folder within a folder: name it to have it read";

fn open(waiting: &Waiting, path: &Path) -> io::Result<File> {
    let mut options = File::options();
    if !matches!(waiting, Waiting::Named(_)) {
        options.custom_flags(OFlag::O_NOFOLLOW.bits());
    }
    options.read(true).open(path)
}

/// What a folder has, in the order of names: of a maildir the new messages first.
fn inside(folder: &Path) -> io::Result<Vec<Waiting>> {
    let (new, cur) = (folder.join("new"), folder.join("cur"));
    if is_maildir(folder) {
        if let Some(link) = [&new, &cur].into_iter().find(|folder| folder.is_symlink()) {
            return Ok(vec![Waiting::PassedOver(link.clone(), LINK)]);
        }
        let messages = [visible(&new)?, visible(&cur)?].concat().into_iter().map(Waiting::Delivered);
        let others = entries(folder)?.into_iter().filter(|path| is_maildir(path));
        return Ok(messages.chain(others.map(|path| Waiting::PassedOver(path, FOLDER))).collect());
    }
    let found = visible(folder)?;
    if !found.iter().any(|path| named_eml(path)) {
        return Err(io::Error::other(
            "the folder is no maildir and has no .eml files: name the files in it that are to be read",
        ));
    }
    let one = |path: PathBuf| match () {
        () if named_eml(&path) => Waiting::Met(path),
        () if path.is_dir() => Waiting::PassedOver(path, FOLDER),
        () => Waiting::PassedOver(path, "it is not named .eml: name it to have it read"),
    };
    Ok(found.into_iter().map(one).collect())
}

fn is_maildir(path: &Path) -> bool {
    path.join("new").is_dir() && path.join("cur").is_dir()
}

fn visible(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = entries(folder)?;
    found.retain(|path| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')));
    Ok(found)
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    found.sort();
    Ok(found)
}

fn named_eml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("eml"))
}

impl Opened {
    /// Goes on to the next message; `false` behind the last.
    ///
    /// # Errors
    /// Where what follows cannot be read: nothing more of this file can be.
    pub fn advance(&mut self) -> Result<bool, SourceError> {
        let found = match &mut self.inside {
            Inside::Message(_) => Ok(self.number == 0),
            Inside::Mailbox(mailbox) => {
                let found = mailbox.advance();
                self.begins = Some(mailbox.line_number() + 1);
                found
            }
        };
        self.number += 1;
        found.map_err(|why| self.wrong(why))
    }

    /// Appends the next octets of the message; `false` at its end.
    ///
    /// # Errors
    /// As [`Opened::advance`].
    pub fn read(&mut self, message: &mut Vec<u8>) -> Result<bool, SourceError> {
        let read = match &mut self.inside {
            Inside::Message(file) => {
                file.take(PIECE as u64).read_to_end(message).map(|octets| octets > 0).map_err(MboxError::Io)
            }
            Inside::Mailbox(mailbox) => mailbox.read(message),
        };
        read.map_err(|why| self.wrong(why))
    }

    /// What to call the message: its file, and in a mailbox its number.
    pub fn name(&self) -> String {
        match self.inside {
            Inside::Message(_) => self.path.display().to_string(),
            Inside::Mailbox(_) => format!("{}: message {}", self.path.display(), self.number),
        }
    }

    /// The line of the file at which the message begins, in a mailbox.
    pub fn line(&self) -> Option<u64> {
        self.begins
    }

    fn wrong(&self, why: MboxError) -> SourceError {
        SourceError { path: PathBuf::from(self.name()), why: why.into() }
    }
}
