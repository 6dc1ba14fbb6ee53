//! Sockets that systemd holds for us (sd_listen_fds(3)): clients wait in them through a restart.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;

/// What their units call them, FileDescriptorName=.
const SUBMIT: &str = "submit";
const SMTP: &str = "smtp";

/// What was handed over; nothing where we were started otherwise.
#[derive(Debug, Default)]
pub(super) struct HandedOver {
    /// For submissions.
    pub(super) submit: Option<UnixListener>,
    /// For SMTP.
    pub(super) smtp: Vec<TcpListener>,
}

/// Takes the sockets by their names.
///
/// # Errors
/// Where one has another name, or is none of its kind.
pub(super) fn take() -> Result<HandedOver, String> {
    let mut given = ListenFd::from_env();
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names: Vec<_> = names.split(':').collect();
    let mut taken = HandedOver::default();
    for index in 0..given.len() {
        let name = names.get(index).copied().unwrap_or_default();
        let wrong = |error: io::Error| format!("the socket {name:?} that systemd hands over cannot be used: {error}");
        match name {
            SUBMIT => taken.submit = given.take_unix_listener(index).map_err(wrong)?,
            SMTP => taken.smtp.extend(given.take_tcp_listener(index).map_err(wrong)?),
            _ => return Err(format!("systemd hands over a socket named {name:?}: known are {SUBMIT} and {SMTP}")),
        }
    }
    Ok(taken)
}

impl HandedOver {
    /// Where the sockets for SMTP listen: that is ourselves.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.smtp.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }
}
