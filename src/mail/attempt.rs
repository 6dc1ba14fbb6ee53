//! The record of an attempt: what the product exists to keep.
//!
//! The JSON of these types is fixed: scripts read it.

use std::net::{IpAddr, SocketAddr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, Serializer};

use super::{Address, MailKey, ReversePath};
use crate::text;

/// What became of one recipient in one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The peer took responsibility: 2xx to the final dot (RFC 5321 section 4.2.5).
    Delivered,
    /// Kept for a next pass.
    Deferred,
    /// For good.
    Failed,
}

/// How far an attempt had come when its outcome was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Finding the next hop's hosts and addresses.
    Dns,
    /// Opening the TCP connection, or TLS from the first byte.
    Connect,
    /// Waiting for the 220.
    Banner,
    /// EHLO or HELO.
    Ehlo,
    /// STARTTLS and its handshake.
    Starttls,
    /// AUTH.
    Auth,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Rcpt,
    /// DATA and the content up to the final dot.
    Data,
    /// The final dot: from here on the peer may have the mail.
    EndOfData,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Delivered => "delivered",
            Self::Deferred => "deferred",
            Self::Failed => "failed",
        })
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Banner => "banner",
            Self::Ehlo => "ehlo",
            Self::Starttls => "starttls",
            Self::Auth => "auth",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
            Self::EndOfData => "end-of-data",
        })
    }
}

/// Facts of the TLS session that a transaction went over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsFacts {
    /// Such as `TLSv1.3`.
    pub version: String,
    /// Such as `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// Whether the certificate was valid for the host's name.
    pub verified: bool,
    /// Why not, where it was not.
    pub reason: Option<String>,
}

/// One recipient's outcome in one attempt, with everything an auditor asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// Who.
    pub recipient: Address,
    /// What became of it.
    pub outcome: Outcome,
    /// Reply code, 200 to 599; `None` where there was no reply.
    pub code: Option<u16>,
    /// Enhanced status code such as `4.2.0` (RFC 3463): the peer's, or ours for what we decided.
    pub enhanced: Option<String>,
    /// The whole reply as received, codes included, lines joined by `\n`.
    pub reply: Option<String>,
    /// Where in the attempt it was decided.
    pub stage: Stage,
    /// The domain, literal or gateway the mail was routed to.
    pub next_hop: Option<String>,
    /// The MX host or gateway by name.
    pub host: Option<String>,
    /// The peer's IP address.
    pub address: Option<IpAddr>,
    /// The peer's port.
    pub port: Option<u16>,
    /// Our end of the connection, as `ip:port`.
    pub local_address: Option<String>,
    /// TLS, where there was any.
    pub tls: Option<TlsFacts>,
    /// What was done otherwise than the best case, in words.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Why, in a sentence, where no reply says it.
    pub cause: Option<String>,
    /// Whether the peer may have the mail although the outcome is a deferral (RFC 1047).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_doubt: bool,
    /// The peer was given what the sender asks of notifications, and tells him itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dsn_handed_on: bool,
    /// When the outcome was known.
    #[serde(serialize_with = "rfc3339")]
    pub time: DateTime<Utc>,
    /// Seconds from the start of the attempt's work on this recipient to its outcome.
    pub duration: f64,
}

impl Recorded {
    /// The peer's address with the port, where one was connected to or would have been.
    pub fn peer(&self) -> Option<SocketAddr> {
        Some((self.address?, self.port?).into())
    }

    /// The outcome of somebody whose attempt ended, for `why`, before anything was sent. It tells
    /// nothing of him: what was known before stands.
    pub fn not_tried(recipient: Address, why: &impl std::fmt::Display, time: DateTime<Utc>) -> Self {
        Self::without_contact(recipient, Outcome::Deferred, Stage::Connect, format!("{why}{NOT_TRIED}"), time)
    }

    /// Whether it is one of [`Recorded::not_tried`].
    pub fn is_not_tried(&self) -> bool {
        self.code.is_none() && self.cause.as_deref().is_some_and(|cause| cause.ends_with(NOT_TRIED))
    }

