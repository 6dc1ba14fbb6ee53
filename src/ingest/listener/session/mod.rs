//! One session: from the banner to the last word (RFC 5321 sections 3 and 4).
//!
//! Here are the commands but those that change who is spoken to (`secure`) and DATA (`data`).

mod data;
mod secure;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use tracing::info;

use super::Context;
use super::answer::Answer;
use super::settings::Settings;
use super::transaction::Transaction;
use super::wire::{Ended, Line, Stream, Wire};
use crate::mail::{Address, Malformed, RecipientRequest, ReversePath};
use crate::smtp::{CommandError, CommandLine, ForwardPath, Leniency, MailParameters, RcptParameters};
use crate::stop::Stop;

/// What the client called itself.
struct Greeting {
    name: String,
    /// By EHLO.
    extended: bool,
}

/// Who is spoken to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Client {
    /// Somebody at the other end of a connection.
    Peer(SocketAddr),
    /// The user of this machine with this number.
    User(u32),
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(address) => address.fmt(f),
            Self::User(uid) => write!(f, "uid {uid}"),
        }
    }
}

/// One client, and what it has said so far.
pub(super) struct Session {
    wire: Wire,
    client: Client,
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
        stream: Box<dyn Stream>,
        client: Client,
        settings: Arc<Settings>,
        context: Context,
        stop: Stop,
    ) -> Self {
        Self {
            wire: Wire::new(stream, settings.limits.command, stop.hard.clone()),
            client,
            settings,
            context,
            stop,
            greeting: None,
            user: None,
            transaction: Transaction::new(client),
            errors: 0,
            idle_commands: 0,
            auth_failures: 0,
        }
    }

    /// Speaks with the client until one of both has had enough.
    pub(super) async fn run(mut self) {
        let _counted = self.context.intake.now().spool.metrics().smtp_sessions.hold();
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
        match self.parse(&line) {
            Ok(command) => self.command(command).await?,
            Err(error) => self.misunderstood(error)?,
        }
        if self.errors >= self.settings.limits.errors {
            info!(client = %self.client, errors = self.errors, "session ended after too many errors");
            self.say(&Answer::new(421, "4.7.0", "too many errors"));
            return Err(Ended::Finished);
        }
        Ok(())
    }

    /// The next line. A gentle stop ends the session here, unless a transaction is open; one
    /// of a stranger who has said MAIL and no more holds up nobody's end.
    async fn line(&mut self) -> Result<Line, Ended> {
        let begun = self.transaction.is_open() && (self.may_relay() || !self.transaction.recipients().is_empty());
        let stop = if begun { &self.stop.hard } else { &self.stop.gentle };
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
            CommandLine::Mail(from, parameters) => self.mail(from, parameters),
            CommandLine::Rcpt(to, parameters) => self.rcpt(to, parameters),
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
            format!("SIZE {}", self.context.intake.now().spool.max_message_size()),
            "8BITMIME".to_owned(),
        ];
        if self.settings.smtputf8 {
            lines.push("SMTPUTF8".to_owned());
        }
        lines.push("ENHANCEDSTATUSCODES".to_owned());
        if self.settings.dsn {
            lines.push("DSN".to_owned());
        }
        if self.settings.acceptor.is_some() && !self.wire.is_tls() {
            lines.push("STARTTLS".to_owned());
        }
        if self.settings.users.is_some() && self.wire.is_tls() {
            lines.push("AUTH PLAIN LOGIN".to_owned());
        }
        Answer::plain(250, &lines)
    }

    fn mail(&mut self, from: ReversePath, parameters: MailParameters) -> Answer {
        if self.greeting.is_none() {
            return Answer::out_of_order("say EHLO first");
        }
        if self.transaction.is_open() {
            return Answer::out_of_order("a mail is begun already; say RSET to forget it");
        }
        if parameters.smtputf8 && !self.settings.smtputf8 {
            return CommandError::UnknownParameter("SMTPUTF8".to_owned()).into();
        }
        let size = parameters.size.unwrap_or(0);
        self.transaction.open(from, parameters);
        let admitted = self.context.intake.now().spool.admits(size);
        let Err(refusal) = admitted.map_err(|error| Answer::from(&error)) else {
            return Answer::new(250, "2.1.0", "ok");
        };
        self.transaction.refuse(&refusal);
        self.transaction.reset();
        refusal
    }

    fn rcpt(&mut self, to: ForwardPath, parameters: RcptParameters) -> Answer {
        if !self.transaction.is_open() {
            return Answer::out_of_order("say MAIL first");
        }
        let RcptParameters { notify, orcpt } = parameters;
        if !self.transaction.is_smtputf8() && !orcpt.as_deref().is_none_or(str::is_ascii) {
            return self.transaction.refuse_with(CommandError::Dsn("ORCPT", Malformed::NEEDS_SMTPUTF8).into());
        }
        let recipients = match self.recipients(to) {
            Ok(recipients) => recipients,
            Err(refusal) => return self.transaction.refuse_with(refusal),
        };
        let request = RecipientRequest { notify, orcpt, told: Vec::new() };
        if self.transaction.add(recipients, &request, self.settings.max_recipients) {
            Answer::new(250, "2.1.5", "ok")
        } else {
            self.transaction.refuse_with(Answer::new(452, "4.5.3", "too many recipients for one mail"))
        }
    }

    fn may_relay(&self) -> bool {
        match self.client {
            Client::Peer(address) => self.user.is_some() || self.settings.may_relay(address.ip()),
            Client::User(_) => true,
        }
    }

    /// Whom the client means: on this machine a name may stand for others.
    fn recipients(&self, to: ForwardPath) -> Result<Vec<Address>, Answer> {
        if !self.may_relay() {
            return Err(Answer::new(550, "5.7.1", "you may not relay here"));
        }
        let written = match to {
            ForwardPath::Postmaster => "postmaster".to_owned(),
            ForwardPath::Local(name) => name,
            ForwardPath::Mailbox(address) => address.to_string(),
        };
        if !self.transaction.is_smtputf8() && !written.is_ascii() {
            return Err(CommandError::NeedsSmtpUtf8.into());
        }
        let here = &self.context.intake.now().here;
        here.recipients(&written).map_err(|error| CommandError::ForwardPath(error).into())
    }

    /// A command; what was not offered is not known, whether it was written right or not.
    fn parse(&self, line: &Line) -> Result<CommandLine, CommandError> {
        let unknown = |keyword: &str| Err(CommandError::UnknownParameter(keyword.to_owned()));
        let read = self.read(line);
        if self.settings.dsn {
            return read;
        }
        match &read {
            Err(CommandError::Dsn(keyword, _)) => unknown(keyword),
            Ok(CommandLine::Mail(_, MailParameters { ret: Some(_), .. })) => unknown("RET"),
            Ok(CommandLine::Mail(_, MailParameters { envid: Some(_), .. })) => unknown("ENVID"),
            Ok(CommandLine::Rcpt(_, RcptParameters { notify: Some(_), .. })) => unknown("NOTIFY"),
            Ok(CommandLine::Rcpt(_, RcptParameters { orcpt: Some(_), .. })) => unknown("ORCPT"),
            _ => read,
        }
    }

    /// Strictly; those who may relay are forgiven what hurts nobody.
    fn read(&self, line: &Line) -> Result<CommandLine, CommandError> {
        let line: &BytesMut = match line {
            Line::Whole(line) => line,
            Line::TooLong => return Err(CommandError::TooLong),
        };
        if !self.may_relay() {
            return CommandLine::parse(line);
        }
        let intake = self.context.intake.now();
        let sender = |text: &str| intake.here.sender(text);
        CommandLine::parse_leniently(line, &Leniency { bare_lf: self.settings.normalize_lf, sender: &sender })
    }
}
