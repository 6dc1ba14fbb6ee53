//! Settings of one `RemoteDelivery`, and of what all deliveries of a process share.
//!
//! Plain values: whoever reads the configuration file fills them in.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

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
    /// The port of MX hosts and address literals.
    pub(super) fn mx_port(&self) -> u16 {
        self.port.unwrap_or_else(|| self.default_port())
    }

    /// The port of `gateway`.
    pub(super) fn port_of(&self, gateway: &Gateway) -> u16 {
        gateway.port.or(self.gateway_port).unwrap_or_else(|| self.default_port())
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
    /// For one query. Default 5 s.
    pub timeout: Duration,
    /// Queries for one question before it is given up. Default 2, at least 1.
    pub attempts: usize,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self { servers: Vec::new(), timeout: Duration::from_secs(5), attempts: 2 }
    }
}
