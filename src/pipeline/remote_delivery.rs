//! Mailet `RemoteDelivery`: one attempt, and its outcomes sorted.
//!
//! Delivered recipients are done; deferred ones go on as one part, failed ones as another,
//! both to the `bounceProcessor`, with attributes that say what happened.

use std::collections::HashMap;
use std::net::IpAddr;

use async_trait::async_trait;

use super::config::Known;
use super::mailet::{Ended, Step};
use super::part::Part;
use super::{Checkpoint, End, Pass};
use crate::delivery::{self, Attempted, Credentials, Explanation, Gateway, NotBegun, Request, Secret, Sink, StartTls};
use crate::mail::{Address, Attributes, DialogueEntry, Domain, Outcome, Planned, Recorded, Stage, attribute};
use crate::yaml::{Fields, Node, Value, boolean, integer, milliseconds, positive_duration, text};

/// What makes attempts: the room `delivery`, or in tests a script.
#[async_trait]
pub trait Deliver: Send + Sync {
    /// Tries every recipient of the request once; see [`Attempted`].
    async fn attempt(&self, request: Request, sink: &dyn Sink) -> Attempted;

    /// What an attempt for `recipient` would do, for who can say.
    async fn explain(&self, _recipient: &Address) -> Option<Explanation> {
        None
    }

    /// How many attempts wait for a connection.
    fn waiting(&self) -> usize {
        0
    }

    /// Ends what is kept open for further mails; not for long.
    async fn close(&self) {}
}

#[async_trait]
impl Deliver for delivery::Delivery {
    async fn attempt(&self, request: Request, sink: &dyn Sink) -> Attempted {
        // Its own method, not this one.
        delivery::Delivery::attempt(self, request, sink).await
    }

    async fn explain(&self, recipient: &Address) -> Option<Explanation> {
        Some(delivery::Delivery::explain(self, recipient).await)
    }

    fn waiting(&self) -> usize {
        delivery::Delivery::waiting(self)
    }

    async fn close(&self) {
        delivery::Delivery::close(self).await;
    }
}

/// A rule's `RemoteDelivery`.
#[derive(Debug, Clone)]
pub(super) struct RemoteDelivery {
    /// How an attempt is made.
    pub(super) delivery: delivery::Config,
    /// The processor that takes what is deferred or failed.
    pub(super) bounce_processor: String,
    /// Its place among all of the configuration, from 0.
    pub(super) number: usize,
}

impl RemoteDelivery {
    pub(super) fn read(fields: &mut Fields<'_>, known: &Known<'_>) -> Option<Self> {
        refuse_retries(fields);
        let bounce_processor = fields.required("bounceProcessor", |node| known.processor(node));
        let mut config = delivery::Config::default();
        read_outgoing(fields, &mut config);
        read_gateways(fields, &mut config);
        read_connection(fields, &mut config);
        read_tls(fields, &mut config);
        read_limits(fields, &mut config);
        Some(Self { delivery: config, bounce_processor: bounce_processor?, number: 0 })
    }

    pub(super) async fn run(&self, mut part: Part, pass: &Pass<'_>) -> Vec<Step> {
        if std::mem::take(&mut part.trail.on_record) {
            return vec![Step::Go(part, self.bounce_processor.clone())];
        }
        let sink = Journal { checkpoint: pass.checkpoint, attributes: part.mail.attributes.clone() };
        match pass.deliver(self.number).attempt(request(&part, pass), &sink).await {
            Attempted::Done(recorded) => self.sort(&part, recorded, pass),
            Attempted::OwnTrouble(uncounted, cause) => {
                vec![Step::End(Ended { part, end: End::Stay(Some(cause)), uncounted })]
            }
            Attempted::Stopped => vec![Step::End(Ended::new(part, End::Stay(None)))],
        }
    }

    fn sort(&self, part: &Part, recorded: Vec<Recorded>, pass: &Pass<'_>) -> Vec<Step> {
        let mut outcomes: HashMap<_, _> =
            recorded.into_iter().map(|recorded| (recorded.recipient.mailbox(), recorded)).collect();
        let outcomes: Vec<_> = part
            .mail
            .envelope
            .recipients
            .iter()
            .map(|recipient| outcomes.remove(&recipient.mailbox()).unwrap_or_else(|| unreported(recipient, pass)))
            .collect();
        let mut steps = Vec::new();
        for outcome in [Outcome::Delivered, Outcome::Deferred, Outcome::Failed] {
            let those: Vec<_> = outcomes.iter().filter(|one| one.outcome == outcome).cloned().collect();
            if !those.is_empty() {
                steps.push(self.step(part, outcome, &those));
            }
        }
        steps
    }

