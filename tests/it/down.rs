//! Dead, busy and slow peers in one sweep with good ones: what they cost the others, and
//! what is recorded of the mails that were not tried because of an earlier one.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::refusing;
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{
    Connection, Identity, Script, SmtpSink, Then, close, on, reply, reset, script, stall, wait,
};
use crate::support::zones::Zones;

/// The large numbers of a scenario where this is set, smaller ones where not.
fn in_full() -> bool {
    std::env::var_os("REDELIVER_FULL_SCENARIOS").is_some()
}

/// `number` recipients of a domain, a mail for each.
fn mails(domain: &str, number: usize) -> impl Iterator<Item = Vec<String>> {
    (0..number).map(move |n| vec![format!("r{n}@{domain}")])
}

fn recipients(attempts: &[Value]) -> impl Iterator<Item = &Value> {
    attempts.iter().flat_map(|attempt| attempt["recipients"].as_array().expect("recipients"))
}

/// From the first contact to the last final dot.
fn busy_time(peer: &SmtpSink) -> Duration {
    let record = peer.record();
    let first = record.connections.iter().map(|c| c.opened).min().expect("a connection");
    let last = record.transactions.iter().map(|t| t.ended).max().expect("a transaction");
    last - first
}

#[test]
fn mails_for_a_black_hole_do_not_hold_up_those_for_a_good_peer() {
    let (lost, good) = if in_full() { (10_000, 1_000) } else { (200, 50) };
    let peer = SmtpSink::start(Script::new());
    let hole = SmtpSink::beside(&peer, script!["CONNECT" => stall()]);
    let zones = Zones::start(&format!("good.example A {}\nhole.example A {}", peer.ip(), hole.ip()));
    let relay = Setup::mx(&zones, peer.port()).delivery("timeout: 3s").build();
    relay.fill(mails("hole.example", lost).chain(mails("good.example", good)));

    let started = Instant::now();
    let finished = relay.run_spool().expect(75);

    assert_eq!(finished.counts(), [(lost + good) as u64, good as u64, lost as u64, 0, 0, 0]);
    assert_eq!(hole.connections(), 1, "one time-out for all of them");
    let good_ones_left = peer.record().transactions.iter().map(|t| t.ended).max().expect("a transaction") - started;
    let limit = Duration::from_secs(if in_full() { 60 } else { 15 });
    assert!(good_ones_left < limit, "the last good one left after {good_ones_left:?}");
    let attempts = relay.attempts();
    assert_eq!(attempts.len(), lost + good, "each has a record of its own");
    let waiting = recipients(&attempts).filter(|r| r["outcome"] == "deferred");
    for record in waiting {
        assert_eq!((&record["stage"], &record["nextHop"]), (&json!("banner"), &json!("hole.example")));
        assert!(record["cause"].as_str().is_some_and(|cause| cause.contains("timed out after 3 s")), "{record}");
    }
    assert!(attempts.iter().all(|attempt| attempt["counted"] == true && attempt["state"] == "settled"));
    assert!(relay.mails("temporary").iter().all(|mail| mail["passes"] == 1));
}

#[test]
fn many_mails_for_silent_peers_wait_in_the_store_and_count_one_pass() {
    let (lost, good) = if in_full() { (33_000, 1_000) } else { (700, 30) };
    let peer = SmtpSink::start(Script::new());
    let holes = [0; 2].map(|_| SmtpSink::beside(&peer, script!["CONNECT" => stall()]));
    let records = [format!("good.example A {}", peer.ip())];
    let silent = holes.iter().enumerate().map(|(n, hole)| format!("hole{n}.example A {}", hole.ip()));
    let zones = Zones::start(&records.into_iter().chain(silent).collect::<Vec<_>>().join("\n"));
    let relay = Setup::mx(&zones, peer.port()).delivery("timeout: 12s").build();
    relay.fill(mails("hole0.example", lost).chain(mails("hole1.example", lost)).chain(mails("good.example", good)));

    let started = Instant::now();
    let finished = relay.run_spool().expect(75);

    assert_eq!(finished.counts(), [(2 * lost + good) as u64, good as u64, 2 * lost as u64, 0, 0, 0]);
    assert!(holes.iter().all(|hole| hole.connections() == 1), "one time-out for all of a peer's");
    let last_good = peer.record().transactions.iter().map(|t| t.ended).max().expect("a transaction");
    let first_lost = relay.attempts().iter().filter(|one| one["recipients"][0]["outcome"] == "deferred").count();
    assert_eq!(first_lost, 2 * lost, "each has a record of its own");
    let limit = Duration::from_secs(if in_full() { 60 } else { 12 });
    assert!(last_good - started < limit, "good ones do not wait for the time-out: {:?}", last_good - started);
    assert!(relay.mails("temporary").iter().all(|mail| mail["passes"] == 1), "a mail that waits uses up no pass");
}