    /// An outcome that was decided without a peer: only who, what, where and why.
    pub fn without_contact(
        recipient: Address,
        outcome: Outcome,
        stage: Stage,
        cause: String,
        time: DateTime<Utc>,
    ) -> Self {
        Self {
            recipient,
            outcome,
            code: None,
            enhanced: None,
            reply: None,
            stage,
            next_hop: None,
            host: None,
            address: None,
            port: None,
            local_address: None,
            tls: None,
            notes: Vec::new(),
            cause: Some(cause),
            in_doubt: false,
            dsn_handed_on: false,
            time,
            duration: 0.0,
        }
    }

    /// An outcome whose process died in the attempt, `with` whom it may have been. How far it
    /// had come nobody knows: `end-of-data` is the farthest.
    pub fn died(recipient: Address, with: &str, time: DateTime<Utc>) -> Self {
        let cause = format!("{IN_DOUBT}redeliver died in this attempt{with}; the peer may have the mail (RFC 1047)");
        let known = Self::without_contact(recipient, Outcome::Deferred, Stage::EndOfData, cause, time);
        Self { in_doubt: true, ..known }
    }

    /// An outcome whose process died in the attempt before anybody was to be contacted for
    /// this recipient.
    pub fn died_before_contact(recipient: Address, time: DateTime<Utc>) -> Self {
        let cause = "redeliver died in this attempt; nobody had been contacted for this recipient".to_owned();
        Self::without_contact(recipient, Outcome::Deferred, Stage::Dns, cause, time)
    }
}

/// A next hop that an attempt is going to try: on record before the first packet, since
/// whoever dies cannot say any more whom it was with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// The domain, literal or gateway.
    pub next_hop: String,
    /// For whom.
    pub recipients: Vec<Address>,
    /// The host that is tried first, and its address.
    pub host: String,
    /// With the port.
    pub address: SocketAddr,
    /// Further addresses that may be tried.
    pub others: usize,
}

impl Planned {
    /// What is known of `recipient` where the process died: in doubt.
    pub fn in_doubt(&self, recipient: Address, time: DateTime<Utc>) -> Recorded {
        let others = match self.others {
            0 => String::new(),
            1 => ", or 1 other address".to_owned(),
            n => format!(", or {n} other addresses"),
        };
        let with = format!(" with {} ({}){others}", self.host, self.address);
        let mut recorded = Recorded::died(recipient, &with, time);
        recorded.next_hop = Some(self.next_hop.clone());
        if self.others == 0 {
            recorded.host = Some(self.host.clone());
            recorded.address = Some(self.address.ip());
            recorded.port = Some(self.address.port());
        }
        recorded
    }
}

/// How the cause of every outcome in doubt begins, for those who read it; what decides is
/// [`Recorded::in_doubt`].
pub const IN_DOUBT: &str = "in doubt: ";

/// How the cause of what was not tried ends.
const NOT_TRIED: &str = ", before anything was sent";

/// How a note begins that says who ended the run in which an attempt was broken off.
pub const CANCELLED_BY: &str = "the run was cancelled by ";

/// Who said a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// We.
    Client,
    /// The peer.
    Server,
}

/// One command or one whole reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialogueEntry {
    /// When its last byte was sent or read.
    #[serde(serialize_with = "rfc3339")]
    pub time: DateTime<Utc>,
    /// Who said it.
    pub from: Side,
    /// The line or lines without line ends (joined by `\n`); credentials are `****`,
    /// content is `[message content, N octets]`, events stand in brackets too.
    pub text: String,
    /// Over which connection, while it is under way to the store; what is read has an event
    /// instead wherever another connection goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<SocketAddr>,
}

impl DialogueEntry {
    /// Whether nobody said it: it notes what happened to the connection.
    pub fn is_event(&self) -> bool {
        self.from == Side::Client && self.text.starts_with('[') && !self.text.starts_with("[message content")
    }

    /// `->` by us, `<-` by the peer, `--` by nobody.
    pub fn arrow(&self) -> &'static str {
        match self.from {
            Side::Client if self.is_event() => "--",
            Side::Client => "->",
            Side::Server => "<-",
        }
    }
}

