//! The options, letter by letter, so that they may stand together (`-ti`) and their
//! arguments glued (`-fa@b`) or apart. What names a file is never opened: it is refused
//! where it would change what is meant, else left out with the other historical options.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::{Invocation, Mode, UsageError, Waiting};
use crate::mail::{MailKey, Malformed, Notify, Ret, parse_envid};

/// Reads the arguments behind the program's name.
///
/// Octets that are no UTF-8 are marked as such, which within a display name hurts nobody.
/// `-B` is checked and otherwise without effect: the message itself says what is in it.
///
/// # Errors
/// [`UsageError`], with its exit code.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, UsageError> {
    let mut words = arguments.into_iter();
    let mut invocation = Invocation::default();
    while let Some(word) = words.next() {
        match word.as_bytes().strip_prefix(b"-") {
            Some(b"-") => invocation.recipients.extend(words.by_ref().map(|word| text(&word))),
            Some(b"-help") => invocation.mode = Mode::Help,
            Some(option) if option.starts_with(b"-format") => {
                let glued = option.strip_prefix(b"-format=").map(|value| text(OsStr::from_bytes(value)));
                let value = glued.or_else(|| words.next().map(|word| text(&word)));
                invocation.json = is_json(value.unwrap_or_default())?;
            }
            Some(letters) if !letters.is_empty() => invocation.options(letters, &mut words)?,
            _ => invocation.recipients.push(text(&word)),
        }
    }
    if invocation.json && invocation.mode != Mode::List {
        return Err(UsageError::Unknown("--format".to_owned()));
    }
    let wants_recipients = matches!(invocation.mode, Mode::Submit | Mode::Verify);
    if wants_recipients && invocation.recipients.is_empty() && !invocation.recipients_from_header {
        return Err(UsageError::NoRecipient);
    }
    Ok(invocation)
}

/// A word of the command line; what is no UTF-8 in it is marked.
fn text(word: &OsStr) -> String {
    word.to_string_lossy().into_owned()
}

fn is_json(format: String) -> Result<bool, UsageError> {
    match format.as_str() {
        "json" => Ok(true),
        "text" => Ok(false),
        _ => Err(UsageError::Format(format)),
    }
}

impl Invocation {
    /// One word of options, such as `ti` or `fa@b.example`.
    fn options(&mut self, letters: &[u8], words: &mut impl Iterator<Item = OsString>) -> Result<(), UsageError> {
        let mut rest = letters;
        while let Some((&letter, behind)) = rest.split_first() {
            match letter {
                b't' => self.recipients_from_header = true,
                b'i' => self.dot_ends_input = false,
                b'v' => self.verbose = true,
                b'I' => self.mode = Mode::Aliases,
                // Historical: send to myself too, aliasing off, submission, verbosity of others.
                b'm' | b'n' | b'U' | b'G' | b'x' | b'S' | b'c' => {}
                // These take an argument only where it is glued.
                b'q' => return self.queue(&text(OsStr::from_bytes(behind)), words),
                b'd' | b'E' | b'J' => return Ok(()),
                b'a'..=b'z' | b'A'..=b'Z' => {
                    let glued = Some(behind).filter(|glued| !glued.is_empty()).map(<[u8]>::to_vec);
                    let argument = || glued.or_else(|| words.next().map(OsString::into_vec));
                    return self.option(letter.into(), || argument().ok_or(UsageError::NoArgument(letter.into())));
                }
                _ => return Err(UsageError::Unknown(format!("-{}", text(OsStr::from_bytes(rest))))),
            }
            rest = behind;
        }
        Ok(())
    }

