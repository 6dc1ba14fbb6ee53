//! The three things the tests are made of: a scripted SMTP peer, a DNS server, and the program itself.

#[allow(dead_code, reason = "it offers what scenarios need, whichever there are at the moment")]
pub(crate) mod dialogue;
pub(crate) mod records;
pub(crate) mod relay;
pub(crate) mod sink;
pub(crate) mod zones;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// A loopback address and port where nobody listens: connections are refused.
pub(crate) fn refusing() -> SocketAddr {
    let listener = TcpListener::bind((sink::fresh_loopback(), 0)).expect("a free port");
    listener.local_addr().expect("bound")
}

/// A listener whose queue is full: whoever connects waits for an answer that never comes.
pub(crate) fn never_accepting() -> (SocketAddr, TcpListener, Vec<TcpStream>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let listener = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind((fresh_loopback(), 0).into()).expect("a free port");
        socket.listen(1).expect("listening").into_std().expect("a listener")
    });
    let address = listener.local_addr().expect("bound");
    let patience = Duration::from_millis(200);
    let waiting = std::iter::from_fn(|| TcpStream::connect_timeout(&address, patience).ok()).collect();
    (address, listener, waiting)
}

/// A loopback address that no other test of this machine uses at the moment.
pub(crate) fn fresh_loopback() -> Ipv4Addr {
    sink::fresh_loopback()
}

/// A small message with this Message-ID, line ends as a person's editor has them.
pub(crate) fn message(id: &str) -> String {
    format!("From: me@example.org\nSubject: a test\nMessage-ID: <{id}@example.org>\n\nHello.\n")
}
