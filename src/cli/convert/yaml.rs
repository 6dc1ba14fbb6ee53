//! Writing YAML that our own reader understands: what is not plain is quoted as JSON, which
//! is YAML.

use std::fmt::Write;

use super::matcher::Matcher;
use super::rule::{Entry, Processor, Rule, Value};

/// A processor with its rules as a block.
pub(super) fn processor(processor: &Processor) -> String {
    let mut text = format!("  {}:\n", scalar(&processor.name));
    for entry in &processor.entries {
        match entry {
            Entry::Rule(rule) => {
                text.extend(Some(&rule.comment).filter(|why| !why.is_empty()).map(|why| comment(why)));
                text.push_str(&block("    - ", "      ", rule));
            }
            Entry::LeftOut(left_out) => text.extend(left_out.lines.iter().map(|line| comment(line))),
        }
    }
    text
}

/// A rule as the lines of a comment.
pub(super) fn lines_of(rule: &Rule) -> Vec<String> {
    block("- ", "  ", rule).lines().map(str::to_owned).collect()
}

fn block(first: &str, next: &str, rule: &Rule) -> String {
    let (key, matcher) = match &rule.matcher {
        Matcher::Not(inner) if !inner.is_all() => ("notmatch", written(inner)),
        other => ("match", written(other)),
    };
    let mut text = format!("{first}{key}: {matcher}\n{next}mailet: {}\n", scalar(&rule.mailet));
    for (key, value) in &rule.parameters {
        let value = match value {
            Value::Text(text) => scalar(text),
            Value::Bare(text) => text.clone(),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{next}{}: {value}", scalar(key));
    }
    text
}

fn written(matcher: &Matcher) -> String {
    match matcher {
        Matcher::One(text) => scalar(text),
        Matcher::Several(name, inner) => {
            format!("{{ {name}: [{}] }}", inner.iter().map(written).collect::<Vec<_>>().join(", "))
        }
        Matcher::Not(inner) => format!("{{ Not: {} }}", written(inner)),
    }
}

fn comment(line: &str) -> String {
    format!("    # {}\n", line.replace(char::is_control, " "))
}

/// Words that YAML, or some reader of it, takes for something else than a text.
const NO_TEXT: [&str; 10] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan"];

/// A text, plain where it cannot be mistaken.
pub(super) fn scalar(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "_-./=".contains(c);
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(safe)
        && !NO_TEXT.contains(&text.to_ascii_lowercase().as_str());
    // A string of JSON is one of YAML.
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}
