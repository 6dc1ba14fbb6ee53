//! Private keys, from PEM.

use ring::rand::SystemRandom;
use ring::rsa::KeyPair as RsaKeyPair;
use ring::signature::{Ed25519KeyPair, RSA_PKCS1_SHA256};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

/// Why a file is no key to sign with. The text has nothing of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Of no kind that is known.
    #[error("there is no private key in it: PEM is expected, as 'openssl genpkey' writes it")]
    NoKey,
    /// What belongs into the DNS.
    #[error("it is a public key: the private one is needed here")]
    Public,
    /// A password would have to be asked for.
    #[error("its key is encrypted: decrypt it ('openssl pkey -in FILE -out NEWFILE')")]
    Encrypted,
    /// Neither RSA nor Ed25519.
    #[error("its key is neither RSA nor Ed25519")]
    Kind,
    /// RFC 8301 section 3.2 asks for 1024 at least, and 2048 for whoever wants to be believed.
    #[error("its RSA key is shorter than 2048 bits, or damaged")]
    Rsa,
    /// Ed25519, and not as RFC 8410 has it.
    #[error("its Ed25519 key is damaged")]
    Ed25519,
}

/// A private key, RSA of 2048 bits or more, or Ed25519.
#[derive(Debug)]
pub struct Key(Pair);

#[derive(Debug)]
enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

/// The object identifier of Ed25519, in DER (RFC 8410 section 3).
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
/// That of RSA (RFC 8017 appendix A.1).
const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

impl Key {
    /// Reads PKCS#8 or, for RSA, PKCS#1.
    ///
    /// # Errors
    /// Where there is no key, or none to sign with.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let has = |words: &[u8]| pem.windows(words.len()).any(|window| window == words);
        if has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        let der = PrivateKeyDer::from_pem_slice(pem);
        let der = der.map_err(|_| if has(b"PUBLIC KEY-----") { KeyError::Public } else { KeyError::NoKey })?;
        let rsa = |pair: Result<RsaKeyPair, _>| pair.map(|pair| Pair::Rsa(Box::new(pair))).map_err(|_| KeyError::Rsa);
        Ok(Self(match der {
            PrivateKeyDer::Pkcs1(der) => rsa(RsaKeyPair::from_der(der.secret_pkcs1_der()))?,
            PrivateKeyDer::Pkcs8(der) => match der.secret_pkcs8_der() {
                der if is_of(der, RSA) => rsa(RsaKeyPair::from_pkcs8(der))?,
                der if is_of(der, ED25519) => ed25519(der)?,
                _ => return Err(KeyError::Kind),
            },
            _ => return Err(KeyError::Kind),
        }))
    }

    /// The name of the algorithm, as `a=` has it.
    pub fn algorithm(&self) -> &'static str {
        match self.0 {
            Pair::Rsa(_) => "rsa-sha256",
            Pair::Ed25519(_) => "ed25519-sha256",
        }
    }

    /// The signature of the canonical header; `None` where the machine has no random numbers.
    pub(super) fn sign(&self, header: &[u8]) -> Option<Vec<u8>> {
        match &self.0 {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), header, &mut signature).ok()?;
                Some(signature)
            }
            // RFC 8463 section 3: what is signed is the digest.
            Pair::Ed25519(pair) => {
                let digest = ring::digest::digest(&ring::digest::SHA256, header);
                Some(pair.sign(digest.as_ref()).as_ref().to_vec())
            }
        }
    }
}

/// Whether a PKCS#8 key is of this algorithm, which it names among its first octets.
fn is_of(der: &[u8], algorithm: &[u8]) -> bool {
    der[..der.len().min(32)].windows(algorithm.len()).any(|window| window == algorithm)
}

/// openssl writes version 1, without the public key.
fn ed25519(der: &[u8]) -> Result<Pair, KeyError> {
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(Pair::Ed25519).map_err(|_| KeyError::Ed25519)
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! key {
        ($name:literal) => {
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dkim/keys/", $name, ".pem"))
        };
    }

    #[test]
    fn what_is_no_key_to_sign_with_is_said() {
        for (pem, why) in [
            ("", KeyError::NoKey),
            ("-----BEGIN PRIVATE KEY-----\n", KeyError::NoKey),
            (
                "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n",
                KeyError::Public,
            ),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", KeyError::Encrypted),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
                KeyError::Encrypted,
            ),
            ("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n", KeyError::Rsa),
            (
                "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v\n-----END PRIVATE KEY-----\n",
                KeyError::Ed25519,
            ),
            (key!("curve"), KeyError::Kind),
            (key!("rsa-1024"), KeyError::Rsa),
        ] {
            assert_eq!(Key::from_pem(pem.as_bytes()).err(), Some(why), "{pem}");
        }
    }

    #[test]
    fn keys_of_both_kinds_are_read_as_openssl_writes_them() {
        for (pem, algorithm) in
            [(key!("rsa-pkcs8"), "rsa-sha256"), (key!("rsa-pkcs1"), "rsa-sha256"), (key!("ed25519"), "ed25519-sha256")]
        {
            let text = format!("a comment\n{pem}");
            assert_eq!(Key::from_pem(text.as_bytes()).map(|key| key.algorithm()), Ok(algorithm));
        }
    }
}
