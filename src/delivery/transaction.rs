//! One transaction: MAIL, RCPT for each recipient, DATA, the content, the final dot
//! (RFC 5321 section 3.3), with or without PIPELINING (RFC 2920). It says what is to be said;
//! what the replies mean for whom is [`super::envelope`]'s.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::mail::{Address, DsnRequest, orcpt_in_ascii};
use crate::smtp::{Body, Command, MailParameters, NotSmtp, RcptParameters, Reply};

use super::content::{Message, Outgoing};
use super::envelope::{Envelope, Phase};
use super::outcome::{Decision, Finding, is_stale_session};
use super::session::Session;
use super::step::{Broken, Step};

/// Commands written before their replies are read: neither side's buffers fill up.
const COMMANDS_AT_ONCE: usize = 100;

/// For one reply too many, behind a refusal of DATA.
const LAST_REPLY: Duration = Duration::from_millis(300);

/// For the reply to a lone dot, which changes nothing.
const LONE_DOT: Duration = Duration::from_secs(10);

/// What became of a transaction's recipients.
#[derive(Default)]
pub(super) struct Transacted {
    pub(super) findings: Vec<(Address, Finding)>,
    /// For a further transaction: of the same session, or where that is `stale`, of a
    /// fresh one with the same host.
    pub(super) left: Vec<Address>,
    /// The peer had given the session up before it could matter.
    pub(super) stale: bool,
    /// What was done otherwise than the best case.
    pub(super) notes: Vec<String>,
}

/// One transaction of a session. Where the peer wants the content it is still to be sent.
pub(super) struct Transaction<'a> {
    session: &'a mut Session,
    message: Cow<'a, Message>,
    envelope: Envelope,
    /// MAIL says SMTPUTF8.
    utf8: bool,
    /// What the sender asks of notifications, where the peer offers DSN.
    dsn: Option<Arc<DsnRequest>>,
    /// The session has carried a transaction before.
    is_reused: bool,
    /// The peer had given it up before MAIL.
    stale: bool,
    /// What was done otherwise than the best case.
    notes: Vec<String>,
}

/// What was said at once, and the replies that were not yet judged.
#[derive(Default)]
struct Ahead {
    /// To MAIL first.
    replies: VecDeque<Result<Reply, Broken>>,
    /// DATA was among it.
    data: bool,
}

impl Ahead {
    /// Whether the peer waits for content, though none is to be sent.
    fn is_waited_for(&self) -> bool {
        self.data && self.replies.back().is_some_and(|reply| reply.as_ref().is_ok_and(|reply| reply.class() == 3))
    }
}

