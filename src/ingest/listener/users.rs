//! Who may relay after AUTH: a file of names and argon2 hashes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use argon2::{ARGON2D_IDENT, ARGON2I_IDENT, ARGON2ID_IDENT, Argon2, PasswordHash, PasswordVerifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Semaphore;

use super::Error;
use crate::clients::WrongPasswords;
use crate::clock::Clock;

/// Passwords that are checked at once: each takes the memory that its hash names, 19 MiB
/// by argon2's recommendation.
const CHECKED_AT_ONCE: usize = 2;

/// Users by name. Debug output has no hashes.
pub(super) struct Users {
    by_name: HashMap<String, PasswordHash>,
    gate: Semaphore,
    wrong: Arc<WrongPasswords>,
}

/// What comes of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
    /// It was not looked at: too many from there were wrong.
    Unheard,
}

/// What AUTH PLAIN carries (RFC 4616). It has no debug output: it is a password.
pub(super) struct Credentials {
    pub(super) name: String,
    password: String,
}

impl Users {
    /// Reads a file of users; of several errors the first.
    pub(super) fn load(file: &Path, wrong_passwords: Arc<WrongPasswords>) -> Result<Self, Error> {
        let by_name = read(file).map_err(|mut errors| errors.swap_remove(0))?;
        Ok(Self { by_name, gate: Semaphore::new(CHECKED_AT_ONCE), wrong: wrong_passwords })
    }

    /// Whether the password that came from `client` is the user's, and not one of too many.
    pub(super) async fn verify(&self, credentials: Credentials, client: IpAddr, clock: &Clock) -> Verdict {
        let Ok(_turn) = self.gate.acquire().await else { return Verdict::Unheard };
        if self.wrong.are_too_many(client, clock.instant()) {
            return Verdict::Unheard;
        }
        if self.is_right(credentials).await {
            return Verdict::Right;
        }
        self.wrong.add(client, clock.instant());
        Verdict::Wrong
    }

    /// Whether the password is the user's. Nobody learns from the time it takes whether
    /// there is such a user.
    async fn is_right(&self, credentials: Credentials) -> bool {
        let known = self.by_name.get(&credentials.name);
        // Somebody's hash is checked all the same, for what that costs.
        let Some(hash) = known.or_else(|| self.by_name.values().next()).cloned() else { return false };
        let is_known = known.is_some();
        let check = move || Argon2::default().verify_password(credentials.password.as_bytes(), &hash).is_ok();
        let matches = tokio::task::spawn_blocking(check).await.unwrap_or(false);
        is_known && matches
    }
}

/// Reads `name:$argon2id$...`, a line each; empty lines and those that begin with `#` are
/// passed over.
///
/// # Errors
/// All that is wrong, at least one, by line.
pub(super) fn read(file: &Path) -> Result<HashMap<String, PasswordHash>, Vec<Error>> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| vec![Error::File { file: file.to_owned(), why: error.to_string() }])?;
    let (mut by_name, mut errors) = (HashMap::new(), Vec::new());
    for (at, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let twice = |name: &String| by_name.contains_key(name).then(|| format!("user {name:?} stands there twice"));
        let read = user(line).and_then(|(name, hash)| twice(&name).map_or(Ok((name, hash)), Err));
        match read {
            Ok((name, hash)) => drop(by_name.insert(name, hash)),
            Err(why) => errors.push(Error::Users { file: file.to_owned(), line: at + 1, why }),
        }
    }
    if errors.is_empty() { Ok(by_name) } else { Err(errors) }
}

fn user(line: &str) -> Result<(String, PasswordHash), String> {
    let (name, hash) = line.split_once(':').ok_or("write it as name:hash")?;
    if name.is_empty() || name.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err("the name is empty, or has a blank".to_owned());
    }
    let hash = PasswordHash::new(hash.trim_end()).map_err(|error| format!("the hash of user {name:?}: {error}"))?;
    if ![ARGON2D_IDENT, ARGON2I_IDENT, ARGON2ID_IDENT].contains(&hash.algorithm) || hash.hash.is_none() {
        return Err(format!("the hash of user {name:?} is none of argon2; make it with the command argon2"));
    }
    Ok((name.to_owned(), hash))
}

