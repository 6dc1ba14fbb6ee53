//! Whole configurations, as an operator writes them.

use std::fs;

use tempfile::TempDir;

use super::*;

/// Writes files into a folder of their own and loads `redeliver.yaml`.
fn load_files(files: &[(&str, &str)]) -> (TempDir, Result<Config, Vec<String>>) {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }
    let loaded = load(&Source::File(folder.path().join("redeliver.yaml"))).map_err(|wrong| {
        let prefix = format!("{}/", folder.path().display());
        wrong.0.iter().map(|one| one.to_string().replace(&prefix, "")).collect()
    });
    (folder, loaded)
}

fn wrong(files: &[(&str, &str)]) -> Vec<String> {
    load_files(files).1.expect_err("something is wrong")
}

#[test]
fn every_file_that_ships_loads_and_is_what_runs_without_one() {
    let built_in = load(&Source::BuiltIn).expect("what ships is right");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shipped = load(&Source::File(root.join("redeliver.yaml"))).expect("what ships is right");
    for folder in [("jobs", shipped.jobs.len() - 1), ("schedules", shipped.schedules.len())] {
        assert_eq!(fs::read_dir(root.join(folder.0)).expect("a folder").count(), folder.1, "all of them are read");
    }
    assert_eq!(shipped.jobs, built_in.jobs);
    assert_eq!(format!("{:?}", shipped.schedules), format!("{:?}", built_in.schedules));
    assert_eq!(format!("{:?}", shipped.processors), format!("{:?}", built_in.processors));

    let (_folder, defaults) = load_files(&[("redeliver.yaml", "downFor: 60s\n")]);
    let defaults = defaults.expect("valid");
    assert_eq!(defaults.store.schemes, built_in.store.schemes);
    assert_eq!((&defaults.smtp, &defaults.admin), (&built_in.smtp, &built_in.admin));
    assert_eq!((&defaults.log, &defaults.audit), (&built_in.log, &built_in.audit));
    assert_eq!(format!("{:?}", defaults.dns), format!("{:?}", built_in.dns));
    assert_eq!(format!("{:?}", defaults.processors), format!("{:?}", built_in.processors));
    assert_eq!((defaults.shutdown_timeout, defaults.down_for), (built_in.shutdown_timeout, built_in.down_for));
    // That a run on a full disk waits so long is asked for where it is shorter.
    assert_eq!(built_in.shutdown_timeout, std::time::Duration::from_secs(30));
    assert_eq!(defaults.jobs.keys().collect::<Vec<_>>(), [SPOOL_JOB]);
}

#[test]
fn what_ships_tries_for_four_days() {
    let config = load(&Source::BuiltIn).expect("what ships is right");
    let sweeps = config.sweeps();
    let covers = sweeps[0].covers.expect("a limit").as_secs_f64() / 86_400.0;
    assert_eq!((sweeps.len(), sweeps[0].attempts), (1, Some(8)));
    assert!((4.25..4.35).contains(&covers), "{covers}");
}

#[test]
fn paths_are_relative_to_the_file_and_to_the_state_directory() {
    let main = "stateDirectory: state\nstores: {sqlite: {path: db/x.db}, cassandra: sqlite}\nlog: {directory: log}\njobsDirectory: sweeps\n\
        admin: {listen: '0.0.0.0:8000', passwordFile: secret}\n";
    let (folder, loaded) = load_files(&[
        ("redeliver.yaml", main),
        ("secret", "one\nhush-2\n"),
        ("sweeps/mine.yaml", "kind: reprocess\nrepository: temporary\nprocessor: relay\n"),
    ]);
    let config = loaded.expect("valid");
    let state = folder.path().join("state");
    assert_eq!(config.store.path, state.join("db/x.db"));
    assert_eq!(config.log.directory, Some(state.join("log")));
    assert_eq!(config.admin.password, Passwords(vec!["one".into(), "hush-2".into()]));
    assert_eq!(config.jobs.keys().collect::<Vec<_>>(), ["mine", SPOOL_JOB]);
    assert!(!format!("{config:?}").contains("hush-2"));
}