impl Session {
    /// Asks the peer up to DATA for the message to those of `recipients` that it accepts;
    /// with `send_partial` false for all or for nobody.
    pub(super) async fn ask<'a>(
        &'a mut self,
        message: &'a Message,
        recipients: &[Address],
        send_partial: bool,
    ) -> Transaction<'a> {
        let is_reused = std::mem::replace(&mut self.used, true);
        let signed = message.signed().await;
        let envelope = match &signed {
            Ok(signed) => self.admit(signed, recipients, send_partial),
            // It cannot be read: nobody is asked.
            Err(reason) => {
                let mut envelope = Envelope::new(recipients.to_vec(), Vec::new(), send_partial);
                envelope.conclude_all(&Finding::decided(Step::Mail, Decision::Content(reason.clone())));
                envelope
            }
        };
        let message = signed.unwrap_or(Cow::Borrowed(message));
        let needs_utf8 = message.needs_smtputf8() || envelope.asking().any(Address::needs_smtputf8);
        let utf8 = self.offers.smtputf8 && needs_utf8;
        let dsn = self.offers.dsn.then(|| Arc::clone(&message.dsn));
        let mut transaction =
            Transaction { session: self, message, envelope, utf8, dsn, is_reused, stale: false, notes: Vec::new() };
        transaction.run().await;
        transaction
    }

    /// Those whom the peer's limits do not exclude beforehand.
    fn admit(&self, message: &Message, recipients: &[Address], send_partial: bool) -> Envelope {
        let offers = &self.offers;
        let too_large = offers.size_limit.filter(|&limit| message.size() > limit).map(Decision::TooLarge);
        let for_all = self.broken_promise(message).or(too_large);
        let all_utf8 = message.needs_smtputf8();
        let (mut admitted, mut excluded) = (Vec::new(), Vec::new());
        for recipient in recipients {
            let no_utf8 = !offers.smtputf8 && (all_utf8 || recipient.needs_smtputf8());
            match for_all.clone().or(no_utf8.then_some(Decision::NoSmtpUtf8)) {
                Some(decision) => excluded.push((recipient.clone(), Finding::decided(Step::Mail, decision))),
                None => admitted.push(recipient.clone()),
            }
        }
        Envelope::new(admitted, excluded, send_partial)
    }

    /// What REQUIRETLS asks for and this session does not have (RFC 8689 section 4.2.1).
    fn broken_promise(&self, message: &Message) -> Option<Decision> {
        let (contact, policy) = (&self.contact, |reason: &str| Some(Decision::TlsPolicy(reason.to_owned())));
        match &contact.tls {
            _ if !message.require_tls => None,
            None => policy("no TLS, which this mail requires (REQUIRETLS)"),
            Some(tls) if !tls.verified => {
                policy("its certificate does not verify, which this mail requires (REQUIRETLS)")
            }
            // Without DNSSEC anybody may have put the name there that the certificate is for.
            Some(_) if contact.target.preference.is_some() => {
                Some(Decision::NoRequireTls("it was found by MX, whose answers are not authenticated".to_owned()))
            }
            Some(_) if self.offers.require_tls => None,
            Some(_) => Some(Decision::NoRequireTls("it does not offer REQUIRETLS".to_owned())),
        }
    }
}

impl Session {
    /// Whether REQUIRETLS may be said.
    fn is_within_require_tls(&self) -> bool {
        self.offers.require_tls && self.contact.tls.is_some()
    }
}

impl Transacted {
    /// The finding that ended the session.
    pub(super) fn last_word(&self) -> Option<Finding> {
        self.findings.iter().map(|(_, finding)| finding).find(|finding| finding.ends_session()).cloned()
    }

    /// The peer had given the session up: all are asked again but those it has refused for
    /// good.
    fn take_back(&mut self) {
        let (open, refused): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.findings).into_iter().partition(|(_, finding)| finding.ruling().next_host);
        self.findings = refused;
        self.left.extend(open.into_iter().map(|(recipient, _)| recipient));
        self.stale = true;
    }
}

