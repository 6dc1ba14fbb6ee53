//! One signature, from the octets of a message as they are sent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::canonical::{self, Body};
use super::key::Key;
use crate::mail::{Domain, parse_address_list};

/// A header longer than this is not signed: 1 MiB.
const MAX_HEADER_BYTES: usize = 1024 * 1024;

/// Fields that are signed where they are there (RFC 6376 section 5.4.1).
const FIELDS: [&str; 25] = [
    "From",
    "Sender",
    "Reply-To",
    "Subject",
    "Date",
    "Message-ID",
    "To",
    "Cc",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-ID",
    "Content-Description",
    "In-Reply-To",
    "References",
    "Auto-Submitted",
    "Resent-Date",
    "Resent-From",
    "Resent-To",
    "Resent-Cc",
    "List-Id",
    "List-Help",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Post",
];

/// Fields to which nobody may add another without breaking the signature (section 8.15).
const CLOSED: [&str; 2] = ["From", "Subject"];

/// Octets of one line of the field's `h=` and `b=`.
const LINE: usize = 72;

/// In whose name is signed, and with what.
#[derive(Debug)]
pub struct Signatory {
    /// `d=`.
    pub domain: Domain,
    /// `s=`: a name of one or more labels.
    pub selector: String,
    /// Fields to be signed; `None` for what [`Signatory::fields`] has of itself.
    pub headers: Option<Vec<String>>,
    /// Signs whoever the author is.
    pub any_from: bool,
    /// The private key whose public half is in the DNS.
    pub key: Key,
}

/// Why a message gets no signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    /// Without one a signature says nothing (RFC 6376 section 5.4).
    #[error("it has no From: field")]
    NoFrom,
    /// Readers choose the one or the other.
    #[error("it has several From: fields")]
    SeveralFrom,
    /// The line may be read as a field, as text, or not at all.
    #[error("its header has a line that is no header field")]
    Malformed,
    /// It would be held in memory.
    #[error("its header is longer than {MAX_HEADER_BYTES} octets")]
    HeaderTooLong,
    /// Its author is nobody's whom we can speak for: the domain.
    #[error("its From: is of {0}")]
    Foreign(String),
    /// Nobody can say whose it is.
    #[error("its From: cannot be read")]
    From,
    /// The system gave no random numbers.
    #[error("the key could not be used")]
    Key,
}

impl Signatory {
    /// The name under which its public key is in the DNS; tells it from every other.
    pub fn name(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain.folded())
    }

    /// Whether every author is of the domain or below it.
    fn speaks_for(&self, author: &str) -> Result<(), Unsigned> {
        if self.any_from {
            return Ok(());
        }
        let authors = parse_address_list(author).map_err(|_| Unsigned::From)?;
        if authors.is_empty() {
            return Err(Unsigned::From);
        }
        let own = self.domain.folded();
        let is_own = |domain: &str| domain == own || domain.strip_suffix(&own).is_some_and(|rest| rest.ends_with('.'));
        let foreign = authors.iter().map(|author| author.domain().folded()).find(|domain| !is_own(domain));
        foreign.map_or(Ok(()), |domain| Err(Unsigned::Foreign(domain)))
    }

    /// The fields that are signed where they are there, in the order of `h=`.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        let own = self.headers.iter().flatten().map(String::as_str);
        let own_closed = CLOSED.into_iter().filter(|_| self.headers.is_some());
        let all = FIELDS.into_iter().filter(|_| self.headers.is_none()).chain(own_closed).chain(own);
        let mut seen: Vec<&str> = Vec::new();
        all.filter(move |name| {
            let is_new = !seen.iter().any(|other| other.eq_ignore_ascii_case(name));
            seen.push(name);
            is_new
        })
    }
}

/// A signature that is being made.
pub struct Signing<'s> {
    signatory: &'s Signatory,
    /// The header so far, until it is through.
    header: Vec<u8>,
    /// Up to where it was looked at.
    searched: usize,
    body: Option<Body>,
}

impl<'s> Signing<'s> {
    /// A message of which nothing has come yet.
    pub fn new(signatory: &'s Signatory) -> Self {
        Self { signatory, header: Vec::new(), searched: 0, body: None }
    }

    /// Takes the next octets as they are sent: before dots are doubled, with all that stands
    /// in front of the message as it is stored.
    ///
    /// # Errors
    /// [`Unsigned::HeaderTooLong`].
    pub fn push(&mut self, octets: &[u8]) -> Result<(), Unsigned> {
        if let Some(body) = &mut self.body {
            body.push(octets);
            return Ok(());
        }
        self.header.extend_from_slice(octets);
        let end = if self.header.starts_with(b"\r\n") { Some((0, 2)) } else { self.empty_line() };
        if end.is_none_or(|(end, _)| end > MAX_HEADER_BYTES) && self.header.len() > MAX_HEADER_BYTES {
            return Err(Unsigned::HeaderTooLong);
        }
        if let Some((end, start)) = end {
            let mut body = Body::new();
            body.push(&self.header[start..]);
            self.header.truncate(end);
            self.body = Some(body);
        }
        Ok(())
    }

