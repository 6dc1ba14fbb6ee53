//! Names as this machine has them: its own, resolv.conf and the search list.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redeliver::clock::Clock;
use redeliver::delivery::{Config, Delivery, DnsConfig, Explanation, Gateway, Network};
use redeliver::mail::{Address, Outcome};
use redeliver::stop::Stop;
use serde_json::Value;

use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink};
use crate::support::zones::Zones;
use crate::support::{fresh_loopback, message, refusing};

/// With this resolv.conf, whose servers nobody has to be.
fn relay_with(resolv_conf: Option<&str>) -> Relay {
    let relay = Setup::gateway(refusing()).top("dns: { resolvConf: rc, timeout: 300ms, attempts: 1 }").build();
    if let Some(text) = resolv_conf {
        std::fs::write(relay.path().join("rc"), text).expect("a file");
    }
    relay
}

#[test]
fn whatever_resolv_conf_says_mail_is_taken_and_listed() {
    // What it says, and what `check` says of it.
    for (resolv_conf, warned) in [
        (None, "so that 127.0.0.1 is asked"),
        (Some(""), "rc names no name server, so that 127.0.0.1 is asked"),
        (Some("domain (none)\nnameserver 192.0.2.1\n"), "rc:1: \"(none)\" is no domain to search in: passed over"),
        (Some("nameserver 192.0.2.1\nsearch space\\032space.com\n"), "rc:2: \"space\\\\032space.com\" is no domain"),
        (Some("nameserver ns.example\n"), "rc:1: \"ns.example\" is no address of a name server: passed over"),
        (Some("what is this?\n"), "rc:1: \"what is this?\" is no line of resolv.conf(5): passed over"),
        (Some("\u{0}\u{7f}\n"), "rc:1:"),
        (Some("options ndots:many\nnameserver 192.0.2.1\n"), "rc:1: the option \"ndots:many\" needs a number"),
    ] {
        let relay = relay_with(resolv_conf);
        relay.submit("me@example.org", &["u@x.example"], &message("m0"));
        relay.command(&["repository", "list"]).expect(0);
        let checked = relay.command(&["check"]).expect(0).stdout;
        assert!(checked.lines().any(|line| line.starts_with("warning: ") && line.contains(warned)), "{checked}");
        assert!(checked.ends_with("ok\n"), "{checked}");
        // A gateway by its address needs nobody: it is asked, and refuses.
        relay.run_spool().expect(75);
        assert_eq!(relay.only_record()["stage"], "connect", "{resolv_conf:?}");
    }
    let checked = relay_with(Some("nameserver 192.0.2.1\noptions trust-ad edns0\n")).command(&["check"]).expect(0);
    assert!(!checked.stdout.contains("rc"), "{}", checked.stdout);
}

#[test]
fn without_a_name_server_mail_waits_uncounted_and_the_run_says_why() {
    let dead = fresh_loopback();
    let relay = Setup::mx(&Zones::start(""), 25).build();
    let text = std::fs::read_to_string(relay.configuration()).expect("written");
    let dns = text.lines().find(|line| line.starts_with("dns:")).expect("a line");
    relay.reconfigure(dns, "dns: { resolvConf: rc, timeout: 300ms }");
    std::fs::write(relay.path().join("rc"), format!("nameserver {dead}\n")).expect("a file");
    relay.submit("me@example.org", &["u@x.example"], &message("m0"));
    let run = relay.run_spool().expect(70);
    assert_eq!(run.counts(), [1, 0, 0, 0, 0, 1], "{run:?}");
    assert!(run.stderr.contains("no name server answers: looking up the MX records of x.example"), "{}", run.stderr);
    let explained = relay.command(&["explain", "u@x.example"]).expect(0).stdout;
    assert!(
        explained.contains("deferred") && explained.contains("looking up the MX records of x.example"),
        "{explained}"
    );
    assert_eq!((relay.size("temporary"), relay.size("permanent")), (0, 0));
}

/// What a delivery would do that asks the servers of this resolv.conf at the zones' port.
struct Asking {
    network: Arc<Network>,
    runtime: tokio::runtime::Runtime,
}

