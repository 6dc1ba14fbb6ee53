//! James's matchers: ours where we have them, else what is known of them.

use std::collections::BTreeMap;

use super::conversion::Conversion;
use super::james_name;
use super::matcher::{Known, Matcher};
use super::template::placeholder;
use super::xml::Element;
use crate::pipeline;

/// The composites of a processor by their names.
pub(super) type Composites = BTreeMap<String, Known>;

/// By these James decides who may relay; here the listener has decided it.
const MAY_RELAY: [&str; 3] = ["SMTPAuthSuccessful", "SMTPIsAuthNetwork", "RemoteAddrInNetwork"];

/// Attributes by which the same is asked.
const MAY_RELAY_ATTRIBUTES: [&str; 2] = ["org.apache.james.SMTPAuthUser", "org.apache.james.SMTPIsAuthNetwork"];

/// True of mail that James wrote itself, or that came by JMAP; here mail only comes in.
const NEVER: [&str; 2] = ["SentByMailet", "SentByJmap"];

/// These ask which domains James hosted.
const HOSTED: [&str; 2] = ["RecipientIsLocal", "HostIsLocal"];

/// Matchers in one at most, since one that stands in two others is written twice.
const MOST_MATCHERS: usize = 1000;

/// How attributes begin that James sets itself.
const JAMES_ATTRIBUTES: &str = "org.apache.james.";

/// Attributes that are set here as in James.
const OUR_ATTRIBUTES: [&str; 5] = [
    "is-delivery-permanent-error",
    "delivery-error",
    "delivery-error-code",
    "mailRepository-reprocessing",
    "AT_MOST_EXECUTIONS",
];

