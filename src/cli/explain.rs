//! `redeliver explain`: where mail for a recipient would go, and why. Opens neither the
//! store nor a connection to any mail server; a service that runs is asked what it remembers.

use std::io::Write;

use serde_json::json;

use super::args::Format;
use super::exit::{Exit, Failure};
use super::json_lines;

use crate::clock::Clock;
use crate::config::Config;
use crate::delivery::Explanation;
use crate::ingest::{self, Invocation, Mode};
use crate::mail::Address;
use crate::parts::{self, submission};
use crate::stop::Stop;
use crate::text::{self};

pub(super) async fn run(
    config: &Config,
    clock: &Clock,
    recipient: &str,
    format: Format,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let recipient = Address::parse(recipient).map_err(|error| Failure::new(Exit::Data, error.to_string()))?;
    explain(config, clock, &[recipient], format, out).await
}

pub(super) async fn explain(
    config: &Config,
    clock: &Clock,
    recipients: &[Address],
    format: Format,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    for explanation in explanations(config, clock, recipients).await? {
        match format {
            Format::Json => json_lines::write(out, &json!(explanation))?,
            Format::Text => write!(out, "{}", picture(&explanation))?,
        }
    }
    Ok(Exit::Ok)
}

/// What a running service says, which remembers who is down; without one, what the
/// configuration and the DNS say.
async fn explanations(config: &Config, clock: &Clock, recipients: &[Address]) -> Result<Vec<Explanation>, Failure> {
    let question = Invocation {
        mode: Mode::Verify,
        recipients: recipients.iter().map(ToString::to_string).collect(),
        ..Invocation::default()
    };
    match ingest::ask::<Vec<Explanation>>(&submission::socket(Some(config)), &question).await {
        Ok(explained) if !explained.is_empty() => return Ok(explained),
        // Nobody is there, or does not tell us.
        _ => {}
    }
    let network = parts::network(config, clock, &Stop::default(), None);
    Ok(parts::pipeline(config, &network)?.explain(recipients).await)
}

fn picture(explanation: &Explanation) -> String {
    explanation.lines().iter().map(|(name, value)| format!("{name:<10} {}\n", text::one_line(value))).collect()
}