#[test]
fn all_mistakes_of_all_files_are_told_at_once() {
    let told = wrong(&[
        (
            "redeliver.yaml",
            "hostnam: x\nsmtp:\n  listen: ['127.0.0.1:99999', '127.0.0.1:25', '127.0.0.1:25']\n  networks: [10.0.0.0/33]\n  processor: realy\nadmin: {listen: '0.0.0.0:80'}\n",
        ),
        ("jobs/a.yaml", "kind: reprocess\nrepository: sqlite://var/mail/error/\nprocessor: relai\n"),
        ("jobs/b.yaml", "kind: 'sweep\n"),
        ("jobs/c.yml", "kind: spool\n"),
        ("jobs/spool.yaml", "kind: backup\ndirectory: x\n"),
        ("schedules/a.yaml", "job: b\ncron: '0 0 30 2 *'\ntimezone: Europe/Pari\n"),
        ("schedules/b.yaml", "job: bb\ncron: '* * *'\noverlap: wait\n"),
    ]);
    let begins = [
        "redeliver.yaml:1:1: unknown key 'hostnam': did you mean 'hostname'?",
        "redeliver.yaml:3:12: an IP address with a port",
        "redeliver.yaml:3:47: 127.0.0.1:25 stands here a second time",
        "redeliver.yaml:4:14: a network such as",
        "redeliver.yaml:5:14: smtp.processor: there is no processor 'realy': did you mean 'relay'?",
        "redeliver.yaml:6:17: 0.0.0.0:80 can be reached from other machines: set 'password', 'passwordFile' or 'users'",
        "jobs/c.yml:1:1: only files called .yaml are read: rename it",
        "jobs/a.yaml:3:12: there is no processor 'relai': did you mean 'relay'?",
        "jobs/b.yaml:2:1: not valid YAML",
        "jobs/spool.yaml:1:1: the job 'spool' can only be of kind spool",
        "schedules/a.yaml:2:7: '0 0 30 2 *' never fires: there is no such day",
        "schedules/a.yaml:3:11: there is no time zone 'Europe/Pari': did you mean 'Europe/Paris'?",
        "schedules/b.yaml:1:6: there is no job 'bb': did you mean 'b'?",
        "schedules/b.yaml:2:7: '* * *' is not a cron expression",
        "schedules/b.yaml:3:10: skip or queue is expected here, not the text \"wait\"",
    ];
    assert_eq!(told.len(), begins.len(), "{told:#?}");
    for (line, begin) in told.iter().zip(begins) {
        assert!(line.starts_with(begin), "{line}\n{begin}");
    }
}

#[test]
fn the_other_files_are_checked_although_one_does_not_parse() {
    let told = wrong(&[
        ("redeliver.yaml", "a: [\n"),
        ("jobs/a.yaml", "kind: reprocess\nrepository: any://where/\nprocessor: any\nlimt: 3\n"),
        ("schedules/a.yaml", "job: a\n"),
    ]);
    assert!(told[0].starts_with("redeliver.yaml:"), "{told:?}");
    assert_eq!(
        told[1..],
        ["jobs/a.yaml:4:1: unknown key 'limt': did you mean 'limit'?", "schedules/a.yaml:1:1: key 'cron' is missing"]
    );
}

