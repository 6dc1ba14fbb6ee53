//! Two relays that hand mail to each other.

use std::net::TcpListener;

use super::{Service, until};
use crate::support::fresh_loopback;
use crate::told_killed::telling;

/// An address that is free now.
fn free_address() -> std::net::SocketAddr {
    let listener = TcpListener::bind((fresh_loopback(), 0)).expect("a free port");
    listener.local_addr().expect("bound")
}

#[test]
fn a_loop_between_two_of_ours_ends_and_so_does_the_word_of_it() {
    let addresses = [free_address(), free_address()];
    let relays = [(0, 1), (1, 0)].map(|(own, other): (usize, usize)| {
        let top = format!("smtp: {{ listen: [\"{}\"] }}\nadmin: {{ listen: \"127.0.0.1:0\" }}", addresses[own]);
        telling(addresses[other], &top)
    });
    let services = relays.each_ref().map(Service::start);
    services[0].submit(&["you@example.net"], "round");
    let kept = |repository: &str| relays.each_ref().map(|relay| relay.size(repository)).iter().sum::<usize>();
    // The mail has passed too many relays, and so has what tells its sender: to the one where it
    // ends that is a mail of somebody else's, without a sender, and nobody is told of it.
    until("both have gone round", || kept("permanent") == 2);
    services.iter().for_each(Service::wait_until_settled);
    let ended: Vec<_> = relays.iter().flat_map(|relay| relay.mails("permanent")).collect();
    let mut senders: Vec<_> = ended.iter().map(|mail| mail["sender"].as_str()).collect();
    senders.sort_unstable();
    assert_eq!(senders, [None, Some("me@example.org")]);
    assert_eq!((kept("temporary"), kept("var/mail/error"), kept("var/mail/error/dsn")), (0, 0, 0));
    for service in services {
        service.stop();
    }
}
