//! Commands with the time and the memory they took.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

use super::Outcome;

/// The word by which this program asks itself to run one command and tell of it. The
/// kernel tells the memory of all children together, so that each command gets a parent
/// of its own.
pub(crate) const CHILD: &str = "--run-one-command";

/// What a command took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) time: Duration,
    pub(crate) memory: u64,
    pub(crate) code: i32,
}

/// Runs a command, whatever its exit code, with its output thrown away.
pub(crate) fn run(program: &Path, directory: &Path, arguments: &[&str]) -> Outcome<Taken> {
    let output = Command::new(std::env::current_exe()?)
        .arg(CHILD)
        .arg(program)
        .args(arguments)
        .current_dir(directory)
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut words = text.split_whitespace();
    let mut next = || words.next().ok_or_else(|| io::Error::other(format!("no answer for {arguments:?}: {text}")));
    let (time, memory, code) = (next()?.parse()?, next()?.parse::<u64>()?, next()?.parse()?);
    Ok(Taken { time: Duration::from_micros(time), memory: memory * 1024, code })
}

/// As asked by [`run`]: microseconds, KiB and exit code of one command.
pub(crate) fn as_child(words: &[String]) -> ExitCode {
    let started = Instant::now();
    let status = Command::new(&words[0]).args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).status();
    let time = started.elapsed();
    match (status, getrusage(UsageWho::RUSAGE_CHILDREN)) {
        (Ok(status), Ok(usage)) => {
            println!("{} {} {}", time.as_micros(), usage.max_rss(), status.code().unwrap_or(-1));
            ExitCode::SUCCESS
        }
        _ => ExitCode::FAILURE,
    }
}

/// The median of the times that `work` takes.
pub(crate) fn median(times: usize, mut work: impl FnMut() -> Outcome<Duration>) -> Outcome<Duration> {
    let mut taken = (0..times).map(|_| work()).collect::<Outcome<Vec<_>>>()?;
    taken.sort_unstable();
    Ok(taken[taken.len() / 2])
}

/// The program that is asked for, or else built beside this one, in the same profile.
pub(crate) fn build() -> Outcome<PathBuf> {
    if let Some(program) = std::env::var_os("REDELIVER") {
        return Ok(program.into());
    }
    let examples = std::env::current_exe()?;
    let profile = examples.parent().and_then(Path::parent).ok_or("this program lies in no target directory")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--bin", "redeliver"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile.ends_with("release") {
        build.arg("--release");
    }
    if build.status()?.success() { Ok(profile.join("redeliver")) } else { Err("the program could not be built".into()) }
}
