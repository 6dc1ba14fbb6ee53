//! `submit.sock`: a message handed over to the service by somebody who may not write the store.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::Arc;

use redeliver::clock::Clock;
use redeliver::ingest::{
    Caller, Here, Intake, Listener, ListenerConfig, ListenerContext, Origin, SubmitContext, SubmitSocket,
};
use redeliver::live::Live;
use redeliver::mail::{Address, Domain, RepositoryPath};
use redeliver::metrics::Metrics;
use redeliver::pipeline::{self, Pipeline};
use redeliver::spool::{FreeSpace, Settings, Spool};
use redeliver::stop::Stop;
use redeliver::store::{Act, Acted, Batch, Listed, MailFilter, NewOperation, Place, Span, SqliteStore, Store};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::dialogue::Dialogue;
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink, on, script};

/// A relay whose own commands cannot open the store, and a service beside it that can.
struct Served {
    relay: Relay,
    store: Arc<dyn Store>,
    runtime: Runtime,
    stop: CancellationToken,
    door_stop: Stop,
    serving: JoinHandle<()>,
}

impl Served {
    fn start() -> Self {
        let relay = Setup::gateway("127.0.0.2:25").build();
        let text = fs::read_to_string(relay.configuration()).expect("written");
        fs::write(relay.configuration(), text.replace("path: redeliver.db", "path: closed")).expect("written");
        fs::create_dir_all(relay.path().join("var/closed")).expect("made");
        let runtime = Runtime::new().expect("a runtime");
        let store: Arc<dyn Store> =
            Arc::new(SqliteStore::open(&relay.path().join("var/open.db"), "serve", &Clock::system()).expect("opens"));
        let door_stop = Stop::default();
        let context = context(Arc::clone(&store), door_stop.clone());
        let stop = CancellationToken::new();
        let _inside = runtime.enter();
        let socket = SubmitSocket::bind(&relay.path().join("var/submit.sock")).expect("bound");
        let serving = runtime.spawn(socket.serve(context, stop.clone()));
        Self { relay, store, runtime, stop, door_stop, serving }
    }

    /// Listens and serves again, as a service does that was restarted.
    fn again(&self) -> JoinHandle<()> {
        let _inside = self.runtime.enter();
        let socket = SubmitSocket::bind(&self.relay.path().join("var/submit.sock")).expect("in its place");
        let context = context(Arc::clone(&self.store), self.door_stop.clone());
        self.runtime.spawn(socket.serve(context, CancellationToken::new()))
    }

    fn mails(&self) -> Vec<Listed> {
        let all = MailFilter::default();
        self.runtime.block_on(self.store.list(&Place::Spool, &all, &Span::of(10))).expect("a page").items
    }
}

fn context(store: Arc<dyn Store>, stop: Stop) -> Arc<SubmitContext> {
    let pipeline = Pipeline::new(pipeline::Config::default(), |_| Err("nothing is delivered here".to_owned()));
    let settings = Settings {
        patience: std::time::Duration::from_secs(1),
        processor: "relay".to_owned(),
        max_message_size: 100_000,
        keep_all_dialogues: true,
        max_dialogue: 1000,
        metrics: Metrics::new(),
        free_space: FreeSpace::told_by(|| Ok(u64::MAX)),
    };
    let spool = Spool::new(store, Arc::new(pipeline.expect("a pipeline")), Clock::system(), settings, Stop::default());
    let here = Here::new(Domain::parse("relay.test").expect("a domain"), |_| false);
    let caller = |uid, _: &Here| {
        let address = Address::parse(&format!("uid{uid}@relay.test")).expect("an address");
        Ok(Caller { origin: Origin::User(uid), address, full_name: None })
    };
    let kept = BTreeSet::from([RepositoryPath::parse("var/mail/temporary").expect("a path")]);
    let clock = Clock::system();
    let config = ListenerConfig { listen: Vec::new(), ..ListenerConfig::new(here.hostname.clone()) };
    let intake = Live::new(Intake { spool, kept, here });
    let context = ListenerContext { intake: intake.clone(), clock: clock.clone() };
    let smtp = Listener::bind(&config, context).expect("nothing to bind").control();
    Arc::new(SubmitContext { intake, clock, smtp, stop, caller })
}

