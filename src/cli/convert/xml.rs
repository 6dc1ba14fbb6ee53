//! XML as far as a configuration of James needs it: elements, attributes, text, and the line
//! of each element.
//!
//! Bounded in size and depth. No document type is read, so no entity is ever expanded
//! beyond the five that XML itself has.

use quick_xml::Reader;
use quick_xml::XmlVersion;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};

/// Octets of a file at most.
pub(super) const MAX_BYTES: u64 = 4 << 20;

/// Elements within one another at most.
const MAX_DEPTH: usize = 64;

/// An element with all that is in it.
#[derive(Debug, Clone, Default)]
pub(super) struct Element {
    pub(super) name: String,
    /// Where it begins, from 1.
    pub(super) line: usize,
    attributes: Vec<(String, String)>,
    pub(super) children: Vec<Element>,
    text: String,
}

/// Why a text is not read, and at which line.
#[derive(Debug, thiserror::Error)]
#[error("{line}: {why}")]
pub(super) struct XmlError {
    line: usize,
    why: String,
}

impl Element {
    /// Reads a document, or a fragment of several elements; they are the children of an
    /// element without name.
    pub(super) fn parse(text: &str) -> Result<Self, XmlError> {
        let mut reading = Reading { text, position: 0, line: 1, open: Vec::new(), top: Self::default() };
        reading.read()?;
        if reading.top.children.is_empty() { Err(reading.wrong("there is no element")) } else { Ok(reading.top) }
    }

    /// An attribute's value, without blanks around it.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(own, _)| own == name).map(|(_, value)| value.trim())
    }

    /// Its own text, on one line and without blanks around it.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The children of that name.
    pub(super) fn children_named(&self, name: &str) -> impl Iterator<Item = &Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The texts of all children of that name, joined as James joins them.
    pub(super) fn joined(&self, name: &str) -> Option<String> {
        let texts: Vec<_> = self.children_named(name).map(Element::text).collect();
        if texts.is_empty() { None } else { Some(texts.join(", ")) }
    }

    /// The text of the first child of that name.
    pub(super) fn text_of(&self, name: &str) -> Option<&str> {
        self.children.iter().find(|child| child.name == name).map(Element::text)
    }
}

struct Reading<'a> {
    text: &'a str,
    /// How far lines were counted.
    position: usize,
    line: usize,
    open: Vec<Element>,
    top: Element,
}

