//! TLS as a client: the handshake takes whatever certificate the peer has, and what it is
//! worth is found out afterwards, so that it can be recorded instead of failing.
//!
//! Verifying after the handshake rather than in it also covers resumed sessions, which
//! carry the certificate of the first one.

mod certificate;
mod words;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Utc};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, RootCertStore,
    SignatureScheme,
};

use crate::mail::{Domain, TlsFacts};

use super::config::{Config, StartTls};
use super::network::Network;
use super::routing::Target;
use certificate::Certificate;

pub(super) use words::in_tls;

/// TLS settings of one `RemoteDelivery`; sessions are resumed across its connections.
pub(super) struct Tls {
    client: Arc<ClientConfig>,
    network: Arc<Network>,
    ca_file: Vec<CertificateDer<'static>>,
    /// Made when the first certificate is seen: the system's roots take a while to load.
    verifier: OnceLock<Option<Arc<WebPkiServerVerifier>>>,
    must_verify: bool,
    any_name: bool,
    any_certificate: bool,
}

/// What a peer's certificate is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Worth {
    Verified,
    /// Valid, but for another name.
    OtherName(String),
    Untrusted(String),
}

/// A TLS session that is open, what is recorded of it, and why policy forbids its use.
pub(super) struct Secured {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) facts: TlsFacts,
    /// Set where `startTLS: verify` is not met.
    pub(super) refused: Option<String>,
    /// It goes on from an earlier one.
    pub(super) resumed: bool,
}

impl Tls {
    /// # Errors
    /// A sentence naming the file that cannot be used.
    pub(super) fn new(config: &Config, network: Arc<Network>) -> Result<Self, String> {
        let ca_file = config.ca_file.as_deref().map(certificates).transpose()?.unwrap_or_default();
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)));
        let client = match (&config.certificate, &config.key) {
            (Some(certificate), Some(key)) => {
                let (chain, private) = (certificates(certificate)?, private_key(key)?);
                builder
                    .with_client_auth_cert(chain, private)
                    .map_err(|error| format!("{} and {}: {error}", certificate.display(), key.display()))?
            }
            (None, None) => builder.with_no_client_auth(),
            _ => return Err("a client certificate needs both its certificate file and its key file".to_owned()),
        };
        Ok(Self {
            client: Arc::new(client),
            network,
            ca_file,
            verifier: OnceLock::new(),
            must_verify: config.start_tls == StartTls::Verify,
            any_name: !config.verify_server_identity,
            any_certificate: config.ssl_trust_all_certs,
        })
    }

    /// Shakes hands over `stream`.
    ///
    /// # Errors
    /// Why there is no TLS session, in words.
    pub(super) async fn handshake(&self, stream: TcpStream, target: &Target) -> Result<Secured, String> {
        let name = server_name(target);
        let stream = TlsConnector::from(Arc::clone(&self.client))
            .connect(name.clone(), stream)
            .await
            .map_err(|error| words::of_failure(&error))?;
        let worth = self.worth(stream.get_ref().1, &name);
        let refused = self.refusal(&worth);
        let facts = facts(stream.get_ref().1, &worth);
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok(Secured { stream, facts, refused, resumed })
    }

    /// Why a certificate of this worth does not do.
    fn refusal(&self, worth: &Worth) -> Option<String> {
        match worth {
            _ if !self.must_verify || self.any_certificate => None,
            Worth::Verified => None,
            Worth::OtherName(_) if self.any_name => None,
            Worth::OtherName(reason) | Worth::Untrusted(reason) => Some(reason.clone()),
        }
    }

    fn worth(&self, connection: &ClientConnection, name: &ServerName<'_>) -> Worth {
        let Some((own, chain)) = connection.peer_certificates().and_then(<[_]>::split_first) else {
            return Worth::Untrusted("no certificate".to_owned());
        };
        // Nobody has proved to have such a key.
        if let Some(reason) = Certificate::read(own).and_then(|own| own.unchecked()) {
            return Worth::Untrusted(reason);
        }
        let Some(verifier) = self.verifier() else {
            return Worth::Untrusted("this machine has no trusted roots".to_owned());
        };
        let now = self.network.clock.now();
        let unix = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.timestamp().unsigned_abs()));
        match verifier.verify_server_cert(own, chain, name, &[], unix) {
            Ok(_) => Worth::Verified,
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => other_name(name),
            // A certificate that is itself in caFile is trusted even where it claims to be
            // an authority's, which is what `openssl req -x509` makes.
            Err(_) if self.ca_file.contains(own) => worth_by_itself(own, name, now),
            Err(error) => Worth::Untrusted(reason(&error, own)),
        }
    }

    fn verifier(&self) -> Option<&WebPkiServerVerifier> {
        let made = self.verifier.get_or_init(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(self.network.roots().iter().chain(&self.ca_file).cloned());
            let provider = Arc::new(ring::default_provider());
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().ok()
        });
        made.as_deref()
    }
}

