//! What a reply answers, and why one does not come.

use std::io;
use std::time::Duration;

use crate::mail::Stage;
use crate::smtp::NotSmtp;

use super::tls::in_tls;

/// What is under way with a peer; mostly what its next reply answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Connect,
    Banner,
    Ehlo,
    Helo,
    Starttls,
    Auth,
    Mail,
    Rcpt,
    Data,
    /// Content is under way: no reply is due.
    Content,
    EndOfData,
    Rset,
    Quit,
}

impl Step {
    /// What the reply to `command` will answer; a line that is no command is one of AUTH.
    pub(super) fn of(command: &str) -> Self {
        let verb = command.split([' ', ':', '\r']).next().unwrap_or_default();
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => Self::Ehlo,
            "HELO" => Self::Helo,
            "STARTTLS" => Self::Starttls,
            "MAIL" => Self::Mail,
            "RCPT" => Self::Rcpt,
            "DATA" => Self::Data,
            "RSET" => Self::Rset,
            "QUIT" => Self::Quit,
            "." => Self::EndOfData,
            _ => Self::Auth,
        }
    }

    /// The stage that a recipient's record names.
    pub(super) fn stage(self) -> Stage {
        match self {
            Self::Connect => Stage::Connect,
            Self::Banner => Stage::Banner,
            Self::Ehlo | Self::Helo => Stage::Ehlo,
            Self::Starttls => Stage::Starttls,
            Self::Auth => Stage::Auth,
            Self::Mail | Self::Rset => Stage::Mail,
            Self::Rcpt => Stage::Rcpt,
            Self::Data | Self::Content => Stage::Data,
            Self::EndOfData | Self::Quit => Stage::EndOfData,
        }
    }
}

/// Why a connection is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("the connection was closed")]
    Closed,
    /// Such as `connection reset`.
    #[error("{0}")]
    Io(String),
    /// This machine has no route to the address.
    #[error("network unreachable")]
    NoRoute,
    #[error("timed out after {}", seconds(.0))]
    TimedOut(Duration),
    #[error("the transaction took longer than {}", seconds(.0))]
    TransactionTooLong(Duration),
    #[error("the content went slower than 1 KiB/s")]
    TooSlow,
    #[error("not SMTP: {0}")]
    NotSmtp(#[from] NotSmtp),
    #[error("TLS handshake failed: {0}")]
    Handshake(String),
    /// Behind the handshake.
    #[error("TLS failed: {0}")]
    Tls(String),
    #[error("this relay was stopped")]
    Stopped,
    /// By whom stands in the notes.
    #[error("broken off: the run was cancelled")]
    Cancelled(String),
}

fn seconds(duration: &Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("{} s", duration.as_secs())
    } else {
        format!("{} ms", duration.as_millis())
    }
}

impl Broken {
    /// An I/O error in words without numbers, where there are such.
    pub(super) fn from_io(error: &io::Error) -> Self {
        if let Some(told) = in_tls(error) {
            return Self::Tls(told);
        }
        match error.kind() {
            // rustls' word for a close without close_notify.
            io::ErrorKind::UnexpectedEof => Self::Closed,
            kind => Self::Io(error.get_ref().map_or_else(|| kind.to_string(), ToString::to_string)),
        }
    }
}
