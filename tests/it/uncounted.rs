//! Passes that end before a packet because of ourselves: they count for no mail, the mail
//! stays where it was, and the run says what is wrong.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::relay::{Finished, Relay, Setup};
use crate::support::sink::{Script, SmtpSink, on, reply, script};
use crate::support::zones::Zones;
use crate::support::{message, refusing};

/// A relay with mails in `temporary`, and those it works with.
struct Waiting {
    relay: Relay,
    peer: SmtpSink,
    zones: Zones,
}

/// Two mails in `temporary`, each after one counted pass of so many.
fn waiting(limit: u32) -> Waiting {
    let peer = SmtpSink::start(script![on("RCPT").times(2) => reply("450 4.2.0 later")]);
    let zones = Zones::start(&format!("one.example A {0}\ntwo.example A {0}", peer.ip()));
    let relay = Setup::mx(&zones, peer.port()).limit(limit).delivery("bind: 127.0.0.1").build();
    relay.submit("me@example.org", &["a@one.example"], &message("m0"));
    relay.submit("me@example.org", &["b@two.example"], &message("m1"));
    relay.run_spool().expect(75);
    Waiting { relay, peer, zones }
}

impl Waiting {
    /// Nothing of the failures of this machine has touched the mails.
    fn are_as_before(&self, what: &str) {
        let mails = self.relay.mails("temporary");
        assert_eq!((mails.len(), self.relay.size("permanent"), self.relay.size("var/mail/error")), (2, 0, 0), "{what}");
        assert_eq!(self.peer.connections(), 2, "{what}: those of the first pass");
        for mail in mails {
            assert_eq!(mail["passes"], 1, "{what}: {mail}");
            let shown = self.relay.show("temporary", mail["key"].as_str().expect("a key"));
            assert_eq!(shown["attributes"]["AT_MOST_EXECUTIONS"], "1", "{what}");
            assert_eq!(shown["attributes"]["delivery-error-code"], "450", "{what}: that of the last counted pass");
        }
    }

    /// As soon as the trouble is over the mails are delivered, by the pass they still have.
    fn are_delivered_at_last(&self) {
        assert_eq!(self.relay.sweep().expect(0).counts(), [2, 2, 0, 0, 0, 0]);
    }
}

fn is_trouble_of_our_own(finished: &Finished, named: &str) {
    let [selected, delivered, deferred, failed, promoted, errors] = finished.counts();
    assert_eq!((delivered, deferred, failed, promoted), (0, 0, 0, 0), "{finished:?}");
    assert!(selected > 0 && errors > 0, "{finished:?}");
    assert!(finished.stderr.contains(named), "{finished:?}");
}

#[test]
fn a_weekend_with_a_dead_resolver_promotes_nothing() {
    let waiting = waiting(2);
    let (alive, dead) = (waiting.zones.address().to_string(), refusing().to_string());
    waiting.relay.reconfigure(&alive, &dead);
    waiting.relay.reconfigure("timeout: 1s", "timeout: 50ms");
    for _ in 0..25 {
        is_trouble_of_our_own(&waiting.relay.sweep().expect(70), "no name server answers");
    }
    waiting.are_as_before("a dead resolver");
    let attempts = waiting.relay.attempts();
    let uncounted: Vec<_> = attempts.iter().filter(|attempt| attempt["counted"] == false).collect();
    assert!(uncounted.len() >= 25, "each is on record: {}", uncounted.len());
    for attempt in uncounted {
        let record = &attempt["recipients"][0];
        assert_eq!((&record["outcome"], &record["stage"]), (&json!("deferred"), &json!("dns")), "{record}");
    }
    waiting.relay.reconfigure("timeout: 50ms", "timeout: 1s");
    waiting.relay.reconfigure(&dead, &alive);
    waiting.are_delivered_at_last();
}

