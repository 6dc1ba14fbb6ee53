//! SIGHUP.

use nix::sys::signal::Signal;

use super::{LISTENERS, Service, served, until, write_schedule};
use crate::dkim;
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, Transaction, on, script, wait};
use crate::told_killed::telling;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

fn replace(relay: &Relay, from: &str, to: &str) {
    let text = std::fs::read_to_string(relay.configuration()).expect("read");
    assert!(text.contains(from), "{text}");
    std::fs::write(relay.configuration(), text.replace(from, to)).expect("written");
}

fn reload(service: &Service, outcome: &str) {
    let before = service.log.text().matches(outcome).count();
    service.signal(Signal::SIGHUP);
    service.log.wait_for(outcome, |text| (text.matches(outcome).count() > before).then_some(()));
}

#[test]
fn new_settings_are_for_new_mail_and_what_is_in_hand_goes_on() {
    let old = SmtpSink::start(script![on("DATA").times(1) => wait(Duration::from_millis(800)).then("354 go on")]);
    let new = SmtpSink::start(Script::new());
    let relay = served(Setup::gateway(old.address()));
    let service = Service::start(&relay);
    service.submit(&["you@example.net"], "first");
    old.wait_until("DATA", |seen| seen.connections.iter().any(|c| c.commands.iter().any(|(_, l)| l == "DATA")));
    replace(&relay, &old.address().to_string(), &new.address().to_string());
    reload(&service, "the configuration is reloaded");
    service.submit(&["you@example.net"], "second");
    new.wait_for_transactions(1);
    old.wait_for_transactions(1);
    service.wait_until_settled();
    assert_eq!((old.copies_of("you@example.net", "<first@"), new.copies_of("you@example.net", "<second@")), (1, 1));
    service.stop();
}

#[test]
fn a_broken_configuration_changes_nothing_and_every_error_is_told() {
    let peer = SmtpSink::start(Script::new());
    let relay = served(Setup::gateway(peer.address()));
    let service = Service::start(&relay);
    replace(&relay, "maxRetries: 0", "maxRetires: 0");
    std::fs::write(relay.path().join("schedules/s.yaml"), "job: nope\ncron: 0 0 30 2 *\n").expect("written");
    reload(&service, "the old one stays in force");
    let log = service.log.text();
    for error in ["unknown key 'maxRetires'", "there is no job 'nope'", "never fires"] {
        let line = log.lines().find(|line| line.contains(error)).unwrap_or_else(|| panic!("{error}: {log}"));
        assert!(line.contains(".yaml:"), "with its place: {line}");
    }
    let health = || service.get("/healthcheck/checks/Configuration").1;
    assert_eq!(health()["status"], "degraded");
    assert!(health()["cause"].as_str().is_some_and(|cause| cause.contains("reload was refused")), "{}", health());
    service.submit(&["you@example.net"], "m");
    peer.wait_for_transactions(1);
    replace(&relay, "maxRetires: 0", "maxRetries: 0");
    std::fs::remove_file(relay.path().join("schedules/s.yaml")).expect("removed");
    reload(&service, "the configuration is reloaded");
    assert_eq!((health()["status"].as_str(), &health()["cause"]), (Some("healthy"), &serde_json::Value::Null));
    service.stop();
}

