//! This machine, as far as addresses go: its names, its users, and where their mail goes.

mod aliases;
mod config;

use std::sync::Arc;

use crate::mail::{Address, AddressError, Domain, ReversePath};
use crate::mail::{AddressListError, parse_list};
use aliases::AliasesFile;

pub use config::{MAILNAME, Sendmail};

/// Everybody else, among the aliases.
const ANYBODY: &str = "*";

/// Known on every machine (RFC 5321 section 4.5.1).
const POSTMASTER: &str = "postmaster";

/// Every machine, on itself.
const LOOPBACK: [&str; 2] = ["localhost", "localhost.localdomain"];

/// What the system calls itself.
#[derive(Debug, Clone, Default)]
pub struct SystemNames {
    /// In addresses.
    pub mailname: Option<Domain>,
    /// To its programs, which write it into addresses.
    pub nodename: Option<Domain>,
}

/// This machine. Its users may be named without a domain, as cron names them; a word that is
/// neither an alias nor a user stays what it is, a mistake.
#[derive(Debug, Clone)]
pub struct Here {
    /// Our name, in trace fields and the like.
    pub hostname: Domain,
    /// What completes local names.
    domain: Domain,
    /// What else it is called, in lower case: on itself, and by its programs.
    other_names: Vec<String>,
    /// Whether there is such a user.
    is_user: fn(&str) -> bool,
    settings: Arc<Sendmail>,
    aliases_file: Option<Arc<AliasesFile>>,
}

impl Here {
    /// A machine without settings of its own.
    pub fn new(hostname: Domain, is_user: fn(&str) -> bool) -> Self {
        Self::configured(hostname, SystemNames::default(), Sendmail::default(), is_user)
    }

    /// A machine with these settings.
    pub fn configured(hostname: Domain, system: SystemNames, settings: Sendmail, is_user: fn(&str) -> bool) -> Self {
        // A word can be nobody's domain out there: the name that has a dot is meant.
        let has_dot = |name: &Domain| name.as_str().contains('.');
        let other_names = other_names(&hostname, &system);
        let mailname = system.mailname.filter(|name| has_dot(name) || !has_dot(&hostname));
        let domain = settings.domain.clone().or(mailname).unwrap_or_else(|| hostname.clone());
        let aliases_file = settings.aliases_file.clone().map(|path| Arc::new(AliasesFile::new(path)));
        Self { hostname, domain, other_names, is_user, settings: Arc::new(settings), aliases_file }
    }

    /// The recipients that a list names, each for itself or for those its alias stands for.
    pub(super) fn list(&self, text: &str) -> Result<Vec<Address>, AddressListError> {
        parse_list(text, &|word| self.recipients(word))
    }

    /// Reads one recipient: an address, or the name of a user or alias.
    ///
    /// # Errors
    /// As [`Address::parse`]; a word that is nobody here has no domain.
    pub(super) fn recipients(&self, text: &str) -> Result<Vec<Address>, AddressError> {
        match Address::parse(text) {
            Ok(address) => Ok(self.followed(address)),
            Err(AddressError::NoDomain) if self.is_name(text) => self.completed(text).map(|own| self.with_domain(own)),
            Err(error) => {
                let meant = carelessly_written(text).ok_or(error)?;
                Ok(meant.into_iter().flat_map(|address| self.followed(address)).collect())
            }
        }
    }

    /// An address, or those whom it stands for.
    fn followed(&self, address: Address) -> Vec<Address> {
        if self.is_ours(&address) { self.with_domain(address) } else { vec![address] }
    }

    /// Reads senders: an address each, or the name of a user or alias.
    pub(super) fn senders(&self, text: &str) -> Result<Vec<Address>, AddressListError> {
        parse_list(text, &|word| self.sender(word).map(|sender| vec![sender]))
    }

    /// Reads one sender. A word is somebody of this machine, whether it knows him or not: no mail
    /// is lost for what a program calls itself.
    ///
    /// # Errors
    /// As [`Address::parse`].
    pub(super) fn sender(&self, text: &str) -> Result<Address, AddressError> {
        match Address::parse(text) {
            Err(AddressError::NoDomain) if self.is_name(text) => self.completed(text),
            Err(error @ AddressError::NoDomain) if !text.contains('@') => {
                let own = self.completed(text).map_err(|_| error)?;
                Ok(self.settings.from.clone().unwrap_or(own))
            }
            Err(error) => match carelessly_written(text).as_deref() {
                Some([one]) => Ok(one.clone()),
                _ => Err(error),
            },
            read => read,
        }
    }

