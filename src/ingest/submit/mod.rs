//! `submit.sock`: handing a message over to the service, for users who may not write the
//! store themselves.
//!
//! The client has read its input to the end before it connects: nobody knows how long that
//! takes, and whatever becomes of a connection, the next one can be given all of it. It says in
//! one frame what is asked for, the service says in one whether it takes that up. Behind that come, for a message, its octets in frames with an
//! empty one at the end, and the service's answer after the commit; for `sendmail -bs` both
//! speak SMTP; for questions the service answers. What the frames say is in `protocol`. Who
//! the client is the kernel says. The service reads a message with the same code as if it
//! were its own standard input.

mod client;
mod kept;
mod protocol;
mod queue;
mod service;
mod socket;

pub use client::{HandedOver, Unanswered, ask, hand_over, hung_up, open_session};
pub use kept::Kept;
pub use protocol::Refusal;
pub use queue::Told;
pub use service::SubmitContext;
pub use socket::SubmitSocket;

/// The socket's name in the state directory.
pub const SOCKET: &str = "submit.sock";
