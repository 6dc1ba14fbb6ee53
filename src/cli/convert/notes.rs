//! What a conversion has to say, each with the line of the container that it is about.

use super::xml::Element;

/// One thing that is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    /// The line of the container, from 1.
    pub(super) line: usize,
    pub(super) text: String,
    /// Something that James did is not done any more, and whoever converts must know it.
    pub(super) must_be_known: bool,
}

/// All that is said.
#[derive(Debug, Default)]
pub(super) struct Notes(Vec<Note>);

impl Notes {
    /// Says what is good to know.
    pub(super) fn say(&mut self, element: &Element, text: impl Into<String>) {
        self.push(element.line, text.into(), false);
    }

    /// Says what must be known.
    pub(super) fn warn(&mut self, element: &Element, text: impl Into<String>) {
        self.push(element.line, text.into(), true);
    }

    /// The same for a line.
    pub(super) fn warn_at(&mut self, line: usize, text: impl Into<String>) {
        self.push(line, text.into(), true);
    }

    /// In the order of the lines, each once.
    pub(super) fn into_sorted(mut self) -> Vec<Note> {
        self.0.sort_by_key(|note| note.line);
        self.0.dedup();
        self.0
    }

    fn push(&mut self, line: usize, text: String, must_be_known: bool) {
        self.0.push(Note { line, text, must_be_known });
    }
}
