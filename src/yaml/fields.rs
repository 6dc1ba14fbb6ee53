//! Taking a mapping apart by the names of its keys.

use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{Entry, Node, Place, Value, secret_text, text};
use crate::files;

/// One file while it is read: where its relative paths begin, and what is wrong so far.
#[derive(Debug)]
pub struct Reading {
    base: PathBuf,
    problems: RefCell<Vec<Problem>>,
}

/// What is wrong at one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Problem {
    pub(super) place: Place,
    pub(super) message: String,
    pub(super) weight: Weight,
}

/// What a problem means for a message that is handed in meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// The configuration is wrong.
    Wrong,
    /// It is only that this user may not read a file.
    Forbidden,
    /// It goes without that.
    Beside,
}

impl Reading {
    /// A reading of `file`: relative paths in it are relative to its folder.
    pub fn new(file: &Path) -> Self {
        let base = file.parent().unwrap_or(Path::new("")).to_owned();
        Self { base, problems: RefCell::default() }
    }

    /// Notes that something is wrong at `place`.
    pub fn problem(&self, place: Place, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { place, message: message.into(), weight: Weight::Wrong });
    }

    /// Notes that a file named at `place` cannot be read.
    fn unreadable(&self, place: Place, path: &Path, error: &std::io::Error) {
        let forbidden = error.kind() == std::io::ErrorKind::PermissionDenied;
        let weight = if forbidden { Weight::Forbidden } else { Weight::Wrong };
        let message = format!("{} cannot be read: {error}", path.display());
        self.problems.borrow_mut().push(Problem { place, message, weight });
    }

    /// From here on, what was noted since `from` problems were is no reason to refuse a
    /// message.
    fn make_light(&self, from: usize) {
        for problem in &mut self.problems.borrow_mut()[from..] {
            problem.weight = Weight::Beside;
        }
    }

    /// Whether nothing is wrong so far.
    pub fn is_clean(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    /// A path as it is meant: relative to the file it stands in.
    pub fn path(&self, written: &str) -> PathBuf {
        let joined = self.base.join(written);
        let plain: PathBuf = joined.components().filter(|part| *part != Component::CurDir).collect();
        if plain.as_os_str().is_empty() { PathBuf::from(".") } else { plain }
    }

    /// Reads one value; what is wrong with it is noted.
    pub fn value<T>(&self, node: &Node, reader: impl Fn(&Node) -> Result<T, String>) -> Option<T> {
        reader(node).map_err(|message| self.problem(node.place, message)).ok()
    }

    /// Reads a list, or a single value as a list of one.
    pub fn list<T>(&self, node: &Node, reader: impl Fn(&Node) -> Result<T, String>) -> Vec<T> {
        match &node.value {
            Value::Sequence(items) => items.iter().filter_map(|item| self.value(item, &reader)).collect(),
            _ => self.value(node, reader).into_iter().collect(),
        }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }
}