#[test]
fn schedules_and_passwords_are_taken_over() {
    let peer = SmtpSink::start(Script::new());
    let relay = served(Setup::gateway(peer.address()));
    let service = Service::start(&relay);
    assert_eq!(service.get("/mailQueues").0, 200);
    write_schedule(&relay, "new", "job: retry-temporary\ncron: \"* * * * * *\"\n");
    replace(&relay, "admin: { listen: \"127.0.0.1:0\" }", "admin: { listen: \"127.0.0.1:0\", password: [secret] }");
    reload(&service, "the configuration is reloaded");
    until("it runs", || !relay.command(&["job", "runs", "--format", "json"]).expect(0).json().is_empty());
    let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| service.get("/mailQueues")));
    assert!(answer.is_err(), "the answer is no JSON: a password is needed");
    assert_eq!(service.get("/healthcheck").0, 200);
    std::fs::remove_file(relay.path().join("schedules/new.yaml")).expect("removed");
    reload(&service, "the configuration is reloaded");
    let runs = || relay.command(&["job", "runs", "--format", "json", "--limit", "100"]).expect(0).json().len();
    let before = runs();
    std::thread::sleep(Duration::from_millis(2500));
    assert!(runs() <= before + 1, "one may have been under way");

    // Without a password another address was meant than the one that is open.
    replace(&relay, "listen: \"127.0.0.1:0\", password: [secret]", "listen: \"127.0.0.2:0\"");
    reload(&service, "admin.listen, and with it the passwords, has changed");
    let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| service.get("/mailQueues")));
    assert!(answer.is_err(), "the password still stands");
    service.stop();
}

#[test]
fn a_backlog_goes_by_the_new_settings_and_an_attempt_by_those_it_began_with() {
    let old = SmtpSink::start(script!["DATA" => wait(Duration::from_secs(4)).then("354 go on")]);
    let new = SmtpSink::start(Script::new());
    let relay = served(Setup::gateway(old.address()).delivery("deliveryThreads: 1"));
    let service = Service::start(&relay);
    service.submit(&["you@example.net"], "first");
    old.wait_until("DATA", |seen| seen.connections.iter().any(|c| c.commands.iter().any(|(_, l)| l == "DATA")));
    for number in 0..5 {
        service.submit(&["you@example.net"], &format!("n{number}"));
    }
    replace(&relay, &old.address().to_string(), &new.address().to_string());
    reload(&service, "the configuration is reloaded");
    new.wait_for_transactions(5);
    old.wait_for_transactions(1);
    service.wait_until_settled();
    service.stop();
    assert_eq!((old.transactions().len(), new.transactions().len()), (1, 5));
    assert_eq!(old.copies_of("you@example.net", "<first@"), 1);
    assert!(relay.attempts().iter().all(|attempt| attempt["number"] == 1), "waiting was no attempt");
}

#[test]
fn a_key_that_was_replaced_signs_after_a_reload() {
    let peer = SmtpSink::start(Script::new());
    let relay = served(Setup::gateway(peer.address()));
    let sign = dkim::rule("domain: example.org, selector: s, privateKeyFile: key.pem");
    relay.reconfigure("  relay:\n", &format!("  relay:\n{sign}"));
    dkim::put_key(&relay, "ed25519.pem", "key.pem", 0o600);
    let service = Service::start(&relay);
    service.submit(&["you@example.net"], "first");
    peer.wait_for_transactions(1);
    dkim::put_key(&relay, "rsa-pkcs8.pem", "key.pem", 0o600);
    reload(&service, "the configuration is reloaded");
    service.submit(&["you@example.net"], "second");
    peer.wait_for_transactions(2);
    let algorithms = peer.record().transactions.iter().map(Transaction::text).collect::<Vec<_>>();
    assert!(algorithms[0].starts_with("DKIM-Signature: v=1; a=ed25519-sha256;"), "{algorithms:?}");
    assert!(algorithms[1].starts_with("DKIM-Signature: v=1; a=rsa-sha256;"), "{algorithms:?}");
    // What others may read is refused, and the old key stays.
    dkim::put_key(&relay, "ed25519.pem", "key.pem", 0o644);
    reload(&service, "the old one stays in force");
    service.submit(&["you@example.net"], "third");
    peer.wait_for_transactions(3);
    assert!(peer.record().transactions[2].text().starts_with("DKIM-Signature: v=1; a=rsa-sha256;"));
    service.stop();
}

/// Whether EHLO lists DSN.
fn offers_dsn(service: &Service) -> bool {
    let mut stream = BufReader::new(TcpStream::connect(service.smtp).expect("it listens"));
    stream.get_mut().write_all(b"EHLO client.example\r\n").expect("sent");
    let lines = stream.lines().map(|line| line.expect("an answer")).skip_while(|line| line.starts_with("220"));
    let mut offered = false;
    for line in lines {
        offered |= &line[4..] == "DSN";
        if line.starts_with("250 ") {
            break;
        }
    }
    offered
}

