//! A mailet's parameters as the values of a rule.

use super::conversion::{Conversion, is_for_exceptions};
use super::mailets::Kind;
use super::rule::{Value, pair};
use super::template::placeholder;
use super::xml::Element;
use super::{ERROR, PASSWORD_FILE};
use crate::mail::RepositoryPath;

/// Old names of parameters, and those of today.
const RENAMED: [(&str, &str); 1] = [("gatewayusername", "gatewayUsername")];

/// Parameters that say nothing here.
const SILENT: [&str; 3] = ["body", "maxBody", "debug"];

impl Conversion<'_> {
    /// The parameters that are known, in the order of the file and each once; the others are
    /// noted. James joins what is written several times.
    pub(super) fn parameters(&mut self, element: &Element, known: &[(&'static str, Kind)]) -> Vec<(String, Value)> {
        if element.attribute("class").is_some_and(|class| class.ends_with("LogMessage"))
            && element.text_of("body") != Some("false")
        {
            self.notes.say(element, "LogMessage logs no bodies here");
        }
        let mut found: Vec<(String, Value)> = Vec::new();
        for child in &element.children {
            let renamed = RENAMED.iter().find(|(old, _)| *old == child.name).map(|(_, new)| *new);
            // Where both stand, James takes that of today.
            if renamed.is_some_and(|new| element.children_named(new).next().is_some()) {
                continue;
            }
            let name = renamed.unwrap_or(&child.name);
            if is_for_exceptions(name) || SILENT.contains(&name) || found.iter().any(|(key, _)| key == name) {
                continue;
            }
            match known.iter().find(|(own, _)| *own == name) {
                Some((_, Kind::Elsewhere)) => {}
                None if name.starts_with("mail.") => {}
                Some((_, kind)) => {
                    let text = element.joined(&child.name).unwrap_or_default();
                    found.extend(self.parameter(child, name, *kind, text));
                }
                None => self.unknown_parameter(child, name, known),
            }
        }
        if known.iter().any(|(_, kind)| *kind == Kind::Repository) {
            self.repository(element, &mut found);
        }
        found
    }

    /// One that James does not read either where only its case is wrong: whoever wrote it thinks that it does.
    fn unknown_parameter(&mut self, child: &Element, name: &str, known: &[(&'static str, Kind)]) {
        match known.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)) {
            Some((own, Kind::Number)) => {
                self.notes.say(child, format!("parameter {name} is left out, as James does: it reads {own}"));
            }
            Some((own, _)) => {
                self.notes.warn(child, format!("parameter {name} is left out, as James does: it reads {own}"));
            }
            None => self.notes.say(child, format!("parameter {name} has no counterpart: left out")),
        }
    }

    fn parameter(&mut self, child: &Element, name: &str, kind: Kind, text: String) -> Option<(String, Value)> {
        if let Some(placeholder) = placeholder(&text) {
            if kind == Kind::Secret {
                let note = format!(
                    "{name} is the placeholder {placeholder}: put the password into a file that {name}File names ({PASSWORD_FILE})"
                );
                self.notes.warn(child, note);
                return Some(pair(&format!("{name}File"), PASSWORD_FILE));
            }
            self.notes.warn(child, format!("{name} has the placeholder {placeholder}: write what it stands for"));
            return Some(pair(name, &text));
        }
        let word = text.to_ascii_lowercase();
        match kind {
            Kind::Boolean if matches!(word.as_str(), "true" | "false") => Some((name.to_owned(), Value::Bare(word))),
            Kind::Boolean => {
                self.notes.say(child, format!("{name} is neither true nor false: left out, as James has it"));
                None
            }
            Kind::Number if is_number(&text) => Some((name.to_owned(), Value::Bare(text))),
            // An empty element leaves it unset.
            _ => Some(pair(name, &text)).filter(|_| !text.is_empty()),
        }
    }

    /// A repository's URL as we have it: one path for all schemes, without a leading slash.
    fn repository(&mut self, element: &Element, found: &mut Vec<(String, Value)>) {
        const NAME: &str = "repositoryPath";
        let written = found.iter().find(|(key, _)| key == NAME).map(|(_, value)| match value {
            Value::Text(text) | Value::Bare(text) => text.clone(),
        });
        let written = written.unwrap_or_default();
        let url = match written.split_once("://") {
            Some((scheme, path)) => format!("{scheme}://{}", path.trim_start_matches('/')),
            None => written.trim_start_matches('/').to_owned(),
        };
        let url = match RepositoryPath::parse_url(&url) {
            Ok((scheme, _)) => {
                self.schemes.extend(scheme.filter(|scheme| scheme != "sqlite"));
                url
            }
            Err(why) => {
                self.notes.warn(element, format!("{why}: the mail is kept in {ERROR}"));
                ERROR.to_owned()
            }
        };
        found.retain(|(key, _)| key != NAME);
        found.insert(0, pair(NAME, &url));
    }
}

/// What YAML reads as a whole number and means as it stands.
fn is_number(text: &str) -> bool {
    let plain = (1..=15).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_digit());
    plain && (text == "0" || !text.starts_with('0'))
}
