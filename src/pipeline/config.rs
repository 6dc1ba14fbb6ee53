//! The processors as they are configured, and what can be proved of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::check;
use super::mailet::Mailet;
use super::matcher::{Limit, Matcher};
use super::on_exception::OnException;
use super::remote_delivery::RemoteDelivery;
use crate::delivery;
use crate::dkim::Signatory;
use crate::mail::{Attributes, RepositoryPath, attribute};
use crate::yaml::{Entry, Fields, Node, Place, Reading, Value, nearest, text};

/// The processor that takes what failed by our own fault; exists even where it is not configured.
pub const ERROR_PROCESSOR: &str = "error";

/// All processors, each a list of rules, proved to bring every recipient to an end.
#[derive(Debug, Clone, Default)]
pub struct Config {
    pub(super) processors: BTreeMap<String, Vec<Rule>>,
    /// Processors with an open end, since what comes to them is delivered, or nothing does; true
    /// where it is delivered.
    loose: BTreeMap<String, bool>,
}

/// A matcher with the mailet for what it matches.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) matcher: Matcher,
    /// `notmatch`: the mailet is for those that the matcher does not match.
    pub(super) inverted: bool,
    pub(super) mailet: Mailet,
    pub(super) on_exception: OnException,
}

/// What rules may name.
pub(super) struct Known<'a> {
    processors: BTreeSet<&'a str>,
    schemes: &'a BTreeSet<String>,
}

/// A processor as it is read, with the places that a check may have to point to.
pub(super) struct Draft<'a> {
    pub(super) name: &'a str,
    pub(super) place: Place,
    pub(super) rules: Vec<DraftRule>,
    /// A rule was wrong by itself: nothing can be proved.
    pub(super) incomplete: bool,
}

/// A rule with its places.
pub(super) struct DraftRule {
    pub(super) rule: Rule,
    pub(super) matcher_place: Place,
    /// Where the processor is named that it leads to.
    pub(super) edge_place: Place,
    /// Where the processor is named for what is delivered.
    pub(super) success_place: Place,
}

impl Rule {
    /// The processors it leads to.
    pub(super) fn edges(&self) -> impl Iterator<Item = &str> {
        self.ways_on().chain(self.on_success())
    }

    /// The processors it leads to what is not delivered.
    pub(super) fn ways_on(&self) -> impl Iterator<Item = &str> {
        let of_mailet = match &self.mailet {
            Mailet::RemoteDelivery(mailet) => Some(mailet.bounce_processor.as_str()),
            Mailet::ToProcessor(mailet) => Some(mailet.processor.as_str()),
            _ => None,
        };
        of_mailet.into_iter().chain(self.on_exception.edge())
    }

    /// The processor for what is delivered.
    pub(super) fn on_success(&self) -> Option<&str> {
        self.remote_delivery().and_then(|mailet| mailet.on_success.as_deref())
    }

    /// Whether nobody passes it: its mailet takes whatever the mail.
    pub(super) fn takes_all(&self) -> bool {
        !self.inverted
            && self.matcher.is_certain()
            && self.mailet.consumes()
            && self.on_exception != OnException::Ignore
    }

    fn remote_delivery(&self) -> Option<&RemoteDelivery> {
        match &self.mailet {
            Mailet::RemoteDelivery(mailet) => Some(mailet),
            _ => None,
        }
    }

    /// The limits of each AtMost that every mail of this rule has to pass.
    fn limits(&self) -> impl Iterator<Item = &Limit> {
        let needed = match &self.matcher {
            _ if self.inverted => &[],
            Matcher::And(inner) => inner.as_slice(),
            alone => std::slice::from_ref(alone),
        };
        needed.iter().filter_map(|matcher| if let Matcher::AtMost(limit) = matcher { Some(limit) } else { None })
    }
}

