//! STARTTLS and AUTH.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use argon2::{Argon2, Params, PasswordHasher};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use redeliver::ingest::{Limits, ListenerConfig, TlsFiles};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::log::Log;
use super::{Client, Relay};

/// Writes a new certificate where the configuration expects it.
fn certify(directory: &Path) {
    let made = rcgen::generate_simple_self_signed(["relay.test".to_owned()]).expect("a certificate");
    std::fs::write(directory.join("relay.pem"), made.cert.pem()).expect("written");
    std::fs::write(directory.join("relay.key"), made.signing_key.serialize_pem()).expect("written");
}

fn configure(config: &mut ListenerConfig, directory: &Path) {
    certify(directory);
    config.tls = Some(TlsFiles { certificate: directory.join("relay.pem"), key: directory.join("relay.key") });
    config.networks.clear();
    let cheap = Argon2::from(Params::new(8, 1, 1, None).expect("valid"));
    let hash = cheap.hash_password_with_salt(b"secret", b"salt of a test").expect("a hash");
    std::fs::write(directory.join("users"), format!("ann:{hash}\n")).expect("written");
    config.users = Some(directory.join("users"));
    config.limits = Limits { auth_pause: Duration::from_millis(1), ..Limits::default() };
}

/// Connects, says STARTTLS and verifies against the certificate that the file holds now.
async fn secured(relay: &Relay) -> Client {
    let stream = greeted(relay).await;
    let connector = connector(relay.directory.path());
    let name = ServerName::try_from("relay.test").expect("a name");
    Client::new(connector.connect(name, stream).await.expect("a handshake"))
}

/// A connection up to the handshake.
async fn greeted(relay: &Relay) -> TcpStream {
    let mut stream = TcpStream::connect(relay.address).await.expect("connects");
    let (read, write) = stream.split();
    let mut client = Plain { read: tokio::io::BufReader::new(read), write };
    client.until("220 ", "").await;
    client.until("250 ", "EHLO before.example\r\n").await;
    client.until("250 ", "MAIL FROM:<before@x.example>\r\n").await;
    client.until("220 ", "STARTTLS\r\n").await;
    stream
}

/// A client that can be taken apart for the handshake.
struct Plain<'a> {
    read: tokio::io::BufReader<tokio::net::tcp::ReadHalf<'a>>,
    write: tokio::net::tcp::WriteHalf<'a>,
}

impl Plain<'_> {
    async fn until(&mut self, start: &str, command: &str) {
        use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

        self.write.write_all(command.as_bytes()).await.expect("sent");
        let mut line = String::new();
        while !line.starts_with(start) {
            line.clear();
            assert!(self.read.read_line(&mut line).await.expect("read") > 0, "closed before {start:?}");
        }
    }
}

fn connector(directory: &Path) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(directory.join("relay.pem")).expect("a certificate");
    roots.add(certificate).expect("an anchor");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

fn plain(text: &str) -> String {
    STANDARD.encode(text)
}

#[tokio::test]
async fn after_starttls_the_session_begins_anew() {
    let relay = Relay::with(configure);
    let mut client = secured(&relay).await;
    client
        .talk(
            "C: RCPT TO:<b@y.example>
             S: 503 5.5.1 *
             C: MAIL FROM:<a@x.example>
             S: 503 5.5.1 say EHLO first
             C: STARTTLS
             S: 503 5.5.1 *
             C: EHLO client.example
             S: 250-relay.test
             S: 250-PIPELINING
             S: 250-SIZE *
             S: 250-8BITMIME
             S: 250-SMTPUTF8
             S: 250-ENHANCEDSTATUSCODES
             S: 250 AUTH PLAIN LOGIN",
        )
        .await;
}

