//! The table: a line per measure, a column per number of stored failures.

use std::fmt;
use std::time::Duration;

/// A number with what it counts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value {
    /// A duration.
    Time(Duration),
    /// Octets.
    Bytes(u64),
}

/// The table so far.
pub(crate) struct Table {
    sizes: Vec<u64>,
    lines: Vec<(String, Vec<Value>)>,
}

impl Table {
    pub(crate) fn new(sizes: &[u64]) -> Self {
        Self { sizes: sizes.to_vec(), lines: Vec::new() }
    }

    /// Adds the next size's value of a measure.
    pub(crate) fn add(&mut self, measure: &str, value: Value) {
        eprintln!("  {measure}: {value}");
        match self.lines.iter_mut().find(|(name, _)| name == measure) {
            Some((_, values)) => values.push(value),
            None => self.lines.push((measure.to_owned(), vec![value])),
        }
    }
}

impl Value {
    fn number(self) -> f64 {
        match self {
            Self::Time(time) => time.as_secs_f64(),
            #[expect(clippy::cast_precision_loss, reason = "it is shown to three digits")]
            Self::Bytes(bytes) => bytes as f64,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.number();
        let text = match self {
            Self::Time(_) if number >= 1.0 => format!("{number:.1} s"),
            Self::Time(_) => format!("{:.2} ms", number * 1e3),
            Self::Bytes(_) => format!("{:.1} MB", number / 1e6),
        };
        f.pad(&text)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        write!(f, "{:<width$}", "stored failures")?;
        for size in &self.sizes {
            write!(f, "  {size:>12}")?;
        }
        writeln!(f, "  last : first")?;
        for (name, values) in &self.lines {
            write!(f, "{name:<width$}")?;
            for value in values {
                write!(f, "  {value:>12}")?;
            }
            match (values.first(), values.last()) {
                (Some(first), Some(last)) if first.number() > 0.0 => {
                    writeln!(f, "  {:>12.2}", last.number() / first.number())?;
                }
                _ => writeln!(f)?,
            }
        }
        Ok(())
    }
}
