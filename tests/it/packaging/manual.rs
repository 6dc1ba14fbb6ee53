//! The manual has every key, matcher, mailet and option of the program, and none that is not.

use std::collections::BTreeSet;
use std::process::Command;

use super::known::{self, Keys, page};

/// A tagged paragraph: `.TP`, a line with the name, the text.
struct Entry {
    /// The last `.SS`, or the empty string.
    part: String,
    name: String,
    text: String,
}

/// The entries of one section (`.SH`).
fn entries(page: &str, section: &str) -> Vec<Entry> {
    let heading = format!(".SH {section}\n");
    let (_, behind) = page.split_once(&heading).unwrap_or_else(|| panic!("no section {section}"));
    let body = behind.split("\n.SH ").next().unwrap_or_default();
    let mut found: Vec<Entry> = Vec::new();
    let (mut part, mut tag_is_next) = (String::new(), false);
    for line in body.lines() {
        if let Some(heading) = line.strip_prefix(".SS ") {
            heading.clone_into(&mut part);
        } else if line == ".TP" {
            tag_is_next = true;
        } else if tag_is_next {
            tag_is_next = false;
            let name = line.split_whitespace().nth(1).unwrap_or_default().replace("\\-", "-");
            let name = name.trim_end_matches(['=', ',', ':']).to_owned();
            found.push(Entry { part: part.clone(), name, text: String::new() });
        } else if let Some(last) = found.last_mut() {
            last.text.push_str(line);
            last.text.push('\n');
        }
    }
    found
}

fn names(entries: &[Entry], part: &str) -> BTreeSet<String> {
    entries.iter().filter(|entry| entry.part == part).map(|entry| entry.name.clone()).collect()
}

/// What to do about a page that is not as the program is.
fn differences(file: &str, place: &str, written: &BTreeSet<String>, known: &BTreeSet<String>) -> Vec<String> {
    let lacks = known.difference(written).map(|name| {
        format!("packaging/man/{file}, {place}: describe {name}: '.TP', '.B {name}', what it does, 'Default: ...'")
    });
    let surplus =
        written.difference(known).map(|name| format!("packaging/man/{file}, {place}: {name} is not known: remove it"));
    lacks.chain(surplus).collect()
}

/// The unit and the value in force without it.
fn without_default(file: &str, entries: &[Entry]) -> Vec<String> {
    let untold = entries.iter().filter(|entry| !entry.text.contains("Default:") && !entry.text.contains("Required."));
    untold
        .map(|entry| {
            format!("packaging/man/{file}: {} {} has no 'Default: ...' and no 'Required.'", entry.part, entry.name)
        })
        .collect()
}

fn by_parts(file: &str, page: &str, section: &str, known: &Keys) -> Vec<String> {
    let written = entries(page, section);
    let parts: BTreeSet<_> = page.lines().filter_map(|line| line.strip_prefix(".SS ")).map(str::to_owned).collect();
    let mut found = without_default(file, &written);
    for (part, keys) in known {
        if !parts.contains(part) {
            found.push(format!("packaging/man/{file}, {section}: describe {part}: '.SS {part}'"));
        }
        found.extend(differences(file, &format!("{section}, {part}"), &names(&written, part), keys));
    }
    let surplus = written.iter().filter(|entry| !known.contains_key(&entry.part));
    found.extend(surplus.map(|entry| {
        format!("packaging/man/{file}: {} stands under {:?}, which is not known", entry.name, entry.part)
    }));
    found
}