#[test]
fn a_message_is_handed_over_and_its_sender_is_whom_the_kernel_says() {
    let served = Served::start();
    let input = b"To: c@x.example\nBcc: d@x.example\n\nhello\n.\nnever\n";
    served.relay.command_with_input(&["sendmail", "-t", "b@x.example"], input).expect(0);
    let mail = served.mails().remove(0).mail;
    let uid = nix::unistd::Uid::current();
    assert_eq!(mail.envelope.reverse_path.to_string(), format!("uid{uid}@relay.test"));
    let recipients: Vec<_> = mail.envelope.recipients.iter().map(ToString::to_string).collect();
    assert_eq!(recipients, ["b@x.example", "c@x.example", "d@x.example"]);
    let message = served.runtime.block_on(served.store.content(mail.message, 0)).expect("read");
    let message = String::from_utf8(message.to_vec()).expect("it was");
    assert!(message.contains(&format!("from userid {uid}")), "{message}");
    assert!(message.ends_with("\r\n\r\nhello\r\n") && !message.contains("Bcc"), "{message}");
}

#[test]
fn transient_failures_are_listed_though_no_job_takes_them() {
    let peer = SmtpSink::start(script![on("RCPT") => "450 4.2.1 later"]);
    let relay = Setup::gateway(peer.address()).build();
    relay.submit("me@example.org", &["you@example.net"], "X: 1\n\n");
    relay.run_spool();
    fs::remove_file(relay.path().join("jobs/retry-temporary.yaml")).expect("removed");
    let listed = relay.command(&["sendmail", "-bp"]).expect(0).stdout;
    assert!(listed.contains("temporary:\n") && listed.contains("you@example.net"), "{listed}");
}

#[test]
fn a_null_reverse_path_stays_null() {
    let served = Served::start();
    served.relay.command_with_input(&["sendmail", "-f", "<>", "b@x.example"], b"X: y\n\n").expect(0);
    assert_eq!(served.mails().remove(0).mail.envelope.reverse_path.to_string(), "<>");
}

#[test]
fn a_session_on_standard_input_is_handed_over_too() {
    let served = Served::start();
    let mut session = Dialogue::start(served.relay.sendmail_bs());
    session.sends_a_mail();
    let (code, _) = session.end();
    assert_eq!(code, Some(0));
    let mail = served.mails().remove(0).mail;
    let message = served.runtime.block_on(served.store.content(mail.message, 0)).expect("read");
    let uid = nix::unistd::Uid::current();
    let trace = format!("Received: by relay.test (redeliver, from userid {uid})\r\n\twith ESMTP id {}", mail.key);
    assert!(message.starts_with(trace.as_bytes()), "{}", String::from_utf8_lossy(&message));
}

#[test]
fn a_session_that_nobody_can_serve_is_told_so() {
    let served = Served::start();
    served.stop.cancel();
    served.runtime.block_on(served.serving).expect("it ends");
    let ended = served.relay.command_with_input(&["sendmail", "-bs"], b"QUIT\r\n").expect(75);
    assert_eq!(ended.stdout, "421 4.3.0 relay.test mail cannot be stored now, try again later\r\n");
    assert!(ended.stderr.contains("closed"), "the store is named: {ended:?}");
}