impl Asking {
    fn new(zones: &Zones, resolv_conf: &Path, hosts: &Path) -> Self {
        let dns = DnsConfig {
            timeout: Some(Duration::from_millis(300)),
            attempts: Some(1),
            resolv_conf: resolv_conf.to_owned(),
            hosts: hosts.to_owned(),
            port: zones.address().port(),
            ..DnsConfig::default()
        };
        let hostname = "relay.test".to_owned();
        let network = Network::new(Clock::system(), &dns, hostname, Vec::new(), Stop::default(), None);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        Self { network, runtime }
    }

    fn explain(&self, gateway: Option<&str>, recipient: &str) -> Explanation {
        let gateways = gateway.map(|host| Gateway { host: host.to_owned(), port: None });
        let config = Config { gateways: gateways.into_iter().collect(), ..Config::default() };
        let delivery = Delivery::new(config, Arc::clone(&self.network)).expect("valid");
        let recipient = Address::parse(recipient).expect("an address");
        self.runtime.block_on(delivery.explain(&recipient))
    }

    /// The addresses that would be tried, else the outcome.
    fn told(&self, gateway: Option<&str>, recipient: &str) -> String {
        let explained = self.explain(gateway, recipient);
        match explained.outcome {
            Some(outcome) => outcome.to_string(),
            None => explained.hosts.iter().map(|host| host.address.to_string()).collect::<Vec<_>>().join(" "),
        }
    }
}

const CLUSTER: &str = "
    onelabel.example      MX 10 intranet
    intranet.svc.cluster.local A 127.0.0.66
    short.example         MX 10 relay.mail
    dotted.example        MX 10 mx.dotted.example
    mx.dotted.example     A 127.0.0.9
    relay.mail.svc.cluster.local A 127.0.0.7
    gw.example.net        A 127.0.0.8
    gw.example.net.svc.cluster.local A 127.0.0.66
    only.second.test      A 127.0.0.6
    half.svc.cluster.local AAAA 2001:db8::1
    broken.svc.cluster.local SERVFAIL
    broken.second.test    A 127.0.0.5
    down.svc.cluster.local SERVFAIL
    intranet              MX 10 intranet.svc.cluster.local
    tld                   A 127.0.0.4";

#[test]
fn a_strangers_name_is_absolute_and_the_operators_is_searched_for() {
    let zones = Zones::start(CLUSTER);
    let files = tempfile::tempdir().expect("a directory");
    let (resolv_conf, hosts) = (files.path().join("resolv.conf"), files.path().join("hosts"));
    std::fs::write(&hosts, "127.0.0.3 pinned pinned.example intranet\n").expect("a file");
    let server = format!("nameserver {}\nsearch svc.cluster.local second.test\n", zones.address().ip());
    // Options, the gateway, the recipient, what is tried.
    for (options, gateway, recipient, told) in [
        ("", None, "a@onelabel.example", "failed"),
        ("options ndots:5", None, "a@onelabel.example", "failed"),
        ("options ndots:5", None, "a@short.example", "failed"),
        ("options ndots:5", None, "a@relay.mail", "failed"),
        ("options ndots:5", None, "a@dotted.example", "127.0.0.9"),
        ("", None, "a@relay", "failed"),
        ("", None, "a@tld", "127.0.0.4"),
        ("", None, "a@pinned", "failed"),
        ("", Some("relay.mail"), "a@x.example", "127.0.0.7"),
        ("options ndots:5", Some("relay.mail"), "a@x.example", "127.0.0.7"),
        ("", Some("gw.example.net"), "a@x.example", "127.0.0.8"),
        ("options ndots:5", Some("gw.example.net"), "a@x.example", "127.0.0.66"),
        ("options ndots:5", Some("gw.example.net."), "a@x.example", "127.0.0.8"),
        ("", Some("relay.mail."), "a@x.example", "deferred"),
        ("", Some("only"), "a@x.example", "127.0.0.6"),
        ("", Some("half"), "a@x.example", "2001:db8::1"),
        ("", Some("tld"), "a@x.example", "127.0.0.4"),
        ("", Some("broken"), "a@x.example", "127.0.0.5"),
        ("", Some("down"), "a@x.example", "deferred"),
        ("", Some("pinned"), "a@x.example", "127.0.0.3"),
        ("", Some("PINNED.example"), "a@x.example", "127.0.0.3"),
        ("", Some("nowhere"), "a@x.example", "deferred"),
    ] {
        std::fs::write(&resolv_conf, format!("{server}{options}\n")).expect("a file");
        let asking = Asking::new(&zones, &resolv_conf, &hosts);
        assert_eq!(asking.told(gateway, recipient), told, "{options:?} {gateway:?} {recipient}");
    }
    assert_eq!(zones.queries("intranet.svc.cluster.local"), 0, "nobody may ask for it through us");
    let asking = Asking::new(&zones, &resolv_conf, &hosts);
    let cause = asking.explain(Some("down"), "a@x.example").cause.unwrap_or_default();
    assert!(cause.contains("SERVFAIL"), "{cause}");
}

