//! The wire language for both sides: reply, command, dot-stuffing. No I/O.
//!
//! Readers here take octets as they come and are bounded; writers take typed values and
//! cannot be talked into a line end that is not theirs (RFC 5321 section 2.3.8).

mod command;
mod command_line;
mod dot;
mod reply;

pub use command::{Body, Capabilities, Command, MailParameters, RcptParameters};
pub use command_line::{CommandError, CommandLine, ForwardPath, Leniency, MAX_COMMAND_OCTETS, MAX_EXTENDED_OCTETS};
pub use dot::{BareLineEnd, Stuffer, Unstuffer};
pub use reply::{EnhancedStatus, MAX_LINE_OCTETS, MAX_REPLY_OCTETS, NotSmtp, Reply, ReplyReader};
