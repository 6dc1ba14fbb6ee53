//! Mailets: what a rule does with the recipients it matched.

use super::add_header::AddHeader;
use super::config::Known;
use super::dkim_sign::DkimSign;
use super::dsn_bounce::DsnBounce;
use super::log_message::LogMessage;
use super::mail_attribute::{RemoveMailAttribute, SetMailAttribute};
use super::metrics_mailet::MetricsMailet;
use super::part::Part;
use super::remote_delivery::RemoteDelivery;
use super::set_error_message::SetErrorMessage;
use super::set_reverse_path::SetReversePath;
use super::to_processor::ToProcessor;
use super::to_repository::ToRepository;
use super::{End, Pass, null};
use crate::mail::Recorded;
use crate::yaml::{Fields, nearest};

/// A mailet with its parameters.
#[derive(Debug, Clone)]
pub(super) enum Mailet {
    /// One attempt.
    RemoteDelivery(Box<RemoteDelivery>),
    /// To rest in a repository.
    ToRepository(ToRepository),
    /// On in another processor.
    ToProcessor(ToProcessor),
    /// Out.
    Null,
    /// Attributes set.
    SetMailAttribute(SetMailAttribute),
    /// Attributes removed.
    RemoveMailAttribute(RemoveMailAttribute),
    /// The error text set.
    SetErrorMessage(SetErrorMessage),
    /// Another envelope sender.
    SetReversePath(SetReversePath),
    /// Signed when it is sent.
    DkimSign(DkimSign),
    /// The sender told.
    DsnBounce(DsnBounce),
    /// A header field in front.
    AddHeader(AddHeader),
    /// A line in the log.
    LogMessage(LogMessage),
    /// Counted.
    Metrics(MetricsMailet),
}

/// The names of all mailets, for "did you mean".
const NAMES: [&str; 13] = [
    "RemoteDelivery",
    "ToRepository",
    "ToProcessor",
    "Null",
    "SetMailAttribute",
    "RemoveMailAttribute",
    "SetErrorMessage",
    "SetReversePath",
    "DKIMSign",
    "DSNBounce",
    "AddHeader",
    "LogMessage",
    "MetricsMailet",
];

/// Where a part goes after a mailet.
pub(super) enum Step {
    /// To the next rule of this processor.
    Next(Part),
    /// To the first rule of another.
    Go(Part, String),
    /// To its end.
    End(Ended),
}

/// A part at its end.
pub(super) struct Ended {
    pub(super) part: Part,
    pub(super) end: End,
    /// Outcomes of an attempt that does not count.
    pub(super) uncounted: Vec<Recorded>,
}

/// A part whose mailet failed by a fault of ours, with the cause.
pub(super) struct Failed {
    pub(super) part: Part,
    pub(super) cause: String,
}

impl Failed {
    pub(super) fn new(part: Part, cause: String) -> Self {
        Self { part, cause }
    }
}

impl Ended {
    pub(super) fn new(part: Part, end: End) -> Self {
        Self { part, end, uncounted: Vec::new() }
    }
}

impl Mailet {
    /// Reads the parameters of mailet `name` from the keys of its rule.
    pub(super) fn read(name: &str, fields: &mut Fields<'_>, known: &Known<'_>) -> Option<Self> {
        match name {
            "RemoteDelivery" => RemoteDelivery::read(fields, known).map(Box::new).map(Self::RemoteDelivery),
            "ToRepository" => ToRepository::read(fields, known).map(Self::ToRepository),
            "ToProcessor" => ToProcessor::read(fields, known).map(Self::ToProcessor),
            "Null" => Some(Self::Null),
            "SetMailAttribute" => SetMailAttribute::read(fields).map(Self::SetMailAttribute),
            "RemoveMailAttribute" => RemoveMailAttribute::read(fields).map(Self::RemoveMailAttribute),
            "SetErrorMessage" => SetErrorMessage::read(fields).map(Self::SetErrorMessage),
            "SetReversePath" => SetReversePath::read(fields).map(Self::SetReversePath),
            "DKIMSign" => DkimSign::read(fields).map(Self::DkimSign),
            "DSNBounce" => Some(Self::DsnBounce(DsnBounce::read(fields))),
            "AddHeader" => AddHeader::read(fields).map(Self::AddHeader),
            "LogMessage" => Some(Self::LogMessage(LogMessage::read(fields))),
            "MetricsMailet" => MetricsMailet::read(fields).map(Self::Metrics),
            _ => None,
        }
    }

    /// The name, where there is such a mailet; else what would be right.
    pub(super) fn check_name(name: &str) -> Result<(), String> {
        if NAMES.contains(&name) {
            return Ok(());
        }
        Err(match nearest(name, NAMES) {
            Some(known) => format!("unknown mailet '{name}': did you mean '{known}'?"),
            None => format!("unknown mailet '{name}': known are {}", NAMES.join(", ")),
        })
    }

    /// Does what it does with a part. `Err`: by a fault of ours it could not.
    pub(super) async fn run(&self, part: Part, pass: &Pass<'_>) -> Result<Vec<Step>, Failed> {
        Ok(match self {
            Self::RemoteDelivery(mailet) => mailet.run(part, pass).await,
            Self::ToRepository(mailet) => mailet.run(part, pass),
            Self::ToProcessor(mailet) => mailet.run(part),
            Self::Null => null::run(part),
            Self::SetMailAttribute(mailet) => mailet.run(part),
            Self::RemoveMailAttribute(mailet) => mailet.run(part),
            Self::SetErrorMessage(mailet) => mailet.run(part),
            Self::SetReversePath(mailet) => mailet.run(part),
            Self::DkimSign(mailet) => mailet.run(part),
            Self::DsnBounce(mailet) => mailet.run(part, pass).await,
            Self::AddHeader(mailet) => mailet.run(part),
            Self::LogMessage(mailet) => return mailet.run(part, pass).await,
            Self::Metrics(mailet) => mailet.run(part),
        })
    }

    /// Whether it leaves nothing for the next rule.
    pub(super) fn consumes(&self) -> bool {
        match self {
            Self::RemoteDelivery(_) | Self::ToProcessor(_) | Self::Null => true,
            Self::ToRepository(mailet) => !mailet.pass_through,
            Self::LogMessage(mailet) => !mailet.pass_through,
            _ => false,
        }
    }
}
