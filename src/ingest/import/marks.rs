//! What programs write into a message about itself: that it was thrown away, never finished,
//! or is no message at all.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::header::Field;

/// What somebody, or a program for him, made of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// It was thrown away.
    pub trash: bool,
    /// It is not finished.
    pub draft: bool,
    /// It was taken for junk.
    pub junk: bool,
}

/// Bits of fields that are hexadecimal numbers. Mozilla: the message is only still there until
/// the mailbox is compacted; it is deleted on the server.
const EXPUNGED: [(&str, u32); 2] = [("X-Mozilla-Status", 0x0008), ("X-Mozilla-Status2", 0x0020_0000)];

/// Bits of the second number of Evolution's `X-Evolution: 0000002a-0010`.
const EVOLUTION: [(u32, Marks); 3] = [
    (0x02, Marks { trash: true, draft: false, junk: false }),
    (0x04, Marks { trash: false, draft: true, junk: false }),
    (0x80, Marks { trash: false, draft: false, junk: true }),
];

/// Fields that only a draft has, and with what value: of Thunderbird, Outlook and Apple Mail.
const OF_DRAFTS: [(&str, &str); 3] =
    [("X-Mozilla-Draft-Info", ""), ("X-Unsent", "1"), ("X-Uniform-Type-Identifier", "com.apple.mail-draft")];

/// Fields with words of IMAP's kind between blanks, such as `\Trash` or `$Junk`.
const KEYWORDS: [&str; 4] = ["X-GM-LABELS", "X-Keywords", "X-Mozilla-Keys", "X-Label"];

/// Labels of an export of Gmail, between commas and in the language of the account.
const LABELS: &str = "X-Gmail-Labels";

/// Names of the folder for what was thrown away, in small letters.
const TRASH: [&str; 22] = [
    "trash",
    "deleted",
    "bin",
    "papierkorb",
    "corbeille",
    "papelera",
    "cestino",
    "lixeira",
    "prullenbak",
    "kosz",
    "papperskorgen",
    "papirkurv",
    "roskakori",
    "koš",
    "kôš",
    "lomtár",
    "çöp kutusu",
    "корзина",
    "кошик",
    "ゴミ箱",
    "휴지통",
    "垃圾箱",
];

/// The same for drafts.
const DRAFTS: [&str; 25] = [
    "draft",
    "drafts",
    "entwürfe",
    "entwurf",
    "brouillons",
    "brouillon",
    "borradores",
    "borrador",
    "bozze",
    "bozza",
    "rascunhos",
    "rascunho",
    "concepten",
    "wersje robocze",
    "utkast",
    "kladder",
    "luonnokset",
    "koncepty",
    "piszkozatok",
    "taslaklar",
    "черновики",
    "чернетки",
    "下書き",
    "임시보관함",
    "草稿",
];

/// The same for junk.
const JUNK: [&str; 8] =
    ["spam", "junk", "junkrecorded", "courrier indésirable", "спам", "迷惑メール", "스팸함", "垃圾邮件"];

impl Marks {
    /// What a header tells.
    pub(super) fn of(fields: &[Field<'_>]) -> Self {
        let mut marks = Self::default();
        for field in fields {
            marks.join(of_field(field));
        }
        marks
    }

    fn join(&mut self, other: Self) {
        self.trash |= other.trash;
        self.draft |= other.draft;
        self.junk |= other.junk;
    }
}

fn of_field(field: &Field<'_>) -> Marks {
    let body = field.body();
    let value = body.trim();
    let number = || u32::from_str_radix(value, 16).unwrap_or(0);
    let mut marks = Marks {
        trash: EXPUNGED.iter().any(|(name, bit)| field.is(name) && number() & bit != 0),
        draft: OF_DRAFTS.iter().any(|(name, with)| field.is(name) && (with.is_empty() || value == *with)),
        junk: false,
    };
    // Of Pine, mutt and others.
    if field.is("X-Status") {
        marks.join(Marks { trash: value.contains('D'), draft: value.contains('T'), junk: false });
    }
    if field.is("X-Evolution") {
        let bits = value.split('-').nth(1).and_then(|bits| u32::from_str_radix(bits.get(..4)?, 16).ok()).unwrap_or(0);
        EVOLUTION.into_iter().filter(|(bit, _)| bits & bit != 0).for_each(|(_, of)| marks.join(of));
    }
    if field.is(LABELS) {
        decoded(value).split(',').for_each(|label| marks.join(of_name(label)));
    } else if KEYWORDS.iter().any(|name| field.is(name)) {
        let words = value.split(|c: char| c.is_whitespace() || ",;()".contains(c));
        words.for_each(|word| marks.join(of_name(word)));
    }
    marks
}

/// What a label or a keyword says of the message.
fn of_name(name: &str) -> Marks {
    let name = name.trim().trim_matches('"').trim_start_matches(['\\', '$']).to_lowercase();
    let is_one_of = |names: &[&str]| names.contains(&name.as_str());
    Marks { trash: is_one_of(&TRASH), draft: is_one_of(&DRAFTS), junk: is_one_of(&JUNK) }
}

/// A text with its encoded words decoded where they are UTF-8 (RFC 2047); line ends are left out.
fn decoded(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_ascii_whitespace() {
        let plain = word.strip_prefix("=?").and_then(|word| word.strip_suffix("?=")).and_then(of_encoded_word);
        // Blanks between two encoded words are none of the text; a label with a blank more is the same here.
        out.push_str(plain.as_deref().unwrap_or(word));
        if plain.is_none() {
            out.push(' ');
        }
    }
    out
}

fn of_encoded_word(word: &str) -> Option<String> {
    let mut parts = word.splitn(3, '?');
    let (charset, encoding, text) = (parts.next()?, parts.next()?, parts.next()?);
    let octets = match encoding {
        "B" | "b" => STANDARD.decode(text).ok()?,
        "Q" | "q" => of_q(text),
        _ => return None,
    };
    charset.eq_ignore_ascii_case("utf-8").then(|| String::from_utf8_lossy(&octets).into_owned())
}

/// The Q encoding; what is none stays as it is.
fn of_q(text: &str) -> Vec<u8> {
    let octets = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(octets.len()), 0);
    while let Some(&octet) = octets.get(at) {
        let hex = octets.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (octet, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'=', Some(value)) => {
                out.push(value);
                at += 2;
            }
            (b'_', _) => out.push(b' '),
            _ => out.push(octet),
        }
        at += 1;
    }
    out
}

