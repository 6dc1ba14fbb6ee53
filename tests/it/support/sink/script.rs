//! What a scripted peer says: rules of "when this is said, then do that".
//!
//! The first rule that matches wins; what no rule matches is answered as a friendly host would.

use std::time::Duration;

use super::certificates::Identity;

/// A peer's behaviour. Made by `script![...]` or [`Script::new`], refined by the methods.
#[derive(Clone)]
pub(crate) struct Script {
    pub(super) rules: Vec<(When, Then)>,
    pub(super) capabilities: Vec<String>,
    pub(super) capabilities_in_tls: Option<Vec<String>>,
    pub(super) identity: Option<Identity>,
    pub(super) implicit_tls: bool,
    pub(super) credentials: Option<(String, String)>,
    pub(super) mechanisms: String,
    pub(super) max_connections: Option<usize>,
    pub(super) closes_beyond: Option<usize>,
    pub(super) receive_buffer: Option<u32>,
}

/// A [`Script`] of rules, which must be in scope:
/// `script!["RCPT TO:<b@" => "451 4.2.0 later", on("MAIL").nth(6) => reply("421 enough").then(close())]`
macro_rules! script {
    ($($when:expr => $then:expr),* $(,)?) => {
        Script::new()$(.on($when, $then))*
    };
}
pub(crate) use script;

impl Script {
    /// A host that accepts everything and offers PIPELINING, SIZE, 8BITMIME, SMTPUTF8 and ENHANCEDSTATUSCODES.
    pub(crate) fn new() -> Self {
        let offered = ["PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"];
        Self {
            rules: Vec::new(),
            capabilities: offered.map(str::to_owned).to_vec(),
            capabilities_in_tls: None,
            identity: None,
            implicit_tls: false,
            credentials: None,
            mechanisms: "PLAIN LOGIN".to_owned(),
            max_connections: None,
            closes_beyond: None,
            receive_buffer: None,
        }
    }

    /// Adds a rule behind those there are.
    pub(crate) fn on(mut self, when: impl Into<When>, then: impl Into<Then>) -> Self {
        self.rules.push((when.into(), then.into()));
        self
    }

    /// What EHLO lists, in place of the default.
    pub(crate) fn capabilities(mut self, offered: &[&str]) -> Self {
        self.capabilities = offered.iter().map(ToString::to_string).collect();
        self
    }

    /// What EHLO lists within TLS, where that differs.
    pub(crate) fn capabilities_in_tls(mut self, offered: &[&str]) -> Self {
        self.capabilities_in_tls = Some(offered.iter().map(ToString::to_string).collect());
        self
    }