    fn step(&self, whole: &Part, outcome: Outcome, recorded: &[Recorded]) -> Step {
        let recipients = recorded.iter().map(|one| one.recipient.clone()).collect();
        let mut part = whole.clone().only(recipients);
        part.attempted(outcome, recorded);
        match outcome {
            Outcome::Delivered => Step::End(Ended::new(part, End::Delivered)),
            Outcome::Deferred | Outcome::Failed => {
                if recorded.iter().any(delivery::is_dns_problem) {
                    part.mail.attributes.increment(attribute::DNS_PROBLEMS);
                }
                Step::Go(part, self.bounce_processor.clone())
            }
        }
    }
}

/// An attempt that ended without a word on a recipient is trouble nobody foresaw: deferred.
fn unreported(recipient: &Address, pass: &Pass<'_>) -> Recorded {
    let cause = "the attempt ended without an outcome for this recipient".to_owned();
    Recorded::without_contact(recipient.clone(), Outcome::Deferred, Stage::Dns, cause, pass.now)
}

fn request(part: &Part, pass: &Pass<'_>) -> Request {
    let mail = &part.mail;
    let dns_problems = mail.attributes.integer(attribute::DNS_PROBLEMS).unwrap_or(0);
    Request {
        key: mail.key.clone(),
        reverse_path: mail.envelope.reverse_path.clone(),
        recipients: mail.envelope.recipients.clone(),
        smtputf8: mail.envelope.smtputf8,
        require_tls: mail.attributes.boolean(attribute::REQUIRE_TLS).unwrap_or(false),
        facts: mail.facts,
        header_prefix: mail.header_prefix.clone(),
        content: pass.checkpoint.content(),
        dns_problems: u32::try_from(dns_problems).unwrap_or(0),
    }
}

/// Passes an attempt's events on, with the attributes that count it.
struct Journal<'a> {
    checkpoint: &'a dyn Checkpoint,
    attributes: Attributes,
}

#[async_trait]
impl Sink for Journal<'_> {
    async fn begin(&self, plan: &[Planned]) -> Result<(), NotBegun> {
        self.checkpoint.begin(&self.attributes, plan).await
    }

    async fn record(&self, outcomes: &[Recorded], dialogue: &[DialogueEntry]) {
        self.checkpoint.record(outcomes, dialogue).await;
    }
}

/// James retries within the mailet; here a schedule does.
fn refuse_retries(fields: &mut Fields<'_>) {
    let instead = "a mail is tried once per pass; a job with a schedule makes the next pass, AtMost=N bounds them";
    fields.optional("maxRetries", |node| match node.value {
        Value::Integer(0) => Ok(()),
        _ => Err(format!("maxRetries can only be 0, not {}: {instead}", node.described())),
    });
    fields.optional("delayTime", |node| match &node.value {
        Value::Null => Ok(()),
        Value::Text(text) if text.trim().is_empty() => Ok(()),
        _ => Err(format!("delayTime must be empty: {instead}; the job's 'spacing' says when")),
    });
}

fn read_outgoing(fields: &mut Fields<'_>, config: &mut delivery::Config) {
    let written = fields.optional("outgoing", text);
    let also = fields.optional("outgoingQueue", |node| match &written {
        Some(_) => Err("'outgoing' says the same: leave one out".to_owned()),
        None => text(node),
    });
    if let Some(name) = written.or(also) {
        config.outgoing = name;
    }
}

fn read_gateways(fields: &mut Fields<'_>, config: &mut delivery::Config) {
    let gateways = fields.optional("gateway", |node| match &node.value {
        Value::Sequence(items) => items.iter().map(|item| gateway(text(item)?.trim())).collect(),
        _ => text(node)?.split(',').map(|item| gateway(item.trim())).collect::<Result<Vec<_>, _>>(),
    });
    let without = gateways.as_ref().is_none_or(Vec::is_empty);
    config.gateways = gateways.unwrap_or_default();
    let needs = move |name: &str| if without { Err(format!("{name} needs a 'gateway'")) } else { Ok(()) };
    config.gateway_port = fields.optional("gatewayPort", |node| needs("gatewayPort").and(port(node)));
    let has_password = fields.has("gatewayPassword") || fields.has("gatewayPasswordFile");
    let is_half = fields.has("gatewayUsername") != has_password;
    let username = fields.optional("gatewayUsername", |node| needs("gatewayUsername").and(text(node)));
    let place = fields.place();
    let password = fields.secret("gatewayPassword", "gatewayPasswordFile");
    config.credentials =
        username.zip(password).map(|(username, password)| Credentials { username, password: Secret::new(password) });
    // What cannot be read has a complaint of its own.
    if is_half {
        let message = "gatewayUsername and gatewayPassword (or gatewayPasswordFile) belong together";
        fields.reading().problem(place, message);
    }
    if let Some(shuffled) = fields.optional("loadBalancing", boolean) {
        config.load_balancing = shuffled;
    }
    config.auth_in_clear = fields.optional("authInClear", boolean).unwrap_or(config.auth_in_clear);
}

