//! One session: from the banner to the last word (RFC 5321 sections 3 and 4).

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tracing::info;

use super::answer::Answer;
use super::message::{Message, Refusal};
use super::pace::Pace;
use super::settings::Settings;
use super::transaction::Transaction;
use super::users::Credentials;
use super::wire::{Ended, Line, Wire};
use super::{Context, Stop};
use crate::ingest::{Origin, Protocol, received_field};
use crate::mail::{Address, MailKey, ReversePath};
use crate::smtp::{CommandError, CommandLine, ForwardPath, MailParameters, Unstuffer};
use crate::spool::Submission;

/// What the client called itself.
struct Greeting {
    name: String,
    /// By EHLO.
    extended: bool,
}

/// One client.
pub(super) struct Session {
    wire: Wire,
    peer: SocketAddr,
    settings: Arc<Settings>,
    context: Context,
    stop: Stop,
    greeting: Option<Greeting>,
    /// Who said AUTH and was believed.
    user: Option<String>,
    transaction: Transaction,
    /// Since the last accepted mail, both.
    errors: u32,
    idle_commands: u32,
    auth_failures: u32,
}

impl Session {
    pub(super) fn new(
        stream: TcpStream,
        peer: SocketAddr,
        settings: Arc<Settings>,
        context: Context,
        stop: Stop,
    ) -> Self {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        Self {
            wire: Wire::new(stream, settings.limits.command, stop.hard.clone()),
            peer,
            settings,
            context,
            stop,
            greeting: None,
            user: None,
            transaction: Transaction::new(peer),
            errors: 0,
            idle_commands: 0,
            auth_failures: 0,
        }
    }

    /// Speaks with the client until one of both has had enough.
    pub(super) async fn run(mut self) {
        let ended = self.dialogue().await;
        match ended {
            Ended::Slow => self.say(&Answer::new(421, "4.4.2", "you took too long")),
            Ended::Stopping => self.say(&Answer::new(421, "4.3.2", "stopping, try again later")),
            Ended::Gone | Ended::Finished => {}
        }
        self.transaction.reset();
        if ended == Ended::Gone { drop(self.wire) } else { self.wire.close().await }
    }

    async fn dialogue(&mut self) -> Ended {
        let banner = format!("{} ESMTP redeliver", self.settings.hostname.folded());
        self.say(&Answer::plain(220, &[banner]));
        loop {
            if let Err(ended) = self.step().await {
                return ended;
            }
        }
    }

    async fn step(&mut self) -> Result<(), Ended> {
        let line = self.line().await?;
        match parse(&line) {
            Ok(command) => self.command(command).await?,
            Err(error) => self.misunderstood(error)?,
        }
        if self.errors >= self.settings.limits.errors {
            info!(client = %self.peer, errors = self.errors, "session ended after too many errors");
            self.say(&Answer::new(421, "4.7.0", "too many errors"));
            return Err(Ended::Finished);
        }
        Ok(())
    }

    /// The next line. A gentle stop ends the session here, unless a transaction is open.
    async fn line(&mut self) -> Result<Line, Ended> {
        let stop = if self.transaction.is_open() { &self.stop.hard } else { &self.stop.gentle };
        self.wire.line(stop).await
    }

    fn say(&mut self, answer: &Answer) {
        self.errors += u32::from(answer.is_permanent_refusal());
        self.wire.say(answer);
    }

    fn misunderstood(&mut self, error: CommandError) -> Result<(), Ended> {
        let answer = Answer::from(error);
        if self.transaction.is_open() {
            self.transaction.refuse(&answer);
        }
        let ends = answer.ends_session();
        self.say(&answer);
        if ends { Err(Ended::Finished) } else { Ok(()) }
    }

    async fn command(&mut self, command: CommandLine) -> Result<(), Ended> {
        self.count_idle(&command);
        let answer = match command {
            CommandLine::Ehlo(name) => self.ehlo(name),
            CommandLine::Helo(name) => self.helo(name),
            CommandLine::Mail(from, parameters) => self.mail(from, &parameters),
            CommandLine::Rcpt(to) => self.rcpt(to),
            CommandLine::Data => self.data().await?,
            CommandLine::Rset => {
                self.transaction.reset();
                Answer::new(250, "2.0.0", "forgotten")
            }
            CommandLine::Noop => Answer::new(250, "2.0.0", "ok"),
            CommandLine::Vrfy => Answer::new(252, "2.5.0", "send it, and see"),
            CommandLine::Help => Answer::new(214, "2.0.0", "RFC 5321"),
            CommandLine::StartTls => return self.starttls().await,
            CommandLine::Auth { mechanism, initial } => self.auth(&mechanism, initial).await?,
            CommandLine::Quit => {
                self.say(&Answer::new(221, "2.0.0", "goodbye"));
                return Err(Ended::Finished);
            }
        };
        let ends = answer.ends_session();
        self.say(&answer);
        if ends { Err(Ended::Finished) } else { Ok(()) }
    }

