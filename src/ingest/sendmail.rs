//! The command line of `sendmail`, as mail programs have called it for forty years.
//!
//! Options are read letter by letter, so that they may stand together (`-ti`) and their
//! arguments glued (`-fa@b`) or apart. What names a file is never opened: it is refused
//! where it would change what is meant, else left out with the other historical options.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use super::addresses::{AddressListError, Here, parse_address_list_here};
use super::dsn::Dsn;
use crate::mail::{Address, AddressError, MailKey, ReversePath};

/// What a command line asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Invocation {
    /// What is to be done; everything below belongs to [`Mode::Submit`], the recipients to
    /// [`Mode::Verify`] too.
    pub mode: Mode,
    /// The recipients on the command line, in their order.
    pub recipients: Vec<Address>,
    /// `-t`: the recipients of the header are added, and `Bcc:` is removed.
    pub recipients_from_header: bool,
    /// A line with a single dot ends the message; not with `-i`.
    pub dot_ends_input: bool,
    /// `-f` or `-r`; without it the user at this host. Written as `<>` where it is null, which
    /// is not the same as none.
    #[serde(with = "written_reverse_path")]
    pub reverse_path: Option<ReversePath>,
    /// `-F`: the name for a `From:` that is missing.
    pub full_name: Option<String>,
    /// `-O smtputf8`: header octets outside ASCII are UTF-8 by declaration (RFC 6531).
    pub smtputf8: bool,
    /// `-O requiretls`: to servers alone that promise TLS all the way (RFC 8689).
    pub require_tls: bool,
    /// `--format json`: as JSON Lines; only with [`Mode::List`].
    pub json: bool,
    /// `-v`: show what happens.
    pub verbose: bool,
    /// What is asked for about DSNs.
    pub dsn: Dsn,
}

/// What `sendmail` can be told to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// Read a message from standard input and take it (`-bm`, or no `-b`).
    Submit,
    /// Speak SMTP on standard input and output (`-bs`).
    Smtp,
    /// List what waits (`-bp`).
    List,
    /// Say how the recipients would be routed, and send nothing (`-bv`).
    Verify,
    /// Be the service (`-bd`).
    Serve,
    /// Say what can be asked for (`--help`).
    Help,
    /// Attempt what waits, now (`-q`).
    Sweep(Waiting),
    /// Rebuild the aliases (`-bi`, `-I`): there are none, so nothing is to be done.
    Aliases,
}

/// Which of the mails that wait are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Waiting {
    /// All (`-q`).
    All,
    /// The one with this key (`-qI`).
    Key(MailKey),
    /// Those with a recipient of this domain (`-qR`).
    Domain(String),
}

/// A reverse-path that may be missing, as a text that tells `<>` from nothing.
mod written_reverse_path {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::ReversePath;

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub(super) fn serialize<S: Serializer>(path: &Option<ReversePath>, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_ref().map(ToString::to_string).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ReversePath>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| ReversePath::parse(&text)).transpose().map_err(serde::de::Error::custom)
    }
}

/// Why a command line is refused. The text is one line and safe to print.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// An option that is not known.
    #[error("unknown option {0:?}")]
    Unknown(String),
    /// An option without the argument it needs.
    #[error("option -{0} needs an argument")]
    NoArgument(char),
    /// An argument that the option does not take.
    #[error("option -{0} does not take {1:?}: {2}")]
    Argument(char, String, &'static str),
    /// An argument that is not UTF-8.
    #[error("an argument is not UTF-8: {0:?}")]
    NotUtf8(OsString),
    /// What `--format` does not know.
    #[error("there is no format {0:?}: known are json and text")]
    Format(String),
    /// Neither a recipient nor `-t`.
    #[error("no recipient: name one, or use -t to take those of the header")]
    NoRecipient,
    /// The reverse-path is no address.
    #[error("reverse-path {0:?}: {1}")]
    ReversePath(String, #[source] AddressError),
    /// A recipient is no address.
    #[error("recipient {0}")]
    Recipient(#[from] AddressListError),
}

impl UsageError {
    /// The code of sysexits(3): 65 for an address that is none, 64 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::ReversePath(..) | Self::Recipient(_) => 65,
            _ => 64,
        }
    }
}

