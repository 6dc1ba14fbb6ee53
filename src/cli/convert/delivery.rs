//! A RemoteDelivery that tries once a pass: James's own retries become passes, bounded by
//! AtMost, spaced by a job.

use std::time::Duration;

use super::conversion::{Conversion, Within};
use super::delays;
use super::mailets::DELIVERY;
use super::matcher::{Known, Matcher};
use super::rule::{Entry, Processor, Rule, Value, pair};
use super::xml::Element;
use super::{PERMANENT, TEMPORARY};
use crate::yaml::format_duration;

/// The processor for failures where the container names none.
const SORTING: &str = "remote-delivery-error";

/// A job that brings mails of a repository back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) repository: String,
    pub(super) processor: String,
    pub(super) spacing: Vec<Duration>,
}

impl Conversion<'_> {
    /// The rules of a RemoteDelivery. One that is left out leaves no other way out.
    pub(super) fn delivery(&mut self, element: &Element, known: Known, within: &Within) -> Vec<Entry> {
        self.delivers = true;
        let mut rule = Rule::new(element.line, Matcher::all(), "RemoteDelivery", Vec::new());
        rule.parameters = self.delivery_parameters(element);
        let is_certain = !known.least.is_never();
        let mut entries = self.as_known(element, known, rule);
        if let Some(Entry::Rule(rule)) = entries.first_mut().filter(|_| is_certain) {
            let rules = self.retried(element, rule.clone(), within);
            entries.splice(0..1, rules.into_iter().map(Entry::Rule));
        }
        entries
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
                ("mail.smtp.starttls.required", "true") => {
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

    /// The mailet's rule, and what its retries make of it.
    fn retried(&mut self, element: &Element, mut rule: Rule, within: &Within) -> Vec<Rule> {
        let bounce = self.bounce_processor(element, &mut rule);
        let (most, times) = (element.joined("maxRetries"), element.joined("delayTime"));
        let delays = delays::retries(most.as_deref(), times.as_deref()).unwrap_or_else(|unreadable| {
            self.notes.warn(element, unreadable.to_string());
            unreadable.instead
        });
        for delay in delays.iter().filter(|delay| **delay < Duration::from_secs(1)).take(1) {
            self.notes.say(element, format!("a delayTime of {} ms becomes 1s", delay.as_millis()));
        }
        if delays.is_empty() {
            return vec![rule];
        }
        self.spread(rule, &bounce, &delays, within)
    }

    /// The processor that takes failures; one that sorts them where James has none, and tells
    /// the sender itself.
    fn bounce_processor(&mut self, element: &Element, rule: &mut Rule) -> String {
        if let Some(name) = rule.text("bounceProcessor") {
            return name.to_owned();
        }
        self.unbounced = true;
        self.notes.warn(
            element,
            "RemoteDelivery without bounceProcessor tells the sender of failures, which has no counterpart: they are kept",
        );
        rule.parameters.push(pair("bounceProcessor", SORTING));
        if !self.processors.iter().any(|processor| processor.name == SORTING) {
            let temporary = Matcher::one("IsRemoteDeliveryTemporaryError");
            let rules = [
                Rule::to_repository(element.line, temporary, TEMPORARY),
                Rule::to_repository(element.line, Matcher::all(), PERMANENT),
            ];
            self.add_processor(SORTING, element.line, rules.into());
        }
        SORTING.to_owned()
    }

    /// Puts a processor in front of `bounce` that keeps what is to be tried again. The job
    /// that brings it back must lead to this RemoteDelivery and to nothing else, so where
    /// the rule does not stand alone it has a processor of its own.
    fn spread(&mut self, mut rule: Rule, bounce: &str, delays: &[Duration], within: &Within) -> Vec<Rule> {
        let number = self.jobs.len() + 1;
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let retry = format!("remote-delivery-retry{suffix}");
        let repository = format!("{}{suffix}/", TEMPORARY.trim_end_matches('/'));
        let (line, attempts) = (rule.line, delays.len() + 1);
        for (_, value) in rule.parameters.iter_mut().filter(|(key, _)| key == "bounceProcessor") {
            *value = Value::Text(retry.clone());
        }
        self.add_processor(
            &retry,
            line,
            vec![
                Rule::to_processor(line, Matcher::one(format!("AttemptsExhausted={attempts}")), bounce),
                Rule::to_repository(line, Matcher::one("IsRemoteDeliveryTemporaryError"), &repository),
                Rule::to_processor(line, Matcher::all(), bounce),
            ],
        );
        let stands_alone = rule.matcher.is_all() && !within.is_begun();
        let (processor, rules) = if rule.matcher.counts() {
            rule.matcher = rule.matcher.scaled(attempts);
            (within.name.clone(), vec![rule])
        } else {
            let matcher = std::mem::replace(&mut rule.matcher, Matcher::one(format!("AtMost={attempts}")));
            let hosted = std::mem::take(&mut rule.hosted);
            // What is used up goes where it went when James had given up.
            let rules = vec![rule, Rule::to_processor(line, Matcher::all(), bounce)];
            if stands_alone {
                (within.name.clone(), rules)
            } else {
                let own = format!("remote-delivery{suffix}");
                self.add_processor(&own, line, rules);
                let mut way = Rule::to_processor(line, matcher, &own);
                way.hosted = hosted;
                (own, vec![way])
            }
        };
        self.jobs.push(Job { repository, processor, spacing: spacing(delays) });
        rules
    }

    fn add_processor(&mut self, name: &str, line: usize, rules: Vec<Rule>) {
        let entries = rules.into_iter().map(Entry::Rule).collect();
        self.processors.push(Processor { name: name.to_owned(), line, entries });
    }

    /// Where the container itself keeps temporary failures, a job brings them back: to the
    /// RemoteDelivery where there is one, else to `first`, whose rules say to which.
    pub(super) fn jobs_of_repositories(&mut self, first: &str) {
        let is_delivering = |processor: &&Processor| processor.rules().any(|rule| rule.mailet == "RemoteDelivery");
        let mut delivering = self.processors.iter().filter(is_delivering).map(|processor| processor.name.as_str());
        let processor = match (delivering.next(), delivering.next()) {
            (None, _) => return,
            (Some(only), None) => only.to_owned(),
            (Some(_), Some(_)) => first.to_owned(),
        };
        let temporary = Matcher::one("IsRemoteDeliveryTemporaryError");
        let rules = self.processors.iter().flat_map(Processor::rules);
        let kept = rules.filter(|rule| rule.mailet == "ToRepository" && rule.matcher == temporary);
        let kept: Vec<_> = kept.filter_map(|rule| rule.text("repositoryPath").map(str::to_owned)).collect();
        for repository in kept {
            if !self.jobs.iter().any(|job| job.repository == repository) {
                self.jobs.push(Job { repository, processor: processor.clone(), spacing: Vec::new() });
            }
        }
    }
}

impl Job {
    /// The files of the job and its schedule, as comments.
    pub(super) fn described(&self, number: usize) -> String {
        let name = if number == 1 { "retry-temporary".to_owned() } else { format!("retry-temporary-{number}") };
        let spacing: Vec<_> = self.spacing.iter().map(|delay| format_duration(*delay)).collect();
        let spacing =
            if spacing.is_empty() { String::new() } else { format!("#   spacing: [{}]\n", spacing.join(", ")) };
        format!(
            "# jobs/{name}.yaml:\n#   kind: reprocess\n#   repository: {}\n#   processor: {}\n{spacing}# schedules/{name}.yaml:\n#   job: {name}\n#   cron: \"*/5 * * * *\"\n",
            self.repository, self.processor
        )
    }
}

/// The delays that a job can have, the last of which repeats.
fn spacing(delays: &[Duration]) -> Vec<Duration> {
    let mut spacing: Vec<_> = delays.iter().map(|delay| (*delay).max(Duration::from_secs(1))).collect();
    while spacing.len() > 1 && spacing[spacing.len() - 1] == spacing[spacing.len() - 2] {
        spacing.pop();
    }
    spacing
}
