//! A digest as a message: text and HTML side by side.
//!
//! What a peer said stands only in the body, encoded and, in HTML, escaped: it can neither
//! end a header field nor bring in markup.

use super::super::config::Mailing;
use crate::audit::{Digest, Example, Group, held_back};
use crate::mail::{Cause, RepositoryPath, quoted_printable};
use crate::store::Time;
use crate::text::{count, plain, rfc3339_seconds};

/// Causes that are written out; the others are counted.
const MAX_SHOWN: usize = 200;

/// What the header is made of.
pub(super) struct Heading<'a> {
    pub(super) mailing: &'a Mailing,
    pub(super) now: Time,
    /// What makes Message-ID and boundary unique.
    pub(super) random: u64,
}

/// The whole message, with CRLF line ends (RFC 2046 section 5.1.4, RFC 3834 section 5).
pub(super) fn compose(heading: &Heading<'_>, repository: &RepositoryPath, digest: &Digest) -> String {
    let boundary = format!("=_redeliver_{:016x}", heading.random);
    let part = |kind: &str, body: &str| {
        format!(
            "--{boundary}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n{}\r\n",
            quoted_printable(body.trim_end_matches('\n').replace('\n', "\r\n").as_bytes())
        )
    };
    format!(
        "{}MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=\"{boundary}\"\r\n\r\n{}{}--{boundary}--\r\n",
        header(heading, digest),
        part("text/plain", &as_text(repository, digest)),
        part("text/html", &as_html(repository, digest)),
    )
}

fn header(heading: &Heading<'_>, digest: &Digest) -> String {
    let Heading { mailing, now, random } = heading;
    let to: Vec<_> = mailing.to.iter().map(|address| format!("<{}>", address.on_the_wire())).collect();
    format!(
        "From: redeliver <{}>\r\nTo: {}\r\nSubject: redeliver: {}, {}\r\nDate: {}\r\nMessage-ID: <report.{}.{random:016x}@{}>\r\n\
         Auto-Submitted: auto-generated\r\n",
        mailing.from.on_the_wire(),
        to.join(",\r\n "),
        count(digest.mails, "new failure"),
        count(digest.causes().len() as u64, "cause"),
        now.to_rfc2822(),
        now.format("%Y%m%d%H%M%S"),
        mailing.from.domain().folded().trim_matches(['[', ']']),
    )
}

fn as_text(repository: &RepositoryPath, digest: &Digest) -> String {
    let mut text = format!("{}\n{}\n", summary(repository, digest), unacknowledged(digest));
    for (number, (cause, group)) in (1..).zip(digest.causes().into_iter().take(MAX_SHOWN)) {
        text.push_str(&format!("\n{number}. {}\n   {}\n", title(cause), numbers(group)));
        for example in &group.examples {
            let Example { recipient, reply, .. } = example;
            text.push_str(&format!("   {recipient}: {}\n     {}\n", plain(reply), command(repository, example)));
        }
    }
    text.push_str(&rest(digest).map_or(String::new(), |rest| format!("\n{rest}\n")));
    text
}

fn as_html(repository: &RepositoryPath, digest: &Digest) -> String {
    let mut html = format!(
        "<!DOCTYPE html>\n<html><body>\n<p>{}<br>{}</p>\n",
        escaped(&summary(repository, digest)),
        unacknowledged(digest)
    );
    for (number, (cause, group)) in (1..).zip(digest.causes().into_iter().take(MAX_SHOWN)) {
        let (title, numbers) = (escaped(&title(cause)), escaped(&numbers(group)));
        html.push_str(&format!("<h3>{number}. {title}</h3>\n<p>{numbers}</p>\n<ul>\n"));
        for example in &group.examples {
            html.push_str(&format!(
                "<li>{}: {}<br><code>{}</code></li>\n",
                escaped(&example.recipient),
                escaped(&plain(&example.reply)),
                escaped(&command(repository, example))
            ));
        }
        html.push_str("</ul>\n");
    }
    html.push_str(&rest(digest).map_or(String::new(), |rest| format!("<p>{}</p>\n", escaped(&rest))));
    html + "</body></html>\n"
}

fn summary(repository: &RepositoryPath, digest: &Digest) -> String {
    format!(
        "New in {repository}: {}, {}, {}.",
        count(digest.mails, "mail"),
        count(digest.recipients, "recipient"),
        count(digest.causes().len() as u64, "cause")
    )
}

/// How much there is that nobody has looked at, told before or not; and what no sender knows.
fn unacknowledged(digest: &Digest) -> String {
    let all = format!("Unacknowledged there in all: {}.", count(digest.unacknowledged, "mail"));
    if digest.held_back == 0 { all } else { format!("{all} Also {}.", held_back(digest.held_back)) }
}

fn title(cause: &Cause) -> String {
    let code = cause.code.map(|code| code.to_string());
    let hop = cause.next_hop.as_ref().map(|hop| format!("at {hop}"));
    let text = Some(plain(&cause.text)).filter(|text| !text.is_empty());
    let words: Vec<_> = [code, cause.enhanced.clone(), hop, text].into_iter().flatten().collect();
    plain(&words.join(" "))
}

