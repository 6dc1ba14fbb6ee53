//! SIGKILL at every step of a pass, and at random: nobody is lost, nobody is sent to twice
//! but where the record says so.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::support::relay::{Relay, Running, Setup};
use crate::support::sink::{Script, SmtpSink, close, on, reply, script, stall, wait};
use crate::support::zones::Zones;
use crate::support::{message, never_accepting};

const RUN_SPOOL: [&str; 4] = ["run", "spool", "--format", "json"];

fn submit(relay: &Relay) {
    relay.submit("me@example.org", &["you@example.net"], &message("m"));
}

/// Asks again until it is so; fails the test after a while.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn killed(mut running: Running) {
    running.kill();
    assert_eq!(running.wait().code, None);
}

/// `state counted`, oldest first.
fn states(relay: &Relay) -> Vec<String> {
    let word = |attempt: &Value| format!("{} {}", attempt["state"].as_str().expect("text"), attempt["counted"]);
    relay.attempts().iter().map(word).collect()
}

#[test]
fn killed_before_the_attempt_is_begun_costs_the_mail_nothing() {
    let peer = SmtpSink::start(Script::new());
    let zones = Zones::start(&format!("gw.example DELAY 1500\ngw.example A {}", peer.ip()));
    let dns = format!("dns: {{ servers: [\"{}\"], timeout: 10s, attempts: 1 }}", zones.address());
    let relay = Setup::gateway(format!("gw.example:{}", peer.port())).limit(1).top(&dns).build();
    submit(&relay);
    let running = relay.spawn(&RUN_SPOOL, b"");
    until("the gateway is looked up", || zones.queries("gw.example") > 0);

    killed(running);

    assert_eq!(relay.run_spool().expect(0).counts(), [1, 1, 0, 0, 0, 0]);
    assert_eq!(states(&relay), ["settled true"], "the limit of one attempt had room for it");
    assert_eq!(peer.copies_of("you@example.net", "<m@"), 1);
}

#[test]
fn killed_between_the_beginning_of_an_attempt_and_the_first_packet_it_stays_counted() {
    let (address, listener, waiting) = never_accepting();
    let relay = Setup::gateway(address).limit(2).build();
    submit(&relay);
    let running = relay.spawn(&RUN_SPOOL, b"");
    until("the attempt is on record", || !relay.attempts().is_empty());

    killed(running);

    drop((listener, waiting));
    let peer = SmtpSink::start_at(address, Script::new());
    assert_eq!(relay.run_spool().expect(0).counts(), [1, 1, 0, 0, 0, 0]);
    assert_eq!(states(&relay), ["inDoubt true", "settled true"]);
    assert_eq!(peer.copies_of("you@example.net", "<m@"), 1);
}

#[test]
fn killed_at_any_stage_before_the_final_dot_the_mail_is_delivered_once() {
    for stage in ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA"] {
        let peer = SmtpSink::start(script![on(stage).times(1) => stall()]);
        let relay = Setup::gateway(peer.address()).build();
        submit(&relay);
        let running = relay.spawn(&RUN_SPOOL, b"");
        let said = |line: &(Instant, String)| stage == "CONNECT" || line.1.starts_with(stage);
        peer.wait_until(stage, |seen| {
            seen.connections.iter().any(|c| stage == "CONNECT" || c.commands.iter().any(said))
        });

        killed(running);

        assert_eq!(relay.run_spool().expect(0).counts(), [1, 1, 0, 0, 0, 0], "{stage}");
        assert_eq!(peer.copies_of("you@example.net", "<m@"), 1, "{stage}");
        assert_eq!(states(&relay), ["inDoubt true", "settled true"], "{stage}");
        let first = &relay.attempts()[0]["recipients"][0];
        assert_eq!(
            (&first["recipient"], &first["outcome"]),
            (&"you@example.net".into(), &"deferred".into()),
            "{first}"
        );
    }
}

#[test]
fn killed_between_the_final_dot_and_its_reply_the_second_copy_is_announced_by_the_record() {
    let peer = SmtpSink::start(script![on(".").times(1) => stall()]);
    let relay = Setup::gateway(peer.address()).build();
    submit(&relay);
    let running = relay.spawn(&RUN_SPOOL, b"");
    peer.wait_for_transactions(1);

    killed(running);

    assert_eq!(relay.run_spool().expect(0).counts(), [1, 1, 0, 0, 0, 0]);
    assert_eq!(
        (states(&relay), peer.transactions().len()),
        (vec!["inDoubt true".to_owned(), "settled true".to_owned()], 2)
    );
    let first = &relay.attempts()[0]["recipients"][0];
    let cause = format!(
        "in doubt: redeliver died in this attempt with {} ({}); the peer may have the mail (RFC 1047)",
        peer.ip(),
        peer.address()
    );
    assert_eq!(first["cause"], cause.as_str());
    assert_eq!(
        (&first["nextHop"], &first["address"]),
        (&peer.address().to_string().into(), &peer.ip().to_string().into())
    );
}

