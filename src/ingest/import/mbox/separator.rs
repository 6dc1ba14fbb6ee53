//! What a line that begins with `From ` looks like, and what stands behind it.
//!
//! RFC 4155 wants an address and a date as asctime(3) writes it. In the wild the date is
//! that of RFC 5322, of ISO 8601, with the day first or in another language, the sender is a
//! dash, a name or missing, and some programs write `From ` alone. Sentences begin so too.

/// How far a line looks like what stands before a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Likeness {
    /// A sender, or none, and the date of asctime(3): nobody writes that by chance.
    Whole,
    /// Some other date with a time, and no word of a sentence.
    Dated,
    /// A date with a time among words; or no date, and at most one word.
    Loose,
    /// What stands before a patch by git, in a mailbox of patches as within a message.
    Patch,
    /// Anything else: it may well be a sentence.
    Words,
}

/// What stands behind such a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Follows {
    /// No header field.
    Nothing,
    /// Something that has the form of one.
    Field,
    /// One that nearly every message has.
    Known,
    /// One that a machine wrote: nobody writes it in a text.
    Trace,
}

/// What is to be done about such a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It belongs to the message.
    Text,
    /// It begins the next.
    Begins,
    /// Only who knows the file can say; why.
    Doubt(&'static str),
}

/// Decides by what a line looks like, what stands behind it, and whether an empty line
/// stands before it.
pub(super) fn judge(likeness: Likeness, follows: Follows, after_blank: bool) -> Verdict {
    const TIGHT: Verdict = Verdict::Doubt("may begin a message, and stands behind a line that is not empty");
    const DOUBT: Verdict = Verdict::Doubt("may begin a message, or be a line of one");
    let header = |least: Follows| follows >= least;
    let (begins, doubt_after_blank, doubt_if_tight) = match likeness {
        // A text may cite such a line; behind one that begins a message a header stands.
        Likeness::Whole => (header(Follows::Field), true, true),
        Likeness::Dated => (header(Follows::Field), true, header(Follows::Field)),
        Likeness::Loose => (header(Follows::Known), header(Follows::Field), header(Follows::Known)),
        Likeness::Patch => (false, header(Follows::Field), header(Follows::Known)),
        Likeness::Words => (false, header(Follows::Field), header(Follows::Trace)),
    };
    match () {
        () if after_blank && begins => Verdict::Begins,
        () if after_blank && doubt_after_blank => DOUBT,
        () if !after_blank && doubt_if_tight => TIGHT,
        () => Verdict::Text,
    }
}

/// The longest `From ` line.
const LONGEST: usize = 1000;

const DAYS: [&[u8]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];
const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// The time that git writes before each patch.
const PATCH: [&[u8]; 5] = [b"Mon", b"Sep", b"17", b"00:00:00", b"2001"];

const KNOWN: [&str; 11] = [
    "From",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Sender",
    "Reply-To",
    "Content-Type",
    "Content-Length",
    "Status",
    "X-Status",
];
const TRACE: [&str; 11] = [
    "Return-Path",
    "Received",
    "Message-ID",
    "Delivered-To",
    "X-Original-To",
    "Envelope-To",
    "MIME-Version",
    "X-Mozilla-Status",
    "X-Mozilla-Status2",
    "X-UIDL",
    "X-Gmail-Labels",
];

/// What `line` looks like; `None` where it does not begin with `From `.
pub(super) fn likeness(line: &[u8]) -> Option<Likeness> {
    if line.len() > LONGEST {
        return None;
    }
    let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
    let rest = line.strip_prefix(b"From")?;
    let rest = rest.strip_prefix(b" ")?;
    let words: Vec<_> = rest.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
    Some(of_words(&words))
}

fn of_words(words: &[&[u8]]) -> Likeness {
    if let [commit, date @ ..] = words
        && commit.len() >= 40
        && commit.iter().all(u8::is_ascii_hexdigit)
        && date == PATCH
    {
        return Likeness::Patch;
    }
    match senders_before_whole_date(words) {
        Some(0 | 1) => return Likeness::Whole,
        Some(_) if is_sentence(words) => return Likeness::Loose,
        Some(_) => return Likeness::Dated,
        None => {}
    }
    let is_dated = words.iter().any(|word| has_time(word)) && (0..words.len()).any(|at| has_date(words, at));
    match words {
        [] => Likeness::Loose,
        _ if is_dated && is_sentence(words) => Likeness::Loose,
        _ if is_dated => Likeness::Dated,
        [_] => Likeness::Loose,
        _ => Likeness::Words,
    }
}

/// How many words stand before `Mon Jan  2 03:04:05 2026`, with which the line ends; some
/// write a time zone before or behind the year.
fn senders_before_whole_date(words: &[&[u8]]) -> Option<usize> {
    let at = words.iter().rposition(|word| DAYS.contains(word))?;
    let [_, month, day, time, rest @ ..] = &words[at..] else { return None };
    let is_date = MONTHS.contains(month) && is_number(day, 1..=2) && has_time(time);
    let is_end = matches!(rest, [year] | [year, _] if is_year(year)) || matches!(rest, [_, year] if is_year(year));
    (is_date && is_end).then_some(at)
}

/// Words in small letters behind what may be the sender: `on`, `we`, `remote from`.
fn is_sentence(words: &[&[u8]]) -> bool {
    let small = |word: &&[u8]| word.len() > 1 && word.iter().all(u8::is_ascii_lowercase);
    words.iter().skip(1).any(small)
}

fn is_number(word: &[u8], digits: std::ops::RangeInclusive<usize>) -> bool {
    digits.contains(&word.len()) && word.iter().all(u8::is_ascii_digit)
}

