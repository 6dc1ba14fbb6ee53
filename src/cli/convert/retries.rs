//! James's own retries become passes: bounded by AtMost, spaced by a job that takes what was
//! deferred round again.
//!
//! A pass leads to the RemoteDelivery that deferred and to no other: each has a repository of
//! its own, and where its rule does not stand alone a processor too.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::time::Duration;

use super::matcher::Matcher;
use super::notes::Notes;
use super::rule::{Entry, Processor, Rule};
use super::{ERROR, PERMANENT, TEMPORARY, yaml};
use crate::yaml::format_duration;

/// A job that brings mails of a repository back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    repository: String,
    processor: String,
    spacing: Vec<Duration>,
}

/// Makes passes of all retries; the jobs for them. Mail comes in at `first`.
pub(super) fn become_passes(processors: &mut Vec<Processor>, first: &str, notes: &mut Notes) -> Vec<Job> {
    keep_failures(processors);
    let mut jobs: Vec<Job> = Vec::new();
    while let Some((at, mut rule)) = next(processors) {
        let delays = std::mem::take(&mut rule.delays);
        match sorted_at(processors, rule.edge().unwrap_or_default()) {
            Some(repository) => {
                let rule = by_the_container(processors, rule, delays.len(), notes);
                processors[at.0].entries[at.1] = Entry::Rule(rule);
                add(&mut jobs, Job { repository, processor: way_back(processors, first), spacing: spacing(&delays) });
            }
            None => jobs.push(spread(processors, at, rule, &delays)),
        }
    }
    for repository in repositories_of_deferred(processors) {
        let job = Job { repository, processor: way_back(processors, first), spacing: Vec::new() };
        add(&mut jobs, job);
    }
    jobs
}

/// The container keeps what is deferred itself, and bounds its own passes: they are the
/// retries.
fn by_the_container(processors: &[Processor], mut rule: Rule, retries: usize, notes: &mut Notes) -> Rule {
    let rules = processors.iter().flat_map(Processor::rules);
    let is_plain = rule.matcher.counts() && matches!(rule.matcher, Matcher::One(_));
    if is_plain && rules.filter(|rule| rule.matcher.counts()).count() == 1 {
        rule.matcher = rule.matcher.scaled(retries + 1);
    } else if rules_count(processors) {
        notes.warn_at(
            rule.line,
            format!("the {retries} retries of RemoteDelivery are left out: one attempt for each AtMost"),
        );
    }
    rule
}

fn rules_count(processors: &[Processor]) -> bool {
    processors.iter().flat_map(Processor::rules).any(|rule| rule.matcher.counts())
}

/// One job for each repository.
fn add(jobs: &mut Vec<Job>, job: Job) {
    if !jobs.iter().any(|known| path_of(&known.repository) == path_of(&job.repository)) {
        jobs.push(job);
    }
}

/// James tells the sender of what fails where no processor takes it; here it is kept as well.
fn keep_failures(processors: &mut Vec<Processor>) {
    let name = free_name(processors, "remote-delivery-error");
    let mut line = None;
    for entry in processors.iter_mut().flat_map(|processor| &mut processor.entries) {
        if let Entry::Rule(rule) = entry
            && rule.mailet == "RemoteDelivery"
            && rule.edge().is_none()
        {
            line.get_or_insert(rule.line);
            rule.set("bounceProcessor", &name);
        }
    }
    if let Some(line) = line {
        let tells = Rule::new(line, Matcher::all(), "DSNBounce", Vec::new());
        processors.push(Processor::new(&name, line, vec![tells, Rule::to_repository(line, Matcher::all(), PERMANENT)]));
    }
}

/// The next rule with retries, and where it stands: its processor and its place there.
fn next(processors: &[Processor]) -> Option<((usize, usize), Rule)> {
    let rules = |(number, processor): (usize, &Processor)| {
        processor.entries.iter().enumerate().find_map(|(place, entry)| match entry {
            Entry::Rule(rule) if !rule.delays.is_empty() => Some(((number, place), rule.clone())),
            _ => None,
        })
    };
    processors.iter().enumerate().find_map(rules)
}

/// Whether a rule keeps what was deferred.
fn keeps_deferred(rule: &Rule) -> bool {
    let is_for_deferred = rule.matcher == Matcher::one("IsRemoteDeliveryTemporaryError");
    rule.mailet == "ToRepository" && rule.consumes() && is_for_deferred && !rule.stands_in
}

/// The repositories where the container itself keeps what was deferred, and nothing else: a
/// job may take all of it round again.
fn repositories_of_deferred(processors: &[Processor]) -> Vec<String> {
    let rules = || processors.iter().flat_map(Processor::rules);
    let others: BTreeSet<_> = rules()
        .filter(|rule| !keeps_deferred(rule))
        .filter_map(|rule| rule.text("repositoryPath"))
        .chain([ERROR])
        .map(path_of)
        .collect();
    let kept = rules().filter(|rule| keeps_deferred(rule)).filter_map(|rule| rule.text("repositoryPath"));
    kept.filter(|url| !others.contains(path_of(url))).map(str::to_owned).collect()
}