/// The host's name for SNI and for the certificate, as it was written; its address where it
/// has no name that TLS allows.
fn server_name(target: &Target) -> ServerName<'static> {
    let ascii = Domain::parse(&target.host).ok().and_then(|name| name.ascii().ok());
    ServerName::try_from(ascii.unwrap_or_else(|| target.host.clone()))
        .unwrap_or_else(|_| ServerName::IpAddress(target.address.ip().to_canonical().into()))
}

fn facts(connection: &ClientConnection, worth: &Worth) -> TlsFacts {
    let version = connection.protocol_version().and_then(|version| version.as_str().map(str::to_owned));
    let cipher = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str().map(str::to_owned));
    let reason = match worth {
        Worth::Verified => None,
        Worth::OtherName(reason) | Worth::Untrusted(reason) => Some(reason.clone()),
    };
    TlsFacts {
        version: version.unwrap_or_default().replace("TLSv1_", "TLSv1."),
        cipher: cipher.unwrap_or_default(),
        verified: reason.is_none(),
        reason,
    }
}

fn other_name(name: &ServerName<'_>) -> Worth {
    Worth::OtherName(format!("the certificate is not for {}", name.to_str()))
}

/// Name and time of a certificate that needs no issuer.
fn worth_by_itself(certificate: &CertificateDer<'_>, name: &ServerName<'_>, now: DateTime<Utc>) -> Worth {
    match Certificate::read(certificate).and_then(|certificate| certificate.validity()) {
        Some((from, _)) if now < from => return Worth::Untrusted("the certificate is not valid yet".to_owned()),
        Some((_, until)) if now <= until => {}
        _ => return Worth::Untrusted("the certificate has expired".to_owned()),
    }
    let named = ParsedCertificate::try_from(certificate).and_then(|parsed| verify_server_name(&parsed, name));
    if named.is_ok() { Worth::Verified } else { other_name(name) }
}

fn reason(error: &Error, certificate: &CertificateDer<'_>) -> String {
    let Error::InvalidCertificate(problem) = error else { return error.to_string() };
    let read = Certificate::read(certificate);
    match problem {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the certificate has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet".to_owned()
        }
        CertificateError::Revoked => "the certificate is revoked".to_owned(),
        CertificateError::UnknownIssuer => match read.filter(Certificate::is_self_signed) {
            Some(_) => "self-signed certificate".to_owned(),
            None => "the certificate's issuer is not trusted".to_owned(),
        },
        other => match read {
            Some(read) if read.version < 3 => {
                format!("its certificate is X.509 version {} ({})", read.version, said(other))
            }
            Some(read) if read.is_self_signed() && matches!(other, CertificateError::Other(_)) => {
                "self-signed certificate".to_owned()
            }
            Some(read) => match read.broken_hash() {
                Some(hash) => {
                    format!("its certificate is signed with {hash}, which proves nothing any more ({})", said(other))
                }
                None => format!("invalid certificate: {other}"),
            },
            None => format!("its certificate cannot be read ({})", said(other)),
        },
    }
}

