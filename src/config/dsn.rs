//! `dsn:`: what senders are told, and how often.

use std::time::Duration;

use crate::mail::{Address, DsnLimits};
use crate::pipeline::notifier;
use crate::yaml::{Fields, Node, positive_duration, text};

/// Notifications at most in an hour that can be configured.
const MOST: u32 = 1_000_000;

/// What all notifications have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dsn {
    /// Whom they come from; `None` is MAILER-DAEMON at our own name.
    pub from: Option<Address>,
    /// How many there may be within an hour.
    pub limits: DsnLimits,
    /// How late a mail is when its delay is told, also to senders who say nothing of delays.
    pub delay_warning: Option<Duration>,
}

impl Dsn {
    pub(super) fn read(fields: Option<Fields<'_>>) -> Self {
        let default = Self::default();
        let Some(mut fields) = fields else { return default };
        let found = Self {
            from: fields.optional("from", notifier),
            limits: DsnLimits {
                per_sender: fields.optional("perSender", rate).unwrap_or(default.limits.per_sender),
                total: fields.optional("total", rate).unwrap_or(default.limits.total),
            },
            delay_warning: fields.optional("delayWarning", positive_duration),
        };
        fields.finish();
        found
    }
}

/// So many within an hour: `100/h`.
fn rate(node: &Node) -> Result<u32, String> {
    let written = text(node).unwrap_or_default();
    let number = written.strip_suffix("/h").and_then(|number| number.trim_end().parse().ok());
    let fits = |number: &u32| (1..=MOST).contains(number);
    number
        .filter(fits)
        .ok_or_else(|| format!("a number within an hour such as 100/h is expected here, not {}", node.described()))
}
