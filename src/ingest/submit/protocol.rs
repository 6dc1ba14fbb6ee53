//! What client and service say to each other.
//!
//! A frame is its length (four octets, the most significant first) and so many octets. The
//! request and the answers are JSON; an answer is `{"Ok": ...}` or `{"Err": {"exit": code of
//! sysexits(3), "message": why}}`, the octets of a message stand in their frames as they are.
//!
//! A request names the version of this contract that it needs, which is the lowest that knows
//! all its members: a new `sendmail` is understood by a service of yesterday as long as it
//! is asked for nothing new, and refused where it is; no member is passed over in silence.

use std::io;
use std::time::Duration;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::ingest::sendmail::{Invocation, Mode};
use crate::mail::{Notify, Ret, parse_envid};

/// The newest version that is known here. Whoever adds a member raises it, and says in
/// [`Request::lowest_version`] that a request with the new member needs it.
const VERSION: u64 = 2;

/// Octets of one frame at most: a request with a thousand recipients fits.
pub(super) const MAX_FRAME: usize = 1 << 20;

/// How long one frame may take that somebody may be typing, or reading in a pager.
pub(super) const PATIENCE: Duration = Duration::from_mins(5);

/// How long a question is waited for that needs no mail and no peer.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Want {
    /// A message is to be taken.
    Submit,
    /// A session in SMTP.
    Smtp,
    /// What waits.
    List,
    /// How the recipients would be routed.
    Verify,
    /// What is known of next hops.
    Peers,
}

/// The first frame: what the command line said, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct Request {
    version: u64,
    pub(super) want: Want,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    recipients: Vec<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    recipients_from_header: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    ignore_dots: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reverse_path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    full_name: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    smtputf8: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    require_tls: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    notify: Option<Notify>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ret: Option<Ret>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "envid")]
    envid: Option<String>,
}

/// Whoever may submit may write what he likes to the socket.
fn envid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    text.map(|text| parse_envid(&text).map_err(D::Error::custom)).transpose()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Why something is not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The code of sysexits(3) that the client ends with.
    pub exit: u8,
    /// In words.
    pub message: String,
}

impl Refusal {
    /// For the time being.
    pub(super) fn for_now(message: impl Into<String>) -> Self {
        Self { exit: 75, message: message.into() }
    }
}

/// What the service says.
pub(super) type Answer<T> = Result<T, Refusal>;

impl Request {
    /// `None` where it is nothing that a service is asked for.
    pub(super) fn of(invocation: &Invocation) -> Option<Self> {
        let want = match invocation.mode {
            Mode::Submit => Want::Submit,
            Mode::Smtp => Want::Smtp,
            Mode::List => Want::List,
            Mode::Verify => Want::Verify,
            Mode::Peers => Want::Peers,
            Mode::Serve | Mode::Help | Mode::Sweep(_) | Mode::Aliases => return None,
        };
        let mut request = Self {
            version: VERSION,
            want,
            recipients: invocation.recipients.clone(),
            recipients_from_header: invocation.recipients_from_header,
            ignore_dots: !invocation.dot_ends_input,
            reverse_path: invocation.reverse_path.clone(),
            full_name: invocation.full_name.clone(),
            smtputf8: invocation.smtputf8,
            require_tls: invocation.require_tls,
            notify: invocation.notify,
            ret: invocation.ret,
            envid: invocation.envid.clone(),
        };
        request.version = request.lowest_version();
        Some(request)
    }

    /// The first version that knows all that this request says: the second tells senders of what
    /// they ask to be told.
    fn lowest_version(&self) -> u64 {
        let asks = self.notify.is_some() || self.ret.is_some() || self.envid.is_some();
        if asks { 2 } else { 1 }
    }

    /// Reads what a client asks for.
    ///
    /// # Errors
    /// What is not known here is refused for the time being: a service that was restarted
    /// since its program was replaced knows it.
    pub(super) fn read(frame: &[u8]) -> Answer<Self> {
        let unread = |why: &dyn std::fmt::Display| Refusal::for_now(format!("the request cannot be read: {why}"));
        let value: Value = serde_json::from_slice(frame).map_err(|error| unread(&error))?;
        match value["version"].as_u64() {
            Some(1..=VERSION) => {}
            Some(needed) => {
                return Err(Refusal::for_now(format!(
                    "the running service is older than this program: it knows version {VERSION} of submit.sock, \
                     and what is asked for needs {needed}; restart the service"
                )));
            }
            None => return Err(unread(&"it names no version: this program is older than the running service")),
        }
        serde_json::from_value(value).map_err(|error| {
            Refusal::for_now(format!("the running service does not know all that is asked for: {error}; restart it"))
        })
    }

