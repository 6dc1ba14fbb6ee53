//! James's mail container as our processors, with a note for everything that has no counterpart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::delays;
use super::xml::Element;
use super::yaml::{self, Matcher, Rule, Value};
use crate::mail::RepositoryPath;
use crate::pipeline;
use crate::yaml::format_duration;

/// What James's administrators call the store of failures that are retried.
const TEMPORARY: &str = "sqlite://var/mail/error/remote-delivery/temporary/";
const PERMANENT: &str = "sqlite://var/mail/error/remote-delivery/permanent/";
const ERROR: &str = "sqlite://var/mail/error/";

/// Matchers by which James decides who may relay; here the listener has decided that.
const WHO_MAY_RELAY: [&str; 4] = ["SMTPAuthSuccessful", "SMTPIsAuthNetwork", "SentByMailet", "SentByJmap"];

fn says_who_may_relay(matcher: &str) -> bool {
    WHO_MAY_RELAY.contains(&last_segment(matcher.split('=').next().unwrap_or_default()))
}

/// Parameters of RemoteDelivery that are ours too.
const DELIVERY_PARAMETERS: [&str; 18] = [
    "outgoing",
    "outgoingQueue",
    "maxDnsProblemRetries",
    "timeout",
    "connectiontimeout",
    "sendpartial",
    "startTLS",
    "sslEnable",
    "verifyServerIdentity",
    "sslTrustAllCerts",
    "gateway",
    "gatewayPort",
    "gatewayUsername",
    "gatewayPassword",
    "loadBalancing",
    "bind",
    "heloName",
    "deliveryThreads",
];

/// A container that was converted.
#[derive(Debug, Default)]
pub(super) struct Converted {
    /// The configuration, with the jobs that belong to it as comments.
    pub(super) yaml: String,
    /// What has no counterpart, each with its line.
    pub(super) notes: Vec<(usize, String)>,
    /// Senders were told of failures, and are no longer.
    pub(super) unbounced: bool,
}

/// Converts the container; `file` names it in the heading.
pub(super) fn convert(top: &Element, file: &str) -> Converted {
    let mut conversion = Conversion::default();
    let processors = conversion.processors_of(top);
    for processor in &processors {
        conversion.processor(processor);
    }
    conversion.finish(file)
}

#[derive(Default)]
struct Conversion {
    notes: Vec<(usize, String)>,
    unbounced: bool,
    schemes: BTreeSet<String>,
    processors: Vec<(String, Vec<Rule>)>,
    jobs: Vec<Job>,
}

/// A job that brings mails of a repository back.
struct Job {
    repository: String,
    processor: String,
    spacing: Vec<Duration>,
}

/// The processor that is being converted.
struct Within<'a> {
    name: &'a str,
    composites: BTreeMap<String, Option<Matcher>>,
    /// A mailet that tells senders was left out.
    lost_a_bounce: bool,
}

impl Conversion {
    fn note(&mut self, element: &Element, text: impl Into<String>) {
        self.notes.push((element.line, text.into()));
    }