    /// Whether the word is somebody on this machine.
    pub(super) fn is_name(&self, word: &str) -> bool {
        let is_word = !word.is_empty() && !word.contains('@');
        is_word && (self.is_known(word) || self.alias(word).is_some())
    }

    fn is_known(&self, word: &str) -> bool {
        let is_user = |word: &str| (self.is_user)(word);
        word.eq_ignore_ascii_case(POSTMASTER) || is_user(word) || is_user(&word.to_lowercase())
    }

    /// A local name with our domain.
    ///
    /// # Errors
    /// Where that is no address.
    pub fn completed(&self, word: &str) -> Result<Address, AddressError> {
        Address::parse(&format!("{word}@{}", self.domain))
    }

    /// Whether its domain is one of this machine's names.
    fn is_ours(&self, address: &Address) -> bool {
        let domain = address.domain().folded();
        domain == self.domain.folded() || self.is_host(&domain)
    }

    /// Whether it is a name of the machine itself, at which nobody else has a mailbox.
    fn is_host(&self, domain: &str) -> bool {
        domain == self.hostname.folded() || self.other_names.iter().any(|name| name == domain)
    }

    /// Where the mail for an address of ours goes.
    fn with_domain(&self, own: Address) -> Vec<Address> {
        self.alias(own.local_part()).or_else(|| self.anybody()).unwrap_or_else(|| vec![own])
    }

    /// Whom the mail for everybody else goes to.
    fn anybody(&self) -> Option<Vec<Address>> {
        let own = self.settings.aliases.get(ANYBODY).cloned();
        own.or_else(|| self.aliases_file.as_ref()?.table().expand(ANYBODY, self))
    }

    /// Whom what is sent back to an address goes to; `None` where it is of this machine alone and
    /// stands for nobody.
    pub fn addressees(&self, sender: &Address) -> Option<Vec<Address>> {
        if !self.is_ours(sender) {
            return Some(vec![sender.clone()]);
        }
        let known = self.alias(sender.local_part()).or_else(|| self.anybody());
        known.or_else(|| (!self.is_own_user(sender)).then(|| vec![sender.clone()]))
    }

    /// What the alias stands for; those of the configuration come first, and are final.
    fn alias(&self, name: &str) -> Option<Vec<Address>> {
        let folded = name.to_lowercase();
        if folded == ANYBODY {
            return None;
        }
        let own = self.settings.aliases.get(&folded).cloned();
        own.or_else(|| self.aliases_file.as_ref()?.table().expand(&folded, self))
    }

    /// Whether it is a user of this machine, of whom nobody elsewhere knows.
    fn is_own_user(&self, address: &Address) -> bool {
        let domain = address.domain().folded();
        // The domain may have people of its own.
        let has_people = domain == self.domain.folded() && domain != self.hostname.folded();
        if has_people { self.is_known(address.local_part()) } else { self.is_host(&domain) }
    }

    /// Who is to stand on the envelope where `named` was named, and whether that is the
    /// configuration's sender in his place. `None` where nobody was named and nobody is set.
    pub(super) fn reverse_path(&self, named: Option<ReversePath>) -> Option<ReversePath> {
        match (&named, &self.settings.from) {
            (Some(ReversePath::Null), _) | (_, None) => named,
            (Some(ReversePath::Address(address)), Some(_)) if !self.is_own_user(address) => named,
            (_, Some(from)) => Some(ReversePath::Address(from.clone())),
        }
    }

    /// Who is to stand in `From:` in place of this address.
    pub(super) fn instead_of(&self, address: &Address) -> Option<&Address> {
        let from = self.settings.from.as_ref().filter(|_| self.settings.from_header);
        from.filter(|from| self.is_own_user(address) && from.mailbox() != address.mailbox())
    }
}