#[test]
fn dsn_is_offered_as_long_as_the_jobs_lead_on_to_rules_that_tell() {
    let relay = telling("127.0.0.1:1", &LISTENERS.join("\n"));
    let job = relay.configuration().with_file_name("jobs").join("retry-temporary.yaml");
    let sweep = std::fs::read_to_string(&job).expect("read");
    let service = Service::start(&relay);
    for (written, expected) in [
        (sweep.replace("temporary", "else/where"), ""),
        (sweep.clone(), ""),
        (
            sweep.replace("processor: relay", "processor: failed"),
            "keeps failures without telling, where job retry-temporary leads",
        ),
        (sweep, ""),
    ] {
        std::fs::write(&job, &written).expect("written");
        reload(&service, "the configuration is reloaded");
        let checked = relay.command(&["check"]).expect(0).stdout;
        assert_eq!(offers_dsn(&service), expected.is_empty(), "{written}{checked}");
        assert!(checked.contains(if expected.is_empty() { "DSN: offered\n" } else { expected }), "{written}{checked}");
        let rests = "what is deferred rests in temporary until somebody takes it out";
        assert!(checked.contains(rests), "no schedule starts it: {checked}");
    }
    service.stop();
}

#[test]
fn dsn_is_offered_as_long_as_the_rules_tell_and_check_names_the_one_that_does_not() {
    let relay = telling("127.0.0.1:1", &LISTENERS.join("\n"));
    let checked = || relay.command(&["check"]).expect(0).stdout;
    let service = Service::start(&relay);
    assert!(offers_dsn(&service) && checked().contains("DSN: offered\n"), "{}", checked());
    for (tells, instead, what) in [
        ("      onSuccess: delivered\n", "", " tells nobody of deliveries"),
        (
            "    - mailet: DSNBounce\n    - mailet: ToRepository",
            "    - mailet: ToRepository",
            " keeps failures without telling",
        ),
    ] {
        replace(&relay, tells, instead);
        reload(&service, "the configuration is reloaded");
        assert!(!offers_dsn(&service), "{what}");
        let text = checked();
        let place = format!("DSN: not offered: rule at {}:", relay.configuration().display());
        assert!(text.lines().any(|line| line.starts_with(&place) && line.contains(what)), "{text}");
        if !instead.is_empty() {
            break;
        }
        let delivery = "      bounceProcessor: failed\n";
        replace(&relay, delivery, &format!("{delivery}{tells}"));
        reload(&service, "the configuration is reloaded");
        assert!(offers_dsn(&service));
    }
    service.stop();
}

#[test]
fn mails_of_a_repository_that_nothing_names_any_more_are_told_of() {
    let peer = SmtpSink::start(script!["RCPT TO" => "451 4.2.0 later"]);
    let relay = served(Setup::gateway(peer.address()));
    let service = Service::start(&relay);
    service.submit(&["you@example.net"], "m");
    service.wait_until_settled();
    replace(&relay, "/temporary", "/renamed");
    let job = relay.path().join("jobs/retry-temporary.yaml");
    let text = std::fs::read_to_string(&job).expect("a job");
    std::fs::write(&job, text.replace("temporary/", "renamed/")).expect("a file");
    reload(&service, "the configuration is reloaded");
    let told = |log: &str| {
        let told = |line: &&str| {
            line.contains("WARN") && line.contains("mails=1") && line.contains("no rule and no job names")
        };
        log.lines().filter(told).filter(|line| line.contains("remote-delivery/temporary")).count()
    };
    assert_eq!(told(&service.log.text()), 1, "{}", service.log.text());
    service.stop();
    let again = Service::start(&relay);
    again.log.wait_for("the mails", |log| (told(log) == 1).then_some(()));
    again.stop();
}