    /// Where the header ends, and where the body begins.
    fn empty_line(&mut self) -> Option<(usize, usize)> {
        let from = self.searched.saturating_sub(3);
        self.searched = self.header.len();
        let found = self.header[from..].windows(4).position(|window| window == b"\r\n\r\n")?;
        Some((from + found + 2, from + found + 4))
    }

    /// What the message says of its author: the only `From:` field, unfolded, behind its colon.
    fn author(all: &[Vec<u8>]) -> Result<String, Unsigned> {
        let mut of_author = all.iter().filter(|field| field.starts_with(b"from:"));
        let only = of_author.next().ok_or(Unsigned::NoFrom)?;
        if of_author.next().is_some() {
            return Err(Unsigned::SeveralFrom);
        }
        Ok(String::from_utf8_lossy(&only["from:".len()..]).into_owned())
    }

    /// The field to be sent in front of the message, with its line ends; `time` in seconds
    /// since 1970.
    ///
    /// # Errors
    /// Where the message can have no signature.
    pub fn finish(self, time: i64) -> Result<Vec<u8>, Unsigned> {
        let fields = fields(&self.header)?;
        self.signatory.speaks_for(&Self::author(&fields)?)?;
        let body = self.body.unwrap_or_else(Body::new).finish();
        let chosen = choose(self.signatory, &fields);
        let names: Vec<_> = chosen.iter().map(|(name, _)| name.as_str()).collect();
        let field = unsigned_field(self.signatory, time, &names, body.as_ref());
        let mut header = Vec::new();
        for field in chosen.iter().filter_map(|(_, field)| *field) {
            header.extend_from_slice(field);
            header.extend_from_slice(b"\r\n");
        }
        header.extend_from_slice(&canonical::field(field.as_bytes()));
        let signature = self.signatory.key.sign(&header).ok_or(Unsigned::Key)?;
        Ok(format!("{field}{}\r\n", folded(&BASE64.encode(signature), "")).into_bytes())
    }
}

/// The fields of a header in their canonical form.
fn fields(header: &[u8]) -> Result<Vec<Vec<u8>>, Unsigned> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    for line in header.split_inclusive(|&octet| octet == b'\n') {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            found.last_mut().ok_or(Unsigned::Malformed)?.extend_from_slice(line);
            continue;
        }
        let name = line.iter().position(|&octet| octet == b':').map(|colon| line[..colon].trim_ascii_end());
        if !name.is_some_and(|name| !name.is_empty() && name.iter().all(u8::is_ascii_graphic)) {
            return Err(Unsigned::Malformed);
        }
        found.push(line.to_vec());
    }
    Ok(found.iter().map(|field| canonical::field(field)).collect())
}

/// The fields to be signed with their names, of each name from the last to the first
/// (RFC 6376 section 5.4.2). One that is not there stands for that it is not there.
fn choose<'f>(signatory: &Signatory, fields: &'f [Vec<u8>]) -> Vec<(String, Option<&'f [u8]>)> {
    let mut chosen = Vec::new();
    for name in signatory.fields() {
        let prefix = format!("{}:", name.to_ascii_lowercase());
        let own = fields.iter().rev().filter(|field| field.starts_with(prefix.as_bytes()));
        chosen.extend(own.map(|field| (name.to_owned(), Some(field.as_slice()))));
        if CLOSED.iter().any(|closed| closed.eq_ignore_ascii_case(name)) {
            chosen.push((name.to_owned(), None));
        }
    }
    chosen
}

/// The field up to `b=`.
fn unsigned_field(signatory: &Signatory, time: i64, names: &[&str], body: &[u8]) -> String {
    let Signatory { domain, selector, key, .. } = signatory;
    let (algorithm, domain) = (key.algorithm(), domain.folded());
    let names = folded(&names.join(":").to_ascii_lowercase(), ":");
    let body = BASE64.encode(body);
    format!(
        "DKIM-Signature: v=1; a={algorithm}; c=relaxed/relaxed;\r\n d={domain};\r\n s={selector}; t={time};\r\n \
         h={names};\r\n bh={body};\r\n b="
    )
}

