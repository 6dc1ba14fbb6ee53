//! Messages of every shape, in over SMTP and `sendmail` and out again: to the octet what came in.
//!
//! The peer is strict: it notes every bare CR or LF and every dot that is not doubled, and
//! without those no receiver, however lenient, sees the end of a message before its end.

use std::io::Write;

use super::{Client, Service, served};
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Script, SmtpSink};

/// A header to which `sendmail` has nothing to add.
const HEADER: &str =
    "From: me@example.org\r\nDate: Tue, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <c@example.org>\r\nSubject: s\r\n";

/// What a message is, its header, and its octets behind the empty line.
type Entry = (&'static str, String, Vec<u8>);

fn plain(what: &'static str, body: impl Into<Vec<u8>>) -> Entry {
    (what, HEADER.to_owned(), body.into())
}

fn with_header(what: &'static str, header: &str) -> Entry {
    (what, format!("{HEADER}{header}"), b"Hello.\r\n".to_vec())
}

/// Multiparts within each other, to a depth that no parser should follow by recursion.
fn nested(depth: usize) -> Entry {
    let part = |n: usize| format!("--b{n}\r\nContent-Type: multipart/mixed; boundary=b{}\r\n\r\n", n + 1);
    let header = format!("{HEADER}MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b0\r\n");
    ("nested multiparts", header, (0..depth).map(part).collect::<String>().into_bytes())
}

fn many_parts(number: usize) -> Entry {
    let header = format!("{HEADER}MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n");
    let body = "--b\r\nContent-Type: text/plain\r\n\r\npart\r\n".repeat(number) + "--b--\r\n";
    ("thousands of parts", header, body.into_bytes())
}

/// A gzip stream that unpacks to 258 octets for each 13 bits (RFC 1951 section 3.2.6): a NUL,
/// and then ever again the code 11000101 for a length of 258 and the distance 1.
fn bomb() -> Entry {
    let begin = [1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0];
    let again = [1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0].into_iter().cycle().take(1_300_000);
    let bits: Vec<u8> = begin.into_iter().chain(again).collect();
    let octet = |bits: &[u8]| bits.iter().rev().fold(0, |octet, bit| octet << 1 | bit);
    let packed = bits.chunks(8).map(octet);
    let hex: String =
        b"\x1f\x8b\x08\0\0\0\0\0\0\x03".iter().copied().chain(packed).map(|o| format!("{o:02x}")).collect();
    let lines: Vec<_> = hex.as_bytes().chunks(76).map(String::from_utf8_lossy).collect();
    let header = format!("{HEADER}MIME-Version: 1.0\r\nContent-Type: application/gzip\r\n");
    ("a gzip bomb", header, format!("{}\r\n", lines.join("\r\n")).into_bytes())
}

fn corpus() -> Vec<Entry> {
    let lines = |lengths: &[usize]| lengths.iter().map(|n| "x".repeat(*n) + "\r\n").collect::<String>();
    let signed = "DKIM-Signature: v=1; a=rsa-sha256; c=simple/simple; d=example.org; s=k;\r\n\th=from:from:subject;\r\n\t \
                  bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;\r\n b=AAAA\r\n\tBBBB=\r\n";
    vec![
        plain("an ordinary one", "Hello.\r\n"),
        plain("no body", ""),
        plain("leading dots", ".\r\n..\r\n...\r\n.a\r\n. \r\n..a\r\n.\r\n"),
        plain("dots across every boundary of rows", ".\r\n".repeat(300_000)),
        plain("empty lines at the end", format!("Hello.\r\n{}", "\r\n".repeat(100))),
        plain("blanks at the ends of lines", "  a \t \r\n \r\n\t\r\nb  \r\n"),
        plain("long lines", lines(&[997, 998, 999, 5000, 200_000])),
        plain("UTF-8", "Gr\u{fc}\u{df}e\r\n"),
        plain("Latin-1", b"Gr\xfc\xdfe\r\n".to_vec()),
        plain(
            "control characters",
            (1..=31).chain([127]).filter(|o| !matches!(o, b'\r' | b'\n')).chain(*b"\r\n").collect::<Vec<u8>>(),
        ),
        plain("commands", "RSET\r\nMAIL FROM:<x@y.example>\r\nQUIT\r\n"),
        with_header("a DKIM signature", signed),
        with_header("odd folding", "X-A:\r\n b\r\n \t\r\n c\r\nX-B : d\r\nx-a: again\r\nX-Empty:\r\nX-Tab:\te\r\n"),
        with_header(
            "fields twice",
            "Subject: t\r\nTo: a@example.net\r\nSubject: s\r\nTo: a@example.net\r\nReceived: x\r\n",
        ),
        with_header(
            "fields that send",
            "Bcc: b@example.net\r\nResent-To: c@example.net\r\nReturn-Path: <d@example.net>\r\n",
        ),
        with_header("nested comments", &format!("X-C: {}{}\r\n", "(".repeat(5000), ")".repeat(5000))),
        with_header(
            "an address in nested comments",
            &format!("Cc: {}{} e@example.net\r\n", "(".repeat(5000), ")".repeat(5000)),
        ),
        with_header("markup and escapes", "X-H: <script>alert(1)</script><svg onload=x>\u{1b}[2J\u{9b}31m\r\n"),
        with_header("99 relays", &"Received: by somewhere\r\n".repeat(99)),
        nested(2000),
        many_parts(3000),
        bomb(),
    ]
}

fn octets((_, header, body): &Entry) -> Vec<u8> {
    [header.as_bytes(), b"\r\n", body].concat()
}

/// What goes over the wire behind DATA.
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for line in message.split_inclusive(|&octet| octet == b'\n') {
        wire.extend(line.starts_with(b".").then_some(b'.'));
        wire.extend(line);
    }
    [wire, b".\r\n".to_vec()].concat()
}

