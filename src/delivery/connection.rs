//! Opening connections: TCP from the right local address, and TLS on top of it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use tokio::net::{TcpSocket, TcpStream};

use crate::mail::TlsFacts;
use crate::stop::Cancellation;

use super::config::Config;
use super::ehlo_name::EhloName;
use super::limits::Limits;
use super::network::Network;
use super::outcome::{Decision, Finding};
use super::routing::Target;
use super::step::{Broken, Step};
use super::tls::{Secured, Tls};
use super::wire::Wire;

/// For a TLS handshake, where `timeout` says nothing.
const HANDSHAKE: Duration = Duration::from_mins(1);

/// Opens connections as one `RemoteDelivery` is configured.
pub(super) struct Dialer {
    pub(super) config: Arc<Config>,
    pub(super) network: Arc<Network>,
    pub(super) tls: Tls,
    /// The name for EHLO.
    pub(super) ehlo: EhloName,
}

/// TLS is up: what is recorded of it, and why policy forbids its use, where it does.
pub(super) struct Secure {
    pub(super) facts: TlsFacts,
    pub(super) refused: Option<String>,
}

impl Dialer {
    /// Connects for a run. The local address is returned beside the wire.
    ///
    /// # Errors
    /// What it means for the recipients.
    pub(super) async fn connect(&self, target: &Target, run: &Cancellation) -> Result<(Wire, SocketAddr), Finding> {
        let stream = tokio::select! {
            biased;
            why = self.network.ended(run) => Err(broken(why)),
            result = tokio::time::timeout(self.config.connect_timeout, tcp(target.address, self.config.bind)) => {
                result.unwrap_or_else(|_| Err(broken(Broken::TimedOut(self.config.connect_timeout))))
            }
        }?;
        let local = stream.local_addr().map_err(|error| broken(Broken::from_io(&error)))?;
        let limits = Limits { timeout: self.config.timeout, transaction: self.config.attempt_timeout };
        let hard = self.network.stop.hard.clone();
        let wire = Wire::new(stream, target.address, self.ehlo.name.clone(), limits, self.network.clock.clone(), hard);
        wire.belong_to(Some(run));
        wire.note(&format!("connected to {target}"));
        Ok((wire, local))
    }

    /// Shakes hands over the wire's stream and goes on inside TLS.
    ///
    /// # Errors
    /// Why not. The wire is then of no use any more.
    pub(super) async fn secure(&self, wire: &Wire, target: &Target, run: &Cancellation) -> Result<Secure, Broken> {
        let secured = self.handshake(wire, target, run).await.inspect_err(|broken| wire.fail_handshake(broken))?;
        wire.secure(secured.stream);
        let resumed = if secured.resumed { ", resumed" } else { "" };
        wire.note(&format!("{} {}{resumed}", secured.facts.version, secured.facts.cipher));
        Ok(Secure { facts: secured.facts, refused: secured.refused })
    }

    async fn handshake(&self, wire: &Wire, target: &Target, run: &Cancellation) -> Result<Secured, Broken> {
        let stream = wire.take_stream()?;
        let limit = self.config.timeout.unwrap_or(HANDSHAKE);
        tokio::select! {
            result = tokio::time::timeout(limit, self.tls.handshake(stream, target)) => match result {
                Ok(result) => result.map_err(Broken::Handshake),
                Err(_) => Err(Broken::Handshake(Broken::TimedOut(limit).to_string())),
            },
            why = self.network.ended(run) => Err(why),
        }
    }
}

async fn tcp(address: SocketAddr, bind: Option<IpAddr>) -> Result<TcpStream, Finding> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(|error| own(format!("no socket can be opened: {}", in_words(&error))))?;
    if let Some(bind) = bind {
        if bind.is_ipv4() != address.is_ipv4() {
            return Err(broken(Broken::Io(format!("not reachable from the local address {bind}"))));
        }
        socket
            .bind((bind, 0).into())
            .map_err(|error| own(format!("the local address {bind} cannot be used: {}", in_words(&error))))?;
    }
    let stream = socket.connect(address).await.map_err(|error| unconnected(&error))?;
    // Without it each command waits for the peer's delayed acknowledgement: 44 ms a mail.
    stream.set_nodelay(true).map_err(|error| broken(Broken::from_io(&error)))?;
    Ok(stream)
}

fn unconnected(error: &io::Error) -> Finding {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE | Errno::ENFILE | Errno::EADDRNOTAVAIL) => {
            own(format!("no connection can be opened: {}", in_words(error)))
        }
        Some(Errno::ENETUNREACH | Errno::ENETDOWN) => broken(Broken::NoRoute),
        _ => broken(Broken::from_io(error)),
    }
}

fn in_words(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |code| Errno::from_raw(code).desc().to_lowercase())
}

fn own(cause: String) -> Finding {
    Finding::decided(Step::Connect, Decision::Own(cause))
}

fn broken(broken: Broken) -> Finding {
    Finding::at(Step::Connect, Err(broken))
}