fn numbers(group: &Group) -> String {
    let oldest = rfc3339_seconds(&group.oldest, true);
    format!("{}, the oldest accepted {oldest}", count(group.recipients, "recipient"))
}

/// What shows the mail with its attempts, to be pasted into a shell.
fn command(repository: &RepositoryPath, example: &Example) -> String {
    format!("redeliver repository show {} {}", shell_word(repository.as_str()), shell_word(example.key.as_str()))
}

/// A word as a shell reads it: quoted where it must be.
fn shell_word(word: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "/_-.".contains(c);
    if word.chars().all(safe) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// What was not written out.
fn rest(digest: &Digest) -> Option<String> {
    let hidden: u64 = digest.causes().iter().skip(MAX_SHOWN).map(|(_, group)| group.recipients).sum();
    let number = hidden + digest.others;
    (number > 0).then(|| format!("Of less frequent causes: {}.", count(number, "recipient")))
}

fn escaped(text: &str) -> String {
    let entity = |c: char| match c {
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '&' => "&amp;".to_owned(),
        '"' => "&quot;".to_owned(),
        '\'' => "&#39;".to_owned(),
        other => other.to_string(),
    };
    text.chars().map(entity).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit::failure;
    use crate::mail::Address;

    fn report(reply: &str) -> String {
        let address = |text: &str| Address::parse(text).expect("an address");
        let mailing =
            Mailing { to: vec![address("ops@y.example"), address("on@y.example")], from: address("r@x.example") };
        let now = chrono::DateTime::from_timestamp(1_700_000_000, 0).expect("in range");
        let mut digest = Digest::default();
        let (listed, recorded) = failure("K1", "b@x.example", 550, reply);
        digest.add(&listed, &[recorded]);
        digest.unacknowledged = 7;
        let repository = RepositoryPath::parse("var/mail/it's/permanent").expect("a path");
        compose(&Heading { mailing: &mailing, now, random: 7 }, &repository, &digest)
    }

    fn decoded(text: &str) -> String {
        text.replace("=\r\n", "").replace("=3D", "=").replace("\r\n", "\n")
    }

    #[test]
    fn what_a_peer_says_turns_no_direction() {
        let report = decoded(&report("550 5.7.1 bad \u{202e}live\u{2066} \x1b[31mred"));
        assert!(["=E2=80=AE", "=E2=81=A6", "\u{202e}", "\u{2066}", "\x1b"].iter().all(|mark| !report.contains(mark)));
        assert!(report.contains("bad") && report.contains("live"), "{report}");
    }

    #[test]
    fn it_says_who_what_and_how_to_see_more() {
        let report = report("550 5.1.1 <b@x.example> no such user");
        let (header, body) = report.split_once("\r\n\r\n").expect("a header");
        assert_eq!(
            header,
            "From: redeliver <r@x.example>\r\nTo: <ops@y.example>,\r\n <on@y.example>\r\n\
             Subject: redeliver: 1 new failure, 1 cause\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\n\
             Message-ID: <report.20231114221320.0000000000000007@x.example>\r\nAuto-Submitted: auto-generated\r\n\
             MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=\"=_redeliver_0000000000000007\""
        );
        let body = decoded(body);
        for line in [
            "New in var/mail/it's/permanent: 1 mail, 1 recipient, 1 cause.",
            "Unacknowledged there in all: 7 mails.",
            "1. 550 at x.example <address> no such user",
            "   1 recipient, the oldest accepted 2023-11-14T22:13:20Z",
            "   b@x.example: 550 5.1.1 <b@x.example> no such user",
            "     redeliver repository show 'var/mail/it'\\''s/permanent' K1",
            "<h3>1. 550 at x.example &lt;address&gt; no such user</h3>",
        ] {
            assert!(body.lines().any(|one| one == line), "{line}\n{body}");
        }
    }

    #[test]
    fn what_a_peer_says_brings_no_markup_and_no_header_field() {
        let report = report("550 <script>alert('x')</script>\r\nBcc: z@z.example\u{1b}[31m");
        assert!(!report.contains("\r\nBcc") && !report.contains('\u{1b}'), "{report}");
        let html = decoded(report.split("text/html").nth(1).expect("a part"));
        assert!(!html.contains("<script") && html.contains("&lt;script&gt;"), "{html}");
    }

    proptest! {
        #[test]
        fn every_line_is_short_and_ascii(reply in "\\PC{0,300}|[\\x00-\\x7f]{0,200}") {
            let report = report(&reply);
            prop_assert!(report.is_ascii() && report.ends_with("\r\n"));
            for line in report.trim_end_matches("\r\n").split("\r\n") {
                prop_assert!(line.len() <= 78 && !line.contains(['\r', '\n', '\0']), "{:?}", line);
                prop_assert!(line != ".");
            }
        }
    }
}