    /// All processors, wherever they stand: a file may also be a part of a container.
    fn processors_of<'a>(&mut self, element: &'a Element) -> Vec<&'a Element> {
        let mut found = Vec::new();
        for child in &element.children {
            match child.name.as_str() {
                "processor" => found.push(child),
                "mailetcontainer" | "processors" => found.extend(self.processors_of(child)),
                other => self.note(child, format!("element {other} has no counterpart: left out")),
            }
        }
        found
    }

    fn processor(&mut self, element: &Element) {
        let Some(name) = element.attribute("state").or_else(|| element.attribute("name")) else {
            self.note(element, "a processor without a name is left out: it needs an attribute 'state'");
            return;
        };
        let mut within = Within { name, composites: BTreeMap::new(), lost_a_bounce: false };
        let mut rules = Vec::new();
        for child in &element.children {
            match child.name.as_str() {
                "mailet" => rules.extend(self.rule(child, &mut within).into_iter().flatten()),
                "matcher" => {
                    let composite = self.composite(child, &within.composites);
                    within.composites.insert(child.attribute("name").unwrap_or_default().to_owned(), composite);
                }
                other => self.note(child, format!("element {other} has no counterpart: left out")),
            }
        }
        self.close(element, &within, &mut rules);
        self.processors.push((name.to_owned(), rules));
    }

    /// James deletes what reaches the end of a processor; here it comes to rest.
    fn close(&mut self, element: &Element, within: &Within<'_>, rules: &mut Vec<Rule>) {
        if rules.iter().any(takes_all) {
            return;
        }
        let (path, why) = if within.lost_a_bounce {
            (PERMANENT, "whose bounces have no counterpart")
        } else {
            (ERROR, "which James deletes")
        };
        self.note(element, format!("what reaches the end of processor '{}', {why}, is kept in {path}", within.name));
        rules.push(rule_of(Matcher::One("All".to_owned()), "ToRepository", vec![pair("repositoryPath", path)]));
    }

    /// `None` where the mailet, or its matcher, has no counterpart.
    fn rule(&mut self, element: &Element, within: &mut Within<'_>) -> Option<Vec<Rule>> {
        let class = last_segment(element.attribute("class").unwrap_or_default());
        let written = element.attribute("match").or_else(|| element.attribute("notmatch")).unwrap_or("All");
        let matcher = self.matcher(element, written, &within.composites);
        let (mailet, parameters) = self.mailet(element, class, within)?;
        let Some(matcher) = matcher else {
            self.note(element, format!("mailet {class} is left out with its matcher"));
            return None;
        };
        let mut rule = rule_of(matcher, mailet, parameters);
        if element.attribute("notmatch").is_some() {
            if element.attribute("match").is_none() {
                "notmatch".clone_into(&mut rule[0].0);
            } else {
                self.note(element, "match and notmatch exclude each other: notmatch is left out");
            }
        }
        for name in ["onMailetException", "onMatchException"] {
            let text = element.attribute(name).or_else(|| element.text_of(name));
            rule.extend(text.map(|text| pair(name, text)));
        }
        Some(if mailet == "RemoteDelivery" { self.retried(element, rule, within) } else { vec![rule] })
    }

    fn matcher(
        &mut self,
        element: &Element,
        written: &str,
        composites: &BTreeMap<String, Option<Matcher>>,
    ) -> Option<Matcher> {
        if let Some(composite) = composites.get(written) {
            return composite.clone();
        }
        let (name, condition) = written.split_once('=').map_or((written, None), |(name, rest)| (name, Some(rest)));
        let name = last_segment(name.trim());
        if WHO_MAY_RELAY.contains(&name) {
            self.note(element, format!("matcher {name} becomes All: smtp.networks and smtp.users say who may relay"));
            return Some(Matcher::One("All".to_owned()));
        }
        if !pipeline::is_matcher(name) {
            self.note(element, format!("matcher {name} has no counterpart"));
            return None;
        }
        Some(Matcher::One(condition.map_or(name.to_owned(), |condition| format!("{name}={condition}"))))
    }

    /// A matcher of matchers. What has no counterpart is left out of an Or, and makes every
    /// other one meaningless.
    fn composite(&mut self, element: &Element, known: &BTreeMap<String, Option<Matcher>>) -> Option<Matcher> {
        let written = element.attribute("match").unwrap_or_default();
        let inner: Vec<_> = element.children_named("matcher").map(|child| self.composite(child, known)).collect();
        let all: Option<Vec<_>> = inner.iter().cloned().collect();
        match last_segment(written) {
            "Or" => {
                let some: Vec<_> = inner.into_iter().flatten().collect();
                let all = Matcher::One("All".to_owned());
                if some.contains(&all) { Some(all) } else { several("Or", some) }
            }
            "And" => several("And", all?),
            "Xor" => several("Xor", all?),
            "Not" => several("Or", all?).map(|inner| Matcher::Not(Box::new(inner))),
            _ => self.matcher(element, written, known),
        }
    }

    /// The mailet's name here and its parameters.
    fn mailet(
        &mut self,
        element: &Element,
        class: &str,
        within: &mut Within<'_>,
    ) -> Option<(&'static str, Vec<(String, Value)>)> {
        Some(match class {
            "RemoteDelivery" => (
                "RemoteDelivery",
                self.parameters(
                    element,
                    &[&DELIVERY_PARAMETERS[..], &["bounceProcessor", "maxRetries", "delayTime"]].concat(),
                ),
            ),
            "ToRepository" => {
                self.scheme(element.text_of("repositoryPath").unwrap_or_default());
                ("ToRepository", self.parameters(element, &["repositoryPath", "passThrough"]))
            }
            "ToProcessor" => ("ToProcessor", self.parameters(element, &["processor", "notice"])),
            // In James the sender was told before the mail was dropped.
            "Null" if within.lost_a_bounce => {
                self.note(
                    element,
                    format!("Null behind a dropped bounce would lose the mail: it is kept in {PERMANENT}"),
                );
                ("ToRepository", vec![pair("repositoryPath", PERMANENT)])
            }
            // The listener lets nobody else in: it would be for all mail.
            "Null" if element.attribute("match").is_some_and(says_who_may_relay) => {
                self.note(element, "mailet Null for all who may relay would delete every mail: left out".to_owned());
                return None;
            }
            "Null" => ("Null", self.parameters(element, &[])),
            "SetMailAttribute" => ("SetMailAttribute", texts(element)),
            "RemoveMailAttribute" => {
                let names: Vec<_> = element.children_named("name").map(Element::text).collect();
                ("RemoveMailAttribute", vec![("name".to_owned(), Value::Text(names.join(", ")))])
            }
            "SetErrorMessage" => ("SetErrorMessage", self.parameters(element, &["errorMessage"])),
            "AddHeader" | "SetMimeHeader" => ("AddHeader", self.parameters(element, &["name", "value"])),
            "LogMessage" => {
                if element.text_of("body") != Some("false") {
                    self.note(element, "LogMessage logs no bodies here");
                }
                ("LogMessage", self.parameters(element, &["headers", "comment", "passThrough"]))
            }
            "MetricsMailet" => ("MetricsMailet", self.parameters(element, &["metricName"])),
            "Bounce" | "DSNBounce" | "NotifySender" => {
                within.lost_a_bounce = true;
                self.unbounced = true;
                self.note(
                    element,
                    format!("mailet {class} has no counterpart: senders are no longer told of failures"),
                );
                return None;
            }
            other => {
                self.note(element, format!("mailet {other} has no counterpart: left out"));
                return None;
            }
        })
    }

    /// The parameters that are known, in the order of the file; the others are noted.
    fn parameters(&mut self, element: &Element, known: &[&str]) -> Vec<(String, Value)> {
        let mut found = Vec::new();
        for child in &element.children {
            let (name, text) = (child.name.as_str(), child.text());
            if matches!(name, "onMailetException" | "onMatchException" | "body" | "maxBody" | "debug") {
                continue;
            }
            if !known.contains(&name) {
                self.note(child, format!("parameter {name} has no counterpart: left out"));
            } else if !text.is_empty() {
                found.push((name.to_owned(), Value::of(text)));
            }
        }
        found
    }

    fn scheme(&mut self, url: &str) {
        let scheme = RepositoryPath::parse_url(url).ok().and_then(|(scheme, _)| scheme);
        self.schemes.extend(scheme.filter(|scheme| scheme != "sqlite"));
    }

    /// A RemoteDelivery that tries once a pass: James's own retries become passes, bounded by
    /// AtMost, spaced by a job.
    fn retried(&mut self, element: &Element, mut rule: Rule, within: &Within<'_>) -> Vec<Rule> {
        rule.retain(|(key, _)| key != "maxRetries" && key != "delayTime");
        let has = |rule: &Rule, name: &str| rule.iter().any(|(key, _)| key == name);
        // Where nothing is said James has it the other way than we do.
        if has(&rule, "gateway") && !has(&rule, "loadBalancing") {
            rule.push(("loadBalancing".to_owned(), Value::Bare("true".to_owned())));
        }
        if !has(&rule, "sendpartial") {
            rule.push(("sendpartial".to_owned(), Value::Bare("false".to_owned())));
        }
        let bounce = self.bounce_processor(element, &mut rule);
        let delays = match delays::retries(element.text_of("maxRetries"), element.text_of("delayTime")) {
            Ok(delays) => delays,
            Err(why) => {
                self.note(element, format!("{why}: it is tried once"));
                Vec::new()
            }
        };
        let takes_all = takes_all(&rule);
        if !delays.is_empty() {
            self.spread(&mut rule, &bounce, &delays, within);
        }
        // Where AtMost lets a mail go by that James's mailet would have taken.
        let exhausted = takes_all && !delays.is_empty();
        let exhausted = exhausted.then(|| to_processor("All".to_owned(), &bounce));
        std::iter::once(rule).chain(exhausted).collect()
    }

    /// The processor that takes failures; one that sorts them where James has none, and tells
    /// the sender itself.
    fn bounce_processor(&mut self, element: &Element, rule: &mut Rule) -> String {
        const NAME: &str = "remote-delivery-error";
        if let Some((_, Value::Text(name))) = rule.iter().find(|(key, _)| key == "bounceProcessor") {
            return name.clone();
        }
        self.unbounced = true;
        self.note(
            element,
            "RemoteDelivery without bounceProcessor tells the sender of failures, which has no counterpart: they are kept",
        );
        rule.push(pair("bounceProcessor", NAME));
        if !self.processors.iter().any(|(name, _)| name == NAME) {
            self.processors.push((NAME.to_owned(), sorted(PERMANENT, "All")));
        }
        NAME.to_owned()
    }

    /// Puts a processor of its own in front of `bounce` that keeps what is to be tried again.
    fn spread(&mut self, rule: &mut Rule, bounce: &str, delays: &[Duration], within: &Within<'_>) {
        let number = self.jobs.len() + 1;
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let (name, repository) =
            (format!("remote-delivery-retry{suffix}"), format!("{}{suffix}/", TEMPORARY.trim_end_matches('/')));
        let attempts = delays.len() + 1;
        for (key, value) in &mut *rule {
            match key.as_str() {
                "bounceProcessor" => *value = Value::Text(name.clone()),
                "match" | "notmatch" => {
                    *value = at_most(value, key == "notmatch", attempts);
                    "match".clone_into(key);
                }
                _ => {}
            }
        }
        let temporary = Matcher::One("IsRemoteDeliveryTemporaryError".to_owned());
        let rules = vec![
            to_processor(format!("AttemptsExhausted={attempts}"), bounce),
            rule_of(temporary, "ToRepository", vec![pair("repositoryPath", &repository)]),
            to_processor("All".to_owned(), bounce),
        ];
        self.processors.push((name, rules));
        self.jobs.push(Job { repository, processor: within.name.to_owned(), spacing: spacing(delays) });
    }

    fn finish(mut self, file: &str) -> Converted {
        self.jobs_of_repositories();
        let names: Vec<_> = self.processors.iter().map(|(name, _)| name.as_str()).collect();
        let first = ["root", "relay"].into_iter().find(|name| names.contains(name)).or(names.first().copied());
        let mut yaml = format!("# Converted from {file}; run redeliver check on it.\n");
        yaml.push_str(
            &first.map_or(String::new(), |first| format!("smtp: {{ processor: {} }}\n", yaml::scalar(first))),
        );
        yaml.push_str("stores:\n  sqlite: { path: redeliver.db }\n");
        yaml.extend(self.schemes.iter().map(|scheme| format!("  {}: sqlite\n", yaml::scalar(scheme))));
        yaml.push_str("processors:\n");
        yaml.extend(self.processors.iter().map(|(name, rules)| yaml::processor(name, rules)));
        yaml.extend((1..).zip(&self.jobs).map(|(number, job)| job.described(number)));
        self.notes.sort_by_key(|(line, _)| *line);
        Converted { yaml, notes: self.notes, unbounced: self.unbounced }
    }

    /// Where the container itself keeps temporary failures, a job brings them back.
    fn jobs_of_repositories(&mut self) {
        let with = |mailet: &'static str| {
            move |rule: &&Rule| {
                rule.iter().any(|(key, value)| key == "mailet" && *value == Value::Text(mailet.to_owned()))
            }
        };
        let delivering =
            self.processors.iter().find(|(_, rules)| rules.iter().any(|rule| with("RemoteDelivery")(&rule)));
        let Some(processor) = delivering.map(|(name, _)| name.clone()) else { return };
        let temporary = Value::Text("IsRemoteDeliveryTemporaryError".to_owned());
        let rules = self.processors.iter().flat_map(|(_, rules)| rules);
        let kept: Vec<_> = rules
            .filter(with("ToRepository"))
            .filter(|rule| rule.first().is_some_and(|(_, matcher)| *matcher == temporary))
            .filter_map(|rule| rule.iter().find(|(key, _)| key == "repositoryPath"))
            .filter_map(|(_, path)| if let Value::Text(path) = path { Some(path.clone()) } else { None })
            .collect();
        for repository in kept {
            if !self.jobs.iter().any(|job| job.repository == repository) {
                self.jobs.push(Job { repository, processor: processor.clone(), spacing: Vec::new() });
            }
        }
    }
}

