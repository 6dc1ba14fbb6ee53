//! STARTTLS and AUTH (RFC 3207, RFC 4954): PLAIN (RFC 4616) and LOGIN, which is the only one
//! that some programs know.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tracing::info;

use super::super::answer::Answer;
use super::super::credentials::Credentials;
use super::super::wire::{Ended, Line};
use super::{Client, Session};
use crate::clients::Verdict;
use crate::smtp::CommandError;

impl Session {
    pub(super) async fn starttls(&mut self) -> Result<(), Ended> {
        let Some(acceptor) = self.settings.acceptor.clone() else {
            self.say(&Answer::from(CommandError::NotImplemented));
            return Ok(());
        };
        if self.wire.is_tls() {
            self.say(&Answer::out_of_order("TLS is there already"));
            return Ok(());
        }
        // What somebody put in between in clear must not be taken for the client's within TLS.
        if self.wire.has_more().await {
            self.say(&Answer::new(554, "5.5.0", "wait for the answer to STARTTLS"));
            return Err(Ended::Finished);
        }
        self.say(&Answer::new(220, "2.0.0", "begin TLS"));
        self.wire.secure(&acceptor, self.settings.limits.handshake).await?;
        // As if the client had just connected (RFC 3207 section 4.2).
        self.greeting = None;
        self.log_in(None);
        self.transaction.reset();
        Ok(())
    }

    fn log_in(&mut self, user: Option<String>) {
        self.transaction.set_user(user.clone());
        self.user = user;
    }

    pub(super) async fn auth(&mut self, mechanism: &str, initial: Option<String>) -> Result<Answer, Ended> {
        if let Some(answer) = self.not_ready_for_auth(mechanism) {
            return Ok(answer);
        }
        let credentials = match mechanism {
            "PLAIN" => self.plain(initial).await?,
            _ => self.login(initial).await?,
        };
        match credentials {
            Ok(Some(credentials)) => Ok(self.check(credentials).await),
            Ok(None) => {
                let why = format!("that is no {mechanism} response");
                Ok(self.failed_auth(None, Answer::new(501, "5.5.2", why)))
            }
            Err(answer) => Ok(answer),
        }
    }

    /// One response with all in it; `None` where it is none.
    async fn plain(&mut self, initial: Option<String>) -> Result<Result<Option<Credentials>, Answer>, Ended> {
        let response = match initial {
            Some(response) => Ok(response),
            None => self.challenge("").await?,
        };
        Ok(response.map(|response| Credentials::from_plain(&response)))
    }

    /// The name, which may come along, and the password behind a challenge of its own.
    async fn login(&mut self, initial: Option<String>) -> Result<Result<Option<Credentials>, Answer>, Ended> {
        let name = match initial {
            Some(name) => Ok(name),
            None => self.challenge("Username:").await?,
        };
        let name = match name {
            Ok(name) => name,
            Err(answer) => return Ok(Err(answer)),
        };
        let password = self.challenge("Password:").await?;
        Ok(password.map(|password| Credentials::from_login(&name, &password)))
    }

    fn not_ready_for_auth(&self, mechanism: &str) -> Option<Answer> {
        let extended = self.greeting.as_ref().is_some_and(|greeting| greeting.extended);
        if self.settings.users.is_none() {
            Some(CommandError::NotImplemented.into())
        } else if !self.wire.is_tls() {
            Some(Answer::new(538, "5.7.11", "say STARTTLS first"))
        } else if !extended {
            Some(Answer::out_of_order("say EHLO first"))
        } else if self.user.is_some() {
            Some(Answer::out_of_order("you have said AUTH already"))
        } else if self.transaction.is_open() {
            Some(Answer::out_of_order("a mail is begun already; say RSET to forget it, then AUTH"))
        } else if !["PLAIN", "LOGIN"].contains(&mechanism) {
            Some(Answer::new(504, "5.5.4", "the mechanisms are PLAIN and LOGIN"))
        } else {
            None
        }
    }

    /// The line that answers a challenge; the answer where it is none, or gives up.
    async fn challenge(&mut self, text: &str) -> Result<Result<String, Answer>, Ended> {
        self.wire.say(&Answer::plain(334, &[STANDARD.encode(text)]));
        let line = match self.line().await? {
            Line::Whole(line) => line,
            Line::TooLong => return Ok(Err(CommandError::TooLong.into())),
        };
        let bare = line.strip_suffix(b"\n").filter(|_| self.settings.normalize_lf && self.may_relay());
        let text = line.strip_suffix(b"\r\n").or(bare).and_then(|text| std::str::from_utf8(text).ok());
        Ok(match text {
            None => Err(CommandError::LineEnd.into()),
            Some("*") => Err(Answer::new(501, "5.7.0", "given up")),
            Some(text) => Ok(text.to_owned()),
        })
    }

    async fn check(&mut self, credentials: Credentials) -> Answer {
        let Some(users) = self.settings.users.clone() else { return CommandError::NotImplemented.into() };
        let name = credentials.name.clone();
        // A user of this machine has no TLS to say AUTH in.
        let Client::Peer(peer) = self.client else { return CommandError::NotImplemented.into() };
        let refusal = match users.verify(&name, &credentials.password, peer.ip(), &self.context.clock).await {
            Verdict::Right(_) => {
                self.log_in(Some(name));
                return Answer::new(235, "2.7.0", "welcome");
            }
            Verdict::Wrong => Answer::new(535, "5.7.8", "user or password is wrong"),
            Verdict::Unheard => Answer::new(454, "4.7.0", "too many refused logins from your address, try again later"),
        };
        tokio::time::sleep(self.settings.limits.auth_pause).await;
        self.failed_auth(Some(&name), refusal)
    }

    fn failed_auth(&mut self, name: Option<&str>, answer: Answer) -> Answer {
        self.auth_failures += 1;
        info!(client = %self.client, user = name, reply = %answer.to_string().trim_end(), "AUTH refused");
        if self.auth_failures < self.settings.limits.auth_failures {
            return answer;
        }
        Answer::new(421, "4.7.0", "too many refused logins")
    }
}
