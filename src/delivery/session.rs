//! A session with one host, from its greeting to QUIT: EHLO, STARTTLS, AUTH. What is said
//! between MAIL and the final dot is [`super::transaction`]'s.
//!
//! lettre's connection says the commands and waits for the replies; the
//! [`Wire`] under it knows what the replies were.

use std::fmt::Display;
use std::time::Duration;

use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::extension::ClientId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::mail::DialogueEntry;
use crate::smtp::{Capabilities, Command, Reply};
use crate::stop::Cancellation;

use super::auth::{self, NotTried};
use super::config::{Credentials, StartTls};
use super::connection::Dialer;
use super::outcome::{Contact, Decision, Event, Finding};
use super::routing::Target;
use super::step::{Broken, Step};
use super::wire::Wire;

/// A session that may begin a transaction.
pub(super) struct Session {
    lettre: AsyncSmtpConnection,
    pub(super) wire: Wire,
    /// What records say of it.
    pub(super) contact: Contact,
    /// What the peer offers now.
    pub(super) offers: Capabilities,
    /// A transaction was begun in it before.
    pub(super) used: bool,
    /// Something of the last transaction must be reset before the next.
    pub(super) dirty: bool,
    /// Nothing more is to be said.
    pub(super) over: bool,
}

/// A session that did not come to MAIL.
pub(super) struct Refused {
    pub(super) finding: Finding,
    pub(super) contact: Contact,
    pub(super) dialogue: Vec<DialogueEntry>,
    /// The peer's TLS does not work but need not be used: why, for a new connection in clear.
    pub(super) in_clear_instead: Option<String>,
}

/// A session on its way to MAIL.
struct Opening<'a> {
    dialer: &'a Dialer,
    wire: Wire,
    contact: Contact,
    /// Whose mail it is for.
    run: &'a Cancellation,
}

impl Session {
    /// Connects and comes to the point where MAIL may be said. `in_clear` is the reason
    /// why TLS is not even to be tried.
    ///
    /// # Errors
    /// What it means for the recipients, and what was said.
    pub(super) async fn open(
        dialer: &Dialer,
        target: &Target,
        in_clear: Option<&str>,
        run: &Cancellation,
    ) -> Result<Self, Box<Refused>> {
        let mut contact = Contact::to(target);
        contact.ehlo = dialer.ehlo.clone();
        let (wire, local) = match dialer.connect(target, run).await {
            Ok(connected) => connected,
            Err(finding) => {
                return Err(Box::new(Refused { finding, contact, dialogue: Vec::new(), in_clear_instead: None }));
            }
        };
        contact.local_address = Some(local.to_string());
        let mut opening = Opening { dialer, wire, contact, run };
        match opening.come_to_mail(in_clear).await {
            Ok(session) => Ok(session),
            Err((finding, in_clear_instead)) => {
                opening.leave().await;
                let dialogue = opening.wire.take_dialogue();
                Err(Box::new(Refused { finding, contact: opening.contact, dialogue, in_clear_instead }))
            }
        }
    }

    /// Says one command and waits for its reply.
    pub(super) async fn say(&mut self, command: &impl Display) -> Result<Reply, Broken> {
        // What lettre makes of the summary it was given is not asked: the wire has the reply.
        let _ = self.lettre.command(command).await;
        self.wire.take_reply()
    }

    /// Says several commands at once (RFC 2920) and waits for the reply to each, up to the
    /// first that does not come.
    pub(super) async fn say_at_once(&mut self, commands: &[Command]) -> Vec<Result<Reply, Broken>> {
        let text: String = commands.iter().map(ToString::to_string).collect();
        let mut replies = vec![self.say(&text).await];
        while replies.len() < commands.len() && replies.last().is_some_and(Result::is_ok) {
            replies.push(self.hear().await);
        }
        replies
    }

    /// Waits for a reply to what was said before.
    pub(super) async fn hear(&mut self) -> Result<Reply, Broken> {
        let _ = self.lettre.read_response().await;
        self.wire.take_reply()
    }

