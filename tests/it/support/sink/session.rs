//! One connection of a scripted peer, from the banner to its end.

use std::io;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::script::{Step, Then, close, reply};
use super::strict;
use super::wire::Wire;
use super::{Shared, Transaction};

/// Answers one connection until either side ends it.
pub(super) async fn run(stream: TcpStream, number: usize, crowded: bool, shared: &Shared) {
    let mut session = Session {
        shared,
        number,
        wire: Some(Wire::new(stream)),
        matched: vec![0; shared.script.rules.len()],
        offered: None,
        authenticated: false,
        transaction: None,
        ahead: false,
        over: false,
        pace: None,
    };
    // An error is the client's leaving: what it left behind is noted below.
    let ended = session.talk(crowded).await;
    session.leave(ended.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset));
}

struct Session<'a> {
    shared: &'a Shared,
    number: usize,
    /// `None` after the connection was given up.
    wire: Option<Wire>,
    /// How often each rule fitted on this connection.
    matched: Vec<usize>,
    /// Keywords of the last EHLO reply; `None` before EHLO or HELO was accepted.
    offered: Option<Vec<String>>,
    authenticated: bool,
    transaction: Option<Open>,
    /// The last command was sent before the reply to the one before it.
    ahead: bool,
    /// The session is over: by QUIT, or by a 421, to which only QUIT may be said.
    over: bool,
    /// Octets of content that are read in a second.
    pace: Option<u32>,
}

/// A transaction between MAIL and the final dot.
struct Open {
    reverse_path: String,
    parameters: Vec<String>,
    recipients: Vec<String>,
    content: Option<Vec<u8>>,
}

/// The connection has ended, by the script or by the client.
type Ended = io::Error;

