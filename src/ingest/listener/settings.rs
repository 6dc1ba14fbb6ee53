//! The configuration made ready: certificate and users read from their files.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::users::{self, Users};
use super::{Config, Error, Limits, TlsFiles};
use crate::clients::WrongPasswords;
use crate::mail::Domain;

/// What a session works with from its beginning to its end.
pub(super) struct Settings {
    pub(super) hostname: Domain,
    networks: Vec<IpNet>,
    pub(super) max_recipients: usize,
    pub(super) limits: Limits,
    pub(super) acceptor: Option<TlsAcceptor>,
    pub(super) users: Option<Arc<Users>>,
    /// Those of the users' clients; they outlast a reload.
    pub(super) wrong_passwords: Arc<WrongPasswords>,
}

impl Settings {
    pub(super) fn load(config: &Config, wrong_passwords: Arc<WrongPasswords>) -> Result<Self, Error> {
        Ok(Self {
            hostname: config.hostname.clone(),
            networks: config.networks.clone(),
            max_recipients: config.max_recipients,
            limits: config.limits.clone(),
            acceptor: config.tls.as_ref().map(acceptor).transpose()?,
            users: users::load(config.users.as_deref(), &wrong_passwords)?,
            wrong_passwords,
        })
    }

    /// Whether somebody at `address` may relay without AUTH.
    pub(super) fn may_relay(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }
}

pub(super) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, Error> {
    let wrong = |file: &Path, why: String| Error::File { file: file.to_owned(), why };
    let in_certificate = |error: &dyn std::fmt::Display| wrong(&files.certificate, error.to_string());
    let chain = CertificateDer::pem_file_iter(&files.certificate).map_err(|error| in_certificate(&error))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|error| in_certificate(&error))?;
    if chain.is_empty() {
        return Err(in_certificate(&"there is no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong(&files.key, error.to_string()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has ciphers for all of them")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| in_certificate(&error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(networks: &[&str]) -> Settings {
        let mut config = Config::new(Domain::parse("relay.test").expect("a domain"));
        config.networks = networks.iter().map(|network| network.parse().expect("a network")).collect();
        Settings::load(&config, Arc::default()).expect("valid")
    }

    #[test]
    fn an_ipv4_address_that_comes_through_ipv6_is_the_ipv4_address() {
        let settings = settings(&["192.0.2.0/24", "2001:db8::/32"]);
        for (address, may) in [
            ("192.0.2.7", true),
            ("::ffff:192.0.2.7", true),
            ("::ffff:192.0.3.7", false),
            ("::192.0.2.7", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(settings.may_relay(address.parse().expect("an address")), may, "{address}");
        }
    }

    #[test]
    fn a_wrong_certificate_or_key_is_named_with_its_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let made = rcgen::generate_simple_self_signed(["relay.test".to_owned()]).expect("a certificate");
        let other = rcgen::generate_simple_self_signed(["relay.test".to_owned()]).expect("a certificate");
        std::fs::write(path("good.pem"), made.cert.pem()).expect("written");
        std::fs::write(path("good.key"), made.signing_key.serialize_pem()).expect("written");
        std::fs::write(path("other.key"), other.signing_key.serialize_pem()).expect("written");
        std::fs::write(path("empty"), "").expect("written");
        let files = |certificate, key| TlsFiles { certificate: path(certificate), key: path(key) };
        assert!(acceptor(&files("good.pem", "good.key")).is_ok());
        for (certificate, key, blamed) in [
            ("missing", "good.key", "missing"),
            ("empty", "good.key", "empty"),
            ("good.pem", "empty", "empty"),
            ("good.pem", "good.pem", "good.pem"),
            ("good.pem", "other.key", "good.pem"),
        ] {
            let error = acceptor(&files(certificate, key)).err().expect("refused").to_string();
            assert!(error.starts_with(&format!("{}:1:1: ", path(blamed).display())), "{error}");
        }
    }
}
