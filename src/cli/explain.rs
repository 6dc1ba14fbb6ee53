//! `redeliver explain`: where mail for a recipient would go, and why. Opens neither the
//! store nor a connection to any mail server; a service that runs is asked what it remembers.

use std::io::Write;

use serde_json::json;

use super::args::Format;
use super::exit::{Exit, Failure};
use super::json_lines;

use crate::clock::Clock;
use crate::config::Config;
use crate::delivery::{Explanation, RoutedBy};
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
    let by = match explanation.routed_by {
        RoutedBy::Gateway => "the configured gateways",
        RoutedBy::Literal => "its address literal",
        RoutedBy::Mx => "the DNS",
    };
    let mut lines = vec![
        ("recipient", explanation.recipient.to_string()),
        ("outgoing", explanation.outgoing.clone()),
        ("next hop", format!("{}, by {by}", explanation.next_hop)),
    ];
    for host in &explanation.hosts {
        let down = host.down.as_ref().map_or(String::new(), |why| format!(", down: {why}"));
        let preference = host.preference.map_or(String::new(), |preference| format!(", preference {preference}"));
        lines.push(("host", format!("{} ({}){preference}{down}", host.host, host.socket_address())));
    }
    if explanation.shuffled {
        lines.push(("order", "hosts of equal rank are drawn anew for each attempt".to_owned()));
    }
    lines.extend(explanation.left_out.iter().map(|reason| ("left out", reason.clone())));
    if let Some(outcome) = explanation.outcome {
        let enhanced = explanation.enhanced.as_ref().map_or(String::new(), |status| format!(" {status}"));
        lines.push(("outcome", format!("{outcome}{enhanced} without contact")));
    }
    lines.extend(explanation.cause.iter().map(|cause| ("because", cause.clone())));
    lines.push(("TLS", explanation.tls.clone()));
    lines.push(("AUTH", explanation.auth.clone()));
    lines.push(("EHLO", explanation.helo_name.clone()));
    if explanation.needs_smtputf8 {
        lines.push(("needs", "SMTPUTF8 at the peer".to_owned()));
    }
    lines.iter().map(|(name, value)| format!("{name:<10} {}\n", text::one_line(value))).collect()
}