    /// Whether it is with this host, at this address.
    pub(super) fn is_with(&self, target: &Target) -> bool {
        let ours = &self.contact.target;
        ours.address == target.address && ours.host == target.host
    }

    /// Whether a transaction may be begun in it although it was idle for a while.
    pub(super) fn is_usable(&self) -> bool {
        !self.over && self.wire.is_quiet()
    }

    /// The next mail that it carries is one of `run`; while it is idle, of none.
    pub(super) fn belong_to(&self, run: Option<&Cancellation>) {
        self.wire.belong_to(run);
    }

    /// Takes leave. Never waits long, and nothing depends on the answer.
    pub(super) async fn quit(mut self) {
        if !self.over {
            let _ = self.say(&Command::quit()).await;
        }
        close(self.wire).await;
    }
}

/// Closes without waiting for the peer to take notice.
async fn close(mut wire: Wire) {
    let _ = tokio::time::timeout(Duration::from_secs(1), wire.shutdown()).await;
}

/// Why a session does not come to MAIL, and why it might in clear.
type Hindrance = (Finding, Option<String>);

impl Opening<'_> {
    async fn come_to_mail(&mut self, in_clear: Option<&str>) -> Result<Session, Hindrance> {
        if self.dialer.config.ssl_enable {
            self.secure(Step::Connect).await?;
        }
        let mut session = self.greet().await?;
        if self.dialer.config.ssl_enable {
            self.check_policy()?;
        } else {
            self.start_tls(&mut session, in_clear).await?;
        }
        if let Some(credentials) = &self.dialer.config.credentials {
            self.authenticate(&mut session, credentials).await?;
        }
        session.contact = self.contact.clone();
        Ok(session)
    }

    /// The peer's greeting, and EHLO.
    async fn greet(&mut self) -> Result<Session, Hindrance> {
        let name = ClientId::Domain(self.dialer.ehlo.name.clone());
        let lettre = AsyncSmtpConnection::connect_with_transport(Box::new(self.wire.clone()), &name).await;
        let banner = Finding::at(Step::Banner, self.wire.take_reply());
        if banner.reply().is_none_or(|reply| reply.code() != 220) {
            return Err((banner, None));
        }
        let offers = self.offers(self.wire.take_reply())?;
        let Ok(lettre) = lettre else {
            return Err((Finding::at(Step::Ehlo, Err(Broken::Closed)), None));
        };
        Ok(Session {
            lettre,
            wire: self.wire.clone(),
            contact: self.contact.clone(),
            offers,
            used: false,
            dirty: false,
            over: false,
        })
    }

    /// What the reply to EHLO, or to HELO instead, offers.
    fn offers(&mut self, reply: Result<Reply, Broken>) -> Result<Capabilities, Hindrance> {
        let reply = match reply {
            Ok(reply) if reply.class() == 2 => reply,
            other => return Err((self.contact.found(Step::Ehlo, other), None)),
        };
        match self.wire.take_ehlo_refusal() {
            None => Ok(Capabilities::parse(&reply)),
            Some(refusal) => {
                self.contact.notes.push(format!("HELO: EHLO was refused ({})", refusal.code()));
                Ok(Capabilities::default())
            }
        }
    }

    async fn secure(&mut self, step: Step) -> Result<(), Hindrance> {
        let broken = |broken| (Finding::at(step, Err(broken)), None);
        let secure = self.dialer.secure(&self.wire, &self.contact.target, self.run).await.map_err(broken)?;
        if let Some(reason) = &secure.facts.reason {
            self.contact.notes.push(format!("certificate not verified: {reason}"));
        }
        self.contact.tls = Some(secure.facts);
        match secure.refused {
            None => Ok(()),
            Some(reason) => {
                let decision = Decision::TlsPolicy(format!("its certificate does not verify: {reason}"));
                Err((Finding::decided(step, decision), None))
            }
        }
    }

    /// STARTTLS as the policy has it, and EHLO again: what was offered in clear counts no
    /// more (RFC 3207 section 4.2).
    async fn start_tls(&mut self, session: &mut Session, in_clear: Option<&str>) -> Result<(), Hindrance> {
        if let Some(reason) = self.reason_for_clear_text(session, in_clear) {
            self.contact.in_clear = Some(reason);
            return self.check_policy();
        }
        match session.say(&Command::starttls()).await {
            Ok(reply) if reply.class() == 2 => {}
            Ok(reply) => {
                let reason = format!("STARTTLS was refused ({})", reply.code());
                return Err(self.without_tls(Finding::at(Step::Starttls, Ok(reply)), reason));
            }
            Err(broken) => return Err((Finding::at(Step::Starttls, Err(broken)), None)),
        }
        match self.secure(Step::Starttls).await {
            Err((Finding { event: Event::Broken(Broken::Handshake(reason)), step }, _)) => {
                let told = format!("the TLS handshake failed: {reason}");
                return Err(self.without_tls(Finding::at(step, Err(Broken::Handshake(reason))), told));
            }
            other => other?,
        }
        let reply = session.say(&Command::ehlo(&self.dialer.ehlo.name)).await;
        if let Err(Broken::Tls(reason)) = reply {
            // In TLS 1.3 its verdict comes when our side of the handshake is done.
            self.contact.tls = None;
            let told = format!("the TLS handshake failed: {reason}");
            return Err(self.without_tls(Finding::at(Step::Starttls, Err(Broken::Handshake(reason))), told));
        }
        session.offers = self.offers(reply)?;
        Ok(())
    }

    fn reason_for_clear_text(&self, session: &Session, in_clear: Option<&str>) -> Option<String> {
        match in_clear {
            Some(reason) => Some(reason.to_owned()),
            None if self.dialer.config.start_tls == StartTls::Never => Some("startTLS is false".to_owned()),
            None if !session.offers.starttls => Some("STARTTLS is not offered".to_owned()),
            None => None,
        }
    }

    /// No MAIL in clear where the policy forbids it.
    fn check_policy(&self) -> Result<(), Hindrance> {
        let policy = self.dialer.config.start_tls;
        if self.contact.tls.is_some() || policy.allows_clear_text() {
            return Ok(());
        }
        let decision = Decision::TlsPolicy(format!("it does not offer STARTTLS (startTLS: {})", policy.name()));
        Err((Finding::decided(Step::Starttls, decision), None))
    }

    /// TLS does not work: another connection may do without, if the policy lets it.
    fn without_tls(&self, finding: Finding, reason: String) -> Hindrance {
        (finding, self.dialer.config.start_tls.allows_clear_text().then_some(reason))
    }

    async fn authenticate(&self, session: &mut Session, credentials: &Credentials) -> Result<(), Hindrance> {
        let no = |reason: &str| (Finding::decided(Step::Auth, Decision::NoAuth(reason.to_owned())), None);
        if self.contact.tls.is_none() && !self.dialer.config.auth_in_clear {
            return Err(no("the credentials would go in clear (authInClear: false)"));
        }
        self.wire.hide(credentials.password.reveal());
        // Behind it the name is a word like others, which replies may well have.
        self.wire.hide(&credentials.username);
        let answered = auth::authenticate(session, credentials).await;
        self.wire.show(&credentials.username);
        match answered {
            Ok(reply) if reply.class() == 2 => Ok(()),
            Ok(reply) => Err((Finding::at(Step::Auth, Ok(reply)), None)),
            Err(NotTried::Broken(broken)) => Err((Finding::at(Step::Auth, Err(broken)), None)),
            Err(NotTried::Impossible(reason)) => Err(no(&reason)),
        }
    }

    /// Takes leave where the peer still listens.
    async fn leave(&mut self) {
        if self.wire.write_all(Command::quit().to_string().as_bytes()).await.is_ok() {
            let _ = self.wire.flush().await;
            // Its deadline is the wire's; what is read is only the summary of the reply.
            let _ = self.wire.read(&mut [0; 128]).await;
        }
        close(self.wire.clone()).await;
    }
}
