//! `redeliver explain`: where mail for a recipient would go, and why. Opens neither the
//! store nor a connection to any mail server.

use std::io::Write;
use std::sync::Arc;

use serde_json::json;

use super::args::Format;
use super::exit::{Exit, Failure};
use super::table;
use crate::clock::Clock;
use crate::config::Config;
use crate::delivery::{Delivery, Explanation, RoutedBy, Stop};
use crate::mail::Address;
use crate::parts;

pub(super) async fn run(
    config: &Config,
    clock: &Clock,
    recipient: &str,
    format: Format,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let recipient = Address::parse(recipient).map_err(|error| Failure::new(Exit::Data, error.to_string()))?;
    let network = parts::network(config, clock, &Stop::default(), None)?;
    for settings in config.processors.deliveries() {
        let outgoing = settings.outgoing.clone();
        let delivery = Delivery::new(settings.clone(), Arc::clone(&network))
            .map_err(|message| Failure::new(Exit::Configuration, message))?;
        let explanation = delivery.explain(&recipient).await;
        match format {
            Format::Json => {
                let mut object = json!(explanation);
                object["outgoing"] = outgoing.into();
                writeln!(out, "{object}")?;
            }
            Format::Text => write!(out, "{}", picture(&outgoing, &explanation))?,
        }
    }
    Ok(Exit::Ok)
}

fn picture(outgoing: &str, explanation: &Explanation) -> String {
    let by = match explanation.routed_by {
        RoutedBy::Gateway => "the configured gateways",
        RoutedBy::Literal => "its address literal",
        RoutedBy::Mx => "the DNS",
    };
    let mut lines = vec![
        ("recipient", explanation.recipient.to_string()),
        ("outgoing", outgoing.to_owned()),
        ("next hop", format!("{}, by {by}", explanation.next_hop)),
    ];
    for host in &explanation.hosts {
        let down = host.down.as_ref().map_or(String::new(), |why| format!(", down: {why}"));
        let preference = host.preference.map_or(String::new(), |preference| format!(", preference {preference}"));
        lines.push(("host", format!("{} ({}:{}){preference}{down}", host.host, host.address, host.port)));
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
    lines.iter().map(|(name, value)| format!("{name:<10} {}\n", table::one_line(value))).collect()
}
