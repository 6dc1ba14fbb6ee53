//! Whether every way that a mail can go tells its sender what he may ask to be told of
//! (RFC 3461): only then may DSN be offered to those who bring mail.
//!
//! The ways of a mail with a sender are followed through the rules. A matcher takes all mails
//! of a kind, none, or some; where it is some, the rest is followed too. What comes to rest goes
//! on through the jobs that take it out of its repository.

use std::collections::{BTreeMap, BTreeSet};

use super::config::{Config, Rule};
use super::mailet::Mailet;
use super::matcher::{Limit, Matcher};
use crate::mail::{Action, Event, RepositoryPath};

/// States of the counters that are told apart; beyond them counters are not looked at.
const STATES: usize = 64;

/// A rule where a way ends, or is lost sight of, though nobody was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// Its processor.
    pub processor: String,
    /// Its place there, from 0.
    pub rule: usize,
    /// What is not told.
    pub of: Untold,
    /// The job that led there, if it was not the way of new mail.
    pub job: Option<String>,
}

/// What is not told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Untold {
    /// A failure: the mail is kept, or dropped.
    Failures,
    /// A delivery to a next hop that does not tell of it.
    Deliveries,
    /// That this job removes out of there what is deferred.
    Removal(RepositoryPath, String),
}

/// A job that takes mail out of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taker<'a> {
    /// Its name.
    pub job: &'a str,
    /// Out of where.
    pub repository: &'a RepositoryPath,
    /// Into which processor; `None` where it removes.
    pub processor: Option<&'a str>,
}

/// What is known of a mail on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// It was not tried in this pass.
    Untried,
    Failed,
    /// Deferred, with the counters in one of their states.
    Deferred(usize),
    Delivered,
}

/// The highest limit that each counter has reached, of those that some rule asks for, or 0.
type State<'a> = BTreeMap<&'a str, u32>;

/// One way so far. There are few: what is followed does not grow with the rules that divide it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    kind: Kind,
    /// The sender was told, or does not want to be.
    told: bool,
}

/// How much of a kind a matcher takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Taken {
    None,
    Some,
    All,
}

impl Way {
    fn of(kind: Kind) -> Self {
        Self { kind, told: false }
    }
}

impl Config {
    /// The first rule on a way out of `processor`, and on through `takers`, that leaves a sender
    /// without word of a failure, or of a delivery that he asks to be told of; `None` where there
    /// is none.
    pub fn silence(&self, processor: &str, takers: &[Taker<'_>]) -> Option<Silence> {
        // A rule that has to be another one comes before a job that is missing.
        self.walk(processor, takers, false).or_else(|| self.walk(processor, takers, true))
    }

    fn walk(&self, processor: &str, takers: &[Taker<'_>], looks_at_rest: bool) -> Option<Silence> {
        let mut walk = Walk {
            config: self,
            takers,
            looks_at_rest,
            states: self.states(),
            known: BTreeMap::new(),
            path: Vec::new(),
            passes: BTreeSet::from([processor]),
            untried: vec![processor],
        };
        walk.follow(processor, BTreeSet::from([Way::of(Kind::Untried)]))
    }

    /// All states of the counters that AttemptsExhausted tells apart; in the first none has reached
    /// anything.
    fn states(&self) -> Vec<State<'_>> {
        let mut limits: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
        for matcher in self.rules().flat_map(|rule| rule.matcher.all()) {
            if let Matcher::AttemptsExhausted(limit) = matcher {
                limits.entry(&limit.counter).or_insert_with(|| BTreeSet::from([0])).insert(limit.most);
            }
        }
        let mut states = vec![State::new()];
        for (counter, reached) in limits {
            if states.len() * reached.len() > STATES {
                break;
            }
            let all = states.iter().flat_map(|state| reached.iter().map(move |most| with(state, counter, *most)));
            states = all.collect();
        }
        states
    }
}

fn with<'a>(state: &State<'a>, counter: &'a str, most: u32) -> State<'a> {
    state.iter().map(|(counter, most)| (*counter, *most)).chain([(counter, most)]).collect()
}

/// The ways through all processors. To most of them several lead: each is followed once for
/// the same ways.
struct Walk<'a> {
    config: &'a Config,
    takers: &'a [Taker<'a>],
    /// Whether it is told that what is deferred rests where no job tries it.
    looks_at_rest: bool,
    states: Vec<State<'a>>,
    known: BTreeMap<(&'a str, BTreeSet<Way>), Option<Silence>>,
    /// The processors that led here: a circle is refused elsewhere, and followed once.
    path: Vec<&'a str>,
    /// The processors that passes begin in, as far as they are followed.
    passes: BTreeSet<&'a str>,
    /// Those that led here without an attempt.
    untried: Vec<&'a str>,
}