/// The keys of one mapping. Every key asked for is a known one; what was never asked for is
/// told by [`Fields::finish`].
pub struct Fields<'a> {
    reading: &'a Reading,
    entries: &'a [Entry],
    place: Place,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Takes a mapping; anything else is noted as wrong, `what` being what it should be.
    pub fn of(node: &'a Node, what: &str, reading: &'a Reading) -> Option<Self> {
        let Value::Mapping(entries) = &node.value else {
            let message = format!("{what} is expected here as keys and values, not {}", node.described());
            reading.problem(node.place, message);
            return None;
        };
        Some(Self { reading, entries, place: node.place, known: Vec::new() })
    }

    /// The reading these fields are part of.
    pub fn reading(&self) -> &'a Reading {
        self.reading
    }

    /// Where the mapping begins.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The names of all keys, in their order.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.entries.iter().map(|entry| entry.key.as_str())
    }

    /// The entry of a key, where it is there.
    pub fn entry(&mut self, name: &'static str) -> Option<&'a Entry> {
        if !self.known.contains(&name) {
            self.known.push(name);
        }
        self.entries.iter().find(|entry| entry.key == name)
    }

    /// The node of a key, where it is there.
    pub fn node(&mut self, name: &'static str) -> Option<&'a Node> {
        self.entry(name).map(|entry| &entry.value)
    }

    /// Whether a key is there, whatever its value is worth.
    pub fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == name)
    }

    /// The node of a key, where it is there and somebody asked for it.
    pub fn node_if_known(&self, name: &str) -> Option<&'a Node> {
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        self.known.contains(&name).then_some(&entry.value)
    }

    /// An optional value; what is wrong with it is noted.
    pub fn optional<T>(&mut self, name: &'static str, reader: impl Fn(&Node) -> Result<T, String>) -> Option<T> {
        let node = self.node(name)?;
        self.reading.value(node, reader)
    }

    /// A value that must be there.
    pub fn required<T>(&mut self, name: &'static str, reader: impl Fn(&Node) -> Result<T, String>) -> Option<T> {
        let Some(node) = self.node(name) else {
            self.reading.problem(self.place, format!("key '{name}' is missing"));
            return None;
        };
        self.reading.value(node, reader)
    }

    /// A list, or a single value as a list of one; `None` where the key is absent.
    pub fn list<T>(&mut self, name: &'static str, reader: impl Fn(&Node) -> Result<T, String>) -> Option<Vec<T>> {
        let node = self.node(name)?;
        Some(self.reading.list(node, reader))
    }

    /// The fields of a mapping within this one.
    pub fn section(&mut self, name: &'static str) -> Option<Fields<'a>> {
        let node = self.node(name)?;
        Fields::of(node, &format!("'{name}'"), self.reading)
    }

    /// A path, relative to the file it stands in.
    pub fn path(&mut self, name: &'static str) -> Option<PathBuf> {
        self.optional(name, text).map(|written| self.reading.path(&written))
    }

    /// The path of a file that can be opened for reading.
    pub fn file(&mut self, name: &'static str) -> Option<PathBuf> {
        self.placed_file(name).map(|(_, path)| path)
    }

    /// As [`Fields::file`], of a file that things go on without: the path is returned though
    /// the file cannot be read now.
    pub fn file_beside(&mut self, name: &'static str) -> Option<PathBuf> {
        let before = self.reading.problems.borrow().len();
        let found = self.file(name);
        self.reading.make_light(before);
        found.or_else(|| Some(self.reading.path(self.node(name)?.as_text()?)))
    }

    /// As [`Fields::file`], of a file at `usual` that need not be there, or be readable: who
    /// uses it says so then.
    pub fn file_at(&mut self, usual: &Path, name: &'static str) -> Option<PathBuf> {
        let written = self.node(name).and_then(Node::as_text);
        match written.map(|written| self.reading.path(written)) {
            Some(path) if path == usual => Some(path),
            _ => self.file_beside(name),
        }
    }

    /// A file, and where it is named.
    fn placed_file(&mut self, name: &'static str) -> Option<(Place, PathBuf)> {
        let node = self.node(name)?;
        let path = self.reading.path(&self.reading.value(node, text)?);
        match files::open(&path).and_then(|file| file.metadata()) {
            Ok(facts) if facts.len() > files::MOST => {
                let message = format!("{} is larger than {} MiB: is it the file?", path.display(), files::MOST >> 20);
                self.reading.problem(node.place, message);
            }
            Ok(_) => return Some((node.place, path)),
            Err(error) if error.kind() == std::io::ErrorKind::IsADirectory => {
                self.reading.problem(node.place, format!("{} is a folder", path.display()));
            }
            Err(error) => self.reading.unreadable(node.place, &path, &error),
        }
        None
    }

    /// A PEM file of at least one certificate.
    pub fn certificates(&mut self, name: &'static str) -> Option<PathBuf> {
        self.pem(name, "certificate", |path| match CertificateDer::pem_file_iter(path)?.next() {
            Some(first) => first.map(drop),
            None => Err(pem::Error::NoItemsFound),
        })
    }

    fn pem(
        &mut self,
        name: &'static str,
        what: &str,
        read: impl Fn(&Path) -> Result<(), pem::Error>,
    ) -> Option<PathBuf> {
        let (place, path) = self.placed_file(name)?;
        let wrong = match read(&path) {
            Ok(()) => return Some(path),
            Err(pem::Error::NoItemsFound) => format!("there is no {what} in {}", path.display()),
            Err(error) => format!("{}: {error}", path.display()),
        };
        self.reading.problem(place, wrong);
        None
    }

    /// The lines of the file that a key names, without empty ones; for secrets that are
    /// kept out of the configuration.
    pub fn lines_of_file(&mut self, name: &'static str) -> Option<Vec<String>> {
        let (place, path) = self.placed_file(name)?;
        let content = match files::read_text(&path) {
            Ok(content) => content,
            Err(error) => {
                self.reading.unreadable(place, &path, &error);
                return None;
            }
        };
        let lines: Vec<_> = content.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        if lines.is_empty() {
            self.reading.problem(place, format!("{} is empty", path.display()));
            return None;
        }
        Some(lines)
    }

    /// A file that nobody but its user and group may read or write: where it is named, its
    /// path, and what is in it.
    pub fn private_file(&mut self, name: &'static str) -> Option<(Place, PathBuf, Vec<u8>)> {
        let (place, path) = self.placed_file(name)?;
        let read = std::fs::metadata(&path)
            .and_then(|facts| Ok((facts.permissions().mode(), files::read(&path, files::MOST)?)));
        match read {
            Ok((mode, _)) if mode & 0o007 != 0 => {
                let message =
                    format!("{} is open to others (mode {:04o}): chmod 640 it, or 600", path.display(), mode & 0o7777);
                self.reading.problem(place, message);
                None
            }
            Ok((_, octets)) => Some((place, path, octets)),
            Err(error) => {
                self.reading.unreadable(place, &path, &error);
                None
            }
        }
    }

    /// A secret that stands in the file itself under `name`, or alone in the file that
    /// `name_file` names.
    pub fn secret(&mut self, name: &'static str, name_file: &'static str) -> Option<String> {
        let written = self.optional(name, secret_text);
        let place = self.node(name_file).map(|node| node.place);
        let lines = self.lines_of_file(name_file);
        match (written, lines, place) {
            (Some(_), _, Some(place)) => {
                self.reading.problem(place, format!("'{name}' says the same: leave one out"));
                None
            }
            (None, Some(lines), Some(place)) if lines.len() > 1 => {
                self.reading.problem(place, "the file has more than one line");
                None
            }
            (written, lines, _) => written.or_else(|| lines?.into_iter().next()),
        }
    }

    /// The files of a certificate chain and its key, which belong together.
    pub fn certificate(&mut self) -> (Option<PathBuf>, Option<PathBuf>) {
        let key = |path: &Path| PrivateKeyDer::from_pem_file(path).map(drop);
        let pair = (self.certificates("certificate"), self.pem("key", "private key", key));
        if self.has("certificate") != self.has("key") {
            self.reading.problem(self.place, "'certificate' and 'key' belong together");
        }
        pair
    }

    /// The entries that nobody asked for; they count as known from now on.
    pub fn rest(&mut self) -> Vec<&'a Entry> {
        let rest = self.entries.iter().filter(|entry| !self.known.contains(&entry.key.as_str())).collect();
        self.entries = &[];
        rest
    }

    /// Tells every key that nobody asked for, with the nearest that somebody did.
    pub fn finish(self) {
        self.finish_with(&[]);
    }

    /// As [`Fields::finish`]; `elsewhere` says of keys that belong to another place to which.
    pub fn finish_with(self, elsewhere: &[(&str, &str)]) {
        for entry in self.entries.iter().filter(|entry| !self.known.contains(&entry.key.as_str())) {
            let place = elsewhere.iter().find(|(key, _)| *key == entry.key).map(|(_, place)| place);
            let hint = match (place, nearest(&entry.key, self.known.iter().copied())) {
                (Some(place), _) => format!("it stands {place}"),
                (None, Some(name)) => format!("did you mean '{name}'?"),
                (None, None) => format!("known are {}", self.known.join(", ")),
            };
            self.reading.problem(entry.key_place, format!("unknown key '{}': {hint}", entry.key));
        }
    }
}

