//! Jobs that attempt nothing: purge, export, backup, report.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, script};

/// A relay whose `permanent` has these recipients' mails, and with a job.
fn with_failures(sink: &SmtpSink, recipients: &[&str], job: &str) -> Relay {
    let relay = Setup::gateway(sink.address()).build();
    fs::write(relay.path().join("jobs/it.yaml"), job).expect("written");
    for recipient in recipients {
        relay.submit("a@sender.example", &[recipient], &format!("Subject: for {recipient}\n\n.\nbody\n"));
    }
    relay.run_spool().expect(69);
    relay
}

/// Takes mail for those who look after failures, and no other.
fn refusing() -> SmtpSink {
    SmtpSink::start(script![
        "RCPT TO:<ops@" => "250 2.1.5 ok",
        "RCPT TO:<on.call@" => "250 2.1.5 ok",
        "RCPT TO:<over" => "554 5.2.2 <over> over quota",
        "RCPT TO:" => "550 5.1.1 <b&c> no such user #1",
    ])
}

fn run(relay: &Relay) -> Value {
    relay.command(&["run", "it", "--format", "json"]).expect(0).json().remove(0)
}

fn files(relay: &Relay, folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(relay.path().join(folder)).expect("a folder");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

#[test]
fn an_export_is_one_file_per_mail_byte_for_byte() {
    let sink = refusing();
    let job = "kind: export\nrepository: permanent\ndirectory: ../out/mails\n";
    let relay = with_failures(&sink, &["a@x.example", "../b@x.example"], job);
    assert_eq!(run(&relay)["selected"], 2);
    let files = files(&relay, "out/mails");
    assert_eq!(files.len(), 2, "{files:?}");
    for mail in relay.mails("permanent") {
        let key = mail["key"].as_str().expect("a key");
        let file = relay.path().join(format!("out/mails/{key}.eml"));
        let exported = relay.command(&["repository", "export", "permanent", key]).expect(0).stdout;
        assert_eq!(fs::read_to_string(&file).expect("exported"), exported);
        assert_eq!(file.metadata().expect("there").permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(run(&relay)["selected"], 2, "a second run finds them there");
    fs::remove_dir_all(relay.path().join("out")).expect("removed");
    fs::write(relay.path().join("out"), "in the way").expect("written");
    let failed = relay.command(&["run", "it"]).expect(70);
    assert!(failed.stderr.contains("export to") && failed.stderr.contains("out/mails"), "{failed:?}");
    let runs = relay.command(&["job", "runs", "it", "--format", "json"]).expect(0).json();
    assert_eq!(runs.len(), 3);
    assert!(runs[0]["failure"].as_str().is_some_and(|why| why.contains("export to")), "{runs:?}");
}

#[test]
fn a_mail_that_is_not_whole_is_named_and_the_others_are_exported() {
    let sink = refusing();
    let job = "kind: export\nrepository: permanent\ndirectory: ../out\n";
    let relay = with_failures(&sink, &["a@x.example", "b@x.example", "c@x.example"], job);
    let key = relay.mails("permanent")[1]["key"].as_str().expect("a key").to_owned();
    let database = rusqlite::Connection::open(relay.path().join("var/redeliver.db")).expect("the store");
    let chunk = "DELETE FROM chunk WHERE id >> 20 = (SELECT message FROM mail WHERE key = ?1)";
    assert_eq!(database.execute(chunk, [&key]).expect("deleted"), 1);
    drop(database);
    let ended = relay.command(&["run", "it"]).expect(70);
    assert!(ended.stderr.contains(&format!("mail {key} is not exported")), "{ended:?}");
    let files = files(&relay, "out");
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(files.iter().all(|file| file.extension().is_some_and(|extension| extension == "eml")), "{files:?}");
    relay.command(&["repository", "export", "permanent", &key]).expect(74);
}

#[test]
fn a_backup_is_a_database_that_sqlite_and_redeliver_open_as_it_stands() {
    let sink = refusing();
    let relay = with_failures(&sink, &["a@x.example"], "kind: backup\ndirectory: ../backups\n");
    assert_eq!(run(&relay)["selected"], 0);
    let backups = files(&relay, "backups");
    assert_eq!(backups.len(), 1, "{backups:?}");
    let backup = &backups[0];
    let name = backup.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(name.starts_with("redeliver-2") && name.ends_with("Z.db"), "{name}");
    assert_eq!(backup.metadata().expect("there").permissions().mode() & 0o777, 0o600);
    if let Ok(checked) = Command::new("sqlite3").arg(backup).arg("PRAGMA integrity_check").output() {
        assert_eq!(String::from_utf8_lossy(&checked.stdout), "ok\n");
    }
    let before = relay.mails("permanent");
    for file in files(&relay, "var") {
        fs::remove_file(file).expect("removed");
    }
    fs::copy(backup, relay.path().join("var/redeliver.db")).expect("restored");
    assert_eq!(relay.mails("permanent"), before);
}

#[test]
fn a_purge_removes_what_is_old_and_leaves_its_record() {
    let sink = refusing();
    let job = |age: &str| format!("kind: purge\nrepository: permanent\nolderThan: {age}\n");
    let relay = with_failures(&sink, &["a@x.example", "b@x.example"], &job("1h"));
    assert_eq!(run(&relay)["selected"], 0, "too young");
    fs::write(relay.path().join("jobs/it.yaml"), job("1ms")).expect("written");
    assert_eq!(run(&relay)["selected"], 2);
    assert!(relay.mails("permanent").is_empty());
    assert_eq!(relay.attempts().len(), 2, "what was attempted stays on record");
}

#[test]
fn a_report_tells_of_new_failures_by_cause_once() {
    let failing = refusing();
    let job =
        "kind: report\nrepository: permanent\nto: [ops@y.example, on.call@y.example]\nfrom: redeliver@relay.test\n";
    let relay = with_failures(&failing, &["a@x.example", "b@x.example", "over@x.example"], job);
    let result = run(&relay);
    assert_eq!((&result["selected"], &result["delivered"]), (&3.into(), &0.into()), "it counts what it reports");
    // It leaves at the end of its run, where no service would send it.
    let report = failing.record().transactions.remove(0);
    assert_eq!(report.reverse_path, "");
    assert_eq!(report.recipients, ["ops@y.example", "on.call@y.example"]);
    let text = report.text().replace("=\r\n", "").replace("=3D", "=");
    let key = relay.mails("permanent")[0]["key"].as_str().expect("a key").to_owned();
    for line in [
        "Auto-Submitted: auto-generated",
        "Subject: redeliver: 3 new failures, 2 causes",
        "New in var/mail/error/remote-delivery/permanent: 3 mails, 3 recipients, 2 causes.",
        &format!("     redeliver repository show var/mail/error/remote-delivery/permanent {key}"),
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    }
    assert!(text.contains("1. 550 5.1.1 at ") && text.contains("no such user"), "{text}");
    assert!(text.contains("&lt;over&gt;") && text.contains("text/html"), "{text}");
    assert_eq!(run(&relay)["selected"], 0, "there is nothing new");
    assert_eq!(relay.run_spool().expect(0).json()[0]["selected"], 0, "and no mail says so");
    let again = relay.command(&["run", "it", "--now", "--format", "json"]).expect(0);
    assert_eq!(again.json()[0]["selected"], 3, "--now reports all there is");
}

#[test]
fn a_report_without_an_address_is_off_and_said_to_be() {
    let sink = refusing();
    let relay = with_failures(&sink, &["a@x.example"], "kind: report\nrepository: permanent\nto: []\n");
    let ended = relay.command(&["run", "it", "--format", "json"]).expect(0);
    assert_eq!(ended.json()[0]["selected"], 0);
    assert!(ended.stderr.contains("the report is off"), "{ended:?}");
    assert!(relay.command(&["check"]).expect(0).stdout.contains("job it: the report is off"));
    let told = relay.command(&["check", "--format", "json"]).expect(0).json().remove(0);
    assert_eq!(told["sweeps"][0]["job"], "retry-temporary", "{told}");
    assert!(told["warnings"].to_string().contains("job it: the report is off"), "{told}");
}

#[test]
fn a_person_is_told_what_a_run_did_and_where() {
    let sink = refusing();
    let report = "kind: report\nrepository: permanent\nto: ops@x.example\nfrom: relay@x.example\n";
    let relay = with_failures(&sink, &["a@x.example"], report);
    let permanent = "var/mail/error/remote-delivery/permanent";
    let path = relay.path().display().to_string();
    for (job, told) in [
        (report, format!("it: 1 mail new in {permanent} reported to ops@x.example in ")),
        (report, format!("it: nothing new in {permanent}, no report sent in ")),
        ("kind: report\nrepository: permanent\nto: []\n", "it: off, its list 'to' is empty".to_owned()),
        ("kind: export\nrepository: permanent\ndirectory: ../out\n", format!("it: 1 mail written to {path}/")),
        ("kind: backup\ndirectory: ../backups\n", format!("it: written to {path}/")),
        ("kind: purge\nrepository: permanent\nolderThan: 1ms\n", format!("it: 1 mail removed from {permanent} in ")),
    ] {
        fs::write(relay.path().join("jobs/it.yaml"), job).expect("written");
        let ended = relay.command(&["run", "it"]).expect(0);
        assert!(ended.stdout.starts_with(&told) && !ended.stdout.contains("delivered"), "{told}: {ended:?}");
    }
}

#[test]
fn a_folder_that_is_a_file_is_said_to_be_none() {
    let sink = refusing();
    for job in ["kind: export\nrepository: permanent\ndirectory: ../out\n", "kind: backup\ndirectory: ../out\n"] {
        let relay = with_failures(&sink, &["a@x.example"], job);
        std::fs::write(relay.path().join("out"), "a file").expect("written");
        let refused = relay.command(&["run", "it"]).expect(70);
        assert!(refused.stderr.contains("out: it is no directory"), "{refused:?}");
    }
}
