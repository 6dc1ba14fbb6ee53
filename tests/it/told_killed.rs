//! SIGKILL around the birth of notifications: each sender is told of each recipient once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::message;
use crate::support::relay::{Relay, Running};
use crate::support::sink::{Script, SmtpSink, Transaction, on, reply, script, stall, wait};

const RUN_SPOOL: [&str; 4] = ["run", "spool", "--format", "json"];

/// Everything that may be asked for is told; each recipient has a transaction of his own.
pub(crate) fn telling(gateway: impl std::fmt::Display, top: &str) -> Relay {
    let configuration = format!(
        "hostname: relay.test
sendmail: {{ domain: relay.test }}
dsn: {{ perSender: 100000/h, total: 100000/h }}
{top}
processors:
  relay:
    - match: AtMost=50
      mailet: RemoteDelivery
      gateway: \"{gateway}\"
      maxRecipientsPerTransaction: 1
      bounceProcessor: failed
      onSuccess: delivered
    - mailet: DSNBounce
    - mailet: ToRepository
      repositoryPath: sqlite://permanent/
  failed:
    - match: IsRemoteDeliveryTemporaryError
      mailet: ToRepository
      repositoryPath: sqlite://temporary/
    - mailet: DSNBounce
    - mailet: ToRepository
      repositoryPath: sqlite://permanent/
  delivered:
    - match: DSNSuccessRequested
      mailet: DSNBounce
    - mailet: 'Null'
"
    );
    let retry = "kind: reprocess\nrepository: sqlite://temporary/\nprocessor: relay\n";
    Relay::written(&[("redeliver.yaml", configuration.as_str()), ("jobs/retry-temporary.yaml", retry)])
}

fn submit(relay: &Relay, to: &[&str], id: &str) {
    let arguments = [&["sendmail", "-i", "-N", "success,failure", "-f", "me@sender.example", "--"], to].concat();
    relay.command_with_input(&arguments, message(id).as_bytes()).expect(0);
}

fn killed(mut running: Running) {
    running.kill();
    assert_eq!(running.wait().code, None);
}

/// Runs without disturbance until nothing waits any more.
fn come_to_rest(relay: &Relay) {
    for _ in 0..60 {
        if [relay.run_spool().counts(), relay.sweep().counts()] == [[0; 6]; 2] {
            return;
        }
    }
    panic!("after 60 runs there is still something to do");
}

/// The first value of a field.
pub(crate) fn field<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default().trim_end()
}

/// How many notifications, told apart by Message-ID, tell `action recipient`.
pub(crate) fn told(peer: &SmtpSink) -> BTreeMap<String, usize> {
    let mut by_event: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let is_one = |transaction: &Transaction| transaction.reverse_path.is_empty() && transaction.is_taken();
    for notification in peer.transactions().iter().filter(|transaction| is_one(transaction)).map(Transaction::text) {
        let id = field(&notification, "Message-ID").to_owned();
        for group in notification.split("\r\n\r\n").filter(|group| group.contains("Final-Recipient: ")) {
            let event =
                format!("{} {}", field(group, "Action"), field(group, "Final-Recipient").replace("rfc822; ", ""));
            by_event.entry(event).or_default().insert(id.clone());
        }
    }
    by_event.into_iter().map(|(event, ids)| (event, ids.len())).collect()
}

fn once(events: &[&str]) -> BTreeMap<String, usize> {
    events.iter().map(|event| ((*event).to_owned(), 1)).collect()
}

/// Asks again until it is so; fails the test after a while.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Outcomes on record.
fn known(relay: &Relay) -> usize {
    relay.attempts().iter().map(|attempt| attempt["recipients"].as_array().map_or(0, Vec::len)).sum()
}

