//! The scripted peer of the tests, seen by raw clients and by lettre's.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lettre::transport::smtp::client::SmtpConnection;
use lettre::transport::smtp::extension::ClientId;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::sink::{
    Authority, Identity, Script, SmtpSink, close, drip, endless, on, raw, reply, reset, script, stall, stop_reading,
    wait,
};
use crate::support::{fresh_loopback, refusing};

/// A client that says what the test says, good or bad.
struct Client<S = TcpStream>(BufReader<S>);

impl Client {
    fn connect(sink: &SmtpSink) -> Self {
        let stream = TcpStream::connect(sink.address()).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
        Self(BufReader::new(stream))
    }

    fn greeted(sink: &SmtpSink) -> Self {
        let mut client = Self::connect(sink);
        assert!(client.reply().starts_with("220"));
        assert!(client.say("EHLO test").starts_with("250"));
        client
    }
}

impl<S: Read + Write> Client<S> {
    fn send(&mut self, octets: &[u8]) {
        self.0.get_mut().write_all(octets).expect("sent");
    }

    /// One reply without its line ends; empty at the end of the connection.
    fn reply(&mut self) -> String {
        let mut whole = String::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("a line");
            whole.push_str(&line);
            if line.get(3..4) != Some("-") {
                return whole.trim_end().replace("\r\n", "\n");
            }
        }
    }

    fn say(&mut self, command: &str) -> String {
        self.send(format!("{command}\r\n").as_bytes());
        self.reply()
    }

    /// A whole transaction; the reply to the final dot, or the first that is no success.
    fn mail(&mut self, recipients: &[&str], content: &str) -> String {
        self.say("MAIL FROM:<a@here.example>");
        for recipient in recipients {
            self.say(&format!("RCPT TO:<{recipient}>"));
        }
        let go = self.say("DATA");
        if go.starts_with("354") { self.say(&format!("{content}\r\n.")) } else { go }
    }
}

const MESSAGE: &str = "Message-ID: <1@here.example>\r\n\r\nhello\r\n..dot";

#[test]
fn a_clean_session_is_recorded_whole_and_breaks_no_rule() {
    let sink = SmtpSink::start(script!["RCPT TO:<no@" => "550 5.1.1 nobody here"]);
    let mut client = Client::greeted(&sink);
    assert_eq!(client.mail(&["b@x.example", "no@x.example"], MESSAGE), "250 2.0.0 taken");
    assert_eq!(client.say("QUIT"), "221 2.0.0 bye");
    drop(client);
    sink.wait_for_end_of_connections();

    let transactions = sink.transactions();
    let [transaction] = transactions.as_slice() else { panic!("one transaction: {transactions:?}") };
    assert_eq!(transaction.reverse_path, "a@here.example");
    assert_eq!(transaction.recipients, ["b@x.example"]);
    assert_eq!(transaction.text(), "Message-ID: <1@here.example>\r\n\r\nhello\r\n.dot\r\n");
    assert_eq!((transaction.connection, transaction.reply.as_deref()), (1, Some("250 2.0.0 taken")));
    let copies = |recipient| sink.copies_of(recipient, "<1@here.example>");
    assert_eq!((copies("b@x.example"), copies("no@x.example")), (1, 0));
    assert_eq!(sink.commands()[1], "MAIL FROM:<a@here.example>");
    let record = sink.record();
    assert!(record.violations.is_empty() && record.notes.is_empty(), "{record:?}");
}

#[test]
fn lettre_keeps_the_rules() {
    let sink = SmtpSink::start(script![].capabilities(&["8BITMIME"]));
    let name = ClientId::Domain("test".into());
    let mut client = SmtpConnection::connect(sink.address(), None, &name, None, None).expect("connected");
    let [from, to] = ["a@here.example", "b@x.example"].map(|address| address.parse().expect("an address"));
    let envelope = lettre::address::Envelope::new(Some(from), vec![to]).expect("an envelope");
    client.send(&envelope, MESSAGE.as_bytes()).expect("taken");
    client.quit().expect("bye");
    assert_eq!(sink.wait_for_transactions(1)[0].recipients, ["b@x.example"]);
    assert_eq!(sink.violations(), [""; 0]);
}

