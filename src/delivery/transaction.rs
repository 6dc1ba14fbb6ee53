//! One transaction: MAIL, RCPT for each recipient, DATA, the content, the final dot
//! (RFC 5321 section 3.3), with or without PIPELINING (RFC 2920).

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::mail::{Address, MessageFacts, ReversePath};
use crate::smtp::{Body, Command, MailParameters, NotSmtp, Reply, Stuffer};

use super::content::Content;
use super::outcome::{Decision, Finding, is_stale_session, is_too_many_recipients};
use super::session::Session;
use super::signature::Signers;
use super::step::{Broken, Step};

/// Commands written before their replies are read: neither side's buffers fill up.
const COMMANDS_AT_ONCE: usize = 100;

/// For one reply too many, behind a refusal of DATA.
const LAST_REPLY: Duration = Duration::from_millis(300);

/// For the reply to a lone dot, which changes nothing.
const LONE_DOT: Duration = Duration::from_secs(10);

/// What is sent, whoever gets it.
#[derive(Clone)]
pub(super) struct Message {
    pub(super) from: ReversePath,
    /// The submitter said SMTPUTF8.
    pub(super) smtputf8: bool,
    /// The submitter said REQUIRETLS.
    pub(super) require_tls: bool,
    pub(super) facts: MessageFacts,
    /// Header fields in front of the stored message.
    pub(super) prefix: Arc<str>,
    pub(super) content: Arc<dyn Content>,
    pub(super) signers: Signers,
    /// What is to be said of its signatures.
    pub(super) notes: Vec<String>,
}

impl Message {
    /// Row `number` of what is stored, which must be there.
    ///
    /// # Errors
    /// Why it cannot be read, in words.
    pub(super) async fn row(&self, number: u32) -> Result<Bytes, String> {
        let row = self.content.row(number).await.map_err(|error| error.to_string())?;
        // Cut short it would be another message.
        if row.is_empty() { Err("a part of it is missing in the store".to_owned()) } else { Ok(row) }
    }

    fn size(&self) -> u64 {
        self.facts.size + self.prefix.len() as u64
    }

    fn is_eight_bit(&self) -> bool {
        self.facts.eight_bit_header || self.facts.eight_bit_body || !self.prefix.is_ascii()
    }