fn submit(client: &mut Client, recipient: &str, message: &[u8]) -> String {
    for line in ["MAIL FROM:<me@example.org> BODY=8BITMIME", &format!("RCPT TO:<{recipient}>"), "DATA"] {
        client.say(line).expect("an answer");
    }
    client.stream.get_mut().write_all(&stuffed(message)).expect("sent");
    client.reply().expect("an answer")
}

/// The message without the trace field in front.
fn without_trace(content: &[u8]) -> &[u8] {
    assert!(content.starts_with(b"Received: "), "{:?}", String::from_utf8_lossy(&content[..100.min(content.len())]));
    let ends = content.windows(3).position(|o| o.starts_with(b"\r\n") && !matches!(o[2], b' ' | b'\t'));
    &content[ends.expect("the field ends") + 2..]
}

fn expect_all(peer: &SmtpSink, way: &str, corpus: &[Entry]) {
    let transactions = peer.wait_for_transactions(corpus.len());
    for (n, entry) in corpus.iter().enumerate() {
        let recipient = format!("r{n}@example.net");
        let mut copies = transactions.iter().filter(|t| t.recipients == [recipient.as_str()]);
        let content = &copies.next().unwrap_or_else(|| panic!("{way}: {} is lost", entry.0)).content;
        assert!(copies.next().is_none(), "{way}: {} came twice", entry.0);
        assert!(without_trace(content) == octets(entry), "{way}: {} was changed", entry.0);
    }
}

fn nothing_else(peer: &SmtpSink, corpus: &[Entry]) {
    assert_eq!(peer.transactions().len(), corpus.len(), "one message for each");
    assert_eq!(peer.violations(), Vec::<String>::new());
}

#[test]
fn what_comes_in_over_smtp_goes_out_to_the_octet() {
    let (peer, corpus) = (SmtpSink::start(Script::new()), corpus());
    let relay = served(Setup::gateway(peer.address()));
    let service = Service::start(&relay);
    let mut client = Client::connect(service.smtp).expect("it listens");
    for (n, entry) in corpus.iter().enumerate() {
        let answer = submit(&mut client, &format!("r{n}@example.net"), &octets(entry));
        assert!(answer.starts_with("250"), "{}: {answer}", entry.0);
    }
    expect_all(&peer, "SMTP", &corpus);
    service.wait_until_settled();
    service.stop();
    nothing_else(&peer, &corpus);
}

#[test]
fn what_is_handed_to_sendmail_goes_out_to_the_octet() {
    let (peer, corpus) = (SmtpSink::start(Script::new()), corpus());
    let relay = Setup::gateway(peer.address()).build();
    for (n, entry) in corpus.iter().enumerate() {
        let recipient = format!("r{n}@example.net");
        relay.command_with_input(&["sendmail", "-i", "-f", "me@example.org", &recipient], &octets(entry)).expect(0);
    }
    relay.run_spool().expect(0);
    expect_all(&peer, "sendmail", &corpus);
    nothing_else(&peer, &corpus);
}

/// The header is read for recipients: what is in it may be of any depth.
#[test]
fn recipients_within_nested_comments_are_found_in_a_header() {
    let peer = SmtpSink::start(Script::new());
    let relay: Relay = Setup::gateway(peer.address()).build();
    let comments = |n: usize| format!("{}{}", "(".repeat(n), ")".repeat(n));
    let text = format!("To: {} a@example.net {}, {}\n\nHello.\n", comments(5000), comments(5000), comments(1));
    relay.command_with_input(&["sendmail", "-t", "-i", "-f", "me@example.org"], text.as_bytes()).expect(0);
    relay.run_spool().expect(0);
    assert_eq!(peer.transactions()[0].recipients, ["a@example.net"]);
}