#[test]
fn rules_count_per_connection_and_over_all() {
    let sink = SmtpSink::start(script![
        on("MAIL").nth(2) => reply("421 4.3.2 enough").then(close()),
        on("RCPT").times(1) => "450 4.2.1 greylisted",
        on("EHLO").connection(3) => "502 5.5.1 no",
        on(".").to("c@x.example") => "451 4.3.0 not this one",
    ]);
    let mut first = Client::greeted(&sink);
    assert_eq!(first.mail(&["b@x.example", "c@x.example"], MESSAGE), "451 4.3.0 not this one");
    assert_eq!(first.say("MAIL FROM:<>"), "421 4.3.2 enough");
    assert_eq!(first.reply(), "");
    assert_eq!(Client::greeted(&sink).mail(&["b@x.example"], MESSAGE), "250 2.0.0 taken");
    let mut third = Client::connect(&sink);
    third.reply();
    assert_eq!(third.say("EHLO test"), "502 5.5.1 no");
    assert_eq!(third.say("HELO test"), "250 sink");
}

#[test]
fn what_a_client_must_not_do_is_noted() {
    let banner_first = wait(Duration::from_millis(100)).then("220 sink");
    for (said, noted) in [
        (&b"EHLO a\r\n"[..], "before the reply to \"CONNECT\""),
        (b"EHLO a\n", "a bare LF in a command"),
        (b"EHLO a\rb\r\n", "a bare CR in a command"),
        (b"MAIL FROM:<a@b>\r\n", "MAIL before EHLO"),
        (b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<b@x>\r\n", "before the reply to \"MAIL"),
        (b"EHLO a\r\nMAIL FROM:<a@b> BODY=8BITMIME\r\n", "8BITMIME was not offered"),
        (b"EHLO a\r\nMAIL FROM: <a@b>\r\n", "not of the form"),
        ("EHLO a\r\nMAIL FROM:<ü@b>\r\n".as_bytes(), "without SMTPUTF8"),
        (b"EHLO a\r\nRCPT TO:<b@x>\r\n", "RCPT without MAIL"),
        (b"EHLO a\r\nDATA\r\n", "DATA without a recipient"),
        (b"EHLO a\r\nAUTH PLAIN AGEAYg==\r\n", "credentials in clear"),
        (b"EHLO a\r\nSTARTTLS\r\n", "STARTTLS was not offered"),
        (b"EHLO a\r\nHELP ME\r\n", "an unknown command"),
        (b"EHLO a\r\nQUIT\r\nNOOP\r\n", "octets sent before the reply to \"QUIT\""),
    ] {
        let sink = SmtpSink::start(script!["CONNECT" => banner_first.clone()].capabilities(&["SIZE"]));
        let mut client = Client::connect(&sink);
        client.send(said);
        client.0.get_ref().shutdown(Shutdown::Write).expect("open");
        client.0.read_to_end(&mut Vec::new()).expect("an orderly end");
        sink.wait_for_end_of_connections();
        let violations = sink.violations();
        assert!(violations.iter().any(|violation| violation.contains(noted)), "{noted}: {violations:#?}");
    }
}

#[test]
fn behind_a_421_there_is_only_quit() {
    let sink = SmtpSink::start(script!["MAIL" => "421 4.3.2 enough"]);
    let mut polite = Client::greeted(&sink);
    polite.send(b"MAIL FROM:<>\r\nRCPT TO:<b@x.example>\r\n");
    assert_eq!((polite.reply().as_str(), polite.reply().as_str()), ("421 4.3.2 enough", "503 5.5.1 MAIL first"));
    polite.say("QUIT");
    assert_eq!(sink.violations(), [""; 0]);
    let mut stubborn = Client::greeted(&sink);
    stubborn.say("MAIL FROM:<>");
    stubborn.say("RSET");
    assert_eq!(sink.violations(), ["connection 2: \"RSET\" after a 421"]);
}

#[test]
fn addresses_are_never_the_same_twice() {
    let mut addresses: Vec<_> = (0..600).map(|_| fresh_loopback()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 600);
}

#[test]
fn faults_within_the_content_are_noted() {
    for (content, noted) in [
        ("a\nb\r\n.\r\n", "a bare LF in the content"),
        ("a\rb\r\n.\r\n", "a bare CR in the content"),
        (".a\r\n.\r\n", "a dot that is not doubled"),
        ("\u{fc}\r\n.\r\n", "8-bit content without BODY=8BITMIME"),
    ] {
        let sink = SmtpSink::start(script![]);
        let mut client = Client::greeted(&sink);
        client.say("MAIL FROM:<>");
        client.say("RCPT TO:<b@x.example>");
        client.say("DATA");
        client.send(content.as_bytes());
        assert_eq!(client.reply(), "250 2.0.0 taken");
        assert_eq!(sink.violations(), [format!("connection 1: {noted}")]);
    }
}

