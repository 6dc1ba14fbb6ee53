//! SIGHUP reloads; SIGTERM and SIGINT stop, a second one at once; what other daemons reopen their logs
//! for (SIGUSR1, SIGUSR2) does nothing.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// From its making on, none of these signals ends the process by itself.
pub(super) struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    /// Heard, so that they do not kill: each mail in hand would be in doubt.
    _others: [Signal; 2],
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        let of = |kind| signal(kind);
        Ok(Self {
            hangup: of(SignalKind::hangup())?,
            terminate: of(SignalKind::terminate())?,
            interrupt: of(SignalKind::interrupt())?,
            _others: [of(SignalKind::user_defined1())?, of(SignalKind::user_defined2())?],
        })
    }

    /// Waits for the next signal; `false` where it asks to stop.
    pub(super) async fn reload_before_stop(&mut self) -> bool {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => false,
            _ = self.interrupt.recv() => false,
            _ = self.hangup.recv() => true,
        }
    }

    /// Waits for one that asks to stop.
    pub(super) async fn stop(&mut self) {
        while self.reload_before_stop().await {}
    }
}
