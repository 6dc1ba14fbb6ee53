//! Writing YAML that our own reader understands: what is not plain is quoted as JSON, which
//! is YAML.

use std::fmt::Write;

/// A value of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A text, quoted where it must be.
    Text(String),
    /// `true`, `false` or a number, as it stands.
    Bare(String),
    /// A composite matcher.
    Matcher(Matcher),
}

/// A matcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Matcher {
    /// `Name` or `Name=condition`.
    One(String),
    /// And, Or or Xor of several.
    Several(&'static str, Vec<Matcher>),
    /// Not of one.
    Not(Box<Matcher>),
}

/// A processor's rules, each a list of keys and values.
pub(super) type Rule = Vec<(String, Value)>;

impl Value {
    /// A value as James has it: `TRUE` is `true`, digits are a number.
    pub(super) fn of(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            word @ ("true" | "false") => Self::Bare(word.to_owned()),
            _ if (1..=15).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_digit()) => {
                Self::Bare(text.to_owned())
            }
            _ => Self::Text(text.to_owned()),
        }
    }

    fn written(&self) -> String {
        match self {
            Self::Text(text) => scalar(text),
            Self::Bare(text) => text.clone(),
            Self::Matcher(matcher) => matcher.written(),
        }
    }
}

impl Matcher {
    pub(super) fn value(self) -> Value {
        match self {
            Self::One(text) => Value::Text(text),
            other => Value::Matcher(other),
        }
    }

    fn written(&self) -> String {
        match self {
            Self::One(text) => scalar(text),
            Self::Several(name, inner) => {
                let inner: Vec<_> = inner.iter().map(Self::written).collect();
                format!("{{ {name}: [{}] }}", inner.join(", "))
            }
            Self::Not(inner) => format!("{{ Not: {} }}", inner.written()),
        }
    }
}

/// A processor with its rules as a block.
pub(super) fn processor(name: &str, rules: &[Rule]) -> String {
    let mut text = format!("  {}:\n", scalar(name));
    for rule in rules {
        for (number, (key, value)) in rule.iter().enumerate() {
            let lead = if number == 0 { "    - " } else { "      " };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{lead}{}: {}", scalar(key), value.written());
        }
    }
    text
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