#[test]
fn mails_that_wait_in_the_store_rest_again_after_a_stop() {
    let peer = SmtpSink::start(script!["CONNECT" => stall()]);
    let relay = Setup::gateway(peer.address()).build();
    relay.fill(mails("x.example", 900));
    let running = relay.spawn(&["run", "spool", "--format", "json"], b"");
    peer.wait_until("a connection", |seen| !seen.connections.is_empty());
    // More are claimed by now than wait in memory.
    std::thread::sleep(Duration::from_secs(3));

    for _ in 0..2 {
        let process = Pid::from_raw(i32::try_from(running.id()).expect("a process id"));
        kill(process, Signal::SIGTERM).expect("it runs");
        std::thread::sleep(Duration::from_millis(100));
    }
    running.wait().expect(75);

    let tried = relay.size("temporary");
    assert!(tried <= 1, "{tried} were tried, over one connection");
    let next = SmtpSink::start(Script::new());
    relay.reconfigure(&peer.address().to_string(), &next.address().to_string());
    let left = 900 - tried as u64;
    assert_eq!(relay.run_spool().expect(0).counts(), [left, left, 0, 0, 0, 0], "nothing stayed in hand");
}

/// What makes a peer be down, and what the record then says: `stage`, and a part of the cause.
fn ways_to_be_down() -> Vec<(&'static str, Script, &'static str, &'static str)> {
    let offers_tls = || Script::new().starttls(Identity::self_signed("mx"));
    let refuses_auth = offers_tls().auth("relay", "another password");
    vec![
        ("reset", script!["CONNECT" => wait(Duration::from_millis(50)).then(reset())], "banner", "reset"),
        ("closed", script!["CONNECT" => close()], "banner", "closed"),
        ("silent", script!["CONNECT" => stall()], "banner", "timed out"),
        ("554 greeting", script!["CONNECT" => "554 5.3.2 no mail here"], "banner", "no mail here"),
        ("EHLO refused", script!["EHLO" => "550 5.7.1 you?", "HELO" => "550 5.7.1 you?"], "ehlo", "you?"),
        ("no STARTTLS", script![], "starttls", "does not offer STARTTLS"),
        ("STARTTLS refused", offers_tls().on("STARTTLS", "454 4.7.0 not now"), "starttls", "not now"),
        ("AUTH refused", refuses_auth, "auth", "wrong credentials"),
        ("AUTH not offered", offers_tls(), "auth", "neither AUTH PLAIN nor AUTH LOGIN"),
        (
            "AUTH refused for now",
            offers_tls().auth("relay", "x").on("AUTH", "454 4.7.0 database down"),
            "auth",
            "database down",
        ),
    ]
}