#[test]
fn what_waits_is_told_by_the_service_where_the_store_is_out_of_reach() {
    let served = Served::start();
    let (store, kept) = (&served.store, RepositoryPath::parse("var/mail/temporary").expect("a path"));
    let failed = served.relay.command(&["sendmail", "-bp"]).expect(75);
    assert!(failed.stderr.contains("var/mail/temporary"), "the service says why: {failed:?}");
    served.runtime.block_on(store.ensure_repositories(std::slice::from_ref(&kept))).expect("made");
    let empty = served.relay.command(&["sendmail", "-bp"]).expect(0);
    assert_eq!(empty.stdout, "Mail queue is empty\n");
    for number in 0..201 {
        let recipient = format!("b{number}@x.example");
        served.relay.command_with_input(&["sendmail", &recipient, "c@x.example"], b"X: y\n\n").expect(0);
    }
    let mails = served.mails();
    let moved = async {
        let operation = store.begin_operation(&NewOperation::default()).await?;
        let (place, act, keys) = (Place::Spool, Act::Move(kept), vec![mails[3].mail.key.clone()]);
        store.act(&Batch { operation, place, act, keys, within: None }).await
    };
    assert_eq!(served.runtime.block_on(moved).expect("moved"), [Acted::Done]);

    let told = served.relay.command(&["sendmail", "-bp"]).expect(0).stdout;
    let (spool, temporary) = told.split_once("\nvar/mail/temporary:\n").expect("two places");
    let lines: Vec<_> = spool.lines().collect();
    assert_eq!(lines[0], "spool:");
    assert!(lines[1].starts_with("KEY ") && lines[2].contains(" b0@x.example +1"), "{spool}");
    assert_eq!(lines.len(), 202, "{spool}");
    assert!(lines[201].contains(" b200@x.example +1"), "{spool}");
    assert!(temporary.contains(" b3@x.example +1") && temporary.lines().count() == 4, "{temporary}");
    let last = temporary.lines().last().expect("a line");
    assert!(last.starts_with("-- ") && last.ends_with(" Kbytes in 201 Requests."), "{last}");
}

#[test]
fn what_the_service_refuses_is_refused_with_its_reason_and_code() {
    let served = Served::start();
    let large = "x: y\n\n".to_owned() + &"0123456789\n".repeat(50_000);
    for (arguments, input, code, why) in [
        (&["b@x.example"][..], large.as_str(), 65, "larger than 100000 octets"),
        (&["nobody"], "X: y\n", 65, "no domain"),
        (&["-t"], "To: nobody\n\n", 65, "header field To"),
        (&["-t"], "X: y\n\n", 64, "no recipient"),
    ] {
        let arguments = [&["sendmail"], arguments].concat();
        let ended = served.relay.command_with_input(&arguments, input.as_bytes()).expect(code);
        assert!(ended.stderr.contains(why), "{why}: {ended:?}");
    }
    assert!(served.mails().is_empty());
}

#[test]
fn without_a_service_the_message_is_to_be_tried_again() {
    let served = Served::start();
    served.stop.cancel();
    served.runtime.block_on(served.serving).expect("it ends");
    assert!(!served.relay.path().join("var/submit.sock").exists());
    let ended = served.relay.command_with_input(&["sendmail", "b@x.example"], b"X: y\n\n").expect(75);
    assert!(ended.stderr.contains("closed"), "the store is named: {ended:?}");
    // What a service that died has left is no service.
    drop(std::os::unix::net::UnixListener::bind(served.relay.path().join("var/submit.sock")).expect("bound"));
    let ended = served.relay.command_with_input(&["sendmail", "b@x.example"], b"X: y\n\n").expect(75);
    assert!(ended.stderr.contains("no service took it up for "), "{ended:?}");
    let _inside = served.runtime.enter();
    let socket = SubmitSocket::bind(&served.relay.path().join("var/submit.sock")).expect("in its place");
    assert!(SubmitSocket::bind(&served.relay.path().join("var/submit.sock")).is_err(), "and a second is refused");
    drop(socket);
}

#[test]
fn a_service_that_is_being_restarted_is_waited_for_and_nothing_of_the_input_is_lost() {
    let mut served = Served::start();
    served.stop.cancel();
    served.runtime.block_on(std::mem::replace(&mut served.serving, served.runtime.spawn(async {}))).expect("it ends");
    let path = served.relay.path().join("var/submit.sock");
    // One that accepts nobody any more, and one that is gone.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    let waiting = served.relay.spawn(&["sendmail", "b@x.example"], b"X: y\n\nhello\n");
    let mut session = Dialogue::spawn(served.relay.sendmail_bs());
    std::thread::sleep(std::time::Duration::from_millis(700));
    fs::remove_file(&path).expect("removed");
    std::thread::sleep(std::time::Duration::from_millis(700));
    let _serving = served.again();
    waiting.wait().expect(0);
    session.banner();
    session.sends_a_mail();
    session.end();
    assert_eq!(served.mails().len(), 2);
}