/// The name that was most likely meant by `written`, where one is near enough.
pub fn nearest<'n>(written: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let folded = written.to_lowercase();
    let most = 1 + written.chars().count() / 4;
    let near = names.into_iter().map(|name| (distance(&folded, &name.to_lowercase()), name));
    near.min_by_key(|(distance, _)| *distance).filter(|(distance, _)| *distance <= most).map(|(_, name)| name)
}

/// Letters to add, remove or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::super::{Document, boolean, integer};
    use super::*;

    #[test]
    fn all_that_is_wrong_in_a_mapping_is_told_at_once() {
        let text = b"portt: 25\nflag: no\nlist: [1, x]\nsub: [a]\nnumber: 70000\nwhatever: 1\n";
        let document = Document::parse(Path::new("f"), text).expect("parses");
        let reading = Reading::new(Path::new("f"));
        let mut fields = Fields::of(document.root(), "a test", &reading).expect("a mapping");
        assert_eq!(fields.optional("port", integer(1_u16..=65535)), None);
        assert_eq!(fields.optional("flag", boolean), None);
        assert_eq!(fields.list("list", integer(1..=9)), Some(vec![1]));
        assert!(fields.section("sub").is_none());
        assert_eq!(fields.optional("number", integer(1_u16..=65535)), None);
        assert_eq!(fields.required("missing", text_reader), None);
        fields.finish();
        let told: Vec<_> = document.diagnostics(reading).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "f:1:1: key 'missing' is missing",
                "f:1:1: unknown key 'portt': did you mean 'port'?",
                "f:2:7: true or false is expected here, not the text \"no\"",
                "f:3:11: a whole number from 1 to 9 is expected here, not the text \"x\"",
                "f:4:6: 'sub' is expected here as keys and values, not a list",
                "f:5:9: a whole number from 1 to 65535 is expected here, not the number 70000",
                "f:6:1: unknown key 'whatever': known are port, flag, list, sub, number, missing",
            ]
        );
    }

    fn text_reader(node: &Node) -> Result<String, String> {
        text(node)
    }

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["repositoryPath", "RemoteDelivery", "ToRepository", "Null"];
        for (written, meant) in [
            ("RemoteDelivry", Some("RemoteDelivery")),
            ("repositorypath", Some("repositoryPath")),
            ("nul", Some("Null")),
            ("Bounce", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, names), meant, "{written}");
        }
    }
}