#[test]
fn a_peer_found_down_is_asked_once_and_answers_for_its_other_mails() {
    for (what, script, stage, cause) in ways_to_be_down() {
        let peer = SmtpSink::start(script);
        let mut setup = Setup::gateway(peer.address()).delivery("timeout: 700ms").limit(2);
        if matches!(stage, "starttls" | "auth") {
            setup = setup.delivery("startTLS: required");
        }
        if stage == "auth" {
            setup = setup.delivery("gatewayUsername: relay").delivery("gatewayPassword: secret");
        }
        let relay = setup.build();
        relay.fill(mails("example.net", 8));

        assert_eq!(relay.run_spool().expect(75).counts(), [8, 0, 8, 0, 0, 0], "{what}");

        assert_eq!(peer.connections(), 1, "{what}");
        assert_eq!(
            peer.commands().iter().filter(|line| line.starts_with("AUTH")).count(),
            usize::from(stage == "auth" && !cause.contains("neither")),
            "{what}"
        );
        let attempts = relay.attempts();
        assert_eq!(attempts.len(), 8, "{what}");
        for record in recipients(&attempts) {
            assert_eq!((&record["outcome"], &record["stage"]), (&json!("deferred"), &json!(stage)), "{what}: {record}");
            assert!(record.to_string().contains(cause), "{what}: {record}");
            let address = [&record["host"], &record["address"], &record["port"]].map(ToString::to_string).join(" ");
            assert_eq!(address, format!("\"{0}\" \"{0}\" {1}", peer.ip(), peer.port()), "{what}: {record}");
        }
        for mail in relay.mails("temporary") {
            assert_eq!(mail["passes"], 1, "{what}: it counts");
        }
        // A new sweep asks again, once, and the limit is reached for all alike.
        assert_eq!(relay.sweep().expect(69).counts(), [8, 0, 0, 8, 8, 0], "{what}");
        assert_eq!(peer.connections(), 2, "{what}");
    }
}

#[test]
fn a_refused_connection_answers_for_the_other_mails() {
    let relay = Setup::gateway(refusing()).build();
    relay.fill(mails("example.net", 50));
    assert_eq!(relay.run_spool().expect(75).counts(), [50, 0, 50, 0, 0, 0]);
    let attempts = relay.attempts();
    let (first, later): (Vec<_>, Vec<_>) =
        recipients(&attempts).partition(|r| !r["cause"].as_str().expect("a cause").contains("was found down"));
    assert_eq!((first.len(), later.len()), (1, 49));
    let cause = first[0]["cause"].as_str().expect("a cause");
    assert!(cause.contains("connection refused"), "{cause}");
    assert!(later.iter().all(|r| r["cause"].as_str().is_some_and(|c| c.ends_with(cause)) && r["stage"] == "connect"));
}

#[test]
fn a_dead_address_that_two_domains_share_is_recorded_with_each_mails_own_host() {
    let dead = SmtpSink::start(script!["CONNECT" => close()]);
    let zones = Zones::start(&format!(
        "one.example MX 10 mx.one.example
         two.example MX 10 mx.two.example
         mx.one.example A {0}
         mx.two.example A {0}",
        dead.ip()
    ));
    let relay = Setup::mx(&zones, dead.port()).delivery("deliveryThreads: 1").build();
    relay.fill(mails("one.example", 2).chain(mails("two.example", 2)));
    assert_eq!(relay.run_spool().expect(75).counts(), [4, 0, 4, 0, 0, 0]);

    assert_eq!(dead.connections(), 1);
    let attempts = relay.attempts();
    assert_eq!(recipients(&attempts).count(), 4);
    for record in recipients(&attempts) {
        let domain = record["recipient"].as_str().and_then(|r| r.split_once('@')).expect("an address").1;
        let named =
            [&record["nextHop"], &record["host"], &record["address"]].map(|name| name.as_str().expect("a name"));
        assert_eq!(named, [domain, &format!("mx.{domain}"), &dead.ip().to_string()], "{record}");
        assert!(record["cause"].as_str().is_some_and(|cause| cause.contains(&format!("mx.{domain} ("))), "{record}");
    }
}

#[test]
fn of_a_hop_with_several_addresses_only_the_dead_are_left_out() {
    let good = SmtpSink::start(Script::new());
    let dead = SmtpSink::beside(&good, script!["CONNECT" => close()]);
    let zones = Zones::start(&format!(
        "example.net MX 10 dead.example.net
         example.net MX 20 good.example.net
         dead.example.net A {}
         good.example.net A {}",
        dead.ip(),
        good.ip()
    ));
    // One connection at a time, closed by the peer, so that hosts are chosen for each mail.
    let relay = Setup::mx(&zones, good.port()).delivery("deliveryThreads: 1").build();
    relay.fill(mails("example.net", 30));
    assert_eq!(relay.run_spool().expect(0).counts(), [30, 30, 0, 0, 0, 0]);
    assert_eq!((dead.connections(), good.transactions().len()), (1, 30));
}

