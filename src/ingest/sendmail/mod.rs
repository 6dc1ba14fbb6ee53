//! The command line of `sendmail`, as mail programs have called it for forty years.
//!
//! [`parse`] reads the options once; whom the words name is known only together with the
//! machine that they are said on ([`Invocation::parties`]), which may be the service's view
//! of it and not the caller's.

mod options;

use super::local::Here;
use crate::mail::AddressListError;
use crate::mail::{Address, AddressError, Envelope, MailKey, Malformed, Notify, RecipientRequest, Ret, ReversePath};

pub use options::parse;

/// What a command line asks for, in its words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Invocation {
    /// What is to be done; everything below belongs to [`Mode::Submit`], the recipients to
    /// [`Mode::Verify`] too.
    pub mode: Mode,
    /// The recipients on the command line, in their order; each word may name several.
    pub recipients: Vec<String>,
    /// `-t`: the recipients of the header are added, and `Bcc:` is removed.
    pub recipients_from_header: bool,
    /// A line with a single dot ends the message; not with `-i`.
    pub dot_ends_input: bool,
    /// `-f` or `-r`; without it the user at this host.
    pub reverse_path: Option<String>,
    /// `-F`: the name for a `From:` that is missing.
    pub full_name: Option<String>,
    /// `-O smtputf8`: header octets outside ASCII are UTF-8 by declaration (RFC 6531).
    pub smtputf8: bool,
    /// `-O requiretls`: to servers alone that promise TLS all the way (RFC 8689).
    pub require_tls: bool,
    /// `--format json`: as JSON Lines; only with [`Mode::List`].
    pub json: bool,
    /// `-v`: show what happens.
    pub verbose: bool,
    /// `-N`, for all recipients.
    pub notify: Option<Notify>,
    /// `-R`.
    pub ret: Option<Ret>,
    /// `-V`: ENVID, in xtext.
    pub envid: Option<String>,
}

/// What `sendmail` can be told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Read a message from standard input and take it (`-bm`, or no `-b`).
    Submit,
    /// Speak SMTP on standard input and output (`-bs`).
    Smtp,
    /// List what waits (`-bp`).
    List,
    /// Say how the recipients would be routed, and send nothing (`-bv`).
    Verify,
    /// Say what is known of next hops: no option of `sendmail`, but asked of a service too.
    Peers,
    /// Be the service (`-bd`).
    Serve,
    /// Say what can be asked for (`--help`).
    Help,
    /// Attempt what waits, now (`-q`).
    Sweep(Waiting),
    /// Rebuild the aliases (`-bi`, `-I`): they are read as they are, so nothing is to be done.
    Aliases,
}

/// Which of the mails that wait are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// All (`-q`).
    All,
    /// The one with this key (`-qI`).
    Key(MailKey),
    /// Those with a recipient of this domain (`-qR`).
    Domain(String),
}

/// Whom a command line names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parties {
    /// `None` where nobody was named, which is not the same as `<>`.
    pub reverse_path: Option<ReversePath>,
    /// In their order.
    pub recipients: Vec<Address>,
}

