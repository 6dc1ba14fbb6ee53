//! Settings of one `RemoteDelivery`, as plain values and as the configuration file has
//! them, and of what all deliveries of a process share.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::mail::Domain;
use crate::yaml::{Fields, Node, Value, boolean, integer, milliseconds, positive_duration, text};

use super::network::is_among;

/// Settings of one `RemoteDelivery`. [`Default`] is what ships.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own, named as James names it")]
pub struct Config {
    /// `outgoing`: the name under which `/mailQueues` shows it. Default `outgoing`.
    pub outgoing: String,
    /// `gateway`: relays that take all mail, instead of MX routing. Default none.
    pub gateways: Vec<Gateway>,
    /// `gatewayPort`: for gateways without their own. Default: 25, or 465 with `ssl_enable`.
    pub gateway_port: Option<u16>,
    /// `port`: for MX hosts and address literals. Default: 25, or 465 with `ssl_enable`.
    pub port: Option<u16>,
    /// `loadBalancing`: gateways in random order instead of the order written. Default false.
    pub load_balancing: bool,
    /// `gatewayUsername` and `gatewayPassword`: AUTH at the gateways. Default none.
    pub credentials: Option<Credentials>,
    /// `authInClear`: credentials may go without TLS. Default false.
    pub auth_in_clear: bool,
    /// `heloName`: the EHLO name. Default: the process's host name.
    pub helo_name: Option<String>,
    /// `bind`: the local address of connections. Default: the system's choice.
    pub bind: Option<IpAddr>,
    /// `startTLS`. Default [`StartTls::Opportunistic`].
    pub start_tls: StartTls,
    /// `sslEnable`: TLS from the first byte. Default false.
    pub ssl_enable: bool,
    /// `sslTrustAllCerts`: any certificate counts as verified. Default false.
    pub ssl_trust_all_certs: bool,
    /// `verifyServerIdentity`: the certificate must name the host. Default true.
    pub verify_server_identity: bool,
    /// `caFile`: PEM file of roots beside the system's. Default none.
    pub ca_file: Option<PathBuf>,
    /// `certificate`: PEM file of our certificate and its chain, for peers that ask. Default none.
    pub certificate: Option<PathBuf>,
    /// `key`: PEM file of that certificate's private key. Default none.
    pub key: Option<PathBuf>,
    /// `timeout`: for each reply and each stretch without progress. Default: the limits of
    /// RFC 5321 section 4.5.3.2.
    pub timeout: Option<Duration>,
    /// `connectiontimeout`: for one connect. Default 30 s.
    pub connect_timeout: Duration,
    /// `attemptTimeout`: for one transaction up to the final dot. Default 30 min.
    pub attempt_timeout: Duration,
    /// `maxDnsProblemRetries`: passes in which "no such domain" is a deferral. Default 0.
    pub max_dns_problem_retries: u32,
    /// `deliveryThreads`: connections open at once. Default 10, at least 1.
    pub delivery_threads: usize,
    /// `sendpartial`: send to the accepted recipients when others are refused. Default true.
    pub send_partial: bool,
    /// `maxRecipientsPerTransaction`. Default 100, at least 1.
    pub max_recipients_per_transaction: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            outgoing: "outgoing".to_owned(),
            gateways: Vec::new(),
            gateway_port: None,
            port: None,
            load_balancing: false,
            credentials: None,
            auth_in_clear: false,
            helo_name: None,
            bind: None,
            start_tls: StartTls::Opportunistic,
            ssl_enable: false,
            ssl_trust_all_certs: false,
            verify_server_identity: true,
            ca_file: None,
            certificate: None,
            key: None,
            timeout: None,
            connect_timeout: Duration::from_secs(30),
            attempt_timeout: Duration::from_mins(30),
            max_dns_problem_retries: 0,
            delivery_threads: 10,
            send_partial: true,
            max_recipients_per_transaction: 100,
        }
    }
}

