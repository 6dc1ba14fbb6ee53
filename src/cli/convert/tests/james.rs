//! What James would do with a mail, one recipient at a time: it splits by recipients, and no
//! part sees another.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::container::{Container, Mailet, Matcher, PROCESSORS, Pair, RECIPIENTS};

/// What nobody can know from the container.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) null_sender: bool,
    /// A bit for each of somebody else's matchers and each recipient: it matches.
    matches: u32,
    /// The same for mailets: it ends the mail, and keeps or bounces it.
    takes: u32,
    /// Recipients in mailboxes of James's.
    local: u32,
    /// Recipients for whom the scanner sets its attribute.
    infected: u32,
}

pub(super) fn any_world() -> impl Strategy<Value = World> {
    let local = prop_oneof![2 => Just(0), 1 => any::<u32>()];
    (any::<bool>(), any::<u32>(), any::<u32>(), local, any::<u32>()).prop_map(
        |(null_sender, matches, takes, local, infected)| World { null_sender, matches, takes, local, infected },
    )
}

impl World {
    pub(super) fn is_local(&self, recipient: usize) -> bool {
        bit(self.local, 0, recipient)
    }
}

fn bit(bits: u32, number: usize, recipient: usize) -> bool {
    bits >> (number * RECIPIENTS.len() + recipient) & 1 == 1
}

/// What became of the mail to a recipient.
#[derive(Debug, Default)]
pub(super) struct Fate {
    /// The peers that tried.
    pub(super) reached: BTreeSet<String>,
    /// Somebody was told, it was kept or given to somebody.
    cared_for: bool,
}

impl Fate {
    /// Whether it was deleted and nobody knows.
    pub(super) fn is_lost(&self) -> bool {
        !self.cared_for
    }
}

/// The mail on its way.
#[derive(Default)]
struct Part {
    attributes: BTreeSet<usize>,
    executions: u32,
    permanent: Option<bool>,
}

/// Where a mailet leaves the mail.
enum Step {
    Next,
    Go(usize),
    End,
    /// At rest in a repository.
    Kept(&'static str),
}

/// Runs the mail to one recipient through all; `jobs` bring it back from repositories.
pub(super) fn run(container: &Container, world: &World, at: usize, jobs: &BTreeMap<String, String>) -> Fate {
    let (mut fate, mut part) = (Fate::default(), Part::default());
    let mut processor = 0;
    for _ in 0..40 {
        let Some(place) = pass(container, world, at, processor, &mut part, &mut fate) else { break };
        let back = jobs.get(place).and_then(|name| PROCESSORS.iter().position(|one| one == name));
        let Some(back) = back else {
            fate.cared_for = true;
            break;
        };
        processor = back;
    }
    fate
}

/// One pass; the repository in which it ends.
fn pass(
    container: &Container,
    world: &World,
    at: usize,
    mut processor: usize,
    part: &mut Part,
    fate: &mut Fate,
) -> Option<&'static str> {
    'processor: loop {
        for pair in &container.0[processor] {
            if !is_for(pair, world, at, part) {
                continue;
            }
            match service(&pair.mailet, world, at, part, fate) {
                Step::Next => {}
                Step::Go(next) => {
                    processor = next;
                    continue 'processor;
                }
                Step::End => return None,
                Step::Kept(place) => return Some(place),
            }
        }
        // The end of a processor: deleted.
        return None;
    }
}

fn is_for(pair: &Pair, world: &World, at: usize, part: &mut Part) -> bool {
    matches(&pair.matcher, world, at, part) != pair.inverted
}

fn matches(matcher: &Matcher, world: &World, at: usize, part: &mut Part) -> bool {
    let mut each = |inner: &[Matcher]| -> Vec<bool> { inner.iter().map(|one| matches(one, world, at, part)).collect() };
    match matcher {
        Matcher::All | Matcher::MayRelay => true,
        Matcher::SentByMailet => false,
        Matcher::SenderIsNull => world.null_sender,
        Matcher::RecipientIs(those) => those.contains(&RECIPIENTS[at]),
        Matcher::RecipientIsLocal => world.is_local(at),
        Matcher::Own(number) => bit(world.matches, *number, at),
        Matcher::HasAttribute(number) => part.attributes.contains(number),
        Matcher::Temporary => part.permanent == Some(false),
        Matcher::Permanent => part.permanent == Some(true),
        Matcher::AtMost(limit) => {
            let below = part.executions < *limit;
            part.executions += u32::from(below);
            below
        }
        Matcher::And(inner) => !inner.is_empty() && each(inner).into_iter().all(|one| one),
        Matcher::Or(inner) => each(inner).into_iter().any(|one| one),
        Matcher::Xor(inner) => each(inner).into_iter().fold(false, |so_far, one| so_far != one),
        Matcher::Not(inner) => !matches(inner, world, at, part),
    }
}

fn service(mailet: &Mailet, world: &World, at: usize, part: &mut Part, fate: &mut Fate) -> Step {
    match mailet {
        Mailet::Plain(_) => Step::Next,
        Mailet::Go(to) => Step::Go(*to),
        Mailet::Null => Step::End,
        Mailet::Log { passes } => next_if(*passes),
        Mailet::Set(number) => {
            part.attributes.insert(*number);
            Step::Next
        }
        Mailet::Remove(number) => {
            part.attributes.remove(number);
            Step::Next
        }
        Mailet::ClamAvScan => {
            if bit(world.infected, 0, at) {
                part.attributes.insert(0);
            }
            Step::Next
        }
        Mailet::Own(number) if !bit(world.takes, *number, at) => Step::Next,
        Mailet::Own(_) | Mailet::LocalDelivery => {
            fate.cared_for = true;
            Step::End
        }
        Mailet::Tell { passes, .. } | Mailet::Forward { passes } => {
            fate.cared_for = true;
            next_if(*passes)
        }
        Mailet::Keep { place, passes: false } => Step::Kept(place),
        Mailet::Keep { .. } => {
            fate.cared_for = true;
            Step::Next
        }
        Mailet::Deliver { peer, bounce, .. } => deliver(*peer, *bounce, at, part, fate),
    }
}

fn next_if(passes: bool) -> Step {
    if passes { Step::Next } else { Step::End }
}

/// All attempts of one RemoteDelivery.
fn deliver(peer: usize, bounce: Option<usize>, at: usize, part: &mut Part, fate: &mut Fate) -> Step {
    fate.reached.insert(format!("peer{peer}"));
    match RECIPIENTS[at].chars().next() {
        Some('d') => {
            fate.cared_for = true;
            return Step::End;
        }
        first => part.permanent = Some(first == Some('f')),
    }
    let Some(to) = bounce else {
        // It tells the sender itself.
        fate.cared_for = true;
        return Step::End;
    };
    Step::Go(to)
}
