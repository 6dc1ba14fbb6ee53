//! What a shell can complete: commands and options, and the names that the configuration has.
//!
//! The shell's script, which `packaging/build` takes from here, calls the program with the
//! line so far. A configuration that cannot be read has no names: that is no matter here.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::Command;
use clap::{Arg, CommandFactory};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};

use super::args::Arguments;
use crate::config::{self, Config, Search};

/// Set to the name of a shell, it asks for completions.
const VARIABLE: &str = "REDELIVER_COMPLETE";

/// Answers a shell. `false` where none asked.
pub(super) fn answered(arguments: &[OsString]) -> Result<bool, clap::Error> {
    let config = option_config(arguments);
    let environment = CompleteEnv::with_factory(|| with_names(Arguments::command(), config.as_ref()));
    let here = std::env::current_dir().ok();
    environment.var(VARIABLE).completer("redeliver").try_complete(arguments, here.as_deref())
}

/// The file that the line names; the words of the line stand behind a `--`.
fn option_config(arguments: &[OsString]) -> Option<PathBuf> {
    let mut words = arguments.iter();
    while let Some(word) = words.next().and_then(|word| word.to_str()) {
        if word == "--config" {
            return words.next().map(PathBuf::from);
        }
        if let Some(file) = word.strip_prefix("--config=") {
            return Some(file.into());
        }
    }
    None
}

/// Arguments are known by their names, wherever they stand.
fn with_names(command: Command, file: Option<&PathBuf>) -> Command {
    let named = command.mut_args(|argument| with_candidates(argument, file));
    named.mut_subcommands(|inner| with_names(inner, file))
}

fn with_candidates(argument: Arg, file: Option<&PathBuf>) -> Arg {
    let names: fn(&Config) -> Vec<String> = match argument.get_id().as_str() {
        "job" => |config| config.jobs.keys().cloned().collect(),
        "schedule" => |config| config.schedules.keys().cloned().collect(),
        "repository" => repositories,
        // Import's --to is a list of addresses.
        "to" if !matches!(argument.get_action(), clap::ArgAction::Append) => repositories,
        "processor" => |config| config.processors.processors().map(str::to_owned).collect(),
        _ => return argument,
    };
    let file = file.cloned();
    let candidates = move || read(file.clone()).map(|config| names(&config)).unwrap_or_default();
    argument.add(ArgValueCandidates::new(move || candidates().into_iter().map(CompletionCandidate::new).collect()))
}

fn read(file: Option<PathBuf>) -> Option<Config> {
    let source = Search::new(file, std::env::var_os("REDELIVER_CONFIG"), false).find().ok()?;
    config::load(&source).ok()
}

/// By their paths, and by their last segments where these are unique.
fn repositories(config: &Config) -> Vec<String> {
    let paths: Vec<_> = config.repositories().iter().map(ToString::to_string).collect();
    let mut short = BTreeMap::<&str, u32>::new();
    for path in &paths {
        *short.entry(path.rsplit('/').next().unwrap_or(path)).or_default() += 1;
    }
    let unique: Vec<_> = short.into_iter().filter(|(_, count)| *count == 1).map(|(name, _)| name.to_owned()).collect();
    unique.into_iter().chain(paths).collect()
}
