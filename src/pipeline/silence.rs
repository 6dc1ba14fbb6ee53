//! Whether every way that a mail can go tells its sender what he may ask to be told of
//! (RFC 3461): only then may DSN be offered to those who bring mail.
//!
//! The ways of a mail with a sender are followed through the rules. A matcher takes all mails
//! of a kind, none, or some; where it is some, the rest is followed too.

use std::collections::{BTreeMap, BTreeSet};

use super::config::{Config, Rule};
use super::mailet::Mailet;
use super::matcher::Matcher;
use crate::mail::{Action, Event};

/// A rule where a way ends, or is lost sight of, though nobody was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// Its processor.
    pub processor: String,
    /// Its place there, from 0.
    pub rule: usize,
    /// What is not told.
    pub of: Untold,
}

/// What is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untold {
    /// A failure: the mail is kept, or dropped.
    Failures,
    /// A delivery to a next hop that does not tell of it.
    Deliveries,
}

/// What is known of a mail on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// It was not tried in this pass.
    Untried,
    Failed,
    /// Deferred, and the limit of passes is used up.
    Exhausted,
    Deferred,
    Delivered,
}

/// One way so far. There are few: what is followed does not grow with the rules that divide it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    kind: Kind,
    /// The sender was told, or does not want to be.
    told: bool,
    /// It does not come back for another pass.
    given_up: bool,
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
        Self { kind, told: false, given_up: !matches!(kind, Kind::Deferred | Kind::Exhausted) }
    }
}

impl Config {
    /// The first rule on a way out of `processor` that leaves a sender without word of a failure,
    /// or of a delivery that he asks to be told of; `None` where there is none.
    pub fn silence(&self, processor: &str) -> Option<Silence> {
        Walk { config: self, known: BTreeMap::new(), path: Vec::new() }
            .follow(processor, BTreeSet::from([Way::of(Kind::Untried)]))
    }
}

/// The ways through all processors. To most of them several lead: each is followed once for
/// the same ways.
struct Walk<'a> {
    config: &'a Config,
    known: BTreeMap<(&'a str, BTreeSet<Way>), Option<Silence>>,
    /// The processors that led here: a circle is refused elsewhere, and followed once.
    path: Vec<&'a str>,
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
            let silence = |of| Silence { processor: processor.to_owned(), rule: at, of };
            let (inside, outside) = divide(rule, &ways);
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
        silent.then(|| Silence { processor: processor.to_owned(), rule: rules.len(), of: Untold::Deliveries })
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
                let left = BTreeSet::from([Kind::Deferred, Kind::Exhausted, Kind::Failed].map(Way::of));
                self.follow(&mailet.bounce_processor, left).or_else(|| {
                    let tells = |next| self.follow(next, BTreeSet::from([Way::of(Kind::Delivered)])).is_none();
                    (!rule.on_success().is_some_and(tells)).then(|| silence(Untold::Deliveries))
                })
            }
            Mailet::ToProcessor(mailet) => self.follow(&mailet.processor, inside.clone()),
            Mailet::Null => inside.iter().any(|way| !way.told).then(|| silence(Untold::Failures)),
            mailet if mailet.consumes() => {
                inside.iter().any(|way| way.given_up && !way.told).then(|| silence(Untold::Failures))
            }
            _ => None,
        }
    }
}