#[test]
fn killed_at_each_step_around_a_settle_the_sender_is_told_of_each_recipient_once() {
    let (no, yes) = ("no@x.example", "yes@x.example");
    // Where the peer falls silent, once, and how many outcomes are on record then: before
    // anything is known, between a refusal or a delivery on record and the settle, behind the
    // final dot, and at each step of the notifications, when all is settled.
    for (to, silent, outcomes) in [
        ([no, yes], "RCPT TO:<no@", 0),
        ([no, yes], "RCPT TO:<yes@", 1),
        ([no, yes], ". yes@x.example", 1),
        ([yes, no], "RCPT TO:<no@", 1),
        ([no, yes], "MAIL FROM:<>", 2),
        ([no, yes], "RCPT TO:<me@", 2),
        ([no, yes], ". me@sender.example", 2),
    ] {
        let when = match silent.strip_prefix(". ") {
            Some(recipient) => on(".").to(recipient),
            None => on(silent),
        };
        // Without PIPELINING each step comes after the reply to the one before.
        let script = script![when.times(1) => stall(), "RCPT TO:<no@" => "550 5.1.1 nobody"];
        let peer = SmtpSink::start(script.capabilities(&["SIZE 1000000"]));
        let relay = telling(peer.address(), "");
        submit(&relay, &to, "m");
        let running = relay.spawn(&RUN_SPOOL, b"");
        peer.wait_until(silent, |seen| match silent.strip_prefix(". ") {
            Some(to) => seen.transactions.iter().any(|one| one.complete && one.recipients.iter().any(|r| r == to)),
            None => seen.connections.iter().flat_map(|one| &one.commands).any(|(_, line)| line.starts_with(silent)),
        });
        until("what is known is on record", || known(&relay) >= outcomes);

        killed(running);

        come_to_rest(&relay);
        assert_eq!(told(&peer), once(&["failed no@x.example", "relayed yes@x.example"]), "{to:?} {silent}");
        assert_eq!(relay.size("permanent"), 1, "{to:?} {silent}");
        let copies = peer.copies_of(yes, "<m@");
        assert_eq!(copies, if silent == ". yes@x.example" { 2 } else { 1 }, "{to:?} {silent}");
    }
}

/// `REDELIVER_KILL_ROUNDS` has it go on for longer, `REDELIVER_KILL_SEED` repeats one.
#[test]
fn killed_at_random_under_load_the_sender_is_told_of_each_recipient_once() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let rounds = number("REDELIVER_KILL_ROUNDS").unwrap_or(15);
    let seed = number("REDELIVER_KILL_SEED").unwrap_or_else(rand::random);
    println!("REDELIVER_KILL_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let slow = |text| wait(Duration::from_millis(3)).then(reply(text));
    let peer = SmtpSink::start(script![
        "RCPT TO:<no" => "550 5.1.1 nobody",
        on("MAIL").nth(5) => "451 4.3.0 enough for now",
        "." => slow("250 2.0.0 ok"),
    ]);
    let relay = telling(peer.address(), "");
    let mut expected = BTreeMap::new();
    let mut mails = 0;
    for _ in 0..rounds {
        for _ in 0..random.random_range(2..5) {
            mails += 1;
            let (no, yes) = (format!("no{mails}@x.example"), format!("yes{mails}@x.example"));
            let mut to = [no.as_str(), yes.as_str()];
            to.rotate_left(usize::from(random.random_bool(0.5)));
            submit(&relay, &to, &format!("m{mails}"));
            expected.extend([(format!("failed {no}"), 1), (format!("relayed {yes}"), 1)]);
        }
        let job = if random.random_bool(0.7) { "spool" } else { "retry-temporary" };
        let mut running = relay.spawn(&["run", job, "--now"], b"");
        std::thread::sleep(Duration::from_millis(random.random_range(0..250)));
        running.kill();
        running.wait();
    }
    come_to_rest(&relay);
    // What was alone in hand at three deaths in a row was set aside.
    for set_aside in ["var/mail/error", "var/mail/error/dsn"] {
        relay.command(&["repository", "reprocess", set_aside, "--all", "--processor", "relay"]);
    }
    come_to_rest(&relay);
    assert_eq!(told(&peer), expected);
    // However often it is tried again.
    for _ in 0..3 {
        relay.command(&["repository", "reprocess", "permanent", "--all", "--processor", "relay", "--reset"]).expect(0);
        come_to_rest(&relay);
    }
    assert_eq!(told(&peer), expected);
    let errors = relay.command(&["repository", "list", "--format", "json"]).expect(0).json();
    let kept = errors.iter().filter(|one| one["repository"] != "permanent" && one["size"] != 0);
    assert_eq!(kept.count(), 0, "{errors:?}");
}
