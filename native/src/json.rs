//! JSON objects and lists, with values that are borrowed from the text.
//!
//! Mirrors `edge/parsing/strict_json.py`, and never accepts more than it does. None means: Python decides.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{self, Serialize, Serializer};
use serde_json::value::RawValue;

const MAX_MEMBERS: usize = 256;
const MAX_DEPTH: usize = 32;

/// A value as far as it was read: lists and objects are checked JSON text.
#[derive(Debug)]
pub enum Value<'a> {
    Null,
    Bool(&'a str),
    Text(Cow<'a, str>),
    /// As it is written.
    Number(&'a str),
    List(&'a str),
    Object(&'a str),
}

pub type Members<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

/// The members of the object that the text is; their names are distinct.
pub fn members(text: &str) -> Option<Members<'_>> {
    serde_json::from_str(text).ok().map(|Object(members)| members)
}

/// The values of a list.
pub fn items(list: &str) -> Option<Vec<Value<'_>>> {
    serde_json::from_str(list).ok()
}

/// A value without blanks, as Python's `json` writes it. None where an object has a name twice.
pub fn compact(value: &Value<'_>) -> Option<String> {
    serde_json::to_string(value).ok()
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let unreadable = || ser::Error::custom("a name twice");
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(list) => serializer.collect_seq(items(list).ok_or_else(unreadable)?),
            Self::Object(object) => serializer.collect_map(members(object).ok_or_else(unreadable)?),
            Self::Bool(json) | Self::Number(json) => {
                serde_json::from_str::<&RawValue>(json).map_err(ser::Error::custom)?.serialize(serializer)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?.get();
        Ok(match json.as_bytes()[0] {
            b'"' => Self::Text(match &json[1..json.len() - 1] {
                plain if !plain.contains('\\') => Cow::Borrowed(plain),
                _ => Cow::Owned(serde_json::from_str(json).map_err(D::Error::custom)?),
            }),
            b'{' | b'[' if is_too_deep(json) => return Err(D::Error::custom("nested too deep")),
            b'{' => Self::Object(json),
            b'[' => Self::List(json),
            b'n' => Self::Null,
            b't' | b'f' => Self::Bool(json),
            _ => Self::Number(json),
        })
    }
}

fn is_too_deep(json: &str) -> bool {
    if json.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count() <= MAX_DEPTH {
        return false;
    }
    let (mut depth, mut in_text, mut is_escaped) = (0, false, false);
    json.bytes().any(|byte| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => depth -= 1,
            _ => {}
        }
        depth > MAX_DEPTH
    })
}

/// Borrowed unless it has an escape.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct Object<'a>(Members<'a>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut found = Vec::with_capacity(16);
        while let Some((Text(name), value)) = map.next_entry()? {
            if found.len() == MAX_MEMBERS || found.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom("too many members, or one twice"));
            }
            found.push((name, value));
        }
        Ok(Object(found))
    }
}
