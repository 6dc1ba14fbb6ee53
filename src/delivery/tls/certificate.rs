//! What of a certificate (X.509, RFC 5280 section 4.1) decides how it is used and what is said
//! of it. Read leniently: also such that no library takes, since an opportunistic session
//! may use any.

use chrono::{DateTime, NaiveDateTime, Utc};
use tokio_rustls::rustls::pki_types::CertificateDer;

/// RSA keys that signatures are checked with, in bits: the limits of ring.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Object identifiers, as they are encoded.
const RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
const ED448: &[u8] = b"\x2b\x65\x71";
const MD5_WITH_RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04";
const SHA1_WITH_RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05";
const SHA1_WITH_ECDSA: &[u8] = b"\x2a\x86\x48\xce\x3d\x04\x01";

/// The fields that matter here, each the content of its DER element.
pub(super) struct Certificate<'a> {
    issuer: &'a [u8],
    validity: &'a [u8],
    subject: &'a [u8],
    key: &'a [u8],
    signature_algorithm: &'a [u8],
    /// 1 to 3.
    pub(super) version: u8,
}

impl<'a> Certificate<'a> {
    /// `None` for octets that are none.
    pub(super) fn read(der: &'a CertificateDer<'_>) -> Option<Self> {
        let (certificate, _) = element(der)?;
        let (to_be_signed, behind) = element(certificate)?;
        let (signature_algorithm, _) = element(behind)?;
        let (version, rest) = version(to_be_signed)?;
        let (_serial, rest) = element(rest)?;
        let (_algorithm, rest) = element(rest)?;
        let (issuer, rest) = element(rest)?;
        let (validity, rest) = element(rest)?;
        let (subject, rest) = element(rest)?;
        let (key, _) = element(rest)?;
        Some(Self { issuer, validity, subject, key, signature_algorithm, version })
    }

    /// Issuer and subject are the same name.
    pub(super) fn is_self_signed(&self) -> bool {
        self.issuer == self.subject
    }

    /// From when and until when it is valid.
    pub(super) fn validity(&self) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        let (from, rest) = element(self.validity)?;
        let (until, _) = element(rest)?;
        Some((time(from)?, time(until)?))
    }

    /// The algorithm of its key, and the key itself.
    pub(super) fn public_key(&self) -> Option<(&'a [u8], &'a [u8])> {
        let (algorithm, rest) = element(self.key)?;
        let (bits, _) = element(rest)?;
        // The number of bits that do not count, which is 0.
        Some((algorithm, bits.get(1..)?))
    }

    /// Why no signature of its key can be checked; such a peer may be anybody.
    pub(super) fn unchecked(&self) -> Option<String> {
        let (algorithm, key) = self.public_key()?;
        let (name, _) = element(algorithm)?;
        if name == ED448 {
            return Some("its Ed448 key is of a kind that cannot be checked here".to_owned());
        }
        let bits = if name == RSA { rsa_bits(key)? } else { return None };
        match bits {
            _ if RSA_BITS.contains(&bits) => None,
            _ if bits < *RSA_BITS.start() => Some(format!("its RSA key of {bits} bits is too short")),
            _ => Some(format!("its RSA key of {bits} bits is too long to be checked")),
        }
    }

    /// The hash that it is signed with, where that is one that proves nothing any more.
    pub(super) fn broken_hash(&self) -> Option<&'static str> {
        match element(self.signature_algorithm)?.0 {
            MD5_WITH_RSA => Some("MD5"),
            SHA1_WITH_RSA | SHA1_WITH_ECDSA => Some("SHA-1"),
            _ => None,
        }
    }
}

/// The version is optional and tagged `[0]`; without it, it is 1.
fn version(to_be_signed: &[u8]) -> Option<(u8, &[u8])> {
    if to_be_signed.first() != Some(&0xa0) {
        return Some((1, to_be_signed));
    }
    let (tagged, rest) = element(to_be_signed)?;
    let (number, _) = element(tagged)?;
    Some((number.first()?.saturating_add(1), rest))
}

/// How long the modulus of an RSA key is (RFC 8017 appendix A.1.1).
fn rsa_bits(key: &[u8]) -> Option<usize> {
    let (numbers, _) = element(key)?;
    let (modulus, _) = element(numbers)?;
    let zeros = modulus.iter().take_while(|&&octet| octet == 0).count();
    let modulus = &modulus[zeros..];
    let unused = modulus.first()?.leading_zeros();
    Some(modulus.len() * 8 - usize::try_from(unused).unwrap_or(0))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_times_and_key_are_found_in_the_der() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut parameters = rcgen::CertificateParams::new(vec!["mx.example".to_owned()]).expect("parameters");
        parameters.not_before = rcgen::date_time_ymd(2020, 2, 3);
        parameters.not_after = rcgen::date_time_ymd(2051, 4, 5);
        let certificate = parameters.self_signed(&key).expect("a certificate");
        let found = Certificate::read(certificate.der()).expect("a certificate");
        assert!(found.is_self_signed());
        assert_eq!((found.version, found.unchecked(), found.broken_hash()), (3, None, None));
        assert_eq!(found.public_key().expect("a key").1, key.public_key_raw());
        let (from, until) = found.validity().expect("times");
        assert_eq!(
            (from.date_naive().to_string(), until.date_naive().to_string()),
            ("2020-02-03".into(), "2051-04-05".into())
        );
    }

    #[test]
    fn octets_that_are_no_certificate_are_none() {
        for octets in [&b""[..], b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x03\x30\x80\x00", b"\x30\x82\x01"] {
            assert!(Certificate::read(&CertificateDer::from(octets.to_vec())).is_none(), "{octets:?}");
        }
    }
}
