//! The stored message of a mail.

use crate::mail::Mail;
use crate::store::{Result, Store};

/// The whole message as it is sent: with the fields that mailets put in front of it.
///
/// # Errors
/// Where it cannot be read.
pub async fn message(store: &dyn Store, mail: &Mail) -> Result<Vec<u8>> {
    let mut message = mail.header_prefix.clone().into_bytes();
    for number in 0.. {
        let row = store.content(mail.message, number).await?;
        if row.is_empty() {
            break;
        }
        message.extend_from_slice(&row);
    }
    Ok(message)
}

/// The header of a mail as it is sent; no more of the message is read than has it.
///
/// # Errors
/// Where it cannot be read.
pub async fn header(store: &dyn Store, mail: &Mail) -> Result<Vec<u8>> {
    let mut message = mail.header_prefix.clone().into_bytes();
    for number in 0.. {
        let row = store.content(mail.message, number).await?;
        let looked_at = message.len().saturating_sub(3);
        message.extend_from_slice(&row);
        if row.is_empty() || message[looked_at..].windows(4).any(|octets| octets == b"\r\n\r\n") {
            break;
        }
    }
    Ok(header_of(&message).to_vec())
}

/// The header of a message, without the empty line behind it.
pub fn header_of(message: &[u8]) -> &[u8] {
    if message.starts_with(b"\r\n") {
        return &[];
    }
    let end = message.windows(4).position(|octets| octets == b"\r\n\r\n");
    end.map_or(message, |end| &message[..end + 2])
}

/// The first field of that name, unfolded; the name in lower case.
pub fn header_field(header: &[u8], name: &str) -> Option<String> {
    let header = String::from_utf8_lossy(header).replace("\r\n", "\n").replace("\n ", " ").replace("\n\t", " ");
    header.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_ends_before_the_empty_line() {
        for (message, header) in [("A: b\r\n\r\nx\r\n", "A: b\r\n"), ("A: b\r\n", "A: b\r\n"), ("\r\nx", ""), ("", "")]
        {
            assert_eq!(header_of(message.as_bytes()), header.as_bytes(), "{message:?}");
        }
    }
}