#[tokio::test]
async fn starttls_and_auth_are_offered_only_where_they_are_possible() {
    let relay = Relay::with(configure);
    let ehlo = "S: 250-relay.test\nS: 250-PIPELINING\nS: 250-SIZE *\nS: 250-8BITMIME\nS: 250-SMTPUTF8\n";
    let clear = format!("S: 220 *\nC: EHLO x\n{ehlo}S: 250-ENHANCEDSTATUSCODES\nS: 250 STARTTLS\n");
    let auth = plain("\0ann\0secret");
    relay.connect().await.talk(&format!("{clear}C: AUTH PLAIN {auth}\nS: 538 5.7.11 *\n")).await;
    let without = Relay::start();
    let bare = format!("S: 220 *\nC: EHLO x\n{ehlo}S: 250 ENHANCEDSTATUSCODES\n");
    without.connect().await.talk(&format!("{bare}C: STARTTLS\nS: 502 5.5.1 *\nC: AUTH PLAIN {auth}\nS: 502 *\n")).await;
}

#[tokio::test]
async fn nothing_that_was_put_in_behind_starttls_is_carried_out() {
    let relay = Relay::with(configure);
    relay
        .connect()
        .await
        .talk(
            "S: 220 *
             C: STARTTLS
             C: EHLO evil.example
             C: MAIL FROM:<evil@x.example>
             S: 554 5.5.0 *
             S: (closed)",
        )
        .await;
}

#[tokio::test]
async fn a_reload_puts_a_new_certificate_in_force_and_a_wrong_one_does_not() {
    let relay = Relay::with(configure);
    secured(&relay).await.talk("C: NOOP\nS: 250 *").await;
    certify(relay.directory.path());
    relay.control.reload(&relay.config).expect("a good certificate");
    secured(&relay).await.talk("C: NOOP\nS: 250 *").await;
    std::fs::write(relay.directory.path().join("relay.key"), "no key").expect("written");
    let error = relay.control.reload(&relay.config).expect_err("refused").to_string();
    assert!(error.contains("relay.key"), "{error}");
    secured(&relay).await.talk("C: NOOP\nS: 250 *").await;
}

#[tokio::test]
async fn a_handshake_that_is_none_costs_only_its_own_session() {
    use tokio::io::AsyncWriteExt;

    let relay = Relay::with(configure);
    let mut stream = greeted(&relay).await;
    stream.write_all(b"EHLO in the clear\r\n").await.expect("sent");
    let mut client = Client::new(stream);
    while !client.line().await.is_empty() {}
    secured(&relay).await.talk("C: NOOP\nS: 250 *").await;
}

#[tokio::test]
async fn users_may_relay_from_anywhere() {
    let relay = Relay::with(configure);
    let mail = "C: MAIL FROM:<a@x.example>
                S: 250 *
                C: RCPT TO:<b@y.example>
                S: 250 2.1.5 *
                C: DATA
                S: 354 *
                C: .
                S: 250 2.6.0 *";
    let strange = "C: MAIL FROM:<a@x.example>\nS: 250 *\nC: RCPT TO:<b@y.example>\nS: 550 5.7.1 *\nC: RSET\nS: 250 *";
    let right = plain("\0ann\0secret");
    let (name, password) = (plain("ann"), plain("secret"));
    let login = format!("S: 334 UGFzc3dvcmQ6\nC: {password}");
    for auth in [
        format!("C: AUTH PLAIN {right}"),
        format!("C: auth plain\nS: 334*\nC: {right}"),
        format!("C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: {name}\n{login}"),
        format!("C: AUTH login {name}\n{login}"),
    ] {
        let mut client = secured(&relay).await;
        client.talk("C: EHLO client.example\nS: 250-relay.test").await;
        while !client.line().await.starts_with("250 ") {}
        client.talk(&format!("{strange}\n{auth}\nS: 235 2.7.0 *\nC: AUTH PLAIN {right}\nS: 503 *\n{mail}")).await;
    }
    let mails = relay.mails().await;
    assert_eq!(mails.len(), 4);
    let message = String::from_utf8_lossy(&mails[0].message);
    assert!(message.contains("\r\n\twith ESMTPSA id "), "{message}");
}