#[test]
fn mail_that_waits_in_the_spool_waits_on_while_the_resolver_is_dead() {
    let peer = SmtpSink::start(Script::new());
    let zones = Zones::start(&format!("one.example A {}", peer.ip()));
    let relay = Setup::mx(&zones, peer.port()).limit(1).build();
    let (alive, dead) = (zones.address().to_string(), refusing().to_string());
    relay.reconfigure(&alive, &dead);
    relay.reconfigure("timeout: 1s", "timeout: 50ms");
    relay.submit("me@example.org", &["a@one.example"], &message("m"));
    for _ in 0..3 {
        is_trouble_of_our_own(&relay.run_spool().expect(70), "no name server answers");
    }
    let by_sendmail = relay.command(&["sendmail", "-q"]).expect(70);
    assert!(by_sendmail.stderr.contains("no name server answers"), "{by_sendmail:?}");
    relay.reconfigure("timeout: 50ms", "timeout: 1s");
    relay.reconfigure(&dead, &alive);
    assert_eq!(relay.run_spool().expect(0).counts(), [1, 1, 0, 0, 0, 0]);
}

#[test]
fn dead_dns_takes_a_bounded_time_and_stops_the_sweep() {
    let relay = Setup::mx(&Zones::start("one.example SILENT"), 25).build();
    relay.fill((0..300).map(|n| vec![format!("r@d{}.example", n % 30)]));
    let finished = relay.run_spool().expect(70);
    assert!(finished.elapsed < std::time::Duration::from_secs(10), "{finished:?}");
    assert_eq!((relay.size("temporary"), relay.size("permanent")), (0, 0));
}

#[test]
fn a_domain_without_an_answer_is_deferred_while_the_resolver_answers_for_others() {
    let peer = SmtpSink::start(Script::new());
    let zones = Zones::start(&format!("good.example A {}\nmute.example SILENT", peer.ip()));
    let relay = Setup::mx(&zones, peer.port()).build();
    relay.submit("me@example.org", &["a@good.example", "b@mute.example"], &message("m"));
    assert_eq!(relay.run_spool().expect(75).counts(), [1, 1, 1, 0, 0, 0]);
    assert_eq!(relay.mails("temporary")[0]["passes"], 1, "that is the domain's trouble, and counts");
}

#[test]
fn an_address_that_cannot_be_bound_counts_for_nobody() {
    let waiting = waiting(2);
    waiting.relay.reconfigure("bind: 127.0.0.1", "bind: 192.0.2.1");
    for _ in 0..4 {
        is_trouble_of_our_own(&waiting.relay.sweep().expect(70), "192.0.2.1");
    }
    waiting.are_as_before("bind refused");
    waiting.relay.reconfigure("bind: 192.0.2.1", "bind: 127.0.0.1");
    waiting.are_delivered_at_last();
}

#[test]
fn trouble_that_the_first_mail_meets_does_not_meet_all_others() {
    let relay = Setup::gateway(refusing()).delivery("bind: 192.0.2.1").build();
    relay.fill((0..1000).map(|n| vec![format!("r{n}@example.net")]));
    for _ in 0..3 {
        let finished = relay.run_spool().expect(70);
        is_trouble_of_our_own(&finished, "192.0.2.1");
        assert!(finished.counts()[0] < 500, "{finished:?}");
    }
    assert!(relay.attempts().len() < 1000, "the record does not grow with what waits");
}

/// A name server that refuses every question, as a resolver does that cannot reach anybody.
fn refusing_name_server() -> SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("bound");
    std::thread::spawn(move || {
        let mut question = [0; 512];
        // For as long as the tests run.
        while let Ok((octets, from)) = socket.recv_from(&mut question) {
            question[2] |= 0x80;
            question[3] = question[3] & 0xf0 | 5;
            let _ = socket.send_to(&question[..octets], from);
        }
    });
    address
}

#[test]
fn of_two_name_servers_the_one_that_knows_is_heard() {
    let peer = SmtpSink::start(Script::new());
    let names: String = (0..20).map(|n| format!("d{n}.example A {}\n", peer.ip())).collect();
    let zones = Zones::start(&names);
    let alive = zones.address().to_string();
    let relay = Setup::mx(&zones, peer.port()).build();
    let refusing = refusing_name_server();
    relay.reconfigure(&alive, &format!("{refusing}\", \"{alive}"));
    relay.fill((0..20).map(|n| vec![format!("r@d{n}.example")]));
    assert_eq!(relay.run_spool().expect(0).counts(), [20, 20, 0, 0, 0, 0]);
}

