//! What the program says when it ends: sysexits(3).

use std::process::ExitCode;

use crate::ingest::ListenerError;
use crate::jobs::Swept;
use crate::parts;
use crate::serve;
use crate::spool::AcceptError;
use crate::store::Error;

/// Exit codes, ordered from the one that everything wins over to the one that wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Exit {
    /// 0.
    Ok,
    /// 75: some recipients were deferred or left, or the mail is in hand elsewhere.
    Deferred,
    /// 69: some recipients failed for good; a service is not to be had.
    Unavailable,
    /// 66: unknown key or repository.
    NotFound,
    /// 65: what was given is no message or no address.
    Data,
    /// 70: a fault of ours.
    Internal,
    /// 74: the store, or an output, cannot be written.
    CannotWrite,
    /// 73: the store cannot be opened.
    CannotOpen,
    /// 78: the configuration.
    Configuration,
    /// 64: the command line.
    Usage,
}

impl Exit {
    /// The number.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Usage => 64,
            Self::Data => 65,
            Self::NotFound => 66,
            Self::Unavailable => 69,
            Self::Internal => 70,
            Self::CannotOpen => 73,
            Self::CannotWrite => 74,
            Self::Deferred => 75,
            Self::Configuration => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command ended early: the line for standard error, and the code.
#[derive(Debug)]
pub(super) struct Failure {
    /// One line, without the program's name; empty where everything was said.
    pub(super) message: String,
    /// The code.
    pub(super) exit: Exit,
}

impl Failure {
    /// A failure with its line.
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { message: message.into(), exit }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::NoSuchRepository(_) | Error::NoSuchMail(_) => Exit::NotFound,
            Error::InHand(_) | Error::ClaimLost(_) | Error::ImportedBefore(_) => Exit::Deferred,
            Error::CannotOpen { .. } => Exit::CannotOpen,
            Error::NotOurs(_) => Exit::Usage,
            Error::Trouble { .. } | Error::NoContent | Error::Unreadable(..) | Error::Unsupported(_) => {
                Exit::CannotWrite
            }
        };
        Self::new(exit, error.to_string())
    }
}

impl From<parts::Error> for Failure {
    fn from(error: parts::Error) -> Self {
        match error {
            parts::Error::Store(error) => error.into(),
            parts::Error::Owner(message) => Self::new(Exit::CannotOpen, message),
            parts::Error::Configuration(message) => Self::new(Exit::Configuration, message),
        }
    }
}

impl From<serve::Error> for Failure {
    fn from(error: serve::Error) -> Self {
        let exit = match error {
            serve::Error::Parts(error) => return error.into(),
            serve::Error::SecondService { .. }
            | serve::Error::Admin(..)
            | serve::Error::Smtp(ListenerError::Listen(..)) => Exit::Unavailable,
            serve::Error::Smtp(_) | serve::Error::File(_) => Exit::Configuration,
            serve::Error::System(_) => Exit::Internal,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    /// Of standard output: nobody reads it any more, or its disk is full.
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::new(Exit::Ok, "");
        }
        Self::new(Exit::CannotWrite, format!("cannot write the output: {error}"))
    }
}

impl From<AcceptError> for Failure {
    fn from(error: AcceptError) -> Self {
        let exit = match &error {
            AcceptError::NoRecipient => Exit::Usage,
            AcceptError::TooLarge(_) | AcceptError::Message(_) => Exit::Data,
            // The caller may try again: nothing was taken.
            AcceptError::Behind | AcceptError::NoFreeSpace(_) | AcceptError::Store(_) => Exit::Deferred,
        };
        Self::new(exit, error.to_string())
    }
}

/// How a run went, the worst first.
pub(super) fn of_run(swept: &Swept) -> Exit {
    let counts = &swept.counts;
    if counts.errors > 0 || swept.trouble.is_some() {
        Exit::Internal
    } else if counts.failed > 0 {
        Exit::Unavailable
    } else if counts.deferred > 0 || swept.left > 0 {
        Exit::Deferred
    } else {
        Exit::Ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Counts;

    #[test]
    fn the_worst_of_a_run_decides() {
        let run = |deferred, failed, errors, left| {
            of_run(&Swept {
                counts: Counts { deferred, failed, errors, ..Counts::default() },
                left,
                ..Swept::default()
            })
            .code()
        };
        assert_eq!(
            [run(0, 0, 0, 0), run(1, 0, 0, 0), run(0, 0, 0, 1), run(1, 1, 0, 0), run(1, 1, 1, 1)],
            [0, 75, 75, 69, 70]
        );
    }

    #[test]
    fn usage_wins_over_everything() {
        let order = [
            Exit::Usage,
            Exit::Configuration,
            Exit::CannotOpen,
            Exit::CannotWrite,
            Exit::Internal,
            Exit::Unavailable,
            Exit::Deferred,
            Exit::Ok,
        ];
        assert!(order.is_sorted_by(|a, b| a > b));
    }
}
