//! The container, processor by processor and mailet by mailet.
//!
//! What James kept, gated or bounced is neither lost nor let through here: where a matcher
//! or a mailet has no counterpart and the mail might have ended there, it is kept.

use std::collections::BTreeSet;

use super::mailets::{Counterpart, counterpart};
use super::matcher::{Known, Matcher};
use super::matchers::Composites;
use super::notes::Notes;
use super::rule::{Entry, LeftOut, Lost, Processor, Rule, Value, pair};
use super::xml::Element;
use super::{ERROR, PERMANENT, james_name, yaml};

/// The state in which James deletes a mail.
const GHOST: &str = "ghost";

/// Words for exceptions that James knows in any case; anything else names a processor.
const EXCEPTION_WORDS: [&str; 4] = ["ignore", "propagate", "nomatch", "matchall"];

/// Attributes that James may have set otherwise than they are set here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Uncertain {
    /// These.
    pub(super) names: BTreeSet<String>,
    /// And all that mailets without counterpart set.
    pub(super) foreign: bool,
}

/// A container on its way.
pub(super) struct Conversion<'a> {
    pub(super) notes: Notes,
    /// Senders were told of failures, and are no longer.
    pub(super) unbounced: bool,
    /// The first line where it is asked which domains James hosted.
    pub(super) hosted: Option<usize>,
    /// The schemes of repositories.
    pub(super) schemes: BTreeSet<String>,
    pub(super) processors: Vec<Processor>,
    /// Whether the container has a RemoteDelivery.
    pub(super) delivers: bool,
    /// Attributes that the container sets itself.
    pub(super) sets: BTreeSet<String>,
    /// What was found uncertain before.
    pub(super) uncertain: &'a Uncertain,
    /// What is found uncertain now.
    pub(super) found: Uncertain,
}

/// The processor that is being converted.
#[derive(Default)]
struct Within {
    name: String,
    composites: Composites,
    entries: Vec<Entry>,
}

impl<'a> Conversion<'a> {
    /// Converts all processors of `top`; `uncertain` is what an earlier round found.
    pub(super) fn of(top: &Element, uncertain: &'a Uncertain) -> Self {
        let mut conversion = Self {
            notes: Notes::default(),
            unbounced: false,
            hosted: None,
            schemes: BTreeSet::new(),
            processors: Vec::new(),
            delivers: false,
            sets: attributes_set(top),
            uncertain,
            found: uncertain.clone(),
        };
        for processor in conversion.processors_of(top) {
            conversion.processor(processor);
        }
        conversion
    }