/// Reads the arguments behind the program's name.
///
/// A user of this machine may be named without a domain: cron does.
///
/// `-B` is checked and otherwise without effect: the message itself says what is in it.
///
/// # Errors
/// [`UsageError`], with its exit code.
pub fn parse(arguments: impl IntoIterator<Item = OsString>, here: &Here) -> Result<Invocation, UsageError> {
    let arguments: Result<Vec<String>, _> = arguments.into_iter().map(OsString::into_string).collect();
    let mut words = arguments.map_err(UsageError::NotUtf8)?.into_iter();
    let mut invocation = Invocation::default();
    let mut operands = Vec::new();
    while let Some(word) = words.next() {
        match word.strip_prefix('-') {
            Some("-") => operands.extend(words.by_ref()),
            Some("-help") => invocation.mode = Mode::Help,
            Some(format) if format.starts_with("-format") => {
                let value = format.strip_prefix("-format=").map(str::to_owned).or_else(|| words.next());
                invocation.json = is_json(value.unwrap_or_default())?;
            }
            Some(letters) if !letters.is_empty() => invocation.options(letters, &mut words, here)?,
            _ => operands.push(word),
        }
    }
    if invocation.json && invocation.mode != Mode::List {
        return Err(UsageError::Unknown("--format".to_owned()));
    }
    invocation.operands(&operands, here)?;
    Ok(invocation)
}

fn is_json(format: String) -> Result<bool, UsageError> {
    match format.as_str() {
        "json" => Ok(true),
        "text" => Ok(false),
        _ => Err(UsageError::Format(format)),
    }
}

impl Default for Invocation {
    fn default() -> Self {
        Self {
            mode: Mode::Submit,
            recipients: Vec::new(),
            recipients_from_header: false,
            dot_ends_input: true,
            reverse_path: None,
            full_name: None,
            smtputf8: false,
            require_tls: false,
            json: false,
            verbose: false,
            dsn: Dsn::default(),
        }
    }
}

impl Invocation {
    /// One word of options, such as `ti` or `fa@b.example`.
    fn options(
        &mut self,
        letters: &str,
        words: &mut impl Iterator<Item = String>,
        here: &Here,
    ) -> Result<(), UsageError> {
        let mut rest = letters.chars();
        while let Some(letter) = rest.next() {
            match letter {
                't' => self.recipients_from_header = true,
                'i' => self.dot_ends_input = false,
                'v' => self.verbose = true,
                'I' => self.mode = Mode::Aliases,
                // Historical: send to myself too, aliasing off, submission, verbosity of others.
                'm' | 'n' | 'U' | 'G' | 'x' | 'S' | 'c' => {}
                // These take an argument only where it is glued.
                'q' => return self.queue(rest.as_str(), words),
                'd' | 'E' | 'J' => return Ok(()),
                _ => {
                    let glued = Some(rest.as_str()).filter(|glued| !glued.is_empty()).map(str::to_owned);
                    let argument = || glued.or_else(|| words.next()).ok_or(UsageError::NoArgument(letter));
                    return self.option(letter, argument, here);
                }
            }
        }
        Ok(())
    }

