//! A file of aliases as other mailers have it (aliases(5)): `name: target, target ...`, lines
//! that begin with a blank go on, `#` begins a comment. Of the targets addresses and names are
//! followed; files, pipes and `:include:` are for mailers that deliver to this machine.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::{ANYBODY, Here};
use crate::files;
use crate::mail::Address;

/// What msmtp takes for everybody else.
const DEFAULT: &str = "default";

/// How far names are looked up again.
const DEPTH: usize = 10;

/// The file, read when it is first asked for and again when it has changed.
#[derive(Debug)]
pub(super) struct AliasesFile {
    path: PathBuf,
    /// What was read of which file; of none where it is not there.
    read: Mutex<Option<(Option<Stamp>, Arc<Table>)>>,
}

/// What tells a file from what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// The aliases of one file.
#[derive(Debug, Default)]
pub(super) struct Table {
    by_name: BTreeMap<String, Alias>,
    /// With their line numbers.
    passed_over: Vec<(usize, String)>,
}

/// An alias, and its line.
#[derive(Debug)]
struct Alias {
    line: usize,
    targets: Vec<Target>,
}

/// What an alias stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Address(Address),
    /// Looked up again.
    Name(String),
    /// Written with a backslash: not looked up again.
    Final(String),
}

impl AliasesFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, read: Mutex::default() }
    }

    /// What it says now; nothing where it cannot be read, which is told once.
    pub(super) fn table(&self) -> Arc<Table> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.path.metadata().ok().as_ref().map(Stamp::of);
        if let Some((_, table)) = read.as_ref().filter(|(of, _)| *of == stamp) {
            return Arc::clone(table);
        }
        let table = match files::read(&self.path, files::MOST) {
            Ok(text) => Table::parse(&String::from_utf8_lossy(&text)),
            Err(error) => {
                if read.is_some() {
                    tracing::warn!("{}", self.useless(&error));
                }
                Table::default()
            }
        };
        let table = Arc::new(table);
        *read = Some((stamp, Arc::clone(&table)));
        table
    }

    /// Why it is of no use, or what of it is not followed, a sentence each.
    pub(super) fn warnings(&self) -> Vec<String> {
        if let Err(error) = files::read(&self.path, files::MOST) {
            return vec![self.useless(&error)];
        }
        let told = |(line, what): &(usize, String)| format!("{}:{line}: {what}", self.path.display());
        self.table().passed_over.iter().map(told).collect()
    }

    fn useless(&self, error: &std::io::Error) -> String {
        format!(
            "{} cannot be read ({error}): mail for root and others whom sendmail.aliases does not name leaves for \
             NAME@HOST; write into it who gets it, such as root: admin@example.net",
            self.path.display()
        )
    }
}

impl Stamp {
    fn of(facts: &Metadata) -> Self {
        Self { inode: facts.ino(), size: facts.size(), modified: (facts.mtime(), facts.mtime_nsec()) }
    }
}

impl Table {
    fn parse(text: &str) -> Self {
        let mut table = Self::default();
        for (line, entry) in entries(text) {
            table.entry(line, &entry);
        }
        table.tell_circles();
        table
    }

    /// Each at the first of its lines. An alias that names itself means the user of that name.
    fn tell_circles(&mut self) {
        let circles = self.by_name.iter().filter_map(|(name, alias)| {
            let others = self.circle(name)?;
            let is_first = others.iter().all(|other| alias.line <= self.by_name[*other].line);
            let others = others.iter().map(|other| format!("{:?}", shown(other))).collect::<Vec<_>>().join(", ");
            let why = format!("comes back to itself by {others}: write an address into one of them");
            is_first.then(|| (alias.line, format!("alias {:?} {why}", shown(name))))
        });
        let circles: Vec<_> = circles.collect();
        self.passed_over.extend(circles);
        self.passed_over.sort_by_key(|(line, _)| *line);
    }

    /// The names by which one leads back to itself, as far as names are followed.
    fn circle<'a>(&'a self, name: &'a str) -> Option<Vec<&'a str>> {
        let mut led_by: HashMap<&str, &str> = HashMap::new();
        let mut waiting = VecDeque::from([(name, 0)]);
        while let Some((at, depth)) = waiting.pop_front() {
            for (next, _) in self.names_in(at) {
                if next == name && at != name {
                    let way = std::iter::successors(Some(at), |before| led_by.get(before).copied());
                    let mut way: Vec<_> = way.take_while(|one| *one != name).collect();
                    way.reverse();
                    return Some(way);
                }
                if next != name && depth < DEPTH && !led_by.contains_key(next) {
                    led_by.insert(next, at);
                    waiting.push_back((next, depth + 1));
                }
            }
        }
        None
    }

    /// The aliases that an alias names.
    fn names_in(&self, name: &str) -> impl Iterator<Item = (&str, &Alias)> {
        let targets = self.by_name.get(name).map_or(&[][..], |alias| &alias.targets);
        targets.iter().filter_map(|target| match target {
            Target::Name(name) => {
                self.by_name.get_key_value(&name.to_lowercase()).map(|(name, alias)| (name.as_str(), alias))
            }
            _ => None,
        })
    }

