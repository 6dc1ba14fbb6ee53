//! What a session says: reply codes with enhanced status codes (RFC 5321 section 4.2,
//! RFC 2034).

use std::fmt;

use crate::mail::MessageProblem;
use crate::smtp::CommandError;
use crate::spool::AcceptError;

/// Octets of one line's text: with code and line end it stays within the 512 of RFC 5321
/// section 4.5.3.1.5.
const MAX_TEXT_OCTETS: usize = 500;

/// One reply. Whatever went into its text, it is printable ASCII.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    code: u16,
    lines: Vec<String>,
}

impl Answer {
    /// One line with its enhanced status code.
    pub(super) fn new(code: u16, enhanced: &str, text: impl fmt::Display) -> Self {
        Self { code, lines: vec![printable(&format!("{enhanced} {text}"))] }
    }

    /// Lines as they are: greetings have no enhanced status code.
    pub(super) fn plain(code: u16, lines: &[String]) -> Self {
        Self { code, lines: lines.iter().map(|line| printable(line)).collect() }
    }

    /// Why MAIL or RCPT comes at the wrong time, and so on.
    pub(super) fn out_of_order(text: &str) -> Self {
        Self::new(503, "5.5.1", text)
    }

    /// The client is at fault, as far as the code says.
    pub(super) fn is_permanent_refusal(&self) -> bool {
        self.code >= 500
    }

    /// The connection ends with it.
    pub(super) fn ends_session(&self) -> bool {
        self.code == 421
    }
}

fn printable(text: &str) -> String {
    let plain = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
    text.chars().map(plain).take(MAX_TEXT_OCTETS).collect()
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.lines.len() - 1;
        for (at, line) in self.lines.iter().enumerate() {
            write!(f, "{}{}{line}\r\n", self.code, if at == last { ' ' } else { '-' })?;
        }
        Ok(())
    }
}

impl From<CommandError> for Answer {
    fn from(error: CommandError) -> Self {
        let (code, enhanced) = error.status();
        Self::new(code, enhanced, error)
    }
}

impl From<&AcceptError> for Answer {
    fn from(error: &AcceptError) -> Self {
        match error {
            AcceptError::NoRecipient => Self::new(554, "5.5.1", error),
            AcceptError::TooLarge(_) => Self::new(552, "5.3.4", error),
            AcceptError::Message(MessageProblem::Loop) => Self::new(554, "5.4.6", error),
            AcceptError::Message(_) => Self::new(550, "5.6.0", error),
            AcceptError::Behind => Self::new(451, "4.3.0", error),
            // Where that is concerns no client.
            AcceptError::NoFreeSpace(_) => {
                Self::new(452, "4.3.1", "little room left where the store is, try again later")
            }
            // The store's own words are for the log.
            AcceptError::Store(_) if error.is_full() => Self::new(452, "4.3.1", "no room left, try again later"),
            AcceptError::Store(_) => Self::new(451, "4.3.0", "the mail cannot be stored now, try again later"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_printable_whatever_it_is_made_from() {
        let answer = Answer::new(501, "5.1.3", "caf\u{e9} \r\n250 ok\0");
        assert_eq!(answer.to_string(), "501 5.1.3 caf? ??250 ok?\r\n");
        assert!(Answer::new(501, "5.1.3", "x".repeat(9999)).to_string().len() <= 512);
        let lines = ["a", "b"].map(str::to_owned);
        assert_eq!(Answer::plain(250, &lines).to_string(), "250-a\r\n250 b\r\n");
    }
}