#[test]
fn a_resolv_conf_that_changes_is_read_again_within_seconds() {
    let peer = Ipv4Addr::new(127, 0, 0, 9);
    let zones = Zones::start(&format!("x.example A {peer}\npinned.example MX 10 p.pinned.example"));
    let other = Zones::beside(&zones, "x.example A 127.0.0.8");
    let files = tempfile::tempdir().expect("a directory");
    let (resolv_conf, hosts) = (files.path().join("resolv.conf"), files.path().join("hosts"));
    // No file, then an empty one, a dead server, one, and another one of the same length.
    let asking = Asking::new(&zones, &resolv_conf, &hosts);
    assert_eq!(asking.explain(None, "a@x.example").outcome, Some(Outcome::Deferred));
    let becomes = |told: &str, recipient: &str| {
        let start = Instant::now();
        while asking.told(None, recipient) != told {
            assert!(start.elapsed() < Duration::from_secs(5), "{told} is not seen: {:?}", asking.told(None, recipient));
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let dead = fresh_loopback();
    for (text, told) in [
        (String::new(), "deferred"),
        (format!("nameserver {dead}\n"), "deferred"),
        (format!("nameserver {}\n", zones.address().ip()), "127.0.0.9"),
        (format!("nameserver {}\n", other.address().ip()), "127.0.0.8"),
    ] {
        std::fs::write(&resolv_conf, text).expect("a file");
        becomes(told, "a@x.example");
    }
    std::fs::write(&resolv_conf, format!("nameserver {}\n", zones.address().ip())).expect("a file");
    std::fs::write(&hosts, "127.0.0.77 p.pinned.example\n").expect("a file");
    becomes("127.0.0.77", "a@pinned.example");
    // Replaced as resolvconf(8) and NetworkManager do it.
    std::fs::write(files.path().join("new"), format!("nameserver {}\n", other.address().ip())).expect("a file");
    std::fs::rename(files.path().join("new"), &resolv_conf).expect("renamed");
    becomes("127.0.0.8", "a@x.example");
}

#[test]
fn each_name_server_is_asked_before_a_question_is_given_up() {
    let peer = SmtpSink::start(Script::new());
    let zones = Zones::start(&format!("a.example A {0}\nb.example A {0}\nc.example A {0}", peer.ip()));
    let failing = Zones::start("a.example SERVFAIL\nb.example SERVFAIL\nc.example SERVFAIL");
    let refusing_all = Zones::start("a.example REFUSED\nb.example REFUSED\nc.example REFUSED");
    let referring = Zones::start("a.example REFERRAL ns.x\nb.example REFERRAL ns.x\nc.example REFERRAL ns.x");
    let silent = UdpSocket::bind((fresh_loopback(), 0)).expect("a free port");
    let silent = silent.local_addr().expect("bound");
    let good = zones.address();
    for servers in [
        vec![silent, refusing(), good],
        vec![refusing(), silent, good],
        vec![failing.address(), silent, good],
        vec![referring.address(), good],
        vec![silent, refusing_all.address(), good],
        vec![good, silent, refusing()],
        vec![failing.address(), refusing_all.address(), refusing(), silent, good],
    ] {
        let relay = Setup::mx(&zones, peer.port()).build();
        let listed = servers.iter().map(|server| format!("\"{server}\"")).collect::<Vec<_>>().join(", ");
        relay.reconfigure(&format!("\"{good}\""), &listed);
        relay.reconfigure("timeout: 1s", "timeout: 300ms");
        for domain in ["a.example", "b.example", "c.example"] {
            relay.submit("me@example.org", &[&format!("u@{domain}")], &message(domain));
        }
        let run = relay.run_spool().expect(0);
        assert_eq!(run.counts(), [3, 3, 0, 0, 0, 0], "{servers:?}");
        assert!(run.elapsed < Duration::from_secs(10), "{servers:?}: {:?}", run.elapsed);
    }
}

#[test]
fn a_question_that_nobody_answers_takes_a_bounded_time() {
    let sockets: Vec<_> = (0..3).map(|_| UdpSocket::bind((fresh_loopback(), 0)).expect("a free port")).collect();
    let listed = sockets.iter().map(|socket| format!("\"{}\"", socket.local_addr().expect("bound")));
    let relay = Setup::gateway("gw.example.net")
        .top(&format!("dns: {{ servers: [{}], timeout: 500ms, attempts: 2 }}", listed.collect::<Vec<_>>().join(", ")))
        .build();
    relay.submit("me@example.org", &["a@x.example"], &message("m0"));
    let run = relay.run_spool().expect(70);
    assert!(run.elapsed < Duration::from_secs(8), "two rounds over three servers: {:?}", run.elapsed);
}

#[test]
fn an_ehlo_name_that_peers_refuse_is_warned_of_with_the_key_to_set() {
    // Host name, a line of RemoteDelivery, what is said.
    for (hostname, delivery, said) in [
        ("relay.example.org", "", None),
        (
            "web1",
            "",
            Some("the EHLO name \"web1\" is no full name, and many peers refuse mail for that: set 'hostname'"),
        ),
        ("localhost", "", Some("set 'hostname'")),
        ("localhost.localdomain", "", Some("set 'hostname'")),
        ("web1.", "", Some("set 'hostname'")),
        ("web1", "heloName: relay.example.org", None),
        ("web1", "heloName: '[192.0.2.1]'", None),
        ("relay.example.org", "heloName: web1", Some("set 'heloName of RemoteDelivery'")),
    ] {
        let mut setup = Setup::gateway("gw.example.net");
        if !delivery.is_empty() {
            setup = setup.delivery(delivery);
        }
        let relay = setup.build();
        relay.reconfigure("hostname: relay.test", &format!("hostname: {hostname}"));
        let told: Vec<Value> = relay.command(&["check", "--format", "json"]).expect(0).json();
        let warnings = told[0]["warnings"].as_array().expect("warnings");
        let found: Vec<_> = warnings.iter().filter(|warning| warning.to_string().contains("EHLO name")).collect();
        match said {
            None => assert!(found.is_empty(), "{hostname} {delivery}: {found:?}"),
            Some(said) => assert!(
                matches!(&found[..], [only] if only.as_str().is_some_and(|text| text.contains(said))),
                "{hostname} {delivery}: {found:?}"
            ),
        }
    }
}

#[test]
fn a_gateway_without_a_dot_is_warned_of_where_its_certificate_is_judged_by_it() {
    for (gateway, delivery, warned) in [
        ("relay", "startTLS: verify", true),
        ("relay.", "startTLS: verify", true),
        ("relay", "startTLS: required", false),
        ("relay", "{ startTLS: verify, verifyServerIdentity: false }", false),
        ("relay.mail", "startTLS: verify", false),
        ("192.0.2.1", "startTLS: verify", false),
        ("[2001:db8::1]", "startTLS: verify", false),
    ] {
        let lines = delivery.trim_matches(['{', '}', ' ']).split(", ");
        let relay = lines.fold(Setup::gateway(gateway), Setup::delivery).build();
        let checked = relay.command(&["check"]).expect(0).stdout;
        let said = format!("gateway {gateway:?}: its certificate must be for just this name");
        assert_eq!(checked.contains(&said), warned, "{gateway} {delivery}: {checked}");
    }
}

#[test]
fn a_gateway_that_is_this_relay_is_warned_of() {
    for (listen, gateway, warned) in [
        ("127.0.0.1:2525", "127.0.0.1:2525", true),
        ("0.0.0.0:2525", "127.0.0.1:2525", true),
        ("[::1]:2525", "[::1]:2525", true),
        ("127.0.0.1:2525", "127.0.0.1:2526", false),
        ("127.0.0.1:2525", "192.0.2.1:2525", false),
        ("127.0.0.1:2525", "gw.example.net:2525", false),
    ] {
        let relay = Setup::gateway(gateway).top(&format!("smtp: {{ listen: [\"{listen}\"] }}")).build();
        let checked = relay.command(&["check"]).expect(0).stdout;
        assert_eq!(checked.contains("is this relay itself (smtp.listen)"), warned, "{listen} {gateway}: {checked}");
    }
}
