//! James's mailets: a row each, with what becomes of it here.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// What becomes of a mailet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Counterpart {
    /// A mailet of ours, with the parameters of James's that it has too.
    Mailet(&'static str, &'static [(&'static str, Kind)]),
    /// RemoteDelivery, whose own retries become passes.
    Delivery,
    /// `SetMailAttribute`: each child is an attribute.
    Attributes,
    /// None, and nothing is missing: it only did something for mailboxes, or looked on.
    Idle,
    /// None: the mail goes on without what this says.
    Undone(&'static str),
    /// None, and matchers may have asked for attributes that it set.
    Marks(&'static str),
    /// `DSNBounce`, whatever James wrote to the sender.
    Bounce,
    /// None: somebody, as this says, is no longer told. The mail goes on unless it has
    /// `passThrough: false`.
    Tells(&'static str),
    /// None: it ended the mail in a way of its own, as this says; with `passThrough: true` or
    /// `consume: false` it only took a copy.
    Ends(&'static str),
    /// The same, but a copy unless it has `consume: true`.
    Copies(&'static str),
}

/// How a parameter is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Boolean,
    Number,
    /// A text that may stand in a file of its own.
    Secret,
    /// The URL of a repository.
    Repository,
    /// Not taken over as it is, but not forgotten either.
    Elsewhere,
}

use Counterpart::{Attributes, Bounce, Copies, Delivery, Ends, Idle, Mailet, Marks, Tells, Undone};
use Kind::{Boolean, Elsewhere, Number, Repository, Secret, Text};

/// Parameters of RemoteDelivery that are ours too.
pub(super) const DELIVERY: [(&str, Kind); 22] = [
    ("outgoing", Text),
    ("outgoingQueue", Text),
    ("maxDnsProblemRetries", Number),
    ("timeout", Number),
    ("connectiontimeout", Number),
    ("sendpartial", Boolean),
    ("startTLS", Boolean),
    ("sslEnable", Boolean),
    ("verifyServerIdentity", Boolean),
    ("sslTrustAllCerts", Boolean),
    ("gateway", Text),
    ("gatewayPort", Number),
    ("gatewayUsername", Text),
    ("gatewayPassword", Secret),
    ("loadBalancing", Boolean),
    ("bind", Text),
    ("heloName", Text),
    ("deliveryThreads", Number),
    ("bounceProcessor", Text),
    ("maxRetries", Elsewhere),
    ("delayTime", Elsewhere),
    ("onSuccess", Elsewhere),
];

/// Parameters of James's mailets that tell the sender, and of our `DSNBounce`.
pub(super) const BOUNCE: [(&str, Kind); 12] = [
    ("sender", Text),
    ("prefix", Text),
    ("attachment", Text),
    ("messageString", Text),
    ("passThrough", Boolean),
    ("action", Text),
    ("defaultStatus", Text),
    // Of `Bounce` and `NotifySender`, where the report says the same.
    ("message", Elsewhere),
    ("attachError", Elsewhere),
    ("inline", Elsewhere),
    ("fakeDomainCheck", Elsewhere),
    ("notice", Elsewhere),
];

/// James's mailets that a container may have.
const MAILETS: &[(&str, Counterpart)] = &[
    ("RemoteDelivery", Delivery),
    ("ToRepository", Mailet("ToRepository", &[("repositoryPath", Repository), ("passThrough", Boolean)])),
    ("ToProcessor", Mailet("ToProcessor", &[("processor", Text), ("notice", Text)])),
    ("Null", Mailet("Null", &[])),
    ("SetMailAttribute", Attributes),
    ("RemoveMailAttribute", Mailet("RemoveMailAttribute", &[("name", Text)])),
    ("SetErrorMessage", Mailet("SetErrorMessage", &[("errorMessage", Text)])),
    ("AddHeader", Mailet("AddHeader", &[("name", Text), ("value", Text)])),
    ("SetMimeHeader", Mailet("AddHeader", &[("name", Text), ("value", Text)])),
    ("LogMessage", Mailet("LogMessage", &[("headers", Boolean), ("comment", Text), ("passThrough", Boolean)])),
    ("MetricsMailet", Mailet("MetricsMailet", &[("metricName", Text)])),
    ("DSNBounce", Bounce),
    ("Bounce", Bounce),
    ("NotifySender", Bounce),
    ("NotifyPostmaster", Tells("the postmaster is no longer told")),
    // The message leaves as it came.
    ("DKIMSign", Undone("mail leaves unsigned until a DKIMSign with privateKeyFile is written by hand")),
    ("EncapsulatedDKIMSign", Undone("mail leaves unsigned")),
    ("ConvertTo7Bit", Undone("8-bit mail leaves as it is")),
    ("SMIMESign", Undone("mail leaves unsigned")),
    ("Sign", Undone("mail leaves unsigned")),
    ("SMIMEDecrypt", Marks("mail leaves encrypted as it came")),
    ("RemoveMimeHeader", Undone("the header fields stay in mail that comes in by SMTP")),
    ("RemoveMimeHeaderByPrefix", Undone("the header fields stay in mail that comes in by SMTP")),
    ("AddFooter", Undone("mail leaves without the footer")),
    ("AddSubjectPrefix", Undone("the subject stays as it is")),
    ("SubjectPrefix", Undone("the subject stays as it is")),
    ("StripAttachment", Undone("attachments stay")),
    ("OnlyText", Undone("the message stays as it is")),
    ("ToPlainText", Undone("the message stays as it is")),
    ("ReplaceContent", Undone("the message stays as it is")),
    ("SanitizeMimeMessageId", Undone("the message stays as it is")),
    ("WrapText", Undone("the message stays as it is")),
    ("UnwrapText", Undone("the message stays as it is")),
    ("FoldLongLines", Undone("the message stays as it is")),
    ("MailAttributesToMimeHeaders", Undone("the header fields are not added")),
    ("MailAttributesListToMimeHeaders", Undone("the header fields are not added")),
    ("SaveMailNameInHeaders", Undone("the header fields are not added")),
    ("WithPriority", Undone("mail has no priority here")),
    // Scanners: the listener takes what those bring who may relay.
    ("SpamAssassin", Marks("mail is not scanned")),
    ("RspamdScanner", Marks("mail is not scanned")),
    ("ClamAVScan", Marks("mail is not scanned")),
    ("BayesianAnalysis", Marks("mail is not scanned")),
    ("DKIMVerify", Marks("signatures are not checked")),
    ("SPF", Marks("the client is not checked")),
    ("SMIMECheckSignature", Marks("signatures are not checked")),
    // For mailboxes.
    ("PostmasterAlias", Idle),
    ("RecipientRewriteTable", Idle),
    ("RecipientToLowerCase", Idle),
    ("SubAddressing", Idle),
    ("AddDeliveredToHeader", Idle),
    ("VacationMailet", Idle),
    ("Sieve", Idle),
    ("JMAPFiltering", Idle),
    ("WithStorageDirective", Idle),
    ("ICALToHeader", Idle),
    ("ICALToJsonAttribute", Idle),
    ("ICalendarParser", Idle),
    ("ICSSanitizer", Idle),
    ("MimeDecodingMailet", Idle),
    ("TextCalendarBodyToAttachment", Idle),
    ("ExtractMDNOriginalJMAPMessageId", Idle),
    ("Counter", Idle),
    ("Identity", Idle),
    ("DumpSystemErr", Idle),
    // Elsewhere.
    ("LocalDelivery", Ends("there are no mailboxes here")),
    ("ToSenderFolder", Copies("there are no mailboxes here")),
    ("ToRecipientFolder", Copies("there are no mailboxes here")),
    ("MailToAllUsers", Ends("there are no mailboxes here")),
    ("Forward", Ends("nothing is forwarded here")),
    ("Redirect", Ends("nothing is forwarded here")),
    ("Resend", Ends("nothing is forwarded here")),
    ("ToSenderDomainRepository", Ends("there is no repository for each domain here")),
    ("Requeue", Ends("a job of kind reprocess takes mail round again")),
];

/// What becomes of a mailet of James's; `None` where it is none that is known.
pub(super) fn counterpart(name: &str) -> Option<Counterpart> {
    static BY_NAME: LazyLock<BTreeMap<&str, Counterpart>> = LazyLock::new(|| MAILETS.iter().copied().collect());
    BY_NAME.get(name).copied()
}