impl Known<'_> {
    /// The name of a processor that exists.
    pub(super) fn processor(&self, node: &Node) -> Result<String, String> {
        let name = text(node)?;
        check_processor(&name, self.processors.iter().copied())?;
        Ok(name)
    }

    /// A repository by its URL or whole path.
    pub(super) fn repository(&self, node: &Node) -> Result<RepositoryPath, String> {
        repository(&text(node)?, self.schemes)
    }
}

fn check_processor<'n>(name: &str, known: impl Iterator<Item = &'n str> + Clone) -> Result<(), String> {
    if name == ERROR_PROCESSOR || known.clone().any(|one| one == name) {
        return Ok(());
    }
    Err(match nearest(name, known.clone()) {
        Some(near) => format!("there is no processor '{name}': did you mean '{near}'?"),
        None => format!("there is no processor '{name}': known are {}", known.collect::<Vec<_>>().join(", ")),
    })
}

/// Reads a repository's URL or path; the scheme must be one of the configured stores.
pub fn repository(written: &str, schemes: &BTreeSet<String>) -> Result<RepositoryPath, String> {
    let (scheme, path) = RepositoryPath::parse_url(written).map_err(|error| error.to_string())?;
    match scheme {
        Some(scheme) if !schemes.contains(&scheme) => {
            let known: Vec<_> = schemes.iter().map(String::as_str).collect();
            Err(format!("no store is called '{scheme}': 'stores' has {}", known.join(", ")))
        }
        _ if path.is_called_as_the_spool() => {
            Err("'spool' is what the spool is called: name the repository otherwise, such as 'var/mail/spool'"
                .to_owned())
        }
        _ => Ok(path),
    }
}

impl Config {
    /// Reads the mapping of processors, of which `first` is the one that mail comes in at.
    /// Problems are noted in `reading`; the result is sound only while there are none.
    pub fn read(node: &Node, schemes: &BTreeSet<String>, first: &str, reading: &Reading) -> Self {
        let Value::Mapping(entries) = &node.value else {
            let message = format!("'processors' is expected here as names with their rules, not {}", node.described());
            reading.problem(node.place, message);
            return Self::default();
        };
        let known = Known { processors: entries.iter().map(|entry| entry.key.as_str()).collect(), schemes };
        let drafts: Vec<_> = entries.iter().map(|entry| read_processor(entry, &known, reading)).collect();
        check::all(&drafts, first, reading);
        let loose = check::loose(&drafts, first);
        Self { loose, ..Self::numbered(drafts) }
    }

    fn numbered(drafts: Vec<Draft<'_>>) -> Self {
        let mut number = 0..;
        let mut processors = BTreeMap::new();
        let keeping: BTreeSet<_> = check::keeping_processors(&drafts).into_iter().map(str::to_owned).collect();
        for draft in drafts {
            let mut rules: Vec<_> = draft.rules.into_iter().map(|draft| draft.rule).collect();
            for rule in &mut rules {
                if let Mailet::RemoteDelivery(mailet) = &mut rule.mailet {
                    mailet.number = number.next().unwrap_or_default();
                    mailet.keeps_successes = mailet.on_success.as_ref().is_some_and(|name| keeping.contains(name));
                }
            }
            processors.insert(draft.name.to_owned(), rules);
        }
        Self { processors, loose: BTreeMap::new() }
    }

    /// Refuses a processor that no mail can be sent into: one that does not exist, or that leads
    /// to an open end. Names what would be right.
    pub fn check_processor(&self, name: &str) -> Result<(), String> {
        check_processor(name, self.processors.keys().map(String::as_str))?;
        match self.open_end(name) {
            None => Ok(()),
            Some(open) if self.loose[open] => Err(check::open_to_successes_alone(open)),
            Some(open) => Err(format!("processor '{open}' has an open end: {}", check::CLOSE)),
        }
    }

    /// The names of the configured processors that a mail can be sent into.
    pub fn processors(&self) -> impl Iterator<Item = &str> {
        self.processors.keys().map(String::as_str).filter(|name| self.open_end(name).is_none())
    }

