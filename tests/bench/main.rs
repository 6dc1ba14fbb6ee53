//! What many stored failures cost: each number of the table is measured with 0, 10 000 and
//! 1 million of them, in one run, so that the ratios say what grows and what does not.
//!
//! `cargo run --release --example scale [busy] [NUMBER...]`, with other numbers of stored failures if
//! wanted. A million takes some ten minutes and 5 GB in the directory for temporary files. `busy`
//! measures a service while something is done to all of them. REDELIVER names another program.

#[path = "../it/support/sink/mod.rs"]
mod sink;

mod busy;
mod fill;
mod measure;
mod pages;
mod site;
mod table;

use std::error::Error;
use std::process::ExitCode;

use table::Table;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == measure::CHILD) {
        return measure::as_child(&arguments[1..]);
    }
    match bench(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &[String]) -> Outcome<()> {
    let is_busy = arguments.first().is_some_and(|first| first == "busy");
    let mut sizes =
        arguments[usize::from(is_busy)..].iter().map(|text| text.parse()).collect::<Result<Vec<u64>, _>>()?;
    if sizes.is_empty() {
        sizes = vec![0, 10_000, 1_000_000];
    }
    let program = measure::build()?;
    let mut table = Table::new(&sizes);
    for &size in &sizes {
        eprintln!("{size} stored failures: filling");
        if is_busy {
            busy::measure(&site::Site::filled(&program, size, busy::PURGED)?, &mut table)?;
        } else {
            site::Site::filled(&program, size, site::PURGED)?.measure(&mut table)?;
        }
    }
    print!("{table}");
    Ok(())
}
