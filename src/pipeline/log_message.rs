//! Mailet `LogMessage`: a line in the log for each mail that comes by.
//!
//! Envelope, size and header; never the body, which has no place in a log.

use tracing::info;

use super::mailet::{Ended, Failed, Step};
use super::part::Part;
use super::{End, Pass};
use crate::yaml::{Fields, boolean, integer, text};

/// Octets of a header that are logged at most.
const MAX_HEADER: usize = 16 * 1024;

/// A rule's `LogMessage`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogMessage {
    headers: bool,
    comment: Option<String>,
    /// The part goes on; otherwise it ends here.
    pub(super) pass_through: bool,
}

impl LogMessage {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        let headers = fields.optional("headers", boolean).unwrap_or(true);
        fields.optional("body", |node| match boolean(node) {
            Ok(true) => Err("message bodies are never logged: use redeliver repository export".to_owned()),
            other => other,
        });
        // James's limit for bodies: there is nothing to limit.
        fields.optional("maxBody", integer(0..=u64::MAX));
        let comment = fields.optional("comment", text);
        let pass_through = fields.optional("passThrough", boolean).unwrap_or(true);
        Self { headers, comment, pass_through }
    }

    pub(super) async fn run(&self, part: Part, pass: &Pass<'_>) -> Result<Vec<Step>, Failed> {
        let header = if self.headers { header(&part, pass).await.map(Some) } else { Ok(None) };
        let header = match header {
            Ok(header) => header,
            Err(error) => return Err(Failed::new(part, format!("LogMessage cannot read the message: {error}"))),
        };
        let mail = &part.mail;
        let recipients: Vec<_> = mail.envelope.recipients.iter().map(ToString::to_string).collect();
        info!(
            mail.id = %mail.key,
            sender = %mail.envelope.reverse_path,
            recipients = recipients.join(", "),
            processor = mail.state,
            size = mail.facts.size,
            comment = self.comment,
            header,
            "mail passes LogMessage"
        );
        Ok(vec![if self.pass_through { Step::Next(part) } else { Step::End(Ended::new(part, End::Dropped)) }])
    }
}

/// The header with what mailets put in front of it, up to a limit.
async fn header(part: &Part, pass: &Pass<'_>) -> std::io::Result<String> {
    let octets = pass.backing.content().row(0).await?;
    let end = octets.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(octets.len());
    let header = String::from_utf8_lossy(&octets[..end.min(MAX_HEADER)]);
    Ok(format!("{}{header}", part.mail.header_prefix))
}