#[test]
fn killed_while_the_final_dot_is_unanswered_refusals_are_on_record_and_not_in_doubt() {
    for capabilities in [&["PIPELINING"][..], &[]] {
        let rules = script![
            "RCPT TO:<no@" => "550 5.1.1 no such user",
            on("RCPT TO:<later@").times(1) => "450 4.2.0 greylisted",
            on(".").times(1) => stall(),
        ];
        let peer = SmtpSink::start(rules.capabilities(capabilities));
        let relay = Setup::gateway(peer.address()).build();
        relay.submit("me@example.org", &["no@example.net", "later@example.net", "yes@example.net"], &message("m"));
        let running = relay.spawn(&RUN_SPOOL, b"");
        peer.wait_for_transactions(1);
        until("the refusals are on record", || {
            relay.attempts()[0]["recipients"].as_array().is_some_and(|r| r.len() == 2)
        });

        killed(running);

        assert_eq!(relay.run_spool().expect(69).counts(), [1, 2, 0, 1, 0, 0], "{capabilities:?}");
        let refused = |name: &str| peer.commands().iter().filter(|line| line.contains(name)).count();
        assert_eq!((refused("<no@"), refused("<later@")), (1, 2), "who was refused for good is not asked again");
        let attempts = relay.attempts();
        let seen = |n: usize| {
            let one = &attempts[0]["recipients"][n];
            (one["code"].clone(), one["stage"].clone(), one["cause"].to_string().contains("in doubt"))
        };
        assert_eq!(seen(0), (550.into(), "rcpt".into(), false), "{capabilities:?}");
        assert_eq!(seen(1), (450.into(), "rcpt".into(), false), "{capabilities:?}");
        assert_eq!(seen(2), (Value::Null, "end-of-data".into(), true), "{capabilities:?}");
        let dialogue = attempts[0]["dialogue"].to_string();
        assert!(dialogue.contains("450 4.2.0 greylisted"), "{dialogue}");
    }
}

#[test]
fn killed_between_the_last_reply_and_its_record_there_is_one_copy_more_at_most() {
    let peer = SmtpSink::start(
        script![on(".").times(1) => wait(Duration::from_millis(500)).then(reply("250 2.0.0 ok")).then(close())],
    );
    let relay = Setup::gateway(peer.address()).build();
    submit(&relay);
    let running = relay.spawn(&RUN_SPOOL, b"");
    peer.wait_for_transactions(1);
    let database = rusqlite::Connection::open(relay.path().join("var/redeliver.db")).expect("the store");
    database.execute_batch("BEGIN IMMEDIATE").expect("the write lock");
    peer.wait_until("the end behind the reply", |seen| seen.connections[0].closed.is_some());

    killed(running);

    database.execute_batch("ROLLBACK").expect("unlocked");
    assert_eq!(relay.run_spool().expect(0).counts(), [1, 1, 0, 0, 0, 0]);
    assert_eq!(states(&relay), ["inDoubt true", "settled true"]);
    assert_eq!(peer.transactions().len(), 2);
}

/// One mail for two next hops: the first has answered, and that is on record, when the
/// process dies at the second.
fn killed_between_two_next_hops(first: Script) -> (Relay, SmtpSink, SmtpSink) {
    let first = SmtpSink::start(first);
    let second = SmtpSink::beside(&first, script![on("RCPT").times(1) => stall()]);
    let zones = Zones::start(&format!(
        "one.example MX 10 mx.one.example\nmx.one.example A {}
         two.example MX 10 mx.two.example\nmx.two.example A {}",
        first.ip(),
        second.ip()
    ));
    let relay = Setup::mx(&zones, first.port()).build();
    relay.submit("me@example.org", &["a@one.example", "b@two.example"], &message("m"));
    let running = relay.spawn(&RUN_SPOOL, b"");
    until("the first outcome is on record", || {
        relay.attempts().iter().any(|attempt| attempt["recipients"].as_array().is_some_and(|known| !known.is_empty()))
    });

    killed(running);

    // The zones are needed for the next run too.
    relay.run_spool();
    drop(zones);
    (relay, first, second)
}

