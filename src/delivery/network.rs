//! What all deliveries of a process share: clock, names, trusted roots, who we are, and
//! how they are asked to end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::clock::Clock;
use crate::stop::{Cancellation, Stop};

use super::config::DnsConfig;
use super::dns::Dns;
use super::step::Broken;

/// What all deliveries of a process share.
pub struct Network {
    pub(super) clock: Clock,
    pub(super) dns: Dns,
    pub(super) hostname: String,
    pub(super) stop: Stop,
    pub(super) down_for: Option<Duration>,
    own: Vec<SocketAddr>,
    roots: OnceLock<Vec<CertificateDer<'static>>>,
}

impl Network {
    /// `hostname` is the EHLO name; `own` are the addresses our own listener has, which
    /// mail is not to be sent to; `down_for` says how long trouble with a peer or a name
    /// is remembered (`None`: as long as the object lives, which is one sweep).
    pub fn new(
        clock: Clock,
        dns: &DnsConfig,
        hostname: String,
        own: Vec<SocketAddr>,
        stop: Stop,
        down_for: Option<Duration>,
    ) -> Arc<Self> {
        let dns = Dns::new(dns, down_for);
        Arc::new(Self { clock, dns, hostname, stop, down_for, own, roots: OnceLock::new() })
    }

    /// The system's trusted roots, read once when the first peer shows a certificate.
    pub(super) fn roots(&self) -> &[CertificateDer<'static>] {
        self.roots.get_or_init(|| {
            let loaded = rustls_native_certs::load_native_certs();
            for error in &loaded.errors {
                tracing::warn!(%error, "a trusted root could not be loaded");
            }
            loaded.certs
        })
    }

    /// Waits until nothing under way is waited for any more, in this process or in `run`: why.
    pub(super) async fn ended(&self, run: &Cancellation) -> Broken {
        tokio::select! {
            biased;
            () = self.stop.hard.cancelled() => {}
            () = run.asked() => {}
        }
        self.has_ended(run).unwrap_or(Broken::Stopped)
    }

    /// Whether that is so already: why.
    pub(super) fn has_ended(&self, run: &Cancellation) -> Option<Broken> {
        match run.by() {
            _ if self.stop.hard.is_cancelled() => Some(Broken::Stopped),
            Some(by) => Some(Broken::Cancelled(by.to_owned())),
            None => None,
        }
    }

    /// Waits until nothing new is to begin, in this process or in `run`.
    pub(super) async fn closing(&self, run: &Cancellation) {
        tokio::select! {
            () = self.stop.gentle.cancelled() => {}
            () = run.asked() => {}
        }
    }

    /// Whether `peer` is our own listener; an unspecified listen address means every
    /// address of this machine.
    pub(super) fn is_own_address(&self, peer: SocketAddr) -> bool {
        is_among(&self.own, peer)
    }

    /// Whether `host` is this relay by name.
    pub(super) fn is_own_name(&self, host: &str) -> bool {
        host.trim_end_matches('.').eq_ignore_ascii_case(self.hostname.trim_end_matches('.'))
    }
}

/// Whether one of the listen addresses `own` is reached at `peer`.
pub(super) fn is_among(own: &[SocketAddr], peer: SocketAddr) -> bool {
    let reached = reached(peer.ip());
    own.iter().any(|own| {
        own.port() == peer.port()
            && (own.ip().to_canonical() == reached || own.ip().is_unspecified() && is_local(reached))
    })
}

/// Where a connection to `address` ends: IPv4 within IPv6 is IPv4, and the unspecified address
/// is this machine's.
fn reached(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}

/// Whether the address is one of this machine's: only then can a socket be bound to it.
fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// Whether there is a route to anywhere. Connecting a UDP socket sends nothing.
pub(super) fn has_any_route() -> bool {
    let reaches = |local: &str, remote: &str| UdpSocket::bind(local).is_ok_and(|socket| socket.connect(remote).is_ok());
    reaches("0.0.0.0:0", "192.0.2.1:25") || reaches("[::]:0", "[2001:db8::1]:25")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn our_own_listener_is_known_by_address_and_by_name() {
        let own = ["0.0.0.0:2525", "192.0.2.7:25", "127.0.0.1:26", "[::1]:27"];
        let own = own.map(|address| address.parse().expect("address")).to_vec();
        let dns = DnsConfig { servers: vec!["127.0.0.1:1".parse().expect("address")], ..DnsConfig::default() };
        let network = Network::new(Clock::system(), &dns, "Relay.example".into(), own, Stop::default(), None);
        for (peer, is_own) in [
            ("127.0.0.1:2525", true),
            ("127.9.9.9:2525", true),
            ("127.0.0.1:25", false),
            ("192.0.2.7:25", true),
            ("192.0.2.8:2525", false),
            ("[::ffff:127.0.0.1]:2525", true),
            ("[::ffff:192.0.2.7]:25", true),
            ("0.0.0.0:26", true),
            ("[::ffff:0.0.0.0]:26", true),
            ("0.0.0.0:25", false),
            ("[::]:27", true),
            ("[::]:26", false),
        ] {
            assert_eq!(network.is_own_address(peer.parse().expect("address")), is_own, "{peer}");
        }
        assert!(network.is_own_name("relay.EXAMPLE.") && !network.is_own_name("relay.example.org"));
    }
}