/// Text in lines of bounded length, cut anywhere or behind `separator`.
fn folded(text: &str, separator: &str) -> String {
    let mut lines: Vec<String> = vec![String::new()];
    let pieces: Vec<_> = if separator.is_empty() {
        text.as_bytes().chunks(LINE).map(|piece| String::from_utf8_lossy(piece).into_owned()).collect()
    } else {
        text.split_inclusive(separator).map(str::to_owned).collect()
    };
    for piece in pieces {
        match lines.last_mut() {
            Some(last) if last.is_empty() || last.len() + piece.len() < LINE => last.push_str(&piece),
            _ => lines.push(piece),
        }
    }
    lines.join("\r\n ")
}

#[cfg(test)]
mod tests {
    use ring::signature::{RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, UnparsedPublicKey};

    use super::*;

    /// The key of RFC 8463 appendix A.2, in the form that openssl gives it.
    const ED25519: &str = "-----BEGIN PRIVATE KEY-----\n\
                           MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
                           -----END PRIVATE KEY-----\n";

    /// The message of that RFC's appendix A.3, which is that of RFC 6376 appendix A.
    const MESSAGE: &str = "From: Joe SixPack <joe@football.example.com>\r\n\
                           To: Suzie Q <suzie@shopping.example.net>\r\n\
                           Subject: Is dinner ready?\r\n\
                           Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n\
                           Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n\
                           \r\n\
                           Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n";

    const BODY_HASH: &str = "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=";

    fn signatory(headers: Option<&[&str]>) -> Signatory {
        Signatory {
            domain: Domain::parse("Football.example.com").expect("a domain"),
            selector: "brisbane".to_owned(),
            headers: headers.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            any_from: false,
            key: Key::from_pem(ED25519.as_bytes()).expect("a key"),
        }
    }

    fn signed(signatory: &Signatory, message: &[u8], piece: usize) -> Result<String, Unsigned> {
        let mut signing = Signing::new(signatory);
        for piece in message.chunks(piece) {
            signing.push(piece)?;
        }
        signing.finish(1_528_637_909).map(|field| String::from_utf8(field).expect("ASCII"))
    }

    /// What a tag of the field has, without blanks.
    fn tag(field: &str, name: &str) -> String {
        let field: String = field.split_once(':').expect("a field").1.split_whitespace().collect();
        let found = field.split(';').find_map(|tag| tag.strip_prefix(&format!("{name}=")));
        found.unwrap_or_default().to_owned()
    }

    /// What the fields of RFC 8463 appendix A.3 are signatures of.
    fn canonical_header(unsigned: &str) -> Vec<u8> {
        let (header, _) = MESSAGE.split_once("\r\n\r\n").expect("a header");
        let mut found: Vec<u8> =
            header.split("\r\n").flat_map(|line| [&canonical::field(line.as_bytes()), &b"\r\n"[..]].concat()).collect();
        // Its h= has from, to, subject, date, message-id in the order of the message.
        found.extend(canonical::field(unsigned.as_bytes()));
        found
    }

    #[test]
    fn the_signatures_of_rfc_8463_come_out() {
        let mut body = Body::new();
        body.push(MESSAGE.split_once("\r\n\r\n").expect("a body").1.as_bytes());
        assert_eq!(BASE64.encode(body.finish()), BODY_HASH);

        let unsigned = format!(
            "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n d=football.example.com; \
             i=@football.example.com;\r\n q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n subject : date : \
             message-id : from : subject : date;\r\n bh={BODY_HASH};\r\n b="
        );
        let signature = signatory(None).key.sign(&canonical_header(&unsigned)).expect("signed");
        let expected = "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==";
        assert_eq!(BASE64.encode(signature), expected);

        // Its RSA key has 1024 bits, which are enough to verify with and not to sign with.
        let unsigned = format!(
            "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n d=football.example.com; \
             i=@football.example.com;\r\n q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r\n date : \
             message-id : from : subject : date;\r\n bh={BODY_HASH};\r\n b="
        );
        let key = BASE64.decode(RSA_PUBLIC).expect("base64");
        // What stands before the key itself names its kind.
        let key = UnparsedPublicKey::new(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, &key[22..]);
        let signature = BASE64.decode(RSA_SIGNATURE).expect("base64");
        key.verify(&canonical_header(&unsigned), &signature).expect("the signature of the standard");
    }

    const RSA_PUBLIC: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB";
    const RSA_SIGNATURE: &str = "F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2JzdA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=";

