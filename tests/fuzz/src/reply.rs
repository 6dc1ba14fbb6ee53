//! The client's reader of replies.

use redeliver::smtp::{Capabilities, MAX_LINE_OCTETS, MAX_REPLY_OCTETS, NotSmtp, Reply, ReplyReader};

use super::pieces;

/// Replies are the same however the octets arrive, what is kept while one is waited for is
/// bounded, and nothing that is read out of one fails.
pub fn reply(octets: &[u8]) {
    let expected = read([octets]);
    assert_eq!(read(pieces(octets)), expected);
    assert_eq!(read(octets.chunks(1)), expected);
    expected.0.iter().for_each(sound);
    if let Some(problem) = expected.1 {
        assert!(!problem.to_string().contains(char::is_control), "{problem:?}");
    }
}

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Reply>, Option<NotSmtp>, Vec<u8>) {
    let (mut reader, mut waiting, mut replies) = (ReplyReader::default(), Vec::new(), Vec::new());
    for piece in pieces {
        waiting.extend_from_slice(piece);
        loop {
            match line(&mut reader, &mut waiting, &mut replies) {
                Ok(true) => {}
                Ok(false) => break,
                Err(problem) => return (replies, Some(problem), Vec::new()),
            }
        }
        assert!(waiting.len() < MAX_LINE_OCTETS);
    }
    (replies, None, waiting)
}

/// Reads one line of what waits. Whether there was one.
fn line(reader: &mut ReplyReader, waiting: &mut Vec<u8>, replies: &mut Vec<Reply>) -> Result<bool, NotSmtp> {
    let Some(length) = ReplyReader::line_length(waiting)? else { return Ok(false) };
    let line: Vec<u8> = waiting.drain(..length).collect();
    let reply = reader.push(&line)?;
    assert_eq!(reader.is_midway(), reply.is_none());
    replies.extend(reply);
    Ok(true)
}

fn sound(reply: &Reply) {
    assert!((200..600).contains(&reply.code()));
    // An octet that is no UTF-8 becomes three.
    assert!(reply.text().len() <= 3 * MAX_REPLY_OCTETS);
    assert!(!reply.text().contains('\0'));
    assert!(reply.text().starts_with(&reply.code().to_string()));
    assert_eq!(reply.texts().count(), reply.text().split('\n').count());
    assert!(reply.enhanced().is_none_or(|status| u16::from(status.class) == reply.class()));
    let _ = Capabilities::parse(reply);
}
