//! Logs: to standard error, and to files that rotate.
//!
//! The record of deliveries is in the store; logs tell what goes on. They never hold a
//! password or a message's content, at any level.

mod one_line;

use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use one_line::OneLine;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// When a new file is begun; always in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rotate {
    /// Every hour.
    Hourly,
    /// Every day.
    #[default]
    Daily,
    /// One file for ever.
    Never,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Files go here as well; made where it is missing.
    pub directory: Option<PathBuf>,
    /// How they are written.
    pub format: Format,
    /// The least level that is written.
    pub level: LevelFilter,
    /// When a new file is begun.
    pub rotation: Rotate,
    /// Files kept, the current one among them.
    pub keep: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { directory: None, format: Format::Text, level: LevelFilter::INFO, rotation: Rotate::Daily, keep: 14 }
    }
}

/// Keeps the log going; dropped last in `main`, it writes what still waits.
pub struct Logging {
    /// After [`Drop::drop`] has had its say.
    _file: Option<WorkerGuard>,
    lost: LostLines,
}

impl Logging {
    /// The count of lines that the file lost, for who tells of them while the program runs.
    pub fn lost_lines(&self) -> LostLines {
        self.lost.clone()
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.lost.tell();
    }
}

/// Lines for the log file that are not in it.
#[derive(Clone, Default)]
pub struct LostLines {
    /// Dropped since they came faster than they could be written.
    dropped: Option<ErrorCounter>,
    /// Refused by the file system.
    unwritten: Arc<AtomicUsize>,
    told: Arc<AtomicUsize>,
}

impl LostLines {
    /// How many there are.
    pub fn count(&self) -> usize {
        let dropped = self.dropped.as_ref().map_or(0, ErrorCounter::dropped_lines);
        dropped + self.unwritten.load(Ordering::Relaxed)
    }

    /// Tells of those that were not told of yet.
    pub fn tell(&self) {
        let count = self.count();
        let lost = count.saturating_sub(self.told.swap(count, Ordering::Relaxed));
        if lost > 0 {
            tracing::warn!(lost, "{lost} lines are missing in the log file: it could not keep up, or not be written");
        }
    }
}

/// A file that counts what cannot be written, since nobody else does.
struct Counting<W> {
    file: W,
    unwritten: Arc<AtomicUsize>,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if self.file.write_all(octets).is_err() {
            self.unwritten.fetch_add(1, Ordering::Relaxed);
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Has panics logged, one line each: the standard hook writes several, to one place only.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        tracing::error!(place, thread, "panic, a fault of redeliver: {}", words_of(panic));
    }));
}

fn words_of<'a>(panic: &'a PanicHookInfo<'_>) -> &'a str {
    panic.payload_as_str().unwrap_or_default()
}

/// Begins to log. `console` is the least level for standard error.
///
/// # Errors
/// Where the directory cannot be made or written; standard error works all the same.
pub fn start(config: &Config, console: LevelFilter) -> io::Result<Logging> {
    let (file, failure) = match open_file(config) {
        Ok(file) => (file, None),
        Err(error) => (None, Some(error)),
    };
    let (writer, guard, lost) =
        file.map_or((None, None, LostLines::default()), |(writer, guard, lost)| (Some(writer), Some(guard), lost));
    let console = layer(config.format, io::stderr, io::stderr().is_terminal()).with_filter(least(console));
    let file = writer.map(|writer| layer(config.format, writer, false).with_filter(least(config.level)));
    // A second start in one process (tests) leaves the first in force.
    drop(tracing_subscriber::registry().with(console).with(file).try_init());
    match failure {
        Some(error) => Err(error),
        None => Ok(Logging { _file: guard, lost }),
    }
}

/// Ours from this level on; of the scheduler's crate only what an operator can use.
fn least(level: LevelFilter) -> Targets {
    Targets::new().with_default(level).with_target("tokio_cron_scheduler", level.min(LevelFilter::WARN))
}

type BoxedLayer<S> = Box<dyn Layer<S> + Send + Sync>;

fn layer<S, W>(format: Format, writer: W, colour: bool) -> BoxedLayer<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let colour = colour && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let writer = OneLine { writer, colour };
    let layer = tracing_subscriber::fmt::layer::<S>().with_writer(writer).with_ansi(colour).with_target(false);
    match format {
        Format::Text => layer.boxed(),
        Format::Json => layer.json().flatten_event(true).boxed(),
    }
}

