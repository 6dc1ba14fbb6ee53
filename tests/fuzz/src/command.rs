//! The server's reader of commands, and the client's writer of them.

use redeliver::smtp::{Command, CommandLine, ForwardPath};

/// A line is a command or is refused, in words that are one line. Whatever it says can be
/// written as a line that says the same; a domain may then be in A-labels.
pub fn command(octets: &[u8]) {
    let read = match CommandLine::parse(octets) {
        Ok(read) => read,
        Err(error) => {
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
            let (code, enhanced) = error.status();
            assert_eq!(u16::from(enhanced.as_bytes()[0] - b'0') % 10, if code == 421 { 4 } else { code / 100 });
            return;
        }
    };
    assert!(octets.ends_with(b"\r\n") && !octets[..octets.len() - 2].contains(&b'\n'), "one line is one command");
    let Some(line) = written(&read) else { return };
    let again = CommandLine::parse(line.as_bytes()).unwrap_or_else(|error| panic!("{line:?}: {error}"));
    assert_eq!(written(&again).as_deref(), Some(line.as_str()));
    if octets.is_ascii() {
        assert_eq!(again, read);
    }
}

/// `None` where a text follows that is not kept.
fn written(command: &CommandLine) -> Option<String> {
    let command = match command {
        CommandLine::Helo(name) => Command::helo(name),
        CommandLine::Ehlo(name) => Command::ehlo(name),
        CommandLine::Mail(from, parameters) => {
            let mut parameters = parameters.clone();
            // Said again it is the domain that decides, and that is ASCII on the wire.
            parameters.smtputf8 |= from.address().is_some_and(redeliver::mail::Address::needs_smtputf8);
            Command::mail(from, &parameters)
        }
        CommandLine::Rcpt(ForwardPath::Mailbox(to), parameters) => Command::rcpt(to, parameters),
        CommandLine::Data => Command::data(),
        CommandLine::Rset => Command::rset(),
        CommandLine::Quit => Command::quit(),
        CommandLine::StartTls => Command::starttls(),
        CommandLine::Auth { mechanism, initial } => return Some(auth(mechanism, initial.as_deref())),
        CommandLine::Rcpt(ForwardPath::Postmaster, parameters) => {
            return Some(format!("RCPT TO:<postmaster>{parameters}\r\n"));
        }
        // Or one that is only read where it is forgiven.
        CommandLine::Noop | CommandLine::Vrfy | CommandLine::Help | CommandLine::Rcpt(ForwardPath::Local(_), _) => {
            return None;
        }
    };
    Some(command.to_string())
}

fn auth(mechanism: &str, initial: Option<&str>) -> String {
    format!("AUTH {}\r\n", [mechanism].into_iter().chain(initial).collect::<Vec<_>>().join(" "))
}
