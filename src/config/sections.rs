//! The sections of the main file that are plain settings.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use tracing::level_filters::LevelFilter;

use crate::delivery::DnsConfig;
use crate::logging::{self, Format, Rotate};
use crate::yaml::{
    Entry, Fields, Node, Reading, Value, boolean, choice, integer, name_server, positive_duration, secret_text, size,
    socket_address, text,
};

/// Links that are followed at most, as the kernel does.
const MOST_LINKS: usize = 40;

/// The one store, and the schemes of repository URLs that mean it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The database file.
    pub path: PathBuf,
    /// Its own scheme and its aliases.
    pub schemes: BTreeSet<String>,
}

impl Store {
    /// The scheme of the store itself, in which URLs are shown.
    pub const SCHEME: &'static str = "sqlite";

    /// Where the database file is: what counts is the room left there.
    pub fn directory(&self) -> &Path {
        self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    pub(super) fn read(node: Option<&Node>, state_directory: &Path, reading: &Reading) -> Self {
        let mut store = Self { path: followed(state_directory.join("redeliver.db")), schemes: BTreeSet::new() };
        let Some(node) = node else {
            store.schemes = [Self::SCHEME, "cassandra"].map(str::to_owned).into();
            return store;
        };
        store.schemes.insert(Self::SCHEME.to_owned());
        let Value::Mapping(entries) = &node.value else {
            let message = format!("'stores' is expected here as schemes with their stores, not {}", node.described());
            reading.problem(node.place, message);
            return store;
        };
        let Some(real) = entries.iter().find(|entry| entry.key == Self::SCHEME) else {
            reading.problem(node.place, "one store must be real: write 'sqlite: { path: redeliver.db }'");
            return store;
        };
        if let Some(path) = read_real(&real.value, reading) {
            store.path = followed(state_directory.join(path));
        }
        let aliases = entries.iter().filter(|entry| entry.key != Self::SCHEME);
        store.schemes.extend(aliases.filter_map(|entry| read_alias(entry, reading)));
        store
    }
}

/// Where links lead to, so that a database has one name for all: its log and the locks lie beside
/// it. A link into a directory that is not there stays as it is.
fn followed(path: PathBuf) -> PathBuf {
    let mut file = path.clone();
    for _ in 0..MOST_LINKS {
        let Ok(target) = file.read_link() else {
            let is_there =
                file.parent().is_some_and(|directory| directory.as_os_str().is_empty() || directory.is_dir());
            return if is_there { file } else { path };
        };
        file.pop();
        file.push(target);
    }
    path
}

fn read_real(node: &Node, reading: &Reading) -> Option<String> {
    let mut fields = Fields::of(node, "the store 'sqlite'", reading)?;
    let path = fields.required("path", text);
    fields.finish();
    path
}

fn read_alias(entry: &Entry, reading: &Reading) -> Option<String> {
    let scheme = entry.key.as_bytes();
    let valid = scheme.first().is_some_and(u8::is_ascii_lowercase)
        && scheme.iter().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"+-.".contains(c));
    if !valid {
        reading.problem(entry.key_place, format!("'{}' cannot be the scheme of a URL", entry.key));
        return None;
    }
    if entry.value.as_text() != Some(Store::SCHEME) {
        let message = format!("'{}' can only be an alias: write '{}: sqlite'", entry.key, entry.key);
        reading.problem(entry.value.place, message);
    }
    Some(entry.key.clone())
}

/// The SMTP listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smtp {
    /// Where it listens, none twice.
    pub listen: Vec<SocketAddr>,
    /// Who may relay.
    pub networks: Vec<IpNet>,
    /// Where accepted mail begins.
    pub processor: String,
    /// Octets of one message.
    pub max_message_size: u64,
    /// Recipients of one mail.
    pub max_recipients: usize,
    /// For STARTTLS, where it is offered.
    pub tls: Option<Tls>,
    /// A file of users who may relay after AUTH.
    pub users: Option<PathBuf>,
    /// A bare LF of those who may relay is a line end.
    pub normalize_lf: bool,
    /// SMTPUTF8 is offered.
    pub smtputf8: bool,
    /// Where somebody else listens for us: what systemd hands over.
    pub handed_over: Vec<SocketAddr>,
}