    /// All processors, wherever they stand: a file may be a part of a container, or a
    /// configuration of James 2 with a container in it.
    fn processors_of<'e>(&mut self, element: &'e Element) -> Vec<&'e Element> {
        let mut found = Vec::new();
        for child in &element.children {
            if child.name == "processor" {
                found.push(child);
            } else if has_processors(child) {
                found.extend(self.processors_of(child));
            } else if !matches!(child.name.as_str(), "mailetcontainer" | "processors") {
                self.element_left_out(child);
            }
        }
        found
    }

    /// What is no part of a container; an include, or a name in other case, was meant to be one.
    fn element_left_out(&mut self, child: &Element) {
        const READ: [&str; 5] = ["mailetcontainer", "processors", "processor", "mailet", "matcher"];
        let name = child.name.rsplit(':').next().unwrap_or_default();
        if name == "include" {
            self.notes.warn(child, format!("{} is not followed: put what it includes in its place", child.name));
        } else if let Some(meant) = READ.iter().find(|read| read.eq_ignore_ascii_case(name)) {
            self.notes.warn(child, format!("element {} is left out, as James does: did you mean {meant}?", child.name));
        } else {
            self.notes.say(child, format!("element {} has no counterpart: left out", child.name));
        }
    }

    fn processor(&mut self, element: &Element) {
        let Some(name) = element.attribute("state").or_else(|| element.attribute("name")) else {
            self.notes.warn(element, "a processor without a name is left out: it needs an attribute 'state'");
            return;
        };
        // James looks for the matchers before the first mailet, wherever they stand.
        let mut within = Within { name: name.to_owned(), ..Within::default() };
        for child in element.children_named("matcher") {
            self.composite(child, &mut within.composites);
        }
        for child in &element.children {
            match child.name.as_str() {
                "mailet" => {
                    let known = self.matcher_of(child, &within.composites);
                    let entries = self.mailet(child, known.clone());
                    self.count(&known, &entries);
                    within.entries.extend(entries);
                }
                "matcher" => {}
                other => {
                    let text = format!(
                        "element {other} in a processor is left out, as James does: it reads mailet and matcher"
                    );
                    self.notes.warn(child, text);
                }
            }
        }
        self.close(element, &mut within);
        self.processors.push(Processor { name: within.name, line: element.line, entries: within.entries });
    }

    /// James deletes what reaches the end of a processor; here it comes to rest.
    fn close(&mut self, element: &Element, within: &mut Within) {
        let rules = within.entries.iter();
        if rules.clone().any(|entry| matches!(entry, Entry::Rule(rule) if rule.takes_all())) {
            return;
        }
        let untold = rules.clone().any(|entry| matches!(entry, Entry::LeftOut(left) if left.lost == Lost::Told));
        let told = rules.clone().any(|entry| matches!(entry, Entry::Rule(rule) if rule.mailet == "DSNBounce"));
        let (path, why) = match () {
            () if untold => (PERMANENT, "whose bounces have no counterpart"),
            () if told => (PERMANENT, "told of or not, which James deletes"),
            () => (ERROR, "which James deletes"),
        };
        self.notes
            .say(element, format!("what reaches the end of processor '{}', {why}, is kept in {path}", within.name));
        let rule = Rule::to_repository(element.line, Matcher::all(), path);
        within.entries.push(Entry::Rule(rule.because("James deletes what comes this far")));
    }

    /// An AtMost that is not asked here as often as in James counts otherwise.
    fn count(&mut self, known: &Known, entries: &[Entry]) {
        let counted: BTreeSet<_> = entries
            .iter()
            .filter_map(|entry| if let Entry::Rule(rule) = entry { Some(rule.matcher.counters()) } else { None })
            .flatten()
            .collect();
        if !known.is_exact() || counted != known.counters {
            self.found.names.extend(known.counters.iter().cloned());
        }
    }

    /// The rules of a mailet.
    fn mailet(&mut self, element: &Element, known: Known) -> Vec<Entry> {
        let class = element.attribute("class").unwrap_or_default();
        let name = james_name(class).unwrap_or(class);
        if known.most.is_never() {
            self.notes.say(element, format!("mailet {name} is left out with its matcher"));
            // Of domains that James hosted it may have kept the mail.
            let lost = if known.hosted { Lost::Kept } else { Lost::Nothing };
            return vec![left_out(element, lost)];
        }
        let redirects = element.children.iter().any(|child| child.name.ends_with("Processor"));
        match james_name(class).and_then(counterpart) {
            Some(Counterpart::Mailet("ToProcessor", _)) if element.joined("processor").as_deref() == Some(GHOST) => {
                self.as_known(element, known, Rule::new(element.line, Matcher::all(), "Null", Vec::new()))
            }
            Some(Counterpart::Mailet("Null", _)) if known.relaying && known.most.is_all() => self.null_for_all(element),
            Some(Counterpart::Mailet(name, parameters)) => {
                let parameters = self.parameters(element, parameters);
                self.as_known(element, known, Rule::new(element.line, Matcher::all(), name, parameters))
            }
            Some(Counterpart::Attributes) => {
                let rule = Rule::new(element.line, Matcher::all(), "SetMailAttribute", attributes(element));
                self.as_known(element, known, rule)
            }
            Some(Counterpart::Delivery) => self.delivery(element, known),
            Some(Counterpart::Idle) => {
                self.notes.say(element, format!("mailet {name} has no counterpart: left out"));
                vec![left_out(element, Lost::Nothing)]
            }
            Some(Counterpart::Marks(what) | Counterpart::Undone(what)) if !redirects => {
                self.found.foreign |= matches!(counterpart(name), Some(Counterpart::Marks(_)));
                self.notes.warn(element, format!("mailet {name} has no counterpart: left out, {what}"));
                vec![left_out(element, Lost::Nothing)]
            }
            Some(Counterpart::Bounce) => self.bounce(element, &known, name),
            Some(Counterpart::Tells(what)) => self.telling(element, &known, name, what),
            Some(Counterpart::Ends(what)) if !takes_a_copy(element, false) => self.ended(element, &known, name, what),
            Some(Counterpart::Copies(what)) if !takes_a_copy(element, true) => self.ended(element, &known, name, what),
            Some(Counterpart::Ends(what) | Counterpart::Copies(what)) => {
                self.notes.warn(element, format!("mailet {name} has no counterpart: left out, {what}"));
                vec![left_out(element, Lost::Kept)]
            }
            Some(Counterpart::Marks(_) | Counterpart::Undone(_)) | None => self.foreign(element, &known, name),
        }
    }
}

