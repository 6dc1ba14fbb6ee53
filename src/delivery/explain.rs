//! What an attempt for one recipient would do, and why, without doing it.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::mail::{Address, Outcome};

use super::Delivery;
use super::config::{Config, StartTls};
use super::peers::Peers;
use super::routing::{self, Hop, Target};

/// Where mail for a recipient would go. Names are looked up; nobody is connected to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Who.
    pub recipient: Address,
    /// The domain, the literal, or the gateways.
    pub next_hop: String,
    /// Whether by the DNS or by configuration.
    pub routed_by: RoutedBy,
    /// What would become of the recipient without contact; `None` where hosts would be tried.
    pub outcome: Option<Outcome>,
    /// Enhanced status code of that outcome.
    pub enhanced: Option<String>,
    /// Why, in a sentence: of that outcome, or what is remembered of a next hop that is down.
    pub cause: Option<String>,
    /// In the order in which they would be tried.
    pub hosts: Vec<ExplainedHost>,
    /// Hosts of equal rank are drawn anew for each attempt: this is one order of several.
    pub shuffled: bool,
    /// Hosts that would not be tried, each with its reason.
    pub left_out: Vec<String>,
    /// The TLS policy in words.
    pub tls: String,
    /// AUTH in words.
    pub auth: String,
    /// The name for EHLO.
    pub helo_name: String,
    /// The local part needs SMTPUTF8 at the peer.
    pub needs_smtputf8: bool,
    /// The name of the `RemoteDelivery` that would do it.
    pub outgoing: String,
}

impl Explanation {
    /// For people: what each thing is called, and what it is.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let by = match self.routed_by {
            RoutedBy::Gateway => "the configured gateways",
            RoutedBy::Literal => "its address literal",
            RoutedBy::Mx => "the DNS",
        };
        let mut lines = vec![
            ("recipient", self.recipient.to_string()),
            ("outgoing", self.outgoing.clone()),
            ("next hop", format!("{}, by {by}", self.next_hop)),
        ];
        lines.extend(self.hosts.iter().map(|host| ("host", host.words())));
        if self.shuffled {
            lines.push(("order", "hosts of equal rank are drawn anew for each attempt".to_owned()));
        }
        lines.extend(self.left_out.iter().map(|reason| ("left out", reason.clone())));
        if let Some(outcome) = self.outcome {
            let enhanced = self.enhanced.as_ref().map_or(String::new(), |status| format!(" {status}"));
            lines.push(("outcome", format!("{outcome}{enhanced} without contact")));
        }
        lines.extend(self.cause.iter().map(|cause| ("because", cause.clone())));
        lines.push(("TLS", self.tls.clone()));
        lines.push(("AUTH", self.auth.clone()));
        lines.push(("EHLO", self.helo_name.clone()));
        if self.needs_smtputf8 {
            lines.push(("needs", "SMTPUTF8 at the peer".to_owned()));
        }
        lines
    }
}

/// What a next hop was found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoutedBy {
    /// `gateway` is set.
    Gateway,
    /// The address literal says it.
    Literal,
    /// MX records, or addresses where there are none.
    Mx,
}

/// One address of one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedHost {
    /// The MX host or gateway by name.
    pub host: String,
    /// Of the MX record, 0 of the implicit one; none of a gateway or a literal.
    pub preference: Option<u16>,
    /// Its IP address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// What is remembered of it, so that it would not be tried.
    pub down: Option<String>,
}

impl ExplainedHost {
    /// `mx1.x.example (192.0.2.1:25), preference 10`.
    fn words(&self) -> String {
        let down = self.down.as_ref().map_or(String::new(), |why| format!(", down: {why}"));
        let preference = self.preference.map_or(String::new(), |preference| format!(", preference {preference}"));
        format!("{} ({}){preference}{down}", self.host, self.socket_address())
    }

    /// Its address with the port.
    pub fn socket_address(&self) -> SocketAddr {
        (self.address, self.port).into()
    }
}

