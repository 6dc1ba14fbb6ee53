//! Attempts over TLS.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::mail::{Outcome, Stage};

use super::super::{Config, StartTls};
use super::{agreeable, attempt, converse, delivery};

/// An authority with one certificate for this machine, in files.
struct Authority {
    folder: tempfile::TempDir,
    root: CertificateDer<'static>,
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "an authority");
        let issuer =
            CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let parameters = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = parameters.signed_by(&key, &issuer).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        for (file, text) in
            [("root.pem", issuer.pem()), ("own.pem", certificate.pem()), ("key.pem", key.serialize_pem())]
        {
            std::fs::write(folder.path().join(file), text).expect("written");
        }
        Self { root: issuer.der().clone(), certificate: certificate.der().clone(), key, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A server with its certificate; with `clients` it wants one of that authority's.
    fn server(&self, clients: Option<&Self>) -> ServerConfig {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.root.clone()).expect("a root");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let key = PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        builder.with_single_cert(vec![self.certificate.clone()], key).expect("they fit")
    }
}

/// A peer that offers STARTTLS, takes everything inside it, and counts what it was told.
async fn secure_peer(config: ServerConfig) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (heard, acceptor) = (Arc::new(Mutex::new(Vec::new())), TlsAcceptor::from(Arc::new(config)));
    let log = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(secure(stream, acceptor.clone(), Arc::clone(&log)));
        }
    });
    (port, heard)
}

async fn secure(mut stream: TcpStream, acceptor: TlsAcceptor, log: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    for reply in ["220 peer", "250-peer\r\n250 STARTTLS", "220 go"] {
        stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
        if reply != "220 go" {
            let mut line = [0; 200];
            let count = tokio::io::AsyncReadExt::read(&mut stream, &mut line).await?;
            log.lock().expect("lock").push(String::from_utf8_lossy(&line[..count]).trim_end().to_owned());
        }
    }
    let stream = acceptor.accept(stream).await?;
    // The greeting was outside: what comes next is EHLO.
    let mut stream = tokio::io::BufReader::new(stream);
    let ehlo = super::read_line(&mut stream).await?;
    log.lock().expect("lock").push(format!("in TLS: {ehlo}"));
    let script = |line: &str| if line == "BANNER" { agreeable("EHLO") } else { agreeable(line) };
    converse(stream, Arc::new(script), log).await
}

fn verifying(ca_file: &Path) -> impl FnOnce(&mut Config) + use<> {
    let ca_file = ca_file.to_owned();
    move |config| {
        config.start_tls = StartTls::Verify;
        config.ca_file = Some(ca_file);
    }
}

#[tokio::test]
async fn a_certificate_of_a_root_in_ca_file_verifies_and_the_session_is_resumed() {
    let authority = Authority::new("127.0.0.1");
    let (port, heard) = secure_peer(authority.server(None)).await;
    let delivery = delivery(&[port], verifying(&authority.file("root.pem")));
    for resumed in [false, true] {
        let (done, record) = attempt(&delivery, &["a@x.example"]).await;
        assert_eq!(done[0].outcome, Outcome::Delivered, "{done:?}");
        let tls = done[0].tls.as_ref().expect("TLS");
        assert_eq!((tls.version.as_str(), tls.verified, &tls.reason), ("TLSv1.3", true, &None));
        let dialogue = record.dialogue.lock().expect("lock").join("\n");
        assert_eq!(dialogue.contains(", resumed]"), resumed, "{dialogue}");
        delivery.close().await;
    }
    assert!(heard.lock().expect("lock").contains(&"in TLS: EHLO me.example".to_owned()));
}

#[tokio::test]
async fn verify_refuses_another_name_unless_it_is_relaxed() {
    let authority = Authority::new("other.example");
    let (port, heard) = secure_peer(authority.server(None)).await;
    let root = authority.file("root.pem");
    let strict = delivery(&[port], verifying(&root));
    let (done, _) = attempt(&strict, &["a@x.example"]).await;
    assert_eq!((done[0].outcome, done[0].stage), (Outcome::Deferred, Stage::Starttls));
    assert!(done[0].cause.as_deref().is_some_and(|cause| cause.ends_with("the certificate is not for 127.0.0.1")));
    assert!(!heard.lock().expect("lock").iter().any(|line| line.starts_with("MAIL")));

    let any_name = delivery(&[port], |config| {
        verifying(&root)(config);
        config.verify_server_identity = false;
    });
    let any_certificate = delivery(&[port], |config| {
        config.start_tls = StartTls::Verify;
        config.ssl_trust_all_certs = true;
    });
    for relaxed in [any_name, any_certificate] {
        let (done, _) = attempt(&relaxed, &["a@x.example"]).await;
        assert_eq!(done[0].outcome, Outcome::Delivered, "{done:?}");
        assert_eq!(done[0].tls.as_ref().map(|tls| tls.verified), Some(false), "the record says what it is");
    }
}

#[tokio::test]
async fn our_own_certificate_is_shown_where_the_peer_asks_for_one() {
    let (authority, ours) = (Authority::new("127.0.0.1"), Authority::new("me.example"));
    let (port, _) = secure_peer(authority.server(Some(&ours))).await;
    let with = delivery(&[port], |config| {
        config.start_tls = StartTls::Required;
        config.certificate = Some(ours.file("own.pem"));
        config.key = Some(ours.file("key.pem"));
    });
    assert_eq!(attempt(&with, &["a@x.example"]).await.0[0].outcome, Outcome::Delivered);
    let without = delivery(&[port], |config| config.start_tls = StartTls::Required);
    assert_eq!(attempt(&without, &["a@x.example"]).await.0[0].outcome, Outcome::Deferred);
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_at_once() {
    let authority = Authority::new("127.0.0.1");
    let network = || super::network(super::Stop::default());
    for (config, named) in [
        (Config { ca_file: Some("/nowhere/ca.pem".into()), ..Config::default() }, "/nowhere/ca.pem"),
        (Config { ca_file: Some(authority.file("key.pem")), ..Config::default() }, "no certificate in it"),
        (Config { certificate: Some(authority.file("own.pem")), ..Config::default() }, "both its certificate file"),
        (Config { helo_name: Some("two words".into()), ..Config::default() }, "EHLO name"),
    ] {
        let error = super::Delivery::new(config, network()).err().expect("refused");
        assert!(error.contains(named), "{error}");
    }
}
