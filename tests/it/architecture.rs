//! The rooms are as ARCHITECTURE.md draws them: this test reads its table.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Rooms that every other may use; those without I/O and clock use `text` alone.
const FOR_ALL: [&str; 7] = ["clock", "yaml", "text", "stop", "live", "panics", "files"];
const PURE: [&str; 4] = ["mail", "smtp", "yaml", "text"];

type Rooms = BTreeMap<String, BTreeSet<String>>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The table: room to the rooms it may import. `None` stands for everything.
fn rooms() -> Rooms {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let rooms: Rooms = rows
        .flat_map(|line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            let words = cells.last().expect("a last cell").split_whitespace().filter(|word| *word != "-");
            let words: BTreeSet<_> = words.map(str::to_owned).collect();
            let names: Vec<_> = cells[0].split(", ").map(|name| name.trim_matches('`').to_owned()).collect();
            names.into_iter().map(move |name| (name, words.clone()))
        })
        .collect();
    assert!(rooms.len() > 8, "the table is read: {rooms:?}");
    rooms
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

fn room_of(file: &Path) -> String {
    let inside = file.strip_prefix(root().join("src")).expect("below src");
    let first = inside.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// Names behind `crate::`, tests of a room included.
fn imports(text: &str) -> BTreeSet<String> {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found: BTreeSet<_> = text.split("crate::").skip(1).map(name).collect();
    for group in text.split("crate::{").skip(1) {
        let inside = group.split(';').next().unwrap_or_default();
        found.extend(inside.split(',').map(|item| name(item.trim())));
    }
    found.remove("");
    found
}

fn breaches(rooms: &Rooms, room: &str, text: &str) -> Vec<String> {
    let Some(allowed) = rooms.get(room) else { return vec![format!("{room} is not in the table")] };
    let everything = allowed.contains("everything");
    imports(text)
        .into_iter()
        .filter(|name| name != room && !everything && !allowed.contains(name))
        .filter(|name| !FOR_ALL.contains(&name.as_str()) || (PURE.contains(&room) && name != "text"))
        .map(|name| format!("{room} imports {name}"))
        .collect()
}

#[test]
fn every_room_imports_only_what_its_line_names() {
    let rooms = rooms();
    let mut found = Vec::new();
    for file in sources(&root().join("src")) {
        let room = room_of(&file);
        if room == "lib" || room == "main" {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("a source");
        found.extend(breaches(&rooms, &room, &text).into_iter().map(|breach| format!("{}: {breach}", file.display())));
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// All of a room's text.
fn text_of(room: &str) -> String {
    let files = sources(&root().join("src")).into_iter().filter(|file| room_of(file) == room);
    files.map(|file| std::fs::read_to_string(file).expect("a source")).collect()
}

fn unused_permissions(room: &str, allowed: &BTreeSet<String>, text: &str) -> Vec<String> {
    let used = imports(text);
    let unused = allowed.iter().filter(|name| *name != "everything" && !used.contains(*name));
    unused.map(|name| format!("{room} may import {name} and does not")).collect()
}

#[test]
fn every_permission_of_the_table_is_used() {
    let rooms = rooms().into_iter().filter(|(_, allowed)| !allowed.contains("above"));
    let found: Vec<_> =
        rooms.flat_map(|(room, allowed)| unused_permissions(&room, &allowed, &text_of(&room))).collect();
    assert!(found.is_empty(), "{found:#?}");
    let planted = unused_permissions("mail", &BTreeSet::from(["store".to_owned()]), "use crate::text;");
    assert_eq!(planted, ["mail may import store and does not"]);
}

#[test]
fn a_planted_breach_is_found() {
    let rooms = rooms();
    assert_eq!(breaches(&rooms, "mail", "use crate::store::Store;"), ["mail imports store"]);
    assert_eq!(breaches(&rooms, "mail", "use crate::clock::Clock;"), ["mail imports clock"]);
    assert_eq!(breaches(&rooms, "mail", "use crate::stop::Stop;"), ["mail imports stop"]);
    assert_eq!(breaches(&rooms, "pipeline", "use crate::{mail, spool};"), ["pipeline imports spool"]);
    assert!(breaches(&rooms, "mail", "use crate::text::rfc3339;").is_empty());
    assert_eq!(breaches(&rooms, "attic", ""), ["attic is not in the table"]);
    assert!(breaches(&rooms, "store", "use crate::mail::Mail; crate::store::Error").is_empty());
}

#[test]
fn what_belongs_to_one_room_is_in_no_other() {
    for (needle, homes) in [
        ("rusqlite", &["store"][..]),
        ("clap::", &["cli"]),
        ("axum", &["admin"]),
        ("lettre", &["delivery"]),
        ("serde_yaml", &["yaml"]),
        ("Utc::now", &["clock"]),
        ("SystemTime::now", &["clock"]),
        // What is shown, and what is done to many mails.
        ("json!({", &["audit", "operations", "tasks", "admin"]),
        (".respool(", &["operations", "store"]),
        (".move_to(", &["operations", "store"]),
        (".purge(", &["operations", "store"]),
    ] {
        for file in sources(&root().join("src")) {
            let text = std::fs::read_to_string(&file).expect("a source");
            let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            let room = room_of(&file);
            assert!(!code.contains(needle) || homes.contains(&room.as_str()), "{needle} in {}", file.display());
        }
    }
}

#[test]
fn the_files_that_the_architecture_names_exist() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let named = text.split('`').skip(1).step_by(2).filter(|word| word.contains('/'));
    for word in named.filter(|word| Path::new(word).extension().is_some_and(|extension| extension == "rs")) {
        let exists = root().join(word).exists() || root().join("src").join(word).exists();
        assert!(exists, "{word}");
    }
}

/// The function names that the architecture gives as `Type::function` or `file::function`.
fn named_functions(text: &str) -> BTreeSet<String> {
    let words = text.split('`').skip(1).step_by(2).filter(|word| word.contains("::") && !word.contains(' '));
    let last = |word: &str| word.rsplit("::").next().unwrap_or_default().trim_end_matches("()").to_owned();
    words.map(last).filter(|name| name.starts_with(char::is_lowercase)).collect()
}

#[test]
fn the_functions_that_the_architecture_names_exist() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let code: String =
        sources(&root().join("src")).iter().map(|file| std::fs::read_to_string(file).expect("a source")).collect();
    let named = named_functions(&text);
    assert!(named.len() > 8, "the names are found: {named:?}");
    let exists = |name: &str| [format!("fn {name}("), format!("fn {name}<")].iter().any(|head| code.contains(head));
    let missing: Vec<_> = named.iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(!exists("no_such_function"));
}

/// Numbers in a text.
fn numbers(text: &str) -> Vec<u32> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn every_decision_stands_once_in_the_index_by_room() {
    let text = std::fs::read_to_string(root().join("DECISIONS.md")).expect("DECISIONS.md");
    let index = text.split("By room:\n\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("an index");
    let mut listed = numbers(index);
    listed.sort_unstable();
    let heading = |line: &str| numbers(line.strip_prefix("## ")?.split('.').next()?).first().copied();
    let decided: Vec<_> = text.lines().filter_map(heading).collect();
    assert!(decided.len() > 80 && decided.is_sorted(), "{decided:?}");
    assert_eq!(listed, decided);
}
