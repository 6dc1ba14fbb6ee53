//! What the fuzz targets hold, of every input that is kept for them: `tests/fuzz`.

use std::path::{Path, PathBuf};

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "a crate of its own, which these tests look into")]
mod checks;

/// The inputs of one target, by name.
fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let files = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    files.map(|file| (file.clone(), std::fs::read(&file).expect("a file"))).collect()
}

fn hold(target: &str, check: fn(&[u8])) {
    let inputs = inputs(target);
    assert!(inputs.len() > 5, "{} inputs for {target}", inputs.len());
    for (file, octets) in inputs {
        // The name of the file stands above the words of a panic.
        println!("{}", file.display());
        check(&octets);
        // What is cut short is an input too.
        (1..8).for_each(|eighths| check(&octets[..octets.len() * eighths / 8]));
    }
}

#[test]
fn commands_hold() {
    hold("command", checks::command);
}

#[test]
fn content_holds() {
    hold("content", checks::content);
}

#[test]
fn replies_hold() {
    hold("reply", checks::reply);
}

#[test]
fn configurations_hold() {
    hold("configuration", checks::configuration);
}
