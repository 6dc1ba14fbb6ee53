//! How many connections are open, in total and from each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Limits;
use super::answer::Answer;
use crate::clients::network_of;

/// Connections by address; an address that has none is not in it.
#[derive(Debug, Default)]
pub(super) struct OpenConnections(Mutex<HashMap<IpAddr, usize>>);

/// The right to one connection, given back when dropped.
#[derive(Debug)]
pub(super) struct OpenConnection {
    open: Arc<OpenConnections>,
    whose: IpAddr,
}

impl OpenConnections {
    /// One more connection from `address`, or what to tell it instead.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr, limits: &Limits) -> Result<OpenConnection, Answer> {
        let whose = network_of(address);
        let mut open = self.open();
        if open.values().sum::<usize>() >= limits.connections {
            return Err(Answer::new(421, "4.7.0", "too many connections, try again later"));
        }
        let count = open.entry(whose).or_default();
        if *count >= limits.connections_per_address {
            return Err(Answer::new(421, "4.7.0", "too many connections from your address"));
        }
        *count += 1;
        Ok(OpenConnection { open: Arc::clone(self), whose })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let mut open = self.open.open();
        if let Some(count) = open.get_mut(&self.whose) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.whose);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_address_and_in_total_and_given_back() {
        let open = Arc::<OpenConnections>::default();
        let limits = Limits { connections: 3, connections_per_address: 2, ..Limits::default() };
        let take = |address: &str| open.take(address.parse().expect("an address"), &limits);
        let first = take("192.0.2.1").expect("a slot");
        let _mapped = take("::ffff:192.0.2.1").expect("a slot");
        assert!(take("192.0.2.1").expect_err("the third").to_string().contains("your address"));
        let _other = take("2001:db8::1").expect("a slot");
        assert!(take("192.0.2.9").expect_err("the fourth").to_string().contains("try again later"));
        drop(first);
        assert!(take("2001:db8::ffff").is_ok(), "one more of the same /64");
    }

    #[test]
    fn an_address_that_has_no_connection_costs_nothing() {
        let open = Arc::<OpenConnections>::default();
        for last in 0..=255 {
            drop(open.take(IpAddr::from([192, 0, 2, last]), &Limits::default()));
        }
        assert!(open.open().is_empty());
    }
}
