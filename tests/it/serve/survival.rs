//! SIGKILL at random instants under load: what was acknowledged is accounted for, and every
//! further copy at the peer is announced by the record.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::{Client, Service, message, served, write_schedule};
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, on, script, wait};

/// Attempts of one mail at most.
const LIMIT: u32 = 3;

/// One mail's recipients, which nobody else has: by their names the peer takes, defers or
/// refuses them.
fn recipients(id: &str) -> [String; 4] {
    ["good.a", "later", "never", "good.b"].map(|name| format!("{name}.{id}@a.example"))
}

/// Between two mails of one client.
const PAUSE: Duration = Duration::from_millis(10);

/// How often the service is killed; more with `REDELIVER_KILL_ROUNDS`.
fn rounds() -> u32 {
    std::env::var("REDELIVER_KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(50)
}

/// When it is killed, the same again with `REDELIVER_KILL_SEED`.
fn seed() -> u64 {
    std::env::var("REDELIVER_KILL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random)
}

/// Clients that hand in mails for as long as a service takes them.
struct Load {
    /// Identifiers of mails that were answered with 250.
    taken: Arc<Mutex<Vec<String>>>,
    next: Arc<AtomicU32>,
}

impl Load {
    /// Hands mails in over `clients` sessions until the service is killed after `time`.
    fn on(&self, service: Service, clients: u32, time: Duration) {
        let over = Arc::new(AtomicBool::new(false));
        let address = service.smtp;
        let start = |_| {
            let (taken, next, over) = (Arc::clone(&self.taken), Arc::clone(&self.next), Arc::clone(&over));
            std::thread::spawn(move || {
                // An error is the kill: what has no answer is nobody's promise.
                let Ok(mut client) = Client::connect(address) else { return };
                while !over.load(Ordering::Relaxed) {
                    let id = format!("m{:06}", next.fetch_add(1, Ordering::Relaxed));
                    let recipients = recipients(&id);
                    match client.submit(&recipients.each_ref().map(String::as_str), &message(&id)) {
                        Ok(true) => taken.lock().expect("no thread panics with it").push(id),
                        Ok(false) => {}
                        Err(_) => return,
                    }
                    // What is in hand at a death is taken up one by one after it.
                    std::thread::sleep(PAUSE);
                }
            })
        };
        let threads: Vec<_> = (0..clients).map(start).collect();
        std::thread::sleep(time);
        service.kill();
        over.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("no panic");
        }
    }
}

fn integrity(relay: &Relay) -> String {
    let database = rusqlite::Connection::open(relay.path().join("var/redeliver.db")).expect("the store");
    database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checked")
}

#[test]
fn killed_at_random_under_load_no_mail_is_lost_and_no_copy_unannounced() {
    let peer = SmtpSink::start(script![
        "RCPT TO:<later" => "451 4.2.0 later",
        "RCPT TO:<never" => "550 5.1.1 no such user",
        on(".") => wait(Duration::from_millis(15)).then("250 2.0.0 ok"),
    ]);
    let relay = served(Setup::gateway(peer.address()).limit(LIMIT));
    write_schedule(&relay, "s", "job: retry-temporary\ncron: \"* * * * * *\"\n");
    let load = Load { taken: Arc::default(), next: Arc::default() };
    let seed = seed();
    println!("REDELIVER_KILL_SEED={seed}");
    let mut times = StdRng::seed_from_u64(seed);
    for round in 0..rounds() {
        let service = Service::start(&relay);
        let time = Duration::from_millis(times.random_range(5..600));
        load.on(service, 1 + round % 3, time);
        if round % 5 == 0 {
            assert_eq!(integrity(&relay), "ok", "after round {round}");
        }
    }
    let service = Service::start(&relay);
    service.wait_until_settled();
    service.stop();
    assert_eq!(integrity(&relay), "ok");
    let taken = std::mem::take(&mut *load.taken.lock().expect("no thread panics with it"));
    assert!(taken.len() > 20, "{} mails were taken", taken.len());
    settle_accounts(&accounts(&relay, &peer), &taken);
}

/// What the relay and its peer know of one recipient; no two mails have one in common.
#[derive(Debug, Default)]
struct Account {
    /// Repositories where it rests.
    resting: Vec<String>,
    /// Recorded as delivered.
    delivered: usize,
    /// Attempts that count.
    counted: u32,
    /// Of all attempts, those in doubt.
    doubts: usize,
    /// Copies that the peer took.
    copies: usize,
}

type Accounts = BTreeMap<String, Account>;

fn accounts(relay: &Relay, peer: &SmtpSink) -> Accounts {
    let mut accounts = Accounts::new();
    for repository in ["temporary", "permanent", "var/mail/error"] {
        for mail in relay.mails(repository) {
            for recipient in mail["recipients"].as_array().expect("a list") {
                let address = recipient.as_str().expect("an address").to_owned();
                accounts.entry(address).or_default().resting.push(repository.to_owned());
            }
        }
    }
    for attempt in relay.attempts() {
        attempted(&attempt, &mut accounts);
    }
    for transaction in peer.transactions().iter().filter(|transaction| transaction.is_taken()) {
        for recipient in &transaction.recipients {
            accounts.entry(recipient.clone()).or_default().copies += 1;
        }
    }
    accounts
}

fn attempted(attempt: &Value, accounts: &mut Accounts) {
    for one in attempt["recipients"].as_array().expect("a list") {
        let account = accounts.entry(one["recipient"].as_str().expect("an address").to_owned()).or_default();
        account.counted += u32::from(attempt["counted"] == true);
        account.delivered += usize::from(one["outcome"] == "delivered");
        account.doubts += usize::from(one["cause"].as_str().is_some_and(|cause| cause.contains("in doubt")));
    }
}

/// Each recipient of what was taken is in one place or delivered, tried no more often than
/// allowed, and has no copy that the record does not announce.
fn settle_accounts(accounts: &Accounts, taken: &[String]) {
    for recipient in taken.iter().flat_map(|id| recipients(id)) {
        assert!(accounts.contains_key(&recipient), "{recipient} is lost");
    }
    for (recipient, account) in accounts {
        assert_eq!(account.resting.len() + account.delivered, 1, "{recipient}: {account:?}");
        assert!(account.counted <= LIMIT, "{recipient}: {account:?}");
        assert!(account.copies >= account.delivered, "{recipient}: {account:?}");
        assert!(account.copies - account.delivered <= account.doubts, "{recipient}: {account:?}");
        assert!(account.copies == 0 || recipient.starts_with("good"), "{recipient}: {account:?}");
    }
}