/// Why a command line is refused. The text is one line and safe to print.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// An option that is not known.
    #[error("unknown option {0:?}")]
    Unknown(String),
    /// An option without the argument it needs.
    #[error("option -{0} needs an argument")]
    NoArgument(char),
    /// An argument that the option does not take.
    #[error("option -{0} does not take {1:?}: {2}")]
    Argument(char, String, &'static str),
    /// An argument of -N, -R or -V that is none (RFC 3461).
    #[error("option -{0} does not take {1:?}: {2}")]
    Dsn(char, String, #[source] Malformed),
    /// What `--format` does not know.
    #[error("there is no format {0:?}: known are json and text")]
    Format(String),
    /// Neither a recipient nor `-t`.
    #[error("no recipient: name one, or use -t to take those of the header")]
    NoRecipient,
    /// The reverse-path is no address.
    #[error("reverse-path {0:?}: {1}")]
    ReversePath(String, #[source] AddressListError),
    /// A recipient is no address.
    #[error("recipient {0}")]
    Recipient(#[from] AddressListError),
}

impl UsageError {
    /// The code of sysexits(3): 65 for an address that is none, 64 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::ReversePath(..) | Self::Recipient(_) => 65,
            _ => 64,
        }
    }
}

impl Default for Invocation {
    fn default() -> Self {
        Self {
            mode: Mode::Submit,
            recipients: Vec::new(),
            recipients_from_header: false,
            dot_ends_input: true,
            reverse_path: None,
            full_name: None,
            smtputf8: false,
            require_tls: false,
            json: false,
            verbose: false,
            notify: None,
            ret: None,
            envid: None,
        }
    }
}

impl Invocation {
    /// Whom it names, on this machine: a user of it may be named without a domain, as cron
    /// does.
    ///
    /// # Errors
    /// [`UsageError`], with its exit code.
    pub fn parties(&self, here: &Here) -> Result<Parties, UsageError> {
        let mut recipients = Vec::new();
        for operand in &self.recipients {
            recipients.extend(named(operand, here)?);
        }
        if recipients.is_empty() && !self.recipients_from_header {
            return Err(self.nobody());
        }
        let reverse_path = self.reverse_path.as_deref().map(|text| reverse_path(text, here)).transpose()?;
        Ok(Parties { reverse_path, recipients })
    }

    /// Why operands that name nobody are too few: one that is empty is an unset variable of a script.
    fn nobody(&self) -> UsageError {
        let empty = self.recipients.iter().find(|operand| operand.trim().is_empty());
        let why = |operand: &String| AddressListError::Address(operand.clone(), AddressError::Empty).into();
        empty.map_or(UsageError::NoRecipient, why)
    }

    /// The envelope, with what is asked for all recipients.
    pub(super) fn envelope(&self, reverse_path: ReversePath, recipients: Vec<Address>) -> Envelope {
        let mut envelope = Envelope::new(reverse_path, recipients);
        envelope.smtputf8 = self.smtputf8;
        envelope.dsn.ret = self.ret;
        envelope.dsn.envid.clone_from(&self.envid);
        for recipient in &envelope.recipients {
            envelope.dsn.ask(recipient, RecipientRequest { notify: self.notify, ..RecipientRequest::default() });
        }
        envelope
    }
}

/// Those whom an operand names. Separators alone name nobody, since cron cuts `MAILTO="a , b"`
/// at its blanks; nor does nothing at all, where somebody else is named.
fn named(operand: &str, here: &Here) -> Result<Vec<Address>, AddressListError> {
    let operand = without_line_end(operand);
    one_line(operand)?;
    here.list(operand)
}

/// Lists out of files of other systems leave a CR at the end, careless programs a line end.
fn without_line_end(word: &str) -> &str {
    word.trim_end_matches(['\r', '\n'])
}

/// Refuses line ends and the like: folded lists are for header fields, and what stands
/// behind a line end here is an attempt to slip a recipient in.
fn one_line(operand: &str) -> Result<(), AddressListError> {
    match operand.chars().find(|c| c.is_control()) {
        Some(c) => Err(AddressListError::Address(operand.to_owned(), AddressError::Control(c.into()))),
        None => Ok(()),
    }
}

/// An address, with a name in front of it or not; `<>` and nothing at all are null.
fn reverse_path(text: &str, here: &Here) -> Result<ReversePath, UsageError> {
    let text = without_line_end(text);
    if matches!(text.trim(), "" | "<>") {
        return Ok(ReversePath::Null);
    }
    let wrong = |error| UsageError::ReversePath(text.to_owned(), error);
    one_line(text).map_err(wrong)?;
    let mut addresses = here.senders(text).map_err(wrong)?.into_iter();
    match (addresses.next(), addresses.next()) {
        (Some(address), None) => Ok(ReversePath::Address(address)),
        (None, _) => Err(wrong(AddressListError::Address(text.to_owned(), AddressError::Empty))),
        (_, Some(_)) => Err(wrong(AddressListError::Several)),
    }
}
