//! Users of a listener: a file of names and argon2 hashes.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use argon2::{ARGON2D_IDENT, ARGON2I_IDENT, ARGON2ID_IDENT, Argon2, PasswordHash, PasswordVerifier};
use ring::digest::SHA256_OUTPUT_LEN;
use ring::hmac;
use tokio::sync::Semaphore;

use super::{FileError, WrongPasswords};
use crate::clock::Clock;

/// Passwords that are checked at once: each takes the memory that its hash names, 19 MiB
/// by argon2's recommendation.
const CHECKED_AT_ONCE: usize = 2;

/// Right passwords that are remembered at most.
const REMEMBERED: usize = 1000;

/// What a user of the admin listener may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Full,
    /// Everything but removing mail.
    NoDelete,
    /// Looking.
    ReadOnly,
}

impl Role {
    /// Its name in files of users, and in the record of operations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::NoDelete => "nodelete",
            Self::ReadOnly => "readonly",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Full, Self::NoDelete, Self::ReadOnly].into_iter().find(|role| role.name() == name)
    }
}

/// What a line of the file is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Columns {
    /// `name:hash`; all may do the same.
    NameHash,
    /// `name:role:hash`.
    NameRoleHash,
}

struct User {
    role: Role,
    hash: PasswordHash,
}

/// Users by name. There is no debug output, since it would have hashes.
pub struct Users {
    by_name: HashMap<String, User>,
    checked_at_once: Semaphore,
    wrong: Arc<WrongPasswords>,
    right: Remembered,
}

/// What comes of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the user's, who may do this.
    Right(Role),
    /// It is not, or there is no such user.
    Wrong,
    /// It was not looked at: too many from there were wrong.
    Unheard,
}

impl Users {
    /// Reads a file of users.
    ///
    /// # Errors
    /// Of several errors the first; [`read`] has all.
    pub fn load(file: &Path, columns: Columns, wrong: Arc<WrongPasswords>) -> Result<Self, FileError> {
        let by_name = users(file, columns).map_err(|mut errors| errors.swap_remove(0))?;
        Ok(Self { by_name, checked_at_once: Semaphore::new(CHECKED_AT_ONCE), wrong, right: Remembered::default() })
    }

    /// Whether the password that came from `client` is the user's, and not one of too many.
    pub async fn verify(&self, name: &str, password: &str, client: IpAddr, clock: &Clock) -> Verdict {
        let Ok(_turn) = self.checked_at_once.acquire().await else { return Verdict::Unheard };
        if self.wrong.are_too_many(client, clock.instant()) {
            return Verdict::Unheard;
        }
        if let Some(role) = self.role(name, password).await {
            return Verdict::Right(role);
        }
        self.wrong.add(client, clock.instant());
        Verdict::Wrong
    }

    /// A user's role, and the hash of his password: with another one he is to log in again.
    pub fn credential(&self, name: &str) -> Option<(Role, String)> {
        self.by_name.get(name).map(|user| (user.role, user.hash.to_string()))
    }

    /// The user's role where the password is his. Nobody learns from the time it takes
    /// whether there is such a user.
    async fn role(&self, name: &str, password: &str) -> Option<Role> {
        let known = self.by_name.get(name);
        if known.is_some() && self.right.has(name, password) {
            return known.map(|user| user.role);
        }
        // Somebody's hash is checked all the same, for what that costs.
        let hash = known.or_else(|| self.by_name.values().next())?.hash.clone();
        let given = password.to_owned();
        let check = move || Argon2::default().verify_password(given.as_bytes(), &hash).is_ok();
        let matches = tokio::task::spawn_blocking(check).await.unwrap_or(false);
        let role = known.filter(|_| matches)?.role;
        self.right.add(name, password);
        Some(role)
    }
}

/// Names and passwords that were right, so that a client that gives his with every request
/// costs one hash and not one each time. What is kept is of no use to another process.
struct Remembered {
    key: hmac::Key,
    tags: Mutex<HashSet<[u8; SHA256_OUTPUT_LEN]>>,
}

impl Default for Remembered {
    fn default() -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>()), tags: Mutex::default() }
    }
}

impl Remembered {
    fn has(&self, name: &str, password: &str) -> bool {
        let tag = self.tag(name, password);
        self.tags.lock().unwrap_or_else(PoisonError::into_inner).contains(&tag)
    }

    fn add(&self, name: &str, password: &str) {
        let tag = self.tag(name, password);
        let mut tags = self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        if tags.len() < REMEMBERED {
            tags.insert(tag);
        }
    }

    fn tag(&self, name: &str, password: &str) -> [u8; SHA256_OUTPUT_LEN] {
        let mut context = hmac::Context::with_key(&self.key);
        // No name has a NUL.
        for piece in [name, "\0", password] {
            context.update(piece.as_bytes());
        }
        let mut tag = [0; SHA256_OUTPUT_LEN];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }
}

