//! The certificate that clients are shown.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::FileError;

/// TLS for a listener, from PEM files.
///
/// # Errors
/// The file that cannot be read, has no certificate or key in it, or does not fit the other.
pub fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, FileError> {
    let in_certificate = |error: &dyn std::fmt::Display| FileError::new(certificate, 1, error.to_string());
    let chain = CertificateDer::pem_file_iter(certificate).map_err(|error| in_certificate(&error))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|error| in_certificate(&error))?;
    if chain.is_empty() {
        return Err(in_certificate(&"there is no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| FileError::new(key, 1, error.to_string()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| in_certificate(&error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| in_certificate(&error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(acceptor(&path("good.pem"), &path("good.key")).is_ok());
        for (certificate, key, blamed) in [
            ("missing", "good.key", "missing"),
            ("empty", "good.key", "empty"),
            ("good.pem", "empty", "empty"),
            ("good.pem", "good.pem", "good.pem"),
            ("good.pem", "other.key", "good.pem"),
        ] {
            let error = acceptor(&path(certificate), &path(key)).err().expect("refused").to_string();
            assert!(error.starts_with(&format!("{}:1:1: ", path(blamed).display())), "{error}");
        }
    }
}
