//! `redeliver repository`: which mails a filter means, what a verb does to them, and what
//! is shown of one.

use crate::support::message;
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, on, script};

/// Four failures in `permanent`.
fn four() -> (SmtpSink, Relay) {
    let peer = SmtpSink::start(script![on("RCPT TO:<b@") => "553 5.1.3 bad", "RCPT" => "550 5.1.1 no such user"]);
    let relay = Setup::gateway(peer.address()).build();
    for (sender, recipients) in [
        ("s1@o.example", &["a@x.example"][..]),
        ("s2@o.example", &["b@x.example"]),
        ("<>", &["c@z.example"]),
        ("s1@o.example", &["d@z.example", "e@x.example"]),
    ] {
        relay.submit(sender, recipients, &message("m"));
    }
    relay.run_spool().expect(69);
    (peer, relay)
}

/// First letters of the recipients of the mails that the arguments leave, sorted: the mails
/// are delivered side by side, and come to rest in any order.
fn listed(relay: &Relay, filter: &[&str]) -> String {
    let arguments = [&["repository", "mails", "permanent", "--format", "json"], filter].concat();
    let mails = relay.command(&arguments).expect(0).json();
    let mut letters: Vec<_> =
        mails.iter().map(|mail| &mail["recipients"][0].as_str().expect("an address")[..1]).collect();
    letters.sort_unstable();
    letters.concat()
}

const FILTERS: [(&[&str], &str); 14] = [
    (&[], "abcd"),
    (&["--sender", "S1@o.example"], "ad"),
    (&["--sender", "<>"], "c"),
    (&["--recipient", "e@x.example"], "d"),
    (&["--recipient", "*@x.example"], "abd"),
    (&["--domain", "z.example"], "cd"),
    (&["--code", "553"], "b"),
    (&["--older", "1h"], ""),
    (&["--newer", "1h"], "abcd"),
    (&["--passes", "1"], "abcd"),
    (&["--passes", "0"], ""),
    (&["--sender", "s1@o.example", "--domain", "z.example"], "d"),
    (&["--code", "550", "--domain", "x.example", "--newer", "1h"], "ad"),
    (&["--code", "553", "--domain", "z.example"], ""),
];

#[test]
fn filters_are_joined_by_and_and_mean_the_same_to_every_verb() {
    let (_peer, relay) = four();
    for (filter, letters) in FILTERS {
        assert_eq!(listed(&relay, filter), letters, "{filter:?}");
        for verb in [&["reprocess", "--processor", "relay"][..], &["move", "--to", "temporary"], &["remove"]] {
            let dry = ["--dry-run", "--format", "json", "permanent"];
            let arguments = [&["repository"], verb, filter, &dry].concat();
            if filter.is_empty() {
                let ended = relay.command(&arguments).expect(64);
                assert!(ended.stderr.contains("--all"), "{ended:?}");
                continue;
            }
            let answer = relay.command(&arguments).expect(0).json().remove(0);
            assert_eq!(answer["mails"], letters.len(), "{arguments:?}: {answer}");
        }
    }
    for (option, slip) in
        [("--sender", "s1"), ("--sender", ""), ("--recipient", "x.example"), ("--domain", "@x.example")]
    {
        let ended = relay.command(&["repository", "mails", "permanent", option, slip]).expect(64);
        assert!(ended.stderr.contains(&format!("{option} {slip:?} is n")), "{ended:?}");
    }
    let meant = relay.command(&["repository", "remove", "permanent", "--domain", "z.example", "--dry-run"]).expect(0);
    let mut lines = meant.stdout.lines();
    assert!(lines.next().is_some_and(|heading| heading.starts_with("KEY ")), "{meant:?}");
    assert_eq!(lines.clone().filter(|line| line.contains("@z.example")).count(), 2, "{meant:?}");
    assert_eq!(lines.last(), Some("2 mails would be removed"));
    assert_eq!(relay.size("permanent"), 4, "a dry run does nothing");
}

#[test]
fn each_verb_acts_on_what_is_meant_and_on_nothing_else() {
    let (peer, relay) = four();
    let act = |arguments: &[&str]| relay.command(&[&["repository"], arguments].concat()).expect(0).stdout;
    let key = relay.mails("permanent")[0]["key"].as_str().expect("a key").to_owned();
    let both = relay.command(&["repository", "remove", "permanent", &key, "--code", "999"]).expect(64);
    assert!(both.stderr.contains("either a key or a filter") && relay.size("permanent") == 4, "{both:?}");
    let text = act(&["move", "permanent", "--sender", "<>", "--to", "temporary"]);
    assert_eq!(text, "1 mail moved to var/mail/error/remote-delivery/temporary\n");
    assert_eq!((listed(&relay, &[]), relay.size("temporary")), ("abd".to_owned(), 1));
    assert_eq!(act(&["remove", "permanent", "--code", "553"]), "1 mail removed\n");
    assert_eq!(listed(&relay, &[]), "ad");
    let text = act(&["reprocess", "permanent", "--all", "--processor", "relay"]);
    assert_eq!(text, "2 mails put into the spool for processor relay\n", "no counter is used up");
    assert_eq!(relay.size("permanent"), 0);
    let before = peer.connections();
    relay.run_spool().expect(69);
    assert!(peer.connections() > before && listed(&relay, &[]) == "ad");
}

#[test]
fn show_names_a_host_once_for_all_its_recipients() {
    let (peer, relay) = four();
    let mails = relay.mails("permanent");
    let mail = mails.iter().find(|mail| mail["recipients"].as_array().is_some_and(|all| all.len() == 2));
    let key = mail.and_then(|mail| mail["key"].as_str()).expect("the mail with two recipients");
    let text = relay.command(&["repository", "show", "permanent", key]).expect(0);
    let record = text.stdout.split_once("\nattempt 1 of ").expect("an attempt").1;
    let lines: Vec<_> = record.lines().skip(1).take(3).collect();
    let address = peer.address();
    let host = format!("  {} ({address}); envelope sent in clear: STARTTLS is not offered", address.ip());
    assert_eq!(lines[0], host);
    let said = "failed at rcpt: 550 5.1.1 no such user";
    assert_eq!(lines[1..], [format!("    d@z.example {said}"), format!("    e@x.example {said}")]);
}

#[test]
fn the_table_of_attempts_has_only_whom_it_is_asked_for() {
    let (_peer, relay) = four();
    let lines = |arguments: &[&str]| {
        let text = relay.command(&[&["attempts"], arguments].concat()).expect(0).stdout;
        text.lines().filter(|line| line.contains(".example")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines(&[]).len(), 5);
    let one = lines(&["--recipient", "e@x.example", "--outcome", "failed"]);
    assert!(one.len() == 1 && one[0].contains("e@x.example"), "{one:?}");
    assert_eq!(lines(&["--recipient", "e@x.example", "--outcome", "delivered"]), Vec::<String>::new());
}
