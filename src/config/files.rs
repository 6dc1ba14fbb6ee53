//! The files a configuration is made of.

use std::path::{Path, PathBuf};

use crate::yaml::{Diagnostic, Document, Fields, Node, Place, Reading, Weight};

/// One file, and what is wrong with it so far.
pub(super) struct File {
    /// Without folder and `.yaml`: the name of its job or schedule.
    pub(super) name: String,
    pub(super) reading: Reading,
    parsed: Result<Document, Diagnostic>,
}

impl File {
    pub(super) fn read(path: &Path) -> Self {
        Self::new(path, Document::read(path))
    }

    pub(super) fn built_in(path: &str, text: &str) -> Self {
        let path = Path::new(path);
        Self::new(path, Document::parse(path, text.as_bytes()))
    }

    fn new(path: &Path, parsed: Result<Document, Diagnostic>) -> Self {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self { name, reading: Reading::new(path), parsed }
    }

    /// The whole document, where it parses.
    pub(super) fn root(&self) -> Option<&Node> {
        self.parsed.as_ref().ok().map(Document::root)
    }

    /// Where something of it stands, as `path:line`.
    pub(super) fn line_of(&self, place: Place) -> Option<String> {
        self.parsed.as_ref().ok().map(|document| document.line_of(place))
    }

    /// Notes a problem with the value of a key of the document.
    pub(super) fn problem_at(&self, key: &'static str, message: String) {
        let fields = self.root().and_then(|root| Fields::of(root, "a job", &self.reading));
        if let Some(node) = fields.and_then(|mut fields| fields.node(key)) {
            self.reading.problem(node.place, message);
        }
    }

    pub(super) fn into_diagnostics(self) -> Vec<Diagnostic> {
        match self.parsed {
            Ok(document) => document.diagnostics(self.reading),
            Err(diagnostic) => vec![diagnostic],
        }
    }
}

/// All files of a folder, in the order of their names.
pub(super) struct Folder {
    pub(super) files: Vec<File>,
    wrong: Vec<Diagnostic>,
}

impl Folder {
    /// Reads every `.yaml` file of a folder; a folder that is not there has none.
    pub(super) fn read(path: &Path) -> Self {
        let mut folder = Self { files: Vec::new(), wrong: Vec::new() };
        match paths(path) {
            Ok(paths) => paths.iter().for_each(|path| folder.add(path)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => folder.wrong.push(wrong(path, format!("cannot be read: {error}"))),
        }
        folder
    }

    pub(super) fn built_in(folder: &str, files: &[(&str, &str)]) -> Self {
        let file = |(name, text): &(&str, &str)| File::built_in(&format!("{folder}/{name}.yaml"), text);
        Self { files: files.iter().map(file).collect(), wrong: Vec::new() }
    }

    fn add(&mut self, path: &Path) {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension {
            // A pipe would be waited for without end; a link that leads nowhere is told by reading it.
            "yaml" if path.metadata().is_ok_and(|facts| !facts.is_file() && !facts.is_dir()) => {
                self.wrong.push(wrong(path, "it is no file: remove it, or rename it".to_owned()));
            }
            "yaml" => self.files.push(File::read(path)),
            // Meant to be read, so not to be passed over in silence.
            other if ["yaml", "yml"].iter().any(|name| name.eq_ignore_ascii_case(other)) => {
                self.wrong.push(wrong(path, "only files called .yaml are read: rename it".to_owned()));
            }
            _ => {}
        }
    }

    pub(super) fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.wrong.into_iter().chain(self.files.into_iter().flat_map(File::into_diagnostics)).collect()
    }
}

/// The folders within a folder that have files which would be read there.
pub(super) fn folders_within(folder: &Path) -> Vec<PathBuf> {
    let has_files = |path: &PathBuf| {
        let inside = if path.is_dir() { paths(path).unwrap_or_default() } else { Vec::new() };
        inside.iter().any(|path| path.extension().is_some_and(|extension| extension == "yaml"))
    };
    paths(folder).unwrap_or_default().into_iter().filter(has_files).collect()
}

/// The visible entries of a folder, sorted.
fn paths(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn wrong(file: &Path, message: String) -> Diagnostic {
    Diagnostic { file: file.to_owned(), line: 1, column: 1, message, weight: Weight::Wrong }
}
