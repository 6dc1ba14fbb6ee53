//! Mails in hand that are kept in the store alone, until there is room at their next hop.
//!
//! A mail that waits for a connection takes some KiB of memory. Where many wait for one next hop
//! already, the next ones are forgotten but for their claims: they stay in hand, no pass is
//! begun, and nothing is written for them. They are read again, in their order, when few are
//! left before them: connections were to be had, or the hop was found down and answers for all.

use std::collections::{HashMap, VecDeque};

use crate::store::Claim;

/// With fewer who wait for a hop than this the next parked ones are for it.
const FEW: usize = 100;

/// So many of them.
const AT_ONCE: usize = 250;

/// A mail that is parked.
#[derive(Debug, Clone)]
pub(super) struct Waits {
    /// The right to it.
    pub(super) claim: Claim,
    /// For which next hop it waits.
    pub(super) next_hop: String,
    /// How many recipients it has.
    pub(super) recipients: u64,
}

/// What is left of a mail in memory.
pub(super) struct Parked {
    pub(super) claim: Claim,
    pub(super) recipients: u64,
}

/// All that are parked, by next hop.
#[derive(Default)]
pub(super) struct ParkedMails {
    hops: HashMap<String, VecDeque<Parked>>,
    number: usize,
}

impl ParkedMails {
    pub(super) fn len(&self) -> usize {
        self.number
    }

    /// Behind the others for its next hop.
    pub(super) fn park(&mut self, waits: Waits) {
        let Waits { claim, next_hop, recipients } = waits;
        self.hops.entry(next_hop).or_default().push_back(Parked { claim, recipients });
        self.number += 1;
    }

    /// The next ones of each hop before which fewer than [`FEW`] wait, at most `room` in all;
    /// `waiting` says how many do.
    pub(super) fn next(&mut self, room: usize, waiting: impl Fn(&str) -> usize) -> Vec<(String, Vec<Parked>)> {
        let hops: Vec<_> = self.hops.keys().filter(|hop| waiting(hop) < FEW).cloned().collect();
        let share = AT_ONCE.min(room / hops.len().max(1));
        let taken = hops.into_iter().map(|hop| (self.take(&hop, share), hop));
        taken.filter(|(taken, _)| !taken.is_empty()).map(|(taken, hop)| (hop, taken)).collect()
    }

    /// Some of them, whatever they wait for.
    pub(super) fn any(&mut self, most: usize) -> Vec<Parked> {
        let hop = self.hops.keys().next().cloned();
        hop.map_or_else(Vec::new, |hop| self.take(&hop, most))
    }

    fn take(&mut self, hop: &str, most: usize) -> Vec<Parked> {
        let Some(queue) = self.hops.get_mut(hop) else { return Vec::new() };
        let taken: Vec<_> = queue.drain(..most.min(queue.len())).collect();
        if queue.is_empty() {
            self.hops.remove(hop);
        }
        self.number -= taken.len();
        taken
    }

    /// Those that could not be read just now go back to the front.
    pub(super) fn put_back(&mut self, hop: String, taken: Vec<Parked>) {
        self.number += taken.len();
        let queue = self.hops.entry(hop).or_default();
        for parked in taken.into_iter().rev() {
            queue.push_front(parked);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(hop: &str, number: usize) -> Waits {
        Waits { claim: Claim::of_test(&format!("{hop}{number}")), next_hop: hop.to_owned(), recipients: 1 }
    }

    fn keys(parked: &[Parked]) -> Vec<String> {
        parked.iter().map(|one| one.claim.key.to_string()).collect()
    }

    #[test]
    fn they_come_back_in_their_order_where_few_wait() {
        let mut parked = ParkedMails::default();
        for number in 0..3 {
            parked.park(waits("A", number));
            parked.park(waits("B", number));
        }
        assert!(parked.next(9, |_| FEW).is_empty(), "many wait for both");
        assert!(parked.next(0, |_| 0).is_empty(), "there is no room");
        let (hop, taken) = parked.next(2, |hop| if hop == "B" { 0 } else { FEW }).remove(0);
        assert_eq!((hop.as_str(), keys(&taken), parked.len()), ("B", vec!["B0".to_owned(), "B1".to_owned()], 4));
        parked.put_back(hop, taken);
        let mut taken = parked.next(2, |_| FEW - 1);
        taken.sort_by(|one, other| one.0.cmp(&other.0));
        let of_both: Vec<_> = taken.iter().flat_map(|(_, taken)| keys(taken)).collect();
        assert_eq!(of_both, ["A0", "B0"], "each hop has its share of the room");
        let mut left = Vec::new();
        while parked.len() > 0 {
            left.extend(keys(&parked.any(2)));
        }
        left.sort();
        assert_eq!(left, ["A1", "A2", "B1", "B2"]);
        assert!(parked.any(2).is_empty() && parked.next(9, |_| 0).is_empty());
    }
}