fn is_year(word: &[u8]) -> bool {
    is_number(word, 4..=4) && (word.starts_with(b"19") || word.starts_with(b"20"))
}

/// `10:00`, `10:00:00.5Z`, `2021-03-15T10:00:00`.
fn has_time(word: &[u8]) -> bool {
    let digit = |at: usize| word.get(at).is_some_and(u8::is_ascii_digit);
    let colons = word.iter().enumerate().filter(|(_, octet)| **octet == b':').map(|(at, _)| at);
    colons.into_iter().any(|at| at > 0 && digit(at - 1) && digit(at + 1) && digit(at + 2))
}

/// A year, a day of the week, or `15/03/21`, `15.3.2021`, `15-Mar-2021`, `2021-03-15T10:00`.
fn has_date(words: &[&[u8]], at: usize) -> bool {
    let word = words[at].trim_ascii();
    let word = word.strip_suffix(b",").unwrap_or(word);
    let of_three = |separator: u8| {
        let parts: Vec<_> = word.split(|octet| *octet == separator).collect();
        let begins = |part: &[u8]| part.first().is_some_and(u8::is_ascii_digit);
        matches!(parts[..], [first, middle, last, ..] if begins(first) && !middle.is_empty() && begins(last))
    };
    is_year(word) || at > 0 && DAYS.contains(&word) || [b'-', b'/', b'.'].into_iter().any(of_three)
}

/// What this line, behind the `From ` line, says of what follows; `None` where it ends it.
pub(super) fn of_line(line: &[u8]) -> Option<Follows> {
    let colon = line.iter().position(|&octet| octet == b':')?;
    let name = line[..colon].trim_ascii_end();
    // RFC 5322 section 2.2; `http://...` has the form of a field and is none.
    if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) || line[colon..].starts_with(b"://") {
        return None;
    }
    let is_one_of = |names: &[&str]| names.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
    Some(match () {
        () if is_one_of(&TRACE) => Follows::Trace,
        () if is_one_of(&KNOWN) => Follows::Known,
        () => Follows::Field,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_wild_are_told_from_sentences() {
        for (line, expected) in [
            ("From a@x.example Mon Jan  2 03:04:05 2026", Some(Likeness::Whole)),
            ("From a@x.example Mon Jan  2 03:04 CET 2026\r\n", Some(Likeness::Whole)),
            ("From jwz  Fri Jul  1 09:13:09 1994 (+0700)\n", Some(Likeness::Whole)),
            ("From - Sat Apr 12 15:59:28 2025\n", Some(Likeness::Whole)),
            ("From Sat Apr 12 15:59:28 2025\n", Some(Likeness::Whole)),
            ("From Kamil <k@x.example>  Wed Jan  2 16:34:35 2019\n", Some(Likeness::Dated)),
            ("From a@y.example Tue, 15 Mar 2021 10:00:00 +0000\n", Some(Likeness::Dated)),
            ("From a@y.example 15 Mar 2021 10:00:00 +0000\n", Some(Likeness::Dated)),
            ("From jwz  Fri, Jul 01 09:13:09 1994\n", Some(Likeness::Dated)),
            ("From a@y.example 2021-03-15 10:00:00+01:00\n", Some(Likeness::Dated)),
            ("From a@y.example 2021-03-15T10:00:00Z\n", Some(Likeness::Dated)),
            ("From a@y.example 15/03/2021 10:00\n", Some(Likeness::Dated)),
            ("From a@y.example 15.3.21 10:00:00\n", Some(Likeness::Dated)),
            ("From a@y.example 15-Mar-2021 10:00:00\n", Some(Likeness::Dated)),
            ("From a@y.example Di Mär 15 10:00:00 2021\n", Some(Likeness::Dated)),
            ("From a@y.example Tue Mar 15 10:00:00 21\n", Some(Likeness::Dated)),
            ("From a@y.example 15 mars 2021 10:00:00\n", Some(Likeness::Loose)),
            ("From john at gmail Tue Mar 15 10:00:00 2021\n", Some(Likeness::Loose)),
            ("From news Tue Mar 15 10:00:00 1994 remote from uunet\n", Some(Likeness::Loose)),
            ("From \n", Some(Likeness::Loose)),
            ("From\r\n", None),
            ("From -\n", Some(Likeness::Loose)),
            ("From a@y.example\n", Some(Likeness::Loose)),
            ("From 2021-03-15 10:00:00 on we saw\n", Some(Likeness::Loose)),
            ("From here on Mon we read\n", Some(Likeness::Words)),
            ("From Mon 10:00 on\n", Some(Likeness::Words)),
            ("From now on\n", Some(Likeness::Words)),
            ("From the 15th, 10:00\n", Some(Likeness::Words)),
            ("From 1b8c7d6e5f4a3b2c1d0e9f8a7b6c5d4e3f2a1b0c Mon Sep 17 00:00:00 2001\n", Some(Likeness::Patch)),
            ("From: a@y.example\n", None),
            ("Fromage\n", None),
            (">From a@y.example Mon Jan  2 03:04:05 2026\n", None),
        ] {
            assert_eq!(likeness(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn fields_are_told_by_how_likely_a_text_has_them() {
        for (line, expected) in [
            ("Subject: x\n", Some(Follows::Known)),
            ("message-id : <1@x>\n", Some(Follows::Trace)),
            ("X: 1\n", Some(Follows::Field)),
            ("Note: this\n", Some(Follows::Field)),
            ("https://x.example/\n", None),
            ("dear all: this\n", None),
            ("text\n", None),
            (": x\n", None),
        ] {
            assert_eq!(of_line(line.as_bytes()), expected, "{line:?}");
        }
    }
}
