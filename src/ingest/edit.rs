//! What is done to the header of a message that a user of this machine hands in: what is
//! missing is added, local names get a domain, and `From:` names whom the configuration sets.

use chrono::{DateTime, Utc};

use super::header::{Field, Header, recipients};
use super::local::Here;
use super::mailboxes::{Mailbox, mailboxes};
use super::message::IntakeError;
use crate::mail::{Address, encoded_words};

/// Fields that name people, whose local names no other machine knows.
const COMPLETED: [&str; 11] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Bcc",
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Bcc",
];

/// The longest list that is completed: what cannot be read in time stays as it is.
const MAX_COMPLETED: usize = 10_000;

/// Who hands a message in, and what is to be done to its header.
#[derive(Debug, Clone)]
pub(super) struct Edit {
    pub(super) here: Here,
    /// Who would stand in `From:` by himself.
    pub(super) sender: Option<Address>,
    /// The name to go with it: `-F`, or the user's.
    pub(super) full_name: Option<String>,
    /// `From:`, `Date:` and `Message-ID:` are added where they are missing.
    pub(super) added: Option<Added>,
    /// `-t`: the header names the recipients, and `Bcc:` is removed.
    pub(super) recipients_from_header: bool,
}

/// For `Date:` and the Message-ID.
#[derive(Debug, Clone, Copy)]
pub(super) struct Added {
    pub(super) now: DateTime<Utc>,
    /// What makes the Message-ID unique.
    pub(super) random: u64,
}

impl Edit {
    /// The header as it goes on, and the recipients that it names where they are asked for.
    ///
    /// # Errors
    /// Where a field names a recipient who is none.
    pub(super) fn apply(&self, header: &Header) -> Result<(Vec<u8>, Vec<Address>), IntakeError> {
        let fields = header.fields();
        let named = if self.recipients_from_header { recipients(&fields, &self.here)? } else { Vec::new() };
        let mut out = Vec::with_capacity(header.end + 200);
        for field in &fields {
            if !(self.recipients_from_header && (field.is("Bcc") || field.is("Resent-Bcc"))) {
                out.extend(self.field(field));
            }
        }
        out.extend(self.missing(&fields).into_bytes());
        Ok((out, named))
    }

    fn field(&self, field: &Field) -> Vec<u8> {
        if !COMPLETED.iter().any(|name| field.is(name)) || field.octets.len() > MAX_COMPLETED {
            return field.octets.to_vec();
        }
        let (colon, body) = field.raw_body();
        let found = mailboxes(body);
        if let Some(replaced) = self.replaced_from(field, &found) {
            return replaced;
        }
        let mut completed = field.octets[..colon].to_vec();
        let mut at = 0;
        for mailbox in &found {
            let Some(address) = self.completed(body, mailbox, found.len() == 1) else { continue };
            completed.extend_from_slice(&body[at..mailbox.address.start]);
            completed.extend_from_slice(address.on_the_wire().as_bytes());
            at = mailbox.address.end;
        }
        completed.extend_from_slice(&body[at..]);
        completed
    }

    /// A local name with its domain: one that stands in brackets or alone, and any other that
    /// is somebody here. `None` where the mailbox is to stay as it is.
    fn completed(&self, body: &[u8], mailbox: &Mailbox, alone: bool) -> Option<Address> {
        let word = std::str::from_utf8(&body[mailbox.address.clone()]).ok()?;
        let is_word = !word.contains(['@', '"', ' ', '\t', '\r', '\n']);
        let is_meant = is_word && (mailbox.bracketed || alone || self.here.is_name(word));
        self.here.completed(word).ok().filter(|_| is_meant)
    }

    /// `From:` with whom the configuration sets in place of a user of this machine.
    fn replaced_from(&self, field: &Field, found: &[Mailbox]) -> Option<Vec<u8>> {
        let [mailbox] = found else { return None };
        if !field.is("From") {
            return None;
        }
        let (_, body) = field.raw_body();
        let written = || Address::parse(std::str::from_utf8(&body[mailbox.address.clone()]).ok()?).ok();
        let address = self.completed(body, mailbox, true).or_else(written)?;
        let instead = self.here.instead_of(&address)?;
        let (name, comment) = (&body[mailbox.name.clone()], mailbox.comment.clone().map(|range| &body[range]));
        let name = if name.is_empty() { comment.unwrap_or_default() } else { name };
        Some(self.originator(name, &address, instead).into_bytes())
    }

    /// `From:` for `address` in the name of `instead`, and whose it is.
    fn originator(&self, name: &[u8], address: &Address, instead: &Address) -> String {
        let via = format!("via {}", self.here.hostname.folded());
        let name = decoded(name);
        let phrase = match name.trim() {
            "" => display_name(&format!("{} {via}", address.local_part())),
            // An encoded word is one only outside of quotes.
            encoded if encoded.contains("=?") => format!("{} {}", unfolded(encoded), display_name(&via)),
            plain => display_name(&format!("{} {via}", unquoted(&unfolded(plain)))),
        };
        format!("{}X-Original-From: {}\r\n", from_field(&phrase, instead), address.on_the_wire())
    }

