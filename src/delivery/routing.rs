//! Which next hops a mail's recipients have, and which hosts and addresses stand for each
//! (RFC 5321 section 5.1), best first.
//!
//! Everything is looked up before anybody is contacted, so that our own address is found
//! in an MX list wherever in it it is.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use rand::seq::SliceRandom;

use crate::mail::{Address, Domain, Outcome};

use super::concurrently;
use super::config::{Config, Gateway};
use super::dns::{Answer, Mx, Trouble, Whose};
use super::network::Network;

/// Hosts of one next hop that are looked up.
const MAX_HOSTS: usize = 20;

/// Addresses of one next hop that are tried.
const MAX_ADDRESSES: usize = 10;

/// A next hop and the recipients that are routed to it.
#[derive(Debug)]
pub(super) struct Hop {
    /// The domain (as it is looked up), the literal, or the gateways as configured.
    pub(super) name: String,
    /// In the order of the mail.
    pub(super) recipients: Vec<Address>,
    /// Where to connect, or why nowhere.
    pub(super) route: Result<Route, NoRoute>,
}

/// Where to connect for a next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// In the order in which they are tried; never empty.
    pub(super) targets: Vec<Target>,
    /// Hosts that were left out, each with its reason.
    pub(super) left_out: Vec<String>,
}

/// One address of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The domain, literal or gateway.
    pub(super) next_hop: String,
    /// The MX host or gateway by name; the address where it has none.
    pub(super) host: String,
    /// Its address and port.
    pub(super) address: SocketAddr,
    /// Of the MX record, 0 of the implicit one; none of a gateway or a literal.
    pub(super) preference: Option<u16>,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.host, self.address)
    }
}

/// Why a next hop has no host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NoRoute {
    /// Failed or deferred.
    pub(super) outcome: Outcome,
    /// Of class 5 or 4, by the outcome.
    pub(super) enhanced: &'static str,
    /// In a sentence.
    pub(super) cause: String,
    /// It may be a passing error in the DNS: `maxDnsProblemRetries` turns it into a deferral.
    pub(super) dns_problem: bool,
    /// Whose trouble it is, where it is one of the DNS.
    pub(super) trouble: Option<Whose>,
}

impl NoRoute {
    fn failed(enhanced: &'static str, cause: String) -> Self {
        Self { outcome: Outcome::Failed, enhanced, cause, dns_problem: false, trouble: None }
    }

    fn dns_problem(enhanced: &'static str, cause: String) -> Self {
        Self { dns_problem: true, ..Self::failed(enhanced, cause) }
    }

    fn deferred(cause: String, whose: Whose) -> Self {
        Self { outcome: Outcome::Deferred, enhanced: "4.4.3", cause, dns_problem: false, trouble: Some(whose) }
    }

    fn loops(cause: String) -> Self {
        Self::failed("5.4.6", cause)
    }
}

/// A host with what the DNS says of its addresses.
struct Resolved {
    host: String,
    preference: u16,
    addresses: Answer<Vec<IpAddr>>,
}

/// Groups `recipients` by next hop and finds each one's hosts.
pub(super) async fn plan(config: &Config, network: &Network, recipients: &[Address]) -> Vec<Hop> {
    if !config.gateways.is_empty() {
        let route = gateways(config, network).await;
        return vec![Hop { name: gateway_names(config), recipients: recipients.to_vec(), route }];
    }
    let groups = by_domain(recipients);
    let hops = groups.into_iter().map(|(name, recipients)| async move {
        let route = domain(config, network, recipients[0].domain()).await;
        Hop { name, recipients, route }
    });
    concurrently(hops).await
}