/// Removes the oldest files of the log beyond those that are kept, by the times in their names.
/// The appender would do it before it opens another, and at each start take the current one
/// for one of the others. The one that was written last stays, whatever a clock has called it.
///
/// # Errors
/// Where the directory cannot be read.
pub fn remove_old(config: &Config) -> io::Result<()> {
    let Some(directory) = &config.directory else { return Ok(()) };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        if is_log && name.to_string_lossy().starts_with("redeliver.") {
            files.push((path, entry.metadata().and_then(|metadata| metadata.modified()).ok()));
        }
    }
    files.sort();
    let last = files.iter().filter_map(|(_, modified)| *modified).max();
    files.truncate(files.len().saturating_sub(config.keep));
    for (path, _) in files.into_iter().filter(|(_, modified)| *modified != last) {
        // Another process may have been faster; the next start tries again.
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

type OpenFile = (tracing_appender::non_blocking::NonBlocking, WorkerGuard, LostLines);

fn open_file(config: &Config) -> io::Result<Option<OpenFile>> {
    use std::os::unix::fs::DirBuilderExt;

    let Some(directory) = &config.directory else { return Ok(None) };
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("log.directory {}: {error}", directory.display()));
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(directory).map_err(named)?;
    let rotation = match config.rotation {
        Rotate::Hourly => Rotation::HOURLY,
        Rotate::Daily => Rotation::DAILY,
        Rotate::Never => Rotation::NEVER,
    };
    let appender = RollingFileAppender::builder()
        .rotation(rotation)
        .filename_prefix("redeliver")
        .filename_suffix("log")
        .build(directory)
        .map_err(|error| named(io::Error::other(error)))?;
    remove_old(config).map_err(named)?;
    // Lossy, since a stuck disk must not stop mail; what is lost is counted.
    let unwritten = Arc::new(AtomicUsize::new(0));
    let file = Counting { file: appender, unwritten: Arc::clone(&unwritten) };
    let (writer, guard) = NonBlockingBuilder::default().lossy(true).finish(file);
    let lost = LostLines { dropped: Some(writer.error_counter()), unwritten, told: Arc::default() };
    Ok(Some((writer, guard, lost)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_are_kept_as_it_says_and_others_are_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = Config { directory: Some(directory.path().to_owned()), keep: 2, ..Config::default() };
        let names = [
            "redeliver.2026-01-04.log",
            "redeliver.2026-01-03.log",
            "redeliver.2026-01-01.log",
            "redeliver.2026-01-02.log",
            "notes.log",
        ];
        for (age, name) in names.iter().enumerate() {
            let file = std::fs::File::create(directory.path().join(name)).expect("made");
            let modified = std::time::UNIX_EPOCH + std::time::Duration::from_secs(age as u64);
            file.set_modified(modified).expect("set");
        }
        remove_old(&config).expect("removed");
        let there: Vec<_> = names.into_iter().filter(|name| directory.path().join(name).exists()).collect();
        let kept = ["redeliver.2026-01-04.log", "redeliver.2026-01-03.log", "redeliver.2026-01-02.log", "notes.log"];
        assert_eq!(there, kept, "the youngest two by name, and the one that was written last");
    }

    #[test]
    fn lines_that_come_too_fast_are_dropped_and_counted() {
        let (stuck, file) = io::pipe().expect("a pipe");
        let (mut writer, guard) = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(1).finish(file);
        let lost = LostLines { dropped: Some(writer.error_counter()), ..LostLines::default() };
        for _ in 0..2000 {
            writer.write_all(&[b'x'; 1000]).expect("nobody waits for it");
        }
        assert!(lost.count() > 1000, "{}", lost.count());
        drop((stuck, guard));
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_told_of_once() {
        let lost = LostLines::default();
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("it is there");
        let mut file = Counting { file: full, unwritten: Arc::clone(&lost.unwritten) };
        for _ in 0..3 {
            assert_eq!(file.write(b"line\n").expect("nobody is stopped by it"), 5);
        }
        lost.tell();
        assert_eq!((lost.count(), lost.told.load(Ordering::Relaxed)), (3, 3));
    }
}