impl Conversion<'_> {
    /// What is known of the matcher of a mailet.
    pub(super) fn matcher_of(&mut self, element: &Element, composites: &Composites) -> Known {
        let (written, inverted) = self.written_matcher(element);
        let known = self.matcher(element, written.unwrap_or("All"), composites);
        if inverted { known.not() } else { known }
    }

    /// A matcher of matchers, which joins `composites` where it has a name, as those within it do.
    pub(super) fn composite(&mut self, element: &Element, composites: &mut Composites) -> Known {
        let (written, inverted) = self.written_matcher(element);
        let written = written.unwrap_or_default();
        let inner: Vec<_> = element.children_named("matcher").map(|child| self.composite(child, composites)).collect();
        let known = match james_name(written) {
            Some("Or") => Known::or(&inner),
            // Of no matchers James's matches nobody.
            Some("And") if inner.is_empty() => Known::exactly(Matcher::never()),
            Some("And") => Known::and(&inner),
            Some("Xor") => Known::xor(&inner),
            Some("Not") => Known::or(&inner).not(),
            _ => self.matcher(element, written, composites),
        };
        let mut known = if inverted { known.not() } else { known };
        if known.size() > MOST_MATCHERS {
            self.notes.warn(element, format!("a matcher of more than {MOST_MATCHERS} others has no counterpart"));
            known = Known::unknown();
        }
        if let Some(name) = element.attribute("name")
            && composites.insert(name.to_owned(), known.clone()).is_some()
        {
            self.notes
                .warn(element, format!("matcher '{name}' stands in this processor a second time: the last holds"));
        }
        known
    }

    /// The matcher of an element, and whether it is inverted.
    fn written_matcher<'e>(&mut self, element: &'e Element) -> (Option<&'e str>, bool) {
        match (element.attribute("match"), element.attribute("notmatch")) {
            (None, Some(written)) => (Some(written), true),
            (written, second) => {
                if second.is_some() {
                    self.notes.warn(element, "match and notmatch exclude each other: notmatch is left out");
                }
                (written, false)
            }
        }
    }

    fn matcher(&mut self, element: &Element, written: &str, composites: &Composites) -> Known {
        if let Some(known) = composites.get(written) {
            return known.clone();
        }
        let (class, condition) = match written.split_once('=') {
            Some((class, condition)) => (class.trim(), Some(condition)),
            None => (written, None),
        };
        let Some(name) = james_name(class) else {
            self.notes.warn(element, format!("matcher {class} has no counterpart"));
            return Known::unknown();
        };
        if MAY_RELAY.contains(&name) || is_attribute_of(name, condition, &MAY_RELAY_ATTRIBUTES) {
            self.networks(element, name, condition);
            self.notes
                .say(element, format!("matcher {name} becomes All: smtp.networks and smtp.users say who may relay"));
            return Known { relaying: true, ..Known::exactly(Matcher::all()) };
        }
        if name == "RemoteAddrNotInNetwork" {
            self.networks(element, name, condition);
            self.notes
                .say(element, format!("matcher {name} matches nobody: smtp.networks and smtp.users say who may relay"));
            return Known { relaying: true, ..Known::exactly(Matcher::never()) };
        }
        if NEVER.contains(&name) {
            self.notes.say(element, format!("matcher {name} matches nobody: mail here only comes in"));
            return Known::exactly(Matcher::never());
        }
        if HOSTED.contains(&name) {
            self.notes.say(element, format!("matcher {name} has no counterpart"));
            self.hosted.get_or_insert(element.line);
            return Known { hosted: true, ..Known::exactly(Matcher::never()) };
        }
        self.of_ours(element, name, condition)
    }

    /// A network that James let relay is to be written into `smtp.networks`.
    fn networks(&mut self, element: &Element, name: &str, condition: Option<&str>) {
        if let Some(networks) = condition.filter(|_| name.starts_with("RemoteAddr")) {
            self.notes.warn(element, format!("who may relay is not taken over: write {networks} into smtp.networks"));
        }
    }

    /// A matcher of ours, where it can be asked as in James.
    fn of_ours(&mut self, element: &Element, name: &str, condition: Option<&str>) -> Known {
        if let Some(placeholder) = condition.and_then(placeholder) {
            self.notes
                .warn(element, format!("matcher {name} has the placeholder {placeholder}: write what it stands for"));
            return Known::unknown();
        }
        if !pipeline::is_matcher(name) {
            self.notes.warn(element, format!("matcher {name} has no counterpart"));
            return Known::unknown();
        }
        let written = condition.map_or(name.to_owned(), |condition| format!("{name}={condition}"));
        if let Err(why) = pipeline::check_matcher(&written) {
            self.notes.warn(element, format!("matcher {name} cannot be taken over: {why}"));
            return Known::unknown();
        }
        if let Some(attribute) = read_attribute(name, condition).filter(|attribute| self.is_uncertain(attribute)) {
            let text = format!("matcher {name} asks for attribute {attribute}, which is not set here as James has it");
            self.notes.warn(element, text);
            return Known::unknown();
        }
        Known::exactly(Matcher::One(written))
    }

    /// Whether James may have set the attribute otherwise than it is set here.
    fn is_uncertain(&self, attribute: &str) -> bool {
        let is_ours = OUR_ATTRIBUTES.contains(&attribute);
        // What no mailet of the container sets, James's listener or a hook of it did.
        let is_of_james = attribute.starts_with(JAMES_ATTRIBUTES) && !self.sets.contains(attribute);
        self.uncertain.names.contains(attribute) || (self.uncertain.foreign || is_of_james) && !is_ours
    }
}

fn is_attribute_of(name: &str, condition: Option<&str>, attributes: &[&str]) -> bool {
    name == "HasMailAttribute" && condition.is_some_and(|condition| attributes.contains(&condition.trim()))
}

/// The attribute that a matcher looks at.
fn read_attribute<'a>(name: &str, condition: Option<&'a str>) -> Option<&'a str> {
    let condition = condition.unwrap_or_default();
    let first = |mark: char| condition.split(mark).next().map(str::trim);
    match name {
        "HasMailAttribute" | "HasMailAttributeWithValue" => first(','),
        "AtMost" | "AttemptsExhausted" if condition.contains(':') => first(':'),
        "AtMost" | "AttemptsExhausted" => Some("AT_MOST_EXECUTIONS"),
        "IsRemoteDeliveryTemporaryError" | "IsRemoteDeliveryPermanentError" => Some("is-delivery-permanent-error"),
        "RemoteDeliveryFailedWithSMTPCode" => Some("delivery-error-code"),
        _ => None,
    }
}
