//! `submit.sock`: handing a message over to the service, for users who may not write the
//! store themselves.
//!
//! The client says in one frame what is asked for, the service says in one whether it takes
//! that up, and only then does the client read its input: until then nothing is lost that
//! cannot be tried again. Behind that come, for a message, its octets in frames with an
//! empty one at the end, and the service's answer after the commit; for `sendmail -bs` both
//! speak SMTP; for questions the service answers. What the frames say is in `protocol`. Who
//! the client is the kernel says. The service reads a message with the same code as if it
//! were its own standard input.

mod client;
mod protocol;
mod queue;
mod service;
mod socket;

pub use client::{Unanswered, ask, hand_over, hung_up, open_session};
pub use protocol::Refusal;
pub use queue::Told;
pub use service::SubmitContext;
pub use socket::SubmitSocket;

/// The socket's name in the state directory.
pub const SOCKET: &str = "submit.sock";
