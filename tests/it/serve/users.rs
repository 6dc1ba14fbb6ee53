//! What users of the machine may do beside the service whose store is closed to them.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Service, served};
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, on, script};

/// The user `nobody` of Debian.
const NOBODY: u32 = 65534;

/// Runs the program as `nobody`, who is given a copy that he can reach.
fn as_nobody(relay: &Relay, words: &[&str], input: &str) -> Output {
    let config = relay.configuration();
    let named = [&["--config", config.to_str().expect("UTF-8")], words].concat();
    as_nobody_with(relay, &named, input, Path::new("")).output().expect("the program")
}

/// The service is at `submit`; empty is where the configuration says.
fn as_nobody_with(relay: &Relay, words: &[&str], input: &str, submit: &Path) -> Command {
    let program = relay.path().join("redeliver");
    if !program.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_redeliver"), &program).expect("copied");
    }
    let file = relay.path().join("message");
    std::fs::write(&file, input).expect("written");
    let mut command = Command::new(program);
    command
        .args(words)
        .env_remove("REDELIVER_CONFIG")
        .env("REDELIVER_SUBMIT", submit)
        .stdin(Stdio::from(std::fs::File::open(file).expect("there")))
        .uid(NOBODY)
        .gid(NOBODY);
    command
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

/// Somebody who listens where the service would.
fn listener(path: &Path) -> UnixListener {
    let listener = UnixListener::bind(path).expect("bound");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).expect("its owner");
    listener
}

#[test]
fn what_a_user_may_not_read_is_no_mistake_in_the_configuration() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("not run: this user is not root, and cannot become another");
        return;
    }
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("its owner");
    };
    for (closed, mode) in [
        ("etc/redeliver.yaml", 0o640),
        ("etc", 0o750),
        ("etc/secret", 0o600),
        ("etc/jobs", 0o700),
        ("var", 0o700),
        ("nothing", 0o700),
    ] {
        let relay = Setup::gateway("127.0.0.2:25").build();
        let path = |name: &str| relay.path().join(name);
        for folder in ["etc", "etc/jobs", "etc/schedules", "var", "nothing"] {
            std::fs::create_dir(path(folder)).expect("made");
        }
        let text = std::fs::read_to_string(relay.configuration()).expect("written");
        let text = text.lines().filter(|line| !line.starts_with("stateDirectory")).collect::<Vec<_>>().join("\n");
        let text = format!("stateDirectory: {}\nadmin: {{ passwordFile: secret }}\n{text}\n", path("var").display());
        std::fs::write(path("etc/redeliver.yaml"), text).expect("written");
        std::fs::write(path("etc/secret"), "secret").expect("written");
        open(relay.path(), 0o755);
        open(&path(closed), mode);
        let service = listener(&path("submit.sock"));
        let config = path("etc/redeliver.yaml");
        let asked = |words: &[&str]| {
            let named = [&["--config", config.to_str().expect("UTF-8")], words].concat();
            as_nobody_with(&relay, &named, "X: y\n\n", &path("submit.sock"))
        };
        for words in [&["sendmail", "b@x.example"][..], &["sendmail", "-bs"]] {
            let mut waits = asked(words).stdout(Stdio::null()).spawn().expect("the program");
            service.accept().expect("the service is asked, and nothing said before");
            waits.kill().expect("our own child");
            waits.wait().expect("our own child");
        }
        // Nobody answers there now.
        drop(service);
        let listed = asked(&["sendmail", "-bp"]).output().expect("the program");
        assert_eq!(listed.status.code(), Some(75), "{closed}: {listed:?}");
        let swept = asked(&["sendmail", "-q"]).output().expect("the program");
        let needs = if closed == "etc/jobs" { 78 } else { 75 };
        assert_eq!(swept.status.code(), Some(needs), "{closed}: a run needs the jobs: {swept:?}");
    }
}

