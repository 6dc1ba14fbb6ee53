//! The configuration: a main file, a job and a schedule.

use std::path::Path;

use redeliver::config::{self, Source};
use redeliver::yaml::Diagnostic;

/// Lines that stand between the three files in one input.
const MARKS: [&str; 2] = ["\n=== jobs/a.yaml\n", "\n=== schedules/a.yaml\n"];
const FILES: [&str; 3] = ["redeliver.yaml", "jobs/a.yaml", "schedules/a.yaml"];

/// It is taken, or every mistake has its file, a line and column that are in it, and words
/// that are one line.
pub fn configuration(octets: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    for (file, text) in FILES.iter().zip(split(octets)) {
        let file = folder.path().join(file);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        std::fs::write(file, text).expect("written");
    }
    match config::load(&Source::File(folder.path().join(FILES[0]))) {
        Ok(config) => config.warnings().iter().for_each(|warning| one_line(warning)),
        Err(diagnostics) => {
            assert!(!diagnostics.0.is_empty());
            diagnostics.0.iter().for_each(|diagnostic| placed(diagnostic, folder.path()));
        }
    }
}

fn split(octets: &[u8]) -> Vec<&[u8]> {
    let (mut files, mut rest) = (Vec::new(), octets);
    for mark in MARKS {
        let Some(at) = rest.windows(mark.len()).position(|window| window == mark.as_bytes()) else { break };
        files.push(&rest[..=at]);
        rest = &rest[at + mark.len()..];
    }
    files.push(rest);
    files
}

fn placed(diagnostic: &Diagnostic, folder: &Path) {
    one_line(&diagnostic.to_string());
    assert!(!diagnostic.message.is_empty());
    let Ok(octets) = std::fs::read(&diagnostic.file) else {
        // A folder that the configuration names and that cannot be read.
        assert_eq!((diagnostic.line, diagnostic.column), (1, 1), "{diagnostic}");
        return;
    };
    assert!(diagnostic.file.starts_with(folder), "{diagnostic}");
    let text = String::from_utf8_lossy(&octets);
    let line = text.split('\n').nth(diagnostic.line.checked_sub(1).expect("counted from 1"));
    let line = line.unwrap_or_else(|| panic!("{diagnostic}: there is no such line"));
    assert!((1..=line.chars().count() + 1).contains(&diagnostic.column), "{diagnostic}: in {line:?}");
}

fn one_line(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
}
