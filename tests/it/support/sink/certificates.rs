//! Certificates for scripted peers, good and bad.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use tokio_rustls::rustls::{
    DEFAULT_VERSIONS, RootCertStore, ServerConfig, SignatureAlgorithm, SignatureScheme, SupportedProtocolVersion,
};

/// A certificate with its key, ready to be served.
#[derive(Clone)]
pub(crate) struct Identity(pub(super) Arc<ServerConfig>);

impl Identity {
    /// A certificate for `name` that only vouches for itself.
    pub(crate) fn self_signed(name: &str) -> Self {
        let key = key();
        let certificate = params(name).self_signed(&key).expect("a certificate");
        Self::new(certificate.der().clone(), &key, WebPkiClientVerifier::no_client_auth(), DEFAULT_VERSIONS)
    }

    /// A certificate that openssl made, with its key: of version 1, or signed with a hash
    /// that proves nothing.
    pub(crate) fn odd(pem: &str, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a key");
        Self::with_signer(pem, ring::sign::any_supported_type(&key).expect("ring has it"), versions)
    }

    /// A certificate whose key ring does not have: what it signs is not checked either.
    pub(crate) fn forged(pem: &str, scheme: SignatureScheme, versions: &[&'static SupportedProtocolVersion]) -> Self {
        Self::with_signer(pem, Arc::new(Forger(scheme)), versions)
    }

    /// A good certificate for `name` in the hands of somebody without its key.
    pub(crate) fn stolen(name: &str, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let pem = params(name).self_signed(&key()).expect("a certificate").pem();
        Self::forged(&pem, SignatureScheme::ECDSA_NISTP256_SHA256, versions)
    }

    fn with_signer(pem: &str, key: Arc<dyn SigningKey>, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        let certified = CertifiedKey::new(vec![certificate], key);
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("ring has them")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        Self(Arc::new(config))
    }

    fn new(
        certificate: CertificateDer<'static>,
        key: &KeyPair,
        clients: Arc<dyn ClientCertVerifier>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("ring has them")
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate], key)
            .expect("the key fits");
        Self(Arc::new(config))
    }
}

/// Signs with octets that are no signature.
#[derive(Debug, Clone)]
struct Forger(SignatureScheme);

impl SigningKey for Forger {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&self.0).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.0 {
            SignatureScheme::ED448 => SignatureAlgorithm::ED448,
            SignatureScheme::ECDSA_NISTP256_SHA256 => SignatureAlgorithm::ECDSA,
            _ => SignatureAlgorithm::RSA,
        }
    }
}

impl Signer for Forger {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, tokio_rustls::rustls::Error> {
        Ok(vec![7; 128])
    }

    fn scheme(&self) -> SignatureScheme {
        self.0
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
        let key = key();
        // A name of its own, lest another's certificates seem to be signed by it.
        let name = format!("test authority {:02x?}", &key.public_key_raw()[1..7]);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// The root certificate, for a `caFile`.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A good certificate for `name`, a host name or an IP address.
    pub(crate) fn certify(&self, name: &str) -> Identity {
        self.sign(&params(name), DEFAULT_VERSIONS)
    }

    /// As [`Authority::certify`], for a peer that speaks only this version of TLS.
    pub(crate) fn certify_for(&self, name: &str, version: &'static SupportedProtocolVersion) -> Identity {
        self.sign(&params(name), &[version])
    }

    /// A certificate for `name` that ended in 2001.
    pub(crate) fn certify_expired(&self, name: &str) -> Identity {
        let mut params = params(name);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2001, 1, 1);
        self.sign(&params, DEFAULT_VERSIONS)
    }

    /// A certificate for `name` that begins in 2090.
    pub(crate) fn certify_not_yet(&self, name: &str) -> Identity {
        let mut params = params(name);
        params.not_before = date_time_ymd(2090, 1, 1);
        params.not_after = date_time_ymd(2091, 1, 1);
        self.sign(&params, DEFAULT_VERSIONS)
    }

    /// As [`Authority::certify`], for a peer that only serves clients whom this authority knows.
    pub(crate) fn certify_for_known_clients(&self, name: &str) -> Identity {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("our own");
        roots.add(root).expect("a root");
        let provider = Arc::new(ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let key = key();
        let certificate = params(name).signed_by(&key, &self.issuer).expect("a certificate");
        Identity::new(certificate.der().clone(), &key, clients.expect("a verifier"), DEFAULT_VERSIONS)
    }

    /// A client's certificate and its key, in PEM.
    pub(crate) fn certify_client(&self, name: &str) -> (String, String) {
        let key = key();
        (params(name).signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }

    fn sign(&self, params: &CertificateParams, versions: &[&'static SupportedProtocolVersion]) -> Identity {
        let key = key();
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity::new(certificate.der().clone(), &key, WebPkiClientVerifier::no_client_auth(), versions)
    }
}

fn params(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).expect("a name")
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}
