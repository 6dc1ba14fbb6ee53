//! `redeliver convert`: James's mailetcontainer.xml as our YAML, on standard output.
//!
//! What has no counterpart is said on standard error with its line, and stands as a comment
//! in the YAML. The result is read back as a configuration before it is called one.

mod bounce;
mod conversion;
mod delays;
mod delivery;
mod keeping;
mod mailets;
mod matcher;
mod matchers;
mod notes;
mod parameters;
mod reach;
mod retries;
mod rule;
mod template;
#[cfg(test)]
mod tests;
mod xml;
mod yaml;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;

use super::exit::{Exit, Failure};
use super::note;
use super::output::Report;
use crate::config::Smtp;
use crate::pipeline;
use crate::yaml::{Document, Fields, Reading, text};
use conversion::{Conversion, Uncertain};
use notes::Note;
use retries::Job;
use rule::Processor;
use xml::Element;

/// What James's administrators call the store of failures that are retried.
const TEMPORARY: &str = "sqlite://var/mail/error/remote-delivery/temporary/";
const PERMANENT: &str = "sqlite://var/mail/error/remote-delivery/permanent/";
const ERROR: &str = "sqlite://var/mail/error/";

/// Where a password is to be put that stood as a placeholder.
const PASSWORD_FILE: &str = "gateway.password";

/// Packages whose classes are James's own.
const JAMES: [&str; 2] = ["org.apache.james.", "org.apache.mailet."];

/// A container that was converted.
struct Converted {
    /// The configuration, with the jobs that belong to it as comments.
    yaml: String,
    /// What there is to say, in the order of the lines.
    notes: Vec<Note>,
    /// Senders were told of failures, and are no longer.
    unbounced: bool,
    /// The lines of what has no counterpart, where mail is kept that may have gone on in James.
    kept_at: BTreeSet<usize>,
    /// Where all mail would end, if none can leave.
    dead_end: Option<Note>,
}

/// Converts `file`: 0, or 65 where something that James did is not done any more, or the
/// result needs a hand.
pub(super) fn run(file: &Path, out: &mut impl Write) -> Result<Exit, Failure> {
    let wrong = |why: &dyn std::fmt::Display| Failure::new(Exit::Data, format!("{}:{why}", file.display()));
    let text = read(file)?;
    if let Some((line, word)) = template::directive(&text) {
        let why = format!("{line}: {word} belongs to a template: have it filled in, and convert what James reads");
        return Err(wrong(&why));
    }
    let top = Element::parse(&text).map_err(|error| wrong(&error))?;
    let converted = convert(&top, &file.file_name().unwrap_or_default().to_string_lossy());
    if !converted.yaml.contains("\n    - ") {
        return Err(wrong(&"1: there is no processor with a mailet in it"));
    }
    Report(out).write_all(converted.yaml.as_bytes())?;
    Ok(report(file, &converted))
}

/// Says what there is to say.
fn report(file: &Path, converted: &Converted) -> Exit {
    let say = |Note { line, text, .. }: &Note| note(&format!("{}:{line}: {text}", file.display()));
    converted.notes.iter().for_each(say);
    let refused = mistakes(converted);
    for mistake in &refused {
        note(&format!("the YAML is not right yet: {mistake}"));
    }
    if !converted.kept_at.is_empty() {
        note(&format!(
            "mail that comes to {} of the XML is kept in {ERROR}: write a matcher or mailet there that has a \
             counterpart, or delete it where mail may go on without it, and convert again",
            lines(&converted.kept_at)
        ));
    }
    if converted.unbounced {
        note("senders are no longer told of failures: watch the repositories, or a job of kind report");
    }
    let known: BTreeSet<_> = converted.notes.iter().filter(|note| note.must_be_known).map(|note| note.line).collect();
    if !known.is_empty() {
        note(&format!("James did what this configuration does not: read {} above before it is used", lines(&known)));
    }
    converted.dead_end.iter().for_each(say);
    if known.is_empty() && refused.is_empty() && converted.dead_end.is_none() { Exit::Ok } else { Exit::Data }
}

/// `line 3`, or `lines 3, 4`.
fn lines(numbers: &BTreeSet<usize>) -> String {
    let written: Vec<_> = numbers.iter().map(ToString::to_string).collect();
    format!("{} {}", if numbers.len() == 1 { "line" } else { "lines" }, written.join(", "))
}

/// Converts the container; `file` names it in the heading.
fn convert(top: &Element, file: &str) -> Converted {
    let mut uncertain = Uncertain::default();
    loop {
        let mut conversion = Conversion::of(top, &uncertain);
        if conversion.found == uncertain {
            return finish(conversion, file);
        }
        // What is uncertain makes more so.
        uncertain = std::mem::take(&mut conversion.found);
    }
}

