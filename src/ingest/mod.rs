//! How mail comes in, as far as it needs no store: the command line of `sendmail`, what
//! becomes of the message it reads, and the trace field that every way in adds.
//!
//! Nothing here reads a clock, the environment or a user's name: they are arguments.

mod addresses;
mod header;
mod message;
mod sendmail;
mod trace;

pub use addresses::{AddressListError, parse_address_list};
pub use header::Missing;
pub use message::{Intake, IntakeError};
pub use sendmail::{Invocation, Mode, UsageError, parse};
pub use trace::{Origin, Protocol, received_field};