    /// The fields that are not among `fields`, each with its line end.
    fn missing(&self, fields: &[Field]) -> String {
        let lacks = |name: &str| !fields.iter().any(|field| field.is(name));
        let fields = [
            lacks("From").then(|| self.missing_from()).flatten(),
            self.added.filter(|_| lacks("Date")).map(|added| format!("Date: {}\r\n", added.now.to_rfc2822())),
            self.added.filter(|_| lacks("Message-ID")).map(|added| self.message_id_field(added)),
        ];
        fields.into_iter().flatten().collect()
    }

    fn message_id_field(&self, added: Added) -> String {
        let time = added.now.format("%Y%m%d%H%M%S");
        format!("Message-ID: <{time}.{:016x}@{}>\r\n", added.random, self.here.hostname.folded())
    }

    fn missing_from(&self) -> Option<String> {
        let (sender, name) = (self.sender.as_ref()?, self.full_name.as_deref().unwrap_or_default());
        if let Some(instead) = self.here.instead_of(sender) {
            return Some(self.originator(name.as_bytes(), sender, instead));
        }
        self.added?;
        Some(match display_name(name) {
            name if name.is_empty() => format!("From: {}\r\n", sender.on_the_wire()),
            name => from_field(&name, sender),
        })
    }
}

/// Octets of a line that need no folding (RFC 5322 section 2.1.1).
const LINE: usize = 78;

/// `From:` with a phrase, on one line where it fits.
fn from_field(phrase: &str, address: &Address) -> String {
    let (address, last) = (address.on_the_wire(), phrase.rsplit("\r\n").next().unwrap_or(phrase));
    let fits = "From: ".len() + last.len() + " <>".len() + address.len() <= LINE;
    format!("From: {phrase}{}<{address}>\r\n", if fits { " " } else { "\r\n " })
}

/// A name out of a header: what is no UTF-8 is Latin-1.
fn decoded(name: &[u8]) -> String {
    String::from_utf8(name.to_vec()).unwrap_or_else(|_| name.iter().copied().map(char::from).collect())
}

/// On one line.
fn unfolded(name: &str) -> String {
    name.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// A quoted string without quotes and escapes.
fn unquoted(name: &str) -> String {
    let Some(inner) = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) else { return name.to_owned() };
    let mut escaped = false;
    let keep = |c: &char| {
        escaped = *c == '\\' && !escaped;
        !escaped
    };
    inner.chars().filter(keep).collect()
}

