//! Who is logged in, and the tokens of forms.
//!
//! A session is known by the hash of what its cookie says, so that nothing in memory opens
//! one. A token is of one action of one session.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::hmac;

use super::super::Settings;
use crate::clients::Role;

/// A session ends so long after it began.
const LONGEST: Duration = Duration::from_hours(12);

/// And so long after it was used last.
const UNUSED: Duration = Duration::from_hours(1);

/// Sessions open at once; the one unused for longest makes room.
const OPEN: usize = 1000;

/// A session by the hash of its secret.
type Hash = [u8; 32];

/// Who logged in, and with what.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::admin) struct Login {
    /// A user's name; `None` with a password that several may know.
    pub(in crate::admin) name: Option<String>,
    /// What he may do.
    pub(in crate::admin) role: Role,
    /// What he gave, such that only this process can compare it.
    pub(super) proof: Hash,
}

struct Session {
    login: Login,
    begun: Instant,
    used: Instant,
}

impl Session {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.begun) >= LONGEST || now.saturating_duration_since(self.used) >= UNUSED
    }
}

/// The sessions of this process.
pub(in crate::admin) struct Sessions {
    secret: hmac::Key,
    open: Mutex<HashMap<Hash, Session>>,
}

impl Default for Sessions {
    fn default() -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>());
        Self { secret, open: Mutex::default() }
    }
}

impl Sessions {
    fn open(&self) -> MutexGuard<'_, HashMap<Hash, Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session: what its cookie is to say.
    pub(super) fn begin(&self, login: Login, now: Instant) -> String {
        let cookie = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let mut open = self.open();
        open.retain(|_, session| !session.is_over(now));
        if open.len() >= OPEN
            && let Some(oldest) = open.iter().min_by_key(|(_, session)| session.used).map(|(hash, _)| *hash)
        {
            open.remove(&oldest);
        }
        open.insert(hash(&cookie), Session { login, begun: now, used: now });
        cookie
    }

    /// The session of a cookie, which is used with that; `None` where it has ended.
    pub(super) fn find(&self, cookie: &str, now: Instant) -> Option<(Login, Tokens)> {
        let (mut open, hash) = (self.open(), hash(cookie));
        let session = open.get_mut(&hash)?;
        if session.is_over(now) {
            open.remove(&hash);
            return None;
        }
        session.used = now;
        Some((session.login.clone(), self.tokens(hash.to_vec())))
    }

    /// Ends the session of a cookie.
    pub(super) fn end(&self, cookie: &str) {
        self.open().remove(&hash(cookie));
    }

    /// Ends those whose password is another one now, or none any more.
    pub(in crate::admin) fn keep_to(&self, settings: &Settings) {
        self.open().retain(|_, session| self.holds(&session.login, settings));
    }

    fn holds(&self, login: &Login, settings: &Settings) -> bool {
        if let Some(name) = &login.name {
            let known = settings.users.as_ref().and_then(|users| users.credential(name));
            return known.is_some_and(|(role, hash)| role == login.role && self.proof(&hash) == login.proof);
        }
        let passwords = match login.role {
            Role::Full => &settings.full,
            Role::NoDelete => &settings.no_delete,
            Role::ReadOnly => &settings.read_only,
        };
        passwords.iter().any(|password| self.proof(password) == login.proof)
    }

    /// What a password, or the hash of a user's, is remembered as.
    pub(super) fn proof(&self, password: &str) -> Hash {
        let mut proof = [0; 32];
        proof.copy_from_slice(hmac::sign(&self.secret, format!("proof\0{password}").as_bytes()).as_ref());
        proof
    }

    /// The tokens of whoever asks where there is no password.
    pub(super) fn tokens_of_nobody(&self) -> Tokens {
        self.tokens(Vec::new())
    }

    fn tokens(&self, session: Vec<u8>) -> Tokens {
        Tokens { secret: self.secret.clone(), session }
    }
}

fn hash(cookie: &str) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, cookie.as_bytes()).as_ref());
    hash
}

/// Makes and checks the tokens of one session's forms.
#[derive(Clone)]
pub(in crate::admin) struct Tokens {
    secret: hmac::Key,
    session: Vec<u8>,
}

impl Tokens {
    fn said(&self, action: &str) -> Vec<u8> {
        [b"token\0", self.session.as_slice(), b"\0", action.as_bytes()].concat()
    }

    /// The token of an action: the path that its form is sent to.
    pub(super) fn of(&self, action: &str) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&self.secret, &self.said(action)))
    }

    /// Whether this is the action's token.
    pub(super) fn fits(&self, action: &str, token: &str) -> bool {
        let token = BASE64_URL_SAFE_NO_PAD.decode(token).unwrap_or_default();
        hmac::verify(&self.secret, &self.said(action), &token).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(sessions: &Sessions, password: &str) -> Login {
        Login { name: None, role: Role::Full, proof: sessions.proof(password) }
    }

    #[test]
    fn a_session_ends_after_its_time_and_when_it_is_not_used() {
        let (sessions, begun) = (Sessions::default(), Instant::now());
        let minutes = |minutes| begun + Duration::from_mins(minutes);
        let unused = sessions.begin(login(&sessions, "a"), begun);
        assert!(sessions.find(&unused, minutes(59)).is_some());
        assert!(sessions.find(&unused, minutes(118)).is_some(), "it was used");
        assert!(sessions.find(&unused, minutes(178)).is_none());
        let used = sessions.begin(login(&sessions, "a"), begun);
        assert!((1..24).all(|half| sessions.find(&used, minutes(30 * half)).is_some()));
        assert!(sessions.find(&used, minutes(720)).is_none(), "twelve hours are the end");
        let ended = sessions.begin(login(&sessions, "a"), begun);
        sessions.end(&ended);
        assert!(sessions.find(&ended, begun).is_none());
        assert!(sessions.find("", begun).is_none());
    }

    #[test]
    fn a_changed_password_ends_its_sessions_and_no_others() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let [old, kept] = ["old", "kept"].map(|password| sessions.begin(login(&sessions, password), now));
        sessions.keep_to(&Settings { full: vec!["new".into(), "kept".into()], ..Settings::default() });
        assert!(sessions.find(&old, now).is_none() && sessions.find(&kept, now).is_some());
        sessions.keep_to(&Settings { read_only: vec!["kept".into()], ..Settings::default() });
        assert!(sessions.find(&kept, now).is_none(), "it is another role's now");
    }

    #[test]
    fn a_token_is_of_one_action_and_one_session() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let tokens = |cookie: &str| sessions.find(cookie, now).expect("open").1;
        let [one, other] = ["a", "a"].map(|password| tokens(&sessions.begin(login(&sessions, password), now)));
        let token = one.of("/ui/act/remove");
        assert!(one.fits("/ui/act/remove", &token));
        assert!(!one.fits("/ui/act/move", &token) && !other.fits("/ui/act/remove", &token));
        assert!(!sessions.tokens_of_nobody().fits("/ui/act/remove", &token));
        assert!(!one.fits("/ui/act/remove", "") && !one.fits("/ui/act/remove", "=="));
    }
}
