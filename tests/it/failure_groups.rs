//! `redeliver groups`: failures by cause, right after whatever was done to the mails.

use serde_json::Value;

use crate::support::message;
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, on, script};

fn groups(relay: &Relay, arguments: &[&str]) -> Vec<Value> {
    relay.command(&[&["groups", "--format", "json"], arguments].concat()).expect(0).json()
}

/// `repository code text: count unacknowledged, arrivals today`, the largest group first.
fn shown(relay: &Relay) -> Vec<String> {
    let line = |group: &Value| {
        let text = |name: &str| group[name].as_str().map_or_else(|| group[name].to_string(), str::to_owned);
        let repository = text("repository");
        let repository = repository.rsplit('/').next().expect("a segment");
        let today = &group["days"][13];
        format!(
            "{repository} {} {}: {} {}, {today}",
            text("code"),
            text("text"),
            group["count"],
            group["unacknowledged"]
        )
    };
    groups(relay, &[]).iter().map(line).collect()
}

/// Three mails to users who are unknown, one over quota, and one for one of either.
fn failed() -> (SmtpSink, Relay) {
    let peer = SmtpSink::start(script![
        on("RCPT TO:<full") => "550 5.2.2 mailbox full is over quota (10 of 10 MB)",
        on("RCPT") => "550 5.1.1 no such user here, id 4bXy12",
    ]);
    let relay = Setup::gateway(peer.address()).limit(1).build();
    for recipients in [
        &["a@x.example"][..],
        &["b@x.example"],
        &["c@x.example"],
        &["full@x.example"],
        &["d@x.example", "full@y.example"],
    ] {
        relay.submit("s@o.example", recipients, &message("m"));
    }
    relay.run_spool().expect(69);
    (peer, relay)
}

const UNKNOWN: &str = "no such user here, id #";
const FULL: &str = "mailbox full is over quota # of # MB)";

#[test]
fn a_mail_is_in_the_group_of_each_of_its_causes() {
    let (_peer, relay) = failed();
    assert_eq!(shown(&relay), [format!("permanent 550 {UNKNOWN}: 4 4, 4"), format!("permanent 550 {FULL}: 2 2, 2")]);
    let group = &groups(&relay, &[])[0];
    assert_eq!((group["stage"].as_str(), group["enhanced"].as_str()), (Some("rcpt"), Some("5.1.1")));
    assert_eq!(group["examples"].as_array().map(Vec::len), Some(3), "{group}");
    assert_eq!(groups(&relay, &["temporary"]), [] as [Value; 0]);
    assert_eq!(relay.command(&["groups"]).expect(0).stdout.lines().count(), 3);

    let id = group["id"].as_str().expect("an id");
    let preview = ["repository", "remove", "permanent", "--group", id, "--dry-run", "--format", "json"];
    let preview = relay.command(&preview).expect(0).json().remove(0);
    assert_eq!((&preview["count"], &preview["inOtherGroups"]), (&4.into(), &1.into()), "{preview}");
}

#[test]
fn counts_are_right_after_every_verb() {
    let (_peer, relay) = failed();
    let id = groups(&relay, &[])[1]["id"].as_str().expect("an id").to_owned();
    let act = |arguments: &[&str]| relay.command(&[&["repository"], arguments].concat()).expect(0);

    act(&["acknowledge", "permanent", "--group", &id, "--note", "known"]);
    assert_eq!(shown(&relay), [format!("permanent 550 {UNKNOWN}: 4 3, 4"), format!("permanent 550 {FULL}: 2 0, 2")]);
    act(&["move", "permanent", "--group", &id, "--to", "temporary"]);
    assert_eq!(
        shown(&relay),
        [
            format!("permanent 550 {UNKNOWN}: 3 3, 4"),
            format!("temporary 550 {FULL}: 2 0, 2"),
            format!("temporary 550 {UNKNOWN}: 1 0, 1"),
        ],
        "moving keeps what somebody took note of"
    );
    act(&["acknowledge", "temporary", "--all", "--undo"]);
    assert_eq!(shown(&relay)[1], format!("temporary 550 {FULL}: 2 2, 2"));
    act(&["remove", "temporary", "--domain", "y.example"]);
    assert_eq!(
        shown(&relay),
        [format!("permanent 550 {UNKNOWN}: 3 3, 4"), format!("temporary 550 {FULL}: 1 1, 2")],
        "none is shown without mails"
    );
    act(&["acknowledge", "permanent", "--all", "--note", "known"]);
    act(&["reprocess", "permanent", "--all", "--processor", "relay", "--reset"]);
    assert_eq!(shown(&relay), [format!("temporary 550 {FULL}: 1 1, 2")]);
    relay.run_spool().expect(69);
    assert_eq!(
        shown(&relay),
        [format!("permanent 550 {UNKNOWN}: 3 3, 7"), format!("temporary 550 {FULL}: 1 1, 2")],
        "reprocessing clears what somebody took note of"
    );
    assert!(relay.mails("permanent").iter().all(|mail| mail["acknowledged"].is_null()));
}

#[test]
fn a_sweep_that_fails_for_the_same_cause_is_no_new_arrival() {
    let peer = SmtpSink::start(script![on("RCPT") => "450 4.2.1 try later"]);
    let relay = Setup::gateway(peer.address()).limit(5).build();
    relay.submit("s@o.example", &["a@x.example"], &message("m"));
    relay.run_spool().expect(75);
    relay.sweep().expect(75);
    assert_eq!(shown(&relay), ["temporary 450 try later: 1 1, 1"]);
}

#[test]
fn a_mail_is_in_eight_groups_at_most_and_those_of_most_recipients() {
    let texts = "one two three four five six seven eight nine ten".split(' ').collect::<Vec<_>>();
    let mut replies = Script::new();
    for text in &texts {
        replies = replies.on(format!("RCPT TO:<{text}").as_str(), format!("550 5.1.1 {text} is gone").as_str());
    }
    let peer = SmtpSink::start(replies);
    let relay = Setup::gateway(peer.address()).limit(1).build();
    let mut recipients: Vec<_> = texts.iter().map(|text| format!("{text}.a@x.example")).collect();
    recipients.extend(["nine.b@x.example".to_owned(), "ten.b@x.example".to_owned()]);
    let recipients: Vec<_> = recipients.iter().map(String::as_str).collect();
    relay.submit("s@o.example", &recipients, &message("m"));
    relay.run_spool().expect(69);
    let found: Vec<_> = groups(&relay, &[]).iter().map(|group| group["text"].as_str().map(str::to_owned)).collect();
    assert_eq!(found.len(), 8, "{found:?}");
    for text in ["nine is gone", "ten is gone"] {
        assert!(found.contains(&Some(text.to_owned())), "{found:?}");
    }
}
