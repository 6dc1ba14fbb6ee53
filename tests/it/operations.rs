//! The record of what operators did, and what a dry run promises.

use serde_json::Value;

use crate::support::message;
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, on, script};

/// Three failures in `permanent`.
fn three() -> (SmtpSink, Relay) {
    let peer = SmtpSink::start(script![on("RCPT") => "550 5.1.1 no such user"]);
    let relay = Setup::gateway(peer.address()).limit(1).build();
    for recipient in ["a@x.example", "b@x.example", "c@y.example"] {
        relay.submit("s@o.example", &[recipient], &message("m"));
    }
    relay.run_spool().expect(69);
    (peer, relay)
}

fn act(relay: &Relay, arguments: &[&str]) -> Value {
    relay.command(&[&["repository"], arguments, &["--format", "json"]].concat()).expect(0).json().remove(0)
}

fn operations(relay: &Relay) -> Vec<Value> {
    relay.command(&["operations", "--format", "json"]).expect(0).json()
}

#[test]
fn every_change_is_on_record_with_who_what_and_how_many() {
    let (_peer, relay) = three();
    act(&relay, &["acknowledge", "permanent", "--domain", "x.example", "--note", "known since Monday"]);
    act(&relay, &["move", "permanent", "--code", "550", "--domain", "y.example", "--to", "temporary"]);
    act(&relay, &["reprocess", "temporary", "--all", "--processor", "relay"]);
    act(&relay, &["move", "permanent", "--domain", "nowhere.example", "--to", "temporary"]);
    let told: Vec<_> = operations(&relay)
        .iter()
        .map(|one| ["id", "verb", "selection", "detail", "mails"].map(|name| one[name].to_string()).join(" "))
        .collect();
    assert_eq!(
        told,
        [
            "3 \"reprocess\" \"all\" \"relay\" 1",
            "2 \"move\" \"domain=y.example code=550\" \"var/mail/error/remote-delivery/temporary\" 1",
            "1 \"acknowledge\" \"domain=x.example\" \"known since Monday\" 2",
        ],
        "the latest first; what meets nothing changes nothing"
    );
    let uid = nix::unistd::Uid::current();
    for one in operations(&relay) {
        assert!(one["who"].as_str().is_some_and(|who| who.ends_with(&format!("({uid})"))), "{one}");
    }
}

#[test]
fn a_mail_says_what_was_done_to_it_also_when_it_is_gone() {
    let (_peer, relay) = three();
    let key = relay.mails("permanent")[0]["key"].as_str().expect("a key").to_owned();
    act(&relay, &["acknowledge", "permanent", &key, "--note", "known"]);
    let shown = relay.show("permanent", &key);
    assert_eq!(shown["operations"][0]["verb"], "acknowledge", "{shown}");
    let Value::Object(acknowledged) = &shown["acknowledged"] else { panic!("{shown}") };
    assert_eq!((&acknowledged["note"], &acknowledged["operation"]), (&"known".into(), &1.into()));
    let picture = relay.command(&["repository", "show", "permanent", &key]).expect(0).stdout;
    assert!(picture.contains("acknowledged (known) by operation 1, "), "{picture}");

    act(&relay, &["remove", "permanent", &key]);
    let gone = relay.command(&["repository", "show", "permanent", &key]).expect(66);
    assert!(gone.stderr.contains("removed by operation 2, "), "{gone:?}");
    act(&relay, &["reprocess", "permanent", "--domain", "y.example", "--processor", "relay"]);
}