/// What else a machine is called, in lower case. Its programs write the first word of its name too.
fn other_names(hostname: &Domain, system: &SystemNames) -> Vec<String> {
    let first_word = |name: &str| name.split('.').next().map(str::to_owned).filter(|_| !name.starts_with('['));
    let own = [system.mailname.as_ref(), system.nodename.as_ref()].into_iter().flatten().map(Domain::folded);
    let short = [Some(hostname), system.nodename.as_ref()].into_iter().flatten();
    let short = short.filter_map(|name| first_word(&name.folded()));
    LOOPBACK.map(str::to_owned).into_iter().chain(own).chain(short).collect()
}

/// Addresses that nobody can mistake, though no list is written so: in quotes, with a bracket
/// that nothing opens or closes, several with nothing but blanks between them.
fn carelessly_written(text: &str) -> Option<Vec<Address>> {
    let marks = ['\'', '"', '<', '>', '[', ']'];
    let read = |word: &str| Address::parse(word).or_else(|_| Address::parse(word.trim_matches(marks))).ok();
    text.split_whitespace().map(read).collect::<Option<Vec<_>>>().filter(|found| !found.is_empty())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::yaml::{Document, Fields, Reading};

    fn settings(yaml: &str) -> Sendmail {
        let document = Document::parse(Path::new("f"), yaml.as_bytes()).expect("YAML");
        let reading = Reading::new(Path::new("f"));
        let settings = Sendmail::read(Fields::of(document.root(), "a test", &reading));
        let wrong: Vec<_> = document.diagnostics(reading).iter().map(ToString::to_string).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        settings
    }

    fn here(yaml: &str) -> Here {
        let hostname = Domain::parse("web1.example.org").expect("a domain");
        let system = SystemNames { mailname: None, nodename: Domain::parse("Box.example.com").ok() };
        Here::configured(hostname, system, settings(yaml), |name| matches!(name, "root" | "anna"))
    }

    fn told(here: &Here, text: &str) -> String {
        match here.list(text) {
            Ok(found) => found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_local_recipient_goes_where_his_alias_says() {
        let plain = here("domain: example.org");
        let one = here("aliases: { root: admin@example.net, Deploy: [a@x.example, b@x.example] }");
        let all = here("{ domain: example.org, aliases: { '*': ops@example.net, root: admin@example.net } }");
        let nobody = "\"nobody\": the address has no domain: write it as local-part@domain";
        for (text, plainly, with_some, with_all) in [
            ("root", "root@example.org", "admin@example.net", "admin@example.net"),
            ("ROOT@Web1.example.ORG", "ROOT@Web1.example.ORG", "admin@example.net", "admin@example.net"),
            ("anna", "anna@example.org", "anna@web1.example.org", "ops@example.net"),
            ("anna@example.org", "anna@example.org", "anna@example.org", "ops@example.net"),
            ("nobody", nobody, nobody, nobody),
            ("nobody@web1.example.org", "nobody@web1.example.org", "nobody@web1.example.org", "ops@example.net"),
            ("postmaster", "postmaster@example.org", "postmaster@web1.example.org", "ops@example.net"),
            ("other@x.example", "other@x.example", "other@x.example", "other@x.example"),
            ("root@localhost", "root@localhost", "admin@example.net", "admin@example.net"),
            ("root@web1", "root@web1", "admin@example.net", "admin@example.net"),
            ("*@example.org", "*@example.org", "*@example.org", "ops@example.net"),
            ("Anna", "Anna@example.org", "Anna@web1.example.org", "ops@example.net"),
            ("root@box", "root@box", "admin@example.net", "admin@example.net"),
            ("root@web", "root@web", "root@web", "root@web"),
            ("'a@x.example'", "a@x.example", "a@x.example", "a@x.example"),
            ("\"a@x.example\"", "a@x.example", "a@x.example", "a@x.example"),
            (
                "a@x.example b@x.example",
                "a@x.example b@x.example",
                "a@x.example b@x.example",
                "a@x.example b@x.example",
            ),
            ("'root@localhost'", "root@localhost", "admin@example.net", "admin@example.net"),
            ("a@x.example>", "a@x.example", "a@x.example", "a@x.example"),
            ("[a@x.example]", "a@x.example", "a@x.example", "a@x.example"),
            ("\"a b\"@x.example", "\"a b\"@x.example", "\"a b\"@x.example", "\"a b\"@x.example"),
            (
                "deploy, root (Cron)",
                "\"deploy\": the address has no domain: write it as local-part@domain",
                "a@x.example b@x.example admin@example.net",
                "\"deploy\": the address has no domain: write it as local-part@domain",
            ),
        ] {
            assert_eq!(told(&plain, text), plainly, "{text} without aliases");
            assert_eq!(told(&one, text), with_some, "{text} with aliases");
            assert_eq!(told(&all, text), with_all, "{text} with an alias for all");
        }
    }

    #[test]
    fn a_sender_of_this_machine_is_replaced_where_that_is_set() {
        let here = here("{ from: relay@example.com, domain: example.org }");
        for (named, expected) in [
            (None, "relay@example.com"),
            (Some("<>"), "<>"),
            (Some("root@example.org"), "relay@example.com"),
            (Some("whoever@web1.example.org"), "relay@example.com"),
            (Some("people@example.org"), "people@example.org"),
            (Some("a@x.example"), "a@x.example"),
            (Some("www-data@web1"), "relay@example.com"),
            (Some("www-data@box"), "relay@example.com"),
            (Some("www-data@box.example.com"), "relay@example.com"),
            (Some("root@localhost"), "relay@example.com"),
        ] {
            let named = named.map(|text| ReversePath::parse(text).expect(text));
            assert_eq!(
                here.reverse_path(named.clone()).map(|path| path.to_string()).as_deref(),
                Some(expected),
                "{named:?}"
            );
        }
        assert_eq!(Here::new(here.hostname.clone(), |_| true).reverse_path(None), None);
        // A word without a domain is nobody of elsewhere.
        assert_eq!(here.sender("backup").map(|sender| sender.to_string()), Ok("relay@example.com".to_owned()));
        assert_eq!(here.sender("root").map(|sender| sender.to_string()), Ok("root@example.org".to_owned()));
        assert_eq!(here.sender("Backup Job"), Err(AddressError::NoDomain));
        assert_eq!(here.sender("'a@x.example'").map(|sender| sender.to_string()), Ok("a@x.example".to_owned()));
        assert!(here.sender("a@x.example b@x.example").is_err());
    }

    #[test]
    fn a_mailname_without_a_dot_is_no_domain_where_the_host_has_one() {
        let domain = |hostname: &str, mailname: &str, yaml: &str| {
            let parse = |text: &str| Domain::parse(text).expect("a domain");
            let system = SystemNames { mailname: Some(parse(mailname)), nodename: None };
            let here = Here::configured(parse(hostname), system, settings(yaml), |_| true);
            here.completed("root").expect("an address").to_string()
        };
        assert_eq!(domain("web1.example.org", "example.net", "{}"), "root@example.net");
        assert_eq!(domain("web1.example.org", "web1", "{}"), "root@web1.example.org");
        assert_eq!(domain("web1", "box", "{}"), "root@box");
        assert_eq!(domain("web1.example.org", "example.net", "domain: example.com"), "root@example.com");
    }

    #[test]
    fn the_file_of_aliases_may_name_everybody_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("aliases");
        let file = format!("aliasesFile: '{}'", path.display());
        for (text, settings, anna, root, webmaster) in [
            (
                "*: ops@x.example\nroot: r@x.example\nwebmaster: anna\n",
                "",
                "ops@x.example",
                "r@x.example",
                "ops@x.example",
            ),
            ("*: root\n", "", "root@web1.example.org", "root@web1.example.org", "-"),
            ("*: anna\nanna: nobody\n", "", "anna@web1.example.org", "nobody@web1.example.org", "-"),
            ("*: ops@x.example\n", "aliases: { '*': first@x.example }", "first@x.example", "first@x.example", "-"),
            ("default: ops@x.example\n", "", "anna@web1.example.org", "root@web1.example.org", "-"),
        ] {
            std::fs::write(&path, text).expect("written");
            let here = here(&[file.as_str(), settings].join("\n"));
            assert_eq!((told(&here, "anna").as_str(), told(&here, "root").as_str()), (anna, root), "{text}");
            let nobody = "\"webmaster\": the address has no domain: write it as local-part@domain";
            assert_eq!(told(&here, "webmaster"), if webmaster == "-" { nobody } else { webmaster }, "{text}");
            let warned = here.settings.warnings();
            assert_eq!(
                warned.iter().any(|note| note.contains(":1: \"default\" names nobody but")),
                text.starts_with('d')
            );
        }
    }

    #[test]
    fn the_file_of_aliases_is_followed_and_read_again_when_it_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("aliases");
        let write = |text: &str| std::fs::write(&path, text).expect("written");
        write(
            "# comment\nroot: anna,\n  admin@example.net\nanna: anna@example.net\nwww: \\anna\nself: self, b@x.example\n\
             a: b\nb: a\nloop: loop\nmailer-daemon: postmaster\npostmaster: root\npipe: |/bin/cat\nmixed: /dev/null, c@x.example\n\
             own: ops\n\"quoted\" : \"d@x.example\"\nNoColon\nbad address: e@x.example\nempty:\n",
        );
        let here = here(&format!("{{ aliasesFile: '{}', aliases: {{ ops: final@example.net }} }}", path.display()));
        for (name, expected) in [
            ("root", "anna@example.net admin@example.net"),
            ("Mailer-Daemon", "anna@example.net admin@example.net"),
            ("www", "anna@web1.example.org"),
            ("self", "self@web1.example.org b@x.example"),
            ("a", "a@web1.example.org"),
            ("loop", "loop@web1.example.org"),
            ("mixed", "c@x.example"),
            ("own", "final@example.net"),
            ("quoted", "d@x.example"),
            ("pipe", "\"pipe\": the address has no domain: write it as local-part@domain"),
        ] {
            assert_eq!(told(&here, name), expected, "{name}");
        }
        let told_of: Vec<_> = here.settings.warnings();
        for (line, what) in [
            ("7", "alias \"a\" comes back to itself by \"b\""),
            ("12", "|/bin/cat"),
            ("13", "/dev/null"),
            ("16", "NoColon"),
            ("17", "bad address"),
            ("18", "empty"),
        ] {
            let place = format!("{}:{line}: ", path.display());
            assert!(told_of.iter().any(|note| note.contains(&place) && note.contains(what)), "{what}: {told_of:?}");
        }
        assert_eq!(told_of.len(), 6, "{told_of:?}");
        write("root: new@example.net\n");
        assert_eq!(told(&here, "root"), "new@example.net");
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(told(&here, "root"), "root@web1.example.org", "no file is no reason to refuse");
        assert!(here.settings.warnings().concat().contains("cannot be read"), "and said");
        write("root: again@example.net\n");
        assert_eq!(told(&here, "root"), "again@example.net");
    }

    #[test]
    fn a_chain_of_ten_aliases_is_followed_and_none_that_is_longer() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("aliases");
        let chain: String = (1..=20).map(|n| format!("n{n}: n{}\n", n + 1)).collect();
        std::fs::write(&path, format!("{chain}n21: end@x.example\n")).expect("written");
        let here = here(&format!("aliasesFile: '{}'", path.display()));
        assert_eq!(told(&here, "n12"), "end@x.example");
        assert_eq!(told(&here, "n1"), "n11@web1.example.org", "10 deep");
    }

    #[test]
    fn a_circle_of_aliases_is_said_once_at_its_first_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("aliases");
        for (text, told) in [
            ("a: b\nb: c\nc: d, a\nd: x@x.example\n", &["1: alias \"a\" comes back to itself by \"b\", \"c\""][..]),
            ("out: b\nb: C\nc: B\n", &["2: alias \"b\" comes back to itself by \"c\""]),
            ("b: a\na: b\nd: c\nc: d\n", &["1: alias \"b\"", "3: alias \"d\""]),
            ("self: self\nroot: self, root\n", &[]),
            ("a: \\b\nb: a\n", &[]),
        ] {
            std::fs::write(&path, text).expect("written");
            let found = here(&format!("aliasesFile: '{}'", path.display())).settings.warnings();
            assert_eq!(found.len(), told.len(), "{text}: {found:?}");
            for (found, told) in found.iter().zip(told) {
                assert!(found.contains(&format!("{}:{told}", path.display())), "{found}");
            }
        }
    }
}
