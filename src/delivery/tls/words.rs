//! Why there is no TLS session, in an operator's words; the library's stand behind them.

use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

use crate::delivery::step::Broken;

/// What a failed handshake means.
pub(super) fn of_failure(error: &io::Error) -> String {
    in_tls(error).unwrap_or_else(|| Broken::from_io(error).to_string())
}

/// What an error means that TLS itself had, and not what carries it.
pub(in super::super) fn in_tls(error: &io::Error) -> Option<String> {
    let library = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match meaning(library) {
        Some(words) => format!("{words} ({library})"),
        None => library.to_string(),
    })
}

fn meaning(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::AlertReceived(alert) => of_alert(*alert)?,
        Error::PeerIncompatible(_) => NOTHING_IN_COMMON,
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            "its signature does not fit the key of its certificate"
        }
        Error::InvalidCertificate(_) => "its certificate cannot be read",
        Error::NoCertificatesPresented => "it shows no certificate",
        Error::InvalidMessage(_) => "what it sends is no TLS",
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } | Error::PeerMisbehaved(_) => {
            "it does not keep to the rules of TLS"
        }
        _ => return None,
    })
}

const NOTHING_IN_COMMON: &str = "no common cipher or protocol: the peer may know only TLS 1.0 or RSA key exchange";

fn of_alert(alert: AlertDescription) -> Option<&'static str> {
    use AlertDescription as Alert;
    Some(match alert {
        Alert::HandshakeFailure | Alert::ProtocolVersion | Alert::InsufficientSecurity => NOTHING_IN_COMMON,
        Alert::CertificateRequired => "it wants a certificate of ours: set 'certificate' and 'key'",
        Alert::NoCertificate
        | Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied => "it does not take our certificate, or wants one",
        Alert::UnrecognisedName => "it does not go by this name",
        Alert::InternalError => "it has trouble of its own",
        Alert::DecodeError | Alert::UnexpectedMessage | Alert::IllegalParameter => "it does not understand our TLS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::{InvalidMessage, PeerIncompatible};

    use super::*;

    #[test]
    fn an_operator_s_words_come_first() {
        for (error, words) in [
            (
                Error::AlertReceived(AlertDescription::HandshakeFailure),
                "no common cipher or protocol: the peer may know only TLS 1.0 or RSA key exchange (received fatal alert: ",
            ),
            (PeerIncompatible::ServerDoesNotSupportTls12Or13.into(), "no common cipher or protocol: "),
            (Error::AlertReceived(AlertDescription::ProtocolVersion), "no common cipher or protocol: "),
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), "what it sends is no TLS ("),
            (Error::AlertReceived(AlertDescription::UnknownCA), "it does not take our certificate, or wants one ("),
            (Error::AlertReceived(AlertDescription::UserCanceled), "received fatal alert: "),
            (CertificateError::BadSignature.into(), "its signature does not fit the key of its certificate ("),
        ] {
            let told = of_failure(&io::Error::new(io::ErrorKind::InvalidData, error));
            assert!(told.starts_with(words), "{told}");
        }
        assert_eq!(of_failure(&io::ErrorKind::UnexpectedEof.into()), "the connection was closed");
    }
}