#[test]
fn what_a_service_does_not_know_it_refuses_for_the_time_being() {
    let served = Served::start();
    for (request, why) in [
        (r#"{"version":99,"want":"submit"}"#, "restart the service"),
        (r#"{"version":1,"want":"submit","future":true}"#, "future"),
        (r#"{"recipients":["b@x.example"]}"#, "version"),
    ] {
        let mut stream =
            std::os::unix::net::UnixStream::connect(served.relay.path().join("var/submit.sock")).expect("it listens");
        let length = u32::try_from(request.len()).expect("short").to_be_bytes();
        stream.write_all(&[&length[..], request.as_bytes()].concat()).expect("written");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let answer = String::from_utf8_lossy(&answer[4..]);
        assert!(answer.starts_with(r#"{"Err":{"exit":75,"#) && answer.contains(why), "{request}: {answer}");
    }
    assert!(served.mails().is_empty());
}

#[test]
fn the_environment_names_the_socket_for_the_service_and_for_those_who_ask_it() {
    let served = Served::start();
    let path = served.relay.path().join("elsewhere.sock");
    fs::rename(served.relay.path().join("var/submit.sock"), &path).expect("renamed");
    let mut sendmail = std::process::Command::new(env!("CARGO_BIN_EXE_redeliver"));
    sendmail.args(["sendmail", "--config"]).arg(served.relay.configuration()).arg("b@x.example");
    let mut child =
        sendmail.env("REDELIVER_SUBMIT", path).stdin(std::process::Stdio::piped()).spawn().expect("the program");
    child.stdin.take().expect("piped").write_all(b"X: y\n\n").expect("written");
    assert_eq!(child.wait().expect("our own child").code(), Some(0));
    assert_eq!(served.mails().len(), 1);
}

#[test]
fn where_the_store_is_hidden_as_in_a_sandbox_the_service_takes_the_mail() {
    let served = Served::start();
    let path = served.relay.path().join("elsewhere.sock");
    fs::rename(served.relay.path().join("var/submit.sock"), &path).expect("renamed");
    // The same machine, seen from where its state directory is empty.
    let config = fs::read_to_string(served.relay.configuration()).expect("there");
    let sandbox = served.relay.path().join("sandbox.yaml");
    fs::write(&sandbox, config.replace("stateDirectory: ./var", "stateDirectory: ./empty")).expect("written");
    let send = || {
        let mut sendmail = std::process::Command::new(env!("CARGO_BIN_EXE_redeliver"));
        sendmail.args(["sendmail", "--config"]).arg(&sandbox).arg("b@x.example");
        let message = fs::File::open(&sandbox).expect("there");
        sendmail.env("REDELIVER_SUBMIT", &path).stdin(message).status().expect("the program").code()
    };
    let store = served.relay.path().join("empty/closed");
    assert_eq!((send(), store.exists()), (Some(0), false), "a store beside the service's");
    assert_eq!(served.mails().len(), 1);
    // With nobody at the socket it is a store's first mail.
    fs::rename(&path, served.relay.path().join("kept.sock")).expect("renamed");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    assert_eq!((send(), store.exists()), (Some(0), true), "no store was made");
    assert_eq!(served.mails().len(), 1);
}

#[test]
fn silent_clients_of_one_user_are_let_go_and_he_is_told_when_he_has_too_many() {
    let served = Served::start();
    let path = served.relay.path().join("var/submit.sock");
    let connect = || std::os::unix::net::UnixStream::connect(&path).expect("it listens");
    let silent: Vec<_> = (0..200).map(|_| connect()).collect();
    // The same user's mail: turned away while he holds so many, and taken once they are let go.
    let refused = served.relay.command_with_input(&["sendmail", "b@x.example"], b"X: y\n\n").expect(75);
    assert!(refused.stderr.contains("too many of your mails are on their way in"), "{refused:?}");
    let session = served.relay.command_with_input(&["sendmail", "-bs"], b"QUIT\r\n").expect(75);
    assert!(session.stdout.starts_with("421 4.3.0 "), "{session:?}");
    drop(silent);
    served.relay.command_with_input(&["sendmail", "b@x.example"], b"X: y\n\n").expect(0);
    assert_eq!(served.mails().len(), 1);
}

fn frame(octets: &[u8]) -> Vec<u8> {
    [&u32::try_from(octets.len()).expect("short").to_be_bytes()[..], octets].concat()
}

fn read_frame(stream: &mut UnixStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("a frame");
    let mut octets = vec![0; usize::try_from(u32::from_be_bytes(length)).expect("short")];
    stream.read_exact(&mut octets).expect("all of it");
    octets
}

/// A client that has said this much of a message, and may be slow with the rest.
fn begun(relay: &Relay) -> UnixStream {
    let mut stream = UnixStream::connect(relay.path().join("var/submit.sock")).expect("it listens");
    let request = br#"{"version":1,"want":"submit","recipients":["b@x.example"]}"#;
    stream.write_all(&frame(request)).expect("written");
    assert_eq!(read_frame(&mut stream), br#"{"Ok":null}"#);
    stream.write_all(&frame(b"X: y\n\nbegun\n")).expect("written");
    stream
}

#[test]
fn at_a_stop_who_says_nothing_is_let_go_and_who_has_begun_may_end() {
    let served = Served::start();
    let _silent = UnixStream::connect(served.relay.path().join("var/submit.sock")).expect("it listens");
    let mut begun = begun(&served.relay);
    served.door_stop.gentle.cancel();
    served.stop.cancel();
    begun.write_all(&[frame(b"ended\n"), frame(b"")].concat()).expect("written");
    let answer = String::from_utf8(read_frame(&mut begun)).expect("JSON");
    assert!(answer.starts_with(r#"{"Ok":""#), "{answer}");
    assert_eq!(served.mails().len(), 1);
    served.runtime.block_on(served.serving).expect("it ends though one client is silent");
}

#[test]
fn a_hard_stop_gives_up_a_message_that_comes_to_no_end() {
    let served = Served::start();
    let mut begun = begun(&served.relay);
    served.stop.cancel();
    served.door_stop.hard.cancel();
    let mut answer = Vec::new();
    // Octets that were not read reset it.
    let _ = begun.read_to_end(&mut answer);
    assert!(answer.is_empty(), "no answer is what the next service is asked after: {answer:?}");
    assert!(served.mails().is_empty());
    served.runtime.block_on(served.serving).expect("it ends");
}

#[test]
fn a_service_that_dies_with_the_message_in_its_hand_is_followed_by_the_next() {
    let large = "X: y\n\n".to_owned() + &"0123456789\n".repeat(8000);
    for whole in [false, true] {
        let mut served = Served::start();
        served.stop.cancel();
        served.runtime.block_on(std::mem::replace(&mut served.serving, served.runtime.spawn(async {}))).expect("ends");
        let path = served.relay.path().join("var/submit.sock");
        let dying = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        let waiting = served.relay.spawn(&["sendmail", "b@x.example"], large.as_bytes());
        let (mut stream, _) = dying.accept().expect("a client");
        read_frame(&mut stream);
        stream.write_all(&frame(br#"{"Ok":null}"#)).expect("written");
        while !read_frame(&mut stream).is_empty() && whole {}
        fs::remove_file(&path).expect("removed");
        drop((stream, dying));
        let _serving = served.again();
        let said = waiting.wait().expect(0).stderr;
        // The kernel may have had all of it where the service had not.
        assert!(!whole || said.contains("may have been taken twice"), "{said}");
        let mail = served.mails().remove(0).mail;
        let message = served.runtime.block_on(served.store.content(mail.message, 0)).expect("read");
        assert!(String::from_utf8_lossy(&message).ends_with(&large.replace('\n', "\r\n")["X: y".len()..]));
    }
}

/// A `sendmail` whose input somebody else writes, and does not end.
fn typing(relay: &Relay, words: &[&str]) -> (std::process::Child, std::process::ChildStdin) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_redeliver"));
    command.arg("--config").arg(relay.configuration()).arg("sendmail").args(words);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program");
    let input = child.stdin.take().expect("piped");
    (child, input)
}

#[test]
fn a_lone_dot_ends_the_message_while_the_input_stays_open() {
    let served = Served::start();
    let (mut child, mut input) = typing(&served.relay, &["b@x.example"]);
    input.write_all(b"X: y\n\ntyped\n.\n").expect("written");
    assert_eq!(child.wait().expect("our own child").code(), Some(0));
    assert_eq!(served.mails().len(), 1);
}

#[test]
fn what_is_wrong_with_the_words_is_said_before_anything_is_read() {
    let served = Served::start();
    for top in ["hostname: relay.test", "hostname: relay.test\nadmin: { passwordFile: secret }"] {
        served.relay.reconfigure("hostname: relay.test", top);
        for (words, code) in [(&["-f", "a@b@c", "b@x.example"][..], 65), (&["b@x@y"], 65), (&[], 64), (&["-Z"], 64)] {
            let (child, input) = typing(&served.relay, words);
            let ended = child.wait_with_output().expect("our own child");
            assert_eq!(ended.status.code(), Some(code), "{words:?}: {ended:?}");
            assert!(!ended.stderr.is_empty(), "{words:?}");
            drop(input);
        }
    }
}

#[test]
fn where_there_is_no_room_to_keep_it_nothing_of_a_message_is_taken() {
    let served = Served::start();
    served.relay.reconfigure("hostname: relay.test", "hostname: relay.test\nsmtp: { maxMessageSize: 20000000 }");
    let mut shell = std::process::Command::new("sh");
    // In units of 512 or 1024 octets, as the shell likes.
    shell.args(["-c", "ulimit -f 2048; \"$@\"", "sh", env!("CARGO_BIN_EXE_redeliver"), "sendmail", "--config"]);
    shell.arg(served.relay.configuration()).arg("b@x.example").env("TMPDIR", served.relay.path());
    let mut child = shell.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the shell");
    let mut input = child.stdin.take().expect("piped");
    let _ = input.write_all("X: y\n\n".to_owned().as_bytes());
    // It may end before all is written.
    let _ = input.write_all("0123456789\n".repeat(400_000).as_bytes());
    drop(input);
    let ended = child.wait_with_output().expect("our own child");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(75) && said.contains("cannot be kept in /"), "{ended:?}");
    assert!(served.mails().is_empty());
}

#[test]
fn who_does_not_get_a_turn_is_told_so() {
    let relay = Setup::gateway("127.0.0.2:25").build();
    fs::create_dir_all(relay.path().join("var")).expect("made");
    let store: Arc<dyn Store> =
        Arc::new(SqliteStore::open(&relay.path().join("var/open.db"), "serve", &Clock::system()).expect("opens"));
    // Half a minute passes at once.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let path = relay.path().join("var/submit.sock");
        let socket = SubmitSocket::bind(&path).expect("bound");
        let serving = tokio::spawn(socket.serve(context(store, Stop::default()), CancellationToken::new()));
        let slow = tokio::task::spawn_blocking(move || {
            let slow: Vec<_> = (0..50).map(|_| begun(&relay)).collect();
            (slow, UnixStream::connect(relay.path().join("var/submit.sock")).expect("it listens"), relay)
        });
        let (_slow, late, _relay) = slow.await.expect("no panic");
        late.set_nonblocking(true).expect("a socket");
        let mut late = tokio::net::UnixStream::from_std(late).expect("a socket");
        let mut answer = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut late, &mut answer).await.expect("an answer");
        let answer = String::from_utf8_lossy(&answer[4..]);
        assert!(answer.contains(r#""exit":75"#) && answer.contains("too many of your mails"), "{answer}");
        serving.abort();
    });
}

#[test]
fn a_user_who_may_not_read_the_secrets_hands_over_to_the_service_that_may() {
    let served = Served::start();
    // Not there is not readable; root, as whom tests may run, can read all that is.
    served.relay.reconfigure("hostname: relay.test", "hostname: relay.test\nadmin: { passwordFile: secret }");
    served.relay.command_with_input(&["sendmail", "b@x.example"], b"X: y\n\n").expect(0);
    let mut session = Dialogue::start(served.relay.sendmail_bs());
    session.sends_a_mail();
    session.end();
    assert_eq!(served.mails().len(), 2);
    served.stop.cancel();
    served.runtime.block_on(served.serving).expect("it ends");
    let without = served.relay.command_with_input(&["sendmail", "b@x.example"], b"X: y\n\n").expect(78);
    assert!(without.stderr.contains("secret"), "{without:?}");
}
