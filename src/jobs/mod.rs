//! Batch jobs: what they are, and how one run of each goes.

mod alone;
mod backup;
mod config;
mod directory;
mod export;
mod housekeeping;
mod in_hand;
mod purge;
mod report;
mod runner;
mod sweep;

pub use alone::Gate;
pub use config::{Config, Known, Mailing, Reprocess};
pub use housekeeping::housekeep;
pub use in_hand::InHand;
pub use runner::{Order, Runner};
pub use sweep::{Progress, Swept};
