//! What the Debian package is made of: manual, completions, units, configuration.
//! `packaging/test` tries the packages themselves.

mod completion;
mod dashboard;
mod known;
mod manual;
mod units;