impl Session<'_> {
    async fn talk(&mut self, crowded: bool) -> Result<(), Ended> {
        if self.shared.script.implicit_tls {
            self.start_tls().await?;
        }
        let banner = if crowded { reply("421 4.7.0 too many connections").then(close()) } else { "220 sink".into() };
        self.answer("CONNECT", banner).await?;
        loop {
            let line = self.line().await?;
            let command = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
            self.shared.note(|record| {
                record.connections[self.number - 1].commands.push((Instant::now(), command.clone()));
            });
            self.check_command(&line, &command);
            self.command(&command).await?;
        }
    }

    async fn command(&mut self, line: &str) -> Result<(), Ended> {
        match verb(line).as_str() {
            "EHLO" => self.ehlo(line).await,
            "HELO" => {
                let said = self.answer(line, "250 sink".into()).await?;
                self.offered = said.starts_with('2').then(Vec::new);
                Ok(())
            }
            "STARTTLS" => self.starttls(line).await,
            "AUTH" => self.auth(line).await,
            "MAIL" => self.mail(line).await,
            "RCPT" => self.rcpt(line).await,
            "DATA" => self.data(line).await,
            "RSET" => {
                self.transaction = None;
                self.answer(line, "250 2.0.0 ok".into()).await.map(drop)
            }
            "NOOP" => self.answer(line, "250 2.0.0 ok".into()).await.map(drop),
            "QUIT" => self.quit(line).await,
            _ => {
                self.violation(&format!("an unknown command: {line:?}"));
                self.answer(line, "500 5.5.1 unknown command".into()).await.map(drop)
            }
        }
    }

    async fn ehlo(&mut self, line: &str) -> Result<(), Ended> {
        let script = &self.shared.script;
        let in_tls = self.wire().in_tls();
        let listed = script.capabilities_in_tls.as_ref().filter(|_| in_tls).unwrap_or(&script.capabilities);
        let mut lines = vec!["sink".to_owned()];
        lines.extend(listed.iter().cloned());
        lines.extend((script.identity.is_some() && !in_tls).then(|| "STARTTLS".to_owned()));
        lines.extend(script.credentials.is_some().then(|| format!("AUTH {}", script.mechanisms)));
        let last = lines.len() - 1;
        let lines = lines.iter().enumerate().map(|(i, text)| format!("250{}{text}", if i < last { '-' } else { ' ' }));
        let said = self.answer(line, reply(&lines.collect::<Vec<_>>().join("\n"))).await?;
        self.offered = said.starts_with('2').then(|| strict::keywords(&said));
        self.transaction = None;
        Ok(())
    }

    async fn starttls(&mut self, line: &str) -> Result<(), Ended> {
        let offered = self.offers("STARTTLS");
        if !offered {
            self.violation("STARTTLS was not offered");
        }
        let said = self.answer(line, if offered { "220 2.0.0 go" } else { "454 4.7.0 no TLS" }.into()).await?;
        if said.starts_with('2') { self.start_tls().await } else { Ok(()) }
    }

    /// The handshake, or what the script has for it; afterwards nothing said before counts.
    async fn start_tls(&mut self) -> Result<(), Ended> {
        if let Some(then) = self.rule("TLS") {
            self.perform("TLS", &then).await?;
            return Err(io::Error::other("no handshake was to be"));
        }
        let wire = self.wire.take().ok_or(io::ErrorKind::NotConnected)?;
        let identity = self.shared.script.identity.as_ref().ok_or_else(|| io::Error::other("no certificate"))?;
        self.wire = Some(wire.into_tls(identity).await?);
        (self.offered, self.transaction) = (None, None);
        let resumed = self.wire().is_resumed();
        self.shared.note(|record| {
            let connection = &mut record.connections[self.number - 1];
            (connection.tls, connection.resumed) = (true, resumed);
        });
        Ok(())
    }

    async fn auth(&mut self, line: &str) -> Result<(), Ended> {
        if !self.offers("AUTH") {
            self.violation("AUTH was not offered");
        }
        if !self.wire().in_tls() {
            self.violation("credentials in clear");
        }
        if let Some(then) = self.rule(line) {
            self.authenticated = self.perform(line, &then).await?.starts_with('2');
            return Ok(());
        }
        let mut words = line.split(' ').skip(1);
        let mechanism = words.next().unwrap_or_default().to_ascii_uppercase();
        let given = words.next();
        let (user, password) = self.shared.script.credentials.clone().unwrap_or_default();
        self.authenticated = match mechanism.as_str() {
            "PLAIN" => self.ask("", given).await? == base64(&format!("\0{user}\0{password}")),
            "LOGIN" => {
                let user_given = self.ask("Username:", given).await?;
                self.ask("Password:", None).await? == base64(&password) && user_given == base64(&user)
            }
            _ => false,
        };
        let verdict = if self.authenticated { "235 2.7.0 welcome" } else { "535 5.7.8 wrong credentials" };
        self.perform(line, &verdict.into()).await.map(drop)
    }

    /// What the client answers to a challenge, unless it has said so already.
    async fn ask(&mut self, challenge: &str, given: Option<&str>) -> Result<String, Ended> {
        if let Some(given) = given {
            return Ok(given.to_owned());
        }
        self.perform("AUTH", &reply(&format!("334 {}", base64(challenge)))).await?;
        Ok(String::from_utf8_lossy(&self.line().await?).trim_end().to_owned())
    }

    async fn mail(&mut self, line: &str) -> Result<(), Ended> {
        if self.offered.is_none() {
            self.violation("MAIL before EHLO or HELO");
        }
        if self.transaction.is_some() {
            self.violation("MAIL within a transaction");
        }
        let said = self.answer(line, "250 2.1.0 ok".into()).await?;
        self.transaction = said.starts_with('2').then(|| Open {
            reverse_path: strict::path(line).unwrap_or_default().to_owned(),
            parameters: strict::parameters(line),
            recipients: Vec::new(),
            content: None,
        });
        Ok(())
    }

    async fn rcpt(&mut self, line: &str) -> Result<(), Ended> {
        if self.transaction.is_none() {
            // Whoever pipelines cannot know yet that MAIL was refused.
            self.violation_unless_ahead("RCPT without MAIL");
            return self.answer(line, "503 5.5.1 MAIL first".into()).await.map(drop);
        }
        let said = self.answer(line, "250 2.1.5 ok".into()).await?;
        let recipient = strict::path(line).unwrap_or_default().to_owned();
        if let Some(open) = self.transaction.as_mut().filter(|_| said.starts_with('2')) {
            open.recipients.push(recipient);
        }
        Ok(())
    }

    async fn data(&mut self, line: &str) -> Result<(), Ended> {
        let accepted = self.transaction.as_ref().is_some_and(|open| !open.recipients.is_empty());
        if !accepted {
            self.violation_unless_ahead("DATA without a recipient");
        }
        let said = self.answer(line, if accepted { "354 go" } else { "503 5.5.1 RCPT first" }.into()).await?;
        if !said.starts_with("354") {
            return Ok(());
        }
        self.content().await?;
        let open = self.transaction.take();
        let then = self
            .rule_for(".", open.as_ref())
            .unwrap_or_else(|| if accepted { "250 2.0.0 taken" } else { "554 5.5.1 no valid recipients" }.into());
        self.file(open, true, then.reply());
        self.perform(".", &then).await.map(drop)
    }

    /// Reads the content up to the final dot into the open transaction.
    async fn content(&mut self) -> Result<(), Ended> {
        self.content_so_far().get_or_insert_default();
        let mut ahead = Duration::ZERO;
        loop {
            let line = self.line().await?;
            if let Some(pace) = self.pace {
                ahead += Duration::from_secs(1) * u32::try_from(line.len()).unwrap_or(u32::MAX) / pace;
            }
            // Not for each line: sleeping has its own time.
            if ahead > Duration::from_millis(50) {
                tokio::time::sleep(std::mem::take(&mut ahead)).await;
            }
            for fault in strict::line_faults(&line, usize::MAX) {
                self.violation(&format!("{fault} in the content"));
            }
            if line == b".\r\n" {
                return Ok(());
            }
            let unstuffed = line.strip_prefix(b".").unwrap_or(&line);
            if unstuffed.len() < line.len() && !unstuffed.starts_with(b".") {
                self.violation("a dot that is not doubled");
            }
            if let Some(content) = self.content_so_far() {
                content.extend_from_slice(unstuffed);
            }
        }
    }

    fn content_so_far(&mut self) -> &mut Option<Vec<u8>> {
        let none =
            || Open { reverse_path: String::new(), parameters: Vec::new(), recipients: Vec::new(), content: None };
        &mut self.transaction.get_or_insert_with(none).content
    }

    async fn quit(&mut self, line: &str) -> Result<(), Ended> {
        self.over = true;
        self.answer(line, "221 2.0.0 bye".into()).await?;
        self.wire().close().await;
        if !self.wire().in_tls() && self.wire().drain().await > 0 {
            self.violation("octets behind QUIT");
        }
        Err(io::Error::other("the session is over"))
    }

    /// Notes a transaction that got as far as DATA.
    fn file(&self, open: Option<Open>, complete: bool, reply: Option<String>) {
        let Some(Open { reverse_path, parameters, recipients, content: Some(content) }) = open else { return };
        let says = |keyword: &str| parameters.iter().any(|parameter| parameter.eq_ignore_ascii_case(keyword));
        if !content.is_ascii() && self.offers("8BITMIME") && !says("BODY=8BITMIME") {
            self.violation("8-bit content without BODY=8BITMIME");
        }
        let tls = self.wire.as_ref().is_some_and(Wire::in_tls);
        let (connection, authenticated, ended) = (self.number, self.authenticated, Instant::now());
        self.shared.note(|record| {
            record.transactions.push(Transaction {
                connection,
                tls,
                authenticated,
                reverse_path,
                parameters,
                recipients,
                content,
                complete,
                reply,
                ended,
            });
        });
    }

    /// What is to be said of a connection that has ended.
    fn leave(&mut self, reset: bool) {
        if reset {
            self.shared.note(|record| record.notes.push(format!("connection {}: reset", self.number)));
        }
        let open = self.transaction.take();
        self.file(open, false, None);
        if !self.over {
            self.shared.note(|record| record.notes.push(format!("connection {}: ended without QUIT", self.number)));
        }
    }

    /// Does what the first matching rule has, else what a friendly host does; returns the reply.
    async fn answer(&mut self, said: &str, friendly: Then) -> Result<String, Ended> {
        let then = self.rule(said).unwrap_or(friendly);
        self.perform(said, &then).await
    }

    fn rule(&mut self, said: &str) -> Option<Then> {
        let open = self.transaction.take();
        let found = self.rule_for(said, open.as_ref());
        self.transaction = open;
        found
    }

    fn rule_for(&mut self, said: &str, open: Option<&Open>) -> Option<Then> {
        let recipients = open.map_or(&[][..], |open| &open.recipients);
        let mut used = self.shared.used.lock().expect("no thread panics with it");
        for (at, (when, then)) in self.shared.script.rules.iter().enumerate() {
            if !when.fits(said, self.number, recipients) {
                continue;
            }
            self.matched[at] += 1;
            let due = when.nth.is_none_or(|nth| nth == self.matched[at]);
            if due && when.times.is_none_or(|times| used[at] < times) {
                used[at] += 1;
                return Some(then.clone());
            }
        }
        None
    }

    async fn perform(&mut self, said: &str, then: &Then) -> Result<String, Ended> {
        for step in &then.0 {
            if matches!(step, Step::Send(_) | Step::Drip(..) | Step::Endless(_)) {
                self.check_patience(said);
            }
            self.step(step).await?;
        }
        let reply = then.reply().unwrap_or_default();
        self.over |= reply.starts_with("421");
        Ok(reply)
    }

    async fn step(&mut self, step: &Step) -> Result<(), Ended> {
        let wire = self.wire.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        match step {
            Step::Send(octets) => return wire.send(octets).await,
            Step::Drip(octets, pause) => {
                for octet in octets {
                    tokio::time::sleep(*pause).await;
                    wire.send(&[*octet]).await?;
                }
                return Ok(());
            }
            Step::Wait(time) => {
                tokio::time::sleep(*time).await;
                return Ok(());
            }
            Step::ReadSlowly(octets) => {
                self.pace = Some(*octets);
                return Ok(());
            }
            Step::Endless(octets) => loop {
                wire.send(octets).await?;
            },
            Step::Close => wire.close().await,
            Step::Cut => wire.cut()?,
            Step::Reset => wire.reset()?,
            Step::Stall => {
                wire.drain().await;
            }
            Step::StopReading => std::future::pending().await,
        }
        Err(io::Error::other("the script ends here"))
    }

    /// Notes what was sent before its time: just before a reply, only more of a pipeline may wait.
    fn check_patience(&mut self, said: &str) {
        self.ahead = self.wire().has_input();
        let may_go_on = matches!(verb(said).as_str(), "MAIL" | "RCPT" | "RSET" | ".") && self.offers("PIPELINING");
        // The handshake is the client's to begin.
        if self.ahead && !may_go_on && said != "TLS" {
            self.violation(&format!("octets sent before the reply to {said:?}"));
        }
    }

    fn check_command(&self, line: &[u8], command: &str) {
        let verb = verb(command);
        for fault in strict::line_faults(line, strict::command_limit(&verb)) {
            self.violation(&format!("{fault} in a command: {command:?}"));
        }
        if self.over && verb != "QUIT" {
            self.violation_unless_ahead(&format!("{command:?} after a 421"));
        }
        if !matches!(verb.as_str(), "MAIL" | "RCPT") {
            return;
        }
        for fault in strict::path_faults(command, self.offered.as_deref().unwrap_or_default()) {
            self.violation(&format!("{command:?}: {fault}"));
        }
        let smtputf8 = |parameters: &[String]| parameters.iter().any(|p| p.eq_ignore_ascii_case("SMTPUTF8"));
        let said = self.transaction.as_ref().is_some_and(|open| smtputf8(&open.parameters));
        if !command.is_ascii() && !said && !smtputf8(&strict::parameters(command)) {
            self.violation(&format!("{command:?}: not ASCII, without SMTPUTF8"));
        }
    }

    async fn line(&mut self) -> Result<Vec<u8>, Ended> {
        let line = self.wire().line().await?;
        if line.ends_with(b"\n") {
            return Ok(line);
        }
        if !line.is_empty() {
            self.shared.note(|record| record.notes.push(format!("connection {}: ended within a line", self.number)));
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn wire(&mut self) -> &mut Wire {
        self.wire.as_mut().expect("only a failed handshake takes it, and that ends the session")
    }

    fn offers(&self, keyword: &str) -> bool {
        self.offered.iter().flatten().any(|offer| offer == keyword)
    }

    fn violation_unless_ahead(&self, what: &str) {
        if !(self.ahead && self.offers("PIPELINING")) {
            self.violation(what);
        }
    }

    fn violation(&self, what: &str) {
        self.shared.note(|record| record.violations.push(format!("connection {}: {what}", self.number)));
    }
}

fn verb(line: &str) -> String {
    line.split(' ').next().unwrap_or_default().to_ascii_uppercase()
}

fn base64(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let sextets = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0u32, |bits, octet| bits << 8 | u32::from(*octet)) << (8 * (3 - chunk.len()));
        let kept = chunk.len() + 1;
        (0..4)
            .map(move |i| if i < kept { char::from(ALPHABET[(bits >> (18 - 6 * i) & 63) as usize]) } else { '=' })
            .collect::<String>()
    };
    text.as_bytes().chunks(3).map(sextets).collect()
}