    /// What brings no mail about may be said often, and not for ever.
    fn count_idle(&mut self, command: &CommandLine) {
        use CommandLine::{Ehlo, Helo, Help, Noop, Rset, Vrfy};
        if matches!(command, Ehlo(_) | Helo(_) | Help | Noop | Rset | Vrfy) {
            self.idle_commands += 1;
            self.errors += u32::from(self.idle_commands > self.settings.limits.idle_commands);
        }
    }

    fn helo(&mut self, name: String) -> Answer {
        self.transaction.reset();
        self.greeting = Some(Greeting { name, extended: false });
        Answer::plain(250, &[self.settings.hostname.folded()])
    }

    fn ehlo(&mut self, name: String) -> Answer {
        self.transaction.reset();
        self.greeting = Some(Greeting { name, extended: true });
        let mut lines = vec![
            self.settings.hostname.folded(),
            "PIPELINING".to_owned(),
            format!("SIZE {}", (self.context.spool)().max_message_size()),
            "8BITMIME".to_owned(),
            "SMTPUTF8".to_owned(),
            "ENHANCEDSTATUSCODES".to_owned(),
        ];
        if self.settings.acceptor.is_some() && !self.wire.is_tls() {
            lines.push("STARTTLS".to_owned());
        }
        if self.settings.users.is_some() && self.wire.is_tls() {
            lines.push("AUTH PLAIN".to_owned());
        }
        Answer::plain(250, &lines)
    }

    fn mail(&mut self, from: ReversePath, parameters: &MailParameters) -> Answer {
        if self.greeting.is_none() {
            return Answer::out_of_order("say EHLO first");
        }
        if self.transaction.is_open() {
            return Answer::out_of_order("a mail is begun already; say RSET to forget it");
        }
        self.transaction.open(from, parameters.smtputf8);
        let Some(refusal) = self.no_room_for(parameters.size.unwrap_or(0)) else {
            return Answer::new(250, "2.1.0", "ok");
        };
        self.transaction.refuse(&refusal);
        self.transaction.reset();
        refusal
    }

    /// Why a message of that size cannot be taken, or not now.
    fn no_room_for(&self, size: u64) -> Option<Answer> {
        let spool = (self.context.spool)();
        if size > spool.max_message_size() {
            let text = format!("the message is larger than {} octets", spool.max_message_size());
            return Some(Answer::new(552, "5.3.4", text));
        }
        if spool.is_behind() {
            return Some(Answer::new(451, "4.3.0", "the store is in trouble, try again later"));
        }
        // Where free space cannot be told, the store will say whether it has room.
        let free = (self.context.free_space)().unwrap_or(u64::MAX);
        let needed = self.settings.min_free.saturating_add(size);
        (free < needed).then(|| Answer::new(452, "4.3.1", "little room left, try again later"))
    }

    fn rcpt(&mut self, to: ForwardPath) -> Answer {
        if !self.transaction.is_open() {
            return Answer::out_of_order("say MAIL first");
        }
        let recipient = match self.recipient(to) {
            Ok(recipient) => recipient,
            Err(refusal) => return self.transaction.refuse_with(refusal),
        };
        if self.transaction.add(recipient, self.settings.max_recipients) {
            Answer::new(250, "2.1.5", "ok")
        } else {
            self.transaction.refuse_with(Answer::new(452, "4.5.3", "too many recipients for one mail"))
        }
    }

    fn recipient(&self, to: ForwardPath) -> Result<Address, Answer> {
        if self.user.is_none() && !self.settings.may_relay(self.peer.ip()) {
            return Err(Answer::new(550, "5.7.1", "you may not relay here"));
        }
        let recipient = match to {
            // Ours, wherever the mail for our name goes.
            ForwardPath::Postmaster => Address::parse(&format!("postmaster@{}", self.settings.hostname))
                .map_err(|error| Answer::new(550, "5.1.1", error))?,
            ForwardPath::Mailbox(address) => address,
        };
        if self.transaction.smtputf8() || recipient.to_string().is_ascii() {
            return Ok(recipient);
        }
        Err(CommandError::NeedsSmtpUtf8.into())
    }

