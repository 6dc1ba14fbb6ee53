//! Batch jobs: what they are, and how one run of each goes.

mod backup;
mod config;
mod directory;
mod export;
mod housekeeping;
mod purge;
mod report;
mod runner;
mod sweep;

pub use config::{Config, Known, Mailing, Reprocess};
pub use housekeeping::housekeep;
pub use runner::{Order, Runner};
pub use sweep::{Progress, Swept};
