//! James's mailets that tell the sender: one of ours for all, with what it has of their parameters.

use super::PERMANENT;
use super::conversion::{Conversion, boolean, keep};
use super::mailets::BOUNCE;
use super::matcher::{Known, Matcher};
use super::rule::{Entry, Rule, Value, pair};
use super::xml::Element;
use crate::mail::{Address, is_status};

/// Actions of James's that are no failure; here they are told where somebody asks for them.
const TELLS_OF_NO_FAILURE: [&str; 3] = ["delivered", "expanded", "relayed"];

/// Words of James's in place of an address.
const NO_ADDRESSES: [&str; 3] = ["postmaster", "sender", "unaltered"];

impl Conversion<'_> {
    /// A `DSNBounce`. What James sent was a letter of its own, this is a report (RFC 3464).
    pub(super) fn bounce(&mut self, element: &Element, known: &Known, name: &str) -> Vec<Entry> {
        let ends = boolean(element, "passThrough") == Some(false);
        let action = element.joined("action").unwrap_or_default().to_ascii_lowercase();
        if TELLS_OF_NO_FAILURE.contains(&action.as_str()) {
            return self.telling(element, known, name, &format!("senders are no longer told that mail was {action}"));
        }
        // What counts would count twice, and what is ended is kept by a rule of its own.
        if ends && known.most.counts() {
            return self.telling(element, known, name, "senders are no longer told of failures");
        }
        let mut parameters = self.parameters(element, &BOUNCE);
        parameters.retain(|(key, _)| key != "passThrough");
        for (_, value) in parameters.iter_mut().filter(|(key, _)| key == "action") {
            *value = Value::Text(action.clone());
        }
        parameters.retain(|(key, value)| self.has_counterpart(element, key, value));
        if let Some(words) = element.joined("message").filter(|words| !words.is_empty()) {
            parameters.push(pair("messageString", &words));
        }
        let returned = match parameters.iter().find(|(key, _)| key == "attachment") {
            Some((_, Value::Text(what))) if what != "heads" => format!("attachment: {what}"),
            _ => "the header of the message".to_owned(),
        };
        let text =
            format!("mailet {name} becomes DSNBounce, a report (RFC 3464) with {returned}, once for each failure");
        self.notes.say(element, text);
        let rule = Rule::new(element.line, Matcher::all(), "DSNBounce", parameters);
        let mut entries = self.as_known(element, known.clone(), rule);
        if ends {
            entries.extend(keep(element, known, PERMANENT, &format!("{name} told of the mail in James and ended it")));
        }
        entries
    }

    fn has_counterpart(&mut self, element: &Element, key: &str, value: &Value) -> bool {
        let Value::Text(text) = value else { return true };
        let fits = match key {
            "sender" => Address::parse(text).is_ok(),
            "attachment" => matches!(text.as_str(), "heads" | "message" | "none"),
            "action" => matches!(text.as_str(), "failed" | "delayed"),
            "defaultStatus" => is_status(text) && text.starts_with(class(element)),
            _ => true,
        };
        let is_silent = key == "sender" && NO_ADDRESSES.contains(&text.as_str()) || key == "defaultStatus";
        if !fits && !is_silent {
            self.notes.say(element, format!("{key} '{text}' has no counterpart: left out"));
        }
        fits
    }
}

/// The class of the status that belongs to the action.
fn class(element: &Element) -> char {
    if element.joined("action").is_some_and(|action| action.eq_ignore_ascii_case("delayed")) { '4' } else { '5' }
}