/// Recipients by domain, domains and recipients in the order of the mail.
fn by_domain(recipients: &[Address]) -> Vec<(String, Vec<Address>)> {
    let mut at = HashMap::new();
    let mut groups: Vec<(String, Vec<Address>)> = Vec::new();
    for recipient in recipients {
        let name = recipient.domain().folded();
        let index = *at.entry(name.clone()).or_insert_with(|| {
            groups.push((name, Vec::new()));
            groups.len() - 1
        });
        groups[index].1.push(recipient.clone());
    }
    groups
}

/// The name under which all gateways together are one next hop.
fn gateway_names(config: &Config) -> String {
    config.gateways.iter().map(|gateway| gateway_name(config, gateway)).collect::<Vec<_>>().join(", ")
}

fn gateway_name(config: &Config, gateway: &Gateway) -> String {
    let port = config.port_of(gateway);
    if gateway.host.contains(':') { format!("[{}]:{port}", gateway.host) } else { format!("{}:{port}", gateway.host) }
}

async fn gateways(config: &Config, network: &Network) -> Result<Route, NoRoute> {
    let mut gateways: Vec<&Gateway> = config.gateways.iter().collect();
    if config.load_balancing {
        gateways.shuffle(&mut rand::rng());
    }
    let answers = concurrently(gateways.iter().map(|gateway| addresses(network, &gateway.host))).await;
    let (mut targets, mut left_out, mut troubles) = (Vec::new(), Vec::new(), Vec::new());
    for (gateway, answer) in gateways.iter().zip(answers) {
        let (name, port) = (gateway_name(config, gateway), config.port_of(gateway));
        match usable(answer) {
            Ok(found) if found.iter().any(|&ip| network.is_own_address((ip, port).into())) => {
                troubles.push(Whose::Theirs);
                left_out.push(format!("{name} is this relay itself"));
            }
            Ok(found) => targets.extend(found.into_iter().map(|ip| Target {
                next_hop: name.clone(),
                host: gateway.host.clone(),
                address: (ip, port).into(),
                preference: None,
            })),
            Err(trouble) => {
                troubles.push(trouble.whose);
                left_out.push(format!("{name} cannot be resolved: {}", trouble.cause));
            }
        }
    }
    if targets.is_empty() {
        let cause = format!("no gateway can be used: {}", left_out.join("; "));
        return Err(NoRoute::deferred(cause, of_all(&troubles)));
    }
    Ok(Route { targets, left_out })
}

/// Whose trouble it is that no gateway can be used.
fn of_all(troubles: &[Whose]) -> Whose {
    let of = |whose| troubles.contains(&whose).then_some(whose);
    of(Whose::Ours).or(of(Whose::Theirs)).unwrap_or(Whose::Unknown)
}

/// A gateway that the DNS does not know is trouble like any other: the name is ours.
fn usable(answer: Answer<Vec<IpAddr>>) -> Result<Vec<IpAddr>, Trouble> {
    let says = |cause: &str| Trouble { cause: cause.to_owned(), whose: Whose::Theirs };
    match answer {
        Answer::Found(found) => Ok(found),
        Answer::NoDomain => Err(says("no such host")),
        Answer::NoData => Err(says("it has no address")),
        Answer::Trouble(trouble) => Err(trouble),
    }
}

/// The addresses of a gateway, which may be written as one.
async fn addresses(network: &Network, host: &str) -> Answer<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Answer::Found(vec![address]);
    }
    match Domain::parse(host).ok().and_then(|name| name.ascii().ok()) {
        // What it makes absolute is not the name's own.
        Some(name) if host.ends_with('.') => network.dns.addresses_as_written(&format!("{name}.")).await,
        Some(name) => network.dns.addresses_as_written(&name).await,
        None => Answer::NoDomain,
    }
}

