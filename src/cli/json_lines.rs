//! Answers for scripts: one JSON object to a line.

use std::io::{self, Write};

use serde_json::Value;

use crate::text::escaped;

/// Writes an object. JSON lets characters stand that steer a terminal, and people look at
/// it there; escaped they are the same to a script.
pub(super) fn write(out: &mut impl Write, object: &Value) -> io::Result<()> {
    writeln!(out, "{}", escaped(&object.to_string(), false))
}