/// `host`, `host:port`, `[2001:db8::1]` or `[2001:db8::1]:port`.
fn gateway(written: &str) -> Result<Gateway, String> {
    let wrong = || format!("a gateway such as gw.example.net:25 or [2001:db8::1]:25 is expected here, not '{written}'");
    let (host, port) = match written.strip_prefix('[').map(|rest| rest.split_once(']').ok_or_else(wrong)) {
        Some(bracketed) => {
            let (host, rest) = bracketed?;
            host.parse::<IpAddr>().map_err(|_| wrong())?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(wrong)?) })
        }
        None => match written.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (written, None),
        },
    };
    let port = port.map(|port| port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)).transpose()?;
    if host.parse::<IpAddr>().is_err() && (host.starts_with('[') || Domain::parse(host).is_err()) {
        return Err(wrong());
    }
    Ok(Gateway { host: host.to_owned(), port })
}

fn port(node: &Node) -> Result<u16, String> {
    integer(1..=u16::MAX)(node)
}

fn read_connection(fields: &mut Fields<'_>, config: &mut delivery::Config) {
    config.port = fields.optional("port", port);
    config.helo_name = fields.optional("heloName", |node| {
        let name = text(node)?;
        Domain::parse(&name).map(|_| name).map_err(|error| error.to_string())
    });
    config.bind = fields.optional("bind", |node| {
        let wrong = || format!("an IP address of this machine is expected here, not {}", node.described());
        node.as_text().and_then(|address| address.parse().ok()).ok_or_else(wrong)
    });
    config.timeout = fields.optional("timeout", milliseconds);
    if let Some(limit) = fields.optional("connectiontimeout", milliseconds) {
        config.connect_timeout = limit;
    }
    if let Some(limit) = fields.optional("attemptTimeout", positive_duration) {
        config.attempt_timeout = limit;
    }
}

fn read_tls(fields: &mut Fields<'_>, config: &mut delivery::Config) {
    let policy = fields.optional("startTLS", |node| match &node.value {
        Value::Boolean(false) => Ok(StartTls::Never),
        Value::Boolean(true) => Ok(StartTls::Opportunistic),
        Value::Text(text) if text == "required" => Ok(StartTls::Required),
        Value::Text(text) if text == "verify" => Ok(StartTls::Verify),
        _ => Err(format!("false, true, required or verify is expected here, not {}", node.described())),
    });
    config.start_tls = policy.unwrap_or(config.start_tls);
    for (name, flag) in [
        ("sslEnable", &mut config.ssl_enable),
        ("sslTrustAllCerts", &mut config.ssl_trust_all_certs),
        ("verifyServerIdentity", &mut config.verify_server_identity),
    ] {
        *flag = fields.optional(name, boolean).unwrap_or(*flag);
    }
    config.ca_file = fields.certificates("caFile");
    let (certificate, key) = fields.certificate();
    config.certificate = certificate;
    config.key = key;
}

fn read_limits(fields: &mut Fields<'_>, config: &mut delivery::Config) {
    if let Some(passes) = fields.optional("maxDnsProblemRetries", integer(0..=u32::MAX)) {
        config.max_dns_problem_retries = passes;
    }
    if let Some(connections) = fields.optional("deliveryThreads", integer(1_usize..=10_000)) {
        config.delivery_threads = connections;
    }
    if let Some(partial) = fields.optional("sendpartial", boolean) {
        config.send_partial = partial;
    }
    if let Some(recipients) = fields.optional("maxRecipientsPerTransaction", integer(1_usize..=100_000)) {
        config.max_recipients_per_transaction = recipients;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_are_names_or_addresses_with_or_without_a_port() {
        for (written, host, port) in [
            ("gw1.example.net", "gw1.example.net", None),
            ("gw1.example.net:2525", "gw1.example.net", Some(2525)),
            ("192.0.2.1:25", "192.0.2.1", Some(25)),
            ("[2001:db8::1]", "2001:db8::1", None),
            ("[2001:db8::1]:2525", "2001:db8::1", Some(2525)),
        ] {
            assert_eq!(gateway(written), Ok(Gateway { host: host.into(), port }), "{written}");
        }
        for written in ["", ":25", "gw:", "gw:0", "gw:70000", "2001:db8::1", "[::1", "[::1]25", "[gw]:25", "a b:25"] {
            assert!(gateway(written).is_err(), "{written}");
        }
    }
}
