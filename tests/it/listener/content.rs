//! What becomes of the octets behind DATA.

use proptest::prelude::*;
use redeliver::smtp::Unstuffer;

use super::{LIMIT, Relay};

/// Sends `wire` behind 354, in pieces of that size, and hears the answer; which messages
/// came of it, without their trace fields.
async fn send(wire: &[u8], piece: usize) -> (String, Vec<Vec<u8>>) {
    let relay = Relay::start();
    let mut client = relay.connect().await;
    client.until_data().await;
    for octets in wire.chunks(piece) {
        client.send(octets).await;
    }
    let answer = client.line().await;
    // Nothing of it was taken for a command: this one's answer is the next.
    client.talk("C: VRFY x\nS: 252 *").await;
    (answer, relay.mails().await.iter().map(|mail| mail.without_trace().to_vec()).collect())
}

#[tokio::test]
async fn only_a_dot_between_two_crlf_ends_a_message() {
    for end in [
        "\n.\n",
        "\n.\r\n",
        "\r\n.\n",
        "\r.\r",
        "\r.\r\n",
        "\r\n.\r",
        "\n.\r",
        "\r.\n",
        "\r\n.\r\r\n",
        "\r\n\0.\r\n",
        "\r\n.\0\r\n",
        "\n\r\n.\r",
    ] {
        let smuggled = "MAIL FROM:<evil@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\nSubject: evil\r\n\r\n";
        let wire = format!("Subject: s\r\n\r\ntext{end}{smuggled}\r\n.\r\n");
        let (answer, messages) = send(wire.as_bytes(), wire.len()).await;
        assert!(answer.starts_with("550 5.6.0 "), "{end:?}: {answer}");
        assert!(messages.is_empty(), "{end:?}");
    }
}

#[tokio::test]
async fn messages_come_through_octet_for_octet() {
    let long = format!("{}\r\n", "x".repeat(200_000));
    for (wire, message) in [
        ("", ""),
        ("\r\n", "\r\n"),
        ("no header\r\n", "no header\r\n"),
        ("Subject: only\r\n", "Subject: only\r\n"),
        ("\u{feff}From x\r\n", "\u{feff}From x\r\n"),
        ("..\r\n...\r\n..a\r\na.\r\n..\r\n", ".\r\n..\r\n.a\r\na.\r\n.\r\n"),
        // A dot that nobody doubled: it is taken off all the same (RFC 5321 section 4.5.2).
        (".a\r\n", "a\r\n"),
        ("A: b\r\n\r\n  trailing \t\r\n\r\n\r\n", "A: b\r\n\r\n  trailing \t\r\n\r\n\r\n"),
        (
            "Subject: \u{fc}\r\nX-is-delivery-permanent-error: true\r\n\r\n\u{fc}\u{1b}[2J\r\n",
            "Subject: \u{fc}\r\nX-is-delivery-permanent-error: true\r\n\r\n\u{fc}\u{1b}[2J\r\n",
        ),
        (long.as_str(), long.as_str()),
    ] {
        for piece in [1, 3, 65536] {
            if piece < 3 && wire.len() > 1000 {
                continue;
            }
            let (answer, messages) = send(format!("{wire}.\r\n").as_bytes(), piece).await;
            assert!(answer.starts_with("250 2.6.0 "), "{answer}");
            assert!(messages == [message.as_bytes()], "{wire:?}");
        }
    }
}

#[tokio::test]
async fn a_message_in_a_loop_is_refused() {
    for (fields, answer) in [(100, "250 2.6.0 "), (101, "554 5.4.6 ")] {
        let wire = format!("{}\r\ntext\r\n.\r\n", "Received: x\r\n".repeat(fields));
        let (said, _) = send(wire.as_bytes(), wire.len()).await;
        assert!(said.starts_with(answer), "{said}");
    }
}

/// A message of exactly that many octets, in lines.
fn message_of(octets: usize) -> Vec<u8> {
    let mut message = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(octets / 64);
    message.extend(vec![b'x'; octets % 64]);
    let end = message.len() - 2;
    message[end..].copy_from_slice(b"\r\n");
    message
}

#[tokio::test]
async fn a_message_at_the_limit_is_taken_and_one_octet_more_is_not() {
    for (octets, answer) in [(LIMIT, "250 2.6.0 "), (LIMIT + 1, "552 5.3.4 "), (2 * LIMIT, "552 5.3.4 ")] {
        let message = message_of(octets);
        let relay = Relay::start();
        let mut client = relay.connect().await;
        client.until_data().await;
        client.send(&message).await;
        client.send(b".\r\n").await;
        let said = client.line().await;
        assert!(said.starts_with(answer), "{octets}: {said}");
        client.talk("C: NOOP\nS: 250 *").await;
        let mails = relay.mails().await;
        assert_eq!(mails.len(), usize::from(octets == LIMIT));
        assert!(mails.iter().all(|mail| mail.without_trace() == message));
        let rows = if octets == LIMIT { (1, 1, 3) } else { (0, 0, 0) };
        assert_eq!(relay.left().await, rows, "nothing of a refused message is kept");
    }
}

#[tokio::test]
async fn a_message_without_end_is_given_up() {
    use tokio::io::AsyncWriteExt;

    let relay = Relay::start();
    let mut client = relay.connect().await;
    client.until_data().await;
    let piece = message_of(64 * 1024);
    let mut sent = 0;
    // Until the listener closes; far below what a client could send in that time.
    while sent < 100 * LIMIT && client.stream.write_all(&piece).await.is_ok() {
        sent += piece.len();
    }
    assert!(sent < 100 * LIMIT, "it must not be read for ever");
    assert_eq!(relay.left().await, (0, 0, 0));
}

/// Up to where a message goes, by the letter of RFC 5321 section 4.5.2.
fn end_by_the_letter(wire: &[u8]) -> Option<usize> {
    // As if the CRLF behind DATA were the first line's.
    let lines = [b"\r\n", wire].concat();
    lines.windows(5).position(|octets| octets == b"\r\n.\r\n").map(|at| at + 3)
}

proptest! {
    #[test]
    fn the_end_of_a_message_does_not_depend_on_how_it_is_cut(
        octets in prop::collection::vec(prop::sample::select(b"..\r\r\n\na".to_vec()), 0..60),
        cuts in prop::collection::vec(1_usize..7, 60),
    ) {
        let (mut rest, mut message, mut taken) = (&octets[..], Vec::new(), 0);
        let (mut data, mut ended) = (Unstuffer::default(), false);
        for cut in cuts {
            let (piece, behind) = rest.split_at(cut.min(rest.len()));
            let (count, end) = data.push(piece, &mut message);
            (rest, taken, ended) = (behind, taken + count, end);
            if ended {
                break;
            }
        }
        prop_assert_eq!(ended.then_some(taken), end_by_the_letter(&octets));
        let mut whole = Vec::new();
        Unstuffer::default().push(&octets, &mut whole);
        prop_assert_eq!(message, whole);
    }
}