#[test]
fn a_dry_run_counts_shows_some_and_bounds_what_follows() {
    let (_peer, relay) = three();
    let preview = act(&relay, &["remove", "permanent", "--all", "--dry-run"]);
    assert_eq!((&preview["count"], &preview["exact"], &preview["mails"]), (&3.into(), &true.into(), &3.into()));
    let keys: Vec<_> = relay.mails("permanent").into_iter().map(|mail| mail["key"].clone()).collect();
    assert_eq!(preview["sample"], Value::from(keys));
    assert_eq!(operations(&relay), [] as [Value; 0], "nothing was done");

    relay.submit("s@o.example", &["d@x.example"], &message("m"));
    relay.run_spool().expect(69);
    let until = preview["until"].as_str().expect("until");
    let done = act(&relay, &["remove", "permanent", "--all", "--until", until]);
    assert_eq!((&done["mails"], relay.size("permanent")), (&3.into(), 1), "what came later stays");
    relay.command(&["repository", "remove", "permanent", "--all", "--until", "no such"]).expect(64);
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_done() {
    let (_peer, relay) = three();
    let long = "x".repeat(10_001);
    for (arguments, code, words) in [
        (&["acknowledge", "permanent", "--all", "--note", &long][..], 64, "10001 octets"),
        (&["acknowledge", "permanent"], 64, "--all"),
        (&["acknowledge", "permanent", "--all", "--note", "x", "--undo"], 64, "cannot be used with"),
        (&["move", "permanent", "--all", "--to", "permanent"], 64, "already"),
        (&["remove", "permanent", "--group", "0123456789ab"], 66, "no failure group"),
        (&["remove", "permanent", "--group", "xyz"], 64, "--group"),
        (&["remove", "permanent", "--older-than", "soon"], 64, "--older-than"),
        (&["remove", "permanent", "--next-hop", ""], 64, "--next-hop"),
        (&["remove", "nowhere", "--all"], 66, "nowhere"),
    ] {
        let ended = relay.command(&[&["repository"], arguments].concat()).expect(code);
        assert!(ended.stderr.contains(words), "{arguments:?}: {ended:?}");
    }
    assert_eq!((operations(&relay).len(), relay.size("permanent")), (0, 3));
}

#[test]
fn the_new_filters_mean_what_they_say() {
    let (_peer, relay) = three();
    // They came to rest in whatever order: not the one for y.example.
    let mails = relay.mails("permanent");
    let first = mails.iter().find(|mail| mail["recipients"].to_string().contains("@x.example")).expect("two of them");
    let first = first["key"].as_str().expect("a key").to_owned();
    act(&relay, &["acknowledge", "permanent", &first]);
    let hop = relay.attempts()[0]["recipients"][0]["nextHop"].as_str().expect("a next hop").to_owned();
    for (filter, mails) in [
        (&["--text", "NO SUCH user"][..], 3),
        (&["--text", "no such host"], 0),
        (&["--next-hop", &hop], 3),
        (&["--next-hop", "y.example"], 0),
        (&["--unacknowledged"], 2),
        (&["--unacknowledged", "--domain", "y.example"], 1),
        (&["--older-than", "1h"], 0),
        (&["--newer-than", "1h"], 3),
        (&["--newer-than", "2020-01-01T00:00:00Z", "--passes", "1"], 3),
    ] {
        let arguments = [&["repository", "mails", "permanent", "--format", "json"], filter].concat();
        assert_eq!(relay.command(&arguments).expect(0).json().len(), mails, "{filter:?}");
    }
}

#[test]
fn next_hops_are_told_with_what_became_of_their_mail() {
    let (_peer, relay) = three();
    let peers = relay.command(&["peers", "--format", "json"]).expect(0).json();
    assert_eq!(peers.len(), 1, "{peers:?}");
    let told = ["connections", "waiting", "down", "lastOutcome", "outcomes"].map(|name| peers[0][name].to_string());
    assert_eq!(told, ["0", "0", "null", "\"failed\"", r#"{"delivered":0,"deferred":0,"failed":3}"#]);
    let text = relay.command(&["peers"]).expect(0).stdout;
    assert!(text.starts_with("NEXT HOP") && text.lines().count() == 2, "{text}");
}

#[test]
fn what_the_store_counts_is_there_without_a_service() {
    let (_peer, relay) = three();
    act(&relay, &["acknowledge", "permanent", "--domain", "x.example"]);
    let text = relay.command(&["metrics"]).expect(0).stdout;
    for line in [
        "redeliver_mails{place=\"var/mail/error/remote-delivery/permanent\"} 3",
        "redeliver_unacknowledged_mails{place=\"var/mail/error/remote-delivery/permanent\"} 1",
        "redeliver_outcomes_total{outcome=\"failed\",stage=\"rcpt\",class=\"5\"} 3",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    }
}