#[test]
fn a_resolver_that_answers_with_errors_alone_promotes_nothing() {
    let waiting = waiting(2);
    let (alive, dead) = (waiting.zones.address().to_string(), refusing_name_server().to_string());
    waiting.relay.reconfigure(&alive, &dead);
    for _ in 0..3 {
        is_trouble_of_our_own(&waiting.relay.sweep().expect(70), "the name servers answer with errors alone");
    }
    waiting.are_as_before("a resolver without anybody to ask");
    waiting.relay.reconfigure(&dead, &alive);
    waiting.are_delivered_at_last();
}

#[test]
fn a_name_server_that_is_silent_meets_few_mails() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let zones = Zones::start("unused.example A 127.0.0.1");
    let relay = Setup::mx(&zones, 25).build();
    relay.reconfigure(&zones.address().to_string(), &silent.local_addr().expect("bound").to_string());
    relay.fill((0..1000).map(|n| vec![format!("r@d{n}.example")]));
    let finished = relay.run_spool().expect(70);
    is_trouble_of_our_own(&finished, "no name server answers");
    assert!(finished.counts()[0] <= 64, "{finished:?}");
    assert_eq!(relay.attempts().len() as u64, finished.counts()[0], "each that was taken is on record");
}

/// Runs a command through another program, such as one that takes something away from it.
fn through(prefix: &[&str], relay: &Relay, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let output = Command::new(prefix[0])
        .args(&prefix[1..])
        .arg(env!("CARGO_BIN_EXE_redeliver"))
        .arg("--config")
        .arg(relay.configuration())
        .args(arguments)
        .current_dir(relay.path())
        .output()
        .expect("the program");
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default(), text(&output.stderr))
}

const SWEEP: [&str; 5] = ["run", "retry-temporary", "--now", "--format", "json"];

/// The store, the runtime and the DNS need descriptors too: with ever more of them the run
/// gets ever further, and ends in order wherever it ends.
#[test]
fn out_of_descriptors_only_what_reached_the_peer_is_counted_and_nothing_is_lost() {
    let Waiting { relay, peer, zones: _zones } = waiting(50);
    let mut ends = Vec::new();
    for limit in 8..64 {
        let limited = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
        let (code, result, errors) = through(&["sh", "-c", &limited], &relay, &SWEEP);
        ends.push(format!("{limit}: {code:?} {result} {errors}"));
        assert!(matches!(code, Some(0 | 70 | 73..=75)) && !errors.contains("panicked"), "{}", ends.join("\n"));
        if relay.size("temporary") == 0 {
            break;
        }
    }
    let ends = ends.join("\n");
    let resting = ["temporary", "permanent", "var/mail/error"].map(|repository| relay.size(repository));
    assert_eq!((resting, peer.transactions().len()), ([0; 3], 2), "with enough of them each is sent, once: {ends}");
    let attempts = relay.attempts();
    let (counted, uncounted): (Vec<_>, Vec<_>) = attempts.iter().partition(|attempt| attempt["counted"] == true);
    assert!(counted.iter().all(|attempt| attempt["recipients"][0]["localAddress"].is_string()), "{counted:#?}");
    assert!(!uncounted.is_empty(), "some runs could open the store and nothing else: {ends}");
}

