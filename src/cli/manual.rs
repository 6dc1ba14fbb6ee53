//! A manual page for every command, made of what the command line itself says.
//!
//! `packaging/build` has them written. The pages of sections 5 and 7 are texts in
//! `packaging/man`.

use std::io::{self, Write};
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::args::Arguments;
use super::exit::{Exit, Failure};
use super::sendmail;

/// Of the program, which is in /usr/sbin.
const SECTION: &str = "8";

/// What the exit codes of commands mean, but for sendmail's, whose text has its own.
const EXIT_STATUS: &str = r".SH EXIT STATUS
Those of
.BR sysexits (3),
the first of this list that is true:
.TP
.B 64
the command line is wrong
.TP
.B 78
the configuration is wrong
.TP
.B 73
the store cannot be opened
.TP
.B 74
the store, or the output, cannot be written
.TP
.B 70
a fault of redeliver itself, or
.I errors
in a run
.TP
.B 66
unknown key or repository
.TP
.B 65
what was given is no message or no address, or leaves something out that must be known
.TP
.B 69
some recipients failed for good; a port or a service is not to be had
.TP
.B 75
some recipients were deferred or left; the mail is in hand elsewhere
.TP
.B 0
none of these
";

const SEE_ALSO: &str = ".BR redeliver.yaml (5),
.BR redeliver\\-jobs (5),
.BR redeliver\\-schedules (5),
.BR redeliver\\-mailets (5),
.BR redeliver (7)
";

/// Writes the page of every command, those within others too, into `directory`.
pub(super) fn write(directory: &Path) -> Result<Exit, Failure> {
    let mut all = Arguments::command().disable_help_subcommand(true);
    all.build();
    write_with_those_within(&all, None, directory).map_err(|error| {
        Failure::new(Exit::CannotWrite, format!("cannot write manual pages to {}: {error}", directory.display()))
    })?;
    Ok(Exit::Ok)
}

fn write_with_those_within(command: &Command, parent: Option<&str>, directory: &Path) -> io::Result<()> {
    let man = Man::new(command.clone()).section(SECTION);
    let mut page = Vec::new();
    render(&man, command, parent, &mut page)?;
    std::fs::write(directory.join(man.get_filename()), page)?;
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        write_with_those_within(inner, Some(name(command)), directory)?;
    }
    Ok(())
}

fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

fn render(man: &Man, command: &Command, parent: Option<&str>, page: &mut Vec<u8>) -> io::Result<()> {
    // Without a date, which would be that of the build.
    writeln!(page, ".TH {} {SECTION} \"\" \"redeliver {}\" redeliver\n.nh", name(command), env!("CARGO_PKG_VERSION"))?;
    man.render_name_section(page)?;
    if name(command) == "redeliver-sendmail" {
        // It reads its arguments itself.
        writeln!(page, ".SH SYNOPSIS\n\\fBredeliver sendmail\\fR [\\fIOPTIONS\\fR] [\\fIRECIPIENT\\fR]...")?;
        writeln!(page, ".SH DESCRIPTION\n.nf\n{}.fi", verbatim(sendmail::HELP))?;
    } else {
        man.render_synopsis_section(page)?;
        man.render_description_section(page)?;
        man.render_options_section(page)?;
        if command.has_subcommands() {
            man.render_subcommands_section(page)?;
        }
        page.extend_from_slice(EXIT_STATUS.as_bytes());
    }
    write!(page, ".SH SEE ALSO\n{}{SEE_ALSO}", see_parent(parent))
}

fn see_parent(parent: Option<&str>) -> String {
    parent.map(|parent| format!(".BR {} ({SECTION}),\n", parent.replace('-', "\\-"))).unwrap_or_default()
}

/// Text in which nothing is a command of roff.
fn verbatim(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    escaped.lines().map(|line| format!("\\&{line}\n")).collect()
}
