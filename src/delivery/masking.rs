//! What is secret in an AUTH exchange, kept out of every record: in what we say, and in what
//! a peer repeats of it.
//!
//! It is for the careless peer that echoes a command, line by line. One that spreads a secret
//! over two lines of a reply, or writes it backwards, knows it anyway and is not stopped.

use std::borrow::Cow;

/// A shorter secret is part of so many words that to mask it would show it.
const MIN_SECRET: usize = 4;

/// What takes the place of a secret.
const MASK: &str = "****";

/// The secrets of one connection.
#[derive(Default)]
pub(super) struct Masking {
    secrets: Vec<String>,
}

impl Masking {
    /// Keeps `secret` out of what is recorded from now on.
    pub(super) fn hide(&mut self, secret: &str) {
        if secret.len() >= MIN_SECRET {
            self.secrets.push(secret.to_owned());
        }
    }

    /// Ends that for `secret`, where nothing else hides it.
    pub(super) fn show(&mut self, secret: &str) {
        if let Some(at) = self.secrets.iter().rposition(|hidden| hidden == secret) {
            self.secrets.remove(at);
        }
    }

    /// AUTH, or the response to a challenge, without what is secret in it.
    pub(super) fn auth(&mut self, command: &str, is_response: bool) -> String {
        if is_response {
            self.hide(command);
            return MASK.to_owned();
        }
        let mut words = command.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some(verb), Some(mechanism), Some(initial)) => {
                self.hide(initial);
                format!("{verb} {mechanism} {MASK}")
            }
            _ => command.to_owned(),
        }
    }

    /// What the peer said, without the secrets in it; a reply code in front stays as it is.
    pub(super) fn line<'a>(&self, line: &'a [u8]) -> Cow<'a, [u8]> {
        if self.secrets.is_empty() {
            return line.into();
        }
        let digits = line.iter().take(3).take_while(|octet| octet.is_ascii_digit()).count();
        let (code, text) = line.split_at(if digits == 3 { 3 } else { 0 });
        let masked = self.secrets.iter().fold(text.to_vec(), |text, secret| without(&text, secret.as_bytes()));
        [code, &masked].concat().into()
    }
}

fn without(mut text: &[u8], secret: &[u8]) -> Vec<u8> {
    let mut masked = Vec::with_capacity(text.len());
    while let Some(at) = text.windows(secret.len()).position(|window| window == secret) {
        masked.extend_from_slice(&text[..at]);
        masked.extend_from_slice(MASK.as_bytes());
        text = &text[at + secret.len()..];
    }
    masked.extend_from_slice(text);
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_in_auth_is_masked() {
        for (command, is_response, shown) in [
            ("AUTH PLAIN AHUAcA==", false, "AUTH PLAIN ****"),
            ("AUTH LOGIN", false, "AUTH LOGIN"),
            ("dXNlcg==", true, "****"),
        ] {
            assert_eq!(Masking::default().auth(command, is_response), shown);
        }
    }

    #[test]
    fn a_reply_that_repeats_a_secret_is_recorded_without_it() {
        let mut masking = Masking::default();
        masking.hide("secret");
        masking.hide("5357");
        masking.auth("AUTH PLAIN AHUAcA==", false);
        masking.hide("relay");
        assert_eq!(&*masking.line(b"535 relay: no"), b"535 ****: no");
        masking.show("relay");
        for (line, recorded) in [
            ("535 5.7.8 no such user: AHUAcA==\r\n", "535 5.7.8 no such user: ****\r\n"),
            ("535-secret, secretsecret\r\n", "535-****, ********\r\n"),
            ("5357\n", "5357\n"),
            ("secret without code", "**** without code"),
            ("550 relay", "550 relay"),
            ("5", "5"),
        ] {
            assert_eq!(&*masking.line(line.as_bytes()), recorded.as_bytes(), "{line}");
        }
    }
}