#[test]
fn auth_refused_at_one_gateway_is_not_tried_at_the_next() {
    let script = || Script::new().starttls(Identity::self_signed("gw")).auth("relay", "right");
    let peers = [SmtpSink::start(script()), SmtpSink::start(script())];
    let relay = Setup::gateway(format!("{}, {}", peers[0].address(), peers[1].address()))
        .delivery("gatewayUsername: relay")
        .delivery("gatewayPassword: wrong")
        .build();
    relay.fill(mails("example.net", 10));
    assert_eq!(relay.run_spool().expect(75).counts(), [10, 0, 10, 0, 0, 0]);
    let tries = |peer: &SmtpSink| peer.commands().iter().filter(|line| line.starts_with("AUTH")).count();
    assert_eq!(peers.each_ref().map(tries), [1, 0], "an account is locked after a few");
}

#[test]
fn a_limit_of_connections_defers_nobody() {
    for (what, script) in [
        ("two sessions", script![].max_connections(2)),
        ("one session", script![].max_connections(1)),
        ("two, further ones closed: two sessions", script![].closes_beyond(2)),
        ("one, further ones closed: one session", script![].closes_beyond(1)),
        ("two, closed after each mail", script!["." => reply("250 2.0.0 taken").then(close())].max_connections(2)),
        (
            "two, 421 at the sixth",
            script![on("MAIL").nth(6) => reply("421 4.7.0 enough").then(close())].max_connections(2),
        ),
    ] {
        let peer = SmtpSink::start(script);
        let relay = Setup::gateway(peer.address()).build();
        relay.fill(mails("example.net", 40));
        assert_eq!(relay.run_spool().expect(0).counts(), [40, 40, 0, 0, 0, 0], "{what}");
        assert_eq!((peer.transactions().len(), relay.attempts().len()), (40, 40), "{what}: each once");
        assert_eq!(peer.violations(), Vec::<String>::new(), "{what}");
        if what.ends_with("session") || what.ends_with("sessions") {
            // A few may knock at the same time before the first is told.
            assert!(peer.connections() <= 10, "{what}: {} connections", peer.connections());
        }
    }
}

#[test]
fn a_peer_that_takes_some_mails_and_then_no_more_is_given_up_once() {
    // Seven mails over one session each, then 421 for good.
    let busy = script!["." => reply("250 2.0.0 taken").then(close())];
    let peer = SmtpSink::start((8..200).fold(busy, |script, n| {
        script.on(on("CONNECT").connection(n), reply("421 4.3.2 no more today").then(close()))
    }));
    let relay = Setup::gateway(peer.address()).delivery("deliveryThreads: 1").build();
    relay.fill(mails("example.net", 60));
    let finished = relay.run_spool().expect(75);
    let [selected, delivered, deferred, ..] = finished.counts();
    assert_eq!((selected, delivered + deferred), (60, 60), "{finished:?}");
    assert!(delivered > 0 && peer.connections() < 30, "{} connections: {finished:?}", peer.connections());
}

#[test]
fn whoever_greets_and_says_no_more_costs_a_sweep_one_time_out() {
    for (what, script) in [
        ("silent at EHLO", script!["EHLO" => stall(), "HELO" => stall()]),
        ("closed at EHLO", script!["EHLO" => close(), "HELO" => close()]),
        ("421 at EHLO", script!["EHLO" => reply("421 4.3.2 not now").then(close())]),
    ] {
        let peer = SmtpSink::start(script);
        let relay = Setup::gateway(peer.address()).delivery("timeout: 500ms").build();
        relay.fill(mails("example.net", 30));
        let finished = relay.run_spool().expect(75);
        assert_eq!(finished.counts(), [30, 0, 30, 0, 0, 0], "{what}");
        assert!(peer.connections() <= 2, "{what}: {} connections", peer.connections());
    }
}

#[test]
fn a_421_greeting_without_any_session_is_a_deferral() {
    let peer = SmtpSink::start(script!["CONNECT" => reply("421 4.3.2 too busy").then(close())]);
    let relay = Setup::gateway(peer.address()).build();
    relay.fill(mails("example.net", 3));
    assert_eq!(relay.run_spool().expect(75).counts(), [3, 0, 3, 0, 0, 0]);
    assert!(recipients(&relay.attempts()).all(|r| r["code"] == 421 && r["stage"] == "banner"));
}