async fn domain(config: &Config, network: &Network, domain: &Domain) -> Result<Route, NoRoute> {
    if let Some(literal) = domain.literal() {
        return address_literal(network, domain.as_str(), (literal, config.mx_port()).into());
    }
    let name = domain
        .ascii()
        .map_err(|_| NoRoute::failed("5.1.2", format!("{domain} is not a name that the DNS can have")))?;
    let (exchanges, implicit) = exchanges(network, &name).await?;
    let hosts = concurrently(exchanges.into_iter().map(|mx| async move {
        let addresses = network.dns.addresses(&mx.exchange).await;
        Resolved { host: mx.exchange, preference: mx.preference, addresses }
    }))
    .await;
    let best = hosts.len();
    let (hosts, left_out) = without_ourselves(network, config.mx_port(), hosts);
    if hosts.is_empty() && best > 0 {
        return Err(NoRoute::loops(format!(
            "mail for {name} would come back to this relay, which is its best MX host"
        )));
    }
    targets(&name, config.mx_port(), &hosts, left_out).ok_or_else(|| no_address(&name, implicit, &hosts))
}

fn address_literal(network: &Network, name: &str, address: SocketAddr) -> Result<Route, NoRoute> {
    if network.is_own_address(address) {
        return Err(NoRoute::loops(format!("{name} is this relay itself")));
    }
    let host = address.ip().to_string();
    let target = Target { next_hop: name.to_owned(), host, address, preference: None };
    Ok(Route { targets: vec![target], left_out: Vec::new() })
}

/// The MX records of `name` in the order to be tried, or the name itself where it has
/// none (true: the implicit MX).
async fn exchanges(network: &Network, name: &str) -> Result<(Vec<Mx>, bool), NoRoute> {
    let implicit = || (vec![Mx { preference: 0, exchange: name.to_owned() }], true);
    match network.dns.mx(name).await {
        Answer::Found(records) => in_order(records)
            .map(|records| (records, false))
            .ok_or_else(|| NoRoute::failed("5.1.10", format!("{name} accepts no mail: it has a null MX record"))),
        Answer::NoData => Ok(implicit()),
        // Some servers deny the whole name where it has no MX record.
        Answer::NoDomain if matches!(network.dns.addresses(name).await, Answer::Found(_)) => Ok(implicit()),
        Answer::NoDomain => Err(NoRoute::dns_problem("5.1.2", format!("the domain {name} does not exist"))),
        Answer::Trouble(trouble) => {
            let cause = format!("looking up the MX records of {name}: {}", trouble.cause);
            Err(NoRoute::deferred(cause, trouble.whose))
        }
    }
}

/// By preference, equal ones in random order (RFC 5321 section 5.1). A null MX counts
/// only where it is alone (RFC 7505 section 3); then there is none.
fn in_order(mut records: Vec<Mx>) -> Option<Vec<Mx>> {
    records.retain(|mx| !mx.exchange.is_empty());
    records.shuffle(&mut rand::rng());
    records.sort_by_key(|mx| mx.preference);
    let mut seen = std::collections::HashSet::new();
    records.retain(|mx| seen.insert(mx.exchange.clone()));
    records.truncate(MAX_HOSTS);
    (!records.is_empty()).then_some(records)
}

/// Drops ourselves and every host that is no better (RFC 5321 section 5.1): handing the
/// mail to those would bring it back. With a reason for each.
fn without_ourselves(network: &Network, port: u16, hosts: Vec<Resolved>) -> (Vec<Resolved>, Vec<String>) {
    let ours = |host: &Resolved| {
        network.is_own_name(&host.host)
            || matches!(&host.addresses, Answer::Found(found)
                if found.iter().any(|&ip| network.is_own_address((ip, port).into())))
    };
    let Some(own) = hosts.iter().filter(|host| ours(host)).map(|host| host.preference).min() else {
        return (hosts, Vec::new());
    };
    let reason = |host: &Resolved| {
        let why = if ours(host) { "is this relay itself" } else { "is no better than this relay" };
        format!("{} (preference {}) {why}", host.host, host.preference)
    };
    let (better, others): (Vec<_>, Vec<_>) = hosts.into_iter().partition(|host| host.preference < own);
    let reasons = others.iter().map(reason).collect();
    (better, reasons)
}

