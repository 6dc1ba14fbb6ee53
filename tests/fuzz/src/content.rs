//! What comes in behind DATA, and what goes out.

use redeliver::mail::{HeaderScan, MessageFacts, MessageProblem};
use redeliver::smtp::{Stuffer, Unstuffer};

use super::pieces;

/// The end of a message is where CRLF.CRLF is first, and nowhere else; message and facts
/// are the same however the octets arrive; what is sent is received as it was.
pub fn content(octets: &[u8]) {
    let expected = by_the_letter(octets);
    assert_eq!(unstuffed([octets]), expected);
    assert_eq!(unstuffed(pieces(octets)), expected);
    assert_eq!(unstuffed(octets.chunks(1)), expected);
    assert_eq!(scanned(pieces(octets)), scanned([octets]));
    sent_and_received(octets);
}

/// Message, octets taken, and whether the end was there: by the words of RFC 5321 section
/// 4.5.2, with everything at hand.
fn by_the_letter(octets: &[u8]) -> (Vec<u8>, usize, bool) {
    // DATA ended with CRLF.
    let all = [b"\r\n", octets].concat();
    let end = all.windows(5).position(|five| five == b"\r\n.\r\n");
    // A dot, or a dot and CR, at the very end may yet become the end, and is kept back.
    let held =
        [&b"\r\n.\r"[..], b"\r\n."].into_iter().find(|held| all.ends_with(held)).map_or(0, |held| held.len() - 2);
    let stuffed = &all[..end.map_or(all.len() - held, |end| end + 2)];
    let mut message = Vec::new();
    for at in 2..stuffed.len() {
        let is_stuffing = stuffed[at] == b'.' && &stuffed[at - 2..at] == b"\r\n";
        if !is_stuffing {
            message.push(stuffed[at]);
        }
    }
    (message, end.map_or(octets.len(), |end| end + 3), end.is_some())
}

fn unstuffed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, usize, bool) {
    let (mut unstuffer, mut message, mut taken) = (Unstuffer::default(), Vec::new(), 0);
    for piece in pieces {
        let (count, ended) = unstuffer.push(piece, &mut message);
        taken += count;
        if ended {
            return (message, taken, true);
        }
    }
    (message, taken, false)
}

fn scanned<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Result<MessageFacts, MessageProblem>, bool) {
    let mut scan = HeaderScan::default();
    pieces.into_iter().for_each(|piece| scan.push(piece));
    (scan.finish(), scan.ends_with_line_end())
}

fn sent_and_received(message: &[u8]) {
    let (mut stuffer, mut wire) = (Stuffer::default(), Vec::new());
    let pushed = pieces(message).into_iter().try_for_each(|piece| stuffer.push(piece, &mut wire));
    let (facts, ends_with_line_end) = scanned([message]);
    if pushed.and_then(|()| stuffer.finish(&mut wire)).is_err() {
        // A NUL before it is the first problem that is found.
        assert!(facts.is_err(), "what cannot leave is not let in");
        return;
    }
    assert!(!matches!(facts, Err(MessageProblem::BareCr(_) | MessageProblem::BareLf(_))));
    let whole = [message, if ends_with_line_end { b"" } else { &b"\r\n"[..] }].concat();
    assert_eq!(unstuffed(pieces(&wire)), (whole, wire.len(), true));
}
