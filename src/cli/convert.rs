//! `redeliver convert`: James's mailetcontainer.xml as our YAML, on standard output.
//!
//! What has no counterpart is said on standard error with its line. The result is read back
//! as a configuration before it is called one.

mod container;
mod delays;
mod xml;
mod yaml;

use std::io::{Read, Write};
use std::path::Path;

use super::exit::{Exit, Failure};
use super::note;
use crate::pipeline;
use crate::yaml::{Document, Fields, Reading};
use container::Converted;
use xml::Element;

/// Converts `file`: 0, or 65 where senders are no longer told or the result needs a hand.
pub(super) fn run(file: &Path, out: &mut impl Write) -> Result<Exit, Failure> {
    let wrong = |why: &dyn std::fmt::Display| Failure::new(Exit::Data, format!("{}:{why}", file.display()));
    let text = read(file)?;
    let top = Element::parse(&text).map_err(|error| wrong(&error))?;
    let converted = container::convert(&top, &file.file_name().unwrap_or_default().to_string_lossy());
    if !converted.yaml.contains("\n    - ") {
        return Err(wrong(&"1: there is no processor with a mailet in it"));
    }
    out.write_all(converted.yaml.as_bytes())?;
    for (line, text) in &converted.notes {
        note(&format!("{}:{line}: {text}", file.display()));
    }
    let refused = mistakes(&converted);
    for mistake in &refused {
        note(&format!("the YAML is not right yet: {mistake}"));
    }
    if converted.unbounced {
        note("senders are no longer told of failures: watch the repositories, or a job of kind report");
    }
    Ok(if converted.unbounced || !refused.is_empty() { Exit::Data } else { Exit::Ok })
}

fn read(file: &Path) -> Result<String, Failure> {
    let cannot = |error: std::io::Error| Failure::new(Exit::NotFound, format!("{}: {error}", file.display()));
    let mut octets = Vec::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(xml::MAX_BYTES + 1).read_to_end(&mut octets))
        .map_err(cannot)?;
    if octets.len() as u64 > xml::MAX_BYTES {
        return Err(Failure::new(Exit::Data, format!("the file is larger than {} octets", xml::MAX_BYTES)));
    }
    String::from_utf8(octets).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].split(|&octet| octet == b'\n').count();
        let place = format!("{}:{line}", file.display());
        Failure::new(Exit::Data, format!("{place}: the file is not UTF-8: convert it first, for instance with iconv"))
    })
}

/// What `check` would say of the processors.
fn mistakes(converted: &Converted) -> Vec<String> {
    let path = Path::new("redeliver.yaml");
    let document = match Document::parse(path, converted.yaml.as_bytes()) {
        Ok(document) => document,
        Err(error) => return vec![error.to_string()],
    };
    let reading = Reading::new(path);
    if let Some(mut fields) = Fields::of(document.root(), "the configuration", &reading) {
        let schemes = fields.section("stores").map(|stores| stores.names().map(str::to_owned).collect());
        if let Some(node) = fields.node("processors") {
            pipeline::Config::read(node, &schemes.unwrap_or_default(), &reading);
        }
    }
    document.diagnostics(reading).iter().map(ToString::to_string).collect()
}