impl Credentials {
    /// Reads an AUTH PLAIN response; `None` where it is none. A user who would act as
    /// another is none either: all users may do the same here.
    pub(super) fn from_plain(response: &str) -> Option<Self> {
        // An initial response that is empty is written as `=` (RFC 4954 section 4).
        let octets = STANDARD.decode(if response == "=" { "" } else { response }).ok()?;
        let text = String::from_utf8(octets).ok()?;
        let mut parts = text.split('\0');
        let (acting_as, name, password) = (parts.next()?, parts.next()?, parts.next()?);
        let fits = parts.next().is_none() && !name.is_empty() && !password.is_empty();
        if !fits || !(acting_as.is_empty() || acting_as == name) {
            return None;
        }
        Some(Self { name: name.to_owned(), password: password.to_owned() })
    }
}

/// Shared by all sessions.
pub(super) fn load(file: Option<&Path>, wrong: &Arc<WrongPasswords>) -> Result<Option<Arc<Users>>, Error> {
    file.map(|file| Users::load(file, Arc::clone(wrong)).map(Arc::new)).transpose()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use argon2::{Params, PasswordHasher};

    use super::*;

    fn hash(password: &str) -> String {
        let cheap = Argon2::from(Params::new(8, 1, 1, None).expect("valid"));
        cheap.hash_password_with_salt(password.as_bytes(), b"salt of a test").expect("a hash").to_string()
    }

    fn load(text: &str) -> Result<Users, Error> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        Users::load(file.path(), Arc::default())
    }

    fn credentials(plain: &str) -> Option<Credentials> {
        Credentials::from_plain(&STANDARD.encode(plain))
    }

    #[tokio::test]
    async fn only_the_users_own_password_is_right() {
        let users = load(&format!("# who\n\nann:{}\nbob:{}\r\n", hash("secret"), hash("other"))).expect("valid");
        for (plain, right) in [
            ("\0ann\0secret", true),
            ("ann\0ann\0secret", true),
            ("\0ann\0other", false),
            ("\0bob\0other", true),
            ("\0Ann\0secret", false),
            ("\0nobody\0secret", false),
            ("\0nobody\0other", false),
        ] {
            assert_eq!(users.is_right(credentials(plain).expect("credentials")).await, right, "{plain:?}");
        }
    }

    #[tokio::test]
    async fn a_file_without_users_lets_nobody_in() {
        let users = load("# nobody yet\n").expect("valid");
        assert!(!users.is_right(credentials("\0ann\0secret").expect("credentials")).await);
    }

    #[tokio::test]
    async fn who_guesses_is_not_heard_any_more_and_others_are() {
        let (users, clock) = (load(&format!("ann:{}\n", hash("secret"))).expect("valid"), Clock::system());
        let verify = async |password: &str, last: u8| {
            let credentials = credentials(&format!("\0ann\0{password}")).expect("credentials");
            users.verify(credentials, IpAddr::from(Ipv4Addr::new(192, 0, 2, last)), &clock).await
        };
        let mut guesses = 0;
        while verify("guess", 1).await == Verdict::Wrong {
            guesses += 1;
            assert!(guesses < 100);
        }
        assert_eq!(verify("secret", 1).await, Verdict::Unheard);
        assert_eq!(verify("secret", 2).await, Verdict::Right);
    }

    #[test]
    fn what_is_no_response_is_none() {
        for plain in ["", "ann", "\0ann", "\0\0secret", "\0ann\0", "\0ann\0sec\0ret", "root\0ann\0secret"] {
            assert!(credentials(plain).is_none(), "{plain:?}");
        }
        for response in ["=", "", "!", "AGFubgBzZWNyZXQ", "/wD/AP8="] {
            assert!(Credentials::from_plain(response).is_none(), "{response:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = Users::load(Path::new("/nowhere/users"), Arc::default()).err().expect("refused");
        assert!(error.to_string().starts_with("/nowhere/users:1:1: "), "{error}");
    }

    #[test]
    fn a_wrong_line_is_named_without_what_is_secret_in_it() {
        let good = hash("secret");
        for (text, line, reason) in [
            ("ann\n".to_owned(), 1, "write it as name:hash"),
            (format!("ann:{good}\n:{good}\n"), 2, "the name is empty"),
            (format!("ann:{good}\nann:{good}\n"), 2, "twice"),
            ("ann:secret\n".to_owned(), 1, "the hash of user \"ann\""),
            ("ann:$6$salt$hash\n".to_owned(), 1, "the hash of user \"ann\""),
            ("ann:$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ\n".to_owned(), 1, "none of argon2"),
        ] {
            let error = load(&text).err().expect("refused").to_string();
            assert!(error.contains(&format!(":{line}:1: ")) && error.contains(reason), "{text:?}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