#[test]
fn every_key_of_the_configuration_is_in_the_manual_and_no_other() {
    let file = "redeliver.yaml.5";
    let written = entries(&page(file), "KEYS");
    let all = written.iter().map(|entry| entry.name.clone()).collect();
    let mut found = differences(file, "section KEYS", &all, &known::main_keys());
    found.extend(without_default(file, &written));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_matcher_and_mailet_is_in_the_manual_with_its_parameters() {
    let file = "redeliver-mailets.5";
    let page = page(file);
    let (rules, mailets) = known::rules_and_mailets();
    let mut found = by_parts(file, &page, "MAILETS", &mailets);
    found.extend(differences(file, "section RULES", &names(&entries(&page, "RULES"), ""), &rules));
    found.extend(without_default(file, &entries(&page, "RULES")));
    let matchers = entries(&page, "MATCHERS").into_iter().map(|entry| entry.name).collect();
    found.extend(differences(file, "section MATCHERS", &matchers, &known::matchers()));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_key_of_jobs_and_schedules_is_in_the_manual() {
    let mut found = by_parts("redeliver-jobs.5", &page("redeliver-jobs.5"), "KINDS", &known::jobs());
    let schedules = entries(&page("redeliver-schedules.5"), "KEYS");
    found.extend(differences("redeliver-schedules.5", "section KEYS", &names(&schedules, ""), &known::schedules()));
    found.extend(without_default("redeliver-schedules.5", &schedules));
    assert!(found.is_empty(), "{found:#?}");
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_redeliver"))
}

fn help(words: &[&str]) -> String {
    let output = program().args(words).arg("--help").output().expect("it runs");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The sub-commands that a help text lists.
fn commands_within(help: &str) -> Vec<String> {
    let listed = help.split("\nCommands:\n").nth(1).unwrap_or_default().split("\n\n").next().unwrap_or_default();
    let first = |line: &str| {
        line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '))?.split_whitespace().next().map(str::to_owned)
    };
    listed.lines().filter_map(first).filter(|name| name != "help").collect()
}

/// Words that look like an option.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.starts_with("--") && word.len() > 2).map(str::to_owned).collect()
}

#[test]
fn every_command_has_a_page_of_its_own_with_all_its_options() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(program().arg("manual").arg(folder.path()).status().expect("it runs").success());
    let mut pages: BTreeSet<_> = folder
        .path()
        .read_dir()
        .expect("pages")
        .map(|entry| entry.expect("one").file_name().into_string().expect("ASCII"))
        .collect();
    let mut waiting = vec![Vec::<String>::new()];
    while let Some(path) = waiting.pop() {
        let words: Vec<_> = path.iter().map(String::as_str).collect();
        let (help, file) =
            (help(&words), format!("redeliver{}.8", path.iter().map(|word| format!("-{word}")).collect::<String>()));
        assert!(pages.remove(&file), "no page {file}");
        let text = std::fs::read_to_string(folder.path().join(&file)).expect("a page").replace("\\-", "-");
        for option in options(&help) {
            assert!(text.contains(&option), "{file} lacks {option}");
        }
        waiting.extend(commands_within(&help).into_iter().map(|word| [path.clone(), vec![word]].concat()));
    }
    assert!(pages.is_empty(), "pages without a command: {pages:?}");
}

/// Options in a text as sendmail has them: one letter, and what follows `-b`, `-o`, `-q`, `-O`.
fn short_options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| c.is_whitespace() || c == ',' || c == '"');
    let plain = |word: &str| {
        word.strip_prefix('-')
            .is_some_and(|rest| (1..=2).contains(&rest.len()) && rest.chars().all(char::is_alphabetic))
    };
    words.filter(|word| plain(word)).map(str::to_owned).collect()
}

#[test]
fn the_page_of_sendmail_has_the_options_that_its_help_has() {
    let page = page("sendmail.8").replace("\\-", "-").replace("\\fB", "").replace("\\fR", "").replace("\\fI", "");
    let (told, written) = (short_options(&help(&["sendmail"])), short_options(&page));
    assert!(told.len() > 8, "{told:?}");
    let lacks: Vec<_> = told.difference(&written).collect();
    assert!(lacks.is_empty(), "packaging/man/sendmail.8 lacks {lacks:?}");
}

#[test]
fn man_has_nothing_to_complain_of() {
    let generated = tempfile::tempdir().expect("a folder");
    assert!(program().arg("manual").arg(generated.path()).status().expect("it runs").success());
    let written = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/man");
    let pages = [generated.path(), &written].into_iter().flat_map(|folder| folder.read_dir().expect("a folder"));
    for page in pages.map(|entry| entry.expect("a page").path()) {
        let output =
            Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).arg(&page).output().expect("groff is there");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && told.is_empty(), "{}: {told}", page.display());
    }
}