impl<'a> Walk<'a> {
    fn follow(&mut self, processor: &'a str, ways: BTreeSet<Way>) -> Option<Silence> {
        if self.path.contains(&processor) {
            return None;
        }
        let key = (processor, ways);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        self.path.push(processor);
        let found = self.through(processor, key.1.clone());
        self.path.pop();
        self.known.insert(key, found.clone());
        found
    }

    fn through(&mut self, processor: &'a str, mut ways: BTreeSet<Way>) -> Option<Silence> {
        let rules = self.config.rules_of(processor);
        for (at, rule) in rules.iter().enumerate() {
            let silence = |of| Silence { processor: processor.to_owned(), rule: at, of, job: None };
            let (inside, outside) = self.divide(rule, &ways);
            if let Some(found) = self.enter(rule, &inside, &silence) {
                return Some(found);
            }
            ways = outside;
            if !rule.mailet.consumes() && !matches!(rule.mailet, Mailet::DsnBounce(_)) {
                ways.extend(inside);
            }
        }
        // Only what is delivered may pass the last rule.
        let silent = ways.iter().any(|way| !way.told);
        silent.then(|| Silence {
            processor: processor.to_owned(),
            rule: rules.len(),
            of: Untold::Deliveries,
            job: None,
        })
    }

    /// What a rule does with the ways that it takes.
    fn enter(
        &mut self,
        rule: &'a Rule,
        inside: &BTreeSet<Way>,
        silence: &dyn Fn(Untold) -> Silence,
    ) -> Option<Silence> {
        match &rule.mailet {
            _ if inside.is_empty() => None,
            Mailet::RemoteDelivery(mailet) => {
                let deferred = (0..self.states.len()).map(Kind::Deferred);
                let left = deferred.chain([Kind::Failed]).map(Way::of).collect();
                self.follow(&mailet.bounce_processor, left).or_else(|| {
                    let tells = |next| self.follow(next, BTreeSet::from([Way::of(Kind::Delivered)])).is_none();
                    (!rule.on_success().is_some_and(tells)).then(|| silence(Untold::Deliveries))
                })
            }
            Mailet::ToProcessor(mailet) => self.follow(&mailet.processor, inside.clone()),
            Mailet::ToRepository(mailet) if !mailet.pass_through => {
                let mut untold = inside.iter().filter(|way| !way.told);
                untold.find_map(|way| self.keep(&mailet.repository, way.kind, inside, silence))
            }
            mailet if mailet.consumes() => inside.iter().any(|way| !way.told).then(|| silence(Untold::Failures)),
            _ => None,
        }
    }

    /// What becomes of a mail at rest, of these ways, whose sender was told nothing.
    fn keep(
        &mut self,
        repository: &RepositoryPath,
        kind: Kind,
        inside: &BTreeSet<Way>,
        silence: &dyn Fn(Untold) -> Silence,
    ) -> Option<Silence> {
        let takers = self.takers.iter().filter(|taker| taker.repository == repository);
        let sweeps: Vec<_> = takers.clone().filter_map(|taker| Some((taker.job, taker.processor?))).collect();
        let removal = takers.clone().find(|taker| taker.processor.is_none());
        // What keeps the exhausted and not the deferred is the end of their passes.
        let waits = matches!(kind, Kind::Deferred(_)) && inside.iter().any(|way| way.kind == Kind::Deferred(0));
        match (kind, removal) {
            (Kind::Failed | Kind::Delivered, _) => Some(silence(Untold::Failures)),
            _ if sweeps.is_empty() && !waits => Some(silence(Untold::Failures)),
            (_, Some(purge)) if self.looks_at_rest => {
                Some(silence(Untold::Removal(repository.clone(), purge.job.to_owned())))
            }
            // Without a job it rests until somebody takes it out, by hand or from outside, and has not failed.
            _ => sweeps.into_iter().find_map(|(job, processor)| self.sweep(job, processor, kind, silence)),
        }
    }