fn targets(name: &str, port: u16, hosts: &[Resolved], mut left_out: Vec<String>) -> Option<Route> {
    let mut targets = Vec::new();
    for host in hosts {
        match usable(host.addresses.clone()) {
            Ok(found) => targets.extend(found.into_iter().map(|ip| Target {
                next_hop: name.to_owned(),
                host: host.host.clone(),
                address: (ip, port).into(),
                preference: Some(host.preference),
            })),
            Err(trouble) => left_out.push(format!("{}: {}", host.host, trouble.cause)),
        }
    }
    targets.truncate(MAX_ADDRESSES);
    (!targets.is_empty()).then_some(Route { targets, left_out })
}

fn no_address(name: &str, implicit: bool, hosts: &[Resolved]) -> NoRoute {
    for host in hosts {
        if let Answer::Trouble(trouble) = &host.addresses {
            let cause = format!("looking up the addresses of {}: {}", host.host, trouble.cause);
            return NoRoute::deferred(cause, trouble.whose);
        }
    }
    if !implicit {
        return NoRoute::failed("5.4.4", format!("no MX host of {name} has an address"));
    }
    match hosts.first().map(|host| &host.addresses) {
        Some(Answer::NoDomain) => NoRoute::dns_problem("5.1.2", format!("the domain {name} does not exist")),
        _ => NoRoute::dns_problem("5.4.4", format!("{name} has neither an MX host nor an address")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mx(preference: u16, exchange: &str) -> Mx {
        Mx { preference, exchange: exchange.to_owned() }
    }

    fn host(host: &str, addresses: Answer<Vec<IpAddr>>) -> Resolved {
        Resolved { host: host.to_owned(), preference: 10, addresses }
    }

    #[test]
    fn mx_hosts_are_sorted_and_equal_ones_shuffled() {
        let records = vec![mx(20, "c"), mx(10, "a"), mx(10, "b"), mx(0, "")];
        let mut firsts = std::collections::HashSet::new();
        for _ in 0..200 {
            let order = in_order(records.clone()).expect("hosts");
            assert_eq!(order.len(), 3);
            assert_eq!(order[2].exchange, "c");
            firsts.insert(order[0].exchange.clone());
        }
        assert_eq!(firsts.len(), 2, "both of equal preference come first at times");
        assert_eq!(in_order(vec![mx(0, "")]), None, "a null MX alone");
    }

    #[test]
    fn why_there_is_no_address_decides_the_status() {
        let trouble = || Answer::Trouble(Trouble { cause: "SERVFAIL".into(), whose: Whose::Theirs });
        for (implicit, hosts, outcome, enhanced, dns_problem) in [
            (false, vec![host("a", Answer::NoDomain), host("b", Answer::NoData)], Outcome::Failed, "5.4.4", false),
            (false, vec![host("a", Answer::NoDomain), host("b", trouble())], Outcome::Deferred, "4.4.3", false),
            (true, vec![host("x", Answer::NoData)], Outcome::Failed, "5.4.4", true),
            (true, vec![host("x", Answer::NoDomain)], Outcome::Failed, "5.1.2", true),
            (true, vec![host("x", trouble())], Outcome::Deferred, "4.4.3", false),
        ] {
            let none = no_address("x", implicit, &hosts);
            assert_eq!((none.outcome, none.enhanced, none.dns_problem), (outcome, enhanced, dns_problem), "{none:?}");
        }
    }

    #[test]
    fn recipients_are_grouped_by_domain_without_case() {
        let recipients = ["a@X.example", "b@y.example", "c@x.example."].map(|a| Address::parse(a).expect("an address"));
        let groups = by_domain(&recipients);
        assert_eq!(
            groups.iter().map(|(name, all)| (name.as_str(), all.len())).collect::<Vec<_>>(),
            [("x.example", 2), ("y.example", 1)]
        );
    }
}