fn finish(mut conversion: Conversion<'_>, file: &str) -> Converted {
    let first = first(&conversion.processors).to_owned();
    let jobs = retries::become_passes(&mut conversion.processors, &first, &mut conversion.notes);
    keeping::keep(&mut conversion.processors, &mut conversion.notes);
    say_where_hosted_mail_goes(&mut conversion);
    let met = reach::rules_met(&conversion.processors, &first, true);
    Converted {
        yaml: written(&conversion, &jobs, &first, file),
        unbounced: conversion.unbounced,
        kept_at: met.iter().filter(|rule| rule.stands_in).map(|rule| rule.line).collect::<BTreeSet<_>>(),
        dead_end: dead_end(&conversion, &first),
        notes: conversion.notes.into_sorted(),
    }
}

fn written(conversion: &Conversion<'_>, jobs: &[Job], first: &str, file: &str) -> String {
    let mut yaml = format!("# Converted from {file}; run redeliver check on it.\n");
    if !first.is_empty() {
        yaml.push_str(&format!("smtp: {{ processor: {} }}\n", yaml::scalar(first)));
    }
    yaml.push_str("stores:\n  sqlite: { path: redeliver.db }\n");
    yaml.extend(conversion.schemes.iter().map(|scheme| format!("  {}: sqlite\n", yaml::scalar(scheme))));
    yaml.push_str("processors:\n");
    yaml.extend(conversion.processors.iter().map(yaml::processor));
    yaml.extend((1..).zip(jobs).map(|(number, job)| job.described(number)));
    yaml
}

/// The processor at which mail comes in; empty where there is none.
fn first(processors: &[Processor]) -> &str {
    let names = || processors.iter().map(|processor| processor.name.as_str());
    ["root", "relay"].into_iter().find(|name| names().any(|one| one == *name)).or(names().next()).unwrap_or_default()
}

fn delivering(processors: &[Processor]) -> Option<&Processor> {
    processors.iter().find(|one| one.rules().any(|rule| rule.mailet == "RemoteDelivery"))
}

/// Mail for domains that James hosted now leaves like any other.
fn say_where_hosted_mail_goes(conversion: &mut Conversion<'_>) {
    let Some(line) = conversion.hosted else { return };
    let to = delivering(&conversion.processors).map_or("out".to_owned(), |one| format!("to '{}'", one.name));
    let text = format!(
        "mail for domains that James hosted now goes {to} as any other, and on to their MX: that must not be this machine"
    );
    conversion.notes.warn_at(line, text);
}

/// Where all mail ends, if none can reach a RemoteDelivery.
fn dead_end(conversion: &Conversion<'_>, first: &str) -> Option<Note> {
    let places = reach::dead_ends(&conversion.processors, first)?;
    let line = conversion.processors.iter().find(|one| one.name == first).map_or(1, |processor| processor.line);
    let what = match delivering(&conversion.processors) {
        None if conversion.delivers => "no RemoteDelivery is left",
        None => "there is no RemoteDelivery",
        Some(_) => "no mail can reach a RemoteDelivery",
    };
    // Where a processor is missing, there is none.
    let end = if places.is_empty() { "nothing that is known".to_owned() } else { places.join(", ") };
    let text = format!("{what}: all mail would end in {end}");
    Some(Note { line, text, must_be_known: true })
}

/// A class of James's without its packages; `None` for somebody else's.
fn james_name(class: &str) -> Option<&str> {
    let name = class.rsplit('.').next().unwrap_or(class);
    (name == class || JAMES.iter().any(|package| class.starts_with(package))).then_some(name)
}

fn read(file: &Path) -> Result<String, Failure> {
    let cannot = |error: std::io::Error| Failure::new(Exit::NotFound, format!("{}: {error}", file.display()));
    let mut octets = Vec::new();
    crate::files::open(file).and_then(|file| file.take(xml::MAX_BYTES + 1).read_to_end(&mut octets)).map_err(cannot)?;
    if octets.len() as u64 > xml::MAX_BYTES {
        return Err(Failure::new(Exit::Data, format!("the file is larger than {} octets", xml::MAX_BYTES)));
    }
    // UTF-16 has NULs in all that is ASCII, XML has none.
    if octets.contains(&0) {
        let text = format!(
            "{}:1: the file has NUL octets and may be UTF-16: convert it to UTF-8 first, for instance with iconv",
            file.display()
        );
        return Err(Failure::new(Exit::Data, text));
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
            let first = fields.section("smtp").and_then(|mut smtp| smtp.optional("processor", text));
            let first = first.unwrap_or_else(|| Smtp::default().processor);
            pipeline::Config::read(node, &schemes.unwrap_or_default(), &first, &reading);
        }
    }
    document.diagnostics(reading).iter().map(ToString::to_string).collect()
}