#[tokio::test]
async fn a_wrong_password_lets_nobody_in_and_is_not_tried_for_ever() {
    let relay = Relay::with(configure);
    let (wrong, nobody) = (plain("\0ann\0wrong"), plain("\0nobody\0secret"));
    let mut client = secured(&relay).await;
    client.talk("C: AUTH PLAIN x\nS: 503 5.5.1 say EHLO first\nC: HELO old\nS: 250 *\nC: AUTH PLAIN x\nS: 503 *").await;
    client.talk("C: EHLO client.example\nS: 250-relay.test").await;
    while !client.line().await.starts_with("250 ") {}
    client
        .talk(&format!(
            "C: AUTH CRAM-MD5
             S: 504 5.5.4 *
             C: AUTH PLAIN
             S: 334*
             C: *
             S: 501 5.7.0 *
             C: AUTH LOGIN
             S: 334 *
             C: *
             S: 501 5.7.0 *
             C: AUTH LOGIN YW5u
             S: 334 *
             C: *
             S: 501 5.7.0 *
             C: AUTH PLAIN {wrong}
             S: 535 5.7.8 *
             C: MAIL FROM:<a@x.example>
             S: 250 *
             C: AUTH PLAIN {wrong}
             S: 503 *
             C: RCPT TO:<b@y.example>
             S: 550 5.7.1 *
             C: RSET
             S: 250 *
             C: AUTH PLAIN no!base64
             S: 501 5.5.2 *
             C: AUTH PLAIN {nobody}
             S: 421 4.7.0 *
             S: (closed)"
        ))
        .await;
}

#[tokio::test]
async fn what_users_prove_themselves_with_is_in_no_log() {
    let log = Log::default();
    let _listening = log.listen();
    let relay = Relay::with(configure);
    let (right, wrong) = (plain("\0ann\0secret"), plain("\0ann\0mistyped"));
    let mut client = secured(&relay).await;
    client.talk("C: EHLO client.example\nS: 250-relay.test").await;
    while !client.line().await.starts_with("250 ") {}
    client
        .talk(&format!(
            "C: AUTH PLAIN {wrong}
             S: 535 *
             C: AUTH {wrong}
             S: 504 *
             C: {right}
             S: 500 *
             C: AUTH PLAIN
             S: 334*
             C: {right}
             S: 235 *
             C: QUIT
             S: 221 *"
        ))
        .await;
    let text = log.text();
    assert!(text.contains("AUTH refused"), "{text}");
    for secret in ["secret", "mistyped", right.as_str(), wrong.as_str()] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
}

#[tokio::test]
async fn who_guesses_in_one_session_after_another_is_told_to_come_later() {
    let relay = Relay::with(configure);
    let (wrong, right) = (plain("\0ann\0wrong"), plain("\0ann\0secret"));
    let mut answers = Vec::new();
    while !answers.iter().any(|answer: &String| answer.starts_with("454 4.7.0 ")) {
        assert!(answers.len() < 50, "{answers:?}");
        let mut client = secured(&relay).await;
        client.talk("C: EHLO client.example\nS: 250-relay.test").await;
        while !client.line().await.starts_with("250 ") {}
        for _ in 0..2 {
            client.send(format!("AUTH PLAIN {wrong}\r\n").as_bytes()).await;
            answers.push(client.line().await);
        }
    }
    assert_eq!(answers.iter().filter(|answer| answer.starts_with("535 ")).count(), 20);
    relay.control.reload(&relay.config).expect("as it was");
    let mut client = secured(&relay).await;
    client.talk("C: EHLO client.example\nS: 250-relay.test").await;
    while !client.line().await.starts_with("250 ") {}
    client.talk(&format!("C: AUTH PLAIN {right}\nS: 454 4.7.0 *")).await;
}