/// The repository where the container itself keeps what was deferred, if the way from
/// processor `name` leads there.
fn sorted_at(processors: &[Processor], name: &str) -> Option<String> {
    let repositories = OnceCell::new();
    let all = || repositories_of_deferred(processors).into_iter().collect::<BTreeSet<_>>();
    let are_kept = |url: &str| repositories.get_or_init(all).contains(url);
    let (mut seen, mut waiting) = (BTreeSet::new(), vec![name]);
    while let Some(name) = waiting.pop() {
        if !seen.insert(name) {
            continue;
        }
        for rule in processors.iter().filter(|processor| processor.name == name).flat_map(Processor::rules) {
            let url = rule.text("repositoryPath").filter(|_| keeps_deferred(rule));
            if let Some(url) = url.filter(|url| are_kept(url)) {
                return Some(url.to_owned());
            }
            waiting.extend(rule.edge());
        }
    }
    None
}

/// Where what a container keeps itself goes again: to the RemoteDelivery where there is one,
/// else to `first`, whose rules say to which.
fn way_back(processors: &[Processor], first: &str) -> String {
    let delivers = |processor: &&Processor| processor.rules().any(|rule| rule.mailet == "RemoteDelivery");
    let mut delivering = processors.iter().filter(delivers);
    match (delivering.next(), delivering.next()) {
        (Some(only), None) => only.name.clone(),
        _ => first.to_owned(),
    }
}

/// Puts a processor in front of the one for failures that keeps what is to be tried again.
fn spread(processors: &mut Vec<Processor>, at: (usize, usize), mut rule: Rule, delays: &[Duration]) -> Job {
    let (line, attempts) = (rule.line, delays.len() + 1);
    let bounce = rule.edge().unwrap_or_default().to_owned();
    rule.matcher = rule.matcher.with_counter_of_its_own();
    if !processors.iter().flat_map(Processor::rules).any(|rule| rule.is_of_passes) {
        count_apart(processors);
    }
    let repository = free_repository(processors);
    let retry = free_name(processors, "remote-delivery-retry");
    let mut rules = vec![
        Rule::to_processor(line, Matcher::one(format!("AttemptsExhausted={attempts}")), &bounce),
        Rule::to_repository(line, Matcher::one("IsRemoteDeliveryTemporaryError"), &repository),
        Rule::to_processor(line, Matcher::all(), &bounce),
    ];
    rules[0].is_of_passes = true;
    processors.insert(at.0 + 1, Processor::new(&retry, line, rules));
    rule.set("bounceProcessor", &retry);
    let processor = limit(processors, at, rule, attempts, &bounce);
    Job { repository, processor, spacing: spacing(delays) }
}

/// Leaves the usual counter to the passes of a RemoteDelivery.
fn count_apart(processors: &mut [Processor]) {
    for entry in processors.iter_mut().flat_map(|processor| &mut processor.entries) {
        if let Entry::Rule(rule) = entry {
            rule.matcher = rule.matcher.clone().with_counter_of_its_own();
        }
    }
}

/// Bounds the passes of a RemoteDelivery; the processor that leads to it and to nothing else.
fn limit(processors: &mut Vec<Processor>, at: (usize, usize), mut rule: Rule, attempts: usize, bounce: &str) -> String {
    let (line, (processor, entry)) = (rule.line, at);
    let begins = !processors[processor].entries[..entry].iter().any(|entry| matches!(entry, Entry::Rule(_)));
    let stands_alone = begins && rule.matcher.is_all();
    let (matcher, hosted) =
        (std::mem::replace(&mut rule.matcher, Matcher::one(format!("AtMost={attempts}"))), rule.hosted);
    rule.is_of_passes = true;
    // What is used up goes where it went when James had given up.
    let used_up = Rule::to_processor(line, Matcher::all(), bounce);
    if stands_alone {
        let rules = [rule, used_up].map(Entry::Rule);
        processors[processor].entries.splice(entry..=entry, rules);
        return processors[processor].name.clone();
    }
    let own = free_name(processors, "remote-delivery");
    let way = Rule { hosted, ..Rule::to_processor(line, matcher, &own) };
    processors[processor].entries[entry] = Entry::Rule(way);
    processors.insert(processor + 1, Processor::new(&own, line, vec![rule, used_up]));
    own
}

/// `base`, or `base-2` and so on where a processor has that name.
fn free_name(processors: &[Processor], base: &str) -> String {
    let names: BTreeSet<_> = processors.iter().map(|processor| processor.name.as_str()).collect();
    free(base, |name| !names.contains(name))
}

/// A repository for what is deferred that no rule stores in.
fn free_repository(processors: &[Processor]) -> String {
    let stored: BTreeSet<_> = processors
        .iter()
        .flat_map(Processor::rules)
        .filter_map(|rule| rule.text("repositoryPath"))
        .map(path_of)
        .collect();
    free(TEMPORARY.trim_end_matches('/'), |url| !stored.contains(path_of(url))) + "/"
}

fn free(base: &str, is_free: impl Fn(&str) -> bool) -> String {
    let names = std::iter::once(base.to_owned()).chain((2..).map(|number| format!("{base}-{number}")));
    names.into_iter().find(|name| is_free(name)).unwrap_or_default()
}

fn path_of(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, path)| path).trim_end_matches('/')
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
            yaml::scalar(&self.repository),
            yaml::scalar(&self.processor)
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