    #[test]
    fn a_signature_is_one_field_of_short_lines_however_the_message_is_cut() {
        let signatory = signatory(None);
        let whole = signed(&signatory, MESSAGE.as_bytes(), usize::MAX).expect("signed");
        for piece in [1, 2, 3, 7, 100] {
            assert_eq!(signed(&signatory, MESSAGE.as_bytes(), piece).as_ref(), Ok(&whole));
        }
        assert!(whole.starts_with(
            "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n d=football.example.com;\r\n s=brisbane; t=1528637909;\r\n h="
        ));
        assert!(whole.ends_with("\r\n") && !whole.contains("l="), "{whole}");
        assert!(whole.trim_end().split("\r\n").all(|line| line.len() < 79), "{whole}");
        assert!(whole.trim_end().split("\r\n").skip(1).all(|line| line.starts_with(' ')), "{whole}");
        assert_eq!(tag(&whole, "bh"), BODY_HASH);
    }

    #[test]
    fn fields_are_signed_as_often_as_they_are_there_and_two_once_more() {
        let names = |signatory: &Signatory, message: &str| {
            tag(&signed(signatory, message.as_bytes(), usize::MAX).expect("signed"), "h")
        };
        assert_eq!(names(&signatory(None), MESSAGE), "from:from:subject:subject:date:message-id:to");
        let message = "To: a@x\r\nReceived: 1\r\nFrom: a@football.example.com\r\nTO : b@x\r\nReceived: 2\r\n\r\n";
        assert_eq!(names(&signatory(None), message), "from:from:subject:to:to");
        let own = signatory(Some(&["received", "To", "to", "from"]));
        assert_eq!(names(&own, message), "from:from:subject:received:received:to:to");
    }

    #[test]
    fn who_is_of_the_domain_or_below_it_is_signed_for() {
        for from in [
            "a@football.example.com",
            "A <a@FOOTBALL.example.COM>",
            "a@x.y.football.example.com (x)",
            "a@football.example.com, b@z.football.example.com",
        ] {
            let message = format!("From: {from}\r\n\r\n");
            let field = signed(&signatory(None), message.as_bytes(), usize::MAX).expect(from);
            assert_eq!(tag(&field, "d"), "football.example.com");
        }
        let anybody = Signatory { any_from: true, ..signatory(None) };
        assert!(signed(&anybody, b"From: a@x.example\r\n\r\n", usize::MAX).is_ok());
    }

    #[test]
    fn of_a_name_the_last_field_is_signed_first() {
        let fields = fields(b"To: a\r\nFrom: x\r\n\tTO\r\nto: b\r\n").expect("fields");
        let chosen = choose(&signatory(Some(&["to"])), &fields);
        let chosen: Vec<_> = chosen.iter().map(|(_, field)| field.map(String::from_utf8_lossy)).collect();
        let expected = [Some("from:x TO".into()), None, None, Some("to:b".into()), Some("to:a".into())];
        assert_eq!(chosen, expected);
    }

    #[test]
    fn what_readers_could_take_for_something_else_gets_no_signature() {
        for (message, why) in [
            ("To: a@x\r\n\r\nFrom: a@x\r\n", Unsigned::NoFrom),
            ("\r\nFrom: a@x\r\n", Unsigned::NoFrom),
            ("", Unsigned::NoFrom),
            ("From: a@x\r\nfrom : b@x\r\n\r\n", Unsigned::SeveralFrom),
            ("From: a@x\r\nno field\r\n\r\n", Unsigned::Malformed),
            (" folded\r\nFrom: a@x\r\n\r\n", Unsigned::Malformed),
            ("From: a@x\r\n: x\r\n\r\n", Unsigned::Malformed),
            ("From: joe\r\n\r\n", Unsigned::From),
            ("From:\r\n\r\n", Unsigned::From),
            ("From: a@x.example\r\n\r\n", Unsigned::Foreign("x.example".to_owned())),
            ("From: a@eggball.example.com\r\n\r\n", Unsigned::Foreign("eggball.example.com".to_owned())),
            ("From: a@xfootball.example.com\r\n\r\n", Unsigned::Foreign("xfootball.example.com".to_owned())),
            ("From: a@example.com\r\n\r\n", Unsigned::Foreign("example.com".to_owned())),
            ("From: a@football.example.com, b@x.example\r\n\r\n", Unsigned::Foreign("x.example".to_owned())),
            ("From: \"a@football.example.com\" <b@x.example>\r\n\r\n", Unsigned::Foreign("x.example".to_owned())),
        ] {
            for piece in [1, 1000] {
                assert_eq!(signed(&signatory(None), message.as_bytes(), piece).as_ref(), Err(&why), "{message:?}");
            }
        }
        let long = format!("From: a@football.example.com\r\nX: {}", "x".repeat(MAX_HEADER_BYTES));
        assert_eq!(signed(&signatory(None), long.as_bytes(), 1000), Err(Unsigned::HeaderTooLong));
        let body = format!("From: a@football.example.com\r\n\r\n{}", "x".repeat(MAX_HEADER_BYTES));
        assert!(signed(&signatory(None), body.as_bytes(), usize::MAX).is_ok());
    }
}