#[test]
fn what_was_meant_to_be_read_is_not_passed_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    for name in ["jobs/old", "schedules"] {
        std::fs::create_dir_all(at(name)).expect("made");
    }
    std::fs::write(at("redeliver.yaml"), "hostname: relay.example.org\n").expect("written");
    for left_over in ["a.yaml~", ".a.yaml.swp", "a.yaml.dpkg-dist", "a.yaml.bak", "#a.yaml#", "README"] {
        std::fs::write(at(&format!("jobs/{left_over}")), "kind: nonsense\n").expect("written");
    }
    std::fs::write(at("jobs/old/b.yaml"), "kind: nonsense\n").expect("written");
    let source = Source::File(at("redeliver.yaml"));
    let warnings = load(&source).expect("the left-overs are none of it").warnings();
    let said = format!("{} is not read: jobs are files of the folder itself", at("jobs/old").display());
    assert!(warnings.contains(&said), "{warnings:?}");
    nix::unistd::mkfifo(&at("jobs/pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    std::os::unix::fs::symlink("loop.yaml", at("jobs/loop.yaml")).expect("linked");
    for name in ["jobs/c.YAML", "jobs/d.YML"] {
        std::fs::write(at(name), "kind: spool\n").expect("written");
    }
    let told = load(&source).expect_err("refused").to_string();
    for said in [
        "jobs/pipe.yaml:1:1: it is no file",
        "jobs/loop.yaml:1:1: cannot be read",
        "jobs/c.YAML:1:1: only files called .yaml are read: rename it",
        "jobs/d.YML:1:1: only files called .yaml are read: rename it",
    ] {
        assert!(told.contains(said), "{said}: {told}");
    }
}

#[test]
fn a_key_in_the_wrong_place_is_told_where_it_stands() {
    for (line, said) in [
        ("listen: [\"127.0.0.1:25\"]", "unknown key 'listen': it stands in 'smtp', and in 'admin'"),
        ("maxRetries: 3", "it stands with a rule of RemoteDelivery, in 'processors'"),
        ("jobs: {}", "it stands in files of their own, in jobsDirectory"),
        ("Hostname: a.example", "did you mean 'hostname'?"),
    ] {
        let told = wrong(&[("redeliver.yaml", &format!("{line}\n"))]);
        assert!(told.iter().any(|one| one.contains(said)), "{line}: {told:?}");
    }
    let told = wrong(&[("redeliver.yaml", "hostname: relay.example.org\n"), ("jobs/a.yaml", "kind: Reproces\n")]);
    assert!(told.iter().any(|one| one.ends_with("did you mean 'reprocess'?")), "{told:?}");
}

#[test]
fn stores_are_one_real_one_and_its_aliases() {
    for (stores, expected) in [
        ("{cassandra: sqlite}", "redeliver.yaml:1:9: one store must be real"),
        ("{sqlite: {path: x}, mem: {path: y}}", "redeliver.yaml:1:34: 'mem' can only be an alias"),
        ("{sqlite: {path: x}, mem: cassandra}", "redeliver.yaml:1:34: 'mem' can only be an alias"),
        ("{sqlite: {pth: x}}", "redeliver.yaml:1:18: key 'path' is missing"),
        ("{sqlite: x}", "redeliver.yaml:1:18: the store 'sqlite' is expected here as keys and values"),
        ("{sqlite: {path: x}, A/b: sqlite}", "redeliver.yaml:1:29: 'A/b' cannot be the scheme of a URL"),
        ("[sqlite]", "redeliver.yaml:1:9: 'stores' is expected here"),
    ] {
        let told = wrong(&[("redeliver.yaml", &format!("stores: {stores}\n"))]);
        assert!(told.iter().any(|line| line.starts_with(expected)), "{stores}: {told:?}");
    }
}

#[test]
fn a_purge_of_what_is_still_swept_must_be_meant() {
    let sweep = ("jobs/sweep.yaml", "kind: reprocess\nrepository: temporary\nprocessor: relay\n");
    let purge = "kind: purge\nolderThan: 9d\nrepository: temporary\n";
    let main = ("redeliver.yaml", "downFor: 1s\n");
    let told = wrong(&[main, sweep, ("jobs/purge.yaml", purge)]);
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("jobs/purge.yaml:3:13: job 'sweep' still delivers out of"), "{told:?}");
    let meant = format!("{purge}force: true\n");
    assert!(load_files(&[main, sweep, ("jobs/purge.yaml", &meant)]).1.is_ok());
}

#[test]
fn two_listeners_on_one_address_and_a_secret_that_is_no_text_are_told_without_the_secret() {
    let told = wrong(&[("redeliver.yaml", "admin:\n  listen: '127.0.0.1:2525'\n  password: [12345]\n")]);
    assert_eq!(
        told,
        [
            "redeliver.yaml:2:11: 127.0.0.1:2525 is smtp.listen already: admin.listen needs an address of its own",
            "redeliver.yaml:3:14: a text in quotes, not blank and without control characters, is expected here",
        ]
    );
}

