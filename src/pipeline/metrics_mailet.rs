//! Mailet `MetricsMailet`: counts the mails that come by.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::mailet::Step;
use super::part::Part;
use crate::yaml::{Fields, Node, text};

/// A rule's `MetricsMailet`.
#[derive(Debug, Clone)]
pub(super) struct MetricsMailet {
    /// What is counted.
    pub(super) name: String,
    /// Clones of a configuration count together.
    count: Arc<AtomicU64>,
}

impl MetricsMailet {
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let name = fields.required("metricName", metric_name)?;
        Some(Self { name, count: Arc::default() })
    }

    pub(super) fn run(&self, part: Part) -> Vec<Step> {
        self.count.fetch_add(1, Ordering::Relaxed);
        vec![Step::Next(part)]
    }

    /// Mails counted by this process so far.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

fn metric_name(node: &Node) -> Result<String, String> {
    let name = text(node)?;
    if name.is_empty() { Err("the name of a metric is expected here".to_owned()) } else { Ok(name) }
}