    /// Processors with an open end that nothing leads to.
    pub fn stray_processors(&self) -> impl Iterator<Item = &str> {
        self.loose.iter().filter_map(|(name, is_delivered)| (!is_delivered).then_some(name.as_str()))
    }

    /// The first processor with an open end that a mail would come to.
    fn open_end<'a>(&'a self, processor: &'a str) -> Option<&'a str> {
        let behind = self.behind(processor, |rule| rule.ways_on().collect());
        behind.into_iter().find(|name| self.loose.contains_key(*name))
    }

    /// Every repository that a rule stores in, and the error repository.
    pub fn repositories(&self) -> BTreeSet<RepositoryPath> {
        let stored = self.rules().filter_map(|rule| match &rule.mailet {
            Mailet::ToRepository(mailet) => Some(mailet.repository.clone()),
            _ => None,
        });
        let of_notifications = self.tells().then(RepositoryPath::dsn);
        stored.chain([RepositoryPath::error()]).chain(of_notifications).collect()
    }

    /// Whether some rule tells senders anything.
    pub fn tells(&self) -> bool {
        self.rules().any(|rule| matches!(rule.mailet, Mailet::DsnBounce(_)))
    }

    /// Lets a sender who says nothing of delays be told of them.
    pub fn tell_of_delays(&mut self) {
        self.processors.values_mut().flatten().for_each(|rule| rule.matcher.delay_by_default());
    }

    /// Whether the processor exists, and no mail gets from it to a `RemoteDelivery`.
    pub(super) fn leads_to_no_delivery(&self, processor: &str) -> bool {
        let mut rules = self.reachable(processor).into_iter().flat_map(|name| self.rules_of(name));
        self.processors.contains_key(processor) && !rules.any(|rule| rule.remote_delivery().is_some())
    }

    /// The settings of every `RemoteDelivery`, in the order of their numbers.
    pub fn deliveries(&self) -> Vec<&delivery::Config> {
        let mut found: Vec<_> = self.rules().filter_map(Rule::remote_delivery).collect();
        found.sort_by_key(|mailet| mailet.number);
        found.into_iter().map(|mailet| &mailet.delivery).collect()
    }

    /// Whether a rule sets copies aside and goes on.
    pub(super) fn sets_copies_aside(&self) -> bool {
        self.rules().any(|rule| matches!(&rule.mailet, Mailet::ToRepository(mailet) if mailet.pass_through))
    }

    /// In whose names the rules sign.
    pub(super) fn signatories(&self) -> impl Iterator<Item = &Arc<Signatory>> {
        self.rules().filter_map(|rule| match &rule.mailet {
            Mailet::DkimSign(mailet) => Some(&mailet.signatory),
            _ => None,
        })
    }

    /// What every `MetricsMailet` has counted, by name.
    pub(super) fn metrics(&self) -> BTreeMap<&str, u64> {
        let mut counts = BTreeMap::new();
        for rule in self.rules() {
            if let Mailet::Metrics(mailet) = &rule.mailet {
                *counts.entry(mailet.name.as_str()).or_default() += mailet.count();
            }
        }
        counts
    }

    /// The processors that lead to a `RemoteDelivery`.
    pub fn delivering(&self) -> Vec<String> {
        let delivers = |name: &&str| !self.deliveries_from(name).is_empty();
        self.processors().filter(delivers).map(str::to_owned).collect()
    }

    /// How many attempts a mail gets that is sent through `processor` again and again;
    /// `None` without limit.
    pub fn attempts(&self, processor: &str) -> Option<u32> {
        let behind = |mailet: &RemoteDelivery| self.exhaustion(&mailet.bounce_processor).unwrap_or(u32::MAX);
        let deliveries = self.deliveries_from(processor).into_iter();
        let least = |limits: BTreeSet<&Limit>| limits.iter().map(|limit| limit.most).min();
        deliveries.filter_map(|(mailet, limits)| Some(least(limits)?.min(behind(mailet)))).max()
    }

