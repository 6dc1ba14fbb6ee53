//! The name we gave with EHLO, and replies that refuse mail for it.
//!
//! Many peers judge it only at RCPT. Such a refusal is about this machine and not about the
//! recipient: the mail waits until the name is set right.

use crate::smtp::Reply;

use super::step::Step;

/// A name and the key of the configuration that it comes from.
#[derive(Debug, Clone, Default)]
pub(super) struct EhloName {
    pub(super) name: String,
    pub(super) key: &'static str,
}

impl EhloName {
    /// Whether this refusal speaks of HELO or EHLO and of the name we gave.
    pub(super) fn is_refused_by(&self, step: Step, reply: &Reply) -> bool {
        speaks_of_helo(step, reply) && reply.texts().any(|text| has_name(text, &self.name))
    }

    /// What an operator is to know and do.
    pub(super) fn refused(&self) -> String {
        format!(
            "it refuses the EHLO name {:?}, which is trouble of this relay: set '{}' to the full name that the DNS has for it",
            self.name, self.key
        )
    }

    /// The same where it is not certain.
    pub(super) fn suspected(&self) -> String {
        format!("the reply may be about our EHLO name {:?} ('{}')", self.name, self.key)
    }
}

/// Whether a 5xx to what comes before the content has the word HELO or EHLO in it; between
/// angle brackets there are addresses.
pub(super) fn speaks_of_helo(step: Step, reply: &Reply) -> bool {
    let early = matches!(step, Step::Ehlo | Step::Helo | Step::Mail | Step::Rcpt);
    early && reply.class() == 5 && reply.texts().any(has_helo)
}

fn has_helo(text: &str) -> bool {
    without_brackets(text)
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|word| word.eq_ignore_ascii_case("helo") || word.eq_ignore_ascii_case("ehlo"))
}

fn without_brackets(text: &str) -> String {
    let mut depth = 0_u32;
    let mut outside = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            _ if depth == 0 => outside.push(c),
            _ => continue,
        }
        if depth > 0 && c == '<' {
            outside.push(' ');
        }
    }
    outside
}

/// Whether `name` stands in `text`, and not as a part of a longer name.
fn has_name(text: &str, name: &str) -> bool {
    let (text, name) = (text.to_ascii_lowercase(), name.trim_end_matches('.').to_ascii_lowercase());
    let continues = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || "-_".contains(c));
    !name.is_empty()
        && text.match_indices(&name).any(|(at, _)| {
            let (mut before, mut behind) = (text[..at].chars().rev(), text[at + name.len()..].chars());
            let left = match before.next() {
                Some('.') => continues(before.next()),
                other => continues(other),
            };
            let right = match behind.next() {
                Some('.') => continues(behind.next()),
                other => continues(other),
            };
            !left && !right
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::ReplyReader;

    fn reply(lines: &str) -> Reply {
        let mut reader = ReplyReader::default();
        let mut found = None;
        for line in lines.split('\n') {
            found = reader.push(line.as_bytes()).expect("SMTP");
        }
        found.expect(lines)
    }

    #[test]
    fn a_refusal_of_our_name_is_told_from_one_that_only_speaks_of_it() {
        // Reply, speaks of HELO, refuses our name.
        for (text, speaks, refuses) in [
            ("504 5.5.2 <web1>: Helo command rejected: need fully-qualified hostname", true, true),
            ("550 5.7.1 <u@x.example>: Recipient address rejected: web1 is no valid HELO", true, true),
            ("550-5.7.25 go away\n550 5.7.25 web1 said EHLO", true, true),
            ("554 HELO/EHLO WEB1. is bogus", true, true),
            ("550 EHLO name [web1] does not resolve", true, true),
            ("550 bad helo web1.example", true, false),
            ("550 bad helo web10 and my-web1 and x.web1", true, false),
            ("501 5.5.4 invalid HELO argument", true, false),
            ("550 5.7.1 <ehlo@web1>: Helo", true, true),
            ("550 5.1.1 <helo@x.example>: user unknown, web1", false, false),
            ("550 <helo> web1", false, false),
            ("550 othello web1 is helot", false, false),
            ("550 5.1.1 no such user at web1", false, false),
            ("450 4.7.1 <web1>: Helo command rejected: Host not found", false, false),
        ] {
            let reply = reply(text);
            let ours = EhloName { name: "web1".into(), key: "hostname" };
            assert_eq!(speaks_of_helo(Step::Rcpt, &reply), speaks, "{text}");
            assert_eq!(ours.is_refused_by(Step::Rcpt, &reply), refuses, "{text}");
            assert!(!ours.is_refused_by(Step::EndOfData, &reply) && !ours.is_refused_by(Step::Auth, &reply), "{text}");
        }
    }
}