/// Every reply takes a while.
fn slow(pause: Duration) -> Script {
    let after = |text: &str| -> Then { wait(pause).then(reply(text)) };
    script!["MAIL" => after("250 ok"), "RCPT" => after("250 ok"), "DATA" => after("354 go"), "." => after("250 taken")]
}

#[test]
fn a_slow_peer_has_half_of_the_connections_while_others_wait() {
    let fast = SmtpSink::start(script!["." => wait(Duration::from_millis(10)).then(reply("250 taken"))]);
    let slow = SmtpSink::beside(&fast, slow(Duration::from_millis(60)).capabilities(&[]));
    let zones = Zones::start(&format!("fast.example A {}\nslow.example A {}", fast.ip(), slow.ip()));
    let relay = Setup::mx(&zones, fast.port()).delivery("deliveryThreads: 4").build();
    // The slow ones came first.
    relay.fill(mails("slow.example", 30).chain(mails("fast.example", 100)));

    relay.run_spool().expect(0);

    let ended = |peer: &SmtpSink| peer.record().transactions.iter().map(|t| t.ended).max().expect("a transaction");
    assert!(ended(&fast) < ended(&slow), "the fast ones did not wait for the slow ones");
    // What it had before the others came it has given back by then.
    let middle = fast.record().transactions[50].ended;
    let is_open = |c: &&Connection| c.opened < middle && c.closed.is_none_or(|closed| closed > middle);
    let open = slow.record().connections.iter().filter(is_open).count();
    assert!(open <= 2, "{open} of 4 connections for the slow peer");
    assert!(slow.connections() > 2, "once nobody else waits it has more: {}", slow.connections());
    assert!(busy_time(&fast) < busy_time(&slow));
}

#[test]
fn peers_that_never_answer_leave_connections_for_the_others() {
    let good = SmtpSink::start(Script::new());
    let holes: Vec<_> = (0..3).map(|_| SmtpSink::beside(&good, script!["CONNECT" => stall()])).collect();
    let mut zones: String =
        holes.iter().enumerate().map(|(n, hole)| format!("hole{n}.example A {}\n", hole.ip())).collect();
    zones.push_str(&format!("good.example A {}", good.ip()));
    let zones = Zones::start(&zones);
    let relay = Setup::mx(&zones, good.port()).delivery("deliveryThreads: 4").delivery("timeout: 3s").build();
    let lost = (0..3).flat_map(|n| mails(["hole0.example", "hole1.example", "hole2.example"][n], 30));
    relay.fill(lost.chain(mails("good.example", 50)));

    let finished = relay.run_spool().expect(75);

    assert_eq!(finished.counts(), [140, 50, 90, 0, 0, 0]);
    assert!(holes.iter().all(|hole| hole.connections() == 1));
    assert!(busy_time(&good) < Duration::from_millis(2800), "{:?}", busy_time(&good));
}

/// The mails of a dead hop, pass after pass.
fn passes(relay: &Relay) -> Vec<u64> {
    relay.mails("temporary").iter().map(|mail| mail["passes"].as_u64().expect("a number")).collect()
}

#[test]
fn mails_answered_for_are_promoted_by_the_limit_like_those_that_were_tried() {
    let peer = SmtpSink::start(script!["CONNECT" => close()]);
    let relay = Setup::gateway(peer.address()).limit(3).build();
    relay.fill(mails("example.net", 8));
    relay.run_spool().expect(75);
    assert_eq!(passes(&relay), [1; 8]);
    relay.sweep().expect(75);
    assert_eq!(passes(&relay), [2; 8]);
    assert_eq!(relay.sweep().expect(69).counts(), [8, 0, 0, 8, 8, 0]);
    assert_eq!((relay.size("temporary"), relay.size("permanent"), peer.connections()), (0, 8, 3));
    let mail = relay.mails("permanent")[7]["key"].as_str().expect("a key").to_owned();
    assert_eq!(relay.show("permanent", &mail)["attempts"].as_array().map(Vec::len), Some(3));
}