    /// Whether AtMost lets a mail with these attributes through to no delivery any more that
    /// is sent through `processor`.
    pub fn is_used_up(&self, processor: &str, attributes: &Attributes) -> bool {
        let deliveries = self.deliveries_from(processor);
        let is_barred = |limits: &BTreeSet<&Limit>| limits.iter().any(|limit| limit.is_reached(attributes));
        !deliveries.is_empty() && deliveries.iter().all(|(_, limits)| is_barred(limits))
    }

    /// Where transient failures are kept.
    pub fn temporary_repositories(&self) -> BTreeSet<RepositoryPath> {
        let stores = self.rules().filter_map(|rule| match (&rule.matcher, &rule.mailet) {
            (Matcher::IsRemoteDeliveryTemporaryError, Mailet::ToRepository(mailet)) => Some(mailet.repository.clone()),
            _ => None,
        });
        stores.collect()
    }

    /// The attributes that limit a mail's passes and that a mailet sets or removes: the limit
    /// does not hold then.
    pub fn changed_counters(&self) -> BTreeSet<String> {
        let limits: BTreeSet<_> = self.limiting_counters().collect();
        let changed = self.rules().flat_map(|rule| match &rule.mailet {
            Mailet::SetMailAttribute(mailet) => mailet.names().collect(),
            Mailet::RemoveMailAttribute(mailet) => mailet.names().collect(),
            _ => Vec::new(),
        });
        changed.filter(|name| limits.contains(name)).map(str::to_owned).collect()
    }

    /// The counters of every AtMost and AttemptsExhausted.
    fn limiting_counters(&self) -> impl Iterator<Item = &str> {
        self.rules().flat_map(|rule| rule.matcher.all()).filter_map(|matcher| match matcher {
            Matcher::AtMost(limit) | Matcher::AttemptsExhausted(limit) => Some(limit.counter.as_str()),
            _ => None,
        })
    }

    /// The attributes that limit a mail's passes: without them every peer is tried again.
    pub fn counters(&self) -> Vec<String> {
        let always = [attribute::AT_MOST_EXECUTIONS, attribute::DNS_PROBLEMS];
        let all: BTreeSet<_> = self.limiting_counters().chain(always).map(str::to_owned).collect();
        all.into_iter().collect()
    }

    /// Whether a mail out of `repository` can come back there through `processor` without
    /// an AtMost on its way: it would be tried for ever.
    pub fn circles_without_limit(&self, repository: &RepositoryPath, processor: &str) -> bool {
        let deliveries = self.deliveries_from(processor);
        let mut unlimited = deliveries.iter().filter(|(_, limits)| limits.is_empty());
        unlimited.any(|(mailet, _)| self.stores_in(&mailet.bounce_processor, repository))
    }