/// The commands and replies of an attempt, in order of time.
pub type Dialogue = Vec<DialogueEntry>;

/// Where an attempt's record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AttemptState {
    /// Begun; its process is at it.
    Open,
    /// Every recipient has its outcome.
    Settled,
    /// The process died in it, or a final dot stayed unanswered: the peer may have the mail.
    InDoubt,
}

/// One attempt of one mail, as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attempt {
    /// 1 for the mail's first.
    pub number: u32,
    /// When it was begun, before contact.
    #[serde(serialize_with = "rfc3339")]
    pub started: DateTime<Utc>,
    /// When its last outcome was filed; `None` while open, and where the process died.
    #[serde(serialize_with = "rfc3339_option")]
    pub finished: Option<DateTime<Utc>>,
    /// Open, settled or in doubt.
    pub state: AttemptState,
    /// Whether it used up a pass.
    pub counted: bool,
    /// One outcome per recipient known so far.
    pub recipients: Vec<Recorded>,
    /// What was said.
    pub dialogue: Dialogue,
    /// The mail it was an attempt of.
    pub key: MailKey,
    /// That mail's reverse-path.
    pub sender: ReversePath,
}

/// RFC 3339 in UTC with milliseconds: the one way this crate writes a time.
pub(super) fn rfc3339<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text::rfc3339(*time))
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn rfc3339_option<S: Serializer>(time: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => rfc3339(time, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_written_as_the_contract_has_it() {
        let time = DateTime::from_timestamp(1_700_000_000, 0).expect("in range");
        let recipient = Address::parse("b@x.example").expect("an address");
        let attempt = Attempt {
            number: 1,
            started: time,
            finished: None,
            state: AttemptState::InDoubt,
            counted: true,
            recipients: vec![Recorded::without_contact(
                recipient,
                Outcome::Deferred,
                Stage::EndOfData,
                "why".into(),
                time,
            )],
            dialogue: vec![DialogueEntry { time, from: Side::Client, text: "QUIT".into(), peer: None }],
            key: MailKey::parse("K").expect("a key"),
            sender: ReversePath::Null,
        };
        let expected = concat!(
            r#"{"number":1,"started":"2023-11-14T22:13:20.000Z","finished":null,"state":"inDoubt","counted":true,"recipients":["#,
            r#"{"recipient":"b@x.example","outcome":"deferred","code":null,"enhanced":null,"reply":null,"stage":"end-of-data","#,
            r#""nextHop":null,"host":null,"address":null,"port":null,"localAddress":null,"tls":null,"notes":[],"cause":"why","#,
            r#""time":"2023-11-14T22:13:20.000Z","duration":0.0}],"dialogue":[{"time":"2023-11-14T22:13:20.000Z","from":"client","#,
            r#""text":"QUIT"}],"key":"K","sender":null}"#
        );
        assert_eq!(serde_json::to_string(&attempt).expect("JSON"), expected);
    }

    #[test]
    fn a_process_that_died_may_have_been_with_any_address_of_its_next_hop() {
        let (time, recipient) = (DateTime::UNIX_EPOCH, Address::parse("b@x.example").expect("an address"));
        let address = "192.0.2.1:25".parse().expect("an address");
        let host = "mx.x.example".to_owned();
        let mut planned = Planned { next_hop: "x.example".into(), recipients: Vec::new(), host, address, others: 0 };
        for (others, with, host) in [
            (0, "mx.x.example (192.0.2.1:25); ", Some("mx.x.example")),
            (1, "mx.x.example (192.0.2.1:25), or 1 other address; ", None),
            (2, "mx.x.example (192.0.2.1:25), or 2 other addresses; ", None),
        ] {
            planned.others = others;
            let died = planned.in_doubt(recipient.clone(), time);
            assert!(died.in_doubt && died.cause.as_deref().is_some_and(|cause| cause.contains(with)), "{died:?}");
            assert_eq!((died.next_hop.as_deref(), died.host.as_deref()), (Some("x.example"), host));
        }
    }
}
