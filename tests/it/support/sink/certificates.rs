//! Certificates for scripted peers, good and bad.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate with its key, ready to be served.
#[derive(Clone)]
pub(crate) struct Identity(pub(super) Arc<ServerConfig>);

impl Identity {
    /// A certificate for `name` that only vouches for itself.
    pub(crate) fn self_signed(name: &str) -> Self {
        let key = key();
        let certificate = params(name).self_signed(&key).expect("a certificate");
        Self::new(certificate.der().clone(), &key)
    }

    fn new(certificate: CertificateDer<'static>, key: &KeyPair) -> Self {
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("the key fits");
        Self(Arc::new(config))
    }
}

/// A certificate authority that a test may trust.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// A new one, known to nobody yet.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A name of its own, lest a self-signed certificate seem to be signed by it.
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let key = key();
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// The root certificate, for a `caFile`.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A good certificate for `name`, a host name or an IP address.
    pub(crate) fn certify(&self, name: &str) -> Identity {
        self.sign(&params(name))
    }

    /// A certificate for `name` that ended in 2001.
    pub(crate) fn certify_expired(&self, name: &str) -> Identity {
        let mut params = params(name);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2001, 1, 1);
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let key = key();
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity::new(certificate.der().clone(), &key)
    }
}

fn params(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).expect("a name")
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}