impl Job {
    fn described(&self, number: usize) -> String {
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

/// The matcher of a RemoteDelivery with so many attempts for each that it had.
fn at_most(matcher: &Value, inverted: bool, attempts: usize) -> Value {
    let limit = |most: usize| Matcher::One(format!("AtMost={most}"));
    let matcher = match matcher {
        Value::Matcher(matcher) => matcher.clone(),
        Value::Text(text) | Value::Bare(text) => Matcher::One(text.clone()),
    };
    let both = |matcher| Matcher::Several("And", vec![matcher, limit(attempts)]);
    match matcher {
        matcher if inverted => both(Matcher::Not(Box::new(matcher))),
        Matcher::One(text) if text == "All" => limit(attempts),
        Matcher::One(text) => match text.strip_prefix("AtMost=").and_then(|most| most.parse::<usize>().ok()) {
            Some(most) => limit(most.saturating_mul(attempts)),
            None => both(Matcher::One(text)),
        },
        composite => both(composite),
    }
    .value()
}

/// Temporary failures apart from the others.
fn sorted(others: &str, matcher: &str) -> Vec<Rule> {
    let to = |matcher: &str, path: &str| {
        rule_of(Matcher::One(matcher.to_owned()), "ToRepository", vec![pair("repositoryPath", path)])
    };
    vec![to("IsRemoteDeliveryTemporaryError", TEMPORARY), to(matcher, others)]
}

fn several(name: &'static str, mut inner: Vec<Matcher>) -> Option<Matcher> {
    match inner.len() {
        0 => None,
        1 => inner.pop(),
        _ => Some(Matcher::Several(name, inner)),
    }
}

fn rule_of(matcher: Matcher, mailet: &str, parameters: Vec<(String, Value)>) -> Rule {
    let head = [("match".to_owned(), matcher.value()), pair("mailet", mailet)];
    head.into_iter().chain(parameters).collect()
}

fn to_processor(matcher: String, name: &str) -> Rule {
    rule_of(Matcher::One(matcher), "ToProcessor", vec![pair("processor", name)])
}

fn pair(key: &str, text: &str) -> (String, Value) {
    (key.to_owned(), Value::Text(text.to_owned()))
}

/// Every child as an attribute's name and text.
fn texts(element: &Element) -> Vec<(String, Value)> {
    let children = element.children.iter().filter(|child| !child.name.starts_with("onMa"));
    children.map(|child| pair(&child.name, child.text())).collect()
}

/// Whether a rule leaves nothing for the next.
fn takes_all(rule: &Rule) -> bool {
    let value = |name: &str| rule.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    let text = |name: &str| if let Some(Value::Text(text)) = value(name) { text.as_str() } else { "" };
    let passes = |default: bool| value("passThrough").map_or(default, |value| *value == Value::Bare("true".to_owned()));
    let consumes = match text("mailet") {
        "RemoteDelivery" | "ToProcessor" | "Null" => true,
        "ToRepository" => !passes(false),
        "LogMessage" => !passes(true),
        _ => false,
    };
    text("match") == "All" && consumes && text("onMailetException") != "ignore"
}

/// A class without its packages.
fn last_segment(class: &str) -> &str {
    class.rsplit('.').next().unwrap_or(class)
}