#[test]
fn killed_between_two_next_hops_a_recorded_delivery_is_not_repeated() {
    let (relay, first, second) = killed_between_two_next_hops(Script::new());
    assert_eq!((first.copies_of("a@one.example", "<m@"), first.connections()), (1, 1));
    assert_eq!(second.copies_of("b@two.example", "<m@"), 1);
    let attempts = relay.attempts();
    assert_eq!(states(&relay), ["inDoubt true", "settled true"]);
    let outcomes: Vec<String> = attempts[0]["recipients"]
        .as_array()
        .expect("recipients")
        .iter()
        .map(|r| format!("{} {}", r["recipient"].as_str().expect("text"), r["outcome"].as_str().expect("text")))
        .collect();
    assert_eq!(outcomes, ["a@one.example delivered", "b@two.example deferred"]);
    assert_eq!(attempts[1]["recipients"].as_array().expect("recipients").len(), 1, "only b was left");
    assert_eq!((relay.size("temporary"), relay.size("permanent")), (0, 0));
}

#[test]
fn killed_between_two_next_hops_a_recorded_failure_is_filed_without_contact() {
    let (relay, first, second) = killed_between_two_next_hops(script!["RCPT" => "550 5.1.1 no such user"]);
    assert_eq!(first.connections(), 1);
    assert_eq!(second.copies_of("b@two.example", "<m@"), 1);
    let failed = relay.show_only("permanent");
    assert_eq!(failed["recipients"], serde_json::json!(["a@one.example"]));
    assert_eq!(failed["attributes"]["delivery-error"], "550 5.1.1 no such user");
    assert_eq!(failed["attributes"]["is-delivery-permanent-error"], "true");
    assert_eq!(relay.size("temporary"), 0);
}

#[test]
fn killed_between_two_next_hops_a_recorded_deferral_is_tried_again() {
    let (relay, first, second) = killed_between_two_next_hops(script![on("RCPT").times(1) => "451 4.2.0 later"]);
    assert_eq!((first.connections(), first.copies_of("a@one.example", "<m@")), (2, 1));
    assert_eq!(second.copies_of("b@two.example", "<m@"), 1);
    assert_eq!((relay.size("temporary"), relay.size("permanent")), (0, 0));
}