impl Delivery {
    /// What an attempt for `recipient` would do now.
    pub async fn explain(&self, recipient: &Address) -> Explanation {
        let (config, network) = (&self.dialer.config, &self.dialer.network);
        let plan = routing::plan(config, network, std::slice::from_ref(recipient)).await;
        let mut explanation = Explanation {
            recipient: recipient.clone(),
            next_hop: String::new(),
            routed_by: routed_by(config, recipient),
            outcome: None,
            enhanced: None,
            cause: None,
            hosts: Vec::new(),
            shuffled: false,
            left_out: Vec::new(),
            tls: tls(config),
            auth: auth(config),
            helo_name: self.dialer.ehlo.name.clone(),
            needs_smtputf8: recipient.needs_smtputf8(),
            outgoing: config.outgoing.clone(),
        };
        if let Some(hop) = plan.into_iter().next() {
            explanation.take(hop, &self.peers);
            explanation.shuffled = is_shuffled(config, &explanation);
        }
        explanation
    }
}

impl Explanation {
    fn take(&mut self, hop: Hop, peers: &Peers) {
        match hop.route {
            Ok(route) => {
                let down = peers.down(&hop.name, &route.targets);
                self.outcome = down.is_some().then_some(Outcome::Deferred);
                self.cause = down.map(|down| format!("found down: {}", down.cause));
                self.hosts = route.targets.iter().map(|target| host(target, &hop.name, peers)).collect();
                self.left_out = route.left_out;
            }
            Err(none) => {
                self.outcome = Some(none.outcome);
                self.enhanced = Some(none.enhanced.to_owned());
                self.cause = Some(none.cause);
            }
        }
        self.next_hop = hop.name;
    }
}

fn host(target: &Target, hop: &str, peers: &Peers) -> ExplainedHost {
    ExplainedHost {
        host: target.host.clone(),
        preference: target.preference,
        address: target.address.ip(),
        port: target.address.port(),
        down: peers.down_at(hop, target).map(|down| down.cause),
    }
}

fn is_shuffled(config: &Config, explanation: &Explanation) -> bool {
    match explanation.routed_by {
        RoutedBy::Gateway => config.load_balancing && config.gateways.len() > 1,
        RoutedBy::Literal => false,
        RoutedBy::Mx => explanation
            .hosts
            .windows(2)
            .any(|pair| pair[0].preference == pair[1].preference && pair[0].host != pair[1].host),
    }
}

fn routed_by(config: &Config, recipient: &Address) -> RoutedBy {
    match recipient.domain().literal() {
        _ if !config.gateways.is_empty() => RoutedBy::Gateway,
        Some(_) => RoutedBy::Literal,
        None => RoutedBy::Mx,
    }
}

fn tls(config: &Config) -> String {
    let from_the_start = if config.ssl_enable { "TLS from the first byte" } else { "STARTTLS" };
    match config.start_tls {
        StartTls::Never if !config.ssl_enable => "never: mail goes in clear".to_owned(),
        StartTls::Opportunistic if !config.ssl_enable => {
            "STARTTLS where offered; any certificate; in clear where it fails".to_owned()
        }
        StartTls::Verify => {
            let relaxed = match (config.ssl_trust_all_certs, config.verify_server_identity) {
                (true, _) => "any certificate",
                (false, true) => "a certificate that verifies for the host's name",
                (false, false) => "a certificate that verifies, for whatever name",
            };
            format!("{from_the_start}, required, with {relaxed}")
        }
        _ => format!("{from_the_start}, required, with any certificate"),
    }
}

fn auth(config: &Config) -> String {
    match &config.credentials {
        None => "none".to_owned(),
        Some(credentials) if config.auth_in_clear => format!("as {:?}, even in clear", credentials.username),
        Some(credentials) => format!("as {:?}, over TLS only", credentials.username),
    }
}