    /// Whether every recipient's transaction needs SMTPUTF8 (RFC 6531 section 3.2).
    fn needs_smtputf8(&self) -> bool {
        self.smtputf8 && self.facts.eight_bit_header || self.from.address().is_some_and(Address::needs_smtputf8)
    }
}

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
    /// The session has carried a transaction before, and nobody was accepted since.
    may_be_stale: bool,
    /// Replies to commands that were said ahead, MAIL's first.
    ahead: VecDeque<Result<Reply, Broken>>,
    data_ahead: bool,
    accepted: Vec<Address>,
    /// The peer has said 354: there is content to be sent.
    wanted: bool,
    done: Transacted,
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
        let may_be_stale = std::mem::replace(&mut self.used, true);
        let signed = message.signed().await;
        let mut transaction = Transaction {
            session: self,
            message: signed.as_ref().map_or(Cow::Borrowed(message), Cow::clone),
            may_be_stale,
            ahead: VecDeque::new(),
            data_ahead: false,
            accepted: Vec::new(),
            wanted: false,
            done: Transacted::default(),
        };
        match signed {
            Ok(_) => transaction.run(recipients, send_partial).await,
            Err(reason) => transaction.refuse(recipients, reason),
        }
        transaction
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
        let findings = if self.wanted { std::mem::take(&mut self.done.findings) } else { Vec::new() };
        Transacted { findings, notes: self.done.notes.clone(), ..Transacted::default() }
    }

    /// Sends the content where it is wanted, and returns what became of all but
    /// [`Transaction::take_refused`].
    pub(super) async fn end(mut self) -> Transacted {
        if self.wanted {
            let finding = self.content().await;
            self.conclude(&finding);
        }
        let Self { session, may_be_stale, mut done, .. } = self;
        session.over |= done.stale || done.findings.iter().any(|(_, finding)| finding.ends_session());
        if may_be_stale && done.findings.iter().any(|(_, finding)| is_stale_session(finding)) {
            done.take_back();
        }
        done
    }

    /// The message cannot be read: nobody is asked.
    fn refuse(&mut self, recipients: &[Address], reason: String) {
        self.accepted = recipients.to_vec();
        self.conclude(&Finding::decided(Step::Mail, Decision::Content(reason)));
    }

    async fn run(&mut self, recipients: &[Address], send_partial: bool) {
        let recipients = self.admit(recipients);
        if recipients.is_empty() {
            return;
        }
        if !self.reset().await {
            self.done.left = recipients;
            return;
        }
        self.note_clear_text("envelope sent in clear");
        self.session.wire.start_transaction();
        if let Err(finding) = self.say_ahead(&recipients, send_partial).await {
            self.accepted = recipients;
            return self.conclude(&finding);
        }
        if !self.mail(&recipients).await || !self.rcpt(recipients).await {
            return self.drop_transaction().await;
        }
        let refused = !self.done.findings.is_empty();
        if refused && !send_partial {
            self.conclude(&Finding::decided(Step::Rcpt, Decision::NotPartially));
            return self.drop_transaction().await;
        }
        self.data().await;
    }

    /// Notes how much of the mail went without TLS, and why.
    fn note_clear_text(&mut self, what: &str) {
        let note = self.session.contact.in_clear.as_ref().map(|reason| format!("{what}: {reason}"));
        self.done.notes = note.into_iter().collect();
    }

    /// Those whom the peer's limits do not exclude beforehand.
    fn admit(&mut self, recipients: &[Address]) -> Vec<Address> {
        let offers = &self.session.offers;
        let too_large = offers.size_limit.filter(|&limit| self.message.size() > limit).map(Decision::TooLarge);
        let for_all = self.broken_promise().or(too_large);
        let all_utf8 = self.message.needs_smtputf8();
        let (mut admitted, mut excluded) = (Vec::new(), Vec::new());
        for recipient in recipients {
            let no_utf8 = !offers.smtputf8 && (all_utf8 || recipient.needs_smtputf8());
            match for_all.clone().or(no_utf8.then_some(Decision::NoSmtpUtf8)) {
                Some(decision) => excluded.push((recipient.clone(), Finding::decided(Step::Mail, decision))),
                None => admitted.push(recipient.clone()),
            }
        }
        self.done.findings = excluded;
        admitted
    }

    /// What REQUIRETLS asks for and this session does not have (RFC 8689 section 4.2.1).
    fn broken_promise(&self) -> Option<Decision> {
        let (contact, policy) = (&self.session.contact, |reason: &str| Some(Decision::TlsPolicy(reason.to_owned())));
        match &contact.tls {
            _ if !self.message.require_tls => None,
            None => policy("no TLS, which this mail requires (REQUIRETLS)"),
            Some(tls) if !tls.verified => {
                policy("its certificate does not verify, which this mail requires (REQUIRETLS)")
            }
            // Without DNSSEC anybody may have put the name there that the certificate is for.
            Some(_) if contact.target.preference.is_some() => {
                Some(Decision::NoRequireTls("it was found by MX, whose answers are not authenticated".to_owned()))
            }
            Some(_) if self.session.offers.require_tls => None,
            Some(_) => Some(Decision::NoRequireTls("it does not offer REQUIRETLS".to_owned())),
        }
    }

    /// Clears what the last transaction of the session left. False where the peer has
    /// given the session up.
    async fn reset(&mut self) -> bool {
        if self.session.dirty {
            let reply = self.session.say(&Command::rset()).await;
            self.done.stale = !reply.is_ok_and(|reply| reply.class() == 2);
            self.session.dirty = false;
        }
        !self.done.stale
    }

    /// With PIPELINING, all commands at once. DATA among them commits us to send when 354
    /// comes, so only where one acceptance is enough.
    ///
    /// # Errors
    /// What it means for all where the replies do not fit the commands: then none of them
    /// can be trusted.
    async fn say_ahead(&mut self, recipients: &[Address], send_partial: bool) -> Result<(), Finding> {
        if !self.session.offers.pipelining {
            return Ok(());
        }
        let mut commands = vec![self.mail_command(recipients)];
        commands.extend(recipients.iter().map(Command::rcpt));
        if send_partial {
            commands.push(Command::data());
            self.data_ahead = true;
        }
        for commands in commands.chunks(COMMANDS_AT_ONCE) {
            let replies = self.session.say_at_once(commands).await;
            self.ahead.extend(replies);
            if self.ahead.back().is_some_and(Result::is_err) {
                break;
            }
        }
        self.look_for_shift(commands.len()).await.map_or(Ok(()), Err)
    }

    /// One reply too many, or one that cannot answer its command, may mean that each answers
    /// another command than the one it seems to. What is no reply at all says nothing of
    /// those before it.
    async fn look_for_shift(&self, commands: usize) -> Option<Finding> {
        let step = match self.ahead.len() {
            1 => Step::Mail,
            count if count == commands && self.data_ahead => Step::Data,
            _ => Step::Rcpt,
        };
        match self.ahead.back() {
            Some(Err(broken @ Broken::NotSmtp(NotSmtp::OutOfPlace(_) | NotSmtp::Surplus))) => {
                Some(Finding::at(step, Err(broken.clone())))
            }
            // Behind 354 a reply is one to the content, which the peer does not want to hear.
            Some(Ok(reply)) if reply.class() != 3 && self.is_followed_by_surplus(step).await => {
                Some(Finding::at(step, Err(Broken::NotSmtp(NotSmtp::Surplus))))
            }
            _ => None,
        }
    }

    /// Behind DATA the last reply may still be on its way: where somebody was accepted, all
    /// would take from its forerunner that they were refused.
    async fn is_followed_by_surplus(&self, step: Step) -> bool {
        let accepted = self.ahead.iter().skip(1).any(|reply| reply.as_ref().is_ok_and(|reply| reply.class() == 2));
        let wire = &self.session.wire;
        if step == Step::Data && accepted { wire.has_surplus_within(LAST_REPLY).await } else { wire.has_surplus() }
    }

    /// The reply to `command`, which may have been said ahead.
    async fn exchange(&mut self, command: &Command) -> Result<Reply, Broken> {
        match self.ahead.pop_front() {
            Some(reply) => reply,
            None => self.session.say(command).await,
        }
    }

    fn mail_command(&self, recipients: &[Address]) -> Command {
        let (offers, message) = (&self.session.offers, &self.message);
        let needs_utf8 = message.needs_smtputf8() || recipients.iter().any(Address::needs_smtputf8);
        let parameters = MailParameters {
            size: offers.size.then(|| message.size()),
            body: (offers.eight_bit_mime && message.is_eight_bit()).then_some(Body::EightBitMime),
            smtputf8: offers.smtputf8 && needs_utf8,
            require_tls: message.require_tls,
        };
        Command::mail(&message.from, &parameters)
    }

    /// False where the peer does not take the reverse-path; that is then for all.
    async fn mail(&mut self, recipients: &[Address]) -> bool {
        let command = self.mail_command(recipients);
        match self.exchange(&command).await {
            Ok(reply) if reply.class() == 2 => true,
            other => {
                let finding = self.session.contact.found(Step::Mail, other);
                self.done.findings.extend(recipients.iter().map(|recipient| (recipient.clone(), finding.clone())));
                false
            }
        }
    }

    /// False where nothing is to be sent: nobody was accepted, or the session is over.
    async fn rcpt(&mut self, recipients: Vec<Address>) -> bool {
        let said_ahead = !self.ahead.is_empty();
        let mut recipients = VecDeque::from(recipients);
        while let Some(recipient) = recipients.pop_front() {
            match self.exchange(&Command::rcpt(&recipient)).await {
                Ok(reply) if reply.class() == 2 => {
                    self.may_be_stale = false;
                    self.accepted.push(recipient);
                }
                Ok(reply) if !self.accepted.is_empty() && is_too_many_recipients(&reply) => {
                    self.done.left.push(recipient);
                    if !said_ahead {
                        self.done.left.extend(recipients.drain(..));
                    }
                }
                other => {
                    let finding = self.session.contact.found(Step::Rcpt, other);
                    if finding.ends_session() {
                        self.accepted.push(recipient);
                        self.accepted.extend(recipients);
                        self.accepted.append(&mut self.done.left);
                        self.conclude(&finding);
                        return false;
                    }
                    self.done.findings.push((recipient, finding));
                }
            }
        }
        !self.accepted.is_empty()
    }

    /// The same finding for all whose own is still open.
    fn conclude(&mut self, finding: &Finding) {
        let open = self.accepted.drain(..).map(|recipient| (recipient, finding.clone()));
        self.done.findings.extend(open);
    }

    /// Ends a transaction in which nothing is sent. Where DATA was said ahead and the peer
    /// says 354 with no recipient, it is given nothing but the final dot.
    async fn drop_transaction(&mut self) {
        self.session.dirty = true;
        let over = self.done.findings.iter().any(|(_, finding)| finding.ends_session());
        let asked_for = self.ahead.back().is_some_and(|reply| reply.as_ref().is_ok_and(|reply| reply.class() == 3));
        if over || !self.data_ahead || !asked_for {
            return;
        }
        let reply = tokio::time::timeout(LONE_DOT, self.session.say(&".\r\n")).await;
        self.session.over |= !matches!(reply, Ok(Ok(_)));
    }

    async fn data(&mut self) {
        match self.exchange(&Command::data()).await {
            Ok(reply) if reply.class() == 3 => self.wanted = true,
            other => {
                self.session.dirty = true;
                self.conclude(&Finding::at(Step::Data, other));
            }
        }
    }

    /// Sends the content up to the final dot and waits for what the peer says to it.
    async fn content(&mut self) -> Finding {
        self.note_clear_text("sent in clear");
        self.done.notes.extend(self.message.notes.iter().cloned());
        if self.message.is_eight_bit() && !self.session.offers.eight_bit_mime {
            self.done.notes.push("8-bit content was sent without 8BITMIME".to_owned());
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

/// A message on its way out, a chunk at a time.
struct Outgoing<'a> {
    message: &'a Message,
    stuffer: Stuffer,
    /// Of the stored message: what was read, in octets and in rows.
    offset: u64,
    rows: u32,
    begun: bool,
}

impl<'a> Outgoing<'a> {
    fn new(message: &'a Message) -> Self {
        Self { message, stuffer: Stuffer::default(), offset: 0, rows: 0, begun: false }
    }

    /// Octets of the message, prefix included, that were made ready.
    fn octets(&self) -> u64 {
        self.offset + self.message.prefix.len() as u64
    }

    /// The next octets for the wire, and whether the final dot is among them.
    ///
    /// # Errors
    /// Why the message cannot be sent to its end, in words.
    async fn next(&mut self) -> Result<(Vec<u8>, bool), String> {
        let mut out = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            self.stuffer.push(self.message.prefix.as_bytes(), &mut out).map_err(|error| error.to_string())?;
        }
        if self.offset < self.message.facts.size {
            let chunk = self.read().await?;
            self.offset += chunk.len() as u64;
            self.rows += 1;
            self.stuffer.push(&chunk, &mut out).map_err(|error| error.to_string())?;
        }
        let last = self.offset >= self.message.facts.size;
        if last {
            std::mem::take(&mut self.stuffer).finish(&mut out).map_err(|error| error.to_string())?;
        }
        Ok((out, last))
    }

    async fn read(&self) -> Result<Bytes, String> {
        self.message.row(self.rows).await
    }
}
