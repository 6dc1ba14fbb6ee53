//! What a client says in AUTH.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What AUTH carries. It has no debug output: it is a password.
pub(super) struct Credentials {
    pub(super) name: String,
    pub(super) password: String,
}

impl Credentials {
    /// Reads an AUTH PLAIN response; `None` where it is none. A user who would act as
    /// another is none either: all users may do the same here.
    pub(super) fn from_plain(response: &str) -> Option<Self> {
        let text = decoded(response)?;
        let mut parts = text.split('\0');
        let (acting_as, name, password) = (parts.next()?, parts.next()?, parts.next()?);
        let fits = parts.next().is_none() && !name.is_empty() && !password.is_empty();
        if !fits || !(acting_as.is_empty() || acting_as == name) {
            return None;
        }
        Some(Self { name: name.to_owned(), password: password.to_owned() })
    }

    /// Reads the two responses of AUTH LOGIN; `None` where they are none.
    pub(super) fn from_login(name: &str, password: &str) -> Option<Self> {
        let (name, password) = (decoded(name)?, decoded(password)?);
        let fits = !name.is_empty() && !password.is_empty() && !name.contains('\0') && !password.contains('\0');
        fits.then_some(Self { name, password })
    }
}

/// One response in base64; an initial one that is empty is written as `=` (RFC 4954 section 4).
fn decoded(response: &str) -> Option<String> {
    let octets = STANDARD.decode(if response == "=" { "" } else { response }).ok()?;
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(plain: &str) -> Option<Credentials> {
        Credentials::from_plain(&STANDARD.encode(plain))
    }

    #[test]
    fn a_user_may_name_himself_twice() {
        for plain in ["\0ann\0secret", "ann\0ann\0secret"] {
            let read = credentials(plain).expect("credentials");
            assert_eq!((read.name.as_str(), read.password.as_str()), ("ann", "secret"));
        }
    }

    #[test]
    fn what_is_no_response_is_none() {
        for plain in ["", "ann", "\0ann", "\0\0secret", "\0ann\0", "\0ann\0sec\0ret", "root\0ann\0secret"] {
            assert!(credentials(plain).is_none(), "{plain:?}");
        }
        for (name, password) in [("", "c2VjcmV0"), ("YW5u", "="), ("YW5u", "!"), ("AA==", "c2VjcmV0")] {
            assert!(Credentials::from_login(name, password).is_none(), "{name} {password}");
        }
        assert!(Credentials::from_login("YW5u", "c2VjcmV0").is_some());
        for response in ["=", "", "!", "AGFubgBzZWNyZXQ", "/wD/AP8="] {
            assert!(Credentials::from_plain(response).is_none(), "{response:?}");
        }
    }
}