    /// An option with its argument, which is taken only where the option is known.
    fn option(
        &mut self,
        letter: char,
        argument: impl FnOnce() -> Result<String, UsageError>,
        here: &Here,
    ) -> Result<(), UsageError> {
        match letter {
            'f' | 'r' => self.reverse_path = Some(reverse_path(&argument()?, here)?),
            'F' => self.full_name = Some(full_name(argument()?)?),
            'o' => self.historical(&argument()?),
            'O' => self.long_option(&argument()?),
            'b' => self.mode = mode(argument()?)?,
            'B' => drop(one_of('B', argument()?, &["7BIT", "8BITMIME"], "known are 7BIT and 8BITMIME")?),
            'N' => self.dsn.notify = Some(notify(argument()?)?),
            'R' => self.dsn.ret = Some(one_of('R', argument()?, &["FULL", "HDRS"], "known are full and hdrs")?),
            'V' => self.dsn.envelope_id = Some(envelope_id(argument()?)?),
            'C' => return Err(UsageError::Argument('C', argument()?, "use redeliver --config FILE sendmail")),
            // Historical; -X names a log file, which is not written.
            'A' | 'L' | 'X' | 'e' | 'h' | 'p' => drop(argument()?),
            '-' => return Err(UsageError::Unknown(format!("--{}", argument().unwrap_or_default()))),
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
    fn queue(&mut self, argument: &str, words: &mut impl Iterator<Item = String>) -> Result<(), UsageError> {
        let refused = |why| UsageError::Argument('q', argument.to_owned(), why);
        let mut named = |glued: &str| {
            let glued = Some(glued.to_owned()).filter(|glued| !glued.is_empty());
            glued.or_else(|| words.next()).ok_or(UsageError::NoArgument('q'))
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

    fn operands(&mut self, operands: &[String], here: &Here) -> Result<(), UsageError> {
        if !matches!(self.mode, Mode::Submit | Mode::Verify) {
            return Ok(());
        }
        for operand in operands {
            one_line(operand)?;
            let addresses = parse_address_list_here(operand, here)?;
            // An operand that names nobody is a mistake in a script, not an empty list.
            if addresses.is_empty() {
                return Err(AddressListError::Address(operand.clone(), AddressError::Empty).into());
            }
            self.recipients.extend(addresses);
        }
        if self.recipients.is_empty() && !self.recipients_from_header {
            return Err(UsageError::NoRecipient);
        }
        Ok(())
    }
}

/// Refuses line ends and the like: folded lists are for header fields, and what stands
/// behind a line end here is an attempt to slip a recipient in.
fn one_line(operand: &str) -> Result<(), AddressListError> {
    match operand.chars().find(|c| c.is_control()) {
        Some(c) => Err(AddressListError::Address(operand.to_owned(), AddressError::Control(c.into()))),
        None => Ok(()),
    }
}

fn reverse_path(text: &str, here: &Here) -> Result<ReversePath, UsageError> {
    let bare = text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text);
    let read = if bare.is_empty() { Ok(ReversePath::Null) } else { here.address(bare).map(ReversePath::Address) };
    read.map_err(|error| UsageError::ReversePath(text.to_owned(), error))
}

fn full_name(name: String) -> Result<String, UsageError> {
    if name.chars().any(char::is_control) {
        return Err(UsageError::Argument('F', name, "it has a control character"));
    }
    Ok(name)
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

/// RFC 3461 section 4.1: `never` stands alone.
fn notify(argument: String) -> Result<String, UsageError> {
    let words: Vec<_> = argument.split(',').map(|word| word.trim().to_ascii_uppercase()).collect();
    let known = words.iter().all(|word| matches!(word.as_str(), "SUCCESS" | "FAILURE" | "DELAY"));
    if known || words == ["NEVER"] {
        return Ok(words.join(","));
    }
    Err(UsageError::Argument('N', argument, "known are never, or any of success, failure and delay"))
}

/// RFC 3461 section 4.4: printable, at most 100 octets.
fn envelope_id(argument: String) -> Result<String, UsageError> {
    if argument.len() <= 100 && argument.bytes().all(|octet| (b' '..=b'~').contains(&octet)) {
        return Ok(argument);
    }
    Err(UsageError::Argument('V', argument, "an envelope id is at most 100 printable ASCII characters"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn here() -> Here {
        Here { domain: crate::mail::Domain::parse("h.example").expect("a domain"), is_user: |name| name == "root" }
    }

    fn read(line: &str) -> Result<Invocation, UsageError> {
        parse(line.split(' ').filter(|word| !word.is_empty()).map(OsString::from), &here())
    }

    /// What differs from the default, in words.
    fn told(line: &str) -> String {
        let invocation = read(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let mut words = vec![format!("{:?}", invocation.mode)];
        words.extend(invocation.recipients.iter().map(ToString::to_string));
        words.extend(invocation.recipients_from_header.then(|| "header".to_owned()));
        words.extend((!invocation.dot_ends_input).then(|| "dots".to_owned()));
        words.extend(invocation.reverse_path.map(|path| format!("from={path}")));
        words.extend(invocation.full_name.map(|name| format!("name={name}")));
        words.extend(invocation.smtputf8.then(|| "utf8".to_owned()));
        words.extend(invocation.require_tls.then(|| "tls".to_owned()));
        words.extend(invocation.json.then(|| "json".to_owned()));
        words.extend(invocation.verbose.then(|| "verbose".to_owned()));
        words.extend(invocation.dsn.attributes().iter().map(|(name, value)| format!("{name}={value}")));
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
    fn an_invocation_is_handed_over_as_it_is() {
        for line in ["b@x.example", "-f <> b@x.example", "-f a@y.example -t -i -v -O requiretls", "-bp"] {
            let invocation = read(line).expect(line);
            let text = serde_json::to_vec(&invocation).expect("written");
            assert_eq!(serde_json::from_slice::<Invocation>(&text).expect("read"), invocation, "{line}");
        }
    }

    #[test]
    fn the_calls_of_common_programs_are_understood() {
        for (line, meaning) in [
            ("-FCronDaemon -i -B8BITMIME -oem root", "Submit root@h.example dots name=CronDaemon"),
            ("-f root b@x.example", "Submit b@x.example from=root@h.example"),
            ("-t -i", "Submit header dots"),
            ("-oem -odb -oi -t -f a@h.example", "Submit header dots from=a@h.example"),
            ("-oi -oeq -om b@x.example", "Submit b@x.example dots"),
            (
                "-G -i -N success,delay -R hdrs -V id b@x.example",
                "Submit b@x.example dots dsn-envid=id dsn-notify=SUCCESS,DELAY dsn-ret=HDRS",
            ),
            ("-N never -B 7bit b@x.example", "Submit b@x.example dsn-notify=NEVER"),
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
            ("-R some b@x.example", 64, "hdrs"),
            ("-N never,delay b@x.example", 64, "never"),
            ("nobody", 65, "no domain"),
            ("-f nobody b@x.example", 65, "reverse-path \"nobody\""),
            ("-- -oQ@x.example", 65, "begins with '-'"),
            ("b@x.example ,", 65, "empty"),
        ] {
            let error = read(line).expect_err(line);
            assert_eq!(error.exit_code(), code, "{line}: {error}");
            assert!(error.to_string().contains(reason), "{line}: {error}");
        }
    }

    #[test]
    fn a_line_end_does_not_slip_a_second_recipient_in() {
        for operand in ["b@x.example\r\nRCPT TO:<c@x.example>", "b@x.example,\nc@x.example", "b@x.example\t"] {
            let error = parse([OsString::from(operand)], &here()).expect_err(operand);
            assert!(error.exit_code() == 65 && error.to_string().contains("control character"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_command_line_yields_a_control_character_or_an_error_of_several_lines(
            words in prop::collection::vec("-?[\\x00-\\x7f]{0,8}|-[a-zA-Z]{1,3}|[a-z]{1,3}@x\\.example", 0..6),
        ) {
            match parse(words.into_iter().map(OsString::from), &here()) {
                Err(error) => prop_assert!(!error.to_string().contains(char::is_control), "{:?}", error),
                Ok(invocation) => {
                    let path = invocation.reverse_path.map(|path| path.to_string()).unwrap_or_default();
                    let texts = [path, invocation.full_name.unwrap_or_default()];
                    prop_assert!(!texts.iter().any(|text| text.contains(char::is_control)));
                }
            }
        }
    }
}