    /// The next pass of a mail at rest.
    fn sweep(
        &mut self,
        job: &'a str,
        processor: &'a str,
        kind: Kind,
        silence: &dyn Fn(Untold) -> Silence,
    ) -> Option<Silence> {
        if kind == Kind::Untried && self.untried.contains(&processor) {
            // It goes round, and is never tried.
            return Some(silence(Untold::Failures));
        }
        if !self.passes.insert(processor) {
            return None;
        }
        let untried = if kind == Kind::Untried { self.untried.clone() } else { Vec::new() };
        let before = (std::mem::take(&mut self.path), std::mem::replace(&mut self.untried, untried));
        self.untried.push(processor);
        let found = self.follow(processor, BTreeSet::from([Way::of(Kind::Untried)]));
        (self.path, self.untried) = before;
        found.map(|found| Silence { job: found.job.or_else(|| Some(job.to_owned())), ..found })
    }

    /// The ways that a rule takes, and those that go on behind it, told where it tells.
    fn divide(&self, rule: &Rule, ways: &BTreeSet<Way>) -> (BTreeSet<Way>, BTreeSet<Way>) {
        let (mut inside, mut outside) = (BTreeSet::new(), BTreeSet::new());
        for way in ways {
            let taken = self.taken(rule, way.kind);
            if taken > Taken::None {
                inside.insert(*way);
            }
            match &rule.mailet {
                Mailet::DsnBounce(mailet) => {
                    let tells = taken == Taken::All && tells(mailet.action, way.kind);
                    outside.insert(Way { told: way.told || tells, ..*way });
                }
                _ if taken < Taken::All => {
                    outside.insert(*way);
                }
                _ => {}
            }
        }
        (inside, outside)
    }

    fn taken(&self, rule: &Rule, kind: Kind) -> Taken {
        let tells = matches!(rule.mailet, Mailet::DsnBounce(_));
        let taken = self.of_matcher(&rule.matcher, kind, tells);
        if rule.inverted { others(taken) } else { taken }
    }

    /// `tells` is whether it stands before a DSNBounce: who does not want to be told need not be.
    fn of_matcher(&self, matcher: &Matcher, kind: Kind, tells: bool) -> Taken {
        use Kind::{Deferred, Delivered, Failed, Untried};
        let inner = |inner: &Matcher| self.of_matcher(inner, kind, tells);
        match matcher {
            Matcher::All => Taken::All,
            // Nobody is to be told then, and no other mail is followed.
            Matcher::SenderIsNull => Taken::None,
            Matcher::IsRemoteDeliveryTemporaryError => match kind {
                Deferred(_) => Taken::All,
                Failed | Delivered => Taken::None,
                Untried => Taken::Some,
            },
            Matcher::IsRemoteDeliveryPermanentError => match kind {
                Failed => Taken::All,
                Deferred(_) | Delivered => Taken::None,
                Untried => Taken::Some,
            },
            Matcher::AttemptsExhausted(limit) => self.of_limit(limit, kind),
            Matcher::DsnRequested(Event::Success, _) if tells && kind == Delivered => Taken::All,
            Matcher::DsnRequested(Event::Failure, _) if tells && kind != Delivered => Taken::All,
            Matcher::And(all) => all.iter().map(inner).min().unwrap_or(Taken::All),
            Matcher::Or(any) => any.iter().map(inner).max().unwrap_or(Taken::None),
            Matcher::Not(one) => others(inner(one)),
            _ => Taken::Some,
        }
    }

    /// A limit is reached by all whose counter has reached a higher one.
    fn of_limit(&self, limit: &Limit, kind: Kind) -> Taken {
        let Kind::Deferred(state) = kind else { return Taken::Some };
        match self.states[state].get(limit.counter.as_str()) {
            Some(reached) if *reached >= limit.most => Taken::All,
            Some(_) => Taken::None,
            None => Taken::Some,
        }
    }
}

fn tells(action: Option<Action>, kind: Kind) -> bool {
    match action {
        None => true,
        Some(Action::Relayed) => kind == Kind::Delivered,
        Some(Action::Failed) => kind != Kind::Delivered,
        Some(Action::Delayed) => false,
    }
}

