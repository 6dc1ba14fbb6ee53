//! Mailets `SetMailAttribute` and `RemoveMailAttribute`.

use super::mailet::Step;
use super::part::Part;
use crate::mail::AttributeValue;
use crate::yaml::{Fields, Node, Value, text};

/// A rule's `SetMailAttribute`: every key beside the rule's own is an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SetMailAttribute(Vec<(String, String)>);

impl SetMailAttribute {
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let reading = fields.reading();
        let rest = fields.rest();
        if rest.is_empty() {
            reading.problem(fields.place(), "SetMailAttribute needs at least one attribute: write 'name: value'");
        }
        let pairs = rest.into_iter().map(|entry| Some((entry.key.clone(), reading.value(&entry.value, text)?)));
        pairs.collect::<Option<_>>().map(Self)
    }

    /// The attributes that it sets.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    pub(super) fn run(&self, mut part: Part) -> Vec<Step> {
        for (name, value) in &self.0 {
            part.mail.attributes.set(name, AttributeValue::Text(value.clone()));
        }
        vec![Step::Next(part)]
    }
}

/// A rule's `RemoveMailAttribute`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoveMailAttribute(Vec<String>);

impl RemoveMailAttribute {
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        fields.required("name", names).map(Self)
    }

    /// The attributes that it removes.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    pub(super) fn run(&self, mut part: Part) -> Vec<Step> {
        for name in &self.0 {
            part.mail.attributes.remove(name);
        }
        vec![Step::Next(part)]
    }
}

/// A list, or names between commas as James has them.
fn names(node: &Node) -> Result<Vec<String>, String> {
    match &node.value {
        Value::Sequence(items) => items.iter().map(text).collect(),
        _ => Ok(text(node)?.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()),
    }
}
