//! What users of the machine may do beside the service whose store is closed to them.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use super::{Service, served};
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, on, script};

/// The user `nobody` of Debian.
const NOBODY: u32 = 65534;

/// Runs the program as `nobody`, who is given a copy that he can reach.
fn as_nobody(relay: &Relay, words: &[&str], input: &str) -> Output {
    let program = relay.path().join("redeliver");
    if !program.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_redeliver"), &program).expect("copied");
    }
    let file = relay.path().join("message");
    std::fs::write(&file, input).expect("written");
    Command::new(program)
        .arg("--config")
        .arg(relay.configuration())
        .args(words)
        .env_remove("REDELIVER_CONFIG")
        .stdin(Stdio::from(std::fs::File::open(file).expect("there")))
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .expect("the program")
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

#[test]
fn a_user_is_told_of_his_own_waiting_mails_alone() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("not run: this user is not root, and cannot become another");
        return;
    }
    let peer = SmtpSink::start(script![on("RCPT") => "450 4.2.1 come back later"]);
    let relay = served(Setup::gateway(peer.address()));
    std::fs::create_dir(relay.path().join("var")).expect("made");
    for directory in [relay.path().to_owned(), relay.path().join("var")] {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).expect("its owner");
    }
    let service = Service::start(&relay);
    let none = as_nobody(&relay, &["sendmail", "-bp"], "");
    assert_eq!((text(&none.stdout).as_str(), none.status.code()), ("Mail queue is empty\n", Some(0)), "{none:?}");

    service.submit(&["secret@example.net"], "m");
    let own = as_nobody(&relay, &["sendmail", "mine@example.net"], "X: y\n\nz\n");
    assert_eq!(own.status.code(), Some(0), "{own:?}");
    service.wait_until_settled();
    let told = as_nobody(&relay, &["sendmail", "-bp"], "");
    let listed = text(&told.stdout);
    assert!(listed.starts_with("var/mail/error/remote-delivery/temporary:\n"), "{listed}");
    assert!(listed.contains("nobody@") && listed.contains("mine@example.net"), "{listed}");
    assert!(listed.contains("450 4.2.1 come back later") && !listed.contains("secret"), "{listed}");
    assert!(text(&told.stderr).starts_with("only mails from nobody@"), "{told:?}");
    assert!(listed.lines().last().is_some_and(|line| line.ends_with(" Requests.")), "all mails are counted: {told:?}");
    // What would contact the peers again is for those whom the store belongs to.
    let sweep = as_nobody(&relay, &["sendmail", "-q"], "");
    assert_eq!(sweep.status.code(), Some(75), "{sweep:?}");
    assert!(text(&sweep.stderr).contains("redeliver.db"), "the store is named: {sweep:?}");
    service.stop();
}