impl Conversion<'_> {
    /// A mailet of somebody else's may have stopped, kept, changed or sent on what came to it.
    fn foreign(&mut self, element: &Element, known: &Known, name: &str) -> Vec<Entry> {
        let text = format!(
            "mailet {name} has no counterpart: what comes to it is kept in {ERROR}, since it may have ended or changed the mail"
        );
        self.notes.warn(element, text);
        keep(element, known, ERROR, &format!("{name} may have ended or changed the mail in James"))
    }

    /// A mailet that was the mail's last.
    fn ended(&mut self, element: &Element, known: &Known, name: &str, what: &str) -> Vec<Entry> {
        self.notes.warn(element, format!("mailet {name} has no counterpart, {what}: the mail is kept in {ERROR}"));
        keep(element, known, ERROR, &format!("{name} ended the mail in James"))
    }

    /// A mailet that told somebody of the mail.
    pub(super) fn telling(&mut self, element: &Element, known: &Known, name: &str, what: &str) -> Vec<Entry> {
        self.unbounced = true;
        self.notes.warn(element, format!("mailet {name} has no counterpart: {what}"));
        if boolean(element, "passThrough").unwrap_or(true) {
            return vec![left_out(element, Lost::Told)];
        }
        keep(element, known, PERMANENT, &format!("{name} told of the mail in James and ended it"))
    }

    /// James deleted what those who may relay brought, and the listener lets nobody else in.
    fn null_for_all(&mut self, element: &Element) -> Vec<Entry> {
        let text = "mailet Null for all who may relay would delete every mail: left out";
        self.notes.warn(element, format!("{text}, the mail is kept in {ERROR}"));
        keep(element, &Known::exactly(Matcher::all()), ERROR, "the mail of all who may relay was deleted here")
    }

    /// The rule for those whom its matcher is known to match. Where James's own matcher may
    /// match others too, these go neither its way nor on: they are kept.
    pub(super) fn as_known(&mut self, element: &Element, known: Known, mut rule: Rule) -> Vec<Entry> {
        rule.parameters.extend(exceptions(element, &rule));
        rule.hosted = known.hosted;
        if known.is_exact() {
            rule.matcher = known.least;
            return vec![Entry::Rule(rule)];
        }
        self.doubt(element, &rule);
        let why = format!("nothing here can ask whom James's matcher for {} meant", rule.mailet);
        let behind = if rule.consumes() {
            keep(element, &known, ERROR, &why)
        } else {
            // What James copied for others goes on without a copy, and untold.
            let lost = match rule.mailet.as_str() {
                "ToRepository" => Lost::Kept,
                "DSNBounce" => Lost::Told,
                _ => Lost::Nothing,
            };
            vec![Entry::LeftOut(LeftOut { lines: vec![format!("line {}: {why}", element.line)], lost })]
        };
        let certain = if known.least.is_never() {
            left_out_as(element, yaml::lines_of(&rule))
        } else {
            rule.matcher = known.least;
            Entry::Rule(rule)
        };
        std::iter::once(certain).chain(behind).collect()
    }

    /// What is not certain behind a rule whose matcher nobody can ask.
    fn doubt(&mut self, element: &Element, rule: &Rule) {
        let mailet = &rule.mailet;
        if rule.consumes() {
            let text = format!(
                "mailet {mailet} is left out where its matcher has no counterpart: what comes to it is kept in {ERROR}"
            );
            self.notes.warn(element, text);
            return;
        }
        self.notes.warn(element, format!("mailet {mailet} is left out where its matcher has no counterpart"));
        match mailet.as_str() {
            "SetMailAttribute" => self.found.names.extend(rule.parameters.iter().map(|(name, _)| name.clone())),
            "RemoveMailAttribute" => {
                let names = rule.text("name").unwrap_or_default().split(',');
                self.found.names.extend(names.map(|name| name.trim().to_owned()));
            }
            _ => {}
        }
    }
}

