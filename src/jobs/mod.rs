//! Batch jobs: what they are, and how one run of each goes.

mod config;
mod housekeeping;
mod runner;
mod sweep;

pub use config::{Config, Known, Reprocess};
pub use housekeeping::housekeep;
pub use runner::{Order, Runner};
pub use sweep::{Progress, Sweep, Sweeper, Swept};