/// A name as a phrase: a quoted string, or encoded words where it is not ASCII or too
/// long for one line (RFC 5322 section 3.2.5, RFC 2047 section 5).
fn display_name(name: &str) -> String {
    let name: String = name.trim().chars().filter(|c| !c.is_control()).collect();
    if name.is_empty() || name.is_ascii() && name.len() <= 60 {
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        return if name.is_empty() { name } else { format!("\"{quoted}\"") };
    }
    encoded_words(&name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::ingest::{Sendmail, SystemNames};
    use crate::mail::Domain;
    use crate::yaml::{Document, Fields, Reading};

    fn edit(yaml: &str) -> Edit {
        let document = Document::parse(Path::new("f"), yaml.as_bytes()).expect("YAML");
        let reading = Reading::new(Path::new("f"));
        let settings = Sendmail::read(Fields::of(document.root(), "a test", &reading));
        let hostname = Domain::parse("web1.example.org").expect("a domain");
        Edit {
            here: Here::configured(hostname, SystemNames::default(), settings, |name| matches!(name, "root" | "anna")),
            sender: Some(Address::parse("root@web1.example.org").expect("an address")),
            full_name: None,
            added: None,
            recipients_from_header: false,
        }
    }

    fn applied(edit: &Edit, text: &[u8]) -> Vec<u8> {
        let mut header = Header::default();
        header.octets = text.to_vec();
        header.is_through().expect("short");
        edit.apply(&header).expect("no recipients").0
    }

    #[test]
    fn local_names_get_a_domain_and_nothing_else_changes() {
        let edit = edit("{}");
        for (field, expected) in [
            ("From: root (Cron Daemon)", "From: root@web1.example.org (Cron Daemon)"),
            ("To: root", "To: root@web1.example.org"),
            (
                "to:root,\r\n\tAnna <anna>, b@x.example",
                "to:root@web1.example.org,\r\n\tAnna <anna@web1.example.org>, b@x.example",
            ),
            ("Sender: \"Root, Me\" < root >", "Sender: \"Root, Me\" < root@web1.example.org >"),
            ("Reply-To: backup-script", "Reply-To: backup-script@web1.example.org"),
            ("Cc: postmaster, stranger", "Cc: postmaster@web1.example.org, stranger"),
            ("Resent-To: anna", "Resent-To: anna@web1.example.org"),
            ("To: undisclosed-recipients:;", "To: undisclosed-recipients:;"),
            ("To: friends: root, x@x.example;", "To: friends: root@web1.example.org, x@x.example;"),
            ("To: Doe, John <j@x.example>", "To: Doe, John <j@x.example>"),
            ("From: two words", "From: two words"),
            ("From: J\u{fc}rgen <root>", "From: J\u{fc}rgen <root@web1.example.org>"),
            ("From: \"open <root>", "From: \"open <root>"),
            ("From:", "From:"),
            ("Subject: root", "Subject: root"),
            ("X-To: root", "X-To: root"),
        ] {
            let out = applied(&edit, format!("{field}\r\n\r\n").as_bytes());
            assert_eq!(String::from_utf8_lossy(&out), format!("{expected}\r\n"), "{field}");
        }
        assert_eq!(applied(&edit, b"From: J\xfc <root>\r\n\r\n"), b"From: J\xfc <root@web1.example.org>\r\n");
    }

    #[test]
    fn a_user_of_this_machine_writes_through_whom_the_configuration_names() {
        let edit = edit("{ from: relay@example.com, domain: example.org }");
        let via =
            |name: &str, original: &str| format!("From: {name} <relay@example.com>\r\nX-Original-From: {original}\r\n");
        let plain = |name: &str| format!("\"{name} via web1.example.org\"");
        for (field, expected) in [
            ("From: root (Cron Daemon)\r\n", via(&plain("Cron Daemon"), "root@example.org")),
            ("From: root\r\n", via(&plain("root"), "root@example.org")),
            (
                "From: \"A \\\"B\\\" C\"\r\n <anna@web1.example.org>\r\n",
                via("\"A \\\"B\\\" C via web1.example.org\"", "anna@web1.example.org"),
            ),
            (
                "From: =?utf-8?q?J=C3=BCrgen?= <anna>\r\n",
                via("=?utf-8?q?J=C3=BCrgen?= \"via web1.example.org\"", "anna@example.org"),
            ),
            (
                "From: an operator of very many boxes <root>\r\n",
                via(&plain("an operator of very many boxes"), "root@example.org").replace(" <", "\r\n <"),
            ),
            ("From: people@example.org\r\n", "From: people@example.org\r\n".to_owned()),
            ("From: a@x.example\r\n", "From: a@x.example\r\n".to_owned()),
            ("From: root, a@x.example\r\n", "From: root@example.org, a@x.example\r\n".to_owned()),
            ("Subject: x\r\n", format!("Subject: x\r\n{}", via(&plain("root"), "root@web1.example.org"))),
        ] {
            let out = applied(&edit, format!("{field}\r\n").as_bytes());
            assert_eq!(String::from_utf8_lossy(&out), expected, "{field}");
        }
        let latin = applied(&edit, b"From: J\xfcrgen <root>\r\n\r\n");
        assert!(latin.starts_with(b"From: =?utf-8?q?J=C3=BCrgen=20via=20web1=2Eexample=2Eorg?="), "{latin:?}");
        let left = super::tests::edit("{ from: relay@example.com, fromHeader: false }");
        assert_eq!(applied(&left, b"From: root\r\n\r\n"), b"From: root@web1.example.org\r\n");
    }

    #[test]
    fn names_are_quoted_or_encoded() {
        for (name, phrase) in [
            ("Ann", "\"Ann\""),
            ("A. \"B\" \\ C", "\"A. \\\"B\\\" \\\\ C\""),
            ("Jürgen (x)", "=?utf-8?q?J=C3=BCrgen=20=28x=29?="),
            ("x\r\nBcc: y@z", "\"xBcc: y@z\""),
            ("  ", ""),
        ] {
            assert_eq!(display_name(name), phrase, "{name:?}");
        }
        assert!(display_name(&"ü".repeat(40)).split("\r\n ").all(|word| word.len() <= 75));
    }

    proptest! {
        #[test]
        fn a_name_stays_within_its_field(name in "\\PC{0,90}|[\\x00-\\x7f]{0,90}") {
            let edit = Edit { full_name: Some(name), added: Some(Added { now: DateTime::UNIX_EPOCH, random: 7 }), ..edit("{}") };
            let from = edit.missing_from().expect("somebody");
            let bare = from == "From: root@web1.example.org\r\n";
            prop_assert!(from.ends_with("<root@web1.example.org>\r\n") || bare);
            prop_assert!(from.is_ascii() && !from.contains('\0'));
            let lines: Vec<_> = from.trim_end_matches("\r\n").split("\r\n").collect();
            prop_assert!(lines.iter().skip(1).all(|line| line.starts_with(' ')));
            prop_assert!(lines.iter().all(|line| line.len() <= 140 && !line.contains(['\r', '\n'])));
        }
    }
}