/// A `sendmail` to which the store is closed, and whose writer takes his time.
fn slow_writer(relay: &Relay) -> (Child, ChildStdin) {
    let text = std::fs::read_to_string(relay.configuration()).expect("written");
    let config = relay.path().join("asks.yaml");
    std::fs::write(&config, text.replace("path: redeliver.db", "path: closed")).expect("written");
    for folder in ["var/closed", "tmp"] {
        std::fs::create_dir_all(relay.path().join(folder)).expect("made");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_redeliver"));
    command.args(["sendmail", "-i", "--config"]).arg(config).arg("b@x.example").env("TMPDIR", relay.path().join("tmp"));
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the program");
    let mut input = child.stdin.take().expect("piped");
    // More than a pipe and its memory hold: it has read most of it when this is written.
    input.write_all(b"Subject: slow\n\n").expect("written");
    input.write_all("first 789\n".repeat(200_000).as_bytes()).expect("it reads");
    (child, input)
}

#[test]
fn a_writer_may_be_slow_whatever_becomes_of_the_service_meanwhile() {
    let peer = SmtpSink::start(Script::new());
    let relay = served(Setup::gateway(peer.address()));
    for (n, end) in [Service::stop, Service::kill].into_iter().enumerate() {
        let service = Service::start(&relay);
        let (mut writer, mut input) = slow_writer(&relay);
        end(service);
        let next = Service::start(&relay);
        input.write_all(b"second\n").expect("it reads");
        drop(input);
        assert_eq!(writer.wait().expect("our own child").code(), Some(0));
        next.wait_until_settled();
        let sent = peer.transactions();
        assert_eq!(sent.len(), n + 1);
        let text = sent[n].text();
        assert!(text.ends_with("first 789\r\nsecond\r\n") && text.matches("first").count() == 200_000);
        assert_eq!(std::fs::read_dir(relay.path().join("tmp")).expect("there").count(), 0, "nothing is left");
        next.stop();
    }
}

#[test]
fn a_writer_who_is_ended_leaves_nothing() {
    let relay = served(Setup::gateway("127.0.0.2:25"));
    let service = Service::start(&relay);
    let (mut writer, _input) = slow_writer(&relay);
    kill(Pid::from_raw(writer.id().cast_signed()), Signal::SIGTERM).expect("our own child");
    assert_eq!(writer.wait().expect("our own child").signal(), Some(15));
    assert_eq!(std::fs::read_dir(relay.path().join("tmp")).expect("there").count(), 0);
    assert_eq!(service.in_spool(), 0);
    service.stop();
}

/// A user whose limit of processes is reached gets an answer, whatever is left to him.
#[test]
fn without_threads_a_user_is_told_to_try_again_and_nobody_hangs() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("not run: this user is not root, and cannot become another");
        return;
    }
    let peer = SmtpSink::start(Script::new());
    let relay = served(Setup::gateway(peer.address()));
    std::fs::create_dir(relay.path().join("var")).expect("made");
    for directory in [relay.path().to_owned(), relay.path().join("var")] {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).expect("its owner");
    }
    let service = Service::start(&relay);
    let program = relay.path().join("redeliver");
    std::fs::copy(env!("CARGO_BIN_EXE_redeliver"), &program).expect("copied");
    let mut taken = 0;
    for limit in [1, 2, 3, 4, 5, 6, 8, 500] {
        let mut command = Command::new("timeout");
        command
            .args(["-s", "KILL", "60", "prlimit", &format!("--nproc={limit}")])
            .args(["setpriv", "--reuid=61234", "--regid=61234", "--clear-groups"])
            .arg(&program)
            .arg("--config")
            .arg(relay.configuration())
            .args(["sendmail", "-f", "me@example.org", "you@example.net"])
            .env_remove("REDELIVER_CONFIG")
            .current_dir(relay.path())
            .stdin(Stdio::null());
        let ended = command.output().expect("timeout, prlimit and setpriv");
        let (code, said) = (ended.status.code(), text(&ended.stderr));
        assert!(!said.contains("panicked"), "{limit}: {said}");
        match code {
            Some(0) => taken += 1,
            Some(75) => assert!(said.contains("no thread can be started"), "{limit}: {said}"),
            other => panic!("{limit}: {other:?} {said}"),
        }
        assert!((limit > 1 || code == Some(75)) && (limit < 500 || code == Some(0)), "{limit}: {code:?} {said}");
    }
    peer.wait_for_transactions(taken);
    service.stop();
}

/// In a container, or of a restored volume, the owner of the store may have no name.
#[test]
fn root_becomes_an_owner_without_a_name() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("not run: this user is not root, and cannot become another");
        return;
    }
    let peer = SmtpSink::start(Script::new());
    let relay = Setup::gateway(peer.address()).build();
    relay.command(&["repository", "list"]).expect(0);
    let chown = Command::new("chown").args(["-R", "61235:61235"]).arg(relay.path()).status().expect("chown");
    assert!(chown.success());
    relay.submit("me@example.org", &["you@example.net"], "Subject: s\n\nb\n");
    assert_eq!(relay.run_spool().expect(0).counts(), [1, 1, 0, 0, 0, 0]);
    let database = std::fs::metadata(relay.path().join("var/redeliver.db")).expect("the store");
    assert_eq!((database.uid(), database.gid()), (61235, 61235));
}
