//! Logs: to standard error, and to files that rotate.
//!
//! The record of deliveries is in the store; logs tell what goes on. They never hold a
//! password or a message's content, at any level.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

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
    /// Files kept.
    pub keep: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { directory: None, format: Format::Text, level: LevelFilter::INFO, rotation: Rotate::Daily, keep: 14 }
    }
}

/// Keeps the log going; dropped last in `main`, it writes what still waits.
pub struct Logging {
    file: Option<(WorkerGuard, ErrorCounter)>,
}

impl Logging {
    /// Lines for the file that were dropped because it could not keep up.
    pub fn dropped_lines(&self) -> usize {
        self.file.as_ref().map_or(0, |(_, counter)| counter.dropped_lines())
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let dropped = self.dropped_lines();
        if dropped > 0 {
            tracing::warn!(dropped, "lines were dropped from the log file: it could not keep up");
        }
    }
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
    let (writer, kept) = file.map_or((None, None), |(writer, guard, counter)| (Some(writer), Some((guard, counter))));
    let console = layer(config.format, io::stderr, io::stderr().is_terminal()).with_filter(console);
    let file = writer.map(|writer| layer(config.format, writer, false).with_filter(config.level));
    // A second start in one process (tests) leaves the first in force.
    drop(tracing_subscriber::registry().with(console).with(file).try_init());
    match failure {
        Some(error) => Err(error),
        None => Ok(Logging { file: kept }),
    }
}

type BoxedLayer<S> = Box<dyn Layer<S> + Send + Sync>;

fn layer<S, W>(format: Format, writer: W, colour: bool) -> BoxedLayer<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let colour = colour && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let layer = tracing_subscriber::fmt::layer::<S>().with_writer(writer).with_ansi(colour).with_target(false);
    match format {
        Format::Text => layer.boxed(),
        Format::Json => layer.json().flatten_event(true).boxed(),
    }
}

type OpenFile = (tracing_appender::non_blocking::NonBlocking, WorkerGuard, ErrorCounter);

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
        .max_log_files(config.keep.max(1))
        .build(directory)
        .map_err(|error| named(io::Error::other(error)))?;
    // Lossy, since a stuck disk must not stop mail; what is lost is counted.
    let (writer, guard) = NonBlockingBuilder::default().lossy(true).finish(appender);
    let counter = writer.error_counter();
    Ok(Some((writer, guard, counter)))
}