/// In a network of its own, without even a loopback interface, there is no route at all.
#[test]
fn without_any_route_nothing_is_counted() {
    let isolated = ["unshare", "--map-root-user", "--net"];
    let allowed = Command::new(isolated[0]).args(&isolated[1..]).arg("true").status();
    if !allowed.is_ok_and(|status| status.success()) {
        // This machine lets nobody make a network: then the scenario cannot be had on it.
        return;
    }
    let peer = SmtpSink::start(script![on("RCPT").times(1) => reply("450 4.2.0 later")]);
    let relay = Setup::gateway(peer.address()).limit(2).build();
    relay.submit("me@example.org", &["a@example.net"], &message("m"));
    relay.run_spool().expect(75);
    for _ in 0..3 {
        let (code, result, errors) = through(&isolated, &relay, &SWEEP);
        assert_eq!((code, &result["errors"], &result["deferred"]), (Some(70), &json!(1), &json!(0)), "{errors}");
        assert!(errors.contains("route"), "{errors}");
    }
    let mail = relay.show_only("temporary");
    assert_eq!((&mail["passes"], &mail["attributes"]["AT_MOST_EXECUTIONS"]), (&json!(1), &json!("1")));
    assert_eq!(relay.sweep().expect(0).counts(), [1, 1, 0, 0, 0, 0]);
}

#[test]
fn a_host_without_a_route_is_its_own_trouble_where_others_have_one() {
    let unreachable: SocketAddr = "[2001:db8::1]:25".parse().expect("an address");
    let peer = SmtpSink::start(Script::new());
    let relay = Setup::gateway(format!("{unreachable}, {}", peer.address())).delivery("connectiontimeout: 1s").build();
    relay.submit("me@example.org", &["a@example.net"], &message("m"));
    assert_eq!(relay.run_spool().expect(0).counts(), [1, 1, 0, 0, 0, 0], "the next one is tried");
}

#[test]
fn of_one_mail_only_those_count_a_pass_whom_our_own_trouble_did_not_meet() {
    let peer = SmtpSink::start(script!["RCPT TO:<later" => "450 4.2.0 later"]);
    let zones = Zones::start(&format!("one.example A {}", peer.ip()));
    let relay = Setup::mx(&zones, peer.port()).limit(2).delivery("bind: 127.0.0.1").build();
    let (alive, dead) = (zones.address().to_string(), refusing().to_string());
    relay.reconfigure(&alive, &dead);
    relay.reconfigure("timeout: 1s", "timeout: 50ms");
    let [yes, later] = ["yes", "later"].map(|name| format!("{name}@[{}]", peer.ip()));
    relay.submit("me@example.org", &[&yes, &later, "nobody@one.example"], &message("m"));
    let first = relay.run_spool().expect(70);
    assert_eq!(first.counts(), [1, 1, 1, 0, 0, 1], "{first:?}");
    assert!(first.stderr.contains("no name server answers"), "{first:?}");
    assert_eq!(peer.transactions().iter().filter(|one| one.is_taken()).count(), 1);
    for _ in 0..3 {
        relay.run_spool().expect(70);
        relay.sweep();
    }
    assert_eq!((relay.size("temporary"), relay.size("permanent")), (0, 1));
    let failed = relay.mails("permanent");
    assert_eq!(failed[0]["recipients"], json!([later]), "{failed:?}");
    assert_eq!(peer.transactions().iter().filter(|one| one.is_taken()).count(), 1, "nobody gets it twice");
    relay.reconfigure("timeout: 50ms", "timeout: 1s");
    relay.reconfigure(&dead, &alive);
    assert_eq!(relay.run_spool().expect(0).counts(), [1, 1, 0, 0, 0, 0], "it waited");
}

#[test]
fn a_command_that_gets_too_few_descriptors_says_so() {
    let relay = Setup::gateway("127.0.0.1:9").build();
    relay.command(&["repository", "list"]).expect(0);
    let commands: [&[&str]; 6] = [
        &["repository", "list"],
        &["run", "spool"],
        &["attempts"],
        &["explain", "a@x.example"],
        &["serve"],
        &["sendmail", "-bp"],
    ];
    for limit in [6, 7, 8, 10, 12, 14] {
        let limited = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
        for command in commands {
            let (code, _, errors) = through(&["sh", "-c", &limited], &relay, command);
            let is_told = errors.contains("redeliver: no file can be opened: ") && errors.contains("ulimit -n");
            assert!(
                code == Some(75) && is_told && errors.lines().count() == 1,
                "{limit} {command:?}: {code:?} {errors}"
            );
        }
    }
}