impl Transaction<'_> {
    /// What is known of those who are not sent to while others are: their part is over.
    pub(super) fn take_refused(&mut self) -> Transacted {
        let sends = self.envelope.phase() == Phase::Content;
        let findings = if sends { self.envelope.take_findings() } else { Vec::new() };
        Transacted { findings, notes: self.notes.clone(), ..Transacted::default() }
    }

    /// Sends the content where it is wanted, and returns what became of all but
    /// [`Transaction::take_refused`].
    pub(super) async fn end(mut self) -> Transacted {
        if self.envelope.phase() == Phase::Content {
            let finding = self.content().await;
            self.envelope.conclude(&finding);
        }
        self.session.over |= self.stale || self.envelope.ends_session();
        let may_be_stale = self.is_reused && !self.envelope.has_accepted();
        let (findings, left) = self.envelope.into_parts();
        let mut done = Transacted { findings, left, stale: self.stale, notes: self.notes };
        if may_be_stale && done.findings.iter().any(|(_, finding)| is_stale_session(finding)) {
            done.take_back();
        }
        done
    }

    async fn run(&mut self) {
        if self.envelope.phase() == Phase::Over {
            return;
        }
        if !self.reset().await {
            self.stale = true;
            return self.envelope.leave_all();
        }
        self.note_clear_text("envelope sent in clear");
        self.session.wire.start_transaction();
        let mut ahead = match self.say_ahead().await {
            Ok(ahead) => ahead,
            Err(finding) => return self.envelope.conclude_all(&finding),
        };
        while let Some(command) = self.next_command() {
            let reply = match ahead.replies.pop_front() {
                Some(reply) => reply,
                None => self.session.say(&command).await,
            };
            if self.is_dsn_refused(&reply) {
                self.go_on_without_dsn(&reply);
            } else {
                self.envelope.hear(&self.session.contact, reply);
            }
        }
        if self.envelope.phase() == Phase::Over {
            self.drop_transaction(&ahead).await;
        }
    }

    fn next_command(&self) -> Option<Command> {
        match self.envelope.phase() {
            Phase::Mail => Some(self.mail_command()),
            Phase::Rcpt => self.envelope.asking().next().map(|recipient| self.rcpt_command(recipient)),
            Phase::Data => Some(Command::data()),
            Phase::Content | Phase::Over => None,
        }
    }

    /// Notes how much of the mail went without TLS, and why.
    fn note_clear_text(&mut self, what: &str) {
        let note = self.session.contact.in_clear.as_ref().map(|reason| format!("{what}: {reason}"));
        self.notes = note.into_iter().collect();
    }

    /// Clears what the last transaction of the session left. False where the peer has
    /// given the session up.
    async fn reset(&mut self) -> bool {
        if !std::mem::replace(&mut self.session.dirty, false) {
            return true;
        }
        let reply = self.session.say(&Command::rset()).await;
        reply.is_ok_and(|reply| reply.class() == 2)
    }

    /// With PIPELINING, all commands at once. DATA among them commits us to send when 354
    /// comes, so only where one acceptance is enough.
    ///
    /// # Errors
    /// What it means for all where the replies do not fit the commands: then none of them
    /// can be trusted.
    async fn say_ahead(&mut self) -> Result<Ahead, Finding> {
        let mut ahead = Ahead::default();
        if !self.session.offers.pipelining {
            return Ok(ahead);
        }
        self.envelope.say_ahead();
        ahead.data = self.envelope.sends_partially();
        let mut commands = vec![self.mail_command()];
        commands.extend(self.envelope.asking().map(|recipient| self.rcpt_command(recipient)));
        commands.extend(ahead.data.then(Command::data));
        for commands in commands.chunks(COMMANDS_AT_ONCE) {
            let replies = self.session.say_at_once(commands).await;
            ahead.replies.extend(replies);
            if ahead.replies.back().is_some_and(Result::is_err) {
                break;
            }
        }
        self.look_for_shift(&ahead, commands.len()).await.map_or(Ok(ahead), Err)
    }

    /// One reply too many, or one that cannot answer its command, may mean that each answers
    /// another command than the one it seems to. What is no reply at all says nothing of
    /// those before it.
    async fn look_for_shift(&self, ahead: &Ahead, commands: usize) -> Option<Finding> {
        let step = match ahead.replies.len() {
            1 => Step::Mail,
            count if count == commands && ahead.data => Step::Data,
            _ => Step::Rcpt,
        };
        match ahead.replies.back() {
            Some(Err(broken @ Broken::NotSmtp(NotSmtp::OutOfPlace(_) | NotSmtp::Surplus))) => {
                Some(Finding::at(step, Err(broken.clone())))
            }
            // Behind 354 a reply is one to the content, which the peer does not want to hear.
            Some(Ok(reply)) if reply.class() != 3 && self.is_followed_by_surplus(ahead, step).await => {
                Some(Finding::at(step, Err(Broken::NotSmtp(NotSmtp::Surplus))))
            }
            _ => None,
        }
    }

    /// Behind DATA the last reply may still be on its way: where somebody was accepted, all
    /// would take from its forerunner that they were refused.
    async fn is_followed_by_surplus(&self, ahead: &Ahead, step: Step) -> bool {
        let is_acceptance = |reply: &Result<Reply, Broken>| reply.as_ref().is_ok_and(|reply| reply.class() == 2);
        let accepted = ahead.replies.iter().skip(1).any(is_acceptance);
        let wire = &self.session.wire;
        if step == Step::Data && accepted { wire.has_surplus_within(LAST_REPLY).await } else { wire.has_surplus() }
    }

    fn mail_command(&self) -> Command {
        let (offers, message) = (&self.session.offers, &self.message);
        let parameters = MailParameters {
            size: offers.size.then(|| message.size()),
            body: (offers.eight_bit_mime && message.is_eight_bit()).then_some(Body::EightBitMime),
            smtputf8: self.utf8,
            require_tls: message.require_tls || message.prefer_require_tls && self.session.is_within_require_tls(),
            ret: self.dsn.as_ref().and_then(|dsn| dsn.ret),
            envid: self.dsn.as_ref().and_then(|dsn| dsn.envid.clone()),
        };
        Command::mail(&message.from, &parameters)
    }

    fn rcpt_command(&self, recipient: &Address) -> Command {
        Command::rcpt(recipient, &self.rcpt_parameters(recipient))
    }

    /// As they were given (RFC 3461 section 5.2.1).
    fn rcpt_parameters(&self, recipient: &Address) -> RcptParameters {
        let Some(dsn) = &self.dsn else { return RcptParameters::default() };
        let asked = dsn.of(recipient);
        let orcpt = asked.orcpt.as_ref().map(|orcpt| if self.utf8 { orcpt.clone() } else { orcpt_in_ascii(orcpt) });
        RcptParameters { notify: asked.notify, orcpt }
    }

    /// Whether the peer refuses a parameter that it offers, and not the mail; the same codes
    /// may say something else, which the next transaction finds out.
    fn is_dsn_refused(&self, reply: &Result<Reply, Broken>) -> bool {
        let asks = match self.envelope.phase() {
            Phase::Mail => self.dsn.as_ref().is_some_and(|dsn| dsn.ret.is_some() || dsn.envid.is_some()),
            Phase::Rcpt => {
                let next = self.envelope.asking().next();
                next.is_some_and(|recipient| self.rcpt_parameters(recipient) != RcptParameters::default())
            }
            _ => false,
        };
        asks && reply.as_ref().is_ok_and(|reply| matches!(reply.code(), 501 | 504 | 555))
    }

    /// Nobody goes without the mail because of how he is to be told of it: those who were not
    /// taken for that are asked again, as a peer is that does not offer DSN.
    fn go_on_without_dsn(&mut self, reply: &Result<Reply, Broken>) {
        let code = reply.as_ref().map_or(0, Reply::code);
        if std::mem::replace(&mut self.session.offers.dsn, false) {
            let note = format!("it offers DSN and refused its parameters ({code}): they were left out");
            self.session.contact.notes.push(note);
        }
        match self.envelope.phase() {
            Phase::Mail => self.envelope.leave_all(),
            _ => self.envelope.leave_next(),
        }
    }

    /// Ends a transaction in which nothing is sent. Where DATA was said ahead and the peer
    /// says 354 with no recipient, it is given nothing but the final dot.
    async fn drop_transaction(&mut self, ahead: &Ahead) {
        self.session.dirty = true;
        if self.envelope.ends_session() || !ahead.is_waited_for() {
            return;
        }
        let reply = tokio::time::timeout(LONE_DOT, self.session.say(&".\r\n")).await;
        self.session.over |= !matches!(reply, Ok(Ok(_)));
    }

    /// Sends the content up to the final dot and waits for what the peer says to it.
    async fn content(&mut self) -> Finding {
        self.note_clear_text("sent in clear");
        self.notes.extend(self.message.notes.iter().cloned());
        if self.message.is_eight_bit() && !self.session.offers.eight_bit_mime {
            self.notes.push("8-bit content was sent without 8BITMIME".to_owned());
        }
        self.session.wire.start_content(self.message.size());
        let mut outgoing = Outgoing::new(&self.message);
        loop {
            match outgoing.next().await {
                Ok((octets, last)) => {
                    if !self.session.wire.send(&octets, last).await || last {
                        break;
                    }
                }
                Err(reason) => {
                    self.session.wire.log_content(outgoing.offset, false);
                    self.session.wire.give_up_content();
                    return Finding::decided(Step::Content, Decision::Content(reason));
                }
            }
        }
        let step = self.session.wire.awaits().unwrap_or(Step::EndOfData);
        self.session.wire.log_content(outgoing.octets(), step == Step::EndOfData);
        let finding = Finding::at(step, self.session.hear().await);
        // Whoever answers in the middle of the content cannot be followed any further.
        self.session.over |= step == Step::Content;
        finding
    }
}