    fn entry(&mut self, line: usize, entry: &str) {
        let Some((name, targets)) = split_at_colon(entry) else {
            return self.pass_over(line, format!("{:?} is no alias: write it as name: address", shown(entry)));
        };
        let name = unquoted(name.trim()).to_lowercase();
        if !is_name(&name) {
            return self.pass_over(line, format!("{:?} cannot be an alias: it is no name", shown(&name)));
        }
        if targets.trim().is_empty() {
            self.pass_over(line, format!("alias {:?}: nobody stands there; write an address", shown(&name)));
        }
        if name == DEFAULT {
            let why = "names nobody but a user of this name: everybody else is written \"*\"";
            self.pass_over(line, format!("{:?} {why}", shown(&name)));
        }
        if self.by_name.contains_key(&name) {
            return self
                .pass_over(line, format!("the alias {:?} stands there a second time; the first counts", shown(&name)));
        }
        let mut read = Vec::new();
        for target in split_at_commas(targets) {
            match Target::parse(target.trim()) {
                Ok(target) => read.push(target),
                Err(why) => self.pass_over(line, format!("alias {:?}: {:?} {why}", shown(&name), shown(target.trim()))),
            }
        }
        self.by_name.insert(name, Alias { line, targets: read });
    }

    fn pass_over(&mut self, line: usize, why: String) {
        self.passed_over.push((line, why));
    }

    /// Those whom the alias stands for; `None` where there is none, or nobody is left of it.
    pub(super) fn expand(&self, name: &str, here: &Here) -> Option<Vec<Address>> {
        let found = self.follow(name, here, &mut vec![name.to_owned()])?;
        (!found.is_empty()).then_some(found)
    }

    /// `above` are the names that led here.
    fn follow(&self, name: &str, here: &Here, above: &mut Vec<String>) -> Option<Vec<Address>> {
        let targets = &self.by_name.get(name)?.targets;
        let mut found = Vec::new();
        for target in targets {
            match target {
                Target::Address(address) => found.push(address.clone()),
                Target::Final(name) => found.extend(here.completed(name)),
                Target::Name(name) => found.extend(self.named(name, here, above)),
            }
        }
        Some(found)
    }

    /// Those whom a name stands for that an alias stands for.
    fn named(&self, name: &str, here: &Here, above: &mut Vec<String>) -> Vec<Address> {
        let folded = name.to_lowercase();
        let aliases = &here.settings.aliases;
        if let Some(own) = aliases.get(&folded).filter(|_| folded != ANYBODY) {
            return own.clone();
        }
        let further = self.further(&folded, here, above);
        let anybody = || aliases.get(ANYBODY).cloned();
        further
            .or_else(anybody)
            .or_else(|| self.further(ANYBODY, here, above))
            .unwrap_or_else(|| here.completed(name).into_iter().collect())
    }

    /// Those whom the alias stands for, unless it led here.
    fn further(&self, name: &str, here: &Here, above: &mut Vec<String>) -> Option<Vec<Address>> {
        if above.len() >= DEPTH || above.iter().any(|known| known == name) {
            return None;
        }
        above.push(name.to_owned());
        let further = self.follow(name, here, above);
        above.pop();
        further.filter(|found| !found.is_empty())
    }
}

impl Target {
    /// The error says why it is not followed.
    fn parse(written: &str) -> Result<Self, &'static str> {
        let text = unquoted(written);
        if text.starts_with('|') {
            return Err("is a command: no mail is handed to commands here");
        }
        if text.starts_with('/') {
            return Err("is a file: no mail is written to files here");
        }
        if text.starts_with(":include:") {
            return Err("is a list in a file: write its addresses here");
        }
        if let Some(name) = text.strip_prefix('\\') {
            return is_name(name).then(|| Self::Final(name.to_owned())).ok_or("is no name");
        }
        let bare = text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text);
        if bare.contains('@') {
            return Address::parse(bare).map(Self::Address).map_err(|_| "is no address");
        }
        is_name(bare).then(|| Self::Name(bare.to_owned())).ok_or("is neither an address nor a name")
    }
}

fn is_name(text: &str) -> bool {
    Address::parse(&format!("{text}@x.example")).is_ok()
}

/// The entries with the number of their first line, each with the lines that go on from it.
fn entries(text: &str) -> Vec<(usize, String)> {
    let mut entries: Vec<(usize, String)> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        match entries.last_mut() {
            Some((_, entry)) if line.starts_with([' ', '\t']) => {
                entry.push(' ');
                entry.push_str(line.trim());
            }
            _ => entries.push((at + 1, line.trim().to_owned())),
        }
    }
    entries
}

/// The name and what stands behind its colon, which is none within quotes.
fn split_at_colon(entry: &str) -> Option<(&str, &str)> {
    let quoted = entry.strip_prefix('"').and_then(|rest| rest.find('"'));
    let from = quoted.map_or(0, |end| end + 2);
    let colon = entry[from..].find(':')? + from;
    (colon > 0).then(|| (&entry[..colon], &entry[colon + 1..]))
}

/// The targets: a comma within quotes parts nothing.
fn split_at_commas(targets: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let parts = targets.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    });
    parts.filter(|target| !target.trim().is_empty())
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// Short enough for a line of the log.
fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}