impl Config {
    /// Reads the members of a `RemoteDelivery` that say how an attempt is made. What is wrong
    /// is told to `fields`; the default stands in for it.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        let mut config = Self::default();
        refuse_retries(fields);
        read_outgoing(fields, &mut config);
        read_gateways(fields, &mut config);
        read_connection(fields, &mut config);
        read_tls(fields, &mut config);
        read_limits(fields, &mut config);
        config
    }

    /// The port of MX hosts and address literals.
    pub(super) fn mx_port(&self) -> u16 {
        self.port.unwrap_or_else(|| self.default_port())
    }

    /// The port of `gateway`.
    pub(super) fn port_of(&self, gateway: &Gateway) -> u16 {
        gateway.port.or(self.gateway_port).unwrap_or_else(|| self.default_port())
    }

    /// Gateways whose name would have to stand without a dot in their certificate.
    pub fn gateways_without_full_name(&self) -> impl Iterator<Item = &str> {
        let judged = self.start_tls == StartTls::Verify && self.verify_server_identity && !self.ssl_trust_all_certs;
        let names = self.gateways.iter().map(|gateway| gateway.host.as_str());
        names.filter(move |name| judged && !name.trim_end_matches('.').contains(['.', ':']))
    }

    /// Gateways that stand there as an address at which this relay listens (`own`) itself.
    pub fn gateways_that_are<'a>(&'a self, own: &'a [SocketAddr]) -> impl Iterator<Item = &'a str> {
        let is_ours = move |gateway: &&Gateway| {
            let ip = gateway.host.parse::<IpAddr>();
            ip.is_ok_and(|ip| is_among(own, (ip, self.port_of(gateway)).into()))
        };
        self.gateways.iter().filter(is_ours).map(|gateway| gateway.host.as_str())
    }

    fn default_port(&self) -> u16 {
        if self.ssl_enable { 465 } else { 25 }
    }
}

/// One gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// A name, or an IP address without brackets.
    pub host: String,
    /// Its own port.
    pub port: Option<u16>,
}

/// What we say with AUTH.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The authentication identity.
    pub username: String,
    /// Its password.
    pub password: Secret,
}

/// A text that is never printed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` out of logs.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the wire.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

/// When STARTTLS is used, and what must hold before MAIL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartTls {
    /// `false`: never used.
    Never,
    /// `true`: used where offered; where it fails, the attempt goes on in clear.
    Opportunistic,
    /// `required`: no MAIL without TLS.
    Required,
    /// `verify`: and the certificate must verify for the host's name.
    Verify,
}

impl StartTls {
    /// As it is written in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Never => "false",
            Self::Opportunistic => "true",
            Self::Required => "required",
            Self::Verify => "verify",
        }
    }

    /// Whether MAIL may go in clear.
    pub(super) fn allows_clear_text(self) -> bool {
        matches!(self, Self::Never | Self::Opportunistic)
    }
}

/// How names are looked up.
#[derive(Debug, Clone)]
pub struct DnsConfig {
    /// Name servers; empty for the system's (`/etc/resolv.conf` and `/etc/hosts`).
    pub servers: Vec<SocketAddr>,
    /// For one query. Default: what resolv.conf says, else 5 s.
    pub timeout: Option<Duration>,
    /// Rounds over all name servers before a question is given up, at least 1. Default: what
    /// resolv.conf says, else 2.
    pub attempts: Option<usize>,
    /// The file of the system's name servers. Default `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// The file of the system's hosts. Default `/etc/hosts`.
    pub hosts: PathBuf,
    /// Where the servers of `resolv_conf` are asked. Default 53.
    pub port: u16,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout: None,
            attempts: None,
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            hosts: PathBuf::from("/etc/hosts"),
            port: 53,
        }
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

fn read_outgoing(fields: &mut Fields<'_>, config: &mut Config) {
    let written = fields.optional("outgoing", text);
    let also = fields.optional("outgoingQueue", |node| match &written {
        Some(_) => Err("'outgoing' says the same: leave one out".to_owned()),
        None => text(node),
    });
    if let Some(name) = written.or(also) {
        config.outgoing = name;
    }
}

fn read_gateways(fields: &mut Fields<'_>, config: &mut Config) {
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

fn read_connection(fields: &mut Fields<'_>, config: &mut Config) {
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

fn read_tls(fields: &mut Fields<'_>, config: &mut Config) {
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

fn read_limits(fields: &mut Fields<'_>, config: &mut Config) {
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