/// Whether it is the first message of a mailbox of Pine or of the University of Washington's
/// servers, which only looks like one.
pub(super) fn is_internal(fields: &[Field<'_>]) -> bool {
    let has = |name: &str| fields.iter().any(|field| field.is(name));
    let data = |field: &Field<'_>| field.is("Subject") && field.body().contains("FOLDER INTERNAL DATA");
    (has("X-IMAP") || has("X-IMAPbase")) && fields.iter().any(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(header: &str) -> Marks {
        let fields: Vec<_> = header.split_inclusive("\r\n").map(|line| Field { octets: line.as_bytes() }).collect();
        Marks::of(&fields)
    }

    #[test]
    fn what_programs_write_about_a_message_is_read() {
        for (header, expected) in [
            ("X-Gmail-Labels: Inbox,Important", ""),
            ("X-Gmail-Labels: Trash", "trash"),
            ("X-Gmail-Labels: Drafts,Important", "draft"),
            ("X-Gmail-Labels: Opened,Spam", "junk"),
            ("X-Gmail-Labels: \"Archiviert\",\"Papierkorb\"", "trash"),
            ("X-Gmail-Labels: =?UTF-8?Q?Archiviert,Entw=C3=BCrfe?=", "draft"),
            ("X-Gmail-Labels: =?UTF-8?B?R2XDtmZmbmV0LEVudHc=?= =?UTF-8?B?w7xyZmU=?=", "draft"),
            ("X-Gmail-Labels: =?UTF-8?Q?Wersje_robocze?=", "draft"),
            // A label of somebody's own is no folder.
            ("X-Gmail-Labels: Not trash,Trash talk,Draft contracts", ""),
            ("X-GM-LABELS: \"\\\\Inbox\" \"\\\\Trash\"", "trash"),
            ("X-GM-LABELS: (\\Draft)", "draft"),
            ("X-Keywords: $Junk $Label1", "junk"),
            ("X-Keywords: NonJunk", ""),
            ("X-Mozilla-Keys: junk", "junk"),
            ("X-Mozilla-Keys: $label1 nonjunk", ""),
            ("X-Mozilla-Draft-Info: internal/draft; vcard=0", "draft"),
            ("X-Unsent: 1", "draft"),
            ("X-Unsent: 0", ""),
            ("X-Uniform-Type-Identifier: com.apple.mail-draft", "draft"),
            ("X-Uniform-Type-Identifier: com.apple.mail-note", ""),
            ("X-Evolution: 0000002a-0010", ""),
            ("X-Evolution: 0000002a-0012", "trash"),
            ("X-Evolution: 0000002a-0014;tag", "draft"),
            ("X-Evolution: 0000002a-0090", "junk"),
            ("X-Evolution: 0000002a", ""),
            ("X-Spam-Flag: NO", ""),
            ("Subject: Trash", ""),
        ] {
            let found = marks(&format!("{header}\r\n"));
            let words = [(found.trash, "trash"), (found.draft, "draft"), (found.junk, "junk")];
            let told: Vec<_> = words.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect();
            assert_eq!(told.join(" "), expected, "{header}");
        }
    }
}
