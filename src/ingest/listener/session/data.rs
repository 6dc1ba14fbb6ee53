//! DATA: from 354 to the reply to the final dot (RFC 5321 section 4.1.1.4).

use tokio::time::Instant;

use super::super::answer::Answer;
use super::super::message::{Filter, Message, Refusal};
use super::super::pace::Pace;
use super::super::wire::Ended;
use super::{Client, Session};
use crate::ingest::edit::Edit;
use crate::ingest::lines::{Lines, Mend};
use crate::ingest::message::MessageReader;
use crate::ingest::{Origin, Protocol, received_field};
use crate::mail::{Envelope, MailKey, ReversePath};
use crate::smtp::Unstuffer;
use crate::spool::Submission;

impl Session {
    pub(super) async fn data(&mut self) -> Result<Answer, Ended> {
        if let Some(answer) = self.not_ready_for_data() {
            return Ok(answer);
        }
        // Whoever does not wait for 354 does not know whether his message is one, or commands. Who
        // writes it all into a pipe deceives nobody but himself.
        if matches!(self.client, Client::Peer(_)) && self.wire.has_more().await {
            let answer = Answer::new(554, "5.5.0", "wait for 354 before you send the message");
            let answer = self.transaction.refuse_with(answer);
            self.say(&answer);
            return Err(Ended::Finished);
        }
        self.wire.say(&Answer::plain(354, &["end with a line that is a dot".to_owned()]));
        self.wire.flush().await?;
        let answer = self.take_message().await;
        self.transaction.reset();
        answer
    }

    fn not_ready_for_data(&mut self) -> Option<Answer> {
        if self.transaction.refused_all() && self.transaction.is_open() {
            let answer = self.transaction.refuse_with(Answer::new(554, "5.5.1", "nobody to send it to"));
            self.transaction.reset();
            return Some(answer);
        }
        let ready = !self.transaction.recipients().is_empty();
        (!ready).then(|| Answer::out_of_order("say MAIL and RCPT first"))
    }

    /// From 354 to the reply to the final dot.
    async fn take_message(&mut self) -> Result<Answer, Ended> {
        let incoming = self.context.intake.now().spool.incoming();
        let trace = self.trace(incoming.key());
        let mut message = Message::new(incoming, &trace, self.filter());
        let read = self.read_message(&mut message).await;
        self.transaction.set_size(message.octets());
        if let Err(ended) = read {
            self.transaction.refuse(format!("broken off: {ended}"));
            message.abandon().await;
            return Err(ended);
        }
        let Some(mut envelope) = self.transaction.envelope() else {
            return Ok(Answer::out_of_order("say MAIL first"));
        };
        if let Client::User(_) = self.client {
            let here = &self.context.intake.now().here;
            envelope.reverse_path = here.reverse_path(Some(envelope.reverse_path)).unwrap_or(ReversePath::Null);
        }
        let is_endless = message.is_endless();
        match message.accept(self.submission(envelope)).await {
            Ok(key) => Ok(self.accepted(&key)),
            Err(refusal) => self.refused(refusal, is_endless),
        }
    }

    fn submission(&self, envelope: Envelope) -> Submission {
        let client = match self.client {
            Client::Peer(address) => Some(address.ip()),
            Client::User(_) => None,
        };
        Submission { client, ..envelope.into() }
    }

    /// What is done to the message: a user of this machine is served as `sendmail` serves him;
    /// others have their line ends mended where that is set and they may relay.
    fn filter(&self) -> Filter {
        let lf = self.settings.normalize_lf;
        match self.client {
            Client::User(_) => {
                let envelope = self.transaction.envelope();
                let edit = Edit {
                    here: self.context.intake.now().here.clone(),
                    sender: envelope.and_then(|envelope| envelope.reverse_path.address().cloned()),
                    full_name: None,
                    added: None,
                    recipients_from_header: false,
                };
                let lines = Lines::new(Mend { cr_and_nul: true, lf }, false);
                Filter::Edited(Box::new(MessageReader::new(lines, edit)))
            }
            Client::Peer(_) if lf && self.may_relay() => {
                Filter::Lines(Lines::new(Mend { cr_and_nul: false, lf }, false))
            }
            Client::Peer(_) => Filter::None,
        }
    }

    /// Reads to the final dot, or as far as it is worth while.
    async fn read_message(&mut self, message: &mut Message) -> Result<(), Ended> {
        let (mut data, mut octets) = (Unstuffer::default(), Vec::new());
        let mut pace = Pace::new(&self.settings.limits, Instant::now());
        loop {
            octets.clear();
            let ended = match self.wire.content(&mut data, &mut octets, pace.deadline()).await {
                Err(Ended::Slow) if pace.goes_on(Instant::now()) => continue,
                read => read?,
            };
            pace.count(octets.len());
            let ours = Instant::now();
            message.write(&octets).await;
            pace.exclude(ours.elapsed());
            if ended || message.is_endless() {
                return Ok(());
            }
        }
    }

    fn accepted(&mut self, key: &MailKey) -> Answer {
        self.transaction.accepted(key);
        (self.errors, self.idle_commands) = (0, 0);
        Answer::new(250, "2.6.0", format!("{key} is ours now"))
    }

    fn refused(&mut self, refusal: Refusal, is_endless: bool) -> Result<Answer, Ended> {
        self.transaction.refuse(format!("{} ({})", refusal.answer.to_string().trim_end(), refusal.why));
        if is_endless {
            self.say(&refusal.answer);
            return Err(Ended::Finished);
        }
        Ok(refusal.answer)
    }

    fn trace(&self, key: &MailKey) -> String {
        let (name, extended) = self.greeting.as_ref().map_or(("", false), |said| (said.name.as_str(), said.extended));
        let (utf8, tls, auth) = (self.transaction.is_smtputf8(), self.wire.is_tls(), self.user.is_some());
        let protocol = if extended { Protocol::Extended { utf8, tls, auth } } else { Protocol::Smtp };
        let origin = match self.client {
            Client::Peer(address) => Origin::Peer { name, address: address.ip(), protocol },
            Client::User(uid) => Origin::UserSession { uid, protocol },
        };
        let only = match self.transaction.recipients() {
            [only] => Some(only),
            _ => None,
        };
        received_field(origin, &self.settings.hostname, key, only, self.context.clock.now())
    }
}