    async fn data(&mut self) -> Result<Answer, Ended> {
        if let Some(answer) = self.not_ready_for_data() {
            return Ok(answer);
        }
        // Whoever does not wait for 354 does not know whether his message is one, or commands.
        if self.wire.has_more().await {
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
        let incoming = (self.context.spool)().incoming();
        let trace = self.trace(incoming.key());
        let mut message = Message::new(incoming, &trace);
        let read = self.read_message(&mut message).await;
        self.transaction.set_size(message.octets());
        if let Err(ended) = read {
            self.transaction.refuse(format!("broken off: {ended}"));
            message.abandon().await;
            return Err(ended);
        }
        let Some(envelope) = self.transaction.envelope() else {
            return Ok(Answer::out_of_order("say MAIL first"));
        };
        let is_endless = message.is_endless();
        match message.accept(Submission { envelope, name: None, import_digest: None }).await {
            Ok(key) => Ok(self.accepted(&key)),
            Err(refusal) => self.refused(refusal, is_endless),
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
        self.context.accepted.notify_one();
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
        let protocol = match (extended, self.wire.is_tls(), self.user.is_some()) {
            (false, ..) => Protocol::Smtp,
            (true, false, false) => Protocol::Esmtp,
            (true, true, false) => Protocol::Esmtps,
            (true, false, true) => Protocol::Esmtpa,
            (true, true, true) => Protocol::Esmtpsa,
        };
        let origin = Origin::Peer { name, address: self.peer.ip(), protocol };
        let only = match self.transaction.recipients() {
            [only] => Some(only),
            _ => None,
        };
        received_field(origin, &self.settings.hostname, key, only, self.context.clock.now())
    }

    async fn starttls(&mut self) -> Result<(), Ended> {
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

    async fn auth(&mut self, mechanism: &str, initial: Option<String>) -> Result<Answer, Ended> {
        if let Some(answer) = self.not_ready_for_auth(mechanism) {
            return Ok(answer);
        }
        let response = match initial {
            Some(response) => response,
            None => match self.auth_response().await? {
                Ok(response) => response,
                Err(answer) => return Ok(answer),
            },
        };
        if response == "*" {
            return Ok(Answer::new(501, "5.7.0", "given up"));
        }
        match Credentials::from_plain(&response) {
            Some(credentials) => Ok(self.check(credentials).await),
            None => Ok(self.failed_auth(None, Answer::new(501, "5.5.2", "that is no PLAIN response"))),
        }
    }

    fn not_ready_for_auth(&self, mechanism: &str) -> Option<Answer> {
        let extended = self.greeting.as_ref().is_some_and(|greeting| greeting.extended);
        if self.settings.users.is_none() {
            Some(CommandError::NotImplemented.into())
        } else if !self.wire.is_tls() {
            Some(Answer::new(538, "5.7.11", "say STARTTLS first"))
        } else if !extended {
            Some(Answer::out_of_order("say EHLO first"))
        } else if self.user.is_some() || self.transaction.is_open() {
            Some(Answer::out_of_order("not now"))
        } else if mechanism != "PLAIN" {
            Some(Answer::new(504, "5.5.4", "the mechanism is PLAIN"))
        } else {
            None
        }
    }

    /// The line that answers an empty challenge.
    async fn auth_response(&mut self) -> Result<Result<String, Answer>, Ended> {
        self.wire.say(&Answer::plain(334, &[String::new()]));
        let line = match self.line().await? {
            Line::Whole(line) => line,
            Line::TooLong => return Ok(Err(CommandError::TooLong.into())),
        };
        let text = line.strip_suffix(b"\r\n").and_then(|text| std::str::from_utf8(text).ok());
        Ok(text.map(str::to_owned).ok_or_else(|| CommandError::LineEnd.into()))
    }

    async fn check(&mut self, credentials: Credentials) -> Answer {
        let Some(users) = self.settings.users.clone() else { return CommandError::NotImplemented.into() };
        let name = credentials.name.clone();
        if users.verify(credentials).await {
            self.log_in(Some(name));
            return Answer::new(235, "2.7.0", "welcome");
        }
        tokio::time::sleep(self.settings.limits.auth_pause).await;
        self.failed_auth(Some(&name), Answer::new(535, "5.7.8", "user or password is wrong"))
    }

    fn failed_auth(&mut self, name: Option<&str>, answer: Answer) -> Answer {
        self.auth_failures += 1;
        info!(client = %self.peer, user = name.map(|name| name.escape_debug().to_string()), "AUTH refused");
        if self.auth_failures < self.settings.limits.auth_failures {
            return answer;
        }
        Answer::new(421, "4.7.0", "too many refused logins")
    }
}

fn parse(line: &Line) -> Result<CommandLine, CommandError> {
    match line {
        Line::Whole(line) => CommandLine::parse(line as &BytesMut),
        Line::TooLong => Err(CommandError::TooLong),
    }
}
