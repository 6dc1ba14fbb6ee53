//! The tree of a document, and where each part of it stands.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, Visitor};

/// No configuration has so many; aliases that repeat each other soon do.
const MAX_NODES: usize = 20_000;

/// The ordinal of a key or value in the order of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(usize);

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it stands.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// What a node can be.
#[derive(Debug, Clone)]
pub enum Value {
    /// `~`, `null`, or nothing at all.
    Null,
    /// `true` or `false`; `yes`, `on` and the like are texts.
    Boolean(bool),
    /// A whole number.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// Any other scalar.
    Text(String),
    /// A list.
    Sequence(Vec<Node>),
    /// Keys and values in the order of the file, none twice.
    Mapping(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key; numbers and the like as they were written.
    pub key: String,
    /// Where the key stands.
    pub key_place: Place,
    /// The value.
    pub value: Node,
}

impl Node {
    /// The text, where it is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value in words, for a message that says what was found instead.
    pub fn described(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Boolean(value) => value.to_string(),
            Value::Integer(value) => format!("the number {value}"),
            // With its point: it is no whole number.
            Value::Float(value) => format!("the number {value:?}"),
            Value::Text(text) => format!("the text {:?}", text.chars().take(60).collect::<String>()),
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
        }
    }
}

/// A parsed text.
pub(super) struct Tree {
    pub(super) root: Node,
    pub(super) repeated: Vec<(Place, String)>,
}

/// Line and column, counted from 1.
pub(super) type Position = (usize, usize);

/// Parses `text`; an error has the parser's position and its words.
pub(super) fn parse(text: &str) -> Result<Tree, (Position, String)> {
    let walk = Walk::default();
    match walk.over(text) {
        Ok(root) => Ok(Tree { root, repeated: walk.repeated.into_inner() }),
        Err(error) => {
            let (line, column) = position_of(&error);
            let words = error.to_string().replace(&format!(" at line {line} column {column}"), "");
            Err(((line, column), format!("not valid YAML: {words}")))
        }
    }
}

/// The position of `place`: where a reading of the same `text` fails that was told to fail there.
pub(super) fn position(text: &str, place: Place) -> Position {
    let walk = Walk { fail_at: Some(place), ..Walk::default() };
    walk.over(text).err().map_or((1, 1), |error| position_of(&error))
}

fn position_of(error: &serde_yaml::Error) -> Position {
    error.location().map_or((1, 1), |location| (location.line(), location.column()))
}

/// One reading of a text.
#[derive(Default)]
struct Walk {
    next: Cell<usize>,
    fail_at: Option<Place>,
    repeated: RefCell<Vec<(Place, String)>>,
}

impl Walk {
    fn over(&self, text: &str) -> Result<Node, serde_yaml::Error> {
        ValueSeed(self).deserialize(serde_yaml::Deserializer::from_str(text))
    }

    fn enter(&self) -> Place {
        let place = self.next.get();
        self.next.set(place + 1);
        Place(place)
    }

    /// Called while the parser is at `place`, so that it adds the position to the error.
    fn arrive<E: serde::de::Error>(&self, place: Place) -> Result<(), E> {
        if place.0 > MAX_NODES {
            return Err(E::custom(format!("more than {MAX_NODES} values")));
        }
        if self.fail_at == Some(place) { Err(E::custom("here")) } else { Ok(()) }
    }
}

/// Reads a key as text.
struct KeySeed<'a>(&'a Walk);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = (Place, String);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let place = self.0.enter();
        deserializer.deserialize_str(KeyVisitor(self.0, place))
    }
}

struct KeyVisitor<'a>(&'a Walk, Place);

impl Visitor<'_> for KeyVisitor<'_> {
    type Value = (Place, String);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text as key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Self::Value, E> {
        self.0.arrive(self.1)?;
        Ok((self.1, key.to_owned()))
    }
}

/// Reads a value of any kind.
struct ValueSeed<'a>(&'a Walk);

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let place = self.0.enter();
        deserializer.deserialize_any(ValueVisitor(self.0, place))
    }
}

struct ValueVisitor<'a>(&'a Walk, Place);

impl ValueVisitor<'_> {
    fn node<E: serde::de::Error>(&self, value: Value) -> Result<Node, E> {
        self.0.arrive(self.1)?;
        Ok(Node { place: self.1, value })
    }
}

impl<'de> Visitor<'de> for ValueVisitor<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Node, E> {
        self.node(Value::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Node, E> {
        self.node(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Node, E> {
        self.node(Value::Boolean(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Node, E> {
        self.node(Value::Integer(value.into()))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Node, E> {
        self.node(Value::Integer(value.into()))
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Node, E> {
        self.node(Value::Integer(value))
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Node, E> {
        self.node(Value::Integer(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        self.node(Value::Float(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Node, E> {
        self.node(Value::Text(value.to_owned()))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Node, A::Error> {
        Err(A::Error::custom("a !tag has no meaning here"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        self.0.arrive(self.1)?;
        let mut found = Vec::new();
        while let Some(item) = items.next_element_seed(ValueSeed(self.0))? {
            found.push(item);
        }
        self.node(Value::Sequence(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        self.0.arrive(self.1)?;
        let mut found: Vec<Entry> = Vec::new();
        let mut keys = HashSet::new();
        while let Some((key_place, key)) = entries.next_key_seed(KeySeed(self.0))? {
            let value = entries.next_value_seed(ValueSeed(self.0))?;
            if keys.insert(key.clone()) {
                found.push(Entry { key, key_place, value });
            } else {
                let message = format!("key {key:?} stands here a second time").replace('"', "'");
                self.0.repeated.borrow_mut().push((key_place, message));
            }
        }
        self.node(Value::Mapping(found))
    }
}