    /// Offers STARTTLS with this certificate.
    pub(crate) fn starttls(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Speaks TLS from the first byte.
    pub(crate) fn implicit_tls(mut self, identity: Identity) -> Self {
        self.implicit_tls = true;
        self.starttls(identity)
    }

    /// Offers AUTH PLAIN LOGIN and takes only these credentials.
    pub(crate) fn auth(mut self, user: &str, password: &str) -> Self {
        self.credentials = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// The mechanisms of AUTH that are listed, instead of `PLAIN LOGIN`.
    pub(crate) fn mechanisms(mut self, listed: &str) -> Self {
        listed.clone_into(&mut self.mechanisms);
        self
    }

    /// Answers every connection beyond `limit` open ones with a 421.
    pub(crate) fn max_connections(mut self, limit: usize) -> Self {
        self.max_connections = Some(limit);
        self
    }

    /// Closes every connection beyond `limit` open ones without a word.
    pub(crate) fn closes_beyond(mut self, limit: usize) -> Self {
        self.closes_beyond = Some(limit);
        self
    }

    /// A small receive buffer, so that a peer that stops reading is felt at once.
    pub(crate) fn receive_buffer(mut self, octets: u32) -> Self {
        self.receive_buffer = Some(octets);
        self
    }
}

/// When a rule applies. A text is the beginning of a command line, case ignored; besides
/// there are `CONNECT` (the banner), `TLS` (instead of a handshake) and `.` (the final dot).
#[derive(Clone)]
pub(crate) struct When {
    prefix: String,
    connection: Option<usize>,
    recipient: Option<String>,
    accepted: usize,
    pub(super) nth: Option<usize>,
    pub(super) times: Option<usize>,
}

/// A condition to refine; see [`When`].
pub(crate) fn on(prefix: &str) -> When {
    When { prefix: prefix.to_ascii_uppercase(), connection: None, recipient: None, accepted: 0, nth: None, times: None }
}

impl When {
    /// Only on this connection; the first is 1.
    pub(crate) fn connection(mut self, number: usize) -> Self {
        self.connection = Some(number);
        self
    }

    /// Only while the open transaction has accepted this recipient.
    pub(crate) fn to(mut self, recipient: &str) -> Self {
        self.recipient = Some(recipient.to_owned());
        self
    }

    /// Only while the open transaction has accepted so many recipients, or more.
    pub(crate) fn accepted(mut self, recipients: usize) -> Self {
        self.accepted = recipients;
        self
    }

    /// Only the n-th time on one connection; the first is 1.
    pub(crate) fn nth(mut self, n: usize) -> Self {
        self.nth = Some(n);
        self
    }

    /// Only the first `n` times, over all connections.
    pub(crate) fn times(mut self, n: usize) -> Self {
        self.times = Some(n);
        self
    }

    /// Whether everything but the counters fits.
    pub(super) fn fits(&self, said: &str, connection: usize, recipients: &[String]) -> bool {
        said.to_ascii_uppercase().starts_with(&self.prefix)
            && self.connection.is_none_or(|number| number == connection)
            && self.recipient.as_ref().is_none_or(|recipient| recipients.contains(recipient))
            && recipients.len() >= self.accepted
    }
}

impl From<&str> for When {
    fn from(prefix: &str) -> Self {
        on(prefix)
    }
}

/// What a peer does, step by step.
#[derive(Debug, Clone, Default)]
pub(crate) struct Then(pub(super) Vec<Step>);

#[derive(Debug, Clone)]
pub(super) enum Step {
    Send(Vec<u8>),
    Drip(Vec<u8>, Duration),
    Wait(Duration),
    Endless(Vec<u8>),
    Close,
    Cut,
    Reset,
    Stall,
    StopReading,
    ReadSlowly(u32),
}

/// One reply; several lines are parted by `\n`, each ends with CRLF on the wire.
pub(crate) fn reply(text: &str) -> Then {
    raw(lines(text))
}

/// These bytes exactly; the first line decides what they mean to the peer itself.
pub(crate) fn raw(bytes: impl AsRef<[u8]>) -> Then {
    Then(vec![Step::Send(bytes.as_ref().to_vec())])
}

/// A reply, byte by byte, with a pause before each.
pub(crate) fn drip(text: &str, pause: Duration) -> Then {
    Then(vec![Step::Drip(lines(text), pause)])
}

/// Silence for a while.
pub(crate) fn wait(time: Duration) -> Then {
    Then(vec![Step::Wait(time)])
}

/// These bytes again and again, as long as the client takes them.
pub(crate) fn endless(bytes: impl AsRef<[u8]>) -> Then {
    Then(vec![Step::Endless(bytes.as_ref().to_vec())])
}

/// An orderly end of the connection.
pub(crate) fn close() -> Then {
    Then(vec![Step::Close])
}

/// An end of the connection that TLS is not told of.
pub(crate) fn cut() -> Then {
    Then(vec![Step::Cut])
}

/// A reset (RST) of the connection.
pub(crate) fn reset() -> Then {
    Then(vec![Step::Reset])
}

/// Not a word more, though everything is read.
pub(crate) fn stall() -> Then {
    Then(vec![Step::Stall])
}

/// Not a word more, and nothing is read: the client's window closes.
pub(crate) fn stop_reading() -> Then {
    Then(vec![Step::StopReading])
}

/// From now on no more than so many octets of content are read in a second.
pub(crate) fn read_slowly(octets: u32) -> Then {
    Then(vec![Step::ReadSlowly(octets)])
}

impl Then {
    /// These steps, and then those.
    pub(crate) fn then(mut self, next: impl Into<Self>) -> Self {
        self.0.extend(next.into().0);
        self
    }

    /// The first reply among the steps, without its line end.
    pub(super) fn reply(&self) -> Option<String> {
        self.0.iter().find_map(|step| match step {
            Step::Send(bytes) | Step::Drip(bytes, _) => Some(String::from_utf8_lossy(bytes).trim_end().to_owned()),
            _ => None,
        })
    }
}

impl From<&str> for Then {
    fn from(text: &str) -> Self {
        reply(text)
    }
}

fn lines(text: &str) -> Vec<u8> {
    text.split('\n').flat_map(|line| [line, "\r\n"]).collect::<String>().into_bytes()
}