    /// An option with its argument, which is taken only where the option is known.
    fn option(&mut self, letter: char, octets: impl FnOnce() -> Result<Vec<u8>, UsageError>) -> Result<(), UsageError> {
        if letter == 'F' {
            self.full_name = Some(full_name(octets()?));
            return Ok(());
        }
        let argument = || octets().map(|octets| text(OsStr::from_bytes(&octets)));
        match letter {
            'f' | 'r' => self.reverse_path = Some(argument()?),
            'o' => self.historical(&argument()?),
            'O' => self.long_option(&argument()?),
            'b' => self.mode = mode(argument()?)?,
            'B' => drop(one_of('B', argument()?, &["7BIT", "8BITMIME"], "known are 7BIT and 8BITMIME")?),
            'N' => self.notify = Some(asked('N', argument()?, |text| Notify::parse(&text.replace(' ', "")))?),
            'R' => self.ret = Some(asked('R', argument()?, Ret::parse)?),
            'V' => self.envid = Some(asked('V', argument()?, |text| parse_envid(&escaped(text)))?),
            'C' => return Err(UsageError::Argument('C', argument()?, "use redeliver --config FILE sendmail")),
            // Historical; -X names a log file, which is not written.
            'A' | 'L' | 'X' | 'e' | 'h' | 'p' => drop(argument()?),
            unknown => return Err(UsageError::Unknown(format!("-{unknown}"))),
        }
        Ok(())
    }

    /// `-oi` is `-i`; of the many others (`-oem`, `-odb`, `-om`) none changes what becomes of a mail.
    fn historical(&mut self, option: &str) {
        if option == "i" {
            self.dot_ends_input = false;
        }
    }

    fn long_option(&mut self, option: &str) {
        match option.to_ascii_lowercase().as_str() {
            "smtputf8" => self.smtputf8 = true,
            "ignoredots" | "ignoredots=true" => self.dot_ends_input = false,
            "requiretls" => self.require_tls = true,
            _ => {}
        }
    }

    /// `-q`, `-qI KEY` and `-qR DOMAIN`; what they name may stand apart.
    fn queue(&mut self, argument: &str, words: &mut impl Iterator<Item = OsString>) -> Result<(), UsageError> {
        let refused = |why| UsageError::Argument('q', argument.to_owned(), why);
        let mut named = |glued: &str| {
            let glued = Some(glued.to_owned()).filter(|glued| !glued.is_empty());
            glued.or_else(|| words.next().map(|word| text(&word))).ok_or(UsageError::NoArgument('q'))
        };
        let waiting = match argument.split_at_checked(1) {
            None => Waiting::All,
            Some(("I", key)) => Waiting::Key(MailKey::parse(&named(key)?).ok_or_else(|| refused("that is no key"))?),
            Some(("R", domain)) => Waiting::Domain(named(domain)?),
            Some((first, _)) if first.starts_with(|c: char| c.is_ascii_digit()) => {
                return Err(refused("write a schedule instead"));
            }
            Some(_) => return Err(refused("known are -q, -qI KEY and -qR DOMAIN")),
        };
        self.mode = Mode::Sweep(waiting);
        Ok(())
    }
}

/// A name; one that is no UTF-8 is of a machine that still speaks Latin-1. Control characters
/// stand in no name.
fn full_name(octets: Vec<u8>) -> String {
    let name =
        String::from_utf8(octets).unwrap_or_else(|error| error.into_bytes().into_iter().map(char::from).collect());
    name.chars().filter(|c| !c.is_control()).collect()
}

fn mode(argument: String) -> Result<Mode, UsageError> {
    match argument.as_str() {
        "m" => Ok(Mode::Submit),
        "p" => Ok(Mode::List),
        "i" => Ok(Mode::Aliases),
        "d" | "D" => Ok(Mode::Serve),
        "s" => Ok(Mode::Smtp),
        "v" => Ok(Mode::Verify),
        _ => Err(UsageError::Argument('b', argument, "known are -bm, -bs, -bp, -bv, -bd and -bi")),
    }
}

/// The one of `known` that `argument` is, without regard to case.
fn one_of(letter: char, argument: String, known: &[&str], why: &'static str) -> Result<String, UsageError> {
    match known.iter().find(|word| word.eq_ignore_ascii_case(&argument)) {
        Some(word) => Ok((*word).to_owned()),
        None => Err(UsageError::Argument(letter, argument, why)),
    }
}