/// Our certificate (PEM files).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate and its chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Default for Smtp {
    fn default() -> Self {
        let network = |text: &str| text.parse().expect("the constant is a network");
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 2525))],
            networks: vec![network("127.0.0.0/8"), network("::1/128")],
            processor: "relay".to_owned(),
            max_message_size: 50 << 20,
            max_recipients: 1000,
            tls: None,
            users: None,
            normalize_lf: false,
            smtputf8: true,
            handed_over: Vec::new(),
        }
    }
}

impl Smtp {
    pub(super) fn read(fields: Option<Fields<'_>>) -> Self {
        let default = Self::default();
        let Some(mut fields) = fields else { return default };
        let found = Self {
            listen: read_listen(&mut fields).unwrap_or(default.listen),
            networks: fields.list("networks", network).unwrap_or(default.networks),
            processor: fields.optional("processor", text).unwrap_or(default.processor),
            max_message_size: fields.optional("maxMessageSize", size).unwrap_or(default.max_message_size),
            max_recipients: fields.optional("maxRecipients", integer(1..=1_000_000)).unwrap_or(default.max_recipients),
            tls: fields.section("tls").and_then(read_tls),
            users: fields.file("users"),
            normalize_lf: fields
                .optional("bareLf", choice(&[("reject", false), ("normalize", true)]))
                .unwrap_or(default.normalize_lf),
            smtputf8: fields.optional("smtputf8", boolean).unwrap_or(default.smtputf8),
            handed_over: Vec::new(),
        };
        fields.finish();
        found
    }
}

fn read_listen(fields: &mut Fields<'_>) -> Option<Vec<SocketAddr>> {
    let seen = std::cell::RefCell::new(BTreeSet::new());
    fields.list("listen", |node| {
        let address = socket_address(node)?;
        // Port 0 takes a free one each time.
        if address.port() != 0 && !seen.borrow_mut().insert(address) {
            return Err(format!("{address} stands here a second time"));
        }
        Ok(address)
    })
}

fn network(node: &Node) -> Result<IpNet, String> {
    let wrong =
        || format!("a network such as 192.0.2.0/24 or 2001:db8::/32 is expected here, not {}", node.described());
    let written = node.as_text().ok_or_else(wrong)?;
    let alone = || written.parse::<std::net::IpAddr>().map(IpNet::from);
    written.parse::<IpNet>().or_else(|_| alone()).map(|network| network.trunc()).map_err(|_| wrong())
}

fn read_tls(mut fields: Fields<'_>) -> Option<Tls> {
    let (certificate, key) = fields.certificate();
    if fields.node("certificate").is_none() && fields.node("key").is_none() {
        fields.reading().problem(fields.place(), "keys 'certificate' and 'key' are missing");
    }
    fields.finish();
    Some(Tls { certificate: certificate?, key: key? })
}

/// The HTTP listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Passwords for everything.
    pub password: Passwords,
    /// Passwords for reading.
    pub password_readonly: Passwords,
    /// Passwords for everything but removing.
    pub password_nodelete: Passwords,
    /// A file of users with roles.
    pub users: Option<PathBuf>,
    /// The certificate that clients are shown.
    pub tls: Option<Tls>,
    /// Where a browser finds it, if a proxy stands in front: `http(s)://host[:port]/`.
    pub url: Option<String>,
}

/// Passwords, never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Passwords(pub Vec<String>);

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} passwords]", self.0.len())
    }
}

impl Admin {
    /// Whether anyone has to know a password.
    pub fn has_password(&self) -> bool {
        let passwords = [&self.password, &self.password_readonly, &self.password_nodelete];
        self.users.is_some() || passwords.iter().any(|some| !some.0.is_empty())
    }

    /// Whether what is said over it leaves this machine in clear, as far as is known here.
    pub(super) fn is_read_on_the_way(&self) -> bool {
        let has_proxy = self.url.as_ref().is_some_and(|url| url.starts_with("https:"));
        !self.listen.ip().is_loopback() && self.tls.is_none() && !has_proxy
    }

    pub(super) fn read(fields: Option<Fields<'_>>) -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 8000));
        let none = Passwords::default;
        let default = Self {
            listen,
            password: none(),
            password_readonly: none(),
            password_nodelete: none(),
            users: None,
            tls: None,
            url: None,
        };
        let Some(mut fields) = fields else { return default };
        let place = fields.node("listen").map(|node| node.place);
        let found = Self {
            listen: fields.optional("listen", socket_address).unwrap_or(listen),
            password: passwords(&mut fields, "password", "passwordFile"),
            password_readonly: passwords(&mut fields, "passwordReadonly", "passwordReadonlyFile"),
            password_nodelete: passwords(&mut fields, "passwordNodelete", "passwordNodeleteFile"),
            users: fields.path("users"),
            tls: fields.section("tls").and_then(read_tls),
            url: fields.optional("url", site),
        };
        if let Some(place) = place.filter(|_| !found.listen.ip().is_loopback() && !found.has_password()) {
            let message = format!(
                "{} can be reached from other machines: set 'password', 'passwordFile' or 'users'",
                found.listen
            );
            fields.reading().problem(place, message);
        }
        fields.finish();
        found
    }
}

