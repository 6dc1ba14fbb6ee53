//! An outbound mail relay built as a scheduler-driven batch job runner.
//!
//! Each mail is tried once per pass; what fails is kept, message and all, in mail
//! repositories. ARCHITECTURE.md walks a mail through the rooms below.

pub mod admin;
pub mod audit;
pub mod cli;
pub mod clients;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod dkim;
pub mod files;
pub mod health;
pub mod ingest;
pub mod jobs;
pub mod live;
pub mod logging;
pub mod mail;
pub mod metrics;
pub mod operations;
pub mod panics;
pub mod parts;
pub mod pipeline;
pub mod schedule;
pub mod serve;
pub mod smtp;
pub mod spool;
pub mod stop;
pub mod store;
pub mod tasks;
pub mod text;
pub mod yaml;