    /// As if it had been read from the service's own command line.
    pub(super) fn into_invocation(self) -> Invocation {
        Invocation {
            recipients: self.recipients,
            recipients_from_header: self.recipients_from_header,
            dot_ends_input: !self.ignore_dots,
            reverse_path: self.reverse_path,
            full_name: self.full_name,
            smtputf8: self.smtputf8,
            require_tls: self.require_tls,
            notify: self.notify,
            ret: self.ret,
            envid: self.envid,
            ..Invocation::default()
        }
    }
}

pub(super) async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = usize::try_from(stream.read_u32().await?).map_err(io::Error::other)?;
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} octets is too long")));
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

pub(super) async fn read_json<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    Ok(serde_json::from_slice(&read_frame(stream).await?)?)
}

pub(super) async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), octets: &[u8]) -> io::Result<()> {
    stream.write_u32(u32::try_from(octets.len()).map_err(io::Error::other)?).await?;
    stream.write_all(octets).await
}

pub(super) async fn write_json(stream: &mut (impl AsyncWrite + Unpin), value: &impl Serialize) -> io::Result<()> {
    write_frame(stream, &serde_json::to_vec(value)?).await
}

/// What [`write_json`] writes.
pub(super) fn json_frame(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let octets = serde_json::to_vec(value)?;
    let length = u32::try_from(octets.len()).map_err(io::Error::other)?;
    Ok([&length.to_be_bytes()[..], &octets].concat())
}

pub(super) async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, work).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::sendmail::parse;

    fn invocation(line: &str) -> Invocation {
        parse(line.split(' ').filter(|word| !word.is_empty()).map(Into::into)).expect(line)
    }

    #[test]
    fn an_invocation_is_handed_over_as_it_is_in_the_lowest_version_that_can_say_it() {
        for (line, version) in [
            ("b@x.example", 1),
            ("-f <> b@x.example", 1),
            ("-f a@y.example -F Ann -t -i -O requiretls -O smtputf8", 1),
            ("-N never b@x.example", 2),
            ("-R hdrs b@x.example", 2),
            ("-t -N delay,success -R full -V id+2B1", 2),
        ] {
            let asked = invocation(line);
            let request = Request::of(&asked).expect("for a service");
            assert_eq!(request.version, version, "{line}");
            let frame = serde_json::to_vec(&request).expect("written");
            assert_eq!(Request::read(&frame).expect("read").into_invocation(), asked, "{line}");
        }
        let frame = serde_json::to_string(&Request::of(&invocation("b@x.example"))).expect("written");
        assert_eq!(frame, r#"{"version":1,"want":"submit","recipients":["b@x.example"]}"#);
    }

    #[test]
    fn what_is_not_known_is_refused_for_the_time_being_and_never_passed_over() {
        for (frame, why) in [
            (r#"{"version":3,"want":"submit","recipients":["b@x.example"]}"#, "needs 3; restart the service"),
            (r#"{"version":2,"want":"submit","notify":["SOMETIMES"]}"#, "NOTIFY is NEVER alone"),
            (r#"{"version":2,"want":"submit","envid":"a\r\nb"}"#, "xtext"),
            (r#"{"version":1,"want":"submit","holdUntil":"tomorrow"}"#, "unknown field `holdUntil`"),
            (r#"{"version":1,"want":"erase"}"#, "unknown variant `erase`"),
            (r#"{"version":1,"want":"submit","recipients":"b@x.example"}"#, "restart it"),
            (r#"{"version":0,"want":"list"}"#, "needs 0"),
            (r#"{"mode":"submit"}"#, "names no version"),
            ("[]", "names no version"),
            ("{", "cannot be read"),
        ] {
            let refusal = Request::read(frame.as_bytes()).expect_err(frame);
            assert!(refusal.exit == 75 && refusal.message.contains(why), "{frame}: {refusal:?}");
        }
    }
}