/// What is asked of notifications.
fn asked<T>(letter: char, argument: String, read: impl Fn(&str) -> Result<T, Malformed>) -> Result<T, UsageError> {
    read(&argument).map_err(|why| UsageError::Dsn(letter, argument, why))
}

/// What xtext has only in its escaped form, in that form: people write blanks.
fn escaped(text: &str) -> String {
    text.replace(' ', "+20").replace('=', "+3D")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Parties;
    use super::*;
    use crate::ingest::Here;

    fn here() -> Here {
        Here::new(crate::mail::Domain::parse("h.example").expect("a domain"), |name| name == "root")
    }

    /// The words of a line, in which a quoted word may have blanks.
    fn words(line: &str) -> impl Iterator<Item = OsString> {
        let parts = line.split('\'').enumerate();
        let words = parts.flat_map(|(at, part)| if at % 2 == 1 { vec![part] } else { part.split(' ').collect() });
        words.filter(|word| !word.is_empty()).map(OsString::from)
    }

    fn read(line: &str) -> Result<(Invocation, Parties), UsageError> {
        let invocation = parse(words(line))?;
        let named = matches!(invocation.mode, Mode::Submit | Mode::Verify);
        let parties =
            if named { invocation.parties(&here())? } else { Parties { reverse_path: None, recipients: Vec::new() } };
        Ok((invocation, parties))
    }

    /// What differs from the default, in words.
    fn told(line: &str) -> String {
        let (invocation, parties) = read(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let mut words = vec![format!("{:?}", invocation.mode)];
        words.extend(parties.recipients.iter().map(ToString::to_string));
        words.extend(invocation.recipients_from_header.then(|| "header".to_owned()));
        words.extend((!invocation.dot_ends_input).then(|| "dots".to_owned()));
        words.extend(parties.reverse_path.map(|path| format!("from={path}")));
        words.extend(invocation.full_name.map(|name| format!("name={name}")));
        words.extend(invocation.smtputf8.then(|| "utf8".to_owned()));
        words.extend(invocation.require_tls.then(|| "tls".to_owned()));
        words.extend(invocation.json.then(|| "json".to_owned()));
        words.extend(invocation.verbose.then(|| "verbose".to_owned()));
        words.extend(invocation.notify.iter().map(|notify| format!("notify={notify}")));
        words.extend(invocation.ret.iter().map(|ret| format!("ret={ret}")));
        words.extend(invocation.envid.iter().map(|envid| format!("envid={envid}")));
        words.join(" ")
    }

    #[test]
    fn options_stand_alone_together_glued_and_apart() {
        for (line, meaning) in [
            ("b@x.example", "Submit b@x.example"),
            ("-t", "Submit header"),
            ("-t b@x.example", "Submit b@x.example header"),
            ("-ti", "Submit header dots"),
            ("-oi -t", "Submit header dots"),
            ("-o i -t", "Submit header dots"),
            ("-tif a@h.example", "Submit header dots from=a@h.example"),
            ("-fa@h.example b@x.example", "Submit b@x.example from=a@h.example"),
            ("-f a@h.example b@x.example", "Submit b@x.example from=a@h.example"),
            ("-r a@h.example b@x.example", "Submit b@x.example from=a@h.example"),
            ("-f <> b@x.example", "Submit b@x.example from=<>"),
            ("-f <a@h.example> b@x.example", "Submit b@x.example from=a@h.example"),
            ("-FAnn b@x.example -i", "Submit b@x.example dots name=Ann"),
            ("b@x.example,c@x.example <d@x.example>", "Submit b@x.example c@x.example d@x.example"),
            ("-i -- b@x.example", "Submit b@x.example dots"),
            ("-f 'Backup Job <b@h.example>' c@x.example", "Submit c@x.example from=b@h.example"),
            ("'-fBackup Job <b@h.example>' c@x.example", "Submit c@x.example from=b@h.example"),
            ("-f 'root (Cron)' c@x.example", "Submit c@x.example from=root@h.example"),
            ("-f ' <> ' c@x.example", "Submit c@x.example from=<>"),
            ("-i a@x.example , b@x.example", "Submit a@x.example b@x.example dots"),
            ("a@x.example, ,b@x.example ; ,;,", "Submit a@x.example b@x.example"),
            ("'' a@x.example ' '", "Submit a@x.example"),
            ("b@x.example\r -f a@x.example\r\n", "Submit b@x.example from=a@x.example"),
            ("'a@x.example b@x.example' \"c@x.example\"", "Submit a@x.example b@x.example c@x.example"),
            ("-f \"a@h.example\" b@x.example", "Submit b@x.example from=a@h.example"),
            ("-v -O smtputf8 b@x.example", "Submit b@x.example utf8 verbose"),
            ("-O requiretls b@x.example", "Submit b@x.example tls"),
            ("-bp --format json", "List json"),
            ("--format=json -bp", "List json"),
            ("-bp --format text", "List"),
            ("-bm b@x.example", "Submit b@x.example"),
            ("-bp", "List"),
            ("-b p", "List"),
            ("-q", "Sweep(All)"),
            ("-qIK1", "Sweep(Key(MailKey(\"K1\")))"),
            ("-qI K1", "Sweep(Key(MailKey(\"K1\")))"),
            ("-qRx.example", "Sweep(Domain(\"x.example\"))"),
            ("-bs", "Smtp"),
            ("-bs -t -oi", "Smtp header dots"),
            ("-bv b@x.example", "Verify b@x.example"),
            ("-bd", "Serve"),
            ("--help", "Help"),
            ("-bi", "Aliases"),
            ("-I", "Aliases"),
        ] {
            assert_eq!(told(line), meaning, "{line}");
        }
    }

    #[test]
    fn the_calls_of_common_programs_are_understood() {
        for (line, meaning) in [
            ("-FCronDaemon -i -B8BITMIME -oem root", "Submit root@h.example dots name=CronDaemon"),
            ("-f root b@x.example", "Submit b@x.example from=root@h.example"),
            // What a program calls itself need be no user.
            ("-f backup b@x.example", "Submit b@x.example from=backup@h.example"),
            ("-f 'Backup Job <backup>' b@x.example", "Submit b@x.example from=backup@h.example"),
            ("-t -i", "Submit header dots"),
            ("-oem -odb -oi -t -f a@h.example", "Submit header dots from=a@h.example"),
            ("-oi -oeq -om b@x.example", "Submit b@x.example dots"),
            (
                "-G -i -N success,delay -R hdrs -V id=1 b@x.example",
                "Submit b@x.example dots notify=SUCCESS,DELAY ret=HDRS envid=id+3D1",
            ),
            ("-N never -B 7bit b@x.example", "Submit b@x.example notify=NEVER"),
            ("-L tag -h 3 -p SMTP -Am -Ac -X /tmp/log -d0.1 b@x.example", "Submit b@x.example"),
        ] {
            assert_eq!(told(line), meaning, "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_exit_code() {
        for (line, code, reason) in [
            ("", 64, "no recipient"),
            ("-i", 64, "no recipient"),
            ("-Z b@x.example", 64, r#"unknown option "-Z""#),
            ("--halp", 64, r#"unknown option "--halp""#),
            ("-be", 64, "known are -bm"),
            ("-bv", 64, "no recipient"),
            ("-ü b@x.example", 64, "unknown option"),
            ("-t -f", 64, "-f needs an argument"),
            ("-C /etc/x b@x.example", 64, "redeliver --config"),
            ("-q30m", 64, "schedule"),
            ("-qSabc", 64, "known are -q, -qI KEY"),
            ("-bp --format yaml", 64, "known are json and text"),
            ("--format json b@x.example", 64, "unknown option"),
            ("-qI", 64, "-q needs an argument"),
            ("-B 9BIT b@x.example", 64, "8BITMIME"),
            ("-R some b@x.example", 64, "HDRS"),
            ("-N never,delay b@x.example", 64, "NEVER alone"),
            ("-N sometimes b@x.example", 64, "NEVER alone"),
            ("-V a+b b@x.example", 64, "xtext"),
            ("-V a+0D+0A b@x.example", 64, "no control character"),
            ("nobody", 65, "no domain"),
            ("-f nobody@ b@x.example", 65, "reverse-path \"nobody@\""),
            ("-- -oQ@x.example", 65, "begins with '-'"),
            (",", 64, "no recipient"),
            ("' ' ,", 65, "the address is empty"),
            ("-f 'a@x.example, b@x.example' c@x.example", 65, "several"),
            ("-f 'Backup Job' c@x.example", 65, "reverse-path \"Backup Job\""),
            ("'Doe, John <j@x.example>'", 65, "quote the name"),
        ] {
            let error = read(line).expect_err(line);
            assert_eq!(error.exit_code(), code, "{line}: {error}");
            assert!(error.to_string().contains(reason), "{line}: {error}");
        }
    }

    #[test]
    fn a_line_end_does_not_slip_a_second_recipient_in() {
        for operand in ["b@x.example\r\nRCPT TO:<c@x.example>", "b@x.example,\nc@x.example", "b@x.example\t"] {
            let invocation = parse([OsString::from(operand)]).expect("an operand");
            let error = invocation.parties(&here()).expect_err(operand);
            assert!(error.exit_code() == 65 && error.to_string().contains("control character"), "{error}");
        }
    }

    #[test]
    fn octets_that_are_no_utf8_are_no_reason_to_refuse_unless_they_are_an_address() {
        let read = |words: &[&[u8]]| {
            let invocation = parse(words.iter().map(|word| OsString::from_vec(word.to_vec())))?;
            let parties = invocation.parties(&here())?;
            Ok::<_, UsageError>((invocation, parties))
        };
        let (invocation, _) = read(&[b"-FJ\xfcrgen", b"b@x.example"]).expect("a name");
        assert_eq!(invocation.full_name.as_deref(), Some("J\u{fc}rgen"));
        let (invocation, _) = read(&[b"-F", "J\u{fc}rgen\t".as_bytes(), b"b@x.example"]).expect("a name");
        assert_eq!(invocation.full_name.as_deref(), Some("J\u{fc}rgen"));
        let (_, parties) = read(&[b"-f", b"J\xfcrgen <a@x.example>", b"B\xe4r <b@x.example>"]).expect("names");
        assert_eq!(parties.recipients[0].to_string(), "b@x.example");
        for words in [&[&b"b\xe4r@x.example"[..]][..], &[b"-fb\xe4r@x.example", b"b@x.example"]] {
            let error = read(words).expect_err("an address");
            assert!(error.exit_code() == 65 && error.to_string().contains("not UTF-8"), "{error}");
        }
        assert_eq!(read(&[b"-\xfc", b"b@x.example"]).expect_err("no option").exit_code(), 64);
    }

    proptest! {
        #[test]
        fn no_command_line_yields_a_control_character_or_an_error_of_several_lines(
            words in prop::collection::vec("-?[\\x00-\\x7f]{0,8}|-[a-zA-Z]{1,3}|[a-z]{1,3}@x\\.example", 0..6),
        ) {
            let read = parse(words.into_iter().map(OsString::from)).and_then(|invocation| {
                let parties = invocation.parties(&here())?;
                Ok((invocation, parties))
            });
            match read {
                Err(error) => prop_assert!(!error.to_string().contains(char::is_control), "{:?}", error),
                Ok((invocation, parties)) => {
                    let path = parties.reverse_path.map(|path| path.to_string()).unwrap_or_default();
                    let texts = [path, invocation.full_name.unwrap_or_default()];
                    prop_assert!(!texts.iter().any(|text| text.contains(char::is_control)));
                }
            }
        }
    }
}
