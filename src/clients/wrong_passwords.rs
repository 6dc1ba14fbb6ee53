//! Wrong passwords, counted by where they come from.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Wrong passwords from one address before it is left unheard.
const BURST: u32 = 20;

/// After this long one of them is forgotten: a program with an old password that asks
/// every few seconds shuts nobody out, and guessing is hopeless.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(3);

/// Who is counted as one client: an IPv4 address, or the /64 around an IPv6 address,
/// since whoever has one has all of it.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

/// Wrong passwords by where they came from.
#[derive(Debug, Default)]
pub struct WrongPasswords {
    /// When the last of them will be forgotten; what is past is no entry.
    forgotten: Mutex<HashMap<IpAddr, Instant>>,
}

impl WrongPasswords {
    /// Whether there were so many from `address` that no password from there is looked at
    /// for now, the right one neither.
    pub fn are_too_many(&self, address: IpAddr, now: Instant) -> bool {
        let forgotten = self.forgotten.lock().unwrap_or_else(PoisonError::into_inner);
        let at = forgotten.get(&network_of(address));
        at.is_some_and(|at| at.saturating_duration_since(now) > FORGOTTEN_AFTER * (BURST - 1))
    }

    /// One more.
    pub fn add(&self, address: IpAddr, now: Instant) {
        let mut forgotten = self.forgotten.lock().unwrap_or_else(PoisonError::into_inner);
        forgotten.retain(|_, at| *at > now);
        let at = forgotten.entry(network_of(address)).or_insert(now);
        *at += FORGOTTEN_AFTER;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_client_has_a_burst_and_then_one_guess_each_time_one_is_forgotten() {
        let (wrong, begun, guesser) = (WrongPasswords::default(), Instant::now(), address("192.0.2.1"));
        for _ in 0..BURST {
            assert!(!wrong.are_too_many(guesser, begun));
            wrong.add(guesser, begun);
        }
        assert!(wrong.are_too_many(guesser, begun));
        assert!(wrong.are_too_many(address("::ffff:192.0.2.1"), begun));
        assert!(!wrong.are_too_many(address("192.0.2.2"), begun));
        let later = begun + FORGOTTEN_AFTER;
        assert!(!wrong.are_too_many(guesser, later));
        wrong.add(guesser, later);
        assert!(wrong.are_too_many(guesser, later));
    }

    #[test]
    fn whoever_asks_no_more_often_than_that_is_never_shut_out_and_then_forgotten() {
        let (wrong, mut now, poller) = (WrongPasswords::default(), Instant::now(), address("2001:db8::1"));
        for _ in 0..1000 {
            assert!(!wrong.are_too_many(address("2001:db8::ffff"), now));
            wrong.add(poller, now);
            now += FORGOTTEN_AFTER;
        }
        wrong.add(address("192.0.2.1"), now + FORGOTTEN_AFTER);
        assert_eq!(wrong.forgotten.lock().expect("no panic").len(), 1);
    }
}
