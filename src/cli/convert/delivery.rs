//! RemoteDelivery and its parameters.

use std::time::Duration;

use super::PERMANENT;
use super::conversion::Conversion;
use super::delays;
use super::mailets::DELIVERY;
use super::matcher::{Known, Matcher};
use super::rule::{Entry, Rule, Value, pair};
use super::xml::Element;

impl Conversion<'_> {
    /// The rules of a RemoteDelivery. One that is left out leaves no other way out.
    pub(super) fn delivery(&mut self, element: &Element, known: Known) -> Vec<Entry> {
        self.delivers = true;
        let mut rule = Rule::new(element.line, Matcher::all(), "RemoteDelivery", Vec::new());
        rule.parameters = self.delivery_parameters(element);
        if rule.text("bounceProcessor").is_none() {
            let text = format!(
                "RemoteDelivery without bounceProcessor tells the sender of failures: here DSNBounce does, and they are \
                 kept in {PERMANENT}"
            );
            self.notes.say(element, text);
        }
        rule.delays = self.delays(element);
        self.as_known(element, known, rule)
    }

    /// The time before each of James's own retries.
    fn delays(&mut self, element: &Element) -> Vec<Duration> {
        let (most, times) = (element.joined("maxRetries"), element.joined("delayTime"));
        let delays = delays::retries(most.as_deref(), times.as_deref()).unwrap_or_else(|unreadable| {
            self.notes.warn(element, unreadable.to_string());
            unreadable.instead
        });
        if let Some(short) = delays.iter().find(|delay| **delay < Duration::from_secs(1)) {
            self.notes.say(element, format!("a delayTime of {} ms becomes 1s", short.as_millis()));
        }
        delays
    }

    fn delivery_parameters(&mut self, element: &Element) -> Vec<(String, Value)> {
        let mut parameters = self.parameters(element, &DELIVERY);
        let has = |parameters: &[(String, Value)], name: &str| parameters.iter().any(|(key, _)| key == name);
        if has(&parameters, "outgoing") {
            parameters.retain(|(key, _)| key != "outgoingQueue");
        }
        // Without a gateway James looks at none of these.
        if !has(&parameters, "gateway") {
            parameters.retain(|(key, _)| !key.starts_with("gateway"));
        }
        // Where nothing is said James has it the other way than we do.
        if has(&parameters, "gateway") && !has(&parameters, "loadBalancing") {
            parameters.push(("loadBalancing".to_owned(), Value::Bare("true".to_owned())));
        }
        if !has(&parameters, "sendpartial") {
            parameters.push(("sendpartial".to_owned(), Value::Bare("false".to_owned())));
        }
        for (key, value) in &mut parameters {
            if let Value::Text(text) = value
                && key.starts_with("outgoing")
            {
                // James 2 has the URL of a repository.
                *text = text.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
            }
        }
        self.properties(element, &mut parameters);
        parameters
    }

    /// What James's mailet hands to its SMTP client, and what it does with what was delivered.
    fn properties(&mut self, element: &Element, parameters: &mut Vec<(String, Value)>) {
        for child in &element.children {
            match (child.name.as_str(), child.text()) {
                ("mail.smtp.starttls.required", word) if word.eq_ignore_ascii_case("false") => {}
                ("mail.smtp.starttls.required", word) if word.eq_ignore_ascii_case("true") => {
                    parameters.retain(|(key, _)| key != "startTLS");
                    parameters.push(pair("startTLS", "required"));
                }
                ("onSuccess", processor) if !processor.is_empty() => self.notes.warn(
                    child,
                    format!("parameter onSuccess has no counterpart: what is delivered does not come to processor '{processor}'"),
                ),
                (name, _) if name.starts_with("mail.") => {
                    self.notes.warn(child, format!("parameter {name} has no counterpart: left out"));
                }
                _ => {}
            }
        }
    }
}
