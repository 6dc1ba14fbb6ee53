//! What a shell is offered: commands, options, and the names that the configuration has.

use std::process::Command;

use crate::support::relay::{Relay, Setup};

/// What bash is offered for the last of these words.
fn offered(relay: &Relay, words: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_redeliver"))
        .env("REDELIVER_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
        .env("_CLAP_IFS", "\n")
        .env("REDELIVER_CONFIG", relay.path().join("redeliver.yaml"))
        .args(["--", "redeliver"])
        .args(words)
        .output()
        .expect("it runs");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}

#[test]
fn names_of_jobs_repositories_and_processors_are_offered() {
    let relay = Setup::gateway("127.0.0.1:1").build();
    let schedule = "job: retry-temporary\ncron: \"0 3 * * *\"\n";
    std::fs::write(relay.path().join("schedules/nightly.yaml"), schedule).expect("written");
    for (words, expected) in [
        (&["che"][..], &["check"][..]),
        (&["run", ""], &["retry-temporary", "spool"]),
        (&["run", "ret"], &["retry-temporary"]),
        (&["job", "runs", "s"], &["spool"]),
        (&["schedule", "pause", "n"], &["nightly"]),
        (&["schedule", "resume", "n"], &["nightly"]),
        (&["repository", "mails", "t"], &["temporary"]),
        (
            &["repository", "show", "var/mail/error/r"],
            &["var/mail/error/remote-delivery/permanent", "var/mail/error/remote-delivery/temporary"],
        ),
        (&["repository", "move", "temporary", "--to", "p"], &["permanent"]),
        (&["repository", "reprocess", "temporary", "--processor", "rel"], &["relay"]),
        (&["repository", "list", "--form"], &["--format"]),
        (&["repository", "list", "--format", "j"], &["json"]),
    ] {
        let found: Vec<_> = offered(&relay, words)
            .into_iter()
            .filter(|one| words.last() != Some(&"") || !one.starts_with('-'))
            .collect();
        assert_eq!(found, expected, "{words:?}");
    }
}

#[test]
fn a_configuration_that_is_wrong_offers_no_names_and_says_nothing() {
    let relay = Relay::written(&[("redeliver.yaml", "nonsense: [\n")]);
    assert!(offered(&relay, &["repository", "mails", "t"]).is_empty());
    assert_eq!(offered(&relay, &["sched"]), ["schedule"]);
}

#[test]
fn each_shell_gets_a_script_that_calls_the_program_by_its_name() {
    for shell in ["bash", "zsh", "fish"] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_redeliver")).env("REDELIVER_COMPLETE", shell).output().expect("it runs");
        let script = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(script.contains("redeliver") && !script.contains("target/"), "{shell}: {script}");
    }
}