#[test]
fn a_file_that_is_there_and_cannot_be_read_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let wrong = load(&Source::File(folder.path().to_owned())).expect_err("a folder is no file");
    assert!(wrong.to_string().contains(":1:1: cannot be read: "), "{wrong}");
    let wrong = load(&Source::File(folder.path().join("none"))).expect_err("not there");
    assert!(wrong.to_string().contains(":1:1: cannot be read: "), "{wrong}");
}

/// `relayed` has an open end, which is right only where what is delivered alone comes to it.
const OPEN_TO_SUCCESSES: &str = "\
smtp: { processor: FIRST }
processors:
  root:
    - { match: RecipientDomainIs=gw.example, mailet: ToProcessor, processor: gateway }
    - { mailet: ROOT }
  gateway:
    - { mailet: RemoteDelivery, bounceProcessor: failed, onSuccess: SUCCESS }
  relay:
    - { mailet: DELIVERY, bounceProcessor: BOUNCE, onSuccess: SUCCESS }
  failed:
    - { mailet: LogMessage, onMailetException: MISTAKE }
    - { mailet: ToRepository, repositoryPath: a/temporary }
  delivered:
    - { mailet: ToProcessor, processor: CHAIN }
  relayed:
    - { match: DSNSuccessRequested, mailet: DSNBounce }
  by-hand:
    - { mailet: HAND }
";

#[test]
fn only_what_is_delivered_may_come_to_an_open_end() {
    let usual = [
        ("FIRST", "root"),
        ("ROOT", "ToProcessor, processor: relay"),
        ("SUCCESS", "relayed"),
        ("DELIVERY", "RemoteDelivery"),
        ("BOUNCE", "failed"),
        ("MISTAKE", "error"),
        ("HAND", "'Null'"),
        ("CHAIN", "failed"),
        ("JOB", "relay"),
    ];
    let alone = "processor 'relayed' has an open end, so that only onSuccess may lead to it";
    let stray = "nothing leads to processor 'relayed'";
    for (instead, errors, warned) in [
        // Whatever leads to the RemoteDelivery, and however many share the processor.
        (&[][..], &[][..], ""),
        (&[("FIRST", "relay")], &[], ""),
        (&[("SUCCESS", "delivered"), ("CHAIN", "relayed")], &[], ""),
        (&[("JOB", "root")], &[], ""),
        // What is not delivered is led there.
        (&[("FIRST", "relayed")], &[("redeliver.yaml:1:20: smtp.processor: ", alone)], ""),
        (&[("BOUNCE", "relayed")], &[("redeliver.yaml:9:50: ", alone)], ""),
        (&[("BOUNCE", "delivered"), ("CHAIN", "relayed")], &[("redeliver.yaml:14:41: ", alone)], ""),
        (&[("ROOT", "ToProcessor, processor: relayed")], &[("redeliver.yaml:5:41: ", alone)], ""),
        (&[("MISTAKE", "relayed")], &[("redeliver.yaml:11:48: ", alone)], ""),
        (&[("HAND", "ToProcessor, processor: relayed")], &[("redeliver.yaml:18:41: ", alone)], ""),
        (&[("JOB", "relayed")], &[("jobs/again.yaml:3:12: ", alone)], ""),
        (
            &[("JOB", "delivered"), ("SUCCESS", "delivered"), ("CHAIN", "relayed")],
            &[("jobs/again.yaml:3:12: ", alone)],
            "",
        ),
        // It is told once, where the mail comes from first.
        (&[("JOB", "relayed"), ("BOUNCE", "relayed")], &[("redeliver.yaml:9:50: ", alone)], ""),
        // Nothing leads there.
        (&[("SUCCESS", "failed")], &[], stray),
        (
            &[("SUCCESS", "failed"), ("FIRST", "relayed")],
            &[("redeliver.yaml:15:3: ", "processor 'relayed' has an open end: let its last rule be")],
            "",
        ),
        (
            &[("SUCCESS", "failed"), ("JOB", "relayed")],
            &[("jobs/again.yaml:3:12: ", "processor 'relayed' has an open end: let its last rule be")],
            "",
        ),
        (&[("HAND", "LogMessage")], &[], "nothing leads to processor 'by-hand'"),
        // What leads there is wrong by itself.
        (&[("DELIVERY", "RemoteDelivry")], &[("redeliver.yaml:9:17: ", "unknown mailet 'RemoteDelivry'")], ""),
    ] {
        let part = |name: &str| {
            let usual = usual.iter().find(|(part, _)| *part == name);
            instead.iter().find(|(part, _)| *part == name).or(usual).expect("a part").1
        };
        let mut main = OPEN_TO_SUCCESSES.to_owned();
        for (name, _) in &usual[..8] {
            main = main.replace(name, part(name));
        }
        let job = format!("kind: reprocess\nrepository: temporary\nprocessor: {}\n", part("JOB"));
        let loaded = load_files(&[("redeliver.yaml", &main), ("jobs/again.yaml", &job)]).1;
        let told = loaded.as_ref().err().cloned().unwrap_or_default();
        let is_told =
            |(place, words): &(&str, &str)| told.iter().any(|line| line.starts_with(&format!("{place}{words}")));
        assert!(told.len() == errors.len() && errors.iter().all(is_told), "{instead:?}: {told:#?}");
        if let Ok(config) = loaded {
            let found = config.warnings().join("\n");
            assert_eq!(found.contains("nothing leads to"), !warned.is_empty(), "{instead:?}: {found}");
            assert!(found.contains(warned), "{instead:?}: {found}");
        }
    }
}