/// The library's words.
fn said(problem: &CertificateError) -> String {
    match problem {
        CertificateError::Other(inner) => inner.to_string(),
        other => other.to_string(),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| wrong(&error));
    match found {
        Ok(found) if found.is_empty() => Err(wrong(&"no certificate in it")),
        found => found,
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Checks that the peer has the key of its certificate, and leaves the certificate's worth
/// to [`Tls::worth`].
///
/// A certificate that the library cannot read (version 1, say) has a key all the same. Where
/// no signature of that key can be checked, the session is as good as one with any
/// certificate: [`Tls::worth`] trusts none such.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl AnyCertificate {
    /// `by_library` unless it is the certificate that it does not take.
    fn check(
        &self,
        by_library: impl FnOnce(&WebPkiSupportedAlgorithms) -> Result<HandshakeSignatureValid, Error>,
        certificate: &CertificateDer<'_>,
        message: &[u8],
        signed: &DigitallySignedStruct,
        most: usize,
    ) -> Result<HandshakeSignatureValid, Error> {
        let read = Certificate::read(certificate);
        if read.as_ref().is_some_and(|read| read.unchecked().is_some()) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let algorithms = &self.0.signature_verification_algorithms;
        match by_library(algorithms) {
            Err(Error::InvalidCertificate(CertificateError::BadEncoding | CertificateError::Other(_))) => {
                let key = read.and_then(|read| read.public_key()).ok_or(CertificateError::BadEncoding)?;
                by_key(algorithms, key, message, signed, most)
            }
            other => other,
        }
    }
}

/// Checks a signature with a key (its algorithm, and itself), by the first `most` algorithms
/// of the scheme.
fn by_key(
    algorithms: &WebPkiSupportedAlgorithms,
    (algorithm, key): (&[u8], &[u8]),
    message: &[u8],
    signed: &DigitallySignedStruct,
    most: usize,
) -> Result<HandshakeSignatureValid, Error> {
    let of_scheme = algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme);
    let mut fitting = of_scheme
        .flat_map(|(_, algorithms)| algorithms.iter().take(most))
        .filter(|one| one.public_key_alg_id().as_ref() == algorithm);
    if fitting.any(|one| one.verify_signature(key, message, signed.signature()).is_ok()) {
        Ok(HandshakeSignatureValid::assertion())
    } else {
        Err(CertificateError::BadSignature.into())
    }
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let by_library = |algorithms: &_| verify_tls12_signature(message, cert, dss, algorithms);
        self.check(by_library, cert, message, dss, usize::MAX)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let by_library = |algorithms: &_| verify_tls13_signature(message, cert, dss, algorithms);
        // The first alone: the others are of TLS 1.2.
        self.check(by_library, cert, message, dss, 1)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.0.signature_verification_algorithms.supported_schemes();
        // Of no use to a peer with a key of another kind.
        schemes.push(SignatureScheme::ED448);
        schemes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_needs_no_issuer_has_its_name_and_its_time() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut parameters = rcgen::CertificateParams::new(vec!["mx.example".to_owned()]).expect("parameters");
        parameters.not_before = rcgen::date_time_ymd(2020, 2, 3);
        parameters.not_after = rcgen::date_time_ymd(2051, 4, 5);
        let certificate = parameters.self_signed(&key).expect("a certificate");
        let der = certificate.der();
        let (from, until) = Certificate::read(der).and_then(|read| read.validity()).expect("times");
        let name = ServerName::try_from("mx.example").expect("a name");
        let other = ServerName::try_from("other.example").expect("a name");
        assert_eq!(worth_by_itself(der, &name, from), Worth::Verified);
        assert!(matches!(worth_by_itself(der, &other, from), Worth::OtherName(_)));
        assert!(matches!(worth_by_itself(der, &name, until + chrono::TimeDelta::days(1)), Worth::Untrusted(_)));
    }
}