fn others(taken: Taken) -> Taken {
    match taken {
        Taken::All => Taken::None,
        Taken::Some => Taken::Some,
        Taken::None => Taken::All,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use super::*;
    use crate::yaml::{Document, Reading};

    /// What tells of everything; the parts in capitals are replaced.
    const ALL_TOLD: &str = "\
relay:
  - FIRST
  - { match: AtMost=8, mailet: RemoteDelivery, bounceProcessor: failed, ON_SUCCESS }
  - LIMIT
  - { mailet: ToRepository, repositoryPath: permanent }
failed:
  - TELL
  - { match: IsRemoteDeliveryPermanentError, mailet: ToRepository, repositoryPath: permanent }
  - { match: KEEP, mailet: ToRepository, repositoryPath: permanent }
  - { match: IsRemoteDeliveryTemporaryError, mailet: ToRepository, repositoryPath: temporary }
  - { mailet: ToRepository, repositoryPath: error }
quiet:
  - { match: AtMost=8, mailet: RemoteDelivery, bounceProcessor: QUIET_BOUNCE, QUIET_SUCCESS }
  - QUIET_LIMIT
silent:
  - { mailet: ToRepository, repositoryPath: error }
give-up:
  - { mailet: DSNBounce }
  - { mailet: ToRepository, repositoryPath: permanent }
hold:
  - { mailet: ToRepository, repositoryPath: held }
delivered:
  - SUCCESS
  - { mailet: 'Null' }
";

    const PARTS: [(&str, &str); 9] = [
        ("KEEP", "AttemptsExhausted=8"),
        ("QUIET_BOUNCE", "failed"),
        ("QUIET_SUCCESS", "onSuccess: delivered"),
        ("QUIET_LIMIT", "{ mailet: ToProcessor, processor: give-up }"),
        ("FIRST", "{ mailet: LogMessage }"),
        ("ON_SUCCESS", "onSuccess: delivered"),
        ("LIMIT", "{ mailet: DSNBounce }"),
        ("TELL", "{ match: { Or: [IsRemoteDeliveryPermanentError, AttemptsExhausted=8] }, mailet: DSNBounce }"),
        ("SUCCESS", "{ match: DSNSuccessRequested, mailet: DSNBounce }"),
    ];

    /// `processor rule what`, or nothing, where a job sweeps `temporary` into `relay`.
    fn silence(part: &str, instead: &str) -> String {
        silence_with(&[(part, instead)], &[("temporary", Some("relay"))])
    }

    /// The same with several parts replaced, and jobs `job0`, `job1` and so on.
    fn silence_with(parts: &[(&str, &str)], jobs: &[(&str, Option<&str>)]) -> String {
        let text = PARTS.iter().fold(ALL_TOLD.to_owned(), |text, (name, usual)| {
            text.replace(name, parts.iter().find(|(part, _)| part == name).map_or(usual, |(_, instead)| instead))
        });
        let document = Document::parse(Path::new("f"), text.as_bytes()).expect(&text);
        let reading = Reading::new(Path::new("f"));
        let config = Config::read(document.root(), &BTreeSet::new(), "relay", &reading);
        let wrong = document.diagnostics(reading);
        assert!(wrong.is_empty(), "{parts:?}: {wrong:?}");
        let path = |name: &str| RepositoryPath::parse(name).expect("a path");
        let jobs: Vec<_> = jobs.iter().enumerate().map(|(n, (at, to))| (format!("job{n}"), path(at), *to)).collect();
        let takers: Vec<_> =
            jobs.iter().map(|(job, repository, processor)| Taker { job, repository, processor: *processor }).collect();
        let Some(found) = config.silence("relay", &takers) else { return String::new() };
        let of = match found.of {
            Untold::Removal(repository, job) => format!("Removal out of {repository} by {job}"),
            of => format!("{of:?}"),
        };
        let job = found.job.map(|job| format!(" behind {job}")).unwrap_or_default();
        format!("{} {} {of}{job}", found.processor, found.rule)
    }

    #[test]
    fn the_rule_is_found_that_leaves_a_sender_without_word() {
        let (failures, deliveries) = ("Failures", "Deliveries");
        for (part, instead, processor, rule, of) in [
            ("FIRST", "{ mailet: LogMessage }", "", 0, ""),
            // Of those without a sender nobody is to be told.
            ("FIRST", "{ match: SenderIsNull, mailet: 'Null' }", "", 0, ""),
            ("FIRST", "{ match: RecipientIs=a@x.example, mailet: 'Null' }", "relay", 0, failures),
            (
                "FIRST",
                "{ match: RecipientIs=a@x.example, mailet: ToRepository, repositoryPath: a }",
                "relay",
                0,
                failures,
            ),
            (
                "FIRST",
                "{ match: RecipientIs=a@x.example, mailet: ToRepository, repositoryPath: a, passThrough: true }",
                "",
                0,
                "",
            ),
            ("ON_SUCCESS", "outgoing: o", "relay", 1, deliveries),
            ("LIMIT", "{ mailet: LogMessage }", "relay", 3, failures),
            ("LIMIT", "{ match: DSNFailureRequested, mailet: DSNBounce }", "", 0, ""),
            ("LIMIT", "{ match: SenderIs=a@x.example, mailet: DSNBounce }", "relay", 3, failures),
            ("LIMIT", "{ mailet: DSNBounce, action: delayed }", "relay", 3, failures),
            ("LIMIT", "{ mailet: DSNBounce, passThrough: false }", "", 0, ""),
            ("TELL", "{ mailet: LogMessage }", "failed", 1, failures),
            ("TELL", "{ match: IsRemoteDeliveryPermanentError, mailet: DSNBounce }", "failed", 2, failures),
            (
                "TELL",
                "{ match: { And: [IsRemoteDeliveryPermanentError, DSNFailureRequested] }, mailet: DSNBounce }",
                "failed",
                2,
                failures,
            ),
            ("TELL", "{ notmatch: IsRemoteDeliveryTemporaryError, mailet: DSNBounce }", "failed", 2, failures),
            ("TELL", "{ mailet: DSNBounce }", "", 0, ""),
            ("TELL", "{ match: DSNFailureRequested, mailet: DSNBounce }", "", 0, ""),
            ("TELL", "{ match: DSNSuccessRequested, mailet: DSNBounce }", "failed", 1, failures),
            ("TELL", "{ match: RemoteDeliveryFailedWithSMTPCode=550, mailet: DSNBounce }", "failed", 1, failures),
            ("SUCCESS", "{ mailet: DSNBounce }", "", 0, ""),
            ("SUCCESS", "{ match: RecipientIs=a@x.example, mailet: DSNBounce }", "relay", 1, deliveries),
            ("SUCCESS", "{ mailet: 'Null' }", "relay", 1, deliveries),
        ] {
            let expected = if processor.is_empty() { String::new() } else { format!("{processor} {rule} {of}") };
            assert_eq!(silence(part, instead), expected, "{part}: {instead}");
        }
    }

    /// A limit that is reached earlier is reached also where a later one is, and not the other way.
    #[test]
    fn a_rule_tells_those_whose_passes_it_counts() {
        let swept = [("temporary", Some("relay"))];
        let silent = "failed 2 Failures";
        for (tell, keep, expected) in [
            ("AttemptsExhausted=8", "AttemptsExhausted=8", ""),
            ("AttemptsExhausted=8", "AttemptsExhausted=5", silent),
            ("AttemptsExhausted=8", "AttemptsExhausted=7", silent),
            ("AttemptsExhausted=5", "AttemptsExhausted=8", ""),
            ("AttemptsExhausted=8", "{ Or: [AttemptsExhausted=5, AttemptsExhausted=8] }", silent),
            ("AttemptsExhausted=8", "{ And: [AttemptsExhausted=5, AttemptsExhausted=8] }", ""),
            ("{ Or: [AttemptsExhausted=5, AttemptsExhausted=8] }", "AttemptsExhausted=5", ""),
            ("{ And: [AttemptsExhausted=5, AttemptsExhausted=8] }", "AttemptsExhausted=5", silent),
            ("{ Not: { Not: AttemptsExhausted=5 } }", "AttemptsExhausted=5", ""),
            ("AttemptsExhausted=other:8", "AttemptsExhausted=8", silent),
            ("AttemptsExhausted=other:8", "AttemptsExhausted=other:8", ""),
            ("{ Or: [AttemptsExhausted=other:5, AttemptsExhausted=8] }", "AttemptsExhausted=8", ""),
            ("{ And: [AttemptsExhausted=other:5, AttemptsExhausted=8] }", "AttemptsExhausted=8", silent),
        ] {
            let tell = format!("{{ match: {{ Or: [IsRemoteDeliveryPermanentError, {tell}] }}, mailet: DSNBounce }}");
            let parts = [("FIRST", "{ match: AtMost=other:9, mailet: LogMessage }"), ("TELL", &tell), ("KEEP", keep)];
            assert_eq!(silence_with(&parts, &swept), expected, "{tell} before {keep}");
        }
    }

    #[test]
    fn what_is_deferred_is_followed_through_the_jobs_that_take_it() {
        let to = |processor| ("temporary", Some(processor));
        let purge = ("temporary", None);
        let held = [("FIRST", "{ match: RecipientIs=a@x.example, mailet: ToRepository, repositoryPath: held }")];
        for (parts, jobs, expected) in [
            (&[][..], &[to("relay")][..], ""),
            (&[], &[], ""),
            (&[], &[("elsewhere", Some("relay")), ("permanent", None)], ""),
            (&[], &[to("relay"), purge], "failed 3 Removal out of temporary by job1"),
            (&[], &[purge], "failed 3 Removal out of temporary by job0"),
            (&[], &[to("relay"), ("permanent", None)], ""),
            (&[], &[to("give-up")], ""),
            (&[], &[to("quiet")], ""),
            (&[], &[to("relay"), to("quiet")], ""),
            (&[("QUIET_BOUNCE", "silent")], &[to("relay")], ""),
            (&[("QUIET_BOUNCE", "silent")], &[to("quiet")], "silent 0 Failures behind job0"),
            (&[("QUIET_BOUNCE", "silent")], &[to("relay"), to("quiet")], "silent 0 Failures behind job1"),
            (&[("QUIET_SUCCESS", "outgoing: o")], &[to("quiet")], "quiet 0 Deliveries behind job0"),
            (&[("QUIET_LIMIT", "{ mailet: 'Null' }")], &[to("quiet")], "quiet 1 Failures behind job0"),
            (&[], &[to("silent")], "silent 0 Failures behind job0"),
            // The processor of failures knows nothing of what was not tried.
            (&[], &[to("failed")], "failed 1 Failures behind job0"),
            // What is set aside and taken up is as good as new; what only goes round is not tried.
            (&held, &[to("relay")], "relay 0 Failures"),
            (&held, &[to("relay"), ("held", Some("relay"))], "relay 0 Failures"),
            (&held, &[to("relay"), ("held", Some("quiet"))], ""),
            (&held, &[to("relay"), ("held", Some("quiet")), ("held", None)], "relay 0 Removal out of held by job2"),
            (&[], &[to("hold")], "hold 0 Failures behind job0"),
            (&[], &[to("hold"), ("held", Some("hold"))], "hold 0 Failures behind job0"),
            (&[], &[to("hold"), ("held", Some("quiet"))], ""),
        ] {
            assert_eq!(silence_with(parts, jobs), expected, "{parts:?} {jobs:?}");
        }
    }

    /// Each rule that divides a mail would double what is followed, and each processor to which
    /// two ways lead.
    #[test]
    fn many_rules_and_a_deep_diamond_are_followed_at_once() {
        let some = "match: SenderIs=a@x.example";
        let mut text = "relay:\n".to_owned();
        for _ in 0..60 {
            let _ = writeln!(text, "  - {{ {some}, mailet: LogMessage }}");
        }
        text.push_str("  - { mailet: ToProcessor, processor: d0 }\n");
        for depth in 0..60 {
            let to = |side: &str| format!("mailet: ToProcessor, processor: {side}{}", depth + 1);
            let _ = writeln!(text, "d{depth}:\n  - {{ {some}, {} }}\n  - {{ {} }}", to("e"), to("d"));
            let _ = writeln!(text, "e{}:\n  - {{ {} }}", depth + 1, to("d"));
        }
        text.push_str("d60:\n  - { mailet: ToRepository, repositoryPath: kept }\n");
        let document = Document::parse(Path::new("f"), text.as_bytes()).expect(&text);
        let reading = Reading::new(Path::new("f"));
        let config = Config::read(document.root(), &BTreeSet::new(), "relay", &reading);
        assert!(config.delivering().is_empty());
        let found = config.silence("relay", &[]).expect("the mail is kept, and nobody is told");
        assert_eq!((found.processor.as_str(), found.rule, found.of), ("d60", 0, Untold::Failures));
    }

    #[test]
    fn what_ships_tells() {
        let shipped = include_str!("../../redeliver.yaml");
        let document = Document::parse(Path::new("f"), shipped.as_bytes()).expect("YAML");
        let reading = Reading::new(Path::new("f"));
        let processors = crate::yaml::Fields::of(document.root(), "what ships", &reading)
            .and_then(|mut fields| fields.node("processors").cloned())
            .expect("processors");
        let schemes = BTreeSet::from(["sqlite".to_owned()]);
        let temporary = RepositoryPath::parse("var/mail/error/remote-delivery/temporary").expect("a path");
        let sweep = Taker { job: "retry-temporary", repository: &temporary, processor: Some("relay") };
        let config = Config::read(&processors, &schemes, "relay", &reading);
        assert_eq!(config.silence("relay", &[sweep]), None);
        assert_eq!(config.silence("relay", &[]), None, "a site that sweeps from outside");
    }
}