/// The URL of a site: a scheme, a host and perhaps a port, and no path.
fn site(node: &Node) -> Result<String, String> {
    let written = text(node)?;
    let rest = written.strip_prefix("https://").or_else(|| written.strip_prefix("http://"));
    let host = rest.map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let fits = |host: &str| !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/?#@".contains(c));
    match host {
        Some(host) if fits(host) => Ok(written.trim_end_matches('/').to_owned()),
        _ => Err(format!("{written:?} is no URL of a site: write it as https://relay.example.org/")),
    }
}

fn passwords(fields: &mut Fields<'_>, name: &'static str, name_file: &'static str) -> Passwords {
    let mut found = fields.list(name, secret_text).unwrap_or_default();
    found.extend(fields.lines_of_file(name_file).unwrap_or_default());
    Passwords(found)
}

pub(super) fn read_dns(fields: Option<Fields<'_>>) -> DnsConfig {
    let default = DnsConfig::default();
    let Some(mut fields) = fields else { return default };
    let found = DnsConfig {
        servers: fields.list("servers", name_server).unwrap_or_default(),
        timeout: fields.optional("timeout", positive_duration),
        attempts: fields.optional("attempts", integer(1..=10)),
        resolv_conf: fields.path("resolvConf").unwrap_or(default.resolv_conf),
        ..DnsConfig::default()
    };
    fields.finish();
    found
}

/// Reads where the log goes.
pub(super) fn read_log(fields: Option<Fields<'_>>, state_directory: &Path) -> logging::Config {
    let default = logging::Config::default();
    let Some(mut fields) = fields else { return default };
    let formats = [("text", Format::Text), ("json", Format::Json)];
    let rotations = [("daily", Rotate::Daily), ("hourly", Rotate::Hourly), ("never", Rotate::Never)];
    let levels = [
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("debug", LevelFilter::DEBUG),
        ("trace", LevelFilter::TRACE),
    ];
    let found = logging::Config {
        directory: fields.optional("directory", text).map(|written| state_directory.join(written)),
        format: fields.optional("format", choice(&formats)).unwrap_or(default.format),
        level: fields.optional("level", choice(&levels)).unwrap_or(default.level),
        rotation: fields.optional("rotation", choice(&rotations)).unwrap_or(default.rotation),
        keep: fields.optional("keep", integer(1..=10_000)).unwrap_or(default.keep),
    };
    fields.finish();
    found
}

/// What is kept of attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// How long the record of an attempt outlives its mail.
    pub retention: Duration,
    /// Of which attempts the dialogue is kept.
    pub dialogue: Dialogue,
    /// Octets of one attempt's dialogue.
    pub max_dialogue: u64,
}

/// How long sums of outcomes are kept: `history.retention`.
pub(super) fn read_history(fields: Option<Fields<'_>>) -> Duration {
    let default = Duration::from_hours(400 * 24);
    let Some(mut fields) = fields else { return default };
    let retention = fields.optional("retention", positive_duration).unwrap_or(default);
    fields.finish();
    retention
}

/// Of which attempts the dialogue is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialogue {
    /// Of all.
    All,
    /// Of those that did not deliver to everyone.
    Failures,
}

impl Audit {
    pub(super) fn read(fields: Option<Fields<'_>>) -> Self {
        let default =
            Self { retention: Duration::from_hours(30 * 24), dialogue: Dialogue::All, max_dialogue: 64 << 10 };
        let Some(mut fields) = fields else { return default };
        let found = Self {
            retention: fields.optional("retention", positive_duration).unwrap_or(default.retention),
            dialogue: fields
                .optional("dialogue", choice(&[("all", Dialogue::All), ("failures", Dialogue::Failures)]))
                .unwrap_or(default.dialogue),
            max_dialogue: fields.optional("maxDialogue", size).unwrap_or(default.max_dialogue),
        };
        fields.finish();
        found
    }
}