#[test]
fn a_pipeline_is_no_fault_where_it_is_offered() {
    let sink = SmtpSink::start(script!["RCPT" => "550 5.1.1 nobody here"]);
    let mut client = Client::greeted(&sink);
    client.send(b"MAIL FROM:<>\r\nRCPT TO:<b@x.example>\r\nDATA\r\n");
    assert_eq!(client.reply(), "250 2.1.0 ok");
    assert_eq!(client.reply(), "550 5.1.1 nobody here");
    assert_eq!(client.reply(), "503 5.5.1 RCPT first");
    assert_eq!(sink.violations(), [""; 0]);
}

#[test]
fn a_hostile_peer_does_what_it_is_told() {
    let short = Duration::from_millis(5);
    let sink = SmtpSink::start(script![
        on("MAIL").connection(1) => raw(b"250 one\r\n250 surplus\r\n"),
        on("MAIL").connection(2) => raw(b"\xff\x00no smtp\n"),
        on("MAIL").connection(3) => drip("250 slow", short),
        on("MAIL").connection(4) => reset(),
        on("MAIL").connection(5) => stall(),
        on("MAIL").connection(6) => endless("250-more\r\n"),
    ]);
    let said = |count: usize| {
        let mut client = Client::greeted(&sink);
        client.send(b"MAIL FROM:<>\r\n");
        client.0.get_ref().set_read_timeout(Some(Duration::from_millis(300))).expect("a time-out");
        let mut octets = vec![0; count];
        client.0.read_exact(&mut octets).map(|()| octets).map_err(|error| error.kind())
    };
    assert_eq!(said(22).as_deref(), Ok(&b"250 one\r\n250 surplus\r\n"[..]));
    assert_eq!(said(10).as_deref(), Ok(&b"\xff\x00no smtp\n"[..]));
    let started = Instant::now();
    assert_eq!(said(10).as_deref(), Ok(&b"250 slow\r\n"[..]));
    assert!(started.elapsed() >= 10 * short);
    assert_eq!(said(1), Err(std::io::ErrorKind::ConnectionReset));
    assert_eq!(said(1), Err(std::io::ErrorKind::WouldBlock));
    assert_eq!(said(1_000_000).map(|octets| octets.len()), Ok(1_000_000));
}

#[test]
fn a_peer_that_stops_reading_closes_the_window() {
    let sink = SmtpSink::start(script!["DATA" => reply("354 go").then(stop_reading())].receive_buffer(4096));
    let mut client = Client::greeted(&sink);
    client.say("MAIL FROM:<>");
    client.say("RCPT TO:<b@x.example>");
    assert_eq!(client.say("DATA"), "354 go");
    client.0.get_ref().set_write_timeout(Some(Duration::from_millis(300))).expect("a time-out");
    let kind = client.0.get_mut().write_all(&vec![b'x'; 16 << 20]).map_err(|error| error.kind());
    assert_eq!(kind, Err(std::io::ErrorKind::WouldBlock));
    assert!(sink.transactions().is_empty());
}

#[test]
fn a_dot_without_a_reply_leaves_a_copy() {
    let sink = SmtpSink::start(script!["." => close()]);
    assert_eq!(Client::greeted(&sink).mail(&["b@x.example"], MESSAGE), "");
    let transaction = sink.wait_for_transactions(1).remove(0);
    assert_eq!((transaction.reply, sink.copies_of("b@x.example", "<1@here.example>")), (None, 1));
}

#[test]
fn content_that_breaks_off_is_no_copy() {
    let sink = SmtpSink::start(script![]);
    let mut client = Client::greeted(&sink);
    client.say("MAIL FROM:<>");
    client.say("RCPT TO:<b@x.example>");
    client.say("DATA");
    client.send(MESSAGE.as_bytes());
    drop(client);
    sink.wait_for_end_of_connections();
    let record = sink.record();
    assert_eq!((record.transactions.len(), sink.transactions().len()), (1, 0));
    assert_eq!(record.notes, ["connection 1: ended within a line", "connection 1: ended without QUIT"]);
}

#[test]
fn hosts_share_a_port_and_a_limit_of_connections_holds() {
    let one = SmtpSink::start(script![].max_connections(1));
    let two = SmtpSink::beside(&one, script!["CONNECT" => "220 two"]);
    assert!(one.port() == two.port() && one.ip() != two.ip());
    let _held = Client::greeted(&one);
    let mut crowded = Client::connect(&one);
    assert_eq!((crowded.reply().as_str(), crowded.reply().as_str()), ("421 4.7.0 too many connections", ""));
    assert_eq!(Client::connect(&two).reply(), "220 two");
    two.wait_for_connections(1);
    assert_eq!((one.connections(), two.connections()), (2, 1));
    assert_eq!((one.record().most_open(), two.record().most_open()), (2, 1));
    assert!(TcpStream::connect(refusing()).is_err());
}