impl Reading<'_> {
    fn read(&mut self) -> Result<(), XmlError> {
        let mut reader = Reader::from_str(self.text);
        loop {
            self.count_to(reader.buffer_position());
            let event = match reader.read_event() {
                Ok(event) => event,
                Err(error) => {
                    self.count_to(reader.error_position());
                    return Err(self.wrong(&error.to_string()));
                }
            };
            match event {
                Event::Eof if self.open.is_empty() => return Ok(()),
                Event::Eof => return Err(self.wrong("the file ends within an element")),
                Event::DocType(text) => return Err(self.document_type(&text.xml_content(XmlVersion::Implicit1_0))),
                other => self.take(other)?,
            }
        }
    }

    fn take(&mut self, event: Event<'_>) -> Result<(), XmlError> {
        match event {
            Event::Start(tag) => {
                if self.open.len() >= MAX_DEPTH {
                    return Err(self.wrong("elements stand too deep within one another"));
                }
                let element = self.element(&tag)?;
                self.open.push(element);
            }
            Event::Empty(tag) => {
                let element = self.element(&tag)?;
                self.close(element);
            }
            Event::End(_) => {
                if let Some(element) = self.open.pop() {
                    self.close(element);
                }
            }
            Event::Text(text) => self.add(&text.xml_content(XmlVersion::Implicit1_0)),
            Event::CData(text) => self.add(&text.xml_content(XmlVersion::Implicit1_0)),
            Event::GeneralRef(reference) => {
                let text = self.resolved(&reference)?;
                self.add(&text);
            }
            _ => {}
        }
        Ok(())
    }

    fn element(&self, tag: &BytesStart<'_>) -> Result<Element, XmlError> {
        let mut element = Element { name: tag.name().as_ref().to_owned(), line: self.line, ..Element::default() };
        for attribute in tag.attributes() {
            let attribute = attribute.map_err(|error| self.wrong(&error.to_string()))?;
            let value = attribute
                .normalized_value(XmlVersion::Implicit1_0)
                .map_err(|error| self.wrong(&error.to_string()))?
                .into_owned();
            element.attributes.push((attribute.key.as_ref().to_owned(), value));
        }
        Ok(element)
    }

    fn close(&mut self, mut element: Element) {
        // Long texts are wrapped in XML.
        let lines = element.text.lines().map(str::trim).filter(|line| !line.is_empty());
        element.text = lines.collect::<Vec<_>>().join(" ");
        self.open.last_mut().unwrap_or(&mut self.top).children.push(element);
    }

    fn add(&mut self, text: &str) {
        if let Some(element) = self.open.last_mut() {
            element.text.push_str(text);
        }
    }

    /// A character reference or one of XML's own five entities.
    fn resolved(&self, reference: &BytesRef<'_>) -> Result<String, XmlError> {
        if let Some(character) = reference.resolve_char_ref().map_err(|error| self.wrong(&error.to_string()))? {
            return Ok(character.to_string());
        }
        let known = resolve_xml_entity(reference);
        known.map(str::to_owned).ok_or_else(|| {
            let name = reference.xml_content(XmlVersion::Implicit1_0);
            self.wrong(&format!(
                "an entity is not known, and none is expanded: remove &{name};, or write what it stands for"
            ))
        })
    }

    /// What to do about a document type; it begins in the line where it was met.
    fn document_type(&self, text: &str) -> XmlError {
        let names = text.split("<!ENTITY").skip(1).filter_map(|rest| rest.split_whitespace().next());
        let entities: Vec<_> = names.filter(|name| *name != "%").map(|name| format!("&{name};")).collect();
        let and = if entities.is_empty() { String::new() } else { format!(" and {}", entities.join(", ")) };
        self.wrong(&format!("a document type is not read: remove <!DOCTYPE ...>{and}; the rest is read then"))
    }

    fn count_to(&mut self, position: u64) {
        let position = usize::try_from(position).unwrap_or(usize::MAX).min(self.text.len());
        if let Some(passed) = self.text.get(self.position..position) {
            self.line += passed.matches('\n').count();
            self.position = position;
        }
    }

    fn wrong(&self, why: &str) -> XmlError {
        XmlError { line: self.line, why: why.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_with_their_lines() {
        let root = Element::parse(
            "<?xml version=\"1.0\"?>\n<a x=' 1 &amp; 2 '>\n <!-- c -->\n <b>t&lt;&#65;</b>\n <b/>\n <c> a  b\n\n\tc </c>\n</a>",
        )
        .expect("well-formed")
        .children
        .remove(0);
        assert_eq!((root.name.as_str(), root.line, root.attribute("x")), ("a", 2, Some("1 & 2")));
        let told: Vec<_> = root.children_named("b").map(|b| (b.line, b.text().to_owned())).collect();
        assert_eq!(told, [(4, "t<A".to_owned()), (5, String::new())]);
        assert_eq!(root.text_of("c"), Some("a  b c"));
    }

    #[test]
    fn nothing_is_expanded_and_nothing_is_endless() {
        let deep = "<a>".repeat(100);
        for (text, why) in [
            ("<!DOCTYPE a [<!ENTITY x \"y\">]>\n<a>&x;</a>", "1: a document type"),
            ("<a>\n&x;</a>", "2: an entity is not known"),
            ("<a>\n<b></a>", "2: "),
            ("<a>\n<b>\n", "3: the file ends"),
            ("", "1: there is no element"),
            (deep.as_str(), "1: elements stand too deep"),
        ] {
            let told = Element::parse(text).expect_err(text).to_string();
            assert!(told.starts_with(why), "{why}: {told}");
        }
    }
}