    /// Every `RemoteDelivery` that is reached from `processor`, with the limits of passes on
    /// each way there. To many processors several ways lead: each is followed once for the same limits.
    fn deliveries_from<'a>(&'a self, processor: &'a str) -> Vec<(&'a RemoteDelivery, BTreeSet<&'a Limit>)> {
        let (mut found, mut met) = (Vec::new(), BTreeSet::new());
        let mut waiting = vec![(processor, BTreeSet::new())];
        while let Some((name, before)) = waiting.pop() {
            if !met.insert((name, before.clone())) {
                continue;
            }
            for rule in self.rules_of(name) {
                let limits: BTreeSet<_> = before.iter().copied().chain(rule.limits()).collect();
                match &rule.mailet {
                    Mailet::RemoteDelivery(mailet) => found.push((mailet.as_ref(), limits)),
                    Mailet::ToProcessor(mailet) => waiting.push((mailet.processor.as_str(), limits)),
                    _ => {}
                }
            }
        }
        found
    }

    /// The least limit of an AttemptsExhausted that is reached from `processor`.
    fn exhaustion(&self, processor: &str) -> Option<u32> {
        let rules = self.reachable(processor).into_iter().flat_map(|name| self.rules_of(name));
        let limits = rules.filter(|rule| !rule.inverted).filter_map(|rule| match &rule.matcher {
            Matcher::AttemptsExhausted(limit) => Some(limit.most),
            _ => None,
        });
        limits.min()
    }

    fn stores_in(&self, processor: &str, repository: &RepositoryPath) -> bool {
        let mut rules = self.reachable(processor).into_iter().flat_map(|name| self.rules_of(name));
        rules.any(|rule| matches!(&rule.mailet, Mailet::ToRepository(mailet) if mailet.repository == *repository))
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.processors.values().flatten()
    }

    pub(super) fn rules_of(&self, processor: &str) -> &[Rule] {
        self.processors.get(processor).map_or(&[], Vec::as_slice)
    }

    /// `processor` and all that can be reached from it.
    fn reachable<'a>(&'a self, processor: &'a str) -> BTreeSet<&'a str> {
        self.behind(processor, |rule| rule.edges().collect())
    }

    /// `processor` and all that `edges` lead to from it.
    fn behind<'a>(&'a self, processor: &'a str, edges: impl Fn(&'a Rule) -> Vec<&'a str>) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        let mut waiting = vec![processor];
        while let Some(name) = waiting.pop() {
            if found.insert(name) {
                waiting.extend(self.rules_of(name).iter().flat_map(&edges));
            }
        }
        found
    }
}

fn read_processor<'a>(entry: &'a Entry, known: &Known<'_>, reading: &Reading) -> Draft<'a> {
    let mut draft = Draft { name: &entry.key, place: entry.key_place, rules: Vec::new(), incomplete: false };
    if entry.key == "ghost" {
        reading.problem(entry.key_place, "the name 'ghost' is reserved: use mailet Null");
    }
    let Value::Sequence(items) = &entry.value.value else {
        draft.incomplete = true;
        let message = format!("a list of rules ('- match: ...') is expected here, not {}", entry.value.described());
        reading.problem(entry.value.place, message);
        return draft;
    };
    let rules: Vec<_> = items.iter().map(|item| read_rule(item, known, reading)).collect();
    draft.incomplete = rules.iter().any(Option::is_none);
    draft.rules = rules.into_iter().flatten().collect();
    draft
}

fn read_rule(node: &Node, known: &Known<'_>, reading: &Reading) -> Option<DraftRule> {
    let mut fields = Fields::of(node, "a rule", reading)?;
    let (match_node, notmatch_node) = (fields.node("match"), fields.node("notmatch"));
    if let (Some(_), Some(second)) = (match_node, notmatch_node) {
        reading.problem(second.place, "Please configure only match or nomatch per mailet");
    }
    let matcher = match match_node.or(notmatch_node) {
        Some(node) => Matcher::read(node, reading),
        None => Some(Matcher::All),
    };
    let Some(name) =
        fields.required("mailet", |node| text(node).and_then(|name| Mailet::check_name(&name).map(|()| name)))
    else {
        // Without knowing the mailet its parameters cannot be told from mistakes.
        return None;
    };
    // SetMailAttribute takes all keys that are left.
    let on_exception = OnException::read(&mut fields, known);
    let mailet = Mailet::read(&name, &mut fields, known);
    let edges = ["bounceProcessor", "processor", "onMailetException"];
    let edge = edges.into_iter().find_map(|key| fields.node_if_known(key));
    let success = fields.node_if_known("onSuccess").map_or(node.place, |node| node.place);
    fields.finish();
    Some(DraftRule {
        rule: Rule {
            matcher: matcher?,
            inverted: match_node.is_none() && notmatch_node.is_some(),
            mailet: mailet?,
            on_exception,
        },
        matcher_place: match_node.or(notmatch_node).map_or(node.place, |node| node.place),
        edge_place: edge.map_or(node.place, |node| node.place),
        success_place: success,
    })
}
