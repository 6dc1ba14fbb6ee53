//! The `redeliver` program: everything is in the library, so that tests can call it.

use std::process::ExitCode;

fn main() -> ExitCode {
    redeliver::cli::main(std::env::args_os().collect())
}