/// Reads a file of users for what is wrong with it: empty lines and those that begin with `#`
/// are passed over.
///
/// # Errors
/// All that is wrong, at least one, by line.
pub fn read(file: &Path, columns: Columns) -> Result<(), Vec<FileError>> {
    users(file, columns).map(drop)
}

fn users(file: &Path, columns: Columns) -> Result<HashMap<String, User>, Vec<FileError>> {
    let text = crate::files::read_text(file).map_err(|error| vec![FileError::new(file, 1, error.to_string())])?;
    let (mut by_name, mut errors) = (HashMap::new(), Vec::new());
    for (at, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let twice = |name: &String| by_name.contains_key(name).then(|| format!("user {name:?} stands there twice"));
        let read = user(line, columns).and_then(|(name, user)| twice(&name).map_or(Ok((name, user)), Err));
        match read {
            Ok((name, user)) => drop(by_name.insert(name, user)),
            Err(why) => errors.push(FileError::new(file, at + 1, why)),
        }
    }
    if errors.is_empty() { Ok(by_name) } else { Err(errors) }
}

fn user(line: &str, columns: Columns) -> Result<(String, User), String> {
    let form = match columns {
        Columns::NameHash => "write it as name:hash",
        Columns::NameRoleHash => "write it as name:role:hash, the role being full, nodelete or readonly",
    };
    let (name, rest) = line.split_once(':').ok_or(form)?;
    if name.is_empty() || name.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err("the name is empty, or has a blank".to_owned());
    }
    let (role, hash) = match columns {
        Columns::NameHash => (Role::Full, rest),
        Columns::NameRoleHash => {
            let (role, hash) = rest.split_once(':').ok_or(form)?;
            (Role::named(role).ok_or(form)?, hash)
        }
    };
    let hash = PasswordHash::new(hash.trim_end()).map_err(|error| format!("the hash of user {name:?}: {error}"))?;
    if ![ARGON2D_IDENT, ARGON2I_IDENT, ARGON2ID_IDENT].contains(&hash.algorithm) || hash.hash.is_none() {
        return Err(format!("the hash of user {name:?} is none of argon2; make it with the command argon2"));
    }
    Ok((name.to_owned(), User { role, hash }))
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

    fn load(text: &str) -> Result<Users, FileError> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        Users::load(file.path(), Columns::NameHash, Arc::default())
    }

    #[tokio::test]
    async fn only_the_users_own_password_is_right() {
        let users = load(&format!("# who\n\nann:{}\nbob:{}\r\n", hash("secret"), hash("other"))).expect("valid");
        for (name, password, right) in [
            ("ann", "secret", true),
            ("ann", "secret", true),
            ("ann", "other", false),
            ("bob", "other", true),
            ("Ann", "secret", false),
            ("nobody", "secret", false),
            ("nobody", "other", false),
        ] {
            assert_eq!(users.role(name, password).await.is_some(), right, "{name} {password}");
        }
    }

    #[tokio::test]
    async fn a_file_without_users_lets_nobody_in() {
        let users = load("# nobody yet\n").expect("valid");
        assert_eq!(users.role("ann", "secret").await, None);
    }

    #[tokio::test]
    async fn who_guesses_is_not_heard_any_more_and_others_are() {
        let (users, clock) = (load(&format!("ann:{}\n", hash("secret"))).expect("valid"), Clock::system());
        let verify = async |password: &str, last: u8| {
            users.verify("ann", password, IpAddr::from(Ipv4Addr::new(192, 0, 2, last)), &clock).await
        };
        let mut guesses = 0;
        while verify("guess", 1).await == Verdict::Wrong {
            guesses += 1;
            assert!(guesses < 100);
        }
        assert_eq!(verify("secret", 1).await, Verdict::Unheard);
        assert_eq!(verify("secret", 2).await, Verdict::Right(Role::Full));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = Users::load(Path::new("/nowhere/users"), Columns::NameHash, Arc::default()).err().expect("refused");
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

    #[tokio::test]
    async fn a_user_of_the_admin_listener_has_a_role() {
        let read = |text: String| {
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), text).expect("written");
            Users::load(file.path(), Columns::NameRoleHash, Arc::default())
        };
        let hash = hash("secret");
        for role in [Role::Full, Role::NoDelete, Role::ReadOnly] {
            let users = read(format!("ann:{}:{hash}\n", role.name())).expect("valid");
            assert_eq!(users.role("ann", "secret").await, Some(role));
        }
        for line in [format!("ann:{hash}"), format!("ann:owner:{hash}"), format!("ann::{hash}")] {
            let error = read(line).err().expect("refused").to_string();
            assert!(error.contains("name:role:hash"), "{error}");
        }
    }
}