#[test]
fn mail_is_sent_by_hand_into_no_open_end() {
    let config = load(&Source::BuiltIn).expect("what ships is right").processors;
    assert!(config.check_processor("relayed").is_err_and(|told| told.contains("open end")));
    assert_eq!(config.processors().collect::<Vec<_>>(), ["give-up", "relay", "remote-delivery-error"]);
    assert!(config.processors().all(|name| config.check_processor(name).is_ok()));
}

#[test]
fn what_is_allowed_and_yet_unwise_gets_a_word() {
    let processors = "processors:\n  relay: [{match: MATCH, mailet: RemoteDelivery, bounceProcessor: rde}, {mailet: ToRepository, repositoryPath: a/permanent}]\n  rde: [{mailet: ToRepository, repositoryPath: a/temporary}]\n";
    let job = ("jobs/retry.yaml", "kind: reprocess\nrepository: temporary\nprocessor: relay\n");
    let hourly = ("schedules/retry.yaml", "job: retry\ncron: '@hourly'\n");
    let warnings = |matcher: &str, files: &[(&str, &str)]| {
        let main = processors.replace("MATCH", matcher);
        let all: Vec<_> = [("redeliver.yaml", main.as_str()), job].into_iter().chain(files.iter().copied()).collect();
        load_files(&all).1.expect("valid").warnings().join("\n")
    };
    assert!(warnings("AtMost=5", &[hourly]).contains("job retry: a deferred mail is given up after 4h"));
    assert!(!warnings("AtMost=100", &[hourly]).contains("given up"));
    assert!(warnings("All", &[hourly]).contains("tried for ever"));
    assert!(warnings("AtMost=5", &[]).contains("job retry: no schedule starts it"));
    assert!(warnings("AtMost=5", &[]).contains("senders are not told of failures"));
    let report = ("jobs/tell.yaml", "kind: report\nrepository: sqlite://a/permanant/\nto: []\n");
    assert!(warnings("AtMost=5", &[report]).contains("job tell: no rule stores anything in a/permanant"));
    let report = ("jobs/tell.yaml", "kind: report\nrepository: sqlite://a/permanent/\nto: []\n");
    assert!(!warnings("AtMost=5", &[report]).contains("no rule stores"));
    let changed = "All, mailet: RemoveMailAttribute, name: AT_MOST_EXECUTIONS}, {match: AtMost=5";
    assert!(warnings(changed, &[]).contains("a mailet sets or removes AT_MOST_EXECUTIONS"));
    assert!(!warnings("AtMost=other:5", &[]).contains("sets or removes"));
    let late = |jitter| ("schedules/retry.yaml", format!("job: retry\ncron: '0,30 9-17 * * *'\njitter: {jitter}\n"));
    let (path, text) = late("3d");
    assert!(warnings("AtMost=5", &[(path, &text)]).contains("schedule retry: of the jitter 3d only 15m are used"));
    let uneven = ("schedules/retry.yaml", "job: retry\ncron: '*/90 * * * *'\n");
    assert!(warnings("AtMost=5", &[uneven]).contains("schedule retry: '*/90' in the minutes is 0 alone"));
    let key = rcgen::KeyPair::generate().expect("a key");
    let of = rcgen::CertificateParams::new(vec!["relay.test".to_owned()]).expect("parameters");
    let (certificate, key) = (of.self_signed(&key).expect("a certificate").pem(), key.serialize_pem());
    for (admin, is_clear) in [
        ("listen: '0.0.0.0:8000', password: [x]", true),
        ("listen: '192.0.2.1:8000', passwordReadonly: [x], url: 'http://relay.example/'", true),
        ("listen: '0.0.0.0:8000', password: [x], url: 'https://relay.example/'", false),
        ("listen: '0.0.0.0:8000', password: [x], tls: {certificate: c.pem, key: k.pem}", false),
        ("listen: '127.0.0.1:8000', password: [x]", false),
    ] {
        let main = format!("{}admin: {{{admin}}}\n", processors.replace("MATCH", "AtMost=5"));
        let warned = load_files(&[("redeliver.yaml", &main), ("c.pem", &certificate), ("k.pem", &key), job]);
        let warned = warned.1.expect("valid").warnings().join("\n");
        assert_eq!(warned.contains("is in clear: passwords and mail can be read"), is_clear, "{admin}");
    }
    let (path, text) = late("15m");
    assert!(!warnings("AtMost=5", &[(path, &text)]).contains("jitter"));
}

