//! The section `sendmail` of the configuration.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::ANYBODY;
use super::aliases::AliasesFile;
use crate::files;
use crate::mail::{Address, AddressError, Domain};
use crate::yaml::{Entry, Fields, Node, Value, boolean, text};

/// Where other mailers have their aliases.
const USUAL_ALIASES: &str = "/etc/aliases";

/// Where Debian keeps the domain of local names.
pub const MAILNAME: &str = "/etc/mailname";

/// What is submitted on this machine, and where mail for its users goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sendmail {
    /// Who stands on the envelope for users of this machine.
    pub from: Option<Address>,
    /// Whether `From:` is set with it.
    pub from_header: bool,
    /// By name, in lower case; `*` stands for everybody else.
    pub aliases: BTreeMap<String, Vec<Address>>,
    /// A file of more of them, as other mailers have it.
    pub aliases_file: Option<PathBuf>,
    /// What completes local names.
    pub domain: Option<Domain>,
}

impl Default for Sendmail {
    fn default() -> Self {
        Self { from: None, from_header: true, aliases: BTreeMap::new(), aliases_file: None, domain: None }
    }
}

impl Sendmail {
    /// Reads the section; what is wrong with it is noted.
    pub fn read(fields: Option<Fields<'_>>) -> Self {
        Self::read_with(Path::new(USUAL_ALIASES), fields)
    }

    /// `usual` is where other mailers have their aliases: whoever removes that file means no
    /// harm to mail.
    fn read_with(usual: &Path, fields: Option<Fields<'_>>) -> Self {
        let default = Self::default();
        let Some(mut fields) = fields else { return default };
        let found = Self {
            from: fields.optional("from", address),
            from_header: fields.optional("fromHeader", boolean).unwrap_or(default.from_header),
            aliases: fields.section("aliases").map(read_aliases).unwrap_or_default(),
            aliases_file: fields.file_at(usual, "aliasesFile"),
            domain: fields.optional("domain", domain),
        };
        fields.finish();
        found
    }

    /// Sentences for the operator: each says what is so, and what to do about it.
    pub fn warnings(&self) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(path) = &self.aliases_file {
            found.extend(AliasesFile::new(path.clone()).warnings());
        } else if self.aliases.is_empty() && Path::new(USUAL_ALIASES).exists() {
            found.push(format!(
                "{USUAL_ALIASES} is not looked at: mail for root and other users of this machine leaves for NAME@HOST; \
                 set sendmail.aliasesFile: {USUAL_ALIASES}, or sendmail.aliases"
            ));
        }
        found.extend(self.domain.is_none().then(useless_mailname).flatten());
        found
    }
}

/// That the file is there and of no use.
fn useless_mailname() -> Option<String> {
    let error = files::read_text(Path::new(MAILNAME)).err().filter(|error| error.kind() != ErrorKind::NotFound)?;
    Some(format!(
        "{MAILNAME} cannot be read ({error}), so that 'hostname' completes local names: or set sendmail.domain"
    ))
}

fn address(node: &Node) -> Result<Address, String> {
    let written = text(node)?;
    Address::parse(&written).map_err(|error| match error {
        AddressError::NoDomain => {
            format!("{written:?} has no domain: write where the mail goes, such as ops@example.net")
        }
        error => format!("{written:?}: {error}"),
    })
}

fn domain(node: &Node) -> Result<Domain, String> {
    Domain::parse(&text(node)?).map_err(|error| format!("{error}: write a name such as example.org"))
}

fn read_aliases(mut fields: Fields<'_>) -> BTreeMap<String, Vec<Address>> {
    let mut aliases = BTreeMap::new();
    for entry in fields.rest() {
        let targets = fields.reading().list(&entry.value, address);
        if let Some(problem) = alias_problem(entry, &aliases) {
            fields.reading().problem(entry.key_place, problem);
        } else if matches!(&entry.value.value, Value::Sequence(items) if items.is_empty()) {
            fields.reading().problem(entry.value.place, "nobody stands here: write an address, or leave the alias out");
        } else {
            aliases.insert(entry.key.to_lowercase(), targets);
        }
    }
    aliases
}

/// What is wrong with the name of an alias.
fn alias_problem(entry: &Entry, aliases: &BTreeMap<String, Vec<Address>>) -> Option<String> {
    let key = &entry.key;
    if aliases.contains_key(&key.to_lowercase()) {
        return Some(format!("the alias '{key}' stands here a second time: names are compared without case"));
    }
    let is_name = key == ANYBODY || !key.contains('@') && Address::parse(&format!("{key}@x.example")).is_ok();
    (!is_name).then(|| format!("'{key}' cannot be an alias: write the name alone, without a domain"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::yaml::{Document, Reading};

    fn read(usual: &Path, yaml: &str) -> (Sendmail, bool) {
        let document = Document::parse(Path::new("redeliver.yaml"), yaml.as_bytes()).expect("YAML");
        let reading = Reading::new(Path::new("redeliver.yaml"));
        let found = Sendmail::read_with(usual, Fields::of(document.root(), "the section", &reading));
        (found, reading.is_clean())
    }

    #[test]
    fn the_usual_file_of_aliases_may_be_away_and_that_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("closed"), "root: a@x.example\n").expect("written");
        std::fs::set_permissions(path("closed"), std::fs::Permissions::from_mode(0o000)).expect("its owner");
        std::fs::create_dir(path("folder")).expect("made");
        std::os::unix::fs::symlink("nowhere", path("dangling")).expect("linked");
        for name in ["away", "dangling", "folder", "closed", "below/none/of/it"] {
            let yaml = format!("aliasesFile: '{}'", path(name).display());
            let (found, is_clean) = read(&path(name), &yaml);
            assert!(is_clean && found.aliases_file == Some(path(name)), "{name}");
            // Root reads what is closed.
            let warnings = found.warnings();
            let is_read = std::fs::read(path(name)).is_ok();
            let says = |text: &String| text.contains(&path(name).display().to_string()) && text.contains("root: ");
            assert!(is_read || warnings.len() == 1 && warnings.iter().all(says), "{name}: {warnings:?}");
            let (found, is_clean) = read(Path::new("/elsewhere"), &yaml);
            assert!(found.aliases_file == Some(path(name)) && is_clean == (name == "closed" && is_read), "{name}");
        }
    }
}