/// The ways that a rule takes, and those that go on behind it, told where it tells.
fn divide(rule: &Rule, ways: &BTreeSet<Way>) -> (BTreeSet<Way>, BTreeSet<Way>) {
    let (mut inside, mut outside) = (BTreeSet::new(), BTreeSet::new());
    for way in ways {
        let taken = taken(rule, way.kind);
        if taken > Taken::None {
            // What takes the exhausted and not the deferred is the end of their passes.
            let ends = way.kind == Kind::Exhausted && self::taken(rule, Kind::Deferred) == Taken::None;
            inside.insert(Way { given_up: way.given_up || ends, ..*way });
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

fn tells(action: Option<Action>, kind: Kind) -> bool {
    match action {
        None => true,
        Some(Action::Relayed) => kind == Kind::Delivered,
        Some(Action::Failed) => kind != Kind::Delivered,
        Some(Action::Delayed) => false,
    }
}

fn taken(rule: &Rule, kind: Kind) -> Taken {
    let tells = matches!(rule.mailet, Mailet::DsnBounce(_));
    let taken = of_matcher(&rule.matcher, kind, tells);
    if rule.inverted { others(taken) } else { taken }
}

fn others(taken: Taken) -> Taken {
    match taken {
        Taken::All => Taken::None,
        Taken::Some => Taken::Some,
        Taken::None => Taken::All,
    }
}

/// `tells` is whether it stands before a DSNBounce: who does not want to be told need not be.
fn of_matcher(matcher: &Matcher, kind: Kind, tells: bool) -> Taken {
    use Kind::{Deferred, Delivered, Exhausted, Failed, Untried};
    let inner = |inner: &Matcher| of_matcher(inner, kind, tells);
    match matcher {
        Matcher::All => Taken::All,
        // Nobody is to be told then, and no other mail is followed.
        Matcher::SenderIsNull => Taken::None,
        Matcher::IsRemoteDeliveryTemporaryError => by_kind(kind, &[Deferred, Exhausted], &[Failed, Delivered]),
        Matcher::IsRemoteDeliveryPermanentError => by_kind(kind, &[Failed], &[Deferred, Exhausted, Delivered]),
        Matcher::AttemptsExhausted(_) => by_kind(kind, &[Exhausted], &[Deferred]),
        Matcher::DsnRequested(Event::Success, _) if tells => by_kind(kind, &[Delivered], &[]),
        Matcher::DsnRequested(Event::Failure, _) if tells => {
            by_kind(kind, &[Untried, Failed, Deferred, Exhausted], &[])
        }
        Matcher::And(all) => all.iter().map(inner).min().unwrap_or(Taken::All),
        Matcher::Or(any) => any.iter().map(inner).max().unwrap_or(Taken::None),
        Matcher::Not(one) => others(inner(one)),
        _ => Taken::Some,
    }
}

/// Of kinds that are taken whole or not at all; of others some may be.
fn by_kind(kind: Kind, all: &[Kind], none: &[Kind]) -> Taken {
    match kind {
        kind if all.contains(&kind) => Taken::All,
        kind if none.contains(&kind) => Taken::None,
        _ => Taken::Some,
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
  - { match: AttemptsExhausted=8, mailet: ToRepository, repositoryPath: permanent }
  - { match: IsRemoteDeliveryTemporaryError, mailet: ToRepository, repositoryPath: temporary }
  - { mailet: ToRepository, repositoryPath: error }
delivered:
  - SUCCESS
  - { mailet: 'Null' }
";

    const PARTS: [(&str, &str); 5] = [
        ("FIRST", "{ mailet: LogMessage }"),
        ("ON_SUCCESS", "onSuccess: delivered"),
        ("LIMIT", "{ mailet: DSNBounce }"),
        ("TELL", "{ match: { Or: [IsRemoteDeliveryPermanentError, AttemptsExhausted=8] }, mailet: DSNBounce }"),
        ("SUCCESS", "{ match: DSNSuccessRequested, mailet: DSNBounce }"),
    ];

    /// `processor rule what`, or nothing.
    fn silence(part: &str, instead: &str) -> String {
        let text = PARTS.iter().fold(ALL_TOLD.to_owned(), |text, (name, usual)| {
            text.replace(name, if *name == part { instead } else { usual })
        });
        let document = Document::parse(Path::new("f"), text.as_bytes()).expect(&text);
        let reading = Reading::new(Path::new("f"));
        let config = Config::read(document.root(), &BTreeSet::new(), "relay", &reading);
        let wrong = document.diagnostics(reading);
        assert!(wrong.is_empty(), "{instead}: {wrong:?}");
        let found = config.silence("relay");
        found.map_or(String::new(), |found| format!("{} {} {:?}", found.processor, found.rule, found.of))
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
        let found = config.silence("relay").expect("the mail is kept, and nobody is told");
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
        assert_eq!(Config::read(&processors, &schemes, "relay", &reading).silence("relay"), None);
    }
}
