//! TLS as a client: the handshake takes whatever certificate the peer has, and what it is
//! worth is found out afterwards, so that it can be recorded instead of failing.
//!
//! Verifying after the handshake rather than in it also covers resumed sessions, which
//! carry the certificate of the first one.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use chrono::{DateTime, NaiveDateTime, Utc};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, RootCertStore,
    SignatureScheme,
};

use crate::mail::TlsFacts;

use super::config::{Config, StartTls};
use super::network::Network;
use super::routing::Target;
use super::step::Broken;

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
            .map_err(|error| Broken::from_io(&error).to_string())?;
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

/// The host's name for SNI and for the certificate; its address where it has no name that
/// TLS allows.
fn server_name(target: &Target) -> ServerName<'static> {
    ServerName::try_from(target.host.clone())
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
    match validity(certificate) {
        Some((from, _)) if now < from => return Worth::Untrusted("the certificate is not valid yet".to_owned()),
        Some((_, until)) if now <= until => {}
        _ => return Worth::Untrusted("the certificate has expired".to_owned()),
    }
    let named = ParsedCertificate::try_from(certificate).and_then(|parsed| verify_server_name(&parsed, name));
    if named.is_ok() { Worth::Verified } else { other_name(name) }
}

fn reason(error: &Error, certificate: &CertificateDer<'_>) -> String {
    let Error::InvalidCertificate(problem) = error else { return error.to_string() };
    match problem {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the certificate has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet".to_owned()
        }
        CertificateError::Revoked => "the certificate is revoked".to_owned(),
        CertificateError::UnknownIssuer | CertificateError::Other(_) if is_self_signed(certificate) => {
            "self-signed certificate".to_owned()
        }
        CertificateError::UnknownIssuer => "the certificate's issuer is not trusted".to_owned(),
        other => format!("invalid certificate: {other}"),
    }
}

/// Issuer and subject are the same name.
fn is_self_signed(certificate: &CertificateDer<'_>) -> bool {
    fields(certificate).is_some_and(|[issuer, _, subject]| issuer == subject)
}

/// From when and until when a certificate is valid.
fn validity(certificate: &CertificateDer<'_>) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let [_, validity, _] = fields(certificate)?;
    let (from, rest) = element(validity)?;
    let (until, _) = element(rest)?;
    Some((time(from)?, time(until)?))
}

/// UTCTime or GeneralizedTime (RFC 5280 section 4.1.2.5).
fn time(text: &[u8]) -> Option<DateTime<Utc>> {
    let text = std::str::from_utf8(text).ok()?;
    let text = match text.len() {
        13 if text.as_bytes()[0] < b'5' => format!("20{text}"),
        13 => format!("19{text}"),
        _ => text.to_owned(),
    };
    NaiveDateTime::parse_from_str(&text, "%Y%m%d%H%M%SZ").ok().map(|time| time.and_utc())
}

/// Contents of issuer, validity and subject of a certificate (RFC 5280 section 4.1).
fn fields<'a>(certificate: &'a CertificateDer<'_>) -> Option<[&'a [u8]; 3]> {
    let (certificate, _) = element(certificate)?;
    let (mut rest, _) = element(certificate)?;
    // The version is optional and tagged [0]; serial number and algorithm follow it.
    let skipped = if rest.first() == Some(&0xa0) { 3 } else { 2 };
    for _ in 0..skipped {
        rest = element(rest)?.1;
    }
    let (issuer, rest) = element(rest)?;
    let (validity, rest) = element(rest)?;
    let (subject, _) = element(rest)?;
    Some([issuer, validity, subject])
}

/// The content of the first DER element, and what follows it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.get(1..)?.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (octets.iter().fold(0, |length, &octet| length << 8 | usize::from(octet)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
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
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

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
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_s_names_and_times_are_found_in_its_der() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut parameters = rcgen::CertificateParams::new(vec!["mx.example".to_owned()]).expect("parameters");
        parameters.not_before = rcgen::date_time_ymd(2020, 2, 3);
        parameters.not_after = rcgen::date_time_ymd(2051, 4, 5);
        let certificate = parameters.self_signed(&key).expect("a certificate");
        let der = certificate.der();
        assert!(is_self_signed(der));
        let (from, until) = validity(der).expect("times");
        assert_eq!(
            (from.date_naive().to_string(), until.date_naive().to_string()),
            ("2020-02-03".into(), "2051-04-05".into())
        );
        let name = ServerName::try_from("mx.example").expect("a name");
        let other = ServerName::try_from("other.example").expect("a name");
        assert_eq!(worth_by_itself(der, &name, from), Worth::Verified);
        assert!(matches!(worth_by_itself(der, &other, from), Worth::OtherName(_)));
        assert!(matches!(worth_by_itself(der, &name, until + chrono::TimeDelta::days(1)), Worth::Untrusted(_)));
    }

    #[test]
    fn octets_that_are_no_certificate_have_no_fields() {
        for octets in [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x03\x30\x80\x00", b"\x30\x82\x01"] {
            assert_eq!(fields(&CertificateDer::from(octets.to_vec())), None, "{octets:?}");
        }
    }
}