/// The attributes that a mailet of the container sets.
fn attributes_set(element: &Element) -> BTreeSet<String> {
    let is_setter = element.attribute("class").and_then(james_name) == Some("SetMailAttribute");
    let own = element.children.iter().filter(|_| is_setter).map(|child| child.name.clone());
    own.chain(element.children.iter().flat_map(attributes_set)).collect()
}

fn has_processors(element: &Element) -> bool {
    element.name != "mailet" && element.children.iter().any(|child| child.name == "processor" || has_processors(child))
}

/// Those whom the mailet may have been for come to rest. Where that is not certain, they do so
/// as what James may have done otherwise with.
pub(super) fn keep(element: &Element, known: &Known, path: &str, why: &str) -> Vec<Entry> {
    let (matcher, path) = match known.is_exact() {
        true => (known.most.clone(), path),
        // A counter must not count twice.
        false if known.most.counts() => (Matcher::all(), ERROR),
        false => (known.most.clone(), ERROR),
    };
    let mut rule = Rule::to_repository(element.line, matcher, path).because(format!("line {}: {why}", element.line));
    rule.stands_in = path == ERROR;
    vec![Entry::Rule(rule)]
}

fn left_out(element: &Element, lost: Lost) -> Entry {
    let attribute = |name| element.attribute(name).map(|value| format!(" {name}=\"{value}\"")).unwrap_or_default();
    let (matcher, class) = (attribute("match") + &attribute("notmatch"), attribute("class"));
    Entry::LeftOut(LeftOut { lines: vec![format!("line {}: left out:{matcher}{class}", element.line)], lost })
}

/// Left out, with the rule that it would have been.
fn left_out_as(element: &Element, rule: Vec<String>) -> Entry {
    let heading = match element.attribute("match").or(element.attribute("notmatch")) {
        Some(written) => format!("line {}: left out, since there is no matcher for {written}:", element.line),
        None => format!("line {}: left out:", element.line),
    };
    Entry::LeftOut(LeftOut { lines: std::iter::once(heading).chain(rule).collect(), lost: Lost::Nothing })
}

/// A parameter of James's that is `true` or `false` in any case.
pub(super) fn boolean(element: &Element, name: &str) -> Option<bool> {
    match element.joined(name)?.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// Whether the mail itself went on behind a mailet that kept or sent it elsewhere.
fn takes_a_copy(element: &Element, unless_said: bool) -> bool {
    let consumed = boolean(element, "consume").or(boolean(element, "passThrough").map(|passes| !passes));
    consumed.map_or(unless_said, |consumed| !consumed)
}

/// Every child as an attribute's name and text.
fn attributes(element: &Element) -> Vec<(String, Value)> {
    let children = element.children.iter().filter(|child| !is_for_exceptions(&child.name));
    children.map(|child| pair(&child.name, child.text())).collect()
}

pub(super) fn is_for_exceptions(name: &str) -> bool {
    matches!(name, "onMailetException" | "onMatchException")
}

/// What a rule says of exceptions, in an element or an attribute.
fn exceptions(element: &Element, rule: &Rule) -> Vec<(String, Value)> {
    let named = ["onMailetException", "onMatchException"].into_iter().filter(|name| rule.value(name).is_none());
    named
        .filter_map(|name| {
            let text = element.attribute(name).map(str::to_owned).or_else(|| element.joined(name))?;
            let word = EXCEPTION_WORDS.into_iter().find(|word| word.eq_ignore_ascii_case(&text));
            Some(pair(name, word.unwrap_or(&text))).filter(|_| !text.is_empty())
        })
        .collect()
}
