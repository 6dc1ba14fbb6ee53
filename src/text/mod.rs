//! Text for people and for scripts: what steers no terminal, columns that line up, times.
//!
//! What peers, clients and files say is shown in logs, listings, reports and pages; here is
//! what each of these does to it first. No I/O, no clock.

mod steering;
mod table;
mod time;

pub use steering::{escaped, one_line, plain, printable, steers};
pub use table::{Table, cut};
pub use time::{age, parse_rfc3339, rfc3339, rfc3339_seconds};

/// `1 mail`, `2 mails`.
pub fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}