#[test]
fn a_limit_that_no_mail_comes_to_is_named_with_its_place() {
    let processors = "processors:\n  relay:\n  - {match: AtMost=8, mailet: RemoteDelivery, bounceProcessor: rde}\n  - {mailet: ToRepository, repositoryPath: a/permanent}\n  rde:\n  - {match: FIRST, mailet: DSNBounce}\n  - {match: SECOND, mailet: ToRepository, repositoryPath: a/WHERE}\n  - {mailet: ToRepository, repositoryPath: a/temporary}\n";
    let never = "AttemptsExhausted=9 never matches, since AtMost=8 lets no mail have more passes";
    let stored = "redeliver.yaml:7 stores in a/permanent what has had 5 passes";
    for (first, second, place, told) in [
        ("AttemptsExhausted=8", "AttemptsExhausted=8", "permanent", &[][..]),
        ("AttemptsExhausted=5", "AttemptsExhausted=8", "permanent", &[]),
        ("AttemptsExhausted=8", "AttemptsExhausted=9", "permanent", &[("7", never)]),
        ("{ Or: [IsRemoteDeliveryPermanentError, AttemptsExhausted=9] }", "All", "permanent", &[("6", never)]),
        ("AttemptsExhausted=8", "AttemptsExhausted=5", "permanent", &[("6", stored)]),
        ("{ Not: AttemptsExhausted=8 }", "AttemptsExhausted=5", "permanent", &[("6", stored)]),
        // What is stored there comes back, with more passes.
        ("AttemptsExhausted=8", "AttemptsExhausted=5", "temporary", &[]),
        ("AttemptsExhausted=8", "{ Not: AttemptsExhausted=5 }", "permanent", &[]),
    ] {
        let main = processors.replace("FIRST", first).replace("SECOND", second).replace("WHERE", place);
        let job = ("jobs/retry.yaml", "kind: reprocess\nrepository: temporary\nprocessor: relay\n");
        let found = load_files(&[("redeliver.yaml", &main), job]).1.expect("valid").warnings();
        let found: Vec<_> = found.iter().filter(|line| line.contains("AttemptsExhausted")).collect();
        assert_eq!(found.len(), told.len(), "{first} {second}: {found:?}");
        for (line, (at, words)) in found.iter().zip(told) {
            assert!(
                line.contains(&format!("redeliver.yaml:{at}: AttemptsExhausted")) && line.contains(words),
                "{line}"
            );
        }
    }
}
