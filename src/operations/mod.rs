//! What is done to many mails at rest: which are meant, what it would come to, and the doing.
//!
//! Command line, HTTP and jobs ask here, so that a filter means the same to all of them. A
//! mail that is in hand, or went away meanwhile, is passed over and counted.

mod bulk;
mod purge;
mod selection;

pub use bulk::{Done, Operations, Verb};
pub use purge::purge;
pub use selection::{Conditions, Selection, Wrong};