/// What a TLS client that trusts `roots` alone says of a peer's certificate.
fn handshake(stream: TcpStream, roots: &Authority, name: &str) -> Result<Client<impl Read + Write + use<>>, String> {
    let root = CertificateDer::from_pem_slice(roots.pem().as_bytes()).expect("PEM");
    let mut store = RootCertStore::empty();
    store.add(root).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_root_certificates(store)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut stream = StreamOwned::new(connection, stream);
    stream.conn.complete_io(&mut stream.sock).map_err(|error| error.to_string())?;
    Ok(Client(BufReader::new(stream)))
}

fn upgraded(sink: &SmtpSink, roots: &Authority) -> Result<Client<impl Read + Write + use<>>, String> {
    let mut client = Client::greeted(sink);
    assert_eq!(client.say("STARTTLS"), "220 2.0.0 go");
    handshake(client.0.into_inner(), roots, "mx.x.example")
}

#[test]
fn starttls_has_certificates_good_and_bad() {
    let authority = Authority::new();
    for (identity, problem) in [
        (authority.certify("mx.x.example"), None),
        (authority.certify("other.example"), Some("not valid for name")),
        (authority.certify_expired("mx.x.example"), Some("expired")),
        (Identity::self_signed("mx.x.example"), Some("UnknownIssuer")),
    ] {
        let sink = SmtpSink::start(script![].starttls(identity).capabilities_in_tls(&["SIZE 1"]));
        match (upgraded(&sink, &authority), problem) {
            (Ok(mut client), None) => assert_eq!(client.say("EHLO test"), "250-sink\n250 SIZE 1"),
            (Err(error), Some(problem)) => assert!(error.contains(problem), "{error}"),
            (outcome, problem) => panic!("{problem:?}: {:?}", outcome.err()),
        }
    }
}

#[test]
fn a_handshake_can_be_refused_spoilt_and_preceded() {
    let authority = Authority::new();
    let peer = |script: Script| SmtpSink::start(script.starttls(authority.certify("mx.x.example")));

    let refuses = peer(script!["STARTTLS" => "454 4.7.0 not now"]);
    assert_eq!(Client::greeted(&refuses).say("STARTTLS"), "454 4.7.0 not now");

    assert!(upgraded(&peer(script!["TLS" => raw("garbage").then(close())]), &authority).is_err());
    assert!(upgraded(&peer(script!["TLS" => close()]), &authority).is_err());

    let injects = peer(script!["STARTTLS" => raw("220 go\r\n250 INJECTED\r\n")]);
    let mut client = Client::greeted(&injects);
    assert_eq!(client.say("STARTTLS"), "220 go");
    assert_eq!(client.reply(), "250 INJECTED");
    assert!(handshake(client.0.into_inner(), &authority, "mx.x.example").is_ok());
}

#[test]
fn credentials_are_checked_in_both_mechanisms() {
    let authority = Authority::new();
    let sink = SmtpSink::start(script![].implicit_tls(authority.certify("mx.x.example")).auth("user", "secret"));
    let connect = || {
        let stream = TcpStream::connect(sink.address()).expect("connected");
        let mut client = handshake(stream, &authority, "mx.x.example").expect("TLS");
        assert_eq!(client.reply(), "220 sink");
        assert!(client.say("EHLO test").ends_with("AUTH PLAIN LOGIN"));
        client
    };
    let mut client = connect();
    assert_eq!(client.say("AUTH PLAIN AHVzZXIAd3Jvbmc="), "535 5.7.8 wrong credentials");
    assert_eq!(client.say("AUTH PLAIN AHVzZXIAc2VjcmV0"), "235 2.7.0 welcome");
    client.mail(&["b@x.example"], MESSAGE);

    let mut client = connect();
    assert_eq!(client.say("AUTH LOGIN"), "334 VXNlcm5hbWU6");
    assert_eq!(client.say("dXNlcg=="), "334 UGFzc3dvcmQ6");
    assert_eq!(client.say("c2VjcmV0"), "235 2.7.0 welcome");

    let transaction = sink.transactions().remove(0);
    assert!(transaction.authenticated && transaction.tls);
    assert_eq!(sink.violations(), [""; 0]);
}