#[test]
fn killed_in_a_sweep_the_mail_is_free_again_where_it_was() {
    let peer = SmtpSink::start(script![on("RCPT").times(1) => "451 4.2.0 later", on("RCPT").times(1) => stall()]);
    let relay = Setup::gateway(peer.address()).build();
    submit(&relay);
    relay.run_spool().expect(75);
    let running = relay.spawn(&["run", "retry-temporary", "--now"], b"");
    peer.wait_for_connections(2);
    until("the attempt is on record", || relay.attempts().len() == 2);

    killed(running);

    assert_eq!(relay.run_spool().expect(0).counts(), [0; 6], "it is not in the spool");
    assert_eq!(relay.size("temporary"), 1);
    assert_eq!(relay.sweep().expect(0).counts(), [1, 1, 0, 0, 0, 0]);
    let deliveries = relay.attempts();
    assert_eq!(deliveries.iter().map(|a| a["number"].as_u64().expect("a number")).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn killed_attempts_never_add_up_to_more_than_the_limit() {
    let peer = SmtpSink::start(script!["RCPT" => stall()]);
    let relay = Setup::gateway(peer.address()).limit(2).build();
    submit(&relay);
    for attempt in 1..=2 {
        let running = relay.spawn(&RUN_SPOOL, b"");
        peer.wait_for_connections(attempt);
        killed(running);
    }

    assert_eq!(relay.run_spool().expect(69).counts(), [1, 0, 0, 1, 1, 0]);

    assert_eq!(peer.connections(), 2);
    let mail = relay.show_only("permanent");
    assert_eq!((&mail["passes"], &mail["attributes"]["AT_MOST_EXECUTIONS"]), (&2.into(), &"2".into()));
}

#[test]
fn a_mail_alone_in_hand_at_three_deaths_is_set_aside_and_can_be_sent_round_again() {
    let peer = SmtpSink::start(script![on("CONNECT").times(3) => stall()]);
    let relay = Setup::gateway(peer.address()).limit(9).build();
    submit(&relay);
    for attempt in 1..=3 {
        let running = relay.spawn(&RUN_SPOOL, b"");
        peer.wait_for_connections(attempt);
        killed(running);
    }

    assert_eq!(relay.run_spool().expect(70).counts(), [1, 0, 0, 0, 0, 1]);

    assert_eq!(peer.connections(), 3);
    let mail = relay.show_only("var/mail/error");
    assert!(mail["error"].as_str().is_some_and(|error| error.contains("set aside")), "{mail}");
    let listed = relay.command(&["repository", "mails", "var/mail/error"]).expect(0);
    assert!(
        listed.stdout.contains("crashed 3 times in a row") && listed.stdout.contains(&peer.address().to_string()),
        "{listed:?}"
    );
    let key = mail["key"].as_str().expect("a key");
    relay.command(&["repository", "reprocess", "var/mail/error", key, "--processor", "relay"]).expect(0);
    assert_eq!(relay.run_spool().expect(0).counts(), [1, 1, 0, 0, 0, 0]);
}

#[test]
fn a_sendmail_that_dies_before_its_input_ends_leaves_nothing() {
    let peer = SmtpSink::start(Script::new());
    let relay = Setup::gateway(peer.address()).build();
    let configuration = relay.configuration();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_redeliver"))
        .arg("--config")
        .arg(&configuration)
        .args(["sendmail", "-i", "-f", "me@example.org", "you@example.net"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("the program");
    let mut input = child.stdin.take().expect("piped");
    // More than a row, so that there is something ownerless in the store.
    let begun = format!("{}{}", message("m"), "x".repeat(70).repeat(20_000));
    std::io::Write::write_all(&mut input, begun.as_bytes()).expect("taken");
    child.kill().expect("our own child");
    child.wait().expect("ended");

    assert_eq!(relay.run_spool().expect(0).counts(), [0; 6]);
    let database = rusqlite::Connection::open(relay.path().join("var/redeliver.db")).expect("the store");
    let rows: i64 = database.query_row("SELECT count(*) FROM message", [], |row| row.get(0)).expect("a number");
    assert_eq!((rows, peer.connections()), (0, 0));
}

#[test]
fn killed_at_the_first_start_the_next_one_makes_the_store() {
    let mut random = StdRng::seed_from_u64(14);
    for _ in 0..20 {
        let relay = Setup::gateway("127.0.0.2:25").build();
        let mut running = relay.spawn(&["repository", "list"], b"");
        std::thread::sleep(Duration::from_micros(random.random_range(0..20_000)));
        running.kill();
        running.wait();
        submit(&relay);
        assert_eq!(relay.command(&["repository", "list", "--format", "json"]).expect(0).json().len(), 3);
    }
}

#[test]
fn killed_while_many_are_moved_each_is_in_one_place_and_the_command_can_be_given_again() {
    const MAILS: usize = 1500;

    let peer = SmtpSink::start(script!["MAIL" => "451 4.2.0 later"]);
    let relay = Setup::gateway(peer.address()).build();
    relay.fill((0..MAILS).map(|_| vec!["you@example.net"]));
    relay.run_spool().expect(75);
    let sizes = || ["temporary", "permanent"].map(|repository| relay.size(repository));
    assert_eq!(sizes(), [MAILS, 0]);
    let command = ["repository", "move", "temporary", "--all", "--to", "permanent"];
    let running = relay.spawn(&command, b"");
    let database = rusqlite::Connection::open(relay.path().join("var/redeliver.db")).expect("the store");
    until("some are moved", || {
        let moved =
            "SELECT count(*) FROM mail JOIN repository ON repository.id = mail.repository WHERE path LIKE '%permanent'";
        database.query_row(moved, [], |row| row.get::<_, usize>(0)).expect("a number") > 0
    });
    killed(running);
    let [left, moved] = sizes();
    assert!(left > 0 && left + moved == MAILS, "{left} and {moved}");
    relay.command(&command).expect(0);
    assert_eq!(sizes(), [0, MAILS]);
}

/// A relay under fire: what was accepted, and a peer that refuses, defers and dawdles.
struct Harness {
    relay: Relay,
    peers: [SmtpSink; 3],
    accepted: Vec<String>,
    random: StdRng,
    _zones: Zones,
}

impl Harness {
    fn new(seed: u64) -> Self {
        let slow = |text| wait(Duration::from_millis(15)).then(reply(text));
        let first = SmtpSink::start(script!["." => slow("250 2.0.0 ok")]);
        let moody = script![
            on("RCPT TO:<no").nth(1) => "550 5.1.1 no such user",
            on("MAIL").nth(2) => "451 4.3.0 enough for now",
            "RCPT" => slow("250 2.1.5 ok"),
        ];
        let peers =
            [SmtpSink::beside(&first, moody), SmtpSink::beside(&first, script!["RCPT TO:<no" => "550 5.1.1 no"])];
        let [second, third] = peers;
        let peers = [first, second, third];
        let zone = |(n, peer): (usize, &SmtpSink)| {
            format!("d{n}.example MX 10 mx{n}.example\nmx{n}.example A {}\n", peer.ip())
        };
        let zones = Zones::start(&peers.iter().enumerate().map(zone).collect::<String>());
        let relay = Setup::mx(&zones, peers[0].port()).limit(50).build();
        Self { relay, peers, accepted: Vec::new(), random: StdRng::seed_from_u64(seed), _zones: zones }
    }

    /// A mail for each of the peers, then for two, then for one.
    fn submit(&mut self) {
        let number = self.accepted.len();
        let kind = if number.is_multiple_of(4) { "no" } else { "r" };
        let recipients: Vec<_> =
            (0..=self.random.random_range(0..3)).map(|d| format!("{kind}{number}x{d}@d{d}.example")).collect();
        let borrowed: Vec<_> = recipients.iter().map(String::as_str).collect();
        self.relay.submit("me@example.org", &borrowed, &message(&format!("m{number}")));
        self.accepted.extend(recipients);
    }

    fn round(&mut self) {
        for _ in 0..self.random.random_range(1..4) {
            self.submit();
        }
        let job = if self.random.random_bool(0.6) { "spool" } else { "retry-temporary" };
        let running = self.relay.spawn(&["run", job, "--now"], b"");
        std::thread::sleep(Duration::from_millis(self.random.random_range(0..250)));
        let mut running = running;
        running.kill();
        running.wait();
    }

    /// Runs without disturbance until nothing waits any more.
    fn come_to_rest(&self) {
        for _ in 0..60 {
            let counts = [self.relay.run_spool().counts(), self.relay.sweep().counts()];
            if counts == [[0; 6]; 2] {
                return;
            }
        }
        panic!("after 60 runs there is still something to do");
    }

    fn account(&self) {
        let attempts = self.relay.attempts();
        let mut delivered: BTreeMap<&str, usize> = BTreeMap::new();
        let mut in_doubt: BTreeMap<&str, usize> = BTreeMap::new();
        for attempt in &attempts {
            assert_ne!(attempt["state"], "open", "{attempt}");
            for record in attempt["recipients"].as_array().expect("recipients") {
                let recipient = record["recipient"].as_str().expect("text");
                *delivered.entry(recipient).or_default() += usize::from(record["outcome"] == "delivered");
                let doubtful = attempt["state"] == "inDoubt" && record["outcome"] != "delivered";
                *in_doubt.entry(recipient).or_default() += usize::from(doubtful);
            }
        }
        let mut kept: BTreeMap<String, usize> = BTreeMap::new();
        for repository in ["temporary", "permanent", "var/mail/error"] {
            for mail in self.relay.mails(repository) {
                for recipient in mail["recipients"].as_array().expect("recipients") {
                    *kept.entry(recipient.as_str().expect("text").to_owned()).or_default() += 1;
                }
            }
        }
        for recipient in &self.accepted {
            let (delivered, kept) =
                (delivered.get(recipient.as_str()).unwrap_or(&0), kept.get(recipient).unwrap_or(&0));
            assert_eq!(delivered + kept, 1, "{recipient}: delivered {delivered} times, kept {kept} times");
            let copies: usize = self.peers.iter().map(|peer| peer.copies_of(recipient, "@example.org>")).sum();
            let doubtful = in_doubt.get(recipient.as_str()).unwrap_or(&0);
            assert!(
                copies >= *delivered && copies <= delivered + doubtful,
                "{recipient}: {copies} copies, {doubtful} in doubt"
            );
        }
        for peer in &self.peers {
            assert_eq!(peer.violations(), Vec::<String>::new());
        }
    }

    fn store_is_sound(&self) {
        let database = rusqlite::Connection::open(self.relay.path().join("var/redeliver.db")).expect("the store");
        let answer: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("an answer");
        assert_eq!(answer, "ok");
    }
}

/// `REDELIVER_KILL_ROUNDS` has it go on for longer, `REDELIVER_KILL_SEED` repeats one.
#[test]
fn killed_at_random_every_accepted_recipient_is_somewhere_exactly_once() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let rounds = number("REDELIVER_KILL_ROUNDS").unwrap_or(20);
    let seed = number("REDELIVER_KILL_SEED").unwrap_or_else(rand::random);
    println!("REDELIVER_KILL_SEED={seed}");
    let mut harness = Harness::new(seed);
    for _ in 0..rounds {
        harness.round();
    }
    harness.come_to_rest();
    harness.account();
    harness.store_is_sound();
}
