//! How mail comes in: the SMTP listener, the command line of `sendmail` with what becomes of
//! the message it reads, the files of an import, and the trace field that every way in adds.
//!
//! Nothing here reads a clock, the environment or a user's name: they are arguments.

mod edit;
mod header;
mod import;
mod intake;
mod lines;
mod listener;
mod local;
mod mailboxes;
mod message;
mod sendmail;
mod submission;
mod submit;
mod trace;

pub use import::{
    Dialect, FieldError, Fingerprint, Found, Marked, Marks, Opened, SourceError, Sources, Told, Transcript,
    TranscriptError,
};
pub use intake::Intake;
pub use listener::{
    Config as ListenerConfig, Context as ListenerContext, Control as ListenerControl, Error as ListenerError, Limits,
    Listener, TlsFiles,
};
pub use local::{Here, MAILNAME, Sendmail, SystemNames};
pub use message::IntakeError;
pub use sendmail::{Invocation, Mode, Parties, UsageError, Waiting, parse};
pub use submission::{Caller, Input, SubmitError, submit};
pub use submit::{
    HandedOver, Kept, Refusal, SOCKET, SubmitContext, SubmitSocket, Told as QueueTold, Unanswered, ask, hand_over,
    hung_up, open_session,
};
pub use trace::{Origin, Protocol, received_field};
